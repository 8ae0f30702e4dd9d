//! What sinks have, lack and refuse, Kafka's topics and ledgers among them.

use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::definition::{DURATIONS, Register};

/// The names of a sink's errors.
const SINK_FAILURES: &[&str] = &["unavailable", "misconfiguration"];

#[derive(Debug)]
pub(super) struct SinkFamilies {
    pending: IntGaugeVec,
    age: GaugeVec,
    produced: IntCounterVec,
    retries: IntCounterVec,
    stuck: IntGaugeVec,
    failures: IntCounterVec,
    kafka_produced: HistogramVec,
    broken: IntGaugeVec,
    ledger_entries: IntCounterVec,
    ledger_appends: IntCounterVec,
}

/// One sink's handles in a namespace.
#[derive(Debug)]
pub struct SinkMetrics {
    pub pending: IntGauge,
    pub stuck: IntGauge,
    pub produced: IntCounter,
    pub retried: IntCounter,
    failed: Vec<(&'static str, IntCounter)>,
}

/// What a sink that is a Kafka topic takes its time for, by delivery.
#[derive(Debug)]
pub struct KafkaSinkMetrics {
    pub encode: Histogram,
    pub send: Histogram,
}

/// One ledger's handles, where blocks are appended beside the commits.
#[derive(Clone, Debug)]
pub struct LedgerMetrics {
    pub entries: IntCounter,
    pub blocks: IntCounter,
    pub taken: IntCounter,
    pub failed: IntCounter,
    pub looked_back: IntCounter,
}

// === impl SinkFamilies ===

impl SinkFamilies {
    pub(super) fn new(register: &Register) -> Self {
        Self {
            pending: register.gauge(
                "machinegun_sink_pending",
                "Events and lifecycle entries of loaded machines that a sink has not acknowledged.",
                &["namespace", "name"],
            ),
            age: register.fraction(
                "machinegun_sink_oldest_age_seconds",
                "For how long the oldest delivery that is under way has been owed to a sink; 0 if none is.",
                &["namespace", "name"],
            ),
            retries: register.counter(
                "machinegun_sink_retries_total",
                "Deliveries that are sent again because a sink did not take them.",
                &["namespace", "name"],
            ),
            stuck: register.gauge(
                "machinegun_sink_misconfigured",
                "Machines whose next delivery a sink will not take until somebody mends something; tried again slowly.",
                &["namespace", "name"],
            ),
            kafka_produced: register.histogram(
                "mg_events_sink_kafka_produced_duration_seconds",
                "Time that a delivery to a Kafka topic took to be encoded, and until the brokers had it.",
                &["namespace", "name", "action"],
                DURATIONS,
            ),
            produced: register.counter(
                "mg_events_sink_produced_total",
                "Events that a sink has acknowledged.",
                &["namespace", "name"],
            ),
            failures: register.counter(
                "machinegun_sink_failures_total",
                "Deliveries that a sink did not take; each is tried again.",
                &["namespace", "name", "reason"],
            ),
            broken: register.gauge(
                "machinegun_ledger_broken",
                "1 if the look over a ledger after the start found a break in its chain, 0 if it found none; absent until then.",
                &["sink"],
            ),
            ledger_entries: register.counter(
                "machinegun_ledger_entries_total",
                "Entries that this instance has appended to a ledger beside the commits.",
                &["sink"],
            ),
            ledger_appends: register.counter(
                "machinegun_ledger_appends_total",
                "What became of blocks that this instance put: `done`; `taken`, another instance was faster; `failed`. And `looked_back`: deliveries for which older blocks were read first.",
                &["sink", "outcome"],
            ),
        }
    }

    pub(super) fn age(&self, namespace: &str, sink: &str) -> Gauge {
        self.age.with_label_values(&[namespace, sink])
    }

    pub(super) fn sink(&self, namespace: &str, sink: &str) -> SinkMetrics {
        let labels = [namespace, sink];
        let failed = |reason| self.failures.with_label_values(&[namespace, sink, reason]);
        SinkMetrics {
            pending: self.pending.with_label_values(&labels),
            produced: self.produced.with_label_values(&labels),
            retried: self.retries.with_label_values(&labels),
            stuck: self.stuck.with_label_values(&labels),
            failed: SINK_FAILURES.iter().map(|reason| (*reason, failed(reason))).collect(),
        }
    }

    pub(super) fn kafka(&self, namespace: &str, sink: &str) -> KafkaSinkMetrics {
        let action = |action| self.kafka_produced.with_label_values(&[namespace, sink, action]);
        KafkaSinkMetrics { encode: action("encode"), send: action("send") }
    }

    pub(super) fn broken(&self, sink: &str) -> IntGauge {
        self.broken.with_label_values(&[sink])
    }

    pub(super) fn ledger(&self, sink: &str) -> LedgerMetrics {
        let appends = |outcome| self.ledger_appends.with_label_values(&[sink, outcome]);
        LedgerMetrics {
            entries: self.ledger_entries.with_label_values(&[sink]),
            blocks: appends("done"),
            taken: appends("taken"),
            failed: appends("failed"),
            looked_back: appends("looked_back"),
        }
    }
}

// === impl SinkMetrics ===

impl SinkMetrics {
    /// By the error's name.
    pub fn failed(&self, reason: &str) -> &IntCounter {
        let found = self.failed.iter().find(|(name, _)| *name == reason);
        // Every name that an error has is listed above.
        &found.unwrap_or(&self.failed[0]).1
    }
}
