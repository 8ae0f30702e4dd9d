//! The first generation, as it was before Content: the aux state in field 5, changes in fields 1 and 2, Repair as a signal.

use bytes::Bytes;
use machinegun::wire::{
    self, DescribedParams, DescriptorParams, Exception, HistoryRange, InitSignal, Modernize, Notify, Protocol,
    RemoveAction, SetTimerAction, SimpleRepair, TagAction, TimeoutSignal, TimerAction, UnsetTimerAction, Value, Void,
};
use machinegun::{thrift_methods, thrift_struct, thrift_union};

use crate::live::{Callee, Failure, Live, id, of, refused, remove, simply, start, tag, to};
use crate::{in_seconds, is_strict, strict_world, timer, world};

thrift_struct! {
    pub struct Event {
        1 => id: required i64,
        2 => created_at: required Bytes,
        4 => event_payload: required Value,
    }

    pub struct Machine {
        1 => ns: required Bytes,
        2 => id: required Bytes,
        3 => history: required Vec<Event>,
        4 => history_range: required HistoryRange,
        5 => aux_state: optional Value,
        6 => timer: optional Bytes,
    }

    pub struct MachineStateChange {
        1 => aux_state: required Value,
        2 => events: required Vec<Value>,
    }

    pub struct ComplexAction {
        1 => set_timer: optional SetTimerAction,
        2 => tag: optional TagAction,
        3 => timer: optional TimerAction,
        4 => remove: optional RemoveAction,
    }

    pub struct RepairSignal {
        1 => arg: optional Value,
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

    pub struct ProcessSignalParams {
        1 => a: default SignalArgs,
    }

    pub struct ProcessCallParams {
        1 => a: default CallArgs,
    }
}

thrift_union! {
    pub enum Signal {
        1 => init: Init(InitSignal),
        2 => timeout: Timeout(TimeoutSignal),
        3 => repair: Repair(RepairSignal),
    }
}

thrift_methods! {
    ProcessSignal = "ProcessSignal" (ProcessSignalParams) -> SignalResult;
    ProcessCall = "ProcessCall" (ProcessCallParams) -> CallResult;
    Start = "Start" (wire::StartParams) -> Void,
        throws { 1 => "NamespaceNotFound", 2 => "MachineAlreadyExists", 3 => "MachineFailed" };
    Repair = "Repair" (DescribedParams) -> Void,
        throws { 1 => "NamespaceNotFound", 2 => "MachineNotFound", 3 => "MachineFailed" };
    Call = "Call" (DescribedParams) -> Value,
        throws { 1 => "NamespaceNotFound", 2 => "MachineNotFound", 3 => "MachineFailed" };
    GetMachine = "GetMachine" (DescriptorParams) -> Machine,
        throws { 1 => "NamespaceNotFound", 2 => "MachineNotFound", 3 => "EventNotFound" };
    Remove = "Remove" (wire::RemoveParams) -> Void,
        throws { 1 => "NamespaceNotFound", 2 => "MachineNotFound" };
}

const NOTHING: ComplexAction = ComplexAction { set_timer: None, tag: None, timer: None, remove: None };

fn change(aux_state: &str, events: &[&str]) -> MachineStateChange {
    MachineStateChange {
        aux_state: Value::str(aux_state),
        events: events.iter().map(|event| Value::str(event)).collect(),
    }
}

fn deprecated(seconds: i32) -> ComplexAction {
    ComplexAction { set_timer: Some(in_seconds(seconds)), ..NOTHING }
}

/// Ids and data of the history, aux state, timer.
fn seen(machine: &Machine) -> (Vec<(i64, Value)>, Option<Value>, Option<&str>) {
    let events = machine.history.iter().map(|event| (event.id, event.event_payload.clone())).collect();
    let timer = machine.timer.as_ref().map(|timer| std::str::from_utf8(timer).expect("UTF-8"));
    (events, machine.aux_state.clone(), timer)
}

fn history(events: &[&str]) -> Vec<(i64, Value)> {
    (1..).zip(events).map(|(id, event)| (id, Value::str(event))).collect()
}

async fn started(action: ComplexAction) -> (Live, Callee) {
    started_in(world(Protocol::Damsel).await, action).await
}

async fn started_in((live, mut processor): (Live, Callee), action: ComplexAction) -> (Live, Callee) {
    let signal = processor.answer::<ProcessSignal>(|asked| {
        assert_eq!(asked.a.signal, Signal::Init(InitSignal { arg: Value::str("init") }));
        assert_eq!(seen(&asked.a.machine), (vec![], Some(Value::empty()), None));
        SignalResult { change: change("a1", &["e1"]), action }
    });
    let (answer, heard) = tokio::join!(live.ask::<Start>(start("ID", "init")), signal);
    assert_eq!(answer, Ok(Void));
    assert_eq!(heard.machine_fields, [1, 2, 3, 4, 7, 5], "the aux state stands in both fields");
    (live, processor)
}

async fn failed() -> (Live, Callee) {
    let (live, mut processor) = started(deprecated(5)).await;
    let (answer, ()) = tokio::join!(live.ask::<Call>(to(id("ID"), "fail")), processor.fail::<ProcessCall>());
    assert_eq!(answer, Err(Failure::Thrown(Exception::MachineFailed)));
    (live, processor)
}

#[tokio::test]
async fn a_damsel_machine_lives_through_calls_with_events_and_its_deprecated_timer() {
    let (live, mut processor) = started(deprecated(5)).await;
    let call = processor.answer::<ProcessCall>(|asked| {
        assert_eq!(asked.a.arg, Value::str("call"));
        let timer = Some("2030-01-01T00:00:05Z");
        assert_eq!(seen(&asked.a.machine), (history(&["e1"]), Some(Value::str("a1")), timer));
        CallResult { response: Value::str("done"), change: change("a2", &["e2", "e3"]), action: NOTHING }
    });
    let (answer, heard) = tokio::join!(live.ask::<Call>(to(id("ID"), "call")), call);
    assert_eq!(answer, Ok(Value::str("done")));
    assert_eq!(heard.machine_fields, [1, 2, 3, 4, 7, 6, 5]);

    live.advance(5);
    let fired = processor.answer::<ProcessSignal>(|asked| {
        assert_eq!(asked.a.signal, Signal::Timeout(TimeoutSignal {}));
        assert_eq!(seen(&asked.a.machine), (history(&["e1", "e2", "e3"]), Some(Value::str("a2")), None));
        SignalResult { change: change("a3", &["e4"]), action: NOTHING }
    });
    fired.await;

    // In its turn, behind the timer's step: the newer field counts where both are there.
    let call = processor.answer::<ProcessCall>(|asked| {
        assert_eq!(seen(&asked.a.machine).0, history(&["e1", "e2", "e3", "e4"]));
        let action = ComplexAction { set_timer: Some(in_seconds(60)), timer: timer(7), ..NOTHING };
        CallResult { response: Value::nil(), change: change("a4", &[]), action }
    });
    assert_eq!(tokio::join!(live.ask::<Call>(to(id("ID"), "again")), call).0, Ok(Value::nil()));
    let machine = live.ask::<GetMachine>(of(id("ID"))).await.expect("a machine");
    let whole = (history(&["e1", "e2", "e3", "e4"]), Some(Value::str("a4")), Some("2030-01-01T00:00:12Z"));
    assert_eq!(seen(&machine), whole);
    // Callers of later generations see it in their fields.
    let machine = live.ask::<wire::GetMachine>(of(id("ID"))).await.expect("a machine");
    assert_eq!(machine.aux_state.map(|aux| (aux.format_version, aux.data)), Some((None, Value::str("a4"))));
    assert!(machine.aux_state_legacy.is_some() && machine.status.is_some());

    let call = processor.answer::<ProcessCall>(|_| {
        let timer = Some(TimerAction::Unset(UnsetTimerAction {}));
        let action = ComplexAction { set_timer: Some(in_seconds(60)), timer, ..NOTHING };
        CallResult { response: Value::nil(), change: change("a5", &[]), action }
    });
    assert_eq!(tokio::join!(live.ask::<Call>(to(id("ID"), "unset")), call).0, Ok(Value::nil()));
    assert_eq!(live.ask::<GetMachine>(of(id("ID"))).await.expect("a machine").timer, None);
    live.stop().await;
}

#[tokio::test]
async fn a_damsel_repair_is_a_signal_without_a_response() {
    let (live, mut processor) = failed().await;
    let signal = processor.answer::<ProcessSignal>(|asked| {
        assert_eq!(asked.a.signal, Signal::Repair(RepairSignal { arg: Some(Value::str("mend")) }));
        assert_eq!(seen(&asked.a.machine).0, history(&["e1"]));
        SignalResult { change: change("a2", &["repaired"]), action: NOTHING }
    });
    assert_eq!(tokio::join!(live.ask::<Repair>(to(id("ID"), "mend")), signal).0, Ok(Void));
    let machine = live.ask::<GetMachine>(of(id("ID"))).await.expect("a machine");
    assert_eq!(seen(&machine).0, history(&["e1", "repaired"]));
    // There is no exception for a machine that needs none.
    assert_eq!(live.ask::<Repair>(to(id("ID"), "mend")).await, Err(refused(500)));
    processor.was_not_asked();
    let missing = Err(Failure::Thrown(Exception::MachineNotFound));
    assert_eq!(live.ask::<Repair>(to(id("nobody"), "mend")).await, missing);
    live.stop().await;
}

#[tokio::test]
async fn a_damsel_processor_that_fails_over_a_repair_leaves_the_machine_failed() {
    let (live, mut processor) = failed().await;
    let failed = Err(Failure::Thrown(Exception::MachineFailed));
    let repair = live.ask::<Repair>(to(id("ID"), "mend"));
    assert_eq!(tokio::join!(repair, processor.fail::<ProcessSignal>()).0, failed);
    assert_eq!(live.ask::<SimpleRepair>(simply(id("ID"))).await, Ok(Void));
    let working = Err(Failure::Thrown(Exception::MachineAlreadyWorking));
    assert_eq!(live.ask::<SimpleRepair>(simply(id("ID"))).await, working);
    // Its timer stands, and fires.
    live.advance(5);
    let fired = processor.answer::<ProcessSignal>(|asked| {
        assert_eq!(asked.a.signal, Signal::Timeout(TimeoutSignal {}));
        SignalResult { change: change("a2", &[]), action: NOTHING }
    });
    fired.await;
    live.stop().await;
}

#[tokio::test]
async fn a_damsel_machine_is_found_by_its_tag_until_it_is_removed() {
    let tagged = ComplexAction { tag: Some(TagAction { tag: "T".into() }), ..NOTHING };
    let (live, mut processor) = started(tagged).await;
    let call = processor.answer::<ProcessCall>(|asked| {
        assert_eq!(asked.a.machine.id, "ID");
        CallResult { response: Value::str("found"), change: change("a2", &[]), action: NOTHING }
    });
    assert_eq!(tokio::join!(live.ask::<Call>(to(tag("T"), "call")), call).0, Ok(Value::str("found")));
    assert_eq!(live.ask::<GetMachine>(of(tag("T"))).await.expect("a machine").id, "ID");
    assert_eq!(live.ask::<Remove>(remove("ID")).await, Ok(Void));
    let missing = Failure::Thrown(Exception::MachineNotFound);
    assert_eq!(live.ask::<GetMachine>(of(id("ID"))).await, Err(missing.clone()));
    assert_eq!(live.ask::<GetMachine>(of(tag("T"))).await, Err(missing.clone()));
    assert_eq!(live.ask::<GetMachine>(of(tag("never"))).await, Err(missing));
    live.stop().await;
}

#[tokio::test]
async fn a_damsel_processor_removes_its_machine() {
    let (live, mut processor) = started(NOTHING).await;
    let call = processor.answer::<ProcessCall>(|_| {
        let action = ComplexAction { remove: Some(RemoveAction {}), ..NOTHING };
        CallResult { response: Value::str("gone"), change: change("", &["last"]), action }
    });
    assert_eq!(tokio::join!(live.ask::<Call>(to(id("ID"), "go")), call).0, Ok(Value::str("gone")));
    assert_eq!(live.ask::<Remove>(remove("ID")).await, Err(Failure::Thrown(Exception::MachineNotFound)));
    live.stop().await;
}

#[tokio::test]
async fn nobody_notifies_or_modernizes_a_damsel_machine() {
    let (live, mut processor) = started(NOTHING).await;
    let missing = Failure::Thrown(Exception::NamespaceNotFound);
    for reference in [id("ID"), id("nobody"), tag("never")] {
        assert_eq!(live.ask::<Notify>(to(reference.clone(), "hear")).await, Err(missing.clone()));
        let found = live.ask::<Modernize>(of(reference)).await;
        assert!(found.is_err(), "it has no modernizer");
    }
    // Nothing waits for it: an hour later, and after its next step, nobody has asked the processor.
    let call = processor.answer::<ProcessCall>(|_| CallResult {
        response: Value::nil(),
        change: change("a2", &[]),
        action: NOTHING,
    });
    assert_eq!(tokio::join!(live.ask::<Call>(to(id("ID"), "call")), call).0, Ok(Value::nil()));
    live.advance(3_600);
    assert_eq!(live.ask::<GetMachine>(of(id("ID"))).await.expect("a machine").history.len(), 1);
    processor.was_not_asked();
    live.stop().await;
}

#[tokio::test]
async fn event_not_found_is_thrown_to_callers_of_damsel_by_strict_ranges_alone() {
    for (strict, world) in [(false, world(Protocol::Damsel).await), (true, strict_world(Protocol::Damsel).await)] {
        let (live, _processor) = started_in(world, NOTHING).await;
        assert_eq!(is_strict::<GetMachine>(&live).await, strict);
        live.stop().await;
    }
}
