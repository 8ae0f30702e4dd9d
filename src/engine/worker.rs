//! The task that owns a loaded machine and works off its queue, one step at a time.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::cache::Cached;
use super::error::EngineError;
use super::namespace::{Admitted, NamespaceEngine, Ticket};
use super::registry::{Cell, Seat};
use super::{NamespaceOptions, Request, Shared};
use crate::clock::Stopwatch;
use crate::machine::{
    Dispatch, Impact, MachineKey, NotificationId, Record, RequestContext, Status, Success, Wake, dispatch, wishes,
};

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
    /// Something may be due.
    Wake(Box<Ticket>),
    /// Memory is wanted elsewhere.
    Shed,
}

/// A step that waits for the machine's turn.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) impact: Impact,
    pub(super) request: Request,
    pub(super) reply: Reply,
    pub(super) admitted: Admitted,
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
    left: bool,
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

/// However the worker ends.
impl Drop for Worker {
    fn drop(&mut self) {
        if !self.left {
            // Those who pass the queue by must not be shown what nobody keeps up.
            self.forget();
            self.namespace.shared.budget.forget(&self.key);
        }
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
        let Seat { queue, cell } = seat;
        Self { namespace, key, queue, cell, loading: Some(loading), scheduled: None, left: false }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.namespace.shared
    }

    pub(super) async fn run(mut self) {
        while let Some(message) = self.next().await {
            match message {
                Message::Step(queued) => self.work_off(*queued).await,
                Message::Wake(ticket) => self.wake_up(*ticket).await,
                Message::Shed => {
                    self.forget();
                    self.shared().budget.forget(&self.key);
                    if self.leave() {
                        return;
                    }
                }
            }
            self.loading = None;
            if let Some(size) = self.cached(Cached::size) {
                self.namespace.touch(&self.key, size);
            }
        }
    }

    async fn work_off(&mut self, queued: Queued) {
        let Queued { impact, request, reply, admitted } = queued;
        // Whoever asked is told that the time is over: what was not begun is dropped.
        if self.shared().clock.now() >= request.deadline {
            tracing::warn!(ns = self.key.ns.as_str(), id = %self.key.id, "dropped a request whose deadline passed while it waited");
            drop(admitted);
            return reply.send(Err(EngineError::TimedOut));
        }
        let answer = AssertUnwindSafe(self.take(impact, &request)).catch_unwind().await;
        let answer = answer.unwrap_or_else(|_| {
            self.panicked();
            Err(EngineError::Killed)
        });
        self.reschedule();
        drop(admitted);
        reply.send(answer);
    }

    async fn wake_up(&mut self, ticket: Ticket) {
        // The schedule has taken the due out.
        self.scheduled = None;
        self.namespace.metrics.task_started.inc();
        let woken = AssertUnwindSafe(self.wake(ticket.told)).catch_unwind().await;
        let woken = woken.unwrap_or_else(|_| {
            self.panicked();
            Woken::Postponed
        });
        self.namespace.metrics.task_finished.inc();
        // INVARIANT: the ticket goes before the schedule is told: while it is out, the machine is not woken again.
        match woken {
            Woken::Done => {
                ticket.worked_off();
                self.reschedule();
            }
            Woken::Again => {
                ticket.worked_off();
                self.reschedule();
                self.namespace.schedule.wake_at(&self.key.id, self.shared().clock.now());
            }
            Woken::Postponed => {
                drop(ticket);
                // What is due already waits with the wake-up that was put off; the rest does not.
                let now = self.shared().clock.now();
                let later = |record: &Record| self.wishes(record).map(|(due, _)| due).filter(|due| *due > now).min();
                let due = self.record().as_deref().and_then(later);
                self.tell(due);
            }
        }
    }

    /// The step ended in the middle of anything: what is held is read again.
    fn panicked(&self) {
        tracing::error!(ns = self.key.ns.as_str(), id = %self.key.id, "a step panicked");
        self.forget();
    }

