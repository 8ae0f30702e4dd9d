//! The spans that lines and traces hang on.
//!
//! A *scope* is entered wherever the work of one request, or of one wake-up, runs, in whatever task: it carries the
//! woody ids and the machine to every line. What is *traced* is for traces alone, and costs one look at a flag while
//! there are none.

use std::fmt;

use tracing::Span;
use tracing::field::display;

/// The target of scopes.
pub const TARGET: &str = "machinegun::scope";

/// The target of spans and events that are for traces alone.
pub const TRACED: &str = "machinegun::traced";

/// Bytes as text: what is not UTF-8 is replaced. Nothing is made unless it is written.
pub struct Lossy<'a>(pub &'a [u8]);

/// A new scope. Its level is the highest, so that no setting hides the ids from an error.
macro_rules! scope {
    ($name:literal, $($fields:tt)*) => {
        tracing::error_span!(
            target: $crate::telemetry::scope::TARGET,
            parent: None,
            $name,
            machine_ns = tracing::field::Empty,
            machine_id = tracing::field::Empty,
            $($fields)*
        )
    };
}

/// The scope of a request that came in.
pub fn request(trace_id: &[u8], span_id: &[u8], parent_id: &[u8]) -> Span {
    scope!(
        "request",
        trace_id = %Lossy(trace_id),
        span_id = %Lossy(span_id),
        parent_id = %Lossy(parent_id),
        otel.kind = "server",
    )
}

/// The scope of work on a machine that no request waits for, under the ids of the request that asked for it back then.
pub fn woken(trace_id: &[u8], span_id: &[u8], namespace: &str, machine: &[u8]) -> Span {
    let span = match trace_id.is_empty() {
        true => scope!("woken",),
        false => scope!("woken", trace_id = %Lossy(trace_id), span_id = %Lossy(span_id)),
    };
    about(&span, namespace, machine);
    span
}

/// Says which machine the scope is about.
pub fn about(scope: &Span, namespace: &str, machine: &[u8]) {
    scope.record("machine_ns", namespace).record("machine_id", display(Lossy(machine)));
}

// === impl Lossy ===

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            formatter.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                formatter.write_str("\u{fffd}")?;
            }
        }
        Ok(())
    }
}
