//! Who may do what in which status.

use super::*;

/// Each status, and each time at which it matters.
fn machines() -> Vec<(&'static str, Option<Record>)> {
    vec![
        ("none", None),
        ("sleeping", Some(sleeping())),
        ("waiting", Some(waiting(NOW + 1))),
        ("waiting, due", Some(waiting(NOW))),
        ("retrying", Some(retrying(0, NOW + 1))),
        ("retrying, due", Some(retrying(0, NOW))),
        ("failed", Some(failed(&waiting(NOW)))),
        ("tombstone, owing", Some(tombstone(NOW - 2 * TOMBSTONE_REST_MS, vec![debt()]))),
        ("tombstone, resting", Some(tombstone(NOW - TOMBSTONE_REST_MS + 1, vec![]))),
        ("tombstone, rested", Some(tombstone(NOW - TOMBSTONE_REST_MS, vec![]))),
    ]
}

fn letter(dispatch: &Dispatch) -> char {
    match dispatch {
        Dispatch::Ask => 'A',
        Dispatch::Decide => 'D',
        Dispatch::Discard => 'X',
        Dispatch::Park => 'P',
        Dispatch::Answer(Ok(Success::Done)) => 'o',
        Dispatch::Answer(Err(Refusal::MachineNotFound)) => 'N',
        Dispatch::Answer(Err(Refusal::MachineAlreadyExists)) => 'E',
        Dispatch::Answer(Err(Refusal::MachineFailed)) => 'F',
        Dispatch::Answer(Err(Refusal::MachineAlreadyWorking)) => 'W',
        Dispatch::Answer(other) => panic!("no such answer in the table: {other:?}"),
    }
}

#[test]
fn the_dispatch_table_holds_for_every_impact_in_every_status() {
    // The columns are `machines`, in their order.
    let table = [
        (init(), "A EEEEE E AAA"),
        (call(), "N AAAAA F NNN"),
        (repair(), "N WWWWW A NNN"),
        (Impact::SimpleRepair, "N WWWWW D NNN"),
        (Impact::Remove, "N DDDDD D NNN"),
        (Impact::Timeout, "o ooAoA o ooo"),
        (notified(), "X AAAAA P XXX"),
        // Handled before, and of an earlier machine of the same id.
        (notification(41, epoch()), "X XXXXX X XXX"),
        (notification(50, commit(9)), "X XXXXX X XXX"),
        (Impact::Drained, "o ooooo o ooo"),
        (paid(), "o ooooo o Doo"),
        (Impact::Paid { epochs: vec![commit(9)] }, "o ooooo o ooo"),
        (Impact::Acknowledged, "o ooooo o ooo"),
        (modernize(epoch()), "N DDDDD D NNN"),
        (modernize(commit(9)), "N NNNNN N NNN"),
        (Impact::Modernize { epoch: epoch(), events: vec![] }, "N ooooo o NNN"),
        (Impact::Forget, "o ooooo o ooD"),
    ];
    for (impact, row) in table {
        let row: Vec<char> = row.chars().filter(|letter| *letter != ' ').collect();
        let machines = machines();
        assert_eq!(row.len(), machines.len());
        for ((name, record), expected) in machines.iter().zip(row) {
            let found = letter(&dispatch(record.as_ref(), &impact, NOW));
            assert_eq!(found, expected, "{} of a machine that is: {name}", impact.name());
        }
    }
}

#[test]
fn a_machine_started_over_a_tombstone_pays_its_predecessors_debts_in_any_status() {
    for record in [sleeping(), waiting(NOW), retrying(0, NOW), failed(&sleeping())] {
        let record = Record { debts: vec![Debt { epoch: commit(9), last_event: 7, wanted: false }], ..record };
        let impact = Impact::Paid { epochs: vec![commit(9)] };
        assert_eq!(dispatch(Some(&record), &impact, NOW), Dispatch::Decide);
        let paid = next(&record, &impact, None);
        assert_eq!(paid, committed(Record { debts: vec![], ..record.clone() }, &record));
    }
}

#[test]
fn drained_is_noted_only_by_a_record_that_stood_for_waiting_notifications() {
    for record in [sleeping(), waiting(NOW), retrying(0, NOW), failed(&sleeping())] {
        let record = Record { notifications_due: Some(NOW), ..record };
        assert_eq!(dispatch(Some(&record), &Impact::Drained, NOW), Dispatch::Decide);
        let drained = next(&record, &Impact::Drained, None);
        assert_eq!(drained, committed(Record { notifications_due: None, ..record.clone() }, &record));
    }
}

#[test]
fn apply_never_pretends_that_something_was_done_without_its_processor() {
    for impact in [call(), repair(), Impact::Timeout, notified()] {
        let decision = decide(Some(&sleeping()), &impact, None);
        assert_eq!(decision.step, None);
        assert!(matches!(decision.answer, Err(Refusal::Unavailable(_))), "{}", impact.name());
    }
    for record in [None, Some(tombstone(NOW, vec![debt()]))] {
        for impact in [call(), repair(), Impact::Timeout, notified()] {
            let decision = decide(record.as_ref(), &impact, done(appended(&["a"])));
            let expected = Decision { step: None, answer: Err(Refusal::MachineNotFound), failure: None };
            assert_eq!(decision, expected, "{}", impact.name());
        }
    }
}
