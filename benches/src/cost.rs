//! What the service's work costs on DynamoDB: requests and units, counted on the road to the table.
//!
//! They are the same on every run and every host: the engine runs here, on a clock that is turned by hand.

mod idle;
mod report;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clap::Args;
use machinegun::clock::{Clock, ClockHand, Snowflakes, random_bytes};
use machinegun::engine::{
    Engine, EngineError, EngineOptions, NamespaceEngine, NamespaceOptions, Request, SchedulerOptions, Shards,
    SinkOptions,
};
use machinegun::machine::retry::{MaxRetries, RetryPolicy};
use machinegun::machine::{
    Action, Change, Impact, Limits, MachineId, Outcome, Policy, RequestContext, Subscription, TimerChange,
};
use machinegun::processor::{Ask, Processor, Question};
use machinegun::sink::{Delivery, LedgerSink, Receipt, Sink, SinkError};
use machinegun::storage::Storage;
use machinegun::storage::dynamodb::{Dynamodb, DynamodbOptions, schema};
use machinegun::storage::ledger::LedgerWriter;
use machinegun::telemetry::{Metrics, NamespaceMetrics};
use machinegun::wire::{Content, Direction, HistoryRange, Value, timestamp};
use tokio::task::JoinSet;

use crate::Failure;
use crate::table::Service;
use crate::toll::Toll;
use crate::units::Charge;

pub use report::{Bill, Report, Row};

/// Bytes of an event's data, as the bars have it.
const EVENT: usize = 300;
const AUX_STATE: usize = 100;
/// Steps over which what differs from one to the next is averaged: whole rounds of filling and emptying a tail.
const ROUNDS: usize = 60;
const TIMERS: usize = 12;
/// Calls that fill a new machine's tail for the first time.
const FIRST: usize = 4;
/// Seconds of a timer, and milliseconds between one request and the next.
const TIMER: i32 = 10;
const PAUSE: Duration = Duration::from_secs(1);
const SCAN_EVERY: Duration = Duration::from_secs(60);
/// Few: what is looked at by the clock is measured by itself.
const SHARDS: u16 = 8;
/// Machines that are called at once, and how often each.
const AT_ONCE: usize = 64;
const CALLS_AT_ONCE: usize = 20;
/// Any time will do, but a half second on purpose.
const BEGIN: i64 = 1_700_000_000_500;

#[derive(Args)]
pub struct Options {
    /// Events of the machines that are measured, ascending.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 10_000])]
    pub histories: Vec<i64>,
    /// Writes docs/cost.md, and the figures as JSON under this name; nothing is saved without one.
    #[arg(long)]
    pub save: Option<String>,
}

/// What is asked of the processor, and what it makes of it.
#[derive(Clone, Copy, PartialEq)]
enum Wish {
    /// One event, and an aux state.
    Event,
    /// Another aux state alone.
    AuxState,
    /// Nothing changes.
    Nothing,
    /// A timer; its signal is answered with one event.
    Timer,
}

/// Counts the aux states that it has given, so that no two are the same.
#[derive(Default)]
struct Asked(AtomicU64);

/// Acknowledges at once.
struct Taker;

/// A namespace under measurement.
struct Subject {
    ns: Arc<NamespaceEngine>,
    counters: NamespaceMetrics,
}

struct World {
    toll: Toll,
    engine: Arc<Engine>,
    storage: Arc<dyn Storage>,
    plain: Subject,
    sunk: Subject,
    entered: Subject,
    clock: Clock,
    hand: ClockHand,
}

pub fn run(options: &Options) -> Result<(), Failure> {
    let service = Service::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(measure(&service.address, &options.histories))?;
    print!("{}", report.table());
    if let Some(name) = &options.save {
        println!("saved as {}", report.save(name)?.display());
    }
    Ok(())
}

