//! Many times the Calls that the service can do, in an open loop: clients of payments don't wait for each other.
//!
//! What it can do is set: so many steps at once (`limits.steps_in_flight`), each as long as its processor thinks. The
//! rest has to be refused at once, in memory that is bounded, and the service has to be itself again when it is over.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use http::StatusCode;
use machinegun::clock::{Clock, Stopwatch};
use machinegun::wire::timestamp;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::call::start_machines;
use crate::caller::{Caller, Message};
use crate::host::Host;
use crate::report::Bar;
use crate::service::{Memory, Service, Setting, StorageKind};
use crate::{Failure, host, processor, report};

/// How often the open loop lets Calls go.
const TICK: Duration = Duration::from_millis(5);
const BEFORE: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(10);
/// Of the speed before, what counts as full speed.
const FULL: f64 = 0.9;
/// Seconds within which it has to be back.
const BACK_WITHIN: usize = 5;
/// Milliseconds that a Call may take beyond its processor's thinking, at p99, and that a refusal may take.
const ACCEPTED_BAR_MS: u64 = 500;
const REFUSED_BAR_MS: u64 = 250;
const MEMORY_GROUPS: &str = "/sys/fs/cgroup/memory";

#[derive(Args)]
pub struct Options {
    /// Steps that the service takes at once.
    #[arg(long, default_value_t = 50)]
    steps: usize,
    /// Milliseconds that the processor thinks about each.
    #[arg(long, default_value_t = 50)]
    thinking: u64,
    /// How many times the Calls that this makes possible are offered.
    #[arg(long, default_value_t = 10)]
    times: usize,
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Connections that the Calls come by.
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    #[arg(long, default_value_t = 20_000)]
    machines: usize,
    /// Megabytes of memory: of a control group of its own that the service is put into (root, and version 1 of the
    /// groups), with `limits.memory` on it. 0: none.
    #[arg(long, default_value_t = 512)]
    memory: u64,
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
    host: Host,
    /// Calls a second that the service can do, and that it was offered.
    capacity: u64,
    offered: u64,
    seconds: u64,
    /// Calls that were due while all connections were busy: never sent.
    unsent: u64,
    before: Speed,
    during: Speed,
    after: Speed,
    /// Resident bytes of the service, and those of its control group.
    memory: Memory,
    memory_limit: u64,
    bars: Vec<Bar>,
}

#[derive(Debug, Serialize)]
struct Speed {
    accepted: u64,
    accepted_p50_us: u64,
    accepted_p99_us: u64,
    /// 503.
    refused: u64,
    refused_p50_us: u64,
    refused_p99_us: u64,
    refused_worst_us: u64,
    /// Anything else.
    errors: u64,
    first_error: Option<String>,
    /// Accepted Calls that ended in each second.
    by_second: Vec<u64>,
}

/// What one phase's connections have seen, in microseconds.
struct Seen {
    accepted: Histogram<u64>,
    refused: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
    by_second: Vec<u64>,
}

/// A control group, gone when dropped.
struct Group(PathBuf);

