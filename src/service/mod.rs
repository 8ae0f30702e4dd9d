//! Builds the service from settings, and runs it until it is told to stop.

mod checks;
mod ledgers;
mod memory;
mod namespaces;
mod open_files;
mod sharing;
mod sinks;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use open_files::allow_open_files;

use crate::api::{Automaton, EventSink};
use crate::clock::{Clock, Snowflakes};
use crate::cluster::{Cluster, FORWARDED};
use crate::config::{DynamodbSettings, Settings, StorageSettings};
use crate::engine::{Engine, EngineOptions, Shards};
use crate::ops::{self, Health, Readiness};
#[cfg(feature = "dynamodb")]
use crate::storage::dynamodb::{self, Dynamodb};
use crate::storage::embedded::{Embedded, EmbeddedOptions, OpenError, WriterStats};
use crate::storage::memory::Memory;
use crate::storage::{Storage, StorageError};
use crate::telemetry::{self, Metrics, metrics as names};
use crate::tls::NoAuthorities;
use crate::wire::{self, Protocol};
use crate::woody::{Bodies, Server, ServerSettings};

/// How long a stop waits where a timeout is set to infinity: longer than any deadline that makes sense.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Why the service did not start. One line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Listen(std::io::Error),
    #[error(transparent)]
    Storage(#[from] OpenError),
    #[error("storage: {0}")]
    Table(String),
    #[error("storage.advertise: {0}")]
    Advertise(String),
    #[error("the end of ledger {sink:?} can't be found: {error}")]
    Ledger { sink: String, error: StorageError },
    #[error("namespaces.{namespace}.{key}: {reason}")]
    ProcessorUrl { namespace: String, key: String, reason: String },
    #[error(
        "namespaces.{namespace}.protocol: its machines set tags, which takes transactions, and the table has none (ScyllaDB's \
         Alternator never has): serve this namespace from DynamoDB or `storage.type: embedded`"
    )]
    NoTags { namespace: String },
    /// Namespaces call `https` URLs.
    #[error(transparent)]
    Tls(#[from] NoAuthorities),
    #[error("{0}")]
    Sink(String),
    #[error("{0}")]
    Runtime(String),
}

/// Why the service stopped without being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the store has failed and the service must be restarted: {0}")]
    Storage(StorageError),
    #[error(
        "what keeps this instance's leases has failed: the task of {0} has ended, its panic is on stderr; the service must be \
         restarted"
    )]
    Leases(&'static str),
    #[error("the service's own task has failed: {0}")]
    Panicked(String),
}

/// A service that is up.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    done: JoinHandle<Result<(), RunError>>,
}

#[cfg(feature = "kafka")]
impl From<crate::sink::kafka::KafkaError> for StartError {
    fn from(error: crate::sink::kafka::KafkaError) -> Self {
        Self::Sink(error.to_string())
    }
}

// === impl Running ===

impl Running {
    /// Where it listens: the real port, if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets running steps end within the configured times, then returns.
    pub async fn stop(self) -> Result<(), RunError> {
        self.stop.cancel();
        self.wait().await
    }

    /// Tells it to stop without waiting.
    pub fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Returns when the service has ended, told to or not.
    pub async fn wait(self) -> Result<(), RunError> {
        self.done.await.unwrap_or_else(|error| Err(RunError::Panicked(error.to_string())))
    }
}

/// Starts a service on the system clock. It listens, and wakes what is due, when this returns.
pub async fn start(settings: Settings) -> Result<Running, StartError> {
    start_on(settings, Clock::system()).await
}

/// As [`start`], on a clock of one's own.
pub async fn start_on(settings: Settings, clock: Clock) -> Result<Running, StartError> {
    let server = bind(&settings, &clock)?;
    let metrics = Metrics::new();
    let storage = open_storage(&settings.storage, &metrics).await?;
    run(settings, clock, server, metrics, storage).await
}

/// As [`start`], on a storage of one's own: of `settings.storage` only what says how instances share it is looked at. The
/// storage is closed when the service stops.
pub async fn start_with_storage(settings: Settings, storage: Arc<dyn Storage>) -> Result<Running, StartError> {
    start_over(settings, Clock::system(), storage).await
}

