//! Several instances on one storage: which shards this one owns, and where requests for the others' go.
//!
//! Every instance puts heartbeats, and reads the others'. An owner trusts its shards for the lease time, less a margin,
//! from the beginning of its own last heartbeat that stands; who wants them must have watched that heartbeat stand still
//! for the whole lease time, and fence it. Whoever has more than a fair share, or goes, hands shards over directly.
//!
//! Nothing here keeps machines whole: conditional commits do. This keeps timers to one, and steps from being done twice.

mod address;
mod forward;
mod heart;
mod membership;
mod others;
mod share;
mod thread;
mod view;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, random_bytes, random_unit};
use crate::engine::{Engine, Shards};
use crate::machine::Shard;
use crate::storage::leases::InstanceId;
use crate::storage::{Leases, Storage, StorageError};
use crate::telemetry::{Metrics, metrics as names};
use crate::woody::Client;
use membership::Membership;
use view::View;

pub use address::own_address;
pub use forward::{FORWARDED, NOT_OWNER, Place, Purpose};
pub use thread::LeaseThread;

/// Heartbeats that an instance puts in a lease time, and how often it looks at the others'.
pub const BEATS_IN_A_LEASE: i64 = 5;

/// Jitter of everything that all instances do again and again: this part of the time, both ways.
const JITTER: f64 = 0.1;

#[derive(Debug)]
pub struct ClusterOptions {
    /// `host:port` at which the others reach this instance.
    pub address: String,
    /// How long an instance is alive after its last heartbeat.
    pub lease_time: Duration,
    /// How long a shard's running steps may hold up its hand-over.
    pub release_time: Duration,
    /// Where the leases are kept. None: beside everything else.
    pub thread: Option<LeaseThread>,
}

/// This instance among the others.
pub struct Cluster {
    storage: Arc<dyn Storage>,
    shards: Arc<Shards>,
    engine: Arc<Engine>,
    clock: Clock,
    client: Client,
    metrics: Arc<Metrics>,
    view: View,
    stats: Stats,
    address: String,
    lease_ms: i64,
    /// What is trusted ends so long before the lease time does.
    margin_ms: i64,
    /// Between two heartbeats, and between two looks at the others'.
    tick_ms: i64,
    /// Between two of either at the least.
    gap_ms: i64,
    release_ms: i64,
    /// Whether this instance's heartbeat stands, under its present id.
    beating: watch::Sender<bool>,
    /// The last heartbeat could not be put.
    cut_off: AtomicBool,
    /// There is something that the others should hear of before the next heartbeat's time.
    news: Notify,
    /// Looks at the owners that were asked for, and how many of those have been answered.
    asked: watch::Sender<u64>,
    answered: watch::Sender<u64>,
    leaving: CancellationToken,
    /// Nothing more can be handed over.
    left: CancellationToken,
    /// No heartbeat goes out any more.
    stilled: CancellationToken,
    ended: CancellationToken,
    running: Mutex<Option<Running>>,
    /// Where everything else runs.
    home: Handle,
    thread: Option<LeaseThread>,
}

struct Running {
    membership: JoinHandle<()>,
    heart: JoinHandle<Option<(InstanceId, u64)>>,
}

#[derive(Debug)]
struct Stats {
    /// Shards' entries changed by this instance.
    changes: AtomicU64,
    takeovers: AtomicU64,
    hand_overs: AtomicU64,
    fenced: AtomicU64,
    /// Instances that are there to stay, this one included.
    live: AtomicU64,
    /// When the last heartbeat that stands was put, in monotonic milliseconds.
    stood: AtomicI64,
    joined: AtomicBool,
}

/// How this instance stands, for those who watch it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Standing {
    pub instance: String,
    pub address: String,
    pub owned: usize,
    pub total: u16,
    /// The owned shards: numbers, and ranges of them.
    pub shards: Vec<String>,
    pub live_instances: u64,
    /// Since the last heartbeat that stands; none: there is none.
    pub lease_age_ms: Option<i64>,
    /// Whether the leases hold: without that, no steps are taken here.
    pub trusted: bool,
}

// === impl Cluster ===

