//! The measurements by command; the library says what they are.

use std::path::PathBuf;
use std::process::ExitCode;

use benches::{Failure, call, cost, disk, host, overload, report, soak};
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
    /// Calls in a closed loop for minutes, second by second: the worst moments of the store.
    Soak(soak::Options),
    /// Many times the Calls that the service can do, and what becomes of them.
    Overload(overload::Options),
    /// Requests and units that the same work costs on DynamoDB.
    Cost(cost::Options),
    /// What writing 4 KiB and syncing it costs in a folder.
    Fsync {
        /// The folder; made if it is not there. Below `target/` by default.
        #[arg(long)]
        dir: Option<PathBuf>,
        #[arg(long, default_value_t = 3)]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Call(options) => call::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Overload(options) => overload::run(&options),
        Command::Cost(options) => cost::run(&options),
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
