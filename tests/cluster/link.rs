//! One instance's way to the storage, which breaks as it is told to.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use machinegun::machine::{CommitId, Epoch, MachineId, MachineKey, Namespace, Notification, NotificationId, Shard};
use machinegun::storage::leases::{Heartbeat, InstanceId, Owner};
use machinegun::storage::{Commit, Due, Leases, Listing, Loaded, MachinePage, Outcome, Storage, StorageError};
use machinegun::wire::HistoryRange;
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Nothing arrives, and everybody is told so.
    Broken,
    /// All is done, and nobody is told so.
    Mute,
    /// Whoever comes stays until the way is another: as if the process had been stopped.
    Frozen,
    /// Whoever comes never gets an answer, whatever the way is later.
    Silent,
}

pub struct Link {
    inner: Arc<dyn Storage>,
    way: watch::Sender<Way>,
    /// Whoever asks for this next panics.
    trap: Mutex<Option<Trap>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    Beat,
    Owners,
}

// === impl Link ===

impl Link {
    pub fn new(inner: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self { inner, way: watch::Sender::new(Way::Open), trap: Mutex::default() })
    }

    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    pub fn spring(&self, trap: Trap) {
        *self.trap.lock().expect("it is never held over a panic") = Some(trap);
    }

    fn walk_into(&self, trap: Trap) {
        let sprung = self.trap.lock().expect("it is never held over a panic").take_if(|it| *it == trap);
        assert_eq!(sprung, None, "told so");
    }

    fn leases(&self) -> &dyn Leases {
        self.inner.leases().expect("a shared storage")
    }

    async fn over<T>(&self, work: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
        let lost = || StorageError::Unavailable("told so".to_owned());
        let mut ways = self.way.subscribe();
        let way = *ways.wait_for(|way| *way != Way::Frozen).await.expect("the link lives");
        match way {
            Way::Broken => Err(lost()),
            Way::Mute => {
                work.await?;
                Err(lost())
            }
            Way::Silent => std::future::pending().await,
            Way::Open | Way::Frozen => work.await,
        }
    }
}

#[async_trait]
impl Leases for Link {
    fn shards(&self) -> u16 {
        self.leases().shards()
    }

    async fn beat(&self, heartbeat: &Heartbeat) -> Result<bool, StorageError> {
        self.walk_into(Trap::Beat);
        self.over(self.leases().beat(heartbeat)).await
    }

    async fn heartbeats(&self) -> Result<Vec<Heartbeat>, StorageError> {
        self.over(self.leases().heartbeats()).await
    }

    async fn fence(&self, instance: InstanceId, beat: u64) -> Result<bool, StorageError> {
        self.over(self.leases().fence(instance, beat)).await
    }

    async fn owners(&self) -> Result<Vec<Owner>, StorageError> {
        self.walk_into(Trap::Owners);
        self.over(self.leases().owners()).await
    }

    async fn assign(&self, owner: &Owner) -> Result<bool, StorageError> {
        self.over(self.leases().assign(owner)).await
    }
}

#[async_trait]
impl Storage for Link {
    async fn read(&self, key: &MachineKey, range: Option<&HistoryRange>) -> Result<Option<Loaded>, StorageError> {
        self.over(self.inner.read(key, range)).await
    }

    async fn standing(&self, key: &MachineKey) -> Result<Option<CommitId>, StorageError> {
        self.over(self.inner.standing(key)).await
    }

    async fn events(&self, key: &MachineKey, epoch: Epoch, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError> {
        self.over(self.inner.events(key, epoch, first, last)).await
    }

    async fn commit(&self, commit: Commit) -> Outcome {
        let work = async { Ok(self.inner.commit(commit).await) };
        self.over(work).await.unwrap_or_else(Outcome::Unknown)
    }

    async fn put_notification(&self, key: &MachineKey, it: &Notification, due: i64) -> Outcome {
        let work = async { Ok(self.inner.put_notification(key, it, due).await) };
        self.over(work).await.unwrap_or_else(Outcome::Unknown)
    }

    async fn notifications(&self, key: &MachineKey, limit: usize) -> Result<Vec<Notification>, StorageError> {
        self.over(self.inner.notifications(key, limit)).await
    }

    async fn settle_notifications(
        &self,
        key: &MachineKey,
        delete: &[NotificationId],
        park: &[NotificationId],
    ) -> Result<(), StorageError> {
        self.over(self.inner.settle_notifications(key, delete, park)).await
    }

    async fn delete_epoch(&self, key: &MachineKey, epoch: Epoch, last: i64) -> Result<(), StorageError> {
        self.over(self.inner.delete_epoch(key, epoch, last)).await
    }

    async fn tagged(&self, ns: &Namespace, tag: &[u8]) -> Result<Option<MachineId>, StorageError> {
        self.over(self.inner.tagged(ns, tag)).await
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(self)
    }

    async fn dues(
        &self,
        shards: Option<&[Shard]>,
        until: i64,
        after: Option<&Bytes>,
        limit: usize,
    ) -> Result<Vec<Due>, StorageError> {
        self.over(self.inner.dues(shards, until, after, limit)).await
    }

    async fn machines(&self, of: &Listing, after: Option<&Bytes>, limit: usize) -> Result<MachinePage, StorageError> {
        self.over(self.inner.machines(of, after, limit)).await
    }

    fn has_tags(&self) -> bool {
        self.inner.has_tags()
    }
}
