//! Several instances on one storage: who takes which steps, and that nobody is told what is not true any more, even if
//! leases misbehave and two of them own the same shard.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use machinegun::engine::EngineError;
use machinegun::machine::{Impact, KEPT_COMMITS, KEPT_NOTES, Outcome, Refusal};
use machinegun::processor::{Ask, Question};
use machinegun::sink::SinkError;
use machinegun::storage::StorageError;
use machinegun::wire::Value;

use crate::faulty::Fault;
use crate::on_every_shared_storage;
use crate::recorder::Recorder;
use crate::scripted::{content, done, reply, text};
use crate::timers::timeouts;
use crate::world::{Answer, Mg, World, call, ok, repair, until};

on_every_shared_storage!(
    nothing_is_begun_outside_of_a_tenure,
    a_machine_is_shown_from_storage_outside_of_a_tenure,
    a_hot_call_reads_nothing,
    an_outdated_machine_is_never_shown,
    an_outdated_refusal_is_decided_again,
    a_step_that_began_with_an_outdated_view_outlives_a_conflict_like_any_other,
    an_outdated_answer_to_a_look_is_asked_for_again,
    a_refusal_is_not_given_when_storage_cannot_be_asked,
    a_machine_that_was_not_found_is_looked_for_again,
    a_history_that_went_with_its_machine_is_no_corruption,
    a_tenure_lost_and_regained_reads_again,
    a_notification_whose_put_was_lost_is_not_put_again_once_its_shard_is_anothers,
    a_commit_that_was_lost_and_done_is_not_taken_for_a_conflict_many_commits_later,
    a_start_that_was_lost_and_done_is_not_taken_for_a_conflict_many_commits_later,
    a_commit_that_was_lost_and_overtaken_is_decided_again,
    a_step_that_waited_until_its_lease_was_gone_is_not_begun,
    a_step_that_runs_when_its_lease_goes_is_finished,
    a_lost_shards_timer_is_fired_by_the_taker_alone,
    a_timer_that_passed_is_fired_at_once_by_the_taker,
    a_wake_up_that_waited_until_its_lease_was_gone_is_dropped,
    a_timer_that_came_due_while_the_lease_was_late_is_fired_once_it_is_trusted_again,
    each_shards_timers_are_fired_by_its_owner,
    a_timer_that_another_has_set_is_not_overlooked,
    a_notification_to_a_machine_started_anew_elsewhere_is_not_discarded,
    a_notification_to_a_machine_repaired_elsewhere_is_not_parked,
    a_release_waits_for_the_running_step,
    a_release_notes_what_sinks_have_acknowledged,
    a_release_does_not_wait_for_a_sink_that_is_down,
    events_of_a_step_that_outlived_its_lease_are_the_next_owners_to_send,
    an_instance_declared_dead_sends_nothing_that_waited_for_its_next_attempt,
    an_instance_declared_dead_tells_of_no_change_of_life_that_waited,
    an_instance_declared_dead_sends_no_backlog_of_a_sink_that_replies_wait_for,
    an_instance_declared_dead_while_it_hands_over_sends_nothing_more,
    a_reply_that_waits_for_a_sink_is_refused_where_the_lease_went_and_nothing_is_sent,
    a_reply_that_waits_for_a_sink_has_it_while_its_machine_is_handed_over,
    a_delivery_that_waits_when_its_lease_goes_is_not_made,
    a_delivery_of_an_earlier_tenure_gives_way_to_what_is_owed_now,
    a_release_whose_time_is_over_sends_nothing_more,
    a_release_leaves_other_shards_machines_alone,
    a_release_and_a_stop_go_together,
    two_who_both_believe_to_own_a_machine_lose_nothing_and_double_nothing,
);

async fn owner(mg: &Mg) -> World {
    let world = mg.instance().await;
    world.take().await;
    world
}

/// Two that both believe to own everything.
async fn rivals(mg: &Mg) -> (World, World) {
    (owner(mg).await, owner(mg).await)
}

/// So that each finds what the other has left while it still holds the machine.
fn scanned_often(mg: Mg) -> Mg {
    mg.with(|_, namespace| {
        for scheduler in [&mut namespace.timers, &mut namespace.notifications].into_iter().flatten() {
            scheduler.scan_interval = Duration::from_secs(1);
        }
    })
}

fn reads(mg: &World) -> (usize, usize, usize) {
    let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
    (count(&mg.storage.reads), count(&mg.storage.event_reads), count(&mg.storage.standings))
}

async fn texts(mg: &World, machine: &str) -> Vec<String> {
    mg.events(machine).await.into_iter().map(|(_, text)| text).collect()
}

/// Notifications become events of the same text, so do calls; timers become "timeout".
fn noting(question: &Question) -> Outcome {
    match &question.ask {
        Ask::Notification(args) => done().event(&text(args)).into(),
        Ask::Call(args) => reply("").event(&text(args)).into(),
        Ask::Timeout => done().event("timeout").into(),
        _ => reply("").into(),
    }
}

