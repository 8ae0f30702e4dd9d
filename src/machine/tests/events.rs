//! New events, the aux state, and how much of both one step may bring.

use super::*;

fn decoded(decision: &Decision) -> Vec<Event> {
    decision.step.as_ref().expect("a step").events.iter().map(decode).collect()
}

#[test]
fn events_are_numbered_on_from_the_last() {
    let decision = decide(Some(&sleeping()), &call(), done(appended(&["a", "b", "c"])));
    let expected: Vec<Event> = [(4, "a"), (5, "b"), (6, "c")]
        .into_iter()
        .map(|(id, text)| Event {
            id,
            created_at: Bytes::from_static(b"2023-11-14T22:13:20Z"),
            format_version: Some(3),
            data: Value::str(text),
        })
        .collect();
    assert_eq!(decoded(&decision), expected);
    assert_eq!(decision.step.expect("a step").record.expect("a record").last_event, 6);
}

#[test]
fn a_machines_first_event_is_number_one_also_over_a_tombstone() {
    for record in [None, Some(tombstone(NOW, vec![debt()]))] {
        let decision = decide(record.as_ref(), &init(), done(appended(&["a", "b"])));
        assert_eq!(decoded(&decision).iter().map(|event| event.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(decision.step.expect("a step").record.expect("a record").last_event, 2);
    }
}

#[test]
fn a_step_without_events_leaves_the_number_alone() {
    let record = next(&sleeping(), &call(), done(timed(after(1))));
    assert_eq!(record.last_event, 3);
}

#[test]
fn created_at_has_the_shortest_of_no_three_or_six_fraction_digits() {
    for (micros, text) in [
        (1_700_000_000_000_000, "2023-11-14T22:13:20Z"),
        (1_700_000_000_123_000, "2023-11-14T22:13:20.123Z"),
        (1_700_000_000_120_000, "2023-11-14T22:13:20.120Z"),
        (1_700_000_000_123_456, "2023-11-14T22:13:20.123456Z"),
        (1_700_000_000_000_001, "2023-11-14T22:13:20.000001Z"),
        (1_700_000_000_100_100, "2023-11-14T22:13:20.100100Z"),
    ] {
        let stamp = Stamp { now_micros: micros, ..stamp(0) };
        let outcome = Some(done(appended(&["a"])));
        let decision = apply(Some(&sleeping()), &call(), &context("c"), outcome, &policy(), stamp);
        assert_eq!(decoded(&decision)[0].created_at, text);
    }
}

#[test]
fn an_event_is_stored_as_its_wire_encoding_to_the_byte() {
    let events = vec![
        Content { format_version: None, data: Value::array(&[Value::nil(), Value::object(&[])]) },
        Content { format_version: Some(-1), data: Value::bin(&[0, 255]) },
    ];
    let decision = decide(Some(&sleeping()), &call(), done(Change { events: events.clone(), ..Change::default() }));
    for (stored, content) in decision.step.expect("a step").events.iter().zip(events) {
        let event = decode(stored);
        assert_eq!((event.format_version, &event.data), (content.format_version, &content.data));
        let mut writer = crate::wire::Writer::default();
        event.write(&mut writer);
        assert_eq!(writer.into_bytes(), *stored);
    }
}

#[test]
fn an_aux_state_replaces_the_last_one_and_an_absent_one_keeps_it() {
    let kept = next(&sleeping(), &call(), done(appended(&["a"])));
    assert_eq!(kept.aux_state, content("aux"));
    for aux in [content("new"), Content { format_version: None, data: Value::nil() }] {
        let change = Change { aux_state: Some(aux.clone()), ..Change::default() };
        assert_eq!(next(&sleeping(), &call(), done(change)).aux_state, aux);
    }
    let unversioned = Content { format_version: None, ..content("aux") };
    let change = Change { aux_state: Some(unversioned.clone()), ..Change::default() };
    assert_eq!(next(&sleeping(), &call(), done(change)).aux_state, unversioned);
}

#[test]
fn a_kept_aux_state_holds_no_answer_in_memory() {
    let answer = Bytes::from([vec![0; 100], Value::str("aux 2").as_bytes().to_vec()].concat());
    let data = Value::from_stored(answer.slice(100..));
    let change = Change { aux_state: Some(Content { format_version: None, data }), ..Change::default() };
    let record = next(&sleeping(), &call(), done(change));
    assert_eq!(record.aux_state.data, Value::str("aux 2"));
    assert!(answer.is_unique());
}

/// A change of exactly `size` bytes as the limit counts them: one event and an aux state.
fn change_of(size: usize) -> Change {
    let probe = decide(Some(&sleeping()), &call(), done(appended(&[""])));
    let event = probe.step.expect("a step").events[0].len();
    let aux = Value::str("aux!");
    let text = "x".repeat(size - event - aux.as_bytes().len());
    Change { aux_state: Some(Content { format_version: None, data: aux }), ..appended(&[&text]) }
}

#[test]
fn a_step_may_be_as_big_as_the_limit_and_no_bigger() {
    let fits = decide(Some(&sleeping()), &call(), done(change_of(STEP_SIZE)));
    assert_eq!(fits.answer, response());
    for (record, impact) in [(sleeping(), call()), (waiting(NOW), Impact::Timeout), (sleeping(), notified())] {
        let decision = decide(Some(&record), &impact, done(change_of(STEP_SIZE + 1)));
        assert_eq!(decision.answer, Err(Refusal::MachineFailed));
        let step = decision.step.expect("a step");
        assert_eq!((step.events, step.handled), (vec![], None));
        let failed = step.record.expect("a record");
        assert_eq!((failed.last_event, &failed.aux_state), (3, &content("aux")));
        let Status::Failed { reason, .. } = failed.status else { panic!("failed") };
        assert!(reason.contains("1001 bytes") && reason.contains("limits.step_size allows 1000"), "{reason}");
    }
}

#[test]
fn a_start_that_is_too_big_is_refused_and_nothing_is_stored() {
    let decision = decide(None, &init(), done(change_of(STEP_SIZE + 1)));
    assert_eq!((decision.step, decision.answer), (None, Err(Refusal::MachineFailed)));
    // It is told of all the same.
    assert!(decision.failure.is_some_and(|reason| reason.contains("limits.step_size")));
}

#[test]
fn a_repair_that_is_too_big_leaves_the_first_reason() {
    let decision = decide(Some(&failed(&sleeping())), &repair(), done(change_of(STEP_SIZE + 1)));
    assert_eq!((decision.step, decision.answer), (None, Err(Refusal::MachineFailed)));
    // It is told of all the same.
    assert!(decision.failure.is_some_and(|reason| reason.contains("limits.step_size")));
}

#[test]
fn a_record_remembers_its_last_eight_commits() {
    let mut record = sleeping();
    let mut all = vec![record.commit, record.earlier[0], record.earlier[1]];
    for n in 10..30 {
        let stamp = Stamp { commit: commit(n), ..stamp(NOW) };
        let outcome = Some(done(appended(&["a"])));
        let decision = apply(Some(&record), &call(), &context("c"), outcome, &policy(), stamp);
        record = decision.step.expect("a step").record.expect("a record");
        all.insert(0, commit(n));
        let stored = record.encode();
        let head = Head::read(&stored).expect("a head");
        for (age, id) in all.iter().enumerate() {
            assert_eq!(head.remembers(*id), age < KEPT_COMMITS, "{age} commits ago");
        }
        assert_eq!(record.epoch, epoch());
    }
}
