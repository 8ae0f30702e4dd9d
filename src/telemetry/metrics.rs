//! Every metric's name, help text, labels and buckets. Ids never become labels.

mod definition;
mod schedule;
mod sinks;
mod stored;

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use definition::{Buckets, DURATIONS, Definition, FRACTIONS, Kind, QUEUES, Register, SYNCS};
use schedule::ScheduleFamilies;
use sinks::SinkFamilies;
use stored::StoredFamilies;

pub use schedule::{Scheduler, SchedulerMetrics, TimerMetrics, TimerProcessing};
pub use sinks::{KafkaSinkMetrics, LedgerMetrics, SinkMetrics};
pub use stored::{OperationMetrics, Stored};

const IMPACTS: &[&str] =
    &["init", "call", "repair", "simple_repair", "remove", "timeout", "notification", "modernize", "continuation"];

/// All metrics of one service. Built once; handles are resolved per namespace, so that the main road looks nothing up.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    lifecycle: IntCounterVec,
    notifications: IntCounterVec,
    processing: IntCounterVec,
    processing_duration: HistogramVec,
    machines: IntGaugeVec,
    delivery_failures: IntCounterVec,
    worker_actions: IntCounterVec,
    loading_length: HistogramVec,
    loading_usage: HistogramVec,
    queue_length: HistogramVec,
    cache: IntCounterVec,
    wakes: IntCounterVec,
    schedule: ScheduleFamilies,
    stored: StoredFamilies,
    sinks: SinkFamilies,
    listener: IntGaugeVec,
    workers: IntGaugeVec,
    in_flight: IntGaugeVec,
    refusals: IntCounterVec,
    conflicts: IntCounterVec,
    forwards: IntCounterVec,
    definitions: Vec<Definition>,
    watched: Mutex<Vec<Show>>,
}

/// A number that another room counts for itself.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    name: &'static str,
    help: &'static str,
    counts_up: bool,
}

/// What became of a request that was to go to another instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// Whatever the answer was.
    Answered,
    /// The other refused it: it is not, or no more, the owner.
    NotOwner,
    /// Nothing was sent.
    Unreachable,
    /// It was sent, and no answer came.
    Lost,
    /// `storage.peer_pool_size` stood in the way.
    Bound,
    /// No owner was found within the request's deadline.
    NoOwner,
}

struct Show(Box<dyn Fn() + Send + Sync>);

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
    "Requests to the DynamoDB table under way, of `storage.max_concurrent_requests`; those about leases aside.",
);
pub const TABLE_REQUESTS_WAITING: Watched = gauge(
    "machinegun_table_requests_waiting",
    "Requests to the DynamoDB table that wait for one of `storage.max_concurrent_requests`.",
);
pub const TABLE_REQUESTS_REFUSED: Watched = counter(
    "machinegun_table_requests_refused_total",
    "Requests to the DynamoDB table that had none of `storage.max_concurrent_requests` in time: surely not done.",
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
const WATCHED: &[Watched] = &[
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

/// A histogram that another room fills: made there, shown by [`Metrics::show`].
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    name: &'static str,
    help: &'static str,
    buckets: Buckets,
}

pub const COMMIT_SYNC_SECONDS: Measured = Measured {
    name: "machinegun_commit_sync_seconds",
    help: "Time to write and sync a batch of the embedded store: one fsync.",
    buckets: SYNCS,
};
pub const COMMIT_BATCH_SIZE: Measured =
    Measured { name: "machinegun_commit_batch_size", help: "Writes that share one fsync.", buckets: QUEUES };

const MEASURED: &[Measured] = &[COMMIT_SYNC_SECONDS, COMMIT_BATCH_SIZE];

const fn counter(name: &'static str, help: &'static str) -> Watched {
    Watched { name, help, counts_up: true }
}

const fn gauge(name: &'static str, help: &'static str) -> Watched {
    Watched { name, help, counts_up: false }
}

impl std::fmt::Debug for Show {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Show")
    }
}

