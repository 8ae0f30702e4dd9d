//! The engine: namespaces, workers that own loaded machines, steps with one commit each, and the dues that wake them.
//!
//! A request finds its machine's worker, waits in its queue, and is answered after its step's commit. GetMachine and
//! Notify pass the queue by, so a processor may ask about, or notify, the machine that it is handling.
//!
//! Where several instances share a storage, each works on the machines of the shards that it owns ([`Shards`]). What keeps
//! machines whole is not that, but the commits' conditions; and an answer that no commit precedes is given only on what
//! was read from storage, or was found to stand there, since it was asked for.

mod backlog;
mod cache;
mod census;
mod delivery;
mod error;
mod modernize;
mod namespace;
mod notify;
mod outage;
mod outbox;
mod owner;
mod patience;
mod registry;
mod schedule;
mod shards;
mod step;
mod wake;
mod worker;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, Snowflakes, Stopwatch};
use crate::machine::{MachineKey, Namespace, Policy, RequestContext};
use crate::processor::Processor;
use crate::sink::Sink;
use crate::storage::{Storage, StorageError};
use crate::telemetry::Metrics;

pub use census::Numbers;
pub use error::{Bound, EngineError};
pub use modernize::ModernizerOptions;
pub use namespace::{NamespaceEngine, View};
pub use shards::{Shards, Tenure};

/// How many dues one page of a scan holds.
const SCAN_PAGE: usize = 1_000;

/// Milliseconds until a scan that failed is tried again.
const SCAN_RETRY_MS: i64 = 1_000;

/// A namespace as the engine runs it.
#[derive(Clone)]
pub struct NamespaceOptions {
    pub name: String,
    pub processor: Arc<dyn Processor>,
    pub policy: Policy,
    /// How commits that were refused by the store are tried again, within the request's deadline.
    pub storage_retries: crate::machine::retry::RetryPolicy,
    /// Milliseconds that the processor has for a timer's signal.
    pub timer_processing_ms: i64,
    /// Milliseconds without a request after which a machine leaves memory.
    pub unload_ms: i64,
    /// None: timers never fire.
    pub timers: Option<SchedulerOptions>,
    /// None: notifications wait until it is some.
    pub notifications: Option<SchedulerOptions>,
    /// In the order of the configuration; `policy.subscriptions` names the same.
    pub sinks: Vec<SinkOptions>,
    /// The ledgers that new events are entered in, as part of their commit.
    pub ledgers: Vec<String>,
    /// Events that sinks have not acknowledged, past which new steps are refused.
    pub most_unsent: i64,
    pub modernizer: Option<ModernizerOptions>,
}

#[derive(Clone)]
pub struct SinkOptions {
    pub name: Arc<str>,
    pub sink: Arc<dyn Sink>,
    /// A reply waits for the sink's acknowledgement.
    pub before_reply: bool,
}

/// A sink that refuses what it won't take until somebody mends something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkTrouble {
    pub namespace: String,
    pub sink: Arc<str>,
    /// Whose next delivery it refused.
    pub machines: i64,
    /// What it said last.
    pub reason: String,
}

#[derive(Clone, Copy, Debug)]
pub struct SchedulerOptions {
    pub scan_interval: Duration,
    /// Wake-ups being worked off at once.
    pub capacity: usize,
}

#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Never more than half of what a namespace may have in flight.
    pub machine_queue_limit: usize,
    /// Machines of a namespace being loaded at once.
    pub loading_limit: usize,
    pub steps_in_flight: usize,
    pub steps_in_flight_per_namespace: usize,
    /// Bytes of arguments that wait or are worked on in one namespace.
    pub arguments_per_namespace: u64,
    /// Bytes of records and events in memory.
    pub cache: usize,
}

/// What a request brings beside its impact.
#[derive(Clone, Debug)]
pub struct Request {
    pub context: RequestContext,
    /// Unix milliseconds.
    pub deadline: i64,
}

pub struct Engine {
    shared: Arc<Shared>,
    namespaces: HashMap<String, Arc<NamespaceEngine>>,
}

/// What all namespaces share.
pub(crate) struct Shared {
    storage: Arc<dyn Storage>,
    clock: Clock,
    snowflakes: Arc<Snowflakes>,
    budget: cache::Budget,
    /// Memory is short: no new work is taken.
    short: AtomicBool,
    options: EngineOptions,
    in_flight: Arc<Semaphore>,
    outage: outage::Outage,
    stopping: CancellationToken,
    /// Workers, schedulers and the scanner.
    tasks: TaskTracker,
    /// None: this process is alone on its storage, and owns all.
    shards: Option<Arc<Shards>>,
    /// Weak, since every namespace holds this.
    namespaces: OnceLock<HashMap<String, Weak<NamespaceEngine>>>,
}

// === impl Shared ===

impl Shared {
    fn namespace(&self, name: &Namespace) -> Option<Arc<NamespaceEngine>> {
        self.namespaces.get()?.get(name.as_str())?.upgrade()
    }

    /// Tells loaded machines to let go.
    fn shed(&self, victims: Vec<MachineKey>) {
        for victim in victims {
            if let Some(namespace) = self.namespace(&victim.ns) {
                namespace.registry().tell(&victim.id, worker::Message::Shed);
            }
        }
    }

    fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }
}

// === impl Engine ===

