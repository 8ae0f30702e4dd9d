//! The Kafka clients that sinks name, and the topics that they write to.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::namespaces::NamespaceSettings;
use super::reader::Section;
use super::service::MANY;
use super::sinks::EventSinkKind;
use super::{duration, size};

/// Kafka takes no longer name.
const LONGEST_TOPIC: usize = 249;

/// A message that waits longer for company is soon too old to be sent.
const LONGEST_LINGER: Duration = Duration::from_secs(1);

/// `kafka.<name>`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KafkaClient {
    /// The name that sinks use.
    #[serde(skip)]
    pub name: String,
    /// `endpoints`: the brokers to begin with. At least one, no default.
    pub endpoints: Vec<KafkaEndpoint>,
    /// `ssl`: client certificate and trust. Default None: no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl: Option<KafkaSsl>,
    /// `sasl`: who logs in. Default None: nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<KafkaSasl>,
    /// `producer`
    pub producer: KafkaProducer,
}

/// `kafka.<name>.endpoints[]`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KafkaEndpoint {
    /// `host`: no default.
    pub host: String,
    /// `port`: 1 to 65535, no default.
    pub port: u16,
}

/// `kafka.<name>.ssl`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KafkaSsl {
    /// `certfile`: default None.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certfile: Option<PathBuf>,
    /// `keyfile`: default None.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyfile: Option<PathBuf>,
    /// `cacertfile`: default None, the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cacertfile: Option<PathBuf>,
}

/// `kafka.<name>.sasl`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KafkaSasl {
    /// `mechanism`: default `scram_sha_512`.
    pub mechanism: SaslMechanism,
    /// `file`, or `username` and `password`. No default.
    #[serde(flatten)]
    pub login: SaslLogin,
}

/// `kafka.<name>.sasl.mechanism`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SaslMechanism {
    /// SCRAM-SHA-512
    #[serde(rename = "scram_sha_512")]
    ScramSha512,
    /// SCRAM-SHA-256
    #[serde(rename = "scram_sha_256")]
    ScramSha256,
    /// PLAIN
    Plain,
}

/// Where name and password come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum SaslLogin {
    /// The file's first two lines. Wins over the others.
    File {
        /// `file`
        file: PathBuf,
    },
    /// The configuration itself.
    Password {
        /// `username`
        username: String,
        /// `password`
        password: Secret,
    },
}

/// A text that no log and no report shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// `lifecycle_pulse`, and what belongs to an event sink of `type: kafka`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KafkaTopic {
    /// `client`: one of `kafka`. No default.
    pub client: String,
    /// `topic`: 1 to 249 of the characters that Kafka has for it. No default.
    pub topic: String,
}

/// `kafka.<name>.producer`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KafkaProducer {
    /// `compression`: default `no_compression`.
    pub compression: Compression,
    /// `partition_onwire_limit`: batches of a partition without their ack, from 1. Default 1. Used differently.
    pub partition_onwire_limit: u32,
    /// `partition_buffer_limit`: batches of a partition that wait, from 1. Default 256. Used differently.
    pub partition_buffer_limit: u32,
    /// `ack_timeout`: default 10s.
    #[serde(serialize_with = "duration::text")]
    pub ack_timeout: Duration,
    /// `required_acks`: default `all_isr`.
    pub required_acks: RequiredAcks,
    /// `max_linger`: how long a message may wait for company, up to 1s. Default 0ms: not at all where replies wait for
    /// messages, else 20 ms.
    #[serde(serialize_with = "duration::text")]
    pub max_linger: Duration,
    /// `max_linger_count`: how many messages may. Default 0.
    pub max_linger_count: u32,
    /// `max_batch_size`: bytes. Default 1M.
    #[serde(serialize_with = "size::text")]
    pub max_batch_size: u64,
    /// `max_retries`: -1 is for ever. Default 3. Used differently.
    pub max_retries: i32,
    /// `retry_backoff`: default 500ms.
    #[serde(serialize_with = "duration::text")]
    pub retry_backoff: Duration,
}

/// `kafka.<name>.producer.compression`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Plain.
    NoCompression,
    /// gzip
    Gzip,
    /// snappy
    Snappy,
}

/// `kafka.<name>.producer.required_acks`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RequiredAcks {
    /// Nobody's.
    None,
    /// The partition's leader.
    LeaderOnly,
    /// All replicas that are in sync.
    AllIsr,
}

// === impl Secret ===

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself, for the one who logs in with it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str("[redacted]")
    }
}

// === impl KafkaProducer ===

impl Default for KafkaProducer {
    fn default() -> Self {
        KafkaProducer {
            compression: Compression::NoCompression,
            partition_onwire_limit: 1,
            partition_buffer_limit: 256,
            ack_timeout: Duration::from_secs(10),
            required_acks: RequiredAcks::AllIsr,
            max_linger: Duration::ZERO,
            max_linger_count: 0,
            max_batch_size: 1 << 20,
            max_retries: 3,
            retry_backoff: Duration::from_millis(500),
        }
    }
}

pub(super) fn as_map<S: Serializer>(clients: &[KafkaClient], out: S) -> Result<S::Ok, S::Error> {
    out.collect_map(clients.iter().map(|client| (&client.name, client)))
}

