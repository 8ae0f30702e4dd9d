//! The store is gone for minutes: callers are told soon, nothing is lost, and timers are late, no more.

use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use machinegun::engine::EngineError;
use machinegun::machine::StatusKind;
use machinegun::storage::StorageError;

use crate::on_every_storage;
use crate::scripted::{done, reply};
use crate::timers::timeouts;
use crate::world::{Answer, Asked, Mg, World, call, ok};

on_every_storage!(
    a_store_that_is_gone_for_minutes_is_told_soon_and_nothing_is_lost,
    a_store_that_refuses_now_and_then_is_no_outage,
    a_call_behind_a_timer_that_the_store_refuses_is_surely_not_done,
    a_call_whose_machine_can_not_be_read_in_time_is_surely_not_done,
    a_call_whose_commit_may_have_been_done_is_unknown_and_those_behind_it_are_surely_not_done,
);

/// Turns the clock by little until it is answered.
async fn answered(mg: &World, mut asked: Asked) -> Answer {
    loop {
        if let Some(answer) = (&mut asked).now_or_never() {
            return answer;
        }
        mg.advance(50);
        mg.quiet().await;
    }
}

#[track_caller]
fn assert_unavailable(answer: &Answer) {
    assert!(matches!(answer, Err(EngineError::Storage(StorageError::Unavailable(_)))), "{answer:?}");
}

async fn a_store_that_is_gone_for_minutes_is_told_soon_and_nothing_is_lost(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("timed", done().event("begun").timer(60)).await;
    mg.machine("other", done().event("begun")).await;
    mg.storage.down.store(true, Ordering::SeqCst);
    let begun = mg.clock.now();
    mg.processor.then(reply("").event("lost"));
    assert_unavailable(&answered(&mg, mg.ask("other", call("b"))).await);
    let waited = mg.clock.now() - begun;
    assert!(waited < 15_000, "the caller has waited {waited} ms of its 30 s");
    // From here on nobody waits: the clock stands still.
    for _ in 0..3 {
        mg.processor.then(reply("").event("lost"));
        assert_unavailable(&mg.call("other", "c").await);
    }
    // The timer is due, and is woken again and again, by its worker and after that worker has left.
    for _ in 0..3_000 {
        mg.advance(100);
        mg.quiet().await;
    }
    mg.storage.down.store(false, Ordering::SeqCst);
    mg.processor.behave(|question| match question.machine.id.as_ref() {
        b"timed" => done().event("fired").into(),
        _ => reply("here").event("done").into(),
    });
    let fired = timeouts(&mg);
    while timeouts(&mg) == fired {
        mg.advance(1_000);
        mg.settle().await;
    }
    let timed = mg.get("timed").await.unwrap();
    assert_eq!(timed.record.kind(), StatusKind::Sleeping);
    assert_eq!(mg.events("timed").await, [(1, "begun".to_owned()), (2, "fired".to_owned())]);
    assert_eq!(mg.call("other", "d").await, ok("here"));
    assert_eq!(mg.events("other").await, [(1, "begun".to_owned()), (2, "done".to_owned())]);
}

async fn a_store_that_refuses_now_and_then_is_no_outage(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    for round in 1..=5 {
        mg.storage.then(crate::faulty::Fault::Refuse).then(crate::faulty::Fault::Refuse);
        mg.processor.then(reply("").event("x"));
        assert_eq!(answered(&mg, mg.ask("m", call(""))).await, ok(""));
        assert_eq!(mg.events("m").await.len(), round);
        mg.advance(60_000);
    }
}

async fn a_call_behind_a_timer_that_the_store_refuses_is_surely_not_done(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(1)).await;
    mg.storage.down.store(true, Ordering::SeqCst);
    mg.processor.then(done().event("fired"));
    mg.advance(1_000);
    mg.processor.question(2).await;
    mg.quiet().await;
    // It is behind the timer's step, which is put again and again.
    let asked = mg.ask_by("m", call("x"), mg.clock.now() + 5);
    mg.advance(5);
    assert_unavailable(&asked.await);
    mg.storage.down.store(false, Ordering::SeqCst);
    mg.processor.behave(|_| reply("here").into());
    assert_eq!(answered(&mg, mg.ask("m", call("y"))).await, ok("here"));
    assert!(!mg.processor.asks().contains(&"call x".to_owned()), "{:?}", mg.processor.asks());
    assert_eq!(mg.events("m").await, [(1, "fired".to_owned())]);
}

async fn a_call_whose_machine_can_not_be_read_in_time_is_surely_not_done(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let mg = mg.restart(1).await;
    let mut gate = mg.storage.hold_reads();
    let first = mg.ask_by("m", call("first"), mg.clock.now() + 10);
    gate.reached().await;
    let behind = mg.ask_by("m", call("behind"), mg.clock.now() + 10);
    mg.advance(10);
    assert_unavailable(&first.await);
    assert_unavailable(&behind.await);
    gate.open();
    assert_eq!(mg.call("m", "x").await, ok("x"));
    assert_eq!(mg.processor.asks(), ["init ", "call x"]);
}

async fn a_call_whose_commit_may_have_been_done_is_unknown_and_those_behind_it_are_surely_not_done(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.storage.hold();
    mg.processor.then(reply("").event("x"));
    let running = mg.ask_by("m", call("x"), mg.clock.now() + 5);
    gate.reached().await;
    let behind = mg.ask_by("m", call("behind"), mg.clock.now() + 5);
    mg.advance(5);
    assert_eq!(running.await, Err(EngineError::TimedOut));
    assert_unavailable(&behind.await);
    gate.open();
    assert_eq!(answered(&mg, mg.ask("m", call("y"))).await, ok("y"));
    assert_eq!(mg.events("m").await, [(1, "x".to_owned())]);
}
