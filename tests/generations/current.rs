//! Today's generation: notifications and a status, and what it has dropped: tags, the deprecated timer.

use bytes::Bytes;
use machinegun::wire::{
    self, Call, Content, DescriptorParams, Event, Exception, HistoryRange, InitSignal, MachineStatus,
    MachineStatusFailed, MachineStatusWorking, NotificationSignal, Notify, Protocol, Remove, RemoveAction, Repair,
    SimpleRepair, Start, TagAction, TimeoutSignal, TimerAction, Value, Void,
};
use machinegun::{thrift_methods, thrift_struct, thrift_union};

use crate::live::{Callee, Failure, Live, id, of, refused, remove, simply, start, tag, to};
use crate::{in_seconds, is_strict, strict_world, timer, world};

thrift_struct! {
    pub struct Machine {
        1 => ns: required Bytes,
        2 => id: required Bytes,
        3 => history: required Vec<Event>,
        4 => history_range: required HistoryRange,
        8 => status: optional MachineStatus,
        7 => aux_state: optional Content,
        6 => timer: optional Bytes,
    }

    pub struct MachineStateChange {
        3 => aux_state: optional Content,
        4 => events: optional Vec<Content>,
    }

    pub struct ComplexAction {
        3 => timer: optional TimerAction,
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
        3 => notification: Notification(NotificationSignal),
    }
}

thrift_methods! {
    ProcessSignal = "ProcessSignal" (ProcessSignalParams) -> SignalResult;
    ProcessCall = "ProcessCall" (ProcessArgParams) -> ArgResult;
    ProcessRepair = "ProcessRepair" (ProcessArgParams) -> ArgResult, throws { 1 => "RepairFailed" };
    GetMachine = "GetMachine" (DescriptorParams) -> Machine,
        throws { 1 => "NamespaceNotFound", 2 => "MachineNotFound", 3 => "EventNotFound" };
}

const NOTHING: ComplexAction = ComplexAction { timer: None, remove: None };

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

/// Ids and data of the history.
fn history(machine: &Machine) -> Vec<(i64, Value)> {
    machine.history.iter().map(|event| (event.id, event.data.clone())).collect()
}

fn events(texts: &[&str]) -> Vec<(i64, Value)> {
    (1..).zip(texts).map(|(id, text)| (id, Value::str(text))).collect()
}

async fn started(action: ComplexAction) -> (Live, Callee) {
    started_in(world(Protocol::Current).await, action).await
}

async fn started_in((live, mut processor): (Live, Callee), action: ComplexAction) -> (Live, Callee) {
    let signal = processor.answer::<ProcessSignal>(|asked| {
        assert_eq!(asked.a.signal, Signal::Init(InitSignal { arg: Value::str("init") }));
        let blank = Content { format_version: None, data: Value::empty() };
        assert_eq!((history(&asked.a.machine), asked.a.machine.aux_state), (vec![], Some(blank)));
        SignalResult { change: change("a1", &["e1"]), action }
    });
    let (answer, heard) = tokio::join!(live.ask::<Start>(start("ID", "init")), signal);
    assert_eq!(answer, Ok(Void));
    assert_eq!(heard.machine_fields, [1, 2, 3, 4, 7], "neither an old field nor a status");
    (live, processor)
}

async fn fail(live: &Live, processor: &mut Callee) {
    let (answer, ()) = tokio::join!(live.ask::<Call>(to(id("ID"), "fail")), processor.fail::<ProcessCall>());
    assert_eq!(answer, Err(Failure::Thrown(Exception::MachineFailed)));
}

