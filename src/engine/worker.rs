//! The task that owns a loaded machine and works off its queue, one step at a time.

use std::sync::{Arc, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::cache::Cached;
use super::error::EngineError;
use super::namespace::NamespaceEngine;
use super::registry::{Cell, Seat};
use super::{Request, Shared};
use crate::clock::Stopwatch;
use crate::machine::{Impact, MachineKey, Record, RequestContext, Status, Success, Wake, wake};

/// Milliseconds that a processor has for a notification.
const NOTIFICATION_PROCESSING_MS: i64 = 5_000;

/// Milliseconds that the store has for steps that no processor is asked about.
const HOUSEKEEPING_MS: i64 = 60_000;

/// Notifications looked at together.
pub(super) const NOTIFICATION_PAGE: usize = 16;

#[derive(Debug)]
pub(super) enum Message {
    /// In a box: queues are many, and mostly empty.
    Step(Box<Queued>),
    /// Something may be due. The permit is the scheduler's bound on what is woken at once.
    Wake { _permit: OwnedSemaphorePermit },
    /// Memory is wanted elsewhere.
    Shed,
}

/// A step that waits for the machine's turn.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) impact: Impact,
    pub(super) request: Request,
    pub(super) reply: Reply,
}

/// Answers the one who waits, if they still do.
#[derive(Debug)]
pub(super) struct Reply(oneshot::Sender<Result<Success, EngineError>>);

pub(super) struct Worker {
    pub(super) namespace: Arc<NamespaceEngine>,
    pub(super) key: MachineKey,
    queue: mpsc::Receiver<Message>,
    cell: Cell,
    /// Held until the first load is done.
    loading: Option<OwnedSemaphorePermit>,
    /// What the schedule was last told, so that steps that change nothing don't touch it.
    scheduled: Option<i64>,
}

/// What a wake-up came to.
enum Woken {
    Done,
    /// There may be more to do at once.
    Again,
    /// A bound of ours or the store stood in the way.
    Postponed,
}

// === impl Reply ===

impl Reply {
    pub(super) fn new(sender: oneshot::Sender<Result<Success, EngineError>>) -> Self {
        Self(sender)
    }

    fn send(self, answer: Result<Success, EngineError>) {
        // Who does not wait any more was told that the result is unknown.
        let _ = self.0.send(answer);
    }
}

/// However the worker ends, by a panic too.
impl Drop for Worker {
    fn drop(&mut self) {
        self.namespace.shared.budget.forget(&self.key);
        self.namespace.metrics.workers.dec();
        self.namespace.metrics.unloaded.inc();
    }
}

// === impl Worker ===

impl Worker {
    pub(super) fn new(
        namespace: Arc<NamespaceEngine>,
        key: MachineKey,
        seat: Seat,
        loading: OwnedSemaphorePermit,
    ) -> Self {
        namespace.metrics.workers.inc();
        Self { namespace, key, queue: seat.queue, cell: seat.cell, loading: Some(loading), scheduled: None }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.namespace.shared
    }

    pub(super) async fn run(mut self) {
        while let Some(message) = self.next().await {
            match message {
                Message::Step(queued) => {
                    let Queued { impact, request, reply } = *queued;
                    // Whoever asked has been told that the time is over: what was not begun is dropped.
                    if self.shared().clock.now() >= request.deadline {
                        tracing::warn!(ns = self.key.ns.as_str(), id = %self.key.id, "dropped a request whose deadline passed while it waited");
                        continue;
                    }
                    let answer = self.take(impact, &request).await;
                    self.reschedule();
                    reply.send(answer);
                }
                Message::Wake { _permit } => {
                    // The schedule has taken the due out.
                    self.scheduled = None;
                    self.namespace.metrics.task_started.inc();
                    match self.wake().await {
                        Woken::Done => self.reschedule(),
                        Woken::Again => {
                            self.reschedule();
                            self.namespace.schedule.offer(&self.key.id, i64::MIN);
                        }
                        Woken::Postponed => {
                            self.namespace.metrics.task_error.inc();
                            self.namespace.postpone(&self.key.id);
                        }
                    }
                    self.namespace.metrics.task_finished.inc();
                }
                Message::Shed => self.forget(),
            }
            self.loading = None;
            if let Some(size) = self.cached(Cached::size) {
                self.namespace.touch(&self.key, size);
            }
        }
    }

