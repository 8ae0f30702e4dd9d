//! Where machines are kept. A backend of one's own implements [`Storage`], and is proven by the suite in `contract`.
//!
//! INVARIANT: each method did all that it says, or nothing, or says that it doesn't know.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::machine::{CommitId, Epoch, MachineId, MachineKey, Namespace, Notification, NotificationId, Record, Shard};
use crate::wire::HistoryRange;

pub mod contract;
#[cfg(feature = "dynamodb")]
pub mod dynamodb;
pub mod embedded;
pub mod leases;
pub mod ledger;
mod listing;
pub mod memory;

pub use leases::Leases;
pub use ledger::{Append, Ledger};
pub use listing::{Listed, Listing, MachinePage};

/// The longest tag that every store keeps, in bytes: as long as an id. A commit with a longer one is refused.
pub const LONGEST_TAG: usize = MachineId::LONGEST;

/// One step's atomic write, conditional on the commit that it was made from.
#[derive(Clone, Debug)]
pub struct Commit {
    pub key: MachineKey,
    /// The commit that must stand there now; none: no record at all.
    pub expect: Option<CommitId>,
    /// The record to put, under a commit id of its own; none: the record goes (a tombstone that has rested), and events,
    /// tag and ledgers have no meaning.
    pub record: Option<Arc<Record>>,
    /// New events of the record's epoch, wire encoded, with consecutive ids that end at its `last_event`.
    pub events: Vec<Bytes>,
    /// Notifications that took effect or can't any more: their entries go.
    pub delete_notifications: Vec<NotificationId>,
    /// Notifications for whose waiting the record's due stands from now on: their entries lose their own.
    pub park_notifications: Vec<NotificationId>,
    /// Stored events of the record's epoch that get other bytes: id, wire encoding. One that is not stored is corruption:
    /// the commit is refused. Ledgers keep what they have.
    pub replaced_events: Vec<(i64, Bytes)>,
    /// A tag that the machine claims in its namespace: free, its own already, or of a machine that exists no more.
    pub tag: Option<Bytes>,
    /// The ledgers that the new events are entered in, by name: all in this write, or none. Only where the store has
    /// ledgers ([`Storage::ledger`]) and they are not appended beside the commits.
    pub ledgers: Vec<String>,
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It stands, now or already: a commit put again is recognised by its id.
    Committed,
    /// Another commit stands where the expected one should, or another notification under its id; nothing was written, and
    /// no put of it can be done any more. Whether an earlier put of unknown result was done, the record that stands says
    /// while it remembers: the caller looks.
    Conflict,
    /// The tag belongs to another machine, which exists; nothing was written.
    TagTaken,
    /// Surely not done, neither by this put nor by an earlier one of the same commit.
    Refused(StorageError),
    /// Done or not: to be put again, the same bytes under the same commit id, until the answer is definite.
    Unknown(StorageError),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// May go well another time.
    #[error("storage unavailable: {0}")]
    Unavailable(String),
    /// What is stored is not what it should be; no retry helps.
    #[error("storage corrupt: {0}")]
    Corrupt(String),
}

/// A record with the events that were asked for, of one snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub record: Record,
    /// Wire encoded, ascending; those that the range asked for.
    pub events: Vec<Bytes>,
}

/// Something that wants a machine to be woken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Unix milliseconds.
    pub at: i64,
    pub key: MachineKey,
    /// Of a notification's entry, not of the record.
    pub entry: bool,
    /// Where to go on behind this one; opaque.
    pub cursor: Bytes,
}

#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// The record, tombstones included, and its events in `range` if one is given. A gap in the events is an error.
    async fn read(&self, key: &MachineKey, range: Option<&HistoryRange>) -> Result<Option<Loaded>, StorageError>;

    /// The commit that stands now, of a tombstone too: what every commit that was answered before this was asked has left,
    /// by whichever instance.
    async fn standing(&self, key: &MachineKey) -> Result<Option<CommitId>, StorageError>;

    /// The events `first` to `last` of an epoch, ascending. A gap is an error.
    async fn events(&self, key: &MachineKey, epoch: Epoch, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError>;

    /// Writes all that the commit says, or nothing. One whose id the present record still remembers is committed,
    /// whatever it expects; so is forgetting a machine of which there is no record.
    async fn commit(&self, commit: Commit) -> Outcome;

    /// Puts an entry, due at `due` (unix milliseconds). Putting the same again changes nothing, and is committed. Where
    /// another notification has the id, it is a conflict and nothing is written: instances may make equal ids.
    ///
    /// Refused says it of this put alone: what became of an earlier one is for the caller to remember.
    async fn put_notification(&self, key: &MachineKey, it: &Notification, due: i64) -> Outcome;

    /// The entries of a machine, of any epoch, in the order of acceptance, at most `limit`.
    async fn notifications(&self, key: &MachineKey, limit: usize) -> Result<Vec<Notification>, StorageError>;

    /// Outside of a step: entries that go, and entries that lose their own due. Repeating it changes nothing.
    async fn settle_notifications(
        &self,
        key: &MachineKey,
        delete: &[NotificationId],
        park: &[NotificationId],
    ) -> Result<(), StorageError>;

    /// Deletes the events 1 to `last` of an epoch, and the notifications' entries that belong to it. Repeatable.
    async fn delete_epoch(&self, key: &MachineKey, epoch: Epoch, last: i64) -> Result<(), StorageError>;

    /// The machine that claimed a tag last, whether it still exists or not. A tag outlives its machine.
    async fn tagged(&self, ns: &Namespace, tag: &[u8]) -> Result<Option<MachineId>, StorageError>;

    /// Whether commits may claim tags here. Generations whose processors set them are not served without.
    fn has_tags(&self) -> bool {
        true
    }

    /// The ledgers, for readers. If they are not [`Storage::appended_ledger`] too, a commit's entries in them are part of its
    /// one write.
    fn ledger(&self) -> Option<&dyn Ledger> {
        None
    }

    /// The ledgers, if their blocks are appended beside the commits. Commits name no ledgers then.
    fn appended_ledger(&self) -> Option<&dyn Append> {
        None
    }

    /// Who owns which shard, where several instances may share this storage. None: this process is alone on it.
    fn leases(&self) -> Option<&dyn Leases> {
        None
    }

    /// What is due up to `until` (unix milliseconds, included), ascending by time, at most `limit`, behind `after` if it
    /// is given: the cursor of a due, which stays good when that due is gone. A due of `i64::MAX` never comes.
    /// A machine may occur several times. What is found may be outdated: the record decides.
    ///
    /// Of these `shards` alone, if they are given. A storage without leases is one shard, number 0.
    async fn dues(
        &self,
        shards: Option<&[Shard]>,
        until: i64,
        after: Option<&Bytes>,
        limit: usize,
    ) -> Result<Vec<Due>, StorageError>;

    /// Pages through machines, about `limit` at once, behind `after` if it is given: a page's `next`, which stays good
    /// whatever comes and goes. The order is the store's own, and always the same. A machine that stays as it is occurs
    /// once; one that is started, or changes its status, between two pages may occur in both or in none.
    async fn machines(&self, of: &Listing, after: Option<&Bytes>, limit: usize) -> Result<MachinePage, StorageError>;

    /// Returns once the store has met an error that it can't go on from: the service must stop and be restarted.
    async fn failure(&self) -> StorageError {
        std::future::pending().await
    }

    /// Waits until everything that was answered is safe, and lets go of files and locks.
    async fn close(&self) {}
}
