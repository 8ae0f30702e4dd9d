//! Steps end to end: turns, ranges, what the processor is shown.

use std::sync::atomic::Ordering;

use machinegun::engine::EngineError;
use machinegun::machine::{Impact, Refusal, Status};
use machinegun::wire::{Direction, HistoryRange, Value};

use crate::on_every_storage;
use crate::scripted::{content, done, reply, text, unexpected};
use crate::world::{Mg, call, events, id, ok, range, repair, until};

on_every_storage!(
    each_impact_takes_one_step_and_is_answered_after_its_commit,
    refusals_follow_the_status,
    a_start_or_a_repair_that_fails_is_counted_though_nothing_is_stored,
    calls_of_one_machine_run_in_the_order_of_their_arrival,
    machines_do_not_wait_for_each_other,
    a_processor_may_ask_about_and_notify_the_machine_that_it_is_handling,
    a_processor_is_given_the_range_that_was_asked_for_from_memory_and_from_storage,
    a_processor_is_given_the_aux_state_and_the_timer,
    a_call_that_changes_nothing_commits_nothing,
    a_hot_call_reads_nothing,
    a_step_goes_on_when_nobody_waits_for_it,
    a_reader_sees_the_whole_step_or_nothing_of_it,
);

async fn each_impact_takes_one_step_and_is_answered_after_its_commit(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().event("born")).await;
    mg.processor.then(reply("called").event("called"));
    assert_eq!(mg.call("m", "x").await, ok("called"));
    assert_eq!(mg.events("m").await, [(1, "born".to_owned()), (2, "called".to_owned())]);

    mg.fail("m").await;
    let view = mg.get("m").await.unwrap();
    assert!(matches!(&view.record.status, Status::Failed { reason, .. } if reason == "it broke"));
    mg.processor.then(reply("repaired").event("repaired"));
    assert_eq!(mg.ask("m", repair("x")).await, ok("repaired"));
    assert_eq!(mg.events("m").await.len(), 3);

    mg.fail("m").await;
    mg.ask("m", Impact::SimpleRepair).await.unwrap();
    assert!(matches!(mg.get("m").await.unwrap().record.status, Status::Working(_)));
    mg.ask("m", Impact::Remove).await.unwrap();
    assert_eq!(mg.get("m").await.unwrap_err(), Refusal::MachineNotFound.into());
    assert_eq!(mg.processor.asks(), ["init ", "call x", "call fail", "repair x", "call fail"]);
    // One each for Start, Call, the failure, Repair, the failure, SimpleRepair, Remove.
    until(|| mg.storage.commits().len() >= 7).await;
    assert_eq!(mg.storage.commits()[..7].iter().filter(|commit| commit.record.is_some()).count(), 7);
}

async fn a_start_or_a_repair_that_fails_is_counted_though_nothing_is_stored(mg: Mg) {
    let mg = mg.start().await;
    let failed = || mg.metric("mg_machine_lifecycle_changes_total", "change=\"failed\"");
    mg.processor.then(unexpected());
    assert_eq!(mg.init("m").await, Err(Refusal::MachineFailed.into()));
    assert_eq!(failed(), 1);
    mg.machine("m", done()).await;
    mg.fail("m").await;
    assert_eq!(failed(), 2);
    mg.processor.then(unexpected());
    assert_eq!(mg.ask("m", repair("x")).await, Err(Refusal::MachineFailed.into()));
    assert_eq!(failed(), 3);
    // To decline is no failure.
    mg.processor.then(machinegun::machine::Outcome::RepairFailed(Value::str("no")));
    mg.ask("m", repair("x")).await.unwrap_err();
    assert_eq!(failed(), 3);
}

async fn refusals_follow_the_status(mg: Mg) {
    let mg = mg.start().await;
    let refused = |refusal: Refusal| Err(EngineError::from(refusal));
    assert_eq!(mg.call("m", "x").await, refused(Refusal::MachineNotFound));
    assert_eq!(mg.ask("m", Impact::Remove).await, refused(Refusal::MachineNotFound));
    mg.processor.then(unexpected());
    assert_eq!(mg.init("m").await, refused(Refusal::MachineFailed));
    assert_eq!(mg.get("m").await.unwrap_err(), Refusal::MachineNotFound.into());
    mg.machine("m", done()).await;
    assert_eq!(mg.init("m").await, refused(Refusal::MachineAlreadyExists));
    assert_eq!(mg.ask("m", repair("x")).await, refused(Refusal::MachineAlreadyWorking));
    assert_eq!(mg.ask("m", Impact::SimpleRepair).await, refused(Refusal::MachineAlreadyWorking));
    mg.fail("m").await;
    assert_eq!(mg.call("m", "x").await, refused(Refusal::MachineFailed));
    assert_eq!(mg.init("m").await, refused(Refusal::MachineAlreadyExists));
    mg.processor.then(machinegun::machine::Outcome::RepairFailed(Value::str("no")));
    assert_eq!(mg.ask("m", repair("x")).await, refused(Refusal::RepairFailed(Value::str("no"))));
    assert!(matches!(mg.get("m").await.unwrap().record.status, Status::Failed { .. }));
}

async fn calls_of_one_machine_run_in_the_order_of_their_arrival(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    let calls: Vec<_> = (0..20).map(|n| mg.ask("m", call(&n.to_string()))).collect();
    gate.reached().await;
    assert_eq!(mg.processor.count(), 2);
    gate.open();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await, ok(&n.to_string()));
    }
    let expected: Vec<_> = (0..20).map(|n| format!("call {n}")).collect();
    assert_eq!(mg.processor.asks()[1..], expected);
}

