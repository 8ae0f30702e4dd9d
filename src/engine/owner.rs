//! What it means to an engine that it owns only some of the shards.
//!
//! Policy: steps are taken, notifications accepted and dues worked off by the owner of a machine's shard alone. It saves
//! work, and keeps timers to one instance. It does not keep machines whole, and nothing here relies on it being true:
//! two instances that both believe to own a shard meet in conflicts, and an answer that no commit precedes is checked.
//!
//! A process that is alone on its storage pays for none of this.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::error::EngineError;
use super::namespace::NamespaceEngine;
use super::shards::{Shards, Tenure};
use super::worker::{Message, Worker};
use super::{Engine, Shared};
use crate::machine::{MachineId, MachineKey, Record, Shard};
use crate::telemetry::metrics::Stored;

/// What a worker knows of its machine's shard.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    shard: Shard,
    /// Under which what the worker holds was read. None at first, and always where there are no shards.
    tenure: Option<Tenure>,
    /// What is held was read within this turn, so it needs no other look.
    fresh: bool,
    /// The worker was told to leave. Those who told it wait until these are dropped.
    released: Vec<TaskTrackerToken>,
    /// Until this is cancelled nobody else has the shard. None: somebody may have it already.
    given: Option<CancellationToken>,
}

/// Shards that nobody else has until this is dropped.
struct Given {
    shards: Arc<Shards>,
    given: Vec<Shard>,
    until: CancellationToken,
}

/// A machine's shard, and the tenure under which what the machine owes was read.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    shards: Arc<Shards>,
    shard: Shard,
    tenure: Tenure,
}

// === impl Ownership ===

impl Ownership {
    pub(super) fn new(namespace: &NamespaceEngine, key: &MachineKey) -> Self {
        let shard = namespace.shared.shards.as_ref().map_or(0, |shards| shards.of(key));
        Self { shard, ..Self::default() }
    }

    /// What is held was just read from storage.
    pub(super) fn read(&mut self) {
        self.fresh = true;
    }

    pub(super) fn release(&mut self, told: TaskTrackerToken, given: Option<CancellationToken>) {
        self.released.push(told);
        self.given = given;
    }

    pub(super) fn is_released(&self) -> bool {
        !self.released.is_empty()
    }
}

// === impl Given ===

impl Drop for Given {
    fn drop(&mut self) {
        self.given.iter().for_each(|shard| self.shards.lose_given(*shard));
        self.until.cancel();
    }
}

// === impl Claim ===

impl Claim {
    /// Whether nobody else can be sending what the machine owes, now or in this time.
    pub(super) fn stands_for(&self, time: Duration) -> bool {
        let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        self.shards.is_undisputed(self.shard, self.tenure, ms)
    }
}

// === impl Shared ===

impl Shared {
    fn tenure(&self, shard: impl FnOnce(&Shards) -> Shard) -> Result<Option<Tenure>, EngineError> {
        match &self.shards {
            None => Ok(None),
            Some(shards) => shards.tenure(shard(shards)).map(Some).ok_or(EngineError::NotOwner),
        }
    }
}

// === impl NamespaceEngine: what is owned ===

impl NamespaceEngine {
    /// The one place that refuses what is another instance's to do.
    pub(super) fn check_owned(&self, id: &MachineId) -> Result<Option<Tenure>, EngineError> {
        self.shared.tenure(|shards| shards.of(&self.key(id.clone())))
    }

    pub(super) fn owns(&self, id: &MachineId) -> bool {
        self.check_owned(id).is_ok()
    }
}

// === impl Worker: what is owned ===

impl Worker {
    /// Before a step: whether it may be taken here. What was read under another tenure is forgotten.
    pub(super) fn enter(&mut self) -> bool {
        let Ok(tenure) = self.tenure() else { return false };
        if tenure != self.ownership.tenure {
            self.forget();
            self.ownership.tenure = tenure;
            // Deliveries that wait are of what was owed under the other: they end, and what is owed now is sent.
            self.outbox.hurry(|_| true);
            // Its wake-ups may have been dropped meanwhile.
            self.scheduled = None;
        }
        self.ownership.fresh = false;
        true
    }

