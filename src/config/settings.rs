//! What a checked file comes to. Every field says its key, its unit and its default.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::kafka::{KafkaClient, KafkaTopic};
use super::namespaces::NamespaceSettings;
use super::storage::StorageSettings;
use super::{duration, kafka, namespaces, size};

/// The whole service. Serialized, it has the shape of the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// `service_name`: what `/health` calls the service. Default `machinegun`.
    pub service_name: String,
    /// `snowflake_machine_id`: 0 to 1023, in every id that the service makes. Default None: from the host's name. Instances
    /// that share a storage may have equal ones: an id that both make is noticed, and made anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snowflake_machine_id: Option<u16>,
    /// `woody_server`: the API's server.
    pub woody_server: WoodyServerSettings,
    /// `worker`: bounds on the machines in memory.
    pub worker: WorkerSettings,
    /// `limits`: bounds on the whole service.
    pub limits: LimitsSettings,
    /// `logging`: where log lines go, and which.
    pub logging: LoggingSettings,
    /// `storage`: where machines are kept. No default.
    pub storage: StorageSettings,
    /// `kafka`: the clients by name, in the order of the file. Default none.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "kafka::as_map")]
    pub kafka: Vec<KafkaClient>,
    /// `lifecycle_pulse`: the topic of all namespaces' changes of life. Default None: nobody is told of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle_pulse: Option<KafkaTopic>,
    /// `namespaces`: in the order of the file. At least one, no default.
    #[serde(serialize_with = "namespaces::as_map")]
    pub namespaces: Vec<NamespaceSettings>,
}

/// `woody_server`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WoodyServerSettings {
    /// `ip`: the address to listen on. Default `::`, which takes IPv4 too.
    pub ip: IpAddr,
    /// `port`: 0 to 65535, 0 takes any free one. Default 8022.
    pub port: u16,
    /// `max_concurrent_connections`: 1 to 1,000,000; more wait. Default 1024.
    pub max_concurrent_connections: u32,
    /// `http_keep_alive_timeout`: how long a connection may take to send its next request's headers. Default 5s.
    #[serde(serialize_with = "duration::text")]
    pub http_keep_alive_timeout: Duration,
    /// `idle_timeout`: how long one whole exchange may take, from its first byte to its last, before its connection is
    /// closed; must exceed every deadline. Default infinity (None).
    #[serde(serialize_with = "duration::or_infinity")]
    pub idle_timeout: Option<Duration>,
    /// `shutdown_timeout`: how long running requests may go on when the service stops; zero: not at all. Default 5s.
    #[serde(serialize_with = "duration::or_infinity")]
    pub shutdown_timeout: Option<Duration>,
    /// `max_body_size`: bytes of a request's body, 1K to 1G. Default 64M.
    #[serde(serialize_with = "size::text")]
    pub max_body_size: u64,
}

/// `worker`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerSettings {
    /// `message_queue_len_limit`: machines of a namespace that are being loaded, 1 to 1,000,000. Default 500.
    pub message_queue_len_limit: usize,
    /// `machine_queue_limit`: impacts that wait for one machine, 1 to 1,000,000. Default 10000.
    pub machine_queue_limit: usize,
}

/// `limits`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LimitsSettings {
    /// `step_size`: bytes of new events and aux state that one step may store, 64K to 1G. Default 16M.
    #[serde(serialize_with = "size::text")]
    pub step_size: u64,
    /// `value_depth`: how deep a `msgpack.Value` may be nested, 64 to 10000: beyond it is refused. Default 1000.
    pub value_depth: usize,
    /// `cache`: bytes of records and events that stay in memory, 1M to 1P. Default 256M.
    #[serde(serialize_with = "size::text")]
    pub cache: u64,
    /// `steps_in_flight`: how many machines may be taking a step.
    pub steps_in_flight: StepsInFlight,
    /// `scheduler_tasks`: timers and the like being worked off at once in all namespaces, 1 to 1,000,000; more wait. Default
    /// 5000.
    pub scheduler_tasks: usize,
    /// `bodies`: what may be in memory of requests and replies at once.
    pub bodies: BodiesLimit,
    /// `disk`: when `/health` turns critical. Default None: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskLimit>,
    /// `memory`: when `/health` turns critical, the cache is emptied and new work is refused. Default None: `/health` says
    /// nothing of it, and the rest is done at 90% of the container's limit, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryLimit>,
}

/// `limits.bodies`: past it a request is refused with 503 `overload`. From one largest body to 1P each.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BodiesLimit {
    /// `requests`: bytes of requests that are worked on, and of answers that clients have not taken yet; half of it for what
    /// waits in one namespace. Default 256M, or one largest body.
    #[serde(serialize_with = "size::text")]
    pub requests: u64,
    /// `replies`: bytes of what processors, modernizers and other instances reply; half of it for one namespace. Default
    /// 256M, or one largest body.
    #[serde(serialize_with = "size::text")]
    pub replies: u64,
}

