//! What an instance needs to be one of several on a storage.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use super::{StartError, steps_may_take};
use crate::clock::{Clock, Snowflakes};
use crate::cluster::{Cluster, ClusterOptions, LeaseThread, own_address};
use crate::config::{DynamodbSettings, Settings, StorageSettings};
use crate::engine::{Engine, Shards};
use crate::storage::Storage;
use crate::telemetry::Metrics;
use crate::woody::{Bodies, Client, ClientSettings};

/// As the defaults of `storage.lease_time` and `storage.peer_pool_size`, for storages that have no such settings.
const LEASE_TIME: Duration = Duration::from_secs(10);
const PEER_POOL_SIZE: usize = 256;

/// How long an idle connection to another instance is kept: well below a server's idle timeout.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Calls the other instances.
pub(super) fn client(settings: &Settings, clock: &Clock, snowflakes: Arc<Snowflakes>, replies: &Arc<Bodies>) -> Client {
    let pool_size = match &settings.storage {
        StorageSettings::Dynamodb(table) => table.peer_pool_size,
        StorageSettings::Embedded(_) | StorageSettings::Memory => PEER_POOL_SIZE,
    };
    let client = ClientSettings {
        pool_size,
        keep_alive: KEEP_ALIVE,
        max_response_size: usize::try_from(settings.woody_server.max_body_size).unwrap_or(usize::MAX),
        replies: replies.clone(),
        ..ClientSettings::default()
    };
    Client::new(client, clock.clone(), snowflakes)
}

pub(super) async fn join(
    settings: &Settings,
    listening: SocketAddr,
    storage: &Arc<dyn Storage>,
    shards: Arc<Shards>,
    engine: &Arc<Engine>,
    client: Client,
    metrics: &Arc<Metrics>,
) -> Result<Option<Arc<Cluster>>, StartError> {
    let table = match &settings.storage {
        StorageSettings::Dynamodb(table) => Some(table),
        StorageSettings::Embedded(_) | StorageSettings::Memory => None,
    };
    let thread = match storage.leases() {
        // Where a hand turns the clock, all that it wakes must have its turn before the clock moves on.
        Some(_) if !engine.clock().is_manual() => Some(LeaseThread::start()),
        Some(_) | None => None,
    };
    let thread =
        thread.transpose().map_err(|error| StartError::Runtime(format!("no thread for the leases: {error}")))?;
    let options = ClusterOptions {
        address: address(table, listening).await?,
        lease_time: table.map_or(LEASE_TIME, |table| table.lease_time),
        release_time: steps_may_take(settings),
        thread,
    };
    Ok(Cluster::join(storage.clone(), shards, engine.clone(), client, metrics.clone(), options))
}

async fn address(table: Option<&DynamodbSettings>, listening: SocketAddr) -> Result<String, StartError> {
    if let Some(address) = table.and_then(|table| table.advertise.clone()) {
        return Ok(address);
    }
    let endpoint: Option<Uri> = table.and_then(|table| match &table.endpoint_url {
        Some(url) => url.parse().ok(),
        None => format!("https://dynamodb.{}.amazonaws.com", table.region).parse().ok(),
    });
    let storage = endpoint.as_ref().and_then(|url| {
        let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
        Some((url.host()?, port))
    });
    let own = own_address(listening, storage).await.ok_or_else(|| {
        let why = "this host has no address that others could reach; write host and port, like `10.0.0.7:8022`";
        StartError::Advertise(why.to_owned())
    })?;
    Ok(own.to_string())
}
