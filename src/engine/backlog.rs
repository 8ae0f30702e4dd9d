//! What the loaded machines of a namespace owe one sink together, for the bound on it and the metrics of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Clock;
use crate::telemetry::{Metrics, SinkMetrics};

#[derive(Debug)]
pub(super) struct Backlog {
    pub(super) metrics: SinkMetrics,
    ages: Arc<Ages>,
    /// Why the sink last refused what it won't take until somebody mends something.
    refusal: Mutex<String>,
}

/// Since when deliveries that are under way were owed (unix milliseconds), and how many since each time.
#[derive(Debug, Default)]
struct Ages(Mutex<BTreeMap<i64, usize>>);

/// One machine's part. However its worker ends, it is counted no more.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) backlog: Arc<Backlog>,
    entries: i64,
}

/// A delivery that is under way counts among the ages until this is dropped.
#[derive(Debug)]
pub(super) struct Owed {
    ages: Arc<Ages>,
    since: i64,
}

/// A machine whose next delivery the sink won't take until somebody mends something; counted until this is dropped.
#[derive(Debug)]
pub(super) struct Stuck(Arc<Backlog>);

// === impl Ages ===

impl Ages {
    fn change(&self, change: impl FnOnce(&mut BTreeMap<i64, usize>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn oldest(&self) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).first_key_value().map(|(since, _)| *since)
    }
}

// === impl Backlog ===

impl Backlog {
    pub(super) fn new(namespace: &str, sink: &str, metrics: &Metrics, clock: Clock) -> Arc<Self> {
        let ages = Arc::<Ages>::default();
        let watched = ages.clone();
        let age_ms = move || watched.oldest().map_or(0, |since| clock.now().saturating_sub(since).max(0));
        Arc::new(Self { metrics: metrics.sink(namespace, sink, age_ms), ages, refusal: Mutex::default() })
    }

    /// Entries that the sink has not acknowledged.
    pub(super) fn pending(&self) -> i64 {
        self.metrics.pending.get()
    }

    pub(super) fn stuck(self: &Arc<Self>, reason: String) -> Stuck {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = reason;
        self.metrics.stuck.inc();
        Stuck(self.clone())
    }

    /// How many machines are stuck, and the latest reason; None if none is.
    pub(super) fn trouble(&self) -> Option<(i64, String)> {
        let machines = self.metrics.stuck.get();
        (machines > 0).then(|| (machines, self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()))
    }

    pub(super) fn owed(&self, since: i64) -> Owed {
        self.ages.change(|ages| *ages.entry(since).or_default() += 1);
        Owed { ages: self.ages.clone(), since }
    }
}

// === impl Share ===

impl Share {
    pub(super) fn new(backlog: Arc<Backlog>) -> Self {
        Self { backlog, entries: 0 }
    }

    pub(super) fn set(&mut self, entries: u64) {
        let entries = i64::try_from(entries).unwrap_or(i64::MAX);
        if entries != self.entries {
            self.backlog.metrics.pending.add(entries - self.entries);
            self.entries = entries;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

// === impl Stuck ===

impl Drop for Stuck {
    fn drop(&mut self) {
        self.0.metrics.stuck.dec();
    }
}

// === impl Owed ===

impl Drop for Owed {
    fn drop(&mut self) {
        self.ages.change(|ages| {
            if let Some(count) = ages.get_mut(&self.since) {
                *count -= 1;
                if *count == 0 {
                    ages.remove(&self.since);
                }
            }
        });
    }
}
