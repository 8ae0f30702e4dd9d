//! Whether two messages mean the same. What is left out is named here and in `names`, and nothing else is.

use std::fmt;

use machinegun::wire::timestamp;

use crate::names::{self, Kind};
use crate::node::{Message, Node};
use crate::plan::{Deadline, Planned};
use crate::recording::{Answer, Headers, Request, Response};

/// One thing that is not as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The exchange's number; none for a request that no exchange was waiting for.
    pub seq: Option<u64>,
    /// What the exchange is.
    pub exchange: String,
    /// The field's path.
    pub field: String,
    pub expected: String,
    pub got: String,
}

/// Collects what differs of one exchange.
#[derive(Debug)]
pub struct Comparison<'a> {
    step: &'a Planned,
    pub differences: Vec<Difference>,
}

/// Between which moments (unix milliseconds) a request to a processor was made, and what its caller's deadline was.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    pub caused: i64,
    pub arrived: i64,
    pub callers_deadline: Option<i64>,
}

/// Two readings of one clock, and its rounding to milliseconds, lie this far apart at most.
const CLOCK_TOLERANCE: i64 = 5;

const ABSENT: &str = "(absent)";

// === impl Difference ===

impl Difference {
    /// The exchange that it is about.
    pub fn whose(&self) -> String {
        match self.seq {
            Some(seq) => format!("seq {seq}, {}", self.exchange),
            None => format!("no seq, {}", self.exchange),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whose, field) = (self.whose(), &self.field);
        write!(f, "{whose}\n    field     {field}\n    expected  {}\n    got       {}", self.expected, self.got)
    }
}

// === impl Comparison ===

impl<'a> Comparison<'a> {
    pub fn of(step: &'a Planned) -> Self {
        Self { step, differences: Vec::new() }
    }

    pub fn differ(&mut self, field: &str, expected: impl fmt::Display, got: impl fmt::Display) {
        self.differences.push(Difference {
            seq: Some(self.step.exchange.seq),
            exchange: self.step.describe(),
            field: field.to_owned(),
            expected: expected.to_string(),
            got: got.to_string(),
        });
    }

    fn same(&mut self, field: &str, expected: Option<&str>, got: Option<&str>) {
        if expected != got {
            self.differ(field, expected.unwrap_or(ABSENT), got.unwrap_or(ABSENT));
        }
    }

    /// The service's answer to an inbound request, against `expected`.
    pub fn answer(&mut self, expected: &Response, got: &Answer) {
        let got = match got {
            Answer::Reply(response) => response,
            Answer::Broken(why) => return self.differ("answer", format!("status {}", expected.status), why),
        };
        // For an expired deadline 503 and 504 are one answer, each with its own class.
        let class = match (expected.status, got.status) {
            (503, 504) if self.step.expired => Some("Result Unknown"),
            (504, 503) if self.step.expired => Some("Resource Unavailable"),
            (expected_status, got_status) => {
                if expected_status != got_status {
                    self.differ("status", expected_status, got_status);
                }
                header(&expected.headers, "woody.error-class")
            }
        };
        self.same("woody.error-class", class, header(&got.headers, "woody.error-class"));
        let reasons = [&expected.headers, &got.headers].map(|headers| header(headers, "woody.error-reason"));
        if class == Some("Business Error") {
            self.same("woody.error-reason", reasons[0], reasons[1]);
        } else if reasons[0].is_some() != reasons[1].is_some_and(|reason| !reason.is_empty()) {
            self.differ("woody.error-reason", reasons[0].unwrap_or(ABSENT), reasons[1].unwrap_or(ABSENT));
        }
        let kinds = [&expected.headers, &got.headers].map(|headers| header(headers, "content-type"));
        self.same("content-type", kinds[0], kinds[1]);
        self.body(&expected.body, &got.body);
    }

    /// The answer to a read that overlaps a Start: nothing, or the whole of it. True if it was the whole.
    pub fn either_answer(&mut self, nothing: Option<&Response>, whole: &Response, got: &Answer) -> bool {
        let try_one = |expected: &Response| {
            let mut attempt = Comparison::of(self.step);
            attempt.answer(expected, got);
            attempt.differences
        };
        let as_whole = try_one(whole);
        if as_whole.is_empty() {
            return true;
        }
        if nothing.is_none_or(|nothing| !try_one(nothing).is_empty()) {
            self.differences.extend(as_whole);
        }
        false
    }

