//! Durations as users write them: digits and a unit, or `infinity` where a key allows it.

use std::time::Duration;

use serde::Serializer;

/// Units from the largest down, in microseconds. `M` is minutes and `MU` microseconds, as before.
const UNITS: [(&str, u64); 7] = [
    ("W", 7 * 24 * 3600 * 1_000_000),
    ("D", 24 * 3600 * 1_000_000),
    ("H", 3600 * 1_000_000),
    ("M", 60 * 1_000_000),
    ("S", 1_000_000),
    ("MS", 1000),
    ("MU", 1),
];

/// What the error messages tell people to write.
pub(super) const HOW: &str = "write digits and a unit of W, D, H, M (minutes), S, MS, MU (microseconds), like 30s";

pub(super) const INFINITY: &str = "infinity";

/// Reads `30s`; None if it is no duration, or one of more than 500,000 years.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = super::size::split(text)?;
    let (_, micros) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    digits.checked_mul(*micros).map(Duration::from_micros)
}

/// The shortest text that reads back as the same duration.
pub(super) fn format(duration: Duration) -> String {
    let micros = duration.as_micros();
    if micros == 0 {
        return "0s".to_owned();
    }
    // INVARIANT: MU divides everything, so there is always a unit.
    let fits = |(_, unit): &&(&str, u64)| micros.is_multiple_of(u128::from(*unit));
    let (name, unit) = UNITS.iter().find(fits).unwrap_or(&UNITS[6]);
    format!("{}{}", micros / u128::from(*unit), name.to_ascii_lowercase())
}

pub(super) fn text<S: Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&format(*duration))
}

pub(super) fn or_infinity<S: Serializer>(duration: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => text(duration, out),
        None => out.serialize_str(INFINITY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_in_either_case() {
        let table = [
            ("4W", 4 * 604_800_000_000),
            ("1d", 86_400_000_000),
            ("2H", 7_200_000_000),
            ("10m", 600_000_000),
            ("30S", 30_000_000),
            ("500ms", 500_000),
            ("500Ms", 500_000),
            ("7MU", 7),
            ("0s", 0),
        ];
        for (text, micros) in table {
            assert_eq!(parse(text), Some(Duration::from_micros(micros)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "30", "s", "-1s", "1.5s", "30 s", "1s30ms", "5y", "99999999999999999W"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for text in ["4w", "8d", "25h", "10m", "90s", "1500ms", "1001mu", "0s"] {
            assert_eq!(parse(text).map(format).as_deref(), Some(text));
        }
    }
}
