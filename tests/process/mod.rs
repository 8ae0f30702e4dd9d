//! The real binary as a process of its own, a processor that it asks, and a client that calls it.
#![allow(dead_code, reason = "each test takes its part")]

pub mod peer;
pub mod processor;

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use machinegun::clock::Clock;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long anything is waited for that takes no time on a quiet machine, in milliseconds.
pub const PATIENCE_MS: i64 = 60_000;

/// For stores that ask who it is; the tests' own take anyone.
const CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];

/// File systems that live in memory, where nothing is ever durable, by the number that statfs gives.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// A folder on a disk, gone with the test.
pub struct Folder(TempDir);

/// A running service; killed when dropped.
pub struct Machinegun {
    child: Child,
    pub address: SocketAddr,
    /// The lines of its log so far.
    lines: watch::Receiver<Vec<String>>,
    /// Everything that it says on stderr, once it has ended.
    errors: JoinHandle<String>,
}

/// How a service ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stderr: String,
}

// === impl Folder ===

impl Folder {
    pub fn new() -> Self {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder below target/");
        let kind = rustix::fs::statfs(folder.path()).expect("a file system").f_type;
        assert!(
            !IN_MEMORY.contains(&kind),
            "{} is in memory, where a sync proves nothing: point CARGO_TARGET_DIR at a disk",
            folder.path().display()
        );
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// Writes a configuration with the embedded store in this folder.
    pub fn configured(&self, processor: SocketAddr) -> PathBuf {
        self.configured_as(&configuration(&self.store(), processor))
    }

    pub fn configured_as(&self, text: &str) -> PathBuf {
        let path = self.path().join("config.yaml");
        std::fs::write(&path, text).expect("the configuration is written");
        path
    }
}

/// A free port, one namespace, and everything found again soon: what a restart left due is looked for every second.
pub fn configuration(store: &Path, processor: SocketAddr) -> String {
    configuration_with(store, &namespace(peer::NAMESPACE, processor))
}

/// As [`configuration`], with namespaces of one's own.
pub fn configuration_with(store: &Path, namespaces: &str) -> String {
    configuration_on(&format!("{{type: embedded, path: {store:?}, free_space_reserve: 64M}}"), namespaces)
}

/// On a storage of one's own.
pub fn configuration_on(storage: &str, namespaces: &str) -> String {
    format!(
        "service_name: machinegun\n\
         woody_server: {{ip: 127.0.0.1, port: 0}}\n\
         logging: {{out_type: stdout, level: info}}\n\
         storage: {storage}\n\
         namespaces:\n\
         {namespaces}"
    )
}

/// One entry of `namespaces`; keys that are added to it are indented by four.
pub fn namespace(name: &str, processor: SocketAddr) -> String {
    format!(
        "\x20 {name}:\n\
         \x20   processor: {{url: \"http://{processor}/processor\", pool_size: 200}}\n\
         \x20   shutdown_timeout: 30s\n\
         \x20   timers: {{scan_interval: 1s, min_scan_delay: 100ms}}\n\
         \x20   notification: {{scan_interval: 1s, min_scan_delay: 100ms, scan_handicap: 0s, reschedule_time: 1s}}\n"
    )
}

/// Waits for `work`, which is `what`, and not for ever.
pub async fn soon<F: Future>(what: &str, work: F) -> F::Output {
    within(PATIENCE_MS, what, work).await
}

pub async fn within<F: Future>(milliseconds: i64, what: &str, work: F) -> F::Output {
    let clock = Clock::system();
    let done = clock.timeout_at(clock.now() + milliseconds, work).await;
    done.unwrap_or_else(|_| panic!("{what} was awaited for {:?} in vain", Duration::from_millis(milliseconds as u64)))
}

// === impl Machinegun ===

impl Machinegun {
    /// Starts it and waits until it is up.
    pub async fn start(config: &Path) -> Self {
        Self::start_under(&[] as &[&OsStr], config).await
    }

    /// As [`Self::start`], in an environment with these variables.
    pub async fn start_in(environment: &[(&str, &str)], config: &Path) -> Self {
        let variables = environment.iter().map(|(name, value)| format!("{name}={value}"));
        let runner: Vec<String> = std::iter::once("env".to_owned()).chain(variables).collect();
        Self::start_under(&runner, config).await
    }

    /// As [`Self::start`], run by another program, whose arguments end where the service's command begins.
    pub async fn start_under(runner: &[impl AsRef<OsStr>], config: &Path) -> Self {
        Self::up(spawn(runner, config)).await
    }

    /// One that was started with pipes for stdout and stderr: waits until it is up.
    pub async fn up(child: Child) -> Self {
        Self::try_up(child).await.unwrap_or_else(|errors| panic!("the service did not come up: {errors}"))
    }

    /// As [`Self::start`]; or what it said when it refused to start.
    pub async fn try_start(config: &Path) -> Result<Self, String> {
        Self::try_up(spawn(&[] as &[&OsStr], config)).await
    }

    /// As [`Self::start_under`]; or what it said when it did not come up.
    pub async fn try_start_under(runner: &[impl AsRef<OsStr>], config: &Path) -> Result<Self, String> {
        Self::try_up(spawn(runner, config)).await
    }