async fn nothing_is_begun_outside_of_a_tenure(mg: Mg) {
    let a = mg.instance().await;
    let not_owner = || Err(EngineError::NotOwner);
    assert_eq!(a.init("m").await, not_owner());
    // It has not even cost a place in memory.
    assert_eq!(a.metric("machinegun_workers", "ns"), 0);
    a.take().await;
    a.machine("m", done()).await;
    a.shards().trust_until(a.clock.now() + 100);
    assert_eq!(a.call("m", "in time").await, ok("in time"));
    let before = reads(&a);
    a.advance(100);
    assert_eq!(a.call("m", "x").await, not_owner());
    assert_eq!(a.notify("m", "x").await.map(drop), Err(EngineError::NotOwner));
    // It was late, no more: nobody else can have owned it.
    a.shards().trust_until(i64::MAX);
    a.processor.then(reply("again").event("e"));
    assert_eq!(a.call("m", "x").await, ok("again"));
    assert_eq!(reads(&a), before);
    a.lose();
    assert_eq!(a.call("m", "x").await, not_owner());
    assert_eq!(a.notify("m", "x").await.map(drop), Err(EngineError::NotOwner));
    a.settle().await;
    assert_eq!(a.processor.count(), 3);
}

async fn a_machine_is_shown_from_storage_outside_of_a_tenure(mg: Mg) {
    let (a, b) = (owner(&mg).await, mg.instance().await);
    a.three_events("m").await;
    a.lose();
    b.take().await;
    b.change("m", reply("").event("d")).await;
    let before = reads(&a);
    assert_eq!(texts(&a, "m").await, ["a", "b", "c", "d"]);
    let after = reads(&a);
    assert_eq!((after.0, after.2), (before.0 + 1, before.2));
}

