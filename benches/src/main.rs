//! Measurements of the service. Results are printed, and saved as JSON under `benches/results/`.
//!
//! `cargo run --release -p benches -- call` drives the real binary, a process of its own, so that its CPU time is counted
//! alone; the clients and the processor live here. `-- fsync` prints what the disk under a folder costs.

mod broker;
mod call;
mod caller;
mod disk;
mod host;
mod loopback;
mod processor;
mod report;
mod service;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measurements of the machinegun service.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Calls in a closed loop: throughput, latency, and the service's CPU time per Call.
    Call(call::Options),
    /// What writing 4 KiB and syncing it costs in a folder.
    Fsync {
        /// The folder; made if it is not there. Below `target/` by default.
        #[arg(long)]
        dir: Option<PathBuf>,
        #[arg(long, default_value_t = 3)]
        seconds: u64,
    },
}

/// Whatever keeps a measurement from being made, as one line.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Call(options) => call::run(&options),
        Command::Fsync { dir, seconds } => fsync(dir, seconds),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benches: {error}");
            ExitCode::FAILURE
        }
    }
}

fn fsync(dir: Option<PathBuf>, seconds: u64) -> Result<(), Failure> {
    let folder = host::scratch(dir)?;
    let host = host::Host::look(folder.path())?;
    let disk = disk::measure(folder.path(), std::time::Duration::from_secs(seconds))?;
    println!("{}", report::host_line(&host));
    println!("{}", report::disk_line(&disk));
    Ok(())
}
