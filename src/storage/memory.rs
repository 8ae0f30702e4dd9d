//! Machines in memory: for tests and benches. Nothing survives.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Commit, Due, Loaded, Outcome, Storage, StorageError};
use crate::machine::{Epoch, MachineKey, Notification, NotificationId, Record, slice};
use crate::wire::HistoryRange;

#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    records: HashMap<MachineKey, Record>,
    events: HashMap<(MachineKey, Epoch), BTreeMap<i64, Bytes>>,
    notifications: BTreeMap<(MachineKey, NotificationId), Notification>,
    /// Ordered by time; a record's due has no notification id.
    dues: BTreeMap<(i64, MachineKey, Option<NotificationId>), ()>,
    /// An entry's own due, until it is parked.
    entry_dues: HashMap<(MachineKey, NotificationId), i64>,
}

// === impl Memory ===

impl Memory {
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn read_events(&self, key: &MachineKey, epoch: Epoch, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError> {
        if first > last {
            return Ok(Vec::new());
        }
        let missing = |id| StorageError::Corrupt(format!("event {id} of {key:?} is missing"));
        let events = self.events.get(&(key.clone(), epoch)).ok_or_else(|| missing(first))?;
        (first..=last).map(|id| events.get(&id).cloned().ok_or_else(|| missing(id))).collect()
    }

    fn settle(&mut self, key: &MachineKey, delete: &[NotificationId], park: &[NotificationId]) {
        for id in delete.iter().chain(park) {
            if let Some(due) = self.entry_dues.remove(&(key.clone(), *id)) {
                self.dues.remove(&(due, key.clone(), Some(*id)));
            }
        }
        for id in delete {
            self.notifications.remove(&(key.clone(), *id));
        }
    }
}

#[async_trait]
impl Storage for Memory {
    async fn read(&self, key: &MachineKey, range: Option<&HistoryRange>) -> Result<Option<Loaded>, StorageError> {
        let state = self.lock();
        let Some(record) = state.records.get(key).cloned() else { return Ok(None) };
        let events = match range.map(|range| slice(range, record.last_event)) {
            Some(slice) if record.exists() => state.read_events(key, record.epoch, slice.first, slice.last)?,
            _ => Vec::new(),
        };
        Ok(Some(Loaded { record, events }))
    }

    async fn events(&self, key: &MachineKey, epoch: Epoch, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError> {
        self.lock().read_events(key, epoch, first, last)
    }

    async fn commit(&self, commit: Commit) -> Outcome {
        let mut state = self.lock();
        let key = &commit.key;
        let present = state.records.get(key);
        if let (Some(present), Some(record)) = (present, &commit.record)
            && (present.commit == record.commit || present.earlier.contains(&record.commit))
        {
            return Outcome::Committed;
        }
        if present.map(|record| record.commit) != commit.expect {
            return Outcome::Conflict;
        }
        if let Some(due) = present.and_then(Record::due) {
            state.dues.remove(&(due, key.clone(), None));
        }
        match &commit.record {
            Some(record) => {
                let first = record.last_event - commit.events.len() as i64 + 1;
                let events = state.events.entry((key.clone(), record.epoch)).or_default();
                events.extend((first..).zip(commit.events.iter().cloned()));
                if let Some(due) = record.due() {
                    state.dues.insert((due, key.clone(), None), ());
                }
                state.records.insert(key.clone(), Record::clone(record));
            }
            None => drop(state.records.remove(key)),
        }
        state.settle(key, &commit.delete_notifications, &commit.park_notifications);
        Outcome::Committed
    }

    async fn put_notification(&self, key: &MachineKey, it: &Notification, due: i64) -> Result<(), StorageError> {
        let mut state = self.lock();
        if !state.notifications.contains_key(&(key.clone(), it.id)) {
            state.notifications.insert((key.clone(), it.id), it.clone());
            state.entry_dues.insert((key.clone(), it.id), due);
            state.dues.insert((due, key.clone(), Some(it.id)), ());
        }
        Ok(())
    }

    async fn notifications(&self, key: &MachineKey, limit: usize) -> Result<Vec<Notification>, StorageError> {
        let state = self.lock();
        let entries = state.notifications.range((key.clone(), i64::MIN)..=(key.clone(), i64::MAX));
        Ok(entries.take(limit).map(|(_, it)| it.clone()).collect())
    }

    async fn settle_notifications(
        &self,
        key: &MachineKey,
        delete: &[NotificationId],
        park: &[NotificationId],
    ) -> Result<(), StorageError> {
        self.lock().settle(key, delete, park);
        Ok(())
    }

    async fn delete_epoch(&self, key: &MachineKey, epoch: Epoch, _last: i64) -> Result<(), StorageError> {
        let mut state = self.lock();
        state.events.remove(&(key.clone(), epoch));
        let entries = state.notifications.range((key.clone(), i64::MIN)..=(key.clone(), i64::MAX));
        let gone: Vec<_> = entries.filter(|(_, it)| it.epoch == epoch).map(|((_, id), _)| *id).collect();
        state.settle(key, &gone, &[]);
        Ok(())
    }

    async fn dues(&self, until: i64, after: Option<&Bytes>, limit: usize) -> Result<Vec<Due>, StorageError> {
        let state = self.lock();
        // A place in the order is enough of a cursor here: memory is for small worlds.
        let skip = after.and_then(|cursor| std::str::from_utf8(cursor).ok()?.parse().ok()).unwrap_or(0_usize);
        let due = state.dues.keys().enumerate().skip(skip).take_while(|(_, (at, ..))| *at <= until).take(limit);
        Ok(due
            .map(|(place, (at, key, _))| Due { at: *at, key: key.clone(), cursor: (place + 1).to_string().into() })
            .collect())
    }
}
