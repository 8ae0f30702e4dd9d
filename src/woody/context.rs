//! What travels with a request.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::clock::Snowflakes;

/// The ids, deadline and baggage of a request. Ids are opaque bytes of at most [`Context::MAX_ID`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    pub trace_id: Bytes,
    pub span_id: Bytes,
    /// `undefined` at the root of a trace.
    pub parent_id: Bytes,
    /// Unix milliseconds.
    pub deadline: Option<i64>,
    /// Baggage that goes on with every call: lower-case key, raw value.
    pub meta: Vec<(Bytes, Bytes)>,
    /// `traceparent`, `tracestate` and `baggage` as they came, if the `traceparent` was valid; and a valid `uber-trace-id`.
    pub trace: Vec<(HeaderName, HeaderValue)>,
}

// === impl Context ===

impl Context {
    /// Longest id in bytes.
    pub const MAX_ID: usize = 64;

    /// The context of work that no request asked for.
    pub fn root(ids: &Snowflakes) -> Self {
        Self {
            trace_id: ids.next().to_string().into(),
            span_id: ids.next().to_string().into(),
            parent_id: Bytes::from_static(b"undefined"),
            ..Self::default()
        }
    }

    /// The context of a call made on behalf of this one: the same trace, one level deeper.
    pub fn child(&self, span_id: impl Into<Bytes>) -> Self {
        Self { span_id: span_id.into(), parent_id: self.span_id.clone(), ..self.clone() }
    }
}

/// Whether a `traceparent` names a parent, by the rules of the peers' propagator: flags are exactly `00` or `01`, ids
/// are not zero, a version above 00 may have more behind the flags.
pub(super) fn is_traceparent(value: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(u8::is_ascii_hexdigit);
    let id = |part: &[u8]| hex(part) && part.iter().any(|digit| *digit != b'0');
    let Some((fields, rest)) = value.split_at_checked(55) else { return false };
    let (version, flags) = (&fields[..2], &fields[53..]);
    let more = match version {
        b"00" => rest.is_empty(),
        _ => rest.is_empty() || rest[0] == b'-',
    };
    let dashes = [2, 35, 52].iter().all(|at| fields[*at] == b'-');
    let known_version = hex(version) && !version.eq_ignore_ascii_case(b"ff");
    dashes && known_version && id(&fields[3..35]) && id(&fields[36..52]) && matches!(flags, b"00" | b"01") && more
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_taken_or_ignored_as_the_peers_do() {
        let flags = |flags: &str| format!("{}{flags}", &VALID[..53]);
        let version = |version: &str| format!("{version}{}", &VALID[2..]);
        let valid = [VALID.to_owned(), flags("00"), VALID.to_uppercase(), version("01"), version("01") + "-more"];
        for text in valid {
            assert!(is_traceparent(text.as_bytes()), "{text}");
        }
        let ignored = [
            flags("03"),
            version("ff"),
            version("FF"),
            version("zz"),
            version("01") + "more",
            VALID.to_owned() + "-more",
            VALID.replace("b7ad6b7169203331", "0000000000000000"),
            VALID.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            VALID.replace('-', "_"),
            VALID[..54].to_owned(),
            String::new(),
        ];
        for text in ignored {
            assert!(!is_traceparent(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_child_is_one_level_deeper_in_the_same_trace() {
        let parent = Context {
            trace_id: "t".into(),
            span_id: "s".into(),
            parent_id: "p".into(),
            deadline: Some(7),
            meta: vec![("k".into(), "v".into())],
            trace: Vec::new(),
        };
        let child = parent.child("new");
        assert_eq!(child, Context { span_id: "new".into(), parent_id: "s".into(), ..parent });
    }
}
