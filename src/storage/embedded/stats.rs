//! What the writer counts, for telemetry to export.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets of [`WriterStats::sync_buckets`], in microseconds; the last bucket has none.
pub const SYNC_BOUNDS_US: [u64; 11] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 1_000_000];

/// Counts since the store was opened. Plain atomics: reading them costs the writer nothing.
#[derive(Debug, Default)]
pub struct WriterStats {
    /// Batches that were synced.
    pub batches: AtomicU64,
    /// Writes that were answered after a batch: commits, notifications, deletions.
    pub writes: AtomicU64,
    /// Those of them that changed nothing: conflicts, refusals, commits put again.
    pub idle_writes: AtomicU64,
    /// Writes that were queued while a batch was being synced: the second of the two queues at work.
    pub overlapped: AtomicU64,
    /// The most writes in one batch.
    pub max_batch: AtomicU64,
    /// Writes that wait now, those of the batch that is being written included.
    pub waiting: AtomicU64,
    /// Bytes of keys and values handed to the engine.
    pub bytes: AtomicU64,
    /// Time from handing a batch to the engine until it is on disk and visible, in microseconds.
    pub sync_micros: AtomicU64,
    /// The same as a histogram: [`SYNC_BOUNDS_US`].
    pub sync_buckets: [AtomicU64; SYNC_BOUNDS_US.len() + 1],
    /// Free bytes of the volume when last looked at.
    pub free_bytes: AtomicU64,
    pub(super) syncing: AtomicBool,
}

// === impl WriterStats ===

impl WriterStats {
    pub(super) fn queued(&self) {
        self.waiting.fetch_add(1, Relaxed);
        if self.syncing.load(Relaxed) {
            self.overlapped.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn synced(&self, writes: usize, bytes: usize, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = SYNC_BOUNDS_US.iter().position(|bound| micros <= *bound).unwrap_or(SYNC_BOUNDS_US.len());
        self.batches.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.sync_micros.fetch_add(micros, Relaxed);
        self.sync_buckets[bucket].fetch_add(1, Relaxed);
        self.max_batch.fetch_max(writes as u64, Relaxed);
    }

    pub(super) fn answered(&self, idle: bool) {
        self.waiting.fetch_sub(1, Relaxed);
        self.writes.fetch_add(1, Relaxed);
        self.idle_writes.fetch_add(u64::from(idle), Relaxed);
    }
}
