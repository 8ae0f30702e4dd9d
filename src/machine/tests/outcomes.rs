//! What a processor's answer makes of a machine, by impact: answers and transitions.

use super::*;

/// What is left of the machine.
#[derive(Debug, PartialEq)]
enum After {
    /// No step: nothing is committed.
    Same,
    /// A commit that leaves this status, and this timer's due.
    Status(Status, Option<i64>),
    Removed,
}

fn after_of(decision: &Decision) -> After {
    match &decision.step {
        None => After::Same,
        Some(step) => match step.record.as_ref().expect("no outcome makes a record go") {
            record if !record.exists() => After::Removed,
            record => After::Status(record.status.clone(), record.timer.as_ref().map(|timer| timer.due)),
        },
    }
}

fn idle(timer: Option<i64>) -> After {
    After::Status(Status::Working(Phase::Idle), timer)
}

/// Failed out of `record`, with its timer still shown.
fn fallen(record: &Record, reason: &str) -> After {
    let Status::Working(before) = record.status else { panic!("only a working machine fails") };
    let due = record.timer.as_ref().map(|timer| timer.due);
    After::Status(Status::Failed { reason: reason.to_owned(), before }, due)
}

#[track_caller]
fn check(record: Option<&Record>, impact: &Impact, outcome: Outcome, answer: Answer, after: After) {
    let decision = decide(record, impact, outcome.clone());
    let about = format!("{} of {record:?}, for {outcome:?}", impact.name());
    assert_eq!(decision.answer, answer, "{about}");
    assert_eq!(after_of(&decision), after, "{about}");
    if let (Some(read), Some(step)) = (record, &decision.step) {
        let written = step.record.as_ref().expect("no outcome makes a record go");
        assert_eq!(written.commit, stamp(NOW).commit, "{about}");
        assert_eq!(written.earlier, read.history_of_commits(), "{about}");
        assert_eq!(written.epoch, read.epoch, "{about}");
    }
}

fn transient() -> Outcome {
    Outcome::Transient("busy".to_owned())
}

fn unexpected() -> Outcome {
    Outcome::Unexpected("bug".to_owned())
}

fn held_back() -> Outcome {
    Outcome::HeldBack("full".to_owned())
}

fn declined() -> Outcome {
    Outcome::RepairFailed(Value::str("no"))
}

fn working() -> [Record; 3] {
    [sleeping(), waiting(NOW - 60_000), retrying(1, NOW)]
}

#[test]
fn a_start_makes_a_machine_or_stores_nothing() {
    let rested = tombstone(NOW, vec![]);
    for record in [None, Some(&rested)] {
        for outcome in [transient(), held_back()] {
            let reason = if outcome == transient() { "busy" } else { "full" };
            check(record, &init(), outcome, unavailable(reason), After::Same);
        }
        for outcome in [unexpected(), declined(), done(too_big())] {
            check(record, &init(), outcome, Err(Refusal::MachineFailed), After::Same);
        }
        let started = |change| decide(record, &init(), Outcome::Done { response: None, change });
        for (change, after) in [
            (appended(&["a"]), idle(None)),
            (Change::default(), idle(None)),
            (timed(super::after(5)), idle(Some(NOW + 5_000))),
            (removing(), After::Removed),
        ] {
            let decision = started(change);
            assert_eq!(decision.answer, Ok(Success::Done));
            assert_eq!(after_of(&decision), after);
        }
    }
}

#[test]
fn a_new_machine_is_blank_under_an_epoch_of_its_own() {
    let decision = decide(None, &init(), Outcome::Done { response: None, change: Change::default() });
    let blank = Record {
        commit: commit(200),
        earlier: vec![],
        epoch: commit(200),
        status: Status::Working(Phase::Idle),
        aux_state: Content { format_version: None, data: Value::empty() },
        timer: None,
        last_event: 0,
        notifications_due: None,
        handled: vec![],
        debts: vec![],
        unsent: vec![],
        outbox_due: None,
    };
    assert_eq!(decision, Decision { step: Some(only(blank)), answer: Ok(Success::Done), failure: None });
}

#[test]
fn calls_end_as_the_tables_say() {
    for record in working() {
        let (at, due) = (Some(&record), record.timer.as_ref().map(|timer| timer.due));
        check(at, &call(), done(appended(&["a"])), response(), idle(due));
        check(at, &call(), done(timed(after(1))), response(), idle(Some(NOW + 1_000)));
        check(at, &call(), done(removing()), response(), After::Removed);
        check(at, &call(), transient(), unavailable("busy"), After::Same);
        check(at, &call(), held_back(), unavailable("full"), After::Same);
        check(at, &call(), unexpected(), Err(Refusal::MachineFailed), fallen(&record, "bug"));
        // Nobody asked for a repair: such an answer is the processor's mistake.
        let mistaken = fallen(&record, "the processor declined no repair");
        check(at, &call(), declined(), Err(Refusal::MachineFailed), mistaken);
    }
}

#[test]
fn a_call_that_changes_nothing_commits_nothing() {
    for record in [sleeping(), waiting(NOW - 60_000), waiting(NOW + 60_000)] {
        let same_aux = Change { aux_state: Some(content("aux")), ..Change::default() };
        check(Some(&record), &call(), done(Change::default()), response(), After::Same);
        check(Some(&record), &call(), done(same_aux), response(), After::Same);
        let other_aux = Change { aux_state: Some(content("other")), ..Change::default() };
        assert!(decide(Some(&record), &call(), done(other_aux)).step.is_some());
    }
    let unset = done(timed(TimerChange::Unset));
    check(Some(&sleeping()), &call(), unset.clone(), response(), After::Same);
    check(Some(&waiting(NOW)), &call(), unset, response(), idle(None));
    // Out of retrying it comes by its end alone.
    check(Some(&retrying(1, NOW)), &call(), done(Change::default()), response(), idle(Some(NOW - 60_000)));
}

