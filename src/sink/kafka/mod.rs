//! Topics of Kafka, with the original's keys, values and partitions.
//!
//! A machine's messages go one by one: the next leaves when the brokers have the one before. So however a message
//! fails, on its way, in a queue or at a broker, nothing that comes after it was ever seen, and consumers find each
//! machine's events in order. Machines don't wait for each other; the client puts their messages together in batches.
//! What was acknowledged of a delivery counts, even if the rest of it fails.
//!
//! A message that may or may not have arrived is sent again: the broker knows it, as long as it is the same producer's
//! (`required_acks: all_isr`). After a crash, a message is repeated from what the record knows.

mod client;
mod error;
pub mod message;
pub mod partition;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Content, Delivery, Receipt, Room, Sink, SinkError};
use crate::clock::Stopwatch;
use crate::machine::MachineKey;
use crate::telemetry::KafkaSinkMetrics;

pub use client::Client;
pub use settings::KafkaError;

/// After so long a delivery ends with what it has come to: the machine notes that, and the rest is another one. Well below
/// what the engine grants an attempt.
const LONGEST_DELIVERY: Duration = Duration::from_secs(20);

/// A topic that one namespace's events, or changes of life, go to.
pub struct KafkaSink {
    client: Arc<Client>,
    topic: String,
    metrics: KafkaSinkMetrics,
}

// === impl KafkaSink ===

impl KafkaSink {
    pub fn new(client: Arc<Client>, topic: &str, metrics: KafkaSinkMetrics) -> Self {
        Self { client, topic: topic.to_owned(), metrics }
    }
}

/// The value of a delivery's message with this number.
fn value(key: &MachineKey, content: &Content, number: usize) -> Result<Bytes, SinkError> {
    match content {
        // What is stored was written by this service: it can't be read only if the store is damaged.
        Content::Events { events, .. } => message::event_value(key, &events[number])
            .map_err(|error| SinkError::Misconfigured(format!("a stored event can't be read: {error}"))),
        Content::Lifecycle(lifecycle) => Ok(message::lifecycle_value(key, lifecycle)),
    }
}

#[async_trait]
impl Sink for KafkaSink {
    async fn publish(&self, delivery: Delivery) -> Result<Receipt, SinkError> {
        let Delivery { key: machine, content, leave, room } = delivery;
        let (key, messages) = (message::key(&machine), content.entries());
        let mut place = room.and_then(Room::into_place);
        let (watch, mut encoding, mut sending) = (Stopwatch::start(), Duration::ZERO, Duration::ZERO);
        let part = |taken| Receipt { taken: Some(taken), ..Receipt::default() };
        for taken in 0..messages {
            if taken > 0 && watch.elapsed() > LONGEST_DELIVERY {
                return Ok(part(taken));
            }
            // IMPORTANT: one after the other. See above.
            let waiting = Stopwatch::start();
            let sent = async {
                let place = match place.take() {
                    Some(place) => place,
                    None => self.client.place(LONGEST_DELIVERY.saturating_sub(watch.elapsed())).await?,
                };
                // It must not be on its way when another sends the same, and more.
                leave.check(self.client.life())?;
                // Only now: what waits for a place holds no values.
                let watch = Stopwatch::start();
                let value = value(&machine, &content, taken)?;
                encoding += watch.elapsed();
                Ok(self.client.send(place, waiting, &self.topic, &key, &value).await?)
            };
            match sent.await {
                Ok(took) => sending += took,
                Err(error) if taken == 0 => return Err(error),
                // The rest meets the same trouble by itself, and is told of then.
                Err(_) => return Ok(part(taken)),
            }
        }
        self.metrics.encode.observe(encoding.as_secs_f64());
        self.metrics.send.observe(sending.as_secs_f64());
        Ok(part(messages))
    }

    /// One message is one hand-over; the next ones wait for it.
    fn promptly(&self, entries: usize) -> Option<Room> {
        if entries == 1 { self.client.try_place().map(Room::of) } else { None }
    }
}