    /// The next message; none once the machine is idle for long enough, or the service stops.
    async fn next(&mut self) -> Option<Message> {
        if let Ok(message) = self.queue.try_recv() {
            return self.unless_stopping(message);
        }
        loop {
            let stopping = self.namespace.shared.stopping.clone();
            let until = self.shared().clock.now().saturating_add(self.namespace.options.unload_ms);
            let clock = self.namespace.shared.clock.clone();
            let message = tokio::select! {
                biased;
                message = self.queue.recv() => message,
                () = stopping.cancelled() => None,
                () = clock.sleep_until(until) => None,
            };
            match message {
                Some(message) => return self.unless_stopping(message),
                None if self.namespace.registry().leave(&self.key.id, &self.queue) => return None,
                // A message came in between.
                None => {}
            }
        }
    }

    /// While the service stops, what waits is refused; what runs has ended before this is asked.
    fn unless_stopping(&mut self, mut message: Message) -> Option<Message> {
        while self.shared().stopping.is_cancelled() {
            if let Message::Step(queued) = message {
                queued.reply.send(Err(EngineError::Stopping));
            }
            match self.queue.try_recv() {
                Ok(next) => message = next,
                Err(_) if self.namespace.registry().leave(&self.key.id, &self.queue) => return None,
                Err(_) => match self.queue.try_recv() {
                    Ok(next) => message = next,
                    Err(_) => return None,
                },
            }
        }
        Some(message)
    }