    /// The next message; none once the machine is idle for long enough, or the service stops.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Ok(message) = self.queue.try_recv() {
                return self.unless_stopping(message);
            }
            let Shared { clock, stopping, .. } = &*self.namespace.shared;
            let until = clock.now().saturating_add(self.namespace.options.unload_ms);
            let message = tokio::select! {
                biased;
                message = self.queue.recv() => message,
                () = stopping.cancelled() => None,
                () = clock.sleep_until(until) => None,
            };
            match message {
                Some(message) => return self.unless_stopping(message),
                None if self.leave() => return None,
                // A message came in between.
                None => {}
            }
        }
    }

    /// While the service stops, what waits is refused; what runs has ended before this is asked.
    fn unless_stopping(&mut self, mut message: Message) -> Option<Message> {
        while self.shared().stopping.is_cancelled() {
            if let Message::Step(queued) = message {
                let Queued { reply, admitted, .. } = *queued;
                drop(admitted);
                reply.send(Err(EngineError::Stopping));
            }
            message = loop {
                match self.queue.try_recv() {
                    Ok(next) => break next,
                    Err(_) if self.leave() => return None,
                    // A message came in between.
                    Err(_) => {}
                }
            };
        }
        Some(message)
    }

    /// True: nothing waits, and nothing can come any more.
    fn leave(&mut self) -> bool {
        let budget = &self.namespace.shared.budget;
        self.left = self.namespace.registry().leave(&self.key.id, &self.queue, || budget.forget(&self.key));
        self.left
    }

    /// The first load is done, well or not.
    pub(super) fn loaded(&mut self) {
        self.loading = None;
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

    fn record(&self) -> Option<Arc<Record>> {
        self.cached(|cached| cached.record.clone()).flatten()
    }

    /// Tells the schedule of the record's due.
    fn reschedule(&mut self) {
        let due = self.record().as_deref().and_then(|record| self.wishes(record).map(|(due, _)| due).min());
        self.tell(due);
    }

    fn tell(&mut self, due: Option<i64>) {
        if due != self.scheduled {
            self.namespace.schedule.set(&self.key.id, due);
            self.scheduled = due;
        }
    }

    /// What the record wants to be woken for, without what the namespace has disabled.
    fn wishes(&self, record: &Record) -> impl Iterator<Item = (i64, Wake)> {
        let NamespaceOptions { timers, notifications, .. } = &self.namespace.options;
        let (timers, notifications) = (timers.is_some(), notifications.is_some());
        wishes(record).filter(move |(_, wake)| match wake {
            Wake::Timeout => timers,
            Wake::Notifications => notifications,
            Wake::Pay | Wake::Forget => true,
        })
    }

    fn request(&self, context: RequestContext, milliseconds: i64) -> Request {
        Request { context, deadline: self.shared().clock.now().saturating_add(milliseconds) }
    }

    /// Does one thing that is due, what has been due for longest. Who was told of more than the record's due looks for
    /// notifications too.
    async fn wake(&mut self, told: bool) -> Woken {
        let record = match self.load().await {
            Ok(Some(record)) => record,
            // Entries of a machine that is gone altogether.
            Ok(None) => return self.deliver(None).await,
            Err(error) => return self.postponed(&error),
        };
        let now = self.shared().clock.now();
        let due = self.wishes(&record).filter(|(due, _)| *due <= now).min_by_key(|(due, _)| *due);
        let woken = match due {
            Some((_, Wake::Pay)) => match self.pay(&record).await {
                Woken::Postponed => {
                    // A machine started over its tombstone does not wait for what that one owes.
                    let rest = Record { debts: Vec::new(), ..Record::clone(&record) };
                    let due = self.wishes(&rest).filter(|(due, _)| *due <= now).min_by_key(|(due, _)| *due);
                    if let Some((_, Wake::Timeout)) = due {
                        self.time_out(&record).await;
                    } else if record.exists() {
                        self.deliver(Some(record)).await;
                    }
                    return Woken::Postponed;
                }
                woken => woken,
            },
            Some((_, Wake::Forget)) => {
                self.conclude(&record, Impact::Forget, RequestContext::default(), HOUSEKEEPING_MS).await
            }
            Some((_, Wake::Timeout)) => self.time_out(&record).await,
            Some((_, Wake::Notifications)) | None => return self.deliver(Some(record)).await,
        };
        if told && matches!(woken, Woken::Done) { Woken::Again } else { woken }
    }

    async fn pay(&mut self, record: &Arc<Record>) -> Woken {
        for debt in &record.debts {
            let paid = self.shared().storage.delete_epoch(&self.key, debt.epoch, debt.last_event).await;
            if let Err(error) = paid {
                return self.postponed(&error.into());
            }
        }
        self.conclude(record, Impact::Paid, RequestContext::default(), HOUSEKEEPING_MS).await
    }

    async fn time_out(&mut self, record: &Arc<Record>) -> Woken {
        let context = record.timer.as_ref().map(|timer| timer.context.clone()).unwrap_or_default();
        self.conclude(record, Impact::Timeout, context, self.namespace.options.timer_processing_ms).await
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
        let ids: Vec<_> = waiting.iter().map(|it| it.id).collect();
        if held_back.is_some_and(|due| due > self.shared().clock.now()) {
            // One failed a moment ago and holds back the rest, those that came after it too.
            return self.settle(&[], &ids).await;
        }
        let more = if waiting.len() > 1 { Woken::Again } else { Woken::Done };
        let Some(first) = waiting.into_iter().next() else {
            return match record {
                Some(record) if held_back.is_some() && matches!(record.status, Status::Working(_)) => {
                    self.conclude(&record, Impact::Drained, RequestContext::default(), HOUSEKEEPING_MS).await
                }
                _ => Woken::Done,
            };
        };
        let (id, context, impact) = (first.id, first.context.clone(), Impact::Notification(first));
        match (dispatch(record.as_deref(), &impact, self.shared().clock.now()), record) {
            (Dispatch::Park, _) => {
                self.namespace.metrics.notification_error.inc();
                self.settle(&[], &ids).await
            }
            (Dispatch::Ask, Some(record)) => {
                let request = self.request(context, NOTIFICATION_PROCESSING_MS);
                let answer = self.once_measured(Some(&record), &impact, &request, &ids).await;
                match answer {
                    Ok(Some(_)) => {
                        self.namespace.metrics.notification_success.inc();
                        more
                    }
                    answer => {
                        self.namespace.metrics.notification_error.inc();
                        self.concluded(&record, answer)
                    }
                }
            }
            (_, _) => match self.settle(&[id], &[]).await {
                Woken::Done => more,
                woken => woken,
            },
        }
    }

    /// Entries that go, and entries for which the record's due stands from now on.
    async fn settle(&self, delete: &[NotificationId], park: &[NotificationId]) -> Woken {
        if delete.is_empty() && park.is_empty() {
            return Woken::Done;
        }
        match self.shared().storage.settle_notifications(&self.key, delete, park).await {
            Ok(()) => Woken::Done,
            Err(error) => self.postponed(&error.into()),
        }
    }

    /// Takes the step that `record` was woken for.
    async fn conclude(
        &mut self,
        record: &Arc<Record>,
        impact: Impact,
        context: RequestContext,
        milliseconds: i64,
    ) -> Woken {
        let request = self.request(context, milliseconds);
        let answer = self.once_measured(Some(record), &impact, &request, &[]).await;
        self.concluded(record, answer)
    }

    fn concluded(&self, record: &Record, answer: Result<Option<Success>, EngineError>) -> Woken {
        match answer {
            Ok(Some(_)) => Woken::Done,
            // What was true of the record that was woken need not be true of the one that stands there now.
            Ok(None) => {
                self.conflict();
                Woken::Again
            }
            Err(error) => match self.record() {
                // The rules have said what comes next, and it is committed.
                Some(now) if now.commit != record.commit => Woken::Done,
                _ => self.postponed(&error),
            },
        }
    }

    fn postponed(&self, error: &EngineError) -> Woken {
        tracing::warn!(ns = self.key.ns.as_str(), id = %self.key.id, %error, "a wake-up is put off");
        Woken::Postponed
    }

    /// A step that was asked for, with its metrics.
    async fn take(&mut self, impact: Impact, request: &Request) -> Result<Success, EngineError> {
        let watch = self.begun(&impact);
        let answer = self.step(&impact, request).await;
        self.ended(&impact, watch);
        answer
    }

    async fn once_measured(
        &mut self,
        record: Option<&Arc<Record>>,
        impact: &Impact,
        request: &Request,
        waiting: &[NotificationId],
    ) -> Result<Option<Success>, EngineError> {
        let watch = self.begun(impact);
        let answer = self.once(record, impact, request, waiting).await;
        self.ended(impact, watch);
        answer
    }

    fn begun(&self, impact: &Impact) -> Stopwatch {
        self.namespace.metrics.impact(impact.name()).started.inc();
        Stopwatch::start()
    }

    fn ended(&self, impact: &Impact, watch: Stopwatch) {
        let metrics = self.namespace.metrics.impact(impact.name());
        metrics.finished.inc();
        metrics.duration.observe(watch.elapsed().as_secs_f64());
    }
}
