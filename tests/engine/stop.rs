//! Stopping: what runs ends, what waits is refused, nothing is lost.

use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use machinegun::engine::EngineError;
use tokio::task::JoinHandle;

use crate::faulty::Fault;
use crate::on_every_storage;
use crate::scripted::{done, reply};
use crate::world::{Mg, World, call, ok, until};

on_every_storage!(
    running_steps_end_and_waiting_ones_are_refused,
    nothing_begins_after_a_stop,
    a_stop_waits_for_a_processor_that_hangs_until_its_caller_has_enough,
    a_stop_interrupts_the_retries_of_a_refused_commit,
    a_stop_interrupts_the_retries_of_an_unknown_commit_after_a_last_try,
    idle_machines_do_not_hold_up_a_stop,
    timers_that_come_due_during_a_stop_fire_in_the_next_run,
);

fn stop(mg: &World) -> JoinHandle<()> {
    let engine = mg.engine.clone();
    tokio::spawn(async move { engine.stop().await })
}

/// Waits until the stop has begun.
async fn stopping(mg: &World) {
    until(|| mg.ask("nobody", call("x")).now_or_never() == Some(Err(EngineError::Stopping))).await;
}

async fn running_steps_end_and_waiting_ones_are_refused(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    mg.processor.then(reply("done").event("kept"));
    let running = mg.ask("m", call("running"));
    gate.reached().await;
    let waiting: Vec<_> = (0..5).map(|_| mg.ask("m", call("waiting"))).collect();
    let stop = stop(&mg);
    stopping(&mg).await;
    assert!(!stop.is_finished());
    gate.open();
    assert_eq!(running.await, ok("done"));
    for waiting in waiting {
        assert_eq!(waiting.await, Err(EngineError::Stopping));
    }
    stop.await.unwrap();
    let mg = mg.restart(1).await;
    assert_eq!(mg.events("m").await, [(1, "kept".to_owned())]);
    assert_eq!(mg.processor.count(), 2);
}

async fn nothing_begins_after_a_stop(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    mg.engine.stop().await;
    assert_eq!(mg.call("m", "x").await, Err(EngineError::Stopping));
    assert_eq!(mg.notify("m", "x").await, Err(EngineError::Stopping));
    // Reads go on until the listener closes.
    assert_eq!(mg.events("m").await.len(), 3);
    mg.engine.stop().await;
}

async fn a_stop_waits_for_a_processor_that_hangs_until_its_caller_has_enough(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    let running = mg.ask("m", call("running"));
    gate.reached().await;
    let enough = mg.clock.now() + 5_000;
    let (clock, engine) = (mg.clock.clone(), mg.engine.clone());
    let stop = tokio::spawn(async move { clock.timeout_at(enough, engine.stop()).await });
    stopping(&mg).await;
    mg.advance(5_000);
    stop.await.unwrap().unwrap_err();
    drop(running);
    gate.open();
    mg.engine.stop().await;
}

async fn a_stop_interrupts_the_retries_of_a_refused_commit(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.storage.down.store(true, Ordering::SeqCst);
    mg.processor.then(reply("").event("never"));
    let asked = mg.ask("m", call("x"));
    until(|| mg.storage.commits().len() == 2).await;
    mg.engine.stop().await;
    assert!(matches!(asked.await, Err(EngineError::Storage(_))));
    mg.storage.down.store(false, Ordering::SeqCst);
    let mg = mg.restart(1).await;
    assert_eq!(mg.events("m").await, []);
}

async fn a_stop_interrupts_the_retries_of_an_unknown_commit_after_a_last_try(mg: Mg) {
    let mg = mg.start().await;
    for (machine, faults) in [("settled", 1), ("unknown", 2)] {
        mg.machine(machine, done()).await;
        for _ in 0..faults {
            mg.storage.then(Fault::Unknown { applied: true });
        }
        let before = mg.storage.commits().len();
        mg.processor.then(reply("done").event("kept"));
        let asked = mg.ask(machine, call("x"));
        until(|| mg.storage.commits().len() == before + 1).await;
        if machine == "settled" {
            mg.advance(10);
            assert_eq!(asked.await, ok("done"));
            continue;
        }
        mg.engine.stop().await;
        assert_eq!(asked.await, Err(EngineError::Killed));
    }
    let mg = mg.restart(1).await;
    assert_eq!(mg.events("unknown").await, [(1, "kept".to_owned())]);
    mg.storage.then(Fault::Unknown { applied: false });
    mg.processor.then(reply("done").event("kept too"));
    let asked = mg.ask("unknown", call("x"));
    until(|| mg.storage.commits().len() == 1).await;
    mg.engine.stop().await;
    assert_eq!(asked.await, ok("done"));
}

async fn idle_machines_do_not_hold_up_a_stop(mg: Mg) {
    let mg = mg.start().await;
    for n in 0..20 {
        mg.machine(&n.to_string(), done().timer(10)).await;
    }
    mg.engine.stop().await;
    assert_eq!(mg.metric("machinegun_workers", "ns"), 0);
    assert_eq!(mg.engine.cached_bytes(), 0);
}

async fn timers_that_come_due_during_a_stop_fire_in_the_next_run(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(1)).await;
    let mut gate = mg.processor.hold("m");
    let running = mg.ask("m", call("running"));
    gate.reached().await;
    mg.advance(1_000);
    until(|| mg.metric("machinegun_wakes_total", "\"created\"") == 1).await;
    let stop = stop(&mg);
    stopping(&mg).await;
    gate.open();
    running.await.unwrap();
    stop.await.unwrap();
    assert_eq!(mg.processor.count(), 2);
    let mg = mg.restart(1).await;
    mg.processor.question(3).await;
}
