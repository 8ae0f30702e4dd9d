//! Sinks: each committed event reaches them in order per machine, at least once, whatever happens on the way.

use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use machinegun::machine::{Impact, Status};

use crate::faulty::Fault;
use crate::on_every_storage;
use crate::recorder::{Recorder, misconfigured, unavailable};
use crate::scripted::{done, reply, unexpected};
use crate::world::{CLEAR, Mg, World, call, ok, until};

on_every_storage!(
    events_and_changes_of_life_come_in_order,
    a_stuck_machine_holds_up_neither_its_own_steps_nor_other_machines,
    a_stuck_sink_holds_up_no_other,
    a_sink_that_fails_is_tried_again_with_growing_delays_and_nothing_is_lost,
    a_misconfigured_sink_is_tried_again_slowly,
    a_sink_that_panics_is_tried_again,
    a_sink_that_hangs_is_given_up_and_tried_again,
    a_crash_before_the_acknowledgement_sends_again_from_the_record,
    the_next_commit_notes_what_was_acknowledged,
    a_commit_of_its_own_notes_what_was_acknowledged_after_a_while,
    what_was_noted_is_not_sent_again_after_a_stop,
    a_machine_started_anew_while_the_sink_is_down_sends_the_old_events_then_its_own_each_once,
    the_events_of_a_removed_machine_stay_until_the_sink_has_them,
    events_go_only_once_the_store_knows_of_the_acknowledgement,
    a_tombstone_that_pays_tells_of_no_new_life,
    a_stop_gives_up_deliveries_and_the_next_run_sends_them,
    what_is_under_way_at_a_stop_is_noted_and_not_sent_again,
    large_debts_are_sent_in_bounded_batches,
    a_sink_that_is_down_is_asked_with_one_event_however_many_are_owed,
    a_sink_that_takes_a_part_gets_the_rest_and_nothing_twice,
    a_busy_machine_does_not_keep_its_sinks_waiting,
    a_delivery_outlives_a_conflict_and_nothing_is_left_owed,
    a_sink_that_is_configured_no_more_keeps_its_debts_and_costs_nothing,
    events_that_cannot_be_read_now_are_sent_later,
);

fn texts(ids: std::ops::RangeInclusive<usize>) -> Vec<String> {
    ids.map(|n| format!("{n} e{n}")).collect()
}

/// Adds event number `n`.
async fn add(mg: &World, machine: &str, n: usize) {
    mg.change(machine, reply("").event(&format!("e{n}"))).await;
}

async fn noted(mg: &World, machine: &str) -> bool {
    mg.stored(machine).await.unsent.is_empty()
}

async fn events_and_changes_of_life_come_in_order(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.lifecycle("s", &sink).start().await;
    mg.machine("m", done().event("e1").event("e2")).await;
    add(&mg, "m", 3).await;
    mg.fail("m").await;
    mg.ask("m", Impact::SimpleRepair).await.unwrap();
    mg.processor.then(reply("").event("e4").remove());
    mg.call("m", "bye").await.unwrap();
    until(|| sink.of("m").len() == 8).await;
    let expected = ["created", "1 e1", "2 e2", "3 e3", "failed: it broke", "repaired", "4 e4", "removed"];
    assert_eq!(sink.of("m"), expected);
    until(|| mg.metric("mg_events_sink_produced_total", "name=\"s\"") == 4).await;
    // A Start that fails tells of nothing.
    mg.processor.then(unexpected());
    mg.init("n").await.unwrap_err();
    mg.quiet().await;
    assert_eq!(sink.attempts("n"), 0);
}

async fn a_stuck_machine_holds_up_neither_its_own_steps_nor_other_machines(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    let mut gate = sink.hold("stuck");
    mg.machine("stuck", done().event("e1")).await;
    gate.reached().await;
    for n in 2..=4 {
        add(&mg, "stuck", n).await;
    }
    mg.machine("free", done().event("e1")).await;
    until(|| sink.of("free") == texts(1..=1)).await;
    assert_eq!((sink.of("stuck"), sink.attempts("stuck")), (Vec::new(), 1));
    assert_eq!(mg.metric("machinegun_sink_pending", "name=\"s\""), 4);
    mg.advance(2_000);
    assert_eq!(mg.metric("machinegun_sink_oldest_age_seconds", "name=\"s\""), 2);
    gate.open();
    until(|| sink.of("stuck") == texts(1..=4)).await;
    until(|| mg.metric("machinegun_sink_pending", "name=\"s\"") == 0).await;
    assert_eq!(mg.metric("machinegun_sink_oldest_age_seconds", "name=\"s\""), 0);
}

