//! How a call fails, and how each failure looks on the wire.
//!
//! Policy: the class is what callers act on (retry, give up, ask again); the source says only whether the failure arose
//! here or was reported by a server that we called. Reasons are for people: any text, made safe for a header.

use std::fmt;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::bodies::Exhausted;
use crate::wire;

/// Longest reason on the wire, in bytes: proxies bound the whole header block at about twice this.
const MAX_REASON: usize = 4096;

/// What peers' clients say of their pools too.
const POOL_FULL: &str = "checkout_timeout";

/// What the reason begins with where one of our own bounds is reached, beside the pool's.
const OVERLOAD: &str = "overload: ";

/// What a caller may conclude.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Final: the same call fails again.
    ResultUnexpected,
    /// Retryable: surely not done.
    ResourceUnavailable,
    /// Unknown: it may have been done.
    ResultUnknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Arose here.
    Internal,
    /// Reported by, or between us and, a server that we called.
    External,
    /// The request itself is wrong. Only a server says it, and a client never meets it: there it is `External`.
    Caller,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub source: Source,
    pub class: Class,
    pub details: String,
}

// === impl Class ===

impl Class {
    /// As `woody.error-class` carries it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ResultUnexpected => "Result Unexpected",
            Self::ResourceUnavailable => "Resource Unavailable",
            Self::ResultUnknown => "Result Unknown",
        }
    }

    /// As clients compare it: in any case.
    pub(super) fn parse(header: &[u8]) -> Option<Self> {
        [Self::ResultUnexpected, Self::ResourceUnavailable, Self::ResultUnknown]
            .into_iter()
            .find(|class| header.eq_ignore_ascii_case(class.as_str().as_bytes()))
    }
}

impl fmt::Display for Class {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

// === impl Source ===

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Internal => "internal",
            Self::External => "external",
            Self::Caller => "caller",
        })
    }
}

// === impl Error ===

impl Error {
    pub fn internal(class: Class, details: impl Into<String>) -> Self {
        Self { source: Source::Internal, class, details: details.into() }
    }

    pub fn external(class: Class, details: impl Into<String>) -> Self {
        Self { source: Source::External, class, details: details.into() }
    }

    /// A failure of ours that a retry would not cure.
    pub fn unexpected(details: impl Into<String>) -> Self {
        Self::internal(Class::ResultUnexpected, details)
    }

    /// Surely not done; a retry may help.
    pub fn unavailable(details: impl Into<String>) -> Self {
        Self::internal(Class::ResourceUnavailable, details)
    }

    /// It may have been done.
    pub fn unknown(details: impl Into<String>) -> Self {
        Self::internal(Class::ResultUnknown, details)
    }

    /// The client's own pool was full for too long; nothing was sent.
    pub(super) fn pool_full() -> Self {
        Self::unavailable(POOL_FULL)
    }

    /// A bound of ours is reached.
    pub(super) fn overload(exhausted: Exhausted) -> Self {
        let error = Self::unavailable(exhausted.to_string());
        debug_assert!(error.is_own_bound());
        error
    }

    /// Whether a bound of this process, and nothing of the peer's, stood in the way.
    pub fn is_own_bound(&self) -> bool {
        let own = self.source == Source::Internal && self.class == Class::ResourceUnavailable;
        own && (self.is_pool_full() || self.details.starts_with(OVERLOAD))
    }

    /// Whether that bound is the pool's.
    pub fn is_pool_full(&self) -> bool {
        self.source == Source::Internal && self.details == POOL_FULL
    }

    /// The request is wrong in itself.
    pub fn bad_request(details: impl Into<String>) -> Self {
        Self { source: Source::Caller, class: Class::ResultUnexpected, details: details.into() }
    }

    /// How the error looks on the wire: INVARIANT: the only place that says so.
    pub fn status(&self) -> StatusCode {
        match (self.source, self.class) {
            (Source::Internal, Class::ResultUnexpected) => StatusCode::INTERNAL_SERVER_ERROR,
            (Source::Internal, Class::ResourceUnavailable) => StatusCode::SERVICE_UNAVAILABLE,
            (Source::Internal, Class::ResultUnknown) => StatusCode::GATEWAY_TIMEOUT,
            (Source::External, Class::ResultUnexpected | Class::ResourceUnavailable | Class::ResultUnknown) => {
                StatusCode::BAD_GATEWAY
            }
            // Nothing was called for a request that is wrong: its class says so whatever it was made with.
            (Source::Caller, Class::ResultUnexpected | Class::ResourceUnavailable | Class::ResultUnknown) => {
                StatusCode::BAD_REQUEST
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}: {}", self.source, self.class, self.details)
    }
}

impl std::error::Error for Error {}

/// Arguments that can't be read are the caller's fault.
impl From<wire::Error> for Error {
    fn from(error: wire::Error) -> Self {
        Self::bad_request(format!("thrift decode error: {error}"))
    }
}

/// A text as a header value: control bytes become blanks, so that no reason can split the header block; UTF-8 stays
/// raw; what is too long is cut where a character ends.
pub(super) fn reason(text: impl Into<Vec<u8>>) -> HeaderValue {
    let mut bytes = text.into();
    if bytes.len() > MAX_REASON {
        // A continuation byte at the cut belongs to a character that began before it.
        let ends = |at: &usize| bytes[*at] & 0b1100_0000 != 0b1000_0000;
        bytes.truncate((MAX_REASON - 3..=MAX_REASON).rev().find(ends).unwrap_or(MAX_REASON));
    }
    for byte in &mut bytes {
        if byte.is_ascii_control() {
            *byte = b' ';
        }
    }
    // Without control bytes every byte is allowed in a value.
    HeaderValue::from_maybe_shared(Bytes::from(bytes)).unwrap_or_else(|_| HeaderValue::from_static("unprintable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_status() {
        let table = [
            (Source::Internal, [500, 503, 504]),
            (Source::External, [502, 502, 502]),
            (Source::Caller, [400, 400, 400]),
        ];
        for (source, statuses) in table {
            let classes = [Class::ResultUnexpected, Class::ResourceUnavailable, Class::ResultUnknown];
            for (class, status) in classes.into_iter().zip(statuses) {
                assert_eq!(Error { source, class, details: String::new() }.status(), status, "{source} {class}");
            }
        }
    }

    #[test]
    fn a_reason_is_safe_for_a_header() {
        assert_eq!(reason("a\r\nb\tc\0d\x7f").as_bytes(), b"a  b c d ");
        assert_eq!(reason("причина").as_bytes(), "причина".as_bytes());
        assert_eq!(reason(vec![0xff, 0xfe, b'\n']).as_bytes(), [0xff, 0xfe, b' ']);
        assert_eq!(reason("x".repeat(MAX_REASON)).len(), MAX_REASON);
        for pad in 0..4 {
            let long = "x".repeat(pad) + &"д€😀".repeat(MAX_REASON);
            let cut = reason(long);
            assert!(cut.len() <= MAX_REASON && cut.len() > MAX_REASON - 4);
            assert!(std::str::from_utf8(cut.as_bytes()).is_ok());
        }
    }
}
