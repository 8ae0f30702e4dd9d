//! Services `Processor` and `Modernizer`: what a client implements and we call.

use super::state::{ComplexAction, Content, Machine, MachineEvent, MachineStateChange};
use super::value::Value;
use crate::{thrift_methods, thrift_struct, thrift_union};

thrift_struct! {
    pub struct InitSignal {
        1 => arg: required Value,
    }

    pub struct TimeoutSignal {}

    pub struct NotificationSignal {
        1 => arg: required Value,
    }

    pub struct SignalArgs {
        1 => signal: required Signal,
        2 => machine: required Machine,
    }

    pub struct SignalResult {
        1 => change: required MachineStateChange,
        2 => action: required ComplexAction,
    }

    pub struct CallArgs {
        1 => arg: required Value,
        2 => machine: required Machine,
    }

    pub struct CallResult {
        1 => response: required Value,
        2 => change: required MachineStateChange,
        3 => action: required ComplexAction,
    }

    pub struct RepairArgs {
        1 => arg: required Value,
        2 => machine: required Machine,
    }

    pub struct RepairResult {
        1 => response: required Value,
        2 => change: required MachineStateChange,
        3 => action: required ComplexAction,
    }

    pub struct ModernizeEventResult {
        1 => event_payload: required Content,
    }

    pub struct ProcessSignalParams {
        1 => a: default SignalArgs,
    }

    pub struct ProcessCallParams {
        1 => a: default CallArgs,
    }

    pub struct ProcessRepairParams {
        1 => a: default RepairArgs,
    }

    pub struct ModernizeEventParams {
        1 => ev: default MachineEvent,
    }
}

thrift_union! {
    pub enum Signal {
        1 => init: Init(InitSignal),
        2 => timeout: Timeout(TimeoutSignal),
        3 => notification: Notification(NotificationSignal),
    }
}

thrift_methods! {
    ProcessSignal = "ProcessSignal" (ProcessSignalParams) -> SignalResult;
    ProcessCall = "ProcessCall" (ProcessCallParams) -> CallResult;
    ProcessRepair = "ProcessRepair" (ProcessRepairParams) -> RepairResult, throws { 1 => "RepairFailed" };
    ModernizeEvent = "ModernizeEvent" (ModernizeEventParams) -> ModernizeEventResult;
}