async fn a_stuck_sink_holds_up_no_other(mg: Mg) {
    let (stuck, free) = (Recorder::new(), Recorder::new());
    let mg = mg.sink("stuck", &stuck).sink("free", &free).start().await;
    let _gate = stuck.hold("m");
    mg.machine("m", done().event("e1")).await;
    add(&mg, "m", 2).await;
    until(|| free.of("m") == texts(1..=2)).await;
    // What the one has acknowledged is noted, though the other has not.
    mg.advance(CLEAR as u64);
    until(|| mg.storage.commits().len() == 3).await;
    let unsent = mg.stored("m").await.unsent;
    assert_eq!(unsent.iter().map(|unsent| &*unsent.sink).collect::<Vec<_>>(), ["stuck"]);
    mg.advance(10 * CLEAR as u64);
    mg.quiet().await;
    assert_eq!(mg.storage.commits().len(), 3, "and only once");
}

async fn a_sink_that_fails_is_tried_again_with_growing_delays_and_nothing_is_lost(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    sink.go_down();
    mg.machine("m", done().event("e1")).await;
    let mut waits = Vec::new();
    for attempt in 1..=8 {
        until(|| sink.attempts("m") == attempt && mg.metric("machinegun_sink_retries_total", "s") == attempt as i64)
            .await;
        let before = mg.clock.now();
        while sink.attempts("m") == attempt {
            mg.advance(25);
            mg.quiet().await;
        }
        waits.push(mg.clock.now() - before);
        add(&mg, "m", attempt + 1).await;
    }
    for (attempt, wait) in waits.iter().enumerate() {
        // Half of it at least, and with a store that takes its time, on a busy host, more than one and a half. The clock
        // may have been turned a few times before the failure was seen.
        let base = 100 << attempt;
        assert!((base / 2 - 100..base * 2 + 4_000).contains(wait), "{waits:?}");
    }
    assert_eq!(mg.metric("machinegun_sink_failures_total", "reason=\"unavailable\""), 9);
    sink.come_up();
    mg.until_later(|| sink.of("m") == texts(1..=9)).await;
}

async fn a_misconfigured_sink_is_tried_again_slowly(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    sink.refuse_once(misconfigured());
    mg.machine("m", done().event("e1")).await;
    until(|| mg.metric("machinegun_sink_failures_total", "reason=\"misconfiguration\"") == 1).await;
    mg.advance(29_999);
    mg.quiet().await;
    assert_eq!(sink.attempts("m"), 1);
    assert_eq!(mg.metric("machinegun_sink_misconfigured", "name=\"s\""), 1);
    mg.advance(60_001);
    until(|| sink.of("m") == texts(1..=1)).await;
    until(|| mg.metric("machinegun_sink_misconfigured", "name=\"s\"") == 0).await;
}

async fn a_sink_that_panics_is_tried_again(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    sink.panic_once();
    mg.machine("m", done().event("e1")).await;
    until(|| mg.metric("machinegun_sink_retries_total", "s") == 1).await;
    mg.advance(150);
    until(|| sink.of("m") == texts(1..=1)).await;
    assert_eq!(mg.call("m", "x").await, ok("x"));
}

async fn a_sink_that_hangs_is_given_up_and_tried_again(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    let mut gate = sink.hold("m");
    // One event alone would be handed over at once: such a sink says that it ends by itself.
    mg.machine("m", done().event("e1").event("e2")).await;
    gate.reached().await;
    mg.advance(59_999);
    mg.quiet().await;
    assert_eq!((sink.attempts("m"), mg.metric("machinegun_sink_retries_total", "s")), (1, 0));
    mg.advance(1);
    until(|| mg.metric("machinegun_sink_failures_total", "reason=\"unavailable\"") == 1).await;
    mg.advance(150);
    until(|| sink.of("m") == texts(1..=2)).await;
    assert_eq!(sink.offered("m"), [2, 1, 1]);
}

async fn a_crash_before_the_acknowledgement_sends_again_from_the_record(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    let mut gate = sink.hold("m");
    mg.machine("m", done().event("e1")).await;
    gate.reached().await;
    add(&mg, "m", 2).await;
    let mg = mg.crash().await;
    // Nobody asks for the machine: its due brings it back.
    mg.advance(CLEAR as u64);
    until(|| sink.of("m") == texts(1..=2)).await;
    // Acknowledged, but not noted.
    add(&mg, "m", 3).await;
    until(|| sink.of("m") == texts(1..=3)).await;
    let mg = mg.crash().await;
    add(&mg, "m", 4).await;
    until(|| sink.of("m").ends_with(&texts(3..=4))).await;
}

