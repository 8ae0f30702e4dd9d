//! Removal: gone at once to everyone, paid for later, and started anew from nothing.

use std::sync::atomic::Ordering;

use machinegun::machine::{Impact, Refusal, Status, TOMBSTONE_REST_MS};
use machinegun::processor::Ask;
use machinegun::storage::StorageError;
use machinegun::wire::Value;

use crate::faulty::Fault;
use crate::on_every_storage;
use crate::scripted::{content, done, reply};
use crate::world::{Mg, call, ok, until};

on_every_storage!(
    a_removed_machine_is_not_found_at_once,
    an_answer_may_remove_and_its_events_go_too,
    a_failed_machine_can_be_removed,
    a_machine_started_anew_counts_from_one_and_sees_nothing_old,
    events_and_notifications_of_a_removed_machine_are_deleted,
    a_tombstone_goes_after_its_rest,
    a_tombstone_is_paid_for_with_timers_and_notifications_disabled,
    payments_that_fail_are_tried_again_and_do_not_starve_timers,
    payments_of_an_earlier_run_are_made,
    a_payment_that_met_a_new_machine_never_settles_what_that_one_owes,
);

async fn a_removed_machine_is_not_found_at_once(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(5)).await;
    mg.storage.keeps.store(true, Ordering::SeqCst);
    mg.ask("m", Impact::Remove).await.unwrap();
    let not_found = || Refusal::MachineNotFound.into();
    assert_eq!(mg.get("m").await.unwrap_err(), not_found());
    assert_eq!(mg.call("m", "x").await, Err(not_found()));
    assert_eq!(mg.ask("m", Impact::Remove).await, Err(not_found()));
    assert_eq!(mg.notify("m", "x").await, Err(not_found()));
    mg.advance(10_000);
    mg.settle().await;
    assert_eq!(mg.processor.count(), 1);
}

async fn an_answer_may_remove_and_its_events_go_too(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().event("a")).await;
    mg.processor.then(reply("bye").event("b").timer(5).remove());
    assert_eq!(mg.call("m", "x").await, ok("bye"));
    assert_eq!(mg.get("m").await.unwrap_err(), Refusal::MachineNotFound.into());
    // A Start that removes is fine too.
    mg.processor.then(done().event("a").remove());
    mg.init("n").await.unwrap();
    assert_eq!(mg.get("n").await.unwrap_err(), Refusal::MachineNotFound.into());
}

async fn a_failed_machine_can_be_removed(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().event("a")).await;
    mg.fail("m").await;
    mg.ask("m", Impact::Remove).await.unwrap();
    assert_eq!(mg.get("m").await.unwrap_err(), Refusal::MachineNotFound.into());
    mg.machine("m", done()).await;
    assert_eq!(mg.events("m").await, []);
}

async fn a_machine_started_anew_counts_from_one_and_sees_nothing_old(mg: Mg) {
    let mg = mg.start().await;
    // Over a tombstone that still owes, and over one that is paid.
    for keeps in [true, false] {
        mg.three_events("m").await;
        mg.storage.keeps.store(keeps, Ordering::SeqCst);
        mg.ask("m", Impact::Remove).await.unwrap();
        mg.settle().await;
        let asked = mg.processor.count();
        mg.machine("m", done().event("new")).await;
        let question = mg.processor.question(asked + 1).await;
        assert!(matches!(question.ask, Ask::Init(_)));
        assert_eq!((question.machine.history.len(), question.machine.timer), (0, None));
        assert_eq!(question.machine.aux_state.unwrap().data, Value::empty());
        assert_eq!(mg.events("m").await, [(1, "new".to_owned())]);
        mg.storage.keeps.store(false, Ordering::SeqCst);
        mg.advance(1_500);
        mg.settle().await;
        assert_eq!(mg.get("m").await.unwrap().record.debts, []);
        assert_eq!(mg.events("m").await, [(1, "new".to_owned())]);
        mg.ask("m", Impact::Remove).await.unwrap();
        mg.settle().await;
    }
}

