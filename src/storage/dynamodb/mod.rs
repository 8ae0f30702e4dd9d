//! Machines in a DynamoDB table, or one of ScyllaDB's Alternator: storage that outlives any one host.
//!
//! A machine's item is the commit point: each step is one conditional put of it. It carries the newest events itself;
//! older ones lie in chunks that never change, put there before the item drops them. `keys` and `layout` say how, `commit`
//! writes, `read` merges, `ledger` appends blocks beside the commits, `schema` makes and checks the table. docs/decisions/0003-dynamodb-layout.md says why.
//!
//! Several instances may share a table: `leases` says which of them wakes which machines. What is stored never rests on
//! that, since every commit is conditional.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::ledger::Head;
use super::{
    Append, Commit, Due, LONGEST_TAG, Leases, Ledger, Listing, Loaded, MachinePage, Outcome, Storage, StorageError,
};
use crate::machine::{CommitId, Epoch, MachineId, MachineKey, Namespace, Notification, NotificationId, Shard};
use crate::wire::HistoryRange;

mod abilities;
mod client;
mod commit;
mod dues;
mod erase;
mod keys;
mod layout;
mod leases;
mod ledger;
mod listing;
mod notifications;
mod places;
mod read;
pub mod schema;
mod standings;
mod tags;

use abilities::Abilities;
pub use client::DynamodbOptions;
use client::Table;
pub use keys::LONGEST_NAMESPACE;
pub use places::Places;
pub use schema::SchemaError;
use standings::Standings;

pub struct Dynamodb {
    table: Table,
    /// The way of the leases to it.
    leases: Table,
    shards: u16,
    abilities: Abilities,
    closed: AtomicBool,
    /// What the next commits of the machines seen last are made over, so that a hot one reads nothing.
    standings: Mutex<Standings>,
    /// Commits that were put, or are being put, and have no definite answer yet. A commit that forgets a machine has no
    /// id: it goes by the one that it expects, and `false`.
    pending: Mutex<HashSet<Mark>>,
    /// The ledgers' heads as they were seen last: the way to where they are now begins there.
    heads: Mutex<HashMap<String, Head>>,
}

type Mark = (MachineKey, CommitId, bool);

// === impl Dynamodb ===

impl Dynamodb {
    /// Opens a table that `schema` finds to be as it should be.
    pub async fn open(options: &DynamodbOptions) -> Result<Arc<Self>, SchemaError> {
        let table = Table::new(options).await;
        let abilities = schema::check_table(&table, options).await?;
        Ok(Arc::new(Self {
            leases: table.apart(),
            table,
            shards: options.shards,
            abilities,
            closed: AtomicBool::new(false),
            standings: Mutex::default(),
            pending: Mutex::default(),
            heads: Mutex::default(),
        }))
    }

    /// Of the requests under way to the table, for those who watch them.
    pub fn places(&self) -> &Arc<Places> {
        &self.table.places
    }

    fn standings(&self) -> MutexGuard<'_, Standings> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, HashSet<Mark>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_open(&self) -> Result<(), StorageError> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(StorageError::Unavailable("the store is closed".to_owned())),
            false => Ok(()),
        }
    }

    fn check(&self, ns: &Namespace) -> Result<(), StorageError> {
        self.check_open()?;
        match ns.as_str().len() {
            0..=LONGEST_NAMESPACE => Ok(()),
            length => Err(StorageError::Unavailable(format!(
                "a namespace of {length} bytes can't be stored, {LONGEST_NAMESPACE} are the most"
            ))),
        }
    }

    fn check_commit(&self, commit: &Commit) -> Result<(), StorageError> {
        self.check(&commit.key.ns)?;
        if let Some(length) = commit.tag.as_ref().map(Bytes::len).filter(|length| *length > LONGEST_TAG) {
            let error = format!("a tag of {length} bytes can't be stored, {LONGEST_TAG} are the most");
            return Err(StorageError::Unavailable(error));
        }
        if commit.tag.is_some() && !self.has_tags() {
            let error = "this table has no transactions, so no tag can be claimed on it";
            return Err(StorageError::Unavailable(error.to_owned()));
        }
        match commit.ledgers.is_empty() {
            true => Ok(()),
            false => Err(StorageError::Unavailable("this store appends to ledgers beside the commits".to_owned())),
        }
    }
}

impl std::fmt::Debug for Dynamodb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dynamodb")
            .field("table", &self.table.name)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Storage for Dynamodb {
    async fn read(&self, key: &MachineKey, range: Option<&HistoryRange>) -> Result<Option<Loaded>, StorageError> {
        self.check(&key.ns)?;
        read::machine(&self.table, key, range).await
    }

    async fn standing(&self, key: &MachineKey) -> Result<Option<CommitId>, StorageError> {
        self.check(&key.ns)?;
        read::standing(&self.table, key).await
    }

    async fn events(&self, key: &MachineKey, epoch: Epoch, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError> {
        self.check(&key.ns)?;
        read::events(&self.table, key, epoch, first, last).await
    }

    async fn commit(&self, commit: Commit) -> Outcome {
        match self.check_commit(&commit) {
            Ok(()) => self.commit_whole(&commit).await,
            Err(error) => Outcome::Refused(error),
        }
    }

    async fn put_notification(&self, key: &MachineKey, it: &Notification, due: i64) -> Outcome {
        match self.check(&key.ns) {
            Ok(()) => self.put_entry(key, it, due).await,
            Err(error) => Outcome::Refused(error),
        }
    }

    async fn notifications(&self, key: &MachineKey, limit: usize) -> Result<Vec<Notification>, StorageError> {
        self.check(&key.ns)?;
        self.entries(key, limit).await
    }

    async fn settle_notifications(
        &self,
        key: &MachineKey,
        delete: &[NotificationId],
        park: &[NotificationId],
    ) -> Result<(), StorageError> {
        self.check(&key.ns)?;
        self.settle(key, delete, park).await
    }

    async fn delete_epoch(&self, key: &MachineKey, epoch: Epoch, last: i64) -> Result<(), StorageError> {
        self.check(&key.ns)?;
        self.erase(key, epoch, last).await
    }

    async fn tagged(&self, ns: &Namespace, tag: &[u8]) -> Result<Option<MachineId>, StorageError> {
        self.check(ns)?;
        match tag.len() > LONGEST_TAG {
            true => Ok(None),
            false => read::tagged(&self.table, ns, tag).await,
        }
    }

    fn has_tags(&self) -> bool {
        self.abilities.transactions
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(self)
    }

    fn ledger(&self) -> Option<&dyn Ledger> {
        Some(self)
    }

    fn appended_ledger(&self) -> Option<&dyn Append> {
        Some(self)
    }

    async fn dues(
        &self,
        shards: Option<&[Shard]>,
        until: i64,
        after: Option<&Bytes>,
        limit: usize,
    ) -> Result<Vec<Due>, StorageError> {
        self.check_open()?;
        match shards {
            Some(shards) => self.dues_of_shards(shards.iter().copied(), until, after, limit).await,
            None => self.dues_of_shards(0..self.shards, until, after, limit).await,
        }
    }

    async fn machines(&self, of: &Listing, after: Option<&Bytes>, limit: usize) -> Result<MachinePage, StorageError> {
        of.ns.as_ref().map_or_else(|| self.check_open(), |ns| self.check(ns))?;
        self.list(of, after, limit).await
    }

    /// What was answered is safe already.
    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }
}
