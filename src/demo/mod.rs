//! `machinegun demo`: the service, its store and a small payment processor in one process, and a story that shows what
//! they do. Everything goes through the port, as any client's calls do.

mod caller;
mod payment;
mod print;
mod prompt;
mod story;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::{self, Clock};
use crate::config::{EmbeddedSettings, NamespaceSettings, Settings, StorageSettings};
use crate::service::{self, RunError, Running, StartError};
use crate::woody::{Server, ServerSettings};
use caller::{CallError, Caller};
use payment::Payments;
use print::{Printer, line};

const NAMESPACE: &str = "payments";
const DEFAULT_PORT: u16 = 8022;
const CAPTURE_AFTER_SECONDS: i32 = 2;
/// A demo needs little: it should run on a nearly full disk too.
const FREE_SPACE_RESERVE: u64 = 64 << 20;

/// What the command line says.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoOptions {
    /// Keep everything in this folder [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Listen on this port, 0 for any free one [default: 8022, or any free one if that is taken]
    #[arg(long)]
    port: Option<u16>,
    /// End after the story
    #[arg(long)]
    once: bool,
}

/// Why the demo ended before its time. One line for whoever runs it.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("can't make the folder {path}: {error}")]
    Folder { path: String, error: io::Error },
    #[error("the demo's processor: {0}")]
    Processor(io::Error),
    #[error("{0}; is another machinegun running? `--port 0` takes any free port")]
    PortTaken(StartError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("{what}: {error}")]
    Call { what: String, error: CallError },
    #[error("{0}")]
    Broken(String),
}

/// Where machines are kept. A temporary folder goes when this is dropped.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

/// The processor's server.
struct Processor {
    address: SocketAddr,
    stop: CancellationToken,
    done: JoinHandle<()>,
}

/// What the command line asks for: [`run`] until SIGTERM or SIGINT.
pub async fn show(options: DemoOptions) -> Result<(), Box<dyn std::error::Error>> {
    let stop = CancellationToken::new();
    service::stop_at_signal(stop.clone())?;
    Ok(run(options, stop).await?)
}

/// Tells the story, then stays up until `stop`, unless it is to end after the story.
pub async fn run(options: DemoOptions, stop: CancellationToken) -> Result<(), DemoError> {
    let clock = Clock::system();
    let folder = Folder::make(options.path.as_deref())?;
    let processor = Processor::start(&clock)?;
    let running = start_service(&options, &folder, &processor).await?;
    let address = running.address();
    let caller = Caller::new(address, clock.clone()).ok_or_else(|| DemoError::Broken(format!("no url: {address}")))?;
    introduce(&folder, &processor, address);

    let told = async {
        let mut printer = Printer::default();
        story::tell(&caller, &clock, &mut printer).await?;
        if !options.once {
            prompt::invite(address, &folder.path);
            prompt::run(&caller, &clock, &mut printer).await;
        }
        Ok(())
    };
    let stopper = running.stopper();
    let mut service = pin!(running.wait());
    let outcome: Result<(), DemoError> = tokio::select! {
        outcome = told => outcome,
        () = stop.cancelled() => Ok(()),
        // Nobody told it to: its store has failed.
        ended = &mut service => {
            processor.stop().await;
            return Ok(ended?);
        }
    };
    stopper.cancel();
    let stopped = service.await;
    processor.stop().await;
    stopped?;
    outcome?;
    line(format_args!("\nStopped: {}.", folder.leave()));
    Ok(())
}

/// On the port that was asked for. If none was and the usual one is taken, on any.
async fn start_service(options: &DemoOptions, folder: &Folder, processor: &Processor) -> Result<Running, DemoError> {
    let port = options.port.unwrap_or(DEFAULT_PORT);
    match service::start(settings(port, folder, processor.address)).await {
        Err(StartError::Listen(error)) if error.kind() == io::ErrorKind::AddrInUse => match options.port {
            Some(_) => Err(DemoError::PortTaken(StartError::Listen(error))),
            None => {
                line(format_args!("Port {port} is taken, so the demo listens on another one.\n"));
                Ok(service::start(settings(0, folder, processor.address)).await?)
            }
        },
        started => Ok(started?),
    }
}

fn settings(port: u16, folder: &Folder, processor: SocketAddr) -> Settings {
    let path = folder.path.clone();
    let storage = StorageSettings::Embedded(EmbeddedSettings { path, free_space_reserve: FREE_SPACE_RESERVE });
    let namespace = NamespaceSettings::new(NAMESPACE, format!("http://{processor}/{NAMESPACE}"));
    let mut settings = Settings::default_with(storage).with_namespace(namespace);
    settings.woody_server.ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    settings.woody_server.port = port;
    settings
}

fn introduce(folder: &Folder, processor: &Processor, address: SocketAddr) {
    let kept = if folder.temporary { "temporary: --path DIR keeps one" } else { "kept" };
    line("Machinegun demo: the service, its store and a payment processor, in this one process.\n");
    line(format_args!("  service    http://{address}/v1/automaton  (woody: Thrift over HTTP)"));
    line(format_args!(
        "  processor  http://{}/{NAMESPACE}  (built in: decides what a payment does next)",
        processor.address
    ));
    line(format_args!("  folder     {}  ({kept})", folder.path.display()));
}

// === impl Folder ===

impl Folder {
    fn make(wanted: Option<&Path>) -> Result<Self, DemoError> {
        let temporary = || {
            let name = u64::from_be_bytes(clock::random_bytes());
            std::env::temp_dir().join(format!("machinegun-demo-{name:016x}"))
        };
        let folder = match wanted {
            Some(path) => Self { path: path.to_owned(), temporary: false },
            None => Self { path: temporary(), temporary: true },
        };
        match std::fs::create_dir_all(&folder.path) {
            Ok(()) => Ok(folder),
            Err(error) => Err(DemoError::Folder { path: folder.path.display().to_string(), error }),
        }
    }

    /// Says what becomes of it, when it has become so.
    fn leave(self) -> String {
        let (path, temporary) = (self.path.display().to_string(), self.temporary);
        drop(self);
        if temporary { format!("{path} is removed") } else { format!("everything is kept in {path}") }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            // What can't be removed stays among the temporary files, where the system clears it away.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

// === impl Processor ===

impl Processor {
    fn start(clock: &Clock) -> Result<Self, DemoError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Server::bind(address, ServerSettings::default(), clock.clone()).map_err(DemoError::Processor)?;
        let payments = Payments { capture_after: CAPTURE_AFTER_SECONDS };
        let server = server.route(format!("/{NAMESPACE}"), Arc::new(payments));
        let address = server.local_addr();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let done = tokio::spawn(server.serve(async move { stopped.cancelled().await }, async {}));
        Ok(Self { address, stop, done })
    }

    async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.done.await {
            line(format_args!("the demo's processor has failed: {error}"));
        }
    }
}