/// `limits.steps_in_flight`: past it a step is refused with 503 `overload`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepsInFlight {
    /// `total`: of all namespaces together, 1 to 1,000,000. Default 10000.
    pub total: usize,
    /// `per_namespace`: of each, 1 to 1,000,000; half the total, so that one can't starve the rest. Default 5000.
    pub per_namespace: usize,
}

/// `limits.disk`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiskLimit {
    /// `path`: a directory of the file system watched. Default `/`.
    pub path: PathBuf,
    /// `value`: the used share in percent. No default.
    #[serde(serialize_with = "size::percent_text")]
    pub value: u8,
}

/// `limits.memory`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryLimit {
    /// `type`: of what the share is. Default `total`.
    #[serde(rename = "type")]
    pub kind: MemoryKind,
    /// `value`: the used share in percent. No default.
    #[serde(serialize_with = "size::percent_text")]
    pub value: u8,
}

/// `limits.memory.type`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryKind {
    /// The host's memory.
    Total,
    /// The container's.
    Cgroups,
}

/// `logging`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoggingSettings {
    /// `out_type`: to a file or to standard output. Default `file`.
    pub out_type: LogOutput,
    /// `root`: the directory of the file. Default `/var/log/machinegun`.
    pub root: PathBuf,
    /// `json_log`: the file's name. Default `log.json`.
    pub json_log: PathBuf,
    /// `level`: the least that is logged. Default `info`.
    pub level: LogLevel,
    /// `burst_limit_enable`: whether lines up to info are bounded to 500 a second, beyond which they are dropped and
    /// counted. Default true.
    pub burst_limit_enable: bool,
    /// `drop_mode_qlen`: lines that wait to be written, 1 to 1,000,000; more are dropped and counted. Default 1000.
    pub drop_mode_qlen: usize,
    /// `formatter`: how lines look.
    pub formatter: LogFormatter,
}

/// `logging.out_type`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogOutput {
    /// Appended to `root`/`json_log`.
    File,
    /// Standard output.
    Stdout,
}

/// `logging.level`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Nothing below critical.
    Critical,
    /// Errors.
    Error,
    /// And warnings.
    Warning,
    /// And what happens.
    Info,
    /// And how.
    Debug,
    /// Everything.
    Trace,
}

/// `logging.formatter`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogFormatter {
    /// `max_length`: characters of a line's message, 1 to 1,000,000. Default 1000.
    pub max_length: usize,
    /// `max_printable_string_length`: characters of any other text in a line, 1 to 1,000,000; ids are never cut. Default
    /// 1000.
    pub max_printable_string_length: usize,
    /// `level_map`: what `@severity` says for a level. Default: the level's own name.
    pub level_map: BTreeMap<String, String>,
}

// === impl Settings ===

impl Settings {
    /// All the defaults on this storage, and no namespace yet: for tests and demos that need no file.
    pub fn default_with(storage: StorageSettings) -> Self {
        Settings {
            service_name: "machinegun".to_owned(),
            snowflake_machine_id: None,
            woody_server: WoodyServerSettings::default(),
            worker: WorkerSettings::default(),
            limits: LimitsSettings::default(),
            logging: LoggingSettings::default(),
            storage,
            kafka: Vec::new(),
            lifecycle_pulse: None,
            namespaces: Vec::new(),
        }
    }

    /// With one more namespace.
    pub fn with_namespace(mut self, namespace: NamespaceSettings) -> Self {
        self.namespaces.push(namespace);
        self
    }
}

// === defaults ===

impl Default for WoodyServerSettings {
    fn default() -> Self {
        WoodyServerSettings {
            ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            port: 8022,
            max_concurrent_connections: 1024,
            http_keep_alive_timeout: Duration::from_secs(5),
            idle_timeout: None,
            shutdown_timeout: Some(Duration::from_secs(5)),
            max_body_size: 64 << 20,
        }
    }
}

impl Default for WorkerSettings {
    fn default() -> Self {
        WorkerSettings { message_queue_len_limit: 500, machine_queue_limit: 10_000 }
    }
}

impl Default for LimitsSettings {
    fn default() -> Self {
        LimitsSettings {
            step_size: 16 << 20,
            value_depth: 1000,
            cache: 256 << 20,
            steps_in_flight: StepsInFlight::default(),
            scheduler_tasks: 5000,
            bodies: BodiesLimit::default(),
            disk: None,
            memory: None,
        }
    }
}

impl Default for BodiesLimit {
    fn default() -> Self {
        BodiesLimit { requests: 256 << 20, replies: 256 << 20 }
    }
}

impl Default for StepsInFlight {
    fn default() -> Self {
        StepsInFlight { total: 10_000, per_namespace: 5000 }
    }
}

impl Default for LoggingSettings {
    fn default() -> Self {
        LoggingSettings {
            out_type: LogOutput::File,
            root: PathBuf::from("/var/log/machinegun"),
            json_log: PathBuf::from("log.json"),
            level: LogLevel::Info,
            burst_limit_enable: true,
            drop_mode_qlen: 1000,
            formatter: LogFormatter::default(),
        }
    }
}

impl Default for LogFormatter {
    fn default() -> Self {
        LogFormatter { max_length: 1000, max_printable_string_length: 1000, level_map: BTreeMap::new() }
    }
}
