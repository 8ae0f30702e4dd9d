//! `memory().timers(None).start().await`: an engine with one namespace, "ns", and a hand on everything around it.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use machinegun::clock::{Clock, ClockHand, Snowflakes};
use machinegun::engine::{
    Engine, EngineError, EngineOptions, NamespaceEngine, NamespaceOptions, Request, SchedulerOptions, Shards,
    SinkOptions, View,
};
use machinegun::machine::retry::{MaxRetries, RetryPolicy};
use machinegun::machine::{
    Impact, Limits, MachineId, MachineKey, Namespace, NotificationId, Outcome, Policy, Record, RequestContext, Shard,
    Subscription, Success,
};
use machinegun::processor::Question;
use machinegun::sink::LedgerSink;
use machinegun::storage::Storage;
#[cfg(feature = "dynamodb")]
use machinegun::storage::dynamodb::{Dynamodb, DynamodbOptions};
use machinegun::storage::embedded::{Embedded, EmbeddedOptions};
use machinegun::storage::ledger::LedgerWriter;
use machinegun::storage::memory::Memory;
use machinegun::telemetry::{Metrics, NamespaceMetrics};
use machinegun::wire::{Event, HistoryRange, Limits as WireLimits, Reader, Value, Wire};
use tempfile::TempDir;

use crate::faulty::{Faulty, UnderWay};
use crate::recorder::Recorder;
use crate::scripted::{Scripted, reply, text};

/// Unix milliseconds at which every test begins; in the middle of a second on purpose.
pub const BEGIN: i64 = 1_700_000_000_250;

/// Milliseconds that a call has unless the test says otherwise.
pub const PATIENCE: i64 = 30_000;

/// Milliseconds until acknowledgements are noted by a commit of their own.
pub const CLEAR: i64 = 10_000;

pub type Answer = Result<Success, EngineError>;

/// A step that was asked for and waits, or runs.
pub type Asked = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What will be started.
pub struct Mg {
    storage: Arc<dyn Storage>,
    /// Goes with the test.
    _folder: Option<Arc<TempDir>>,
    /// Several engines may run on the storage, each owning some shards.
    instances: Instances,
    /// In the ids that it makes.
    number: u16,
    pub options: EngineOptions,
    pub namespace: NamespaceOptions,
    processor: Scripted,
    begin: i64,
    /// Of the store's accidents; another one in each run.
    seed: u64,
    under_way: UnderWay,
    /// Names of further namespaces, with the same options.
    pub others: Vec<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Instances {
    /// Alone: there are no shards.
    Alone,
    /// All shards are owned from the start on, for ever.
    Owner,
    /// None is owned at first.
    Stranger,
}

pub struct World {
    pub engine: Arc<Engine>,
    shards: Option<Arc<Shards>>,
    pub ns: Arc<NamespaceEngine>,
    pub storage: Arc<Faulty>,
    pub processor: Scripted,
    pub hand: ClockHand,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    /// The same counters as are in `metrics`.
    counters: NamespaceMetrics,
    mg: Mg,
}

/// No test hangs: this is a guard for the tests, not a clock for the engine.
pub async fn guarded(promise: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(300), promise).await.expect("the promise is kept in finite time");
}

pub fn memory() -> Mg {
    Mg::on(Arc::new(Memory::new()), None)
}

/// An instance that owns all shards of a storage that others could use too.
pub fn shared() -> Mg {
    Mg { instances: Instances::Owner, ..Mg::on(Arc::new(Memory::shared(16)), None) }
}

pub fn embedded() -> Mg {
    let folder = tempfile::tempdir().unwrap();
    let mg = embedded_in(folder.path());
    Mg { _folder: Some(Arc::new(folder)), ..mg }
}

/// In a folder that outlives the test's world.
pub fn embedded_in(folder: &Path) -> Mg {
    let options = EmbeddedOptions { free_space_reserve: 0, ..EmbeddedOptions::new(folder) };
    Mg::on(Embedded::open(options).unwrap(), None)
}

#[cfg(feature = "dynamodb")]
pub async fn dynamodb() -> Mg {
    on_table(&crate::services::made_table().await).await
}