async fn the_next_commit_notes_what_was_acknowledged(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    mg.machine("m", done().event("e1")).await;
    until(|| mg.metric("machinegun_sink_pending", "name=\"s\"") == 0 && sink.accepted() == 1).await;
    assert!(!noted(&mg, "m").await);
    mg.change("m", reply("").aux("new")).await;
    assert!(noted(&mg, "m").await);
    mg.advance(10 * CLEAR as u64);
    mg.quiet().await;
    assert_eq!((mg.storage.commits().len(), sink.of("m")), (2, texts(1..=1)));
}

async fn a_commit_of_its_own_notes_what_was_acknowledged_after_a_while(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    mg.machine("m", done().event("e1")).await;
    until(|| mg.metric("mg_events_sink_produced_total", "name=\"s\"") == 1).await;
    mg.advance(CLEAR as u64 - 1);
    mg.quiet().await;
    assert_eq!(mg.storage.commits().len(), 1);
    mg.advance(1);
    until(|| mg.storage.commits().len() == 2).await;
    assert!(noted(&mg, "m").await);
    let mg = mg.crash().await;
    mg.advance(10 * CLEAR as u64);
    assert_eq!(mg.call("m", "x").await, ok("x"));
    assert_eq!(sink.attempts("m"), 1);
}

async fn what_was_noted_is_not_sent_again_after_a_stop(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).with(|_, namespace| namespace.unload_ms = 1_000).start().await;
    mg.machine("stopped", done().event("e1")).await;
    mg.machine("unloaded", done().event("e1")).await;
    until(|| mg.metric("mg_events_sink_produced_total", "name=\"s\"") == 2).await;
    mg.advance(500);
    mg.call("stopped", "x").await.unwrap();
    mg.advance(500);
    until(|| mg.metric("machinegun_workers", "ns") == 1).await;
    assert!(noted(&mg, "unloaded").await && !noted(&mg, "stopped").await);
    let mg = mg.restart(1).await;
    assert!(noted(&mg, "stopped").await);
    mg.advance(10 * CLEAR as u64);
    mg.settle().await;
    assert_eq!((sink.attempts("stopped"), sink.attempts("unloaded")), (1, 1));
}

async fn a_machine_started_anew_while_the_sink_is_down_sends_the_old_events_then_its_own_each_once(mg: Mg) {
    let sink = Recorder::new();
    let mut mg = mg.lifecycle("s", &sink).start().await;
    for crash in [false, true] {
        let machine = if crash { "crashed" } else { "m" };
        sink.go_down();
        mg.machine(machine, done().event("old 1").event("old 2")).await;
        mg.ask(machine, Impact::Remove).await.unwrap();
        mg.machine(machine, done().event("new 1")).await;
        mg.change(machine, reply("").event("new 2")).await;
        mg.settle().await;
        if crash {
            mg = mg.crash().await;
        }
        sink.come_up();
        let expected = ["created", "1 old 1", "2 old 2", "removed", "created", "1 new 1", "2 new 2"];
        mg.until_later(|| sink.of(machine).len() >= expected.len()).await;
        mg.advance(2 * CLEAR as u64);
        mg.settle().await;
        assert_eq!(sink.of(machine), expected);
        assert_eq!(mg.events(machine).await, [(1, "new 1".to_owned()), (2, "new 2".to_owned())]);
        // Once the sink has them, the old ones are deleted.
        let deletions = mg.storage.deleted.lock().unwrap().len();
        assert_eq!((deletions, mg.stored(machine).await.debts), (1, Vec::new()));
    }
}

async fn the_events_of_a_removed_machine_stay_until_the_sink_has_them(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    let mut gate = sink.hold("m");
    mg.machine("m", done().event("e1")).await;
    add(&mg, "m", 2).await;
    gate.reached().await;
    mg.ask("m", Impact::Remove).await.unwrap();
    mg.advance(5 * CLEAR as u64);
    mg.settle().await;
    assert!(mg.storage.deleted.lock().unwrap().is_empty());
    gate.open();
    mg.until_later(|| mg.storage.deleted.lock().unwrap().len() == 1).await;
    mg.settle().await;
    assert_eq!(sink.of("m"), texts(1..=2));
    let tombstone = mg.stored("m").await;
    assert!(matches!(tombstone.status, Status::Removed { .. }));
    assert!(tombstone.debts.is_empty() && tombstone.unsent.is_empty());
}

