//! Debts to sinks: what a record owes is sent in order, and the store learns of it with a later commit.
//!
//! A delivery never blocks the machine (but for `ack: before_reply`, which waits for it): it runs beside the worker, or is
//! handed over at once and heard of later; one at a time per machine and sink, so machines are pipelined and each
//! machine's order is kept. While any is under way the worker stays. What was acknowledged is taken out of the record in
//! memory; the store keeps it until the machine's next commit, or until one of its own: after `outbox.clear_interval`, or
//! when the worker leaves. So a crash repeats, and never loses.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tracing::{Instrument, Span};

use super::SinkOptions;
use super::delivery::{Job, MOST_EVENTS, Reins, Sent, Undelivered};
use super::error::EngineError;
use super::roads::{Delivering, Road, Roads};
use super::worker::Worker;
use crate::clock::random_unit;
use crate::failpoint::{self, Failpoint};
use crate::machine::{Impact, Parcel, RequestContext, Slice, Unsent};
use crate::sink::{Receipt, SinkError};
use crate::telemetry::metrics::Scheduler;

/// About the time until a delivery that failed is tried again, where only somebody's mending helps.
const MISCONFIGURED_RETRY: Duration = Duration::from_secs(60);

/// Milliseconds until a machine that could not be read is woken to look at what it owes.
const RELOAD_MS: i64 = 1_000;

/// Milliseconds that the store has to note what was acknowledged before the worker leaves.
const NOTE_MS: i64 = 5_000;

/// Milliseconds that sinks have, when the service stops, to acknowledge what is under way: longer than a message waits for
/// others to share its request, and then for its brokers.
const LAST_ANSWERS_MS: i64 = 2_000;

/// What one machine sends to its sinks.
#[derive(Default)]
pub(super) struct Outbox {
    /// None until something is owed: most machines have no part in this.
    roads: Option<Box<Roads>>,
    /// Sinks have acknowledged what the store still knows as unsent.
    unnoted: bool,
    /// Until when sinks are heard out (unix milliseconds), once the service stops.
    last_answers: Option<i64>,
}

// === impl Outbox ===

impl Outbox {
    /// No delivery is under way, nor waits for its next attempt.
    pub(super) fn is_idle(&self) -> bool {
        self.roads.as_ref().is_none_or(|roads| roads.is_idle())
    }

    /// A delivery is being made: not one that waits for its next attempt.
    fn is_under_way(&self) -> bool {
        let mut deliveries = self.roads.iter().flat_map(|roads| &roads.roads).filter_map(|road| road.delivery.as_ref());
        deliveries.any(Delivering::is_under_way)
    }

    /// Whether sinks have acknowledged what the store still knows as unsent.
    pub(super) fn is_unnoted(&self) -> bool {
        self.unnoted
    }

    /// The store knows what memory knows: after a commit, and after reading.
    pub(super) fn noted(&mut self) {
        self.unnoted = false;
    }

    /// A delivery that has ended already.
    pub(super) fn try_next(&mut self) -> Option<Sent> {
        self.next().now_or_never()
    }

    /// The next delivery that ends; never, if none is under way.
    pub(super) async fn next(&mut self) -> Sent {
        match &mut self.roads {
            Some(roads) => poll_fn(|context| roads.poll_next(context)).await,
            None => std::future::pending().await,
        }
    }

    /// Deliveries that wait for their next attempt have it now, to these sinks.
    pub(super) fn hurry(&self, wanted: impl Fn(usize) -> bool) {
        self.reins().filter(|(sink, _)| wanted(*sink)).for_each(|(_, reins)| reins.hurry());
    }

    /// Of deliveries that can be reached, each with its sink.
    fn reins(&self) -> impl Iterator<Item = (usize, &Reins)> {
        let roads = self.roads.iter().flat_map(|roads| &roads.roads).enumerate();
        roads.filter_map(|(sink, road)| Some((sink, &**road.delivery.as_ref()?.reins.as_ref()?)))
    }

    fn road(&mut self, sink: usize) -> Option<&mut Road> {
        self.roads.as_mut()?.roads.get_mut(sink)
    }
}

// === impl Worker: debts to sinks ===

impl Worker {
    /// Sends what is owed and not under way.
    pub(super) fn ship(&mut self) {
        self.send_owed(false);
    }

    /// As `ship`, and somebody waits for it.
    pub(super) fn ship_awaited(&mut self) {
        self.send_owed(true);
    }

