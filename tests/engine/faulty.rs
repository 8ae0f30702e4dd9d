//! A store that fails as it is told to.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use machinegun::clock::random_bytes;
use machinegun::machine::{
    CommitId, Epoch, MachineId, MachineKey, Namespace, Notification, NotificationId, Record, Shard,
};
use machinegun::storage::{
    Append, Commit, Due, Leases, Ledger, Listing, Loaded, MachinePage, Outcome, Storage, StorageError,
};
use machinegun::wire::HistoryRange;

use crate::scripted::{Gate, Inside};

/// What becomes of a commit.
pub enum Fault {
    Refuse,
    /// Refused, and no other try will go better.
    Corrupt,
    /// Done, or not, but nobody is told which.
    Unknown {
        applied: bool,
    },
    /// Another writer commits first, and leaves the machine so.
    Intrude(Box<dyn FnOnce(Record) -> Record + Send>),
    /// Waits at the gate before it is done.
    Hold(Inside),
    Panic,
}

pub struct Faulty {
    inner: Arc<dyn Storage>,
    faults: Mutex<VecDeque<Fault>>,
    commits: Mutex<Vec<Commit>>,
    /// The first read waits here, and others wait for it.
    reading: tokio::sync::Mutex<Option<Inside>>,
    /// Nothing is done and nothing is read.
    pub down: AtomicBool,
    /// Deletions are refused.
    pub keeps: AtomicBool,
    /// In how many of 100 commits something goes wrong.
    pub chaos: AtomicU32,
    seed: AtomicU64,
    pub reads: AtomicUsize,
    pub standings: AtomicUsize,
    pub event_reads: AtomicUsize,
    pub notification_reads: AtomicUsize,
    pub scans: AtomicUsize,
    /// Epochs whose events were deleted.
    pub deleted: Mutex<Vec<Epoch>>,
}

// === impl Faulty ===

impl Faulty {
    pub fn new(inner: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            faults: Mutex::default(),
            commits: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            down: AtomicBool::new(false),
            keeps: AtomicBool::new(false),
            chaos: AtomicU32::new(0),
            seed: AtomicU64::new(7),
            reads: AtomicUsize::new(0),
            standings: AtomicUsize::new(0),
            event_reads: AtomicUsize::new(0),
            notification_reads: AtomicUsize::new(0),
            scans: AtomicUsize::new(0),
            deleted: Mutex::default(),
        })
    }

    /// The next commit that no fault is waiting for has this one.
    pub fn then(&self, fault: Fault) -> &Self {
        self.faults.lock().unwrap().push_back(fault);
        self
    }

    /// Holds the next commit before it is done.
    pub fn hold(&self) -> Gate {
        let (gate, inside) = Gate::new();
        self.then(Fault::Hold(inside));
        gate
    }

    /// Holds all reads from now on.
    pub fn hold_reads(&self) -> Gate {
        let (gate, inside) = Gate::new();
        *self.reading.try_lock().unwrap() = Some(inside);
        gate
    }

    /// All that were answered, retries included.
    pub fn commits(&self) -> Vec<Commit> {
        self.commits.lock().unwrap().clone()
    }

    /// The store without its faults.
    pub fn inner(&self) -> &Arc<dyn Storage> {
        &self.inner
    }

    fn up(&self) -> Result<(), StorageError> {
        if self.down.load(Ordering::SeqCst) { Err(unavailable()) } else { Ok(()) }
    }

    /// Evenly spread, and the same in each run as far as the order of asking is.
    fn dice(&self, sides: u64) -> u64 {
        let mut x = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % sides
    }

    fn next_fault(&self) -> Option<Fault> {
        if let Some(fault) = self.faults.lock().unwrap().pop_front() {
            return Some(fault);
        }
        let unlucky = self.dice(100) < u64::from(self.chaos.load(Ordering::SeqCst));
        unlucky.then(|| match self.dice(3) {
            0 => Fault::Refuse,
            side => Fault::Unknown { applied: side == 1 },
        })
    }

    async fn faulty(&self, commit: Commit) -> Outcome {
        if let Err(error) = self.up() {
            return Outcome::Refused(error);
        }
        match self.next_fault() {
            None => self.inner.commit(commit).await,
            Some(Fault::Corrupt) => Outcome::Refused(StorageError::Corrupt("the test has it so".to_owned())),
            Some(Fault::Refuse) => Outcome::Refused(unavailable()),
            Some(Fault::Unknown { applied }) => {
                if applied {
                    self.inner.commit(commit).await;
                }
                Outcome::Unknown(unavailable())
            }
            Some(Fault::Intrude(change)) => {
                self.intrude(&commit.key, change).await;
                self.inner.commit(commit).await
            }
            Some(Fault::Hold(gate)) => {
                gate.pass().await;
                self.inner.commit(commit).await
            }
            Some(Fault::Panic) => panic!("the test has it so"),
        }
    }

    async fn intrude(&self, key: &MachineKey, change: impl FnOnce(Record) -> Record) {
        let Loaded { record, .. } = self.inner.read(key, None).await.unwrap().expect("a machine to intrude on");
        let next =
            change(Record { commit: CommitId(random_bytes()), earlier: record.history_of_commits(), ..record.clone() });
        let commit = Commit {
            key: key.clone(),
            expect: Some(record.commit),
            record: Some(Arc::new(next)),
            events: Vec::new(),
            delete_notifications: Vec::new(),
            park_notifications: Vec::new(),
            replaced_events: Vec::new(),
            tag: None,
            ledgers: Vec::new(),
        };
        assert_eq!(self.inner.commit(commit).await, Outcome::Committed);
    }
}

