//! Where new events go, beside the store. What a sink has not acknowledged is a debt of the machine's record: it is
//! delivered in order per machine, at least once, across crashes.

#[cfg(feature = "kafka")]
pub mod kafka;

use async_trait::async_trait;
use bytes::Bytes;

use crate::machine::{Lifecycle, MachineKey};

/// One machine's next parcel for a sink.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub key: MachineKey,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    /// Consecutive events, wire encoded.
    Events(Vec<Bytes>),
    Lifecycle(Lifecycle),
}

/// Why a sink did not take a delivery. It is tried again in any case: nothing is dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// May go well in a moment.
    #[error("event_sink_unavailable: {0}")]
    Unavailable(String),
    /// Won't go well until somebody mends something: tried again slowly.
    #[error("event_sink_misconfiguration: {0}")]
    Misconfigured(String),
}

#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Returns once the delivery is safe with the sink: how many of its entries are, counted from the first, and at
    /// least one. The others come again, as may those.
    async fn publish(&self, delivery: Delivery) -> Result<usize, SinkError>;
}

// === impl SinkError ===

impl SinkError {
    /// The reason's name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Misconfigured(_) => "misconfiguration",
        }
    }
}
