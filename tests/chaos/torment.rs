//! What befalls the instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use machinegun::clock::Clock;
use tokio::sync::Semaphore;

use super::cluster::Cluster;
use crate::crash::dice::Dice;

/// How often what befell them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blows {
    pub kills: u64,
    pub stops: u64,
    pub freezes: u64,
    pub storms: u64,
    pub cuts: u64,
}

/// Instances that may be dead, stopping or frozen at once: one always goes on, though maybe in a storm.
const DOWN_AT_ONCE: usize = 2;

/// Torments an instance until it is told to stop. Leaves it running, in good weather.
pub async fn torment(
    cluster: Arc<Cluster>,
    which: usize,
    mut dice: Dice,
    lease_ms: u64,
    down: Arc<Semaphore>,
    enough: Arc<AtomicBool>,
) -> Blows {
    let (clock, instance) = (Clock::system(), &cluster.instances[which]);
    let wait = async |milliseconds: u64| clock.sleep_until(clock.now() + milliseconds as i64).await;
    let mut blows = Blows::default();
    while !enough.load(Ordering::SeqCst) {
        wait(200 + dice.below(lease_ms)).await;
        match dice.below(10) {
            0..2 => {
                let _down = down.acquire().await.expect("it is never closed");
                instance.kill().await;
                wait(dice.below(lease_ms * 3 / 2)).await;
                instance.begin().await;
                blows.kills += 1;
            }
            2..4 => {
                let _down = down.acquire().await.expect("it is never closed");
                instance.stop().await;
                wait(dice.below(lease_ms)).await;
                instance.begin().await;
                blows.stops += 1;
            }
            4..6 => {
                let _down = down.acquire().await.expect("it is never closed");
                instance.freeze((lease_ms / 4 + dice.below(lease_ms * 7 / 4)) as i64).await;
                blows.freezes += 1;
            }
            6..9 => {
                instance.storm.rough(true);
                wait(lease_ms / 2 + dice.below(lease_ms)).await;
                instance.storm.rough(false);
                blows.storms += 1;
            }
            _ => {
                instance.storm.cut(true);
                wait(lease_ms / 4 + dice.below(lease_ms * 3 / 2)).await;
                instance.storm.cut(false);
                blows.cuts += 1;
            }
        }
    }
    blows
}

/// A bound on what is down at once.
pub fn some_go_on() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(DOWN_AT_ONCE))
}

impl std::ops::Add for Blows {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            kills: self.kills + other.kills,
            stops: self.stops + other.stops,
            freezes: self.freezes + other.freezes,
            storms: self.storms + other.storms,
            cuts: self.cuts + other.cuts,
        }
    }
}
