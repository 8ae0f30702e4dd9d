//! Tombstones and what they owe.

use super::*;

#[test]
fn any_status_can_be_removed() {
    for record in [sleeping(), waiting(NOW), retrying(1, NOW), failed(&waiting(NOW))] {
        let record = Record { notifications_due: Some(NOW), ..record };
        let decision = decide(Some(&record), &Impact::Remove, None);
        assert_eq!(decision.answer, Ok(Success::Done));
        let expected = committed(tombstone(NOW, vec![debt()]), &record);
        assert_eq!(decision.step, Some(only(expected)));
    }
}

#[test]
fn removal_wins_over_the_timer_and_the_events_of_the_step_are_kept() {
    let change = Change {
        aux_state: Some(content("new")),
        action: Action { timer: Some(after(5)), remove: true, tag: None },
        ..appended(&["a", "b"])
    };
    for (record, impact) in [
        (sleeping(), call()),
        (waiting(NOW), Impact::Timeout),
        (sleeping(), notified()),
        (failed(&waiting(NOW)), repair()),
    ] {
        let decision = decide(Some(&record), &impact, done(change.clone()));
        assert_eq!(decision.answer, response());
        let step = decision.step.expect("a step");
        assert_eq!(step.events.iter().map(|event| decode(event).id).collect::<Vec<_>>(), [4, 5]);
        let owed = vec![Debt { epoch: epoch(), last_event: 5, wanted: false }];
        let expected = committed(Record { last_event: 5, ..tombstone(NOW, owed) }, &record);
        assert_eq!(step.record, Some(expected));
    }
}

#[test]
fn a_start_that_removes_leaves_a_tombstone_that_owes_its_events() {
    let change = Change { events: vec![content("a")], ..removing() };
    let decision = decide(None, &init(), Outcome::Done { response: None, change });
    assert_eq!(decision.answer, Ok(Success::Done));
    let step = decision.step.expect("a step");
    assert_eq!(step.events.len(), 1);
    let record = step.record.expect("a record");
    assert!(!record.exists());
    assert_eq!(record.debts, [Debt { epoch: commit(200), last_event: 1, wanted: false }]);
}

#[test]
fn a_start_over_a_tombstone_begins_an_epoch_and_carries_the_old_debts() {
    let old = tombstone(NOW - 5, vec![debt(), Debt { epoch: commit(9), last_event: 7, wanted: false }]);
    let record = next(&old, &init(), Outcome::Done { response: None, change: appended(&["a"]) });
    assert_eq!(record.epoch, commit(200));
    assert_eq!(record.debts, old.debts);
    assert_eq!(record.earlier, old.history_of_commits(), "a lost answer about the removal is still recognised");
    assert_eq!(wake(&record, NOW), Some(Wake::Pay));
    // Removed again before they are paid: both are owed.
    let record = Record { commit: commit(8), ..record };
    let again = next(&record, &Impact::Remove, None);
    let own = Debt { epoch: commit(200), last_event: 1, wanted: false };
    assert_eq!(again.debts, [old.debts[0], old.debts[1], own]);
}

#[test]
fn a_refused_start_leaves_the_tombstone_as_it_is() {
    let old = tombstone(NOW, vec![debt()]);
    for outcome in [Outcome::Transient("busy".to_owned()), Outcome::Unexpected("bug".to_owned()), done(too_big())] {
        assert_eq!(decide(Some(&old), &init(), outcome).step, None);
    }
}

#[test]
fn a_tombstone_rests_a_day_after_it_paid_and_then_goes() {
    let removed = next(&sleeping(), &Impact::Remove, None);
    assert_eq!(wake(&removed, NOW), Some(Wake::Pay));
    let later = NOW + 5_000;
    let decision = apply(Some(&removed), &paid(), &context("c"), None, &policy(), stamp(later));
    let paid_off = decision.step.expect("a step").record.expect("a record");
    assert_eq!((&paid_off.status, &paid_off.debts), (&Status::Removed { at: later }, &vec![]));
    let rested = later + TOMBSTONE_REST_MS;
    assert_eq!(paid_off.due(), Some(rested));
    assert_eq!((wake(&paid_off, rested - 1), wake(&paid_off, rested)), (None, Some(Wake::Forget)));
    let decision = decide(Some(&paid_off), &Impact::Forget, None);
    let gone = Step { record: None, ..only(paid_off.clone()) };
    assert_eq!(decision, Decision { step: Some(gone), answer: Ok(Success::Done), failure: None });
}

#[test]
fn a_tombstone_that_owes_is_never_forgotten() {
    let record = tombstone(NOW - 10 * TOMBSTONE_REST_MS, vec![debt()]);
    assert_eq!(wake(&record, NOW), Some(Wake::Pay));
    assert_eq!(dispatch(Some(&record), &Impact::Forget, NOW), Dispatch::Answer(Ok(Success::Done)));
}
