//! A namespace: the doors to its machines.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::{Instrument, Span};

use super::backlog::Backlog;
use super::census::{Census, Numbers};
use super::error::{Bound, EngineError};
use super::patience::Begun;
use super::puts::Puts;
use super::quotas::{Place, Places};
use super::registry::{Registry, Rejected};
use super::schedule::{Next, Schedule};
use super::worker::{Message, Queued, Reply, Worker};
use super::{EngineOptions, NamespaceOptions, Request, SchedulerOptions, Shared, SinkOptions};
use crate::clock::{Clock, Stopwatch, random_unit};
use crate::failpoint::{self, Failpoint};
use crate::machine::{CommitId, Impact, MachineId, MachineKey, Namespace, Record, Refusal, Success, slice};
use crate::storage::StorageError;
use crate::telemetry::metrics::{Scheduler, Stored};
use crate::telemetry::trace::traced;
use crate::telemetry::{Metrics, NamespaceMetrics};
use crate::wire::HistoryRange;
use crate::woody::{Bodies, Held};

/// Wake-ups are put off by 0.5 to 1.5 times this when one of our own bounds or the store stands in the way.
const POSTPONE_MS: f64 = 1_000.0;

pub struct NamespaceEngine {
    pub(super) name: Namespace,
    /// The name as processors are given it.
    pub(super) wire_name: Bytes,
    pub(super) options: NamespaceOptions,
    pub(super) metrics: NamespaceMetrics,
    pub(super) shared: Arc<Shared>,
    pub(super) schedule: Arc<Schedule>,
    /// For its wake-ups.
    pub(super) places: Arc<Places>,
    pub(super) census: Census,
    /// Of notifications, as far as it is not known what became of them.
    pub(super) puts: Puts,
    registry: Registry,
    loading: Arc<Semaphore>,
    in_flight: Arc<Semaphore>,
    /// Bytes of arguments in flight.
    arguments: Arc<Bodies>,
    /// What its loaded machines owe each of its sinks, in their order.
    pub(super) backlogs: Vec<Arc<Backlog>>,
}

/// How often dues are looked for where neither timers nor notifications say it: debts are paid there too.
const HOUSEKEEPING_SCAN: Duration = Duration::from_secs(60);

/// A step's place among those in flight. It is given back when the step has ended, whoever still waits for it.
#[derive(Debug)]
pub(super) struct Admitted {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
    _arguments: Held,
    gauge: IntGauge,
}

/// A wake-up on its way. If it is dropped before it is worked off, by whatever accident, it is put off.
#[derive(Debug)]
pub(super) struct Ticket {
    namespace: Arc<NamespaceEngine>,
    id: MachineId,
    /// See [`Next::told`].
    pub(super) told: bool,
    /// Unix milliseconds.
    pub(super) due: i64,
    worked_off: bool,
    /// Of the scheduler that it turned out to be for.
    pub(super) place: Place,
    /// The scheduler that tries it again if it is put off; none: the same.
    pub(super) again: Option<Scheduler>,
}

/// A machine as it is shown: one snapshot.
#[derive(Clone, Debug)]
pub struct View {
    pub record: Arc<Record>,
    /// Wire encoded, in the order of the range that was asked for.
    pub events: Vec<Bytes>,
}

// === impl NamespaceEngine ===

