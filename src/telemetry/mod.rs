//! What operators see: metrics. Names and help texts stand in one file.

pub mod log;
pub mod metrics;

pub use metrics::{Forwarded, KafkaSinkMetrics, LedgerMetrics, Metrics, NamespaceMetrics, SinkMetrics};
