//! A batch in the making: what is stored, with the batch's own changes laid over it.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use fjall::{PersistMode, UserKey, UserValue};

use super::engine::Engine;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Machines,
    Events,
    Notifications,
    Dues,
    Tags,
    LedgerHeads,
    LedgerBlocks,
    LedgerEntries,
}

/// INVARIANT: each key stands at most once in the batch that is written. fjall gives a batch one sequence number, so of
/// two changes to one key either might win; here the later one replaces the earlier.
pub struct Draft<'e> {
    engine: &'e Engine,
    /// By table; none: the key goes.
    changes: [HashMap<UserKey, Option<UserValue>>; Table::ALL.len()],
    bytes: usize,
}

// === impl Draft ===

impl<'e> Draft<'e> {
    pub fn new(engine: &'e Engine) -> Self {
        Self { engine, changes: Default::default(), bytes: 0 }
    }

    /// What will stand there once the batch is written.
    pub fn get(&self, table: Table, key: &UserKey) -> fjall::Result<Option<UserValue>> {
        if let Some(change) = self.changes[table as usize].get(key) {
            return Ok(change.clone());
        }
        table.keyspace(self.engine).get(key)
    }

    /// Whether anything will stand there.
    pub fn contains(&self, table: Table, key: &UserKey) -> fjall::Result<bool> {
        match self.changes[table as usize].get(key) {
            Some(change) => Ok(change.is_some()),
            None => table.keyspace(self.engine).contains_key(key),
        }
    }

    /// Whether anything is stored in a range of keys, this draft's changes not counted.
    pub fn is_stored(&self, table: Table, range: RangeInclusive<UserKey>) -> fjall::Result<bool> {
        table.keyspace(self.engine).range(range).next().map_or(Ok(false), |found| found.key().map(|_| true))
    }

    pub fn put(&mut self, table: Table, key: UserKey, value: UserValue) {
        self.bytes += key.len() + value.len();
        self.changes[table as usize].insert(key, Some(value));
    }

    pub fn remove(&mut self, table: Table, key: UserKey) {
        self.bytes += key.len();
        self.changes[table as usize].insert(key, None);
    }

    /// Of keys and values put so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.changes.iter().all(HashMap::is_empty)
    }

    /// Returns once the batch is on disk and visible; all of it or, with an error, nothing that could be seen now.
    ///
    /// IMPORTANT: `SyncData` stands on the batch itself: fjall writes the journal, calls fdatasync, and only then shows
    /// the batch to readers. So whatever is read is durable.
    pub fn commit(self) -> fjall::Result<()> {
        let size = self.changes.iter().map(HashMap::len).sum();
        let mut batch =
            fjall::OwnedWriteBatch::with_capacity(self.engine.db.clone(), size).durability(Some(PersistMode::SyncData));
        for (table, changes) in Table::ALL.into_iter().zip(self.changes) {
            let keyspace = table.keyspace(self.engine);
            for (key, value) in changes {
                match value {
                    Some(value) => batch.insert(keyspace, key, value),
                    None => batch.remove(keyspace, key),
                }
            }
        }
        batch.commit()
    }
}

// === impl Table ===

impl Table {
    /// In the order of their declaration.
    const ALL: [Self; 8] = [
        Self::Machines,
        Self::Events,
        Self::Notifications,
        Self::Dues,
        Self::Tags,
        Self::LedgerHeads,
        Self::LedgerBlocks,
        Self::LedgerEntries,
    ];

    fn keyspace(self, engine: &Engine) -> &fjall::Keyspace {
        match self {
            Self::Machines => &engine.machines,
            Self::Events => &engine.events,
            Self::Notifications => &engine.notifications,
            Self::Dues => &engine.dues,
            Self::Tags => &engine.tags,
            Self::LedgerHeads => &engine.ledger_heads,
            Self::LedgerBlocks => &engine.ledger_blocks,
            Self::LedgerEntries => &engine.ledger_entries,
        }
    }
}
