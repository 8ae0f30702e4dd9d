//! Events: whole ranges, by epoch, never with a gap.

use std::sync::Arc;

use bytes::Bytes;

use super::Subject;
use super::sample::{Sample, committed, entry_ids, events, everything, put, read};
use crate::machine::CommitId;
use crate::storage::{Commit, Outcome, Storage, StorageError};
use crate::wire::{Direction, HistoryRange};

pub async fn ranges_are_cut_as_asked(subject: Arc<impl Subject>) {
    use Direction::{Backward, Forward};
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=4), None).await;
    sample.commit_step(&*store, &events(5..=10), None).await;
    let cases = [
        (None, None, Forward, 1..=10),
        (None, Some(3), Forward, 1..=3),
        (Some(4), Some(3), Forward, 5..=7),
        (Some(0), None, Forward, 1..=10),
        (Some(9), None, Forward, 10..=10),
        (Some(8), Some(100), Forward, 9..=10),
        (None, Some(3), Backward, 8..=10),
        (Some(5), Some(3), Backward, 2..=4),
        (Some(11), None, Backward, 1..=10),
        (Some(100), Some(1), Backward, 10..=10),
    ];
    for (after, limit, direction, expected) in cases {
        assert_range(&*store, &sample, HistoryRange { after, limit, direction }, &events(expected)).await;
    }
    let empty = [
        (Some(10), None, Forward),
        (Some(i64::MAX), None, Forward),
        (None, Some(0), Forward),
        (None, Some(0), Backward),
        (Some(1), None, Backward),
        (Some(i64::MIN), None, Backward),
    ];
    for (after, limit, direction) in empty {
        assert_range(&*store, &sample, HistoryRange { after, limit, direction }, &[]).await;
    }
}

async fn assert_range(store: &dyn Storage, sample: &Sample, range: HistoryRange, expected: &[Bytes]) {
    let loaded = store.read(&sample.key, Some(&range)).await.expect("a machine is read").expect("it is there");
    assert_eq!(loaded.events, expected, "{range:?}");
    assert_eq!(&loaded.record, sample.record());
}

pub async fn no_range_reads_no_events(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=3), None).await;
    let loaded = store.read(&sample.key, None).await.expect("a machine is read").expect("it is there");
    assert_eq!((&loaded.record, loaded.events.len()), (sample.record(), 0));
}

pub async fn events_are_read_by_epoch_and_ids(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=300), None).await;
    for (first, last) in [(1, 300), (1, 1), (300, 300), (255, 257)] {
        assert_eq!(store.events(&sample.key, sample.epoch(), first, last).await, Ok(events(first..=last)));
    }
    assert_eq!(store.events(&sample.key, sample.epoch(), 5, 4).await, Ok(vec![]));
    assert_eq!(store.events(&sample.key, sample.epoch(), i64::MAX, i64::MIN).await, Ok(vec![]));
}

pub async fn a_gap_is_an_error(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=2), None).await;
    // The record claims an event that was never written.
    committed(&*store, sample.step_with(&events(4..=5), |record| record.last_event += 1)).await;
    assert!(store.read(&sample.key, Some(&everything())).await.is_err());
    for (first, last) in [(1, 5), (2, 3), (3, 3), (3, 4), (5, 6), (6, 9), (0, 1), (1, i64::MAX)] {
        let found = store.events(&sample.key, sample.epoch(), first, last).await;
        assert!(found.is_err(), "{first} to {last}: {found:?}");
    }
    assert!(store.events(&sample.key, CommitId([77; 16]), 1, 1).await.is_err());
    assert_eq!(store.events(&sample.key, sample.epoch(), 4, 5).await, Ok(events(4..=5)));
}

pub async fn epochs_keep_their_events_apart(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    let mut epochs = Vec::new();
    for life in 0..3 {
        let own = events(life * 100 + 1..=life * 100 + 4);
        sample.commit_step(&*store, &own, None).await;
        epochs.push((sample.epoch(), own));
        committed(&*store, sample.removal(1)).await;
    }
    for (epoch, own) in &epochs {
        assert_eq!(store.events(&sample.key, *epoch, 1, 4).await.as_ref(), Ok(own));
    }
}

pub async fn a_tombstone_hides_events_but_keeps_them(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=3), Some(1)).await;
    committed(&*store, sample.removal(7)).await;
    sample.assert_stands(&*store, &[]).await;
    assert_eq!(store.events(&sample.key, sample.epoch(), 1, 3).await, Ok(events(1..=3)));
}

pub async fn a_deleted_epoch_is_gone_and_nothing_else(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let (mut sample, mut neighbour) = (Sample::new("one"), Sample::new("two"));
    neighbour.commit_step(&*store, &events(1..=3), None).await;
    put(&*store, &neighbour, 1, 30).await;
    sample.commit_step(&*store, &events(1..=3), None).await;
    let old = sample.epoch();
    put(&*store, &sample, 1, 10).await;
    committed(&*store, sample.removal(7)).await;
    sample.commit_step(&*store, &events(11..=12), None).await;
    put(&*store, &sample, 2, 20).await;
    for _ in 0..2 {
        assert_eq!(store.delete_epoch(&sample.key, old, 3).await, Ok(()));
        assert!(store.events(&sample.key, old, 1, 1).await.is_err());
        assert!(store.events(&sample.key, old, 3, 3).await.is_err());
        sample.assert_stands(&*store, &events(11..=12)).await;
        neighbour.assert_stands(&*store, &events(1..=3)).await;
        assert_eq!(entry_ids(&*store, &sample.key).await, vec![2]);
        assert_eq!(entry_ids(&*store, &neighbour.key).await, vec![1]);
        assert_eq!(super::sample::due_times(&*store).await, vec![20, 30]);
    }
}

