//! What a caller may conclude when its deadline passes while its step waits.
//!
//! Policy: the result is unknown, as it always was, even where the step has not begun: what holds it up may be anything.
//! Except for the store. While a machine waits for a store that does not answer or refuses, a step that was not begun
//! (nobody was asked about it, nothing was put) is given up for good, and its caller is told that it was surely not done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Shared by a caller and the worker: which of them was first.
#[derive(Debug, Default)]
pub(super) struct Begun(AtomicU8);

const WAITS: u8 = 0;
const BEGUN: u8 = 1;
const GIVEN_UP: u8 = 2;

/// Whether a machine waits for the store.
#[derive(Clone, Debug, Default)]
pub(super) struct Store(Arc<AtomicBool>);

/// The machine waits for as long as this lives.
#[derive(Debug)]
pub(super) struct Awaited(Arc<AtomicBool>);

// === impl Begun ===

impl Begun {
    /// By the worker, before anybody is asked or anything is put. False: nobody waits for it any more.
    pub(super) fn begin(&self) -> bool {
        let was = self.0.compare_exchange(WAITS, BEGUN, Ordering::AcqRel, Ordering::Acquire);
        was.is_ok() || was == Err(BEGUN)
    }

    /// By the caller. True: it is never begun.
    pub(super) fn give_up(&self) -> bool {
        self.0.compare_exchange(WAITS, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

// === impl Store ===

impl Store {
    pub(super) fn is_awaited(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// By the worker alone, which waits for one thing at a time.
    pub(super) fn awaited(&self) -> Awaited {
        self.0.store(true, Ordering::Release);
        Awaited(self.0.clone())
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_first_decides() {
        let begun = Begun::default();
        assert!(begun.begin() && begun.begin() && !begun.give_up() && begun.begin());
        let given_up = Begun::default();
        assert!(given_up.give_up() && !given_up.begin() && !given_up.give_up());
    }
}
