//! Where lines go: a bounded queue, and a thread that writes what is in it. Who logs never waits for a disk or a pipe.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::LoggingSettings;

/// Lines up to `info` in one second, past which they are dropped if `logging.burst_limit_enable` says so: the number is
/// that of the original's logger. Warnings and errors always pass.
const BURST: u64 = 500;

/// Bytes that wait to be written, past which lines are dropped: many more than so many lines of usual length have.
const MOST_BYTES: usize = 8 << 20;

/// How long the end of the process waits for a log that takes nothing any more.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Lines of this process that were not written.
pub(super) static DROPPED: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
pub(super) enum Place {
    Stdout,
    File { path: PathBuf, file: File },
}

#[derive(Debug)]
pub(super) struct Output {
    most_lines: usize,
    burst: Option<Mutex<Burst>>,
    /// Lines that were dropped since somebody was told of it.
    untold: AtomicU64,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// How many lines have passed in the present second.
#[derive(Debug, Default)]
struct Burst {
    second: i64,
    passed: u64,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    lines: usize,
    reopen: bool,
    /// No more lines are waited for.
    closed: bool,
    /// All is written, and the thread is gone.
    finished: bool,
}

// === impl Place ===

impl Place {
    pub(super) fn file(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self::File { path, file })
    }

    /// On stdout there is nothing to open.
    fn reopen(&mut self) {
        let Self::File { path, file } = self else { return };
        match open(path) {
            Ok(new) => *file = new,
            // The old one is still there: better than nothing, and stderr is all that is left to say so.
            Err(error) => eprintln!("machinegun: logging: can't open {} again: {error}", path.display()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::File { file, .. } => file.write_all(bytes),
        }
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

// === impl Output ===

impl Output {
    pub(super) fn start(place: Place, settings: &LoggingSettings) -> Arc<Self> {
        let output = Arc::new(Self {
            most_lines: settings.drop_mode_qlen,
            burst: settings.burst_limit_enable.then(Mutex::default),
            untold: AtomicU64::new(0),
            queue: Mutex::default(),
            changed: Condvar::new(),
        });
        let writer = output.clone();
        std::thread::spawn(move || writer.run(place));
        output
    }

    /// Whether a line may be made now, and how many were dropped before it that nobody was told of.
    pub(super) fn admit(&self, second: i64, bounded: bool) -> Option<u64> {
        if let (Some(burst), true) = (&self.burst, bounded) {
            let mut burst = burst.lock().unwrap_or_else(PoisonError::into_inner);
            if burst.second != second {
                *burst = Burst { second, passed: 0 };
            }
            if burst.passed >= BURST {
                drop(burst);
                self.count(1);
                return None;
            }
            burst.passed += 1;
        }
        Some(match self.untold.load(Relaxed) {
            0 => 0,
            _ => self.untold.swap(0, Relaxed),
        })
    }

    /// A whole line, its end included.
    pub(super) fn push(&self, line: &[u8]) {
        let mut queue = self.lock();
        if queue.lines >= self.most_lines || queue.bytes.len() + line.len() > MOST_BYTES {
            drop(queue);
            return self.count(1);
        }
        queue.bytes.extend_from_slice(line);
        queue.lines += 1;
        let first = queue.lines == 1;
        drop(queue);
        if first {
            self.changed.notify_all();
        }
    }

    pub(super) fn reopen(&self) {
        self.lock().reopen = true;
        self.changed.notify_all();
    }

    /// Waits until all is written, though not for ever.
    pub(super) fn finish(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(queue, LAST_WORDS, |queue| !queue.finished);
        drop(waited);
    }

    fn count(&self, lines: u64) {
        DROPPED.fetch_add(lines, Relaxed);
        self.untold.fetch_add(lines, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut place: Place) {
        let mut batch = Vec::new();
        loop {
            let queue = self.lock();
            let idle = |queue: &mut Queue| queue.lines == 0 && !queue.reopen && !queue.closed;
            let waited = self.changed.wait_while(queue, idle);
            let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
            batch.clear();
            std::mem::swap(&mut batch, &mut queue.bytes);
            let lines = std::mem::take(&mut queue.lines);
            let reopen = std::mem::take(&mut queue.reopen);
            if lines == 0 && !reopen {
                queue.finished = true;
                drop(queue);
                return self.changed.notify_all();
            }
            drop(queue);
            // What was logged before the signal still belongs where the file was moved to.
            if !batch.is_empty() && place.write(&batch).is_err() {
                self.count(lines as u64);
            }
            if reopen {
                place.reopen();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(place: Place, change: impl FnOnce(&mut LoggingSettings)) -> Arc<Output> {
        let mut settings = LoggingSettings::default();
        change(&mut settings);
        Output::start(place, &settings)
    }

    #[test]
    fn lines_up_to_info_are_bounded_by_the_second_and_the_next_one_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = || Place::file(folder.path().join("log.json")).expect("a file");
        let bounded = output(place(), |_| {});
        for line in 0..BURST {
            assert_eq!(bounded.admit(1, true), Some(0), "{line}");
        }
        assert_eq!(bounded.admit(1, true), None);
        assert_eq!(bounded.admit(1, true), None);
        assert_eq!(bounded.admit(1, false), Some(2), "a warning passes, and says what is missing");
        assert_eq!(bounded.admit(2, true), Some(0));
        let unbounded = output(place(), |settings| settings.burst_limit_enable = false);
        for _ in 0..=BURST {
            assert_eq!(unbounded.admit(1, true), Some(0));
        }
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_pushed_is_written_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log.json");
        let output = output(Place::file(path.clone()).expect("a file"), |settings| settings.drop_mode_qlen = 2);
        {
            // Nothing is written while this is held.
            let mut queue = output.lock();
            queue.lines = 2;
            queue.bytes.extend_from_slice(b"a\nb\n");
        }
        let dropped = DROPPED.load(Relaxed);
        output.finish();
        assert_eq!(std::fs::read_to_string(&path).expect("a log"), "a\nb\n");
        // The thread is gone, so what comes now stays.
        output.push(b"c\n");
        output.push(b"d\n");
        output.push(b"e\n");
        assert_eq!(output.untold.load(Relaxed), 1);
        assert!(DROPPED.load(Relaxed) > dropped);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, moved) = (folder.path().join("log.json"), folder.path().join("log.json.1"));
        let output = output(Place::file(path.clone()).expect("a file"), |_| {});
        output.push(b"before\n");
        std::fs::rename(&path, &moved).expect("it is moved");
        output.reopen();
        // The reopening is over when the flag is down and the thread asks for more.
        while !path.exists() {
            std::thread::yield_now();
        }
        output.push(b"after\n");
        output.finish();
        assert_eq!(std::fs::read_to_string(&moved).expect("the old log"), "before\n");
        assert_eq!(std::fs::read_to_string(&path).expect("the new log"), "after\n");
    }
}
