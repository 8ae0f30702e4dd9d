//! What sinks are owed: in order, merged, taken out once acknowledged, never lost over a machine's end.

use super::*;

fn other() -> Epoch {
    commit(9)
}

/// One sink's queue with these parcels.
fn queue(parcels: &[Parcel]) -> Unsent {
    unsent("events", parcels.to_vec())
}

#[test]
fn each_sink_is_owed_what_it_subscribes_to() {
    let record = owing(&sleeping(), &call(), done(appended(&["a", "b"])));
    let expected = vec![events(epoch(), 4, 5)];
    assert_eq!(record.unsent, [unsent("events", expected.clone()), unsent("both", expected)]);
    assert_eq!(unsent_events(&record), 4, "each event counts once per sink");
    let record = owing(&record, &Impact::Remove, None);
    assert_eq!(unsent_events(&record), 4);
    assert_eq!(owed(&record, "life"), [life(LifeChange::Removed)]);
    assert_eq!(owed(&record, "both"), [events(epoch(), 4, 5), life(LifeChange::Removed)]);
    assert_eq!(next(&sleeping(), &call(), done(appended(&["a"]))).unsent, [], "no sinks, no debts");
}

#[test]
fn the_events_of_steps_on_end_are_one_parcel_however_many_they_are() {
    let mut record = sleeping();
    for _ in 0..500 {
        record = owing(&record, &call(), done(appended(&["a", "b"])));
    }
    assert_eq!(owed(&record, "events"), [events(epoch(), 4, 1_003)]);
    assert!(record.encode().len() < 1_000, "{} bytes", record.encode().len());
}

#[test]
fn a_change_of_life_and_another_epoch_part_the_events() {
    let record = owing(&sleeping(), &call(), done(appended(&["a"])));
    let record = owing(&record, &call(), Outcome::Unexpected("bug".to_owned()));
    let record = owing(&record, &repair(), done(appended(&["b"])));
    let record = owing(&record, &Impact::Remove, None);
    let record = owing(&record, &init(), done(appended(&["c", "d"])));
    assert_eq!(owed(&record, "events"), [events(epoch(), 4, 5), events(commit(200), 1, 2)]);
    let expected = [
        events(epoch(), 4, 4),
        fell("bug"),
        life(LifeChange::Repaired),
        events(epoch(), 5, 5),
        life(LifeChange::Removed),
        life(LifeChange::Created),
        events(commit(200), 1, 2),
    ];
    assert_eq!(owed(&record, "both"), expected);
}

#[test]
fn an_acknowledgement_takes_out_what_stands_in_front_and_nothing_else() {
    let queued = [events(epoch(), 4, 9), life(LifeChange::Removed), events(other(), 1, 2)];
    let rest = |first| [&[events(epoch(), first, 9)], &queued[1..]].concat();
    let table = [
        ("in part", events(epoch(), 4, 5), rest(6)),
        ("all but one", events(epoch(), 4, 8), rest(9)),
        ("the whole parcel", events(epoch(), 4, 9), queued[1..].to_vec()),
        ("from before, with more", events(epoch(), 1, 5), rest(6)),
        ("from before, to the end", events(epoch(), 1, 9), queued[1..].to_vec()),
        ("from before, and past the end", events(epoch(), 1, 12), queued[1..].to_vec()),
        ("acknowledged before", events(epoch(), 1, 3), queued.to_vec()),
        // Deliveries go out one by one: what stood before it was acknowledged, though this record has forgotten it.
        ("ahead of the front", events(epoch(), 5, 8), rest(9)),
        ("of another epoch", events(other(), 4, 5), queued.to_vec()),
        ("behind the front", events(other(), 1, 2), queued.to_vec()),
        ("a change of life that is not in front", life(LifeChange::Removed), queued.to_vec()),
        ("upside down", events(epoch(), 4, 3), queued.to_vec()),
    ];
    for (name, sent, expected) in table {
        let mut unsent = queue(&queued);
        unsent.acknowledge(&sent);
        assert_eq!(unsent.parcels, expected, "{name}");
        if expected != queued {
            // The same answer twice takes nothing more.
            unsent.acknowledge(&sent);
            assert_eq!(unsent.parcels, expected, "{name}, twice");
        }
    }
    let mut unsent = queue(&queued[1..]);
    unsent.acknowledge(&Parcel::Lifecycle(Lifecycle { at_micros: 1, change: LifeChange::Removed }));
    assert_eq!(unsent.parcels, queued[1..], "an earlier one of its kind");
    for expected in [&queued[2..], &queued[2..]] {
        unsent.acknowledge(&life(LifeChange::Removed));
        assert_eq!(unsent.parcels, expected);
    }
}