/// One namespace's handles.
#[derive(Debug)]
pub struct NamespaceMetrics {
    pub loaded: IntCounter,
    pub unloaded: IntCounter,
    pub created: IntCounter,
    pub removed: IntCounter,
    pub repaired: IntCounter,
    pub failed: IntCounter,
    pub committed_suicide: IntCounter,
    pub loading_error: IntCounter,
    pub transient_error: IntCounter,
    pub notification_created: IntCounter,
    pub notification_success: IntCounter,
    pub notification_error: IntCounter,
    /// A notification that failed waits for its next delivery.
    pub delivery_rescheduled: IntCounter,
    /// A notification that can be delivered to nobody any more.
    pub delivery_deleted: IntCounter,
    pub timers: TimerMetrics,
    /// Wake-ups taken out of the schedule, and ended, whatever their reason turned out to be.
    pub task_created: IntCounter,
    pub task_finished: IntCounter,
    schedulers: Vec<SchedulerMetrics>,
    stored: Vec<OperationMetrics>,
    pub call_attempts: IntCounter,
    pub start_attempts: IntCounter,
    /// Machines that are being loaded when one more is to be, and their share of the bound.
    pub loading_length: Histogram,
    pub loading_usage: Histogram,
    /// What waits for a machine when one more request comes.
    pub queue_length: Histogram,
    pub cache_hit: IntCounter,
    pub cache_miss: IntCounter,
    pub workers: IntGauge,
    pub in_flight: IntGauge,
    pub conflicts: IntCounter,
    machines: IntGaugeVec,
    refusals: IntCounterVec,
    namespace: String,
    impacts: Vec<(&'static str, ImpactMetrics)>,
}

#[derive(Debug)]
pub struct ImpactMetrics {
    pub started: IntCounter,
    pub finished: IntCounter,
    pub duration: Histogram,
}

// === impl Forwarded ===

impl Forwarded {
    fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NotOwner => "not_owner",
            Self::Unreachable => "unreachable",
            Self::Lost => "lost",
            Self::Bound => "bound",
            Self::NoOwner => "no_owner",
        }
    }
}

// === impl Metrics ===

