//! Dues: when which machine of a namespace wants to be woken.
//!
//! The owner holds the near dues in memory; the store is scanned for the rest. What is held may be outdated: the worker
//! checks the record before it acts, so waking too often is only work, and waking never is found by the next scan.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::machine::MachineId;

/// Dues held in memory per namespace. What doesn't fit is found by a later scan.
const MOST_HELD: usize = 100_000;

#[derive(Debug)]
pub struct Schedule {
    clock: Clock,
    /// Milliseconds ahead of now that are held.
    horizon_ms: i64,
    held: Mutex<Held>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    later: BTreeSet<(i64, MachineId)>,
    due_of: HashMap<MachineId, i64>,
    /// Found due by a scan: they keep their place whatever their record's own due becomes.
    ready: VecDeque<MachineId>,
    in_ready: HashSet<MachineId>,
}

// === impl Schedule ===

impl Schedule {
    pub fn new(clock: Clock, horizon_ms: i64) -> Arc<Self> {
        Arc::new(Self { clock, horizon_ms, held: Mutex::default(), changed: Notify::new() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record's own due, as of its last commit.
    pub fn set(&self, id: &MachineId, due: Option<i64>) {
        let near = due.filter(|due| *due <= self.clock.now().saturating_add(self.horizon_ms));
        let mut held = self.lock();
        if let Some(before) = held.due_of.remove(id) {
            held.later.remove(&(before, id.clone()));
        }
        let Some(due) = near else { return };
        if held.later.len() >= MOST_HELD {
            match held.later.last() {
                Some((latest, _)) if *latest <= due => return,
                _ => {
                    if let Some((_, evicted)) = held.later.pop_last() {
                        held.due_of.remove(&evicted);
                    }
                }
            }
        }
        let earliest = held.later.first().is_none_or(|(first, _)| due < *first);
        held.due_of.insert(id.clone(), due);
        held.later.insert((due, id.clone()));
        drop(held);
        if earliest {
            self.changed.notify_one();
        }
    }

    /// What a scan of the store found. Never overrides what a commit said later.
    pub fn offer(&self, id: &MachineId, due: i64) {
        if due <= self.clock.now() {
            let mut held = self.lock();
            if held.ready.len() < MOST_HELD && held.in_ready.insert(id.clone()) {
                held.ready.push_back(id.clone());
                drop(held);
                self.changed.notify_one();
            }
        } else if !self.lock().due_of.contains_key(id) {
            self.set(id, Some(due));
        }
    }

    /// Waits for the next machine that is due, and takes it out.
    pub async fn next(&self) -> MachineId {
        loop {
            let changed = self.changed.notified();
            let wait_until = {
                let mut held = self.lock();
                let now = self.clock.now();
                if let Some((due, _)) = held.later.first()
                    && *due <= now
                    && let Some((_, id)) = held.later.pop_first()
                {
                    held.due_of.remove(&id);
                    return id;
                }
                if let Some(id) = held.ready.pop_front() {
                    held.in_ready.remove(&id);
                    return id;
                }
                held.later.first().map(|(due, _)| *due)
            };
            match wait_until {
                Some(due) => {
                    let _ = self.clock.timeout_at(due, changed).await;
                }
                None => changed.await,
            }
        }
    }
}
