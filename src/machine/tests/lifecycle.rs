//! Changes of life: which a step tells of, and in which order among its events.

use super::*;

fn created() -> Parcel {
    life(LifeChange::Created)
}

fn repaired() -> Parcel {
    life(LifeChange::Repaired)
}

fn removed() -> Parcel {
    life(LifeChange::Removed)
}

fn tagged(change: Change) -> Change {
    Change { action: Action { tag: Some(Bytes::from_static(b"tag")), ..change.action }, ..change }
}

fn unexpected() -> Outcome {
    Outcome::Unexpected("bug".to_owned())
}

const TAKEN: &str = "double_tagging: the tag belongs to another machine";

/// What the step owes the sink for both; the others are owed their share of it in the same order.
#[track_caller]
fn check(record: Option<&Record>, impact: &Impact, outcome: Option<Outcome>, taken: bool, expected: &[Parcel]) {
    let stamp = Stamp { tag_taken: taken, ..stamp(NOW) };
    let step = apply(record, impact, &context("c"), outcome, &sinks(), stamp).step;
    let about = format!("{} of {record:?}", impact.name());
    let Some(next) = step.and_then(|step| step.record) else { return assert_eq!(expected, [], "{about}") };
    assert_eq!(owed(&next, "both"), expected, "{about}");
    let (lives, events): (Vec<_>, Vec<_>) =
        expected.iter().cloned().partition(|parcel| matches!(parcel, Parcel::Lifecycle(_)));
    assert_eq!((owed(&next, "life"), owed(&next, "events")), (lives, events), "{about}");
}

#[test]
fn a_machine_is_created_once_before_its_first_event() {
    let own = || events(commit(200), 1, 2);
    let two = || appended(&["a", "b"]);
    let old = tombstone(NOW, vec![]);
    for record in [None, Some(&old)] {
        check(record, &init(), Some(done(Change::default())), false, &[created()]);
        check(record, &init(), Some(done(two())), false, &[created(), own()]);
        let gone = Change { action: removing().action, ..two() };
        check(record, &init(), Some(done(gone)), false, &[created(), own(), removed()]);
        check(record, &init(), Some(done(tagged(two()))), true, &[created(), own(), fell(TAKEN)]);
    }
}

#[test]
fn a_start_that_fails_tells_nothing_since_nothing_exists() {
    let old = tombstone(NOW, vec![]);
    for record in [None, Some(&old)] {
        for outcome in [unexpected(), done(too_big()), Outcome::Transient("busy".to_owned())] {
            check(record, &init(), Some(outcome), false, &[]);
        }
    }
}

#[test]
fn a_working_machine_fails_once_and_its_steps_tell_of_nothing_else() {
    let exhausted = retrying(1, NOW);
    let busy = || Outcome::Transient("busy".to_owned());
    let reason = "timer_retries_exhausted after 2 retries, the last for: busy";
    check(Some(&exhausted), &Impact::Timeout, Some(busy()), false, &[fell(reason)]);
    check(Some(&waiting(NOW)), &Impact::Timeout, Some(busy()), false, &[]);
    for (record, impact) in [(sleeping(), call()), (waiting(NOW), Impact::Timeout), (sleeping(), notified())] {
        check(Some(&record), &impact, Some(unexpected()), false, &[fell("bug")]);
        check(Some(&record), &impact, Some(done(appended(&["a"]))), false, &[events(epoch(), 4, 4)]);
        let expected = [events(epoch(), 4, 4), fell(TAKEN)];
        check(Some(&record), &impact, Some(done(tagged(appended(&["a"])))), true, &expected);
        let expected = [events(epoch(), 4, 4), removed()];
        let gone = Change { action: removing().action, ..appended(&["a"]) };
        check(Some(&record), &impact, Some(done(gone)), false, &expected);
    }
}

#[test]
fn both_repairs_tell_of_it_before_the_events_that_they_bring() {
    for before in [sleeping(), waiting(NOW), retrying(0, NOW)] {
        let record = failed(&before);
        let at = Some(&record);
        check(at, &Impact::SimpleRepair, None, false, &[repaired()]);
        check(at, &repair(), Some(done(Change::default())), false, &[repaired()]);
        let expected = [repaired(), events(epoch(), 4, 4)];
        check(at, &repair(), Some(done(appended(&["a"]))), false, &expected);
        // It took effect, and the machine failed again.
        let expected = [repaired(), events(epoch(), 4, 4), fell(TAKEN)];
        check(at, &repair(), Some(done(tagged(appended(&["a"])))), true, &expected);
        // Only its end is a change to one who knew it as failed.
        let gone = Change { action: removing().action, ..appended(&["a"]) };
        check(at, &repair(), Some(done(gone)), false, &[events(epoch(), 4, 4), removed()]);
    }
}

