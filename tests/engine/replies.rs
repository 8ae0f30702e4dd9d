//! Sinks that a reply waits for: answered once they have the step's events, or with why not; the step stands anyway.

use futures_util::FutureExt;
use machinegun::engine::EngineError;
use machinegun::machine::{Impact, Refusal};
use machinegun::wire::Value;

use crate::on_every_storage;
use crate::recorder::{Recorder, unavailable};
use crate::scripted::{done, reply, unexpected};
use crate::world::{Mg, PATIENCE, World, call, ok, until};

on_every_storage!(
    a_reply_waits_for_the_acknowledgement_and_reads_do_not,
    a_first_failed_attempt_ends_the_wait_and_the_delivery_goes_on,
    another_sink_that_fails_ends_no_wait,
    a_deadline_ends_the_wait,
    a_start_waits_too,
    who_waits_has_a_delayed_attempt_made_at_once,
    a_step_that_owes_nothing_waits_for_nothing,
    a_step_that_fails_its_machine_waits_for_the_events_it_brings,
    a_refusal_waits_for_nothing,
    a_stop_lets_a_step_have_its_acknowledgement,
);

async fn a_reply_waits_for_the_acknowledgement_and_reads_do_not(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.awaited("s", &sink).start().await;
    mg.machine("m", done()).await;
    let mut gate = sink.hold("m");
    mg.processor.then(reply("done").event("a"));
    let mut asked = mg.ask("m", call("x"));
    gate.reached().await;
    mg.quiet().await;
    assert_eq!((&mut asked).now_or_never(), None);
    assert_eq!(mg.events("m").await, [(1, "a".to_owned())]);
    gate.open();
    assert_eq!(asked.await, ok("done"));
    assert_eq!(sink.of("m"), ["1 a"]);
}

async fn a_first_failed_attempt_ends_the_wait_and_the_delivery_goes_on(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.awaited("s", &sink).start().await;
    mg.machine("m", done()).await;
    sink.refuse_once(unavailable());
    mg.processor.then(reply("done").event("a"));
    assert_eq!(mg.call("m", "x").await, Err(EngineError::Sink(unavailable())));
    assert_eq!(mg.events("m").await, [(1, "a".to_owned())]);
    mg.advance(150);
    until(|| sink.of("m") == ["1 a"]).await;
    assert_eq!(mg.call("m", "x").await, ok("x"));
}

async fn another_sink_that_fails_ends_no_wait(mg: Mg) {
    let (sink, other) = (Recorder::new(), Recorder::new());
    let mg = mg.sink("other", &other).awaited("s", &sink).start().await;
    mg.machine("m", done()).await;
    other.go_down();
    let mut gate = sink.hold("m");
    mg.processor.then(reply("done").event("a"));
    let asked = mg.ask("m", call("x"));
    gate.reached().await;
    until(|| other.attempts("m") == 1).await;
    mg.quiet().await;
    gate.open();
    assert_eq!(asked.await, ok("done"));
}

async fn a_deadline_ends_the_wait(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.awaited("s", &sink).start().await;
    mg.machine("m", done()).await;
    let mut gate = sink.hold("m");
    mg.processor.then(reply("done").event("a"));
    let asked = mg.ask("m", call("x"));
    gate.reached().await;
    mg.advance(PATIENCE as u64);
    assert_eq!(asked.await, Err(EngineError::TimedOut));
    assert_eq!(mg.events("m").await, [(1, "a".to_owned())]);
    gate.open();
    until(|| sink.of("m") == ["1 a"]).await;
    assert_eq!(mg.call("m", "x").await, ok("x"));
}

