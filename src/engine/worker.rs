//! The task that owns a loaded machine and works off its queue, one step at a time.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument, Span};

use super::cache::Cached;
use super::delivery::Sent;
use super::error::EngineError;
use super::namespace::{Admitted, NamespaceEngine, Ticket};
use super::outbox::Outbox;
use super::owner::Ownership;
use super::patience::{Begun, Store};
use super::registry::{Cell, Seat};
use super::schedule::Wanted;
use super::step::Ended;
use super::{Request, Shared};
use crate::clock::Stopwatch;
use crate::failpoint::{self, Failpoint};
use crate::machine::{Impact, MachineKey, NotificationId, Record, RequestContext, Success};
use crate::telemetry::metrics::Scheduler;
use crate::telemetry::metrics::Stored;
use crate::telemetry::scope;
use crate::telemetry::trace::{self, happened, traced};

#[derive(Debug)]
pub(super) enum Message {
    /// In a box: queues are many, and mostly empty.
    Step(Box<Queued>),
    /// Something may be due.
    Wake(Box<Ticket>),
    /// Memory is wanted elsewhere.
    Shed,
    /// The machine's shard goes to another instance, or has gone. The first is dropped once the worker is gone; until the
    /// second is cancelled nobody else has the shard.
    Release(TaskTrackerToken, Option<CancellationToken>),
}

/// A step that waits for the machine's turn.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) impact: Impact,
    pub(super) request: Request,
    pub(super) reply: Reply,
    pub(super) admitted: Admitted,
    pub(super) begun: Arc<Begun>,
    /// The step is taken in the scope of the request that asked for it.
    pub(super) scope: Span,
}

/// Answers the one who waits, if they still do.
#[derive(Debug)]
pub(super) struct Reply(oneshot::Sender<Result<Success, EngineError>>);

pub(super) struct Worker {
    pub(super) namespace: Arc<NamespaceEngine>,
    pub(super) key: MachineKey,
    queue: mpsc::Receiver<Message>,
    cell: Cell,
    pub(super) store: Store,
    /// Of the step that is being worked off, if somebody waits for it.
    begun: Option<Arc<Begun>>,
    /// Held until the first load is done.
    loading: Option<OwnedSemaphorePermit>,
    /// What the schedule was last told, so that steps that change nothing don't touch it.
    pub(super) scheduled: Option<Wanted>,
    left: bool,
    pub(super) outbox: Outbox,
    pub(super) ownership: Ownership,
    /// The step that is being answered has committed events, whatever its answer is.
    pub(super) committed_events: bool,
    /// The last turn was a delivery's end: the next one is a message's.
    yielded: bool,
    /// See `suicide_probability`.
    dying: bool,
}

/// What a worker turns to next.
enum Turn {
    Message(Message),
    /// A delivery to a sink ended.
    Sent(Sent),
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
        let ownership = Ownership::new(&namespace, &key);
        let Seat { queue, cell, store } = seat;
        Self {
            namespace,
            key,
            queue,
            cell,
            store,
            begun: None,
            loading: Some(loading),
            scheduled: None,
            left: false,
            outbox: Outbox::default(),
            ownership,
            committed_events: false,
            yielded: false,
            dying: false,
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.namespace.shared
    }

    pub(super) async fn run(mut self) {
        while let Some(turn) = self.next().await {
            let message = match turn {
                Turn::Message(message) => message,
                Turn::Sent(sent) => {
                    // Nobody waits for it.
                    let _ = self.sent(sent).await;
                    self.reschedule();
                    continue;
                }
            };
            match message {
                Message::Step(queued) => {
                    let scope = queued.scope.clone();
                    self.work_off(*queued).instrument(scope).await;
                }
                Message::Wake(ticket) => self.wake_up(*ticket).await,
                // The record stays while deliveries are under way: what becomes of them is known here alone. It is not
                // noted as used, or two such workers would tell each other to let go for ever.
                Message::Shed if !self.outbox.is_idle() => {
                    self.change(|cell| cell.iter_mut().for_each(Cached::shrink));
                    continue;
                }
                Message::Shed => {
                    self.note().await;
                    self.forget();
                    self.shared().budget.forget(&self.key);
                    if self.leave() {
                        return;
                    }
                }
                Message::Release(told, given) => self.ownership.release(told, given),
            }
            if self.dying {
                return self.die();
            }
            if self.ownership.is_released() && self.hand_over().await {
                return;
            }
            self.loading = None;
            if let Some(size) = self.cached(Cached::size) {
                self.namespace.touch(&self.key, size);
            }
        }
    }

