//! The loaded machines of a namespace: which worker owns which.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::cache::Cached;
use super::patience::Store;
use super::worker::Message;
use crate::machine::MachineId;

/// Locks are held only for a look-up and a push; many of them keep the cores apart.
const SHARDS: usize = 64;

#[derive(Debug)]
pub(super) struct Registry {
    shards: Vec<Mutex<HashMap<MachineId, Handle>>>,
    hasher: RandomState,
    queue_limit: usize,
}

/// What the worker shares with those who pass its queue by. None until it is loaded, and after it let go.
pub(super) type Cell = Arc<Mutex<Option<Cached>>>;

#[derive(Debug)]
struct Handle {
    queue: mpsc::Sender<Message>,
    cell: Cell,
    store: Store,
}

/// What a new worker gets.
pub(super) struct Seat {
    pub(super) queue: mpsc::Receiver<Message>,
    pub(super) cell: Cell,
    pub(super) store: Store,
}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    QueueFull,
    NotAdmitted,
}

// === impl Registry ===

impl Registry {
    pub(super) fn new(queue_limit: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new(), queue_limit }
    }

    fn shard(&self, id: &MachineId) -> MutexGuard<'_, HashMap<MachineId, Handle>> {
        let place = self.hasher.hash_one(id) as usize % SHARDS;
        self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message for the machine's worker; `waiting` is told how many wait there already. If there is none, `admit` says whether one may be started now, and
    /// `start` starts it.
    ///
    /// INVARIANT: queueing and unloading exclude each other, so no message is ever left in a queue without a worker.
    pub(super) fn send<P>(
        &self,
        id: &MachineId,
        message: Message,
        waiting: impl FnOnce(usize),
        admit: impl FnOnce() -> Option<P>,
        start: impl FnOnce(Seat, P),
    ) -> Result<(), Rejected> {
        let mut shard = self.shard(id);
        let message = match shard.get(id) {
            None => message,
            Some(handle) => match handle.queue.try_send(message) {
                Ok(()) => {
                    // Itself not.
                    let length = handle.queue.max_capacity() - handle.queue.capacity();
                    drop(shard);
                    waiting(length.saturating_sub(1));
                    return Ok(());
                }
                Err(mpsc::error::TrySendError::Full(_)) => return Err(Rejected::QueueFull),
                // Its worker panicked: another takes its place.
                Err(mpsc::error::TrySendError::Closed(message)) => message,
            },
        };
        let permit = admit().ok_or(Rejected::NotAdmitted)?;
        let (queue, receiver) = mpsc::channel(self.queue_limit);
        // The queue is new, and holds at least one.
        queue.try_send(message).map_err(|_| Rejected::QueueFull)?;
        let (cell, store) = (Cell::default(), Store::default());
        let key = MachineId::new(Bytes::copy_from_slice(id.as_bytes())).unwrap_or_else(|_| id.clone());
        shard.insert(key, Handle { queue, cell: cell.clone(), store: store.clone() });
        start(Seat { queue: receiver, cell, store }, permit);
        Ok(())
    }

    /// Tells a loaded machine's worker something, or nobody.
    pub(super) fn tell(&self, id: &MachineId, message: Message) {
        if let Some(handle) = self.shard(id).get(id) {
            // A full queue is busy enough: what is told here is only advice.
            let _ = handle.queue.try_send(message);
        }
    }

    /// Whether a machine waits for the store.
    pub(super) fn awaits_store(&self, id: &MachineId) -> bool {
        self.shard(id).get(id).is_some_and(|handle| handle.store.is_awaited())
    }

    /// The cell of a loaded machine.
    pub(super) fn cell(&self, id: &MachineId) -> Option<Cell> {
        self.shard(id).get(id).map(|handle| handle.cell.clone())
    }

    /// The queues of the loaded machines that are `wanted`.
    pub(super) fn queues(&self, wanted: impl Fn(&MachineId) -> bool) -> Vec<mpsc::Sender<Message>> {
        let mut queues = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            queues.extend(shard.iter().filter(|(id, _)| wanted(id)).map(|(_, handle)| handle.queue.clone()));
        }
        queues
    }

    /// A worker dies: what waits in its queue is dropped with it, and the next message starts another. `leaving` runs before
    /// that can be.
    ///
    /// INVARIANT: asked while its queue is open, or the one that is let go here could be another's.
    pub(super) fn abandon(&self, id: &MachineId, leaving: impl FnOnce()) {
        let mut shard = self.shard(id);
        leaving();
        shard.remove(id);
    }

    /// Lets a worker go if nothing waits for it. `leaving` runs before another can take its place.
    pub(super) fn leave(&self, id: &MachineId, queue: &mpsc::Receiver<Message>, leaving: impl FnOnce()) -> bool {
        let mut shard = self.shard(id);
        let idle = queue.is_empty();
        if idle {
            leaving();
            shard.remove(id);
        }
        idle
    }
}
