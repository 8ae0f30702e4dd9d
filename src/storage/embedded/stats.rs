//! What the writer counts, for telemetry to export.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus::Histogram;

use crate::telemetry::metrics::{COMMIT_BATCH_SIZE, COMMIT_SYNC_SECONDS};

/// A batch that takes longer is told of: a payment waited for it.
const SLOW: Duration = Duration::from_millis(500);

/// Counts since the store was opened. All are atomics: reading them costs the writer nothing.
#[derive(Debug)]
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
    /// The longest that a batch took, in microseconds.
    pub max_sync_us: AtomicU64,
    /// Writes that wait now, those of the batch that is being written included.
    pub waiting: AtomicU64,
    /// Bytes of keys and values handed to the engine.
    pub bytes: AtomicU64,
    /// Time from handing a batch to the engine until it is on disk and visible.
    pub sync_seconds: Histogram,
    /// Writes of the batches that were synced.
    pub batch_size: Histogram,
    /// Free bytes of the volume when last looked at.
    pub free_bytes: AtomicU64,
    pub(super) syncing: AtomicBool,
}

// === impl WriterStats ===

impl Default for WriterStats {
    fn default() -> Self {
        let count = AtomicU64::default;
        Self {
            batches: count(),
            writes: count(),
            idle_writes: count(),
            overlapped: count(),
            max_batch: count(),
            max_sync_us: count(),
            waiting: count(),
            bytes: count(),
            sync_seconds: COMMIT_SYNC_SECONDS.histogram(),
            batch_size: COMMIT_BATCH_SIZE.histogram(),
            free_bytes: count(),
            syncing: AtomicBool::default(),
        }
    }
}

impl WriterStats {
    pub(super) fn queued(&self) {
        self.waiting.fetch_add(1, Relaxed);
        if self.syncing.load(Relaxed) {
            self.overlapped.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn synced(&self, writes: usize, bytes: usize, took: Duration) {
        self.batches.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.sync_seconds.observe(took.as_secs_f64());
        self.batch_size.observe(writes as f64);
        self.max_batch.fetch_max(writes as u64, Relaxed);
        self.max_sync_us.fetch_max(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        if took > SLOW {
            // At the most one line for each such batch, so a few a second.
            tracing::warn!(
                took_ms = took.as_millis() as u64,
                writes,
                bytes,
                "the store was slow: all answers waited for this batch; the disk is busy, or compaction falls behind"
            );
        }
    }

    pub(super) fn answered(&self, idle: bool) {
        self.waiting.fetch_sub(1, Relaxed);
        self.writes.fetch_add(1, Relaxed);
        self.idle_writes.fetch_add(u64::from(idle), Relaxed);
    }
}
