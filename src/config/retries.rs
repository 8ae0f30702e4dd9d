//! `retries.<policy>`: the keys that are written go over those of the policy's default.

use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::duration;
use super::reader::{Item, Section};
use super::service::MANY;
use super::tree::Value;
use crate::machine::retry::{MaxRetries, Pattern, RetryPolicy};

/// `namespaces.<name>.retries`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retries {
    /// `storage`: commits that were surely not done, within their deadline. Default: 10ms doubling up to 60s, for ever.
    #[serde(serialize_with = "policy_as_map")]
    pub storage: RetryPolicy,
    /// `timers`: a timer whose step failed. Default: 1s doubling up to 30m, 100 times.
    #[serde(serialize_with = "policy_as_map")]
    pub timers: RetryPolicy,
    /// `continuation`: deliveries that a sink did not take. Past its end its last delay goes on. Default: 10ms doubling up
    /// to 60s, for ever.
    #[serde(serialize_with = "policy_as_map")]
    pub continuation: RetryPolicy,
}

const HOW_MANY: &str = "write a whole number from 1, `infinity`, or {max_total_timeout: 1d}";

#[derive(Clone, Copy, PartialEq)]
enum Type {
    Linear,
    Exponential,
    Intervals,
}

// === impl Retries ===

impl Default for Retries {
    fn default() -> Self {
        let doubling = |max_retries, timeout, max| RetryPolicy::exponential(max_retries, 2.0, timeout, Some(max));
        let minute = Duration::from_secs(60);
        let short = Duration::from_millis(10);
        Retries {
            storage: doubling(MaxRetries::Infinity, short, minute),
            timers: doubling(MaxRetries::Times(100), Duration::from_secs(1), 30 * minute),
            continuation: doubling(MaxRetries::Infinity, short, minute),
        }
    }
}

pub(super) fn read(section: &Section<'_>) -> Retries {
    let default = Retries::default();
    Retries {
        storage: policy(&section.section("storage"), default.storage),
        timers: policy(&section.section("timers"), default.timers),
        continuation: policy(&section.section("continuation"), default.continuation),
    }
}

fn policy(section: &Section<'_>, default: RetryPolicy) -> RetryPolicy {
    // Every default is exponential, so every key has a default to go over except `timeouts`.
    let (factor, timeout, max_timeout) = match default.pattern {
        Pattern::Exponential { factor, timeout, max_timeout } => (factor, timeout, max_timeout),
        Pattern::Linear { timeout } => (1.0, timeout, None),
        Pattern::Intervals(_) => (1.0, Duration::from_secs(1), None),
    };
    let types = [("linear", Type::Linear), ("exponential", Type::Exponential), ("intervals", Type::Intervals)];
    let chosen = section.choice("type", Type::Exponential, &types);
    let factor = section.fraction("factor", factor, 1.0..=1_000_000.0);
    let timeout = section.pause("timeout", timeout);
    let max_timeout = section.duration_or_infinity("max_timeout", max_timeout);
    let max_retries = section.item("max_retries").and_then(|item| max_retries(section, &item));
    let timeouts = section.item("timeouts").and_then(|item| {
        let timeouts = item.durations()?;
        if timeouts.is_empty() {
            item.wrong("is empty", "write at least one duration");
        }
        Some(timeouts)
    });
    if max_timeout.is_some_and(|it| it < Duration::from_millis(1)) {
        section.wrong_key("max_timeout", "is less than 1ms", "write a duration of at least 1ms");
    }
    let idle: &[&str] = match chosen {
        Type::Linear => &["factor", "max_timeout", "timeouts"],
        Type::Exponential => &["timeouts"],
        Type::Intervals => &["factor", "timeout", "max_timeout", "max_retries"],
    };
    for key in idle.iter().filter(|key| section.has(key)) {
        let name = types.iter().find(|(_, kind)| *kind == chosen).map_or("", |(name, _)| name);
        section.notice_key(key, format!("has no effect with `type: {name}`"));
    }
    let pattern = match chosen {
        Type::Linear => Pattern::Linear { timeout },
        Type::Exponential => Pattern::Exponential { factor, timeout, max_timeout },
        Type::Intervals => {
            section.require("timeouts", "write a list of durations, like [1s, 10s, 1m]");
            Pattern::Intervals(timeouts.unwrap_or_default())
        }
    };
    RetryPolicy {
        pattern,
        max_retries: match chosen {
            Type::Intervals => MaxRetries::Infinity,
            _ => max_retries.unwrap_or(default.max_retries),
        },
        jitter: section.duration("jitter", default.jitter),
        timecap: section.duration_or_infinity("timecap", default.timecap),
    }
}

fn max_retries(section: &Section<'_>, item: &Item<'_>) -> Option<MaxRetries> {
    match item.value {
        Value::Int(n) if (1..=MANY).contains(n) => u32::try_from(*n).ok().map(MaxRetries::Times),
        Value::Text(_) => match item.text()?.as_str() {
            duration::INFINITY => Some(MaxRetries::Infinity),
            _ => item.refuse(HOW_MANY),
        },
        Value::Map(_) => {
            let map = section.section("max_retries");
            map.require("max_total_timeout", HOW_MANY);
            let total = map.item("max_total_timeout")?.duration()?;
            Some(MaxRetries::TotalTimeout(total))
        }
        _ => item.refuse(HOW_MANY),
    }
}

/// A policy in the shape of the file.
fn policy_as_map<S: Serializer>(policy: &RetryPolicy, out: S) -> Result<S::Ok, S::Error> {
    let mut map = out.serialize_map(None)?;
    let with_count = match &policy.pattern {
        Pattern::Linear { timeout } => {
            map.serialize_entry("type", "linear")?;
            map.serialize_entry("timeout", &duration::format(*timeout))?;
            true
        }
        Pattern::Exponential { factor, timeout, max_timeout } => {
            map.serialize_entry("type", "exponential")?;
            map.serialize_entry("factor", factor)?;
            map.serialize_entry("timeout", &duration::format(*timeout))?;
            let max = max_timeout.map_or(duration::INFINITY.to_owned(), duration::format);
            map.serialize_entry("max_timeout", &max)?;
            true
        }
        Pattern::Intervals(timeouts) => {
            map.serialize_entry("type", "intervals")?;
            let timeouts: Vec<_> = timeouts.iter().copied().map(duration::format).collect();
            map.serialize_entry("timeouts", &timeouts)?;
            false
        }
    };
    match policy.max_retries {
        _ if !with_count => {}
        MaxRetries::Times(times) => map.serialize_entry("max_retries", &times)?,
        MaxRetries::Infinity => map.serialize_entry("max_retries", duration::INFINITY)?,
        MaxRetries::TotalTimeout(total) => {
            let total = [("max_total_timeout", duration::format(total))];
            map.serialize_entry("max_retries", &std::collections::BTreeMap::from(total))?;
        }
    }
    if !policy.jitter.is_zero() {
        map.serialize_entry("jitter", &duration::format(policy.jitter))?;
    }
    if let Some(timecap) = policy.timecap {
        map.serialize_entry("timecap", &duration::format(timecap))?;
    }
    map.end()
}
