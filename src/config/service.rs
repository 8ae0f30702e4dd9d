//! Reads the keys of the service as a whole: everything but storage, Kafka and namespaces.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::reader::Section;
use super::settings::{
    BodiesLimit, DiskLimit, LimitsSettings, LogFormatter, LogLevel, LogOutput, LoggingSettings, MemoryKind,
    MemoryLimit, Settings, StepsInFlight, WoodyServerSettings, WorkerSettings,
};
use super::sinks::Outlets;
use super::{kafka, namespaces, storage};

/// Beyond this a bound bounds nothing.
pub(super) const MANY: i64 = 1_000_000;

const SEVERITIES: [&str; 8] = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];

pub(super) fn read(root: &Section<'_>) -> Settings {
    let default = Settings::default_with(storage::read(&root.section("storage")));
    let kafka = kafka::read(&root.section("kafka"));
    let lifecycle_pulse = root.section("lifecycle_pulse");
    let lifecycle_pulse = lifecycle_pulse.is_there().then(|| kafka::topic(&lifecycle_pulse, &kafka));
    let outlets = Outlets { storage: &default.storage, kafka: &kafka, lifecycle: lifecycle_pulse.is_some() };
    let namespaces = namespaces::read(&root.section("namespaces"), &outlets);
    kafka::unused(&root.section("kafka"), lifecycle_pulse.as_ref(), &namespaces);
    let woody_server = woody_server(&root.section("woody_server"));
    Settings {
        service_name: root.text("service_name").unwrap_or(default.service_name),
        snowflake_machine_id: root.maybe_number("snowflake_machine_id", 0..=1023),
        worker: worker(&root.section("worker")),
        limits: limits(&root.section("limits"), woody_server.max_body_size),
        woody_server,
        logging: logging(&root.section("logging")),
        kafka,
        lifecycle_pulse,
        namespaces,
        storage: default.storage,
    }
}

fn woody_server(section: &Section<'_>) -> WoodyServerSettings {
    let default = WoodyServerSettings::default();
    let ip = section.item("ip").and_then(|item| {
        let text = item.text()?;
        let ip = text.parse().ok();
        ip.or_else(|| item.refuse("write an IPv4 or IPv6 address, like \"::\" or 127.0.0.1"))
    });
    WoodyServerSettings {
        ip: ip.unwrap_or(default.ip),
        port: section.number("port", default.port, 0..=65535),
        max_concurrent_connections: section.number(
            "max_concurrent_connections",
            default.max_concurrent_connections,
            1..=MANY,
        ),
        http_keep_alive_timeout: section.pause("http_keep_alive_timeout", default.http_keep_alive_timeout),
        idle_timeout: section.duration_or_infinity("idle_timeout", default.idle_timeout),
        shutdown_timeout: section.duration_or_infinity("shutdown_timeout", default.shutdown_timeout),
        max_body_size: section.size("max_body_size", default.max_body_size, 1 << 10..=1 << 30),
    }
}

fn worker(section: &Section<'_>) -> WorkerSettings {
    let default = WorkerSettings::default();
    let limit = |key, default| section.number(key, default, 1..=MANY);
    WorkerSettings {
        message_queue_len_limit: limit("message_queue_len_limit", default.message_queue_len_limit),
        machine_queue_limit: limit("machine_queue_limit", default.machine_queue_limit),
    }
}

fn limits(section: &Section<'_>, max_body_size: u64) -> LimitsSettings {
    let default = LimitsSettings::default();
    let steps = section.section("steps_in_flight");
    let (total, per_namespace) = (default.steps_in_flight.total, default.steps_in_flight.per_namespace);
    let bodies = section.section("bodies");
    // What could never come in would be refused for ever.
    let body_limit = |key, default: u64| bodies.size(key, default.max(max_body_size), max_body_size..=1 << 50);
    LimitsSettings {
        step_size: section.size("step_size", default.step_size, 64 << 10..=1 << 30),
        value_depth: section.number("value_depth", default.value_depth, 64..=10_000),
        cache: section.size("cache", default.cache, 1 << 20..=1 << 50),
        steps_in_flight: StepsInFlight {
            total: steps.number("total", total, 1..=MANY),
            per_namespace: steps.number("per_namespace", per_namespace, 1..=MANY),
        },
        scheduler_tasks: section.number("scheduler_tasks", default.scheduler_tasks, 1..=MANY),
        bodies: BodiesLimit {
            requests: body_limit("requests", default.bodies.requests),
            replies: body_limit("replies", default.bodies.replies),
        },
        disk: disk(&section.section("disk")),
        memory: memory(&section.section("memory")),
    }
}

fn disk(section: &Section<'_>) -> Option<DiskLimit> {
    let path = section.text("path").unwrap_or_else(|| "/".to_owned());
    let value = share(section)?;
    Some(DiskLimit { path: PathBuf::from(path), value })
}

fn memory(section: &Section<'_>) -> Option<MemoryLimit> {
    let kinds = [("total", MemoryKind::Total), ("cgroups", MemoryKind::Cgroups)];
    let kind = section.choice("type", MemoryKind::Total, &kinds);
    let value = share(section)?;
    Some(MemoryLimit { kind, value })
}

fn share(section: &Section<'_>) -> Option<u8> {
    if section.is_there() {
        section.require("value", super::size::HOW_PERCENT);
    }
    section.percent("value")
}

fn logging(section: &Section<'_>) -> LoggingSettings {
    let default = LoggingSettings::default();
    let outputs = [("file", LogOutput::File), ("stdout", LogOutput::Stdout)];
    let levels = [
        ("critical", LogLevel::Critical),
        ("error", LogLevel::Error),
        ("warning", LogLevel::Warning),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let path = |key, default| section.text(key).map_or(default, PathBuf::from);
    let formatter = section.section("formatter");
    let length = |key, default| formatter.number(key, default, 1..=MANY);
    LoggingSettings {
        out_type: section.choice("out_type", default.out_type, &outputs),
        root: path("root", default.root),
        json_log: path("json_log", default.json_log),
        level: section.choice("level", default.level, &levels),
        burst_limit_enable: section.flag("burst_limit_enable", default.burst_limit_enable),
        drop_mode_qlen: section.number("drop_mode_qlen", default.drop_mode_qlen, 1..=MANY),
        formatter: LogFormatter {
            max_length: length("max_length", default.formatter.max_length),
            max_printable_string_length: length(
                "max_printable_string_length",
                default.formatter.max_printable_string_length,
            ),
            level_map: level_map(&formatter.section("level_map")),
        },
    }
}

fn level_map(section: &Section<'_>) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for (level, _) in section.entries() {
        if !SEVERITIES.contains(&level.as_str()) {
            let instead = format!("write one of: {}", SEVERITIES.join(", "));
            section.wrong_key(level, "is no level", &instead);
        } else if let Some(text) = section.text(level) {
            map.insert(level.clone(), text);
        }
    }
    map
}
