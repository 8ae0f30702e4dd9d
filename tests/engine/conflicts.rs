//! Commits that conflict, are refused, or whose answer is lost.

use std::sync::atomic::Ordering;

use machinegun::engine::EngineError;
use machinegun::machine::{Impact, Record, Refusal};
use machinegun::storage::StorageError;

use crate::faulty::Fault;
use crate::on_every_storage;
use crate::scripted::{content, done, reply};
use crate::world::{Mg, World, call, ok, until};

on_every_storage!(
    a_conflict_reads_again_and_asks_again,
    a_conflict_is_dispatched_from_the_top,
    a_processor_is_asked_at_most_twice,
    a_conflict_past_the_deadline_is_not_begun_again,
    a_decision_without_a_processor_meets_a_conflict_too,
    an_unknown_commit_is_put_again_with_the_same_bytes_until_it_is_definite,
    no_other_step_begins_while_a_commit_is_unknown,
    a_caller_is_told_at_its_deadline_that_the_result_is_unknown,
    an_unknown_commit_of_a_gone_policy_is_put_again_all_the_same,
    a_refused_commit_is_retried_within_the_deadline,
    a_refused_commit_never_sleeps_past_the_deadline,
    a_commit_that_a_corrupt_store_refuses_is_not_retried,
    after_a_refused_commit_the_next_call_sees_the_right_state,
    an_acknowledged_event_is_never_overwritten,
    a_store_that_is_down_is_no_machines_fault,
);

fn unavailable(answer: &Result<machinegun::machine::Success, EngineError>) -> bool {
    matches!(answer, Err(EngineError::Storage(StorageError::Unavailable(_))))
}

fn intrude(change: impl FnOnce(Record) -> Record + Send + 'static) -> Fault {
    Fault::Intrude(Box::new(change))
}

fn aux(text: &'static str) -> Fault {
    intrude(move |record| Record { aux_state: content(text), ..record })
}

/// Waits until so many commits were answered, then lets `ms` pass.
async fn after_commits(mg: &World, count: usize, ms: u64) {
    until(|| mg.storage.commits().len() >= count).await;
    mg.advance(ms);
}

async fn a_conflict_reads_again_and_asks_again(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    mg.storage.then(aux("another's"));
    mg.processor.then(reply("first").event("first")).then(reply("second").event("second"));
    assert_eq!(mg.call("m", "x").await, ok("second"));
    let questions = mg.processor.questions();
    assert_eq!(questions.len(), 3);
    assert_eq!(questions[2].machine.aux_state, Some(content("another's")));
    assert_eq!(mg.events("m").await[3..], [(4, "second".to_owned())]);
    assert_eq!(mg.metric("machinegun_commit_conflicts_total", "ns"), 1);
}

async fn a_conflict_is_dispatched_from_the_top(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.storage.then(intrude(|record| Record {
        status: machinegun::machine::Status::Failed {
            reason: "another's".to_owned(),
            before: machinegun::machine::Phase::Idle,
        },
        ..record
    }));
    mg.processor.then(reply("first").event("first"));
    assert_eq!(mg.call("m", "x").await, Err(Refusal::MachineFailed.into()));
    assert_eq!(mg.processor.count(), 2);
    assert_eq!(mg.events("m").await, []);
}

async fn a_processor_is_asked_at_most_twice(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.storage.then(aux("one")).then(aux("two"));
    mg.processor.then(reply("").event("a")).then(reply("").event("b"));
    assert!(unavailable(&mg.call("m", "x").await));
    assert_eq!(mg.processor.count(), 3);
    assert_eq!(mg.events("m").await, []);
    assert_eq!(mg.call("m", "y").await, ok("y"));
    assert_eq!(mg.processor.questions()[3].machine.aux_state, Some(content("two")));
}

