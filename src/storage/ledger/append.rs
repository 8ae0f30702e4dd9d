//! Ledgers whose blocks are appended beside the commits, by several writers at once.

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::{Block, Hash, Head, Ledger};
use crate::machine::{Epoch, MachineKey};
use crate::storage::StorageError;

/// One life of one machine: the first half of SHA-256 over its epoch, `len(ns) ns` and id. What a ledger knows of it is
/// the last of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(pub [u8; 16]);

/// Consecutive events of one source in a block: up to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub source: Source,
    /// An event's id.
    pub last: i64,
}

/// A block without its entries: what the next one hangs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The first entry's id.
    pub first: i64,
    /// The last entry's.
    pub last: i64,
    pub hash: Hash,
    /// Whose events its entries are, in their order.
    pub runs: Vec<Run>,
}

/// INVARIANT: a block stands where it was put first, under the id of its first entry, and nothing ever takes its place. The
/// next one's place is behind its last entry, so there is one chain, whoever appends to it.
#[async_trait]
pub trait Append: Ledger {
    /// Puts a block in its place, if none stands there. None: it stands. Some: that one stands there, be it the same.
    /// An error: it stands, or does not, or will.
    async fn append(&self, sink: &str, block: &Block, runs: &[Run]) -> Result<Option<Link>, StorageError>;

    /// The blocks behind the one that ends with entry `after` (0: from the beginning), ascending: a page of them, and none
    /// only at the end.
    async fn links(&self, sink: &str, after: i64) -> Result<Vec<Link>, StorageError>;

    /// Keeps a head for who opens the ledger next, so that its end is found from there: no more than a hint to writers,
    /// and for those who verify, what must at least be found.
    async fn note_head(&self, sink: &str, head: Head) -> Result<(), StorageError>;
}

// === impl Source ===

impl Source {
    pub fn of(key: &MachineKey, epoch: Epoch) -> Self {
        let ns = key.ns.as_str().as_bytes();
        let mut hasher = Sha256::new();
        hasher.update(epoch.0);
        hasher.update((ns.len() as u64).to_be_bytes());
        hasher.update(ns);
        hasher.update(key.id.as_bytes());
        let whole: [u8; 32] = hasher.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&whole[..16]);
        Self(half)
    }
}

// === impl Link ===

impl Link {
    pub fn of(block: &Block, runs: Vec<Run>) -> Self {
        Self { first: block.first, last: block.head().last, hash: block.hash, runs }
    }

    pub fn head(&self) -> Head {
        Head { last: self.last, hash: self.hash }
    }
}
