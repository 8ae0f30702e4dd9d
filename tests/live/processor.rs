//! What a processor of today answers.

use machinegun::wire::{
    CallResult, ComplexAction, Content, MachineStateChange, RepairResult, SignalResult, TimerAction, Value,
};

pub const NOTHING: ComplexAction = ComplexAction { set_timer: None, timer: None, tag: None, remove: None };

pub fn content(format_version: Option<i32>, text: &str) -> Content {
    Content { format_version, data: Value::str(text) }
}

pub fn change(events: Vec<Content>) -> MachineStateChange {
    MachineStateChange {
        aux_state_legacy: None,
        events_legacy: None,
        aux_state: Some(content(None, "aux")),
        events: Some(events),
    }
}

/// One event that says who answered.
pub fn signed(who: &str) -> MachineStateChange {
    change(vec![content(None, who)])
}

pub fn to_signal(change: MachineStateChange) -> SignalResult {
    SignalResult { change, action: NOTHING }
}

pub fn to_call(change: MachineStateChange) -> CallResult {
    CallResult { response: Value::str("done"), change, action: NOTHING }
}

pub fn to_call_with_timer(change: MachineStateChange, timer: Option<TimerAction>) -> CallResult {
    CallResult { response: Value::str("done"), change, action: ComplexAction { timer, ..NOTHING } }
}

pub fn to_repair(change: MachineStateChange) -> RepairResult {
    RepairResult { response: Value::str("mended"), change, action: NOTHING }
}