impl Cluster {
    /// Joins the others: takes shards as soon as its first heartbeat stands. None: the storage is not shared.
    pub fn join(
        storage: Arc<dyn Storage>,
        shards: Arc<Shards>,
        engine: Arc<Engine>,
        client: Client,
        metrics: Arc<Metrics>,
        options: ClusterOptions,
    ) -> Option<Arc<Self>> {
        storage.leases()?;
        let milliseconds = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
        let lease_ms = milliseconds(options.lease_time).max(5);
        let cluster = Arc::new(Self {
            view: View::new(new_instance(), shards.count()),
            stats: Stats::new(),
            clock: engine.clock().clone(),
            storage,
            shards,
            engine,
            client,
            metrics,
            address: options.address,
            lease_ms,
            margin_ms: lease_ms / 5,
            tick_ms: lease_ms / BEATS_IN_A_LEASE,
            gap_ms: (lease_ms / 50).clamp(1, 200),
            release_ms: milliseconds(options.release_time),
            beating: watch::Sender::new(false),
            cut_off: AtomicBool::new(false),
            news: Notify::new(),
            asked: watch::Sender::new(0),
            answered: watch::Sender::new(0),
            leaving: CancellationToken::new(),
            left: CancellationToken::new(),
            stilled: CancellationToken::new(),
            ended: CancellationToken::new(),
            running: Mutex::new(None),
            home: Handle::current(),
            thread: options.thread,
        });
        cluster.show();
        tracing::info!(instance = %cluster.view.me(), address = cluster.address, "joining the instances on this storage");
        let running = Running {
            membership: cluster.lease_runtime().spawn(Membership::new(cluster.clone()).keep()),
            heart: cluster.lease_runtime().spawn(cluster.clone().keep_beating()),
        };
        *cluster.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Some(cluster)
    }

    /// Whether this instance has been among the others: its heartbeat stood, and it has read the owners.
    pub fn has_joined(&self) -> bool {
        self.stats.joined.load(Ordering::Acquire)
    }

    /// Hands all shards over to those who stay. Requests for them are passed on from then on. Returns when nothing more
    /// can be handed over, after the lease time and the release time at the latest.
    pub async fn leave(&self) {
        self.leaving.cancel();
        self.news.notify_one();
        let until = self.clock.monotonic().saturating_add(self.lease_ms).saturating_add(self.release_ms);
        tokio::select! {
            () = self.left.cancelled() => {}
            () = self.clock.sleep_until_monotonic(until) => {}
        }
        let left = self.shards.owned().len();
        tracing::info!(left, "shards were handed over; those that are left go to whoever takes them");
    }

