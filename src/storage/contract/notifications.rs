//! Notifications: entries in order, each with a due until it is parked.

use std::sync::Arc;

use super::Subject;
use super::sample::{Sample, all_dues, committed, conflicts, due_times, entry_ids, events, everything, put};
use crate::machine::{CommitId, Notification, RequestContext};
use crate::storage::{Commit, Outcome};
use crate::wire::Value;

pub async fn entries_are_in_the_order_of_their_ids(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let sample = Sample::new("one");
    let ids = [5, i64::MAX, -1, 1 << 40, 0, i64::MIN, 256, 255];
    for id in ids {
        put(&*store, &sample, id, 1).await;
    }
    let found = store.notifications(&sample.key, usize::MAX).await.expect("notifications are read");
    let mut expected: Vec<_> = ids.map(|id| sample.notification(id)).into();
    expected.sort_by_key(|it| it.id);
    assert_eq!(found, expected);
}

pub async fn a_limit_keeps_the_oldest(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let sample = Sample::new("one");
    for id in [3, 1, 2] {
        put(&*store, &sample, id, 1).await;
    }
    for (limit, expected) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3)] {
        let found = store.notifications(&sample.key, limit).await.expect("notifications are read");
        assert!(found.iter().map(|it| it.id).eq(1..=expected), "{limit}: {found:?}");
    }
}

pub async fn an_entry_put_again_changes_nothing(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let sample = Sample::new("one");
    put(&*store, &sample, 1, 10).await;
    put(&*store, &sample, 1, 20).await;
    assert_eq!(store.notifications(&sample.key, 9).await, Ok(vec![sample.notification(1)]));
    assert_eq!(due_times(&*store).await, vec![10]);
    assert_eq!(store.settle_notifications(&sample.key, &[], &[1]).await, Ok(()));
    put(&*store, &sample, 1, 40).await;
    assert_eq!(due_times(&*store).await, Vec::<i64>::new());
}

/// Two instances may make one id. Whose notification is not the one that stands there has to know it, or it is lost.
pub async fn an_id_that_another_notification_has_conflicts(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let sample = Sample::new("one");
    let it = sample.notification(1);
    let large = |letter: &str| Notification { args: Value::str(&letter.repeat(500_000)), ..sample.notification(2) };
    put(&*store, &sample, 1, 10).await;
    assert_eq!(store.put_notification(&sample.key, &large("a"), 20).await, Outcome::Committed);
    let others = [
        Notification { args: Value::nil(), ..it.clone() },
        Notification { args: large("a").args, ..it.clone() },
        Notification { epoch: CommitId([9; 16]), ..it.clone() },
        Notification { range: everything(), ..it.clone() },
        Notification { context: RequestContext::default(), ..it.clone() },
        Notification { args: Value::nil(), ..large("a") },
        large("b"),
    ];
    for other in &others {
        assert_eq!(store.put_notification(&sample.key, other, 5).await, Outcome::Conflict, "{other:?}");
    }
    assert_eq!(store.notifications(&sample.key, 9).await, Ok(vec![it.clone(), large("a")]));
    assert_eq!(due_times(&*store).await, vec![10, 20]);
    // Not after it is parked either, and the same is still the same.
    assert_eq!(store.settle_notifications(&sample.key, &[], &[1, 2]).await, Ok(()));
    assert_eq!(store.put_notification(&sample.key, &others[0], 5).await, Outcome::Conflict);
    assert_eq!(store.put_notification(&sample.key, &large("a"), 5).await, Outcome::Committed);
    assert_eq!(due_times(&*store).await, Vec::<i64>::new());
    // Another machine's ids are its own.
    let second = Sample::new("two");
    assert_eq!(store.put_notification(&second.key, &others[0], 5).await, Outcome::Committed);
}

