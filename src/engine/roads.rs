//! The ways from one machine to its sinks, and the delivery that is on each.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use super::backlog::{Backlog, Owed, Share, Stuck};
use super::delivery::{Job, Reins, Sent};
use crate::clock::random_unit;
use crate::machine::retry::RetryPolicy;

/// The least time until a delivery that failed is tried again, whatever the policy says: it is tried for ever.
const LEAST_RETRY: Duration = Duration::from_millis(10);

pub(super) struct Roads {
    /// As tasks of their own.
    pub(super) under_way: JoinSet<Sent>,
    /// Handed over already; nobody polls them but the worker. Locked by nobody else either: without the lock, whoever
    /// shared the worker would share them.
    handed: Mutex<Vec<BoxFuture<'static, Sent>>>,
    /// One for each of the namespace's sinks, in their order.
    pub(super) roads: Vec<Road>,
}

/// The way to one sink.
pub(super) struct Road {
    pub(super) share: Share,
    pub(super) delivery: Option<Delivering>,
}

/// A delivery that is under way, or waits for its next attempt.
pub(super) struct Delivering {
    /// How often it has failed in a row, since when (unix milliseconds), and how many of the policy's retries were used up.
    pub(super) attempt: u32,
    failing_since: Option<i64>,
    retries: u32,
    /// See [`Unsent`].
    pub(super) behind: i64,
    _owed: Owed,
    /// The last attempt failed for what only somebody's mending helps.
    pub(super) stuck: Option<Stuck>,
    /// None: it is handed over already.
    pub(super) reins: Option<Arc<Reins>>,
}

// === impl Roads ===

impl Roads {
    pub(super) fn new(backlogs: &[Arc<Backlog>]) -> Box<Self> {
        let road = |backlog: &Arc<Backlog>| Road { share: Share::new(backlog.clone()), delivery: None };
        let roads = backlogs.iter().map(road).collect();
        Box::new(Self { under_way: JoinSet::new(), handed: Mutex::default(), roads })
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty() && self.handed.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn handed(&mut self) -> &mut Vec<BoxFuture<'static, Sent>> {
        self.handed.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polled once, it is handed over.
    pub(super) fn hand(&mut self, job: Job) {
        let mut delivery = job.run_promptly().boxed();
        self.handed().push(match (&mut delivery).now_or_never() {
            Some(sent) => std::future::ready(sent).boxed(),
            None => delivery,
        });
    }

    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Sent> {
        let handed = self.handed();
        for place in 0..handed.len() {
            if let Poll::Ready(sent) = handed[place].poll_unpin(context) {
                drop(handed.swap_remove(place));
                return Poll::Ready(sent);
            }
        }
        match self.under_way.poll_join_next(context) {
            Poll::Ready(Some(Ok(sent))) => Poll::Ready(sent),
            // A task catches panics itself, and is aborted only together with the worker.
            Poll::Ready(Some(Err(_)) | None) | Poll::Pending => Poll::Pending,
        }
    }
}

// === impl Delivering ===

impl Delivering {
    pub(super) fn new(behind: i64, owed: Owed, reins: Option<Arc<Reins>>) -> Self {
        Self { attempt: 0, failing_since: None, retries: 0, behind, _owed: owed, stuck: None, reins }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.attempt == 0 || self.reins.as_ref().is_none_or(|reins| reins.has_begun())
    }

    /// Until the next attempt. A debt is tried for ever, so past the policy's end its last delay goes on.
    pub(super) fn delay(&mut self, policy: &RetryPolicy, now: i64) -> Duration {
        let since = *self.failing_since.get_or_insert(now);
        let elapsed = Duration::from_millis(u64::try_from(now.saturating_sub(since)).unwrap_or(0));
        let delay = match policy.delay_after(self.retries, elapsed, random_unit()) {
            Some(delay) => {
                self.retries = self.retries.saturating_add(1);
                delay
            }
            None => policy.last_delay(self.retries, random_unit()),
        };
        delay.max(LEAST_RETRY)
    }
}
