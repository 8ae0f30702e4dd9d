//! What this instance knows of who owns which shard, for those who have a request to pass on.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::machine::Shard;
use crate::storage::leases::{InstanceId, Owner};

#[derive(Debug)]
pub(super) struct View {
    known: Mutex<Known>,
    /// Moves whenever `known` has changed.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
pub(super) struct Known {
    /// This instance.
    pub(super) me: InstanceId,
    /// By shard: its entry, if it ever had an owner.
    pub(super) owners: Vec<Option<Owner>>,
    /// Of the others whose heartbeats stand.
    pub(super) addresses: HashMap<InstanceId, String>,
}

/// Whose a shard is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Mine,
    Theirs(Theirs),
    /// As far as this instance knows.
    Nobodys,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Theirs {
    pub(super) instance: InstanceId,
    pub(super) epoch: u64,
    pub(super) address: String,
}

// === impl View ===

impl View {
    pub(super) fn new(me: InstanceId, shards: u16) -> Self {
        let known = Known { me, owners: vec![None; usize::from(shards)], addresses: HashMap::new() };
        Self { known: Mutex::new(known), changed: watch::Sender::new(0) }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is of one field.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn me(&self) -> InstanceId {
        self.known().me
    }

    pub(super) fn whose(&self, shard: Shard) -> Whose {
        let known = self.known();
        let owner = known.owners.get(usize::from(shard)).copied().flatten();
        let Some((instance, epoch)) = owner.and_then(|owner| Some((owner.instance?, owner.epoch))) else {
            return Whose::Nobodys;
        };
        if instance == known.me {
            return Whose::Mine;
        }
        match known.addresses.get(&instance) {
            Some(address) => Whose::Theirs(Theirs { instance, epoch, address: address.clone() }),
            None => Whose::Nobodys,
        }
    }

    /// Tells those who wait that something is known anew.
    pub(super) fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Sees all changes from here on.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
