//! Numbers and histograms that other rooms keep for themselves: their names and help texts, and nothing else.

use prometheus::{Histogram, HistogramOpts};

use super::definition::{Buckets, Definition, Kind, QUEUES, SYNCS};

/// A number that another room counts for itself.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) counts_up: bool,
}

/// A histogram that another room fills: made there, shown by [`Metrics::show`](super::Metrics::show).
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub(super) name: &'static str,
    help: &'static str,
    buckets: Buckets,
}

pub const COMMIT_BATCHES: Watched = counter("machinegun_commit_batches_total", "Batches synced to the embedded store.");
pub const COMMIT_WRITES: Watched = counter("machinegun_commit_writes_total", "Writes answered by the embedded store.");
pub const COMMIT_OVERLAPPED: Watched = counter(
    "machinegun_commit_overlapped_writes_total",
    "Writes that were queued while a batch was being synced: the second of the two queues at work.",
);
pub const COMMIT_BYTES: Watched = counter("machinegun_commit_bytes_total", "Bytes handed to the embedded store.");
pub const COMMIT_MAX_BATCH: Watched = gauge("machinegun_commit_max_batch", "The most writes in one batch so far.");
pub const COMMIT_MAX_SYNC: Watched = gauge(
    "machinegun_commit_max_sync_microseconds",
    "The longest that a batch of the embedded store has taken so far.",
);
pub const COMMIT_WAITING: Watched = gauge("machinegun_commit_waiting", "Writes that wait for the disk now.");
pub const STORAGE_FREE_BYTES: Watched =
    gauge("machinegun_storage_free_bytes", "Free bytes of the store's volume when last looked at.");
pub const CACHE_BYTES: Watched = gauge("machinegun_cache_bytes", "Bytes that loaded machines hold, roughly.");
pub const LOG_LINES_DROPPED: Watched = counter(
    "machinegun_log_lines_dropped_total",
    "Log lines that were not written: `logging.burst_limit_enable`, `logging.drop_mode_qlen`, or a log that takes nothing.",
);
pub const CONNECTIONS_OPEN: Watched = gauge("machinegun_connections", "Client connections open, idle ones too.");
pub const CONNECTIONS_WAITING: Watched = gauge(
    "machinegun_connections_waiting",
    "Client connections whose request waits for one of `woody_server.max_concurrent_connections`.",
);
pub const CONNECTIONS_REFUSED: Watched = counter(
    "machinegun_connections_refused_total",
    "Client connections answered 503, or closed without a word, because there were too many and none was idle.",
);
pub const CONNECTIONS_EVICTED: Watched =
    counter("machinegun_connections_evicted_total", "Idle client connections closed to make room for others.");
pub const REQUEST_BYTES: Watched = gauge(
    "machinegun_request_bytes",
    "Bytes of requests being worked on and of answers not yet taken, of `limits.bodies.requests`.",
);
pub const REQUESTS_OVER: Watched = counter(
    "machinegun_requests_over_total",
    "Requests refused for the size of their bodies by `limits.bodies.requests` or `limits.memory`.",
);
pub const REPLY_BYTES: Watched = gauge(
    "machinegun_reply_bytes",
    "Bytes of replies of processors, modernizers and other instances, of `limits.bodies.replies`.",
);
pub const REPLIES_OVER: Watched = counter(
    "machinegun_replies_over_total",
    "Replies not taken for their size by `limits.bodies.replies` or `limits.memory`.",
);
pub const MEMORY_USED: Watched =
    gauge("machinegun_memory_used_bytes", "Bytes in use, as `limits.memory` counts them; 0 where nothing is watched.");
pub const MEMORY_TOTAL: Watched = gauge(
    "machinegun_memory_total_bytes",
    "Bytes there are, as `limits.memory` counts them; 0 where nothing is watched.",
);
pub const MEMORY_REFUSING: Watched =
    gauge("machinegun_memory_refusing", "1 while new work is refused because memory is short, by `limits.memory`.");