impl Metrics {
    pub fn new() -> Arc<Self> {
        let register = Register::default();
        let counter = |name, help, labels| register.counter(name, help, labels);
        let gauge = |name, help, labels| register.gauge(name, help, labels);
        let histogram = |name, help, labels| register.histogram(name, help, labels, DURATIONS);
        let mut metrics = Self {
            lifecycle: counter(
                "mg_machine_lifecycle_changes_total",
                "Changes in the lives of machines and their workers: `loaded`, `unloaded`, `created`, `removed`, `repaired`, `failed`, `committed_suicide` (by `suicide_probability`), `loading_error`, `transient_error`.",
                &["namespace", "change"],
            ),
            notifications: counter(
                "mg_machine_notification_changes_total",
                "Notifications accepted (`created`), delivered (`success`), and failed to be delivered (`error`).",
                &["namespace", "status"],
            ),
            processing: counter(
                "mg_machine_processing_changes_total",
                "Steps `started` and `finished`, by impact. A `continuation` is a step that the service takes on its own.",
                &["namespace", "impact", "change"],
            ),
            processing_duration: histogram(
                "mg_machine_processing_duration_seconds",
                "Time a step took, its processor and its commit included.",
                &["namespace", "impact"],
            ),
            delivery_failures: counter(
                "mg_machine_notification_delivery_failure_actions_total",
                "What became of notifications that were not delivered: `reschedule`; `delete`, its machine is gone or started anew; `ignore` (never: none is forgotten).",
                &["namespace", "action"],
            ),
            worker_actions: counter(
                "mg_worker_actions_total",
                "Requests and wake-ups handed to a machine's worker (`call_attempt`), and workers that were to be started for them (`start_attempt`).",
                &["namespace", "action"],
            ),
            loading_length: register.histogram(
                "mg_worker_action_queue_length",
                "Machines being loaded when one more is to be (`start_attempt`).",
                &["namespace", "action"],
                QUEUES,
            ),
            loading_usage: register.histogram(
                "mg_worker_action_queue_usage",
                "Their share of `worker.message_queue_len_limit`.",
                &["namespace", "action"],
                FRACTIONS,
            ),
            queue_length: register.histogram(
                "machinegun_machine_queue_length",
                "What waits for a machine when one more request comes, of `worker.machine_queue_limit`.",
                &["namespace"],
                QUEUES,
            ),
            cache: counter(
                "machinegun_cache_requests_total",
                "Records that steps needed: in memory (`hit`), or read from the store (`miss`).",
                &["namespace", "result"],
            ),
            wakes: counter(
                "machinegun_wakes_total",
                "Wake-ups of machines, whatever their reason turned out to be: taken out of the schedule (`created`), and ended (`finished`).",
                &["namespace", "change"],
            ),
            machines: gauge(
                "machinegun_machines",
                "Machines stored in the shards of this instance, by status, as of the last count and the commits since; absent until the first count is done.",
                &["namespace", "status"],
            ),
            schedule: ScheduleFamilies::new(&register),
            stored: StoredFamilies::new(&register),
            sinks: SinkFamilies::new(&register),
            listener: gauge("woody_ranch_listener_connections", "Client connections being served.", &["listener"]),
            workers: gauge("machinegun_workers", "Machines loaded now.", &["namespace"]),
            in_flight: gauge("machinegun_steps_in_flight", "Requests waiting or running now.", &["namespace"]),
            refusals: counter(
                "machinegun_refusals_total",
                "Requests refused by one of our own bounds, by the setting that bounds them.",
                &["namespace", "bound"],
            ),
            conflicts: counter(
                "machinegun_commit_conflicts_total",
                "Commits that found another one in their place; the step was done again.",
                &["namespace"],
            ),
            forwards: counter(
                "machinegun_forwards_total",
                "Requests sent to the instance that owns the machine's shard, by outcome; `no_owner`: nobody took it in time.",
                &["outcome"],
            ),
            watched: Mutex::default(),
            definitions: Vec::new(),
            registry: Registry::new(),
        };
        (metrics.registry, metrics.definitions) = register.finish();
        Arc::new(metrics)
    }

    /// Shows a histogram that another room fills.
    pub fn show(&self, measured: Measured, histogram: &Histogram) {
        debug_assert!(MEASURED.iter().any(|it| it.name == measured.name), "{} is not in MEASURED", measured.name);
        self.registry.register(Box::new(histogram.clone())).expect("a metric of its own");
    }

    /// Shows the connections under the name that the original's dashboards know too.
    pub fn watch_listener(&self, open: impl Fn() -> u64 + Send + Sync + 'static) {
        let gauge = self.listener.with_label_values(&["{woody_server_thrift_v2,woody_server}"]);
        let show = move || gauge.set(i64::try_from(open()).unwrap_or(i64::MAX));
        self.also(show);
    }

    /// Before the metrics are rendered.
    fn also(&self, show: impl Fn() + Send + Sync + 'static) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).push(Show(Box::new(show)));
    }

    /// The page that says what there is.
    pub fn document(&self) -> String {
        let mut all = self.definitions.clone();
        all.extend(WATCHED.iter().map(|it| Definition {
            name: it.name,
            help: it.help,
            labels: &[],
            kind: if it.counts_up { Kind::Counter } else { Kind::Gauge },
        }));
        all.extend(MEASURED.iter().map(|it| Definition {
            name: it.name,
            help: it.help,
            labels: &[],
            kind: Kind::Histogram(it.buckets),
        }));
        definition::document(&all)
    }

