//! One attempt to deliver a parcel to a sink: as a task beside the machine's worker, or polled by that.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::Notify;
use tracing::{Instrument, Span};

use super::namespace::NamespaceEngine;
use super::owner::Claim;
use crate::clock::Elapsed;
use crate::failpoint::{self, Failpoint};
use crate::machine::{Epoch, MachineKey, Parcel};
use crate::sink::{Content, Delivery, Leave, Receipt, Room, Sink, SinkError};
use crate::storage::StorageError;
use crate::telemetry::metrics::Stored;
use crate::telemetry::trace::traced;

/// Events in one delivery, and their bytes: one event alone may be larger.
pub(super) const MOST_EVENTS: i64 = 500;
const MOST_BYTES: usize = 4 << 20;

/// Events read from the store at once.
const PAGE: i64 = 50;

/// Milliseconds that an attempt may take: more than any sink needs that is in order, its own attempts included. One that
/// hangs must not hold up the machine for ever.
const LONGEST_ATTEMPT_MS: i64 = 60_000;

pub(super) struct Job {
    pub(super) namespace: Arc<NamespaceEngine>,
    pub(super) key: MachineKey,
    /// The sink's place among the namespace's.
    pub(super) sink: usize,
    pub(super) to: Arc<dyn Sink>,
    pub(super) parcel: Parcel,
    /// Where the sink may have some of it: see [`crate::machine::Unsent`].
    pub(super) behind: i64,
    /// Of its events, at the most.
    pub(super) most: i64,
    /// The parcel's events, if they are in memory.
    pub(super) held: Option<Vec<Bytes>>,
    /// Of a prompt one.
    pub(super) room: Option<Room>,
    /// None: there is nobody else who could own the machine.
    pub(super) claim: Option<Claim>,
    /// Of the step that made the events, as far as it is known.
    pub(super) scope: Span,
}

/// What became of it.
pub(super) struct Sent {
    pub(super) sink: usize,
    /// What was sent: maybe only the beginning of what was to be sent.
    pub(super) parcel: Parcel,
    pub(super) result: Result<Receipt, Undelivered>,
    pub(super) scope: Span,
}

#[derive(Debug)]
pub(super) enum Undelivered {
    Refused(SinkError),
    /// It was not this instance's to make any more, or is again under another tenure: the machine's owner sends what is
    /// owed then.
    Disowned(SinkError),
}

/// By which the worker reaches a delivery that is a task of its own.
#[derive(Debug, Default)]
pub(super) struct Reins {
    /// Told, a waiting attempt is made at once.
    hurry: Notify,
    /// The attempt has begun.
    begun: AtomicBool,
}

// === impl Reins ===

impl Reins {
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }
}

// === impl Job ===

impl Job {
    /// Begins at `not_before` (unix milliseconds), unless somebody hurries it. Ends, whatever the sink does.
    pub(super) async fn run(mut self, not_before: i64, reins: Arc<Reins>) -> Sent {
        let namespace = self.namespace.clone();
        let clock = namespace.clock();
        tokio::select! {
            biased;
            () = clock.sleep_until(not_before) => {}
            () = reins.hurry.notified() => {}
        }
        reins.begun.store(true, Ordering::Release);
        let leave = self.leave();
        let until = clock.now().saturating_add(LONGEST_ATTEMPT_MS);
        let result = match clock.timeout_at(until, self.attempt(&leave)).await {
            Ok(result) => result,
            Err(Elapsed) => Err(SinkError::Unavailable("it did not answer in time".to_owned())),
        };
        self.sent(result, &leave)
    }

    /// At once, for a sink that ends by itself.
    pub(super) async fn run_promptly(mut self) -> Sent {
        let leave = self.leave();
        let result = self.attempt(&leave).await;
        self.sent(result, &leave)
    }

    /// Whether it costs no task: its events are at hand, and the sink has kept room to take them at once.
    pub(super) fn finds_room(&mut self) -> bool {
        let entries = match &self.parcel {
            Parcel::Lifecycle(_) => Some(1),
            Parcel::Events { .. } => self.held.as_ref().map(Vec::len),
        };
        self.room = entries.and_then(|entries| self.to.promptly(entries));
        self.room.is_some()
    }

