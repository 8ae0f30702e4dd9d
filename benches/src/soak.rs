//! Calls in a closed loop for minutes, second by second: a store that stalls now and then shows in no percentile.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use machinegun::clock::{Clock, Stopwatch};
use machinegun::wire::timestamp;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::call::{numbers, start_machines};
use crate::caller::{Caller, Message};
use crate::disk::Disk;
use crate::host::Host;
use crate::service::{Memory, Service, Setting, StorageKind};
use crate::{Failure, disk, host, processor, report};

const SYNCS_FOR: Duration = Duration::from_secs(3);
/// Of the worst seconds, so many are printed.
const WORST: usize = 10;
const SYNC_SECONDS: &str = "machinegun_commit_sync_seconds_bucket{le=\"";

#[derive(Args)]
pub struct Options {
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Callers at once.
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Machines that the calls go round.
    #[arg(long, default_value_t = 10_000)]
    machines: usize,
    /// Where the store is put, never in memory. Below `target/` by default.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The result's name; nothing is saved without one.
    #[arg(long)]
    save: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    /// UTC.
    date: String,
    commit: String,
    concurrency: usize,
    machines: usize,
    host: Host,
    fdatasync: Disk,
    calls: u64,
    errors: u64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    /// The slowest Call.
    worst_us: u64,
    /// Of each second, the Calls that ended in it and the slowest of them.
    seconds: Vec<Second>,
    /// Batches of the store that took longer than so many seconds.
    slow_batches: Vec<(f64, u64)>,
    batches: u64,
    /// The slowest batch, from handing it to the engine until it is on disk.
    worst_batch_us: u64,
    memory: Memory,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Second {
    calls: u64,
    worst_us: u64,
}

struct Seen {
    latencies: Histogram<u64>,
    seconds: Vec<Second>,
    errors: u64,
    first_error: Option<String>,
}

pub fn run(options: &Options) -> Result<(), Failure> {
    if options.concurrency == 0 || options.concurrency > options.machines {
        return Err("--concurrency takes 1 up to --machines: each machine takes one step at a time".into());
    }
    let folder = host::scratch(options.dir.clone())?;
    let host = Host::look(folder.path())?;
    let fdatasync = disk::measure(folder.path(), SYNCS_FOR)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(soak(options, folder.path(), host, fdatasync))?;
    report.print();
    if let Some(name) = &options.save {
        println!("saved as {}", report::save(name, &report)?.display());
    }
    Ok(())
}

async fn soak(options: &Options, folder: &std::path::Path, host: Host, fdatasync: Disk) -> Result<Report, Failure> {
    let processor = processor::start(Duration::ZERO).await?;
    let service = Service::start(folder, &Setting::new(StorageKind::Embedded, processor))?;
    println!("the service is process {}", service.pid());
    let ids: Vec<String> = (0..options.machines).map(|it| format!("machine-{it}")).collect();
    start_machines(&service, &ids).await?;
    let messages: Arc<[Message]> = ids.iter().map(|id| Message::call(id)).collect();
    let seen = load(&service, &messages, options).await?;
    if let Some(error) = &seen.first_error {
        println!("first error: {error}");
    }
    let memory = service.memory()?;
    let metrics = Caller::connect(service.address, 0).await?.metrics().await?;
    service.stop()?;
    let numbers = numbers(&metrics);
    let number = |name: &str| numbers.get(name).copied().unwrap_or_default() as u64;
    let batches = number("machinegun_commit_batches_total");
    Ok(Report {
        date: timestamp::format_seconds(Clock::system().now()),
        commit: report::commit(),
        concurrency: options.concurrency,
        machines: options.machines,
        host,
        fdatasync,
        calls: seen.latencies.len(),
        errors: seen.errors,
        p50_us: seen.latencies.value_at_quantile(0.5),
        p99_us: seen.latencies.value_at_quantile(0.99),
        p999_us: seen.latencies.value_at_quantile(0.999),
        worst_us: seen.latencies.max(),
        seconds: seen.seconds,
        slow_batches: slow(&metrics, batches),
        batches,
        worst_batch_us: number("machinegun_commit_max_sync_microseconds"),
        memory,
    })
}

/// Each caller has machines of its own, so that none waits for another's turn.
async fn load(service: &Service, messages: &Arc<[Message]>, options: &Options) -> Result<Seen, Failure> {
    let during = Duration::from_secs(options.minutes * 60);
    let whole = Stopwatch::start();
    let mut callers = JoinSet::new();
    for number in 0..options.concurrency {
        let (mut caller, messages) = (Caller::connect(service.address, number).await?, messages.clone());
        let concurrency = options.concurrency;
        callers.spawn(async move {
            let mut seen = Seen::new(during)?;
            for message in messages.iter().skip(number).step_by(concurrency).cycle() {
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
                seen.ended(whole.elapsed(), one.elapsed())?;
            }
            Ok::<_, Failure>(seen)
        });
    }
    let mut all = Seen::new(during)?;
    for seen in callers.join_all().await {
        all.add(seen?)?;
    }
    Ok(all)
}

/// For each bound of the histogram, the batches above it.
fn slow(metrics: &str, batches: u64) -> Vec<(f64, u64)> {
    let buckets = metrics.lines().filter_map(|line| line.strip_prefix(SYNC_SECONDS)?.split_once("\"} "));
    buckets
        .filter_map(|(bound, below)| Some((bound.parse().ok()?, below.trim().parse::<u64>().ok()?)))
        .filter(|(bound, _): &(f64, u64)| bound.is_finite())
        .map(|(bound, below)| (bound, batches.saturating_sub(below)))
        .collect()
}

// === impl Seen ===

impl Seen {
    fn new(during: Duration) -> Result<Self, Failure> {
        let seconds = vec![Second::default(); usize::try_from(during.as_secs())? + 1];
        Ok(Self { latencies: Histogram::new(3)?, seconds, errors: 0, first_error: None })
    }

