//! Machines and what processors do to them: the types that both services share.

use bytes::Bytes;

use super::encoded::History;
use super::value::Value;
use crate::{thrift_enum, thrift_struct, thrift_union};

thrift_enum! {
    pub enum Direction {
        forward Forward = 1,
        backward Backward = 2,
    }
}

thrift_union! {
    pub enum Timer {
        /// Seconds from now.
        1 => timeout: Timeout(i32),
        /// RFC 3339, UTC.
        2 => deadline: Deadline(Bytes),
    }

    pub enum MachineStatus {
        1 => working: Working(MachineStatusWorking),
        2 => failed: Failed(MachineStatusFailed),
    }

    pub enum Reference {
        1 => id: Id(Bytes),
        2 => tag: Tag(Bytes),
    }

    pub enum TimerAction {
        1 => set_timer: Set(SetTimerAction),
        2 => unset_timer: Unset(UnsetTimerAction),
    }
}

thrift_struct! {
    /// A processor's data with the version of its format.
    pub struct Content {
        1 => format_version: optional i32,
        2 => data: required Value,
    }

    pub struct Event {
        1 => id: required i64,
        2 => created_at: required Bytes,
        5 => format_version: optional i32,
        4 => data: required Value,
    }

    pub struct MachineStatusWorking {}

    pub struct MachineStatusFailed {
        1 => reason: optional Bytes,
    }

    pub struct HistoryRange {
        1 => after: optional i64,
        2 => limit: optional i32,
        3 => direction: filled Direction = Direction::Forward,
    }

    pub struct Machine {
        1 => ns: required Bytes,
        2 => id: required Bytes,
        3 => history: required History,
        4 => history_range: required HistoryRange,
        8 => status: optional MachineStatus,
        7 => aux_state: optional Content,
        6 => timer: optional Bytes,
        /// The aux state as the first generation reads it.
        5 => aux_state_legacy: optional Value,
    }

    pub struct MachineDescriptor {
        1 => ns: required Bytes,
        2 => r#ref: required Reference,
        3 => range: required HistoryRange,
    }

    pub struct SetTimerAction {
        1 => timer: required Timer,
        2 => range: optional HistoryRange,
        /// Seconds.
        3 => timeout: optional i32,
    }

    pub struct UnsetTimerAction {}

    pub struct TagAction {
        1 => tag: required Bytes,
    }

    pub struct RemoveAction {}

    pub struct ComplexAction {
        /// Deprecated by `timer` in all generations.
        1 => set_timer: optional SetTimerAction,
        3 => timer: optional TimerAction,
        2 => tag: optional TagAction,
        4 => remove: optional RemoveAction,
    }

    pub struct MachineStateChange {
        1 => aux_state_legacy: optional Value,
        2 => events_legacy: optional Vec<Value>,
        3 => aux_state: optional Content,
        4 => events: optional Vec<Content>,
    }

    pub struct MachineEvent {
        1 => ns: required Bytes,
        2 => id: required Bytes,
        3 => event: required Event,
    }

    /// An event in a sink of the 2021 generation, numbered by the sink.
    pub struct SinkEvent {
        1 => id: required i64,
        2 => source_id: required Bytes,
        3 => source_ns: required Bytes,
        4 => event: required Event,
    }
}

// === impl HistoryRange ===

impl HistoryRange {
    /// The whole history, oldest first: what stands in for an absent range.
    pub const ALL: Self = Self { after: None, limit: None, direction: Direction::Forward };
}
