//! Names: any bytes, any length up to the longest, never mixed with one another.

use std::sync::Arc;

use super::Subject;
use super::sample::{Sample, all_dues, committed, entry_ids, events, put, read};
use crate::machine::MachineId;
use crate::storage::Storage;

/// Each machine has its own record, events, entry and due; taking one away leaves the others as they were.
async fn assert_apart(store: &dyn Storage, names: &[(&str, &[u8])]) {
    let mut samples: Vec<_> = (1..).zip(names).map(|(seed, (ns, id))| Sample::named(ns, id).seeded(seed)).collect();
    let own = |at: usize| events(at as i64 * 10..=at as i64 * 10 + 2);
    for (at, sample) in samples.iter_mut().enumerate() {
        sample.commit_step(store, &own(at), Some(at as i64)).await;
        put(store, sample, at as i64, 1_000).await;
    }
    for (at, sample) in samples.iter().enumerate() {
        sample.assert_stands(store, &own(at)).await;
        assert_eq!(entry_ids(store, &sample.key).await, vec![at as i64]);
    }
    let dues = all_dues(store).await;
    assert_eq!(dues.len(), 2 * samples.len());
    assert!(samples.iter().enumerate().all(|(at, sample)| dues[at] == (at as i64, sample.key.clone())), "{dues:?}");
    let mut gone = samples.remove(0);
    let epoch = gone.epoch();
    committed(store, gone.forgetting()).await;
    assert_eq!(store.delete_epoch(&gone.key, epoch, 3).await, Ok(()));
    assert_eq!(read(store, &gone.key).await, None);
    assert_eq!(entry_ids(store, &gone.key).await, Vec::<i64>::new());
    for (at, sample) in (1..).zip(&samples) {
        sample.assert_stands(store, &own(at)).await;
        assert_eq!(entry_ids(store, &sample.key).await, vec![at as i64]);
    }
    assert_eq!(all_dues(store).await.len(), 2 * samples.len());
}

pub async fn ids_may_be_any_bytes(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let names: [(&str, &[u8]); 7] = [
        ("ns", &every_byte),
        ("ns", &[0]),
        ("ns", &[0, 0]),
        ("ns", &[255]),
        ("ns", &[255, 255]),
        ("ns", b"\xc3\x28 not utf-8"),
        ("ns", "ключ".as_bytes()),
    ];
    assert_apart(&*store, &names).await;
}

pub async fn the_longest_id_is_kept(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let longest = vec![b'x'; MachineId::LONGEST];
    let mut other = longest.clone();
    other[MachineId::LONGEST - 1] = b'y';
    let names: [(&str, &[u8]); 3] = [("ns", &longest), ("ns", &other), ("ns", &longest[1..])];
    assert_apart(&*store, &names).await;
}

pub async fn namespaces_may_hold_slashes(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    assert_apart(&*store, &[("a/b", b"c"), ("a", b"b/c"), ("a/b/", b"c"), ("/", b"/"), ("//", b"/"), ("/", b"//")])
        .await;
}

pub async fn names_that_run_together_do_not_mix(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    assert_apart(&*store, &[("a", b"bc"), ("ab", b"c"), ("abc", b"d"), ("", b"abc"), ("a", b"b"), ("a", b"bcd")]).await;
}

/// An id that holds what a store might put behind another's: lengths, epochs, numbers.
pub async fn an_id_that_begins_like_another_does_not_mix(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut victim = Sample::named("ns", b"x").seeded(1);
    victim.commit_step(&*store, &events(1..=9), Some(1)).await;
    put(&*store, &victim, 5, 2).await;
    let epoch = victim.epoch().0;
    for number in [5_i64.to_be_bytes(), [0x80, 0, 0, 0, 0, 0, 0, 5]] {
        for tail in [[epoch.as_slice(), &number].concat(), number.to_vec(), [&number, epoch.as_slice()].concat()] {
            let mut other = Sample::named("ns", &[b"x".as_slice(), &tail].concat()).seeded(1);
            other.commit_step(&*store, &events(1..=9), Some(1)).await;
            put(&*store, &other, 5, 2).await;
            victim.assert_stands(&*store, &events(1..=9)).await;
            assert_eq!(entry_ids(&*store, &victim.key).await, vec![5]);
            let gone = other.epoch();
            committed(&*store, other.forgetting()).await;
            assert_eq!(store.delete_epoch(&other.key, gone, 9).await, Ok(()));
            victim.assert_stands(&*store, &events(1..=9)).await;
            assert_eq!(entry_ids(&*store, &victim.key).await, vec![5]);
        }
    }
}
