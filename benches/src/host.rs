//! Facts about the machine that a figure is worth nothing without.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::Failure;

/// File systems that live in memory, by the number that statfs gives.
const IN_MEMORY: [(i64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];
const ON_DISK: [(i64, &str); 4] =
    [(0xef53, "ext4"), (0x5846_5342, "xfs"), (0x9123_683e, "btrfs"), (0x794c_7630, "overlay")];

#[derive(Debug, Serialize)]
pub struct Host {
    pub cores: usize,
    pub cpu: String,
    pub kernel: String,
    pub file_system: String,
    /// Of the last minute, before the measurement: how quiet the machine was.
    pub load_average: String,
}

// === impl Host ===

impl Host {
    pub fn look(folder: &Path) -> Result<Self, Failure> {
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            cpu: cpu.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned()),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            file_system: file_system(folder)?,
            load_average: load.split(' ').next().unwrap_or_default().to_owned(),
        })
    }
}

/// CPU time of all threads of a process so far, in user and kernel.
pub fn cpu(pid: u32) -> Result<Duration, Failure> {
    let ticks: Result<Vec<u64>, _> = stat(pid)?.iter().skip(11).take(2).map(|ticks| ticks.parse()).collect();
    let ticks: u64 = ticks?.iter().sum();
    Ok(Duration::from_micros(ticks * 1_000_000 / rustix::param::clock_ticks_per_second()))
}

/// The processes that one has started and that live.
pub fn children(pid: u32) -> Result<Vec<u32>, Failure> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(process) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended meanwhile.
        if stat(process).is_ok_and(|stat| stat.get(1).is_some_and(|parent| *parent == pid.to_string())) {
            children.push(process);
        }
    }
    Ok(children)
}

/// What follows a process' name in /proc/PID/stat.
fn stat(pid: u32) -> Result<Vec<String>, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold anything; what follows its last parenthesis is a letter and numbers.
    let (_, rest) = stat.rsplit_once(')').ok_or("/proc/PID/stat is malformed")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

/// A folder of one run's own, gone with it: in `dir`, or below the build's `target/`. Never in memory, where a sync
/// costs nothing and its figures mean nothing.
pub fn scratch(dir: Option<PathBuf>) -> Result<tempfile::TempDir, Failure> {
    let parent = match dir {
        Some(dir) => dir,
        // target/release/benches
        None => std::env::current_exe()?.ancestors().nth(2).ok_or("no target folder above this binary")?.join("bench"),
    };
    fs::create_dir_all(&parent).map_err(|error| format!("{} can't be made: {error}", parent.display()))?;
    let name = file_system(&parent)?;
    if IN_MEMORY.iter().any(|(_, memory)| *memory == name) {
        return Err(
            format!("{} is on {name}, where a sync costs nothing: name a disk by --dir", parent.display()).into()
        );
    }
    Ok(tempfile::TempDir::new_in(&parent)?)
}

fn file_system(folder: &Path) -> Result<String, Failure> {
    let number = rustix::fs::statfs(folder)?.f_type;
    let known = IN_MEMORY.iter().chain(&ON_DISK).find(|(known, _)| *known == number);
    Ok(known.map_or_else(|| format!("{number:#x}"), |(_, name)| (*name).to_owned()))
}
