//! Notifications: accepted at once, delivered in order, each taking effect once.

use std::sync::atomic::Ordering;

use machinegun::clock::Snowflakes;
use machinegun::engine::{EngineError, SchedulerOptions};
use machinegun::machine::{Impact, KEPT_NOTES, Notification, Outcome, Refusal, RequestContext, Status};
use machinegun::processor::{Ask, Question};
use machinegun::storage;
use machinegun::wire::{HistoryRange, Value};

use crate::faulty::Fault;
use crate::on_every_storage;
use crate::scripted::{done, reply, text, transient, unexpected};
use crate::world::{Mg, World, call, ok, repair, until};

on_every_storage!(
    notifications_are_delivered_in_the_order_of_acceptance_once_each,
    an_unknown_machine_is_not_notified,
    a_failing_notification_holds_back_the_later_ones_until_its_time,
    a_notification_that_breaks_its_machine_is_delivered_after_the_repair,
    a_failed_machine_is_notified_and_learns_of_it_after_a_simple_repair,
    a_machine_started_anew_is_not_given_its_predecessors,
    a_notification_survives_a_restart_before_its_delivery,
    a_notification_whose_id_another_instance_has_made_is_not_lost,
    a_notification_whose_put_was_lost_is_put_again_and_takes_effect_once,
    a_notification_that_was_delivered_before_its_put_was_settled_takes_effect_once,
    a_notification_whose_put_was_lost_is_not_doubled_after_many_others_have_come,
    a_notifications_put_that_is_done_late_does_not_double_it_after_many_others_have_come,
    a_notification_that_can_not_be_put_is_refused_or_unknown_by_its_deadline,
    a_notification_whose_commit_was_lost_takes_effect_once,
    disabled_notifications_are_accepted_and_wait,
    with_notifications_disabled_a_repaired_machines_timer_still_fires,
    a_notification_and_a_timer_that_are_due_together_both_come,
    a_notification_held_back_by_our_own_bounds_comes_in_a_moment,
    a_notification_waits_for_a_store_that_cannot_be_read,
    a_put_off_notification_does_not_delay_a_timer,
    many_notifications_to_one_machine_all_come,
    many_parked_notifications_all_come_after_the_repair,
    a_conflict_on_the_way_delivers_it_again_without_doubling_it,
);

fn is_notification(question: &Question) -> bool {
    matches!(question.ask, Ask::Notification(_))
}

/// Notifications become events of the same text, other signals nothing.
fn noting(question: &Question) -> Outcome {
    match &question.ask {
        Ask::Notification(args) => done().event(&text(args)).into(),
        _ => reply("").into(),
    }
}

async fn texts(mg: &World, machine: &str) -> Vec<String> {
    mg.events(machine).await.into_iter().map(|(_, text)| text).collect()
}

async fn notifications_are_delivered_in_the_order_of_acceptance_once_each(mg: Mg) {
    let mg = mg.start().await;
    mg.processor.behave(noting);
    mg.init("m").await.unwrap();
    let mut gate = mg.processor.hold("m");
    let asked = mg.ask("m", call("x"));
    gate.reached().await;
    let mut ids = Vec::new();
    for text in ["a", "b", "c"] {
        ids.push(mg.notify("m", text).await.unwrap());
    }
    assert!(ids.is_sorted());
    gate.open();
    asked.await.unwrap();
    mg.processor.question(5).await;
    mg.settle().await;
    mg.advance(1_000_000);
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, ["a", "b", "c"]);
    assert_eq!(mg.storage.inner().notifications(&mg.key("m"), 10).await.unwrap(), []);
    assert_eq!(mg.metric("mg_machine_notification_changes_total", "success"), 3);
}

async fn an_unknown_machine_is_not_notified(mg: Mg) {
    let mg = mg.start().await;
    assert_eq!(mg.notify("m", "x").await, Err(Refusal::MachineNotFound.into()));
    mg.machine("m", done()).await;
    mg.ask("m", Impact::Remove).await.unwrap();
    assert_eq!(mg.notify("m", "x").await, Err(Refusal::MachineNotFound.into()));
}

async fn a_failing_notification_holds_back_the_later_ones_until_its_time(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.processor.behave(noting);
    mg.processor.then(transient());
    mg.notify("m", "a").await.unwrap();
    mg.processor.question(2).await;
    mg.settle().await;
    mg.notify("m", "b").await.unwrap();
    mg.settle().await;
    mg.advance(4_999);
    mg.settle().await;
    assert_eq!(mg.processor.count(), 2);
    // Others' steps go on meanwhile.
    assert_eq!(mg.call("m", "x").await, ok(""));
    mg.advance(1);
    mg.processor.question(5).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, ["a", "b"]);
    // Nothing is due any more.
    assert_eq!(mg.get("m").await.unwrap().record.due(), None);
}

