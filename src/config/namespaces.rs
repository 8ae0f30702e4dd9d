//! What a namespace may say.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::duration;
use super::reader::Section;
use super::retries::{self, Retries};
use super::service::MANY;
use super::tree::Value;

/// `namespaces.<name>`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NamespaceSettings {
    /// The name: 1 to 255 bytes, `/` allowed.
    #[serde(skip)]
    pub name: String,
    /// `processor`: who decides what its machines do.
    pub processor: ProcessorSettings,
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
    /// `notification`: how waiting notifications are found. None: `disabled`.
    #[serde(serialize_with = "or_disabled")]
    pub notification: Option<NotificationSettings>,
    /// `suicide_probability`: 0 to 1, how often a step is killed before its commit. Default 0. Not acted on yet.
    pub suicide_probability: f64,
    /// `honour_timer_timeout`: whether the timeout that comes with a timer bounds its step. Default false. Not acted
    /// on yet.
    pub honour_timer_timeout: bool,
    /// `strict_ranges`: whether an `after` that was never an event is answered by EventNotFound. Default false. Not
    /// acted on yet.
    pub strict_ranges: bool,
}

/// `namespaces.<name>.processor`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProcessorSettings {
    /// `url`: absolute, http or https. No default.
    pub url: String,
    /// `pool_size`: connections that are kept, 1 to 1,000,000. Default 50.
    pub pool_size: usize,
    /// `http_keep_alive_timeout`: how long an idle connection is kept. Default 4s.
    #[serde(rename = "http_keep_alive_timeout", serialize_with = "duration::text")]
    pub keep_alive: Duration,
}

/// `namespaces.<name>.timers`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimersSettings {
    /// `scan_interval`: how far ahead due timers are held in memory, and how often storage is asked. Default 60s.
    #[serde(serialize_with = "duration::text")]
    pub scan_interval: Duration,
    /// `scan_limit`: entries of one scan, 1 to 1,000,000. Default 5000.
    pub scan_limit: usize,
    /// `capacity`: entries that wait in memory, 1 to 1,000,000. Default 1000.
    pub capacity: usize,
    /// `min_scan_delay`: the least time between two scans. Default 1s.
    #[serde(serialize_with = "duration::text")]
    pub min_scan_delay: Duration,
}

/// `namespaces.<name>.overseer`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OverseerSettings {
    /// `scan_interval`: how often storage is asked for interrupted steps. Default 10m.
    #[serde(serialize_with = "duration::text")]
    pub scan_interval: Duration,
    /// `scan_limit`: entries of one scan, 1 to 1,000,000. Default 5000.
    pub scan_limit: usize,
    /// `capacity`: entries that wait in memory, 1 to 1,000,000. Default 1000.
    pub capacity: usize,
    /// `min_scan_delay`: the least time between two scans. Default 1s.
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
    /// `capacity`: entries that wait in memory, 1 to 1,000,000. Default 1000.
    pub capacity: usize,
    /// `scan_limit`: entries of one scan, 1 to 1,000,000. Default 5000.
    pub scan_limit: usize,
    /// `min_scan_delay`: the least time between two scans. Default 1s.
    #[serde(serialize_with = "duration::text")]
    pub min_scan_delay: Duration,
}

const URL: &str = "write the processor's address, like http://hellgate:8022/v1/stateproc/invoice";

// === impl NamespaceSettings ===

