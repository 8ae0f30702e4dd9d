//! `retries`: each form of a policy, on everything that policies are for.

use std::time::Duration;

use machinegun::engine::EngineError;
use machinegun::machine::retry::{MaxRetries, RetryPolicy};
use machinegun::machine::{Phase, Status};
use machinegun::storage::StorageError;

use crate::faulty::Fault;
use crate::on_every_storage;
use crate::recorder::Recorder;
use crate::scripted::{done, reply, transient};
use crate::world::{Mg, World, call, until};

on_every_storage!(
    each_form_of_a_policy_says_when_a_timer_is_tried_again,
    jitter_moves_the_retries_of_timers_and_keeps_its_bounds,
    a_timecap_counts_the_time_that_the_tries_of_a_timer_took,
    each_form_of_a_policy_says_when_a_commit_is_put_again,
    each_form_of_a_policy_says_when_a_sink_is_tried_again_and_past_its_end_it_goes_on,
);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Policies that end, with their delays in milliseconds.
fn policies() -> Vec<(RetryPolicy, Vec<u64>)> {
    let forever = |milliseconds| RetryPolicy::linear(MaxRetries::Infinity, ms(milliseconds));
    vec![
        (RetryPolicy::linear(MaxRetries::Times(3), ms(200)), vec![200, 200, 200]),
        (RetryPolicy::linear(MaxRetries::TotalTimeout(ms(1_000)), ms(400)), vec![400, 400]),
        (RetryPolicy::exponential(MaxRetries::Times(4), 3.0, ms(100), Some(ms(500))), vec![100, 300, 500, 500]),
        (RetryPolicy::exponential(MaxRetries::TotalTimeout(ms(1_500)), 2.0, ms(200), None), vec![200, 400, 800]),
        (RetryPolicy::intervals(vec![ms(50), ms(700), ms(20)]), vec![50, 700, 20]),
        (forever(300).with_timecap(ms(900)), vec![300, 300, 300]),
        (RetryPolicy::exponential(MaxRetries::Infinity, 2.0, ms(100), None).with_timecap(ms(699)), vec![100, 200]),
    ]
}

async fn status(mg: &World, machine: &str) -> Status {
    mg.get(machine).await.unwrap().record.status.clone()
}

async fn each_form_of_a_policy_says_when_a_timer_is_tried_again(mg: Mg) {
    let mut mg = mg.start().await;
    for (number, (policy, delays)) in policies().into_iter().enumerate() {
        let machine = format!("m{number}");
        mg = mg.restart_with(1, |mg| mg.with(|_, namespace| namespace.policy.timer_retries = policy)).await;
        mg.processor.behave(|_| done().timer(1).into());
        mg.init(&machine).await.unwrap();
        mg.processor.behave(|_| transient());
        let asked = mg.processor.count();
        mg.advance(1_000);
        for (attempt, delay) in delays.iter().enumerate() {
            mg.processor.question(asked + attempt + 1).await;
            mg.settle().await;
            let Status::Working(Phase::Retrying { at, .. }) = status(&mg, &machine).await else { panic!("{delays:?}") };
            assert_eq!(at - mg.clock.now(), *delay as i64, "{delays:?}");
            mg.advance(*delay - 1);
            mg.settle().await;
            assert_eq!(mg.processor.count(), asked + attempt + 1);
            mg.advance(1);
        }
        mg.processor.question(asked + delays.len() + 1).await;
        mg.settle().await;
        assert!(matches!(status(&mg, &machine).await, Status::Failed { .. }), "{delays:?}");
    }
}

