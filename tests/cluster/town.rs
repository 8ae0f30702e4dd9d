//! Services on real ports over one storage in memory, on one clock that is turned by hand, with one processor.

use std::sync::Arc;
use std::time::Duration;

use machinegun::clock::{Clock, ClockHand};
use machinegun::config::{DynamodbSettings, NamespaceSettings, Settings, StorageSettings};
use machinegun::machine::{MachineId, MachineKey, Namespace};
use machinegun::service::{self, Running};
use machinegun::storage::Storage;
use machinegun::storage::leases::InstanceId;
use machinegun::storage::memory::Memory;
use machinegun::wire::{self, Method, Protocol};

use crate::fleet::{LEASE_MS, SHARDS};
use crate::live::http::{self, Answer};
use crate::live::{self, Callee, NAMESPACE, NOW, PATIENCE};

pub struct Town {
    pub storage: Arc<Memory>,
    clock: Clock,
    pub hand: ClockHand,
    processor: String,
    /// Of services that are built from here on.
    pub peer_pool_size: usize,
    pub protocol: Protocol,
    pub shutdown_timeout: Duration,
    pub houses: Vec<Running>,
}

// === impl Town ===

impl Town {
    pub fn new() -> (Self, Callee) {
        let (clock, hand) = Clock::manual(NOW);
        let callee = Callee::listen(&clock);
        let (storage, processor) = (Arc::new(Memory::shared(SHARDS)), callee.url.clone());
        let (peer_pool_size, protocol, shutdown_timeout) = (256, Protocol::Current, Duration::from_secs(5));
        let houses = Vec::new();
        (Self { storage, clock, hand, processor, peer_pool_size, protocol, shutdown_timeout, houses }, callee)
    }

    /// With so many services, who have shared all shards among them.
    pub async fn of(size: usize) -> (Self, Callee) {
        let (mut town, callee) = Self::new();
        town.fill(size).await;
        (town, callee)
    }

    /// Builds so many services, and waits until they have shared all shards among them.
    pub async fn fill(&mut self, size: usize) {
        for _ in 0..size {
            self.build(self.storage.clone()).await;
        }
        let share = u64::from(SHARDS) / size as u64;
        self.until(|all| all.len() == size && all.iter().all(|it| it["owned"].as_u64() == Some(share))).await;
        // Time enough for all to hear of it.
        for _ in 0..50 {
            self.until(|_| true).await;
            self.hand.advance(Duration::from_millis(100));
        }
    }

    /// One more service. Returns its number.
    pub async fn build(&mut self, storage: Arc<dyn Storage>) -> usize {
        let namespaces = vec![NamespaceSettings {
            protocol: self.protocol,
            shutdown_timeout: Some(self.shutdown_timeout),
            ..live::namespace(&self.processor)
        }];
        // What it says of a table is not looked at: the storage is open.
        let sharing = StorageSettings::Dynamodb(DynamodbSettings {
            table: String::new(),
            region: String::new(),
            endpoint_url: None,
            create_table: false,
            shards: SHARDS,
            request_timeout: Duration::from_secs(5),
            max_concurrent_requests: 256,
            lease_time: Duration::from_millis(LEASE_MS as u64),
            advertise: None,
            peer_pool_size: self.peer_pool_size,
        });
        let mut settings = Settings { namespaces, ..Settings::default_with(sharing) };
        settings.woody_server.ip = [127, 0, 0, 1].into();
        settings.woody_server.port = 0;
        let running = service::start_over(settings, self.clock.clone(), storage).await.expect("it starts");
        self.houses.push(running);
        self.houses.len() - 1
    }

    pub async fn get(&self, at: usize, path: &str) -> Answer {
        http::exchange(self.houses[at].address(), &format!("GET {path}"), &[], b"").await
    }

    /// What `/health` says of a service's shards.
    pub async fn shards(&self, at: usize) -> serde_json::Value {
        let health: serde_json::Value =
            serde_json::from_slice(&self.get(at, "/health").await.body).expect("health is JSON");
        health["shards"].clone()
    }

    /// Turns the clock until all services are so.
    pub async fn until(&self, is_so: impl Fn(&[serde_json::Value]) -> bool) {
        let wait = async {
            loop {
                let mut all = Vec::new();
                for at in 0..self.houses.len() {
                    all.push(self.shards(at).await);
                }
                if is_so(&all) {
                    return;
                }
                self.hand.advance(Duration::from_millis(100));
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it comes to be so");
    }

    pub async fn instance(&self, at: usize) -> InstanceId {
        let text = self.shards(at).await["instance"].as_str().expect("an instance").to_owned();
        let heartbeats = self.storage.leases().expect("shared").heartbeats().await.expect("memory");
        let heartbeat = heartbeats.into_iter().find(|it| it.instance.to_string() == text);
        heartbeat.expect("its heartbeat stands").instance
    }

    pub fn now(&self) -> i64 {
        self.clock.monotonic()
    }

    /// The id of a machine in each shard.
    pub fn id_in_each_shard(&self) -> Vec<String> {
        let shard_of = |id: &String| {
            let id = MachineId::new(id.clone().into()).expect("an id");
            MachineKey { ns: Namespace::new(NAMESPACE), id }.shard(SHARDS)
        };
        let in_shard = |shard| (0..).map(|number| format!("machine-{number}")).find(|id| shard_of(id) == shard);
        (0..SHARDS).map(|shard| in_shard(shard).expect("an id")).collect()
    }

    /// The id of a machine that is at home there.
    pub async fn id_at(&self, at: usize) -> String {
        let instance = self.instance(at).await;
        let owners = self.storage.leases().expect("shared").owners().await.expect("memory");
        let is_there = |id: &String| {
            let id = MachineId::new(id.clone().into()).expect("an id");
            let shard = MachineKey { ns: Namespace::new(NAMESPACE), id }.shard(SHARDS);
            owners.iter().any(|owner| owner.shard == shard && owner.instance == Some(instance))
        };
        (0..).map(|number| format!("machine-{number}")).find(is_there).expect("an id")
    }

    pub async fn ask<M: Method>(&self, at: usize, headers: &[(&str, &str)], args: &M::Args) -> Answer {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let headers: Vec<_> = live::ids().into_iter().chain(headers.iter().map(owned)).collect();
        let body = wire::write_call::<M>(args, 7);
        let exchange = http::exchange(self.houses[at].address(), "POST /v1/automaton", &headers, &body);
        tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
    }

    /// The value of a metric of one service; 0 if it isn't there.
    pub async fn metric(&self, at: usize, name: &str) -> u64 {
        let text = String::from_utf8(self.get(at, "/metrics").await.body.to_vec()).expect("UTF-8");
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.trim().parse().expect("a number"))
    }

    /// A deadline so many seconds from now.
    pub fn deadline(&self, seconds: i64) -> String {
        machinegun::woody::format_deadline(self.clock.now() + seconds * 1_000)
    }
}
