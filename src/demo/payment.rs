//! The demo's processor: what a payment does next. It keeps nothing of its own: everything that it knows about a
//! payment is in the machine that comes with the question.
//!
//! | asked | a payment that is | answers |
//! |---|---|---|
//! | Start `{"amount": ...}` | new | event `authorised`, a timer |
//! | the timer, Call `{"command": "capture"}` | authorised | event `captured`, no timer |
//! | Call `{"command": "refund"}` | captured | an error, as long as nobody has repaired it: the machine fails |
//! | Repair `{"note": ...}` | failed | event `repaired`; refunds work from here on |
//! | Call `{"command": "refund"}` | repaired | event `refunded` |
//! | Call `{"command": "close"}` | anything but closed | event `closed`, no timer |
//! | Notify `{"text": ...}` | any | event `notified` |

use async_trait::async_trait;

use crate::wire::{
    self, CallResult, ComplexAction, Content, Limits, MachineStateChange, Method, ProcessCall, ProcessRepair,
    ProcessSignal, Reader, RepairResult, SetTimerAction, Signal, SignalResult, Timer, TimerAction, Type,
    UnsetTimerAction, Value, Wire,
};
use crate::woody::{self, MethodKind, Reply, Service};

/// What a failed refund says, for people.
pub(super) const REFUND_ERROR: &str = "the bank does not answer";

/// The processor behind its woody service.
pub(super) struct Payments {
    /// Seconds between the authorisation and the capture.
    pub(super) capture_after: i32,
}

/// Where a payment stands: its machine's aux state, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Authorised,
    Captured,
    /// Failed once, and cared for: refunds work.
    Repaired,
    Refunded,
    Closed,
}

/// What a question comes to.
#[derive(Debug, PartialEq)]
struct Turn {
    event: Option<Value>,
    stage: Option<Stage>,
    /// Unset is a timer change too.
    timer: Option<TimerAction>,
    response: &'static str,
}

// === impl Stage ===

impl Stage {
    const ALL: [Self; 5] = [Self::Authorised, Self::Captured, Self::Repaired, Self::Refunded, Self::Closed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Authorised => "authorised",
            Self::Captured => "captured",
            Self::Repaired => "repaired",
            Self::Refunded => "refunded",
            Self::Closed => "closed",
        }
    }

    fn of(machine: &wire::Machine) -> Result<Self, woody::Error> {
        let stage = machine.aux_state.as_ref().and_then(|aux| text_at(&aux.data, "stage"));
        Self::ALL
            .into_iter()
            .find(|known| stage.as_deref() == Some(known.as_str()))
            .ok_or_else(|| woody::Error::unexpected("the aux state is no payment's"))
    }
}

// === impl Turn ===

impl Turn {
    fn new(event: &[(&str, &str)], stage: Option<Stage>, response: &'static str) -> Self {
        Self { event: Some(texts(event)), stage, timer: None, response }
    }

    /// Changes nothing, and so commits nothing.
    fn nothing(response: &'static str) -> Self {
        Self { event: None, stage: None, timer: None, response }
    }

    fn unset_timer(self) -> Self {
        Self { timer: Some(TimerAction::Unset(UnsetTimerAction {})), ..self }
    }

    fn set_timer(self, seconds: i32) -> Self {
        let set = SetTimerAction { timer: Timer::Timeout(seconds), range: None, timeout: None };
        Self { timer: Some(TimerAction::Set(set)), ..self }
    }

    fn response(&self) -> Value {
        Value::str(self.response)
    }

    fn parts(self) -> (MachineStateChange, ComplexAction) {
        let content = |data| Content { format_version: Some(1), data };
        let change = MachineStateChange {
            aux_state_legacy: None,
            events_legacy: None,
            aux_state: self.stage.map(|stage| content(texts(&[("stage", stage.as_str())]))),
            events: Some(self.event.into_iter().map(content).collect()),
        };
        (change, ComplexAction { set_timer: None, timer: self.timer, tag: None, remove: None })
    }
}

// === impl Payments ===

impl Payments {
    fn signal(&self, args: &wire::SignalArgs) -> Result<Turn, woody::Error> {
        Ok(match &args.signal {
            Signal::Init(init) => {
                let amount = text_at(&init.arg, "amount").unwrap_or_else(|| "nothing".to_owned());
                let event = [("event", "authorised"), ("amount", amount.as_str())];
                Turn::new(&event, Some(Stage::Authorised), "").set_timer(self.capture_after)
            }
            Signal::Timeout(_) => match Stage::of(&args.machine)? {
                Stage::Authorised => capture("the timer"),
                Stage::Captured | Stage::Repaired | Stage::Refunded | Stage::Closed => Turn::nothing(""),
            },
            Signal::Notification(notification) => {
                let text = text_at(&notification.arg, "text").unwrap_or_default();
                Turn::new(&[("event", "notified"), ("text", &text)], None, "")
            }
        })
    }

    fn call(&self, args: &wire::CallArgs) -> Result<Turn, woody::Error> {
        let command = text_at(&args.arg, "command").unwrap_or_default();
        let stage = Stage::of(&args.machine)?;
        Ok(match (command.as_str(), stage) {
            ("capture", Stage::Authorised) => capture("a call"),
            ("capture", _) => Turn::nothing("nothing to capture"),
            // What a bug or an outage of a real processor looks like.
            ("refund", Stage::Captured) => return Err(woody::Error::unexpected(REFUND_ERROR)),
            ("refund", Stage::Repaired) => Turn::new(&[("event", "refunded")], Some(Stage::Refunded), "refunded"),
            ("refund", _) => Turn::nothing("nothing to refund"),
            ("close", Stage::Closed) => Turn::nothing("closed already"),
            ("close", _) => Turn::new(&[("event", "closed")], Some(Stage::Closed), "closed").unset_timer(),
            _ => Turn::nothing("no such command"),
        })
    }

