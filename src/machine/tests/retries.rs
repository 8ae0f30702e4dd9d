//! A timer's signal that fails for the moment is tried again, until the policy's end.

use super::*;

fn busy() -> Outcome {
    Outcome::Transient("busy".to_owned())
}

#[test]
fn a_timer_is_retried_by_the_policy_and_then_the_machine_fails() {
    let record = waiting(NOW - 60_000);
    let first = next(&record, &Impact::Timeout, busy());
    assert_eq!(first.status, Status::Working(Phase::Retrying { attempt: 0, at: NOW + 1_000, since: Some(NOW) }));
    let second = next(&first, &Impact::Timeout, busy());
    assert_eq!(second.status, Status::Working(Phase::Retrying { attempt: 1, at: NOW + 2_000, since: Some(NOW) }));
    let third = next(&second, &Impact::Timeout, busy());
    let Status::Failed { reason, before } = &third.status else { panic!("exhausted, so failed") };
    assert!(reason.contains("timer_retries_exhausted") && reason.contains("busy"), "{reason}");
    assert_eq!(*before, Phase::Retrying { attempt: 1, at: NOW + 2_000, since: Some(NOW) });
    for step in [&first, &second, &third] {
        assert_eq!(step.timer, record.timer, "the timer's context and range stay");
    }
}

#[test]
fn after_exhaustion_a_simple_repair_gives_one_more_attempt() {
    let exhausted = next(&retrying(1, NOW - 1), &Impact::Timeout, busy());
    let restored = next(&exhausted, &Impact::SimpleRepair, None);
    assert_eq!(dispatch(Some(&restored), &Impact::Timeout, NOW), Dispatch::Ask);
    assert_eq!(next(&restored, &Impact::Timeout, busy()).kind(), StatusKind::Failed);
    assert_eq!(next(&restored, &Impact::Timeout, done(Change::default())).kind(), StatusKind::Sleeping);
}

#[test]
fn a_policy_without_retries_fails_the_machine_at_once() {
    let policy = Policy { timer_retries: RetryPolicy::intervals(vec![]), ..policy() };
    let outcome = Some(busy());
    let decision = apply(Some(&waiting(NOW)), &Impact::Timeout, &context("t"), outcome, &policy, stamp(NOW));
    let record = decision.step.expect("a step").record.expect("a record");
    assert!(matches!(record.status, Status::Failed { before: Phase::Idle, .. }));
    assert_eq!(decision.answer, unavailable("busy"));
}

#[test]
fn our_own_bounds_never_count_as_a_retry() {
    for record in [waiting(NOW), retrying(1, NOW)] {
        let decision = decide(Some(&record), &Impact::Timeout, Outcome::HeldBack("full".to_owned()));
        assert_eq!(decision, Decision { step: None, answer: unavailable("full"), failure: None });
    }
}

#[test]
fn the_attempt_never_overflows() {
    let policy = Policy { timer_retries: RetryPolicy::default(), ..policy() };
    let record = retrying(u32::MAX, NOW);
    let outcome = Some(busy());
    let decision = apply(Some(&record), &Impact::Timeout, &context("t"), outcome, &policy, stamp(NOW));
    let record = decision.step.expect("a step").record.expect("a record");
    let phase = Phase::Retrying { attempt: u32::MAX, at: NOW + 60_000, since: Some(NOW) };
    assert_eq!(record.status, Status::Working(phase));
}

#[test]
fn success_ends_the_retrying() {
    for (impact, kind) in
        [(Impact::Timeout, StatusKind::Sleeping), (call(), StatusKind::Waiting), (notified(), StatusKind::Waiting)]
    {
        assert_eq!(next(&retrying(1, NOW), &impact, done(appended(&["a"]))).kind(), kind);
    }
}

#[test]
fn jitter_moves_a_retry() {
    let second = Duration::from_secs(1);
    let retries = RetryPolicy::linear(MaxRetries::Infinity, second).with_jitter(Duration::from_millis(500));
    let policy = Policy { timer_retries: retries, ..policy() };
    for (jitter, at) in [(0.0, NOW + 500), (0.5, NOW + 1_000), (1.0, NOW + 1_500)] {
        let stamp = Stamp { jitter, ..stamp(NOW) };
        let decision = apply(Some(&waiting(NOW)), &Impact::Timeout, &context("t"), Some(busy()), &policy, stamp);
        let record = decision.step.expect("a step").record.expect("a record");
        assert_eq!(record.timer_due(), Some(at));
    }
}

#[test]
fn a_timecap_is_measured_from_the_first_failure_however_long_the_tries_took() {
    let retries =
        RetryPolicy::linear(MaxRetries::Infinity, Duration::from_secs(1)).with_timecap(Duration::from_secs(10));
    let policy = Policy { timer_retries: retries, ..policy() };
    let failing = |record: &Record, now| {
        let busy = Some(busy());
        let decision = apply(Some(record), &Impact::Timeout, &context("t"), busy, &policy, stamp(now));
        decision.step.expect("a step").record.expect("a record")
    };
    // The timer was late already: that counts for nothing.
    let first = failing(&waiting(NOW - 60_000), NOW);
    assert_eq!(first.timer_due(), Some(NOW + 1_000));
    let second = failing(&first, NOW + 9_000);
    assert_eq!(second.status, Status::Working(Phase::Retrying { attempt: 1, at: NOW + 10_000, since: Some(NOW) }));
    assert_eq!(failing(&second, NOW + 9_001).kind(), StatusKind::Failed);
    // One that was stored before the first failure was noted begins to be measured now.
    let early = Record {
        status: Status::Working(Phase::Retrying { attempt: 7, at: NOW, since: None }),
        ..waiting(NOW - 60_000)
    };
    let phase = Phase::Retrying { attempt: 8, at: NOW + 51_000, since: Some(NOW + 50_000) };
    assert_eq!(failing(&early, NOW + 50_000).status, Status::Working(phase));
}
