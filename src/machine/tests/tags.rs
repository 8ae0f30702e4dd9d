//! Tags: claimed with the step; one that another machine has fails this one, and the rest of the step stands.

use super::*;

const TAKEN: &str = "double_tagging: the tag belongs to another machine";

fn tag() -> Bytes {
    Bytes::from_static(b"order 1")
}

fn tagging(change: Change) -> Change {
    Change { action: Action { tag: Some(tag()), ..change.action }, ..change }
}

/// Applied as the store's answer to the first attempt demands.
fn taken(record: Option<&Record>, impact: &Impact, change: Change) -> Decision {
    let stamp = Stamp { tag_taken: true, ..stamp(NOW) };
    apply(record, impact, &context("request"), Some(done(change)), &policy(), stamp)
}

#[test]
fn a_step_claims_its_tag_whatever_else_it_does() {
    for change in [Change::default(), appended(&["a"]), removing(), timed(after(1))] {
        for (record, impact) in [
            (None, init()),
            (Some(tombstone(NOW, vec![])), init()),
            (Some(sleeping()), call()),
            (Some(waiting(NOW)), Impact::Timeout),
            (Some(sleeping()), notified()),
            (Some(failed(&sleeping())), repair()),
        ] {
            let plain = decide(record.as_ref(), &impact, done(change.clone()));
            let tagged = decide(record.as_ref(), &impact, done(tagging(change.clone())));
            assert_eq!(tagged.answer, response());
            let step = tagged.step.expect("a tag is something to commit");
            assert_eq!(step.tag, Some(tag()), "{}", impact.name());
            // But for the tag it is the same step.
            if let Some(plain) = plain.step {
                assert_eq!(step, Step { tag: Some(tag()), ..plain });
            }
        }
    }
}

#[test]
fn a_tag_that_the_machine_has_already_is_claimed_again_and_changes_nothing_else() {
    let step = decide(Some(&sleeping()), &call(), done(tagging(Change::default()))).step.expect("a step");
    assert_eq!(step, Step { tag: Some(tag()), ..only(committed(sleeping(), &sleeping())) });
    let again = decide(step.record.as_ref(), &call(), done(tagging(Change::default()))).step.expect("a step");
    assert_eq!(again.tag, Some(tag()));
}

#[test]
fn a_taken_tag_fails_the_machine_with_all_else_that_the_step_did() {
    let aux_state = Some(content("new"));
    let change = Change { aux_state, ..timed(after(5)) };
    let change = tagging(Change { events: appended(&["a", "b"]).events, ..change });
    for (record, impact) in [
        (sleeping(), call()),
        (waiting(NOW), Impact::Timeout),
        (retrying(1, NOW), call()),
        (failed(&waiting(NOW)), repair()),
    ] {
        let decision = taken(Some(&record), &impact, change.clone());
        assert_eq!(decision.answer, Err(Refusal::MachineFailed));
        let step = decision.step.expect("a step");
        assert_eq!(step.tag, None);
        assert_eq!(step.events.iter().map(|event| decode(event).id).collect::<Vec<_>>(), [4, 5]);
        let next = step.record.expect("a record");
        assert_eq!(next.status, Status::Failed { reason: TAKEN.to_owned(), before: Phase::Idle });
        assert_eq!((next.last_event, &next.aux_state), (5, &content("new")));
        assert_eq!(next.timer.as_ref().map(|timer| timer.due), Some(NOW + 5_000), "shown, and armed by a repair");
        assert_eq!((next.timer_due(), next.commit, next.epoch), (None, commit(200), epoch()));
    }
}

#[test]
fn the_removal_of_a_step_with_a_taken_tag_does_not_take_place() {
    let change = tagging(Change { events: appended(&["a"]).events, ..removing() });
    for (record, impact) in [(sleeping(), call()), (failed(&sleeping()), repair())] {
        let step = taken(Some(&record), &impact, change.clone()).step.expect("a step");
        assert_eq!(step.events.len(), 1);
        let next = step.record.expect("a record");
        assert_eq!((next.kind(), &next.debts), (StatusKind::Failed, &vec![]));
    }
}

#[test]
fn a_start_with_a_taken_tag_leaves_a_failed_machine() {
    let old = tombstone(NOW, vec![debt()]);
    for record in [None, Some(&old)] {
        for removes in [false, true] {
            let action = Action { remove: removes, ..Action::default() };
            let decision = taken(record, &init(), tagging(Change { action, ..appended(&["a"]) }));
            assert_eq!(decision.answer, Err(Refusal::MachineFailed));
            let step = decision.step.expect("it exists");
            assert_eq!((step.events.len(), &step.tag), (1, &None));
            let next = step.record.expect("a record");
            assert_eq!((next.kind(), next.last_event, next.epoch), (StatusKind::Failed, 1, commit(200)));
            assert_eq!(next.debts, record.map(|record| record.debts.clone()).unwrap_or_default());
        }
    }
}

#[test]
fn a_notification_whose_tag_is_taken_took_effect() {
    let step = taken(Some(&sleeping()), &notified(), tagging(appended(&["a"]))).step.expect("a step");
    assert_eq!(step.handled, Some(50));
    let next = step.record.expect("a record");
    assert_eq!(dispatch(Some(&next), &notified(), NOW), Dispatch::Discard);
    assert_eq!(next.kind(), StatusKind::Failed);
}

#[test]
fn a_repair_afterwards_forgets_the_tag() {
    let failed = taken(Some(&waiting(NOW + 9)), &call(), tagging(appended(&["a"])));
    let failed = failed.step.expect("a step").record.expect("a record");
    let simple = decide(Some(&failed), &Impact::SimpleRepair, None).step.expect("a step");
    let asked = decide(Some(&failed), &repair(), done(Change::default())).step.expect("a step");
    for step in [simple, asked] {
        assert_eq!((&step.tag, step.events.len()), (&None, 0));
        let next = step.record.expect("a record");
        assert_eq!((next.kind(), next.last_event), (StatusKind::Waiting, 4));
    }
    // A tag of its own is claimed as ever.
    let other = decide(Some(&failed), &repair(), done(tagging(Change::default())));
    assert_eq!((other.answer, other.step.expect("a step").tag), (response(), Some(tag())));
}

#[test]
fn what_claims_no_tag_is_not_failed_by_one() {
    let stamp = Stamp { tag_taken: true, ..stamp(NOW) };
    let decision = apply(Some(&sleeping()), &call(), &context("c"), Some(done(appended(&["a"]))), &policy(), stamp);
    assert_eq!(decision.answer, response());
}

#[test]
fn a_step_that_is_too_big_claims_no_tag() {
    let decision = decide(Some(&sleeping()), &call(), done(tagging(too_big())));
    let step = decision.step.expect("a step");
    assert_eq!((step.tag, step.events.len()), (None, 0));
    assert_eq!(decide(None, &init(), done(tagging(too_big()))).step, None);
}