pub const TABLE_REQUESTS: Watched = gauge(
    "machinegun_table_requests",
    "Requests to the DynamoDB table under way, of `storage.max_concurrent_requests`; those about leases, and scans, aside.",
);
pub const TABLE_REQUESTS_WAITING: Watched = gauge(
    "machinegun_table_requests_waiting",
    "Requests to the DynamoDB table that wait for one of `storage.max_concurrent_requests`, or of the places of scans.",
);
pub const TABLE_REQUESTS_REFUSED: Watched = counter(
    "machinegun_table_requests_refused_total",
    "Requests to the DynamoDB table that had none of `storage.max_concurrent_requests`, or of the places of scans, in time: surely not done.",
);

pub const SHARDS_OWNED: Watched = gauge("machinegun_shards_owned", "Shards that this instance owns.");
pub const LIVE_INSTANCES: Watched = gauge(
    "machinegun_live_instances",
    "Instances on this storage that are not leaving, this one included, as this one sees it.",
);
pub const LEASE_AGE_MS: Watched = gauge(
    "machinegun_lease_age_milliseconds",
    "Time since this instance's last heartbeat that stands; past four fifths of `storage.lease_time` it takes no steps.",
);
pub const SHARD_TAKEOVERS: Watched =
    counter("machinegun_shard_takeovers_total", "Shards without a living owner that this instance took.");
pub const SHARD_HAND_OVERS: Watched =
    counter("machinegun_shard_hand_overs_total", "Shards that this instance handed over to another.");
pub const FENCED: Watched =
    counter("machinegun_fenced_total", "Times that this instance found itself declared dead by another.");

/// Every one of them: the document is made of these too.
pub(super) const WATCHED: &[Watched] = &[
    COMMIT_BATCHES,
    COMMIT_WRITES,
    COMMIT_OVERLAPPED,
    COMMIT_BYTES,
    COMMIT_MAX_BATCH,
    COMMIT_MAX_SYNC,
    COMMIT_WAITING,
    STORAGE_FREE_BYTES,
    CACHE_BYTES,
    LOG_LINES_DROPPED,
    CONNECTIONS_OPEN,
    CONNECTIONS_WAITING,
    CONNECTIONS_REFUSED,
    CONNECTIONS_EVICTED,
    REQUEST_BYTES,
    REQUESTS_OVER,
    REPLY_BYTES,
    REPLIES_OVER,
    MEMORY_USED,
    MEMORY_TOTAL,
    MEMORY_REFUSING,
    TABLE_REQUESTS,
    TABLE_REQUESTS_WAITING,
    TABLE_REQUESTS_REFUSED,
    SHARDS_OWNED,
    LIVE_INSTANCES,
    LEASE_AGE_MS,
    SHARD_TAKEOVERS,
    SHARD_HAND_OVERS,
    FENCED,
];

pub const COMMIT_SYNC_SECONDS: Measured = Measured {
    name: "machinegun_commit_sync_seconds",
    help: "Time to write and sync a batch of the embedded store: one fsync.",
    buckets: SYNCS,
};
pub const COMMIT_BATCH_SIZE: Measured =
    Measured { name: "machinegun_commit_batch_size", help: "Writes that share one fsync.", buckets: QUEUES };

pub(super) const MEASURED: &[Measured] = &[COMMIT_SYNC_SECONDS, COMMIT_BATCH_SIZE];

const fn counter(name: &'static str, help: &'static str) -> Watched {
    Watched { name, help, counts_up: true }
}

const fn gauge(name: &'static str, help: &'static str) -> Watched {
    Watched { name, help, counts_up: false }
}

// === impl Watched ===

impl Watched {
    pub(super) fn definition(&self) -> Definition {
        let kind = if self.counts_up { Kind::Counter } else { Kind::Gauge };
        Definition { name: self.name, help: self.help, labels: &[], kind }
    }
}

// === impl Measured ===

impl Measured {
    pub fn histogram(self) -> Histogram {
        let opts = HistogramOpts::new(self.name, self.help).buckets(self.buckets.bounds.to_vec());
        // A mistake in this file alone would make it fail: the first store that is opened finds it.
        Histogram::with_opts(opts).expect("a valid histogram")
    }

    pub(super) fn definition(&self) -> Definition {
        Definition { name: self.name, help: self.help, labels: &[], kind: Kind::Histogram(self.buckets) }
    }
}