pub fn run(options: &Options) -> Result<(), Failure> {
    if options.steps == 0 || options.steps > options.machines || options.thinking == 0 || options.times == 0 {
        return Err("--steps takes 1 up to --machines, --thinking and --times at least 1".into());
    }
    let folder = host::scratch(options.dir.clone())?;
    let host = Host::look(folder.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(overload(options, folder.path(), host))?;
    report.print();
    if let Some(name) = &options.save {
        println!("saved as {}", report::save(name, &report)?.display());
    }
    Ok(())
}

async fn overload(options: &Options, folder: &Path, host: Host) -> Result<Report, Failure> {
    let group = match options.memory {
        0 => None,
        megabytes => Some(Group::new(megabytes << 20)?),
    };
    let guard = if group.is_some() { ", memory: {type: cgroups, value: 90%}" } else { "" };
    let limits = format!("{{steps_in_flight: {{total: {0}, per_namespace: {0}}}{guard}}}", options.steps);
    let processor = processor::start(Duration::from_millis(options.thinking)).await?;
    let cgroup = group.as_ref().map(|it| &*it.0);
    let setting = Setting { limits: &limits, cgroup, ..Setting::new(StorageKind::Embedded, processor) };
    let service = Service::start(folder, &setting)?;
    println!("the service is process {}", service.pid());
    let ids: Vec<String> = (0..options.machines).map(|it| format!("machine-{it}")).collect();
    // As many at once as are let in.
    for share in ids.chunks(options.steps) {
        start_machines(&service, share).await?;
    }
    let messages: Arc<[Message]> = ids.iter().map(|id| Message::call(id)).collect();
    let capacity = options.steps as u64 * 1_000 / options.thinking;
    let before = closed(&service, &messages, options.steps, BEFORE).await?;
    let offered = capacity * options.times as u64;
    let during = Duration::from_secs(options.seconds);
    let (seen, unsent) = open(&service, &messages, options.connections, offered, during).await?;
    let after = closed(&service, &messages, options.steps, AFTER).await?;
    let memory = service.memory()?;
    service.stop()?;
    let (before, during, after) = (before.speed(), seen.speed(), after.speed());
    let bars = bars(options, &before, &during, &after, memory);
    Ok(Report {
        date: timestamp::format_seconds(Clock::system().now()),
        commit: report::commit(),
        host,
        capacity,
        offered,
        seconds: options.seconds,
        unsent,
        before,
        during,
        after,
        memory,
        memory_limit: options.memory << 20,
        bars,
    })
}

/// As many callers as steps are let in, each waiting for its answer: the speed that there is.
async fn closed(
    service: &Service,
    messages: &Arc<[Message]>,
    callers: usize,
    during: Duration,
) -> Result<Seen, Failure> {
    let whole = Stopwatch::start();
    let mut tasks = JoinSet::new();
    for number in 0..callers {
        let (mut caller, messages) = (Caller::connect(service.address, number).await?, messages.clone());
        tasks.spawn(async move {
            let mut seen = Seen::new(during)?;
            for message in messages.iter().skip(number).step_by(callers).cycle() {
                if whole.elapsed() >= during || !seen.call(&mut caller, message, whole).await? {
                    break;
                }
            }
            Ok::<_, Failure>(seen)
        });
    }
    Seen::of(tasks, during).await
}

/// `rate` Calls a second, whether or not those before are answered. Also how many found no connection free.
async fn open(
    service: &Service,
    messages: &Arc<[Message]>,
    connections: usize,
    rate: u64,
    during: Duration,
) -> Result<(Seen, u64), Failure> {
    // What is due waits for a free connection for no longer than a tick or two.
    let (sender, receiver) = mpsc::channel::<usize>(connections.max(1));
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    let (free, unsent) = (Arc::new(Semaphore::new(0)), AtomicU64::new(0));
    let mut connected = Vec::new();
    for number in 0..connections {
        connected.push(Caller::connect(service.address, number).await?);
    }
    let whole = Stopwatch::start();
    let mut tasks = JoinSet::new();
    for mut caller in connected {
        let (receiver, messages, free) = (receiver.clone(), messages.clone(), free.clone());
        tasks.spawn(async move {
            let mut seen = Seen::new(during)?;
            loop {
                free.add_permits(1);
                let next = receiver.lock().await.recv().await;
                let Some(next) = next else { break };
                if !seen.call(&mut caller, &messages[next % messages.len()], whole).await? {
                    break;
                }
            }
            Ok::<_, Failure>(seen)
        });
    }
    let clock = Clock::system();
    let mut due = 0;
    while whole.elapsed() < during {
        let until = (whole.elapsed().as_secs_f64() * rate as f64) as usize;
        for next in due..until {
            match free.try_acquire() {
                Ok(permit) => {
                    permit.forget();
                    sender.send(next).await?;
                }
                Err(_) => {
                    unsent.fetch_add(1, Relaxed);
                }
            }
        }
        due = until;
        clock.sleep_until_monotonic(clock.monotonic() + TICK.as_millis() as i64).await;
    }
    drop(sender);
    Ok((Seen::of(tasks, during).await?, unsent.into_inner()))
}

fn bars(options: &Options, before: &Speed, during: &Speed, after: &Speed, memory: Memory) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut bar = |promise: String, seen: String, ok: bool| bars.push(Bar { promise, seen, ok });
    let errors = before.errors + during.errors + after.errors;
    bar("every answer is a result or 503".to_owned(), format!("{errors} others"), errors == 0);
    let limit = (options.thinking + ACCEPTED_BAR_MS) * 1_000;
    let p99 = during.accepted_p99_us;
    bar(format!("accepted Calls' p99 at most {limit} us"), p99.to_string(), p99 <= limit);
    let (limit, p99) = (REFUSED_BAR_MS * 1_000, during.refused_p99_us);
    bar(format!("refusals' p99 at most {limit} us"), p99.to_string(), p99 <= limit);
    if options.memory > 0 {
        let limit = options.memory << 20;
        let seen = format!("{} MiB at the most", memory.most >> 20);
        bar(format!("memory below {} MiB", options.memory), seen, memory.most < limit);
    }
    // The last second is not a whole one.
    let whole = before.by_second.len().saturating_sub(1).max(1);
    let speed = before.by_second.iter().take(whole).sum::<u64>() as f64 / whole as f64;
    let back = after.by_second.iter().position(|calls| *calls as f64 >= speed * FULL);
    let seen = back.map_or_else(|| "never".to_owned(), |second| format!("in second {}", second + 1));
    let promise = format!("{:.0} % of {speed:.0} Calls/s again within {BACK_WITHIN} s", FULL * 100.0);
    bar(promise, seen, back.is_some_and(|second| second < BACK_WITHIN));
    bars
}

