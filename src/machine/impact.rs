//! Why a machine takes a step, what its processor made of it, and what the caller is told.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::key::Epoch;
use super::record::{RangeBody, RecordError, RequestContext};
use crate::wire::{Content, HistoryRange, Value};

/// A snowflake: its order is the order of acceptance.
pub type NotificationId = i64;

#[derive(Clone, Debug, PartialEq)]
pub enum Impact {
    Init {
        args: Value,
    },
    Call {
        args: Value,
        range: HistoryRange,
    },
    Repair {
        args: Value,
        range: HistoryRange,
    },
    SimpleRepair,
    Remove,
    /// The timer that is due now.
    Timeout,
    Notification(Notification),
    /// No notification waits any more.
    ///
    /// It speaks of the record that it was found true of: after a conflict, ask [`super::wake`] again.
    Drained,
    /// The deletions that these epochs owed were made.
    Paid {
        epochs: Vec<Epoch>,
    },
    /// Sinks have acknowledged some of what the store still knows as unsent, or nothing can be sent for now.
    Acknowledged,
    /// Events of this epoch in their present format, in the place of the old ones: id, wire encoding.
    Modernize {
        epoch: Epoch,
        events: Vec<(i64, Bytes)>,
    },
    /// The tombstone has rested long enough.
    Forget,
}

/// What an impact is, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImpactKind {
    Init,
    Call,
    Repair,
    SimpleRepair,
    Remove,
    Timeout,
    Notification,
    Drained,
    Paid,
    Acknowledged,
    Modernize,
    Forget,
}

/// An entry of its own in the store until it takes effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    pub id: NotificationId,
    /// The machine's at acceptance: a machine started anew does not get its predecessor's.
    pub epoch: Epoch,
    pub args: Value,
    pub range: HistoryRange,
    pub context: RequestContext,
}

/// What a processor made of a signal, call or repair.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Done {
        response: Option<Value>,
        change: Change,
    },
    /// Only a repair may be declined.
    RepairFailed(Value),
    /// The processor may answer another time; nothing is known to have gone wrong with the machine.
    Transient(String),
    /// The processor, or its answer, was wrong: the machine fails.
    Unexpected(String),
    /// One of our own bounds held the step back before anything was sent. Never counts against the machine.
    HeldBack(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Absent keeps the present one.
    pub aux_state: Option<Content>,
    pub events: Vec<Content>,
    pub action: Action,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Action {
    pub timer: Option<TimerChange>,
    /// Claims the tag for the machine, in generations that have tags.
    pub tag: Option<Bytes>,
    pub remove: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TimerChange {
    Unset,
    /// In so many seconds from the step's end. Zero and negative mean at once.
    In {
        seconds: i32,
        range: HistoryRange,
        timeout: i32,
    },
    /// At a unix time in milliseconds.
    At {
        due: i64,
        range: HistoryRange,
        timeout: i32,
    },
}

/// What the one who asked for the step is told.
pub type Answer = Result<Success, Refusal>;

#[derive(Clone, Debug, PartialEq)]
pub enum Success {
    Done,
    Response(Value),
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("the machine does not exist")]
    MachineNotFound,
    #[error("the machine exists already")]
    MachineAlreadyExists,
    #[error("the machine is failed")]
    MachineFailed,
    #[error("the machine is working")]
    MachineAlreadyWorking,
    #[error("the processor declined the repair")]
    RepairFailed(Value),
    /// Not done, or not known to be done, and worth another try.
    #[error("{0}")]
    Unavailable(String),
}

#[derive(Serialize, Deserialize)]
struct NotificationBody {
    epoch: Bytes,
    args: Bytes,
    range: RangeBody,
    context: RequestContext,
}

// === impl Impact ===

impl Impact {
    /// The name in metrics and spans.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Init { .. } => "init",
            Self::Call { .. } => "call",
            Self::Repair { .. } => "repair",
            Self::SimpleRepair => "simple_repair",
            Self::Remove => "remove",
            Self::Timeout => "timeout",
            Self::Notification(_) => "notification",
            Self::Modernize { .. } => "modernize",
            Self::Drained | Self::Paid { .. } | Self::Acknowledged | Self::Forget => "continuation",
        }
    }

    /// Bytes that the request brought for the step.
    pub fn arguments_size(&self) -> usize {
        match self {
            Self::Init { args } | Self::Call { args, .. } | Self::Repair { args, .. } => args.as_bytes().len(),
            Self::Notification(notification) => notification.args.as_bytes().len(),
            Self::Modernize { events, .. } => events.iter().map(|(_, event)| event.len()).sum(),
            Self::SimpleRepair
            | Self::Remove
            | Self::Timeout
            | Self::Drained
            | Self::Paid { .. }
            | Self::Acknowledged
            | Self::Forget => 0,
        }
    }

    pub fn kind(&self) -> ImpactKind {
        match self {
            Self::Init { .. } => ImpactKind::Init,
            Self::Call { .. } => ImpactKind::Call,
            Self::Repair { .. } => ImpactKind::Repair,
            Self::SimpleRepair => ImpactKind::SimpleRepair,
            Self::Remove => ImpactKind::Remove,
            Self::Timeout => ImpactKind::Timeout,
            Self::Notification(_) => ImpactKind::Notification,
            Self::Drained => ImpactKind::Drained,
            Self::Paid { .. } => ImpactKind::Paid,
            Self::Acknowledged => ImpactKind::Acknowledged,
            Self::Modernize { .. } => ImpactKind::Modernize,
            Self::Forget => ImpactKind::Forget,
        }
    }
}

