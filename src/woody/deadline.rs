//! The `woody.deadline` header: an absolute UTC time.

use crate::wire::timestamp;

/// Why a header is no deadline. The text is what peers see behind `bad woody.deadline header: `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadDeadline(String);

/// Unix milliseconds. Only UTC is accepted: the suffix `Z`, `+00:00` or `-00:00`.
pub fn parse_deadline(header: &[u8]) -> Result<i64, BadDeadline> {
    timestamp::parse_millis(header).map_err(|error| BadDeadline(error.to_string()))
}

/// Always three fraction digits and `Z`: the only form that every peer reads.
pub fn format_deadline(unix_ms: i64) -> String {
    timestamp::format_millis(unix_ms)
}
