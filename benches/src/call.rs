//! Calls in a closed loop: each caller waits for its answer before it calls again.
//!
//! Hosts are never as quiet as one would like, and slower in one minute than in the next. So what is to be compared runs
//! at once and is called by turns, and what counts is the median of the rounds' ratios.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use machinegun::clock::{Clock, Stopwatch};
use machinegun::wire::timestamp;
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::caller::{Caller, Message};
use crate::report::{Bar, Commits, Level, Report, Round};
use crate::service::{Service, Setting, SinkKind, StorageKind};
use crate::{Failure, disk, host, loopback, processor, report};

/// Microseconds of CPU that the service may take for a Call at [`BUSY`] callers.
const CPU_BAR: f64 = 200.0;
/// Microseconds by which a lone caller's p50 may exceed that of a bare sync.
const LATENCY_BAR: u64 = 1_000;
const BUSY: usize = 64;
/// The share of the Calls/s that is left while a sink is fed.
const FED_BAR: f64 = 0.75;
/// By how much the p99 may grow while the sink is dead.
const DEAD_BAR: f64 = 1.5;
const NO_SINK: &str = "none";
const KAFKA: &str = "kafka";
/// The same service as [`NO_SINK`], by turns with [`DEAD_KAFKA`].
const NO_SINK_AGAIN: &str = "none again";
const DEAD_KAFKA: &str = "dead kafka";
const SYNCS_FOR: Duration = Duration::from_secs(3);
/// A broker compiles itself in its first half a minute under load, and takes several times the CPU that it takes then.
const BROKERS_WARM_UP: Duration = Duration::from_secs(40);

#[derive(Args)]
pub struct Options {
    /// Callers at once, one level after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    concurrency: Vec<usize>,
    /// Of each level, after its warm-up, all rounds together.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Turns that the services take at each level, where there are several.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// Machines that the calls go round.
    #[arg(long, default_value_t = 1_000)]
    machines: usize,
    #[arg(long, value_enum, default_value_t = StorageKind::Embedded)]
    storage: StorageKind,
    /// Measures also a service with a sink that gets every event, by turns with the one without, and then one whose sink
    /// is dead.
    #[arg(long, value_enum, default_value_t = SinkKind::None)]
    sink: SinkKind,
    /// Milliseconds that a message to that sink waits for others to share its request, `producer.max_linger`; 0: the
    /// service's own choice. Several are compared.
    #[arg(long, value_delimiter = ',', default_values_t = [0])]
    linger: Vec<u64>,
    /// Where the store is put, never in memory. Below `target/` by default.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The result's name; nothing is saved without one.
    #[arg(long)]
    save: Option<String>,
}

/// A service that is measured, on a store of its own.
struct Contender<'a> {
    sink: String,
    service: Service,
    messages: Arc<[Message]>,
    /// Which it feeds.
    broker: Option<&'a Broker>,
}

/// What a round's callers have seen.
struct Seen {
    latencies: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
}

/// One contender's rounds at one level, together.
struct Tally {
    seen: Seen,
    elapsed: Duration,
    cpu: Duration,
    broker_cpu: Duration,
    /// What the service's metrics have grown by.
    grown: HashMap<String, f64>,
    max_batch: u64,
    rounds: Vec<Round>,
}

