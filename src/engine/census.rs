//! How many machines there are, by status: for operators, without a scan on anybody's way.
//!
//! A number is adjusted by each commit of this instance, and set right by counting: at the start, within half a minute of
//! shards taken or lost, and from time to time after that. It is of the shards that this instance owns, so the sum over all instances is the
//! whole. It is not exact: a change of status that is committed while machines are being counted may be missed, or
//! counted twice, until the next count; and what another instance commits on our shards is seen by the next count alone.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::Engine;
use crate::clock::random_unit;
use crate::machine::{Shard, StatusKind};
use crate::storage::{Listing, StorageError};
use crate::telemetry::NamespaceMetrics;

/// Machines in one page of a count.
const PAGE: usize = 500;

/// Milliseconds between two counts, give or take a half. A count that takes long is followed by a longer pause, so that
/// counting takes no more than a fiftieth of the time.
const PAUSE_MS: i64 = 15 * 60 * 1_000;
const SHARE: i64 = 50;

/// Milliseconds between two looks whether other shards are owned: then machines are counted at once.
const LOOK_MS: i64 = 30_000;

/// Milliseconds until a count that failed is begun again.
const RETRY_MS: i64 = 60_000;

/// Of one namespace.
#[derive(Debug, Default)]
pub(super) struct Census {
    counted: AtomicBool,
    numbers: [AtomicI64; StatusKind::ALL.len()],
}

/// Machines by status, in the order of [`StatusKind::ALL`].
pub type Numbers = [i64; StatusKind::ALL.len()];

// === impl Census ===

impl Census {
    /// None before the first count is done.
    pub(super) fn numbers(&self) -> Option<Numbers> {
        let counted = self.counted.load(Ordering::Acquire);
        counted.then(|| self.numbers.each_ref().map(|number| number.load(Ordering::Relaxed).max(0)))
    }

    /// A commit left a machine in another status, or in its first or last.
    pub(super) fn moved(&self, before: Option<StatusKind>, after: Option<StatusKind>, metrics: &NamespaceMetrics) {
        if before == after {
            return;
        }
        for (status, by) in [(before, -1), (after, 1)] {
            if let Some(status) = status {
                self.numbers[place(status)].fetch_add(by, Ordering::Relaxed);
            }
        }
        self.show(metrics);
    }

    fn set(&self, numbers: Numbers, metrics: &NamespaceMetrics) {
        for (at, number) in numbers.into_iter().enumerate() {
            self.numbers[at].store(number, Ordering::Relaxed);
        }
        self.counted.store(true, Ordering::Release);
        self.show(metrics);
    }

    fn show(&self, metrics: &NamespaceMetrics) {
        // Before the first count a number would be a lie.
        if let Some(numbers) = self.numbers() {
            for (status, number) in StatusKind::ALL.into_iter().zip(numbers) {
                metrics.machines(status.name(), number);
            }
        }
    }
}

fn place(status: StatusKind) -> usize {
    // Statuses are numbered from 1, in the order of `ALL`.
    status as usize - 1
}

// === impl Engine ===

impl Engine {
    /// Counts all machines, again and again.
    pub(super) async fn count(&self) {
        let clock = &self.shared.clock;
        let work = async {
            loop {
                let begun = clock.now();
                let owned = self.owned();
                let pause = match self.count_once(owned.clone()).await {
                    Ok(()) => PAUSE_MS.max((clock.now() - begun).saturating_mul(SHARE)),
                    Err(error) => {
                        tracing::warn!(%error, "counting machines failed; it is begun again in a minute");
                        RETRY_MS
                    }
                };
                // Instances that were started together don't count together.
                let pause = (pause as f64 * (0.5 + random_unit())) as i64;
                let until = clock.now().saturating_add(pause);
                while clock.now() < until && self.owned() == owned {
                    clock.sleep_until(until.min(clock.now().saturating_add(LOOK_MS))).await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = self.shared.stopping.cancelled() => {}
        }
    }

    /// None: all shards.
    fn owned(&self) -> Option<Vec<Shard>> {
        self.shared.shards.as_ref().map(|shards| shards.owned())
    }

    async fn count_once(&self, owned: Option<Vec<Shard>>) -> Result<(), StorageError> {
        let mut numbers: std::collections::HashMap<&str, Numbers> =
            self.namespaces.keys().map(|name| (name.as_str(), Numbers::default())).collect();
        let of = Listing { shards: owned, ..Listing::default() };
        let mut after = None;
        loop {
            let page = self.shared.storage.machines(&of, after.as_ref(), PAGE).await?;
            for listed in &page.machines {
                if let Some(numbers) = numbers.get_mut(listed.key.ns.as_str()) {
                    numbers[place(listed.status)] += 1;
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        for (name, numbers) in numbers {
            if let Some(namespace) = self.namespaces.get(name) {
                namespace.census.set(numbers, &namespace.metrics);
            }
        }
        Ok(())
    }
}