/// As [`start_with_storage`], on a clock of one's own; several services of a process may share the storage.
pub async fn start_over(settings: Settings, clock: Clock, storage: Arc<dyn Storage>) -> Result<Running, StartError> {
    let server = bind(&settings, &clock)?;
    run(settings, clock, server, Metrics::new(), storage).await
}

fn bind(settings: &Settings, clock: &Clock) -> Result<Server, StartError> {
    let address = SocketAddr::new(settings.woody_server.ip, settings.woody_server.port);
    Server::bind(address, server_settings(settings), clock.clone()).map_err(StartError::Listen)
}

async fn run(
    settings: Settings,
    clock: Clock,
    server: Server,
    metrics: Arc<Metrics>,
    storage: Arc<dyn Storage>,
) -> Result<Running, StartError> {
    let tagging = settings.namespaces.iter().find(|it| it.protocol != Protocol::Current);
    if let Some(namespace) = tagging.filter(|_| !storage.has_tags()) {
        return Err(StartError::NoTags { namespace: namespace.name.clone() });
    }
    let address = server.local_addr();
    let requests = server.bodies();
    let snowflakes = Snowflakes::new(settings.snowflake_machine_id.unwrap_or_else(machine_id_of_host), clock.clone());
    let limits = wire::Limits { depth: u32::try_from(settings.limits.value_depth).unwrap_or(u32::MAX) };
    let ledgers: BTreeSet<String> = settings.namespaces.iter().flat_map(sinks::ledgers).collect();
    let writers = ledgers::writers(&storage, &ledgers, &clock, &metrics).await?;
    let outlets = sinks::Outlets::open(&settings, writers)?;
    let replies = Bodies::new("limits.bodies.replies", most_replies(&settings));
    let mut namespaces = Vec::new();
    let tls = namespaces::tls(&settings)?;
    for namespace in &settings.namespaces {
        let share = replies.share(share_of(most_replies(&settings), &settings));
        let options = namespaces::options(namespace, &settings, limits, &clock, &snowflakes, &share, tls.as_ref())?;
        namespaces.push(outlets.join(options, namespace, &settings, &metrics));
    }
    let shards = storage.leases().map(|leases| Arc::new(Shards::new(leases.shards(), clock.clone())));
    let engine = Engine::start(
        storage.clone(),
        shards.clone(),
        clock.clone(),
        snowflakes.clone(),
        &metrics,
        engine_options(&settings),
        namespaces,
    );

    let cached = engine.clone();
    metrics.watch(names::CACHE_BYTES, move || cached.cached_bytes() as u64);
    let connections = server.connections();
    let (waiting, refused, evicted) = (connections.clone(), connections.clone(), connections.clone());
    let listener = connections.clone();
    metrics.watch_listener(move || listener.open());
    metrics.watch(names::LOG_LINES_DROPPED, telemetry::log::dropped);
    metrics.watch(names::CONNECTIONS_OPEN, move || connections.open());
    metrics.watch(names::CONNECTIONS_WAITING, move || waiting.waiting());
    metrics.watch(names::CONNECTIONS_REFUSED, move || refused.refused());
    metrics.watch(names::CONNECTIONS_EVICTED, move || evicted.evicted());
    watch_bodies(&metrics, &requests, names::REQUEST_BYTES, names::REQUESTS_OVER);
    watch_bodies(&metrics, &replies, names::REPLY_BYTES, names::REPLIES_OVER);
    let bodies = [requests, replies.clone()];
    let (memory, memory_check) = memory::watch(&settings.limits, &engine, bodies, &clock, &metrics);

    let interfaces = settings.namespaces.iter().map(|it| (it.name.clone(), namespaces::interface(it))).collect();
    let readiness = Arc::new(Readiness::default());
    let cluster = match shards {
        None => None,
        Some(shards) => {
            let client = sharing::client(&settings, &clock, snowflakes, &replies);
            sharing::join(&settings, address, &storage, shards, &engine, client, &metrics).await?
        }
    };
    let automaton = Arc::new(Automaton::new(engine.clone(), interfaces, cluster.clone()));
    let mut checks = checks::of(&settings.storage, &engine, cluster.as_ref());
    checks.extend(memory_check);
    let health = Health::new(&settings.service_name, &settings.limits, checks);
    let server = ops::routes(server, health, readiness.clone(), metrics.clone(), cluster.clone())
        .route("/v1/automaton", automaton)
        .route("/v1/event_sink", Arc::new(EventSink::new(storage.clone(), ledgers.clone())));
    readiness.set(true);
    let check = tokio::spawn(ledgers::check(storage.clone(), ledgers, metrics));

    let stop = CancellationToken::new();
    let steps_may_take = steps_may_take(&settings);
    let told = stop.clone();
    let done = tokio::spawn(async move {
        let mut failure = None;
        let shutdown = async {
            tokio::select! {
                () = told.cancelled() => {}
                error = storage.failure() => failure = Some(RunError::Storage(error)),
                what = leases_failure(cluster.as_deref()) => failure = Some(RunError::Leases(what)),
            }
            readiness.set(false);
        };
        let drain = async {
            // What runs here ends, or goes on elsewhere; then nothing is left to be refused.
            if let Some(cluster) = &cluster {
                cluster.leave().await;
            }
            let stopped =
                clock.timeout_at(clock.now().saturating_add(milliseconds(steps_may_take)), engine.stop()).await;
            if stopped.is_err() {
                tracing::warn!("steps were still running when shutdown_timeout had passed; their result is unknown");
            }
            if let Some(cluster) = &cluster {
                cluster.noticed().await;
            }
        };
        server.serve(shutdown, drain).await;
        check.abort();
        memory.abort();
        outlets.close().await;
        if let Some(cluster) = &cluster {
            cluster.end().await;
        }
        storage.close().await;
        failure.map_or(Ok(()), Err)
    });
    Ok(Running { address, stop, done })
}

