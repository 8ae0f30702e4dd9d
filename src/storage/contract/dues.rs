//! Dues: in the order of time, in pages that lose nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Subject;
use super::sample::{Sample, all_dues, committed, due_times, put};
use crate::storage::Storage;

async fn machines_due(store: &dyn Storage, times: &[i64]) -> Vec<Sample> {
    let mut samples = Vec::new();
    for at in times {
        let mut sample = Sample::new(&format!("due at {at}"));
        sample.commit_step(store, &[], Some(*at)).await;
        samples.push(sample);
    }
    samples
}

async fn times(store: &dyn Storage, until: i64, limit: usize) -> Vec<i64> {
    let found = store.dues(None, until, None, limit).await.expect("dues are read");
    found.into_iter().map(|due| due.at).collect()
}

pub async fn dues_are_in_the_order_of_time(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    machines_due(&*store, &[300, 5, 70_000, 256, 255, 0]).await;
    put(&*store, &Sample::new("other"), 1, 100).await;
    // A record's due is never before 1970; an entry's may be anything.
    put(&*store, &Sample::new("other"), 2, -1).await;
    assert_eq!(due_times(&*store).await, vec![-1, 0, 5, 100, 255, 256, 300, 70_000]);
}

pub async fn until_is_included(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    machines_due(&*store, &[1, 2, 3]).await;
    assert_eq!(times(&*store, 0, 9).await, Vec::<i64>::new());
    assert_eq!(times(&*store, 1, 9).await, vec![1]);
    assert_eq!(times(&*store, 2, 9).await, vec![1, 2]);
    assert_eq!(times(&*store, i64::MAX, 9).await, vec![1, 2, 3]);
    assert_eq!(times(&*store, i64::MIN, 9).await, Vec::<i64>::new());
}

pub async fn a_limit_and_cursors_page_through_all(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    machines_due(&*store, &[1, 2, 3, 4, 5]).await;
    assert_eq!(times(&*store, 9, 0).await, Vec::<i64>::new());
    assert_eq!(times(&*store, 9, 2).await, vec![1, 2]);
    let first = store.dues(None, 9, None, 2).await.expect("dues are read");
    let second = store.dues(None, 9, Some(&first[1].cursor), 2).await.expect("dues are read");
    assert_eq!(second.iter().map(|due| due.at).collect::<Vec<_>>(), vec![3, 4]);
    let third = store.dues(None, 9, Some(&second[1].cursor), 2).await.expect("dues are read");
    assert_eq!(third.iter().map(|due| due.at).collect::<Vec<_>>(), vec![5]);
    assert_eq!(store.dues(None, 9, Some(&third[0].cursor), 2).await, Ok(vec![]));
    assert_eq!(store.dues(None, 3, Some(&second[1].cursor), 2).await, Ok(vec![]));
}

pub async fn a_cursor_stays_good_when_its_due_goes(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut samples = machines_due(&*store, &[1, 2, 3, 4, 5, 6]).await;
    let page = store.dues(None, 9, None, 3).await.expect("dues are read");
    // All that was found goes, as it does when it was worked off.
    for sample in &mut samples[..3] {
        sample.commit_step(&*store, &[], None).await;
    }
    let rest = store.dues(None, 9, Some(&page[2].cursor), 9).await.expect("dues are read");
    assert_eq!(rest.iter().map(|due| due.at).collect::<Vec<_>>(), vec![4, 5, 6]);
}

pub async fn a_cursor_finds_what_comes_later_in_order(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    machines_due(&*store, &[10, 20, 30]).await;
    let page = store.dues(None, 99, None, 2).await.expect("dues are read");
    machines_due(&*store, &[5, 25, 40]).await;
    let rest = store.dues(None, 99, Some(&page[1].cursor), 9).await.expect("dues are read");
    assert_eq!(rest.iter().map(|due| due.at).collect::<Vec<_>>(), vec![25, 30, 40]);
    assert_eq!(due_times(&*store).await, vec![5, 10, 20, 25, 30, 40]);
}

pub async fn a_replaced_due_vanishes(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    for due in [Some(10), Some(5), Some(5), None, Some(0), Some(20), Some(7)] {
        sample.commit_step(&*store, &[], due).await;
        assert_eq!(due_times(&*store).await, due.into_iter().collect::<Vec<_>>());
    }
    committed(&*store, sample.removal(0)).await;
    let tombstone = sample.record().due().into_iter().collect::<Vec<_>>();
    assert_eq!(due_times(&*store).await, tombstone);
}

pub async fn extreme_times_are_in_order(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut expected = [i64::MAX - 1, i64::MIN, 0, -1, 1, i64::MIN + 1, 1 << 62, -(1 << 62)];
    let entries = Sample::new("entries");
    for (id, due) in (1..).zip(expected) {
        put(&*store, &entries, id, due).await;
    }
    expected.sort_unstable();
    assert_eq!(due_times(&*store).await, expected);
    assert_eq!(times(&*store, i64::MIN, 9).await, vec![i64::MIN]);
    assert_eq!(times(&*store, -1, 9).await, expected[..4]);
    // The last moment is never.
    put(&*store, &entries, 99, i64::MAX).await;
    assert_eq!(due_times(&*store).await, expected);
}

pub async fn dues_at_one_time_are_all_found(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut expected = BTreeSet::new();
    for number in 0..25 {
        let mut sample = Sample::new(&format!("machine {number}"));
        sample.commit_step(&*store, &[], Some(1_000)).await;
        put(&*store, &sample, 4, 1_000).await;
        expected.insert(sample.key);
    }
    let found = all_dues(&*store).await;
    assert_eq!(found.len(), 50);
    assert_eq!(found.into_iter().map(|(_, key)| key).collect::<BTreeSet<_>>(), expected);
}

pub async fn a_due_says_whether_it_is_of_an_entry(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut samples = machines_due(&*store, &[1]).await;
    put(&*store, &samples[0], 1, 2).await;
    put(&*store, &Sample::new("other"), 2, 3).await;
    samples[0].commit_step(&*store, &[], Some(4)).await;
    let found = store.dues(None, 9, None, 9).await.expect("dues are read");
    let found: Vec<_> = found.into_iter().map(|due| (due.at, due.entry)).collect();
    assert_eq!(found, [(2, true), (3, true), (4, false)]);
}

pub async fn dues_are_those_of_the_shards_asked_for(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let count = store.leases().map_or(1, |leases| leases.shards());
    let mut samples = machines_due(&*store, &(1..=40).collect::<Vec<_>>()).await;
    let entries = Sample::new("entries");
    put(&*store, &entries, 7, 41).await;
    samples.push(entries);
    let expected = |shards: &[u16]| {
        let of = samples.iter().zip(1..).filter(|(sample, _)| shards.contains(&sample.key.shard(count)));
        of.map(|(_, at)| at).collect::<Vec<i64>>()
    };
    for shards in [vec![], vec![0], (0..count / 2).collect(), (0..count).rev().collect()] {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = store.dues(Some(&shards), 99, after.as_ref(), 3).await.expect("dues are read");
            let Some(last) = page.last() else { break };
            after = Some(last.cursor.clone());
            found.extend(page.iter().map(|due| due.at));
        }
        assert_eq!(found, expected(&shards), "{shards:?}");
    }
    assert_eq!(expected(&(0..count).collect::<Vec<_>>()).len(), 41);
}
