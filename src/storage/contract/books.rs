//! Ledgers of both kinds under one roof: where a commit can't hold its entries, they are delivered behind it, as the engine
//! does it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::machine::{CommitId, Epoch, MachineId, MachineKey, Namespace, Notification, NotificationId, Record, Shard};
use crate::storage::ledger::{Append, Ledger, LedgerWriter};
use crate::storage::{Commit, Due, Listing, Loaded, MachinePage, Outcome, Storage, StorageError};
use crate::telemetry::Metrics;
use crate::wire::HistoryRange;

/// A store whose commits name ledgers, whatever its kind is.
pub struct Books {
    store: Arc<dyn Storage>,
    writers: Mutex<HashMap<String, Arc<LedgerWriter>>>,
    /// What the ledgers had reached before a commit was put for the first time.
    places: Mutex<HashMap<(CommitId, String), i64>>,
    metrics: Arc<Metrics>,
}

// === impl Books ===

impl Books {
    pub fn of(store: Arc<dyn Storage>) -> Arc<dyn Storage> {
        match store.appended_ledger().is_some() {
            true => {
                Arc::new(Self { store, writers: Mutex::default(), places: Mutex::default(), metrics: Metrics::new() })
            }
            false => store,
        }
    }

    async fn writer(&self, sink: &str) -> Arc<LedgerWriter> {
        let mut writers = self.writers.lock().await;
        if let Some(writer) = writers.get(sink) {
            return writer.clone();
        }
        let opened = LedgerWriter::open(self.store.clone(), sink, Clock::system(), self.metrics.ledger(sink)).await;
        let writer = opened.expect("a ledger's end is found");
        writers.insert(sink.to_owned(), writer.clone());
        writer
    }

    async fn deliver(&self, key: &MachineKey, record: &Record, events: &[Bytes], sink: &str, behind: i64) {
        let first = record.last_event - events.len() as i64 + 1;
        let entered = self.writer(sink).await.enter(key, record.epoch, first, events, behind).await;
        entered.expect("a ledger takes what it is delivered");
    }
}

#[async_trait]
impl Storage for Books {
    async fn commit(&self, mut commit: Commit) -> Outcome {
        let sinks: BTreeSet<_> = std::mem::take(&mut commit.ledgers).into_iter().collect();
        let (key, events, record) = (commit.key.clone(), commit.events.clone(), commit.record.clone());
        let mut behind = Vec::new();
        if let Some(record) = &record {
            for sink in sinks {
                let place = self.writer(&sink).await.place();
                let place = *self.places.lock().await.entry((record.commit, sink.clone())).or_insert(place);
                behind.push((sink, place));
            }
        }
        let outcome = self.store.commit(commit).await;
        if let (Outcome::Committed, Some(record)) = (&outcome, record) {
            for (sink, place) in behind {
                self.deliver(&key, &record, &events, &sink, place).await;
            }
        }
        outcome
    }

    fn ledger(&self) -> Option<&dyn Ledger> {
        self.store.ledger()
    }

    fn appended_ledger(&self) -> Option<&dyn Append> {
        self.store.appended_ledger()
    }

    async fn read(&self, key: &MachineKey, range: Option<&HistoryRange>) -> Result<Option<Loaded>, StorageError> {
        self.store.read(key, range).await
    }

    async fn events(&self, key: &MachineKey, epoch: Epoch, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError> {
        self.store.events(key, epoch, first, last).await
    }

    async fn put_notification(&self, key: &MachineKey, it: &Notification, due: i64) -> Outcome {
        self.store.put_notification(key, it, due).await
    }

    async fn notifications(&self, key: &MachineKey, limit: usize) -> Result<Vec<Notification>, StorageError> {
        self.store.notifications(key, limit).await
    }

    async fn settle_notifications(
        &self,
        key: &MachineKey,
        delete: &[NotificationId],
        park: &[NotificationId],
    ) -> Result<(), StorageError> {
        self.store.settle_notifications(key, delete, park).await
    }

    async fn delete_epoch(&self, key: &MachineKey, epoch: Epoch, last: i64) -> Result<(), StorageError> {
        self.store.delete_epoch(key, epoch, last).await
    }

    async fn tagged(&self, ns: &Namespace, tag: &[u8]) -> Result<Option<MachineId>, StorageError> {
        self.store.tagged(ns, tag).await
    }

    async fn standing(&self, key: &MachineKey) -> Result<Option<CommitId>, StorageError> {
        self.store.standing(key).await
    }

    async fn dues(
        &self,
        shards: Option<&[Shard]>,
        until: i64,
        after: Option<&Bytes>,
        limit: usize,
    ) -> Result<Vec<Due>, StorageError> {
        self.store.dues(shards, until, after, limit).await
    }

    async fn machines(&self, of: &Listing, after: Option<&Bytes>, limit: usize) -> Result<MachinePage, StorageError> {
        self.store.machines(of, after, limit).await
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
