//! The generation of 2021: Content, a Repair that answers, tags and the deprecated timer; no notifications, no status.

use bytes::Bytes;
use machinegun::wire::{
    Call, Content, DescriptorParams, Event, Exception, HistoryRange, InitSignal, Notify, Protocol, Remove,
    RemoveAction, Repair, SetTimerAction, SimpleRepair, Start, TagAction, TimeoutSignal, TimerAction, Value, Void,
};
use machinegun::{thrift_methods, thrift_struct, thrift_union};

use crate::live::{Callee, Failure, Live, id, of, remove, simply, start, tag, to};
use crate::{in_seconds, is_strict, strict_world, timer, world};

thrift_struct! {
    pub struct Machine {
        1 => ns: required Bytes,
        2 => id: required Bytes,
        3 => history: required Vec<Event>,
        4 => history_range: required HistoryRange,
        7 => aux_state: optional Content,
        6 => timer: optional Bytes,
    }

    pub struct MachineStateChange {
        3 => aux_state: optional Content,
        4 => events: optional Vec<Content>,
    }

    pub struct ComplexAction {
        1 => set_timer: optional SetTimerAction,
        3 => timer: optional TimerAction,
        2 => tag: optional TagAction,
        4 => remove: optional RemoveAction,
    }

    pub struct SignalArgs {
        1 => signal: required Signal,
        2 => machine: required Machine,
    }

    pub struct SignalResult {
        1 => change: required MachineStateChange,
        2 => action: required ComplexAction,
    }

    /// Of a call and of a repair.
    pub struct ArgArgs {
        1 => arg: required Value,
        2 => machine: required Machine,
    }

    pub struct ArgResult {
        1 => response: required Value,
        2 => change: required MachineStateChange,
        3 => action: required ComplexAction,
    }

    pub struct ProcessSignalParams {
        1 => a: default SignalArgs,
    }

    pub struct ProcessArgParams {
        1 => a: default ArgArgs,
    }
}

thrift_union! {
    pub enum Signal {
        1 => init: Init(InitSignal),
        2 => timeout: Timeout(TimeoutSignal),
    }
}

thrift_methods! {
    ProcessSignal = "ProcessSignal" (ProcessSignalParams) -> SignalResult;
    ProcessCall = "ProcessCall" (ProcessArgParams) -> ArgResult;
    ProcessRepair = "ProcessRepair" (ProcessArgParams) -> ArgResult, throws { 1 => "RepairFailed" };
    GetMachine = "GetMachine" (DescriptorParams) -> Machine,
        throws { 1 => "NamespaceNotFound", 2 => "MachineNotFound", 3 => "EventNotFound" };
}

const NOTHING: ComplexAction = ComplexAction { set_timer: None, timer: None, tag: None, remove: None };

fn content(text: &str) -> Content {
    Content { format_version: Some(1), data: Value::str(text) }
}

fn change(aux_state: &str, events: &[&str]) -> MachineStateChange {
    let events = events.iter().map(|event| content(event)).collect();
    MachineStateChange { aux_state: Some(content(aux_state)), events: Some(events) }
}

fn done(response: &str, change: MachineStateChange, action: ComplexAction) -> ArgResult {
    ArgResult { response: Value::str(response), change, action }
}

fn tagging(tag: &str) -> ComplexAction {
    ComplexAction { tag: Some(TagAction { tag: Bytes::copy_from_slice(tag.as_bytes()) }), ..NOTHING }
}

/// Ids, versions and data of the history.
fn history(machine: &Machine) -> Vec<(i64, Option<i32>, Value)> {
    machine.history.iter().map(|event| (event.id, event.format_version, event.data.clone())).collect()
}

fn of_version_1(events: &[&str]) -> Vec<(i64, Option<i32>, Value)> {
    (1..).zip(events).map(|(id, event)| (id, Some(1), Value::str(event))).collect()
}

async fn start_one(live: &Live, processor: &mut Callee, id: &str, action: ComplexAction) {
    let signal = processor.answer::<ProcessSignal>(|asked| {
        assert_eq!(asked.a.signal, Signal::Init(InitSignal { arg: Value::str("init") }));
        let blank = Content { format_version: None, data: Value::empty() };
        assert_eq!((history(&asked.a.machine), asked.a.machine.aux_state), (vec![], Some(blank)));
        SignalResult { change: change("a1", &["e1"]), action }
    });
    let (answer, heard) = tokio::join!(live.ask::<Start>(start(id, "init")), signal);
    assert_eq!(answer, Ok(Void));
    assert_eq!(heard.machine_fields, [1, 2, 3, 4, 7], "only this generation's fields");
}

