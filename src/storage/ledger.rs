//! The ledger: every committed event of the subscribed namespaces, in one order per sink, chained by hash.
//!
//! Entries are numbered from 1 without gaps. They come in blocks, one per commit, and each block's hash covers the one
//! before it: `hash = SHA-256(previous hash, entries)`, where the first block's previous hash is all zeros, and an
//! entry's bytes are the wire encoding of its `SinkEvent`, as `EventSink.GetHistory` returns it. So anyone who holds one
//! hash can prove that nothing before it was changed, and needs nothing but the entries to do so.

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::StorageError;
use crate::machine::MachineKey;
use crate::wire::{Event, Limits, Reader, SinkEvent, Wire, Writer};

/// SHA-256 of a block, its predecessors included.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

/// Where a ledger ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last entry's id; 0 while there is none.
    pub last: i64,
    pub hash: Hash,
}

/// The entries of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first entry's id.
    pub first: i64,
    pub previous: Hash,
    pub hash: Hash,
    /// SHA-256 of each entry alone: names the one that was changed.
    pub digests: Vec<Hash>,
    /// Wire encoded `SinkEvent`s, consecutive from `first`.
    pub entries: Vec<Bytes>,
}

#[async_trait]
pub trait Ledger: Send + Sync {
    /// Of a sink that never got anything: the empty one.
    async fn head(&self, sink: &str) -> Result<Head, StorageError>;

    /// The entries `first` to `last`, ascending. A gap is an error.
    async fn entries(&self, sink: &str, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError>;

    /// The blocks behind the one that ends with entry `after` (0: from the beginning), at most `limit`, as they are
    /// stored: nothing is checked.
    async fn blocks(&self, sink: &str, after: i64, limit: usize) -> Result<Vec<Block>, StorageError>;
}

/// What is wrong with a ledger, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("entry {entry} was changed: its digest does not match")]
    Entry { entry: i64 },
    #[error("entry {entry} is missing, or out of its place")]
    Missing { entry: i64 },
    #[error("the chain breaks at entry {entry}: its block's hash does not follow from the one before")]
    Chain { entry: i64 },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Blocks read at once while verifying.
const PAGE: usize = 256;

/// The entry of an event, as it is stored, hashed and returned.
pub fn entry(id: i64, key: &MachineKey, event: &Bytes) -> Bytes {
    // The event is copied as it is encoded, never decoded: field 4 of a SinkEvent.
    let mut writer = Writer::with_capacity(event.len() + key.id.as_bytes().len() + key.ns.as_str().len() + 40);
    writer.field(i64::TYPE, 1);
    writer.i64(id);
    writer.field(Bytes::TYPE, 2);
    writer.string(key.id.as_bytes());
    writer.field(Bytes::TYPE, 3);
    writer.string(key.ns.as_str().as_bytes());
    writer.field(Event::TYPE, 4);
    writer.raw(event);
    writer.stop();
    writer.into_bytes()
}

/// The next block behind `head`; `events` are a commit's, wire encoded.
pub fn next_block(head: Head, key: &MachineKey, events: &[Bytes]) -> Block {
    let first = head.last + 1;
    let entries: Vec<_> = (first..).zip(events).map(|(id, event)| entry(id, key, event)).collect();
    Block { first, previous: head.hash, hash: chain(head.hash, &entries), digests: digests(&entries), entries }
}

/// Walks the whole chain. Returns where it ends, or what is wrong first.
pub async fn verify(ledger: &dyn Ledger, sink: &str) -> Result<Head, Broken> {
    let mut head = Head::EMPTY;
    loop {
        let blocks = ledger.blocks(sink, head.last, PAGE).await?;
        for block in &blocks {
            head = block.check(head)?;
        }
        if blocks.is_empty() {
            let stored = ledger.head(sink).await?;
            // The end of the chain was cut off.
            return if stored == head { Ok(head) } else { Err(Broken::Missing { entry: head.last + 1 }) };
        }
    }
}

fn chain(previous: Hash, entries: &[Bytes]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(previous.0);
    for entry in entries {
        hasher.update(entry);
    }
    Hash(hasher.finalize().into())
}

fn digests(entries: &[Bytes]) -> Vec<Hash> {
    entries.iter().map(|entry| Hash(Sha256::digest(entry).into())).collect()
}

// === impl Hash ===

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
        Head { last: self.first + self.entries.len() as i64 - 1, hash: self.hash }
    }

    /// Whether the block follows `before`. The entries' ids are part of what is hashed, and are read back here too.
    fn check(&self, before: Head) -> Result<Head, Broken> {
        if self.first != before.last + 1 || self.entries.is_empty() {
            return Err(Broken::Missing { entry: before.last + 1 });
        }
        for (place, (entry, id)) in self.entries.iter().zip(self.first..).enumerate() {
            let found = SinkEvent::read(&mut Reader::new(entry.clone(), Limits::default()));
            match found {
                Ok(found) if found.id == id && self.digests.get(place) == digests(&[entry.clone()]).first() => {}
                Ok(found) if found.id != id => return Err(Broken::Missing { entry: id }),
                _ => return Err(Broken::Entry { entry: id }),
            }
        }
        if self.previous != before.hash || self.hash != chain(before.hash, &self.entries) {
            return Err(Broken::Chain { entry: self.first });
        }
        Ok(self.head())
    }
}