async fn a_notification_that_breaks_its_machine_is_delivered_after_the_repair(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.processor.then(unexpected());
    mg.notify("m", "a").await.unwrap();
    mg.processor.question(2).await;
    mg.settle().await;
    assert!(matches!(mg.get("m").await.unwrap().record.status, Status::Failed { .. }));
    mg.notify("m", "b").await.unwrap();
    mg.advance(1_000_000);
    mg.settle().await;
    assert_eq!(mg.processor.count(), 2);
    mg.processor.behave(noting);
    mg.ask("m", repair("x")).await.unwrap();
    mg.processor.question(5).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, ["a", "b"]);
}

async fn a_failed_machine_is_notified_and_learns_of_it_after_a_simple_repair(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.fail("m").await;
    mg.notify("m", "a").await.unwrap();
    mg.settle().await;
    // Parked: it brings no due of its own any more.
    assert_eq!(mg.storage.inner().dues(None, i64::MAX - 1, None, 10).await.unwrap(), []);
    mg.processor.behave(noting);
    mg.ask("m", Impact::SimpleRepair).await.unwrap();
    mg.processor.question(3).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, ["a"]);
}

async fn a_machine_started_anew_is_not_given_its_predecessors(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    mg.processor.then(reply("").remove());
    let removed = mg.ask("m", call("x"));
    gate.reached().await;
    mg.notify("m", "old").await.unwrap();
    mg.storage.keeps.store(true, Ordering::SeqCst);
    gate.open();
    removed.await.unwrap();
    mg.processor.behave(noting);
    mg.init("m").await.unwrap();
    mg.notify("m", "new").await.unwrap();
    mg.processor.question(4).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, ["new"]);
    assert_eq!(mg.processor.questions().iter().filter(|question| is_notification(question)).count(), 1);
}

async fn a_notification_survives_a_restart_before_its_delivery(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    let asked = mg.ask("m", call("x"));
    gate.reached().await;
    mg.notify("m", "a").await.unwrap();
    mg.processor.behave(noting);
    let stop = tokio::spawn({
        let engine = mg.engine.clone();
        async move { engine.stop().await }
    });
    until(|| mg.ask("m", call("refused")).as_mut().now_or_never_is_stopping()).await;
    gate.open();
    asked.await.unwrap();
    stop.await.unwrap();
    assert_eq!(mg.processor.count(), 2);
    let mg = mg.restart(1).await;
    mg.processor.question(3).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, ["a"]);
}

/// Whether a step is refused because the service stops.
trait Stopping {
    fn now_or_never_is_stopping(self) -> bool;
}

impl<F: Future<Output = crate::world::Answer>> Stopping for F {
    fn now_or_never_is_stopping(self) -> bool {
        use futures_util::FutureExt;
        self.now_or_never() == Some(Err(machinegun::engine::EngineError::Stopping))
    }
}

async fn a_notification_whose_id_another_instance_has_made_is_not_lost(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let epoch = mg.stored("m").await.epoch;
    mg.processor.behave(noting);
    // Of the same number, at the same time.
    mg.advance(1);
    let ids = Snowflakes::new(mg.number(), mg.clock.clone());
    let theirs: Vec<_> = ["x", "y"]
        .into_iter()
        .map(|text| Notification {
            id: ids.next(),
            epoch,
            args: Value::str(text),
            range: HistoryRange::ALL,
            context: RequestContext::default(),
        })
        .collect();
    for it in &theirs {
        let put = mg.storage.inner().put_notification(&mg.key("m"), it, mg.clock.now()).await;
        assert_eq!(put, storage::Outcome::Committed);
    }
    let ours = mg.notify("m", "ours").await.unwrap();
    assert!(theirs.iter().all(|it| it.id < ours), "{ours}");
    mg.processor.question(4).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, ["x", "y", "ours"]);
}

async fn a_notification_whose_put_was_lost_is_put_again_and_takes_effect_once(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.processor.behave(noting);
    mg.storage.then_entry(Fault::Unknown { applied: true }).then_entry(Fault::Refuse);
    mg.storage.then_entry(Fault::Unknown { applied: false });
    let notified = {
        let notified = mg.notify("m", "a");
        let turning = async {
            for puts in 1..=3 {
                until(|| mg.storage.entries.load(Ordering::SeqCst) == puts).await;
                mg.advance(1_000);
            }
        };
        tokio::join!(notified, turning).0
    };
    assert!(notified.is_ok(), "{notified:?}");
    assert_eq!(mg.storage.entries.load(Ordering::SeqCst), 4);
    mg.processor.question(2).await;
    mg.settle().await;
    mg.turn(1_000_000).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, ["a"]);
    assert_eq!(mg.processor.count(), 2);
}

