//! The pure core: what a machine is, who may do what to it in which status, and what a step makes of it.
//!
//! No I/O, no clock, no randomness, no tokio: time, commit ids and jitter come in as arguments.

mod apply;
mod dispatch;
mod history;
mod impact;
mod key;
mod outbox;
mod record;
pub mod retry;
mod shard;
#[cfg(test)]
mod tests;
mod wake;

pub use apply::{Decision, Limits, Policy, Stamp, Step, apply};
pub use dispatch::{Dispatch, dispatch};
pub use history::{Slice, slice};
pub use impact::{
    Action, Answer, Change, Impact, ImpactKind, Notification, NotificationId, Outcome, Refusal, Success, TimerChange,
};
pub use key::{CommitId, Epoch, KeyError, MachineId, MachineKey, Namespace};
pub use outbox::{
    LifeChange, Lifecycle, MOST_PARCELS, MOST_REASONS, Parcel, SHORTEST_REASON, Subscription, Unsent, life_changes,
};
pub use record::{
    Debt, Head, KEPT_COMMITS, KEPT_NOTES, LONGEST_REASON, Phase, Record, RecordError, RequestContext, Status,
    StatusKind, TOMBSTONE_REST_MS, Timer, blank_aux_state, shown_timer,
};
pub use shard::Shard;
pub use wake::{Wake, wake, wishes};
