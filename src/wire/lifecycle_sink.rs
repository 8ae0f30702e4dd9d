//! Values of the lifecycle topics: one [`LifecycleEvent`] each, without an envelope.

use bytes::Bytes;

use super::state::MachineStatus;
use crate::{thrift_struct, thrift_union};

thrift_struct! {
    pub struct LifecycleEvent {
        1 => machine_ns: required Bytes,
        2 => machine_id: required Bytes,
        3 => created_at: required Bytes,
        4 => data: required LifecycleEventData,
    }

    pub struct MachineLifecycleCreatedEvent {}

    pub struct MachineLifecycleStatusChangedEvent {
        1 => new_status: required MachineStatus,
    }

    pub struct MachineLifecycleRemovedEvent {}
}

thrift_union! {
    pub enum LifecycleEventData {
        1 => machine: Machine(MachineLifecycleEvent),
    }

    pub enum MachineLifecycleEvent {
        1 => created: Created(MachineLifecycleCreatedEvent),
        2 => status_changed: StatusChanged(MachineLifecycleStatusChangedEvent),
        3 => removed: Removed(MachineLifecycleRemovedEvent),
    }
}
