//! The service on a storage of one's own: here one that keeps machines in memory, and counts what is written.
//!
//! `cargo run --example custom_storage -- config/dev.yaml` runs it until Ctrl-C; what the file says of `storage` is not
//! looked at. `tests/custom_storage.rs` holds it to the promises of every storage, and runs the service on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use machinegun::machine::{CommitId, Epoch, MachineId, MachineKey, Namespace, Notification, NotificationId, Shard};
use machinegun::storage::memory::Memory;
use machinegun::storage::{
    Append, Commit, Due, Leases, Ledger, Listing, Loaded, MachinePage, Outcome, Storage, StorageError,
};
use machinegun::wire::HistoryRange;
use machinegun::{config, service};

/// Passes everything on. A backend of your own does its work in these methods instead.
#[derive(Debug, Default)]
pub struct Counted {
    inner: Memory,
    commits: AtomicU64,
}

// === impl Counted ===

impl Counted {
    /// Commits that were surely done, those that were put again included.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Storage for Counted {
    async fn read(&self, key: &MachineKey, range: Option<&HistoryRange>) -> Result<Option<Loaded>, StorageError> {
        self.inner.read(key, range).await
    }

    async fn standing(&self, key: &MachineKey) -> Result<Option<CommitId>, StorageError> {
        self.inner.standing(key).await
    }

    async fn events(&self, key: &MachineKey, epoch: Epoch, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError> {
        self.inner.events(key, epoch, first, last).await
    }

    async fn commit(&self, commit: Commit) -> Outcome {
        let outcome = self.inner.commit(commit).await;
        if outcome == Outcome::Committed {
            self.commits.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    async fn put_notification(&self, key: &MachineKey, it: &Notification, due: i64) -> Outcome {
        self.inner.put_notification(key, it, due).await
    }

    async fn notifications(&self, key: &MachineKey, limit: usize) -> Result<Vec<Notification>, StorageError> {
        self.inner.notifications(key, limit).await
    }

    async fn settle_notifications(
        &self,
        key: &MachineKey,
        delete: &[NotificationId],
        park: &[NotificationId],
    ) -> Result<(), StorageError> {
        self.inner.settle_notifications(key, delete, park).await
    }

    async fn delete_epoch(&self, key: &MachineKey, epoch: Epoch, last: i64) -> Result<(), StorageError> {
        self.inner.delete_epoch(key, epoch, last).await
    }

    async fn tagged(&self, ns: &Namespace, tag: &[u8]) -> Result<Option<MachineId>, StorageError> {
        self.inner.tagged(ns, tag).await
    }

    /// A storage without ledgers leaves this out, and `event_sinks` of `type: ledger` with it.
    fn ledger(&self) -> Option<&dyn Ledger> {
        self.inner.ledger()
    }

    fn appended_ledger(&self) -> Option<&dyn Append> {
        self.inner.appended_ledger()
    }

    /// A storage that several instances may share says here who owns which shard.
    fn leases(&self) -> Option<&dyn Leases> {
        self.inner.leases()
    }

    async fn dues(
        &self,
        shards: Option<&[Shard]>,
        until: i64,
        after: Option<&Bytes>,
        limit: usize,
    ) -> Result<Vec<Due>, StorageError> {
        self.inner.dues(shards, until, after, limit).await
    }

    async fn machines(&self, of: &Listing, after: Option<&Bytes>, limit: usize) -> Result<MachinePage, StorageError> {
        self.inner.machines(of, after, limit).await
    }

    fn has_tags(&self) -> bool {
        self.inner.has_tags()
    }

    async fn failure(&self) -> StorageError {
        self.inner.failure().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("say which configuration to start with, like config/dev.yaml")?;
    let (settings, _) = config::load(path.as_ref())?;
    let storage = Arc::new(Counted::default());
    let running = service::start_with_storage(settings, storage.clone()).await?;
    println!("up at http://{}, until Ctrl-C", running.address());
    service::stop_at_signal(running.stopper())?;
    running.wait().await?;
    println!("{} commits", storage.commits());
    Ok(())
}