/// On the DynamoDB API at this address, which keeps a table more.
pub async fn measure(service: &str, histories: &[i64]) -> Result<Report, Failure> {
    let world = World::start(service).await?;
    let mut rows = Vec::new();
    let mut growth = Bill::default();
    let mut reading = Vec::new();
    for history in histories {
        let id = MachineId::new(Bytes::from(format!("machine-{history:05}")))?;
        // What a sink adds does not depend on the history.
        let sunk = [(&world.sunk, "Kafka"), (&world.entered, "ledger")];
        let sunk = sunk.into_iter().filter(|_| Some(history) == histories.first());
        for (subject, sinks) in [(&world.plain, "none")].into_iter().chain(sunk) {
            let mut add = |what: &str, bill: Bill| {
                rows.push(Row { what: what.to_owned(), history: *history, sinks: sinks.to_owned(), bill });
            };
            let start = world.bill(1, async { subject.start(&world, &id).await }).await?;
            if Some(history) == histories.first() {
                add("Start", start);
            }
            let first = world.calls(subject, &id, Wish::Event, FIRST).await?;
            if Some(history) == histories.first() {
                add(report::FIRST, first.clone());
            }
            let left = usize::try_from(*history)?.saturating_sub(FIRST);
            let grown = world.calls(subject, &id, Wish::Event, left).await?;
            if sinks == "none" {
                growth = first.times(FIRST as f64).plus(&grown.times(left as f64)).times(1.0 / (FIRST + left) as f64);
            }
            add(report::HOT, world.calls(subject, &id, Wish::Event, ROUNDS).await?);
            add("Call that changes the aux state alone", world.calls(subject, &id, Wish::AuxState, ROUNDS).await?);
            add("Call that changes nothing", world.calls(subject, &id, Wish::Nothing, ROUNDS).await?);
            add("timer set by a Call, and fired with one event", world.timers(subject, &id).await?);
            add("Call with one event, machine not loaded", world.cold_call(subject, &id).await?);
            if sinks == "none" {
                let last = HistoryRange { after: None, limit: Some(1), direction: Direction::Backward };
                add("GetMachine, last event, machine loaded", world.get(subject, &id, &last).await?.0);
                world.unload(subject).await;
                add("GetMachine, last event, machine not loaded", world.get(subject, &id, &last).await?.0);
                let (bill, bytes) = world.get(subject, &id, &HistoryRange::ALL).await?;
                reading.push((bill.read_units, bytes));
                add("GetMachine, whole history, machine not loaded", bill);
            } else {
                world.unload(subject).await;
            }
        }
    }
    for (subject, sinks) in [(&world.plain, "none"), (&world.sunk, "Kafka"), (&world.entered, "ledger")] {
        let (history, bill) = (i64::try_from(FIRST)?, world.at_once(subject).await?);
        rows.push(Row { what: report::AT_ONCE.to_owned(), history, sinks: sinks.to_owned(), bill });
    }
    world.engine.stop().await;
    world.storage.close().await;
    Ok(Report::new(rows, growth, &reading, &idle::measure(service).await?))
}

// === impl World ===

impl World {
    async fn start(service: &str) -> Result<Self, Failure> {
        let toll = Toll::before(service).await?;
        let options = table(&toll, SHARDS);
        schema::create(&options, &Clock::system()).await?;
        let storage: Arc<dyn Storage> = Dynamodb::open(&options).await?;
        let (clock, hand) = Clock::manual(BEGIN);
        let metrics = Metrics::new();
        // All shards are ours, as they are one instance's that is alone.
        let shards = Arc::new(Shards::new(SHARDS, clock.clone()));
        (0..SHARDS).for_each(|shard| shards.take(shard));
        shards.trust_until(i64::MAX);
        let ledger = LedgerWriter::open(storage.clone(), "ledger", clock.clone(), metrics.ledger("ledger")).await?;
        let sink = |sink: Arc<dyn Sink>, before_reply| SinkOptions { name: "sink".into(), sink, before_reply };
        let engine = Engine::start(
            storage.clone(),
            Some(shards),
            clock.clone(),
            Snowflakes::new(1, clock.clone()),
            &metrics,
            EngineOptions {
                machine_queue_limit: 100,
                loading_limit: 100,
                steps_in_flight: 100,
                arguments_per_namespace: u64::MAX,
                steps_in_flight_per_namespace: 100,
                scheduler_tasks: 5_000,
                cache: 64 << 20,
            },
            vec![
                namespace("plain", None),
                namespace("sunk", Some(sink(Arc::new(Taker), false))),
                namespace("entered", Some(sink(Arc::new(LedgerSink::new(ledger)), true))),
            ],
        );
        let subject = |name: &str| {
            let ns = engine.namespace(name.as_bytes()).cloned()?;
            Ok::<_, Failure>(Subject { ns, counters: metrics.namespace(name) })
        };
        let (plain, sunk, entered) = (subject("plain")?, subject("sunk")?, subject("entered")?);
        let world = Self { toll, engine, storage, plain, sunk, entered, clock, hand };
        world.scanned(0).await;
        Ok(world)
    }

