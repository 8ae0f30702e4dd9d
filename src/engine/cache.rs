//! What loaded machines keep in memory, and how much of it all of them may keep together.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hashlink::LruCache;

use crate::machine::{MachineKey, Record, Slice};

/// A loaded machine as of its last commit: the record, and the newest events as far as they are held.
#[derive(Clone, Debug, Default)]
pub struct Cached {
    /// None: no machine, not even a tombstone.
    pub record: Option<Arc<Record>>,
    /// INVARIANT: consecutive, ending at the record's `last_event`.
    tail: VecDeque<Bytes>,
    tail_size: usize,
}

/// Bytes that all caches may hold together; the least recently used machines are told to let go.
#[derive(Debug)]
pub struct Budget {
    capacity: usize,
    /// What may be held now: less than the capacity while memory is short.
    allowed: AtomicUsize,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    sizes: LruCache<MachineKey, usize>,
    total: usize,
}

/// Bytes that a loaded machine costs beside its aux state and events.
const OVERHEAD: usize = 2_048;

// === impl Cached ===

impl Cached {
    pub fn new(record: Option<Arc<Record>>) -> Self {
        Self { record, tail: VecDeque::new(), tail_size: 0 }
    }

    /// The events of `slice` in its direction, if they are all held.
    pub fn events(&self, slice: &Slice) -> Option<Vec<Bytes>> {
        if slice.is_empty() {
            return Some(Vec::new());
        }
        let last = self.record.as_ref()?.last_event;
        let first = last - self.tail.len() as i64 + 1;
        if slice.first < first || slice.last > last {
            return None;
        }
        let range = (slice.first - first) as usize..=(slice.last - first) as usize;
        Some(match slice.backward {
            true => self.tail.range(range).rev().cloned().collect(),
            false => self.tail.range(range).cloned().collect(),
        })
    }

    /// Takes over a committed step's record and new events; holds at most `most` bytes of events.
    pub fn advance(&mut self, record: Arc<Record>, events: Vec<Bytes>, most: usize) {
        if self.record.as_ref().is_none_or(|before| before.epoch != record.epoch) {
            self.tail.clear();
            self.tail_size = 0;
        }
        self.record = Some(record);
        for event in events {
            self.tail_size += event.len();
            self.tail.push_back(event);
        }
        while self.tail_size > most
            && let Some(oldest) = self.tail.pop_front()
        {
            self.tail_size -= oldest.len();
        }
    }

    /// Holds events that were read, ascending, if they are the newest and more than what is held.
    pub fn remember(&mut self, slice: &Slice, events: &[Bytes], most: usize) {
        let size = events.iter().map(Bytes::len).sum();
        let newest = self.record.as_ref().is_some_and(|record| record.last_event == slice.last);
        if newest && size <= most && events.len() > self.tail.len() {
            self.tail = events.iter().cloned().collect();
            self.tail_size = size;
        }
    }

    /// Lets go of all but the record.
    pub fn shrink(&mut self) {
        self.tail = VecDeque::new();
        self.tail_size = 0;
    }

    /// Bytes held, roughly.
    pub fn size(&self) -> usize {
        let aux = self.record.as_ref().map_or(0, |record| record.aux_state.data.as_bytes().len());
        OVERHEAD + aux + self.tail_size + self.tail.len() * size_of::<Bytes>()
    }
}

// === impl Budget ===

impl Budget {
    pub fn new(capacity: usize) -> Self {
        let held = Held { sizes: LruCache::new_unbounded(), total: 0 };
        Self { capacity, allowed: AtomicUsize::new(capacity), held: Mutex::new(held) }
    }

    /// Bytes of events that one machine may hold: no machine takes the whole budget.
    pub fn most_per_machine(&self) -> usize {
        self.capacity / 16
    }

    /// Notes that `key` was just used and holds `size` bytes; names the machines that must let go.
    pub fn touch(&self, key: &MachineKey, size: usize) -> Vec<MachineKey> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.total += size;
        match held.sizes.get_mut(key) {
            Some(present) => {
                let before = std::mem::replace(present, size);
                held.total -= before;
            }
            None => drop(held.sizes.insert(key.clone(), size)),
        }
        // The machine in use stays.
        self.victims(&mut held, 1)
    }

    /// Lets all machines together hold `allowed` bytes from now on, and never more than the capacity; names those that must
    /// let go for it.
    pub fn allow(&self, allowed: usize) -> Vec<MachineKey> {
        self.allowed.store(allowed.min(self.capacity), Ordering::Relaxed);
        self.victims(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner), 0)
    }

    pub fn allowed(&self) -> usize {
        self.allowed.load(Ordering::Relaxed)
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    fn victims(&self, held: &mut Held, staying: usize) -> Vec<MachineKey> {
        let mut victims = Vec::new();
        while held.total > self.allowed()
            && held.sizes.len() > staying
            && let Some((victim, size)) = held.sizes.remove_lru()
        {
            held.total -= size;
            victims.push(victim);
        }
        victims
    }

    pub fn forget(&self, key: &MachineKey) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(size) = held.sizes.remove(key) {
            held.total -= size;
        }
    }

    /// Bytes held by all machines together.
    pub fn held(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{MachineId, Namespace};

    fn key(id: &'static str) -> MachineKey {
        MachineKey { ns: Namespace::new("ns"), id: MachineId::new(Bytes::from_static(id.as_bytes())).unwrap() }
    }

    #[test]
    fn the_least_recently_used_machines_let_go_first() {
        let budget = Budget::new(100);
        assert_eq!(budget.touch(&key("a"), 40), []);
        assert_eq!(budget.touch(&key("b"), 40), []);
        assert_eq!(budget.touch(&key("a"), 40), []);
        assert_eq!(budget.touch(&key("c"), 40), [key("b")]);
        assert_eq!(budget.held(), 80);
        budget.forget(&key("c"));
        assert_eq!(budget.held(), 40);
    }

    #[test]
    fn what_is_allowed_shrinks_at_once_and_grows_to_the_capacity_again() {
        let budget = Budget::new(100);
        for id in ["a", "b", "c"] {
            assert_eq!(budget.touch(&key(id), 30), []);
        }
        assert_eq!(budget.allow(50), [key("a"), key("b")]);
        assert_eq!(budget.touch(&key("d"), 30), [key("c")]);
        assert_eq!(budget.allow(0), [key("d")]);
        assert_eq!((budget.held(), budget.allow(1_000), budget.allowed()), (0, vec![], 100));
    }

    #[test]
    fn a_machine_larger_than_the_budget_stays_while_it_is_the_one_in_use() {
        let budget = Budget::new(100);
        budget.touch(&key("a"), 10);
        assert_eq!(budget.touch(&key("b"), 500), [key("a")]);
        assert_eq!(budget.held(), 500);
    }
}