    fn send_owed(&mut self, awaited: bool) {
        if self.namespace.backlogs.is_empty() {
            return;
        }
        let namespace = self.namespace.clone();
        // What is not held may be owed all the same: it goes on counting as it did.
        let Some(record) = self.record() else { return };
        if record.unsent.is_empty() && self.outbox.roads.is_none() {
            return;
        }
        // A delivery that begins now would be given up in a moment, unless somebody waits for it.
        let leaving = self.shared().stopping.is_cancelled() || !self.is_current();
        let now = self.shared().clock.now();
        // The latest that the commit can have been: it may have left the due where it was.
        let owed_since =
            record.outbox_due.map_or(now, |due| due.saturating_sub(namespace.options.policy.outbox_clear_ms / 2));
        for (sink, options) in namespace.options.sinks.iter().enumerate() {
            let unsent = record.unsent.iter().find(|it| it.sink == *options.name);
            let roads = self.outbox.roads.get_or_insert_with(|| Roads::new(&namespace.backlogs));
            let Some(road) = roads.roads.get_mut(sink) else { continue };
            road.share.set(unsent.map_or(0, Unsent::entries));
            let Some((parcel, behind)) = unsent.and_then(|it| Some((it.parcels.first()?, it.behind))) else { continue };
            if road.delivery.is_some() || (leaving && !(awaited && options.before_reply)) {
                continue;
            }
            let owed = road.share.backlog.owed(owed_since.min(now));
            let held = self.held(parcel, record.epoch);
            let mut job = Job { behind, held, ..self.job(sink, options, parcel.clone()) };
            if let Some(roads) = &mut self.outbox.roads {
                let reins = if job.finds_room() {
                    roads.hand(job);
                    None
                } else {
                    let reins = Arc::new(Reins::default());
                    roads.under_way.spawn(job.run(now, reins.clone()));
                    Some(reins)
                };
                roads.roads[sink].delivery = Some(Delivering::new(behind, owed, reins));
            }
        }
    }

    /// The newest events are in memory, mostly.
    fn held(&self, parcel: &Parcel, present: crate::machine::Epoch) -> Option<Vec<bytes::Bytes>> {
        let Parcel::Events { epoch, first, last } = parcel else { return None };
        let slice = Slice { first: *first, last: *last, backward: false };
        self.cached(|cached| cached.events(&slice)).flatten().filter(|_| *epoch == present)
    }

    fn job(&self, sink: usize, options: &SinkOptions, parcel: Parcel) -> Job {
        let namespace = self.namespace.clone();
        let key = self.key.clone();
        let scope = match Span::current() {
            none if none.is_none() => self.scope(&RequestContext::default()),
            scope => scope,
        };
        let (to, claim) = (options.sink.clone(), self.claim());
        Job { namespace, key, sink, to, parcel, behind: 0, most: MOST_EVENTS, held: None, room: None, claim, scope }
    }

    /// Notes what became of a delivery, and sends what comes next.
    pub(super) async fn sent(&mut self, sent: Sent) -> Result<(), SinkError> {
        self.sorted(sent, false).await
    }

    async fn sorted(&mut self, sent: Sent, awaited: bool) -> Result<(), SinkError> {
        let Sent { sink, parcel, result, scope } = sent;
        let sorted = async {
            match result {
                Ok(receipt) => self.acknowledge(sink, &parcel, receipt).await,
                Err(Undelivered::Disowned(error)) => {
                    self.give_up(sink).await;
                    if !self.is_current() {
                        // Whoever waits for it here would wait in vain.
                        return Err(error);
                    }
                }
                Err(Undelivered::Refused(error)) => {
                    self.try_again(sink, parcel, &error);
                    return Err(error);
                }
            }
            self.send_owed(awaited);
            Ok(())
        };
        sorted.instrument(scope).await
    }

    /// After a conflict, say, the store's record is held no more. It owes what was under way, and maybe more. False: it
    /// can't be read now.
    async fn is_held_again(&mut self) -> bool {
        if self.cached(|_| ()).is_some() || self.load().await.is_ok() {
            return true;
        }
        let soon = self.shared().clock.now().saturating_add(RELOAD_MS);
        self.namespace.schedule.wake_at(&self.key.id, (soon, Scheduler::Overseer));
        false
    }

    /// A delivery that was of another tenure, or is for the machine's next owner to make.
    async fn give_up(&mut self, sink: usize) {
        let Some(road) = self.outbox.road(sink) else { return };
        road.delivery = None;
        if self.is_current() {
            self.is_held_again().await;
        }
    }

    async fn acknowledge(&mut self, sink: usize, parcel: &Parcel, receipt: Receipt) {
        let Some(road) = self.outbox.road(sink) else { return };
        road.delivery = None;
        road.share.backlog.metrics.produced.inc_by(parcel.events());
        if !self.is_held_again().await {
            return;
        }
        let name = self.namespace.options.sinks[sink].name.clone();
        let mut taken = false;
        self.change(|cell| {
            if let Some(record) = cell.as_mut().and_then(|cached| cached.record.as_mut()) {
                let record = Arc::make_mut(record);
                taken = record.acknowledge(&name, parcel);
                if taken {
                    record.stands_behind(&name, receipt.behind);
                }
            }
        });
        self.outbox.unnoted |= taken;
        failpoint::reached(Failpoint::DeliveryKnown);
    }

