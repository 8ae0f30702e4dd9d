//! Ledgers: each committed event once, in one order, numbered and chained.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::future::join_all;

use super::Subject;
use super::books::Books;
use super::sample::{Sample, committed, conflicts, key};
use crate::machine::{MachineId, MachineKey, Namespace};
use crate::storage::ledger::{self, Head, Ledger};
use crate::storage::{Commit, Outcome, Storage, StorageError};
use crate::wire::{Event, Limits, Reader, SinkEvent, Value, Wire, Writer};

/// An entry taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: i64,
    pub source: MachineKey,
    /// Wire encoded, as it was committed.
    pub event: Bytes,
}

/// Events as the wire has them: whoever reads a ledger decodes them.
pub fn wire_events(ids: std::ops::RangeInclusive<i64>) -> Vec<Bytes> {
    ids.map(|id| wire_event(id, Value::int(id))).collect()
}

pub fn wire_event(id: i64, data: Value) -> Bytes {
    let created_at = Bytes::from_static(b"2024-05-06T07:08:09.000001Z");
    let mut writer = Writer::with_capacity(64);
    Event { id, created_at, format_version: Some(1), data }.write(&mut writer);
    writer.into_bytes()
}

/// The sample's next step, entered in `sinks`.
pub fn entered(sample: &mut Sample, events: &[Bytes], sinks: &[&str]) -> Commit {
    let ledgers = sinks.iter().map(|&sink| sink.to_owned()).collect();
    Commit { ledgers, ..sample.step(events, None) }
}

/// The head of a ledger whose chain is whole.
pub async fn verified(ledger: &dyn Ledger, sink: &str) -> Head {
    ledger::verify(ledger, sink).await.expect("the chain is whole")
}

/// All entries of a ledger; none but a sink's event is one.
pub async fn all_entries(ledger: &dyn Ledger, sink: &str) -> Vec<Entry> {
    let head = ledger.head(sink).await.expect("a head is read");
    let entries = ledger.entries(sink, 1, head.last).await.expect("entries are read");
    let entries = entries.into_iter().map(|bytes| {
        let entry = SinkEvent::read(&mut Reader::new(bytes, Limits::default())).expect("an entry decodes");
        let mut event = Writer::with_capacity(64);
        entry.event.write(&mut event);
        let ns = std::str::from_utf8(&entry.source_ns).expect("a namespace is text");
        let id = MachineId::new(entry.source_id).expect("an id is valid");
        Entry { id: entry.id, source: MachineKey { ns: Namespace::new(ns), id }, event: event.into_bytes() }
    });
    entries.collect()
}

fn ledger_of(store: &dyn Storage) -> &dyn Ledger {
    store.ledger().expect("the store has ledgers")
}

fn expected(first: i64, sample: &Sample, events: &[Bytes]) -> Vec<Entry> {
    let numbered = (first..).zip(events);
    numbered.map(|(id, event)| Entry { id, source: sample.key.clone(), event: event.clone() }).collect()
}

pub async fn a_ledger_never_written_is_empty(subject: Arc<impl Subject>) {
    let store = Books::of(subject.open().await);
    let ledger = ledger_of(&*store);
    assert_eq!(ledger.head("all").await, Ok(Head::EMPTY));
    assert_eq!(ledger.entries("all", 1, 0).await, Ok(vec![]));
    assert_eq!(ledger.blocks("all", 0, 10).await, Ok(vec![]));
    assert_eq!(verified(ledger, "all").await, Head::EMPTY);
    assert!(matches!(ledger.entries("all", 1, 1).await, Err(StorageError::Corrupt(_))));
}

pub async fn events_are_entered_in_the_order_of_their_commits(subject: Arc<impl Subject>) {
    let store = Books::of(subject.open().await);
    let ledger = ledger_of(&*store);
    let (mut one, mut two) = (Sample::named("a", b"\xff1"), Sample::named("b", b"2"));
    committed(&*store, entered(&mut one, &wire_events(1..=2), &["all"])).await;
    committed(&*store, entered(&mut two, &wire_events(1..=1), &["all"])).await;
    committed(&*store, entered(&mut one, &wire_events(3..=3), &["all"])).await;
    let entries = [
        expected(1, &one, &wire_events(1..=2)),
        expected(3, &two, &wire_events(1..=1)),
        expected(4, &one, &wire_events(3..=3)),
    ];
    assert_eq!(all_entries(ledger, "all").await, entries.concat());
    let head = verified(ledger, "all").await;
    assert_eq!(head.last, 4);
    assert_eq!(ledger.head("all").await, Ok(head));
    let stored = ledger.entries("all", 1, 1).await;
    assert_eq!(stored, Ok(vec![ledger::entry(1, &one.key, &wire_events(1..=1)[0])]));
    one.assert_stands(&*store, &wire_events(1..=3)).await;
}

