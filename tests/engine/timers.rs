//! Timers: when they fire, when they don't, and how few wake-ups that takes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use machinegun::engine::SchedulerOptions;
use machinegun::processor::Ask;

use crate::scripted::{done, reply};
use crate::world::{BEGIN, Mg, World, call, ok, range, until};
use crate::{on_every_shared_storage, on_every_storage};

on_every_storage!(
    a_timer_fires_at_its_due_to_the_millisecond_and_never_early,
    a_timer_set_to_a_time_fires_then,
    a_timer_is_hidden_during_its_own_signal_and_gone_after_it,
    a_signal_is_given_the_range_that_its_timer_was_set_with,
    a_moved_timer_fires_at_its_new_time_alone,
    a_timer_that_was_unset_never_fires,
    a_call_leaves_the_timer_alone,
    a_timer_of_no_seconds_fires_at_once_without_a_scan,
    a_far_timer_is_found_by_a_scan,
    a_timer_of_an_earlier_run_fires_after_the_restart,
    a_timer_that_passed_while_the_service_was_down_fires_at_the_start,
    a_timer_fires_though_its_machine_was_unloaded,
    disabled_timers_never_fire_and_do_not_spin,
    capacity_bounds_how_many_machines_are_woken_at_once,
    a_busy_machine_takes_one_place_among_those_woken,
    a_scan_that_fails_is_tried_again_in_a_moment,
    timers_come_due_in_order_however_many_there_are,
    a_timers_own_timeout_bounds_its_signal_only_where_it_is_honoured,
    a_timer_that_takes_longer_than_its_own_timeout_is_tried_again,
    a_scan_pauses_after_as_many_dues_as_its_limit_and_goes_on_behind_them,
);

on_every_shared_storage!(shards_that_are_taken_while_a_scan_pauses_are_looked_at_at_once);

pub fn timeouts(mg: &World) -> usize {
    mg.processor.questions().iter().filter(|question| matches!(question.ask, Ask::Timeout)).count()
}

async fn a_timer_fires_at_its_due_to_the_millisecond_and_never_early(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(5)).await;
    mg.advance(4_999);
    mg.settle().await;
    assert_eq!(mg.processor.count(), 1);
    mg.processor.then(done().event("fired"));
    mg.advance(1);
    mg.processor.question(2).await;
    mg.settle().await;
    assert_eq!(mg.events("m").await, [(1, "fired".to_owned())]);
    assert_eq!(mg.get("m").await.unwrap().record.timer, None);
    mg.advance(1_000_000);
    mg.settle().await;
    assert_eq!(mg.processor.count(), 2);
}

async fn a_timer_set_to_a_time_fires_then(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer_at(BEGIN + 750)).await;
    mg.advance(749);
    mg.settle().await;
    assert_eq!(timeouts(&mg), 0);
    mg.advance(1);
    mg.processor.question(2).await;
}

async fn a_timer_is_hidden_during_its_own_signal_and_gone_after_it(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(1)).await;
    let mut gate = mg.processor.hold("m");
    mg.advance(1_000);
    gate.reached().await;
    assert_eq!(mg.processor.questions()[1].machine.timer, None);
    // To everyone else the step has not happened yet.
    assert!(mg.get("m").await.unwrap().record.timer.is_some());
    gate.open();
    mg.call("m", "x").await.unwrap();
    assert_eq!(mg.processor.questions()[2].machine.timer, None);
}

async fn a_signal_is_given_the_range_that_its_timer_was_set_with(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    mg.change("m", reply("").timer_with(1, range(1, 2))).await;
    mg.advance(1_000);
    let machine = mg.processor.question(3).await.machine;
    assert_eq!(machine.history.decoded().map(|event| event.unwrap().id).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(machine.history_range, range(1, 2));
}

async fn a_moved_timer_fires_at_its_new_time_alone(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(5)).await;
    mg.change("m", reply("").timer(8)).await;
    mg.advance(7_999);
    mg.settle().await;
    assert_eq!(timeouts(&mg), 0);
    mg.advance(1);
    mg.processor.question(3).await;
    mg.settle().await;
    assert_eq!(timeouts(&mg), 1);
    mg.change("m", reply("").timer(50)).await;
    mg.change("m", reply("").timer(2)).await;
    mg.advance(2_000);
    mg.processor.question(6).await;
    mg.advance(60_000);
    mg.settle().await;
    assert_eq!(timeouts(&mg), 2);
}

async fn a_timer_that_was_unset_never_fires(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(5)).await;
    mg.change("m", reply("").unset()).await;
    mg.advance(1_000_000);
    mg.settle().await;
    assert_eq!(timeouts(&mg), 0);
}

async fn a_call_leaves_the_timer_alone(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(5)).await;
    mg.advance(3_000);
    mg.change("m", reply("").event("a")).await;
    mg.advance(2_000);
    mg.processor.question(3).await;
    mg.settle().await;
    assert_eq!(timeouts(&mg), 1);
}