async fn a_hot_call_reads_nothing(mg: Mg) {
    let a = owner(&mg).await;
    a.three_events("m").await;
    let before = reads(&a);
    for text in ["d", "e", "f"] {
        a.change("m", reply("").event(text)).await;
    }
    assert_eq!(reads(&a), before);
    // From memory too, with one look at what stands.
    assert_eq!(texts(&a, "m").await, ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(reads(&a), (before.0, before.1, before.2 + 1));
    a.call("m", "looks").await.unwrap();
    assert_eq!(reads(&a), (before.0, before.1, before.2 + 2));
    assert_eq!(a.processor.count(), 5);
}

async fn an_outdated_machine_is_never_shown(mg: Mg) {
    let (a, b) = rivals(&mg).await;
    a.three_events("m").await;
    assert_eq!(texts(&a, "m").await, ["a", "b", "c"]);
    b.change("m", reply("").event("d").aux("b's")).await;
    assert_eq!(texts(&a, "m").await, ["a", "b", "c", "d"]);
    assert_eq!(a.get("m").await.unwrap().record.aux_state, content("b's"));
    b.ask("m", Impact::Remove).await.unwrap();
    assert_eq!(a.get("m").await.unwrap_err(), Refusal::MachineNotFound.into());
    assert_eq!(a.notify("m", "x").await, Err(Refusal::MachineNotFound.into()));
    // Who only looked has changed nothing for the worker, which finds out by itself.
    assert_eq!(a.call("m", "x").await, Err(Refusal::MachineNotFound.into()));
}

async fn an_outdated_refusal_is_decided_again(mg: Mg) {
    let (a, b) = rivals(&mg).await;
    a.machine("m", done()).await;
    b.fail("m").await;
    a.processor.then(reply("repaired"));
    assert_eq!(a.ask("m", repair("x")).await, ok("repaired"), "not: it is working");
    // What it has left to do after a repair is a commit too.
    a.settle().await;
    b.fail("m").await;
    assert_eq!(a.ask("m", Impact::SimpleRepair).await.map(drop), Ok(()), "not: it is working");
    a.settle().await;
    a.fail("m").await;
    b.ask("m", Impact::SimpleRepair).await.unwrap();
    b.settle().await;
    assert_eq!(a.call("m", "x").await, ok("x"), "not: it has failed");
    b.ask("m", Impact::Remove).await.unwrap();
    b.settle().await;
    assert_eq!(a.init("m").await.map(drop), Ok(()), "not: it exists");
    b.ask("m", Impact::Remove).await.unwrap();
    b.settle().await;
    assert_eq!(a.ask("m", Impact::SimpleRepair).await, Err(Refusal::MachineNotFound.into()), "not: it is working");
}

async fn a_step_that_began_with_an_outdated_view_outlives_a_conflict_like_any_other(mg: Mg) {
    let (a, b) = rivals(&mg).await;
    a.machine("m", done()).await;
    b.fail("m").await;
    // That it works is outdated. Then another commit comes between: that is the first conflict, not the second.
    a.storage.then(crate::faulty::Fault::Intrude(Box::new(|record| record)));
    a.processor.then(reply("one")).then(reply("repaired"));
    assert_eq!(a.ask("m", repair("x")).await, ok("repaired"));
    assert_eq!(a.processor.asks(), ["init ", "repair x", "repair x"]);
}

async fn an_outdated_answer_to_a_look_is_asked_for_again(mg: Mg) {
    let (a, b) = rivals(&mg).await;
    a.machine("m", done().aux("a's")).await;
    b.change("m", reply("").aux("b's")).await;
    a.processor.then(reply("a's")).then(reply("b's"));
    assert_eq!(a.call("m", "x").await, ok("b's"));
    let states: Vec<_> = a.processor.questions()[1..].iter().map(|it| it.machine.aux_state.clone()).collect();
    assert_eq!(states, [Some(content("a's")), Some(content("b's"))]);
    // What was read within the step needs no other look, and no third question.
    b.change("m", reply("").aux("b's again")).await;
    let before = reads(&a);
    a.call("m", "x").await.unwrap();
    assert_eq!(a.processor.count(), 5);
    assert_eq!(reads(&a), (before.0 + 1, before.1, before.2 + 1));
}

async fn a_refusal_is_not_given_when_storage_cannot_be_asked(mg: Mg) {
    let a = owner(&mg).await;
    a.machine("m", done()).await;
    a.fail("m").await;
    assert_eq!(a.call("m", "x").await, Err(Refusal::MachineFailed.into()));
    a.storage.down.store(true, Ordering::SeqCst);
    let unknown = |answer: Answer| matches!(answer, Err(EngineError::Storage(StorageError::Unavailable(_))));
    assert!(unknown(a.call("m", "x").await));
    assert!(matches!(a.get("m").await, Err(EngineError::Storage(_))));
    a.storage.down.store(false, Ordering::SeqCst);
    assert_eq!(a.call("m", "x").await, Err(Refusal::MachineFailed.into()));
}

async fn a_machine_that_was_not_found_is_looked_for_again(mg: Mg) {
    let (a, b) = rivals(&mg).await;
    let not_found = || Refusal::MachineNotFound.into();
    for machine in ["called", "shown", "notified"] {
        assert_eq!(a.call(machine, "x").await, Err(not_found()));
        let before = reads(&a);
        assert_eq!(a.call(machine, "x").await, Err(not_found()));
        assert_eq!(reads(&a), (before.0, before.1, before.2 + 1));
        b.machine(machine, done()).await;
    }
    assert_eq!(a.call("called", "x").await, ok("x"));
    assert!(a.get("shown").await.is_ok());
    assert!(a.notify("notified", "x").await.is_ok());
}

async fn a_history_that_went_with_its_machine_is_no_corruption(mg: Mg) {
    // No events stay in memory.
    let mg = mg.with(|options, _| options.cache = 16);
    let (a, b) = rivals(&mg).await;
    // Too many for the machine's own item.
    let large = |n: usize| reply("").event(&format!("{n} {}", "e".repeat(2_000)));
    a.machine("m", large(0)).await;
    for n in 1..4 {
        a.change("m", large(n)).await;
    }
    b.ask("m", Impact::Remove).await.unwrap();
    until(|| !b.storage.deleted.lock().unwrap().is_empty()).await;
    b.settle().await;
    b.machine("m", done().event("anew")).await;
    a.processor.then(reply("answered"));
    assert_eq!(a.call("m", "x").await, ok("answered"));
    assert_eq!(texts(&a, "m").await, ["anew"]);
}

async fn a_tenure_lost_and_regained_reads_again(mg: Mg) {
    let (a, b) = (owner(&mg).await, mg.instance().await);
    a.three_events("m").await;
    a.lose();
    b.take().await;
    b.change("m", reply("").event("d").aux("b's")).await;
    b.lose();
    a.take().await;
    let before = reads(&a);
    a.change("m", reply("").event("e")).await;
    assert_eq!(a.processor.count(), 2, "asked on b's state at once, not after a conflict");
    assert_eq!(a.processor.questions()[1].machine.aux_state, Some(content("b's")));
    assert_eq!(reads(&a).0, before.0 + 1);
    assert_eq!(a.metric("machinegun_commit_conflicts_total", "ns"), 0);
    assert_eq!(texts(&b, "m").await, ["a", "b", "c", "d", "e"]);
}

/// The new owner has delivered it, and many others since.
async fn a_notification_whose_put_was_lost_is_not_put_again_once_its_shard_is_anothers(mg: Mg) {
    let (a, b) = (owner(&mg).await, mg.instance().await);
    a.machine("m", done()).await;
    b.processor.behave(noting);
    a.storage.then_entry(Fault::Unknown { applied: true });
    let between = async {
        until(|| a.storage.entries.load(Ordering::SeqCst) == 1).await;
        a.lose();
        b.take().await;
        for other in 0..2 * KEPT_NOTES {
            b.notify("m", &other.to_string()).await.unwrap();
        }
        b.processor.question(1 + 2 * KEPT_NOTES).await;
        b.settle().await;
        // Not even if it comes back.
        b.lose();
        a.take().await;
        a.advance(1_000);
    };
    let (notified, ()) = tokio::join!(a.notify("m", "a"), between);
    assert_eq!(notified, Err(EngineError::TimedOut), "nobody knows here");
    assert_eq!(a.storage.entries.load(Ordering::SeqCst), 1);
    assert_eq!(texts(&a, "m").await.iter().filter(|text| *text == "a").count(), 1);
}

/// `a`'s answer is lost, and before it puts the commit again its shard is `b`'s, who commits so many steps.
async fn others_commit(a: &World, b: &World, steps: usize) {
    let commits = a.storage.commits().len();
    until(|| a.storage.commits().len() > commits).await;
    a.lose();
    b.take().await;
    for _ in 0..steps {
        b.change("m", reply("").event("b's")).await;
    }
    a.advance(1_000);
}

async fn a_commit_that_was_lost_and_done_is_not_taken_for_a_conflict_many_commits_later(mg: Mg) {
    let (a, b) = (owner(&mg).await, mg.instance().await);
    a.machine("m", done()).await;
    a.processor.behave(|_| reply("").event("a's").into());
    a.storage.then(Fault::Unknown { applied: true });
    let (called, ()) = tokio::join!(a.call("m", "x"), others_commit(&a, &b, KEPT_COMMITS + 1));
    assert_eq!(called, Err(EngineError::TimedOut), "nobody knows any more");
    assert_eq!(a.processor.asks(), ["init ", "call x"]);
    assert_eq!(texts(&b, "m").await.iter().filter(|text| *text == "a's").count(), 1);
}

async fn a_start_that_was_lost_and_done_is_not_taken_for_a_conflict_many_commits_later(mg: Mg) {
    let (a, b) = (owner(&mg).await, mg.instance().await);
    a.storage.then(Fault::Unknown { applied: true });
    let (started, ()) = tokio::join!(a.init("m"), others_commit(&a, &b, KEPT_COMMITS + 1));
    assert_eq!(started, Err(EngineError::TimedOut), "not that somebody else has started it");
    assert_eq!(a.processor.asks(), ["init "]);
}

async fn a_commit_that_was_lost_and_overtaken_is_decided_again(mg: Mg) {
    let (a, b) = (owner(&mg).await, mg.instance().await);
    a.machine("m", done()).await;
    a.processor.behave(|_| reply("done").event("a's").into());
    a.storage.then(Fault::Unknown { applied: false });
    // As many as the record remembers: what came in its place is known.
    let (called, ()) = tokio::join!(a.call("m", "x"), others_commit(&a, &b, KEPT_COMMITS - 1));
    assert_eq!(called, ok("done"));
    assert_eq!(a.processor.asks(), ["init ", "call x", "call x"]);
    assert_eq!(texts(&b, "m").await.iter().filter(|text| *text == "a's").count(), 1);
}

async fn a_step_that_waited_until_its_lease_was_gone_is_not_begun(mg: Mg) {
    let a = owner(&mg).await;
    a.machine("m", done()).await;
    let mut gate = a.processor.hold("m");
    a.processor.then(reply("done").event("e"));
    let (running, waiting) = (a.ask("m", call("x")), a.ask("m", call("y")));
    gate.reached().await;
    a.lose();
    gate.open();
    assert_eq!(running.await, ok("done"));
    assert_eq!(waiting.await, Err(EngineError::NotOwner));
    assert_eq!(a.processor.asks(), ["init ", "call x"]);
}

async fn a_step_that_runs_when_its_lease_goes_is_finished(mg: Mg) {
    let (a, b) = (owner(&mg).await, mg.instance().await);
    a.machine("m", done()).await;
    let mut gate = a.processor.hold("m");
    a.processor.then(reply("first").event("a's")).then(reply("second").event("a's"));
    let running = a.ask("m", call("x"));
    gate.reached().await;
    a.lose();
    b.take().await;
    b.change("m", reply("").event("b's")).await;
    gate.open();
    // The conflict is met, and worked off.
    assert_eq!(running.await, ok("second"));
    assert_eq!(texts(&b, "m").await, ["b's", "a's"]);
}

async fn a_lost_shards_timer_is_fired_by_the_taker_alone(mg: Mg) {
    let (a, b) = (owner(&mg).await, mg.instance().await);
    a.machine("m", done().timer(5)).await;
    a.lose();
    b.processor.behave(noting);
    b.take().await;
    a.advance(5_000);
    a.settle().await;
    b.advance(5_000);
    b.processor.question(1).await;
    b.settle().await;
    a.advance(120_000);
    a.settle().await;
    a.quiet().await;
    assert_eq!((timeouts(&a), timeouts(&b)), (0, 1));
    assert_eq!(a.metric("machinegun_wakes_total", "created"), 0);
    assert_eq!(texts(&b, "m").await, ["timeout"]);
}

async fn a_timer_that_passed_is_fired_at_once_by_the_taker(mg: Mg) {
    let (a, b) = (owner(&mg).await, mg.instance().await);
    a.machine("m", done().timer(5)).await;
    b.advance(5_000);
    a.lose();
    b.take().await;
    // No time passes for b.
    b.processor.question(1).await;
    assert_eq!(timeouts(&b), 1);
}

async fn a_wake_up_that_waited_until_its_lease_was_gone_is_dropped(mg: Mg) {
    let (a, b) = (owner(&mg).await, mg.instance().await);
    a.machine("m", done().timer(5)).await;
    let mut gate = a.processor.hold("m");
    let running = a.ask("m", call("x"));
    gate.reached().await;
    a.advance(5_000);
    a.settle_but_one().await;
    a.lose();
    gate.open();
    running.await.unwrap();
    a.settle().await;
    assert_eq!(timeouts(&a), 0);
    b.advance(5_000);
    b.take().await;
    b.processor.question(1).await;
    assert_eq!(timeouts(&b), 1);
}

async fn a_timer_that_came_due_while_the_lease_was_late_is_fired_once_it_is_trusted_again(mg: Mg) {
    let a = owner(&mg).await;
    a.machine("m", done().timer(5)).await;
    a.shards().trust_until(a.clock.now() + 5_000);
    a.advance(5_000);
    a.quiet().await;
    assert_eq!(timeouts(&a), 0);
    // No more time passes.
    a.shards().trust_until(i64::MAX);
    a.processor.question(2).await;
    assert_eq!(timeouts(&a), 1);
}

async fn each_shards_timers_are_fired_by_its_owner(mg: Mg) {
    let a = owner(&mg).await;
    let ids: Vec<_> = (0..24).map(|n| format!("m{n}")).collect();
    for id in &ids {
        a.machine(id, done().timer(5)).await;
    }
    a.lose();
    let instances = [mg.instance().await, mg.instance().await, mg.instance().await];
    for (place, world) in instances.iter().enumerate() {
        world.processor.behave(noting);
        world.shards().trust_until(i64::MAX);
        let own = world.all_shards().into_iter().filter(|shard| usize::from(*shard) % 3 == place);
        own.for_each(|shard| world.shards().take(shard));
    }
    for (place, world) in instances.iter().enumerate() {
        let of_here = |id: &&String| usize::from(world.shards().of(&world.key(id))) % 3 == place;
        let own: BTreeSet<_> = ids.iter().filter(of_here).cloned().collect();
        assert!(!own.is_empty());
        // As much as a scan brings is held; a second one finds what the first has come too early for.
        world.advance(5_000);
        world.until_later(|| timeouts(world) >= own.len()).await;
        world.settle().await;
        let questions = world.processor.questions();
        let asked: Vec<_> = questions.iter().map(|it| String::from_utf8_lossy(&it.machine.id).into_owned()).collect();
        assert_eq!(asked.len(), own.len());
        assert_eq!(asked.into_iter().collect::<BTreeSet<_>>(), own);
        let scanned = world.storage.scanned.lock().unwrap().clone();
        assert_eq!(scanned, Some(world.shards().owned()));
    }
}

/// By one that believes to own the machine, and holds it without a timer.
async fn a_timer_that_another_has_set_is_not_overlooked(mg: Mg) {
    let (a, b) = rivals(&scanned_often(mg)).await;
    a.processor.behave(noting);
    a.machine("m", done()).await;
    b.change("m", reply("").timer(1)).await;
    b.lose();
    a.advance(1_000);
    a.until_later(|| timeouts(&a) == 1).await;
    a.settle().await;
    assert_eq!(texts(&a, "m").await, ["timeout"]);
}

async fn a_notification_to_a_machine_started_anew_elsewhere_is_not_discarded(mg: Mg) {
    let (a, b) = rivals(&scanned_often(mg)).await;
    a.processor.behave(noting);
    a.machine("m", done()).await;
    b.ask("m", Impact::Remove).await.unwrap();
    b.machine("m", done()).await;
    b.notify("m", "hello").await.unwrap();
    b.lose();
    a.until_later(|| a.processor.count() == 2).await;
    a.settle().await;
    assert_eq!(texts(&a, "m").await, ["hello"]);
    assert_eq!(b.processor.count(), 1);
}

async fn a_notification_to_a_machine_repaired_elsewhere_is_not_parked(mg: Mg) {
    let (a, b) = rivals(&scanned_often(mg)).await;
    a.machine("m", done()).await;
    a.fail("m").await;
    a.processor.behave(noting);
    b.ask("m", Impact::SimpleRepair).await.unwrap();
    b.settle().await;
    b.notify("m", "hello").await.unwrap();
    b.lose();
    a.until_later(|| a.processor.count() == 3).await;
    a.settle().await;
    assert_eq!(texts(&a, "m").await, ["hello"]);
    assert_eq!(b.processor.count(), 0);
}

async fn a_release_waits_for_the_running_step(mg: Mg) {
    let a = owner(&mg).await;
    a.machine("m", done()).await;
    let mut gate = a.processor.hold("m");
    a.processor.then(reply("done").event("e"));
    let (running, waiting) = (a.ask("m", call("x")), a.ask("m", call("y")));
    gate.reached().await;
    a.give();
    let shards = a.all_shards();
    let mut release = Box::pin(a.engine.release(&shards));
    assert!((&mut release).now_or_never().is_none());
    a.quiet().await;
    assert!((&mut release).now_or_never().is_none());
    gate.open();
    release.await;
    // All is answered by now, and nothing is held.
    assert_eq!(running.now_or_never(), Some(ok("done")));
    assert_eq!(waiting.now_or_never(), Some(Err(EngineError::NotOwner)));
    assert_eq!(a.engine.cached_bytes(), 0);
    assert_eq!(texts(&a, "m").await, ["e"]);
    // Nobody is there any more to be waited for.
    a.engine.release(&shards).await;
}

async fn a_release_notes_what_sinks_have_acknowledged(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink);
    let (a, b) = (owner(&mg).await, mg.instance().await);
    a.machine("m", done()).await;
    let mut gate = sink.hold("m");
    a.change("m", reply("").event("e1")).await;
    gate.reached().await;
    a.give();
    let shards = a.all_shards();
    let mut release = Box::pin(a.engine.release(&shards));
    assert!((&mut release).now_or_never().is_none());
    a.quiet().await;
    assert!((&mut release).now_or_never().is_none());
    gate.open();
    release.await;
    assert!(a.stored("m").await.unsent.is_empty());
    b.take().await;
    b.change("m", reply("").event("e2")).await;
    until(|| sink.of("m").len() == 2).await;
    assert_eq!(sink.of("m"), ["1 e1", "2 e2"]);
    assert_eq!(sink.attempts("m"), 2);
}

