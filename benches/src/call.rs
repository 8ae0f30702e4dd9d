//! Calls in a closed loop: each caller waits for its answer before it calls again.

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
use crate::report::{Bar, Commits, Level, Report};
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
const DEAD_KAFKA: &str = "dead kafka";
const SYNCS_FOR: Duration = Duration::from_secs(3);

#[derive(Args)]
pub struct Options {
    /// Callers at once, one level after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    concurrency: Vec<usize>,
    /// Of each level, after its warm-up.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// Machines that the calls go round.
    #[arg(long, default_value_t = 1_000)]
    machines: usize,
    #[arg(long, value_enum, default_value_t = StorageKind::Embedded)]
    storage: StorageKind,
    /// Measures also with a sink that gets every event, and with that sink dead.
    #[arg(long, value_enum, default_value_t = SinkKind::None)]
    sink: SinkKind,
    /// Milliseconds that a message to that sink waits for others to share its request: `producer.max_linger`.
    #[arg(long, default_value_t = 0)]
    linger: u64,
    /// Where the store is put, never in memory. Below `target/` by default.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The result's name; nothing is saved without one.
    #[arg(long)]
    save: Option<String>,
}

/// What a level's callers have seen.
struct Seen {
    latencies: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
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
    let mut seen = runtime.block_on(levels(options, folder.path(), NO_SINK, None))?;
    if options.sink == SinkKind::Kafka {
        let mut broker = Broker::start()?;
        seen.extend(runtime.block_on(levels(options, folder.path(), KAFKA, Some(&broker)))?);
        broker.kill()?;
        seen.extend(runtime.block_on(levels(options, folder.path(), DEAD_KAFKA, Some(&broker)))?);
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

/// One run of a service that is new, on a store of its own.
async fn levels(
    options: &Options,
    folder: &std::path::Path,
    sink: &'static str,
    broker: Option<&Broker>,
) -> Result<Vec<Level>, Failure> {
    let folder = &folder.join(sink);
    std::fs::create_dir(folder)?;
    let processor = processor::start(Duration::ZERO).await?;
    let broker = broker.map(|it| &*it.address);
    let service = Service::start(
        folder,
        &Setting { broker, linger: options.linger, ..Setting::new(options.storage, processor) },
    )?;
    println!("the service is process {}", service.pid());
    let ids: Vec<String> = (0..options.machines).map(|it| format!("machine-{it}")).collect();
    start_machines(&service, &ids).await?;
    let messages: Arc<[Message]> = ids.iter().map(|id| Message::call(id)).collect();
    let mut levels = Vec::new();
    for concurrency in &options.concurrency {
        let mut seen = Caller::connect(service.address, 0).await?;
        level(&service, &messages, *concurrency, options.warm_up).await?;
        let (before, cpu) = (numbers(&seen.metrics().await?), service.cpu()?);
        let watch = Stopwatch::start();
        let counted = level(&service, &messages, *concurrency, options.seconds).await?;
        let (cpu, elapsed) = (service.cpu()? - cpu, watch.elapsed());
        // An idle connection may have been closed meanwhile.
        let mut after = Caller::connect(service.address, 0).await?;
        let after = numbers(&after.metrics().await?);
        if let Some(error) = &counted.first_error {
            println!("first error at {concurrency} callers: {error}");
        }
        let level = summary(*concurrency, &counted, cpu, elapsed, &before, &after);
        levels.push(Level { sink, ..level });
    }
    service.stop()?;
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

/// Calls for so many seconds. Each caller has machines of its own, so that none waits for another's turn.
async fn level(
    service: &Service,
    messages: &Arc<[Message]>,
    concurrency: usize,
    seconds: u64,
) -> Result<Seen, Failure> {
    let during = Duration::from_secs(seconds);
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

fn summary(
    concurrency: usize,
    seen: &Seen,
    cpu: Duration,
    elapsed: Duration,
    before: &HashMap<String, f64>,
    after: &HashMap<String, f64>,
) -> Level {
    let calls = seen.latencies.len();
    let grown = |name: &str| Some(after.get(name)? - before.get(name)?);
    let commits = grown("machinegun_commit_batches_total").filter(|batches| *batches > 0.0).map(|batches| Commits {
        batches: batches as u64,
        writes_per_batch: grown("machinegun_commit_writes_total").unwrap_or(0.0) / batches,
        sync_us: grown("machinegun_commit_sync_seconds_sum").unwrap_or(0.0) * 1e6 / batches,
        max_batch: after.get("machinegun_commit_max_batch").copied().unwrap_or(0.0) as u64,
    });
    Level {
        concurrency,
        sink: NO_SINK,
        seconds: elapsed.as_secs_f64(),
        calls,
        errors: seen.errors,
        calls_per_second: calls as f64 / elapsed.as_secs_f64(),
        p50_us: seen.latencies.value_at_quantile(0.5),
        p99_us: seen.latencies.value_at_quantile(0.99),
        p999_us: seen.latencies.value_at_quantile(0.999),
        service_cpu_us_per_call: cpu.as_micros() as f64 / calls.max(1) as f64,
        commits,
    }
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
    if let (Some(bare), Some(fed)) = (at(NO_SINK, BUSY), at(KAFKA, BUSY)) {
        let share = fed.calls_per_second / bare.calls_per_second;
        let promise = format!("with a Kafka sink at least {FED_BAR} of the Calls/s at {BUSY} callers");
        bars.push(Bar { promise, seen: format!("{share:.2}"), ok: share >= FED_BAR });
    }
    if let (Some(bare), Some(dead)) = (at(NO_SINK, BUSY), at(DEAD_KAFKA, BUSY)) {
        let factor = dead.p99_us as f64 / bare.p99_us as f64;
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