impl NamespaceEngine {
    pub(super) fn start(options: NamespaceOptions, metrics: &Metrics, shared: Arc<Shared>) -> Arc<Self> {
        let name = &options.name;
        let backlog = |sink: &SinkOptions| Backlog::new(name, &sink.name, metrics, shared.clock.clone());
        let backlogs = options.sinks.iter().map(backlog).collect();
        // Two intervals: what a scan just missed is held until the next one.
        let horizon_ms = i64::try_from(interval_of(&options).as_millis() * 2).unwrap_or(i64::MAX);
        let schedule = Schedule::new(shared.clock.clone(), horizon_ms);
        let watched = schedule.clone();
        metrics.watch_waiting(name, move |scheduler| watched.waiting(scheduler, usize::MAX));
        let metrics = metrics.namespace(name);
        Bound::ALL.iter().for_each(|bound| metrics.bounded_by(bound.setting()));
        let capacity = |options: Option<SchedulerOptions>| options.map(|it| it.capacity);
        let places = Places::new(shared.quota.clone(), capacity(options.timers), capacity(options.notifications));
        let namespace = Arc::new(Self {
            name: Namespace::new(&options.name),
            wire_name: Bytes::copy_from_slice(options.name.as_bytes()),
            metrics,
            schedule,
            places,
            census: Census::default(),
            puts: Puts::new(shared.clock.clone()),
            registry: Registry::new(queue_limit(&shared.options)),
            loading: Arc::new(Semaphore::new(shared.options.loading_limit)),
            in_flight: Arc::new(Semaphore::new(shared.options.steps_in_flight_per_namespace)),
            arguments: Bodies::new(Bound::Bodies.setting(), shared.options.arguments_per_namespace),
            backlogs,
            options,
            shared: shared.clone(),
        });
        namespace.places.show(&namespace.metrics);
        shared.tasks.spawn(namespace.clone().schedule_wakes());
        namespace
    }

    pub(super) fn scan_interval(&self) -> Duration {
        interval_of(&self.options)
    }

    /// The schedulers that find their work by scans.
    pub(super) fn schedulers(&self) -> impl Iterator<Item = Scheduler> {
        let timers =
            [Scheduler::Timers, Scheduler::TimersRetries].into_iter().filter(|_| self.options.timers.is_some());
        let notifications = self.options.notifications.map(|_| Scheduler::Notification);
        timers.chain(notifications).chain([Scheduler::Overseer])
    }

    /// Waits for a request to the store, and measures it.
    pub(super) async fn stored<T>(&self, what: Stored, request: impl Future<Output = T>) -> T {
        let metrics = self.metrics.stored(what);
        metrics.start.inc();
        let watch = Stopwatch::start();
        let answer = request.instrument(traced!(what.doing())).await;
        metrics.finish.inc();
        metrics.duration.observe(watch.elapsed().as_secs_f64());
        answer
    }

    pub fn name(&self) -> &Namespace {
        &self.name
    }

    pub fn key(&self, id: MachineId) -> MachineKey {
        MachineKey { ns: self.name.clone(), id }
    }

