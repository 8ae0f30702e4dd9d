//! Machines made for the promises, and what is asked of a store again and again.

use std::sync::Arc;

use bytes::Bytes;

use crate::machine::{
    CommitId, Epoch, KEPT_COMMITS, MachineId, MachineKey, Namespace, Notification, Phase, Record, RequestContext,
    Status, Timer,
};
use crate::storage::{Commit, Loaded, Outcome, Storage};
use crate::wire::{Content, Direction, HistoryRange, Value};

/// What the test holds of a machine: enough to make its next commit.
#[derive(Clone, Debug)]
pub struct Sample {
    pub key: MachineKey,
    pub record: Option<Record>,
    seed: u8,
    made: u64,
}

// === impl Sample ===

impl Sample {
    pub fn new(id: &str) -> Self {
        Self::named("contract", id.as_bytes())
    }

    pub fn named(ns: &str, id: &[u8]) -> Self {
        Self { key: key(ns, id), record: None, seed: 0, made: 0 }
    }

    /// Makes other commit ids than the same sample of another seed.
    pub fn seeded(mut self, seed: u8) -> Self {
        self.seed = seed;
        self
    }

    /// The record that the test holds; it must have made one.
    pub fn record(&self) -> &Record {
        self.record.as_ref().expect("the sample has a record")
    }

    pub fn epoch(&self) -> Epoch {
        self.record().epoch
    }

    pub fn commit_id(&self) -> Option<CommitId> {
        self.record.as_ref().map(|record| record.commit)
    }

    fn next_id(&mut self) -> CommitId {
        self.made += 1;
        let mut id = [self.seed; 16];
        id[8..].copy_from_slice(&self.made.to_be_bytes());
        CommitId(id)
    }

    /// The commit that appends `events` and sets the timer to `due`. The sample goes on from it.
    pub fn step(&mut self, events: &[Bytes], due: Option<i64>) -> Commit {
        self.step_with(events, |record| record.timer = due.map(timer))
    }

    pub fn step_with(&mut self, events: &[Bytes], change: impl FnOnce(&mut Record)) -> Commit {
        let commit = self.next_id();
        let mut record = match &self.record {
            Some(present) if present.exists() => {
                Record { commit, earlier: present.history_of_commits(), ..present.clone() }
            }
            present => new_record(commit, present.as_ref()),
        };
        record.last_event += events.len() as i64;
        change(&mut record);
        let expect = self.commit_id();
        self.record = Some(record.clone());
        Commit { events: events.to_vec(), ..self.commit(expect, Some(record)) }
    }

    /// The commit that leaves a tombstone.
    pub fn removal(&mut self, at: i64) -> Commit {
        self.step_with(&[], |record| {
            record.status = Status::Removed { at };
            record.timer = None;
        })
    }

    /// The commit that deletes the record.
    pub fn forgetting(&mut self) -> Commit {
        let expect = self.commit_id();
        self.record = None;
        self.commit(expect, None)
    }

    pub fn commit(&self, expect: Option<CommitId>, record: Option<Record>) -> Commit {
        Commit {
            key: self.key.clone(),
            expect,
            record: record.map(Arc::new),
            events: Vec::new(),
            delete_notifications: Vec::new(),
            park_notifications: Vec::new(),
            replaced_events: Vec::new(),
            tag: None,
            ledgers: Vec::new(),
        }
    }

    /// Commits a step that must succeed.
    pub async fn commit_step(&mut self, store: &dyn Storage, events: &[Bytes], due: Option<i64>) {
        committed(store, self.step(events, due)).await;
    }

    /// What stands in the store is what the test holds, with `events` from the first to the last.
    pub async fn assert_stands(&self, store: &dyn Storage, events: &[Bytes]) {
        let expected = self.record.clone().map(|record| Loaded { record, events: events.to_vec() });
        assert_eq!(read(store, &self.key).await, expected);
    }

    pub fn notification(&self, id: i64) -> Notification {
        let epoch = self.record.as_ref().map_or(CommitId([0; 16]), |record| record.epoch);
        Notification {
            id,
            epoch,
            args: Value::int(id),
            range: HistoryRange { after: Some(id), limit: Some(3), direction: Direction::Backward },
            context: context(),
        }
    }
}

pub fn key(ns: &str, id: &[u8]) -> MachineKey {
    let id = MachineId::new(Bytes::copy_from_slice(id)).expect("the contract's ids are valid");
    MachineKey { ns: Namespace::new(ns), id }
}

pub fn timer(due: i64) -> Timer {
    Timer { due, range: everything(), timeout: 30, context: context() }
}

pub fn context() -> RequestContext {
    RequestContext {
        trace_id: Bytes::from_static(b"trace"),
        span_id: Bytes::from_static(b"span"),
        meta: vec![(Bytes::from_static(b"user-identity.id"), Bytes::from_static(&[0, 255]))],
        trace: Vec::new(),
    }
}

fn new_record(commit: CommitId, over: Option<&Record>) -> Record {
    Record {
        commit,
        earlier: over.map(Record::history_of_commits).unwrap_or_default(),
        epoch: commit,
        status: Status::Working(Phase::Idle),
        aux_state: Content { format_version: Some(1), data: Value::nil() },
        timer: None,
        last_event: 0,
        notifications_due: None,
        handled: Vec::new(),
        debts: Vec::new(),
        unsent: Vec::new(),
        outbox_due: None,
    }
}

/// Event bytes: a store does not look into them.
pub fn events(ids: std::ops::RangeInclusive<i64>) -> Vec<Bytes> {
    ids.map(|id| Bytes::from(format!("event {id}"))).collect()
}

pub fn everything() -> HistoryRange {
    HistoryRange { after: None, limit: None, direction: Direction::Forward }
}

pub async fn committed(store: &dyn Storage, commit: Commit) {
    assert_eq!(store.commit(commit).await, Outcome::Committed);
}

pub async fn conflicts(store: &dyn Storage, commit: Commit) {
    assert_eq!(store.commit(commit).await, Outcome::Conflict);
}

pub async fn read(store: &dyn Storage, key: &MachineKey) -> Option<Loaded> {
    store.read(key, Some(&everything())).await.expect("a machine is read")
}

/// All dues, as time and machine, read in pages of two.
pub async fn all_dues(store: &dyn Storage) -> Vec<(i64, MachineKey)> {
    let mut found: Vec<(i64, MachineKey)> = Vec::new();
    let mut after = None;
    loop {
        let page = store.dues(None, i64::MAX, after.as_ref(), 2).await.expect("dues are read");
        let Some(last) = page.last() else { return found };
        after = Some(last.cursor.clone());
        found.extend(page.into_iter().map(|due| (due.at, due.key)));
    }
}

pub async fn due_times(store: &dyn Storage) -> Vec<i64> {
    all_dues(store).await.into_iter().map(|(at, _)| at).collect()
}

pub async fn entry_ids(store: &dyn Storage, key: &MachineKey) -> Vec<i64> {
    let entries = store.notifications(key, usize::MAX).await.expect("notifications are read");
    entries.into_iter().map(|it| it.id).collect()
}

pub async fn put(store: &dyn Storage, sample: &Sample, id: i64, due: i64) {
    let put = store.put_notification(&sample.key, &sample.notification(id), due).await;
    assert_eq!(put, Outcome::Committed);
}

/// So many steps make the first one forgotten.
pub const FORGETTING_STEPS: usize = KEPT_COMMITS;