    /// The service's request to a processor.
    pub fn outbound(&mut self, got: &Request, moments: Moments) {
        let recorded = &self.step.exchange.request;
        self.same("http method", Some(&recorded.method), Some(&got.method));
        self.same("path", Some(&recorded.path), Some(&got.path));
        // The recorded ids of the inbound requests are the ones that were sent: the relations are plain equality.
        for name in ["content-type", "accept", "woody.trace-id", "woody.parent-id"] {
            self.same(name, header(&recorded.headers, name), header(&got.headers, name));
        }
        let is_meta = |name: &&String| name.starts_with("woody.meta.");
        let mut metas: Vec<&String> = recorded.headers.keys().chain(got.headers.keys()).filter(is_meta).collect();
        metas.sort();
        metas.dedup();
        for name in metas {
            self.same(name, header(&recorded.headers, name), header(&got.headers, name));
        }
        self.span(&recorded.headers, &got.headers);
        self.deadline(header(&got.headers, "woody.deadline"), moments);
        self.body(&recorded.body, &got.body);
    }

    /// The span is the service's own: there, and no one else's.
    fn span(&mut self, recorded: &Headers, got: &Headers) {
        let span = header(got, "woody.span-id");
        let taken = span == header(got, "woody.parent-id") || span == header(got, "woody.trace-id");
        if header(recorded, "woody.span-id").is_some() && (span.is_none_or(str::is_empty) || taken) {
            self.differ("woody.span-id", "an id of its own", span.unwrap_or(ABSENT));
        }
    }

    fn deadline(&mut self, got: Option<&str>, moments: Moments) {
        let field = "woody.deadline";
        let due = self.step.deadline;
        let parsed = got.map(|text| (text, timestamp::parse_millis(text.as_bytes()).ok()));
        let (earliest, latest) = match (due, moments.callers_deadline) {
            (Deadline::Absent | Deadline::Left(_), _) => return self.same(field, None, got),
            (Deadline::Callers, Some(callers)) => (callers, callers),
            (Deadline::Callers, None) => return self.same(field, Some("the caller's"), got),
            (Deadline::Timeout(timeout), _) => {
                (moments.caused + timeout - CLOCK_TOLERANCE, moments.arrived + timeout + CLOCK_TOLERANCE)
            }
        };
        match parsed {
            Some((text, Some(millis))) if (earliest..=latest).contains(&millis) && text.len() == 24 => {}
            _ => {
                let [earliest, latest] = [earliest, latest].map(timestamp::format_millis);
                let expected = if earliest == latest { earliest } else { format!("{earliest} to {latest}") };
                self.differ(field, expected, got.unwrap_or(ABSENT));
            }
        }
    }

    fn body(&mut self, expected: &[u8], got: &[u8]) {
        if expected.is_empty() || got.is_empty() {
            if expected.len() != got.len() {
                self.differ("body", format!("{} bytes", expected.len()), format!("{} bytes", got.len()));
            }
            return;
        }
        match (Message::decode(expected), Message::decode(got)) {
            (Ok(expected), Ok(got)) => {
                self.same("message type", Some(&expected.kind.to_string()), Some(&got.kind.to_string()));
                self.same("method", Some(&expected.name), Some(&got.name));
                self.same("seqid", Some(&expected.seqid.to_string()), Some(&got.seqid.to_string()));
                let kind = names::body(&expected.name, expected.kind == 1);
                self.node("", &kind, &expected.body, &got.body);
            }
            (Ok(_), Err(error)) => self.differ("body", "a Thrift message", error),
            (Err(_), _) if expected == got => {}
            (Err(error), _) => self.differ("body", format!("what was recorded ({error})"), "something else"),
        }
    }

    fn node(&mut self, path: &str, kind: &Kind, expected: &Node, got: &Node) {
        match (expected, got) {
            (Node::Struct(expected), Node::Struct(got)) => {
                let mut ids: Vec<i16> = expected.keys().chain(got.keys()).copied().collect();
                ids.sort_unstable();
                ids.dedup();
                for id in ids {
                    let (name, field_kind) = names::field(kind, id);
                    let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    match (expected.get(&id), got.get(&id)) {
                        (Some(expected), Some(got)) => match names::shape(kind, &name) {
                            Some(shape) => {
                                if !got.bytes().is_some_and(|bytes| shape.fits(bytes)) {
                                    self.differ(&inner, shape, got);
                                }
                            }
                            None => self.node(&inner, &field_kind, expected, got),
                        },
                        (Some(expected), None) => self.differ(&inner, expected, ABSENT),
                        (None, Some(got)) => self.differ(&inner, ABSENT, got),
                        (None, None) => {}
                    }
                }
            }
            (Node::List { items: expected, .. }, Node::List { items: got, .. }) => {
                if expected.len() != got.len() {
                    let lengths = [expected, got].map(|items| format!("{} elements", items.len()));
                    return self.differ(path, &lengths[0], &lengths[1]);
                }
                let kind = names::element(kind);
                for (at, (expected, got)) in expected.iter().zip(got).enumerate() {
                    self.node(&format!("{path}[{at}]"), &kind, expected, got);
                }
            }
            (expected, got) if expected == got => {}
            (expected, got) => self.differ(path, expected, got),
        }
    }
}

fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.get(name).map(String::as_str)
}