async fn events_and_notifications_of_a_removed_machine_are_deleted(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    mg.fail("m").await;
    mg.notify("m", "x").await.unwrap();
    mg.settle().await;
    let epoch = mg.get("m").await.unwrap().record.epoch;
    mg.ask("m", Impact::Remove).await.unwrap();
    mg.settle().await;
    let stored = mg.storage.inner();
    let gone = stored.events(&mg.key("m"), epoch, 1, 3).await.unwrap_err();
    assert!(matches!(gone, StorageError::Corrupt(_)));
    assert_eq!(stored.notifications(&mg.key("m"), 10).await.unwrap(), []);
    let tombstone = stored.read(&mg.key("m"), None).await.unwrap().unwrap().record;
    assert!(tombstone.debts.is_empty() && matches!(tombstone.status, Status::Removed { .. }));
}

async fn a_tombstone_goes_after_its_rest(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    mg.ask("m", Impact::Remove).await.unwrap();
    mg.settle().await;
    let mg = mg.restart(TOMBSTONE_REST_MS - 1).await;
    mg.settle().await;
    assert!(mg.storage.inner().read(&mg.key("m"), None).await.unwrap().is_some());
    mg.advance(1);
    mg.settle().await;
    until(|| !mg.storage.commits().is_empty()).await;
    mg.settle().await;
    assert_eq!(mg.storage.inner().read(&mg.key("m"), None).await.unwrap(), None);
    mg.machine("m", done()).await;
}

async fn a_tombstone_is_paid_for_with_timers_and_notifications_disabled(mg: Mg) {
    let mg = mg.timers(None).notifications(None).start().await;
    mg.three_events("m").await;
    mg.ask("m", Impact::Remove).await.unwrap();
    mg.settle().await;
    let tombstone = mg.storage.inner().read(&mg.key("m"), None).await.unwrap().unwrap().record;
    assert_eq!(tombstone.debts, []);
}

async fn payments_that_fail_are_tried_again_and_do_not_starve_timers(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    mg.storage.keeps.store(true, Ordering::SeqCst);
    mg.ask("m", Impact::Remove).await.unwrap();
    mg.settle().await;
    mg.machine("m", done().timer(10)).await;
    mg.settle().await;
    mg.advance(9_999);
    mg.settle().await;
    assert_eq!(mg.processor.count(), 2);
    mg.advance(1);
    mg.processor.question(3).await;
    mg.settle().await;
    mg.notify("m", "hello").await.unwrap();
    mg.processor.question(4).await;
    mg.settle().await;
    assert_eq!(mg.get("m").await.unwrap().record.debts.len(), 1);
    assert!(mg.metric("machinegun_wakes_total", "created") < 10);
    mg.storage.keeps.store(false, Ordering::SeqCst);
    mg.advance(1_500);
    until(|| mg.storage.commits().last().unwrap().record.as_ref().unwrap().debts.is_empty()).await;
}

async fn payments_of_an_earlier_run_are_made(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    mg.storage.keeps.store(true, Ordering::SeqCst);
    mg.ask("m", Impact::Remove).await.unwrap();
    mg.settle().await;
    let mg = mg.restart(1).await;
    until(|| !mg.storage.commits().is_empty()).await;
    mg.settle().await;
    let tombstone = mg.storage.inner().read(&mg.key("m"), None).await.unwrap().unwrap().record;
    assert_eq!(tombstone.debts, []);
}

async fn a_payment_that_met_a_new_machine_never_settles_what_that_one_owes(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    // While it is paid for, another writer adds a debt of its own. Settling it unpaid would leave events behind.
    let mut gate = mg.storage.then(Fault::Intrude(Box::new(|record| record))).hold();
    let removed = mg.ask("m", Impact::Remove);
    gate.reached().await;
    let owed =
        machinegun::machine::Debt { epoch: machinegun::machine::CommitId([7; 16]), last_event: 3, wanted: false };
    mg.storage.then(Fault::Intrude(Box::new(move |mut record| {
        record.debts.push(owed);
        record.aux_state = content("another's");
        record
    })));
    gate.open();
    removed.await.unwrap();
    let deletions = || mg.storage.deleted.lock().unwrap().clone();
    mg.settle().await;
    mg.advance(3_000);
    mg.settle().await;
    let tombstone = mg.storage.inner().read(&mg.key("m"), None).await.unwrap().unwrap().record;
    assert_eq!(tombstone.debts, []);
    assert!(deletions().contains(&owed.epoch), "{:?}", deletions());
    assert_eq!(mg.ask("m", call("x")).await, Err(Refusal::MachineNotFound.into()));
}
