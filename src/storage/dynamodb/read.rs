//! Reads: the machine's item, and what it points at.
//!
//! An item and its chunks are not one snapshot, and need not be: what an item does not hold any more was put into chunks
//! before, and chunks don't change. Only a deletion can come between; then the item is read again.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::client::{AT_ONCE, Item, Table, bytes_of, fault, key};
use super::keys::{self, FIRST_GENERATION};
use super::layout::{Layout, Run, Standing, decode_events, decode_runs};
use crate::machine::{CommitId, Epoch, Head, MachineId, MachineKey, Namespace, Record, RecordError, slice};
use crate::storage::{Loaded, StorageError};
use crate::wire::HistoryRange;

/// How often a reader begins anew when what it read was deleted meanwhile.
const ATTEMPTS: usize = 4;

/// Chunks read at once for a few events.
const FEW: usize = 4;

/// A machine's item, decoded as far as every reader needs it.
pub struct Found {
    pub standing: Standing,
    /// What stands of the record in the item itself.
    pub record: Vec<u8>,
}

// === impl Found ===

impl Found {
    pub fn decode(item: &Item) -> Result<Self, StorageError> {
        let record = bytes_of(item, "r")?.to_vec();
        let layout = Layout::decode(bytes_of(item, "t")?)?;
        let head = Head::read(&record).map_err(corrupt)?;
        let standing = Standing { commit: head.commit, epoch: head.epoch, layout };
        Ok(Self { standing, record })
    }

    pub fn head(&self) -> Result<Head<'_>, StorageError> {
        Head::read(&self.record).map_err(corrupt)
    }

    /// The whole record; none: it was replaced meanwhile.
    async fn record(&self, table: &Table, partition: &[u8]) -> Result<Option<Record>, StorageError> {
        let Standing { commit, epoch, layout } = &self.standing;
        let mut bytes = self.record.clone();
        let key = |part| keys::record_blob(*epoch, *commit, part);
        let Some(rest) = blob(table, partition, layout.record_parts, key).await? else { return Ok(None) };
        bytes.extend_from_slice(&rest);
        Record::decode(&bytes).map(Some).map_err(corrupt)
    }
}

pub async fn found(table: &Table, partition: &[u8]) -> Result<Option<Found>, StorageError> {
    table.get(partition, keys::SELF).await?.as_ref().map(Found::decode).transpose()
}

pub async fn standing(table: &Table, machine: &MachineKey) -> Result<Option<CommitId>, StorageError> {
    let get = table.calls.get_item().table_name(&table.name);
    let get = get.set_key(Some(key(&keys::machine(machine), keys::SELF))).projection_expression("c");
    let got = get.consistent_read(true).send().await.map_err(|error| fault(&error).error())?;
    let commit = |item: &Item| bytes_of(item, "c")?.try_into().map(CommitId).map_err(|_| malformed("commit's id"));
    got.item.as_ref().map(commit).transpose()
}

pub async fn machine(
    table: &Table,
    key: &MachineKey,
    range: Option<&HistoryRange>,
) -> Result<Option<Loaded>, StorageError> {
    let partition = keys::machine(key);
    let mut seen: Option<CommitId> = None;
    let mut gap = None;
    for _ in 0..ATTEMPTS {
        let Some(found) = found(table, &partition).await? else { return Ok(None) };
        // What is missing of a machine that has not changed is missing.
        if seen.replace(found.standing.commit) == Some(found.standing.commit)
            && let Some(gap) = gap
        {
            return Err(gap);
        }
        let Some(record) = found.record(table, &partition).await? else {
            gap = Some(StorageError::Corrupt(format!("a part of the record of {key:?} is missing")));
            continue;
        };
        let wanted = range.map(|range| slice(range, record.last_event)).filter(|_| record.exists());
        let Some(wanted) = wanted else { return Ok(Some(Loaded { record, events: Vec::new() })) };
        match events_of(table, key, &partition, &found.standing, wanted.first, wanted.last).await? {
            Ok(events) => return Ok(Some(Loaded { record, events })),
            Err(missing) => gap = Some(missing),
        }
    }
    Err(gap.unwrap_or_else(|| StorageError::Unavailable(format!("{key:?} changes faster than it can be read"))))
}

pub async fn events(
    table: &Table,
    key: &MachineKey,
    epoch: Epoch,
    first: i64,
    last: i64,
) -> Result<Vec<Bytes>, StorageError> {
    if first > last {
        return Ok(Vec::new());
    }
    let partition = keys::machine(key);
    // Two looks: the tail may have gone into chunks between the look at the item and the one at them.
    let mut gap = None;
    for _ in 0..2 {
        let standing = match found(table, &partition).await? {
            Some(found) if found.standing.epoch == epoch => found.standing,
            _ => {
                let generation = match table.get(&partition, &keys::epoch_end(epoch)).await? {
                    Some(end) => CommitId(bytes_of(&end, "g")?.try_into().map_err(|_| malformed("epoch's end"))?),
                    None => FIRST_GENERATION,
                };
                Standing { commit: epoch, epoch, layout: Layout { generation, ..Layout::EMPTY } }
            }
        };
        match events_of(table, key, &partition, &standing, first, last).await? {
            Ok(events) => return Ok(events),
            Err(missing) => gap = Some(missing),
        }
    }
    Err(gap.unwrap_or_else(|| malformed("history")))
}