#[test]
fn repairs_end_as_the_tables_say() {
    for before in working() {
        let (record, due) = (failed(&before), before.timer.as_ref().map(|timer| timer.due));
        let at = Some(&record);
        // The old timer is armed again, even if its time is past.
        check(at, &repair(), done(Change::default()), response(), idle(due));
        check(at, &repair(), done(timed(TimerChange::Unset)), response(), idle(None));
        check(at, &repair(), done(timed(after(1))), response(), idle(Some(NOW + 1_000)));
        check(at, &repair(), done(removing()), response(), After::Removed);
        check(at, &repair(), declined(), Err(Refusal::RepairFailed(Value::str("no"))), After::Same);
        check(at, &repair(), transient(), unavailable("busy"), After::Same);
        check(at, &repair(), held_back(), unavailable("full"), After::Same);
        for bad in [unexpected(), done(too_big())] {
            check(at, &repair(), bad, Err(Refusal::MachineFailed), After::Same);
        }
    }
}

#[test]
fn timers_end_as_the_tables_say() {
    for record in [waiting(NOW - 60_000), retrying(0, NOW)] {
        let at = Some(&record);
        let attempt = if record.kind() == StatusKind::Waiting { 0 } else { 1 };
        // The signal took the timer with it.
        check(at, &Impact::Timeout, done(Change::default()), response(), idle(None));
        check(at, &Impact::Timeout, done(appended(&["a"])), response(), idle(None));
        check(at, &Impact::Timeout, done(timed(after(0))), response(), idle(Some(NOW)));
        check(at, &Impact::Timeout, done(removing()), response(), After::Removed);
        let at_again = NOW + 1_000 * (i64::from(attempt) + 1);
        let again = Phase::Retrying { attempt, at: at_again, since: Some(NOW) };
        let again = After::Status(Status::Working(again), Some(NOW - 60_000));
        check(at, &Impact::Timeout, transient(), unavailable("busy"), again);
        check(at, &Impact::Timeout, held_back(), unavailable("full"), After::Same);
        check(at, &Impact::Timeout, unexpected(), Err(Refusal::MachineFailed), fallen(&record, "bug"));
    }
}

#[test]
fn notifications_end_as_the_tables_say() {
    for record in working() {
        let (at, due) = (Some(&record), record.timer.as_ref().map(|timer| timer.due));
        check(at, &notified(), done(Change::default()), response(), idle(due));
        check(at, &notified(), done(timed(after(1))), response(), idle(Some(NOW + 1_000)));
        check(at, &notified(), done(removing()), response(), After::Removed);
        check(at, &notified(), transient(), unavailable("busy"), After::Status(record.status.clone(), due));
        check(at, &notified(), held_back(), unavailable("full"), After::Same);
        check(at, &notified(), unexpected(), Err(Refusal::MachineFailed), fallen(&record, "bug"));
    }
}

#[test]
fn a_simple_repair_restores_what_the_machine_was() {
    for before in working() {
        let record = failed(&before);
        let decision = decide(Some(&record), &Impact::SimpleRepair, None);
        assert_eq!(decision.answer, Ok(Success::Done));
        let step = decision.step.expect("a step");
        // Notifications may have been parked meanwhile: it looks for them.
        let expected = Record { notifications_due: Some(NOW), ..committed(before.clone(), &record) };
        assert_eq!(step, only(expected));
    }
}

#[test]
fn a_restored_timer_is_due_at_once() {
    let before = waiting(NOW - 60_000);
    let restored = next(&failed(&before), &Impact::SimpleRepair, None);
    assert_eq!(restored.timer, before.timer);
    assert_eq!(wake(&restored, NOW), Some(Wake::Timeout));
    let restored = next(&failed(&retrying(1, NOW - 5)), &Impact::SimpleRepair, None);
    assert_eq!(restored.status, Status::Working(Phase::Retrying { attempt: 1, at: NOW - 5, since: Some(NOW) }));
    assert_eq!(wake(&restored, NOW), Some(Wake::Timeout));
}

#[test]
fn a_failed_machine_keeps_all_but_its_status() {
    for (record, impact) in [(waiting(NOW), call()), (retrying(0, NOW), Impact::Timeout), (sleeping(), notified())] {
        let Status::Working(before) = record.status else { unreachable!() };
        let status = Status::Failed { reason: "bug".to_owned(), before };
        let expected = committed(Record { status, ..record.clone() }, &record);
        assert_eq!(next(&record, &impact, unexpected()), expected);
    }
}

#[test]
fn a_reason_is_kept_up_to_its_bound_and_never_cut_inside_a_character() {
    let reason = format!("a{}", "é".repeat(LONGEST_REASON));
    let Status::Failed { reason: kept, .. } = next(&sleeping(), &call(), Outcome::Unexpected(reason.clone())).status
    else {
        panic!("failed")
    };
    assert_eq!(kept.len(), LONGEST_REASON - 1);
    assert!(reason.starts_with(&kept));
}
