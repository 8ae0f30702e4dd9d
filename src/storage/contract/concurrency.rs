//! Many at once: one wins, nobody sees half.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures_util::future::join_all;

use super::Subject;
use super::sample::{Sample, all_dues, events, read};
use crate::storage::Outcome;

pub async fn of_many_commits_over_one_record_one_wins(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut winner = Sample::new("one");
    for round in 0..20 {
        let rivals: Vec<_> = (1..=16)
            .map(|seed| {
                let mut rival = winner.clone().seeded(seed);
                let commit = rival.step(&events(round + 1..=round + 1), Some(i64::from(seed)));
                let store = Arc::clone(&store);
                tokio::spawn(async move { (store.commit(commit).await, rival) })
            })
            .collect();
        let outcomes = join_all(rivals).await.into_iter().map(|done| done.expect("a rival ends"));
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.partition(|(outcome, _)| *outcome == Outcome::Committed);
        assert_eq!(won.len(), 1, "round {round}");
        assert!(lost.iter().all(|(outcome, _)| *outcome == Outcome::Conflict));
        winner = won.into_iter().next().expect("one has won").1;
        winner.assert_stands(&*store, &events(1..=round + 1)).await;
        assert_eq!(all_dues(&*store).await.len(), 1);
    }
}

pub async fn commits_of_many_machines_all_succeed(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let machines = (0..32).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut sample = Sample::new(&format!("machine {number}"));
            for step in 1..=10 {
                sample.commit_step(&*store, &events(step..=step), Some(step)).await;
            }
            sample
        })
    });
    for sample in join_all(machines.collect::<Vec<_>>()).await {
        sample.expect("a machine ends").assert_stands(&*store, &events(1..=10)).await;
    }
    assert_eq!(all_dues(&*store).await.len(), 32);
}

pub async fn a_reader_never_sees_a_record_without_its_events(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &[], None).await;
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, done, key) = (Arc::clone(&store), Arc::clone(&done), sample.key.clone());
            tokio::spawn(async move {
                while !done.load(Relaxed) {
                    let loaded = read(&*store, &key).await.expect("the machine is there");
                    assert_eq!(loaded.events, events(1..=loaded.record.last_event));
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for step in 0..150 {
        sample.commit_step(&*store, &events(step * 2 + 1..=step * 2 + 2), None).await;
    }
    done.store(true, Relaxed);
    for reader in readers {
        reader.await.expect("a reader sees whole commits only");
    }
}

pub async fn one_commit_put_many_times_at_once_is_committed_once(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &[], None).await;
    let commit = sample.step(&events(1..=2), Some(9));
    let puts: Vec<_> = (0..16)
        .map(|_| {
            let (store, commit) = (Arc::clone(&store), commit.clone());
            tokio::spawn(async move { store.commit(commit).await })
        })
        .collect();
    for outcome in join_all(puts).await {
        assert_eq!(outcome.expect("a put ends"), Outcome::Committed);
    }
    sample.assert_stands(&*store, &events(1..=2)).await;
    assert_eq!(all_dues(&*store).await, vec![(9, sample.key.clone())]);
}