async fn a_conflict_past_the_deadline_is_not_begun_again(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    mg.processor.then(reply("").event("a"));
    mg.storage.then(aux("another's"));
    let asked = mg.ask_by("m", call("x"), mg.clock.now() + 10);
    gate.reached().await;
    mg.advance(10);
    gate.open();
    assert_eq!(asked.await, Err(EngineError::TimedOut));
    assert_eq!(mg.call("m", "y").await, ok("y"));
    assert_eq!(mg.processor.asks(), ["init ", "call x", "call y"]);
}

async fn a_decision_without_a_processor_meets_a_conflict_too(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.storage.then(aux("another's"));
    mg.ask("m", Impact::Remove).await.unwrap();
    assert_eq!(mg.get("m").await.unwrap_err(), Refusal::MachineNotFound.into());
}

async fn an_unknown_commit_is_put_again_with_the_same_bytes_until_it_is_definite(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    for applied in [true, false] {
        let before = mg.storage.commits().len();
        for _ in 0..3 {
            mg.storage.then(Fault::Unknown { applied });
        }
        mg.processor.then(reply("done").event("a"));
        let asked = mg.ask("m", call("x"));
        for attempt in 0..3 {
            after_commits(&mg, before + attempt + 1, 10 << attempt).await;
        }
        assert_eq!(asked.await, ok("done"));
        let commits = &mg.storage.commits()[before..];
        assert_eq!(commits.len(), 4);
        for commit in commits {
            assert_eq!(commit.record, commits[0].record);
            assert_eq!(commit.events, commits[0].events);
            assert_eq!(commit.expect, commits[0].expect);
        }
    }
    assert_eq!(mg.events("m").await.len(), 2);
    assert_eq!(mg.processor.count(), 3);
}

async fn no_other_step_begins_while_a_commit_is_unknown(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(1)).await;
    mg.storage.then(Fault::Unknown { applied: false });
    mg.processor.then(reply("first").event("a").timer(1));
    let first = mg.ask("m", call("first"));
    let second = mg.ask("m", call("second"));
    until(|| mg.storage.commits().len() == 2).await;
    mg.quiet().await;
    assert_eq!(mg.processor.count(), 2);
    // Readers see the last commit that is known.
    assert_eq!(mg.events("m").await, []);
    mg.advance(10);
    assert_eq!((first.await, second.await), (ok("first"), ok("second")));
    assert_eq!(mg.events("m").await, [(1, "a".to_owned())]);
}

async fn a_caller_is_told_at_its_deadline_that_the_result_is_unknown(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    for _ in 0..2 {
        mg.storage.then(Fault::Unknown { applied: false });
    }
    mg.processor.then(reply("").event("a"));
    let asked = mg.ask_by("m", call("x"), mg.clock.now() + 15);
    after_commits(&mg, 2, 10).await;
    after_commits(&mg, 3, 5).await;
    assert_eq!(asked.await, Err(EngineError::TimedOut));
    mg.advance(15);
    assert_eq!(mg.call("m", "y").await, ok("y"));
    assert_eq!(mg.events("m").await, [(1, "a".to_owned())]);
}

async fn an_unknown_commit_of_a_gone_policy_is_put_again_all_the_same(mg: Mg) {
    use machinegun::machine::retry::RetryPolicy;
    let none = RetryPolicy::intervals(vec![std::time::Duration::from_millis(10)]);
    let mg = mg.with(|_, namespace| namespace.storage_retries = none).start().await;
    mg.machine("m", done()).await;
    for _ in 0..2 {
        mg.storage.then(Fault::Unknown { applied: true });
    }
    mg.processor.then(reply("").event("a"));
    let asked = mg.ask("m", call("x"));
    after_commits(&mg, 2, 10).await;
    after_commits(&mg, 3, 60_000).await;
    assert_eq!(asked.await, Err(EngineError::TimedOut));
    assert_eq!(mg.call("m", "y").await, ok("y"));
    assert_eq!(mg.events("m").await, [(1, "a".to_owned())]);
    // Refused once more than the policy allows, the step is given up.
    for _ in 0..2 {
        mg.storage.then(Fault::Refuse);
    }
    let before = mg.storage.commits().len();
    mg.processor.then(reply("").event("b"));
    let asked = mg.ask("m", call("x"));
    after_commits(&mg, before + 1, 10).await;
    assert!(unavailable(&asked.await));
}

