//! Where new events go, beside the store. What a sink has not acknowledged is a debt of the machine's record: it is
//! delivered in order per machine, at least once, across crashes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::machine::{Epoch, Lifecycle, MachineKey};

#[cfg(feature = "kafka")]
pub mod kafka;
pub mod ledger;

pub use ledger::LedgerSink;

/// One machine's next parcel for a sink.
#[derive(Debug)]
pub struct Delivery {
    pub key: MachineKey,
    pub content: Content,
    pub leave: Leave,
    /// What the sink said of its room: see [`Sink::promptly`].
    pub room: Option<Room>,
}

/// Room that a sink keeps for one delivery, until it is dropped. By default of a sink that has room for all.
#[derive(Debug, Default)]
pub struct Room(Option<OwnedSemaphorePermit>);

/// Whether a delivery is still its sender's to make. Where the machine is another instance's by now, that one sends what
/// it owes, and whatever came from here would come behind it. A sink asks before each entry that goes out by itself, for as
/// long as that may be on its way.
#[derive(Clone, Default)]
pub struct Leave(Option<Arc<dyn Fn(Duration) -> bool + Send + Sync>>);

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
    /// What has not gone out when its leave is gone does not.
    async fn publish(&self, delivery: Delivery) -> Result<Receipt, SinkError>;

    /// Some: [`Sink::publish`] of so many entries, with this room, hands all of them over when it is first polled, then
    /// waits to be told and no more, and ends by itself within a minute. Such a delivery costs no task: its machine polls
    /// it, whenever it has nothing else to do.
    fn promptly(&self, _entries: usize) -> Option<Room> {
        None
    }

    /// A place in the sink's own order that was reached by now: what is committed from here on comes behind it. 0: it has
    /// no order.
    fn place(&self) -> i64 {
        0
    }
}

// === impl Room ===

impl Room {
    pub fn of(place: OwnedSemaphorePermit) -> Self {
        Self(Some(place))
    }

    pub fn into_place(self) -> Option<OwnedSemaphorePermit> {
        self.0
    }
}

// === impl Leave ===

impl Leave {
    /// `stands` says whether it will still stand after that time.
    pub fn as_long_as(stands: impl Fn(Duration) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(stands)))
    }

    /// An error: within that time another instance may own the machine.
    pub fn check(&self, time: Duration) -> Result<(), SinkError> {
        match self.0.as_ref().is_none_or(|stands| stands(time)) {
            true => Ok(()),
            false => Err(SinkError::Unavailable("another instance may own the machine".to_owned())),
        }
    }
}

impl std::fmt::Debug for Leave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Leave({})", self.check(Duration::ZERO).is_ok())
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