// === impl ImpactKind ===

impl ImpactKind {
    pub const ALL: [Self; 12] = [
        Self::Init,
        Self::Call,
        Self::Repair,
        Self::SimpleRepair,
        Self::Remove,
        Self::Timeout,
        Self::Notification,
        Self::Drained,
        Self::Paid,
        Self::Acknowledged,
        Self::Modernize,
        Self::Forget,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Call => "call",
            Self::Repair => "repair",
            Self::SimpleRepair => "simple_repair",
            Self::Remove => "remove",
            Self::Timeout => "timeout",
            Self::Notification => "notification",
            Self::Drained => "drained",
            Self::Paid => "paid",
            Self::Acknowledged => "acknowledged",
            Self::Modernize => "modernize",
            Self::Forget => "forget",
        }
    }
}

// === impl Notification ===

impl Notification {
    const VERSION: u8 = 1;

    /// The stored entry; the id is part of its key.
    pub fn encode(&self) -> Bytes {
        let body = NotificationBody {
            epoch: Bytes::copy_from_slice(&self.epoch.0),
            args: self.args.as_bytes().clone(),
            range: RangeBody::from(&self.range),
            context: self.context.clone(),
        };
        let mut bytes = vec![Self::VERSION];
        // Writing plain data into memory has no way to fail.
        rmp_serde::encode::write(&mut bytes, &body).expect("a notification encodes");
        bytes.into()
    }

    pub fn decode(id: NotificationId, bytes: &[u8]) -> Result<Self, RecordError> {
        let (&version, body) = bytes.split_first().ok_or_else(|| RecordError::Malformed("empty".to_owned()))?;
        if version != Self::VERSION {
            return Err(RecordError::Version(version));
        }
        let malformed = |error: String| RecordError::Malformed(format!("notification: {error}"));
        let body: NotificationBody = rmp_serde::from_slice(body).map_err(|error| malformed(error.to_string()))?;
        let epoch = <[u8; 16]>::try_from(&body.epoch[..]).map_err(|error| malformed(error.to_string()))?;
        Ok(Self {
            id,
            epoch: super::key::CommitId(epoch),
            args: Value::from_stored(body.args),
            range: body.range.into(),
            context: body.context,
        })
    }
}