/// The next one's delivery comes upon its entry, delivers it and deletes it; then it is put again.
async fn a_notification_that_was_delivered_before_its_put_was_settled_takes_effect_once(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.processor.behave(noting);
    mg.storage.then_entry(Fault::Unknown { applied: true });
    let between = async {
        until(|| mg.storage.entries.load(Ordering::SeqCst) == 1).await;
        mg.notify("m", "b").await.unwrap();
        mg.processor.question(3).await;
        mg.settle().await;
        assert_eq!(texts(&mg, "m").await, ["a", "b"]);
        mg.advance(1_000);
    };
    let (notified, ()) = tokio::join!(mg.notify("m", "a"), between);
    assert!(notified.is_ok(), "{notified:?}");
    mg.settle().await;
    assert_eq!(mg.storage.inner().notifications(&mg.key("m"), 10).await.unwrap(), []);
    assert_eq!(texts(&mg, "m").await, ["a", "b"]);
    assert_eq!(mg.processor.count(), 3);
}

/// So many take effect that the record has notes of the last ones alone.
async fn many_others(mg: &World) {
    for other in 0..2 * KEPT_NOTES {
        mg.notify("m", &other.to_string()).await.unwrap();
    }
    // The first question was about the machine's start, and the second about the one whose put was lost.
    mg.processor.question(2 + 2 * KEPT_NOTES).await;
    mg.settle().await;
}

async fn a_notification_whose_put_was_lost_is_not_doubled_after_many_others_have_come(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.processor.behave(noting);
    mg.storage.then_entry(Fault::Unknown { applied: true });
    let between = async {
        until(|| mg.storage.entries.load(Ordering::SeqCst) == 1).await;
        many_others(&mg).await;
        mg.advance(1_000);
    };
    let (notified, ()) = tokio::join!(mg.notify("m", "a"), between);
    assert!(notified.is_ok(), "{notified:?}");
    assert_eq!(mg.storage.entries.load(Ordering::SeqCst), 1 + 2 * KEPT_NOTES, "it is not put again");
    mg.turn(1_000_000).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await.iter().filter(|text| *text == "a").count(), 1);
}

async fn a_notifications_put_that_is_done_late_does_not_double_it_after_many_others_have_come(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.processor.behave(noting);
    let key = mg.key("m");
    mg.storage.then_entry(Fault::Unknown { applied: true });
    let now = mg.clock.now();
    let between = async {
        until(|| mg.storage.entries.load(Ordering::SeqCst) == 1).await;
        let waiting = mg.storage.inner().notifications(&key, 10).await.unwrap();
        mg.advance(1_000);
        waiting.into_iter().next().expect("the entry")
    };
    let (notified, entry) = tokio::join!(mg.notify("m", "a"), between);
    assert!(notified.is_ok(), "{notified:?}");
    many_others(&mg).await;
    // What was sent first and not answered comes to its end now.
    assert_eq!(mg.storage.inner().put_notification(&key, &entry, now).await, storage::Outcome::Committed);
    mg.notify("m", "last").await.unwrap();
    until(|| mg.processor.asks().last().is_some_and(|ask| ask == "notification last")).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await.iter().filter(|text| *text == "a").count(), 1);
    assert_eq!(mg.storage.inner().notifications(&key, 10).await.unwrap(), []);
}

async fn a_notification_that_can_not_be_put_is_refused_or_unknown_by_its_deadline(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let soon = mg.clock.now() + 5;
    mg.storage.then_entry(Fault::Refuse);
    let refused = mg.notify_by("m", "x", soon).await;
    assert!(matches!(refused, Err(EngineError::Storage(_))), "{refused:?}");
    mg.storage.then_entry(Fault::Unknown { applied: false });
    assert_eq!(mg.notify_by("m", "x", soon).await, Err(EngineError::TimedOut));
    // That it is refused later says nothing of the first put.
    mg.storage.then_entry(Fault::Unknown { applied: false });
    for _ in 0..64 {
        mg.storage.then_entry(Fault::Refuse);
    }
    let turning = async {
        loop {
            mg.advance(100);
            mg.quiet().await;
        }
    };
    tokio::select! {
        answer = mg.notify_by("m", "x", mg.clock.now() + 1_000) => assert_eq!(answer, Err(EngineError::TimedOut)),
        () = turning => {}
    }
}

async fn a_notification_whose_commit_was_lost_takes_effect_once(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.processor.behave(noting);
    mg.storage.then(Fault::Unknown { applied: true }).then(Fault::Unknown { applied: false });
    mg.notify("m", "a").await.unwrap();
    mg.notify("m", "b").await.unwrap();
    until(|| mg.storage.commits().len() == 2).await;
    mg.advance(10);
    until(|| mg.storage.commits().len() == 3).await;
    mg.advance(20);
    mg.processor.question(3).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, ["a", "b"]);
    assert_eq!(mg.processor.count(), 3);
}

