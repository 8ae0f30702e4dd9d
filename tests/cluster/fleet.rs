//! Instances without machines, on one storage in memory and one clock that is turned by hand.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use machinegun::clock::{Clock, ClockHand, Snowflakes};
use machinegun::cluster::{Cluster, ClusterOptions, LeaseThread, Standing};
use machinegun::engine::{Engine, EngineOptions, Shards};
use machinegun::machine::Shard;
use machinegun::storage::Storage;
use machinegun::storage::leases::{Heartbeat, Owner};
use machinegun::storage::memory::Memory;
use machinegun::telemetry::Metrics;
use machinegun::woody::{Client, ClientSettings};

use crate::link::{Link, Way};

pub const SHARDS: u16 = 16;
pub const LEASE_MS: i64 = 10_000;
const STEP_MS: u64 = 100;

pub struct Fleet {
    pub storage: Arc<Memory>,
    clock: Clock,
    hand: ClockHand,
    pub instances: Vec<Instance>,
    /// When each heartbeat was first seen as it is.
    beats: HashMap<String, (u64, i64)>,
}

pub struct Instance {
    pub cluster: Arc<Cluster>,
    pub link: Arc<Link>,
    pub shards: Arc<Shards>,
    pub metrics: Arc<Metrics>,
}

// === impl Fleet ===

impl Fleet {
    pub fn new() -> Self {
        let (clock, hand) = Clock::manual(1_893_456_000_000);
        let storage = Arc::new(Memory::shared(SHARDS));
        Self { storage, clock, hand, instances: Vec::new(), beats: HashMap::new() }
    }

    /// One with so many members, who have shared all shards among them.
    pub async fn of(size: usize) -> Self {
        let mut fleet = Self::new();
        for _ in 0..size {
            fleet.join();
        }
        let share = usize::from(SHARDS) / size;
        let is_fair = |fleet: &Self| {
            let owned: Vec<_> = (0..size).map(|at| fleet.owned(at).len()).collect();
            owned.iter().all(|owned| *owned >= share) && owned.iter().sum::<usize>() == usize::from(SHARDS)
        };
        fleet.until("a fair share for all, and none left", is_fair).await;
        fleet
    }

    /// One more instance. Returns its number.
    pub fn join(&mut self) -> usize {
        self.join_on(None)
    }

    /// As [`Self::join`], with its leases on a thread of their own. It does not wait for its turn.
    pub fn join_on(&mut self, thread: Option<LeaseThread>) -> usize {
        let link = Link::new(self.storage.clone());
        let shards = Arc::new(Shards::new(SHARDS, self.clock.clone()));
        let snowflakes = Snowflakes::new(1, self.clock.clone());
        let metrics = Metrics::new();
        let options = EngineOptions {
            machine_queue_limit: 1,
            loading_limit: 1,
            steps_in_flight: 1,
            steps_in_flight_per_namespace: 1,
            arguments_per_namespace: u64::MAX,
            scheduler_tasks: 1,
            cache: 1,
        };
        let engine = Engine::start(
            link.clone(),
            Some(shards.clone()),
            self.clock.clone(),
            snowflakes.clone(),
            &metrics,
            options,
            Vec::new(),
        );
        let options = ClusterOptions {
            address: format!("127.0.0.1:{}", self.instances.len() + 1),
            lease_time: Duration::from_millis(LEASE_MS as u64),
            release_time: Duration::from_secs(1),
            thread,
        };
        let client = Client::new(ClientSettings::default(), self.clock.clone(), snowflakes);
        let joined = Cluster::join(link.clone(), shards.clone(), engine, client, metrics.clone(), options);
        let cluster = joined.expect("a shared storage");
        self.instances.push(Instance { cluster, link, shards, metrics });
        self.instances.len() - 1
    }

    pub fn set(&self, at: usize, way: Way) {
        self.instances[at].link.set(way);
    }

    pub fn turn(&self, ms: i64) {
        self.hand.advance(Duration::from_millis(ms as u64));
    }

    pub fn now(&self) -> i64 {
        self.clock.monotonic()
    }

    pub fn standing(&self, at: usize) -> Standing {
        self.instances[at].cluster.standing()
    }

    pub fn owned(&self, at: usize) -> Vec<Shard> {
        self.instances[at].shards.owned()
    }

    /// What it owns and may work on.
    pub fn held(&self, at: usize) -> Vec<Shard> {
        let shards = &self.instances[at].shards;
        shards.owned().into_iter().filter(|shard| shards.tenure(*shard).is_some()).collect()
    }

    /// Whether its metrics have this line.
    pub fn shows(&self, at: usize, line: &str) -> bool {
        let metrics = String::from_utf8(self.instances[at].metrics.render()).expect("UTF-8");
        metrics.lines().any(|it| it == line)
    }

    pub async fn owners(&self) -> Vec<Owner> {
        self.storage.leases().expect("shared").owners().await.expect("memory")
    }

    pub async fn heartbeats(&self) -> Vec<Heartbeat> {
        self.storage.leases().expect("shared").heartbeats().await.expect("memory")
    }

    /// For how long the heartbeat of this instance has been as it is.
    pub fn still_ms(&self, instance: &str) -> i64 {
        self.beats.get(instance).map_or(i64::MAX, |(_, since)| self.now() - since)
    }

    /// Lets everybody do what can be done now.
    pub async fn settle(&mut self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        let now = self.now();
        for heartbeat in self.heartbeats().await {
            let seen = self.beats.entry(heartbeat.instance.to_string()).or_insert((0, now));
            if seen.0 != heartbeat.beat {
                *seen = (heartbeat.beat, now);
            }
        }
        // What must be so at all times.
        let mut holders: HashMap<Shard, usize> = HashMap::new();
        for at in 0..self.instances.len() {
            for shard in self.held(at) {
                let other = holders.insert(shard, at);
                assert_eq!(other, None, "shard {shard} is worked on by {at} too");
            }
        }
    }

    pub async fn step(&mut self) {
        self.hand.advance(Duration::from_millis(STEP_MS));
        self.settle().await;
    }

    pub async fn pass(&mut self, ms: i64) {
        let until = self.now() + ms;
        while self.now() < until {
            self.step().await;
        }
    }

    #[track_caller]
    pub fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> impl Future<Output = ()> {
        let what = what.to_owned();
        async move {
            let give_up = self.now() + 60 * LEASE_MS;
            self.settle().await;
            while !is_so(self) {
                assert!(self.now() < give_up, "{what} did not come");
                self.step().await;
            }
        }
    }
}