pub async fn deleting_an_epoch_stops_at_the_last_event(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=5), None).await;
    assert_eq!(store.delete_epoch(&sample.key, sample.epoch(), 0).await, Ok(()));
    sample.assert_stands(&*store, &events(1..=5)).await;
    assert_eq!(store.delete_epoch(&sample.key, sample.epoch(), 3).await, Ok(()));
    assert!(store.events(&sample.key, sample.epoch(), 3, 4).await.is_err());
    assert_eq!(store.events(&sample.key, sample.epoch(), 4, 5).await, Ok(events(4..=5)));
}

fn replacements(ids: std::ops::RangeInclusive<i64>) -> Vec<(i64, Bytes)> {
    ids.clone().zip(events(ids.start() + 20..=ids.end() + 20)).collect()
}

/// As Modernize does: the same ids under the same epoch, with other bytes.
pub async fn a_replaced_event_is_read_as_replaced(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=3), None).await;
    let replaced_events = replacements(1..=3);
    committed(&*store, Commit { replaced_events, ..sample.step(&[], Some(4)) }).await;
    sample.assert_stands(&*store, &events(21..=23)).await;
    // Any order, and some of them.
    let replaced_events = vec![(3, events(3..=3)[0].clone()), (1, events(1..=1)[0].clone())];
    committed(&*store, Commit { replaced_events, ..sample.step(&[], None) }).await;
    sample.assert_stands(&*store, &[events(1..=1), events(22..=22), events(3..=3)].concat()).await;
}

pub async fn events_are_replaced_while_others_are_appended(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=3), None).await;
    let replaced_events = replacements(2..=2);
    committed(&*store, Commit { replaced_events, ..sample.step(&events(4..=5), None) }).await;
    sample.assert_stands(&*store, &[events(1..=1), events(22..=22), events(3..=5)].concat()).await;
}

pub async fn replacing_what_is_not_stored_is_refused_whole(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=3), Some(5)).await;
    // Never written, written by this very commit, of an earlier machine.
    for replaced_events in [replacements(1..=4), replacements(3..=5), replacements(0..=1)] {
        let mut ahead = sample.clone().seeded(3);
        let tag = store.has_tags().then(|| "tag".into());
        let commit = Commit { replaced_events, tag, ..ahead.step(&events(4..=5), Some(7)) };
        let outcome = store.commit(commit).await;
        assert!(matches!(outcome, Outcome::Refused(StorageError::Corrupt(_))), "{outcome:?}");
        sample.assert_stands(&*store, &events(1..=3)).await;
        assert_eq!(super::sample::due_times(&*store).await, vec![5]);
        assert_eq!(store.tagged(&sample.key.ns, b"tag").await, Ok(None));
    }
    committed(&*store, sample.removal(7)).await;
    let old = sample.epoch();
    sample.commit_step(&*store, &events(11..=11), None).await;
    let commit = Commit { replaced_events: replacements(2..=2), ..sample.clone().step(&[], None) };
    assert!(matches!(store.commit(commit).await, Outcome::Refused(_)));
    assert_eq!(store.events(&sample.key, old, 1, 3).await, Ok(events(1..=3)));
}

pub async fn a_replacement_is_conditional_and_recognised(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=2), None).await;
    let mut late = sample.clone().seeded(5);
    let first = Commit { replaced_events: replacements(1..=1), ..sample.step(&[], None) };
    committed(&*store, first.clone()).await;
    let late = Commit { replaced_events: replacements(1..=2), ..late.step(&[], None) };
    assert_eq!(store.commit(late).await, Outcome::Conflict);
    let replaced_events = vec![(1, Bytes::from_static(b"newer"))];
    committed(&*store, Commit { replaced_events, ..sample.step(&[], None) }).await;
    committed(&*store, first).await;
    sample.assert_stands(&*store, &[Bytes::from_static(b"newer"), events(2..=2)[0].clone()]).await;
}

pub async fn an_event_of_a_megabyte_is_read_back(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    let large: Vec<Bytes> =
        (0..3_u8).map(|fill| (0..1 << 20).map(|at: u32| fill ^ at.to_le_bytes()[1]).collect()).collect();
    sample.commit_step(&*store, &large, None).await;
    sample.assert_stands(&*store, &large).await;
}

pub async fn thousands_of_events_are_read_back_and_deleted(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut sample = Sample::new("one");
    for start in [1, 1_001, 2_001, 3_001] {
        sample.commit_step(&*store, &events(start..=start + 999), None).await;
    }
    sample.assert_stands(&*store, &events(1..=4_000)).await;
    let epoch = sample.epoch();
    committed(&*store, sample.removal(1)).await;
    assert_eq!(store.delete_epoch(&sample.key, epoch, 4_000).await, Ok(()));
    for id in [1, 1_000, 1_001, 4_000] {
        assert!(store.events(&sample.key, epoch, id, id).await.is_err(), "event {id}");
    }
    assert_eq!(read(&*store, &sample.key).await.map(|loaded| loaded.events), Some(vec![]));
}
