//! Debts to sinks: what a record owes is sent in order, and the store learns of it with a later commit.
//!
//! A delivery never blocks the machine (but for `ack: before_reply`, which waits for it): it runs beside the worker, one
//! at a time per machine and sink, so machines are pipelined and each machine's order is kept. While anything is under
//! way the worker stays. What was acknowledged is taken out of the record in memory; the store keeps it until the
//! machine's next commit, or until one of its own after `outbox.clear_interval`. So a crash repeats, and never loses.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::SinkOptions;
use super::error::EngineError;
use super::worker::Worker;
use crate::clock::random_unit;
use crate::machine::{Parcel, Record};
use crate::sink::{Content, Delivery, SinkError};
use crate::storage::StorageError;

/// Events in one delivery.
const MOST_EVENTS: i64 = 500;

/// Milliseconds until a delivery that failed is tried again: doubled each time, up to the second number.
const RETRY_MS: (i64, i64) = (100, 30_000);

/// The same where only somebody's mending helps.
const MISCONFIGURED_RETRY_MS: i64 = 60_000;

/// The deliveries of one machine that are under way.
#[derive(Default)]
pub(super) struct Outbox {
    under_way: JoinSet<Sent>,
    /// By sink: how often its delivery has failed in a row.
    attempts: HashMap<Arc<str>, u32>,
    /// Events of this machine that count in the namespace's total.
    counted: i64,
}

/// What became of a delivery.
pub(super) struct Sent {
    sink: Arc<str>,
    parcel: Parcel,
    result: Result<(), SinkError>,
}

// === impl Outbox ===

impl Outbox {
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The next delivery that ended; never, if none is under way.
    pub(super) async fn next(&mut self) -> Sent {
        loop {
            match self.under_way.join_next().await {
                Some(Ok(sent)) => return sent,
                // It panicked or was aborted: the record still owes it, and its due brings it back.
                Some(Err(error)) => tracing::error!(%error, "a delivery to a sink ended unexpectedly"),
                None => std::future::pending().await,
            }
        }
    }

    /// Keeps the namespace's total right.
    pub(super) fn count(&mut self, unsent: u64, total: &AtomicI64) {
        let unsent = i64::try_from(unsent).unwrap_or(i64::MAX);
        total.fetch_add(unsent - self.counted, Ordering::Relaxed);
        self.counted = unsent;
    }
}

// === impl Worker: debts to sinks ===

impl Worker {
    /// Sends what is owed and not under way.
    pub(super) async fn ship(&mut self) {
        let record = self.record();
        let unsent = record.as_ref().map_or(0, |record| record.unsent_events());
        self.outbox.count(unsent, &self.namespace.unsent);
        let Some(record) = record else { return };
        for unsent in &record.unsent {
            let options = self.namespace.options.sinks.iter().find(|it| *it.name == *unsent.sink).cloned();
            let (Some(options), Some(parcel)) = (options, unsent.parcels.first()) else { continue };
            if self.outbox.attempts.contains_key(&options.name) {
                continue;
            }
            self.outbox.attempts.insert(options.name.clone(), 0);
            let parcel = bounded(parcel);
            match self.content(&record, &parcel).await {
                Ok(content) => self.deliver_to(&options, parcel, content, 0),
                Err(error) => {
                    tracing::warn!(ns = self.key.ns.as_str(), id = %self.key.id, sink = &*options.name, %error, "events for a sink can't be read");
                    self.outbox.attempts.remove(&options.name);
                }
            }
        }
    }

    /// The bytes of a parcel, from memory or the store.
    async fn content(&self, record: &Arc<Record>, parcel: &Parcel) -> Result<Content, EngineError> {
        match parcel {
            Parcel::Lifecycle(lifecycle) => Ok(Content::Lifecycle(lifecycle.clone())),
            Parcel::Events { epoch, first, last } => {
                let slice = crate::machine::Slice { first: *first, last: *last, backward: false };
                let held = self.cached(|cached| cached.events(&slice)).flatten();
                let events: Vec<Bytes> = match held.filter(|_| *epoch == record.epoch) {
                    Some(events) => events,
                    None => self.shared().storage.events(&self.key, *epoch, *first, *last).await?,
                };
                Ok(Content::Events(events))
            }
        }
    }

