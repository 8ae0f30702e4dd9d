//! The heartbeat of this instance, which its leases hang on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::JoinHandle;

use super::{Cluster, new_instance};
use crate::storage::leases::{Heartbeat, InstanceId};

/// A heartbeat that was put, and whose answer is not known to have come.
struct UnderWay {
    heartbeat: Heartbeat,
    /// When it was first put: others may have seen it since.
    began: i64,
}

/// A turn of the runtime on which everything else runs, that was asked for.
struct Turn {
    asked: i64,
    taken: JoinHandle<()>,
}

// === impl Cluster: the heart ===

impl Cluster {
    /// Puts heartbeats until it is told to stop. Returns the last one that stands.
    pub(super) async fn keep_beating(self: Arc<Self>) -> Option<(InstanceId, u64)> {
        let mut standing: Option<(InstanceId, u64)> = None;
        let mut under_way: Option<UnderWay> = None;
        // However it ends.
        let _stilled = self.stilled.clone().drop_guard();
        let mut turn = self.ask_for_a_turn();
        while !self.ended.is_cancelled() {
            if turn.taken.is_finished() {
                turn = self.ask_for_a_turn();
            } else if self.clock.monotonic() - turn.asked >= self.lease_ms {
                // Leases that outlive the work they are for would keep it from everybody. Whoever waits for a beat to be
                // settled can wait for longer.
                self.wait_for_a_turn(&mut turn).await;
                continue;
            }
            let again = under_way.is_some();
            let put = under_way.take().unwrap_or_else(|| self.next_beat(standing));
            let answer = self.soon(self.leases().beat(&put.heartbeat)).await;
            let pause = match answer {
                Ok(true) => {
                    standing = Some((put.heartbeat.instance, put.heartbeat.beat));
                    self.beat_stands(put.began);
                    // What was put again says little of now: the next one does.
                    if again { 0 } else { self.jittered(self.tick_ms) }
                }
                Ok(false) => {
                    standing = None;
                    self.fenced();
                    0
                }
                // INVARIANT: the same beat is put again until the answer is definite. What is trusted counts from the
                // first time, for that is what others may count from.
                Err(error) => {
                    if !self.cut_off.swap(true, Ordering::AcqRel) {
                        tracing::warn!(error.reason = %error, "the heartbeat can't be put; it is tried again");
                    }
                    under_way = Some(put);
                    self.jittered(self.tick_ms / 4)
                }
            };
            let from = self.clock.monotonic();
            tokio::select! {
                () = self.clock.sleep_until_monotonic(from + pause) => {}
                // News for the others, but not one heartbeat each.
                () = self.news.notified(), if under_way.is_none() => {
                    self.clock.sleep_until_monotonic(from + self.gap().min(pause)).await;
                }
                () = self.ended.cancelled() => {}
            }
        }
        standing
    }

    fn ask_for_a_turn(&self) -> Turn {
        Turn { asked: self.clock.monotonic(), taken: self.home.spawn(async {}) }
    }

    /// Without a heartbeat: what is trusted ends by itself.
    async fn wait_for_a_turn(&self, turn: &mut Turn) {
        tracing::error!(
            lease_ms = self.lease_ms,
            "nothing has run for a whole lease time: no heartbeat goes out until it does"
        );
        tokio::select! {
            _ = &mut turn.taken => tracing::warn!("the service runs again"),
            () = self.ended.cancelled() => {}
        }
    }

    fn next_beat(&self, standing: Option<(InstanceId, u64)>) -> UnderWay {
        let began = self.clock.monotonic();
        let instance = self.view.me();
        // INVARIANT: the number of changes is read before the heartbeat goes out, so that it tells of no change too few.
        let heartbeat = Heartbeat {
            instance,
            beat: standing.filter(|(of, _)| *of == instance).map_or(1, |(_, beat)| beat + 1),
            changes: self.stats.changes.load(Ordering::Acquire),
            address: self.address.clone(),
            leaving: self.leaving.is_cancelled(),
        };
        UnderWay { heartbeat, began }
    }

    fn beat_stands(&self, began: i64) {
        self.shards.trust_until(began + self.lease_ms - self.margin_ms);
        self.stats.stood.store(began, Ordering::Release);
        if self.cut_off.swap(false, Ordering::AcqRel) {
            tracing::info!("the heartbeat stands again");
        }
        self.beating.send_if_modified(|beating| !std::mem::replace(beating, true));
        self.view.touch();
    }

    /// Another has declared this instance dead, and may have its shards by now. It begins again as a new one.
    fn fenced(&self) {
        let (before, lost) = {
            let mut known = self.view.known();
            // IMPORTANT: under the lock, so that no shard is taken in the old name after this.
            let lost = self.shards.lose_all();
            (std::mem::replace(&mut known.me, new_instance()), lost)
        };
        self.stats.fenced.fetch_add(1, Ordering::Relaxed);
        self.stats.stood.store(i64::MIN, Ordering::Release);
        self.beating.send_replace(false);
        tracing::error!(instance = %before, now = %self.view.me(), lost = lost.len(), "declared dead by another instance");
        self.drop_machines(lost);
        self.view.touch();
    }
}
