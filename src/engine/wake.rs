//! What a worker does when its machine is woken: timers, notifications, and everything that the record still owes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tracing::Instrument;

use super::NamespaceOptions;
use super::error::EngineError;
use super::namespace::Ticket;
use super::schedule::Wanted;
use super::step::Ended;
use super::worker::Worker;
use crate::clock::Stopwatch;
use crate::failpoint::{self, Failpoint};
use crate::machine::{Dispatch, Impact, NotificationId, Phase, Record, RequestContext, Status, Wake, dispatch, wishes};
use crate::telemetry::metrics::{Scheduler, Stored};
use crate::telemetry::trace::happened;
use crate::wire::timestamp;

/// Milliseconds that a processor has for a notification.
const NOTIFICATION_PROCESSING_MS: i64 = 5_000;

/// Milliseconds that the store has for steps that no processor is asked about.
const HOUSEKEEPING_MS: i64 = 60_000;

/// Notifications looked at together.
const NOTIFICATION_PAGE: usize = 16;

/// What a wake-up came to.
enum Woken {
    Done,
    /// There may be more to do at once.
    Again,
    /// A bound of ours or the store stood in the way.
    Postponed,
}

fn is_retrying(record: &Record) -> bool {
    matches!(record.status, Status::Working(Phase::Retrying { .. }))
}

fn scheduler_of(record: &Record, wake: Wake) -> Scheduler {
    match wake {
        Wake::Timeout if is_retrying(record) => Scheduler::TimersRetries,
        Wake::Timeout => Scheduler::Timers,
        Wake::Notifications => Scheduler::Notification,
        Wake::Pay | Wake::Forget | Wake::Outbox => Scheduler::Overseer,
    }
}

// === impl Worker: waking ===

impl Worker {
    pub(super) async fn wake_up(&mut self, mut ticket: Ticket) {
        // The schedule has taken the due out.
        self.scheduled = None;
        if !self.enter() {
            self.namespace.metrics.task_finished.inc();
            return ticket.worked_off();
        }
        let watch = Stopwatch::start();
        let woken = AssertUnwindSafe(self.wake(&mut ticket)).catch_unwind().await;
        let woken = woken.unwrap_or_else(|_| {
            self.panicked();
            Woken::Postponed
        });
        let metrics = self.namespace.metrics.scheduler(ticket.place.scheduler());
        metrics.active.dec();
        if !matches!(woken, Woken::Postponed) {
            metrics.finished.inc();
            metrics.duration.observe(watch.elapsed().as_secs_f64());
        }
        self.namespace.metrics.task_finished.inc();
        self.ship();
        // INVARIANT: the ticket goes before the schedule is told: while it is out, the machine is not woken again.
        match woken {
            Woken::Done => {
                ticket.worked_off();
                self.reschedule();
            }
            Woken::Again => {
                ticket.worked_off();
                self.reschedule();
                // What it is told of beside the record's own is a notification, if anything.
                let now = self.shared().clock.now();
                self.namespace.schedule.wake_at(&self.key.id, (now, Scheduler::Notification));
            }
            Woken::Postponed => {
                // What is due already waits with the wake-up that was put off; the rest does not.
                let now = self.shared().clock.now();
                let record = self.record();
                let wanted = |behind| record.as_deref().and_then(|record| self.wanted(record, behind));
                let (any, later) = (wanted(None), wanted(Some(now)));
                if ticket.place.scheduler() == Scheduler::Overseer {
                    // A timer must not wait behind a debt that can't be paid now.
                    ticket.again = any.map(|(_, scheduler)| scheduler);
                }
                drop(ticket);
                self.tell(later);
            }
        }
    }

    /// What the record wants to be woken for, without what the namespace has disabled.
    pub(super) fn wishes(&self, record: &Record) -> impl Iterator<Item = (i64, Wake)> {
        let NamespaceOptions { timers, notifications, .. } = &self.namespace.options;
        let (timers, notifications) = (timers.is_some(), notifications.is_some());
        // While deliveries are under way, their ends say what comes next; but what they brought wants to be noted.
        let outbox = self.outbox.is_idle() || self.outbox.is_unnoted();
        wishes(record).filter(move |(_, wake)| match wake {
            Wake::Outbox => outbox,
            Wake::Timeout => timers,
            Wake::Notifications => notifications,
            Wake::Pay | Wake::Forget => true,
        })
    }

    /// The first that the record wants to be woken for, and by which scheduler; what is due by `behind` does not count.
    pub(super) fn wanted(&self, record: &Record, behind: Option<i64>) -> Option<Wanted> {
        let wishes = self.wishes(record).filter(|(due, _)| behind.is_none_or(|behind| *due > behind));
        let wanted = wishes.map(|(due, wake)| (due, scheduler_of(record, wake)));
        wanted.reduce(|first, other| match (first.1, other.1) {
            // Debts wait for what the others leave, and a timer must not wait behind them.
            (Scheduler::Overseer, scheduler) | (scheduler, Scheduler::Overseer) => (first.0.min(other.0), scheduler),
            _ if other.0 < first.0 => other,
            _ => first,
        })
    }

