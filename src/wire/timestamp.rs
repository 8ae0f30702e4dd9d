//! RFC 3339 in UTC, as the peers write and read it. No clock is read here.

use std::fmt::Write as _;

const DAY: i64 = 86_400;

/// Why a text is no UTC timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// The suffix is none of `Z`, `+00:00`, `-00:00`. The name is what peers see.
    #[error("not_utc")]
    NotUtc,
    #[error("badarg")]
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

/// Unix nanoseconds of a UTC timestamp. Accepted as the original's parser does: `T`, `t`, `_` or a blank between date
/// and time, any number of fraction digits, hour 24, minute 60 and second 60 carried forward.
pub fn parse_nanos(text: &[u8]) -> Result<i128, TimestampError> {
    let stem = [&b"Z"[..], b"+00:00", b"-00:00"]
        .iter()
        .find_map(|suffix| text.strip_suffix(*suffix))
        .ok_or(TimestampError::NotUtc)?;
    let number = |from: usize, digits: usize| -> Result<i64, TimestampError> {
        let part = stem.get(from..from + digits).ok_or(TimestampError::Malformed)?;
        part.iter().try_fold(0, |sum, byte| match byte {
            b'0'..=b'9' => Ok(sum * 10 + i64::from(byte - b'0')),
            _ => Err(TimestampError::Malformed),
        })
    };
    let mark = |at: usize, marks: &[u8]| match stem.get(at) {
        Some(byte) if marks.contains(byte) => Ok(()),
        _ => Err(TimestampError::Malformed),
    };
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    mark(4, b"-")?;
    mark(7, b"-")?;
    mark(10, b"Tt_ ")?;
    mark(13, b":")?;
    mark(16, b":")?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return Err(TimestampError::Malformed),
    };
    if day < 1 || day > days_in_month || hour > 24 || minute > 60 || second > 60 {
        return Err(TimestampError::Malformed);
    }
    let mut nanos: i128 = 0;
    if let Some(fraction) = stem.get(19..).filter(|rest| !rest.is_empty()) {
        let digits = fraction.strip_prefix(b".").ok_or(TimestampError::Malformed)?;
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(TimestampError::Malformed);
        }
        let mut scale: i128 = 100_000_000;
        for digit in digits.iter().take(9) {
            nanos += i128::from(digit - b'0') * scale;
            scale /= 10;
        }
    }
    let seconds = days_from_civil(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    Ok(i128::from(seconds) * 1_000_000_000 + nanos)
}

/// Unix milliseconds, the fraction rounded to the nearest one: a deadline.
pub fn parse_millis(text: &[u8]) -> Result<i64, TimestampError> {
    // Years are four digits, so the number of milliseconds always fits.
    Ok((parse_nanos(text)? + 500_000).div_euclid(1_000_000) as i64)
}
