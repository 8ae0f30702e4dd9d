//! One producer per configured client, shared by all the sinks that name it.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError as NativeError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext, Message as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::error::Trouble;
use super::partition::ByKey;
use super::settings::{self, KafkaError};
use crate::clock::Stopwatch;
use crate::config;

/// A configured Kafka client. Brokers are looked for from its making on, and for as long as it lives.
pub struct Client {
    name: String,
    config: ClientConfig,
    life: Duration,
    /// Replaced when it has broken for good; none once the client is closed.
    producer: Mutex<Option<Arc<Apart<Producer>>>>,
    /// Messages that may wait for a broker's acknowledgement.
    room: Arc<Semaphore>,
}

type Producer = ThreadedProducer<Context, ByKey>;

/// Ends on a thread of its own: whoever lets go of it last may serve others, and its own threads are waited for.
struct Apart<T: Send + 'static>(Option<T>);

/// Hears what becomes of messages, and of the producer.
struct Context {
    client: String,
    by_key: ByKey,
    /// The library takes what was acknowledged for an acknowledgement of all that it sent before: see [`Self::delivery`].
    infers: bool,
    /// What last went wrong with the connections, until a message gets through again.
    trouble: Mutex<Option<Trouble>>,
}

/// Whoever waits for a message, and the message's place among those that are under way.
struct Awaited {
    answer: oneshot::Sender<Result<Duration, Trouble>>,
    watch: Stopwatch,
    _place: OwnedSemaphorePermit,
}

// === impl Client ===

impl Client {
    /// `lease` is how long instances hold their shards, if there may be others. `awaited`: replies wait for some of its
    /// messages, so none waits for others that share its request.
    pub fn new(client: &config::KafkaClient, lease: Option<Duration>, awaited: bool) -> Result<Arc<Self>, KafkaError> {
        let name = client.name.clone();
        let config = settings::client_config(client, lease, awaited)?;
        let producer = producer(&name, &config)
            .map_err(|error| KafkaError::Refused { client: name.clone(), reason: error.to_string() })?;
        let room = Arc::new(Semaphore::new(settings::room(client) as usize));
        let life = settings::life(lease);
        Ok(Arc::new(Self { name, config, life, producer: Mutex::new(Some(producer)), room }))
    }

    /// Waits for a place among the messages under way.
    pub(super) async fn place(&self, time: Duration) -> Result<OwnedSemaphorePermit, Trouble> {
        match timeout(time, self.room.clone().acquire_owned()).await {
            Ok(place) => place.map_err(|_| closed()),
            Err(_) => Err(Trouble::new(RDKafkaErrorCode::QueueFull, "too many messages wait for the brokers")),
        }
    }

    /// How long a message may be on its way.
    pub(super) fn life(&self) -> Duration {
        self.life
    }

    /// A place, if there is one at once.
    pub(super) fn try_place(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().ok()
    }

    /// Returns once the brokers have acknowledged the message, as many of them as the configuration asks for, and no later
    /// than a message lives. Handed over when this is first polled. How long it took by `watch` until they had it: whoever
    /// polls this may come much later.
    pub(super) async fn send(
        &self,
        place: OwnedSemaphorePermit,
        watch: Stopwatch,
        topic: &str,
        key: &[u8],
        value: &[u8],
    ) -> Result<Duration, Trouble> {
        let producer = self.held().clone().ok_or_else(closed)?;
        let (answer, awaited) = oneshot::channel();
        let awaiting = Box::new(Awaited { answer, watch, _place: place });
        let record = BaseRecord::with_opaque_to(topic, awaiting).key(key).payload(value);
        let sent = match producer.send(record) {
            Ok(()) => awaited.await.unwrap_or_else(|_| Err(closed())),
            Err((error, _)) => Err(trouble_of(&error)),
        };
        sent.map_err(|trouble| self.explained(trouble, &producer))
    }

