//! Why the engine did not do, or may not have done, what was asked.

use crate::machine::Refusal;
use crate::processor::ModernizerError;
use crate::sink::SinkError;
use crate::storage::StorageError;

/// A bound of ours that was reached. Its setting's name is what the operator turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// `worker.machine_queue_limit`
    MachineQueue,
    /// `worker.message_queue_len_limit`
    Loading,
    /// `limits.steps_in_flight`
    StepsInFlight,
    /// `outbox.max_pending`
    Outbox,
    /// `limits.memory`
    Memory,
    /// `limits.bodies.requests`
    Bodies,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The rules say no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("no such namespace")]
    NamespaceNotFound,
    /// Not done; worth another try.
    #[error("overload: {setting} is reached", setting = .0.setting())]
    Overload(Bound),
    /// Not done: the deadline had passed before the step was queued.
    #[error("worker_call_deadline_reached")]
    DeadlineReached,
    /// Maybe done: the deadline passed while the step waited or ran.
    #[error("{{timeout, the deadline passed while the step was waiting or running}}")]
    TimedOut,
    /// Maybe done: the worker ended in the middle of the step.
    #[error("{{timeout, killed}}")]
    Killed,
    /// Not done: the service is stopping.
    #[error("the service is stopping")]
    Stopping,
    /// Not done, and not begun: another instance owns the machine's shard, or will in a moment.
    #[error("another instance owns this machine's shard")]
    NotOwner,
    /// Not done.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Done, and stored; but a sink that the reply waits for did not take it. It is sent again until it does.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// Not done: nothing was stored.
    #[error(transparent)]
    Modernizer(#[from] ModernizerError),
}

// === impl Bound ===

impl Bound {
    pub(super) const ALL: [Self; 6] =
        [Self::MachineQueue, Self::Loading, Self::StepsInFlight, Self::Outbox, Self::Memory, Self::Bodies];

    pub fn setting(self) -> &'static str {
        match self {
            Self::MachineQueue => "worker.machine_queue_limit",
            Self::Loading => "worker.message_queue_len_limit",
            Self::StepsInFlight => "limits.steps_in_flight",
            Self::Outbox => "outbox.max_pending",
            Self::Memory => "limits.memory",
            Self::Bodies => "limits.bodies.requests",
        }
    }
}
