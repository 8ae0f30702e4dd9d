//! `uber-trace-id`, as peers send it who are traced by Jaeger's own clients: `{trace}:{span}:{parent}:{flags}` in hex,
//! where leading zeros may be missing.

/// Its parts: trace, span, whether it is sampled.
pub(super) fn parse(value: &str) -> Option<(u128, u64, bool)> {
    // Some clients escape the colons.
    let value = value.replace("%3A", ":").replace("%3a", ":");
    let mut parts = value.split(':');
    let mut part = |most: usize| parts.next().filter(|part| (1..=most).contains(&part.len()));
    let (trace, span, _parent, flags) = (part(32)?, part(16)?, part(16)?, part(2)?);
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if parts.next().is_some() || ![trace, span, flags].iter().all(|text| hex(text)) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((trace, span, flags & 1 == 1))
}

#[cfg(feature = "otlp")]
pub(super) fn format(trace: u128, span: u64, sampled: bool) -> String {
    format!("{trace:032x}:{span:016x}:0:{}", u8::from(sampled))
}

/// Whether a header names a parent.
pub fn is_uber_trace_id(value: &[u8]) -> bool {
    std::str::from_utf8(value).ok().and_then(parse).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uber_trace_id_is_taken_or_ignored() {
        let taken = [
            (
                "4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7:0:1",
                (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7, true),
            ),
            ("1:2:0:0", (1, 2, false)),
            ("1%3A2%3A0%3A3", (1, 2, true)),
        ];
        for (text, parts) in taken {
            assert_eq!(parse(text), Some(parts), "{text}");
        }
        let ignored = ["", "0:2:0:1", "1:0:0:1", "1:2:0", "1:2:0:1:5", "x:2:0:1", "1:+2:0:1", "1:2:0:", "1:2:0:111"];
        for text in ignored {
            assert!(!is_uber_trace_id(text.as_bytes()), "{text}");
        }
    }

    #[cfg(feature = "otlp")]
    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(parse(&format(7, 9, true)), Some((7, 9, true)));
        assert_eq!(format(7, 9, false), "00000000000000000000000000000007:0000000000000009:0:0");
    }
}