    async fn try_up(mut child: Child) -> Result<Self, String> {
        let errors = errors_of(&mut child);
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (said, lines) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = stdout.next_line().await {
                said.send_modify(|lines: &mut Vec<String>| lines.push(line));
            }
        });
        let up = soon(
            "the service's start",
            first(&lines, |line| line.contains("machinegun is up").then(|| address_in(line))),
        );
        let Some(address) = up.await.flatten() else { return Err(errors.await.unwrap_or_default()) };
        Ok(Self { child, address, lines, errors })
    }

    /// As [`Self::start`], for one whose log goes to this file.
    pub async fn start_logging_to(log: &Path, config: &Path) -> Self {
        let mut child = spawn(&[] as &[&OsStr], config);
        let errors = errors_of(&mut child);
        let up = soon("the service's start", async {
            loop {
                let text = tokio::fs::read_to_string(log).await.unwrap_or_default();
                if let Some(line) = text.lines().find(|line| line.contains("machinegun is up")) {
                    return address_in(line).expect("an address");
                }
            }
        });
        let address = up.await;
        Self { child, address, lines: watch::channel(Vec::new()).1, errors }
    }

    /// What `look` finds in a line of the log, of those that were written and those that come.
    pub async fn logged<T>(&self, what: &str, look: impl FnMut(&str) -> Option<T>) -> T {
        let found = soon(what, first(&self.lines, look)).await;
        found.unwrap_or_else(|| panic!("{what} was never logged"))
    }

    /// All lines of the log so far.
    pub fn log(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// What a plain GET answers: status, head, body.
    pub async fn get(&self, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.expect("the service listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("a request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("the end of the headers");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, head.to_owned(), body.to_owned())
    }

    pub fn hang_up(&self) {
        kill_process(self.pid(), Signal::HUP).expect("the service takes the signal");
    }

    /// The process that was started: the service's, unless it runs under another program.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().expect("a running process") as i32).expect("a process id")
    }

    /// The most memory that it has had so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid().as_raw_nonzero()));
        let status = status.expect("a running process");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        let kilobytes = peak.trim().strip_suffix(" kB").expect("kilobytes");
        kilobytes.parse::<u64>().expect("a number") << 10
    }

    pub fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("the service takes the signal");
    }

    /// It does nothing at all until it is thawed.
    pub fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).expect("the service takes the signal");
    }

    pub fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).expect("the service takes the signal");
    }

    /// SIGKILL: it has no say in the matter.
    pub async fn kill(mut self) {
        soon("the service's end", self.child.kill()).await.expect("the service is killed");
    }

    pub async fn ended(mut self) -> Ended {
        let status = soon("the service's end", self.child.wait()).await.expect("an exit status");
        Ended { status, stderr: self.errors.await.expect("its stderr") }
    }
}

/// A start that comes to nothing.
pub async fn refused_start(config: &Path) -> Ended {
    let mut child = spawn(&[] as &[&OsStr], config);
    let errors = errors_of(&mut child);
    let mut stdout = child.stdout.take().expect("a pipe");
    tokio::spawn(async move { stdout.read_to_end(&mut Vec::new()).await });
    let status = soon("the service's refusal to start", child.wait()).await.expect("an exit status");
    Ended { status, stderr: errors.await.expect("its stderr") }
}

/// Runs another of its commands to the end: how it ended, and what it said on stdout.
pub async fn command(arguments: &[&str], config: &Path) -> (Ended, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_machinegun"));
    command.args(arguments).arg("--config").arg(config).envs(CREDENTIALS).stdin(Stdio::null()).kill_on_drop(true);
    let output = soon(&arguments.join(" "), command.output()).await.expect("the command runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (Ended { status: output.status, stderr: text(output.stderr) }, text(output.stdout))
}

fn spawn(runner: &[impl AsRef<OsStr>], config: &Path) -> Child {
    let mut command: Vec<OsString> = runner.iter().map(|it| it.as_ref().to_owned()).collect();
    command.extend([env!("CARGO_BIN_EXE_machinegun").into(), "serve".into(), "--config".into(), config.into()]);
    Command::new(&command[0])
        .args(&command[1..])
        .envs(CREDENTIALS)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{} can't be run: {error}; install it", command[0].display()))
}

fn errors_of(child: &mut Child) -> JoinHandle<String> {
    let mut stderr = child.stderr.take().expect("a pipe");
    tokio::spawn(async move {
        let mut text = String::new();
        stderr.read_to_string(&mut text).await.expect("stderr is text");
        text
    })
}

/// None: the log ended without it.
async fn first<T>(lines: &watch::Receiver<Vec<String>>, mut look: impl FnMut(&str) -> Option<T>) -> Option<T> {
    let (mut lines, mut seen) = (lines.clone(), 0);
    loop {
        let found = {
            let lines = lines.borrow_and_update();
            let new = lines[seen..].iter().find_map(|line| look(line));
            seen = lines.len();
            new
        };
        if found.is_some() {
            return found;
        }
        lines.changed().await.ok()?;
    }
}

/// The address in the line that says that the service is up, whatever the log's form.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("address")?;
    let rest = rest.trim_start_matches(|it: char| !it.is_ascii_digit());
    let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.' && it != ':').unwrap_or(rest.len());
    rest[..end].parse().ok()
}
