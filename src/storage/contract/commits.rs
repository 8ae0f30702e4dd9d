//! One commit: whole, conditional, recognised.

use std::sync::Arc;

use super::Subject;
use super::sample::{
    FORGETTING_STEPS, Sample, all_dues, committed, conflicts, context, due_times, entry_ids, events, put, read, timer,
};
use crate::machine::{CommitId, Debt, KEPT_COMMITS, Phase, Status};
use crate::storage::{Commit, Outcome};
use crate::wire::{Content, Direction, HistoryRange, Value};

pub async fn a_machine_never_written_is_none(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let sample = Sample::new("one");
    assert_eq!(read(&*store, &sample.key).await, None);
    assert_eq!(entry_ids(&*store, &sample.key).await, Vec::<i64>::new());
    assert_eq!(all_dues(&*store).await, vec![]);
}

pub async fn a_commit_is_read_back(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=3), Some(500)).await;
    sample.assert_stands(&*store, &events(1..=3)).await;
    assert_eq!(all_dues(&*store).await, vec![(500, sample.key.clone())]);
    sample.commit_step(&*store, &events(4..=4), None).await;
    sample.assert_stands(&*store, &events(1..=4)).await;
    assert_eq!(all_dues(&*store).await, vec![]);
}

pub async fn a_record_is_read_back_with_all_its_parts(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    let statuses = [
        Status::Working(Phase::Idle),
        Status::Working(Phase::Retrying { attempt: 7, at: -3, since: Some(-4) }),
        Status::Failed {
            reason: "reason\u{1F980}".to_owned(),
            before: Phase::Retrying { attempt: 1, at: 2, since: None },
        },
        Status::Failed { reason: String::new(), before: Phase::Idle },
        Status::Removed { at: 1 },
    ];
    for status in statuses {
        let commit = sample.step_with(&[], |record| {
            record.status = status;
            record.aux_state = Content { format_version: None, data: Value::str("aux") };
            record.timer = Some(timer(i64::MIN));
            record.notifications_due = Some(9);
            record.handled = vec![i64::MIN, 0, i64::MAX];
            record.debts = vec![Debt { epoch: CommitId([255; 16]), last_event: 12, wanted: false }];
            if let Some(timer) = &mut record.timer {
                timer.range = HistoryRange { after: Some(-1), limit: Some(0), direction: Direction::Backward };
                timer.context = context();
            }
        });
        committed(&*store, commit).await;
        sample.assert_stands(&*store, &[]).await;
    }
}

pub async fn a_commit_over_nothing_needs_nothing_there(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut first = Sample::new("one");
    first.commit_step(&*store, &events(1..=1), None).await;
    let mut second = Sample::new("one").seeded(1);
    conflicts(&*store, second.step(&events(1..=2), None)).await;
    first.assert_stands(&*store, &events(1..=1)).await;
}

pub async fn a_commit_expecting_a_record_needs_one(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    let _never_put = sample.step(&[], None);
    conflicts(&*store, sample.step(&events(1..=1), Some(1))).await;
    assert_eq!(read(&*store, &sample.key).await, None);
    assert_eq!(all_dues(&*store).await, vec![]);
}

pub async fn a_conflict_writes_nothing(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=2), Some(500)).await;
    put(&*store, &sample, 1, 10).await;
    put(&*store, &sample, 2, 20).await;
    for expect in [None, Some(CommitId([9; 16])), Some(CommitId([0; 16]))] {
        let mut other = sample.clone().seeded(9);
        let commit = other.step(&events(3..=4), Some(700));
        let commit = Commit { expect, delete_notifications: vec![1], park_notifications: vec![2], ..commit };
        conflicts(&*store, commit).await;
        conflicts(&*store, other.commit(expect, None)).await;
        sample.assert_stands(&*store, &events(1..=2)).await;
        assert_eq!(due_times(&*store).await, vec![10, 20, 500]);
        assert_eq!(entry_ids(&*store, &sample.key).await, vec![1, 2]);
        let unwritten = store.events(&sample.key, sample.epoch(), 3, 3).await;
        assert!(unwritten.is_err(), "{unwritten:?}");
    }
}

