//! Events in their present format in the place of the old ones.

use super::*;

#[test]
fn old_events_are_replaced_and_the_machine_is_as_it_was() {
    for record in [
        sleeping(),
        waiting(NOW - 60_000),
        retrying(1, NOW),
        failed(&waiting(NOW)),
        Record { notifications_due: Some(NOW), debts: vec![debt()], ..sleeping() },
    ] {
        assert_eq!(dispatch(Some(&record), &modernize(epoch()), NOW), Dispatch::Decide);
        let decision = decide(Some(&record), &modernize(epoch()), None);
        let replaced = vec![(2, Bytes::from_static(b"modern"))];
        let step = Step { replaced, ..only(committed(record.clone(), &record)) };
        assert_eq!(decision, Decision { step: Some(step), answer: Ok(Success::Done), failure: None });
    }
}

#[test]
fn sinks_are_not_fed_again() {
    let before = Record { unsent: vec![unsent("events", vec![events(epoch(), 2, 3)])], ..sleeping() };
    for record in [sleeping(), before] {
        assert_eq!(owing(&record, &modernize(epoch()), None).unsent, record.unsent);
    }
}

#[test]
fn a_machine_started_anew_meanwhile_is_left_alone() {
    let gone = Dispatch::Answer(Err(Refusal::MachineNotFound));
    for record in [sleeping(), waiting(NOW), failed(&sleeping())] {
        assert_eq!(dispatch(Some(&record), &modernize(commit(9)), NOW), gone);
    }
    assert_eq!(dispatch(Some(&tombstone(NOW, vec![])), &modernize(epoch()), NOW), gone);
    assert_eq!(dispatch(None, &modernize(epoch()), NOW), gone);
}
