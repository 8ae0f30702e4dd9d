//! Notifications: in order, once, parked while the machine is failed.

use super::*;

#[test]
fn a_notification_that_took_effect_is_noted_and_recognised() {
    let decision = decide(Some(&sleeping()), &notified(), done(Change::default()));
    let step = decision.step.expect("a step");
    assert_eq!(step.handled, Some(50));
    let record = step.record.expect("a record");
    assert_eq!(record.handled, [40, 41, 50]);
    assert_eq!(dispatch(Some(&record), &notified(), NOW), Dispatch::Discard);
    assert_eq!(dispatch(Some(&record), &notification(51, epoch()), NOW), Dispatch::Ask);
}

#[test]
fn the_notes_are_bounded_and_the_newest_stay() {
    let mut record = sleeping();
    for id in 100..150 {
        record = next(&record, &notification(id, epoch()), done(Change::default()));
    }
    assert_eq!(record.handled, (142..150).collect::<Vec<_>>());
    assert_eq!(record.handled.len(), KEPT_NOTES);
}

#[test]
fn one_that_fails_is_not_noted_and_its_entry_stays() {
    for outcome in [Outcome::Transient("busy".to_owned()), Outcome::Unexpected("bug".to_owned()), done(too_big())] {
        let step = decide(Some(&sleeping()), &notified(), outcome).step.expect("a step");
        assert_eq!((step.handled, step.events), (None, vec![]));
        assert_eq!(step.record.expect("a record").handled, [40, 41]);
    }
}

#[test]
fn one_that_fails_for_the_moment_holds_back_the_later_ones() {
    for notifications_due in [None, Some(NOW - 1), Some(NOW + 1)] {
        for record in [sleeping(), waiting(NOW + 90_000), retrying(0, NOW + 90_000)] {
            let record = Record { notifications_due, ..record };
            let held = next(&record, &notified(), Outcome::Transient("busy".to_owned()));
            let notifications_due = Some(NOW + NOTIFICATION_RETRY_MS);
            assert_eq!(held, committed(Record { notifications_due, ..record.clone() }, &record));
            assert_eq!(held.due(), notifications_due);
        }
    }
}

#[test]
fn a_record_that_stands_for_waiting_ones_looks_again_until_none_is_found() {
    let looked = |due| {
        let record = Record { notifications_due: due, ..sleeping() };
        next(&record, &notified(), done(Change::default())).notifications_due
    };
    assert_eq!(looked(None), None);
    assert_eq!(looked(Some(NOW - 1)), Some(NOW));
    assert_eq!(looked(Some(NOW + 1)), Some(NOW));
}

#[test]
fn other_steps_leave_the_time_of_the_waiting_ones_alone() {
    let record = Record { notifications_due: Some(NOW + 5), ..waiting(NOW) };
    for impact in [call(), Impact::Timeout] {
        let next = next(&record, &impact, done(appended(&["a"])));
        assert_eq!(next.notifications_due, Some(NOW + 5));
    }
}

#[test]
fn while_the_machine_is_failed_they_are_parked_and_every_repair_looks_for_them() {
    for notifications_due in [None, Some(NOW - 5)] {
        let record = Record { notifications_due, ..failed(&sleeping()) };
        assert_eq!(dispatch(Some(&record), &notified(), NOW), Dispatch::Park);
        assert_eq!((record.due(), wake(&record, NOW)), (None, None));
        for repaired in [next(&record, &Impact::SimpleRepair, None), next(&record, &repair(), done(Change::default()))]
        {
            assert_eq!(repaired.notifications_due, Some(NOW));
            assert_eq!(wake(&repaired, NOW), Some(Wake::Notifications));
        }
    }
}

#[test]
fn a_removed_machine_waits_for_none() {
    let record = Record { notifications_due: Some(NOW), ..failed(&sleeping()) };
    assert_eq!(next(&record, &repair(), done(removing())).notifications_due, None);
    let record = Record { notifications_due: Some(NOW), ..sleeping() };
    let step = decide(Some(&record), &notified(), done(removing())).step.expect("a step");
    assert_eq!(step.handled, Some(50), "its entry goes all the same");
    let record = step.record.expect("a record");
    assert_eq!((record.notifications_due, record.handled.as_slice()), (None, [].as_slice()));
}