async fn started(action: ComplexAction) -> (Live, Callee) {
    started_in(world(Protocol::Y2021).await, action).await
}

async fn started_in((live, mut processor): (Live, Callee), action: ComplexAction) -> (Live, Callee) {
    start_one(&live, &mut processor, "ID", action).await;
    (live, processor)
}

async fn fail(live: &Live, processor: &mut Callee) {
    let (answer, ()) = tokio::join!(live.ask::<Call>(to(id("ID"), "fail")), processor.fail::<ProcessCall>());
    assert_eq!(answer, Err(Failure::Thrown(Exception::MachineFailed)));
}

#[tokio::test]
async fn a_machine_of_2021_lives_through_calls_with_events_and_its_deprecated_timer() {
    let (live, mut processor) = started(ComplexAction { set_timer: Some(in_seconds(5)), ..NOTHING }).await;
    let call = processor.answer::<ProcessCall>(|asked| {
        assert_eq!((asked.a.arg, history(&asked.a.machine)), (Value::str("call"), of_version_1(&["e1"])));
        assert_eq!(asked.a.machine.timer.as_deref(), Some(&b"2030-01-01T00:00:05Z"[..]));
        assert_eq!(asked.a.machine.aux_state, Some(content("a1")));
        done("done", change("a2", &["e2"]), NOTHING)
    });
    let (answer, heard) = tokio::join!(live.ask::<Call>(to(id("ID"), "call")), call);
    assert_eq!(answer, Ok(Value::str("done")));
    assert_eq!(heard.machine_fields, [1, 2, 3, 4, 7, 6]);

    live.advance(5);
    let fired = processor.answer::<ProcessSignal>(|asked| {
        assert_eq!(asked.a.signal, Signal::Timeout(TimeoutSignal {}));
        assert_eq!(asked.a.machine.timer, None);
        let action = ComplexAction { set_timer: Some(in_seconds(60)), timer: timer(7), ..NOTHING };
        SignalResult { change: change("a3", &["e3"]), action }
    });
    fired.await;

    // In its turn, behind the timer's step: the newer field counted.
    let call = processor.answer::<ProcessCall>(|asked| {
        assert_eq!(asked.a.machine.timer.as_deref(), Some(&b"2030-01-01T00:00:12Z"[..]));
        done("again", change("a4", &[]), NOTHING)
    });
    assert_eq!(tokio::join!(live.ask::<Call>(to(id("ID"), "again")), call).0, Ok(Value::str("again")));
    let machine = live.ask::<GetMachine>(of(id("ID"))).await.expect("a machine");
    assert_eq!(history(&machine), of_version_1(&["e1", "e2", "e3"]));
    assert_eq!(machine.aux_state, Some(content("a4")));
    live.stop().await;
}

#[tokio::test]
async fn a_repair_of_2021_answers_or_declines() {
    let (live, mut processor) = started(NOTHING).await;
    let working = Failure::Thrown(Exception::MachineAlreadyWorking);
    assert_eq!(live.ask::<Repair>(to(id("ID"), "mend")).await, Err(working.clone()));
    fail(&live, &mut processor).await;

    let declined = Exception::RepairFailed(Value::str("not yet"));
    let refuse = processor.throw::<ProcessRepair>(declined.clone());
    assert_eq!(tokio::join!(live.ask::<Repair>(to(id("ID"), "mend")), refuse).0, Err(Failure::Thrown(declined)));

    let repair = processor.answer::<ProcessRepair>(|asked| {
        assert_eq!((asked.a.arg, history(&asked.a.machine)), (Value::str("mend"), of_version_1(&["e1"])));
        done("mended", change("a2", &["repaired"]), NOTHING)
    });
    let (answer, heard) = tokio::join!(live.ask::<Repair>(to(id("ID"), "mend")), repair);
    assert_eq!(answer, Ok(Value::str("mended")));
    assert_eq!(heard.machine_fields, [1, 2, 3, 4, 7]);

    fail(&live, &mut processor).await;
    assert_eq!(live.ask::<SimpleRepair>(simply(id("ID"))).await, Ok(Void));
    assert_eq!(live.ask::<SimpleRepair>(simply(id("ID"))).await, Err(working));
    let machine = live.ask::<GetMachine>(of(id("ID"))).await.expect("a machine");
    assert_eq!(history(&machine), of_version_1(&["e1", "repaired"]));
    live.stop().await;
}

