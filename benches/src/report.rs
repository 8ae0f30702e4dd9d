//! What is printed and saved.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Failure;
use crate::disk::Disk;
use crate::host::Host;
use crate::loopback::Loopback;

#[derive(Debug, Serialize)]
pub struct Report {
    /// UTC.
    pub date: String,
    /// Of the source; `-dirty` if it was changed since.
    pub commit: String,
    pub storage: &'static str,
    pub machines: usize,
    pub host: Host,
    pub fdatasync: Disk,
    pub loopback: Loopback,
    pub levels: Vec<Level>,
    pub bars: Vec<Bar>,
}

/// One number of concurrent callers.
#[derive(Debug, Serialize)]
pub struct Level {
    pub concurrency: usize,
    /// Where the events went.
    pub sink: String,
    pub seconds: f64,
    pub calls: u64,
    pub errors: u64,
    pub calls_per_second: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    /// Of the service alone, in user and kernel, all threads.
    pub service_cpu_us_per_call: f64,
    /// Of the broker that it feeds, while it lives.
    pub broker_cpu_us_per_call: Option<f64>,
    /// None where nothing is synced.
    pub commits: Option<Commits>,
    pub rounds: Vec<Round>,
}

/// One turn of a level.
#[derive(Debug, Serialize)]
pub struct Round {
    pub calls_per_second: f64,
    pub p99_us: u64,
}

/// Of the embedded store's writer.
#[derive(Debug, Serialize)]
pub struct Commits {
    pub batches: u64,
    pub writes_per_batch: f64,
    /// Writing and syncing one batch, the mean.
    pub sync_us: f64,
    /// Since the service's start.
    pub max_batch: u64,
}

/// What was promised of a figure.
#[derive(Debug, Serialize)]
pub struct Bar {
    pub promise: String,
    pub seen: String,
    pub ok: bool,
}

// === impl Report ===

impl Report {
    pub fn print(&self) {
        println!("{}", host_line(&self.host));
        println!("{}", disk_line(&self.fdatasync));
        println!("loopback round trip: p50 {} us, p99 {} us", self.loopback.p50_us, self.loopback.p99_us);
        println!("storage {}, {} machines, commit {}", self.storage, self.machines, self.commit);
        println!(
            "{:>7} {:>11} {:>9} {:>9} {:>9} {:>9} {:>13} {:>9} {:>7} {:>12} {:>9}",
            "callers",
            "sink",
            "Calls/s",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "CPU us/Call",
            "broker's",
            "errors",
            "writes/batch",
            "sync us"
        );
        for level in &self.levels {
            let (writes, sync) = level.commits.as_ref().map_or_else(Default::default, |it| {
                (format!("{:.1}", it.writes_per_batch), format!("{:.0}", it.sync_us))
            });
            let broker = level.broker_cpu_us_per_call.map_or_else(String::new, |cpu| format!("{cpu:.1}"));
            println!(
                "{:>7} {:>11} {:>9.0} {:>9} {:>9} {:>9} {:>13.1} {broker:>9} {:>7} {writes:>12} {sync:>9}",
                level.concurrency,
                level.sink,
                level.calls_per_second,
                level.p50_us,
                level.p99_us,
                level.p999_us,
                level.service_cpu_us_per_call,
                level.errors,
            );
        }
        for bar in &self.bars {
            println!("{:<6} {}: {}", if bar.ok { "ok" } else { "MISSED" }, bar.promise, bar.seen);
        }
    }
}

/// Into `benches/results/` of the source tree.
pub fn save(name: &str, report: &impl Serialize) -> Result<PathBuf, Failure> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{name}.json"));
    fs::write(&path, serde_json::to_string_pretty(report)? + "\n")?;
    Ok(path)
}

pub fn host_line(host: &Host) -> String {
    let Host { cores, cpu, kernel, file_system, load_average } = host;
    format!("{cores} cores of {cpu}, kernel {kernel}, {file_system}, load before {load_average}")
}

pub fn disk_line(disk: &Disk) -> String {
    let Disk { syncs, p50_us, p99_us } = disk;
    format!("fdatasync of 4 KiB: p50 {p50_us} us, p99 {p99_us} us ({syncs} of them)")
}

/// Of the source tree that this was built from.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            std::process::Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments).output();
        output.ok().filter(|it| it.status.success()).map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned())
    };
    git(&["describe", "--always", "--dirty", "--exclude=*"]).unwrap_or_else(|| "unknown".to_owned())
}
