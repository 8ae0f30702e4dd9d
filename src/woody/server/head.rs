//! The checks of a request's headers, in the order in which peers know them: the first failure wins.

use std::borrow::Cow;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use super::refusal::Refusal;
use crate::clock::Clock;
use crate::telemetry::trace::is_uber_trace_id;
use crate::woody::context::{Context, is_traceparent};
use crate::woody::deadline::parse_deadline;

pub(super) const THRIFT: &[u8] = b"application/x-thrift";
const META: &str = "woody.meta.";
/// Bounds of the peers' server, so that what passes here passes there.
const MAX_HEADER_VALUE: usize = 4096;
const MAX_REQUEST_LINE: usize = 8000;

/// A header's value; repeated ones are joined.
type Slot<'a> = Option<Cow<'a, [u8]>>;

/// The headers that matter, found in one pass.
#[derive(Debug, Default)]
pub(super) struct Head<'a> {
    content_type: Slot<'a>,
    accept: Slot<'a>,
    trace_id: Slot<'a>,
    span_id: Slot<'a>,
    parent_id: Slot<'a>,
    deadline: Slot<'a>,
    traceparent: Slot<'a>,
    meta: Vec<(&'a str, Cow<'a, [u8]>)>,
}

fn join<'a>(slot: &mut Slot<'a>, value: &'a HeaderValue) {
    match slot {
        None => *slot = Some(Cow::Borrowed(value.as_bytes())),
        Some(joined) => append(joined, value.as_bytes()),
    }
}

fn append(joined: &mut Cow<'_, [u8]>, value: &[u8]) {
    let joined = joined.to_mut();
    joined.extend_from_slice(b", ");
    joined.extend_from_slice(value);
}

// === impl Head ===

impl<'a> Head<'a> {
    /// What HTTP itself asks for, before any path is looked at.
    pub(super) fn read(parts: &'a Parts) -> Result<Self, Refusal> {
        if parts.method == Method::TRACE || parts.method == Method::CONNECT {
            return Err(Refusal::Bare(StatusCode::NOT_IMPLEMENTED));
        }
        if parts.uri.path_and_query().is_some_and(|path| path.as_str().len() > MAX_REQUEST_LINE) {
            return Err(Refusal::Bare(StatusCode::URI_TOO_LONG));
        }
        let mut head = Self::default();
        let mut host = false;
        for (name, value) in &parts.headers {
            if value.len() > MAX_HEADER_VALUE {
                return Err(Refusal::Bare(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
            }
            let slot = match name.as_str() {
                "content-type" => &mut head.content_type,
                "accept" => &mut head.accept,
                "woody.trace-id" => &mut head.trace_id,
                "woody.span-id" => &mut head.span_id,
                "woody.parent-id" => &mut head.parent_id,
                "woody.deadline" => &mut head.deadline,
                "traceparent" => &mut head.traceparent,
                "host" => {
                    host = true;
                    continue;
                }
                other => {
                    if let Some(key) = other.strip_prefix(META) {
                        head.meta(key, value.as_bytes());
                    }
                    continue;
                }
            };
            join(slot, value);
        }
        if !host && parts.version == Version::HTTP_11 {
            return Err(Refusal::Bare(StatusCode::BAD_REQUEST));
        }
        Ok(head)
    }

    fn meta(&mut self, key: &'a str, value: &'a [u8]) {
        // Repeated headers come one behind the other.
        match self.meta.last_mut() {
            Some((last, joined)) if *last == key => append(joined, value),
            _ => self.meta.push((key, Cow::Borrowed(value))),
        }
    }

    /// Of the trace, the span and its parent, if they are as they should be.
    pub(super) fn ids(&self) -> Option<(&[u8], &[u8], &[u8])> {
        let ids = (self.trace_id.as_deref()?, self.span_id.as_deref()?, self.parent_id.as_deref()?);
        [ids.0, ids.1, ids.2].iter().all(|id| id.len() <= Context::MAX_ID).then_some(ids)
    }

    /// What woody asks for.
    pub(super) fn check(self, parts: &Parts, clock: &Clock) -> Result<Context, Refusal> {
        if parts.method != Method::POST {
            return Err(Refusal::Method(parts.method.clone()));
        }
        match self.content_type.as_deref() {
            Some(THRIFT) => {}
            other => return Err(Refusal::ContentType(other.unwrap_or(b"undefined").to_vec())),
        }
        match self.accept.as_deref() {
            None | Some(THRIFT) => {}
            Some(other) => return Err(Refusal::Accept(other.to_vec())),
        }
        let (trace_id, span_id, parent_id) = self.ids().ok_or(Refusal::Ids)?;
        let deadline = self.deadline.as_deref().map(parse_deadline).transpose().map_err(Refusal::Deadline)?;
        if deadline.is_some_and(|deadline| clock.now() >= deadline) {
            return Err(Refusal::DeadlineReached);
        }

        // One small buffer for all: slices of the request's own would keep its whole body in memory.
        let meta = self.meta.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let mut text = Vec::with_capacity(trace_id.len() + span_id.len() + parent_id.len() + meta);
        for id in [trace_id, span_id, parent_id] {
            text.extend_from_slice(id);
        }
        for (key, value) in &self.meta {
            text.extend_from_slice(key.as_bytes());
            text.extend_from_slice(value);
        }
        let mut rest = Bytes::from(text);
        Ok(Context {
            trace_id: rest.split_to(trace_id.len()),
            span_id: rest.split_to(span_id.len()),
            parent_id: rest.split_to(parent_id.len()),
            deadline,
            meta: self.meta.iter().map(|(key, value)| (rest.split_to(key.len()), rest.split_to(value.len()))).collect(),
            trace: trace(&parts.headers, self.traceparent.as_deref().is_some_and(is_traceparent)),
        })
    }
}

/// Entries with a name and a value each.
fn is_baggage(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').all(|entry| entry.contains(&b'='))
}

fn trace(headers: &HeaderMap, has_parent: bool) -> Vec<(HeaderName, HeaderValue)> {
    let mut trace = Vec::new();
    let parent = ["traceparent", "tracestate"].into_iter().filter(|_| has_parent);
    for name in parent.chain(["baggage", "uber-trace-id"]) {
        for value in headers.get_all(name) {
            let malformed = match name {
                "uber-trace-id" => !is_uber_trace_id(value.as_bytes()),
                "baggage" => !is_baggage(value.as_bytes()),
                _ => false,
            };
            if malformed {
                continue;
            }
            // Copied, not shared, for the same reason; a value that was received is always valid.
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                trace.push((HeaderName::from_static(name), value));
            }
        }
    }
    trace
}