#[test]
fn a_repair_without_effect_tells_nothing() {
    let record = failed(&sleeping());
    for outcome in [unexpected(), done(too_big()), Outcome::RepairFailed(Value::nil())] {
        check(Some(&record), &repair(), Some(outcome), false, &[]);
    }
}

#[test]
fn a_machine_that_fails_again_for_the_same_reason_has_not_changed() {
    let tag = Some(done(tagged(appended(&["a"]))));
    let stamp = Stamp { tag_taken: true, ..stamp(NOW) };
    let step = apply(Some(&sleeping()), &call(), &context("c"), tag.clone(), &policy(), stamp).step.expect("a step");
    let record = step.record.expect("a record");
    check(Some(&record), &repair(), tag, true, &[events(epoch(), 5, 5)]);
}

#[test]
fn whatever_its_status_a_machine_is_removed_once() {
    for record in [sleeping(), waiting(NOW), retrying(0, NOW), failed(&sleeping())] {
        check(Some(&record), &Impact::Remove, None, false, &[removed()]);
    }
}

#[test]
fn housekeeping_changes_no_life() {
    let records = [sleeping(), failed(&sleeping()), tombstone(NOW - 9, vec![])];
    for record in records.map(|record| Record { notifications_due: Some(NOW), outbox_due: Some(NOW), ..record }) {
        let record = Record { debts: vec![debt()], ..record };
        for impact in [paid(), Impact::Acknowledged, Impact::Drained, modernize(epoch())] {
            if dispatch(Some(&record), &impact, NOW) == Dispatch::Decide {
                check(Some(&record), &impact, None, false, &[]);
            }
        }
    }
}

#[test]
fn a_change_of_life_carries_the_time_of_its_step_to_the_microsecond() {
    let stamp = Stamp { now_micros: NOW * 1_000 + 7, ..stamp(NOW) };
    let decision = apply(Some(&sleeping()), &Impact::Remove, &context("c"), None, &sinks(), stamp);
    let record = decision.step.expect("a step").record.expect("a record");
    let expected = Lifecycle { at_micros: NOW * 1_000 + 7, change: LifeChange::Removed };
    assert_eq!(owed(&record, "life"), [Parcel::Lifecycle(expected)]);
}

#[test]
fn reasons_that_wait_for_a_sink_are_cut_down_past_their_bound() {
    let reason = "é".repeat(LONGEST_REASON);
    let mut record = sleeping();
    let mut lengths = Vec::new();
    for _ in 0..8 {
        record = owing(&record, &call(), Outcome::Unexpected(reason.clone()));
        let Some(Parcel::Lifecycle(Lifecycle { change: LifeChange::Failed { reason }, .. })) =
            owed(&record, "life").pop()
        else {
            panic!("a failure is told")
        };
        lengths.push(reason.len());
        record = owing(&record, &Impact::SimpleRepair, None);
    }
    assert_eq!(lengths, [4096, 4096, 4096, 4096, 64, 64, 64, 64]);
    // The record itself shows it whole.
    let record = owing(&record, &call(), Outcome::Unexpected(reason));
    assert!(matches!(record.status, Status::Failed { reason, .. } if reason.len() == LONGEST_REASON));
}

#[test]
fn while_a_sink_is_down_no_life_begins_past_the_bound_and_the_record_stays_small() {
    let reason = "x".repeat(LONGEST_REASON);
    let mut record = sleeping();
    while dispatch(Some(&record), &Impact::SimpleRepair, NOW) != hindered() {
        record = owing(&record, &call(), Outcome::Unexpected(reason.clone()));
        if dispatch(Some(&record), &Impact::SimpleRepair, NOW) == Dispatch::Decide {
            record = owing(&record, &Impact::SimpleRepair, None);
        }
    }
    assert!(owed(&record, "life").len() <= MOST_PARCELS + 1);
    assert!(record.encode().len() < 256 * 1024, "{}", record.encode().len());
    assert_eq!(dispatch(Some(&record), &repair(), NOW), hindered());
    // It can still be removed, and what has ended does not begin anew.
    assert_eq!(dispatch(Some(&record), &Impact::Remove, NOW), Dispatch::Decide);
    let gone = owing(&record, &Impact::Remove, None);
    assert_eq!(dispatch(Some(&gone), &init(), NOW), hindered());
    // Once the sink takes something, all goes on.
    let mut freed = record;
    while dispatch(Some(&freed), &repair(), NOW) == hindered() {
        for sink in ["life", "both"] {
            let front = owed(&freed, sink)[0].clone();
            freed.acknowledge(sink, &front);
        }
    }
    assert_eq!(dispatch(Some(&freed), &repair(), NOW), Dispatch::Ask);
}

fn hindered() -> Dispatch {
    let reason = "event_sink_unavailable: the machine owes life 1000 parcels, the most there may be";
    Dispatch::Answer(unavailable(reason))
}
