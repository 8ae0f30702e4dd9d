//! The text of a notification's id: a snowflake in base 61. The peers' alphabet ends at `y`.

const DIGITS: &[u8; 61] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxy";

/// Nothing longer fits into 64 bits.
const LONGEST: usize = 11;

/// At most 11 characters, without leading zeros. A negative number stands for the unsigned one of the same bits.
pub fn format(id: i64) -> String {
    let mut rest = id as u64;
    let mut digits = Vec::with_capacity(LONGEST);
    loop {
        digits.push(char::from(DIGITS[(rest % 61) as usize]));
        rest /= 61;
        if rest == 0 {
            return digits.iter().rev().collect();
        }
    }
}

/// The id that [`format`] writes so. None for every other text, leading zeros included: two texts are never one id.
pub fn parse(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > LONGEST || (text[0] == b'0' && text.len() > 1) {
        return None;
    }
    let mut id: u64 = 0;
    for byte in text {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            b'a'..=b'y' => byte - b'a' + 36,
            _ => return None,
        };
        id = id.checked_mul(61)?.checked_add(u64::from(digit))?;
    }
    Some(id as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_id_is_read_back_from_its_text() {
        for id in [0, 1, 60, 61, 3_720, 3_721, i64::MAX, i64::MIN, -1] {
            let text = format(id);
            assert!(text.len() <= LONGEST, "{text}");
            assert_eq!(parse(text.as_bytes()), Some(id), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_ids() {
        for text in [&b""[..], b"z", b"00", b"01", b"-1", b"1 ", b"PqQT31GBoRG", b"100000000000", "\u{e9}".as_bytes()] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
