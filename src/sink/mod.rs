//! Where new events go, beside the store. What a sink has not acknowledged is a debt of the machine's record: it is
//! delivered in order per machine, at least once, across crashes.

use async_trait::async_trait;
use bytes::Bytes;

use crate::machine::{Epoch, Lifecycle, MachineKey};

#[cfg(feature = "kafka")]
pub mod kafka;
pub mod ledger;

pub use ledger::LedgerSink;

/// One machine's next parcel for a sink.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub key: MachineKey,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    /// Consecutive events of one epoch.
    Events {
        epoch: Epoch,
        /// The first one's id.
        first: i64,
        /// Wire encoded.
        events: Vec<Bytes>,
        /// See [`Receipt`]: if the sink has any of these already, they are behind this place.
        behind: i64,
    },
    Lifecycle(Lifecycle),
}

/// A delivery is safe with the sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// A place in the sink's order that all stands behind which the machine delivers later. 0: the sink has no order, or
    /// does not know.
    pub behind: i64,
    /// How many entries are, counted from the first, and at least one. None: all.
    pub taken: Option<usize>,
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
    /// Returns once the delivery is safe with the sink, or a part of it: then the rest comes again. So may all of it.
    async fn publish(&self, delivery: Delivery) -> Result<Receipt, SinkError>;

    /// Whether [`Sink::publish`] of so many entries hands all of them over when it is first polled, then waits to be told
    /// and no more, and ends by itself within a minute. Such a delivery costs no task: its machine polls it, whenever it
    /// has nothing else to do.
    fn is_prompt(&self, _entries: usize) -> bool {
        false
    }

    /// A place in the sink's own order that was reached by now: what is committed from here on comes behind it. 0: it has
    /// no order.
    fn place(&self) -> i64 {
        0
    }
}

// === impl Content ===

impl Content {
    pub fn entries(&self) -> usize {
        match self {
            Self::Events { events, .. } => events.len(),
            Self::Lifecycle(_) => 1,
        }
    }
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