    async fn work_off(&mut self, queued: Queued) {
        let Queued { impact, request, reply, admitted, begun, .. } = queued;
        // Whoever asked is told that the time is over: what was not begun is dropped.
        if self.shared().clock.now() >= request.deadline {
            tracing::warn!("dropped a request whose deadline passed while it waited");
            drop(admitted);
            return reply.send(Err(EngineError::TimedOut));
        }
        if !self.enter() {
            drop(admitted);
            return reply.send(Err(EngineError::NotOwner));
        }
        self.committed_events = false;
        self.begun = Some(begun);
        let answer = AssertUnwindSafe(self.take(&impact, &request)).catch_unwind().await;
        let mut answer = answer.unwrap_or_else(|_| {
            self.panicked();
            Err(EngineError::Killed)
        });
        self.begun = None;
        self.ship_awaited();
        if (answer.is_ok() || self.committed_events) && self.replies_wait() {
            answer = match self.acknowledged(request.deadline).await {
                Ok(()) => answer,
                Err(error) => Err(error),
            };
        }
        self.reschedule();
        drop(admitted);
        failpoint::reached_by(Failpoint::BeforeAnswer, &impact);
        reply.send(answer);
    }

    /// Waits for a request to the store, and so does the machine.
    pub(super) async fn stored<T>(&self, what: Stored, request: impl Future<Output = T>) -> T {
        let _awaited = self.store.awaited();
        self.namespace.stored(what, request).await
    }

    /// Before anybody is asked about a step or anything of it is put.
    pub(super) fn may_begin(&self) -> Result<(), EngineError> {
        match &self.begun {
            Some(begun) if !begun.begin() => Err(EngineError::TimedOut),
            _ => Ok(()),
        }
    }

    /// The step ended in the middle of anything: what is held is read again.
    pub(super) fn panicked(&self) {
        tracing::error!("a step panicked");
        self.forget();
    }

    /// What comes next; none once the machine is idle for long enough, or the service stops.
    async fn next(&mut self) -> Option<Turn> {
        loop {
            // By turns, so that neither a machine that is never idle keeps its sinks waiting, nor they its callers.
            if !std::mem::take(&mut self.yielded)
                && let Some(sent) = self.outbox.try_next()
            {
                self.yielded = true;
                return Some(Turn::Sent(sent));
            }
            if let Ok(message) = self.queue.try_recv() {
                return self.unless_stopping(message).await.map(Turn::Message);
            }
            let Shared { clock, stopping, .. } = &*self.namespace.shared;
            let until = clock.now().saturating_add(self.namespace.options.unload_ms);
            let idle = self.outbox.is_idle();
            let message = tokio::select! {
                biased;
                message = self.queue.recv() => message,
                () = stopping.cancelled() => None,
                sent = self.outbox.next(), if !idle => {
                    self.yielded = true;
                    return Some(Turn::Sent(sent));
                }
                () = clock.sleep_until(until), if idle => None,
            };
            match message {
                Some(message) => return self.unless_stopping(message).await.map(Turn::Message),
                None if self.depart().await => return None,
                // A message came in between.
                None => {}
            }
        }
    }

    /// While the service stops, what waits is refused; what runs has ended before this is asked.
    async fn unless_stopping(&mut self, mut message: Message) -> Option<Message> {
        while self.shared().stopping.is_cancelled() {
            match message {
                Message::Step(queued) => {
                    let Queued { reply, admitted, .. } = *queued;
                    drop(admitted);
                    reply.send(Err(EngineError::Stopping));
                }
                Message::Release(told, given) => self.ownership.release(told, given),
                Message::Wake(_) | Message::Shed => {}
            }
            message = loop {
                match self.queue.try_recv() {
                    Ok(next) => break next,
                    Err(_) if self.depart().await => return None,
                    // A message came in between.
                    Err(_) => {}
                }
            };
        }
        Some(message)
    }