#[test]
fn what_was_sent_before_more_was_added_to_its_parcel_is_acknowledged_in_part() {
    let mut record = owing(&sleeping(), &call(), done(appended(&["a", "b"])));
    let sent = owed(&record, "events")[0].clone();
    record = owing(&record, &call(), done(appended(&["c"])));
    record.acknowledge("events", &sent);
    assert_eq!(owed(&record, "events"), [events(epoch(), 6, 6)]);
    assert_eq!(owed(&record, "both"), [events(epoch(), 4, 6)], "another sink's is its own");
    // And grows on from there.
    let record = owing(&record, &call(), done(appended(&["d"])));
    assert_eq!(owed(&record, "events"), [events(epoch(), 6, 7)]);
}

#[test]
fn an_acknowledgement_to_nobody_is_harmless() {
    let mut record = owing(&sleeping(), &call(), done(appended(&["a"])));
    let before = record.clone();
    record.acknowledge("life", &events(epoch(), 4, 4));
    record.acknowledge("elsewhere", &events(epoch(), 4, 4));
    assert_eq!(record, before);
    record.acknowledge("events", &events(epoch(), 4, 4));
    record.acknowledge("events", &events(epoch(), 4, 4));
    assert_eq!(record.unsent, [unsent("both", vec![events(epoch(), 4, 4)])]);
}

#[test]
fn a_sink_that_is_no_longer_configured_is_owed_on() {
    let gone = unsent("gone", vec![events(epoch(), 2, 3), fell("why")]);
    let record = Record { unsent: vec![gone.clone()], outbox_due: Some(NOW), ..sleeping() };
    let stepped = owing(&record, &call(), done(appended(&["a"])));
    let removed = owing(&stepped, &Impact::Remove, None);
    let started = owing(&removed, &init(), done(appended(&["a"])));
    for record in [stepped, removed, started] {
        assert_eq!(owed(&record, "gone"), gone.parcels, "as it was, and nothing more");
        assert_eq!(Record::decode(&record.encode()), Ok(record));
    }
}

#[test]
fn a_record_that_owes_is_due_within_an_interval_of_each_commit_and_rarely_moves_its_due() {
    let record = owing(&sleeping(), &call(), done(appended(&["a"])));
    assert_eq!((record.outbox_due, record.due()), (Some(NOW + OUTBOX_CLEAR_MS), Some(NOW + OUTBOX_CLEAR_MS)));
    let later = |at: i64| {
        let done = done(timed(after(1))).into();
        let step = apply(Some(&record), &call(), &context("c"), done, &sinks(), stamp(NOW + at)).step;
        step.expect("a step").record.expect("a record")
    };
    for (at, due) in [
        (5, OUTBOX_CLEAR_MS),
        (OUTBOX_CLEAR_MS / 2, OUTBOX_CLEAR_MS),
        (OUTBOX_CLEAR_MS / 2 + 1, OUTBOX_CLEAR_MS / 2 + 1 + OUTBOX_CLEAR_MS),
        (2 * OUTBOX_CLEAR_MS, 3 * OUTBOX_CLEAR_MS),
        // The clock was set back.
        (-5, OUTBOX_CLEAR_MS - 5),
    ] {
        assert_eq!(later(at).outbox_due, Some(NOW + due), "{at} ms later");
    }
    // The next commit tells the store what was acknowledged: nothing is left to look for.
    let mut quiet = later(5);
    for sink in ["events", "both"] {
        quiet.acknowledge(sink, &events(epoch(), 4, 4));
    }
    assert_eq!(quiet.outbox_due, Some(NOW + OUTBOX_CLEAR_MS), "the store does not know yet");
    let quiet = next(&quiet, &call(), done(timed(after(2))));
    assert_eq!((quiet.outbox_due, quiet.unsent), (None, vec![]));
}

#[test]
fn a_call_that_changes_nothing_commits_nothing_though_something_is_unsent() {
    let mut record = owing(&sleeping(), &call(), done(appended(&["a"])));
    for _ in 0..2 {
        assert_eq!(subscribed(Some(&record), &call(), done(Change::default())).step, None);
        record.acknowledge("events", &events(epoch(), 4, 4));
    }
}

