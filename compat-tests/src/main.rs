//! `compat-tests replay FILE...`: plays recordings against the service, and says what differs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use compat_tests::configuration::{self, Storage};
use compat_tests::recording::Recording;
use compat_tests::replay::{Options, Replay, Report};
use compat_tests::service_under_test::ServiceUnderTest;
use machinegun::clock::Clock;

/// Compatibility with the original, proved from outside.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play recordings, each against a service of its own. Exits 1 on any difference.
    Replay(ReplayArguments),
}

#[derive(clap::Args)]
struct ReplayArguments {
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Play against a service that runs already, at this origin. Its processors must point at `--processor-port`.
    #[arg(long, requires = "processor_port")]
    url: Option<String>,
    /// Where the recorded processor listens. Any free port by default.
    #[arg(long)]
    processor_port: Option<u16>,
    /// What a service that is started keeps its machines in. `embedded`: in a temporary directory.
    #[arg(long, value_enum, default_value_t = Kept::Memory)]
    storage: Kept,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kept {
    Memory,
    Embedded,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Replay(arguments) = Arguments::parse().command;
    let mut agree = true;
    let (mut agreeing, mut exchanges, mut unplayed) = (0, 0, 0);
    for file in &arguments.files {
        match replay(file, &arguments).await {
            Ok(report) => {
                println!("{report}");
                agree &= report.agrees();
                agreeing += report.agreeing();
                exchanges += report.exchanges;
            }
            Err(error) => {
                eprintln!("{}: {error}", file.display());
                agree = false;
                unplayed += 1;
            }
        }
    }
    if arguments.files.len() > 1 {
        println!("in all: {agreeing} of {exchanges} exchanges agree");
    }
    if unplayed > 0 {
        println!("not played: {unplayed} of {} recordings", arguments.files.len());
    }
    if agree { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn replay(file: &Path, arguments: &ReplayArguments) -> Result<Report, String> {
    let recording = Recording::read(file)?;
    let options = Options { processor_port: arguments.processor_port.unwrap_or(0), ..Options::default() };
    let replay =
        Replay::prepare(&recording, options, Clock::system()).await.map_err(|error| format!("processor: {error}"))?;
    if let Some(url) = &arguments.url {
        return Ok(replay.play(url.trim_end_matches('/')).await);
    }
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let storage = match arguments.storage {
        Kept::Memory => Storage::Memory,
        Kept::Embedded => Storage::Embedded(directory.path().to_owned()),
    };
    let configuration = configuration::fill(&configuration::template(file)?, &replay.processor_url(), &storage);
    let service = ServiceUnderTest::start(&configuration).await?;
    let report = replay.play(&service.url()).await;
    service.stop().await?;
    Ok(report)
}
