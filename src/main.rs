//! The `machinegun` binary: arguments, then the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use machinegun::{config, ops, service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A durable state machine engine for payment systems.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service until it is told to stop (SIGTERM or SIGINT).
    Serve {
        #[arg(long)]
        config: PathBuf,
    },
    /// Check a configuration file and show what becomes of each key; exits 1 on errors.
    CheckConfig {
        #[arg(long)]
        config: PathBuf,
    },
    /// Look at a ledger while no service runs on its store.
    #[command(subcommand)]
    Ledger(LedgerCommand),
}

#[derive(Subcommand)]
enum LedgerCommand {
    /// Recompute the chain; names the first broken entry and exits 1 if there is one.
    Verify {
        sink: String,
        #[arg(long)]
        config: PathBuf,
    },
    /// Print the last entry's id and the chain's hash, to be kept elsewhere.
    Head {
        sink: String,
        #[arg(long)]
        config: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve { config } => serve(config).await,
        Command::CheckConfig { config } => check_config(config),
        Command::Ledger(command) => ledger(command).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("machinegun: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(path: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let (settings, report) = config::load(&path)?;
    machinegun::telemetry::log::start(&settings.logging)?;
    for notice in &report.notices {
        tracing::warn!("{notice}");
    }
    let running = service::start(settings).await?;
    tracing::info!(address = %running.address(), "machinegun is up");
    let stopper = running.stopper();
    service::on_stop_signal(move || stopper.cancel())?;
    running.wait().await?;
    tracing::info!("machinegun has stopped");
    Ok(())
}

fn check_config(path: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let (settings, report) = config::load(&path)?;
    print!("{}", config::describe(&settings, &report));
    Ok(())
}

async fn ledger(command: LedgerCommand) -> Result<(), Box<dyn std::error::Error>> {
    let line = match command {
        LedgerCommand::Verify { sink, config } => {
            ops::ledger::verify(&config::load(&config)?.0, &sink, |line| eprintln!("{line}")).await?
        }
        LedgerCommand::Head { sink, config } => ops::ledger::head(&config::load(&config)?.0, &sink).await?,
    };
    println!("{line}");
    Ok(())
}
