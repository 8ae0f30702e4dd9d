//! What a namespace may say.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::processors::{ModernizerSettings, ProcessorSettings, StepProcessors, no_notifications};
use super::reader::Section;
use super::retries::{self, Retries};
use super::service::MANY;
use super::sinks::{EventSinkSettings, OutboxSettings, Outlets};
use super::tree::Value;
use super::{duration, processors, sinks};
use crate::wire::Protocol;

/// `namespaces.<name>`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NamespaceSettings {
    /// The name: 1 to 255 bytes, `/` allowed.
    #[serde(skip)]
    pub name: String,
    /// `processor`: who decides what its machines do.
    pub processor: ProcessorSettings,
    /// `processors`: who decides single kinds of steps instead. Default none.
    #[serde(skip_serializing_if = "StepProcessors::is_default")]
    pub processors: StepProcessors,
    /// `protocol`: the generation of the interface that all its processors speak. Default `current`.
    #[serde(serialize_with = "by_name")]
    pub protocol: Protocol,
    /// `modernizer`: who lifts stored events to today's format. Default None: Modernize finds no namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modernizer: Option<ModernizerSettings>,
    /// `event_sinks`: who gets new events, in this order. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "sinks::as_map")]
    pub event_sinks: Vec<EventSinkSettings>,
    /// `outbox`: what its machines may owe those.
    pub outbox: OutboxSettings,
    /// `default_processing_timeout`: for requests that bring no deadline. Default 30s.
    #[serde(serialize_with = "duration::text")]
    pub default_processing_timeout: Duration,
    /// `timer_processing_timeout`: for the step that a timer causes. Default 60s.
    #[serde(serialize_with = "duration::text")]
    pub timer_processing_timeout: Duration,
    /// `unload_timeout`: how long an idle machine stays in memory. Default 60s.
    #[serde(serialize_with = "duration::text")]
    pub unload_timeout: Duration,
    /// `shutdown_timeout`: how long steps may go on when the service stops; zero: not at all. Default 5s.
    #[serde(serialize_with = "duration::or_infinity")]
    pub shutdown_timeout: Option<Duration>,
    /// `retries`
    pub retries: Retries,
    /// `timers`: how due timers are found. None: `disabled`, timers never fire.
    #[serde(serialize_with = "or_disabled")]
    pub timers: Option<TimersSettings>,
    /// `overseer`: how interrupted steps are found. None: `disabled`.
    #[serde(serialize_with = "or_disabled")]
    pub overseer: Option<OverseerSettings>,
    /// `notification`: how waiting notifications are found. None: `disabled`, or the protocol has no notifications.
    #[serde(serialize_with = "or_disabled")]
    pub notification: Option<NotificationSettings>,
    /// `suicide_probability`: 0 to 1, how often a machine's worker dies behind its processor's answer, before the commit.
    /// For tests. Default 0.
    pub suicide_probability: f64,
    /// `honour_timer_timeout`: whether the timeout that comes with a timer bounds its step, in the place of
    /// `timer_processing_timeout`. Default false.
    pub honour_timer_timeout: bool,
    /// `strict_ranges`: whether GetMachine answers EventNotFound to an `after` that was never an event. Default false.
    pub strict_ranges: bool,
}

/// `namespaces.<name>.timers`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimersSettings {
    /// `scan_interval`: how far ahead due timers are held in memory, and how often storage is asked. Default 60s.
    #[serde(serialize_with = "duration::text")]
    pub scan_interval: Duration,
    /// `scan_limit`: entries that a scan takes before it pauses, 1 to 1,000,000. Default 5000.
    pub scan_limit: usize,
    /// `capacity`: machines that it wakes at once, 1 to 1,000,000. Default 1000.
    pub capacity: usize,
    /// `min_scan_delay`: the pause, and the least time between two scans. Default 1s.
    #[serde(serialize_with = "duration::text")]
    pub min_scan_delay: Duration,
}

/// `namespaces.<name>.overseer`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OverseerSettings {
    /// `scan_interval`: how often storage is asked for interrupted steps. Default 10m.
    #[serde(serialize_with = "duration::text")]
    pub scan_interval: Duration,
    /// `scan_limit`: entries that a scan takes before it pauses, 1 to 1,000,000. Default 5000.
    pub scan_limit: usize,
    /// `capacity`: machines that it wakes at once, 1 to 1,000,000. Default 1000.
    pub capacity: usize,
    /// `min_scan_delay`: the pause, and the least time between two scans. Default 1s.
    #[serde(serialize_with = "duration::text")]
    pub min_scan_delay: Duration,
}

