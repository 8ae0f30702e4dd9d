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
);

/// Turns the clock by little until it is answered.
async fn answered(mg: &World, mut asked: Asked) -> Answer {
    loop {
        if let Some(answer) = (&mut asked).now_or_never() {
            return answer;
        }
        mg.advance(50);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
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
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
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
