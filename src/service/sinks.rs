//! What a namespace's events go to: the sinks, and the clients and ledgers behind them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::StartError;
#[cfg(feature = "kafka")]
use crate::config::StorageSettings;
use crate::config::{Ack, EventSinkKind, KafkaTopic, LIFECYCLE_SINK, NamespaceSettings, Settings};
use crate::engine::{NamespaceOptions, SinkOptions};
use crate::machine::Subscription;
#[cfg(feature = "kafka")]
use crate::sink::kafka::{Client, KafkaSink};
use crate::sink::{LedgerSink, Sink};
use crate::storage::ledger::LedgerWriter;
use crate::telemetry::Metrics;

/// What sinks share.
pub(super) struct Outlets {
    /// Of the ledgers that are no part of the commits.
    writers: BTreeMap<String, Arc<LedgerWriter>>,
    /// The clients that some sink names, each once for the whole service.
    #[cfg(feature = "kafka")]
    kafka: BTreeMap<String, Arc<Client>>,
}

// === impl Outlets ===

impl Outlets {
    /// Kafka's brokers are looked for from here on; whether there are any shows later.
    pub(super) fn open(settings: &Settings, writers: BTreeMap<String, Arc<LedgerWriter>>) -> Result<Self, StartError> {
        let sinks = settings.namespaces.iter().flat_map(|namespace| &namespace.event_sinks);
        let topics = sinks.filter_map(|sink| match &sink.kind {
            EventSinkKind::Kafka(topic) => Some(topic),
            EventSinkKind::Ledger { .. } => None,
        });
        let mut outlets = Self {
            writers,
            #[cfg(feature = "kafka")]
            kafka: BTreeMap::new(),
        };
        for topic in topics.chain(&settings.lifecycle_pulse) {
            outlets.connect(settings, topic)?;
        }
        Ok(outlets)
    }

    #[cfg(feature = "kafka")]
    fn connect(&mut self, settings: &Settings, topic: &KafkaTopic) -> Result<(), StartError> {
        let lease = match &settings.storage {
            StorageSettings::Dynamodb(dynamodb) => Some(dynamodb.lease_time),
            StorageSettings::Embedded(_) | StorageSettings::Memory => None,
        };
        // The configuration was checked: the client is there.
        let found = settings.kafka.iter().find(|it| it.name == topic.client);
        if let Some(client) = found.filter(|it| !self.kafka.contains_key(&it.name)) {
            let sinks = settings.namespaces.iter().flat_map(|namespace| &namespace.event_sinks);
            let mut awaiting = sinks.filter(|sink| sink.ack == Ack::BeforeReply).map(|sink| &sink.kind);
            let awaited =
                awaiting.any(|kind| matches!(kind, EventSinkKind::Kafka(topic) if topic.client == client.name));
            self.kafka.insert(client.name.clone(), Client::new(client, lease, awaited)?);
        }
        Ok(())
    }

    #[cfg(not(feature = "kafka"))]
    fn connect(&mut self, _: &Settings, topic: &KafkaTopic) -> Result<(), StartError> {
        Err(StartError::Sink(format!("kafka.{}: this program was built without the feature `kafka`", topic.client)))
    }

    /// The namespace with its sinks in the order of the file, and the lifecycle's topic behind them. Ledgers are sinks
    /// where they have writers, and part of the commits where they don't.
    pub(super) fn join(
        &self,
        mut options: NamespaceOptions,
        namespace: &NamespaceSettings,
        settings: &Settings,
        metrics: &Metrics,
    ) -> NamespaceOptions {
        let mut add = |name: &str, ack, sink| {
            let lifecycle = name == LIFECYCLE_SINK;
            let subscription = Subscription { sink: name.to_owned(), events: !lifecycle, lifecycle };
            options.policy.subscriptions.push(subscription);
            options.sinks.push(SinkOptions { name: name.into(), sink, before_reply: ack == Ack::BeforeReply });
        };
        for settings in &namespace.event_sinks {
            match &settings.kind {
                EventSinkKind::Ledger { machine_id } => match self.writers.get(machine_id) {
                    Some(writer) => add(&settings.name, settings.ack, Arc::new(LedgerSink::new(writer.clone()))),
                    None => options.ledgers.push(machine_id.clone()),
                },
                EventSinkKind::Kafka(topic) => {
                    if let Some(sink) = self.topic(&namespace.name, &settings.name, topic, metrics) {
                        add(&settings.name, settings.ack, sink);
                    }
                }
            }
        }
        if let Some(topic) = &settings.lifecycle_pulse
            && let Some(sink) = self.topic(&namespace.name, LIFECYCLE_SINK, topic, metrics)
        {
            add(LIFECYCLE_SINK, Ack::Committed, sink);
        }
        options
    }

    /// None: its client was not opened, which kept the service from starting.
    #[cfg(feature = "kafka")]
    fn topic(&self, namespace: &str, name: &str, topic: &KafkaTopic, metrics: &Metrics) -> Option<Arc<dyn Sink>> {
        let client = self.kafka.get(&topic.client)?.clone();
        Some(Arc::new(KafkaSink::new(client, &topic.topic, metrics.kafka_sink(namespace, name))))
    }

    #[cfg(not(feature = "kafka"))]
    fn topic(&self, _: &str, _: &str, _: &KafkaTopic, _: &Metrics) -> Option<Arc<dyn Sink>> {
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

/// The ledgers that a namespace's events are entered in.
pub(super) fn ledgers(namespace: &NamespaceSettings) -> impl Iterator<Item = String> {
    namespace.event_sinks.iter().filter_map(|sink| match &sink.kind {
        EventSinkKind::Ledger { machine_id } => Some(machine_id.clone()),
        EventSinkKind::Kafka(_) => None,
    })
}