async fn events_go_only_once_the_store_knows_of_the_acknowledgement(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    mg.machine("m", done().event("e1")).await;
    let mut gate = sink.hold("m");
    add(&mg, "m", 2).await;
    gate.reached().await;
    mg.ask("m", Impact::Remove).await.unwrap();
    // The crash comes when the sink has the events, and before anything more can be written.
    let noting = mg.storage.hold();
    gate.open();
    until(|| sink.of("m") == texts(1..=2)).await;
    mg.advance(CLEAR as u64);
    mg.settle_but_one().await;
    assert!(mg.storage.deleted.lock().unwrap().is_empty());
    drop(noting);
    let mg = mg.crash().await;
    mg.advance(CLEAR as u64);
    until(|| mg.storage.deleted.lock().unwrap().len() == 1).await;
    mg.settle().await;
    let tombstone = mg.stored("m").await;
    assert!(tombstone.debts.is_empty() && tombstone.unsent.is_empty());
}

async fn a_tombstone_that_pays_tells_of_no_new_life(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.lifecycle("s", &sink).start().await;
    mg.machine("m", done()).await;
    mg.ask("m", Impact::Remove).await.unwrap();
    until(|| sink.of("m").len() == 2).await;
    for _ in 0..4 {
        mg.advance(CLEAR as u64);
        mg.settle().await;
    }
    assert_eq!(sink.of("m"), ["created", "removed"]);
    assert!(noted(&mg, "m").await);
}

async fn a_stop_gives_up_deliveries_and_the_next_run_sends_them(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    let mut gate = sink.hold("held");
    mg.machine("held", done().event("e1")).await;
    gate.reached().await;
    sink.go_down();
    mg.machine("failing", done().event("e1")).await;
    until(|| mg.metric("machinegun_sink_retries_total", "s") == 1).await;
    // It does not wait long for sinks that don't answer, and not at all for a next attempt.
    let over = mg.clock.now() + 2_000;
    tokio::join!(mg.engine.stop(), mg.until_later(|| mg.metric("machinegun_workers", "ns") == 0));
    assert!(mg.clock.now() <= over + 100);
    let mg = mg.restart(1).await;
    sink.come_up();
    mg.advance(CLEAR as u64);
    until(|| sink.of("held") == texts(1..=1) && sink.of("failing") == texts(1..=1)).await;
}

async fn what_is_under_way_at_a_stop_is_noted_and_not_sent_again(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    let mut gates = [sink.hold("one"), sink.hold("two")];
    mg.machine("one", done().event("e1")).await;
    mg.machine("two", done().event("e1").event("e2")).await;
    for gate in &mut gates {
        gate.reached().await;
    }
    let mut stop = Box::pin(mg.engine.stop());
    assert!((&mut stop).now_or_never().is_none());
    mg.quiet().await;
    assert!((&mut stop).now_or_never().is_none());
    gates.into_iter().for_each(crate::scripted::Gate::open);
    stop.await;
    assert!(noted(&mg, "one").await && noted(&mg, "two").await);
    let mg = mg.restart(1).await;
    mg.advance(10 * CLEAR as u64);
    mg.settle().await;
    assert_eq!((sink.of("one"), sink.of("two")), (texts(1..=1), texts(1..=2)));
}

async fn large_debts_are_sent_in_bounded_batches(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    sink.go_down();
    mg.machine("m", done()).await;
    for batch in 0..3 {
        let answer = (1..=400).fold(reply(""), |answer, n| answer.event(&format!("e{}", batch * 400 + n)));
        mg.change("m", answer).await;
    }
    // From the store, and from memory.
    let mg = mg.crash().await;
    sink.come_up();
    mg.advance(CLEAR as u64);
    until(|| sink.accepted() == 1_200).await;
    assert_eq!((sink.of("m"), sink.sizes()), (texts(1..=1_200), vec![500, 500, 200]));
    until(|| mg.metric("machinegun_sink_pending", "name=\"s\"") == 0).await;
}

async fn a_sink_that_is_down_is_asked_with_one_event_however_many_are_owed(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    sink.go_down();
    mg.machine("m", (1..=500).fold(done(), |answer, n| answer.event(&format!("e{n}")))).await;
    mg.until_later(|| sink.attempts("m") == 6).await;
    assert_eq!(sink.offered("m"), [500, 1, 1, 1, 1, 1]);
    sink.come_up();
    mg.until_later(|| sink.accepted() == 500).await;
    assert_eq!(sink.offered("m")[6..], [1, 499]);
    assert_eq!(sink.of("m"), texts(1..=500));
}

