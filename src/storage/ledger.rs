//! The ledger: every committed event of the subscribed namespaces, in one order per sink, chained by hash.
//!
//! Entries are numbered from 1 without gaps. They come in blocks, and each block's hash covers the one before it: `hash = SHA-256(previous hash, entries)`, where the first block's previous hash is all zeros, and an
//! entry's bytes are the wire encoding of its `SinkEvent`, as `EventSink.GetHistory` returns it. An encoding says its own
//! end, so no two lists of entries have the same bytes.
//!
//! Who holds one hash can tell whether anything before it was changed, from the entries and the blocks' ends alone. Who
//! holds none can tell all but a ledger that was written anew from some entry to its end: so `ledger head` is worth
//! keeping elsewhere.
//!
//! There are two kinds of stores. In one a commit holds its entries itself, as one block. In the other blocks are appended
//! beside the commits ([`Append`]), by a [`LedgerWriter`] for each ledger and instance: events are a debt until then.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::StorageError;
use crate::machine::MachineKey;
use crate::wire::{Event, Wire, Writer};

mod append;
mod lookback;
mod marks;
mod writer;

pub use append::{Append, Link, Run, Source};
pub use writer::{LOOK_EVERY_MS, LedgerWriter};

/// SHA-256: of a block with its predecessors, or of an entry alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

/// Where a ledger ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last entry's id; 0 while there is none.
    pub last: i64,
    /// The last block's; all zeros while there is none.
    pub hash: Hash,
}

/// Entries that were entered together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first entry's id.
    pub first: i64,
    pub hash: Hash,
    /// SHA-256 of each entry alone, as many as the block has entries: names the one that was changed.
    pub digests: Vec<Hash>,
    /// Wire encoded `SinkEvent`s, consecutive from `first`. Empty where a store does not find one: none has no bytes.
    pub entries: Vec<Bytes>,
}

/// The entries of a commit, encoded but for their ids: by whoever commits, so that whoever orders only numbers them.
#[derive(Clone, Debug)]
pub struct Unnumbered(Vec<Vec<u8>>);

#[async_trait]
pub trait Ledger: Send + Sync {
    /// What the store noted last; of a sink that never got anything, the empty one.
    async fn head(&self, sink: &str) -> Result<Head, StorageError>;

    /// The entries `first` to `last`, ascending. A gap is an error.
    async fn entries(&self, sink: &str, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError>;

    /// The blocks behind the one that ends with entry `after` (0: from the beginning), as they are stored: nothing is
    /// checked. At most `limit`, fewer where they are large, and none only at the end. A block that can't be read ends
    /// the page before it; asked for as the first one, it is an error.
    async fn blocks(&self, sink: &str, after: i64, limit: usize) -> Result<Vec<Block>, StorageError>;
}

/// What is wrong with a ledger, and the first entry that it is wrong with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("entry {entry} was changed: its digest does not match")]
    Entry { entry: i64 },
    #[error("entry {entry} is missing, or out of its place")]
    Missing { entry: i64 },
    #[error("the chain breaks at entry {entry}: its block's hash does not follow from the one before")]
    Chain { entry: i64 },
    #[error("the chain goes on at entry {entry}, where the ledger's head says that it has ended, or with another hash")]
    Head { entry: i64 },
    #[error("the block of entry {entry} can't be read: {detail}")]
    Unreadable { entry: i64, detail: String },
    /// Nothing is known of the ledger: it could not be read now.
    #[error(transparent)]
    Storage(StorageError),
}

/// Blocks read at once while verifying.
const PAGE: usize = 256;

/// Where an entry's id stands: behind the head of its first field.
const ID: Range<usize> = 3..11;

/// Walks the whole chain, while others may append to it. Returns where it ends, or what is wrong first.
pub async fn verify(ledger: &dyn Ledger, sink: &str) -> Result<Head, Broken> {
    verify_telling(ledger, sink, |_| {}).await
}

/// As [`verify`], and tells how far it is after each page.
pub async fn verify_telling(
    ledger: &dyn Ledger,
    sink: &str,
    mut reached: impl FnMut(Head) + Send,
) -> Result<Head, Broken> {
    let mut head = Head::EMPTY;
    loop {
        // IMPORTANT: the head is read before the blocks: all that it speaks of must be found behind it.
        let noted = ledger.head(sink).await.map_err(|error| Broken::unread(error, head))?;
        let blocks = ledger.blocks(sink, head.last, PAGE).await.map_err(|error| Broken::unread(error, head))?;
        if blocks.is_empty() {
            return match noted {
                noted if noted == head => Ok(head),
                // The end was cut off.
                noted if noted.last > head.last => Err(Broken::Missing { entry: head.last + 1 }),
                noted => Err(Broken::Head { entry: noted.last.saturating_add(1).min(head.last) }),
            };
        }
        for block in &blocks {
            head = block.follows(head)?;
        }
        reached(head);
        // Hashing a page takes a while, and others have work too.
        tokio::task::yield_now().await;
    }
}