pub async fn entries_are_cut_as_asked(subject: Arc<impl Subject>) {
    let store = Books::of(subject.open().await);
    let ledger = ledger_of(&*store);
    let mut one = Sample::new("one");
    for first in [1, 4, 7] {
        committed(&*store, entered(&mut one, &wire_events(first..=first + 2), &["all"])).await;
    }
    for (first, last) in [(1, 9), (1, 1), (9, 9), (3, 7), (4, 6), (5, 4), (20, 10)] {
        let entries = ledger.entries("all", first, last).await.expect("entries are read");
        let ids: Vec<_> = entries.iter().filter_map(|entry| ledger::entry_id(entry)).collect();
        assert_eq!(ids, (first..=last).collect::<Vec<_>>());
    }
    for (first, last) in [(0, 3), (8, 10), (10, 10), (-1, -1), (1, i64::MAX), (i64::MIN, 2), (i64::MAX, i64::MAX)] {
        let gap = ledger.entries("all", first, last).await;
        assert!(matches!(gap, Err(StorageError::Corrupt(_))), "{first} to {last}: {gap:?}");
    }
}

pub async fn blocks_are_paged_behind_an_entry(subject: Arc<impl Subject>) {
    let store = Books::of(subject.open().await);
    let ledger = ledger_of(&*store);
    let mut one = Sample::new("one");
    for step in 0..5 {
        committed(&*store, entered(&mut one, &wire_events(step * 3 + 1..=step * 3 + 3), &["all"])).await;
    }
    let blocks = ledger.blocks("all", 0, 100).await.expect("blocks are read");
    assert_eq!(blocks.iter().map(|block| block.first).collect::<Vec<_>>(), vec![1, 4, 7, 10, 13]);
    assert!(blocks.iter().all(|block| block.entries.len() == 3 && block.digests.len() == 3));
    assert_eq!(blocks.last().map(|block| block.head()), ledger.head("all").await.ok());
    assert_eq!(ledger.blocks("all", 3, 2).await, Ok(blocks[1..3].to_vec()));
    assert_eq!(ledger.blocks("all", 12, 2).await, Ok(blocks[4..].to_vec()));
    for after in [15, 99, i64::MAX] {
        assert_eq!(ledger.blocks("all", after, 2).await, Ok(vec![]));
    }
}

pub async fn a_commit_put_again_enters_nothing_more(subject: Arc<impl Subject>) {
    let store = Books::of(subject.open().await);
    let ledger = ledger_of(&*store);
    let (mut one, mut two) = (Sample::new("one"), Sample::new("two"));
    let first = entered(&mut one, &wire_events(1..=2), &["all"]);
    let puts = (0..8).map(|_| {
        let (store, first) = (Arc::clone(&store), first.clone());
        tokio::spawn(async move { committed(&*store, first).await })
    });
    for put in join_all(puts.collect::<Vec<_>>()).await {
        put.expect("a commit that is put again is committed");
    }
    committed(&*store, entered(&mut two, &wire_events(1..=1), &["all"])).await;
    committed(&*store, entered(&mut one, &wire_events(3..=3), &["all"])).await;
    committed(&*store, first).await;
    assert_eq!(verified(ledger, "all").await.last, 4);
}

