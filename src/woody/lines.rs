//! What the log says of calls: events, fields and levels are those of the peers' own library. Arguments and results are
//! never said.

use std::fmt;

use bytes::Bytes;
use http::{StatusCode, Uri};

use super::context::Context;
use super::deadline::format_deadline;
use super::error::Error;
use crate::clock::Stopwatch;
use crate::telemetry::scope::Lossy;

/// A call that was received.
pub(super) struct Received {
    service: &'static str,
    function: Bytes,
    kind: &'static str,
    meta: Vec<(Bytes, Bytes)>,
    deadline: Option<i64>,
    watch: Stopwatch,
}

/// A call that is made: its own ids, which go before those of the scope that it is made in.
pub(super) struct Made<'a> {
    pub(super) service: &'static str,
    pub(super) message: &'a [u8],
    pub(super) url: &'a Uri,
    pub(super) context: &'a Context,
    pub(super) span_id: &'a str,
    pub(super) deadline: Option<i64>,
    pub(super) watch: Stopwatch,
}

/// Baggage as a JSON object.
struct Meta<'a>(&'a [(Bytes, Bytes)]);

/// How the handling of a call ended.
pub(super) enum Handled<'a> {
    Result,
    Exception(&'static str),
    Failure(&'a Error),
}

/// One line about a call: level, object (`rpc.server`, ...), call, event, message.
macro_rules! line {
    (server, $level:ident, $call:expr, $event:literal, $($rest:tt)+) => {
        tracing::event!(
            target: "machinegun::rpc",
            tracing::Level::$level,
            "rpc.server.event" = $event,
            "rpc.server.role" = "server",
            "rpc.server.service" = $call.service,
            "rpc.server.function" = %Lossy(&$call.function),
            "rpc.server.type" = $call.kind,
            "rpc.server.deadline" = $call.deadline.map(format_deadline),
            "rpc.server.metadata" = %Meta(&$call.meta),
            $($rest)+
        )
    };
    (client, $level:ident, $call:expr, $event:literal, $($rest:tt)+) => {
        tracing::event!(
            target: "machinegun::rpc",
            tracing::Level::$level,
            "rpc.client.event" = $event,
            "rpc.client.role" = "client",
            "rpc.client.service" = $call.service,
            "rpc.client.function" = %Lossy($call.function()),
            "rpc.client.type" = "call",
            "rpc.client.url" = %$call.url,
            "rpc.client.deadline" = $call.deadline.map(format_deadline),
            "rpc.client.metadata" = %Meta(&$call.context.meta),
            trace_id = %Lossy(&$call.context.trace_id),
            span_id = $call.span_id,
            parent_id = %Lossy(&$call.context.span_id),
            $($rest)+
        )
    };
}

// === impl Received ===

impl Received {
    pub(super) fn new(service: &'static str, function: Bytes, oneway: bool, context: &Context) -> Self {
        Self {
            service,
            function,
            kind: if oneway { "cast" } else { "call" },
            meta: context.meta.clone(),
            deadline: context.deadline,
            watch: Stopwatch::start(),
        }
    }

    pub(super) fn invoked(&self) {
        line!(server, DEBUG, self, "server receive", "[server] request to {self} received");
        line!(server, INFO, self, "invoke service handler", "[server] handling {self}");
    }

    pub(super) fn handled(&self, how: &Handled<'_>) {
        match how {
            Handled::Result => line!(server, INFO, self, "service handler result", "[server] handling result: ok"),
            Handled::Exception(name) => {
                line!(server, INFO, self, "service handler result", "[server] handling result business error: {name}")
            }
            Handled::Failure(error) => line!(
                server,
                WARN,
                self,
                "service handler result",
                error.class = %error.class,
                error.reason = error.details,
                "[server] handling system {} error: {}",
                error.source,
                error.class
            ),
        }
    }

    pub(super) fn crashed(&self, panic: &str) {
        line!(
            server,
            ERROR,
            self,
            "service handler result",
            error.class = "panic",
            error.reason = panic,
            "[server] handling exception"
        );
    }

    pub(super) fn sent(&self, status: StatusCode) {
        let took = || u64::try_from(self.watch.elapsed().as_millis()).unwrap_or(u64::MAX);
        match status {
            StatusCode::OK => line!(
                server,
                DEBUG,
                self,
                "server send",
                "rpc.server.execution_duration_ms" = took(),
                "[server] response sent with code 200"
            ),
            status => line!(
                server,
                WARN,
                self,
                "server send",
                "rpc.server.execution_duration_ms" = took(),
                "[server] response sent with code {}",
                status.as_u16()
            ),
        }
    }
}

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, Lossy(&self.function))
    }
}