async fn a_refused_commit_is_retried_within_the_deadline(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.storage.then(Fault::Refuse).then(Fault::Refuse);
    mg.processor.then(reply("done").event("a"));
    let asked = mg.ask("m", call("x"));
    after_commits(&mg, 2, 10).await;
    after_commits(&mg, 3, 20).await;
    assert_eq!(asked.await, ok("done"));
    assert_eq!(mg.processor.count(), 2);
}

async fn a_refused_commit_never_sleeps_past_the_deadline(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    for _ in 0..4 {
        mg.storage.then(Fault::Refuse);
    }
    mg.processor.then(reply("").event("a"));
    let asked = mg.ask_by("m", call("x"), mg.clock.now() + 100);
    after_commits(&mg, 2, 10).await;
    after_commits(&mg, 3, 20).await;
    after_commits(&mg, 4, 40).await;
    // The next delay would end at 150 ms: the answer comes now, and it is definite.
    assert!(unavailable(&asked.await));
    assert_eq!(mg.clock.now(), crate::world::BEGIN + 70);
    assert_eq!(mg.events("m").await, []);
}

async fn a_commit_that_a_corrupt_store_refuses_is_not_retried(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.storage.then(Fault::Corrupt);
    mg.processor.then(reply("").event("a"));
    assert!(matches!(mg.call("m", "x").await, Err(EngineError::Storage(StorageError::Corrupt(_)))));
    assert_eq!(mg.storage.commits().len(), 2);
}

async fn after_a_refused_commit_the_next_call_sees_the_right_state(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    mg.storage.then(Fault::Refuse);
    mg.processor.then(reply("").event("never").aux("never"));
    assert!(unavailable(&mg.ask_by("m", call("x"), mg.clock.now() + 5).await));
    mg.processor.then(reply("").event("d"));
    mg.call("m", "y").await.unwrap();
    let question = mg.processor.questions().pop().unwrap();
    assert_eq!(question.machine.history.len(), 3);
    assert_eq!(question.machine.aux_state, Some(content("state")));
    assert_eq!(mg.events("m").await[3..], [(4, "d".to_owned())]);
}

async fn an_acknowledged_event_is_never_overwritten(mg: Mg) {
    // K.2 1: a write that was applied but reported failed let the next call overwrite events that readers had seen.
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    mg.storage.then(Fault::Unknown { applied: true });
    mg.processor.then(reply("").event("seen")).then(reply("").event("next"));
    let deadline = mg.clock.now() + 5;
    let asked = mg.ask_by("m", call("x"), deadline);
    until(|| mg.storage.commits().len() == 2).await;
    // Readers are shown what stands in the store, be it known to have been done or not.
    assert_eq!(mg.events("m").await, [(1, "seen".to_owned())]);
    mg.advance(5);
    assert_eq!(asked.await, Err(EngineError::TimedOut));
    let next = mg.ask("m", call("y"));
    mg.advance(5);
    next.await.unwrap();
    assert_eq!(mg.events("m").await, [(1, "seen".to_owned()), (2, "next".to_owned())]);
    let mg = mg.restart(1).await;
    assert_eq!(mg.events("m").await, [(1, "seen".to_owned()), (2, "next".to_owned())]);
}

async fn a_store_that_is_down_is_no_machines_fault(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    let mg = mg.restart(1).await;
    mg.storage.down.store(true, Ordering::SeqCst);
    assert!(unavailable(&mg.call("m", "x").await));
    assert!(matches!(mg.get("m").await, Err(EngineError::Storage(_))));
    assert!(matches!(mg.notify("m", "x").await, Err(EngineError::Storage(_))));
    mg.storage.down.store(false, Ordering::SeqCst);
    assert_eq!(mg.call("m", "x").await, ok("x"));
    assert_eq!(mg.events("m").await.len(), 3);
}