    /// Shows a number that another room counts for itself; it is read when the metrics are rendered.
    pub fn watch(&self, watched: Watched, read: impl Fn() -> u64 + Send + Sync + 'static) {
        let Watched { name, help, counts_up } = watched;
        debug_assert!(WATCHED.iter().any(|it| it.name == name), "{name} is not in WATCHED");
        let opts = Opts::new(name, help);
        // Names are consts of this file, each used once per service: see above.
        let show: Box<dyn Fn() + Send + Sync> = if counts_up {
            let counter = IntCounter::with_opts(opts).expect("a valid counter");
            self.registry.register(Box::new(counter.clone())).expect("a metric of its own");
            Box::new(move || {
                counter.reset();
                counter.inc_by(read());
            })
        } else {
            let gauge = IntGauge::with_opts(opts).expect("a valid gauge");
            self.registry.register(Box::new(gauge.clone())).expect("a metric of its own");
            Box::new(move || gauge.set(i64::try_from(read()).unwrap_or(i64::MAX)))
        };
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).push(Show(show));
    }

    /// A request for another instance's shard.
    pub fn forwarded(&self, outcome: Forwarded) {
        self.forwards.with_label_values(&[outcome.as_str()]).inc();
    }

    pub fn ledger_broken(&self, sink: &str, broken: bool) {
        self.sinks.broken(sink).set(i64::from(broken));
    }

    /// A ledger whose blocks are appended beside the commits.
    pub fn ledger(&self, sink: &str) -> LedgerMetrics {
        self.sinks.ledger(sink)
    }

    pub fn namespace(&self, name: &str) -> NamespaceMetrics {
        let lifecycle = |change: &str| self.lifecycle.with_label_values(&[name, change]);
        let notification = |status: &str| self.notifications.with_label_values(&[name, status]);
        let delivery = |action: &str| self.delivery_failures.with_label_values(&[name, action]);
        let worker = |action: &str| self.worker_actions.with_label_values(&[name, action]);
        let cache = |result: &str| self.cache.with_label_values(&[name, result]);
        let loading = [name, "start_attempt"];
        // Known to dashboards, though nothing here ever does it.
        delivery("ignore");
        NamespaceMetrics {
            loaded: lifecycle("loaded"),
            unloaded: lifecycle("unloaded"),
            created: lifecycle("created"),
            removed: lifecycle("removed"),
            repaired: lifecycle("repaired"),
            failed: lifecycle("failed"),
            committed_suicide: lifecycle("committed_suicide"),
            loading_error: lifecycle("loading_error"),
            transient_error: lifecycle("transient_error"),
            notification_created: notification("created"),
            notification_success: notification("success"),
            notification_error: notification("error"),
            delivery_rescheduled: delivery("reschedule"),
            delivery_deleted: delivery("delete"),
            timers: self.schedule.timers(name),
            task_created: self.wakes.with_label_values(&[name, "created"]),
            task_finished: self.wakes.with_label_values(&[name, "finished"]),
            schedulers: self.schedule.schedulers(name),
            stored: self.stored.namespace(name),
            call_attempts: worker("call_attempt"),
            start_attempts: worker("start_attempt"),
            loading_length: self.loading_length.with_label_values(&loading),
            loading_usage: self.loading_usage.with_label_values(&loading),
            queue_length: self.queue_length.with_label_values(&[name]),
            cache_hit: cache("hit"),
            cache_miss: cache("miss"),
            workers: self.workers.with_label_values(&[name]),
            in_flight: self.in_flight.with_label_values(&[name]),
            conflicts: self.conflicts.with_label_values(&[name]),
            machines: self.machines.clone(),
            refusals: self.refusals.clone(),
            namespace: name.to_owned(),
            impacts: IMPACTS.iter().map(|impact| (*impact, self.impact(name, impact))).collect(),
        }
    }

    /// How many machines of a namespace are due and wait to be woken: read when the metrics are rendered.
    pub fn watch_waiting(&self, namespace: &str, waiting: impl Fn(Scheduler) -> usize + Send + Sync + 'static) {
        let gauges = Scheduler::ALL.map(|scheduler| (scheduler, self.schedule.waiting(namespace, scheduler)));
        self.also(move || {
            for (scheduler, gauge) in &gauges {
                gauge.set(i64::try_from(waiting(*scheduler)).unwrap_or(i64::MAX));
            }
        });
    }

    /// One sink of a namespace. `age_ms` is read when the metrics are rendered.
    pub fn sink(&self, namespace: &str, sink: &str, age_ms: impl Fn() -> i64 + Send + Sync + 'static) -> SinkMetrics {
        let age = self.sinks.age(namespace, sink);
        self.also(move || age.set(age_ms() as f64 / 1_000.0));
        self.sinks.sink(namespace, sink)
    }

    /// One sink of a namespace that is a Kafka topic, beside what [`Self::sink`] counts.
    pub fn kafka_sink(&self, namespace: &str, sink: &str) -> KafkaSinkMetrics {
        self.sinks.kafka(namespace, sink)
    }

    fn impact(&self, namespace: &str, impact: &str) -> ImpactMetrics {
        let processing = |change: &str| self.processing.with_label_values(&[namespace, impact, change]);
        ImpactMetrics {
            started: processing("started"),
            finished: processing("finished"),
            duration: self.processing_duration.with_label_values(&[namespace, impact]),
        }
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> Vec<u8> {
        for Show(show) in self.watched.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            show();
        }
        let mut text = Vec::new();
        // Writing text into memory fails only for a metric without a name; there is none.
        let written = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        debug_assert!(written.is_ok());
        text
    }
}

