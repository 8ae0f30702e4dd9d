//! What happens to a timer whose signal fails.

use std::sync::atomic::Ordering;

use machinegun::machine::{Impact, Outcome, Phase, Status};

use crate::on_every_storage;
use crate::scripted::{done, reply, transient, unexpected};
use crate::timers::timeouts;
use crate::world::{BEGIN, Mg, World, call, until};

on_every_storage!(
    a_failing_timer_is_retried_by_its_policy_and_then_fails_the_machine,
    a_timer_that_goes_well_again_begins_its_retries_anew,
    an_unexpected_answer_to_a_timer_fails_the_machine,
    a_call_on_a_retrying_machine_resets_the_retries,
    a_repaired_machines_timer_is_armed_at_once,
    a_timer_held_back_by_our_own_bounds_is_put_off_and_never_counted,
    a_timer_that_is_put_off_does_not_spin,
    a_timer_waits_for_a_store_that_is_down_and_its_machine_does_not_fail,
    a_timer_whose_commit_is_refused_is_fired_again_later,
    a_processor_that_never_answers_a_timer_counts_as_a_failure,
);

async fn status(mg: &World, machine: &str) -> Status {
    mg.get(machine).await.unwrap().record.status.clone()
}

/// The first failure was just now.
fn retrying_anew(mg: &World) -> Status {
    let now = mg.clock.now();
    Status::Working(Phase::Retrying { attempt: 0, at: now + 1_000, since: Some(now) })
}

async fn a_failing_timer_is_retried_by_its_policy_and_then_fails_the_machine(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(1)).await;
    for attempt in 0..2 {
        mg.processor.then(transient());
        mg.advance(1_000);
        mg.processor.question(2 + attempt as usize).await;
        mg.settle().await;
        let at = BEGIN + 2_000 + i64::from(attempt) * 1_000;
        let since = Some(BEGIN + 1_000);
        assert_eq!(status(&mg, "m").await, Status::Working(Phase::Retrying { attempt, at, since }));
        mg.advance(0);
        mg.settle().await;
        assert_eq!(timeouts(&mg), 1 + attempt as usize);
    }
    mg.processor.then(transient());
    mg.advance(1_000);
    mg.processor.question(4).await;
    mg.settle().await;
    let Status::Failed { reason, .. } = status(&mg, "m").await else { panic!("the machine fails") };
    assert!(reason.contains("timer_retries_exhausted"), "{reason}");
    mg.advance(1_000_000);
    mg.settle().await;
    assert_eq!(timeouts(&mg), 3);
    // One more attempt after a SimpleRepair, as the original does.
    mg.processor.then(transient());
    mg.ask("m", Impact::SimpleRepair).await.unwrap();
    mg.processor.question(5).await;
    mg.settle().await;
    assert!(matches!(status(&mg, "m").await, Status::Failed { .. }));
}

async fn a_timer_that_goes_well_again_begins_its_retries_anew(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(1)).await;
    mg.processor.then(transient()).then(done().timer(1)).then(transient());
    for n in 2..5 {
        mg.advance(1_000);
        mg.processor.question(n).await;
        mg.settle().await;
    }
    assert_eq!(status(&mg, "m").await, retrying_anew(&mg));
}

async fn an_unexpected_answer_to_a_timer_fails_the_machine(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(1)).await;
    mg.processor.then(unexpected());
    mg.advance(1_000);
    mg.processor.question(2).await;
    mg.settle().await;
    assert!(matches!(status(&mg, "m").await, Status::Failed { .. }));
}

async fn a_call_on_a_retrying_machine_resets_the_retries(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(1)).await;
    mg.processor.then(transient());
    mg.advance(1_000);
    mg.processor.question(2).await;
    mg.settle().await;
    // Nothing says that the timer moves, so it is still the old one, in the past: it fires again at once.
    mg.processor.then(reply("")).then(transient());
    mg.ask("m", call("x")).await.unwrap();
    mg.processor.question(4).await;
    mg.settle().await;
    assert_eq!(status(&mg, "m").await, retrying_anew(&mg));
}

