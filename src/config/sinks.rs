//! Where a namespace's new events go, and how much of that it may owe.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::kafka::{KafkaClient, KafkaTopic};
use super::reader::Section;
use super::storage::StorageSettings;
use super::{duration, kafka};

/// `namespaces.<name>.event_sinks.<name>`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventSinkSettings {
    /// The name by which the namespace's machines know what they owe it: 1 to 255 bytes, one of its kind in the
    /// namespace. Renaming a sink is removing one and adding another.
    #[serde(skip)]
    pub name: String,
    /// `type`, and what belongs to it.
    #[serde(flatten)]
    pub kind: EventSinkKind,
    /// `ack`: what a caller waits for. Default `before_reply` for a ledger, `committed` for Kafka.
    pub ack: Ack,
}

/// `namespaces.<name>.event_sinks.<name>.type`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum EventSinkKind {
    /// `ledger`, or its old name `machine`: all its events in one order, read by `EventSink.GetHistory`.
    Ledger {
        /// `machine_id`, or `id`: the sink's id for its readers, 1 to 255 bytes. Namespaces that name the same one
        /// share it. Default: the sink's name.
        machine_id: String,
    },
    /// `kafka`: a topic. Namespaces that name the same client share it, and may write to the same topic.
    Kafka(KafkaTopic),
}

/// `namespaces.<name>.event_sinks.<name>.ack`
///
/// On a storage whose commit holds the ledger, a ledger has a step's events as soon as the step is committed: there
/// both come to the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// A caller is answered when the sink has the events of its step.
    BeforeReply,
    /// A caller is answered when its step is committed; the sink gets the events after that.
    Committed,
}

/// `namespaces.<name>.outbox`: what its machines owe their sinks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutboxSettings {
    /// `clear_interval`: a machine that takes no step notes by itself what sinks acknowledged, this long after.
    /// Default 10s.
    #[serde(serialize_with = "duration::text")]
    pub clear_interval: Duration,
    /// `max_pending`: events of the namespace that are not acknowledged yet, each counted once per sink, 1 to
    /// 1,000,000,000; past it new steps get 503 and timers wait. Default 100000.
    pub max_pending: u64,
}

/// The name by which machines know what they owe to `lifecycle_pulse`. No event sink has it.
pub const LIFECYCLE_SINK: &str = "lifecycle_pulse";

/// What is known of the file when a namespace's sinks are read.
pub(super) struct Outlets<'a> {
    pub(super) storage: &'a StorageSettings,
    pub(super) kafka: &'a [KafkaClient],
    /// There is a topic for changes of life.
    pub(super) lifecycle: bool,
}

const TYPE: &str = "write `type: kafka`, or `ledger`, or `machine`, its old name";
const ID: &str = "name it in 1 to 255 bytes";

// === impl OutboxSettings ===

impl Default for OutboxSettings {
    fn default() -> Self {
        OutboxSettings { clear_interval: Duration::from_secs(10), max_pending: 100_000 }
    }
}

// === in the shape of the file ===

pub(super) fn as_map<S: Serializer>(sinks: &[EventSinkSettings], out: S) -> Result<S::Ok, S::Error> {
    out.collect_map(sinks.iter().map(|sink| (&sink.name, sink)))
}

// === reading ===

/// The sinks in the order of the file, which is the order in which they are fed.
pub(super) fn event_sinks(namespace: &Section<'_>, outlets: &Outlets<'_>) -> Vec<EventSinkSettings> {
    let mut sinks: Vec<EventSinkSettings> = Vec::new();
    for section in namespace.section("event_sinks").sections() {
        let Some(sink) = event_sink(&section, outlets) else {
            continue;
        };
        if let Some(twin) = sinks.iter().find(|other| other.kind == sink.kind) {
            let (place, key) = match &sink.kind {
                EventSinkKind::Ledger { machine_id } => (machine_id, "machine_id"),
                EventSinkKind::Kafka(KafkaTopic { topic, .. }) => (topic, "topic"),
            };
            section.wrong(
                format!(
                    "writes to `{place}`, as the namespace's sink `{}` does: it would hold each event twice",
                    twin.name
                ),
                format!("leave one of them out, or give it a `{key}` of its own"),
            );
        }
        sinks.push(sink);
    }
    sinks
}