    /// Gives up what is under way. Nothing is sent from here on.
    pub async fn close(&self) {
        self.room.close();
        let Some(producer) = self.held().take() else { return };
        let end = move || {
            // Who waits for messages holds it too.
            producer.purge(PurgeConfig::default().queue().inflight());
            // If nobody does, its threads are waited for here.
            Arc::into_inner(producer).and_then(Apart::into_inner)
        };
        let _ = tokio::task::spawn_blocking(move || drop(end())).await;
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Arc<Apart<Producer>>>> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trouble behind the trouble. A producer that is broken for good is replaced.
    fn explained(&self, trouble: Trouble, producer: &Arc<Apart<Producer>>) -> Trouble {
        if let Some((code, text)) = producer.client().fatal_error() {
            self.replace(producer);
            return Trouble::new(code, text);
        }
        match (trouble.code, producer.context().trouble()) {
            // Nothing is known of the message but that it is too old; of the connection, more.
            (RDKafkaErrorCode::MessageTimedOut, Some(behind)) => {
                let code = if behind.lasts() { behind.code } else { trouble.code };
                Trouble::new(code, format!("{}; {}", trouble.text, behind.text))
            }
            _ => trouble,
        }
    }

    fn replace(&self, broken: &Arc<Apart<Producer>>) {
        let mut held = self.held();
        if !held.as_ref().is_some_and(|it| Arc::ptr_eq(it, broken)) {
            return;
        }
        match producer(&self.name, &self.config) {
            Ok(producer) => *held = Some(producer),
            // The next message that fails tries again.
            Err(error) => {
                tracing::warn!(client = self.name, error.reason = %error, "a broken Kafka producer could not be replaced")
            }
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.name)
    }
}

fn producer(client: &str, config: &ClientConfig) -> Result<Arc<Apart<Producer>>, NativeError> {
    let infers = config.get("enable.idempotence") == Some("true");
    let context = Context { client: client.to_owned(), by_key: ByKey, infers, trouble: Mutex::default() };
    Ok(Arc::new(Apart::new(config.create_with_context(context)?)))
}

fn closed() -> Trouble {
    Trouble::new(RDKafkaErrorCode::PurgeQueue, "the client is closed")
}

fn trouble_of(error: &NativeError) -> Trouble {
    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
    Trouble::new(code, code.to_string())
}

// === impl Apart ===

impl<T: Send> Apart<T> {
    fn new(it: T) -> Self {
        Self(Some(it))
    }

    /// To be dropped here.
    fn into_inner(mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T: Send> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // It is taken out only with the whole, or by its end.
        self.0.as_ref().expect("it is there as long as this is")
    }
}

impl<T: Send> Drop for Apart<T> {
    fn drop(&mut self) {
        if let Some(it) = self.0.take() {
            std::thread::spawn(move || drop(it));
        }
    }
}

// === impl Context ===

impl Context {
    fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, trouble: Option<Trouble>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        use RDKafkaLogLevel as Level;
        match level {
            Level::Emerg | Level::Alert | Level::Critical | Level::Error | Level::Warning => {
                tracing::warn!(client = self.client, facility, "Kafka: {text}");
            }
            Level::Notice | Level::Info => tracing::info!(client = self.client, facility, "Kafka: {text}"),
            Level::Debug => tracing::debug!(client = self.client, facility, "Kafka: {text}"),
        }
    }

    fn error(&self, error: NativeError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        // That all brokers are down says less than what was said of each of them before.
        if code == RDKafkaErrorCode::AllBrokersDown && self.trouble().is_some() {
            return;
        }
        self.note(Some(Trouble::new(code, reason)));
    }
}

impl ProducerContext<ByKey> for Context {
    type DeliveryOpaque = Box<Awaited>;

    fn delivery(&self, result: &DeliveryResult<'_>, awaited: Box<Awaited>) {
        let result = match result {
            // IMPORTANT: nobody has acknowledged this one, but another that was sent after it. That proves nothing: a
            // partition that holds nothing of a producer yet (a new partition, or after an outage a new producer) takes
            // the second request where it refused the first.
            Ok(message) if self.infers && message.offset() < 0 => {
                Err(Trouble::new(RDKafkaErrorCode::Retry, "no broker has said where the message stands"))
            }
            Ok(_) => {
                self.note(None);
                Ok(awaited.watch.elapsed())
            }
            Err((error, _)) => Err(trouble_of(error)),
        };
        // Whoever waited may be gone.
        let _ = awaited.answer.send(result);
    }

    fn get_custom_partitioner(&self) -> Option<&ByKey> {
        Some(&self.by_key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::ThreadId;

    use super::*;

    /// Tells on which thread it ends.
    struct Ending(mpsc::SyncSender<ThreadId>);

    impl Drop for Ending {
        fn drop(&mut self) {
            let _ = self.0.send(std::thread::current().id());
        }
    }

    #[tokio::test]
    async fn a_delivery_waits_no_longer_for_a_place_than_it_may() {
        let endpoint = config::KafkaEndpoint { host: "localhost".to_owned(), port: 1 };
        let producer = config::KafkaProducer { partition_buffer_limit: 1, ..config::KafkaProducer::default() };
        let client =
            config::KafkaClient { name: "c".to_owned(), endpoints: vec![endpoint], ssl: None, sasl: None, producer };
        let client = Client::new(&client, None, true).expect("a client");
        let places: Vec<_> = std::iter::from_fn(|| client.try_place()).collect();
        let refused = client.place(Duration::from_millis(1)).await.expect_err("all are taken");
        assert!(!refused.lasts(), "{refused:?}");
        drop(places);
        assert!(client.place(Duration::from_millis(1)).await.is_ok());
        client.close().await;
    }

    #[test]
    fn whoever_lets_go_of_a_producer_last_does_not_wait_for_its_threads() {
        let (ended, on) = mpsc::sync_channel(1);
        let one = Arc::new(Apart::new(Ending(ended)));
        let other = one.clone();
        drop(one);
        drop(other);
        assert_ne!(on.recv(), Ok(std::thread::current().id()));
    }
}