/// Where something goes: `client` is one of these clients.
pub(super) fn topic(section: &Section<'_>, clients: &[KafkaClient]) -> KafkaTopic {
    let client = section.required_text("client", "name one of the clients below `kafka`");
    if section.has("client") && !clients.iter().any(|it| it.name == client) {
        let names: Vec<_> = clients.iter().map(|it| &*it.name).collect();
        let instead = match &*names {
            [] => "write `kafka: {NAME: {endpoints: [{host: ..., port: 9092}]}}` and name that one".to_owned(),
            names => format!("write one of: {}", names.join(", ")),
        };
        section.wrong_key("client", format!("is `{client}`, which `kafka` does not have"), &instead);
    }
    let topic = section.required_text("topic", "name the topic");
    let known = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '_' | '-');
    let is_name =
        (1..=LONGEST_TOPIC).contains(&topic.len()) && topic.chars().all(known) && topic != "." && topic != "..";
    if section.has("topic") && !is_name {
        section.wrong_key(
            "topic",
            "is no name that Kafka has for a topic",
            "write 1 to 249 letters, digits, `.`, `_`, `-`",
        );
    }
    KafkaTopic { client, topic }
}

/// Notices clients that no sink names.
pub(super) fn unused(kafka: &Section<'_>, lifecycle: Option<&KafkaTopic>, namespaces: &[NamespaceSettings]) {
    let sinks = namespaces.iter().flat_map(|namespace| &namespace.event_sinks);
    let topics = sinks.filter_map(|sink| match &sink.kind {
        EventSinkKind::Kafka(topic) => Some(topic),
        EventSinkKind::Ledger { .. } => None,
    });
    let used: Vec<_> = topics.chain(lifecycle).map(|topic| &*topic.client).collect();
    for client in kafka.sections() {
        if !used.contains(&client.name()) {
            kafka.notice_key(client.name(), "has no effect: no sink names it");
        }
    }
}

pub(super) fn read(section: &Section<'_>) -> Vec<KafkaClient> {
    section.sections().iter().map(client).collect()
}

fn client(section: &Section<'_>) -> KafkaClient {
    section.require("endpoints", "write a list of brokers, each a `host` and a `port`");
    let endpoints: Vec<_> = section.list("endpoints").iter().map(endpoint).collect();
    KafkaClient {
        name: section.name().to_owned(),
        endpoints,
        ssl: ssl(section),
        sasl: sasl(&section.section("sasl")),
        producer: producer(&section.section("producer")),
    }
}

fn endpoint(section: &Section<'_>) -> KafkaEndpoint {
    section.require("port", "write the broker's port, like 9092");
    KafkaEndpoint {
        host: section.required_text("host", "write the broker's name or address"),
        port: section.number("port", 0, 1..=65535),
    }
}

fn ssl(client: &Section<'_>) -> Option<KafkaSsl> {
    // `ssl: false` is how the original's own default reads when it is written out.
    if let Some(item) = client.item("ssl")
        && matches!(item.value, super::tree::Value::Bool(false))
    {
        return None;
    }
    let section = client.section("ssl");
    let path = |key| section.text(key).map(PathBuf::from);
    let (certfile, keyfile, cacertfile) = (path("certfile"), path("keyfile"), path("cacertfile"));
    section.is_there().then_some(KafkaSsl { certfile, keyfile, cacertfile })
}

fn sasl(section: &Section<'_>) -> Option<KafkaSasl> {
    let mechanisms = [
        ("scram_sha_512", SaslMechanism::ScramSha512),
        ("scram_sha_256", SaslMechanism::ScramSha256),
        ("plain", SaslMechanism::Plain),
    ];
    let mechanism = section.choice("mechanism", SaslMechanism::ScramSha512, &mechanisms);
    let file = section.text("file");
    let username = section.text("username");
    let password = section.item("password").and_then(|item| item.secret());
    if !section.is_there() {
        return None;
    }
    let login = match file {
        Some(file) => SaslLogin::File { file: PathBuf::from(file) },
        None => {
            let instead = "write `file`, or `username` and `password`";
            section.require("username", instead);
            section.require("password", instead);
            SaslLogin::Password {
                username: username.unwrap_or_default(),
                password: Secret::new(password.unwrap_or_default()),
            }
        }
    };
    Some(KafkaSasl { mechanism, login })
}

fn linger(section: &Section<'_>, default: Duration) -> Duration {
    let linger = section.duration("max_linger", default);
    if linger > LONGEST_LINGER {
        section.wrong_key("max_linger", "is longer than 1s", "write a duration up to 1s: a message lives for 8 s");
        return default;
    }
    linger
}

fn producer(section: &Section<'_>) -> KafkaProducer {
    let default = KafkaProducer::default();
    let compressions =
        [("no_compression", Compression::NoCompression), ("gzip", Compression::Gzip), ("snappy", Compression::Snappy)];
    let acks =
        [("none", RequiredAcks::None), ("leader_only", RequiredAcks::LeaderOnly), ("all_isr", RequiredAcks::AllIsr)];
    let limit = |key, default| section.number(key, default, 1..=MANY);
    KafkaProducer {
        compression: section.choice("compression", default.compression, &compressions),
        partition_onwire_limit: limit("partition_onwire_limit", default.partition_onwire_limit),
        partition_buffer_limit: limit("partition_buffer_limit", default.partition_buffer_limit),
        ack_timeout: section.pause("ack_timeout", default.ack_timeout),
        required_acks: section.choice("required_acks", default.required_acks, &acks),
        max_linger: linger(section, default.max_linger),
        max_linger_count: section.number("max_linger_count", default.max_linger_count, 0..=MANY),
        max_batch_size: section.size("max_batch_size", default.max_batch_size, 1..=1 << 30),
        max_retries: section.number("max_retries", default.max_retries, -1..=MANY),
        retry_backoff: section.duration("retry_backoff", default.retry_backoff),
    }
}