#[tokio::test]
async fn every_method_of_2021_takes_a_tag_for_an_id() {
    let (live, mut processor) = started(tagging("T")).await;
    let call = processor.answer::<ProcessCall>(|asked| {
        assert_eq!(asked.a.machine.id, "ID");
        done("found", change("a2", &[]), tagging("T"))
    });
    let answer = tokio::join!(live.ask::<Call>(to(tag("T"), "call")), call).0;
    assert_eq!(answer, Ok(Value::str("found")), "its own tag may be set again");
    fail(&live, &mut processor).await;
    let repair = processor.answer::<ProcessRepair>(|_| done("mended", change("a3", &[]), NOTHING));
    assert_eq!(tokio::join!(live.ask::<Repair>(to(tag("T"), "mend")), repair).0, Ok(Value::str("mended")));
    fail(&live, &mut processor).await;
    assert_eq!(live.ask::<SimpleRepair>(simply(tag("T"))).await, Ok(Void));
    assert_eq!(live.ask::<GetMachine>(of(tag("T"))).await.expect("a machine").id, "ID");

    let missing = Failure::Thrown(Exception::MachineNotFound);
    assert_eq!(live.ask::<Call>(to(tag("never"), "call")).await, Err(missing.clone()));
    assert_eq!(live.ask::<Remove>(remove("ID")).await, Ok(Void));
    assert_eq!(live.ask::<GetMachine>(of(tag("T"))).await, Err(missing));
    // It outlives its machine: the same id that is started anew has it.
    start_one(&live, &mut processor, "ID", NOTHING).await;
    assert_eq!(live.ask::<GetMachine>(of(tag("T"))).await.expect("a machine").id, "ID");
    live.stop().await;
}

#[tokio::test]
async fn a_tag_of_another_machine_fails_the_step_but_keeps_its_events() {
    let (live, mut processor) = started(tagging("T")).await;
    start_one(&live, &mut processor, "other", NOTHING).await;
    let call = processor.answer::<ProcessCall>(|_| done("mine", change("a2", &["e2"]), tagging("T")));
    let answer = tokio::join!(live.ask::<Call>(to(id("other"), "take it")), call).0;
    assert_eq!(answer, Err(Failure::Thrown(Exception::MachineFailed)));
    assert_eq!(live.ask::<GetMachine>(of(tag("T"))).await.expect("a machine").id, "ID");
    let other = live.ask::<GetMachine>(of(id("other"))).await.expect("a machine");
    assert_eq!(history(&other), of_version_1(&["e1", "e2"]));
    live.stop().await;
}

#[tokio::test]
async fn nobody_notifies_a_machine_of_2021() {
    let (live, mut processor) = started(NOTHING).await;
    let missing = Failure::Thrown(Exception::NamespaceNotFound);
    assert_eq!(live.ask::<Notify>(to(id("ID"), "hear")).await, Err(missing.clone()));
    assert_eq!(live.ask::<Notify>(to(tag("never"), "hear")).await, Err(missing));
    live.advance(3_600);
    let call = processor.answer::<ProcessCall>(|_| {
        let action = ComplexAction { remove: Some(RemoveAction {}), ..NOTHING };
        done("gone", change("a2", &[]), action)
    });
    assert_eq!(tokio::join!(live.ask::<Call>(to(id("ID"), "go")), call).0, Ok(Value::str("gone")));
    assert_eq!(live.ask::<Remove>(remove("ID")).await, Err(Failure::Thrown(Exception::MachineNotFound)));
    processor.was_not_asked();
    live.stop().await;
}

#[tokio::test]
async fn event_not_found_is_thrown_to_callers_of_2021_by_strict_ranges_alone() {
    for (strict, world) in [(false, world(Protocol::Y2021).await), (true, strict_world(Protocol::Y2021).await)] {
        let (live, _processor) = started_in(world, NOTHING).await;
        assert_eq!(is_strict::<GetMachine>(&live).await, strict);
        live.stop().await;
    }
}