async fn a_sink_that_takes_a_part_gets_the_rest_and_nothing_twice(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.lifecycle("s", &sink).start().await;
    sink.take_at_most(2);
    let answer = (1..=5).fold(done(), |answer, n| answer.event(&format!("e{n}")));
    mg.machine("m", answer).await;
    until(|| sink.accepted() == 6).await;
    // What failed after a part was taken begins where that ended.
    sink.refuse_once(unavailable());
    add(&mg, "m", 6).await;
    until(|| mg.metric("machinegun_sink_retries_total", "s") == 1).await;
    mg.until_later(|| sink.accepted() == 7).await;
    let all = std::iter::once("created".to_owned()).chain(texts(1..=6));
    assert_eq!((sink.of("m"), sink.sizes()), (all.collect::<Vec<_>>(), vec![1, 2, 2, 1, 1]));
    until(|| mg.metric("machinegun_sink_pending", "name=\"s\"") == 0).await;
}

async fn a_busy_machine_does_not_keep_its_sinks_waiting(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    mg.machine("m", done()).await;
    let mut calls = std::collections::VecDeque::new();
    // Never is the queue empty.
    for n in 1..=40 {
        mg.processor.then(reply("").event(&format!("e{n}")));
        calls.push_back(mg.ask("m", call("x")));
        if calls.len() > 8 {
            calls.pop_front().unwrap().await.unwrap();
        }
    }
    assert!(sink.accepted() > 10, "{}", sink.accepted());
    for call in calls {
        call.await.unwrap();
    }
    until(|| sink.of("m") == texts(1..=40)).await;
}

async fn a_delivery_outlives_a_conflict_and_nothing_is_left_owed(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    let mut gate = sink.hold("m");
    mg.machine("m", done().event("e1")).await;
    gate.reached().await;
    mg.storage.then(Fault::Intrude(Box::new(|record| record)));
    mg.processor.then(reply("").event("e2")).then(reply("").event("e2"));
    mg.call("m", "x").await.unwrap();
    gate.open();
    until(|| sink.of("m") == texts(1..=2)).await;
    // What memory knew is forgotten while a delivery is under way, and no step reads it again.
    let mut gate = sink.hold("m");
    add(&mg, "m", 3).await;
    gate.reached().await;
    mg.storage.then(Fault::Panic);
    mg.processor.then(reply("").event("never"));
    mg.call("m", "x").await.unwrap_err();
    gate.open();
    until(|| sink.of("m").len() >= 3).await;
    mg.until_noted("m").await;
    assert_eq!(sink.of("m").last().unwrap(), "3 e3");
}

async fn a_sink_that_is_configured_no_more_keeps_its_debts_and_costs_nothing(mg: Mg) {
    let (sink, other) = (Recorder::new(), Recorder::new());
    let mg = mg.sink("s", &sink).sink("other", &other).start().await;
    sink.go_down();
    mg.machine("m", done().event("e1")).await;
    until(|| other.of("m") == texts(1..=1)).await;
    let mg = mg.restart_with(1, |mg| mg.without_sinks().sink("other", &other)).await;
    mg.advance(CLEAR as u64);
    mg.settle().await;
    let commits = mg.storage.commits().len();
    for _ in 0..9 {
        mg.advance(60_000);
        mg.settle().await;
    }
    assert!(mg.storage.commits().len() <= commits + 1 && commits <= 1);
    assert!(mg.metric("machinegun_wakes_total", "created") <= 3);
    add(&mg, "m", 2).await;
    until(|| other.of("m") == texts(1..=2)).await;
    until(|| mg.metric("machinegun_sink_pending", "name=\"other\"") == 0).await;
    let mg = mg.restart_with(1, |mg| mg.sink("s", &sink)).await;
    sink.come_up();
    mg.call("m", "x").await.unwrap();
    // It was not subscribed when the second came.
    until(|| sink.of("m") == texts(1..=1)).await;
    assert_eq!(other.of("m"), texts(1..=2));
}

async fn events_that_cannot_be_read_now_are_sent_later(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).start().await;
    sink.refuse_once(unavailable());
    mg.machine("m", done().event("e1")).await;
    until(|| mg.metric("machinegun_sink_retries_total", "s") == 1).await;
    mg.storage.down.store(true, Ordering::SeqCst);
    mg.advance(150);
    until(|| mg.metric("machinegun_sink_retries_total", "s") == 2).await;
    assert_eq!(sink.attempts("m"), 1);
    mg.storage.down.store(false, Ordering::SeqCst);
    mg.advance(300);
    until(|| sink.of("m") == texts(1..=1)).await;
}