async fn leases_failure(cluster: Option<&Cluster>) -> &'static str {
    match cluster {
        Some(cluster) => cluster.failure().await,
        None => std::future::pending().await,
    }
}

async fn open_storage(settings: &StorageSettings, metrics: &Metrics) -> Result<Arc<dyn Storage>, StartError> {
    match settings {
        StorageSettings::Dynamodb(dynamodb) => open_table(dynamodb, metrics).await,
        StorageSettings::Memory => Ok(Arc::new(Memory::new())),
        StorageSettings::Embedded(embedded) => {
            let options = EmbeddedOptions {
                free_space_reserve: embedded.free_space_reserve,
                ..EmbeddedOptions::new(&embedded.path)
            };
            // Opening reads the journal back: not on a thread that serves others.
            let opened = tokio::task::spawn_blocking(move || Embedded::open(options)).await;
            let store = opened.map_err(|error| StartError::Runtime(format!("opening the store: {error}")))??;
            watch_writer(metrics, store.stats());
            Ok(store)
        }
    }
}

#[cfg(feature = "dynamodb")]
async fn open_table(settings: &DynamodbSettings, metrics: &Metrics) -> Result<Arc<dyn Storage>, StartError> {
    let refused = |error: dynamodb::SchemaError| StartError::Table(error.to_string());
    let options = settings.into();
    if settings.create_table {
        dynamodb::schema::create(&options, &Clock::system()).await.map_err(refused)?;
    }
    let store = Dynamodb::open(&options).await.map_err(refused)?;
    let watch = |watched, read: fn(&dynamodb::Places) -> u64| {
        let places = store.places().clone();
        metrics.watch(watched, move || read(&places));
    };
    watch(names::TABLE_REQUESTS, dynamodb::Places::taken);
    watch(names::TABLE_REQUESTS_WAITING, dynamodb::Places::waiting);
    watch(names::TABLE_REQUESTS_REFUSED, dynamodb::Places::refused);
    Ok(store)
}

#[cfg(not(feature = "dynamodb"))]
async fn open_table(_: &DynamodbSettings, _: &Metrics) -> Result<Arc<dyn Storage>, StartError> {
    Err(StartError::Table("this program was built without the feature `dynamodb`".to_owned()))
}