async fn a_timer_of_no_seconds_fires_at_once_without_a_scan(mg: Mg) {
    let mg = mg.start().await;
    let scans = mg.storage.scans.load(Ordering::SeqCst);
    mg.machine("m", done().timer(0)).await;
    mg.processor.question(2).await;
    mg.settle().await;
    mg.change("m", reply("").timer(-7)).await;
    mg.processor.question(4).await;
    assert_eq!(mg.storage.scans.load(Ordering::SeqCst), scans);
}

async fn a_far_timer_is_found_by_a_scan(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(1_000)).await;
    for _ in 0..9 {
        let scans = mg.storage.scans.load(Ordering::SeqCst);
        mg.advance(100_000);
        until(|| mg.storage.scans.load(Ordering::SeqCst) > scans).await;
    }
    mg.settle().await;
    mg.advance(99_999);
    mg.settle().await;
    assert_eq!(timeouts(&mg), 0);
    mg.advance(1);
    mg.processor.question(2).await;
    mg.settle().await;
    assert_eq!(timeouts(&mg), 1);
}

async fn a_timer_of_an_earlier_run_fires_after_the_restart(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(5)).await;
    let mg = mg.restart(4_000).await;
    mg.advance(999);
    mg.settle().await;
    assert_eq!(timeouts(&mg), 0);
    mg.advance(1);
    mg.processor.question(2).await;
}

async fn a_timer_that_passed_while_the_service_was_down_fires_at_the_start(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(5)).await;
    let mg = mg.restart(3_600_000).await;
    mg.processor.question(2).await;
    mg.settle().await;
    assert_eq!(timeouts(&mg), 1);
}

async fn a_timer_fires_though_its_machine_was_unloaded(mg: Mg) {
    let mg = mg.with(|_, namespace| namespace.unload_ms = 1_000).start().await;
    mg.machine("m", done().timer(5)).await;
    mg.advance(1_000);
    until(|| mg.metric("machinegun_workers", "ns") == 0).await;
    mg.advance(4_000);
    mg.processor.question(2).await;
}

async fn disabled_timers_never_fire_and_do_not_spin(mg: Mg) {
    let mg = mg.timers(None).start().await;
    mg.machine("m", done().timer(1)).await;
    mg.machine("now", done().timer(0)).await;
    mg.advance(50_000);
    mg.settle().await;
    assert_eq!(mg.processor.count(), 2);
    assert_eq!(mg.metric("machinegun_wakes_total", "created"), 0);
    for _ in 0..10 {
        mg.advance(60_000);
        mg.settle().await;
    }
    assert_eq!(mg.processor.count(), 2);
    // A scan can't know what is due, so each one looks at both machines once.
    assert!(mg.metric("machinegun_wakes_total", "created") <= 20);
    // With timers again they fire at the start.
    let enabled = SchedulerOptions { capacity: 100, ..SchedulerOptions::default() };
    let mg = mg.restart_with(1, |mg| mg.timers(Some(enabled))).await;
    mg.processor.question(4).await;
}

async fn capacity_bounds_how_many_machines_are_woken_at_once(mg: Mg) {
    let mg = mg.capacity(2).start().await;
    let mut gates = Vec::new();
    for machine in ["a", "b", "c"] {
        mg.machine(machine, done().timer(1)).await;
        gates.push(mg.processor.hold(machine));
    }
    mg.advance(1_000);
    mg.processor.question(5).await;
    let [a, b, mut c] = <[_; 3]>::try_from(gates).ok().unwrap();
    // Two run; a call on the third shows that its worker is idle.
    drop(b);
    mg.quiet().await;
    assert_eq!(timeouts(&mg), 2);
    a.open();
    c.reached().await;
    assert_eq!(timeouts(&mg), 3);
}

async fn a_busy_machine_takes_one_place_among_those_woken(mg: Mg) {
    let mg = mg.capacity(2).start().await;
    mg.machine("busy", done()).await;
    mg.machine("other", done().timer(1)).await;
    let mut gate = mg.processor.hold("busy");
    let asked = mg.ask("busy", call("x"));
    gate.reached().await;
    for n in 0..10 {
        mg.notify("busy", &n.to_string()).await.unwrap();
        // Each would be a wake-up of its own.
        until(|| mg.metric("machinegun_wakes_total", "created") >= 1).await;
        tokio::task::yield_now().await;
    }
    mg.advance(1_000);
    mg.processor.question(4).await;
    assert_eq!(timeouts(&mg), 1);
    gate.open();
    assert_eq!(asked.await, ok("x"));
    mg.processor.question(14).await;
    let expected: Vec<_> = (0..10).map(|n| format!("notification {n}")).collect();
    assert_eq!(mg.processor.asks()[4..], expected);
}