async fn a_release_does_not_wait_for_a_sink_that_is_down(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink);
    let (a, b) = (owner(&mg).await, mg.instance().await);
    sink.go_down();
    a.machine("m", done().event("e1")).await;
    until(|| sink.attempts("m") == 1).await;
    a.quiet().await;
    a.give();
    // No time passes: what waited for its next attempt has it now, and then no more.
    a.engine.release(&a.all_shards()).await;
    assert_eq!(sink.attempts("m"), 2);
    sink.come_up();
    a.advance(120_000);
    a.quiet().await;
    assert_eq!(sink.of("m"), Vec::<String>::new());
    b.take().await;
    b.until_later(|| sink.of("m").len() == 1).await;
    assert_eq!(sink.of("m"), ["1 e1"]);
}

async fn events_of_a_step_that_outlived_its_lease_are_the_next_owners_to_send(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink);
    let (a, b) = (owner(&mg).await, mg.instance().await);
    a.machine("m", done()).await;
    let mut gate = a.processor.hold("m");
    a.processor.then(reply("done").event("e1"));
    let running = a.ask("m", call("x"));
    gate.reached().await;
    a.lose();
    gate.open();
    assert_eq!(running.await, ok("done"));
    a.engine.release(&a.all_shards()).await;
    assert_eq!(sink.attempts("m"), 0);
    b.take().await;
    b.until_later(|| sink.of("m").len() == 1).await;
    assert_eq!(sink.of("m"), ["1 e1"]);
}

