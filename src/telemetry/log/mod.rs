//! Log lines, through `tracing`: one JSON object a line, as dashboards of the original know them, or plain text on a
//! terminal.
//!
//! Policy. Values of machines are never logged, and of a header only its name and woody's own. Lines of libraries are
//! taken from `warning` on, whatever the level: what they say below may hold what they were handed. Every line that a
//! request causes carries its woody ids, because a span with them ([`crate::telemetry::scope`]) is entered wherever its
//! work runs. A log that can't be written never stops the service: lines are dropped and counted.

mod escape;
mod line;
mod output;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{Level, Metadata};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use super::scope;
use crate::clock::Clock;
use crate::config::{LogLevel, LogOutput, LoggingSettings};
use crate::wire::timestamp;
use line::Lines;
use output::{DROPPED, Output, Place};

/// The target of what must not be missed whatever the level: severity `critical`.
pub const CRITICAL: &str = "machinegun::critical";

/// The log can't be written where the configuration says.
#[derive(Debug, thiserror::Error)]
#[error("logging: can't write {path}: {error}")]
pub struct LogError {
    path: String,
    error: io::Error,
}

/// The log of this process. What it still holds is written when this is dropped.
#[derive(Debug)]
pub struct Log(Option<Arc<Output>>);

/// The time of a line on a terminal.
struct Now;

// === impl Log ===

impl Log {
    /// What takes lines, and the log that they go to.
    pub(super) fn open<S>(settings: &LoggingSettings) -> Result<(Box<dyn Layer<S> + Send + Sync>, Self), LogError>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let level = settings.level;
        let filter = filter_fn(move |metadata| is_logged(metadata, level)).with_max_level_hint(most(level));
        let place = match settings.out_type {
            LogOutput::Stdout if io::stdout().is_terminal() => {
                return Ok((readable(io::stdout).with_filter(filter).boxed(), Self(None)));
            }
            LogOutput::Stdout => Place::Stdout,
            LogOutput::File => {
                let path = settings.root.join(&settings.json_log);
                let failed = |error| LogError { path: path.display().to_string(), error };
                std::fs::create_dir_all(&settings.root).map_err(failed)?;
                Place::file(path.clone()).map_err(failed)?
            }
        };
        let output = Output::start(place, settings);
        let layer = Lines::new(&settings.formatter, output.clone());
        Ok((layer.with_filter(filter).boxed(), Self(Some(output))))
    }

    /// Opens the file again at each SIGHUP, for who moves logs away (logrotate). Needs a runtime. Where lines go to stdout
    /// there is nothing to open, and the signal is taken all the same: a reload must not end the service. On a terminal it
    /// keeps its meaning: who looked on is gone.
    pub fn reopen_at_hangup(&self) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let Some(output) = self.0.clone() else { return Ok(()) };
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                output.reopen();
            }
        });
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(output) = &self.0 {
            output.finish();
        }
    }
}

/// Plain text with colours, for who looks on.
fn readable<S>(writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    fmt::layer().with_ansi(true).with_timer(Now).with_target(false).with_writer(writer)
}

/// Lines of this process that were not written, for metrics.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

fn most(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Critical | LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

fn is_logged(metadata: &Metadata<'_>, level: LogLevel) -> bool {
    let target = metadata.target();
    if metadata.is_span() {
        return target == scope::TARGET;
    }
    match (target, level) {
        (CRITICAL, _) => true,
        (scope::TRACED, _) | (_, LogLevel::Critical) => false,
        _ if target.starts_with("machinegun") => *metadata.level() <= most(level),
        _ => *metadata.level() <= most(level).min(LevelFilter::WARN),
    }
}

/// The original's names of levels, which `level_map` maps.
fn severity(metadata: &Metadata<'_>) -> &'static str {
    match *metadata.level() {
        Level::ERROR if metadata.target() == CRITICAL => "critical",
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// Always six fraction digits.
fn timestamp(micros: i64) -> String {
    let mut text = timestamp::format_seconds(micros.div_euclid(1_000));
    text.pop();
    text + &format!(".{:06}Z", micros.rem_euclid(1_000_000))
}

// === impl Now ===

impl FormatTime for Now {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        writer.write_str(&timestamp(Clock::system().now_micros()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// What a terminal would be written.
    #[derive(Clone, Default)]
    struct Terminal(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Terminal {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_on_a_terminal_is_plain_text_with_its_time_level_ids_machine_and_fields() {
        let terminal = Terminal::default();
        let writer = terminal.clone();
        let level = LogLevel::Info;
        let layer = readable(move || writer.clone()).with_filter(filter_fn(move |it| is_logged(it, level)));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let request = scope::request(b"the-trace", b"the-span", b"undefined");
            scope::about(&request, "payments", b"order-7");
            request.in_scope(|| {
                tracing::warn!(attempt = 3, "the store is slow");
                tracing::debug!("nobody asked for this");
            });
        });
        let written = String::from_utf8(terminal.0.lock().unwrap().clone()).unwrap();
        assert!(written.contains("\x1b["), "colours: {written:?}");
        let plain: String =
            written.split("\x1b[").map(|part| part.split_once('m').map_or(part, |(_, text)| text)).collect();
        let (time, rest) = plain.split_once(' ').unwrap();
        assert!(time.len() == 27 && time.ends_with('Z'), "microseconds in UTC: {plain}");
        assert!(rest.trim_start().starts_with("WARN "), "{plain}");
        for part in ["the store is slow", "attempt=3", "trace_id=the-trace", "span_id=the-span", "order-7", "payments"]
        {
            assert!(rest.contains(part), "{part}: {plain}");
        }
        assert_eq!(written.lines().count(), 1, "{written}");
    }

    #[test]
    fn a_timestamp_has_six_fraction_digits() {
        assert_eq!(timestamp(1_700_000_000_000_001), "2023-11-14T22:13:20.000001Z");
        assert_eq!(timestamp(1_700_000_000_999_999), "2023-11-14T22:13:20.999999Z");
        assert_eq!(timestamp(-1), "1969-12-31T23:59:59.999999Z");
    }
}
