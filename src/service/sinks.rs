//! The Kafka clients that sinks name, and the sinks themselves.

#[cfg(feature = "kafka")]
use std::collections::BTreeMap;
#[cfg(feature = "kafka")]
use std::sync::Arc;

use super::StartError;
use crate::config::{Ack, EventSinkKind, KafkaTopic, LIFECYCLE_SINK, NamespaceSettings, Settings};
use crate::engine::SinkOptions;
use crate::machine::Subscription;
#[cfg(feature = "kafka")]
use crate::sink::kafka::{Client, KafkaSink};
use crate::telemetry::Metrics;

/// The clients that some sink names, each once for the whole service.
#[derive(Default)]
pub(super) struct Clients {
    #[cfg(feature = "kafka")]
    kafka: BTreeMap<String, Arc<Client>>,
}

// === impl Clients ===

impl Clients {
    /// Looks for brokers from here on; whether there are any shows later.
    pub(super) fn new(settings: &Settings) -> Result<Self, StartError> {
        let topics = settings.namespaces.iter().flat_map(topics).map(|(_, _, topic)| topic);
        let mut clients = Self::default();
        for topic in topics.chain(&settings.lifecycle_pulse) {
            clients.open(settings, topic)?;
        }
        Ok(clients)
    }

    #[cfg(feature = "kafka")]
    fn open(&mut self, settings: &Settings, topic: &KafkaTopic) -> Result<(), StartError> {
        // The configuration was checked: the client is there.
        let found = settings.kafka.iter().find(|it| it.name == topic.client);
        if let Some(client) = found.filter(|it| !self.kafka.contains_key(&it.name)) {
            self.kafka.insert(client.name.clone(), Client::new(client)?);
        }
        Ok(())
    }

    #[cfg(not(feature = "kafka"))]
    fn open(&mut self, _: &Settings, topic: &KafkaTopic) -> Result<(), StartError> {
        Err(StartError::Sink(format!("kafka.{}: this program was built without the feature `kafka`", topic.client)))
    }

    /// The namespace's sinks in the order of the file, the lifecycle's topic behind them, and what each takes.
    pub(super) fn sinks(
        &self,
        namespace: &NamespaceSettings,
        settings: &Settings,
        metrics: &Metrics,
    ) -> (Vec<SinkOptions>, Vec<Subscription>) {
        let lifecycle = settings.lifecycle_pulse.iter().map(|topic| (LIFECYCLE_SINK, Ack::Committed, topic));
        let sinks = topics(namespace).chain(lifecycle).filter_map(|(name, ack, topic)| {
            let options = self.sink(&namespace.name, name, ack, topic, metrics)?;
            let lifecycle = name == LIFECYCLE_SINK;
            Some((options, Subscription { sink: name.to_owned(), events: !lifecycle, lifecycle }))
        });
        sinks.unzip()
    }

    #[cfg(feature = "kafka")]
    fn sink(
        &self,
        namespace: &str,
        name: &str,
        ack: Ack,
        topic: &KafkaTopic,
        metrics: &Metrics,
    ) -> Option<SinkOptions> {
        let client = self.kafka.get(&topic.client)?.clone();
        let sink = Arc::new(KafkaSink::new(client, &topic.topic, metrics.kafka_sink(namespace, name)));
        Some(SinkOptions { name: name.into(), sink, before_reply: ack == Ack::BeforeReply })
    }

    #[cfg(not(feature = "kafka"))]
    fn sink(&self, _: &str, _: &str, _: Ack, _: &KafkaTopic, _: &Metrics) -> Option<SinkOptions> {
        None
    }

    /// Gives up what is under way: it is owed, and sent by whoever comes next.
    pub(super) async fn close(&self) {
        #[cfg(feature = "kafka")]
        for client in self.kafka.values() {
            client.close().await;
        }
    }
}

/// The ledgers that a namespace's events are entered in, as part of their commits.
pub(super) fn ledgers(namespace: &NamespaceSettings) -> impl Iterator<Item = String> {
    namespace.event_sinks.iter().filter_map(|sink| match &sink.kind {
        EventSinkKind::Ledger { machine_id } => Some(machine_id.clone()),
        EventSinkKind::Kafka(_) => None,
    })
}

/// Where a namespace's events go in Kafka: the sink's name, what callers wait for, the topic.
fn topics(namespace: &NamespaceSettings) -> impl Iterator<Item = (&str, Ack, &KafkaTopic)> {
    namespace.event_sinks.iter().filter_map(|sink| match &sink.kind {
        EventSinkKind::Kafka(topic) => Some((&*sink.name, sink.ack, topic)),
        EventSinkKind::Ledger { .. } => None,
    })
}
