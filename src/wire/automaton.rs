//! Services `Automaton` and `EventSink`: what clients call.

use bytes::Bytes;

use super::encoded::Encoded;
use super::method::Void;
use super::state::{HistoryRange, Machine, MachineDescriptor, Reference, SinkEvent};
use super::value::Value;
use crate::{thrift_methods, thrift_struct};

thrift_struct! {
    pub struct StartParams {
        1 => ns: default Bytes,
        2 => id: default Bytes,
        3 => a: default Value,
    }

    /// Call, Repair and Notify.
    pub struct DescribedParams {
        1 => desc: default MachineDescriptor,
        2 => a: default Value,
    }

    /// GetMachine and Modernize.
    pub struct DescriptorParams {
        1 => desc: default MachineDescriptor,
    }

    pub struct SimpleRepairParams {
        1 => ns: default Bytes,
        2 => r#ref: default Reference,
    }

    pub struct RemoveParams {
        1 => ns: default Bytes,
        2 => id: default Bytes,
    }

    pub struct GetHistoryParams {
        1 => event_sink_id: default Bytes,
        2 => range: default HistoryRange,
    }

    pub struct NotifyResponse {
        1 => id: required Bytes,
    }
}

thrift_methods! {
    Start = "Start" (StartParams) -> Void,
        throws { 1 => "NamespaceNotFound", 2 => "MachineAlreadyExists", 3 => "MachineFailed" };
    Repair = "Repair" (DescribedParams) -> Value,
        throws { 1 => "NamespaceNotFound", 2 => "MachineNotFound", 3 => "MachineFailed", 4 => "MachineAlreadyWorking", 5 => "RepairFailed" };
    /// Repair as callers of the first generation know it; its service is `LegacyAutomaton` in the IDL, its path the same.
    LegacyRepair = "Repair" (DescribedParams) -> Void,
        throws { 1 => "NamespaceNotFound", 2 => "MachineNotFound", 3 => "MachineFailed" };
    SimpleRepair = "SimpleRepair" (SimpleRepairParams) -> Void,
        throws { 1 => "NamespaceNotFound", 2 => "MachineNotFound", 3 => "MachineFailed", 4 => "MachineAlreadyWorking" };
    Call = "Call" (DescribedParams) -> Value,
        throws { 1 => "NamespaceNotFound", 2 => "MachineNotFound", 3 => "MachineFailed" };
    GetMachine = "GetMachine" (DescriptorParams) -> Machine,
        throws { 1 => "NamespaceNotFound", 2 => "MachineNotFound", 3 => "EventNotFound" };
    Remove = "Remove" (RemoveParams) -> Void,
        throws { 1 => "NamespaceNotFound", 2 => "MachineNotFound" };
    Modernize = "Modernize" (DescriptorParams) -> Void,
        throws { 1 => "NamespaceNotFound", 2 => "MachineNotFound" };
    Notify = "Notify" (DescribedParams) -> NotifyResponse,
        throws { 1 => "NamespaceNotFound", 2 => "MachineNotFound" };
    GetHistory = "GetHistory" (GetHistoryParams) -> Encoded<SinkEvent>,
        throws { 1 => "EventSinkNotFound", 2 => "EventNotFound", 3 => "InvalidRequest" };
}
