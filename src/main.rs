//! The `machinegun` binary: arguments, then the library.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use machinegun::demo::{self, DemoOptions};
use machinegun::ops::ledger::{self, LedgerCommand};
use machinegun::ops::schema::{self, SchemaCommand};
use machinegun::telemetry::Telemetry;
use machinegun::{config, service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FIRST_STEPS: &str = "\
First steps:
  machinegun demo                                see it work: no configuration, nothing else needed
  machinegun check-config --config config.yaml   see what becomes of each key of a configuration
  machinegun serve --config config.yaml          run the service";

/// A durable state machine engine for payment systems.
#[derive(Parser)]
#[command(version, after_help = FIRST_STEPS, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service until it is told to stop (SIGTERM or SIGINT)
    Serve(ConfigFile),
    /// Check a configuration and show what becomes of each key; exits 1 on errors
    CheckConfig(ConfigFile),
    /// See it work: the service with a payment processor built in, and a story told through the port
    Demo(DemoOptions),
    /// Look at a ledger; on embedded storage while no service runs on it
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Look at the table of `storage.type: dynamodb`, or make it
    #[command(subcommand)]
    Schema(SchemaCommand),
}

#[derive(Args)]
struct ConfigFile {
    /// The configuration, in YAML
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) => {
            // Help and version are answers; everything else is an error like any other.
            let code = if answer.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            return if answer.print().is_ok() { code } else { ExitCode::FAILURE };
        }
    };
    let outcome = match arguments.command {
        Command::Serve(file) => serve(&file.config).await,
        Command::CheckConfig(file) => check_config(&file.config),
        Command::Demo(options) => demo::show(options).await,
        Command::Ledger(command) => ledger::run(command).await,
        Command::Schema(command) => schema::run(command).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("machinegun: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(path: &Path) -> Result<(), Box<dyn Error>> {
    let (settings, report) = config::load(path)?;
    let telemetry = Telemetry::start(&settings)?;
    telemetry.reopen_at_hangup()?;
    for notice in &report.notices {
        tracing::warn!("{notice}");
    }
    if let Some(short) = service::allow_open_files(&settings) {
        tracing::warn!("{short}");
    }
    let running = service::start(settings).await?;
    // IMPORTANT: before it says that it is up: whoever waits for that may tell it to stop at once.
    service::stop_at_signal(running.stopper())?;
    tracing::info!(address = %running.address(), "machinegun is up");
    running.wait().await?;
    tracing::info!("machinegun has stopped");
    Ok(())
}

fn check_config(path: &Path) -> Result<(), Box<dyn Error>> {
    let (settings, report) = config::load(path)?;
    print!("{}", config::describe(&settings, &report));
    Ok(())
}