/// `namespaces.<name>.notification`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NotificationSettings {
    /// `scan_interval`: how often storage is asked for waiting notifications. Default 1m.
    #[serde(serialize_with = "duration::text")]
    pub scan_interval: Duration,
    /// `scan_handicap`: scans see only what has waited for at least this long. Default 10s.
    #[serde(serialize_with = "duration::text")]
    pub scan_handicap: Duration,
    /// `scan_cutoff`: and for no longer than the handicap and this. Default 4W.
    #[serde(serialize_with = "duration::text")]
    pub scan_cutoff: Duration,
    /// `reschedule_time`: when a delivery that failed is tried again. Default 5s.
    #[serde(serialize_with = "duration::text")]
    pub reschedule_time: Duration,
    /// `capacity`: machines that it wakes at once, 1 to 1,000,000. Default 1000.
    pub capacity: usize,
    /// `scan_limit`: entries that a scan takes before it pauses, 1 to 1,000,000. Default 5000.
    pub scan_limit: usize,
    /// `min_scan_delay`: the pause, and the least time between two scans. Default 1s.
    #[serde(serialize_with = "duration::text")]
    pub min_scan_delay: Duration,
}

// === impl NamespaceSettings ===

impl NamespaceSettings {
    /// All the defaults, with the processor at this url.
    pub fn new(name: impl Into<String>, processor_url: impl Into<String>) -> Self {
        NamespaceSettings {
            name: name.into(),
            processor: ProcessorSettings::new(processor_url),
            processors: StepProcessors::default(),
            protocol: Protocol::default(),
            modernizer: None,
            event_sinks: Vec::new(),
            outbox: OutboxSettings::default(),
            default_processing_timeout: Duration::from_secs(30),
            timer_processing_timeout: Duration::from_secs(60),
            unload_timeout: Duration::from_secs(60),
            shutdown_timeout: Some(Duration::from_secs(5)),
            retries: Retries::default(),
            timers: Some(TimersSettings::default()),
            overseer: Some(OverseerSettings::default()),
            notification: Some(NotificationSettings::default()),
            suicide_probability: 0.0,
            honour_timer_timeout: false,
            strict_ranges: false,
        }
    }
}

// === defaults ===

impl Default for TimersSettings {
    fn default() -> Self {
        TimersSettings {
            scan_interval: Duration::from_secs(60),
            scan_limit: 5000,
            capacity: 1000,
            min_scan_delay: Duration::from_secs(1),
        }
    }
}

impl Default for OverseerSettings {
    fn default() -> Self {
        OverseerSettings {
            scan_interval: Duration::from_secs(600),
            scan_limit: 5000,
            capacity: 1000,
            min_scan_delay: Duration::from_secs(1),
        }
    }
}

impl Default for NotificationSettings {
    fn default() -> Self {
        NotificationSettings {
            scan_interval: Duration::from_secs(60),
            scan_handicap: Duration::from_secs(10),
            scan_cutoff: Duration::from_secs(4 * 7 * 24 * 3600),
            reschedule_time: Duration::from_secs(5),
            capacity: 1000,
            scan_limit: 5000,
            min_scan_delay: Duration::from_secs(1),
        }
    }
}

// === in the shape of the file ===

pub(super) fn as_map<S: Serializer>(all: &[NamespaceSettings], out: S) -> Result<S::Ok, S::Error> {
    out.collect_map(all.iter().map(|namespace| (&namespace.name, namespace)))
}

fn or_disabled<T: Serialize, S: Serializer>(value: &Option<T>, out: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.serialize(out),
        None => out.serialize_str("disabled"),
    }
}

fn by_name<S: Serializer>(protocol: &Protocol, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(protocol.name())
}

// === reading ===

pub(super) fn read(section: &Section<'_>, outlets: &Outlets<'_>) -> Vec<NamespaceSettings> {
    let sections = section.sections();
    if sections.is_empty() {
        section.wrong(
            if section.is_there() { "is empty" } else { "is missing" },
            "write at least one namespace, like `namespaces: {payproc: {processor: {url: \"http://...\"}}}`",
        );
    }
    sections.iter().map(|section| namespace(section, outlets)).collect()
}

