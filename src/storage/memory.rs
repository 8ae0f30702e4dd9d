//! Machines in memory: for tests and benches. Nothing survives. Engines of one process may share it as instances would.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;

use super::leases::{Heartbeat, InstanceId, Owner};
use super::ledger::{Block, Head, Unnumbered};
use super::{
    Commit, Due, LONGEST_TAG, Leases, Ledger, Listed, Listing, Loaded, MachinePage, Outcome, Storage, StorageError,
};
use crate::machine::{
    CommitId, Epoch, MachineId, MachineKey, Namespace, Notification, NotificationId, Record, Shard, slice,
};
use crate::wire::HistoryRange;

#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
    /// None: it is not shared.
    shards: Option<u16>,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<MachineKey, Record>,
    events: HashMap<(MachineKey, Epoch), BTreeMap<i64, Bytes>>,
    notifications: BTreeMap<(MachineKey, NotificationId), Notification>,
    tags: HashMap<(Namespace, Bytes), MachineId>,
    ledgers: HashMap<String, Vec<Block>>,
    /// Whose, and whether of an entry.
    dues: BTreeMap<Place, (MachineKey, bool)>,
    /// Where the due of a record stands (without an id), or of an entry that is not parked.
    places: HashMap<(MachineKey, Option<NotificationId>), Place>,
    next_number: u64,
    /// None: fenced at its first beat, which must not stand again.
    heartbeats: BTreeMap<InstanceId, Option<Heartbeat>>,
    owners: BTreeMap<Shard, Owner>,
}

/// A due's place in their order: by time, then by the order of putting. A cursor is a place, so it stays good when
/// dues come and go.
type Place = (i64, u64);

// === impl Memory ===

impl Memory {
    pub fn new() -> Self {
        Self::default()
    }