// === impl Seen ===

impl Seen {
    fn new(during: Duration) -> Result<Self, Failure> {
        let by_second = vec![0; usize::try_from(during.as_secs())? + 1];
        let (accepted, refused) = (Histogram::new(3)?, Histogram::new(3)?);
        Ok(Self { accepted, refused, errors: 0, first_error: None, by_second })
    }

    /// False: the connection is broken.
    async fn call(&mut self, caller: &mut Caller, message: &Message, whole: Stopwatch) -> Result<bool, Failure> {
        let one = Stopwatch::start();
        let answer = caller.try_call(message).await;
        let took = u64::try_from(one.elapsed().as_micros())?;
        let error = match answer {
            Ok(Ok(_)) => {
                self.accepted.record(took)?;
                let second = usize::try_from(whole.elapsed().as_secs())?.min(self.by_second.len() - 1);
                self.by_second[second] += 1;
                return Ok(true);
            }
            Ok(Err(refusal)) if refusal.status == StatusCode::SERVICE_UNAVAILABLE => {
                self.refused.record(took)?;
                return Ok(true);
            }
            Ok(Err(refusal)) => refusal.to_string(),
            Err(error) => error.to_string(),
        };
        self.errors += 1;
        self.first_error.get_or_insert(error);
        Ok(false)
    }

    async fn of(tasks: JoinSet<Result<Self, Failure>>, during: Duration) -> Result<Self, Failure> {
        let mut all = Self::new(during)?;
        for seen in tasks.join_all().await {
            let seen = seen?;
            all.accepted.add(&seen.accepted)?;
            all.refused.add(&seen.refused)?;
            all.errors += seen.errors;
            all.first_error = all.first_error.or(seen.first_error);
            for (all, one) in all.by_second.iter_mut().zip(seen.by_second) {
                *all += one;
            }
        }
        Ok(all)
    }

    fn speed(self) -> Speed {
        Speed {
            accepted: self.accepted.len(),
            accepted_p50_us: self.accepted.value_at_quantile(0.5),
            accepted_p99_us: self.accepted.value_at_quantile(0.99),
            refused: self.refused.len(),
            refused_p50_us: self.refused.value_at_quantile(0.5),
            refused_p99_us: self.refused.value_at_quantile(0.99),
            refused_worst_us: self.refused.max(),
            errors: self.errors,
            first_error: self.first_error,
            by_second: self.by_second,
        }
    }
}

// === impl Group ===

impl Group {
    fn new(bytes: u64) -> Result<Self, Failure> {
        let folder = Path::new(MEMORY_GROUPS).join(format!("machinegun-overload-{}", std::process::id()));
        let made = |error| format!("{} can't be made: {error}; --memory 0 measures without a limit", folder.display());
        std::fs::create_dir(&folder).map_err(made)?;
        let group = Self(folder);
        std::fs::write(group.0.join("memory.limit_in_bytes"), bytes.to_string())?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It can't go while a process is in it: then it is left, empty in the end.
        let _ = std::fs::remove_dir(&self.0);
    }
}

// === impl Report ===

impl Report {
    fn print(&self) {
        println!("{}", report::host_line(&self.host));
        println!(
            "can do {} Calls/s, was offered {} for {} s; commit {}",
            self.capacity, self.offered, self.seconds, self.commit
        );
        for (name, speed) in [("before", &self.before), ("during", &self.during), ("after", &self.after)] {
            println!(
                "{name:>7}: accepted {} (p50 {} us, p99 {} us), refused {} (p50 {} us, p99 {} us, worst {} us), errors {}{}",
                speed.accepted,
                speed.accepted_p50_us,
                speed.accepted_p99_us,
                speed.refused,
                speed.refused_p50_us,
                speed.refused_p99_us,
                speed.refused_worst_us,
                speed.errors,
                speed.first_error.as_ref().map_or_else(String::new, |error| format!(", the first: {error}")),
            );
        }
        println!("{} Calls were never sent: all connections were busy", self.unsent);
        println!(
            "memory: {} MiB, at the most {} MiB, limit {} MiB",
            self.memory.now >> 20,
            self.memory.most >> 20,
            self.memory_limit >> 20
        );
        for bar in &self.bars {
            println!("{:<6} {}: {}", if bar.ok { "ok" } else { "MISSED" }, bar.promise, bar.seen);
        }
    }
}