    /// What is held, if the machine is loaded.
    pub(super) fn cached<T>(&self, look: impl FnOnce(&Cached) -> T) -> Option<T> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(look)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Option<Cached>)) {
        change(&mut self.cell.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Drops what is held: the next step reads it again.
    pub(super) fn forget(&self) {
        self.change(|cell| *cell = None);
    }

    /// Tells the schedule of the record's due, if it changed.
    fn reschedule(&mut self) {
        let record = self.cached(|cached| cached.record.clone()).flatten();
        let due = record.as_ref().and_then(|record| self.due(record));
        if due != self.scheduled {
            self.namespace.schedule.set(&self.key.id, due);
            self.scheduled = due;
        }
    }

    /// The record's due, without what the namespace has disabled.
    fn due(&self, record: &Record) -> Option<i64> {
        let due = record.due()?;
        match wake(record, due) {
            Some(Wake::Timeout) if self.namespace.options.timers.is_none() => None,
            Some(Wake::Notifications) if self.namespace.options.notifications.is_none() => None,
            _ => Some(due),
        }
    }

    fn request(&self, context: RequestContext, milliseconds: i64) -> Request {
        Request { context, deadline: self.shared().clock.now().saturating_add(milliseconds) }
    }

    /// Does one thing that is due.
    async fn wake(&mut self) -> Woken {
        let record = match self.load().await {
            Ok(Some(record)) => record,
            // Entries of a machine that is gone altogether.
            Ok(None) => return self.deliver(None).await,
            Err(error) => return self.postponed(&error),
        };
        let now = self.shared().clock.now();
        match wake(&record, now) {
            Some(Wake::Pay) => {
                for debt in &record.debts {
                    if let Err(error) = self.shared().storage.delete_epoch(&self.key, debt.epoch, debt.last_event).await
                    {
                        return self.postponed(&error.into());
                    }
                }
                self.housekeep(Impact::Paid).await
            }
            Some(Wake::Forget) => self.housekeep(Impact::Forget).await,
            Some(Wake::Timeout) if self.namespace.options.timers.is_some() => {
                let context = record.timer.as_ref().map(|timer| timer.context.clone()).unwrap_or_default();
                let request = self.request(context, self.namespace.options.timer_processing_ms);
                self.after(&record, Impact::Timeout, request).await
            }
            _ => self.deliver(Some(record)).await,
        }
    }

    async fn housekeep(&mut self, impact: Impact) -> Woken {
        let request = self.request(RequestContext::default(), HOUSEKEEPING_MS);
        match self.take(impact, &request).await {
            Ok(_) => Woken::Done,
            Err(error) => self.postponed(&error),
        }
    }

    /// Delivers the oldest notification that waits.
    async fn deliver(&mut self, record: Option<Arc<Record>>) -> Woken {
        if self.namespace.options.notifications.is_none() {
            return Woken::Done;
        }
        let waiting = match self.shared().storage.notifications(&self.key, NOTIFICATION_PAGE).await {
            Ok(waiting) => waiting,
            Err(error) => return self.postponed(&error.into()),
        };
        let held_back = record.as_ref().and_then(|record| record.notifications_due);
        if held_back.is_some_and(|due| due > self.shared().clock.now()) {
            // One failed a moment ago and holds back the rest, those that came after it too.
            return self.park(&waiting).await;
        }
        let Some(first) = waiting.first().cloned() else {
            return match record {
                Some(record) if held_back.is_some() && matches!(record.status, Status::Working(_)) => {
                    self.housekeep(Impact::Drained).await
                }
                _ => Woken::Done,
            };
        };
        let request = self.request(first.context.clone(), NOTIFICATION_PROCESSING_MS);
        let ids: Vec<_> = waiting.iter().map(|it| it.id).collect();
        match self.notification(first, ids, &request).await {
            Ok(()) if waiting.len() > 1 => Woken::Again,
            Ok(()) => Woken::Done,
            Err(error) => self.not_delivered(&error),
        }
    }

    /// The record's due stands for these entries from now on.
    async fn park(&self, waiting: &[crate::machine::Notification]) -> Woken {
        let ids: Vec<_> = waiting.iter().map(|it| it.id).collect();
        match self.shared().storage.settle_notifications(&self.key, &[], &ids).await {
            Ok(()) => Woken::Done,
            Err(error) => self.postponed(&error.into()),
        }
    }

    fn not_delivered(&self, error: &EngineError) -> Woken {
        self.namespace.metrics.notification_error.inc();
        self.settled_or_postponed(error)
    }

    /// Takes a timer's step; the record it was woken for tells whether the failure was noted in a commit.
    async fn after(&mut self, before: &Arc<Record>, impact: Impact, request: Request) -> Woken {
        match self.take(impact, &request).await {
            Ok(_) => Woken::Done,
            Err(error) => {
                let now = self.cached(|cached| cached.record.as_ref().map(|record| record.commit)).flatten();
                if now == Some(before.commit) { self.postponed(&error) } else { self.settled_or_postponed(&error) }
            }
        }
    }

    fn settled_or_postponed(&self, error: &EngineError) -> Woken {
        match error {
            // The rules have said what comes next, and it is committed.
            EngineError::Refused(_) => Woken::Done,
            _ => self.postponed(error),
        }
    }

    fn postponed(&self, error: &EngineError) -> Woken {
        tracing::warn!(ns = self.key.ns.as_str(), id = %self.key.id, %error, "a wake-up is put off");
        Woken::Postponed
    }

    /// One step with its metrics.
    async fn take(&mut self, impact: Impact, request: &Request) -> Result<Success, EngineError> {
        let watch = Stopwatch::start();
        let name = impact.name();
        self.namespace.metrics.impact(name).started.inc();
        let answer = self.step(impact, request).await;
        let metrics = self.namespace.metrics.impact(name);
        metrics.finished.inc();
        metrics.duration.observe(watch.elapsed().as_secs_f64());
        answer
    }
}
