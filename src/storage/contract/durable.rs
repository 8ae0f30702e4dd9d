//! What outlives the process. Each of these opens the store again and looks.

use std::sync::Arc;

use futures_util::future::join_all;

use super::Subject;
use super::books::Books;
use super::ledgers::{all_entries, entered, verified, wire_events};
use super::sample::{Sample, committed, due_times, entry_ids, events, put, read};
use super::tags::{claim, holder};
use crate::machine::KEPT_COMMITS;
use crate::storage::{Outcome, StorageError};

pub async fn everything_is_there_after_reopening(subject: Arc<impl Subject>) {
    let mut sample = Sample::new("one");
    for step in 1..=5 {
        let store = subject.open().await;
        sample.commit_step(&*store, &events(step..=step), Some(1_000 - step)).await;
        put(&*store, &sample, step, step).await;
        store.close().await;
        let store = subject.open().await;
        sample.assert_stands(&*store, &events(1..=step)).await;
        assert_eq!(entry_ids(&*store, &sample.key).await, (1..=step).collect::<Vec<_>>());
        assert_eq!(due_times(&*store).await, (1..=step).chain([1_000 - step]).collect::<Vec<_>>());
    }
}

pub async fn a_commit_is_recognised_after_reopening(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    let lost = sample.step(&events(1..=1), None);
    committed(&*store, lost.clone()).await;
    for _ in 1..KEPT_COMMITS {
        store.close().await;
        let store = subject.open().await;
        committed(&*store, lost.clone()).await;
        sample.commit_step(&*store, &[], None).await;
        store.close().await;
    }
    let store = subject.open().await;
    committed(&*store, lost.clone()).await;
    sample.commit_step(&*store, &[], None).await;
    assert_eq!(store.commit(lost).await, Outcome::Conflict);
}

pub async fn deletions_stay_deleted_after_reopening(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=3), Some(4)).await;
    put(&*store, &sample, 1, 1).await;
    put(&*store, &sample, 2, 2).await;
    assert_eq!(store.settle_notifications(&sample.key, &[1], &[2]).await, Ok(()));
    let epoch = sample.epoch();
    store.close().await;

    let store = subject.open().await;
    assert_eq!(entry_ids(&*store, &sample.key).await, vec![2]);
    assert_eq!(due_times(&*store).await, vec![4]);
    committed(&*store, sample.forgetting()).await;
    assert_eq!(store.delete_epoch(&sample.key, epoch, 3).await, Ok(()));
    store.close().await;

    let store = subject.open().await;
    assert_eq!(read(&*store, &sample.key).await, None);
    assert_eq!(entry_ids(&*store, &sample.key).await, Vec::<i64>::new());
    assert_eq!(due_times(&*store).await, Vec::<i64>::new());
    assert!(store.events(&sample.key, epoch, 1, 1).await.is_err());
}

pub async fn tags_are_kept_after_reopening(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let (mut first, mut second) = (Sample::new("one"), Sample::new("two"));
    committed(&*store, claim(&mut first, b"tag")).await;
    store.close().await;
    let store = subject.open().await;
    assert_eq!(holder(&*store, &first, b"tag").await, Some(first.key.id.clone()));
    assert_eq!(store.commit(claim(&mut second, b"tag")).await, Outcome::TagTaken);
}

/// Where the store has ledgers.
pub async fn ledgers_go_on_after_reopening(subject: Arc<impl Subject>) {
    let mut sample = Sample::new("one");
    for step in 1..=4 {
        let store = Books::of(subject.open().await);
        let Some(ledger) = store.ledger() else { return };
        let before = verified(ledger, "all").await;
        assert_eq!(before.last, (step - 1) * 2);
        for id in [step * 2 - 1, step * 2] {
            committed(&*store, entered(&mut sample, &wire_events(id..=id), &["all"])).await;
        }
        store.close().await;
    }
    let store = Books::of(subject.open().await);
    let Some(ledger) = store.ledger() else { return };
    assert_eq!(verified(ledger, "all").await.last, 8);
    let events: Vec<_> = all_entries(ledger, "all").await.into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, wire_events(1..=8));
    store.close().await;
    assert!(ledger.head("all").await.is_err());
}

pub async fn a_closed_store_refuses(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &[], None).await;
    store.close().await;
    store.close().await;
    let outcome = store.commit(sample.step(&[], None)).await;
    assert!(matches!(outcome, Outcome::Refused(StorageError::Unavailable(_))), "{outcome:?}");
    assert!(store.read(&sample.key, None).await.is_err());
    let put = store.put_notification(&sample.key, &sample.notification(1), 1).await;
    assert!(matches!(put, Outcome::Refused(StorageError::Unavailable(_))), "{put:?}");
}

pub async fn what_was_under_way_at_closing_is_kept_if_it_was_acknowledged(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let writes: Vec<_> = (0..64)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut sample = Sample::new(&format!("machine {number}"));
                let commit = sample.step(&events(1..=1), None);
                (store.commit(commit).await, sample)
            })
        })
        .collect();
    store.close().await;
    let store = subject.open().await;
    for write in join_all(writes).await {
        match write.expect("a write ends") {
            (Outcome::Committed, sample) => sample.assert_stands(&*store, &events(1..=1)).await,
            (Outcome::Refused(_), sample) => assert_eq!(read(&*store, &sample.key).await, None),
            (outcome, _) => panic!("{outcome:?}"),
        }
    }
}
