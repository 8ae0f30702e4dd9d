//! What operators see: logs and metrics. Names and help texts of metrics stand in one file.

pub mod log;
pub mod metrics;
pub mod scope;

use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LoggingSettings;
use log::{Log, LogError};

pub use metrics::{Metrics, NamespaceMetrics, SinkMetrics};

/// What this process says of itself to others. What was not said yet is said when this is dropped.
#[derive(Debug)]
pub struct Telemetry {
    log: Log,
}

// === impl Telemetry ===

impl Telemetry {
    /// Starts logging for the whole process. Once: what a second one is told is not heard.
    pub fn start(settings: &LoggingSettings) -> Result<Self, LogError> {
        let (lines, log) = Log::open::<Registry>(settings)?;
        // Already started: the first one's settings stand.
        let _ = tracing_subscriber::registry().with(lines).try_init();
        Ok(Self { log })
    }

    /// See [`Log::reopen_at_hangup`].
    pub fn reopen_at_hangup(&self) -> std::io::Result<()> {
        self.log.reopen_at_hangup()
    }
}
