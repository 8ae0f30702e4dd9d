//! Whom a namespace calls: its processor, the processors of single steps, its modernizer.

use std::time::Duration;

use serde::Serialize;

use super::duration;
use super::reader::Section;
use super::service::MANY;
use crate::wire::Protocol;

/// `namespaces.<name>.processor`, and whoever else is called over the same transport.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProcessorSettings {
    /// `url`: absolute, http or https, whose certificates the system's authorities vouch for. No default.
    pub url: String,
    /// `pool_size`: connections that are kept, 1 to 1,000,000. Default 50.
    pub pool_size: usize,
    /// `http_keep_alive_timeout`: how long an idle connection is kept. Default 4s.
    #[serde(rename = "http_keep_alive_timeout", serialize_with = "duration::text")]
    pub keep_alive: Duration,
}

/// `namespaces.<name>.processors`: who decides one kind of step. Default None each: the namespace's `processor`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StepProcessors {
    /// `init`: the first step, which Start causes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<ProcessorSettings>,
    /// `call`: what Call causes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<ProcessorSettings>,
    /// `repair`: what Repair causes, whether the generation has a method or a signal for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repair: Option<ProcessorSettings>,
    /// `timeout`: what a timer causes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<ProcessorSettings>,
    /// `notification`: what Notify causes. Always None where the protocol has no notifications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notification: Option<ProcessorSettings>,
}

/// `namespaces.<name>.modernizer`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModernizerSettings {
    /// `current_format_version`: events of a lower version, and of none, are modernized. 32 bits, no default.
    pub current_format_version: i32,
    /// `handler`: who modernizes them.
    pub handler: ProcessorSettings,
}

const PROCESSOR: &str = "write the processor's address, like http://hellgate:8022/v1/stateproc/invoice";
const MODERNIZER: &str = "write the modernizer's address, like http://hellgate:8022/v1/modernizer";
const VERSION: &str = "write the version of the events that are written today, like 1";

// === impl ProcessorSettings ===

impl ProcessorSettings {
    /// At this url, with the defaults.
    pub fn new(url: impl Into<String>) -> Self {
        ProcessorSettings { url: url.into(), pool_size: 50, keep_alive: Duration::from_secs(4) }
    }
}

// === impl StepProcessors ===

impl StepProcessors {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

// === reading ===

pub(super) fn processor(namespace: &Section<'_>) -> ProcessorSettings {
    called(&namespace.section("processor"), PROCESSOR)
}

pub(super) fn processors(namespace: &Section<'_>, protocol: Protocol) -> StepProcessors {
    let section = namespace.section("processors");
    let of = |step| {
        let section = section.section(step);
        section.is_there().then(|| called(&section, PROCESSOR))
    };
    let mut notification = of("notification");
    if notification.is_some() && !protocol.has_notifications() {
        section.notice_key("notification", no_notifications(protocol));
        notification = None;
    }
    StepProcessors { init: of("init"), call: of("call"), repair: of("repair"), timeout: of("timeout"), notification }
}

pub(super) fn modernizer(namespace: &Section<'_>) -> Option<ModernizerSettings> {
    let section = namespace.section("modernizer");
    if !section.is_there() {
        return None;
    }
    section.require("current_format_version", VERSION);
    Some(ModernizerSettings {
        current_format_version: section.number("current_format_version", 0, i32::MIN.into()..=i32::MAX.into()),
        handler: called(&section.section("handler"), MODERNIZER),
    })
}

/// Why a setting of notifications does nothing.
pub(super) fn no_notifications(protocol: Protocol) -> String {
    format!("has no effect: processors of `protocol: {protocol}` have no signal for notifications")
}

fn called(section: &Section<'_>, instead: &str) -> ProcessorSettings {
    section.require("url", instead);
    let url = section.item("url").and_then(|item| {
        let url = item.text()?;
        if let Some(wrong) = wrong_with_url(&url) {
            item.wrong(wrong, instead);
        }
        Some(url)
    });
    let default = ProcessorSettings::new(url.unwrap_or_default());
    ProcessorSettings {
        pool_size: section.number("pool_size", default.pool_size, 1..=MANY),
        keep_alive: section.duration("http_keep_alive_timeout", default.keep_alive),
        url: default.url,
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
