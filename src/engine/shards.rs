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
    /// For each shard the number of its present tenure; 0: not owned.
    tenures: Vec<AtomicU64>,
    next: AtomicU64,
    /// Monotonic milliseconds up to which the leases are trusted.
    trusted_until: AtomicI64,
    /// Shards were taken, or are trusted again: their dues are to be looked for.
    pub(super) taken: Notify,
}

/// One stretch of time in which a shard is owned without a break. What was read under another may be outdated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure(u64);

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
        self.clock.monotonic() < self.trusted_until.load(Ordering::Acquire)
    }

    /// The present tenure of a shard; none: it is not owned, or not surely any more.
    pub fn tenure(&self, shard: Shard) -> Option<Tenure> {
        let tenure = self.tenures.get(usize::from(shard))?.load(Ordering::Acquire);
        (tenure != 0 && self.is_trusted()).then_some(Tenure(tenure))
    }

    /// The shards that are owned, trusted or not, in their order.
    pub fn owned(&self) -> Vec<Shard> {
        let owned = self.tenures.iter().enumerate().filter(|(_, tenure)| tenure.load(Ordering::Acquire) != 0);
        owned.map(|(shard, _)| shard as Shard).collect()
    }

    /// A shard is owned from now on. One that was owned already begins a new tenure.
    pub fn take(&self, shard: Shard) {
        if let Some(tenure) = self.tenures.get(usize::from(shard)) {
            tenure.store(self.next.fetch_add(1, Ordering::Relaxed), Ordering::Release);
            self.taken.notify_one();
        }
    }

    /// A shard is owned no more.
    pub fn lose(&self, shard: Shard) {
        if let Some(tenure) = self.tenures.get(usize::from(shard)) {
            tenure.store(0, Ordering::Release);
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