    pub(super) fn is_owned(&self) -> bool {
        self.tenure().is_ok()
    }

    fn tenure(&self) -> Result<Option<Tenure>, EngineError> {
        self.shared().tenure(|_| self.ownership.shard)
    }

    /// Whether the machine is owned, and under the tenure under which what is held was read: only that says what is owed.
    pub(super) fn is_current(&self) -> bool {
        self.tenure().is_ok_and(|tenure| tenure == self.ownership.tenure)
    }

    /// None where there are no shards, and nobody else ever sends anything.
    pub(super) fn claim(&self) -> Option<Claim> {
        let (shards, tenure) = (self.shared().shards.clone()?, self.ownership.tenure?);
        Some(Claim { shards, shard: self.ownership.shard, tenure })
    }

    /// Whether `record`, which is held, is what stands, or did at some time in this turn.
    pub(super) async fn is_certain(&self, record: Option<&Arc<Record>>) -> Result<bool, EngineError> {
        if self.ownership.fresh { Ok(true) } else { self.stands(record).await }
    }

    /// Whether `record` is what stands now. Nobody else writes where this process is alone.
    pub(super) async fn stands(&self, record: Option<&Arc<Record>>) -> Result<bool, EngineError> {
        if self.shared().shards.is_none() {
            return Ok(true);
        }
        let standing = self.shared().storage.standing(&self.key);
        let standing = self.stored(Stored::GetMachine, standing).await?;
        Ok(standing == record.map(|record| record.commit))
    }

    /// Leaves, once nothing waits. Of a machine that is given away, deliveries have one more attempt, and what sinks have
    /// acknowledged is noted. Of one that was lost, they are given up: another may be sending the same, and more, so
    /// whatever came from here would come behind it. True: it has left.
    pub(super) async fn hand_over(&mut self) -> bool {
        let given = self.ownership.given.clone();
        if let Some(given) = &given {
            self.outbox.hurry(|_| true);
            while !self.is_owned() && !self.outbox.is_idle() {
                let sent = tokio::select! {
                    biased;
                    sent = self.outbox.next() => sent,
                    () = given.cancelled() => break,
                };
                // It is tried no more: the next owner sends what is left.
                let _ = self.sent(sent).await;
            }
        }
        if self.is_owned() {
            // Taken again meanwhile: it may stay.
            self.ownership.released.clear();
            self.ownership.given = None;
            return false;
        }
        if given.is_some() {
            self.note().await;
        }
        self.forget();
        self.leave()
    }
}

// === impl Engine: handing over ===

impl Engine {
    /// Lets go of the machines of these shards, which must be given already ([`Shards::give`]), so that nothing new
    /// begins. What runs goes on to its end, what waits is answered by [`EngineError::NotOwner`]; returns when all of them
    /// have left memory. That takes as long as the longest step: the caller bounds it. Once this has ended, or is dropped,
    /// they are lost.
    pub async fn release(&self, shards: &[Shard]) {
        let Some(all) = self.shared.shards.clone() else { return };
        let until = CancellationToken::new();
        let _given = Given { shards: all, given: shards.to_vec(), until: until.clone() };
        self.let_go(shards, Some(until)).await;
    }

    /// As [`Engine::release`] of shards that are lost already: nothing more is sent for their machines.
    pub async fn drop_lost(&self, shards: &[Shard]) {
        self.let_go(shards, None).await;
    }

    async fn let_go(&self, shards: &[Shard], given: Option<CancellationToken>) {
        let Some(all) = &self.shared.shards else { return };
        let mut wanted = vec![false; usize::from(all.count())];
        for shard in shards {
            if let Some(wanted) = wanted.get_mut(usize::from(*shard)) {
                *wanted = true;
            }
        }
        let leaving = TaskTracker::new();
        for namespace in self.namespaces.values() {
            let is_wanted = |id: &MachineId| wanted[usize::from(all.of(&namespace.key(id.clone())))];
            for queue in namespace.registry().queues(is_wanted) {
                let (told, given) = (leaving.token(), given.clone());
                // A full queue has room in a moment: it is all refused.
                leaving.spawn(async move { queue.send(Message::Release(told, given)).await });
            }
        }
        leaving.close();
        leaving.wait().await;
    }
}