async fn an_instance_declared_dead_sends_nothing_that_waited_for_its_next_attempt(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink);
    let (a, b) = (owner(&mg).await, mg.instance().await);
    sink.go_down();
    a.machine("m", done().event("e1")).await;
    until(|| a.metric("machinegun_sink_retries_total", "s") == 1).await;
    a.lose();
    b.take().await;
    sink.come_up();
    b.change("m", reply("").event("e2")).await;
    b.until_later(|| sink.of("m").len() == 2).await;
    let attempts = sink.attempts("m");
    // It finds out, and its clock goes on.
    a.engine.drop_lost(&a.all_shards()).await;
    assert_eq!(a.metric("machinegun_workers", "ns"), 0);
    a.advance(120_000);
    a.quiet().await;
    assert_eq!((sink.of("m"), sink.attempts("m")), (vec!["1 e1".to_owned(), "2 e2".to_owned()], attempts));
}

async fn an_instance_declared_dead_tells_of_no_change_of_life_that_waited(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.lifecycle("s", &sink);
    let (a, b) = (owner(&mg).await, mg.instance().await);
    a.machine("m", done()).await;
    until(|| sink.of("m") == ["created"]).await;
    a.until_noted("m").await;
    sink.go_down();
    a.fail("m").await;
    until(|| a.metric("machinegun_sink_retries_total", "s") == 1).await;
    a.lose();
    b.take().await;
    sink.come_up();
    b.ask("m", Impact::SimpleRepair).await.unwrap();
    b.until_later(|| sink.of("m").len() == 3).await;
    a.engine.drop_lost(&a.all_shards()).await;
    a.advance(120_000);
    a.quiet().await;
    assert_eq!(sink.of("m"), ["created", "failed: it broke", "repaired"]);
}