    /// Takes a step in the machine's turn, and answers once it is committed. Of an owner alone: see [`Self::check_owned`].
    pub async fn execute(
        self: &Arc<Self>,
        id: MachineId,
        impact: Impact,
        request: Request,
    ) -> Result<Success, EngineError> {
        let deadline = request.deadline;
        self.check_owned(&id)?;
        if self.shared.stopping.is_cancelled() {
            return Err(EngineError::Stopping);
        }
        if self.shared.clock.now() >= deadline {
            return Err(EngineError::DeadlineReached);
        }
        if self.is_behind() && !matches!(impact, Impact::Modernize { .. }) {
            return Err(self.overload(Bound::Outbox));
        }
        if self.shared.is_short() {
            return Err(self.overload(Bound::Memory));
        }
        let admitted = self.admit(&impact)?;
        let (reply, answer) = oneshot::channel();
        let begun = Arc::new(Begun::default());
        let reply = Reply::new(reply);
        let queued = Queued { impact, request, reply, admitted, begun: begun.clone(), scope: Span::current() };
        self.send(&id, Message::Step(Box::new(queued)))?;
        failpoint::reached(Failpoint::StepQueued);
        match self.shared.clock.timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(EngineError::Killed),
            Err(_) if self.registry.awaits_store(&id) && begun.give_up() => {
                Err(StorageError::Unavailable("the deadline passed while the machine waited for the store".to_owned())
                    .into())
            }
            Err(_) => Err(EngineError::TimedOut),
        }
    }

    /// How many machines there are, by status, as far as this instance knows: see [`super::census`]. None before the first
    /// count is done.
    pub fn numbers(&self) -> Option<Numbers> {
        self.census.numbers()
    }

    /// The machine that has the tag.
    pub async fn tagged(&self, tag: &[u8]) -> Result<MachineId, EngineError> {
        self.stored(Stored::SearchMachine, self.shared.storage.tagged(&self.name, tag))
            .await?
            .ok_or_else(|| Refusal::MachineNotFound.into())
    }

    /// The machine as of its last commit; never waits for its turn. Any instance may be asked.
    pub async fn get(&self, id: MachineId, range: &HistoryRange) -> Result<View, EngineError> {
        if let Some(view) = self.cached(&id, Some(range)).await? {
            return Ok(view?);
        }
        let key = self.key(id);
        let loaded = self.stored(Stored::GetMachine, self.shared.storage.read(&key, Some(range))).await?;
        match loaded {
            Some(mut loaded) if loaded.record.exists() => {
                if slice(range, loaded.record.last_event).backward {
                    loaded.events.reverse();
                }
                Ok(View { record: Arc::new(loaded.record), events: loaded.events })
            }
            _ => Err(Refusal::MachineNotFound.into()),
        }
    }

    /// From memory, if the machine is loaded, all of the range is held, and what is held stands in storage. What does not
    /// is left to its worker.
    pub(super) async fn cached(
        &self,
        id: &MachineId,
        range: Option<&HistoryRange>,
    ) -> Result<Option<Result<View, Refusal>>, EngineError> {
        if !self.owns(id) {
            return Ok(None);
        }
        let Some((commit, view)) = self.held(id, range) else { return Ok(None) };
        // IMPORTANT: behind the look at memory, or a commit of this instance could come between.
        let stands = match self.shared.shards {
            None => true,
            Some(_) => {
                let key = self.key(id.clone());
                self.stored(Stored::GetMachine, self.shared.storage.standing(&key)).await? == commit
            }
        };
        Ok(stands.then_some(view))
    }

    /// What is held, and which commit it is of.
    fn held(&self, id: &MachineId, range: Option<&HistoryRange>) -> Option<(Option<CommitId>, Result<View, Refusal>)> {
        let cell = self.registry.cell(id)?;
        let cell = cell.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = cell.as_ref()?;
        let commit = cached.record.as_ref().map(|record| record.commit);
        let Some(record) = cached.record.clone().filter(|record| record.exists()) else {
            return Some((commit, Err(Refusal::MachineNotFound)));
        };
        let events = match range {
            Some(range) => cached.events(&slice(range, record.last_event))?,
            None => Vec::new(),
        };
        Some((commit, Ok(View { record, events })))
    }

    /// Whether what is due waits for a bound of ours.
    pub(super) fn holds_back(&self) -> bool {
        self.is_behind() || self.shared.is_short()
    }

    /// Whether sinks owe so many acknowledgements that no new events may come.
    pub(super) fn is_behind(&self) -> bool {
        let pending = self.backlogs.iter().map(|backlog| backlog.pending());
        !self.backlogs.is_empty() && pending.sum::<i64>() >= self.options.most_unsent
    }

    pub(super) fn clock(&self) -> Clock {
        self.shared.clock.clone()
    }

    fn admit(&self, impact: &Impact) -> Result<Admitted, EngineError> {
        let all = self.shared.in_flight.clone().try_acquire_owned();
        let own = self.in_flight.clone().try_acquire_owned();
        let (Ok(all), Ok(own)) = (all, own) else { return Err(self.overload(Bound::StepsInFlight)) };
        let mut arguments = self.arguments.hold();
        if arguments.grow(impact.arguments_size()).is_err() {
            return Err(self.overload(Bound::Bodies));
        }
        Ok(Admitted::new(all, own, arguments, self.metrics.in_flight.clone()))
    }

    pub(super) fn overload(&self, bound: Bound) -> EngineError {
        self.metrics.refused(bound.setting());
        EngineError::Overload(bound)
    }

    fn send(self: &Arc<Self>, id: &MachineId, message: Message) -> Result<(), EngineError> {
        self.metrics.call_attempts.inc();
        let admit = || {
            self.metrics.start_attempts.inc();
            let most = self.shared.options.loading_limit;
            let loading = most.saturating_sub(self.loading.available_permits());
            self.metrics.loading_length.observe(loading as f64);
            self.metrics.loading_usage.observe(loading as f64 / most.max(1) as f64);
            self.loading.clone().try_acquire_owned().ok()
        };
        let waiting = |waiting| self.metrics.queue_length.observe(waiting as f64);
        let sent = self.registry.send(id, message, waiting, admit, |seat, loading| {
            let key = self.key(id.clone()).detached();
            self.shared.tasks.spawn(Worker::new(self.clone(), key, seat, loading).run());
        });
        sent.map_err(|rejected| {
            self.overload(match rejected {
                Rejected::QueueFull => Bound::MachineQueue,
                Rejected::NotAdmitted => Bound::Loading,
            })
        })
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Notes a loaded machine's use, and tells those that were used least recently to let go.
    pub(super) fn touch(&self, key: &MachineKey, size: usize) {
        self.shared.shed(self.shared.budget.touch(key, size));
    }

    /// Wakes the machines that are due, as places allow.
    async fn schedule_wakes(self: Arc<Self>) {
        let stopping = self.shared.stopping.clone();
        let work = async {
            loop {
                let Next { id, told, due, place } = self.schedule.next(&self.places).await;
                if !self.owns(&id) {
                    // Its owner's scan finds it; so does ours, once it is owned here again.
                    self.schedule.done(&id);
                    continue;
                }
                self.metrics.task_created.inc();
                let namespace = self.clone();
                let ticket = Ticket { namespace, id: id.clone(), told, due, worked_off: false, place, again: None };
                // A ticket that is refused is dropped, so put off.
                let _ = self.send(&id, Message::Wake(Box::new(ticket)));
            }
        };
        tokio::select! {
            () = work => {}
            () = stopping.cancelled() => {}
        }
    }

    /// Tries a wake-up again in a moment. The record stands as it is: nothing counts against the machine.
    pub(super) fn postpone(&self, id: &MachineId, scheduler: Scheduler) {
        if !self.owns(id) {
            return;
        }
        let delay = (POSTPONE_MS * (0.5 + random_unit())) as i64;
        self.schedule.wake_at(id, (self.shared.clock.now().saturating_add(delay), scheduler));
    }
}