pub async fn an_entry_wakes_its_machine(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &[], Some(15)).await;
    put(&*store, &sample, 1, 10).await;
    put(&*store, &sample, 2, 20).await;
    let expected: Vec<_> = [10, 15, 20].map(|at| (at, sample.key.clone())).into();
    assert_eq!(all_dues(&*store).await, expected);
}

pub async fn a_parked_entry_keeps_waiting_without_a_due(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let sample = Sample::new("one");
    put(&*store, &sample, 1, 10).await;
    put(&*store, &sample, 2, 10).await;
    assert_eq!(store.settle_notifications(&sample.key, &[], &[1]).await, Ok(()));
    assert_eq!(store.notifications(&sample.key, 9).await, Ok(vec![sample.notification(1), sample.notification(2)]));
    assert_eq!(due_times(&*store).await, vec![10]);
}

pub async fn a_deleted_entry_is_gone_with_its_due(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let sample = Sample::new("one");
    for id in 1..=3 {
        put(&*store, &sample, id, id).await;
    }
    assert_eq!(store.settle_notifications(&sample.key, &[1, 3], &[]).await, Ok(()));
    assert_eq!(entry_ids(&*store, &sample.key).await, vec![2]);
    assert_eq!(due_times(&*store).await, vec![2]);
}

pub async fn settling_again_changes_nothing(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let sample = Sample::new("one");
    for id in 1..=3 {
        put(&*store, &sample, id, id).await;
    }
    for _ in 0..2 {
        assert_eq!(store.settle_notifications(&sample.key, &[1, 99], &[2, 98]).await, Ok(()));
        assert_eq!(entry_ids(&*store, &sample.key).await, vec![2, 3]);
        assert_eq!(due_times(&*store).await, vec![3]);
    }
    assert_eq!(store.settle_notifications(&sample.key, &[2], &[2]).await, Ok(()));
    assert_eq!(entry_ids(&*store, &sample.key).await, vec![3]);
    assert_eq!(store.settle_notifications(&sample.key, &[], &[]).await, Ok(()));
}

pub async fn a_commit_settles_entries_with_the_record(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &[], None).await;
    for id in 1..=3 {
        put(&*store, &sample, id, id).await;
    }
    let step = sample.step_with(&events(1..=1), |record| record.notifications_due = Some(50));
    let step = Commit { delete_notifications: vec![1], park_notifications: vec![2], ..step };
    for _ in 0..2 {
        committed(&*store, step.clone()).await;
        assert_eq!(entry_ids(&*store, &sample.key).await, vec![2, 3]);
        assert_eq!(due_times(&*store).await, vec![3, 50]);
        sample.assert_stands(&*store, &events(1..=1)).await;
    }
}

pub async fn a_conflict_settles_no_entry(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    put(&*store, &sample, 1, 1).await;
    put(&*store, &sample, 2, 2).await;
    let _never_put = sample.step(&[], None);
    let step = sample.step(&[], None);
    conflicts(&*store, Commit { delete_notifications: vec![1], park_notifications: vec![2], ..step }).await;
    assert_eq!(entry_ids(&*store, &sample.key).await, vec![1, 2]);
    assert_eq!(due_times(&*store).await, vec![1, 2]);
}

pub async fn machines_keep_their_entries_apart(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let samples = [Sample::named("a", b"bc"), Sample::named("ab", b"c"), Sample::named("a", b"b")];
    for (at, sample) in (1..).zip(&samples) {
        put(&*store, sample, 7, at).await;
    }
    assert_eq!(store.settle_notifications(&samples[0].key, &[7], &[]).await, Ok(()));
    assert_eq!(store.settle_notifications(&samples[1].key, &[], &[7]).await, Ok(()));
    assert_eq!(entry_ids(&*store, &samples[0].key).await, Vec::<i64>::new());
    assert_eq!(entry_ids(&*store, &samples[1].key).await, vec![7]);
    assert_eq!(entry_ids(&*store, &samples[2].key).await, vec![7]);
    assert_eq!(all_dues(&*store).await, vec![(3, samples[2].key.clone())]);
}