async fn an_instance_declared_dead_sends_no_backlog_of_a_sink_that_replies_wait_for(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.awaited("s", &sink);
    let (a, b) = (owner(&mg).await, mg.instance().await);
    a.machine("m", done()).await;
    sink.go_down();
    for n in 1..=3 {
        a.processor.then(reply("").event(&format!("e{n}")));
        a.call("m", "x").await.unwrap_err();
    }
    // What waits is of the first one alone, so there is more to send after it.
    a.lose();
    b.take().await;
    sink.come_up();
    b.until_later(|| sink.of("m").len() == 3).await;
    let attempts = sink.attempts("m");
    a.engine.drop_lost(&a.all_shards()).await;
    a.advance(120_000);
    a.quiet().await;
    assert_eq!(sink.attempts("m"), attempts);
    assert_eq!(sink.of("m"), ["1 e1", "2 e2", "3 e3"]);
}

async fn an_instance_declared_dead_while_it_hands_over_sends_nothing_more(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink);
    let a = owner(&mg).await;
    sink.go_down();
    a.machine("m", done().event("e1")).await;
    until(|| a.metric("machinegun_sink_retries_total", "s") == 1).await;
    a.give();
    // It begins again under another name before its machines have left.
    a.shards().lose_all();
    a.shards().trust_until(i64::MAX);
    sink.come_up();
    a.engine.release(&a.all_shards()).await;
    a.quiet().await;
    assert_eq!((sink.attempts("m"), sink.accepted()), (1, 0));
}

