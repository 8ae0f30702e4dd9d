//! RFC 3339 in UTC, as the peers write and read it. No clock is read here.

use std::fmt::Write as _;

const DAY: i64 = 86_400;

/// 10000-01-01T00:00:00Z in unix seconds: no text of four year digits reaches it.
const YEAR_10000: i64 = 253_402_300_800;

/// Why a text is no UTC timestamp. Shown as the word that the original says, where it says one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// The suffix is none of `Z`, `+00:00`, `-00:00`.
    #[error("not_utc")]
    NotUtc,
    /// Something else where a number should stand.
    #[error("badarg")]
    BadNumber,
    /// There is no such month, or the day is 0.
    #[error("function_clause")]
    NoSuchDate,
    /// The month is shorter.
    #[error("if_clause")]
    NoSuchDay,
    /// Not of the form at all; the original knows no word for it and crashes.
    #[error("badmatch")]
    Malformed,
}

/// Days since 1970-01-01 of a civil date.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn date_time(seconds: i64) -> String {
    let (year, month, day) = civil_from_days(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// An event's creation time: the shortest of no, three or six fraction digits.
pub fn format_micros(micros: i64) -> String {
    let mut text = date_time(micros.div_euclid(1_000_000));
    let fraction = micros.rem_euclid(1_000_000);
    let written = match fraction {
        0 => Ok(()),
        _ if fraction % 1_000 == 0 => write!(text, ".{:03}", fraction / 1_000),
        _ => write!(text, ".{fraction:06}"),
    };
    debug_assert!(written.is_ok(), "writing to a String can't fail");
    text.push('Z');
    text
}

/// A deadline: always three fraction digits.
pub fn format_millis(millis: i64) -> String {
    format!("{}.{:03}Z", date_time(millis.div_euclid(1_000)), millis.rem_euclid(1_000))
}

/// A timer: whole seconds, the fraction dropped.
pub fn format_seconds(millis: i64) -> String {
    format!("{}Z", date_time(millis.div_euclid(1_000)))
}

/// Whole seconds since 1970, and the digits after the point.
fn parse(text: &[u8]) -> Result<(i64, &[u8]), TimestampError> {
    if ![&b"Z"[..], b"+00:00", b"-00:00"].iter().any(|suffix| text.ends_with(suffix)) {
        return Err(TimestampError::NotUtc);
    }
    let (stem, rest) = text.split_at_checked(19).ok_or(TimestampError::Malformed)?;
    // What separates date and time is left open: the peers take any character.
    for (at, mark) in [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')] {
        if stem[at] != mark {
            return Err(TimestampError::Malformed);
        }
    }
    let number = |from: usize, digits: usize| {
        stem[from..from + digits].iter().try_fold(0, |sum, byte| match byte {
            b'0'..=b'9' => Ok(sum * 10 + i64::from(byte - b'0')),
            _ => Err(TimestampError::BadNumber),
        })
    };
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return Err(TimestampError::NoSuchDate),
    };
    if day < 1 {
        return Err(TimestampError::NoSuchDate);
    }
    if day > days_in_month {
        return Err(TimestampError::NoSuchDay);
    }
    let fraction_end = rest.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'.')).unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(fraction_end);
    match zone {
        b"Z" | b"+00:00" | b"-00:00" => {}
        // Here the peers expect a sign and a number of hours.
        [_, tens, ones, ..] if !tens.is_ascii_digit() || !ones.is_ascii_digit() => {
            return Err(TimestampError::BadNumber);
        }
        _ => return Err(TimestampError::Malformed),
    }
    let digits = match fraction {
        [] => fraction,
        [b'.', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return Err(TimestampError::BadNumber),
    };
    let seconds = days_from_civil(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    if seconds >= YEAR_10000 {
        return Err(TimestampError::Malformed);
    }
    Ok((seconds, digits))
}

/// Unix nanoseconds of a UTC timestamp, further digits dropped. Accepted as the original's parser does: any character
/// between date and time, any number of fraction digits, and any two digits as hour, minute and second, which carry
/// forward.
pub fn parse_nanos(text: &[u8]) -> Result<i128, TimestampError> {
    let (seconds, digits) = parse(text)?;
    let fraction = (0..9).fold(0, |sum, at| sum * 10 + i128::from(digits.get(at).map_or(0, |digit| digit - b'0')));
    Ok(i128::from(seconds) * 1_000_000_000 + fraction)
}

/// Unix milliseconds, the fraction rounded to the nearest one: a deadline.
pub fn parse_millis(text: &[u8]) -> Result<i64, TimestampError> {
    // Years are four digits, so the number of milliseconds always fits.
    Ok((parse_nanos(text)? + 500_000).div_euclid(1_000_000) as i64)
}

/// Unix seconds, the fraction dropped: a timer's target.
pub fn parse_seconds(text: &[u8]) -> Result<i64, TimestampError> {
    Ok(parse(text)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_is_read_back_from_its_text() {
        // The first and the last day of four year digits, and between them one whole turn of the calendar.
        for day in [-719_528, 2_932_896].into_iter().chain(-25_567..120_530) {
            let seconds = day * DAY + day.rem_euclid(DAY);
            assert_eq!(parse_seconds(format_seconds(seconds * 1_000).as_bytes()), Ok(seconds));
        }
    }

    #[test]
    fn fractions_are_rounded_to_the_millisecond_and_may_carry() {
        for (text, millis) in [
            ("1970-01-01T00:00:00.0004Z", 0),
            ("1970-01-01T00:00:00.0005Z", 1),
            ("1970-01-01T00:00:00.9999Z", 1_000),
            ("1970-01-01T00:00:00.9995999999999Z", 1_000),
            ("1970-01-01T00:00:00.5+00:00", 500),
            ("1970-01-01_00:00:00.5-00:00", 500),
            ("1970-01-01T24:00:00Z", 86_400_000),
            ("1970-01-01T00:60:60Z", 3_660_000),
            ("1969-12-31T23:59:59.5Z", -500),
        ] {
            assert_eq!(parse_millis(text.as_bytes()), Ok(millis), "{text}");
        }
    }

    #[test]
    fn each_malformed_text_has_the_word_that_peers_know() {
        for (text, error) in [
            ("2099-01-02T03:04:05+03:00", TimestampError::NotUtc),
            ("2099-01-02T03:04:05+0000", TimestampError::NotUtc),
            ("2099-01-02T03:04:05z", TimestampError::NotUtc),
            ("2099-01-02T03:04:05", TimestampError::NotUtc),
            ("2099-01-02", TimestampError::NotUtc),
            ("", TimestampError::NotUtc),
            ("30s", TimestampError::NotUtc),
            ("5000", TimestampError::NotUtc),
            ("badboy", TimestampError::NotUtc),
            ("2099-13-02T03:04:05Z", TimestampError::NoSuchDate),
            ("2099-00-02T03:04:05Z", TimestampError::NoSuchDate),
            ("2099-01-00T03:04:05Z", TimestampError::NoSuchDate),
            ("2099-02-30T03:04:05Z", TimestampError::NoSuchDay),
            ("2100-02-29T03:04:05Z", TimestampError::NoSuchDay),
            ("2099-01-02T03:04:05.Z", TimestampError::BadNumber),
            ("2099-01-02T03:04:05,5Z", TimestampError::BadNumber),
            ("2099-01-02T03:04:05.5.5Z", TimestampError::BadNumber),
            ("2099-01-02T03:04:05Z, 2099-01-02T03:04:05Z", TimestampError::BadNumber),
            ("2099-01-02T0x:04:05Z", TimestampError::BadNumber),
            ("2099-01-02T03:04:05,123Z", TimestampError::Malformed),
            ("Z", TimestampError::Malformed),
            ("badZ", TimestampError::Malformed),
            ("2099-1-2T03:04:05Z", TimestampError::Malformed),
            ("12099-01-02T03:04:05Z", TimestampError::Malformed),
            ("9999-12-31T24:00:00Z", TimestampError::Malformed),
            ("2099-01-02\u{e9}03:04:05Z", TimestampError::Malformed),
        ] {
            assert_eq!(parse_millis(text.as_bytes()), Err(error), "{text}");
        }
    }
}
