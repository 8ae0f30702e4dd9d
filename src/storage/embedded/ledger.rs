//! Ledgers in the store: a commit's block goes into the one batch, behind the blocks of the batch so far.
//!
//! Three keyspaces, so that entries are read as one range without their hashes: heads, blocks by their last entry's id,
//! entries. The heads are not held apart from the draft: the first commit of a batch reads the head that stands, each
//! further one what the one before it drafted, and a batch that is not written leaves nothing behind.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use fjall::{Readable, Snapshot, UserKey};

use super::draft::{Draft, Table};
use super::engine::{Engine, read_error};
use super::keys::{self, LedgerPrefix};
use super::work::Broken;
use super::{Embedded, LONGEST_NAMESPACE, values};
use crate::machine::MachineKey;
use crate::storage::ledger::{Block, Head, Ledger, Unnumbered};
use crate::storage::{Commit, StorageError};

/// Bytes of entries after which a page of blocks ends.
const PAGE_BYTES: usize = 4 << 20;

/// What a commit enters in ledgers, encoded in its caller's task.
pub struct Entering {
    ledgers: Vec<(LedgerPrefix, UserKey)>,
    /// The same in all of them, but for the ids.
    entries: Unnumbered,
}

/// Blocks that are ready to be written.
pub struct Entered(Vec<(LedgerPrefix, UserKey, Block)>);

// === impl Entering ===

impl Entering {
    /// None if the commit enters nothing.
    pub fn new(commit: &Commit) -> Option<Self> {
        if commit.ledgers.is_empty() || commit.events.is_empty() || commit.record.is_none() {
            return None;
        }
        let sinks: BTreeSet<_> = commit.ledgers.iter().collect();
        let prefixes = sinks.into_iter().map(|sink| LedgerPrefix::new(sink));
        Some(Self {
            ledgers: prefixes.map(|prefix| (prefix.clone(), prefix.head())).collect(),
            entries: Unnumbered::new(&commit.key, &commit.events),
        })
    }

    /// Numbers and hashes. Changes nothing.
    pub fn chain(self, draft: &Draft<'_>) -> Result<Entered, Broken> {
        let mut heads = Vec::with_capacity(self.ledgers.len());
        for (prefix, key) in self.ledgers {
            let head = match draft.get(Table::LedgerHeads, &key)? {
                Some(stored) => values::decode_head(&stored)?,
                // A ledger begins once: one that has lost its head is not written over.
                None if draft.is_stored(Table::LedgerBlocks, prefix.at(1)..=prefix.at(i64::MAX))? => {
                    return Err(StorageError::Corrupt("a ledger has blocks, and no head".to_owned()).into());
                }
                None => Head::EMPTY,
            };
            heads.push((prefix, key, head));
        }
        let mut entries = Some(self.entries);
        let last = heads.len().saturating_sub(1);
        let blocks = heads.into_iter().enumerate().filter_map(|(place, (prefix, key, head))| {
            // All but the last get a copy.
            let entries = if place == last { entries.take() } else { entries.clone() };
            Some((prefix, key, entries?.behind(head)))
        });
        Ok(Entered(blocks.collect()))
    }
}

// === impl Entered ===

impl Entered {
    pub fn apply(self, draft: &mut Draft<'_>) {
        for (prefix, key, block) in self.0 {
            let head = block.head();
            draft.put(Table::LedgerHeads, key, values::encode_head(head));
            draft.put(Table::LedgerBlocks, prefix.at(head.last), values::encode_block(&block));
            for (entry, id) in block.entries.iter().zip(block.first..) {
                draft.put(Table::LedgerEntries, prefix.at(id), values::encode_entry(entry));
            }
        }
    }
}

/// Refuses what can't be a key.
pub fn check(sink: &str) -> Result<(), StorageError> {
    match sink.len() {
        0..=LONGEST_NAMESPACE => Ok(()),
        length => Err(StorageError::Unavailable(format!(
            "a ledger's name of {length} bytes can't be stored, {LONGEST_NAMESPACE} are the most"
        ))),
    }
}

fn head(engine: &Engine, sink: &str) -> Result<Head, StorageError> {
    // IMPORTANT: a snapshot, for a keyspace's own `get` sees a batch that is still being applied: a head whose entries no
    // snapshot shows yet.
    let snapshot = engine.db.snapshot();
    let stored = snapshot.get(&engine.ledger_heads, LedgerPrefix::new(sink).head()).map_err(read_error)?;
    stored.as_deref().map_or(Ok(Head::EMPTY), values::decode_head)
}