    fn repair(&self, args: &wire::RepairArgs) -> Turn {
        let note = text_at(&args.arg, "note").unwrap_or_default();
        Turn::new(&[("event", "repaired"), ("note", &note)], Some(Stage::Repaired), "repaired")
    }
}

#[async_trait]
impl Service for Payments {
    fn method(&self, name: &[u8]) -> Option<MethodKind> {
        const METHODS: [&str; 3] = [ProcessSignal::NAME, ProcessCall::NAME, ProcessRepair::NAME];
        METHODS.iter().any(|method| method.as_bytes() == name).then_some(MethodKind::Call)
    }

    async fn handle(&self, request: woody::Request) -> Result<Reply, woody::Error> {
        let woody::Request { name, mut args, seqid, .. } = request;
        match std::str::from_utf8(&name).unwrap_or_default() {
            ProcessSignal::NAME => {
                let turn = self.signal(&wire::read_args::<ProcessSignal>(&mut args)?.a)?;
                let (change, action) = turn.parts();
                reply::<ProcessSignal>(seqid, SignalResult { change, action })
            }
            ProcessCall::NAME => {
                let turn = self.call(&wire::read_args::<ProcessCall>(&mut args)?.a)?;
                let response = turn.response();
                let (change, action) = turn.parts();
                reply::<ProcessCall>(seqid, CallResult { response, change, action })
            }
            ProcessRepair::NAME => {
                let turn = self.repair(&wire::read_args::<ProcessRepair>(&mut args)?.a);
                let response = turn.response();
                let (change, action) = turn.parts();
                reply::<ProcessRepair>(seqid, RepairResult { response, change, action })
            }
            _ => Err(woody::Error::bad_request("thrift: unknown function")),
        }
    }
}

fn capture(by: &str) -> Turn {
    Turn::new(&[("event", "captured"), ("by", by)], Some(Stage::Captured), "captured").unset_timer()
}

fn reply<M: Method>(seqid: i32, success: M::Success) -> Result<Reply, woody::Error> {
    let body =
        wire::write_reply::<M>(seqid, &Ok(success)).map_err(|error| woody::Error::unexpected(error.to_string()))?;
    Ok(Reply::Result { body, business: None })
}

/// An object of texts.
pub(super) fn texts(pairs: &[(&str, &str)]) -> Value {
    let pairs: Vec<_> = pairs.iter().map(|(key, text)| (Value::str(key), Value::str(text))).collect();
    Value::object(&pairs)
}

/// The text that an object of texts has under a key.
fn text_at(object: &Value, wanted: &str) -> Option<String> {
    let mut reader = Reader::new(object.as_bytes().clone(), Limits::default());
    if reader.field().ok()?? != (Type::Map, 7) {
        return None;
    }
    for _ in 0..reader.pairs(Type::Struct, Type::Struct).ok()? {
        let key = Value::read(&mut reader).ok()?;
        let value = Value::read(&mut reader).ok()?;
        if key == Value::str(wanted) {
            let mut reader = Reader::new(value.as_bytes().clone(), Limits::default());
            return match reader.field().ok()?? {
                (Type::String, 5) => String::from_utf8(reader.string().ok()?.into()).ok(),
                _ => None,
            };
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CallArgs, History, HistoryRange, Machine};

    fn call(stage: Stage, command: &str) -> Result<Turn, woody::Error> {
        let machine = Machine {
            ns: "payments".into(),
            id: "payment-1".into(),
            history: History::default(),
            history_range: HistoryRange::ALL,
            status: None,
            aux_state: Some(Content { format_version: None, data: texts(&[("stage", stage.as_str())]) }),
            timer: None,
            aux_state_legacy: None,
        };
        Payments { capture_after: 1 }.call(&CallArgs { arg: texts(&[("command", command)]), machine })
    }

    #[test]
    fn a_refund_fails_until_the_payment_was_repaired() {
        let error = call(Stage::Captured, "refund").expect_err("the bank does not answer");
        assert_eq!(error.class, woody::Class::ResultUnexpected, "the machine must fail");
        assert_eq!(call(Stage::Repaired, "refund").expect("a turn").stage, Some(Stage::Refunded));
    }

    #[test]
    fn a_command_that_does_not_fit_changes_nothing() {
        for (stage, command) in [(Stage::Refunded, "capture"), (Stage::Closed, "close"), (Stage::Captured, "dance")] {
            let turn = call(stage, command).expect("a turn");
            assert_eq!((turn.event, turn.stage, turn.timer), (None, None, None), "{command}");
        }
    }

    #[test]
    fn texts_are_found_by_their_key() {
        let object = Value::object(&[(Value::int(1), Value::nil()), (Value::str("a"), Value::str("b"))]);
        assert_eq!(text_at(&object, "a").as_deref(), Some("b"));
        for (object, key) in [(object, "c"), (Value::str("a"), "a"), (texts(&[]), "a")] {
            assert_eq!(text_at(&object, key), None, "{key}");
        }
    }
}