async fn machines_do_not_wait_for_each_other(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("slow", done()).await;
    mg.machine("quick", done()).await;
    let mut gate = mg.processor.hold("slow");
    let slow = mg.ask("slow", call("x"));
    gate.reached().await;
    assert_eq!(mg.call("quick", "y").await, ok("y"));
    gate.open();
    assert_eq!(slow.await, ok("x"));
}

async fn a_processor_may_ask_about_and_notify_the_machine_that_it_is_handling(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().event("a")).await;
    let mut gate = mg.processor.hold("m");
    mg.processor.then(reply("done").event("b"));
    let asked = mg.ask("m", call("x"));
    gate.reached().await;
    // What it sees is the last commit, not the step in the middle.
    assert_eq!(mg.events("m").await, [(1, "a".to_owned())]);
    mg.notify("m", "hello").await.unwrap();
    gate.open();
    assert_eq!(asked.await, ok("done"));
    let question = mg.processor.question(3).await;
    assert_eq!(mg.processor.asks()[2], "notification hello");
    assert_eq!(question.machine.history.len(), 2);
}

async fn a_processor_is_given_the_range_that_was_asked_for_from_memory_and_from_storage(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    let backward = HistoryRange { after: Some(3), limit: Some(2), direction: Direction::Backward };
    let table = [
        (HistoryRange::ALL, vec![1, 2, 3]),
        (range(1, 1), vec![2]),
        (range(0, 0), vec![]),
        (range(9, 5), vec![]),
        (backward, vec![2, 1]),
        (HistoryRange { after: None, limit: Some(2), direction: Direction::Backward }, vec![3, 2]),
    ];
    let mut mg = mg;
    for loaded in [true, false] {
        for (range, expected) in &table {
            if !loaded {
                mg = mg.restart(1).await;
            }
            let asked = mg.processor.count();
            mg.ask("m", Impact::Call { args: Value::str("x"), range: range.clone() }).await.unwrap();
            let machine = mg.processor.question(asked + 1).await.machine;
            let ids: Vec<_> = machine.history.decoded().map(|event| event.unwrap().id).collect();
            assert_eq!((&ids, &machine.history_range), (expected, range), "loaded: {loaded}");
            let view = mg.ns.get(id("m"), range).await.unwrap();
            assert_eq!(&events(&view.events).iter().map(|(id, _)| *id).collect::<Vec<_>>(), expected);
        }
    }
}

async fn a_processor_is_given_the_aux_state_and_the_timer(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.change("m", reply("").aux("state").timer(100)).await;
    mg.change("m", reply("")).await;
    let [init, first, second] = &mg.processor.questions()[..] else { panic!("three questions") };
    assert_eq!((init.machine.history_range.clone(), init.machine.timer.as_deref()), (HistoryRange::ALL, None));
    assert_eq!(init.machine.aux_state.as_ref().unwrap().data, Value::empty());
    assert_eq!(first.machine.timer.as_deref(), None);
    assert_eq!(first.machine.aux_state.as_ref().unwrap().data, Value::empty());
    assert_eq!(second.machine.aux_state, Some(content("state")));
    assert_eq!(second.machine.timer.as_deref(), Some(&b"2023-11-14T22:15:00Z"[..]));
    assert_eq!(text(&mg.get("m").await.unwrap().record.aux_state.data), "state");
}

async fn a_call_that_changes_nothing_commits_nothing(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    let before = mg.storage.commits().len();
    assert_eq!(mg.call("m", "x").await, ok("x"));
    assert_eq!(mg.storage.commits().len(), before);
}

async fn a_hot_call_reads_nothing(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    let (reads, events) = (mg.storage.reads.load(Ordering::SeqCst), mg.storage.event_reads.load(Ordering::SeqCst));
    mg.change("m", reply("").event("d")).await;
    assert_eq!(mg.events("m").await.len(), 4);
    assert_eq!(mg.storage.reads.load(Ordering::SeqCst), reads);
    assert_eq!(mg.storage.event_reads.load(Ordering::SeqCst), events);
}

async fn a_step_goes_on_when_nobody_waits_for_it(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    mg.processor.then(reply("").event("kept"));
    let asked = mg.ask("m", call("x"));
    gate.reached().await;
    drop(asked);
    // It keeps its place among the steps in flight as long as it runs.
    assert_eq!(mg.metric("machinegun_steps_in_flight", "ns"), 1);
    gate.open();
    assert_eq!(mg.call("m", "behind it").await, ok("behind it"));
    assert_eq!(mg.events("m").await, [(1, "kept".to_owned())]);
    assert_eq!(mg.metric("machinegun_steps_in_flight", "ns"), 0);
}

async fn a_reader_sees_the_whole_step_or_nothing_of_it(mg: Mg) {
    let mg = mg.start().await;
    let mut gate = mg.storage.hold();
    let many = (0..100).fold(done().aux("state"), |answer, n| answer.event(&n.to_string()));
    mg.processor.then(many);
    let init = mg.ask("m", Impact::Init { args: Value::str("") });
    gate.reached().await;
    assert_eq!(mg.get("m").await.unwrap_err(), Refusal::MachineNotFound.into());
    gate.open();
    init.await.unwrap();
    assert_eq!(mg.events("m").await.len(), 100);
}
