//! Instances on one table, each with a way of its own to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use machinegun::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::storm::Storm;
use crate::crash::dice::Dice;
use crate::process::peer::Peer;
use crate::process::{Folder, Machinegun, soon};

/// Milliseconds that any of its requests has.
pub const PATIENCE_MS: i64 = 4_000;

pub const SHARDS: u16 = 16;

/// Milliseconds that the metrics of an instance may take. An instance with more to do than the host can do answers late, and
/// one that owns its shards is not to be counted as one that doesn't.
const GAUGE_MS: i64 = 10_000;

pub struct Cluster {
    pub instances: Vec<Instance>,
    next: AtomicUsize,
}

pub struct Instance {
    pub name: usize,
    config: PathBuf,
    pub storm: Storm,
    running: tokio::sync::Mutex<Option<Machinegun>>,
    /// Where it answers while it runs.
    peer: Mutex<Option<(SocketAddr, Peer)>>,
    pub refused_starts: AtomicU64,
}

// === impl Cluster ===

impl Cluster {
    /// `configuration` makes an instance's from the endpoint of its table.
    pub async fn start(
        count: usize,
        service: &str,
        folder: &Folder,
        dice: &mut Dice,
        configuration: impl Fn(&str) -> String,
    ) -> Arc<Self> {
        let mut instances = Vec::new();
        for name in 0..count {
            let storm = Storm::before(service, Dice::new(dice.next())).await;
            let config = folder.path().join(format!("instance-{name}.yaml"));
            std::fs::write(&config, configuration(&storm.endpoint)).expect("the configuration is written");
            let instance = Instance {
                name,
                config,
                storm,
                running: tokio::sync::Mutex::default(),
                peer: Mutex::default(),
                refused_starts: AtomicU64::new(0),
            };
            instance.begin().await;
            instances.push(instance);
        }
        Arc::new(Self { instances, next: AtomicUsize::new(0) })
    }

    /// One of those that run, by turns; whether it answers is another thing.
    pub async fn peer(&self) -> Peer {
        let clock = Clock::system();
        loop {
            for _ in 0..self.instances.len() {
                let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.instances.len();
                if let Some(peer) = self.instances[turn].peer() {
                    return peer.with_patience(PATIENCE_MS);
                }
            }
            clock.sleep_until(clock.now() + 20).await;
        }
    }

    /// How many shards the running instances say that they own, together.
    pub async fn owned(&self) -> u64 {
        let owned = self.instances.iter().map(|instance| instance.gauge("machinegun_shards_owned"));
        join_all(owned).await.into_iter().flatten().sum()
    }

    /// Milliseconds until every shard has exactly one owner.
    pub async fn all_owned(&self) -> i64 {
        let clock = Clock::system();
        let begun = clock.now();
        let all = async {
            while self.owned().await != u64::from(SHARDS) {
                clock.sleep_until(clock.now() + 50).await;
            }
        };
        soon("an owner for every shard", all).await;
        clock.now() - begun
    }

    /// The sum of a counter over the instances that run now.
    pub async fn total(&self, metric: &str) -> u64 {
        let mut total = 0;
        for instance in &self.instances {
            total += instance.gauge(metric).await.unwrap_or(0);
        }
        total
    }
}

// === impl Instance ===

impl Instance {
    fn peer(&self) -> Option<Peer> {
        self.peer.lock().expect("nobody panics with it").as_ref().map(|(_, peer)| peer.clone())
    }

    fn answers(&self, at: Option<SocketAddr>) {
        *self.peer.lock().expect("nobody panics with it") = at.map(|at| (at, Peer::of(at)));
    }

    /// Of an instance that runs, with all the time in the world.
    pub fn steady_peer(&self) -> Peer {
        self.peer().expect("it runs")
    }

    /// Starts it, again and again while its storage keeps it from starting.
    pub async fn begin(&self) {
        let mut running = self.running.lock().await;
        assert!(running.is_none(), "instance {} runs already", self.name);
        let started = loop {
            match Machinegun::try_start(&self.config).await {
                Ok(started) => break started,
                // The table could not be looked at: nothing else may keep it from starting.
                Err(why) => assert!(why.contains("can't be looked at") || why.contains("storage"), "{why}"),
            }
            self.refused_starts.fetch_add(1, Ordering::Relaxed);
        };
        self.answers(Some(started.address));
        *running = Some(started);
    }

    pub async fn kill(&self) {
        let running = self.running.lock().await.take();
        self.answers(None);
        running.expect("it runs").kill().await;
    }

    /// Its end must be a good one.
    pub async fn stop(&self) {
        let running = self.running.lock().await.take().expect("it runs");
        running.terminate();
        // Those who still find it are refused, or cut off: as when a balancer is slow to learn of it.
        let ended = running.ended().await;
        self.answers(None);
        assert_eq!(ended.status.code(), Some(0), "instance {}: {}", self.name, ended.stderr);
    }

    pub async fn freeze(&self, milliseconds: i64) {
        let running = self.running.lock().await;
        let running = running.as_ref().expect("it runs");
        running.freeze();
        let clock = Clock::system();
        clock.sleep_until(clock.now() + milliseconds).await;
        running.thaw();
    }

    /// The sum of a metric's values over its labels; none if it does not answer.
    async fn gauge(&self, metric: &str) -> Option<u64> {
        let address = self.peer.lock().expect("nobody panics with it").as_ref().map(|(address, _)| *address)?;
        let clock = Clock::system();
        let scraped = clock.timeout_at(clock.now() + GAUGE_MS, get(address, "/metrics")).await.ok()??;
        let lines = scraped.lines().filter(|line| {
            line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
        });
        Some(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
    }
}

async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