/// On a table that is there.
#[cfg(feature = "dynamodb")]
pub async fn dynamodb_at(endpoint: &str, table: &str) -> Mg {
    on_table(&DynamodbOptions { table: table.to_owned(), ..crate::services::table_at(endpoint) }).await
}

#[cfg(feature = "dynamodb")]
async fn on_table(table: &DynamodbOptions) -> Mg {
    Mg::on(Dynamodb::open(table).await.unwrap(), None)
}

pub fn id(text: &str) -> MachineId {
    MachineId::new(Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

pub fn ok(text: &str) -> Answer {
    Ok(Success::Response(Value::str(text)))
}

pub fn call(args: &str) -> Impact {
    Impact::Call { args: Value::str(args), range: HistoryRange::ALL }
}

pub fn repair(args: &str) -> Impact {
    Impact::Repair { args: Value::str(args), range: HistoryRange::ALL }
}

/// Forward, behind `after`, at most `limit`.
pub fn range(after: i64, limit: i32) -> HistoryRange {
    HistoryRange { after: Some(after), limit: Some(limit), ..HistoryRange::ALL }
}

/// Event ids with their texts.
pub fn events(encoded: &[Bytes]) -> Vec<(i64, String)> {
    let decode = |bytes: &Bytes| Event::read(&mut Reader::new(bytes.clone(), WireLimits::default())).unwrap();
    encoded.iter().map(decode).map(|event| (event.id, text(&event.data))).collect()
}

/// Lets everything go on until `condition` holds. Takes no time of the engine's clock.
pub async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

// === impl Mg ===

impl Mg {
    fn on(storage: Arc<dyn Storage>, folder: Option<Arc<TempDir>>) -> Self {
        let scheduler = SchedulerOptions { capacity: 100, ..SchedulerOptions::default() };
        let processor = Scripted::new();
        let namespace = NamespaceOptions {
            name: "ns".to_owned(),
            processor: Arc::new(processor.clone()),
            policy: Policy {
                timer_retries: RetryPolicy::linear(MaxRetries::Times(2), Duration::from_secs(1)),
                notification_retry_ms: 5_000,
                limits: Limits { step_size: 16 << 20 },
                subscriptions: Vec::new(),
                outbox_clear_ms: CLEAR,
            },
            storage_retries: RetryPolicy::default(),
            sink_retries: RetryPolicy::exponential(
                MaxRetries::Infinity,
                2.0,
                Duration::from_millis(100),
                Some(Duration::from_secs(30)),
            ),
            timer_processing_ms: 60_000,
            honour_timer_timeout: false,
            suicide: None,
            unload_ms: 60_000,
            timers: Some(scheduler),
            notifications: Some(scheduler),
            sinks: Vec::new(),
            ledgers: Vec::new(),
            most_unsent: 100_000,
            modernizer: None,
        };
        let options = EngineOptions {
            machine_queue_limit: 10_000,
            loading_limit: 500,
            steps_in_flight: 10_000,
            steps_in_flight_per_namespace: 10_000,
            arguments_per_namespace: u64::MAX,
            scheduler_tasks: 5_000,
            cache: 64 << 20,
        };
        let (instances, number) = (Instances::Alone, 1);
        Self {
            storage,
            _folder: folder,
            instances,
            number,
            options,
            namespace,
            processor,
            begin: BEGIN,
            seed: 0,
            under_way: UnderWay::default(),
            others: Vec::new(),
        }
    }

    pub fn timers(mut self, timers: Option<SchedulerOptions>) -> Self {
        self.namespace.timers = timers;
        self
    }

    pub fn notifications(mut self, notifications: Option<SchedulerOptions>) -> Self {
        self.namespace.notifications = notifications;
        self
    }

    pub fn capacity(mut self, capacity: usize) -> Self {
        let set = |it: Option<SchedulerOptions>| it.map(|it| SchedulerOptions { capacity, ..it });
        self.namespace.timers = set(self.namespace.timers);
        self.namespace.notifications = set(self.namespace.notifications);
        self
    }

    /// A sink that gets events.
    pub fn sink(self, name: &str, sink: &Recorder) -> Self {
        self.subscribed(name, sink, false, false)
    }

    /// A sink that gets events and changes of life.
    pub fn lifecycle(self, name: &str, sink: &Recorder) -> Self {
        self.subscribed(name, sink, true, false)
    }

    /// A sink whose acknowledgement replies wait for.
    pub fn awaited(self, name: &str, sink: &Recorder) -> Self {
        self.subscribed(name, sink, false, true)
    }

    fn subscribed(mut self, name: &str, sink: &Recorder, lifecycle: bool, before_reply: bool) -> Self {
        let subscription = Subscription { sink: name.to_owned(), events: true, lifecycle };
        self.namespace.policy.subscriptions.push(subscription);
        self.namespace.sinks.push(SinkOptions { name: name.into(), sink: Arc::new(sink.clone()), before_reply });
        self
    }

    /// How the processor answers from the first moment: what is due may be asked about before the start returns.
    pub fn behaving(self, behaviour: impl Fn(&Question) -> Outcome + Send + Sync + 'static) -> Self {
        self.processor.behave(behaviour);
        self
    }

    /// Begins so many milliseconds after the others.
    pub fn later(mut self, milliseconds: u64) -> Self {
        self.begin += milliseconds as i64;
        self
    }

    /// Of the store's accidents, once there is chaos.
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    pub fn without_sinks(mut self) -> Self {
        self.namespace.policy.subscriptions.clear();
        self.namespace.sinks.clear();
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut EngineOptions, &mut NamespaceOptions)) -> Self {
        change(&mut self.options, &mut self.namespace);
        self
    }

    /// Another instance on the same storage, with a processor and a clock of its own. It owns nothing yet.
    pub async fn instance(&self) -> World {
        let processor = Scripted::new();
        let namespace = NamespaceOptions { processor: Arc::new(processor.clone()), ..self.namespace.clone() };
        let (storage, folder, others) = (self.storage.clone(), self._folder.clone(), self.others.clone());
        let (options, begin) = (self.options, self.begin);
        static NEXT: AtomicU16 = AtomicU16::new(2);
        let (instances, number) = (Instances::Stranger, NEXT.fetch_add(1, Ordering::SeqCst));
        let (seed, under_way) = (self.seed, self.under_way.clone());
        let mg = Mg {
            storage,
            _folder: folder,
            instances,
            number,
            options,
            namespace,
            processor,
            begin,
            seed,
            under_way,
            others,
        };
        mg.start().await
    }

    pub async fn start(self) -> World {
        self.start_on(false).await
    }

    /// With a store that is out of reach at first, if it is `down`.
    async fn start_on(self, down: bool) -> World {
        let (clock, hand) = Clock::manual(self.begin);
        let shards = (self.instances != Instances::Alone).then(|| {
            let leases = self.storage.leases().expect("the storage can be shared");
            Arc::new(Shards::new(leases.shards(), clock.clone()))
        });
        if let Some(shards) = shards.as_ref().filter(|_| self.instances == Instances::Owner) {
            (0..shards.count()).for_each(|shard| shards.take(shard));
            shards.trust_until(i64::MAX);
        }
        let metrics = Metrics::new();
        let storage = Faulty::new(self.storage.clone(), self.seed, self.under_way.clone());
        let mut namespace = self.namespace.clone();
        if storage.appended_ledger().is_some() {
            for name in std::mem::take(&mut namespace.ledgers) {
                let writer = LedgerWriter::open(storage.clone(), &name, clock.clone(), metrics.ledger(&name)).await;
                let sink = Arc::new(LedgerSink::new(writer.unwrap()));
                let subscription = Subscription { sink: name.clone(), events: true, lifecycle: false };
                namespace.policy.subscriptions.push(subscription);
                namespace.sinks.push(SinkOptions { name: name.into(), sink, before_reply: true });
            }
        }
        storage.down.store(down, std::sync::atomic::Ordering::SeqCst);
        let engine = Engine::start(
            storage.clone(),
            shards.clone(),
            clock.clone(),
            Snowflakes::new(self.number, clock.clone()),
            &metrics,
            self.options,
            std::iter::once(namespace.clone())
                .chain(self.others.iter().map(|name| NamespaceOptions { name: name.clone(), ..namespace.clone() }))
                .collect(),
        );
        let ns = engine.namespace(b"ns").unwrap().clone();
        let scanned = storage.clone();
        until(|| scanned.scans.load(Ordering::SeqCst) > 0).await;
        let counters = metrics.namespace("ns");
        World {
            counters,
            engine,
            shards,
            ns,
            storage,
            processor: self.processor.clone(),
            hand,
            clock,
            metrics,
            mg: self,
        }
    }
}

// === impl World ===

impl World {
    /// Another run of the service on the same store, `later_ms` after the end of this one.
    pub async fn restart(self, later_ms: i64) -> World {
        self.restart_with(later_ms, |mg| mg).await
    }

    pub async fn restart_with(self, later_ms: i64, change: impl FnOnce(Mg) -> Mg) -> World {
        self.engine.stop().await;
        let begin = self.clock.now() + later_ms;
        change(Mg { begin, seed: self.mg.seed.wrapping_add(1), ..self.mg }).start().await
    }

    /// As `restart`, and the store is out of reach until the test says otherwise.
    pub async fn restart_down(self) -> World {
        self.engine.stop().await;
        let begin = self.clock.now() + 1;
        Mg { begin, ..self.mg }.start_on(true).await
    }

    /// As `restart`, but this run is cut off in the middle of what it does.
    pub async fn crash(self) -> World {
        self.crash_with(|mg| mg).await
    }

    /// The old run can't write any more, and its clock stands still.
    pub async fn crash_with(self, change: impl FnOnce(Mg) -> Mg) -> World {
        self.storage.down.store(true, Ordering::SeqCst);
        let begin = self.clock.now() + 1;
        change(Mg { begin, seed: self.mg.seed.wrapping_add(1), ..self.mg }).start().await
    }

    pub fn shards(&self) -> &Arc<Shards> {
        self.shards.as_ref().expect("an instance of several")
    }

    pub fn all_shards(&self) -> Vec<Shard> {
        (0..self.shards().count()).collect()
    }

    /// Owns all shards from now on, and trusts it for ever. Returns once what is due there was looked for.
    pub async fn take(&self) {
        let scans = self.storage.scans.load(Ordering::SeqCst);
        self.shards().trust_until(i64::MAX);
        self.all_shards().into_iter().for_each(|shard| self.shards().take(shard));
        until(|| self.storage.scans.load(Ordering::SeqCst) > scans).await;
    }

    /// Owns nothing from now on, and nobody else does yet.
    pub fn give(&self) {
        self.all_shards().into_iter().for_each(|shard| self.shards().give(shard));
    }

    /// Owns nothing from now on.
    pub fn lose(&self) {
        self.all_shards().into_iter().for_each(|shard| self.shards().lose(shard));
    }

    /// This instance's in the ids that it makes.
    pub fn number(&self) -> u16 {
        self.mg.number
    }

    pub fn request(&self) -> Request {
        Request { context: RequestContext::default(), deadline: self.clock.now() + PATIENCE }
    }

    /// Asks for a step. It is queued when this returns.
    pub fn ask_by(&self, machine: &str, impact: Impact, deadline: i64) -> Asked {
        let (ns, id, request) = (self.ns.clone(), id(machine), Request { deadline, ..self.request() });
        let mut asked: Asked = Box::pin(async move { ns.execute(id, impact, request).await });
        match (&mut asked).now_or_never() {
            Some(answer) => Box::pin(std::future::ready(answer)),
            None => asked,
        }
    }

    pub fn ask(&self, machine: &str, impact: Impact) -> Asked {
        self.ask_by(machine, impact, self.clock.now() + PATIENCE)
    }

    pub async fn init(&self, machine: &str) -> Answer {
        self.ask(machine, Impact::Init { args: Value::str("") }).await
    }

    /// A machine that was started with this answer.
    pub async fn machine(&self, machine: &str, answer: crate::scripted::Answer) {
        self.processor.then(answer);
        self.init(machine).await.unwrap();
    }

    pub async fn call(&self, machine: &str, args: &str) -> Answer {
        self.ask(machine, call(args)).await
    }

    /// A call that is answered so by the processor.
    pub async fn change(&self, machine: &str, answer: crate::scripted::Answer) {
        self.processor.then(answer);
        self.call(machine, "change").await.unwrap();
    }

    /// Fails the machine by a call.
    pub async fn fail(&self, machine: &str) {
        self.processor.then(crate::scripted::unexpected());
        let answer = self.call(machine, "fail").await;
        assert_eq!(answer, Err(machinegun::machine::Refusal::MachineFailed.into()), "it fails by this call");
    }

    pub async fn notify(&self, machine: &str, args: &str) -> Result<NotificationId, EngineError> {
        self.notify_by(machine, args, self.clock.now() + PATIENCE).await
    }

    pub async fn notify_by(&self, machine: &str, args: &str, deadline: i64) -> Result<NotificationId, EngineError> {
        let request = Request { deadline, ..self.request() };
        self.ns.notify(id(machine), Value::str(args), HistoryRange::ALL, request).await
    }

    pub async fn get(&self, machine: &str) -> Result<View, EngineError> {
        self.ns.get(id(machine), &HistoryRange::ALL).await
    }

    pub async fn events(&self, machine: &str) -> Vec<(i64, String)> {
        events(&self.get(machine).await.unwrap().events)
    }

    pub fn key(&self, machine: &str) -> MachineKey {
        MachineKey { ns: Namespace::new("ns"), id: id(machine) }
    }

    pub fn advance(&self, ms: u64) {
        self.hand.advance(Duration::from_millis(ms));
    }

    /// Time passes, and the store was scanned once more: what is due was too far off to be held in memory.
    pub async fn turn(&self, ms: u64) {
        let scans = || self.storage.scans.load(std::sync::atomic::Ordering::SeqCst);
        let before = scans();
        self.advance(ms);
        until(|| scans() > before).await;
    }

    /// Returns once every wake-up that is due by now was worked off.
    pub async fn settle(&self) {
        self.settled(0).await;
    }

    /// As `settle`, but one wake-up waits for a step that is being held.
    pub async fn settle_but_one(&self) {
        self.settled(1).await;
    }

    async fn settled(&self, waiting: u64) {
        let NamespaceMetrics { task_created, task_finished, .. } = &self.counters;
        // Wake-ups are sent by a task that is ready to run, so it runs within a few turns.
        let mut quiet = 0;
        while quiet < 32 {
            tokio::task::yield_now().await;
            let worked_off = task_finished.get() + waiting == task_created.get() && self.storage.is_idle();
            quiet = if worked_off { quiet + 1 } else { 0 };
        }
    }

    /// The machine as it is stored, tombstones included.
    pub async fn stored(&self, machine: &str) -> Record {
        self.storage.inner().read(&self.key(machine), None).await.unwrap().unwrap().record
    }

    /// Time passes until the store knows that a machine owes its sinks nothing.
    pub async fn until_noted(&self, machine: &str) {
        while !self.stored(machine).await.unsent.is_empty() {
            self.advance(1_000);
            self.quiet().await;
        }
    }

    /// Everything goes on as far as it can without the engine's time: the store has answered all that it was asked, and
    /// there were enough turns for each task to have had its own.
    pub async fn quiet(&self) {
        let mut quiet = 0;
        while quiet < 64 {
            tokio::task::yield_now().await;
            quiet = if self.storage.is_idle() { quiet + 1 } else { 0 };
        }
    }

    /// Time passes in small steps until `condition` holds.
    pub async fn until_later(&self, condition: impl Fn() -> bool) {
        while !condition() {
            self.advance(100);
            self.quiet().await;
        }
    }

    /// A metric of the namespace with this label value, or 0.
    pub fn metric(&self, name: &str, label: &str) -> i64 {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0) as i64
    }

    /// A machine with three events, whose worker is loaded.
    pub async fn three_events(&self, machine: &str) {
        self.machine(machine, reply("").event("a").event("b").event("c").aux("state")).await;
    }
}