#[tokio::test]
async fn a_machine_of_today_lives_through_calls_with_events_timer_and_notification() {
    let (live, mut processor) = started(ComplexAction { timer: timer(5), ..NOTHING }).await;
    let call = processor.answer::<ProcessCall>(|asked| {
        assert_eq!((asked.a.arg, history(&asked.a.machine)), (Value::str("call"), events(&["e1"])));
        assert_eq!(asked.a.machine.timer.as_deref(), Some(&b"2030-01-01T00:00:05Z"[..]));
        done("done", change("a2", &["e2"]), NOTHING)
    });
    let (answer, heard) = tokio::join!(live.ask::<Call>(to(id("ID"), "call")), call);
    assert_eq!(answer, Ok(Value::str("done")));
    assert_eq!(heard.machine_fields, [1, 2, 3, 4, 7, 6]);

    live.advance(5);
    let fired = processor.answer::<ProcessSignal>(|asked| {
        assert_eq!(asked.a.signal, Signal::Timeout(TimeoutSignal {}));
        assert_eq!(asked.a.machine.timer, None);
        SignalResult { change: change("a3", &["e3"]), action: NOTHING }
    });
    fired.await;

    let notified = live.ask::<Notify>(to(id("ID"), "hear")).await.expect("accepted");
    assert!(!notified.id.is_empty());
    let heard = processor.answer::<ProcessSignal>(|asked| {
        assert_eq!(asked.a.signal, Signal::Notification(NotificationSignal { arg: Value::str("hear") }));
        assert_eq!(history(&asked.a.machine), events(&["e1", "e2", "e3"]));
        SignalResult { change: change("a4", &["e4"]), action: NOTHING }
    });
    heard.await;

    // In its turn, behind the notification's step.
    let call = processor.answer::<ProcessCall>(|_| done("again", change("a5", &[]), NOTHING));
    assert_eq!(tokio::join!(live.ask::<Call>(to(id("ID"), "again")), call).0, Ok(Value::str("again")));
    let machine = live.ask::<GetMachine>(of(id("ID"))).await.expect("a machine");
    assert_eq!(history(&machine), events(&["e1", "e2", "e3", "e4"]));
    assert_eq!(machine.aux_state, Some(content("a5")));
    assert_eq!(machine.status, Some(MachineStatus::Working(MachineStatusWorking {})));
    assert_eq!(live.ask::<wire::GetMachine>(of(id("ID"))).await.expect("a machine").aux_state_legacy, None);

    assert_eq!(live.ask::<Remove>(remove("ID")).await, Ok(Void));
    let missing = Failure::Thrown(Exception::MachineNotFound);
    assert_eq!(live.ask::<GetMachine>(of(id("ID"))).await, Err(missing));
    live.stop().await;
}

#[tokio::test]
async fn a_repair_of_today_answers_and_shows_in_the_status() {
    let (live, mut processor) = started(NOTHING).await;
    fail(&live, &mut processor).await;
    let machine = live.ask::<GetMachine>(of(id("ID"))).await.expect("a machine");
    assert!(matches!(machine.status, Some(MachineStatus::Failed(MachineStatusFailed { reason: Some(_) }))));
    let repair = processor.answer::<ProcessRepair>(|asked| {
        assert_eq!(asked.a.arg, Value::str("mend"));
        done("mended", change("a2", &["repaired"]), NOTHING)
    });
    let (answer, heard) = tokio::join!(live.ask::<Repair>(to(id("ID"), "mend")), repair);
    assert_eq!(answer, Ok(Value::str("mended")));
    assert_eq!(heard.machine_fields, [1, 2, 3, 4, 7]);
    fail(&live, &mut processor).await;
    assert_eq!(live.ask::<SimpleRepair>(simply(id("ID"))).await, Ok(Void));
    live.stop().await;
}

#[tokio::test]
async fn a_tag_alone_is_no_reference_of_today() {
    let (live, mut processor) = started(NOTHING).await;
    assert_eq!(live.ask::<Call>(to(tag("T"), "call")).await, Err(refused(400)));
    assert_eq!(live.ask::<Repair>(to(tag("T"), "mend")).await, Err(refused(400)));
    assert_eq!(live.ask::<SimpleRepair>(simply(tag("T"))).await, Err(refused(400)));
    assert_eq!(live.ask::<GetMachine>(of(tag("T"))).await, Err(refused(400)));
    assert_eq!(live.ask::<Notify>(to(tag("T"), "hear")).await, Err(refused(400)));
    assert_eq!(live.ask::<wire::Modernize>(of(tag("T"))).await, Err(refused(400)));
    processor.was_not_asked();
    live.stop().await;
}

#[tokio::test]
async fn what_today_has_dropped_is_ignored_and_what_it_renamed_is_taken() {
    let (live, mut processor) = started(NOTHING).await;
    let call = processor.answer::<wire::ProcessCall>(|_| wire::CallResult {
        response: Value::str("done"),
        change: wire::MachineStateChange {
            aux_state_legacy: Some(Value::str("a2")),
            events_legacy: Some(vec![Value::str("e2")]),
            aux_state: None,
            events: None,
        },
        action: wire::ComplexAction {
            set_timer: Some(in_seconds(5)),
            timer: None,
            tag: Some(TagAction { tag: "T".into() }),
            remove: None,
        },
    });
    assert_eq!(tokio::join!(live.ask::<Call>(to(id("ID"), "call")), call).0, Ok(Value::str("done")));
    let machine = live.ask::<GetMachine>(of(id("ID"))).await.expect("a machine");
    assert_eq!((history(&machine), machine.timer), (events(&["e1", "e2"]), None));
    assert_eq!(machine.aux_state, Some(Content { format_version: None, data: Value::str("a2") }));
    live.stop().await;
}

#[tokio::test]
async fn event_not_found_is_thrown_to_callers_of_today_by_strict_ranges_alone() {
    for (strict, world) in [(false, world(Protocol::Current).await), (true, strict_world(Protocol::Current).await)] {
        let (live, _processor) = started_in(world, NOTHING).await;
        assert_eq!(is_strict::<GetMachine>(&live).await, strict);
        live.stop().await;
    }
}
