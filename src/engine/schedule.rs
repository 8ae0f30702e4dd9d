//! Dues: when which machine of a namespace wants to be woken.
//!
//! The owner holds the near dues in memory; the store is scanned for the rest. What is held may be outdated: the worker
//! checks the record before it acts, so waking too often is only work, and waking never is found by the next scan.
//!
//! Each due says which scheduler it is for, as far as that is known: one that has no place left holds up no other.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::quotas::{Place, Places, Short};
use crate::clock::Clock;
use crate::machine::MachineId;
use crate::telemetry::metrics::Scheduler;

/// Dues of a kind held in memory per namespace and scheduler. What doesn't fit is found by a later scan.
const MOST_HELD: usize = 100_000;

/// When to be woken (unix milliseconds), and for what.
pub type Wanted = (i64, Scheduler);

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
    pub(super) place: Place,
}

#[derive(Debug, Default)]
struct Held {
    /// The records' own dues, as of their last commits.
    own: Dues,
    /// What else was told of: dues found by a scan, notifications accepted, wake-ups put off. A record's own due that
    /// changes leaves these alone.
    told: Dues,
    /// Taken out and not worked off yet. Some: told of again meanwhile.
    ///
    /// INVARIANT: a machine is woken once at a time, so one that is busy takes only one of the places for wake-ups.
    awake: HashMap<MachineId, Option<Scheduler>>,
}

/// At most one due for each machine, in their order.
#[derive(Debug, Default)]
struct Dues {
    /// Of each scheduler, in the order of [`Scheduler::ALL`].
    order: [BTreeSet<(i64, MachineId)>; Scheduler::ALL.len()],
    due_of: HashMap<MachineId, Wanted>,
}

/// No machine can be woken now.
struct Nothing {
    /// The next due that is still to come; none if none is held.
    until: Option<i64>,
    /// Some if any is due that has no place.
    short: Option<Short>,
}

// === impl Dues ===

impl Dues {
    fn first(&self, scheduler: Scheduler) -> Option<i64> {
        self.order[scheduler as usize].first().map(|(due, _)| *due)
    }

    fn remove(&mut self, id: &MachineId) {
        if let Some((due, scheduler)) = self.due_of.remove(id) {
            self.order[scheduler as usize].remove(&(due, id.clone()));
        }
    }

    fn pop(&mut self, scheduler: Scheduler) -> Option<(i64, MachineId)> {
        let (due, id) = self.order[scheduler as usize].pop_first()?;
        self.due_of.remove(&id);
        Some((due, id))
    }

    /// No more than `most`.
    fn due_by(&self, now: i64, scheduler: Scheduler, most: usize) -> usize {
        self.order[scheduler as usize].iter().take(most).take_while(|(due, _)| *due <= now).count()
    }

    /// The latest make room. True: it is the first of its scheduler now.
    fn set(&mut self, id: &MachineId, (due, scheduler): Wanted) -> bool {
        self.remove(id);
        let order = &mut self.order[scheduler as usize];
        if order.len() >= MOST_HELD {
            if order.last().is_some_and(|(latest, _)| *latest <= due) {
                return false;
            }
            if let Some((_, evicted)) = order.pop_last() {
                self.due_of.remove(&evicted);
            }
        }
        let earliest = order.first().is_none_or(|(first, _)| due < *first);
        self.due_of.insert(id.clone(), (due, scheduler));
        order.insert((due, id.clone()));
        earliest
    }

