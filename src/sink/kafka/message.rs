//! Keys and values, byte for byte as the original wrote them.

use bytes::Bytes;

use crate::machine::{LifeChange, Lifecycle, MachineKey};
use crate::wire::event_sink::{MachineEvent, SinkEvent};
use crate::wire::lifecycle_sink::{
    LifecycleEvent, LifecycleEventData, MachineLifecycleCreatedEvent, MachineLifecycleEvent,
    MachineLifecycleRemovedEvent, MachineLifecycleStatusChangedEvent,
};
use crate::wire::{
    Error, Event, Limits, MachineStatus, MachineStatusFailed, MachineStatusWorking, Reader, Wire, Writer, timestamp,
};

/// Namespace and id with a space between them. Both may hold spaces themselves: it is no more than the original's key.
pub fn key(machine: &MachineKey) -> Vec<u8> {
    [machine.ns.as_str().as_bytes(), b" ", &machine.id.as_bytes()[..]].concat()
}

/// A bare `SinkEvent` of one stored event, whose time and format stay as they are stored.
pub fn event_value(machine: &MachineKey, event: &Bytes) -> Result<Bytes, Error> {
    // What is stored was checked when it came in, against limits that may have been others.
    let mut reader = Reader::new(event.clone(), Limits { depth: u32::MAX });
    let Event { id, created_at, format_version, data } = Event::read(&mut reader)?;
    let event = MachineEvent {
        source_ns: namespace(machine),
        source_id: machine.id.as_bytes().clone(),
        event_id: id,
        created_at,
        format_version,
        data,
    };
    Ok(encoded(&SinkEvent::Event(event)))
}

/// A bare `LifecycleEvent`.
pub fn lifecycle_value(machine: &MachineKey, lifecycle: &Lifecycle) -> Bytes {
    let status = |new_status| MachineLifecycleEvent::StatusChanged(MachineLifecycleStatusChangedEvent { new_status });
    let event = match &lifecycle.change {
        LifeChange::Created => MachineLifecycleEvent::Created(MachineLifecycleCreatedEvent {}),
        LifeChange::Failed { reason } => {
            let reason = Some(Bytes::copy_from_slice(reason.as_bytes()));
            status(MachineStatus::Failed(MachineStatusFailed { reason }))
        }
        LifeChange::Repaired => status(MachineStatus::Working(MachineStatusWorking {})),
        LifeChange::Removed => MachineLifecycleEvent::Removed(MachineLifecycleRemovedEvent {}),
    };
    encoded(&LifecycleEvent {
        machine_ns: namespace(machine),
        machine_id: machine.id.as_bytes().clone(),
        created_at: timestamp::format_micros(lifecycle.at_micros).into(),
        data: LifecycleEventData::Machine(event),
    })
}

fn namespace(machine: &MachineKey) -> Bytes {
    Bytes::copy_from_slice(machine.ns.as_str().as_bytes())
}

fn encoded(value: &impl Wire) -> Bytes {
    let mut writer = Writer::with_capacity(value.size_hint());
    value.write(&mut writer);
    writer.into_bytes()
}
