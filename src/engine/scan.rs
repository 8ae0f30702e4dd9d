//! Scans: the dues that no commit of this run has told of are found in the store, those of earlier runs and those beyond
//! the horizon.
//!
//! One scan is for all namespaces, since the store has them in one order. Each begins at the start: an index may lag, so what
//! was not there a moment ago may stand before what was. A long one pauses on its way, so that a store full of dues is not read all at
//! once.

use std::time::Duration;

use super::{Engine, SchedulerOptions};
use crate::clock::{Stopwatch, random_unit};
use crate::storage::StorageError;
use crate::telemetry::metrics::Scheduler;

/// How many dues one page of a scan holds.
const PAGE: usize = 1_000;

/// Milliseconds until a scan that failed is tried again, give or take a half.
const RETRY_MS: i64 = 1_000;

/// How a scan ended that did not fail.
enum Scanned {
    ToItsEnd,
    /// Shards were taken while it paused: what is due there comes first of all.
    Interrupted,
}

// === impl Engine: scanning ===

impl Engine {
    /// Scans again and again.
    pub(super) async fn scan(&self) {
        let intervals = self.namespaces.values().map(|namespace| namespace.scan_interval());
        let Some(interval) = intervals.min() else { return };
        let interval = milliseconds(interval).max(1);
        let clock = &self.shared.clock;
        let work = async {
            let mut ended = None;
            loop {
                let next = clock.now().saturating_add(interval);
                let next = match self.scan_measured(next.saturating_add(interval), &mut ended).await {
                    // One that took longer than the interval is followed by another after a pause.
                    Ok(Scanned::ToItsEnd) => next.max(clock.now().saturating_add(self.scan_bounds().1)),
                    Ok(Scanned::Interrupted) => continue,
                    Err(error) => {
                        tracing::warn!(
                            mg_pulse_event_id = "mg_skd_search_error",
                            error.class = "throw",
                            error.reason = %error,
                            "scheduler search failed: it is tried again in a moment"
                        );
                        let pause = (RETRY_MS as f64 * (0.5 + random_unit())) as i64;
                        next.min(clock.now().saturating_add(pause))
                    }
                };
                tokio::select! {
                    () = clock.sleep_until(next) => {}
                    () = self.taken() => {}
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = self.shared.stopping.cancelled() => {}
        }
    }

    /// `ended`: since the last scan.
    async fn scan_measured(&self, until: i64, ended: &mut Option<Stopwatch>) -> Result<Scanned, StorageError> {
        let delay = ended.map(|ended| ended.elapsed());
        let watch = Stopwatch::start();
        let found = self.scan_once(until).await;
        let took = watch.elapsed();
        *ended = Some(Stopwatch::start());
        for namespace in self.namespaces.values() {
            for scheduler in namespace.schedulers() {
                let metrics = namespace.metrics.scheduler(scheduler);
                if found.is_ok() {
                    metrics.scanned.inc()
                } else {
                    metrics.scan_error.inc()
                }
                metrics.scan_duration.observe(took.as_secs_f64());
                if let Some(delay) = delay {
                    metrics.scan_delay.observe(delay.as_secs_f64());
                }
            }
        }
        found
    }

    /// Returns once shards were taken: what is due there is looked for at once.
    async fn taken(&self) {
        match &self.shared.shards {
            Some(shards) => shards.taken.notified().await,
            None => std::future::pending().await,
        }
    }

    async fn scan_once(&self, until: i64) -> Result<Scanned, StorageError> {
        let (limit, pause) = self.scan_bounds();
        let clock = &self.shared.clock;
        let owned = self.shared.shards.as_ref().map(|shards| shards.owned());
        let mut after = None;
        let mut left = limit;
        loop {
            let size = PAGE.min(left);
            let page = self.shared.storage.dues(owned.as_deref(), until, after.as_ref(), size).await?;
            for due in &page {
                if let Some(namespace) = self.namespaces.get(due.key.ns.as_str()) {
                    // A record says what it is due for only when it is read.
                    let scheduler = if due.entry { Scheduler::Notification } else { Scheduler::Timers };
                    namespace.schedule.found(&due.key.id, (due.at, scheduler));
                }
            }
            match page.last() {
                Some(last) if page.len() == size => after = Some(last.cursor.clone()),
                _ => return Ok(Scanned::ToItsEnd),
            }
            left -= size;
            if left == 0 {
                left = limit;
                tokio::select! {
                    () = clock.sleep_until(clock.now().saturating_add(pause)) => {}
                    () = self.taken() => return Ok(Scanned::Interrupted),
                }
            }
        }
    }

    /// How many dues a scan takes before it pauses, and for how many milliseconds.
    fn scan_bounds(&self) -> (usize, i64) {
        let options = self.namespaces.values().map(|namespace| &namespace.options);
        let all: Vec<SchedulerOptions> = options.flat_map(|it| [it.timers, it.notifications]).flatten().collect();
        let SchedulerOptions { scan_limit, min_scan_delay, .. } = SchedulerOptions::default();
        match all.is_empty() {
            true => (scan_limit, milliseconds(min_scan_delay)),
            false => {
                let limit = all.iter().fold(0, |sum: usize, it| sum.saturating_add(it.scan_limit));
                let pause = all.iter().map(|it| milliseconds(it.min_scan_delay)).min();
                (limit.max(1), pause.unwrap_or(0))
            }
        }
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
