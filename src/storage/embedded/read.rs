//! Reads. Each takes one snapshot: a record and its events belong together, and a batch that is still being applied is
//! seen by none, as it would be by a keyspace's own `get`.

use std::ops::Bound;

use bytes::Bytes;
use fjall::{Readable, Snapshot, UserKey};

use super::engine::{Engine, read_error};
use super::keys::{self, DueKey, MachinePrefix};
use super::values::{self, Entry};
use crate::machine::{CommitId, Epoch, Head, MachineId, MachineKey, Namespace, Notification, Record, slice};
use crate::storage::{Due, Listed, Listing, Loaded, MachinePage, StorageError};
use crate::wire::HistoryRange;

pub fn machine(
    engine: &Engine,
    key: &MachineKey,
    range: Option<&HistoryRange>,
) -> Result<Option<Loaded>, StorageError> {
    let snapshot = engine.db.snapshot();
    let Some(stored) = snapshot.get(&engine.machines, keys::machine(key)).map_err(read_error)? else {
        return Ok(None);
    };
    let record = Record::decode(&stored).map_err(values::corrupt)?;
    let events = match range.map(|range| slice(range, record.last_event)) {
        Some(slice) if record.exists() => events(engine, &snapshot, key, record.epoch, slice.first, slice.last)?,
        _ => Vec::new(),
    };
    Ok(Some(Loaded { record, events }))
}

pub fn events(
    engine: &Engine,
    snapshot: &Snapshot,
    key: &MachineKey,
    epoch: Epoch,
    first: i64,
    last: i64,
) -> Result<Vec<Bytes>, StorageError> {
    let mut events = Vec::new();
    if first > last {
        return Ok(events);
    }
    let missing = |id| StorageError::Corrupt(format!("event {id} of {key:?} is missing"));
    let prefix = MachinePrefix::new(key);
    let mut next = first;
    for found in snapshot.range(&engine.events, prefix.event(epoch, first)..=prefix.event(epoch, last)) {
        let (key, value) = found.into_inner().map_err(read_error)?;
        if keys::event_id(&key).map_err(malformed)? != next {
            return Err(missing(next));
        }
        events.push(values::decode_event(&value)?);
        next = next.saturating_add(1);
    }
    match last.checked_add(1) {
        Some(end) if end == next => Ok(events),
        _ => Err(missing(next)),
    }
}

/// The stored events' keys from `first` to `last`, at most `limit`, and the id with which the next page begins.
pub fn event_keys(
    engine: &Engine,
    key: &MachineKey,
    epoch: Epoch,
    first: i64,
    last: i64,
    limit: usize,
) -> Result<(Vec<UserKey>, Option<i64>), StorageError> {
    if first > last {
        return Ok((Vec::new(), None));
    }
    let prefix = MachinePrefix::new(key);
    let range = prefix.event(epoch, first)..=prefix.event(epoch, last);
    let found = engine.db.snapshot().range(&engine.events, range).take(limit);
    let keys = found.map(fjall::Guard::key).collect::<Result<Vec<_>, _>>().map_err(read_error)?;
    let next = match keys.last() {
        Some(last) if keys.len() == limit => keys::event_id(last).map_err(malformed)?.checked_add(1),
        _ => None,
    };
    Ok((keys, next))
}

pub fn notifications(engine: &Engine, key: &MachineKey, limit: usize) -> Result<Vec<Notification>, StorageError> {
    let prefix = MachinePrefix::new(key);
    let range = prefix.notification(i64::MIN)..=prefix.notification(i64::MAX);
    let found = engine.db.snapshot().range(&engine.notifications, range).take(limit);
    found
        .map(|found| {
            let (key, value) = found.into_inner().map_err(read_error)?;
            Entry::read(&value)?.notification(keys::notification_id(&key).map_err(malformed)?)
        })
        .collect()
}

pub fn tagged(engine: &Engine, ns: &Namespace, tag: &[u8]) -> Result<Option<MachineId>, StorageError> {
    let stored = engine.db.snapshot().get(&engine.tags, keys::tag(ns, tag)).map_err(read_error)?;
    stored.as_deref().map(values::decode_tag).transpose()
}

pub fn standing(engine: &Engine, key: &MachineKey) -> Result<Option<CommitId>, StorageError> {
    let stored = engine.db.snapshot().get(&engine.machines, keys::machine(key)).map_err(read_error)?;
    stored.map(|stored| Head::read(&stored).map(|head| head.commit).map_err(values::corrupt)).transpose()
}

pub fn dues(engine: &Engine, until: i64, after: Option<&[u8]>, limit: usize) -> Result<Vec<Due>, StorageError> {
    let from = after.map_or(Bound::Unbounded, |cursor| Bound::Excluded(UserKey::from(cursor)));
    let to = DueKey::end(until).map_or(Bound::Unbounded, Bound::Excluded);
    // A range that ends before it begins is not asked of the engine.
    if let (Bound::Excluded(from), Bound::Excluded(to)) = (&from, &to)
        && from >= to
    {
        return Ok(Vec::new());
    }
    let found = engine.db.snapshot().range(&engine.dues, (from, to)).take(limit);
    found
        .map(|found| {
            let cursor = found.key().map_err(read_error)?;
            let due = DueKey::decode(&cursor).map_err(malformed)?;
            let entry = due.entry.is_some();
            Ok(Due { at: due.at, key: due.machine, entry, cursor: Bytes::copy_from_slice(&cursor) })
        })
        .collect()
}

/// Records that one page looks into: there is no index by status, so each is read, as far as its head.
const MOST_LOOKED_AT: usize = 1_000;

pub fn machines(
    engine: &Engine,
    of: &Listing,
    after: Option<&[u8]>,
    limit: usize,
) -> Result<MachinePage, StorageError> {
    let mut page = MachinePage::default();
    if of.shards.as_ref().is_some_and(|shards| !shards.contains(&0)) {
        return Ok(page);
    }
    let prefix = of.ns.as_ref().map_or_else(Vec::new, keys::namespace);
    let from = after.map_or(Bound::Included(UserKey::from(&*prefix)), |after| Bound::Excluded(UserKey::from(after)));
    let found = engine.db.snapshot().range::<UserKey, _>(&engine.machines, (from, Bound::Unbounded));
    for (looked_at, found) in (1..).zip(found) {
        let (key, value) = found.into_inner().map_err(read_error)?;
        if !key.starts_with(&prefix) {
            break;
        }
        let status = Head::read(&value).map_err(values::corrupt)?.status;
        if of.status.is_none_or(|asked| asked == status) {
            page.machines.push(Listed { key: keys::decode_machine(&key).map_err(malformed)?, status });
        }
        if page.machines.len() >= limit || looked_at >= MOST_LOOKED_AT {
            page.next = Some(Bytes::copy_from_slice(&key));
            break;
        }
    }
    Ok(page)
}

fn malformed(error: keys::KeyError) -> StorageError {
    StorageError::Corrupt(error.to_string())
}
