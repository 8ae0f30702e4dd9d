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
mod puts;
mod quotas;
mod registry;
mod roads;
mod scan;
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

use crate::clock::{Clock, Snowflakes};
use crate::machine::{MachineKey, Namespace, Policy, RequestContext};
use crate::processor::Processor;
use crate::sink::Sink;
use crate::storage::Storage;
use crate::telemetry::Metrics;

pub use census::Numbers;
pub use error::{Bound, EngineError};
pub use modernize::ModernizerOptions;
pub use namespace::{NamespaceEngine, View};
pub use shards::{Shards, Tenure};

/// A namespace as the engine runs it.
#[derive(Clone)]
pub struct NamespaceOptions {
    pub name: String,
    pub processor: Arc<dyn Processor>,
    pub policy: Policy,
    /// How commits that were refused by the store are tried again, within the request's deadline.
    pub storage_retries: crate::machine::retry::RetryPolicy,
    /// How deliveries that a sink did not take are tried again: for ever, past the policy's end with its last delay.
    pub sink_retries: crate::machine::retry::RetryPolicy,
    /// Milliseconds that the processor has for a timer's signal.
    pub timer_processing_ms: i64,
    /// The timeout that the timer itself was set with takes the place of that.
    pub honour_timer_timeout: bool,
    /// Some, for tests: asked each time a processor has answered, whether the machine's worker dies before anything of the
    /// step is stored.
    pub suicide: Option<Suicide>,
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

pub type Suicide = Arc<dyn Fn() -> bool + Send + Sync>;

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
    /// Dues that a scan takes before it pauses for `min_scan_delay`. A scan is for all namespaces: it takes as many as all
    /// schedulers together allow, and its pause is the shortest of theirs.
    pub scan_limit: usize,
    pub min_scan_delay: Duration,
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
    /// Machines awake at once, by whatever scheduler of whatever namespace.
    pub scheduler_tasks: usize,
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
    quota: Arc<quotas::Quota>,
    outage: outage::Outage,
    stopping: CancellationToken,
    /// Workers, schedulers and the scanner.
    tasks: TaskTracker,
    /// None: this process is alone on its storage, and owns all.
    shards: Option<Arc<Shards>>,
    /// Weak, since every namespace holds this.
    namespaces: OnceLock<HashMap<String, Weak<NamespaceEngine>>>,
}

// === impl SchedulerOptions ===

impl Default for SchedulerOptions {
    /// What the configuration has by default.
    fn default() -> Self {
        Self {
            scan_interval: Duration::from_secs(60),
            capacity: 1_000,
            scan_limit: 5_000,
            min_scan_delay: Duration::from_secs(1),
        }
    }
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
            quota: quotas::Quota::new(options.scheduler_tasks),
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
        let sharer = engine.clone();
        engine.shared.tasks.spawn(async move { sharer.share_places().await });
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
}