async fn a_repaired_machines_timer_is_armed_at_once(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(10)).await;
    mg.fail("m").await;
    mg.advance(10_000);
    mg.settle().await;
    assert_eq!(timeouts(&mg), 0);
    let scans = mg.storage.scans.load(Ordering::SeqCst);
    mg.ask("m", Impact::SimpleRepair).await.unwrap();
    mg.processor.question(3).await;
    assert_eq!(timeouts(&mg), 1);
    assert_eq!(mg.storage.scans.load(Ordering::SeqCst), scans);
}

async fn a_timer_held_back_by_our_own_bounds_is_put_off_and_never_counted(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(1)).await;
    for _ in 0..5 {
        mg.processor.then(Outcome::HeldBack("the pool is empty".to_owned()));
    }
    mg.advance(1_000);
    mg.processor.question(2).await;
    mg.settle().await;
    for n in 3..7 {
        mg.advance(499);
        mg.settle().await;
        assert_eq!(mg.processor.count(), n - 1, "put off by at least half a second");
        mg.advance(1_001);
        mg.processor.question(n).await;
        mg.settle().await;
        assert_eq!(status(&mg, "m").await, Status::Working(Phase::Idle));
    }
    mg.advance(1_500);
    mg.processor.question(7).await;
    mg.settle().await;
    assert_eq!(mg.get("m").await.unwrap().record.timer, None);
}

async fn a_timer_that_is_put_off_does_not_spin(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(1)).await;
    mg.processor.behave(|_| Outcome::HeldBack("the pool is empty".to_owned()));
    for _ in 0..60 {
        mg.advance(1_000);
        mg.settle().await;
    }
    assert!((20..=121).contains(&timeouts(&mg)), "{}", timeouts(&mg));
}

async fn a_timer_waits_for_a_store_that_is_down_and_its_machine_does_not_fail(mg: Mg) {
    let mg = mg.with(|_, namespace| namespace.unload_ms = 500).start().await;
    mg.machine("m", done().timer(1)).await;
    mg.advance(500);
    until(|| mg.metric("machinegun_workers", "ns") == 0).await;
    mg.storage.down.store(true, Ordering::SeqCst);
    mg.advance(500);
    until(|| mg.metric("mg_machine_lifecycle_changes_total", "loading_error") == 1).await;
    mg.settle().await;
    assert_eq!(timeouts(&mg), 0);
    mg.storage.down.store(false, Ordering::SeqCst);
    mg.advance(1_500);
    mg.processor.question(2).await;
    mg.settle().await;
    assert_eq!(status(&mg, "m").await, Status::Working(Phase::Idle));
}

async fn a_timer_whose_commit_is_refused_is_fired_again_later(mg: Mg) {
    let mg = mg.with(|_, namespace| namespace.timer_processing_ms = 1_000).start().await;
    mg.machine("m", done().timer(1)).await;
    mg.processor.behave(|_| done().event("fired").into());
    let mut gate = mg.processor.hold("m");
    mg.advance(1_000);
    gate.reached().await;
    mg.storage.down.store(true, Ordering::SeqCst);
    gate.open();
    // 10, 20, 40 … milliseconds: the retries end within the deadline of one second.
    for _ in 0..20 {
        mg.advance(50);
        mg.quiet().await;
    }
    mg.settle().await;
    assert_eq!(timeouts(&mg), 1);
    mg.storage.down.store(false, Ordering::SeqCst);
    mg.advance(1_500);
    mg.processor.question(3).await;
    mg.settle().await;
    assert_eq!(mg.events("m").await, [(1, "fired".to_owned())]);
    assert_eq!(status(&mg, "m").await, Status::Working(Phase::Idle));
}

async fn a_processor_that_never_answers_a_timer_counts_as_a_failure(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(1)).await;
    let mut gate = mg.processor.hold("m");
    mg.advance(1_000);
    gate.reached().await;
    mg.advance(63_000);
    mg.settle().await;
    assert!(matches!(status(&mg, "m").await, Status::Working(Phase::Retrying { attempt: 0, .. })));
    drop(gate);
}