async fn disabled_notifications_are_accepted_and_wait(mg: Mg) {
    let mg = mg.notifications(None).start().await;
    mg.machine("m", done()).await;
    mg.notify("m", "a").await.unwrap();
    mg.advance(1_000_000);
    mg.settle().await;
    assert_eq!(mg.processor.count(), 1);
    mg.processor.behave(noting);
    let enabled = SchedulerOptions { capacity: 100, ..SchedulerOptions::default() };
    let mg = mg.restart_with(1, |mg| mg.notifications(Some(enabled))).await;
    mg.processor.question(2).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, ["a"]);
}

async fn with_notifications_disabled_a_repaired_machines_timer_still_fires(mg: Mg) {
    let mg = mg.notifications(None).start().await;
    mg.machine("m", done().timer(10)).await;
    mg.fail("m").await;
    // From now on the record says that notifications may wait, and that is due before the timer is.
    mg.ask("m", Impact::SimpleRepair).await.unwrap();
    mg.advance(10_000);
    assert!(matches!(mg.processor.question(3).await.ask, Ask::Timeout));
}

async fn a_notification_and_a_timer_that_are_due_together_both_come(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    mg.processor.then(reply("").timer(0));
    let asked = mg.ask("m", call("x"));
    gate.reached().await;
    mg.notify("m", "a").await.unwrap();
    mg.settle_but_one().await;
    gate.open();
    asked.await.unwrap();
    mg.processor.question(4).await;
    let mut asks = mg.processor.asks()[2..].to_vec();
    asks.sort();
    assert_eq!(asks, ["notification a", "timeout"]);
}

async fn a_notification_held_back_by_our_own_bounds_comes_in_a_moment(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.processor.behave(noting);
    mg.processor.then(Outcome::HeldBack("the pool is empty".to_owned()));
    mg.notify("m", "a").await.unwrap();
    mg.processor.question(2).await;
    mg.settle().await;
    mg.advance(499);
    mg.settle().await;
    assert_eq!(mg.processor.count(), 2);
    mg.advance(1_001);
    mg.processor.question(3).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, ["a"]);
}

async fn a_notification_waits_for_a_store_that_cannot_be_read(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.processor.behave(noting);
    let mut gate = mg.processor.hold("m");
    let asked = mg.ask("m", call("x"));
    gate.reached().await;
    mg.notify("m", "a").await.unwrap();
    mg.settle_but_one().await;
    mg.storage.down.store(true, Ordering::SeqCst);
    gate.open();
    // It has changed nothing. Where others could have, that can't be found out now.
    let answer = asked.await;
    assert!(matches!(answer, Ok(_) | Err(EngineError::Storage(_))), "{answer:?}");
    mg.settle().await;
    mg.storage.down.store(false, Ordering::SeqCst);
    mg.advance(1_500);
    mg.processor.question(3).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, ["a"]);
}

async fn a_put_off_notification_does_not_delay_a_timer(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(1)).await;
    mg.processor.behave(noting);
    mg.advance(900);
    mg.processor.then(Outcome::HeldBack("the pool is empty".to_owned()));
    mg.notify("m", "a").await.unwrap();
    mg.processor.question(2).await;
    mg.settle().await;
    mg.advance(100);
    assert!(matches!(mg.processor.question(3).await.ask, Ask::Timeout));
    mg.settle().await;
    mg.advance(1_400);
    mg.processor.question(4).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, ["a"]);
}

async fn many_notifications_to_one_machine_all_come(mg: Mg) {
    let mg = mg.start().await;
    mg.processor.behave(noting);
    mg.init("m").await.unwrap();
    let expected: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    for text in &expected {
        mg.notify("m", text).await.unwrap();
    }
    mg.processor.question(51).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, expected);
}

async fn many_parked_notifications_all_come_after_the_repair(mg: Mg) {
    let mg = mg.start().await;
    mg.processor.behave(noting);
    mg.init("m").await.unwrap();
    mg.fail("m").await;
    let expected: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    for text in &expected {
        mg.notify("m", text).await.unwrap();
        mg.settle().await;
    }
    mg.advance(60_000);
    mg.settle().await;
    mg.ask("m", Impact::SimpleRepair).await.unwrap();
    mg.processor.question(52).await;
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, expected);
}

async fn a_conflict_on_the_way_delivers_it_again_without_doubling_it(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.processor.behave(noting);
    mg.storage.then(Fault::Intrude(Box::new(|record| record)));
    mg.notify("m", "a").await.unwrap();
    mg.processor.question(3).await;
    mg.settle().await;
    mg.advance(1_000_000);
    mg.settle().await;
    assert_eq!(texts(&mg, "m").await, ["a"]);
    assert_eq!(mg.processor.count(), 3);
}