    /// As `leave`, with nothing left to tell the store.
    async fn depart(&mut self) -> bool {
        if self.shared().stopping.is_cancelled() {
            self.hear_out().await;
        }
        self.note().await;
        self.leave()
    }

    /// True: nothing waits, and nothing can come any more.
    pub(super) fn leave(&mut self) -> bool {
        let budget = &self.namespace.shared.budget;
        self.left = self.namespace.registry().leave(&self.key.id, &self.queue, || budget.forget(&self.key));
        self.left
    }

    /// As if the process had ended here, for this machine alone: whoever waits for it is told that the result is unknown,
    /// and another worker begins with what is stored.
    fn die(mut self) {
        self.forget();
        let budget = &self.namespace.shared.budget;
        self.namespace.registry().abandon(&self.key.id, || budget.forget(&self.key));
        self.left = true;
        // What it owes, and what it was due for, must not wait for a scan.
        self.namespace.postpone(&self.key.id, Scheduler::Timers);
    }

    /// True: the worker dies now, before anything of the step is stored.
    pub(super) fn commits_suicide(&mut self) -> bool {
        self.dying = self.namespace.options.suicide.as_ref().is_some_and(|wants| wants());
        if self.dying {
            self.namespace.metrics.committed_suicide.inc();
            happened!("machine committed suicide");
            tracing::info!(
                mg_pulse_event_id = "mg_core_machine_lifecycle_committed_suicide",
                "machine has committed suicide, as suicide_probability has it"
            );
        }
        self.dying
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

    pub(super) fn record(&self) -> Option<Arc<Record>> {
        self.cached(|cached| cached.record.clone()).flatten()
    }

    /// Tells the schedule of the record's due. If none is held, what it was told last still stands.
    pub(super) fn reschedule(&mut self) {
        if let Some(record) = self.cached(|cached| cached.record.clone()) {
            let wanted = record.as_deref().and_then(|record| self.wanted(record, None));
            self.tell(wanted);
        }
    }

    pub(super) fn tell(&mut self, wanted: Option<Wanted>) {
        // What another instance will wake is not held here.
        let wanted = wanted.filter(|_| self.is_owned());
        if wanted != self.scheduled {
            self.namespace.schedule.set(&self.key.id, wanted);
            self.scheduled = wanted;
        }
    }

    /// The scope of work that no request waits for, under the ids of the request that asked for it back then.
    pub(super) fn scope(&self, context: &RequestContext) -> Span {
        let scope = scope::woken(&context.trace_id, &context.span_id, self.key.ns.as_str(), self.key.id.as_bytes());
        trace::arrive(&scope, context.trace.iter().map(|(name, value)| (&name[..], &value[..])));
        scope
    }

    pub(super) fn request(&self, context: RequestContext, milliseconds: i64) -> Request {
        Request { context, deadline: self.shared().clock.now().saturating_add(milliseconds) }
    }

    /// A step that was asked for, with its metrics.
    async fn take(&mut self, impact: &Impact, request: &Request) -> Result<Success, EngineError> {
        let watch = self.begun(impact);
        let span = self.running(impact);
        let answer = self.step(impact, request).instrument(span).await;
        self.ended(impact, watch);
        answer
    }

    pub(super) async fn once_measured(
        &mut self,
        record: Option<&Arc<Record>>,
        impact: &Impact,
        request: &Request,
        waiting: &[NotificationId],
    ) -> Result<Ended, EngineError> {
        let watch = self.begun(impact);
        let span = self.running(impact);
        let answer = self.once(record, impact, request, waiting).instrument(span).await;
        self.ended(impact, watch);
        answer
    }

    /// A step in traces.
    fn running(&self, impact: &Impact) -> Span {
        traced!(
            tracing::field::display(format_args!("running machine '{}'", impact.name())),
            mg.machine.ns = self.key.ns.as_str(),
            mg.machine.id = %self.key.id,
        )
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
