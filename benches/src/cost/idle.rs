//! An hour in which nobody asks for anything: what instances look at by the clock. Each look is paid for once, and taken as
//! often as the defaults of the configuration have it.

use std::future::Future;
use std::sync::Arc;

use machinegun::clock::Clock;
use machinegun::cluster::BEATS_IN_A_LEASE;
use machinegun::storage::dynamodb::{Dynamodb, schema};
use machinegun::storage::leases::{Heartbeat, InstanceId, Owner};
use machinegun::storage::ledger::LOOK_EVERY_MS;
use machinegun::storage::{Storage, StorageError};

use super::{Bill, SCAN_EVERY, table};
use crate::Failure;
use crate::toll::Toll;

/// As the configuration has them by default.
const SHARDS: u16 = 256;
const LEASES_IN_AN_HOUR: u32 = 360;

const HOUR_MS: f64 = 3_600_000.0;

/// What an hour of idleness costs.
pub struct Idle {
    /// An instance that owns all shards, and is alone with that.
    pub instance: Bill,
    /// And each ledger that it has.
    pub ledger: Bill,
}

/// On the DynamoDB API at this address, which keeps a table more.
pub async fn measure(service: &str) -> Result<Idle, Failure> {
    let toll = Toll::before(service).await?;
    let options = table(&toll, SHARDS);
    schema::create(&options, &Clock::system()).await?;
    let storage: Arc<dyn Storage> = Dynamodb::open(&options).await?;
    let (leases, ledger) = (storage.leases(), storage.appended_ledger());
    let (Some(leases), Some(ledger)) = (leases, ledger) else { return Err("a table has leases and ledgers".into()) };

    let instance = InstanceId([7; 16]);
    let heartbeat =
        |beat| Heartbeat { instance, beat, changes: 256, address: "10.0.0.7:8022".to_owned(), leaving: false };
    leases.beat(&heartbeat(1)).await?;
    let shards: Vec<_> = (0..SHARDS).collect();
    for shard in shards.iter().copied() {
        leases.assign(&Owner { shard, epoch: 1, instance: Some(instance) }).await?;
    }
    let scan = bill(&toll, storage.dues(Some(&shards), i64::MAX - 1, None, 1_000)).await?;
    let beat = bill(&toll, leases.beat(&heartbeat(2))).await?;
    let heartbeats = bill(&toll, leases.heartbeats()).await?;
    let owners = bill(&toll, leases.owners()).await?;
    let look = bill(&toll, ledger.links("ledger", 0)).await?;
    storage.close().await;

    // With the owners, the heartbeats are looked at once more.
    let leases = f64::from(LEASES_IN_AN_HOUR);
    let beats = leases * BEATS_IN_A_LEASE as f64;
    let instance = scan.times(HOUR_MS / SCAN_EVERY.as_millis() as f64);
    let instance = instance.plus(&beat.times(beats)).plus(&heartbeats.times(beats));
    let instance = instance.plus(&owners.plus(&heartbeats).times(leases));
    Ok(Idle { instance, ledger: look.times(HOUR_MS / LOOK_EVERY_MS as f64) })
}

async fn bill<T>(toll: &Toll, look: impl Future<Output = Result<T, StorageError>>) -> Result<Bill, Failure> {
    let before = toll.passed();
    look.await?;
    Ok(Bill::of(&toll.since(before)?))
}