    /// Returns if what keeps the leases ends without being told to: what it was. The service must stop and be restarted: half
    /// of it alone would renew leases of shards that nobody gives away, or refuse its own steps for ever. A leave ends it too.
    pub async fn failure(&self) -> &'static str {
        tokio::select! {
            () = self.stilled.cancelled() => "the heartbeat",
            () = self.left.cancelled() => "the look at the other instances",
        }
    }

    /// Returns when the others have looked, and know that nothing is owned here any more. Until then they pass requests on
    /// to here: each is refused and finds its owner, but what became of one whose connection is closed under it nobody
    /// would know.
    pub async fn noticed(&self) {
        if self.stats.live.load(Ordering::Relaxed) > 1 {
            let longest = (self.tick_ms as f64 * (1.0 + JITTER)) as i64;
            self.clock.sleep_until_monotonic(self.clock.monotonic().saturating_add(longest)).await;
        }
    }

    /// Ends this instance's lease: its heartbeat goes, and whatever it still owns is free. Nothing may run any more.
    pub async fn end(self: &Arc<Self>) {
        self.ended.cancel();
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { membership, heart }) = running else { return };
        // It may be waiting for a storage that never answers.
        membership.abort();
        let _ = membership.await;
        if let Ok(Some((instance, beat))) = heart.await {
            self.shards.trust_until(i64::MIN);
            // Where the connections are that heartbeats went out on.
            let cluster = self.clone();
            let fence = async move { cluster.soon(cluster.leases().fence(instance, beat)).await };
            if let Ok(Err(error)) = self.lease_runtime().spawn(fence).await {
                tracing::warn!(error.reason = %error, "the heartbeat stays behind, until the others have seen it stand still");
            }
        }
    }

    pub fn standing(&self) -> Standing {
        let owned = self.shards.owned();
        Standing {
            instance: self.view.me().to_string(),
            address: self.address.clone(),
            owned: owned.len(),
            total: self.shards.count(),
            shards: ranges(&owned),
            live_instances: self.stats.live.load(Ordering::Relaxed),
            lease_age_ms: self.lease_age_ms(),
            trusted: self.shards.is_trusted(),
        }
    }

    /// Lets the engine forget the machines of shards that were lost; nobody waits for that.
    fn drop_machines(&self, lost: Vec<Shard>) {
        let engine = self.engine.clone();
        self.home.spawn(async move { engine.drop_lost(&lost).await });
    }

    fn lease_runtime(&self) -> &Handle {
        self.thread.as_ref().map_or(&self.home, |thread| &thread.runtime)
    }

    fn lease_age_ms(&self) -> Option<i64> {
        let stood = self.stats.stood.load(Ordering::Acquire);
        (stood != i64::MIN).then(|| self.clock.monotonic() - stood)
    }

    fn leases(&self) -> &dyn Leases {
        // Looked at when this was made; no storage changes its mind.
        self.storage.leases().expect("a storage with leases")
    }

    fn jittered(&self, ms: i64) -> i64 {
        (ms as f64 * (1.0 - JITTER + 2.0 * JITTER * random_unit())) as i64
    }

    /// Not the same for all who saw the same.
    fn gap(&self) -> i64 {
        self.jittered(self.gap_ms).max(1)
    }

    /// A request about leases: one that hangs is given up long before the lease time is.
    async fn soon<T>(&self, work: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
        let until = self.clock.monotonic().saturating_add(self.tick_ms);
        tokio::select! {
            biased;
            done = work => done,
            () = self.clock.sleep_until_monotonic(until) => {
                Err(StorageError::Unavailable(format!("no answer within {} ms", self.tick_ms)))
            }
        }
    }

    fn show(self: &Arc<Self>) {
        let watch = |watched, read: fn(&Self) -> u64| {
            // Weak: the metrics outlive nothing for its sake.
            let cluster = Arc::downgrade(self);
            self.metrics.watch(watched, move || cluster.upgrade().map_or(0, |cluster| read(&cluster)));
        };
        watch(names::SHARDS_OWNED, |it| it.shards.owned().len() as u64);
        watch(names::LIVE_INSTANCES, |it| it.stats.live.load(Ordering::Relaxed));
        watch(names::LEASE_AGE_MS, |it| it.lease_age_ms().and_then(|age| u64::try_from(age).ok()).unwrap_or(0));
        watch(names::SHARD_TAKEOVERS, |it| it.stats.takeovers.load(Ordering::Relaxed));
        watch(names::SHARD_HAND_OVERS, |it| it.stats.hand_overs.load(Ordering::Relaxed));
        watch(names::FENCED, |it| it.stats.fenced.load(Ordering::Relaxed));
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cluster").field(&self.standing()).finish()
    }
}

fn new_instance() -> InstanceId {
    InstanceId(random_bytes())
}

/// `1, 2, 3, 7` as `1-3, 7`.
fn ranges(shards: &[Shard]) -> Vec<String> {
    let ranges = shards.chunk_by(|one, next| one.checked_add(1) == Some(*next));
    let text = |range: &[Shard]| match range {
        [first, .., last] => format!("{first}-{last}"),
        [only] => only.to_string(),
        [] => String::new(),
    };
    ranges.map(text).collect()
}

// === impl Stats ===

impl Stats {
    fn new() -> Self {
        Self {
            changes: AtomicU64::new(0),
            takeovers: AtomicU64::new(0),
            hand_overs: AtomicU64::new(0),
            fenced: AtomicU64::new(0),
            live: AtomicU64::new(1),
            stood: AtomicI64::new(i64::MIN),
            joined: AtomicBool::new(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn shards_that_follow_each_other_are_shown_as_one_range() {
        assert_eq!(ranges(&[]), Vec::<String>::new());
        assert_eq!(ranges(&[0, 1, 2, 7, 9, 10, 65535]), ["0-2", "7", "9-10", "65535"]);
    }
}
