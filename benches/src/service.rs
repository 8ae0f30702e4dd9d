//! The service under measurement: the release binary, a process of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use crate::{Failure, host};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StorageKind {
    Embedded,
    Memory,
}

/// What a run changes of the service's defaults.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    pub storage: StorageKind,
    /// Who decides what the machines do.
    pub processor: SocketAddr,
    /// Where a Kafka answers that gets all events, `HOST:PORT`.
    pub broker: Option<&'a str>,
    /// Of that client, in milliseconds: how long a message waits for others to share its request.
    pub linger: u64,
    /// `limits`, as YAML's flow form has it; empty: the defaults.
    pub limits: &'a str,
    /// The control group that it is put into before it begins.
    pub cgroup: Option<&'a Path>,
}

/// Where the machines' events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SinkKind {
    /// Nowhere.
    None,
    /// To a topic of a real Kafka; and then the same while that is dead.
    Kafka,
}

/// Resident bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    pub now: u64,
    pub most: u64,
}

/// Killed when dropped, unless it was stopped.
pub struct Service {
    child: Child,
    pub address: SocketAddr,
}

// === impl StorageKind ===

impl StorageKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Memory => "memory",
        }
    }
}

// === impl Setting ===

impl<'a> Setting<'a> {
    pub fn new(storage: StorageKind, processor: SocketAddr) -> Self {
        Self { storage, processor, broker: None, linger: 0, limits: "", cgroup: None }
    }

    fn configuration(&self, folder: &Path) -> String {
        let storage = match self.storage {
            StorageKind::Embedded => {
                format!("{{type: embedded, path: {:?}, free_space_reserve: 64M}}", folder.join("store"))
            }
            StorageKind::Memory => "{type: memory}".to_owned(),
        };
        let Self { processor, limits, .. } = self;
        let limits = if limits.is_empty() { String::new() } else { format!("limits: {limits}\n") };
        format!(
            "service_name: machinegun\n\
             woody_server: {{ip: 127.0.0.1, port: 0}}\n\
             logging: {{out_type: stdout, level: info}}\n\
             storage: {storage}\n\
             {limits}\
             namespaces:\n  bench:\n    processor: {{url: \"http://{processor}/processor\", pool_size: 100}}\n"
        ) + &self.broker.map_or_else(String::new, |broker| topic(broker, self.linger))
    }
}

// === impl Service ===

impl Service {
    /// Starts it on `folder`, with its defaults but for what a run needs, and waits until it is up.
    pub fn start(folder: &Path, setting: &Setting<'_>) -> Result<Self, Failure> {
        let binary = build()?;
        let config = folder.join("config.yaml");
        fs::write(&config, setting.configuration(folder))?;
        // The shell moves itself there and becomes the service: no byte of it is counted elsewhere.
        let mut command = match setting.cgroup {
            None => Command::new(&binary),
            Some(group) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg("echo $$ > \"$0\" && exec \"$@\"").arg(group.join("cgroup.procs")).arg(&binary);
                shell
            }
        };
        let mut child = command
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{} can't be started: {error}", binary.display()))?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("the service has no stdout")?).lines();
        let mut service = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        service.address = loop {
            let line = lines.next().ok_or("the service ended before it was up")??;
            if line.contains("machinegun is up") {
                break address_in(&line).ok_or("the service did not say where it listens")?;
            }
        };
        // A full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(service)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of all its threads so far, in user and kernel.
    pub fn cpu(&self) -> Result<Duration, Failure> {
        host::cpu(self.child.id())
    }

    /// Bytes of memory that it has of its own, now and at the most so far.
    pub fn memory(&self) -> Result<Memory, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
            line.and_then(|number| number.trim().parse::<u64>().ok()).map(|kib| kib << 10)
        };
        match (bytes("VmRSS:"), bytes("VmHWM:")) {
            (Some(now), Some(most)) => Ok(Memory { now, most }),
            _ => Err("/proc/PID/status is malformed".into()),
        }
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(mut self) -> Result<(), Failure> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        match self.child.wait()? {
            status if status.success() => Ok(()),
            status => Err(format!("the service stopped with {status}").into()),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself, or been stopped: then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds the release binary beside this one, so that what is measured is never older than its source.
fn build() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let folder = own.parent().ok_or("this binary lies in no folder")?;
    if !folder.ends_with("release") {
        return Err("debug builds say nothing about speed: cargo run --release -p benches".into());
    }
    if let Some(cargo) = std::env::var_os("CARGO") {
        // Both packages: the same features of what they share, so nothing is built twice.
        let selected = ["build", "--release", "-p", "machinegun", "-p", "benches", "--bin", "machinegun"];
        let built = Command::new(cargo).args(selected).status()?;
        if !built.success() {
            return Err("the service does not build".into());
        }
    }
    let binary = folder.join("machinegun");
    match binary.is_file() {
        true => Ok(binary),
        false => Err(format!("{} is missing: cargo build --release", binary.display()).into()),
    }
}

/// What makes the namespace, which stands last, publish. Nothing is refused for what the sink has not taken.
fn topic(broker: &str, linger: u64) -> String {
    let (host, port) = broker.rsplit_once(':').unwrap_or((broker, "9092"));
    format!(
        "    outbox: {{max_pending: 1000000000}}\n    \
             event_sinks: {{bench: {{type: kafka, client: bench, topic: bench}}}}\n\
         kafka: {{bench: {{endpoints: [{{host: '{host}', port: {port}}}], producer: {{max_linger: {linger}ms}}}}}}\n"
    )
}

/// The address in the line that says that the service is up, whatever the log's form.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("address")?;
    let rest = rest.trim_start_matches(|it: char| !it.is_ascii_digit() && it != '[');
    let end =
        rest.find(|it: char| !it.is_ascii_hexdigit() && !matches!(it, '.' | ':' | '[' | ']')).unwrap_or(rest.len());
    rest[..end].parse().ok()
}
