//! The one thread that writes: it takes all that waits as one batch, syncs it once, then answers.
//!
//! While a batch is being synced the next one fills in the queue, already encoded by its callers. Nothing waits for a
//! batch to fill: a lone caller's write costs one sync, many callers share it.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use fjall::PersistMode;
use tokio::sync::{mpsc, oneshot, watch};

use super::draft::Draft;
use super::engine::{Engine, panic_text};
use super::space::Space;
use super::stats::WriterStats;
use super::work::Request;
use crate::clock::Stopwatch;
use crate::failpoint::{self, Failpoint};
use crate::machine::CommitId;
use crate::storage::{Outcome, StorageError};
use crate::telemetry::log::CRITICAL;

/// The most writes that one batch takes.
const MAX_WRITES: usize = 1024;

/// A batch is written when it holds so many bytes: a memtable holds some of them, and answers should not wait for more.
const MAX_BYTES: usize = 8 << 20;

pub struct Writer {
    pub engine: Engine,
    pub queue: mpsc::Receiver<Request>,
    pub space: Space,
    pub stats: Arc<WriterStats>,
    /// Tells the service, once, why it must stop.
    pub failure: Arc<watch::Sender<Option<StorageError>>>,
    #[cfg(test)]
    pub fault: Arc<std::sync::atomic::AtomicBool>,
}

/// A write in the present batch: answered after the sync.
struct Staged {
    answer: oneshot::Sender<Outcome>,
    commit: Option<CommitId>,
    outcome: Outcome,
}

/// Why nothing is written any more.
struct Failed {
    error: StorageError,
    /// The commits that may have been written and may not: they stay unknown, however often they are put again.
    unknown: Unknown,
}

enum Unknown {
    These(HashSet<CommitId>),
    All,
}

// === impl Writer ===

impl Writer {
    /// Returns when the queue is closed and all that was in it is answered.
    pub fn run(mut self) {
        let mut requests = Vec::with_capacity(MAX_WRITES);
        while self.queue.blocking_recv_many(&mut requests, MAX_WRITES) > 0 {
            // A panic inside the engine leaves it in an unknown state: fatal, like any of its errors.
            requests.reverse();
            let written = catch_unwind(AssertUnwindSafe(|| self.write(&mut requests)));
            let failed = match written {
                Ok(Ok(())) => continue,
                Ok(Err(failed)) => failed,
                Err(panic) => Failed { error: StorageError::Unavailable(panic_text(&*panic)), unknown: Unknown::All },
            };
            tracing::event!(
                target: CRITICAL,
                tracing::Level::ERROR,
                error.class = "error",
                error.reason = %failed.error,
                "the embedded store has failed: nothing is written any more"
            );
            self.failure.send_replace(Some(failed.error.clone()));
            return self.refuse(requests, &failed);
        }
        if let Err(error) = self.engine.db.persist(PersistMode::SyncAll) {
            tracing::error!(error.reason = %error, "the last sync of the embedded store failed");
        }
    }

    /// Works `requests` off from its end; what is left with an error was not tried.
    fn write(&mut self, requests: &mut Vec<Request>) -> Result<(), Failed> {
        let engine = self.engine.clone();
        let mut draft = Draft::new(&engine);
        let mut staged: Vec<Staged> = Vec::new();
        while let Some(Request { work, answer }) = requests.pop() {
            let commit = work.commit_id();
            match work.stage(&mut draft, &mut self.space, &self.stats) {
                Ok(outcome) => staged.push(Staged { answer, commit, outcome }),
                Err(error) => {
                    // This one was not even drafted, and the draft is never written.
                    let error = StorageError::Unavailable(error.to_string());
                    let this = Staged { answer, commit, outcome: Outcome::Refused(error.clone()) };
                    staged.into_iter().chain([this]).for_each(|it| {
                        self.answer(it.answer, Outcome::Refused(error.clone()));
                    });
                    return Err(Failed { error, unknown: Unknown::These(HashSet::new()) });
                }
            }
            if draft.bytes() >= MAX_BYTES {
                self.sync(std::mem::replace(&mut draft, Draft::new(&engine)), std::mem::take(&mut staged))?;
            }
        }
        self.sync(draft, staged)
    }

    /// IMPORTANT: nothing is answered before the sync, conflicts neither: what they conflict with may be in this batch.
    fn sync(&mut self, draft: Draft<'_>, staged: Vec<Staged>) -> Result<(), Failed> {
        if !draft.is_empty() {
            let bytes = draft.bytes();
            let watch = Stopwatch::start();
            self.stats.syncing.store(true, Relaxed);
            failpoint::reached(Failpoint::BatchDrafted);
            let done = self.commit(draft);
            self.stats.syncing.store(false, Relaxed);
            if let Err(error) = done {
                return Err(self.answer_unknown(staged, &error));
            }
            failpoint::reached(Failpoint::BatchSynced);
            self.stats.synced(staged.len(), bytes, watch.elapsed());
        }
        for it in staged {
            self.answer(it.answer, it.outcome);
        }
        Ok(())
    }

    fn commit(&self, draft: Draft<'_>) -> fjall::Result<()> {
        #[cfg(test)]
        if self.fault.load(Relaxed) {
            return Err(fjall::Error::Poisoned);
        }
        draft.commit()
    }

    fn answer_unknown(&self, staged: Vec<Staged>, error: &fjall::Error) -> Failed {
        let error = StorageError::Unavailable(error.to_string());
        let unknown = staged.iter().filter_map(|it| it.commit).collect();
        for it in staged {
            let outcome = match it.outcome {
                Outcome::Refused(error) => Outcome::Refused(error),
                _ => Outcome::Unknown(error.clone()),
            };
            self.answer(it.answer, outcome);
        }
        Failed { error, unknown: Unknown::These(unknown) }
    }

    /// Answers for the rest of the store's life.
    fn refuse(mut self, mut requests: Vec<Request>, failed: &Failed) {
        loop {
            for request in requests.drain(..) {
                let error = failed.error.clone();
                let unknown = match (&failed.unknown, request.work.commit_id()) {
                    (Unknown::All, _) => true,
                    (Unknown::These(commits), Some(commit)) => commits.contains(&commit),
                    (Unknown::These(_), None) => false,
                };
                let outcome = if unknown { Outcome::Unknown(error) } else { Outcome::Refused(error) };
                self.answer(request.answer, outcome);
            }
            if self.queue.blocking_recv_many(&mut requests, MAX_WRITES) == 0 {
                return;
            }
        }
    }

    fn answer(&self, answer: oneshot::Sender<Outcome>, outcome: Outcome) {
        self.stats.answered(outcome != Outcome::Committed);
        // Whoever asked may have gone; the write stands all the same.
        let _ = answer.send(outcome);
    }
}
