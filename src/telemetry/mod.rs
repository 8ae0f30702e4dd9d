//! What operators see: logs, metrics, traces. Names and help texts of metrics stand where they are made.

pub mod log;
pub mod metrics;
pub mod scope;
pub mod trace;

use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Settings;
use log::{Log, LogError};
use trace::{TraceError, Traces};

pub use metrics::{Forwarded, KafkaSinkMetrics, LedgerMetrics, Metrics, NamespaceMetrics, SinkMetrics};

/// What this process says of itself to others. What was not said yet is said when this is dropped.
#[derive(Debug)]
pub struct Telemetry {
    // First, so that the log can still say what became of the last spans.
    _traces: Option<Traces>,
    log: Log,
}

/// Why nobody would see what this process does. One line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Traces(#[from] TraceError),
}

// === impl Telemetry ===

impl Telemetry {
    /// Starts logging, and traces if the environment asks for them, for the whole process. Needs a runtime. Once: what a
    /// second one is told is not heard.
    pub fn start(settings: &Settings) -> Result<Self, TelemetryError> {
        let traces = Traces::start(&settings.service_name)?;
        let (lines, log) = Log::open::<Registry>(&settings.logging)?;
        let mut layers = vec![lines];
        layers.extend(traces.as_ref().map(Traces::layer::<Registry>));
        // Already started: the first one's settings stand.
        let _ = tracing_subscriber::registry().with(layers).try_init();
        if traces.is_some() {
            tracing::info!("traces are sent by OTLP");
        }
        Ok(Self { _traces: traces, log })
    }

    /// See [`Log::reopen_at_hangup`].
    pub fn reopen_at_hangup(&self) -> std::io::Result<()> {
        self.log.reopen_at_hangup()
    }
}
