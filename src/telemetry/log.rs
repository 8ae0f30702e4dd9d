//! Log lines, through `tracing`. Values of machines are never logged.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::sync::Mutex;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

use crate::config::{LogLevel, LogOutput, LoggingSettings};

/// The log can't be written where the configuration says.
#[derive(Debug, thiserror::Error)]
#[error("logging: can't write {path}: {error}")]
pub struct LogError {
    path: String,
    error: io::Error,
}

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(settings: &LoggingSettings) -> Result<(), LogError> {
    let level = match settings.level {
        LogLevel::Critical | LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let builder = fmt().with_max_level(level);
    // Already started: the first one's settings stand.
    let _ = match settings.out_type {
        LogOutput::Stdout => builder.with_ansi(io::stdout().is_terminal()).with_writer(io::stdout).try_init(),
        LogOutput::File => {
            let path = settings.root.join(&settings.json_log);
            let failed = |error| LogError { path: path.display().to_string(), error };
            std::fs::create_dir_all(&settings.root).map_err(failed)?;
            let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
            builder.with_ansi(false).with_writer(Mutex::new(file)).try_init()
        }
    };
    Ok(())
}
