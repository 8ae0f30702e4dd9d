//! Dues: when which machine of a namespace wants to be woken.
//!
//! The owner holds the near dues in memory; the store is scanned for the rest. What is held may be outdated: the worker
//! checks the record before it acts, so waking too often is only work, and waking never is found by the next scan.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::machine::MachineId;

/// Dues of a kind held in memory per namespace. What doesn't fit is found by a later scan.
const MOST_HELD: usize = 100_000;

#[derive(Debug)]
pub struct Schedule {
    clock: Clock,
    /// Milliseconds ahead of now that are held.
    horizon_ms: i64,
    held: Mutex<Held>,
    changed: Notify,
}

/// A machine that is due.
#[derive(Debug)]
pub struct Next {
    pub id: MachineId,
    /// Not its record's own due has woken it, so there may be more to it than the record says.
    pub told: bool,
    /// Unix milliseconds.
    pub due: i64,
}

#[derive(Debug, Default)]
struct Held {
    /// The records' own dues, as of their last commits.
    own: Dues,
    /// What else was told of: dues found by a scan, notifications accepted, wake-ups put off. A record's own due that
    /// changes leaves these alone.
    told: Dues,
    /// Taken out and not worked off yet. True: told of again meanwhile.
    ///
    /// INVARIANT: a machine is woken once at a time, so one that is busy takes only one of the places for wake-ups.
    awake: HashMap<MachineId, bool>,
}

/// At most one due for each machine, in their order.
#[derive(Debug, Default)]
struct Dues {
    order: BTreeSet<(i64, MachineId)>,
    due_of: HashMap<MachineId, i64>,
}

// === impl Dues ===

impl Dues {
    fn first(&self) -> Option<i64> {
        self.order.first().map(|(due, _)| *due)
    }

    fn remove(&mut self, id: &MachineId) {
        if let Some(before) = self.due_of.remove(id) {
            self.order.remove(&(before, id.clone()));
        }
    }

    fn pop(&mut self) -> Option<(i64, MachineId)> {
        let (due, id) = self.order.pop_first()?;
        self.due_of.remove(&id);
        Some((due, id))
    }

    fn due_by(&self, now: i64) -> usize {
        self.order.iter().take_while(|(due, _)| *due <= now).count()
    }

    /// The latest make room. True: it is the first of all now.
    fn set(&mut self, id: &MachineId, due: i64) -> bool {
        self.remove(id);
        if self.order.len() >= MOST_HELD {
            if self.order.last().is_some_and(|(latest, _)| *latest <= due) {
                return false;
            }
            if let Some((_, evicted)) = self.order.pop_last() {
                self.due_of.remove(&evicted);
            }
        }
        let earliest = self.first().is_none_or(|first| due < first);
        self.due_of.insert(id.clone(), due);
        self.order.insert((due, id.clone()));
        earliest
    }

    /// As `set`, but an earlier due stays.
    fn bring_forward(&mut self, id: &MachineId, due: i64) -> bool {
        match self.due_of.get(id) {
            Some(before) if *before <= due => false,
            _ => self.set(id, due),
        }
    }
}

// === impl Schedule ===

impl Schedule {
    pub fn new(clock: Clock, horizon_ms: i64) -> Arc<Self> {
        Arc::new(Self { clock, horizon_ms, held: Mutex::default(), changed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn horizon(&self) -> i64 {
        self.clock.now().saturating_add(self.horizon_ms)
    }

    /// The record's own due, as of its last commit.
    pub fn set(&self, id: &MachineId, due: Option<i64>) {
        let horizon = self.horizon();
        let earliest = {
            let own = &mut self.lock().own;
            match due {
                Some(due) if due <= horizon => own.set(id, due),
                _ => {
                    own.remove(id);
                    false
                }
            }
        };
        if earliest {
            self.changed.notify_one();
        }
    }

    /// What a scan of the store found. Never overrides what a commit said later.
    pub fn found(&self, id: &MachineId, due: i64) {
        let (now, horizon) = (self.clock.now(), self.horizon());
        let earliest = {
            let mut held = self.lock();
            match held.own.due_of.get(id) {
                Some(own) if *own == due => false,
                _ if due <= now => held.told.bring_forward(id, due),
                None if due <= horizon => held.own.set(id, due),
                _ => false,
            }
        };
        if earliest {
            self.changed.notify_one();
        }
    }

    /// Wakes a machine at `at`, whatever its record's own due is or becomes.
    pub fn wake_at(&self, id: &MachineId, at: i64) {
        if self.lock().told.bring_forward(id, at) {
            self.changed.notify_one();
        }
    }

    /// Waits for the next machine that is due, and takes it out. It does not come again before [`Self::done`].
    pub async fn next(&self) -> Next {
        loop {
            let changed = self.changed.notified();
            let wait_until = {
                let mut held = self.lock();
                let now = self.clock.now();
                loop {
                    let (own, told) = (held.own.first(), held.told.first());
                    let told = match (own, told) {
                        (None, None) => break None,
                        (Some(own), Some(told)) => told < own,
                        (own, _) => own.is_none(),
                    };
                    let dues = if told { &mut held.told } else { &mut held.own };
                    if let Some(due) = dues.first().filter(|due| *due > now) {
                        break Some(due);
                    }
                    let Some((due, id)) = dues.pop() else { break None };
                    match held.awake.get_mut(&id) {
                        // What the record itself wants is looked at when this wake-up ends.
                        Some(again) => *again |= told,
                        None => {
                            held.awake.insert(id.clone(), false);
                            return Next { id, told, due };
                        }
                    }
                }
            };
            match wait_until {
                Some(due) => {
                    let _ = self.clock.timeout_at(due, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// How many are due and not taken out.
    pub fn waiting(&self) -> usize {
        let (now, held) = (self.clock.now(), self.lock());
        held.own.due_by(now) + held.told.due_by(now)
    }

    /// A wake-up was worked off, or given up.
    pub fn done(&self, id: &MachineId) {
        let now = self.clock.now();
        let earliest = {
            let mut held = self.lock();
            held.awake.remove(id) == Some(true) && held.told.bring_forward(id, now)
        };
        if earliest {
            self.changed.notify_one();
        }
    }
}