    fn try_again(&mut self, sink: usize, parcel: Parcel, error: &SinkError) {
        let namespace = self.namespace.clone();
        let (options, policy) = (&namespace.options.sinks[sink], &namespace.options.sink_retries);
        let now = self.shared().clock.now();
        let current = self.is_current();
        let Some(Road { share, delivery: Some(delivery) }) = self.outbox.road(sink) else { return };
        let delay = match error {
            SinkError::Unavailable(_) => delivery.delay(policy, now),
            SinkError::Misconfigured(_) => MISCONFIGURED_RETRY.mul_f64(0.5 + random_unit()),
        };
        let delay = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        delivery.attempt = delivery.attempt.saturating_add(1);
        delivery.stuck = match error {
            SinkError::Unavailable(_) => None,
            SinkError::Misconfigured(reason) => Some(share.backlog.stuck(reason.clone())),
        };
        // Who hurried the last attempt has had it.
        let reins = Arc::new(Reins::default());
        delivery.reins = Some(reins.clone());
        let (attempt, behind) = (delivery.attempt, delivery.behind);
        share.backlog.metrics.failed(error.name()).inc();
        if !current {
            // It is the next owner's to send.
            if let Some(road) = self.outbox.road(sink) {
                road.delivery = None;
            }
            return;
        }
        let Some(Road { share, .. }) = self.outbox.road(sink) else { return };
        share.backlog.metrics.retried.inc();
        tracing::warn!(
            sink = &*options.name,
            attempt,
            wait_timeout = delay,
            error.class = error.name(),
            error.reason = %error,
            "a sink did not take what it is owed; it is sent again"
        );
        // What asks whether the sink is there again need not be read whole each time.
        let job = Job { behind, most: 1, ..self.job(sink, options, parcel) };
        if let Some(roads) = &mut self.outbox.roads {
            roads.under_way.spawn(job.run(now.saturating_add(delay), reins));
        }
    }

    /// Waits until the sinks that a reply waits for have all that the record owes them. The first failure ends the
    /// wait, and so does the deadline; the delivery goes on.
    pub(super) async fn acknowledged(&mut self, deadline: i64) -> Result<(), EngineError> {
        let namespace = self.namespace.clone();
        let sinks = &namespace.options.sinks;
        self.outbox.hurry(|sink| sinks[sink].before_reply);
        loop {
            let owed = self.record().is_some_and(|record| {
                let awaited = |name: &str| sinks.iter().any(|it| it.before_reply && *it.name == *name);
                record.unsent.iter().any(|unsent| awaited(&unsent.sink))
            });
            if !owed {
                return Ok(());
            }
            let sent = self.namespace.shared.clock.timeout_at(deadline, self.outbox.next()).await;
            let sent = sent.map_err(|_| EngineError::TimedOut)?;
            let awaited = sinks[sent.sink].before_reply;
            match self.sorted(sent, true).await {
                Err(error) if awaited => return Err(EngineError::Sink(error)),
                _ => {}
            }
        }
    }

    /// Whether a reply waits for some sink.
    pub(super) fn replies_wait(&self) -> bool {
        self.namespace.options.sinks.iter().any(|sink| sink.before_reply)
    }

    /// Before the worker leaves because the service stops: what is under way has mostly reached its sink, and would be sent
    /// again by the next run.
    pub(super) async fn hear_out(&mut self) {
        let now = self.shared().clock.now();
        // Once, however many messages come in between.
        let until = *self.outbox.last_answers.get_or_insert(now.saturating_add(LAST_ANSWERS_MS));
        while self.outbox.is_under_way() {
            let Ok(sent) = self.namespace.shared.clock.timeout_at(until, self.outbox.next()).await else { return };
            let _ = self.sent(sent).await;
        }
    }

    /// Before the worker leaves: what sinks have acknowledged is known here alone, and would be sent again.
    pub(super) async fn note(&mut self) {
        while let Some(sent) = self.outbox.try_next() {
            let _ = self.sent(sent).await;
        }
        if !self.outbox.is_unnoted() {
            return;
        }
        let Some(record) = self.record() else { return };
        let request = self.request(RequestContext::default(), NOTE_MS);
        let scope = self.scope(&request.context);
        // If this fails, it is sent again: at least once.
        let _ = self.once_measured(Some(&record), &Impact::Acknowledged, &request, &[]).instrument(scope).await;
    }
}
