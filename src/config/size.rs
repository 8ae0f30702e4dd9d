//! Sizes (`64M`, 1024-based) and percents (`90%`) as users write them.

use serde::Serializer;

const UNITS: [(&str, u32); 6] = [("P", 50), ("T", 40), ("G", 30), ("M", 20), ("K", 10), ("B", 0)];

/// What the error messages tell people to write.
pub(super) const HOW: &str = "write digits and a unit of B, K, M, G, T, P (1024-based), like 64M";
pub(super) const HOW_PERCENT: &str = "write a whole percentage from 0% to 100%, like 90%";

/// Splits `64M` into its digits and its unit.
pub(super) fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit))
}

/// Reads `64M` as bytes; None if it is no size or does not fit 64 bits.
pub(super) fn parse(text: &str) -> Option<u64> {
    let (digits, unit) = split(text)?;
    let (_, shift) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    digits.checked_mul(1 << shift)
}

/// The shortest text that reads back as the same size.
pub(super) fn format(bytes: u64) -> String {
    let fits = |(_, shift): &&(&str, u32)| bytes != 0 && bytes.trailing_zeros() >= *shift;
    let (name, shift) = UNITS.iter().find(fits).unwrap_or(&UNITS[5]);
    format!("{}{name}", bytes >> shift)
}

/// Reads `90%`.
pub(super) fn percent(text: &str) -> Option<u8> {
    let number = text.trim().strip_suffix('%')?;
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    let value: u8 = number.parse().ok()?;
    (digits && value <= 100).then_some(value)
}

pub(super) fn text<S: Serializer>(bytes: &u64, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&format(*bytes))
}

pub(super) fn percent_text<S: Serializer>(value: &u8, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&format!("{value}%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_in_either_case() {
        let table = [
            ("0B", 0),
            ("7b", 7),
            ("1K", 1 << 10),
            ("64m", 64 << 20),
            ("2G", 2 << 30),
            ("1T", 1 << 40),
            ("1P", 1 << 50),
        ];
        for (text, bytes) in table {
            assert_eq!(parse(text), Some(bytes), "{text}");
            assert_eq!(format(bytes), text.to_ascii_uppercase());
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "64", "M", "-1M", "1.5G", "64 M", "64MB", "99999999P"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_percent_is_whole_and_at_most_a_hundred() {
        assert_eq!(percent("90%"), Some(90));
        assert_eq!(percent("100%"), Some(100));
        for text in ["90", "101%", "-1%", "+5%", "9.5%", "%", "300%"] {
            assert_eq!(percent(text), None, "{text}");
        }
    }
}