    /// One that several engines of this process may use at once, each owning some of so many shards.
    pub fn shared(shards: u16) -> Self {
        Self { shards: Some(shards.max(1)), ..Self::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn commit(&mut self, commit: &Commit) -> Outcome {
        let key = &commit.key;
        match (self.records.get(key), &commit.record) {
            (Some(present), Some(record)) if present.remembers(record.commit) => return Outcome::Committed,
            (None, None) => return Outcome::Committed,
            (present, _) if present.map(|record| record.commit) != commit.expect => return Outcome::Conflict,
            _ => {}
        }
        match &commit.record {
            Some(record) => {
                // INVARIANT: all refusals come before the first change.
                let epoch = (key.clone(), record.epoch);
                let stored = |id| self.events.get(&epoch).is_some_and(|events| events.contains_key(id));
                if let Some((id, _)) = commit.replaced_events.iter().find(|(id, _)| !stored(id)) {
                    return Outcome::Refused(missing(key, *id));
                }
                if let Some(tag) = &commit.tag {
                    if tag.len() > LONGEST_TAG {
                        return Outcome::Refused(StorageError::Unavailable("a tag is too long".to_owned()));
                    }
                    if self.is_taken(tag, key) {
                        return Outcome::TagTaken;
                    }
                    self.tags.insert((key.ns.clone(), tag.clone()), key.id.clone());
                }
                for sink in commit.ledgers.iter().filter(|_| !commit.events.is_empty()).collect::<BTreeSet<_>>() {
                    let blocks = self.ledgers.entry(sink.clone()).or_default();
                    blocks.push(Unnumbered::new(key, &commit.events).behind(head(blocks)));
                }
                if !commit.replaced_events.is_empty() {
                    self.events.entry(epoch).or_default().extend(commit.replaced_events.iter().cloned());
                }
                if !commit.events.is_empty() {
                    let first = record.last_event - commit.events.len() as i64 + 1;
                    let events = self.events.entry((key.clone(), record.epoch)).or_default();
                    events.extend((first..).zip(commit.events.iter().cloned()));
                }
                self.set_due(key, None, record.due());
                self.records.insert(key.clone(), Record::clone(record));
            }
            None => {
                self.set_due(key, None, None);
                self.records.remove(key);
            }
        }
        self.settle(key, &commit.delete_notifications, &commit.park_notifications);
        Outcome::Committed
    }

    /// Whether another machine holds the tag, and exists.
    fn is_taken(&self, tag: &Bytes, by: &MachineKey) -> bool {
        let holder = self.tags.get(&(by.ns.clone(), tag.clone())).filter(|holder| **holder != by.id);
        let holder = holder.map(|id| MachineKey { ns: by.ns.clone(), id: id.clone() });
        holder.and_then(|holder| self.records.get(&holder)).is_some_and(Record::exists)
    }

    fn set_due(&mut self, key: &MachineKey, entry: Option<NotificationId>, due: Option<i64>) {
        if let Some(place) = self.places.remove(&(key.clone(), entry)) {
            self.dues.remove(&place);
        }
        if let Some(at) = due.filter(|at| *at != i64::MAX) {
            let place = (at, self.next_number);
            self.next_number += 1;
            self.dues.insert(place, (key.clone(), entry.is_some()));
            self.places.insert((key.clone(), entry), place);
        }
    }

    fn settle(&mut self, key: &MachineKey, delete: &[NotificationId], park: &[NotificationId]) {
        for id in delete.iter().chain(park) {
            self.set_due(key, Some(*id), None);
        }
        for id in delete {
            self.notifications.remove(&(key.clone(), *id));
        }
    }

    fn entries(&self, key: &MachineKey) -> impl Iterator<Item = &Notification> {
        self.notifications.range((key.clone(), i64::MIN)..=(key.clone(), i64::MAX)).map(|(_, it)| it)
    }

    fn read_events(&self, key: &MachineKey, epoch: Epoch, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError> {
        if first > last {
            return Ok(Vec::new());
        }
        let events = self.events.get(&(key.clone(), epoch)).ok_or_else(|| missing(key, first))?;
        (first..=last).map(|id| events.get(&id).cloned().ok_or_else(|| missing(key, id))).collect()
    }
}

fn missing(key: &MachineKey, event: i64) -> StorageError {
    StorageError::Corrupt(format!("event {event} of {key:?} is missing"))
}

fn head(blocks: &[Block]) -> Head {
    blocks.last().map_or(Head::EMPTY, Block::head)
}

fn cursor((at, number): Place) -> Bytes {
    [at.to_be_bytes(), number.to_be_bytes()].concat().into()
}

/// `len(ns) ns id`
fn place_of(key: &MachineKey) -> Bytes {
    let ns = key.ns.as_str().as_bytes();
    [&(ns.len() as u64).to_be_bytes(), ns, key.id.as_bytes()].concat().into()
}

fn listed(cursor: &[u8]) -> Result<MachineKey, StorageError> {
    let foreign = || StorageError::Corrupt("a cursor of machines is not one of this store's".to_owned());
    let (length, rest) = cursor.split_first_chunk::<8>().ok_or_else(foreign)?;
    let length = usize::try_from(u64::from_be_bytes(*length)).map_err(|_| foreign())?;
    let (ns, id) = rest.split_at_checked(length).ok_or_else(foreign)?;
    let ns = std::str::from_utf8(ns).map_err(|_| foreign())?;
    let id = MachineId::new(Bytes::copy_from_slice(id)).map_err(|_| foreign())?;
    Ok(MachineKey { ns: Namespace::new(ns), id })
}

fn place(cursor: &[u8]) -> Result<Place, StorageError> {
    match cursor.as_chunks::<8>() {
        ([at, number], []) => Ok((i64::from_be_bytes(*at), u64::from_be_bytes(*number))),
        _ => Err(StorageError::Corrupt("a cursor of dues is not one of this store's".to_owned())),
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

    async fn standing(&self, key: &MachineKey) -> Result<Option<CommitId>, StorageError> {
        Ok(self.lock().records.get(key).map(|record| record.commit))
    }

    async fn events(&self, key: &MachineKey, epoch: Epoch, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError> {
        self.lock().read_events(key, epoch, first, last)
    }

    async fn commit(&self, commit: Commit) -> Outcome {
        self.lock().commit(&commit)
    }

    async fn put_notification(&self, key: &MachineKey, it: &Notification, due: i64) -> Outcome {
        let mut state = self.lock();
        match state.notifications.entry((key.clone(), it.id)) {
            Entry::Occupied(present) if present.get() != it => return Outcome::Conflict,
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => {
                place.insert(it.clone());
                state.set_due(key, Some(it.id), Some(due));
            }
        }
        Outcome::Committed
    }

    async fn notifications(&self, key: &MachineKey, limit: usize) -> Result<Vec<Notification>, StorageError> {
        Ok(self.lock().entries(key).take(limit).cloned().collect())
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

    async fn delete_epoch(&self, key: &MachineKey, epoch: Epoch, last: i64) -> Result<(), StorageError> {
        let mut state = self.lock();
        if let Some(events) = state.events.get_mut(&(key.clone(), epoch)) {
            events.retain(|id, _| *id > last);
            if events.is_empty() {
                state.events.remove(&(key.clone(), epoch));
            }
        }
        let gone: Vec<_> = state.entries(key).filter(|it| it.epoch == epoch).map(|it| it.id).collect();
        state.settle(key, &gone, &[]);
        Ok(())
    }

    async fn tagged(&self, ns: &Namespace, tag: &[u8]) -> Result<Option<MachineId>, StorageError> {
        Ok(self.lock().tags.get(&(ns.clone(), Bytes::copy_from_slice(tag))).cloned())
    }

    fn ledger(&self) -> Option<&dyn Ledger> {
        Some(self)
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.shards.map(|_| self as &dyn Leases)
    }

    async fn dues(
        &self,
        shards: Option<&[Shard]>,
        until: i64,
        after: Option<&Bytes>,
        limit: usize,
    ) -> Result<Vec<Due>, StorageError> {
        let state = self.lock();
        let from = after.map_or(Ok(Bound::Unbounded), |cursor| place(cursor).map(Bound::Excluded))?;
        let due = state.dues.range((from, Bound::Unbounded)).take_while(|((at, _), _)| *at <= until);
        let due = due.filter(|(_, (key, _))| shards.is_none_or(|shards| shards.contains(&key.shard(self.shards()))));
        let found = |(place, (key, entry)): (&Place, &(MachineKey, bool))| {
            let (at, cursor) = (place.0, cursor(*place));
            Due { at, key: key.clone(), entry: *entry, cursor }
        };
        Ok(due.take(limit).map(found).collect())
    }

    async fn machines(&self, of: &Listing, after: Option<&Bytes>, limit: usize) -> Result<MachinePage, StorageError> {
        let state = self.lock();
        let after = after.map(|cursor| listed(cursor)).transpose()?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = state.records.range((from, Bound::Unbounded)).filter(|(key, record)| {
            of.ns.as_ref().is_none_or(|ns| *ns == key.ns)
                && of.status.is_none_or(|status| status == record.kind())
                && of.shards.as_ref().is_none_or(|shards| shards.contains(&key.shard(self.shards())))
        });
        let machines: Vec<_> =
            found.take(limit.max(1)).map(|(key, it)| Listed { key: key.clone(), status: it.kind() }).collect();
        let next = machines.last().filter(|_| machines.len() >= limit.max(1)).map(|last| place_of(&last.key));
        Ok(MachinePage { machines, next })
    }
}

#[async_trait]
impl Leases for Memory {
    fn shards(&self) -> u16 {
        self.shards.unwrap_or(1)
    }

    async fn beat(&self, heartbeat: &Heartbeat) -> Result<bool, StorageError> {
        let mut state = self.lock();
        let stands = match state.heartbeats.get(&heartbeat.instance) {
            None => heartbeat.beat == 1,
            Some(None) => false,
            Some(Some(present)) => present == heartbeat || present.beat.checked_add(1) == Some(heartbeat.beat),
        };
        if stands {
            state.heartbeats.insert(heartbeat.instance, Some(heartbeat.clone()));
        }
        Ok(stands)
    }

    async fn heartbeats(&self) -> Result<Vec<Heartbeat>, StorageError> {
        Ok(self.lock().heartbeats.values().flatten().cloned().collect())
    }

    async fn fence(&self, instance: InstanceId, beat: u64) -> Result<bool, StorageError> {
        let mut state = self.lock();
        match state.heartbeats.get(&instance) {
            None | Some(None) => Ok(true),
            Some(Some(present)) if present.beat != beat => Ok(false),
            Some(Some(_)) => {
                match beat {
                    1 => drop(state.heartbeats.insert(instance, None)),
                    _ => drop(state.heartbeats.remove(&instance)),
                }
                Ok(true)
            }
        }
    }

    async fn owners(&self) -> Result<Vec<Owner>, StorageError> {
        Ok(self.lock().owners.values().copied().collect())
    }

    async fn assign(&self, owner: &Owner) -> Result<bool, StorageError> {
        let mut state = self.lock();
        let stands = match state.owners.get(&owner.shard) {
            None => owner.epoch == 1,
            Some(present) => present == owner || present.epoch.checked_add(1) == Some(owner.epoch),
        };
        if stands {
            state.owners.insert(owner.shard, *owner);
        }
        Ok(stands)
    }
}

#[async_trait]
impl Ledger for Memory {
    async fn head(&self, sink: &str) -> Result<Head, StorageError> {
        Ok(self.lock().ledgers.get(sink).map_or(Head::EMPTY, |blocks| head(blocks)))
    }

    async fn entries(&self, sink: &str, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError> {
        if first > last {
            return Ok(Vec::new());
        }
        let missing = |id| StorageError::Corrupt(format!("entry {id} of ledger {sink} is missing"));
        let state = self.lock();
        let blocks = state.ledgers.get(sink).map_or(&[][..], Vec::as_slice);
        if first < 1 || head(blocks).last < last {
            return Err(missing(if first < 1 { first } else { head(blocks).last + 1 }));
        }
        let from = blocks.partition_point(|block| block.head().last < first);
        let entries = blocks[from..].iter().flat_map(|block| block.entries.iter().zip(block.first..));
        let wanted = entries.skip_while(|(_, id)| *id < first).take_while(|(_, id)| *id <= last);
        Ok(wanted.map(|(entry, _)| entry.clone()).collect())
    }

    async fn blocks(&self, sink: &str, after: i64, limit: usize) -> Result<Vec<Block>, StorageError> {
        let state = self.lock();
        let blocks = state.ledgers.get(sink).map_or(&[][..], Vec::as_slice);
        let from = blocks.partition_point(|block| block.head().last <= after);
        Ok(blocks[from..].iter().take(limit).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;

    use super::Memory;
    use crate::storage::{Storage, contract};

    struct Fresh;

    #[async_trait]
    impl contract::Subject for Fresh {
        async fn open(&self) -> Arc<dyn Storage> {
            Arc::new(Memory::new())
        }
    }

    struct Shared;

    #[async_trait]
    impl contract::Subject for Shared {
        async fn open(&self) -> Arc<dyn Storage> {
            Arc::new(Memory::shared(16))
        }
    }

    crate::storage_contract!(memory, || Fresh);
    crate::tag_contract!(memory_tags, || Fresh);
    crate::storage_contract!(memory_shared, || Shared);
    crate::leases_contract!(memory_leases, || Shared);
    crate::ledger_contract!(memory_ledger, || Fresh);
}
