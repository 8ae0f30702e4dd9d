//! Every metric's name, help text, labels and buckets. Ids never become labels.

mod definition;
mod namespace;
mod schedule;
mod sinks;
mod stored;
mod watched;

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Encoder, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use definition::{Definition, Register};
use namespace::NamespaceFamilies;
use sinks::SinkFamilies;
use watched::{MEASURED, WATCHED};

pub use namespace::{ImpactMetrics, NamespaceMetrics};
pub use schedule::{Scheduler, SchedulerMetrics, TimerMetrics, TimerProcessing};
pub use sinks::{KafkaSinkMetrics, LedgerMetrics, SinkMetrics};
pub use stored::{OperationMetrics, Stored};
pub use watched::*;

/// All metrics of one service. Built once; handles are resolved per namespace, so that the main road looks nothing up.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    namespaces: NamespaceFamilies,
    sinks: SinkFamilies,
    listener: IntGaugeVec,
    forwards: IntCounterVec,
    definitions: Vec<Definition>,
    watched: Mutex<Vec<Show>>,
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

impl std::fmt::Debug for Show {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Show")
    }
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
        let mut metrics = Self {
            namespaces: NamespaceFamilies::new(&register),
            sinks: SinkFamilies::new(&register),
            listener: gauge("woody_ranch_listener_connections", "Client connections being served.", &["listener"]),
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
        all.extend(WATCHED.iter().map(Watched::definition));
        all.extend(MEASURED.iter().map(Measured::definition));
        definition::document(&all)
    }

    /// Shows a number that another room counts for itself; it is read when the metrics are rendered.
    pub fn watch(&self, watched: Watched, read: impl Fn() -> u64 + Send + Sync + 'static) {
        let Watched { name, help, counts_up } = watched;
        debug_assert!(WATCHED.iter().any(|it| it.name == name), "{name} is not in WATCHED");
        let opts = Opts::new(name, help);
        // Names are consts of `watched`, each used once per service.
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
        self.namespaces.of(name)
    }

    /// How many machines of a namespace are due and wait to be woken: read when the metrics are rendered.
    pub fn watch_waiting(&self, namespace: &str, waiting: impl Fn(Scheduler) -> usize + Send + Sync + 'static) {
        let gauges =
            Scheduler::ALL.map(|scheduler| (scheduler, self.namespaces.schedule.waiting(namespace, scheduler)));
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