    /// What `work` of so many equal parts costs, for each. What goes on in the background has its own row.
    async fn bill(&self, parts: usize, work: impl Future<Output = Result<(), Failure>>) -> Result<Bill, Failure> {
        let before = self.toll.passed();
        work.await?;
        Ok(Bill::of(self.toll.since(before)?.iter().filter(|charge| charge.index.is_none()))
            .times(1.0 / parts.max(1) as f64))
    }

    async fn calls(&self, subject: &Subject, id: &MachineId, wish: Wish, times: usize) -> Result<Bill, Failure> {
        let calls = async {
            for _ in 0..times {
                subject.call(self, id, wish).await?;
            }
            Ok(())
        };
        self.bill(times, calls).await
    }

    /// Of many machines, each of which has its next Call as soon as it has answered the last. No time passes.
    async fn at_once(&self, subject: &Subject) -> Result<Bill, Failure> {
        let ids = (0..AT_ONCE).map(|number| MachineId::new(Bytes::from(format!("at-once-{number}"))));
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        for id in &ids {
            subject.start(self, id).await?;
            self.calls(subject, id, Wish::Event, FIRST).await?;
        }
        let calls = async {
            let mut callers = JoinSet::new();
            for id in ids {
                let (ns, request) = (subject.ns.clone(), self.request());
                callers.spawn(async move {
                    for _ in 0..CALLS_AT_ONCE {
                        ns.execute(id.clone(), Wish::Event.call(), request.clone()).await?;
                    }
                    Ok::<_, EngineError>(())
                });
            }
            while let Some(done) = callers.join_next().await {
                done??;
            }
            Ok(())
        };
        self.bill(AT_ONCE * CALLS_AT_ONCE, calls).await
    }

    fn request(&self) -> Request {
        Request { context: RequestContext::default(), deadline: self.clock.now() + 30_000 }
    }

    async fn timers(&self, subject: &Subject, id: &MachineId) -> Result<Bill, Failure> {
        let timers = async {
            for _ in 0..TIMERS {
                let fired = subject.counters.impact("timeout").finished.get();
                subject.call(self, id, Wish::Timer).await?;
                self.hand.advance(Duration::from_secs(u64::try_from(TIMER)?));
                until(|| subject.counters.impact("timeout").finished.get() > fired).await;
            }
            Ok(())
        };
        self.bill(TIMERS, timers).await
    }

    /// Each time of a machine that has left memory.
    async fn cold_call(&self, subject: &Subject, id: &MachineId) -> Result<Bill, Failure> {
        let mut sum = Bill::default();
        for _ in 0..TIMERS {
            self.unload(subject).await;
            sum = sum.plus(&self.calls(subject, id, Wish::Event, 1).await?);
        }
        Ok(sum.times(1.0 / TIMERS as f64))
    }

    async fn get(&self, subject: &Subject, id: &MachineId, range: &HistoryRange) -> Result<(Bill, usize), Failure> {
        let mut bytes = 0;
        let get = async {
            let view = subject.ns.get(id.clone(), range).await?;
            bytes = view.events.iter().map(Bytes::len).sum();
            Ok(())
        };
        Ok((self.bill(1, get).await?, bytes))
    }

    /// Lets idle machines leave memory, what they owed to sinks noted.
    async fn unload(&self, subject: &Subject) {
        until(|| {
            // By little: a worker counts from when it became idle, which may be in a moment.
            self.hand.advance(PAUSE);
            subject.counters.workers.get() == 0
        })
        .await;
    }

    /// Returns once every shard was scanned since then.
    async fn scanned(&self, passed: usize) {
        until(|| self.scans(passed) >= usize::from(SHARDS)).await;
    }

    /// Queries of one shard each.
    fn scans(&self, passed: usize) -> usize {
        let is_scan = |charge: &Charge| charge.index.as_deref() == Some(schema::DUES);
        self.toll.count(passed, is_scan)
    }
}

