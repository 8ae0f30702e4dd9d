//! Traces: the scopes and what is traced within them, as spans of OpenTelemetry.
//!
//! Off unless the standard `OTEL_*` variables ask for them, and then nothing here does anything: headers of traces go
//! through the service as they came. On, a request's scope is a child of the span that came with it, what goes on to a
//! processor is a child of that, and so is what a timer or a notification does later.

mod jaeger;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(not(feature = "otlp"))]
#[path = "without.rs"]
mod otlp;

pub use jaeger::is_uber_trace_id;
pub use otlp::{Traces, arrive, depart, ids, is_on, name};

/// A header of a trace: lower-case name, value.
pub type Header = (bytes::Bytes, bytes::Bytes);

/// Why traces were not started. One line for the operator.
#[derive(Debug, thiserror::Error)]
#[error("traces: {0}")]
pub struct TraceError(pub String);

/// A span that is for traces alone: name, fields. While there are none it costs one look at a flag.
macro_rules! traced {
    ($name:expr, kind = $kind:literal $(, $($fields:tt)*)?) => {
        tracing::info_span!(
            target: $crate::telemetry::scope::TRACED,
            "traced",
            otel.name = $name,
            otel.kind = $kind,
            $($($fields)*)?
        )
    };
    ($name:expr $(, $($fields:tt)*)?) => {
        tracing::info_span!(target: $crate::telemetry::scope::TRACED, "traced", otel.name = $name, $($($fields)*)?)
    };
}

/// Something that happened within a span, for traces alone.
macro_rules! happened {
    ($what:literal) => {
        tracing::event!(target: $crate::telemetry::scope::TRACED, tracing::Level::INFO, $what)
    };
}

pub(crate) use {happened, traced};