impl Engine {
    /// Starts scanning for dues at once. `shards` are those that this instance owns of a storage that others use too;
    /// none, if it is alone.
    pub fn start(
        storage: Arc<dyn Storage>,
        shards: Option<Arc<Shards>>,
        clock: Clock,
        snowflakes: Arc<Snowflakes>,
        metrics: &Metrics,
        options: EngineOptions,
        namespaces: Vec<NamespaceOptions>,
    ) -> Arc<Self> {
        let shared = Arc::new(Shared {
            storage,
            outage: outage::Outage::new(clock.clone()),
            clock,
            snowflakes,
            budget: cache::Budget::new(options.cache),
            short: AtomicBool::new(false),
            options,
            in_flight: Arc::new(Semaphore::new(options.steps_in_flight)),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            shards,
            namespaces: OnceLock::new(),
        });
        let namespaces: HashMap<_, _> = namespaces
            .into_iter()
            .map(|options| (options.name.clone(), NamespaceEngine::start(options, metrics, shared.clone())))
            .collect();
        let weak = namespaces.iter().map(|(name, namespace)| (name.clone(), Arc::downgrade(namespace)));
        // The cell is new, so nobody set it before.
        let _ = shared.namespaces.set(weak.collect());
        let engine = Arc::new(Self { shared, namespaces });
        let scanner = engine.clone();
        engine.shared.tasks.spawn(async move { scanner.scan().await });
        let counter = engine.clone();
        engine.shared.tasks.spawn(async move { counter.count().await });
        engine
    }

    /// By the raw bytes of a request; names that are not UTF-8 are never configured.
    pub fn namespace(&self, name: &[u8]) -> Result<&Arc<NamespaceEngine>, EngineError> {
        std::str::from_utf8(name).ok().and_then(|name| self.namespaces.get(name)).ok_or(EngineError::NamespaceNotFound)
    }

    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// The namespaces that refuse steps because their sinks are too far behind.
    pub fn behind(&self) -> Vec<&str> {
        let behind = self.namespaces.iter().filter(|(_, namespace)| namespace.is_behind());
        behind.map(|(name, _)| name.as_str()).collect()
    }

    /// Bytes that loaded machines hold.
    pub fn cached_bytes(&self) -> usize {
        self.shared.budget.held()
    }

    /// Bytes that loaded machines may hold now, and when memory is plenty.
    pub fn cache_allowed(&self) -> (usize, usize) {
        (self.shared.budget.allowed(), self.shared.budget.capacity())
    }

    /// Lets loaded machines hold so much from now on: those used least recently leave if they hold more.
    pub fn allow_cache(&self, bytes: usize) {
        self.shared.shed(self.shared.budget.allow(bytes));
    }

    /// Whether memory is short: then no new work is taken. What runs goes on, and so do reads.
    pub fn set_short(&self, short: bool) {
        self.shared.short.store(short, Ordering::Relaxed);
    }

    /// The sinks that some machines can't get rid of their debts to until somebody mends something.
    pub fn sink_troubles(&self) -> Vec<SinkTrouble> {
        let troubles = self.namespaces.values().flat_map(|namespace| {
            let sinks = namespace.options.sinks.iter().zip(&namespace.backlogs);
            sinks.filter_map(|(sink, backlog)| {
                let (machines, reason) = backlog.trouble()?;
                Some(SinkTrouble {
                    namespace: namespace.options.name.clone(),
                    sink: sink.name.clone(),
                    machines,
                    reason,
                })
            })
        });
        let mut troubles: Vec<_> = troubles.collect();
        troubles.sort_by(|a, b| (&a.namespace, &a.sink).cmp(&(&b.namespace, &b.sink)));
        troubles
    }

    /// Lets running steps end; what waits is refused. Returns when all workers are gone.
    pub async fn stop(&self) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Finds the dues that no commit of this run has told of: of earlier runs, and those beyond the horizon.
    async fn scan(self: Arc<Self>) {
        let intervals = self.namespaces.values().map(|namespace| namespace.scan_interval());
        let Some(interval) = intervals.min() else { return };
        let interval = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let work = async {
            let mut ended = None;
            loop {
                let next = self.shared.clock.now().saturating_add(interval);
                let next = match self.scan_measured(next.saturating_add(interval), &mut ended).await {
                    Ok(()) => next,
                    Err(error) => {
                        tracing::warn!(
                            mg_pulse_event_id = "mg_skd_search_error",
                            error.class = "throw",
                            error.reason = %error,
                            "scheduler search failed: it is tried again in a moment"
                        );
                        next.min(self.shared.clock.now().saturating_add(SCAN_RETRY_MS))
                    }
                };
                tokio::select! {
                    () = self.shared.clock.sleep_until(next) => {}
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
    async fn scan_measured(&self, until: i64, ended: &mut Option<Stopwatch>) -> Result<(), StorageError> {
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

    async fn scan_once(&self, until: i64) -> Result<(), StorageError> {
        let owned = self.shared.shards.as_ref().map(|shards| shards.owned());
        let mut after = None;
        loop {
            let page = self.shared.storage.dues(owned.as_deref(), until, after.as_ref(), SCAN_PAGE).await?;
            for due in &page {
                if let Some(namespace) = self.namespaces.get(due.key.ns.as_str()) {
                    namespace.schedule.found(&due.key.id, due.at);
                }
            }
            match page.last() {
                Some(last) if page.len() == SCAN_PAGE => after = Some(last.cursor.clone()),
                _ => return Ok(()),
            }
        }
    }
}