    /// Does one thing that is due, what has been due for longest. Who was told of more than the record's due looks for
    /// notifications too.
    async fn wake(&mut self, ticket: &mut Ticket) -> Woken {
        let told = ticket.told;
        let loaded = self.load().await;
        let now = self.shared().clock.now();
        let due = match &loaded {
            Ok(Some(record)) => self.wishes(record).filter(|(due, _)| *due <= now).min_by_key(|(due, _)| *due),
            _ => None,
        };
        self.begin(ticket, loaded.as_ref().ok().and_then(Option::as_deref), due.map(|(_, wake)| wake));
        let record = match loaded {
            Ok(Some(record)) => record,
            // Entries of a machine that is gone altogether.
            Ok(None) => return self.deliver(None).await,
            Err(error) => return self.postponed(&error),
        };
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
            Some((_, Wake::Outbox)) => {
                self.ship();
                match self.outbox.is_idle() || self.outbox.is_unnoted() {
                    // Noted; or nothing can be sent at all, since the sinks are configured no more.
                    true => {
                        self.conclude(&record, Impact::Acknowledged, RequestContext::default(), HOUSEKEEPING_MS).await
                    }
                    false => Woken::Done,
                }
            }
            Some((_, Wake::Timeout)) => self.time_out(&record).await,
            Some((_, Wake::Notifications)) | None => return self.deliver(Some(record)).await,
        };
        if told && matches!(woken, Woken::Done) { Woken::Again } else { woken }
    }

    /// Counts a wake-up, now that its reason is known.
    fn begin(&self, ticket: &mut Ticket, record: Option<&Record>, wake: Option<Wake>) {
        let wake = record.zip(wake);
        let scheduler = wake.map_or(Scheduler::Notification, |(record, wake)| scheduler_of(record, wake));
        ticket.place.turn_into(scheduler);
        let metrics = self.namespace.metrics.scheduler(scheduler);
        metrics.created.inc();
        metrics.started.inc();
        metrics.active.inc();
        metrics.delay.observe(self.shared().clock.now().saturating_sub(ticket.due).max(0) as f64 / 1_000.0);
    }

    async fn pay(&mut self, record: &Arc<Record>) -> Woken {
        let mut epochs = Vec::new();
        failpoint::reached(Failpoint::BeforePayment);
        for debt in record.payable() {
            epochs.push(debt.epoch);
            let delete = self.shared().storage.delete_epoch(&self.key, debt.epoch, debt.last_event);
            let paid = self.stored(Stored::DeleteEvents, delete).await;
            if let Err(error) = paid {
                return self.postponed(&error.into());
            }
        }
        failpoint::reached(Failpoint::AfterPayment);
        self.conclude(record, Impact::Paid { epochs }, RequestContext::default(), HOUSEKEEPING_MS).await
    }

    async fn time_out(&mut self, record: &Arc<Record>) -> Woken {
        if self.namespace.holds_back() {
            return Woken::Postponed;
        }
        let context = record.timer.as_ref().map(|timer| timer.context.clone()).unwrap_or_default();
        let namespace = self.namespace.clone();
        let timers = &namespace.metrics.timers;
        let metrics = if is_retrying(record) { &timers.retries } else { &timers.normal };
        metrics.started.inc();
        let watch = Stopwatch::start();
        let asked_for = record.timer.as_ref().map(|timer| i64::from(timer.timeout).saturating_mul(1_000));
        let milliseconds = match asked_for {
            // One of no time at all can't be meant.
            Some(asked_for @ 1..) if namespace.options.honour_timer_timeout => asked_for,
            _ => namespace.options.timer_processing_ms,
        };
        let woken = self.conclude(record, Impact::Timeout, context, milliseconds).await;
        metrics.finished.inc();
        metrics.duration.observe(watch.elapsed().as_secs_f64());
        if matches!(woken, Woken::Postponed) {
            timers.rescheduling_error.happened(0);
        }
        woken
    }

    /// Delivers the oldest notification that waits.
    async fn deliver(&mut self, record: Option<Arc<Record>>) -> Woken {
        if self.namespace.options.notifications.is_none() {
            return self.settle(record.as_ref(), &[], &[]).await;
        }
        let search = self.shared().storage.notifications(&self.key, NOTIFICATION_PAGE);
        let waiting = match self.stored(Stored::SearchNotifications, search).await {
            Ok(waiting) => waiting,
            Err(error) => return self.postponed(&error.into()),
        };
        let held_back = record.as_ref().and_then(|record| record.notifications_due);
        let ids: Vec<_> = waiting.iter().map(|it| it.id).collect();
        if held_back.is_some_and(|due| due > self.shared().clock.now()) {
            // One failed a moment ago and holds back the rest, those that came after it too.
            return self.settle(record.as_ref(), &[], &ids).await;
        }
        let more = if waiting.len() > 1 { Woken::Again } else { Woken::Done };
        let Some(first) = waiting.into_iter().next() else {
            return match record {
                Some(record) if held_back.is_some() && matches!(record.status, Status::Working(_)) => {
                    self.conclude(&record, Impact::Drained, RequestContext::default(), HOUSEKEEPING_MS).await
                }
                record => self.settle(record.as_ref(), &[], &[]).await,
            };
        };
        let (id, context, impact) = (first.id, first.context.clone(), Impact::Notification(first));
        let dispatch = match self.namespace.puts.has_taken_effect(&self.key.id, id) {
            true => Dispatch::Discard,
            false => dispatch(record.as_deref(), &impact, self.shared().clock.now()),
        };
        match (dispatch, record) {
            (Dispatch::Park, record) => {
                self.namespace.metrics.notification_error.inc();
                self.namespace.metrics.delivery_rescheduled.inc();
                self.settle(record.as_ref(), &[], &ids).await
            }
            (Dispatch::Ask, Some(_)) if self.namespace.holds_back() => Woken::Postponed,
            (Dispatch::Ask, Some(record)) => {
                let scope = self.scope(&context);
                let request = self.request(context, NOTIFICATION_PROCESSING_MS);
                let step = async {
                    let answer = self.once_measured(Some(&record), &impact, &request, &ids).await;
                    let woken = match answer {
                        Ok(Ended::Answered(_)) => {
                            self.namespace.metrics.notification_success.inc();
                            happened!("notification delivered");
                            more
                        }
                        answer => {
                            self.namespace.metrics.notification_error.inc();
                            self.undelivered();
                            self.concluded(&record, answer)
                        }
                    };
                    self.ship();
                    woken
                };
                step.instrument(scope).await
            }
            (_, record) => match self.settle(record.as_ref(), &[id], &[]).await {
                Woken::Done => {
                    self.namespace.metrics.delivery_deleted.inc();
                    more
                }
                woken => woken,
            },
        }
    }

    /// A delivery failed: the record says when the next one is.
    fn undelivered(&self) {
        self.namespace.metrics.delivery_rescheduled.inc();
        let next = self.record().and_then(|record| record.notifications_due);
        tracing::warn!(
            mg_pulse_event_id = "mg_core_machine_notification_delivery_error",
            action = "reschedule",
            reschedule_time = next.map(timestamp::format_seconds),
            "machine notification delivery failed"
        );
    }

    /// Entries that go, and entries for which the record's due stands from now on. No commit says so, so it is done only
    /// if `record`, which says so, still stands: behind the look at the entries.
    async fn settle(&self, record: Option<&Arc<Record>>, delete: &[NotificationId], park: &[NotificationId]) -> Woken {
        let nothing = delete.is_empty() && park.is_empty();
        let stands = if nothing { self.is_certain(record).await } else { self.stands(record).await };
        match stands {
            Ok(true) if nothing => return Woken::Done,
            Ok(true) => {}
            Ok(false) => {
                self.conflict();
                return Woken::Again;
            }
            Err(error) => return self.postponed(&error),
        }
        failpoint::reached(Failpoint::BeforeSettling);
        let settle = self.shared().storage.settle_notifications(&self.key, delete, park);
        match self.stored(Stored::DeleteNotifications, settle).await {
            Ok(()) => {
                failpoint::reached(Failpoint::AfterSettling);
                Woken::Done
            }
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
        let scope = self.scope(&context);
        let request = self.request(context, milliseconds);
        let step = async {
            let answer = self.once_measured(Some(record), &impact, &request, &[]).await;
            let woken = self.concluded(record, answer);
            // What it owes goes out in its scope.
            self.ship();
            woken
        };
        step.instrument(scope).await
    }

    fn concluded(&self, record: &Record, answer: Result<Ended, EngineError>) -> Woken {
        match answer {
            Ok(Ended::Answered(_)) => Woken::Done,
            // What was true of the record that was woken need not be true of the one that stands there now.
            Ok(Ended::Conflict | Ended::Outdated) => {
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
        tracing::warn!(
            mg_pulse_event_id = "mg_skd_task_error",
            machine_ns = self.key.ns.as_str(),
            machine_id = %self.key.id,
            error.class = "throw",
            error.reason = %error,
            "scheduler task failed: the wake-up is put off"
        );
        Woken::Postponed
    }
}