pub async fn what_is_not_committed_is_not_entered(subject: Arc<impl Subject>) {
    let store = Books::of(subject.open().await);
    let ledger = ledger_of(&*store);
    let (mut one, mut two) = (Sample::new("one"), Sample::new("two"));
    let tag = |commit| Commit { tag: Some(Bytes::from_static(b"tag")), ..commit };
    committed(&*store, tag(entered(&mut one, &wire_events(1..=1), &["all"]))).await;
    conflicts(&*store, entered(&mut Sample::new("one").seeded(3), &wire_events(1..=1), &["all"])).await;
    let outcome = store.commit(tag(entered(&mut two, &wire_events(1..=1), &["all"]))).await;
    assert_eq!(outcome, Outcome::TagTaken);
    let replaced_events = vec![(9, Bytes::new())];
    let refused = Commit { replaced_events, ..entered(&mut one.clone(), &wire_events(2..=2), &["all"]) };
    assert!(matches!(store.commit(refused).await, Outcome::Refused(_)));
    assert_eq!(all_entries(ledger, "all").await, expected(1, &one, &wire_events(1..=1)));
    committed(&*store, entered(&mut one, &wire_events(2..=2), &["all"])).await;
    assert_eq!(verified(ledger, "all").await.last, 2);
}

pub async fn a_commit_without_events_enters_nothing(subject: Arc<impl Subject>) {
    let store = Books::of(subject.open().await);
    let ledger = ledger_of(&*store);
    let mut one = Sample::new("one");
    committed(&*store, entered(&mut one, &[], &["all"])).await;
    assert_eq!(ledger.head("all").await, Ok(Head::EMPTY));
    committed(&*store, entered(&mut one, &wire_events(1..=1), &[])).await;
    assert_eq!(verified(ledger, "all").await, Head::EMPTY);
}

pub async fn a_commit_is_entered_in_each_of_its_ledgers_once(subject: Arc<impl Subject>) {
    let store = Books::of(subject.open().await);
    let ledger = ledger_of(&*store);
    let mut one = Sample::new("one");
    committed(&*store, entered(&mut one, &wire_events(1..=1), &["b"])).await;
    committed(&*store, entered(&mut one, &wire_events(2..=3), &["a", "b", "a"])).await;
    assert_eq!(all_entries(ledger, "a").await, expected(1, &one, &wire_events(2..=3)));
    assert_eq!(all_entries(ledger, "b").await, expected(1, &one, &wire_events(1..=3)));
    assert_ne!(verified(ledger, "a").await, verified(ledger, "b").await);
}

pub async fn replaced_events_keep_their_entries(subject: Arc<impl Subject>) {
    let store = Books::of(subject.open().await);
    let ledger = ledger_of(&*store);
    let mut one = Sample::new("one");
    committed(&*store, entered(&mut one, &wire_events(1..=2), &["all"])).await;
    let head = verified(ledger, "all").await;
    let replaced_events = vec![(1, wire_events(9..=9)[0].clone())];
    committed(&*store, Commit { replaced_events, ..entered(&mut one, &[], &["all"]) }).await;
    assert_eq!(verified(ledger, "all").await, head);
    assert_eq!(all_entries(ledger, "all").await, expected(1, &one, &wire_events(1..=2)));
}

pub async fn removed_machines_keep_their_entries(subject: Arc<impl Subject>) {
    let store = Books::of(subject.open().await);
    let ledger = ledger_of(&*store);
    let mut one = Sample::new("one");
    committed(&*store, entered(&mut one, &wire_events(1..=2), &["all"])).await;
    let epoch = one.epoch();
    committed(&*store, one.removal(7)).await;
    assert_eq!(store.delete_epoch(&one.key, epoch, 2).await, Ok(()));
    committed(&*store, one.forgetting()).await;
    // One of the same id, started anew.
    committed(&*store, entered(&mut one, &wire_events(1..=1), &["all"])).await;
    assert_eq!(verified(ledger, "all").await.last, 3);
    let events = [wire_events(1..=2), wire_events(1..=1)].concat();
    assert_eq!(all_entries(ledger, "all").await, expected(1, &one, &events));
}

pub async fn names_of_ledgers_do_not_mix(subject: Arc<impl Subject>) {
    let store = Books::of(subject.open().await);
    let ledger = ledger_of(&*store);
    let mut one = Sample::new("one");
    let sinks = ["a", "ab", "", "a/b", "\u{1F980}", "a\0"];
    for (sink, id) in sinks.iter().zip(1..) {
        committed(&*store, entered(&mut one, &wire_events(id..=id), &[sink])).await;
    }
    for (sink, id) in sinks.iter().zip(1..) {
        assert_eq!(all_entries(ledger, sink).await, expected(1, &one, &wire_events(id..=id)));
        assert_eq!(verified(ledger, sink).await.last, 1);
    }
}