    fn leave(&self) -> Leave {
        let Some(claim) = self.claim.clone() else { return Leave::default() };
        Leave::as_long_as(move |time| claim.stands_for(time))
    }

    async fn attempt(&mut self, leave: &Leave) -> Result<Receipt, SinkError> {
        let scope = self.scope.clone();
        let attempt = AssertUnwindSafe(self.deliver(leave).instrument(scope)).catch_unwind();
        attempt.await.unwrap_or_else(|_| Err(SinkError::Unavailable("it panicked".to_owned())))
    }

    fn sent(self, result: Result<Receipt, SinkError>, leave: &Leave) -> Sent {
        let result = result.map_err(|error| match leave.check(Duration::ZERO) {
            Ok(()) => Undelivered::Refused(error),
            Err(disowned) => Undelivered::Disowned(disowned),
        });
        Sent { sink: self.sink, parcel: self.parcel, result, scope: self.scope }
    }

    async fn deliver(&mut self, leave: &Leave) -> Result<Receipt, SinkError> {
        leave.check(Duration::ZERO)?;
        let content = match &self.parcel {
            Parcel::Lifecycle(lifecycle) => Content::Lifecycle(lifecycle.clone()),
            Parcel::Events { epoch, first, last } => {
                let most = (*last).min(first.saturating_add(self.most - 1));
                let events = match self.held.take() {
                    Some(held) => bounded(held, self.most as usize),
                    None => read(&self.namespace, &self.key, *epoch, *first, most).await?,
                };
                Content::Events { epoch: *epoch, first: *first, events, behind: self.behind }
            }
        };
        let sent = content.entries();
        let handler = &*self.namespace.options.sinks[self.sink].name;
        let span = traced!(
            "sinking events",
            kind = "producer",
            mg.event_sink.handler = handler,
            mg.event_sink.count = sent,
            mg.machine.ns = self.key.ns.as_str(),
            mg.machine.id = %self.key.id,
        );
        failpoint::reached(Failpoint::BeforeDelivery);
        // Reading may have taken long.
        leave.check(Duration::ZERO)?;
        let delivery = Delivery { key: self.key.clone(), content, leave: leave.clone(), room: self.room.take() };
        let receipt = self.to.publish(delivery).instrument(span).await?;
        failpoint::reached(Failpoint::AfterDelivery);
        let taken = receipt.taken.unwrap_or(sent).min(sent);
        if taken == 0 {
            return Err(SinkError::Unavailable("it took nothing".to_owned()));
        }
        if let Parcel::Events { first, last, .. } = &mut self.parcel {
            *last = first.saturating_add(taken as i64 - 1);
        }
        Ok(receipt)
    }
}

/// The first events, as many as one delivery may have.
fn bounded(mut events: Vec<Bytes>, most: usize) -> Vec<Bytes> {
    events.truncate(most);
    let mut bytes = 0;
    let fits = events.iter().take_while(|event| {
        bytes += event.len();
        bytes <= MOST_BYTES
    });
    let fits = fits.count().max(1);
    events.truncate(fits);
    events
}

async fn read(
    namespace: &NamespaceEngine,
    key: &MachineKey,
    epoch: Epoch,
    first: i64,
    last: i64,
) -> Result<Vec<Bytes>, SinkError> {
    let mut events: Vec<Bytes> = Vec::new();
    let mut from = first;
    while from <= last && events.iter().map(Bytes::len).sum::<usize>() < MOST_BYTES {
        let to = last.min(from + PAGE - 1);
        let page = namespace.stored(Stored::GetEvents, namespace.shared.storage.events(key, epoch, from, to)).await;
        events.extend(page.map_err(|error| {
            let text = format!("the events can't be read: {error}");
            match error {
                StorageError::Unavailable(_) => SinkError::Unavailable(text),
                StorageError::Corrupt(_) => SinkError::Misconfigured(text),
            }
        })?);
        from = to + 1;
    }
    Ok(bounded(events, usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_bounded_by_count_and_bytes_and_never_empty() {
        let event = |size| Bytes::from(vec![0; size]);
        assert_eq!(bounded(vec![event(1); 9], 4).len(), 4);
        assert_eq!(bounded(vec![event(MOST_BYTES / 2); 9], 500).len(), 2);
        assert_eq!(bounded(vec![event(MOST_BYTES + 1); 9], 500).len(), 1);
    }
}
