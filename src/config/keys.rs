//! The table of every key there is, and what becomes of it.
//!
//! A key that is not here is an error, so nothing is ever ignored in silence. Every key that is read is acted on.

use super::tree::Value;

/// One key, or several at once: `*` is any name, `[]` any item of a list, `a|b` either.
pub(super) struct Key {
    pub(super) path: &'static str,
    pub(super) fate: Fate,
}

pub(super) enum Fate {
    /// It means what it always meant, or is a key of ours.
    Used,
    /// Another meaning than in the original; continues "... is used differently: ".
    Differently(&'static str),
    /// No meaning here, neither are the keys below it; continues "... is ignored: ".
    Ignored(&'static str),
    /// Not to be started with, except for a value that asks for nothing: what is wrong, what to write instead.
    Refused(Harmless, &'static str, &'static str),
}

/// Says whether a value makes no difference.
pub(super) type Harmless = fn(&Value) -> bool;

fn if_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Map(map) => map.is_empty(),
        Value::List(list) => list.is_empty(),
        _ => false,
    }
}

use Fate::{Differently, Ignored, Refused, Used};

const ERLANG: &str = "only the Erlang node needs it";
const ERLANG_LOGGER: &str = "who logs never waits, so there is nothing between taking and dropping a line";
const CONSUL: &str = "instances no longer meet through Consul";
const MEET: &str =
    "instances meet through the table of `storage.type: dynamodb`, and on any other storage exactly one may run";
const RIAK: &str = "only the Riak storage had connections of that kind";
const PROGRESSOR: &str = "only the progressor engine used it";
const ONE_SCAN: &str = "one scan is for all namespaces: it pauses after as many as all their limits together, for the shortest of their delays";
const NO_OVERSEER: &str = "a step is one commit, so there are no interrupted ones to look for";