async fn a_reply_that_waits_for_a_sink_is_refused_where_the_lease_went_and_nothing_is_sent(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.awaited("s", &sink);
    let (a, b) = (owner(&mg).await, mg.instance().await);
    sink.go_down();
    a.processor.then(done().event("e1"));
    a.init("m").await.unwrap_err();
    let mut gate = a.processor.hold("m");
    a.processor.then(reply("done").event("e2"));
    let running = a.ask("m", call("x"));
    gate.reached().await;
    let attempts = sink.attempts("m");
    a.lose();
    sink.come_up();
    gate.open();
    let refused = running.await;
    assert!(matches!(refused, Err(EngineError::Sink(SinkError::Unavailable(_)))), "{refused:?}");
    a.quiet().await;
    assert_eq!((sink.attempts("m"), sink.accepted()), (attempts, 0));
    // The step is done, and what is owed is the next owner's to send.
    b.take().await;
    b.until_later(|| sink.of("m").len() == 2).await;
    assert_eq!(sink.of("m"), ["1 e1", "2 e2"]);
}

async fn a_reply_that_waits_for_a_sink_has_it_while_its_machine_is_handed_over(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.awaited("s", &sink);
    let a = owner(&mg).await;
    a.machine("m", done()).await;
    let mut gate = a.processor.hold("m");
    a.processor.then(reply("done").event("e1"));
    let running = a.ask("m", call("x"));
    gate.reached().await;
    a.give();
    gate.open();
    assert_eq!(running.await, ok("done"));
    assert_eq!(sink.of("m"), ["1 e1"]);
    a.engine.release(&a.all_shards()).await;
}

/// Nobody has told its worker: it was frozen, say, and its clock is the first that goes on.
async fn a_delivery_that_waits_when_its_lease_goes_is_not_made(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink);
    let a = owner(&mg).await;
    sink.go_down();
    a.machine("m", done().event("e1")).await;
    until(|| a.metric("machinegun_sink_retries_total", "s") == 1).await;
    a.shards().trust_until(a.clock.now() + 10);
    sink.come_up();
    a.advance(120_000);
    a.quiet().await;
    assert_eq!((sink.attempts("m"), sink.accepted()), (1, 0));
    // It was only late.
    a.shards().trust_until(i64::MAX);
    a.until_later(|| sink.of("m") == ["1 e1"]).await;
    assert_eq!(a.metric("machinegun_sink_failures_total", "reason=\"unavailable\""), 1);
}

async fn a_delivery_of_an_earlier_tenure_gives_way_to_what_is_owed_now(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink);
    let (a, b) = (owner(&mg).await, mg.instance().await);
    sink.go_down();
    a.machine("m", done().event("e1")).await;
    until(|| a.metric("machinegun_sink_retries_total", "s") == 1).await;
    a.lose();
    b.take().await;
    sink.come_up();
    b.until_later(|| sink.of("m") == ["1 e1"]).await;
    b.until_noted("m").await;
    b.lose();
    a.take().await;
    a.change("m", reply("").event("e2")).await;
    // No time passes: it does not wait behind the other's next attempt.
    until(|| sink.of("m").len() == 2).await;
    a.advance(120_000);
    a.quiet().await;
    assert_eq!(sink.of("m"), ["1 e1", "2 e2"]);
}