fn entries(engine: &Engine, sink: &str, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError> {
    let mut entries = Vec::new();
    if first > last {
        return Ok(entries);
    }
    let missing = |id| StorageError::Corrupt(format!("entry {id} of ledger {sink} is missing"));
    let prefix = LedgerPrefix::new(sink);
    let mut next = first;
    for found in engine.db.snapshot().range(&engine.ledger_entries, prefix.at(first)..=prefix.at(last)) {
        let (key, value) = found.into_inner().map_err(read_error)?;
        if keys::entry_id(&key).map_err(malformed)? != next {
            return Err(missing(next));
        }
        entries.push(values::decode_entry(&value)?);
        next = next.saturating_add(1);
    }
    match last.checked_add(1) {
        Some(end) if end == next => Ok(entries),
        _ => Err(missing(next)),
    }
}

fn blocks(engine: &Engine, sink: &str, after: i64, limit: usize) -> Result<Vec<Block>, StorageError> {
    let Some(next) = after.checked_add(1) else { return Ok(Vec::new()) };
    let prefix = LedgerPrefix::new(sink);
    let snapshot = engine.db.snapshot();
    let range = prefix.at(next)..=prefix.at(i64::MAX);
    let mut entries = Entries::new(&snapshot, engine, &prefix, next);
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    for found in snapshot.range(&engine.ledger_blocks, range).take(limit) {
        let block = found.into_inner().map_err(read_error).and_then(|(key, value)| {
            let mut block = values::decode_block(&value)?;
            if block.head().last != keys::entry_id(&key).map_err(malformed)? {
                return Err(StorageError::Corrupt("a stored block is not under its own key".to_owned()));
            }
            for id in (block.first..).take(block.digests.len()) {
                let entry = entries.take(id)?;
                bytes += entry.len();
                block.entries.push(entry);
            }
            Ok(block)
        });
        match block {
            Ok(block) => blocks.push(block),
            Err(error) if blocks.is_empty() => return Err(error),
            Err(_) => break,
        }
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    Ok(blocks)
}

/// Walks the entries of a ledger beside its blocks.
struct Entries {
    range: fjall::Iter,
    /// Read, and not yet reached.
    ahead: Option<(i64, Bytes)>,
}

// === impl Entries ===

impl Entries {
    fn new(snapshot: &Snapshot, engine: &Engine, prefix: &LedgerPrefix, from: i64) -> Self {
        let range = snapshot.range(&engine.ledger_entries, prefix.at(from)..=prefix.at(i64::MAX));
        Self { range, ahead: None }
    }

    /// The entry `id`, empty if it is not stored. Ids are asked for in their order.
    fn take(&mut self, id: i64) -> Result<Bytes, StorageError> {
        loop {
            match self.ahead.take() {
                Some((ahead, entry)) if ahead == id => return Ok(entry),
                Some(ahead) if ahead.0 > id => {
                    self.ahead = Some(ahead);
                    return Ok(Bytes::new());
                }
                // Before the first entry, or one that belongs to no block: that block is missing, and will be missed.
                _ => {}
            }
            let Some(found) = self.range.next() else { return Ok(Bytes::new()) };
            let (key, value) = found.into_inner().map_err(read_error)?;
            // A version that nobody has written is a change like any other, to be named by its entry.
            let entry = values::decode_entry(&value).unwrap_or_else(|_| Bytes::copy_from_slice(&value));
            self.ahead = Some((keys::entry_id(&key).map_err(malformed)?, entry));
        }
    }
}

fn malformed(error: keys::KeyError) -> StorageError {
    StorageError::Corrupt(error.to_string())
}

#[async_trait]
impl Ledger for Embedded {
    async fn head(&self, sink: &str) -> Result<Head, StorageError> {
        check(sink)?;
        let sink = sink.to_owned();
        self.look(None::<&MachineKey>, move |engine| head(engine, &sink)).await
    }

    async fn entries(&self, sink: &str, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError> {
        check(sink)?;
        let sink = sink.to_owned();
        self.look(None, move |engine| entries(engine, &sink, first, last)).await
    }

    async fn blocks(&self, sink: &str, after: i64, limit: usize) -> Result<Vec<Block>, StorageError> {
        check(sink)?;
        let sink = sink.to_owned();
        self.look(None, move |engine| blocks(engine, &sink, after, limit)).await
    }
}