async fn jitter_moves_the_retries_of_timers_and_keeps_its_bounds(mg: Mg) {
    let policy = RetryPolicy::linear(MaxRetries::Infinity, ms(1_000)).with_jitter(ms(400));
    let mg = mg.with(|_, namespace| namespace.policy.timer_retries = policy).start().await;
    mg.machine("m", done().timer(1)).await;
    mg.processor.behave(|_| transient());
    mg.advance(1_000);
    let mut delays = Vec::new();
    for attempt in 2..22 {
        mg.processor.question(attempt).await;
        mg.settle().await;
        let Status::Working(Phase::Retrying { at, .. }) = status(&mg, "m").await else { panic!("it is tried again") };
        delays.push(at - mg.clock.now());
        mg.advance(1_400);
    }
    assert!(delays.iter().all(|delay| (600..=1_400).contains(delay)), "{delays:?}");
    assert!(delays.iter().any(|delay| *delay != delays[0]), "{delays:?}");
}

async fn a_timecap_counts_the_time_that_the_tries_of_a_timer_took(mg: Mg) {
    let policy = RetryPolicy::linear(MaxRetries::Infinity, ms(1_000)).with_timecap(ms(10_000));
    let mg = mg.with(|_, namespace| namespace.policy.timer_retries = policy).start().await;
    mg.machine("m", done().timer(1)).await;
    mg.processor.behave(|_| transient());
    mg.advance(1_000);
    mg.processor.question(2).await;
    mg.settle().await;
    // The second try takes nine seconds, and with its delay all that there are.
    let mut gate = mg.processor.hold("m");
    mg.advance(1_000);
    gate.reached().await;
    mg.advance(8_001);
    gate.open();
    mg.settle().await;
    assert!(matches!(status(&mg, "m").await, Status::Failed { .. }));
    assert_eq!(mg.processor.count(), 3);
}

async fn each_form_of_a_policy_says_when_a_commit_is_put_again(mg: Mg) {
    let mut mg = mg.start().await;
    mg.machine("m", done()).await;
    for (policy, delays) in policies() {
        mg = mg.restart_with(60_000, |mg| mg.with(|_, namespace| namespace.storage_retries = policy)).await;
        for _ in 0..=delays.len() {
            mg.storage.then(Fault::Refuse);
        }
        mg.processor.then(reply("").event("never"));
        let asked = mg.ask("m", call("x"));
        for (attempt, delay) in delays.iter().enumerate() {
            until(|| mg.storage.commits().len() == attempt + 1).await;
            // The worker has seen what became of it, and waits.
            mg.quiet().await;
            mg.advance(*delay - 1);
            mg.quiet().await;
            assert_eq!(mg.storage.commits().len(), attempt + 1, "{delays:?}");
            mg.advance(1);
        }
        let answer = asked.await;
        assert!(matches!(answer, Err(EngineError::Storage(StorageError::Unavailable(_)))), "{delays:?}: {answer:?}");
        assert_eq!(mg.storage.commits().len(), delays.len() + 1);
    }
    assert_eq!(mg.events("m").await, []);
}

async fn each_form_of_a_policy_says_when_a_sink_is_tried_again_and_past_its_end_it_goes_on(mg: Mg) {
    let sink = Recorder::new();
    let mut mg = mg.sink("s", &sink).start().await;
    for (number, (policy, delays)) in policies().into_iter().enumerate() {
        let machine = format!("m{number}");
        mg = mg.restart_with(1, |mg| mg.with(|_, namespace| namespace.sink_retries = policy)).await;
        sink.go_down();
        mg.machine(&machine, done().event("e1")).await;
        let last = *delays.last().unwrap();
        for (attempt, delay) in delays.iter().copied().chain([last; 5]).enumerate() {
            let attempt = attempt + 1;
            until(|| mg.metric("machinegun_sink_retries_total", "s") == attempt as i64).await;
            mg.quiet().await;
            mg.advance(delay - 1);
            mg.quiet().await;
            assert_eq!(sink.attempts(&machine), attempt, "{delays:?}");
            mg.advance(1);
            until(|| sink.attempts(&machine) == attempt + 1).await;
        }
        sink.come_up();
        mg.advance(last);
        mg.until_later(|| sink.of(&machine) == ["1 e1"]).await;
    }
}