impl NamespaceSettings {
    /// All the defaults, with the processor at this url.
    pub fn new(name: impl Into<String>, processor_url: impl Into<String>) -> Self {
        NamespaceSettings {
            name: name.into(),
            processor: ProcessorSettings {
                url: processor_url.into(),
                pool_size: 50,
                keep_alive: Duration::from_secs(4),
            },
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

// === reading ===

pub(super) fn read(section: &Section<'_>) -> Vec<NamespaceSettings> {
    let sections = section.sections();
    if sections.is_empty() {
        section.wrong(
            if section.is_there() { "is empty" } else { "is missing" },
            "write at least one namespace, like `namespaces: {payproc: {processor: {url: \"http://...\"}}}`",
        );
    }
    sections.iter().map(namespace).collect()
}

fn namespace(section: &Section<'_>) -> NamespaceSettings {
    if !(1..=255).contains(&section.name().len()) {
        section.wrong("has a name that is empty or too long", "name it in 1 to 255 bytes");
    }
    engine(section);
    protocol(section);
    let default = NamespaceSettings::new(section.name(), "");
    let time = |key, default| section.pause(key, default);
    NamespaceSettings {
        processor: processor(&section.section("processor"), default.processor),
        default_processing_timeout: time("default_processing_timeout", default.default_processing_timeout),
        timer_processing_timeout: time("timer_processing_timeout", default.timer_processing_timeout),
        unload_timeout: section.duration("unload_timeout", default.unload_timeout),
        shutdown_timeout: section.duration_or_infinity("shutdown_timeout", default.shutdown_timeout),
        retries: retries::read(&section.section("retries")),
        timers: section.unless_disabled("timers").map(|section| timers(&section)),
        overseer: section.unless_disabled("overseer").map(|section| overseer(&section)),
        notification: section.unless_disabled("notification").map(|section| notification(&section)),
        suicide_probability: section.fraction("suicide_probability", 0.0, 0.0..=1.0),
        honour_timer_timeout: section.flag("honour_timer_timeout", false),
        strict_ranges: section.flag("strict_ranges", false),
        name: default.name,
    }
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

fn protocol(section: &Section<'_>) {
    let Some(item) = section.item("protocol") else {
        return;
    };
    let older = |name: &str| {
        item.wrong(
            format!("is `{name}`, a generation of the interface that is not built yet"),
            "write `current`, or stay with the original until a release has it",
        );
    };
    if matches!(item.value, Value::Int(2021)) {
        return older("2021");
    }
    match item.text().as_deref() {
        None | Some("current") => {}
        Some(name @ ("2021" | "damsel")) => older(name),
        Some(_) => {
            item.refuse::<()>("write `current`, or leave it out");
        }
    }
}

fn processor(section: &Section<'_>, default: ProcessorSettings) -> ProcessorSettings {
    section.require("url", URL);
    let url = section.item("url").and_then(|item| {
        let url = item.text()?;
        if let Some(wrong) = wrong_with_url(&url) {
            item.wrong(wrong, URL);
        }
        Some(url)
    });
    ProcessorSettings {
        url: url.unwrap_or(default.url),
        pool_size: section.number("pool_size", default.pool_size, 1..=MANY),
        keep_alive: section.duration("http_keep_alive_timeout", default.keep_alive),
    }
}

fn wrong_with_url(url: &str) -> Option<String> {
    let Ok(uri) = url.parse::<http::Uri>() else {
        return Some(format!("is `{url}`, no url"));
    };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Some(format!("is `{url}`, no absolute http or https url"));
    }
    let Some(authority) = uri.authority().filter(|at| !at.host().is_empty()) else {
        return Some(format!("is `{url}`, a url without a host"));
    };
    if authority.as_str().contains('@') {
        // Not shown: there may be a password in it.
        return Some("is a url with a user, which no request would carry".to_owned());
    }
    None
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

fn notification(section: &Section<'_>) -> NotificationSettings {
    let default = NotificationSettings::default();
    NotificationSettings {
        scan_interval: section.pause("scan_interval", default.scan_interval),
        scan_handicap: section.duration("scan_handicap", default.scan_handicap),
        scan_cutoff: section.pause("scan_cutoff", default.scan_cutoff),
        reschedule_time: section.pause("reschedule_time", default.reschedule_time),
        capacity: section.number("capacity", default.capacity, 1..=MANY),
        scan_limit: section.number("scan_limit", default.scan_limit, 1..=MANY),
        min_scan_delay: section.pause("min_scan_delay", default.min_scan_delay),
    }
}