fn watch_bodies(metrics: &Metrics, bodies: &Arc<Bodies>, held: names::Watched, refused: names::Watched) {
    let (now, so_far) = (bodies.clone(), bodies.clone());
    metrics.watch(held, move || now.held());
    metrics.watch(refused, move || so_far.refused());
}

fn watch_writer(metrics: &Metrics, stats: &Arc<WriterStats>) {
    let watch = |watched, read: fn(&WriterStats) -> &AtomicU64| {
        let stats = stats.clone();
        metrics.watch(watched, move || read(&stats).load(Ordering::Relaxed));
    };
    watch(names::COMMIT_BATCHES, |stats| &stats.batches);
    watch(names::COMMIT_WRITES, |stats| &stats.writes);
    watch(names::COMMIT_OVERLAPPED, |stats| &stats.overlapped);
    watch(names::COMMIT_BYTES, |stats| &stats.bytes);
    watch(names::COMMIT_MAX_BATCH, |stats| &stats.max_batch);
    watch(names::COMMIT_MAX_SYNC, |stats| &stats.max_sync_us);
    watch(names::COMMIT_WAITING, |stats| &stats.waiting);
    watch(names::STORAGE_FREE_BYTES, |stats| &stats.free_bytes);
    metrics.show(names::COMMIT_SYNC_SECONDS, &stats.sync_seconds);
    metrics.show(names::COMMIT_BATCH_SIZE, &stats.batch_size);
}

fn engine_options(settings: &Settings) -> EngineOptions {
    EngineOptions {
        machine_queue_limit: settings.worker.machine_queue_limit,
        loading_limit: settings.worker.message_queue_len_limit,
        steps_in_flight: settings.limits.steps_in_flight.total,
        steps_in_flight_per_namespace: settings.limits.steps_in_flight.per_namespace,
        arguments_per_namespace: share_of(most_requests(settings), settings),
        scheduler_tasks: settings.limits.scheduler_tasks,
        cache: usize::try_from(settings.limits.cache).unwrap_or(usize::MAX),
    }
}

/// Room for one largest body at least.
fn most_requests(settings: &Settings) -> u64 {
    settings.limits.bodies.requests.max(settings.woody_server.max_body_size)
}

fn most_replies(settings: &Settings) -> u64 {
    settings.limits.bodies.replies.max(settings.woody_server.max_body_size)
}

/// What one namespace may have of it.
fn share_of(most: u64, settings: &Settings) -> u64 {
    (most / 2).max(settings.woody_server.max_body_size)
}

fn server_settings(settings: &Settings) -> ServerSettings {
    let woody = &settings.woody_server;
    ServerSettings {
        max_connections: woody.max_concurrent_connections as usize,
        header_read_timeout: woody.http_keep_alive_timeout,
        passed_on: Some(FORWARDED.clone()),
        exchange_timeout: woody.idle_timeout,
        max_body_size: usize::try_from(woody.max_body_size).unwrap_or(usize::MAX),
        bodies: Bodies::new("limits.bodies.requests", most_requests(settings)),
        shutdown_timeout: woody.shutdown_timeout.unwrap_or(FOREVER) + steps_may_take(settings),
        limits: wire::Limits { depth: u32::try_from(settings.limits.value_depth).unwrap_or(u32::MAX) },
        ..ServerSettings::default()
    }
}

/// How long running steps may go on after a stop: the longest of the namespaces' times.
fn steps_may_take(settings: &Settings) -> Duration {
    settings.namespaces.iter().map(|it| it.shutdown_timeout.unwrap_or(FOREVER)).max().unwrap_or_default()
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Instances on different hosts make different ids.
fn machine_id_of_host() -> u16 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    // A host without a name still gets ids of its own: the random part of the process stands in.
    match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) => name.trim().hash(&mut hasher),
        Err(_) => crate::clock::random_bytes::<8>().hash(&mut hasher),
    }
    (hasher.finish() % 1024) as u16
}

/// Cancels `stop` at SIGTERM or SIGINT.
pub fn stop_at_signal(stop: CancellationToken) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
