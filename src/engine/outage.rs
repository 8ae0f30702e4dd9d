//! Whether the store has been out of reach for a while: then nobody waits for it until their deadline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::clock::Clock;

/// Milliseconds for which refused commits are tried again although none goes through.
const PATIENCE_MS: i64 = 5_000;

/// Milliseconds without a refusal after which the next one begins anew.
const FORGOTTEN_MS: i64 = 10_000;

/// As the engine's commits have met the store.
#[derive(Debug)]
pub(super) struct Outage {
    clock: Clock,
    /// Whether `refusals` is some: looked at by every commit, so not behind a lock.
    any: AtomicBool,
    refusals: Mutex<Option<Refusals>>,
}

/// Refusals that nothing has gone well between, in monotonic milliseconds.
#[derive(Clone, Copy, Debug)]
struct Refusals {
    first: i64,
    last: i64,
}

// === impl Outage ===

impl Outage {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, any: AtomicBool::new(false), refusals: Mutex::default() }
    }

    /// The store has answered.
    pub(super) fn over(&self) {
        if self.any.swap(false, Ordering::Relaxed) {
            *self.refusals.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// The store has refused. True: it has done nothing else for so long that waiting makes no sense.
    pub(super) fn goes_on(&self) -> bool {
        let now = self.clock.monotonic();
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let known = refusals.filter(|known| now.saturating_sub(known.last) < FORGOTTEN_MS);
        let first = known.map_or(now, |known| known.first);
        *refusals = Some(Refusals { first, last: now });
        self.any.store(true, Ordering::Relaxed);
        now.saturating_sub(first) >= PATIENCE_MS
    }
}