async fn a_start_waits_too(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.awaited("s", &sink).start().await;
    sink.refuse_once(unavailable());
    mg.processor.then(done().event("a"));
    assert_eq!(mg.init("refused").await, Err(EngineError::Sink(unavailable())));
    assert_eq!(mg.events("refused").await, [(1, "a".to_owned())]);
    let mut gate = sink.hold("m");
    mg.processor.then(done().event("a"));
    let mut asked = mg.ask("m", Impact::Init { args: Value::str("") });
    gate.reached().await;
    mg.quiet().await;
    assert_eq!((&mut asked).now_or_never(), None);
    gate.open();
    asked.await.unwrap();
}

async fn who_waits_has_a_delayed_attempt_made_at_once(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.awaited("s", &sink).start().await;
    mg.machine("m", done()).await;
    sink.go_down();
    for n in 1..=6 {
        mg.processor.then(reply("").event("e"));
        // Time stands still: each caller is told of an attempt of its own.
        assert_eq!(mg.call("m", "x").await, Err(EngineError::Sink(unavailable())));
        assert_eq!(sink.attempts("m"), n);
    }
    sink.come_up();
    mg.processor.then(reply("done").event("e"));
    assert_eq!(mg.call("m", "x").await, ok("done"));
    assert_eq!(sink.of("m").len(), 7);
}

async fn a_step_that_owes_nothing_waits_for_nothing(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.awaited("s", &sink).start().await;
    mg.machine("m", done()).await;
    sink.go_down();
    assert_eq!(mg.call("m", "x").await, ok("x"));
    mg.change("m", reply("").aux("state")).await;
    assert_eq!(sink.attempts("m"), 0);
}

/// A tag that another machine has: the events stand, and the machine is failed.
async fn a_step_that_fails_its_machine_waits_for_the_events_it_brings(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.awaited("s", &sink).start().await;
    mg.machine("holder", done().tag("t")).await;
    mg.machine("m", done()).await;
    let mut gate = sink.hold("m");
    mg.processor.then(reply("done").event("a").tag("t"));
    let mut asked = mg.ask("m", call("x"));
    gate.reached().await;
    mg.quiet().await;
    assert_eq!((&mut asked).now_or_never(), None);
    gate.open();
    assert_eq!(asked.await, Err(Refusal::MachineFailed.into()));
    assert_eq!(sink.of("m"), ["1 a"]);
    let mut gate = sink.hold("n");
    mg.processor.then(done().event("a").tag("t"));
    let mut asked = mg.ask("n", Impact::Init { args: Value::str("") });
    gate.reached().await;
    mg.quiet().await;
    assert_eq!((&mut asked).now_or_never(), None);
    gate.open();
    assert_eq!(asked.await, Err(Refusal::MachineFailed.into()));
}

async fn a_refusal_waits_for_nothing(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.awaited("s", &sink).start().await;
    mg.machine("m", done()).await;
    let mut gate = sink.hold("m");
    mg.processor.then(reply("done").event("a"));
    let asked = mg.ask_by("m", call("x"), mg.clock.now() + 1_000);
    gate.reached().await;
    mg.advance(1_000);
    assert_eq!(asked.await, Err(EngineError::TimedOut));
    // It brought no events: what is owed from before is none of its business.
    mg.processor.then(unexpected());
    assert_eq!(mg.call("m", "x").await, Err(Refusal::MachineFailed.into()));
    assert_eq!(sink.accepted(), 0);
    gate.open();
    until(|| sink.of("m") == ["1 a"]).await;
}

async fn a_stop_lets_a_step_have_its_acknowledgement(mg: Mg) {
    let sink = Recorder::new();
    let mg: World = mg.awaited("s", &sink).start().await;
    mg.machine("m", done()).await;
    let mut processing = mg.processor.hold("m");
    mg.processor.then(reply("done").event("a"));
    let asked = mg.ask("m", call("x"));
    processing.reached().await;
    let engine = mg.engine.clone();
    let stop = tokio::spawn(async move { engine.stop().await });
    mg.quiet().await;
    processing.open();
    assert_eq!(asked.await, ok("done"));
    stop.await.unwrap();
    assert_eq!(sink.of("m"), ["1 a"]);
}
