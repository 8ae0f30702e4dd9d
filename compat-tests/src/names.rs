//! Names of the fields in a message, from the declared interface, and which fields differ from run to run.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

use machinegun::wire::schema::{Declared, Schema};
use machinegun::wire::{self, Method, Wire as _, exception, timestamp};

/// What a field holds whose value differs from run to run: it must be there as recorded, and look like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An event's time: RFC 3339, UTC, the shortest of 0, 3 and 6 fraction digits.
    EventTime,
    /// A timer: RFC 3339, UTC, whole seconds.
    WholeSeconds,
    /// A notification's id: 1 to 11 letters and digits.
    NotificationId,
    /// Any text at all.
    Text,
}

/// The fields that differ from run to run, and no others: struct, field, shape.
const FROM_RUN_TO_RUN: &[(&str, &str, Shape)] = &[
    ("Event", "created_at", Shape::EventTime),
    ("Machine", "timer", Shape::WholeSeconds),
    ("NotifyResponse", "id", Shape::NotificationId),
    ("MachineStatusFailed", "reason", Shape::Text),
];

/// The type of a node as the IDL spells it. Names that no IDL has stand for what a message holds.
pub type Kind = Cow<'static, str>;

struct Signature {
    args: String,
    /// Field id, name, kind.
    results: Vec<(i16, &'static str, String)>,
}

/// The union `Value`, whose tree the service never builds.
const VALUE: &[(i16, &str, &str)] = &[
    (1, "nl", "Nil"),
    (2, "b", "bool"),
    (3, "i", "i64"),
    (4, "flt", "double"),
    (5, "str", "string"),
    (6, "bin", "string"),
    (7, "obj", "map<Value,Value>"),
    (8, "arr", "list<Value>"),
];

/// The kind of a message's body.
pub fn body(method: &str, is_call: bool) -> Kind {
    match (signatures().get(method), is_call) {
        (Some(signature), true) => signature.args.clone().into(),
        (Some(_), false) => format!("reply {method}").into(),
        (None, _) => "unknown".into(),
    }
}

/// The name and kind of a struct's field. What no declaration knows is named by its number.
pub fn field(of: &str, id: i16) -> (String, Kind) {
    let known = if let Some(method) = of.strip_prefix("reply ") {
        let results = signatures().get(method).map(|signature| signature.results.iter());
        results
            .and_then(|mut results| results.find(|result| result.0 == id))
            .map(|(_, name, kind)| (*name, kind.clone()))
    } else if of == "Value" {
        VALUE.iter().find(|variant| variant.0 == id).map(|(_, name, kind)| (*name, (*kind).to_owned()))
    } else {
        let fields = structs().get(of).map(|schema| schema.fields.iter());
        fields.and_then(|mut fields| fields.find(|field| field.id == id)).map(|field| (field.name, field.kind.clone()))
    };
    match known {
        Some((name, kind)) => (name.to_owned(), kind.into()),
        None => (id.to_string(), "unknown".into()),
    }
}

/// The kind of a list's or set's elements.
pub fn element(of: &str) -> Kind {
    let inner = of.split_once('<').and_then(|(_, rest)| rest.strip_suffix('>'));
    inner.unwrap_or("unknown").to_owned().into()
}

/// The shape of a field that differs from run to run, or none: then its value must agree.
pub fn shape(of: &str, field: &str) -> Option<Shape> {
    FROM_RUN_TO_RUN.iter().find(|known| known.0 == of && known.1 == field).map(|known| known.2)
}

fn signatures() -> &'static HashMap<&'static str, Signature> {
    static SIGNATURES: OnceLock<HashMap<&'static str, Signature>> = OnceLock::new();
    SIGNATURES.get_or_init(|| {
        HashMap::from([
            signature::<wire::Start>(),
            signature::<wire::Repair>(),
            signature::<wire::SimpleRepair>(),
            signature::<wire::Call>(),
            signature::<wire::GetMachine>(),
            signature::<wire::Remove>(),
            signature::<wire::Modernize>(),
            signature::<wire::Notify>(),
            signature::<wire::GetHistory>(),
            signature::<wire::ProcessSignal>(),
            signature::<wire::ProcessCall>(),
            signature::<wire::ProcessRepair>(),
            signature::<wire::ModernizeEvent>(),
        ])
    })
}

fn signature<M: Method>() -> (&'static str, Signature) {
    let success = std::iter::once((0, "success", M::Success::idl()));
    let throws = M::THROWS.iter().map(|(id, name)| (*id, *name, (*name).to_owned()));
    (M::NAME, Signature { args: M::Args::idl(), results: success.chain(throws).collect() })
}

fn structs() -> &'static HashMap<&'static str, Schema> {
    static STRUCTS: OnceLock<HashMap<&'static str, Schema>> = OnceLock::new();
    STRUCTS.get_or_init(|| {
        let declared = [
            wire::StartParams::schema(),
            wire::DescribedParams::schema(),
            wire::DescriptorParams::schema(),
            wire::SimpleRepairParams::schema(),
            wire::RemoveParams::schema(),
            wire::GetHistoryParams::schema(),
            wire::NotifyResponse::schema(),
            wire::Timer::schema(),
            wire::MachineStatus::schema(),
            wire::MachineStatusWorking::schema(),
            wire::MachineStatusFailed::schema(),
            wire::Reference::schema(),
            wire::TimerAction::schema(),
            wire::Content::schema(),
            wire::Event::schema(),
            wire::HistoryRange::schema(),
            wire::Machine::schema(),
            wire::MachineDescriptor::schema(),
            wire::SetTimerAction::schema(),
            wire::UnsetTimerAction::schema(),
            wire::TagAction::schema(),
            wire::RemoveAction::schema(),
            wire::ComplexAction::schema(),
            wire::MachineStateChange::schema(),
            wire::MachineEvent::schema(),
            wire::SinkEvent::schema(),
            wire::InitSignal::schema(),
            wire::TimeoutSignal::schema(),
            wire::NotificationSignal::schema(),
            wire::Signal::schema(),
            wire::SignalArgs::schema(),
            wire::SignalResult::schema(),
            wire::CallArgs::schema(),
            wire::CallResult::schema(),
            wire::RepairArgs::schema(),
            wire::RepairResult::schema(),
            wire::ModernizeEventResult::schema(),
            wire::ProcessSignalParams::schema(),
            wire::ProcessCallParams::schema(),
            wire::ProcessRepairParams::schema(),
            wire::ModernizeEventParams::schema(),
            exception::RepairFailed::schema(),
            exception::InvalidRequest::schema(),
        ];
        declared.into_iter().map(|schema| (schema.name, schema)).collect()
    })
}

// === impl Shape ===

impl Shape {
    pub fn fits(self, bytes: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        match self {
            Self::EventTime => {
                let shortest = timestamp::parse_nanos(bytes)
                    .ok()
                    .and_then(|nanos| i64::try_from(nanos / 1_000).ok())
                    .map(timestamp::format_micros);
                shortest.as_deref() == Some(text)
            }
            Self::WholeSeconds => {
                timestamp::parse_millis(bytes).is_ok_and(|millis| timestamp::format_seconds(millis) == text)
            }
            Self::NotificationId => {
                (1..=11).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
            }
            Self::Text => !text.is_empty(),
        }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::EventTime => "a time in UTC with the fewest of 0, 3 or 6 fraction digits",
            Self::WholeSeconds => "a time in UTC with whole seconds",
            Self::NotificationId => "1 to 11 letters and digits",
            Self::Text => "a text",
        })
    }
}
