//! The shards that this instance owns, where several share a storage.
//!
//! `cluster` changes them, the engine asks. Nothing here keeps machines whole: that is what conditional commits do. It
//! keeps timers to one instance, and callers from reading what another instance has changed meanwhile.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::machine::{MachineKey, Shard};

#[derive(Debug)]
pub struct Shards {
    clock: Clock,
    /// For each shard the number of its present tenure; with [`GIVEN`], of one that this instance has ended; 0: neither.
    tenures: Vec<AtomicU64>,
    next: AtomicU64,
    /// Monotonic milliseconds up to which the leases are trusted.
    trusted_until: AtomicI64,
    /// Shards were taken, or are trusted again: their dues are to be looked for.
    pub(super) taken: Notify,
}

/// Added to the number of a tenure.
const GIVEN: u64 = 1 << 63;

/// One stretch of time in which a shard is owned without a break. What was read under another may be outdated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure(u64);

fn is_present(number: u64) -> bool {
    number != 0 && number & GIVEN == 0
}

// === impl Shards ===

impl Shards {
    /// None is owned yet, and none is trusted.
    pub fn new(count: u16, clock: Clock) -> Self {
        Self {
            clock,
            tenures: (0..count.max(1)).map(|_| AtomicU64::new(0)).collect(),
            next: AtomicU64::new(1),
            trusted_until: AtomicI64::new(i64::MIN),
            taken: Notify::new(),
        }
    }

    pub fn count(&self) -> u16 {
        // Made from a `u16`.
        self.tenures.len() as u16
    }

    pub fn of(&self, key: &MachineKey) -> Shard {
        key.shard(self.count())
    }

    /// Whether leases may be trusted now.
    pub fn is_trusted(&self) -> bool {
        self.is_trusted_for(0)
    }

    /// Whether they may, in so many milliseconds still.
    fn is_trusted_for(&self, ms: i64) -> bool {
        self.clock.monotonic().saturating_add(ms) < self.trusted_until.load(Ordering::Acquire)
    }

    fn number(&self, shard: Shard) -> u64 {
        self.tenures.get(usize::from(shard)).map_or(0, |tenure| tenure.load(Ordering::Acquire))
    }

    /// The present tenure of a shard; none: it is not owned, or not surely any more.
    pub fn tenure(&self, shard: Shard) -> Option<Tenure> {
        let number = self.number(shard);
        (is_present(number) && self.is_trusted()).then_some(Tenure(number))
    }

    /// Whether nobody else can be sending, for so many milliseconds, what the shard's machines owed under this tenure: it
    /// goes on, or this instance has ended it itself and no other has the shard yet.
    pub(super) fn is_undisputed(&self, shard: Shard, tenure: Tenure, ms: i64) -> bool {
        self.number(shard) & !GIVEN == tenure.0 && self.is_trusted_for(ms)
    }

    /// The shards that are owned, trusted or not, in their order.
    pub fn owned(&self) -> Vec<Shard> {
        let owned = self.tenures.iter().enumerate().filter(|(_, tenure)| is_present(tenure.load(Ordering::Acquire)));
        owned.map(|(shard, _)| shard as Shard).collect()
    }

    /// A shard is owned from now on. One that was owned already begins a new tenure.
    pub fn take(&self, shard: Shard) {
        if let Some(tenure) = self.tenures.get(usize::from(shard)) {
            tenure.store(self.next.fetch_add(1, Ordering::Relaxed), Ordering::Release);
            self.taken.notify_one();
        }
    }

    /// A shard is owned no more, by this instance's own doing: nobody else has it before it is lost.
    pub fn give(&self, shard: Shard) {
        self.change(shard, |number| is_present(number).then_some(number | GIVEN));
    }

    /// A shard is owned no more, and another may have it.
    pub fn lose(&self, shard: Shard) {
        self.change(shard, |_| Some(0));
    }

    /// Others may have a shard that was given, unless it was taken again.
    pub fn lose_given(&self, shard: Shard) {
        self.change(shard, |number| (number & GIVEN != 0).then_some(0));
    }

    /// Others may have all shards, those that were given among them. Returns those that were owned.
    pub fn lose_all(&self) -> Vec<Shard> {
        self.trust_until(i64::MIN);
        let owned = self.owned();
        (0..self.count()).for_each(|shard| self.lose(shard));
        owned
    }

    fn change(&self, shard: Shard, change: impl FnMut(u64) -> Option<u64>) {
        if let Some(tenure) = self.tenures.get(usize::from(shard)) {
            // As it is where nothing is to be changed.
            let _ = tenure.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        }
    }

    /// Leases are trusted until then, in monotonic milliseconds.
    pub fn trust_until(&self, monotonic_ms: i64) {
        let was_trusted = self.is_trusted();
        self.trusted_until.store(monotonic_ms, Ordering::Release);
        // What came due meanwhile was not worked off here, and by nobody else.
        if !was_trusted && self.is_trusted() {
            self.taken.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_nobody_elses_until_it_is_lost_or_fenced() {
        let (clock, _hand) = Clock::manual(0);
        let shards = Shards::new(2, clock);
        shards.trust_until(1_000);
        let taken = |shard| {
            shards.take(shard);
            shards.tenure(shard).expect("it is owned")
        };
        let (first, second) = (taken(0), taken(1));
        // For as long as the leases last.
        assert!(shards.is_undisputed(0, first, 999) && !shards.is_undisputed(0, first, 1_000));
        shards.give(0);
        shards.give(1);
        assert_eq!((shards.tenure(0), shards.owned()), (None, vec![]));
        assert!(shards.is_undisputed(0, first, 0) && shards.is_undisputed(1, second, 0));
        shards.lose_given(0);
        assert!(!shards.is_undisputed(0, first, 0));
        // Taken again, it is of another tenure, and not what was given.
        let third = taken(0);
        shards.lose_given(0);
        assert!(shards.is_undisputed(0, third, 0) && !shards.is_undisputed(0, first, 0));
        assert_eq!(shards.lose_all(), [0]);
        shards.trust_until(1_000);
        assert!(!shards.is_undisputed(0, third, 0) && !shards.is_undisputed(1, second, 0));
    }
}
