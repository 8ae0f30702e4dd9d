//! Where machines are kept.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::service::MANY;
use super::{duration, size};

/// `storage`
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum StorageSettings {
    /// `type: embedded`: in a directory of this host, by this process.
    Embedded(EmbeddedSettings),
    /// `type: dynamodb`: in a table of DynamoDB or of what speaks its API, by any number of instances.
    Dynamodb(DynamodbSettings),
    /// `type: memory`: gone when the process ends. For tests and benches.
    Memory,
}

/// `storage` with `type: embedded`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EmbeddedSettings {
    /// `path`: the directory; made if it is not there. No default.
    pub path: PathBuf,
    /// `free_space_reserve`: bytes that stay free on its file system, 0B to 1P; writes are refused below it and reads
    /// go on. Default 512M: room for the compaction that frees space again.
    #[serde(serialize_with = "size::text")]
    pub free_space_reserve: u64,
}

/// `storage` with `type: dynamodb`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DynamodbSettings {
    /// `table`: its name, made by `machinegun schema create`. No default.
    pub table: String,
    /// `region`: where the table is. Any name will do for a service of one's own. No default.
    pub region: String,
    /// `endpoint_url`: where the API answers. Default None: the region's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// `create_table`: makes a missing table at start, for development. Default false.
    pub create_table: bool,
    /// `shards`: over how many partitions of its indexes the machines are spread, 1 to 4096. The table keeps the number
    /// that it was made with, and is refused with another. Default 256.
    pub shards: u16,
    /// `request_timeout`: of one request to the table, not zero. Default 5s.
    #[serde(serialize_with = "duration::text")]
    pub request_timeout: Duration,
    /// `max_concurrent_requests`: requests to the table under way at once, 1 to 1,000,000; those about leases, and
    /// scans, aside. One that has no place within half of `request_timeout` is refused. Default 256.
    pub max_concurrent_requests: usize,
    /// `lease_time`: how long an instance is alive after its last heartbeat, 1s to 10m. Default 10s. All instances have
    /// the same.
    #[serde(serialize_with = "duration::text")]
    pub lease_time: Duration,
    /// `advertise`: `host:port` at which the other instances reach this one. Default None: `woody_server.ip` if it names
    /// an address, else the one that this host has on its way to the table; with the port that it listens on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// `peer_pool_size`: connections to all other instances together, 1 to 1,000,000. Default 256.
    pub peer_pool_size: usize,
}

const EMBEDDED: &str = "write `storage: {type: embedded, path: /var/lib/machinegun}`";
const DYNAMODB: &str = "write `storage: {type: dynamodb, table: machinegun, region: eu-central-1}`";
const OF_EMBEDDED: [&str; 2] = ["path", "free_space_reserve"];
const OF_DYNAMODB: [&str; 10] = [
    "table",
    "region",
    "endpoint_url",
    "create_table",
    "shards",
    "request_timeout",
    "max_concurrent_requests",
    "lease_time",
    "advertise",
    "peer_pool_size",
];
const LEASE_TIMES: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
const DEFAULT_RESERVE: u64 = 512 << 20;

// === impl StorageSettings ===

impl StorageSettings {
    /// In this directory, with the defaults.
    pub fn embedded(path: impl Into<PathBuf>) -> Self {
        StorageSettings::Embedded(EmbeddedSettings { path: path.into(), free_space_reserve: DEFAULT_RESERVE })
    }

    /// Whether a ledger's entries are part of the commit that brings their events, so that no step owes them.
    pub fn commit_holds_ledger(&self) -> bool {
        match self {
            StorageSettings::Embedded(_) | StorageSettings::Memory => true,
            StorageSettings::Dynamodb(_) => false,
        }
    }
}

