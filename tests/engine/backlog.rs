//! `outbox.max_pending`: what sinks may owe acknowledgements for, and what happens past it.

use machinegun::engine::{Bound, EngineError};
use machinegun::machine::Impact;

use crate::faulty::Fault;
use crate::on_every_storage;
use crate::recorder::Recorder;
use crate::scripted::{done, reply};
use crate::world::{CLEAR, Mg, World, call, ok, until};

on_every_storage!(
    past_the_bound_steps_are_refused_and_all_resumes_after_acknowledgements,
    timers_and_notifications_wait_behind_the_bound_without_failing_or_spinning,
    what_is_pending_is_counted_right_over_unloading_panics_and_conflicts,
    a_worker_with_deliveries_under_way_is_neither_unloaded_nor_shed,
    workers_that_cannot_let_go_do_not_chase_each_other,
);

fn pending(mg: &World) -> i64 {
    mg.metric("machinegun_sink_pending", "name=\"s\"")
}

async fn past_the_bound_steps_are_refused_and_all_resumes_after_acknowledgements(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).with(|_, namespace| namespace.most_unsent = 3).start().await;
    sink.go_down();
    mg.machine("a", done().event("1").event("2")).await;
    mg.machine("b", done()).await;
    assert_eq!(mg.call("b", "x").await, ok("x"));
    mg.change("a", reply("").event("3")).await;
    let refused = || Err(EngineError::Overload(Bound::Outbox));
    assert_eq!(mg.call("b", "x").await, refused());
    assert_eq!(mg.init("c").await, refused());
    assert!(refused().unwrap_err().to_string().contains("outbox.max_pending"));
    assert_eq!(mg.metric("machinegun_refusals_total", "outbox.max_pending"), 2);
    assert_eq!(mg.events("a").await.len(), 3);
    mg.notify("b", "x").await.unwrap();
    sink.come_up();
    mg.until_later(|| pending(&mg) == 0).await;
    assert_eq!(mg.call("b", "x").await, ok("x"));
    mg.machine("c", done()).await;
}

async fn timers_and_notifications_wait_behind_the_bound_without_failing_or_spinning(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).with(|_, namespace| namespace.most_unsent = 1).start().await;
    mg.machine("timer", done().timer(1)).await;
    mg.machine("notified", done()).await;
    sink.go_down();
    mg.machine("behind", done().event("1")).await;
    mg.notify("notified", "hello").await.unwrap();
    mg.settle().await;
    for _ in 0..30 {
        mg.advance(1_000);
        mg.settle().await;
    }
    assert_eq!(mg.processor.count(), 3);
    let woken = mg.metric("machinegun_wakes_total", "created");
    assert!(woken < 100, "{woken} wake-ups of two machines in thirty seconds");
    sink.come_up();
    mg.until_later(|| pending(&mg) == 0).await;
    mg.until_later(|| mg.processor.count() == 5).await;
    let mut asks = mg.processor.asks().split_off(3);
    asks.sort();
    assert_eq!(asks, ["notification hello", "timeout"]);
    mg.settle().await;
    assert_eq!(mg.stored("timer").await.timer, None);
}

async fn what_is_pending_is_counted_right_over_unloading_panics_and_conflicts(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).with(|_, namespace| namespace.unload_ms = 1_000).start().await;
    sink.go_down();
    mg.machine("m", done().event("1").event("2")).await;
    assert_eq!(pending(&mg), 2);
    mg.storage.then(Fault::Panic);
    mg.processor.then(reply("").event("never"));
    mg.call("m", "x").await.unwrap_err();
    assert_eq!(pending(&mg), 2);
    mg.storage.then(Fault::Intrude(Box::new(|record| record)));
    mg.processor.then(reply("").event("3")).then(reply("").event("3"));
    mg.call("m", "x").await.unwrap();
    assert_eq!(pending(&mg), 3);
    mg.ask("m", Impact::Remove).await.unwrap();
    assert_eq!(pending(&mg), 3);
    mg.machine("m", done().event("1")).await;
    assert_eq!(pending(&mg), 4);
    let mg = mg.restart(1).await;
    assert_eq!(pending(&mg), 0);
    mg.call("m", "x").await.unwrap();
    assert_eq!(pending(&mg), 4);
    sink.come_up();
    mg.until_later(|| pending(&mg) == 0).await;
    mg.until_later(|| mg.metric("machinegun_workers", "ns") == 0).await;
    mg.call("m", "x").await.unwrap();
    assert_eq!(pending(&mg), 0);
    mg.advance(2 * CLEAR as u64);
    mg.settle().await;
    assert_eq!(sink.of("m"), ["1 1", "2 2", "3 3", "1 1"]);
}

async fn a_worker_with_deliveries_under_way_is_neither_unloaded_nor_shed(mg: Mg) {
    let sink = Recorder::new();
    let small = |mg: Mg| {
        mg.with(|options, namespace| {
            namespace.unload_ms = 1_000;
            options.cache = 5_000;
        })
    };
    let mg = small(mg.sink("s", &sink)).start().await;
    let mut gate = sink.hold("m");
    mg.machine("m", done().event("1")).await;
    gate.reached().await;
    mg.advance(5_000);
    mg.quiet().await;
    for n in 0..6 {
        mg.machine(&format!("other {n}"), done()).await;
    }
    mg.quiet().await;
    let reads = mg.storage.reads.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(mg.call("m", "x").await, ok("x"));
    assert_eq!(mg.storage.reads.load(std::sync::atomic::Ordering::SeqCst), reads, "it is loaded still");
    gate.open();
    mg.until_later(|| mg.metric("machinegun_workers", "ns") == 0).await;
    assert_eq!((sink.of("m"), sink.attempts("m")), (vec!["1 1".to_owned()], 1));
    assert!(mg.stored("m").await.unsent.is_empty());
}

async fn workers_that_cannot_let_go_do_not_chase_each_other(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).with(|options, _| options.cache = 5_000).start().await;
    let mut gates = Vec::new();
    for n in 0..8 {
        gates.push(sink.hold(&n.to_string()));
        mg.machine(&n.to_string(), done().event("1")).await;
    }
    mg.quiet().await;
    // If they did, this would change from turn to turn.
    let held: Vec<_> = {
        let mut held = Vec::new();
        for _ in 0..32 {
            tokio::task::yield_now().await;
            held.push(mg.engine.cached_bytes());
        }
        held
    };
    assert!(held.windows(2).all(|pair| pair[0] == pair[1]), "{held:?}");
    for gate in gates {
        gate.open();
    }
    until(|| sink.accepted() == 8).await;
    assert_eq!(mg.ask("0", call("x")).await, ok("x"));
}
