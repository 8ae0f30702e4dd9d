//! Who of several instances owns which shard of a storage that they share.
//!
//! One heartbeat per instance, and one entry per shard that names its owner. Nobody compares clocks: an owner trusts its
//! shards for the lease time, less a margin, from the beginning of its own last heartbeat that stands. Another takes them
//! only once it has itself watched that heartbeat stand still for the whole lease time **and has fenced it**: a heartbeat
//! that was under way meanwhile finds its predecessor gone, and its instance learns that it has been declared dead.
//!
//! Leases save work and keep timers to one. They are not what keeps machines whole: conditional commits are.

use async_trait::async_trait;

use super::StorageError;
use crate::machine::Shard;

/// An instance of the service. Random, made anew at each start, and whenever it finds itself declared dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub [u8; 16]);

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub instance: InstanceId,
    /// Counts from 1; one more each time.
    pub beat: u64,
    /// How many shards' owners the instance has changed so far. Others read the owners again when this has moved.
    pub changes: u64,
    /// Where the instance answers the others: `host:port`.
    pub address: String,
    /// It is stopping, and takes no shards any more.
    pub leaving: bool,
}

/// A shard's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub shard: Shard,
    /// One more with each change of owner, from 1.
    pub epoch: u64,
    /// None: given up, free to take.
    pub instance: Option<InstanceId>,
}

#[async_trait]
pub trait Leases: Send + Sync {
    /// How many shards the storage is divided into: fixed when it was made.
    fn shards(&self) -> u16;

    /// Puts a heartbeat in the place of the one before it (`beat - 1`; of nothing, if it is the first). True: it stands,
    /// now or already. False: another stands there, or none: the instance has been fenced.
    async fn beat(&self, heartbeat: &Heartbeat) -> Result<bool, StorageError>;

    /// All heartbeats, as of now.
    async fn heartbeats(&self) -> Result<Vec<Heartbeat>, StorageError>;

    /// Deletes an instance's heartbeat if it is still this one. True: it is gone, now or already.
    async fn fence(&self, instance: InstanceId, beat: u64) -> Result<bool, StorageError>;

    /// The entries of all shards that ever had an owner, as of now, in their order.
    async fn owners(&self) -> Result<Vec<Owner>, StorageError>;

    /// Puts a shard's entry in the place of the one of the epoch before it (of nothing, if it is the first). True: it
    /// stands, now or already. False: another stands there.
    async fn assign(&self, owner: &Owner) -> Result<bool, StorageError>;
}

// === impl InstanceId ===

impl std::fmt::Display for InstanceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