async fn a_release_whose_time_is_over_sends_nothing_more(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink);
    let a = owner(&mg).await;
    a.machine("m", done()).await;
    let mut gate = sink.hold("m");
    a.change("m", reply("").event("e1")).await;
    gate.reached().await;
    a.give();
    let shards = a.all_shards();
    let mut release = Box::pin(a.engine.release(&shards));
    assert!((&mut release).now_or_never().is_none());
    a.quiet().await;
    assert!((&mut release).now_or_never().is_none());
    drop(release);
    // It waits for the sink no more.
    until(|| a.metric("machinegun_workers", "ns") == 0).await;
    assert_eq!((sink.attempts("m"), sink.accepted()), (1, 0));
}

async fn a_release_leaves_other_shards_machines_alone(mg: Mg) {
    let a = owner(&mg).await;
    let ids: Vec<_> = (0..24).map(|n| format!("m{n}")).collect();
    for id in &ids {
        a.machine(id, done()).await;
    }
    let released: Vec<_> = a.all_shards().into_iter().filter(|shard| shard % 2 == 0).collect();
    released.iter().for_each(|shard| a.shards().give(*shard));
    a.engine.release(&released).await;
    let (gone, stay): (Vec<_>, Vec<_>) = ids.iter().partition(|id| a.shards().of(&a.key(id)) % 2 == 0);
    assert!(!gone.is_empty() && !stay.is_empty());
    let before = reads(&a);
    for id in stay {
        a.change(id, reply("").event("e")).await;
    }
    assert_eq!(reads(&a), before);
    for id in gone {
        assert_eq!(a.call(id, "x").await, Err(EngineError::NotOwner));
    }
}

async fn a_release_and_a_stop_go_together(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink);
    let a = owner(&mg).await;
    a.machine("m", done()).await;
    let mut gate = a.processor.hold("m");
    a.processor.then(reply("done").event("e"));
    let running = a.ask("m", call("x"));
    gate.reached().await;
    a.give();
    let shards = a.all_shards();
    let both = async { tokio::join!(a.engine.release(&shards), a.engine.stop()) };
    let mut both = Box::pin(both);
    assert!((&mut both).now_or_never().is_none());
    gate.open();
    both.await;
    assert_eq!(running.now_or_never(), Some(ok("done")));
    assert_eq!(a.stored("m").await.last_event, 1);
}

async fn two_who_both_believe_to_own_a_machine_lose_nothing_and_double_nothing(mg: Mg) {
    const STEPS: usize = 20;
    let mg = scanned_often(mg);
    let (a, b) = rivals(&mg).await;
    let worlds = [&a, &b];
    a.processor.behave(noting);
    b.processor.behave(noting);
    a.machine("m", done()).await;
    let calls =
        (0..STEPS).flat_map(|n| worlds.map(|world| (format!("call {n} {}", std::ptr::from_ref(world).addr()), world)));
    let calls = calls.map(|(text, world)| async move { (world.call("m", &text).await, text) });
    let notes =
        worlds.iter().enumerate().flat_map(|(place, world)| (0..5).map(move |n| (format!("note {place} {n}"), world)));
    let notes = notes.map(|(text, world)| async move { world.notify("m", &text).await.map(|_| text) });
    let (answers, accepted) = tokio::join!(join_all(calls.collect::<Vec<_>>()), join_all(notes.collect::<Vec<_>>()));
    let mut expected: Vec<String> = accepted.into_iter().map(|it| it.expect("a notification is accepted")).collect();
    let asked = worlds.map(|world| {
        let calls = world.processor.questions().into_iter().filter(|it| matches!(it.ask, Ask::Call(_)));
        calls.map(|it| if let Ask::Call(args) = it.ask { text(&args) } else { String::new() }).collect::<Vec<_>>()
    });
    for (answer, text) in answers {
        let times = asked.iter().flatten().filter(|it| **it == text).count();
        assert!(times <= 2, "{text} was asked about {times} times");
        match answer {
            Ok(_) => expected.push(text),
            Err(EngineError::Storage(StorageError::Unavailable(_))) => {}
            Err(error) => panic!("{text}: {error}"),
        }
    }
    // Neither of them always loses.
    assert!(expected.len() > 10);
    while !a.storage.inner().notifications(&a.key("m"), 1).await.unwrap().is_empty() {
        for world in worlds {
            world.advance(1_000);
            world.quiet().await;
        }
    }
    for world in worlds {
        world.settle().await;
    }
    expected.sort();
    for world in worlds {
        let mut stored = texts(world, "m").await;
        stored.sort();
        assert_eq!(stored, expected);
    }
    assert!(a.call("m", "last").await == Ok(machinegun::machine::Success::Response(Value::str(""))));
}