pub(super) const KEYS: &[Key] = &[
    // The node.
    key("service_name", Used),
    key("snowflake_machine_id", Used),
    key("dist_node_name", Ignored(ERLANG)),
    key("dist_port", Ignored(ERLANG)),
    key("erlang", Ignored(ERLANG)),
    key("process_registry", Ignored("machines live in the instance that owns them")),
    key("consuela", Ignored(CONSUL)),
    key("consul", Ignored(CONSUL)),
    key("metrics", Ignored("metrics are fetched from /metrics, nothing pushes them")),
    key("opentelemetry", Ignored("the environment's OTEL_* variables say where traces go")),
    key("postgres|progressor|canal", Ignored(PROGRESSOR)),
    key("cluster", Ignored(MEET)),
    // The API.
    key("woody_server", Used),
    key("woody_server.ip|port|max_concurrent_connections|http_keep_alive_timeout|idle_timeout|max_body_size", Used),
    key(
        "woody_server.shutdown_timeout",
        Differently("it bounds the steps that still run; idle connections are not waited for"),
    ),
    // Bounds.
    key("worker", Used),
    key("worker.message_queue_len_limit|machine_queue_limit", Used),
    key("limits", Used),
    key("limits.step_size|value_depth|cache|scheduler_tasks", Used),
    key("limits.steps_in_flight", Used),
    key("limits.steps_in_flight.total|per_namespace", Used),
    key("limits.process_heap", Ignored("requests have no heap of their own; woody_server.max_body_size bounds them")),
    key("limits.bodies", Used),
    key("limits.bodies.requests|replies", Used),
    key("limits.disk|memory", Used),
    key("limits.disk.path|value", Used),
    key("limits.memory.type|value", Used),
    // Logs.
    key("logging", Used),
    key("logging.root|json_log|out_type|level|burst_limit_enable|drop_mode_qlen", Used),
    key("logging.sync_mode_qlen|flush_qlen", Ignored(ERLANG_LOGGER)),
    key("logging.formatter", Used),
    key("logging.formatter.level_map|max_length|max_printable_string_length", Used),
    // Storage.
    key("storage", Used),
    key("storage.type|path|free_space_reserve", Used),
    key("storage.table|region|endpoint_url|create_table|shards|request_timeout|max_concurrent_requests", Used),
    key("storage.lease_time|advertise|peer_pool_size", Used),
    key(
        "storage.host|port|pool|connect_timeout|index_query_timeout|batch_concurrency_limit|r_options|w_options|d_options",
        Ignored(RIAK),
    ),
    // Sinks.
    key("lifecycle_pulse", Used),
    key("lifecycle_pulse.topic|client", Used),
    key("kafka", Used),
    key("kafka.*", Used),
    key("kafka.*.endpoints", Used),
    key("kafka.*.endpoints.[]", Used),
    key("kafka.*.endpoints.[].host|port", Used),
    key("kafka.*.ssl", Used),
    key("kafka.*.ssl.certfile|keyfile|cacertfile", Used),
    key("kafka.*.sasl", Used),
    key("kafka.*.sasl.mechanism|file|username|password", Used),
    key("kafka.*.producer", Used),
    key(
        "kafka.*.producer.compression|ack_timeout|required_acks|max_linger|max_linger_count|max_batch_size|retry_backoff",
        Used,
    ),
    key(
        "kafka.*.producer.partition_onwire_limit",
        Differently(
            "up to 5 requests to a broker are under way, and a machine's next message only after the one before",
        ),
    ),
    key(
        "kafka.*.producer.partition_buffer_limit",
        Differently(
            "100 times as many messages of the client, in all partitions, wait for brokers; more wait before it",
        ),
    ),
    key(
        "kafka.*.producer.max_retries",
        Differently(
            "it counts only below `required_acks: all_isr`; what is not sent within 8 s, or 40 % of a lease, is sent anew, for ever",
        ),
    ),
    // Namespaces.
    key("namespaces", Used),
    key("namespaces.*", Used),
    key("namespaces.*.engine|protocol", Used),
    key("namespaces.*.processor", Used),
    key("namespaces.*.processor.url|pool_size|http_keep_alive_timeout", Used),
    key("namespaces.*.processors", Used),
    key("namespaces.*.processors.init|call|repair|timeout|notification", Used),
    key("namespaces.*.processors.init|call|repair|timeout|notification.url|pool_size|http_keep_alive_timeout", Used),
    key("namespaces.*.default_processing_timeout|timer_processing_timeout", Used),
    key("namespaces.*.reschedule_timeout", Ignored("nothing ever used it")),
    key("namespaces.*.hibernate_timeout", Ignored("an idle machine holds no memory that hibernating would free")),
    key("namespaces.*.unload_timeout", Used),
    key(
        "namespaces.*.shutdown_timeout",
        Differently("it bounds the steps that still run; at its end they are left to be found again at the next start"),
    ),
    key("namespaces.*.event_stash_size", Ignored("events and record are one commit, so there is nothing to stash")),
    key("namespaces.*.honour_timer_timeout|strict_ranges|suicide_probability", Used),
    key("namespaces.*.retries", Used),
    key("namespaces.*.retries.timers|storage", Used),
    key(
        "namespaces.*.retries.continuation",
        Differently(
            "it is for deliveries to sinks, and past its end its last delay goes on: what is owed is tried for ever",
        ),
    ),
    key("namespaces.*.retries.processor", Ignored("the original reads it and uses it for nothing")),
    key(
        "namespaces.*.retries.storage|timers|continuation.type|factor|timeout|max_timeout|timeouts|jitter|timecap",
        Used,
    ),
    key("namespaces.*.retries.storage|timers|continuation.timeouts.[]", Used),
    key("namespaces.*.retries.storage|timers|continuation.max_retries", Used),
    key("namespaces.*.retries.storage|timers|continuation.max_retries.max_total_timeout", Used),
    key("namespaces.*.timers|notification", Used),
    key("namespaces.*.timers|notification.scan_interval|capacity", Used),
    key("namespaces.*.timers|notification.scan_limit|min_scan_delay", Differently(ONE_SCAN)),
    key("namespaces.*.overseer", Differently(NO_OVERSEER)),
    key("namespaces.*.overseer.scan_interval|scan_limit|capacity|min_scan_delay", Differently(NO_OVERSEER)),
    key(
        "namespaces.*.notification.scan_handicap|scan_cutoff",
        Differently("a notification is found by a due of its own, however old it is"),
    ),
    key(
        "namespaces.*.notification.reschedule_time",
        Differently("it is the time that it says; the original read the milliseconds as seconds"),
    ),
    key("namespaces.*.event_sinks", Used),
    key("namespaces.*.event_sinks.*", Used),
    key("namespaces.*.event_sinks.*.type|machine_id|id|client|topic|ack", Used),
    key(
        "namespaces.*.event_sink",
        Refused(
            if_empty,
            "is how a namespace named its one sink, before it could have several",
            "write `event_sinks: {NAME: {type: machine, machine_id: NAME}}` with that sink's name",
        ),
    ),
    key("namespaces.*.outbox", Used),
    key("namespaces.*.outbox.clear_interval|max_pending", Used),
    key("namespaces.*.modernizer", Used),
    key("namespaces.*.modernizer.current_format_version|handler", Used),
    key("namespaces.*.modernizer.handler.url|pool_size|http_keep_alive_timeout", Used),
];

const fn key(path: &'static str, fate: Fate) -> Key {
    Key { path, fate }
}

/// The row for a path.
pub(super) fn find(path: &[String]) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.matches(path))
}

/// The names that may stand below a path; None if any name may.
pub(super) fn names_below(path: &[String]) -> Option<Vec<&'static str>> {
    let mut names = Vec::new();
    for key in KEYS {
        let (parent, last) = key.split();
        if !matches_all(parent, path) {
            continue;
        }
        if last == "*" {
            return None;
        }
        names.extend(last.split('|'));
    }
    Some(names)
}

/// Whether the table says anything about what is below a path; otherwise its reader does.
pub(super) fn has_below(path: &[String]) -> bool {
    KEYS.iter().map(Key::split).any(|(parent, _)| matches_all(parent, path))
}

// === impl Key ===

impl Key {
    pub(super) fn matches(&self, path: &[String]) -> bool {
        matches_all(self.path, path)
    }

    fn split(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }
}

fn matches_all(pattern: &str, path: &[String]) -> bool {
    let mut patterns = pattern.split('.').filter(|segment| !segment.is_empty());
    let mut segments = path.iter();
    loop {
        match (patterns.next(), segments.next()) {
            (None, None) => return true,
            (Some(pattern), Some(segment)) if matches_one(pattern, segment) => {}
            _ => return false,
        }
    }
}

fn matches_one(pattern: &str, segment: &str) -> bool {
    match pattern {
        "*" => true,
        "[]" => segment.starts_with('['),
        names => names.split('|').any(|name| name == segment),
    }
}