pub fn run(options: &Options) -> Result<(), Failure> {
    if options.concurrency.iter().any(|it| *it == 0 || *it > options.machines) {
        return Err("--concurrency takes 1 up to --machines: each machine takes one step at a time".into());
    }
    let folder = host::scratch(options.dir.clone())?;
    let host = host::Host::look(folder.path())?;
    let fdatasync = disk::measure(folder.path(), SYNCS_FOR)?;
    let loopback = loopback::measure()?;
    // One thread for clients and processor: the fewer of the cores' switches are theirs.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let path = folder.path();
    let bare = runtime.block_on(Contender::start(options, path, NO_SINK, None))?;
    let mut seen = Vec::new();
    if options.sink == SinkKind::Kafka {
        let mut broker = Broker::start()?;
        let mut all = vec![bare];
        for linger in &options.linger {
            let sink = format!("{KAFKA} {linger} ms");
            all.push(runtime.block_on(Contender::start(options, path, &sink, Some((&broker, *linger))))?);
        }
        if let [_, fed, ..] = &all[..] {
            let callers = BUSY.min(options.machines);
            runtime.block_on(round(&fed.service, &fed.messages, callers, BROKERS_WARM_UP))?;
        }
        seen.extend(runtime.block_on(levels(options, &all))?);
        let Contender { service, messages, .. } = all.swap_remove(0);
        all.into_iter().try_for_each(|fed| fed.service.stop())?;
        broker.kill()?;
        let bare = Contender { sink: NO_SINK_AGAIN.to_owned(), service, messages, broker: None };
        let dead = (&broker, options.linger.first().copied().unwrap_or_default());
        let both = [bare, runtime.block_on(Contender::start(options, path, DEAD_KAFKA, Some(dead)))?];
        seen.extend(runtime.block_on(levels(options, &both))?);
        both.into_iter().try_for_each(|it| it.service.stop())?;
    } else {
        seen.extend(runtime.block_on(levels(options, std::slice::from_ref(&bare)))?);
        bare.service.stop()?;
    }
    let bars = bars(&seen, fdatasync.p50_us, options.storage);
    let report = Report {
        date: timestamp::format_seconds(Clock::system().now()),
        commit: report::commit(),
        storage: options.storage.name(),
        machines: options.machines,
        host,
        fdatasync,
        loopback,
        levels: seen,
        bars,
    };
    report.print();
    if let Some(name) = &options.save {
        println!("saved as {}", report::save(name, &report)?.display());
    }
    Ok(())
}