impl std::fmt::Debug for NamespaceEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NamespaceEngine").field(&self.name).finish()
    }
}

/// One machine leaves the others of its namespace some of the places in flight.
fn queue_limit(options: &EngineOptions) -> usize {
    options.machine_queue_limit.min(options.steps_in_flight_per_namespace / 2).max(1)
}

fn interval_of(options: &NamespaceOptions) -> Duration {
    let schedulers = [options.timers, options.notifications].into_iter().flatten();
    schedulers.map(|it| it.scan_interval.max(it.min_scan_delay)).min().unwrap_or(HOUSEKEEPING_SCAN)
}

// === impl Admitted ===

impl Admitted {
    fn new(all: OwnedSemaphorePermit, own: OwnedSemaphorePermit, arguments: Held, gauge: IntGauge) -> Self {
        gauge.inc();
        Self { _all: all, _own: own, _arguments: arguments, gauge }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

// === impl Ticket ===

impl Ticket {
    /// From here on the machine may be woken again.
    pub(super) fn worked_off(mut self) {
        self.worked_off = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.namespace.schedule.done(&self.id);
        if !self.worked_off {
            let scheduler = self.place.scheduler();
            self.namespace.metrics.scheduler(scheduler).error.inc();
            self.namespace.postpone(&self.id, self.again.unwrap_or(scheduler));
        }
    }
}
