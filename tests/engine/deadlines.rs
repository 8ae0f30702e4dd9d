//! What a deadline does to a step that is not yet queued, that waits, and that runs.

use machinegun::engine::EngineError;

use crate::on_every_storage;
use crate::scripted::{done, reply, transient};
use crate::world::{Mg, call, ok};

on_every_storage!(
    a_deadline_that_has_passed_is_refused_before_anything_happens,
    a_call_whose_deadline_passes_in_the_queue_is_never_processed,
    a_running_step_goes_on_beyond_its_deadline,
    the_processor_is_given_the_callers_deadline,
    a_processor_that_never_answers_is_given_up_after_the_guard,
    an_expired_first_call_gives_its_place_among_the_loading_back,
);

async fn a_deadline_that_has_passed_is_refused_before_anything_happens(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let answer = mg.ask_by("m", call("x"), mg.clock.now()).await;
    assert_eq!(answer, Err(EngineError::DeadlineReached));
    assert_eq!(mg.processor.count(), 1);
}

async fn a_call_whose_deadline_passes_in_the_queue_is_never_processed(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    let first = mg.ask("m", call("first"));
    gate.reached().await;
    let late = mg.ask_by("m", call("late"), mg.clock.now() + 10);
    let unheard = mg.ask_by("m", call("unheard"), mg.clock.now() + 10);
    let last = mg.ask("m", call("last"));
    mg.advance(10);
    assert_eq!(late.await, Err(EngineError::TimedOut));
    gate.open();
    assert_eq!(first.await, ok("first"));
    assert_eq!(last.await, ok("last"));
    // Its worker dropped it before anybody asked what became of it.
    assert_eq!(unheard.await, Err(EngineError::TimedOut));
    assert_eq!(mg.processor.asks(), ["init ", "call first", "call last"]);
}

async fn a_running_step_goes_on_beyond_its_deadline(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    mg.processor.then(reply("").event("late"));
    let asked = mg.ask_by("m", call("x"), mg.clock.now() + 100);
    gate.reached().await;
    mg.advance(100);
    assert_eq!(asked.await, Err(EngineError::TimedOut));
    gate.open();
    assert_eq!(mg.call("m", "next").await, ok("next"));
    assert_eq!(mg.events("m").await, [(1, "late".to_owned())]);
}

async fn the_processor_is_given_the_callers_deadline(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let deadline = mg.clock.now() + 1_234;
    mg.ask_by("m", call("x"), deadline).await.unwrap();
    assert_eq!(mg.processor.questions()[1].deadline, deadline);
}

async fn a_processor_that_never_answers_is_given_up_after_the_guard(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    let asked = mg.ask_by("m", call("x"), mg.clock.now() + 100);
    gate.reached().await;
    mg.advance(3_099);
    assert_eq!(asked.await, Err(EngineError::TimedOut));
    let next = mg.ask("m", call("next"));
    assert_eq!(mg.processor.count(), 2);
    mg.advance(1);
    assert_eq!(next.await, ok("next"));
    // The state is as before, and a transient answer leaves it so.
    mg.processor.then(transient());
    mg.call("m", "x").await.unwrap_err();
    assert_eq!(mg.events("m").await, []);
}

async fn an_expired_first_call_gives_its_place_among_the_loading_back(mg: Mg) {
    let mg = mg.with(|options, _| options.loading_limit = 1).start().await;
    mg.machine("m", done()).await;
    let mg = mg.restart(1).await;
    let late = mg.ask_by("m", call("late"), mg.clock.now() + 10);
    mg.advance(10);
    assert_eq!(late.await, Err(EngineError::TimedOut));
    tokio::task::yield_now().await;
    mg.machine("other", done()).await;
}