    fn deliver_to(&mut self, options: &SinkOptions, parcel: Parcel, content: Content, delay_ms: i64) {
        let (sink, name) = (options.sink.clone(), options.name.clone());
        let clock = self.shared().clock.clone();
        let delivery = Delivery { key: self.key.clone(), content };
        self.outbox.under_way.spawn(async move {
            clock.sleep_until(clock.now().saturating_add(delay_ms)).await;
            Sent { sink: name, parcel, result: sink.publish(delivery).await }
        });
    }

    /// Notes what became of a delivery, and sends what comes next.
    pub(super) async fn sent(&mut self, sent: Sent) -> Result<(), EngineError> {
        let Sent { sink, parcel, result } = sent;
        let metrics = &self.namespace.metrics;
        match result {
            Ok(()) => {
                if let Parcel::Events { first, last, .. } = &parcel {
                    metrics.produced(&sink).inc_by(last.abs_diff(*first) + 1);
                }
                self.outbox.attempts.remove(&sink);
                self.change(|cell| {
                    if let Some(record) = cell.as_mut().and_then(|cached| cached.record.as_mut()) {
                        Arc::make_mut(record).acknowledge(&sink, &parcel);
                    }
                });
                self.ship().await;
                Ok(())
            }
            Err(error) => {
                metrics.sink_failed(&sink, error.name());
                let attempt = self.outbox.attempts.entry(sink.clone()).or_default();
                let delay = match error {
                    SinkError::Unavailable(_) => RETRY_MS.0.saturating_mul(1 << (*attempt).min(20)).min(RETRY_MS.1),
                    SinkError::Misconfigured(_) => MISCONFIGURED_RETRY_MS,
                };
                *attempt += 1;
                tracing::warn!(ns = self.key.ns.as_str(), id = %self.key.id, sink = &*sink, %error, attempt, "a sink did not take events; they are sent again");
                let delay = (delay as f64 * (0.5 + random_unit())) as i64;
                self.send_again(&sink, parcel, delay).await;
                Err(StorageError::Unavailable(error.to_string()).into())
            }
        }
    }

    async fn send_again(&mut self, sink: &Arc<str>, parcel: Parcel, delay_ms: i64) {
        let options = self.namespace.options.sinks.iter().find(|it| it.name == *sink).cloned();
        let (Some(options), Some(record)) = (options, self.record()) else {
            self.outbox.attempts.remove(sink);
            return;
        };
        match self.content(&record, &parcel).await {
            Ok(content) => self.deliver_to(&options, parcel, content, delay_ms),
            // The record's due brings it back.
            Err(_) => drop(self.outbox.attempts.remove(sink)),
        }
    }

    /// Waits until the sinks that a reply waits for have all that the record owes them. The first failure ends the
    /// wait, and so does the deadline; the delivery goes on.
    pub(super) async fn acknowledged(&mut self, deadline: i64) -> Result<(), EngineError> {
        loop {
            let waits = |record: &Arc<Record>| {
                let names = self.namespace.options.sinks.iter().filter(|it| it.before_reply).map(|it| &it.name);
                names.into_iter().any(|name| record.unsent.iter().any(|unsent| *unsent.sink == **name))
            };
            if !self.record().as_ref().is_some_and(waits) {
                return Ok(());
            }
            let clock = self.shared().clock.clone();
            match clock.timeout_at(deadline, self.outbox.next()).await {
                Ok(sent) => self.sent(sent).await?,
                Err(_) => return Err(EngineError::TimedOut),
            }
        }
    }

    /// Whether a reply waits for some sink.
    pub(super) fn replies_wait(&self) -> bool {
        self.namespace.options.sinks.iter().any(|sink| sink.before_reply)
    }
}

/// A parcel that is no larger than one delivery may be.
fn bounded(parcel: &Parcel) -> Parcel {
    match parcel {
        Parcel::Events { epoch, first, last } => {
            Parcel::Events { epoch: *epoch, first: *first, last: (*last).min(first + MOST_EVENTS - 1) }
        }
        Parcel::Lifecycle(lifecycle) => Parcel::Lifecycle(lifecycle.clone()),
    }
}