    fn ended(&mut self, at: Duration, took: Duration) -> Result<(), Failure> {
        let took = u64::try_from(took.as_micros())?;
        self.latencies.record(took)?;
        // Calls that are under way at the end belong to the last second.
        let at = usize::try_from(at.as_secs())?.min(self.seconds.len() - 1);
        let second = &mut self.seconds[at];
        second.calls += 1;
        second.worst_us = second.worst_us.max(took);
        Ok(())
    }

    fn add(&mut self, other: Self) -> Result<(), Failure> {
        self.latencies.add(&other.latencies)?;
        for (all, one) in self.seconds.iter_mut().zip(other.seconds) {
            all.calls += one.calls;
            all.worst_us = all.worst_us.max(one.worst_us);
        }
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        Ok(())
    }
}

// === impl Report ===

impl Report {
    fn print(&self) {
        println!("{}", report::host_line(&self.host));
        println!("{}", report::disk_line(&self.fdatasync));
        println!("{} callers, {} machines, commit {}", self.concurrency, self.machines, self.commit);
        println!(
            "{} Calls, {} errors, p50 {} us, p99 {} us, p99.9 {} us, worst {} us",
            self.calls, self.errors, self.p50_us, self.p99_us, self.p999_us, self.worst_us
        );
        println!("{} batches, the slowest {} us; slower than", self.batches, self.worst_batch_us);
        for (bound, count) in self.slow_batches.iter().filter(|(_, count)| *count > 0) {
            println!("  {bound:>8} s: {count}");
        }
        println!("the worst seconds");
        let mut worst: Vec<_> = self.seconds.iter().enumerate().collect();
        worst.sort_by_key(|(_, second)| std::cmp::Reverse(second.worst_us));
        for (at, second) in worst.into_iter().take(WORST) {
            println!("  {at:>5}: {:>7} Calls, the slowest {} us", second.calls, second.worst_us);
        }
        println!("memory: {} MiB, at the most {} MiB", self.memory.now >> 20, self.memory.most >> 20);
    }
}