async fn a_scan_that_fails_is_tried_again_in_a_moment(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(1_000)).await;
    let mg = mg.restart(939_000).await;
    mg.storage.down.store(true, Ordering::SeqCst);
    let scans = mg.storage.scans.load(Ordering::SeqCst);
    mg.advance(60_000);
    until(|| mg.storage.scans.load(Ordering::SeqCst) > scans).await;
    mg.storage.down.store(false, Ordering::SeqCst);
    mg.advance(1_000);
    mg.processor.question(2).await;
}

async fn timers_come_due_in_order_however_many_there_are(mg: Mg) {
    let mg = mg.capacity(1).start().await;
    for n in 0..50 {
        // Set in no order at all.
        mg.machine(&format!("m{n}"), done().timer_at(BEGIN + 1_000 + n * 37 % 50)).await;
    }
    mg.advance(10_000);
    mg.processor.question(100).await;
    let fired = mg.processor.questions()[50..].to_vec();
    let expected: Vec<_> = (0..50).map(|n: i64| format!("m{}", (0..50).find(|m| m * 37 % 50 == n).unwrap())).collect();
    let ids: Vec<_> = fired.iter().map(|question| String::from_utf8_lossy(&question.machine.id).into_owned()).collect();
    assert_eq!(ids, expected);
}

async fn a_timers_own_timeout_bounds_its_signal_only_where_it_is_honoured(mg: Mg) {
    let mut mg = mg.start().await;
    let mut asked = 0;
    for (honoured, own, expected) in
        [(false, 7, 60_000), (true, 7, 7_000), (true, 90, 90_000), (true, 0, 60_000), (true, -5, 60_000)]
    {
        mg = mg.restart_with(1, |mg| mg.with(|_, namespace| namespace.honour_timer_timeout = honoured)).await;
        mg.machine(&format!("m{asked}"), done().timer(1).allowing(own)).await;
        mg.advance(1_000);
        asked += 2;
        let question = mg.processor.question(asked).await;
        assert!(matches!(question.ask, Ask::Timeout));
        assert_eq!(question.deadline - mg.clock.now(), expected, "{honoured} {own}");
        mg.settle().await;
    }
}

async fn a_timer_that_takes_longer_than_its_own_timeout_is_tried_again(mg: Mg) {
    let mg = mg.with(|_, namespace| namespace.honour_timer_timeout = true).start().await;
    mg.machine("m", done().timer(1).allowing(7)).await;
    let mut gate = mg.processor.hold("m");
    mg.advance(1_000);
    gate.reached().await;
    // Its processor is given up three seconds later.
    mg.advance(9_999);
    mg.quiet().await;
    assert_eq!(mg.metric("mg_timer_lifecycle_changes_total", "rescheduled\""), 0);
    mg.advance(1);
    mg.settle().await;
    assert_eq!(mg.metric("mg_timer_lifecycle_changes_total", "rescheduled\""), 1);
    // The timeout stays the timer's own.
    mg.advance(1_000);
    assert_eq!(mg.processor.question(3).await.deadline, mg.clock.now() + 7_000);
    drop(gate);
}

async fn a_scan_pauses_after_as_many_dues_as_its_limit_and_goes_on_behind_them(mg: Mg) {
    let mg = mg.start().await;
    for n in 0..7 {
        mg.machine(&format!("m{n}"), done().timer_at(BEGIN + 1_000_000 + n)).await;
    }
    let paused =
        SchedulerOptions { scan_limit: 3, min_scan_delay: Duration::from_secs(2), ..SchedulerOptions::default() };
    let mg = mg.restart_with(3_600_000, |mg| mg.timers(Some(paused)).notifications(None)).await;
    for found in [3, 6] {
        mg.processor.question(7 + found).await;
        mg.settle().await;
        mg.advance(1_999);
        mg.quiet().await;
        assert_eq!(timeouts(&mg), found, "the scan pauses");
        mg.advance(1);
    }
    mg.processor.question(14).await;
    mg.settle().await;
    assert_eq!(timeouts(&mg), 7);
    // Where there are shards, those that are taken at the start interrupt the first pause.
    assert!((3..=4).contains(&mg.storage.scans.load(Ordering::SeqCst)));
}

async fn shards_that_are_taken_while_a_scan_pauses_are_looked_at_at_once(mg: Mg) {
    let before = mg.instance().await;
    before.take().await;
    for n in 0..9 {
        before.machine(&format!("m{n}"), done().timer_at(BEGIN + 1_000 + n)).await;
    }
    before.lose();
    let hour = Duration::from_secs(3_600);
    let paused = SchedulerOptions { scan_limit: 2, min_scan_delay: hour, ..SchedulerOptions::default() };
    let mg = mg.timers(Some(paused)).notifications(None).later(3_600_000).instance().await;
    mg.take().await;
    mg.processor.question(2).await;
    mg.settle().await;
    // Taking many shards may have interrupted the first pause once. No time passes from here on.
    let found = timeouts(&mg);
    assert!(found <= 4, "{found} are found though the scan pauses");
    mg.take().await;
    until(|| timeouts(&mg) > found).await;
}