pub(super) fn read(section: &Section<'_>) -> StorageSettings {
    section.require("type", EMBEDDED);
    // INVARIANT: whatever is returned after an error has been noted is thrown away with the other settings.
    let path = section.text("path");
    let free_space_reserve = section.size("free_space_reserve", DEFAULT_RESERVE, 0..=1 << 50);
    let dynamodb = DynamodbSettings {
        table: section.text("table").unwrap_or_default(),
        region: section.text("region").unwrap_or_default(),
        endpoint_url: section.text("endpoint_url"),
        create_table: section.flag("create_table", false),
        shards: section.number("shards", 256, 1..=4096),
        request_timeout: section.pause("request_timeout", Duration::from_secs(5)),
        max_concurrent_requests: section.number("max_concurrent_requests", 256, 1..=MANY),
        lease_time: section.duration("lease_time", Duration::from_secs(10)),
        advertise: section.text("advertise"),
        peer_pool_size: section.number("peer_pool_size", 256, 1..=MANY),
    };
    let Some(item) = section.item("type") else {
        return StorageSettings::Memory;
    };
    match item.text().as_deref() {
        None => StorageSettings::Memory,
        Some("embedded") => {
            if !section.has("path") {
                section.require("path", EMBEDDED);
            } else if path.as_deref() == Some("") {
                section.wrong_key("path", "is empty", EMBEDDED);
            }
            without_effect(section, &OF_DYNAMODB, "only `type: dynamodb` has it");
            StorageSettings::Embedded(EmbeddedSettings {
                path: PathBuf::from(path.unwrap_or_default()),
                free_space_reserve,
            })
        }
        Some("memory") => {
            without_effect(section, &OF_EMBEDDED, "`type: memory` keeps nothing on a disk");
            without_effect(section, &OF_DYNAMODB, "only `type: dynamodb` has it");
            StorageSettings::Memory
        }
        Some("riak") => {
            let wrong = "is `riak`, which this service does not speak";
            item.wrong(wrong, &format!("{EMBEDDED}, and move the machines there"));
            StorageSettings::Memory
        }
        Some("dynamodb") if !cfg!(feature = "dynamodb") => {
            item.wrong("is `dynamodb`, which this program was built without", "build it with the feature `dynamodb`");
            StorageSettings::Memory
        }
        Some("dynamodb") => {
            for key in ["table", "region"] {
                match section.has(key) {
                    true if section.text(key).as_deref() == Some("") => section.wrong_key(key, "is empty", DYNAMODB),
                    true => {}
                    false => section.require(key, DYNAMODB),
                }
            }
            if dynamodb.endpoint_url.as_ref().is_some_and(|url| !is_url(url)) {
                section.wrong_key("endpoint_url", "is no URL", "write it like `http://127.0.0.1:8000`");
            }
            without_effect(section, &OF_EMBEDDED, "only `type: embedded` has it");
            if !LEASE_TIMES.contains(&dynamodb.lease_time) {
                section.wrong_key("lease_time", "is out of bounds", "write a duration from 1s to 10m");
            }
            if dynamodb.advertise.as_deref().is_some_and(|address| !is_address(address)) {
                let instead = "write host and port at which the other instances reach this one, like `10.0.0.7:8022`";
                section.wrong_key("advertise", "is no address", instead);
            }
            StorageSettings::Dynamodb(dynamodb)
        }
        Some(_) => {
            item.refuse::<()>("write `embedded`, `dynamodb`, or `memory` for tests");
            StorageSettings::Memory
        }
    }
}

fn without_effect(section: &Section<'_>, keys: &[&str], why: &str) {
    for key in keys.iter().filter(|key| section.has(key)) {
        section.notice_key(key, format!("has no effect: {why}"));
    }
}

/// `host:port`, with a host that can be anywhere and a port that can be connected to.
fn is_address(text: &str) -> bool {
    let Ok(address) = text.parse::<http::uri::Authority>() else { return false };
    let host = address.host().trim_start_matches('[').trim_end_matches(']');
    let anywhere = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    !host.is_empty() && !anywhere && !text.contains('@') && address.port_u16().is_some_and(|port| port != 0)
}

fn is_url(text: &str) -> bool {
    let url = text.parse::<http::Uri>();
    url.is_ok_and(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some())
}