/// None: it has no type that could be read further.
fn event_sink(section: &Section<'_>, outlets: &Outlets<'_>) -> Option<EventSinkSettings> {
    let Outlets { storage, kafka: clients, .. } = outlets;
    let name = section.name();
    if !is_name(name) {
        section.wrong("has a name that is empty or too long", ID);
    }
    if name == LIFECYCLE_SINK {
        section.wrong("has the name by which machines know what they owe to the lifecycle's topic", "rename it");
    }
    let acks = [("before_reply", Ack::BeforeReply), ("committed", Ack::Committed)];
    section.require("type", TYPE);
    let item = section.item("type")?;
    let kind = item.text()?;
    let (foreign, default) = match kind.as_str() {
        "machine" | "ledger" => (["client", "topic"], Ack::BeforeReply),
        "kafka" => (["machine_id", "id"], Ack::Committed),
        _ => return item.refuse(TYPE),
    };
    let ack = section.choice("ack", default, &acks);
    for key in foreign {
        if section.has(key) {
            section.wrong_key(key, format!("is no key of `type: {kind}`"), "leave it out");
        }
    }
    if kind == "kafka" {
        if !cfg!(feature = "kafka") {
            item.wrong("is `kafka`, which this program was built without", "build it with the feature `kafka`");
        }
        let kind = EventSinkKind::Kafka(kafka::topic(section, clients));
        return Some(EventSinkSettings { name: name.to_owned(), kind, ack });
    }
    if ack == Ack::Committed && storage.commit_holds_ledger() {
        section.notice_key("ack", "has no effect on this storage: a ledger's entries are part of the commit itself");
    }
    Some(EventSinkSettings { name: name.to_owned(), kind: ledger(section, &kind), ack })
}

fn ledger(section: &Section<'_>, kind: &str) -> EventSinkKind {
    let checked = |key: &str| {
        let id = section.text(key)?;
        if !is_name(&id) {
            section.wrong_key(key, "is empty or too long", ID);
        }
        Some(id)
    };
    let (machine_id, id) = (checked("machine_id"), checked("id"));
    if section.has("id") {
        if kind == "machine" {
            section.wrong_key("id", "is no key of `type: machine`", "write `machine_id`");
        } else if section.has("machine_id") {
            section.wrong_key("id", "says the same as `machine_id`", "leave one of them out");
        }
    }
    EventSinkKind::Ledger { machine_id: machine_id.or(id).unwrap_or_else(|| section.name().to_owned()) }
}

fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
}

pub(super) fn outbox(namespace: &Section<'_>, sinks: &[EventSinkSettings], outlets: &Outlets<'_>) -> OutboxSettings {
    let default = OutboxSettings::default();
    let section = namespace.section("outbox");
    let outbox = OutboxSettings {
        clear_interval: section.pause("clear_interval", default.clear_interval),
        max_pending: section.number("max_pending", default.max_pending, 1..=1_000_000_000),
    };
    let paid_by_commit = |sink: &EventSinkSettings| match sink.kind {
        EventSinkKind::Ledger { .. } => outlets.storage.commit_holds_ledger(),
        EventSinkKind::Kafka(_) => false,
    };
    if outbox != default && !outlets.lifecycle && sinks.iter().all(paid_by_commit) {
        let why = match sinks {
            [] => "the namespace has no event sinks",
            _ => "on this storage a ledger's entries are part of the commit itself",
        };
        namespace.notice_key("outbox", format!("has no effect: {why}, so nothing is ever owed"));
    }
    outbox
}