/// All events of a standing machine that are stored, by id.
pub async fn all_events(
    table: &Table,
    partition: &[u8],
    standing: &Standing,
) -> Result<BTreeMap<i64, Bytes>, StorageError> {
    let mut merged = BTreeMap::new();
    collect(table, partition, standing, i64::MIN, i64::MAX, &mut merged).await?;
    merged.retain(|id, _| *id > standing.layout.cut);
    Ok(merged)
}

/// The events from `first` to `last`; the inner error is a gap.
async fn events_of(
    table: &Table,
    key: &MachineKey,
    partition: &[u8],
    standing: &Standing,
    first: i64,
    last: i64,
) -> Result<Result<Vec<Bytes>, StorageError>, StorageError> {
    if first > last {
        return Ok(Ok(Vec::new()));
    }
    let mut merged = BTreeMap::new();
    collect(table, partition, standing, first, last, &mut merged).await?;
    let missing = |id: i64| Ok(Err(StorageError::Corrupt(format!("event {id} of {key:?} is missing"))));
    let mut next = first;
    let mut events = Vec::with_capacity(merged.len());
    for (id, event) in merged {
        if id != next || id <= standing.layout.cut {
            return missing(next);
        }
        events.push(event);
        next = next.saturating_add(1);
    }
    match last.checked_add(1) {
        Some(end) if end == next => Ok(Ok(events)),
        _ => missing(next),
    }
}

/// Merges what is stored of `first` to `last` by event id: the tail, and if that does not reach, chunks.
async fn collect(
    table: &Table,
    partition: &[u8],
    standing: &Standing,
    first: i64,
    last: i64,
    merged: &mut BTreeMap<i64, Bytes>,
) -> Result<(), StorageError> {
    let layout = &standing.layout;
    take_runs(table, partition, standing.epoch, &layout.tail, first, last, merged).await?;
    let wanted = i128::from(last) - i128::from(first) + 1;
    let whole = |merged: &BTreeMap<i64, Bytes>| merged.len() as i128 == wanted;
    let prefix = keys::chunks(standing.epoch, layout.generation);
    let from = keys::chunk(standing.epoch, layout.generation, i64::MIN, first);
    let to = [&prefix[..], &[0xff; 16]].concat();
    let mut start = None;
    while !whole(merged) {
        let limit = (wanted <= 16).then_some(FEW);
        let page = table.range(partition, (&from, &to), limit, start).await?;
        for item in &page.items {
            let runs = decode_runs(bytes_of(item, "v")?)?;
            take_runs(table, partition, standing.epoch, &runs, first, last, merged).await?;
            // Chunks are in the order of their last events; of those that reach past the end one is enough.
            if keys::last_event(bytes_of(item, "sk")?)? >= last && whole(merged) {
                return Ok(());
            }
        }
        start = page.next;
        if start.is_none() {
            break;
        }
    }
    Ok(())
}

async fn take_runs(
    table: &Table,
    partition: &[u8],
    epoch: Epoch,
    runs: &[Run],
    first: i64,
    last: i64,
    merged: &mut BTreeMap<i64, Bytes>,
) -> Result<(), StorageError> {
    for run in runs.iter().filter(|run| run.first() <= last && run.last() >= first) {
        // What another run brought already has the same bytes.
        if (run.first().max(first)..=run.last().min(last)).all(|id| merged.contains_key(&id)) {
            continue;
        }
        let read;
        let events = match run {
            Run::Inline { events, .. } => events,
            Run::Blob { first, last, commit, parts } => {
                let key = |part| keys::event_blob(epoch, *commit, *first, *last, part);
                // Deleted with its epoch: the reader meets a gap.
                let Some(bytes) = blob(table, partition, *parts, key).await? else { continue };
                read = decode_events(&bytes)?;
                &read
            }
        };
        let wanted = (run.first()..).zip(events).filter(|(id, _)| (first..=last).contains(id));
        merged.extend(wanted.map(|(id, event)| (id, event.clone())));
    }
    Ok(())
}

/// The content of a blob; none if a part of it is not there.
pub async fn blob(
    table: &Table,
    partition: &[u8],
    parts: u32,
    key: impl Fn(u32) -> Vec<u8>,
) -> Result<Option<Vec<u8>>, StorageError> {
    let keys: Vec<_> = (0..parts).map(key).collect();
    let reads = stream::iter(keys).map(|key| async move { table.get(partition, &key).await }).buffered(AT_ONCE);
    let items: Vec<Option<Item>> = reads.try_collect().await?;
    let mut whole = Vec::new();
    for item in items {
        let Some(item) = item else { return Ok(None) };
        whole.extend_from_slice(bytes_of(&item, "v")?);
    }
    Ok(Some(whole))
}

pub async fn tagged(table: &Table, ns: &Namespace, tag: &[u8]) -> Result<Option<MachineId>, StorageError> {
    let item = table.get(&keys::tag(ns, tag), keys::SELF).await?;
    item.as_ref().map(holder).transpose()
}

/// A tag's machine: `version id`.
pub fn holder(item: &Item) -> Result<MachineId, StorageError> {
    let (1, id) = bytes_of(item, "i")?.split_first().map(|(version, id)| (*version, id)).unwrap_or((0, &[])) else {
        return Err(malformed("tag"));
    };
    MachineId::new(Bytes::copy_from_slice(id)).map_err(|error| StorageError::Corrupt(error.to_string()))
}

pub fn malformed(what: &str) -> StorageError {
    StorageError::Corrupt(format!("a stored {what} is malformed"))
}

pub fn corrupt(error: RecordError) -> StorageError {
    StorageError::Corrupt(error.to_string())
}
