//! Every declared type and method of the wire, as the tests walk over them.
#![allow(dead_code, reason = "each test takes its part")]

use bytes::Bytes;
use machinegun::wire::schema::{Declared, Schema};
use machinegun::wire::{self, Error, Limits, Method, Reader, Wire, Writer};

pub struct Declaration {
    pub file: &'static str,
    pub exception: bool,
    pub schema: Schema,
    /// Reads a value that fills the bytes, and writes it again.
    pub again: fn(Bytes) -> Result<Bytes, Error>,
}

pub struct Enum {
    pub file: &'static str,
    pub name: &'static str,
    pub symbols: &'static [(&'static str, i32)],
}

pub struct Signature {
    pub service: &'static str,
    pub name: &'static str,
    pub args: Schema,
    pub success: String,
    pub throws: &'static [(i16, &'static str)],
    /// The name under which the crate declares it.
    pub declared_as: &'static str,
    pub args_again: fn(Bytes) -> Result<Bytes, Error>,
    /// A reply's struct, read and written again with sequence number 0 and its envelope.
    pub reply_again: fn(Bytes) -> Result<Bytes, Error>,
}

pub fn again<T: Wire>(bytes: Bytes) -> Result<Bytes, Error> {
    let mut reader = Reader::new(bytes, Limits::default());
    let value = T::read(&mut reader)?;
    reader.finish()?;
    let mut writer = Writer::default();
    value.write(&mut writer);
    let bytes = writer.into_bytes();
    assert!(value.size_hint() >= bytes.len(), "a buffer of the hinted size never grows");
    Ok(bytes)
}

fn reply_again<M: Method>(bytes: Bytes) -> Result<Bytes, Error> {
    let result = wire::read_reply::<M>(bytes, Limits::default())?;
    Ok(wire::write_reply::<M>(0, &result).expect("what was read as declared is declared"))
}

macro_rules! types {
    ($($file:literal $exception:literal: $($type:ty),*;)*) => {
        vec![$($(Declaration {
            file: $file,
            exception: $exception,
            schema: <$type>::schema(),
            again: again::<$type>,
        },)*)*]
    };
}

macro_rules! signatures {
    ($($service:literal: $($method:ident),*;)*) => {
        vec![$($(Signature {
            service: $service,
            name: wire::$method::NAME,
            args: <wire::$method as Method>::Args::schema(),
            success: <wire::$method as Method>::Success::idl(),
            throws: wire::$method::THROWS,
            declared_as: stringify!($method),
            args_again: again::<<wire::$method as Method>::Args>,
            reply_again: reply_again::<wire::$method>,
        },)*)*]
    };
}

pub fn types() -> Vec<Declaration> {
    use machinegun::wire::exception::*;
    use machinegun::wire::{event_sink, lifecycle_sink, *};
    types! {
        "base" false: Timer;
        "base" true: InvalidRequest;
        "state_processing" true: EventNotFound, MachineNotFound, NamespaceNotFound, MachineAlreadyExists, MachineFailed,
            MachineAlreadyWorking, EventSinkNotFound, RepairFailed;
        "state_processing" false: Content, Event, MachineStatusWorking, MachineStatusFailed, MachineStatus, Machine,
            HistoryRange, Reference, MachineDescriptor, SetTimerAction, UnsetTimerAction, TimerAction, TagAction,
            RemoveAction, ComplexAction, MachineStateChange, CallArgs, CallResult, InitSignal, TimeoutSignal,
            NotificationSignal, Signal, SignalArgs, SignalResult, RepairArgs, RepairResult, MachineEvent,
            ModernizeEventResult, NotifyResponse, SinkEvent;
        "event_sink" false: event_sink::SinkEvent, event_sink::MachineEvent;
        "lifecycle_sink" false: lifecycle_sink::LifecycleEvent, lifecycle_sink::LifecycleEventData,
            lifecycle_sink::MachineLifecycleEvent, lifecycle_sink::MachineLifecycleCreatedEvent,
            lifecycle_sink::MachineLifecycleStatusChangedEvent, lifecycle_sink::MachineLifecycleRemovedEvent;
    }
}

pub fn enums() -> Vec<Enum> {
    vec![Enum { file: "state_processing", name: "Direction", symbols: wire::Direction::SYMBOLS }]
}

pub fn signatures() -> Vec<Signature> {
    signatures! {
        "Processor": ProcessSignal, ProcessCall, ProcessRepair;
        "Modernizer": ModernizeEvent;
        "Automaton": Start, Repair, SimpleRepair, Call, GetMachine, Remove, Modernize, Notify;
        "LegacyAutomaton": LegacyRepair;
        "EventSink": GetHistory;
    }
}