#[test]
fn what_was_acknowledged_is_noted_also_in_part() {
    let ignored = Dispatch::Answer(Ok(Success::Done));
    for record in [sleeping(), failed(&sleeping()), tombstone(NOW - 5, vec![])] {
        assert_eq!(dispatch(Some(&record), &Impact::Acknowledged, NOW), ignored, "nothing to note");
        let mut record =
            Record { unsent: vec![queue(&[events(epoch(), 3, 3)])], outbox_due: Some(NOW), ..record.clone() };
        assert_eq!(
            dispatch(Some(&record), &Impact::Acknowledged, NOW),
            Dispatch::Decide,
            "what is left is looked at later"
        );
        let looked = owing(&record, &Impact::Acknowledged, None);
        assert_eq!((looked.unsent, looked.status), (record.unsent.clone(), record.status.clone()));
        assert!(looked.outbox_due > Some(NOW));
        record.acknowledge("events", &events(epoch(), 3, 3));
        assert_eq!(dispatch(Some(&record), &Impact::Acknowledged, NOW), Dispatch::Decide);
        let noted = owing(&record, &Impact::Acknowledged, None);
        let status = if record.exists() { record.status.clone() } else { Status::Removed { at: NOW } };
        assert_eq!(noted, committed(Record { outbox_due: None, status, ..record.clone() }, &record));
    }
}

#[test]
fn events_that_a_sink_wants_are_deleted_only_once_the_store_knows_that_none_does() {
    let record = owing(&sleeping(), &call(), done(appended(&["a"])));
    let mut removed = owing(&record, &Impact::Remove, None);
    let ignored = Dispatch::Answer(Ok(Success::Done));
    assert_eq!(removed.debts, [Debt { epoch: epoch(), last_event: 4, wanted: true }]);
    for _ in 0..2 {
        assert_eq!((removed.payable().count(), dispatch(Some(&removed), &paid(), NOW)), (0, ignored.clone()));
        // Acknowledged in memory alone: a crash would bring the old record back, and with it the wish to read them.
        removed.unsent.clear();
    }
    let noted = owing(&removed, &Impact::Acknowledged, None);
    assert_eq!(noted.debts, [Debt { epoch: epoch(), last_event: 4, wanted: false }]);
    assert_eq!(wake(&noted, NOW), Some(Wake::Pay));
    assert_eq!(dispatch(Some(&noted), &paid(), NOW), Dispatch::Decide);
}

#[test]
fn changes_of_life_and_other_epochs_events_keep_no_deletion_waiting() {
    let removed = owing(&sleeping(), &Impact::Remove, None);
    assert!(!removed.unsent.is_empty());
    assert_eq!(removed.payable().collect::<Vec<_>>(), [&debt()]);
    let started = owing(&removed, &init(), done(appended(&["a"])));
    assert_eq!(started.payable().collect::<Vec<_>>(), [&debt()]);
}

#[test]
fn only_the_epochs_that_were_deleted_are_paid() {
    let older = Debt { epoch: other(), last_event: 7, wanted: false };
    let held = unsent("events", vec![events(commit(8), 1, 1)]);
    let wanted = Debt { epoch: commit(8), last_event: 1, wanted: true };
    let record = Record { debts: vec![older, debt(), wanted], unsent: vec![held], ..tombstone(NOW - 9, vec![]) };
    for record in [record.clone(), Record { epoch: commit(7), ..Record { debts: record.debts, ..sleeping() } }] {
        let impact = Impact::Paid { epochs: vec![other(), commit(8)] };
        assert_eq!(dispatch(Some(&record), &impact, NOW), Dispatch::Decide);
        let record = Record { unsent: vec![unsent("events", vec![events(commit(8), 1, 1)])], ..record };
        assert_eq!(owing(&record, &impact, None).debts, [debt(), wanted]);
    }
}

#[test]
fn a_tombstone_is_forgotten_only_once_all_is_paid_and_acknowledged_and_stored_so() {
    let rested = tombstone(NOW - TOMBSTONE_REST_MS, vec![]);
    let unsent = vec![queue(&[life(LifeChange::Removed)])];
    let table = [
        (rested.clone(), true),
        (Record { outbox_due: Some(NOW), ..rested.clone() }, false),
        (Record { unsent: unsent.clone(), ..rested.clone() }, false),
        (Record { unsent, outbox_due: Some(NOW), ..rested.clone() }, false),
        (Record { debts: vec![debt()], ..rested.clone() }, false),
        (Record { debts: vec![Debt { wanted: true, ..debt() }], ..rested }, false),
        (Record { outbox_due: Some(NOW), ..sleeping() }, false),
    ];
    for (record, goes) in table {
        let expected = if goes { Dispatch::Decide } else { Dispatch::Answer(Ok(Success::Done)) };
        assert_eq!(dispatch(Some(&record), &Impact::Forget, NOW), expected, "{record:?}");
        assert_eq!(wake(&record, NOW) == Some(Wake::Forget), goes, "{record:?}");
    }
}