pub async fn large_blocks_are_verified_in_pages(subject: Arc<impl Subject>) {
    let store = Books::of(subject.open().await);
    let ledger = ledger_of(&*store);
    let mut one = Sample::new("one");
    for fill in 0..6_u8 {
        let large = vec![Bytes::from(vec![fill; 1 << 20]); 2];
        committed(&*store, entered(&mut one, &large, &["all"])).await;
    }
    let mut told = Vec::new();
    let head = ledger::verify_telling(ledger, "all", |head| told.push(head.last)).await;
    assert_eq!(head, ledger.head("all").await.map_err(ledger::Broken::Storage));
    assert!(told.is_sorted());
    assert_eq!(told.last(), Some(&12));
}

/// Eight namespaces of four machines each, all at once, with conflicts, taken tags and lost answers among them.
pub async fn many_namespaces_share_one_ledger(subject: Arc<impl Subject>) {
    const STEPS: i64 = 25;
    let store = Books::of(subject.open().await);
    let ledger = ledger_of(&*store);
    let machines: Vec<_> = (0..8).flat_map(|ns| (0..4).map(move |id| (format!("ns{ns}"), [id]))).collect();
    let mut keeper = BTreeMap::new();
    for (ns, _) in &machines {
        // Somebody holds the tag that the others of the namespace ask for.
        let mut holder = Sample::named(ns, b"keeper");
        let tag = Some(Bytes::from_static(b"kept"));
        if keeper.insert(ns.clone(), ()).is_none() {
            committed(&*store, Commit { tag, ..holder.step(&[], None) }).await;
        }
    }
    let writers = machines.iter().map(|(ns, id)| {
        let (store, mut sample) = (Arc::clone(&store), Sample::named(ns, id));
        tokio::spawn(async move {
            for step in 0..STEPS {
                let events = wire_events(step * 2 + 1..=step * 2 + 2);
                let mut rival = sample.clone().seeded(7);
                let taken = Commit { tag: Some("kept".into()), ..entered(&mut rival, &events, &["all"]) };
                if step % 5 == 0 {
                    assert_eq!(store.commit(taken).await, Outcome::TagTaken);
                }
                let late = entered(&mut sample.clone().seeded(8), &events, &["all"]);
                let commit = entered(&mut sample, &events, &["all"]);
                committed(&*store, commit.clone()).await;
                if step % 3 == 0 {
                    assert_eq!(store.commit(late).await, Outcome::Conflict);
                    committed(&*store, commit).await;
                }
            }
        })
    });
    for writer in join_all(writers.collect::<Vec<_>>()).await {
        writer.expect("a writer ends");
    }
    let head = verified(ledger, "all").await;
    assert_eq!(head.last, machines.len() as i64 * STEPS * 2);
    let mut seen: BTreeMap<MachineKey, Vec<Bytes>> = BTreeMap::new();
    for (entry, id) in all_entries(ledger, "all").await.into_iter().zip(1..) {
        assert_eq!(entry.id, id);
        seen.entry(entry.source).or_default().push(entry.event);
    }
    assert_eq!(seen.len(), machines.len());
    for (ns, id) in &machines {
        assert_eq!(seen.get(&key(ns, id)), Some(&wire_events(1..=STEPS * 2)), "{ns} {id:?}");
    }
}

/// A commit is seen whole or not at all, by who looks just while it is applied.
pub async fn a_reader_never_sees_a_head_without_its_entries(subject: Arc<impl Subject>) {
    let store = Books::of(subject.open().await);
    let done = Arc::new(AtomicBool::new(false));
    let readers = (0..3).map(|_| {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        tokio::spawn(async move {
            while !done.load(Relaxed) {
                let ledger = ledger_of(&*store);
                let last = ledger.head("all").await.expect("a head is read").last;
                let entries = ledger.entries("all", (last - 4).max(1), last).await.expect("its entries are there");
                assert_eq!(entries.last().and_then(|entry| ledger::entry_id(entry)), Some(last).filter(|it| *it > 0));
                tokio::task::yield_now().await;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let mut one = Sample::new("one");
    for step in 0..150 {
        committed(&*store, entered(&mut one, &wire_events(step * 40 + 1..=step * 40 + 40), &["all"])).await;
    }
    done.store(true, Relaxed);
    for reader in join_all(readers).await {
        reader.expect("a reader sees whole commits only");
    }
}