// === impl Measured ===

impl Measured {
    pub fn histogram(self) -> Histogram {
        let opts = HistogramOpts::new(self.name, self.help).buckets(self.buckets.bounds.to_vec());
        // A mistake in this file alone would make it fail: the first store that is opened finds it.
        Histogram::with_opts(opts).expect("a valid histogram")
    }
}

// === impl NamespaceMetrics ===

impl NamespaceMetrics {
    pub fn impact(&self, name: &str) -> &ImpactMetrics {
        let found = self.impacts.iter().find(|(impact, _)| *impact == name);
        // Every name that an impact has is listed above, and a test walks through them.
        &found.unwrap_or(&self.impacts[0]).1
    }

    pub fn machines(&self, status: &str, number: i64) {
        self.machines.with_label_values(&[&self.namespace, status]).set(number);
    }

    pub fn scheduler(&self, scheduler: Scheduler) -> &SchedulerMetrics {
        // One for each, in their order.
        &self.schedulers[scheduler as usize]
    }

    pub fn stored(&self, stored: Stored) -> &OperationMetrics {
        // One for each, in their order.
        &self.stored[stored as usize]
    }

    /// So that a bound shows before it refuses anything.
    pub fn bounded_by(&self, bound: &str) {
        self.refusals.with_label_values(&[&self.namespace, bound]);
    }

    pub fn refused(&self, bound: &str) {
        self.refusals.with_label_values(&[&self.namespace, bound]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_about_metrics_says_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let page = Metrics::new().document();
        if std::env::var_os("WRITE_DOCS").is_some() {
            std::fs::write(path, &page).expect("the page is written");
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page,
            "docs/metrics.md is out of date: WRITE_DOCS=1 cargo test --workspace --lib metrics writes it anew"
        );
    }

    #[test]
    fn every_scheduler_and_every_request_to_the_store_has_its_own_metrics() {
        let metrics = Metrics::new().namespace("ns");
        metrics.scheduler(Scheduler::Notification).created.inc();
        metrics.stored(Stored::DeleteNotifications).start.inc();
        for scheduler in [Scheduler::Timers, Scheduler::TimersRetries, Scheduler::Overseer] {
            assert_eq!(metrics.scheduler(scheduler).created.get(), 0, "{scheduler:?}");
        }
        assert_eq!(metrics.scheduler(Scheduler::Notification).created.get(), 1);
        assert_eq!(metrics.stored(Stored::DeleteNotifications).start.get(), 1);
        assert_eq!(metrics.stored(Stored::SearchNotifications).start.get(), 0);
    }
}