pub async fn a_commit_put_again_is_committed_and_writes_nothing_more(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    let first = sample.step(&events(1..=1), Some(1));
    committed(&*store, first.clone()).await;
    committed(&*store, first.clone()).await;
    sample.assert_stands(&*store, &events(1..=1)).await;
    sample.commit_step(&*store, &events(2..=2), Some(2)).await;
    committed(&*store, first).await;
    sample.assert_stands(&*store, &events(1..=2)).await;
    assert_eq!(due_times(&*store).await, vec![2]);
}

pub async fn a_commit_is_recognised_after_seven_later_ones(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &[], None).await;
    let lost = sample.step(&events(1..=1), None);
    committed(&*store, lost.clone()).await;
    for _ in 1..KEPT_COMMITS {
        sample.commit_step(&*store, &[], None).await;
    }
    committed(&*store, lost).await;
    sample.assert_stands(&*store, &events(1..=1)).await;
}

pub async fn a_commit_older_than_the_kept_ones_conflicts(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    let old = sample.step(&[], None);
    committed(&*store, old.clone()).await;
    for _ in 0..FORGETTING_STEPS {
        sample.commit_step(&*store, &[], None).await;
    }
    conflicts(&*store, old).await;
    sample.assert_stands(&*store, &[]).await;
}

pub async fn forgetting_deletes_the_record_and_its_due(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &[], Some(5)).await;
    committed(&*store, sample.removal(7)).await;
    assert_eq!(all_dues(&*store).await.len(), 1);
    committed(&*store, sample.forgetting()).await;
    assert_eq!(read(&*store, &sample.key).await, None);
    assert_eq!(all_dues(&*store).await, vec![]);
    sample.commit_step(&*store, &events(1..=1), None).await;
    sample.assert_stands(&*store, &events(1..=1)).await;
}

pub async fn forgetting_again_is_committed(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &[], None).await;
    let forgetting = sample.forgetting();
    committed(&*store, forgetting.clone()).await;
    committed(&*store, forgetting).await;
    assert_eq!(read(&*store, &sample.key).await, None);
}

pub async fn forgetting_needs_the_expected_commit(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &[], Some(3)).await;
    let early = sample.clone().forgetting();
    sample.commit_step(&*store, &[], Some(4)).await;
    assert_eq!(store.commit(early).await, Outcome::Conflict);
    sample.assert_stands(&*store, &[]).await;
    assert_eq!(due_times(&*store).await, vec![4]);
}

pub async fn a_start_over_a_tombstone_begins_a_new_epoch(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=3), Some(5)).await;
    let old = sample.epoch();
    committed(&*store, sample.removal(7)).await;
    let again = events(101..=101);
    sample.commit_step(&*store, &again, Some(9)).await;
    assert_ne!(sample.epoch(), old);
    assert_eq!(sample.record().last_event, 1);
    sample.assert_stands(&*store, &again).await;
    assert_eq!(due_times(&*store).await, vec![9]);
    assert_eq!(store.events(&sample.key, old, 1, 3).await, Ok(events(1..=3)));
}

pub async fn what_stands_is_the_last_commit(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    let stands = async |sample: &Sample| store.standing(&sample.key).await;
    assert_eq!(stands(&sample).await, Ok(None));
    for step in 1..=3 {
        sample.commit_step(&*store, &events(step..=step), Some(step)).await;
        assert_eq!(stands(&sample).await, Ok(sample.commit_id()));
    }
    let mut lost = sample.clone().seeded(1);
    lost.step(&[], None);
    conflicts(&*store, lost.step(&[], None)).await;
    assert_eq!(stands(&sample).await, Ok(sample.commit_id()));
    // A tombstone stands like any other.
    committed(&*store, sample.removal(5)).await;
    assert!(sample.commit_id().is_some());
    assert_eq!(stands(&sample).await, Ok(sample.commit_id()));
    committed(&*store, sample.forgetting()).await;
    assert_eq!(stands(&sample).await, Ok(None));
}