// === impl Made ===

impl Made<'_> {
    /// As the envelope of the message has it.
    pub(super) fn function(&self) -> &[u8] {
        // Behind the four bytes of version and type, a length of four and the name.
        let name = self.message.get(4..).and_then(|rest| rest.split_first_chunk::<4>());
        let name = name.and_then(|(length, rest)| rest.get(..u32::from_be_bytes(*length) as usize));
        name.unwrap_or_default()
    }

    pub(super) fn begun(&self) {
        line!(client, INFO, self, "call service", "[client] calling {self}");
        line!(client, DEBUG, self, "client send", "[client] sending request to {}", self.url);
    }

    pub(super) fn ended(&self, result: &Result<Bytes, Error>) {
        let took = || u64::try_from(self.watch.elapsed().as_millis()).unwrap_or(u64::MAX);
        match result {
            Ok(_) => {
                line!(
                    client,
                    DEBUG,
                    self,
                    "client receive",
                    "rpc.client.execution_duration_ms" = took(),
                    "[client] received response with code 200"
                );
                line!(client, INFO, self, "service result", "[client] request handled successfully");
            }
            Err(error) => {
                line!(
                    client,
                    WARN,
                    self,
                    "client receive",
                    "rpc.client.execution_duration_ms" = took(),
                    error.class = %error.class,
                    error.reason = error.details,
                    "[client] received no result"
                );
                line!(
                    client,
                    WARN,
                    self,
                    "service result",
                    error.class = %error.class,
                    error.reason = error.details,
                    "[client] error {} {}",
                    error.source,
                    error.class
                );
            }
        }
    }
}

impl fmt::Display for Made<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, Lossy(self.function()))
    }
}

// === impl Meta ===

impl fmt::Display for Meta<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &Bytes| serde_json::Value::from(String::from_utf8_lossy(bytes).into_owned());
        f.write_str("{")?;
        for (at, (key, value)) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{}:{}", text(key), text(value))?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ProcessSignal, ProcessSignalParams, SignalArgs};

    #[test]
    fn baggage_is_a_json_object_whatever_is_in_it() {
        let pair = |key: &'static [u8], value: &'static [u8]| (Bytes::from_static(key), Bytes::from_static(value));
        let meta = [pair(b"user-identity.id", b"a\"b"), pair(b"k", b"\xff\n")];
        let value: serde_json::Value = serde_json::from_str(&Meta(&meta).to_string()).expect("JSON");
        assert_eq!(value, serde_json::json!({ "user-identity.id": "a\"b", "k": "\u{fffd}\n" }));
        assert_eq!(Meta(&[]).to_string(), "{}");
    }

    #[test]
    fn a_calls_name_is_read_from_its_envelope() {
        use crate::wire::{HistoryRange, Machine, Method, Signal, TimeoutSignal};
        let machine = Machine {
            ns: Bytes::new(),
            id: Bytes::new(),
            history: Default::default(),
            history_range: HistoryRange::ALL,
            status: None,
            aux_state: None,
            timer: None,
            aux_state_legacy: None,
        };
        let args = ProcessSignalParams { a: SignalArgs { signal: Signal::Timeout(TimeoutSignal {}), machine } };
        let message = crate::wire::write_call::<ProcessSignal>(&args, 0);
        let url = Uri::from_static("http://localhost/");
        let context = Context::default();
        let made = |message| Made {
            service: "Processor",
            message,
            url: &url,
            context: &context,
            span_id: "",
            deadline: None,
            watch: Stopwatch::start(),
        };
        assert_eq!(made(&message).function(), ProcessSignal::NAME.as_bytes());
        assert_eq!(made(&message).to_string(), "Processor:ProcessSignal");
        for cut in 0..8 {
            assert_eq!(made(&message[..cut]).function(), b"");
        }
    }
}