/// A table of its own behind the toll, not made yet.
fn table(toll: &Toll, shards: u16) -> DynamodbOptions {
    DynamodbOptions {
        table: format!("machinegun-cost-{:08x}", u32::from_be_bytes(random_bytes())),
        region: "eu-central-1".to_owned(),
        endpoint_url: Some(toll.endpoint.clone()),
        shards,
        request_timeout: Duration::from_secs(20),
        max_concurrent_requests: 256,
        credentials: Some(("bench".to_owned(), "bench".to_owned())),
    }
}

/// As the configuration has it by default, with a sink or without.
fn namespace(name: &str, sink: Option<SinkOptions>) -> NamespaceOptions {
    let scheduler = SchedulerOptions { scan_interval: SCAN_EVERY, capacity: 100, ..SchedulerOptions::default() };
    let subscription = Subscription { sink: "sink".to_owned(), events: true, lifecycle: false };
    NamespaceOptions {
        name: name.to_owned(),
        processor: Arc::<Asked>::default(),
        policy: Policy {
            timer_retries: RetryPolicy::linear(MaxRetries::Times(2), Duration::from_secs(1)),
            notification_retry_ms: 5_000,
            limits: Limits { step_size: 16 << 20 },
            subscriptions: sink.iter().map(|_| subscription.clone()).collect(),
            outbox_clear_ms: 10_000,
        },
        storage_retries: RetryPolicy::default(),
        sink_retries: RetryPolicy::default(),
        timer_processing_ms: 60_000,
        honour_timer_timeout: false,
        suicide: None,
        unload_ms: 60_000,
        timers: Some(scheduler),
        notifications: Some(scheduler),
        sinks: sink.into_iter().collect(),
        ledgers: Vec::new(),
        most_unsent: 100_000,
        modernizer: None,
    }
}

/// Lets everything go on until it holds. Takes no time of the engine's clock.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

// === impl Subject ===

impl Subject {
    async fn start(&self, world: &World, id: &MachineId) -> Result<(), Failure> {
        self.step(world, id, Impact::Init { args: Wish::AuxState.args() }).await
    }

    async fn call(&self, world: &World, id: &MachineId, wish: Wish) -> Result<(), Failure> {
        self.step(world, id, wish.call()).await
    }

    async fn step(&self, world: &World, id: &MachineId, impact: Impact) -> Result<(), Failure> {
        world.hand.advance(PAUSE);
        self.ns.execute(id.clone(), impact, world.request()).await?;
        Ok(())
    }
}

// === impl Wish ===

impl Wish {
    const ALL: [Self; 4] = [Self::Event, Self::AuxState, Self::Nothing, Self::Timer];

    fn args(self) -> Value {
        Value::int(self as i64)
    }

    fn call(self) -> Impact {
        let range = HistoryRange { after: None, limit: Some(1), direction: Direction::Backward };
        Impact::Call { args: self.args(), range }
    }

    /// The `number`th answer.
    fn outcome(self, number: u64) -> Outcome {
        let content = |size: usize| {
            let data = [&number.to_be_bytes()[..], &vec![0x5a; size - 8]].concat();
            Content { format_version: Some(1), data: Value::bin(&data) }
        };
        let timer = TimerChange::In { seconds: TIMER, range: HistoryRange::ALL, timeout: 30 };
        let change = Change {
            aux_state: (self == Self::Event || self == Self::AuxState).then(|| content(AUX_STATE)),
            events: if self == Self::Event { vec![content(EVENT)] } else { Vec::new() },
            action: Action { timer: (self == Self::Timer).then_some(timer), ..Action::default() },
        };
        Outcome::Done { response: Some(Value::nil()), change }
    }
}

#[async_trait]
impl Processor for Asked {
    async fn ask(&self, question: Question) -> Outcome {
        let wish = match &question.ask {
            Ask::Init(args) | Ask::Call(args) | Ask::Repair(args) | Ask::Notification(args) => {
                Wish::ALL.into_iter().find(|wish| wish.args() == *args)
            }
            Ask::Timeout => Some(Wish::Event),
        };
        wish.unwrap_or(Wish::Nothing).outcome(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[async_trait]
impl Sink for Taker {
    async fn publish(&self, _: Delivery) -> Result<Receipt, SinkError> {
        Ok(Receipt::default())
    }
}

/// Of now, for reports.
fn today() -> String {
    timestamp::format_seconds(Clock::system().now())
}