fn unavailable() -> StorageError {
    StorageError::Unavailable("the test has it so".to_owned())
}

#[async_trait]
impl Storage for Faulty {
    async fn read(&self, key: &MachineKey, range: Option<&HistoryRange>) -> Result<Option<Loaded>, StorageError> {
        self.up()?;
        let mut reading = self.reading.lock().await;
        if let Some(gate) = reading.take() {
            gate.pass().await;
        }
        drop(reading);
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.read(key, range).await
    }

    async fn standing(&self, key: &MachineKey) -> Result<Option<CommitId>, StorageError> {
        self.up()?;
        self.standings.fetch_add(1, Ordering::SeqCst);
        self.inner.standing(key).await
    }

    async fn events(&self, key: &MachineKey, epoch: Epoch, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError> {
        self.up()?;
        self.event_reads.fetch_add(1, Ordering::SeqCst);
        self.inner.events(key, epoch, first, last).await
    }

    async fn commit(&self, commit: Commit) -> Outcome {
        let answer = self.faulty(commit.clone()).await;
        // Noted at the end, so who sees it here knows that the engine goes on from it.
        self.commits.lock().unwrap().push(commit);
        answer
    }

    async fn put_notification(&self, key: &MachineKey, it: &Notification, due: i64) -> Result<(), StorageError> {
        self.up()?;
        self.inner.put_notification(key, it, due).await
    }

    async fn notifications(&self, key: &MachineKey, limit: usize) -> Result<Vec<Notification>, StorageError> {
        self.up()?;
        self.notification_reads.fetch_add(1, Ordering::SeqCst);
        self.inner.notifications(key, limit).await
    }

    async fn settle_notifications(
        &self,
        key: &MachineKey,
        delete: &[NotificationId],
        park: &[NotificationId],
    ) -> Result<(), StorageError> {
        self.up()?;
        self.inner.settle_notifications(key, delete, park).await
    }

    async fn delete_epoch(&self, key: &MachineKey, epoch: Epoch, last: i64) -> Result<(), StorageError> {
        self.up()?;
        if self.keeps.load(Ordering::SeqCst) {
            return Err(unavailable());
        }
        self.deleted.lock().unwrap().push(epoch);
        self.inner.delete_epoch(key, epoch, last).await
    }

    async fn tagged(&self, ns: &Namespace, tag: &[u8]) -> Result<Option<MachineId>, StorageError> {
        self.up()?;
        self.inner.tagged(ns, tag).await
    }

    fn has_tags(&self) -> bool {
        self.inner.has_tags()
    }

    fn ledger(&self) -> Option<&dyn Ledger> {
        self.inner.ledger()
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.inner.leases()
    }

    fn appended_ledger(&self) -> Option<&dyn Append> {
        self.inner.appended_ledger().filter(|_| self.up().is_ok())
    }

    async fn dues(
        &self,
        shards: Option<&[Shard]>,
        until: i64,
        after: Option<&Bytes>,
        limit: usize,
    ) -> Result<Vec<Due>, StorageError> {
        self.scans.fetch_add(1, Ordering::SeqCst);
        self.up()?;
        self.inner.dues(shards, until, after, limit).await
    }

    async fn machines(&self, of: &Listing, after: Option<&Bytes>, limit: usize) -> Result<MachinePage, StorageError> {
        self.up()?;
        self.inner.machines(of, after, limit).await
    }
}