fn namespace(section: &Section<'_>, outlets: &Outlets<'_>) -> NamespaceSettings {
    if !(1..=255).contains(&section.name().len()) {
        section.wrong("has a name that is empty or too long", "name it in 1 to 255 bytes");
    }
    engine(section);
    let protocol = protocol(section);
    let event_sinks = sinks::event_sinks(section, outlets);
    let default = NamespaceSettings::new(section.name(), "");
    let time = |key, default| section.pause(key, default);
    NamespaceSettings {
        processor: processors::processor(section),
        processors: processors::processors(section, protocol),
        protocol,
        modernizer: processors::modernizer(section),
        outbox: sinks::outbox(section, &event_sinks, outlets),
        event_sinks,
        default_processing_timeout: time("default_processing_timeout", default.default_processing_timeout),
        timer_processing_timeout: time("timer_processing_timeout", default.timer_processing_timeout),
        unload_timeout: section.duration("unload_timeout", default.unload_timeout),
        shutdown_timeout: section.duration_or_infinity("shutdown_timeout", default.shutdown_timeout),
        retries: retries::read(&section.section("retries")),
        timers: section.unless_disabled("timers").map(|section| timers(&section)),
        overseer: section.unless_disabled("overseer").map(|section| overseer(&section)),
        notification: notification(section, protocol),
        suicide_probability: suicide_probability(section),
        honour_timer_timeout: section.flag("honour_timer_timeout", false),
        strict_ranges: section.flag("strict_ranges", false),
        name: default.name,
    }
}

fn suicide_probability(section: &Section<'_>) -> f64 {
    let probability = section.fraction("suicide_probability", 0.0, 0.0..=1.0);
    if probability > 0.0 {
        section.notice_key("suicide_probability", "makes steps fail on purpose: it is for tests");
    }
    probability
}

fn engine(section: &Section<'_>) {
    let Some(item) = section.item("engine") else {
        return;
    };
    match item.text().as_deref() {
        None | Some("machinegun") => {}
        Some("progressor") => item.wrong(
            "is `progressor`, which this service does not have",
            "write `machinegun`, or leave it out; its tasks have to be moved before",
        ),
        Some(_) => {
            item.refuse::<()>("write `machinegun`, or leave it out");
        }
    }
}

fn protocol(section: &Section<'_>) -> Protocol {
    let named = Protocol::ALL.map(|protocol| (protocol.name(), protocol));
    let read = section.item("protocol").and_then(|item| match item.value {
        // Without quotes YAML reads this name as a number.
        Value::Int(2021) => Some(Protocol::Y2021),
        _ => item.choice(&named),
    });
    read.unwrap_or_default()
}

fn timers(section: &Section<'_>) -> TimersSettings {
    let default = TimersSettings::default();
    TimersSettings {
        scan_interval: section.pause("scan_interval", default.scan_interval),
        scan_limit: section.number("scan_limit", default.scan_limit, 1..=MANY),
        capacity: section.number("capacity", default.capacity, 1..=MANY),
        min_scan_delay: section.pause("min_scan_delay", default.min_scan_delay),
    }
}

fn overseer(section: &Section<'_>) -> OverseerSettings {
    let default = OverseerSettings::default();
    OverseerSettings {
        scan_interval: section.pause("scan_interval", default.scan_interval),
        scan_limit: section.number("scan_limit", default.scan_limit, 1..=MANY),
        capacity: section.number("capacity", default.capacity, 1..=MANY),
        min_scan_delay: section.pause("min_scan_delay", default.min_scan_delay),
    }
}

fn notification(namespace: &Section<'_>, protocol: Protocol) -> Option<NotificationSettings> {
    let section = namespace.unless_disabled("notification")?;
    let default = NotificationSettings::default();
    let settings = NotificationSettings {
        scan_interval: section.pause("scan_interval", default.scan_interval),
        scan_handicap: section.duration("scan_handicap", default.scan_handicap),
        scan_cutoff: section.pause("scan_cutoff", default.scan_cutoff),
        reschedule_time: section.pause("reschedule_time", default.reschedule_time),
        capacity: section.number("capacity", default.capacity, 1..=MANY),
        scan_limit: section.number("scan_limit", default.scan_limit, 1..=MANY),
        min_scan_delay: section.pause("min_scan_delay", default.min_scan_delay),
    };
    if protocol.has_notifications() {
        return Some(settings);
    }
    if section.is_there() {
        namespace.notice_key("notification", no_notifications(protocol));
    }
    None
}