    /// As `set`, but an earlier due stays.
    fn bring_forward(&mut self, id: &MachineId, (due, scheduler): Wanted) -> bool {
        match self.due_of.get(id) {
            // What waits for leftovers must not hold back the rest.
            Some((before, Scheduler::Overseer)) if *before <= due => self.set(id, (*before, scheduler)),
            Some((before, _)) if *before <= due => false,
            _ => self.set(id, (due, scheduler)),
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
    pub fn set(&self, id: &MachineId, wanted: Option<Wanted>) {
        let horizon = self.horizon();
        let earliest = {
            let own = &mut self.lock().own;
            match wanted {
                Some(wanted) if wanted.0 <= horizon => own.set(id, wanted),
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
    pub fn found(&self, id: &MachineId, wanted: Wanted) {
        let (now, horizon) = (self.clock.now(), self.horizon());
        let (due, _) = wanted;
        let earliest = {
            let mut held = self.lock();
            match held.own.due_of.get(id) {
                Some((own, _)) if *own == due => false,
                _ if due <= now => held.told.bring_forward(id, wanted),
                None if due <= horizon => held.own.set(id, wanted),
                _ => false,
            }
        };
        if earliest {
            self.changed.notify_one();
        }
    }

    /// Wakes a machine then, whatever its record's own due is or becomes.
    pub fn wake_at(&self, id: &MachineId, wanted: Wanted) {
        if self.lock().told.bring_forward(id, wanted) {
            self.changed.notify_one();
        }
    }

    /// Waits for the next machine that is due and has a place, and takes it out. It does not come again before
    /// [`Self::done`].
    pub(super) async fn next(&self, places: &Arc<Places>) -> Next {
        loop {
            let changed = self.changed.notified();
            let Nothing { until, short } = match self.look(places) {
                Ok(next) => return next,
                Err(nothing) => nothing,
            };
            let mut found = None;
            let freed = async {
                let Some(short) = short else { return std::future::pending().await };
                let look_again = || match self.look(places) {
                    Ok(next) => {
                        found = Some(next);
                        true
                    }
                    Err(nothing) => nothing.short > Some(short),
                };
                places.freed(short, look_again).await;
            };
            let come = async {
                match until {
                    Some(due) => self.clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = freed => {}
                () = changed => {}
                () = come => {}
            }
            if let Some(next) = found {
                return next;
            }
        }
    }

    fn look(&self, places: &Arc<Places>) -> Result<Next, Nothing> {
        let mut held = self.lock();
        let now = self.clock.now();
        let mut nothing = Nothing { until: None, short: None };
        let mut without_place = [false; Scheduler::ALL.len()];
        loop {
            // The one that is due first, of those that may have a place.
            let candidates = Scheduler::ALL.into_iter().filter(|scheduler| !without_place[*scheduler as usize]);
            let first = candidates.filter_map(|scheduler| {
                let (own, told) = (held.own.first(scheduler), held.told.first(scheduler));
                let due = own.into_iter().chain(told).min()?;
                Some((due, scheduler, told.is_some_and(|told| own.is_none_or(|own| told < own))))
            });
            let Some((due, scheduler, told)) = first.min_by_key(|(due, ..)| *due) else { return Err(nothing) };
            if due > now {
                nothing.until = Some(due);
                return Err(nothing);
            }
            let held = &mut *held;
            let dues = if told { &mut held.told } else { &mut held.own };
            let awake = dues.order[scheduler as usize].first().and_then(|(_, id)| held.awake.get_mut(id));
            if let Some(again) = awake {
                // What the record itself wants is looked at when this wake-up ends.
                if told && again.is_none_or(|again| again == Scheduler::Overseer) {
                    *again = Some(scheduler);
                }
                dues.pop(scheduler);
                continue;
            }
            match places.take(scheduler) {
                Ok(place) => {
                    let Some((due, id)) = dues.pop(scheduler) else { continue };
                    held.awake.insert(id.clone(), None);
                    return Ok(Next { id, told, due, place });
                }
                Err(short) => {
                    nothing.short = nothing.short.max(Some(short));
                    without_place[scheduler as usize] = true;
                }
            }
        }
    }

    /// How many are due and not taken out; no more than `most` are counted of a kind.
    pub fn waiting(&self, scheduler: Scheduler, most: usize) -> usize {
        let (now, held) = (self.clock.now(), self.lock());
        held.own.due_by(now, scheduler, most) + held.told.due_by(now, scheduler, most)
    }

    /// A wake-up was worked off, or given up.
    pub fn done(&self, id: &MachineId) {
        let now = self.clock.now();
        let earliest = {
            let mut held = self.lock();
            match held.awake.remove(id).flatten() {
                Some(scheduler) => held.told.bring_forward(id, (now, scheduler)),
                None => false,
            }
        };
        if earliest {
            self.changed.notify_one();
        }
    }
}