/// All levels, at each of them the contenders by turns.
async fn levels(options: &Options, contenders: &[Contender<'_>]) -> Result<Vec<Level>, Failure> {
    let mut levels = Vec::new();
    for concurrency in options.concurrency.iter().copied() {
        let mut tallies = Vec::new();
        for contender in contenders.iter() {
            let warm_up = Duration::from_secs(options.warm_up);
            round(&contender.service, &contender.messages, concurrency, warm_up).await?;
            tallies.push(Tally::new()?);
        }
        for _ in 0..options.rounds {
            for (contender, tally) in contenders.iter().zip(&mut tallies) {
                contender.measure(concurrency, Duration::from_secs(options.seconds) / options.rounds, tally).await?;
            }
        }
        for (contender, tally) in contenders.iter().zip(tallies) {
            if let Some(error) = &tally.seen.first_error {
                println!("first error at {concurrency} callers, sink {}: {error}", contender.sink);
            }
            levels.push(tally.level(concurrency, contender));
        }
    }
    Ok(levels)
}

pub async fn start_machines(service: &Service, ids: &[String]) -> Result<(), Failure> {
    let mut starters = JoinSet::new();
    for share in ids.chunks(ids.len().div_ceil(BUSY)) {
        let (share, address) = (share.to_vec(), service.address);
        starters.spawn(async move {
            let mut caller = Caller::connect(address, 0).await?;
            for id in share {
                caller.start(&Message::start(&id)).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    starters.join_all().await.into_iter().collect()
}

/// Calls for so long. Each caller has machines of its own, so that none waits for another's turn.
async fn round(
    service: &Service,
    messages: &Arc<[Message]>,
    concurrency: usize,
    during: Duration,
) -> Result<Seen, Failure> {
    let mut connected = Vec::new();
    for number in 0..concurrency {
        connected.push(Caller::connect(service.address, number).await?);
    }
    let whole = Stopwatch::start();
    let mut callers = JoinSet::new();
    for (number, mut caller) in connected.into_iter().enumerate() {
        let messages = messages.clone();
        callers.spawn(async move {
            let mut seen = Seen { latencies: Histogram::new(3)?, errors: 0, first_error: None };
            let own = messages.iter().skip(number).step_by(concurrency).cycle();
            for message in own {
                if whole.elapsed() >= during {
                    break;
                }
                let one = Stopwatch::start();
                if let Err(error) = caller.call(message).await {
                    seen.errors += 1;
                    seen.first_error.get_or_insert_with(|| error.to_string());
                    // A connection that broke does not heal.
                    break;
                }
                seen.latencies.record(u64::try_from(one.elapsed().as_micros())?)?;
            }
            Ok::<_, Failure>(seen)
        });
    }
    let mut all = Seen { latencies: Histogram::new(3)?, errors: 0, first_error: None };
    for seen in callers.join_all().await {
        let seen = seen?;
        all.latencies.add(&seen.latencies)?;
        all.errors += seen.errors;
        all.first_error = all.first_error.or(seen.first_error);
    }
    Ok(all)
}

/// The metrics without labels.
pub fn numbers(text: &str) -> HashMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, it)| Some((name.to_owned(), it.parse().ok()?)))
        .collect()
}

fn bars(levels: &[Level], sync_us: u64, storage: StorageKind) -> Vec<Bar> {
    let mut bars = vec![Bar {
        promise: "no errors".to_owned(),
        seen: levels.iter().map(|it| it.errors).sum::<u64>().to_string(),
        ok: levels.iter().all(|it| it.errors == 0),
    }];
    // Nothing is promised of what is not durable.
    if storage != StorageKind::Embedded {
        return bars;
    }
    let at = |sink, callers| levels.iter().find(|it: &&Level| it.sink == sink && it.concurrency == callers);
    let fed = levels.iter().filter(|it| it.sink.starts_with(KAFKA) && it.concurrency == BUSY);
    for (bare, fed) in at(NO_SINK, BUSY).into_iter().flat_map(|bare| fed.clone().map(move |fed| (bare, fed))) {
        let share = ratio(fed, bare, |round| round.calls_per_second);
        let promise = format!("with sink {} at least {FED_BAR} of the Calls/s at {BUSY} callers", fed.sink);
        bars.push(Bar { promise, seen: format!("{share:.2}"), ok: share >= FED_BAR });
    }
    if let (Some(bare), Some(dead)) = (at(NO_SINK_AGAIN, BUSY), at(DEAD_KAFKA, BUSY)) {
        let factor = ratio(dead, bare, |round| round.p99_us as f64);
        let promise = format!("with a dead Kafka at most {DEAD_BAR} times the p99 at {BUSY} callers");
        bars.push(Bar { promise, seen: format!("{factor:.2}"), ok: factor <= DEAD_BAR });
    }
    if let Some(busy) = at(NO_SINK, BUSY) {
        let cpu = busy.service_cpu_us_per_call;
        let promise = format!("at most {CPU_BAR} us of CPU per Call at {BUSY} callers");
        bars.push(Bar { promise, seen: format!("{cpu:.1}"), ok: cpu <= CPU_BAR });
    }
    if let Some(alone) = at(NO_SINK, 1) {
        let (low, high) = (sync_us, sync_us + LATENCY_BAR);
        let promise =
            format!("p50 of a lone caller between {low} and {high} us, the sync alone and {LATENCY_BAR} us more");
        bars.push(Bar { promise, seen: alone.p50_us.to_string(), ok: (low..=high).contains(&alone.p50_us) });
    }
    bars
}

/// The median of the rounds' ratios.
fn ratio(of: &Level, to: &Level, figure: impl Fn(&Round) -> f64) -> f64 {
    let mut ratios: Vec<f64> = of.rounds.iter().zip(&to.rounds).map(|(of, to)| figure(of) / figure(to)).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
}

// === impl Contender ===

impl<'a> Contender<'a> {
    async fn start(
        options: &Options,
        folder: &std::path::Path,
        sink: &str,
        kafka: Option<(&'a Broker, u64)>,
    ) -> Result<Self, Failure> {
        let folder = &folder.join(sink);
        std::fs::create_dir(folder)?;
        let processor = processor::start(Duration::ZERO).await?;
        let (broker, linger) = kafka.unzip();
        let address = broker.map(|it| &*it.address);
        let linger = linger.unwrap_or_default();
        let setting = Setting { broker: address, linger, ..Setting::new(options.storage, processor) };
        let service = Service::start(folder, &setting)?;
        println!("the service with sink {sink} is process {}", service.pid());
        let ids: Vec<String> = (0..options.machines).map(|it| format!("machine-{it}")).collect();
        start_machines(&service, &ids).await?;
        let sink = sink.to_owned();
        Ok(Self { sink, service, messages: ids.iter().map(|id| Message::call(id)).collect(), broker })
    }

    /// One round more.
    async fn measure(&self, concurrency: usize, during: Duration, tally: &mut Tally) -> Result<(), Failure> {
        let broker_cpu = || self.broker.filter(|_| self.sink != DEAD_KAFKA).map_or(Ok(Duration::ZERO), Broker::cpu);
        // Connections of their own: an idle one may have been closed meanwhile.
        let before = numbers(&Caller::connect(self.service.address, 0).await?.metrics().await?);
        let (cpu, of_broker) = (self.service.cpu()?, broker_cpu()?);
        let watch = Stopwatch::start();
        let seen = round(&self.service, &self.messages, concurrency, during).await?;
        let elapsed = watch.elapsed();
        tally.cpu += self.service.cpu()? - cpu;
        tally.broker_cpu += broker_cpu()? - of_broker;
        tally.elapsed += elapsed;
        let after = numbers(&Caller::connect(self.service.address, 0).await?.metrics().await?);
        for (name, value) in &after {
            *tally.grown.entry(name.clone()).or_default() += value - before.get(name).copied().unwrap_or(0.0);
        }
        tally.max_batch = after.get("machinegun_commit_max_batch").copied().unwrap_or(0.0) as u64;
        tally.rounds.push(Round {
            calls_per_second: seen.latencies.len() as f64 / elapsed.as_secs_f64(),
            p99_us: seen.latencies.value_at_quantile(0.99),
        });
        tally.seen.latencies.add(&seen.latencies)?;
        tally.seen.errors += seen.errors;
        tally.seen.first_error = tally.seen.first_error.take().or(seen.first_error);
        Ok(())
    }
}

// === impl Tally ===

impl Tally {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            seen: Seen { latencies: Histogram::new(3)?, errors: 0, first_error: None },
            elapsed: Duration::ZERO,
            cpu: Duration::ZERO,
            broker_cpu: Duration::ZERO,
            grown: HashMap::new(),
            max_batch: 0,
            rounds: Vec::new(),
        })
    }

    fn level(self, concurrency: usize, contender: &Contender<'_>) -> Level {
        let Seen { latencies, errors, .. } = self.seen;
        let calls = latencies.len();
        let per_call = |cpu: Duration| cpu.as_micros() as f64 / calls.max(1) as f64;
        let grown = |name: &str| self.grown.get(name).copied().unwrap_or(0.0);
        let batches = Some(grown("machinegun_commit_batches_total")).filter(|batches| *batches > 0.0);
        Level {
            concurrency,
            sink: contender.sink.clone(),
            seconds: self.elapsed.as_secs_f64(),
            calls,
            errors,
            calls_per_second: calls as f64 / self.elapsed.as_secs_f64(),
            p50_us: latencies.value_at_quantile(0.5),
            p99_us: latencies.value_at_quantile(0.99),
            p999_us: latencies.value_at_quantile(0.999),
            service_cpu_us_per_call: per_call(self.cpu),
            broker_cpu_us_per_call: Some(per_call(self.broker_cpu)).filter(|cpu| *cpu > 0.0),
            commits: batches.map(|batches| Commits {
                batches: batches as u64,
                writes_per_batch: grown("machinegun_commit_writes_total") / batches,
                sync_us: grown("machinegun_commit_sync_seconds_sum") * 1e6 / batches,
                max_batch: self.max_batch,
            }),
            rounds: self.rounds,
        }
    }
}
