//! Timer arithmetic, and what touches a timer.

use super::*;

fn timer_after(record: &Record, impact: &Impact, change: Change) -> Option<Timer> {
    match decide(Some(record), impact, done(change)).step {
        Some(step) => step.record.expect("a record").timer,
        None => record.timer.clone(),
    }
}

#[test]
fn a_timer_is_due_when_its_action_says() {
    let at = |due| TimerChange::At { due, range: HistoryRange::ALL, timeout: 30 };
    let table = [
        (TimerChange::Unset, None),
        (after(0), Some(NOW)),
        (after(1), Some(NOW + 1_000)),
        (after(-1), Some(NOW - 1_000)),
        (after(i32::MAX), Some(NOW + 2_147_483_647_000)),
        (after(i32::MIN), Some(NOW - 2_147_483_648_000)),
        (at(NOW + 1), Some(NOW + 1)),
        (at(NOW - 1), Some(NOW - 1)),
        (at(0), Some(0)),
        (at(-62_135_596_800_000), Some(-62_135_596_800_000)),
        (at(i64::MAX), Some(i64::MAX)),
        (at(i64::MIN), Some(i64::MIN)),
    ];
    for (change, due) in table {
        for record in [sleeping(), waiting(NOW + 60_000)] {
            let timer = timer_after(&record, &call(), timed(change.clone()));
            assert_eq!(timer.map(|timer| timer.due), due, "{change:?}");
        }
    }
}

#[test]
fn every_past_timer_is_due_at_once_however_long_past() {
    let at = |due| TimerChange::At { due, range: HistoryRange::ALL, timeout: 30 };
    for change in [after(0), after(-1), after(i32::MIN), at(NOW - 1), at(0), at(-1), at(i64::MIN)] {
        let record = next(&sleeping(), &call(), done(timed(change.clone())));
        assert_eq!(wake(&record, NOW), Some(Wake::Timeout), "{change:?}");
        let due = record.due().expect("a due");
        assert!((0..=NOW).contains(&due), "{change:?}: {due}");
        assert_eq!(dispatch(Some(&record), &Impact::Timeout, NOW), Dispatch::Ask);
    }
}

#[test]
fn a_timer_never_fires_early_not_even_by_a_part_of_a_millisecond() {
    for (micros, seconds, due) in [
        (NOW * 1_000, 1, NOW + 1_000),
        (NOW * 1_000 + 1, 1, NOW + 1_001),
        (NOW * 1_000 + 999, 1, NOW + 1_001),
        // At once is not within the next millisecond.
        (NOW * 1_000 + 999, 0, NOW),
        (NOW * 1_000 + 1, -1, NOW - 999),
        (-1_500, 2, 1_999),
    ] {
        let stamp = Stamp { now_micros: micros, ..stamp(0) };
        let outcome = Some(done(timed(after(seconds))));
        let decision = apply(Some(&sleeping()), &call(), &context("request"), outcome, &policy(), stamp);
        let record = decision.step.expect("a step").record.expect("a record");
        assert_eq!(record.timer.expect("a timer").due, due, "{micros} + {seconds} s");
    }
}

#[test]
fn a_timer_is_not_dispatched_before_its_millisecond() {
    let record = waiting(NOW + 1_000);
    let ignored = Dispatch::Answer(Ok(Success::Done));
    assert_eq!(dispatch(Some(&record), &Impact::Timeout, NOW + 999), ignored);
    assert_eq!(dispatch(Some(&record), &Impact::Timeout, NOW + 1_000), Dispatch::Ask);
}

#[test]
fn a_set_timer_keeps_the_range_the_timeout_and_the_request_that_set_it() {
    let range = HistoryRange { after: Some(5), limit: Some(0), ..HistoryRange::ALL };
    for record in [sleeping(), waiting(NOW + 60_000)] {
        for impact in [call(), notified()] {
            let change = TimerChange::In { seconds: 2, range: range.clone(), timeout: 77 };
            let timer = timer_after(&record, &impact, timed(change));
            let expected = Timer { due: NOW + 2_000, range: range.clone(), timeout: 77, context: context("request") };
            assert_eq!(timer, Some(expected));
        }
    }
}

#[test]
fn without_a_timer_action_the_timer_and_its_context_stay() {
    for due in [NOW - 60_000, NOW + 60_000] {
        for (record, impact) in [(waiting(due), call()), (waiting(due), notified()), (failed(&waiting(due)), repair())]
        {
            assert_eq!(timer_after(&record, &impact, appended(&["a"])), Some(timer(due)));
        }
    }
}

#[test]
fn a_call_takes_a_machine_out_of_retrying_and_its_old_timer_fires_again() {
    for impact in [call(), notified()] {
        let record = retrying(1, NOW + 60_000);
        assert_eq!(wake(&record, NOW), None);
        let record = next(&record, &impact, done(Change::default()));
        assert_eq!((record.kind(), record.timer.as_ref()), (StatusKind::Waiting, Some(&timer(NOW - 60_000))));
        assert_eq!(wake(&record, NOW), Some(Wake::Timeout));
        // The count begins anew.
        let again = next(&record, &Impact::Timeout, Outcome::Transient("busy".to_owned()));
        assert_eq!(again.status, Status::Working(Phase::Retrying { attempt: 0, at: NOW + 1_000, since: Some(NOW) }));
    }
}

#[test]
fn a_call_may_unset_or_move_the_timer_of_a_retrying_machine() {
    let record = retrying(1, NOW + 60_000);
    let unset = next(&record, &call(), done(timed(TimerChange::Unset)));
    assert_eq!((unset.kind(), unset.due()), (StatusKind::Sleeping, None));
    let moved = next(&record, &call(), done(timed(after(9))));
    assert_eq!((moved.kind(), moved.due()), (StatusKind::Waiting, Some(NOW + 9_000)));
}

#[test]
fn a_failed_machine_shows_its_timer_but_does_not_fire_it() {
    for before in [waiting(NOW - 1), retrying(0, NOW - 1)] {
        let record = next(&before, &call(), Outcome::Unexpected("bug".to_owned()));
        assert_eq!(record.timer, before.timer);
        assert_eq!((record.timer_due(), record.due(), wake(&record, NOW)), (None, None, None));
    }
}

#[test]
fn a_timer_whose_range_has_a_negative_limit_fails_the_step() {
    let range = HistoryRange { limit: Some(-1), ..HistoryRange::ALL };
    for change in [
        TimerChange::In { seconds: 1, range: range.clone(), timeout: 30 },
        TimerChange::At { due: NOW, range: range.clone(), timeout: 30 },
    ] {
        let decision = decide(Some(&sleeping()), &call(), done(timed(change)));
        assert_eq!(decision.answer, Err(Refusal::MachineFailed));
        let record = decision.step.expect("a step").record.expect("a record");
        assert!(matches!(record.status, Status::Failed { reason, .. } if reason.contains("negative limit: -1")));
    }
}

#[test]
fn a_stored_context_holds_no_request_in_memory() {
    let request = Bytes::from(vec![b'x'; 1_000]);
    let part = request.slice(10..20);
    let pair = vec![(part.clone(), part.clone())];
    let from = RequestContext { trace_id: part.clone(), span_id: part.clone(), meta: pair.clone(), trace: pair };
    drop(part);
    let outcome = Some(done(timed(after(1))));
    let decision = apply(Some(&sleeping()), &call(), &from, outcome, &policy(), stamp(NOW));
    let kept = decision.step.expect("a step").record.expect("a record").timer.expect("a timer").context;
    assert_eq!(kept, from);
    drop(from);
    assert!(request.is_unique());
}