/// The entry of an event, as it is stored, hashed and returned.
pub fn entry(id: i64, key: &MachineKey, event: &Bytes) -> Bytes {
    numbered(unnumbered(key, event), id)
}

/// The id of an entry; none if these are no entry's bytes.
pub fn entry_id(entry: &[u8]) -> Option<i64> {
    let head = [i64::TYPE as u8, 0, 1];
    let id = entry.strip_prefix(&head)?.first_chunk::<8>()?;
    Some(i64::from_be_bytes(*id))
}

fn unnumbered(key: &MachineKey, event: &Bytes) -> Vec<u8> {
    let (id, ns) = (key.id.as_bytes(), key.ns.as_str().as_bytes());
    let mut writer = Writer::with_capacity(event.len() + id.len() + ns.len() + 40);
    writer.field(i64::TYPE, 1);
    writer.i64(0);
    writer.field(Bytes::TYPE, 2);
    writer.string(id);
    writer.field(Bytes::TYPE, 3);
    writer.string(ns);
    // The event is copied as it is encoded, never decoded.
    writer.field(Event::TYPE, 4);
    writer.raw(event);
    writer.stop();
    writer.into_vec()
}

fn numbered(mut entry: Vec<u8>, id: i64) -> Bytes {
    entry[ID].copy_from_slice(&id.to_be_bytes());
    entry.into()
}

fn chain(previous: Hash, entries: &[Bytes]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(previous.0);
    for entry in entries {
        hasher.update(entry);
    }
    Hash(hasher.finalize().into())
}

// === impl Hash ===

impl Hash {
    fn of(entry: &[u8]) -> Self {
        Self(Sha256::digest(entry).into())
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

// === impl Head ===

impl Head {
    pub const EMPTY: Self = Self { last: 0, hash: Hash([0; 32]) };
}

// === impl Block ===

impl Block {
    pub fn head(&self) -> Head {
        Head { last: self.first + self.digests.len() as i64 - 1, hash: self.hash }
    }

    /// Whether the block follows `before`, and is what it was. Where it ends, then.
    fn follows(&self, before: Head) -> Result<Head, Broken> {
        if self.first != before.last + 1 || self.digests.is_empty() {
            return Err(Broken::Missing { entry: before.last + 1 });
        }
        for ((digest, id), place) in self.digests.iter().zip(self.first..).zip(0..) {
            let entry = self.entries.get(place).filter(|entry| !entry.is_empty());
            let entry = entry.ok_or(Broken::Missing { entry: id })?;
            match entry_id(entry) {
                Some(found) if found != id => return Err(Broken::Missing { entry: id }),
                Some(_) if Hash::of(entry) == *digest => {}
                _ => return Err(Broken::Entry { entry: id }),
            }
        }
        if self.entries.len() != self.digests.len() || self.hash != chain(before.hash, &self.entries) {
            return Err(Broken::Chain { entry: self.first });
        }
        Ok(self.head())
    }
}

// === impl Unnumbered ===

impl Unnumbered {
    /// The entries of a commit's events, wire encoded.
    pub fn new(key: &MachineKey, events: &[Bytes]) -> Self {
        Self(events.iter().map(|event| unnumbered(key, event)).collect())
    }

    /// All of one block.
    pub fn joined(parts: impl IntoIterator<Item = Self>) -> Self {
        Self(parts.into_iter().flat_map(|part| part.0).collect())
    }

    /// The block that goes behind `head`.
    pub fn behind(self, head: Head) -> Block {
        let first = head.last + 1;
        let entries: Vec<_> = self.0.into_iter().zip(first..).map(|(entry, id)| numbered(entry, id)).collect();
        let digests = entries.iter().map(|entry| Hash::of(entry)).collect();
        Block { first, hash: chain(head.hash, &entries), digests, entries }
    }
}

// === impl Broken ===

impl Broken {
    fn unread(error: StorageError, head: Head) -> Self {
        match error {
            StorageError::Corrupt(detail) => Self::Unreadable { entry: head.last + 1, detail },
            error @ StorageError::Unavailable(_) => Self::Storage(error),
        }
    }
}

#[cfg(test)]
mod tests;
