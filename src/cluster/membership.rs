//! Which shards this instance owns: it takes what is free, what the dead have left, and gives away what is too much.
//!
//! One task does all of it, one thing after the other, so that what was read is never older than what was written since.
//! Only hand-overs go on beside it; their shards are left alone meanwhile.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::Cluster;
use super::others::{Look, Others};
use super::share::{self, Heir};
use crate::clock::random_unit;
use crate::machine::Shard;
use crate::storage::StorageError;
use crate::storage::leases::{InstanceId, Owner};

/// Shards being taken at once.
const TAKEN_AT_ONCE: usize = 32;

/// Shards that are handed over together: each time all loaded machines are looked through for theirs, but the longest of
/// their steps holds up all of them.
const TOGETHER: usize = 8;
const HAND_OVERS_AT_ONCE: usize = 4;

/// How often an entry is put again before it is left for the next look.
const TRIES: usize = 3;

/// What became of an entry that was put.
type Assigned = (Owner, Result<bool, StorageError>);

/// How far shards on their way to another instance have come.
enum Passed {
    /// Nothing of them runs here any more, or what does has had its time. Their entries still name this instance.
    Released(Vec<Owner>),
    Put(Vec<Assigned>),
}

pub(super) struct Membership {
    cluster: Arc<Cluster>,
    others: Others,
    /// When the owners were last read.
    owners_read: Option<i64>,
    /// The last look found something new.
    moving: bool,
    /// The last look was so quick, and all whom it saw so lively, that what it found still holds.
    calm: bool,
    /// An entry was not what it was thought to be: the owners are read again.
    outdated: bool,
    /// Entries that were put and may or may not stand. They are put again until that is known.
    unsettled: BTreeMap<Shard, Owner>,
    /// Shards on their way to another instance, and to whom.
    leaving: HashMap<Shard, InstanceId>,
    hand_overs: JoinSet<Passed>,
}

// === impl Membership ===

impl Membership {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self {
            others: Others::new(cluster.lease_ms),
            cluster,
            owners_read: None,
            moving: false,
            calm: false,
            outdated: false,
            unsettled: BTreeMap::new(),
            leaving: HashMap::new(),
            hand_overs: JoinSet::new(),
        }
    }

    /// Runs until it is told to leave, and has handed over what it could.
    pub(super) async fn keep(mut self) {
        let cluster = self.cluster.clone();
        // However it ends.
        let _left = cluster.left.clone().drop_guard();
        let mut asked = cluster.asked.subscribe();
        let mut beating = cluster.beating.subscribe();
        loop {
            let ticket = *asked.borrow_and_update();
            // Nothing is done in the name of an instance whose heartbeat never stood.
            let mut failed = false;
            if *beating.borrow_and_update() {
                let demanded = ticket > *cluster.answered.borrow();
                match self.look(demanded).await {
                    Ok(()) => self.balance().await,
                    Err(error) => {
                        failed = true;
                        tracing::warn!(error.reason = %error, "the instances and owners can't be read; it is tried again");
                        // To those who were there a moment ago.
                        if cluster.leaving.is_cancelled() {
                            self.hand_over();
                        }
                    }
                }
            }
            cluster.answered.send_replace(ticket);
            cluster.view.touch();
            if self.has_left() {
                return;
            }
            let from = cluster.clock.monotonic();
            let pause = match () {
                () if self.outdated || !self.unsettled.is_empty() => cluster.gap(),
                // A watch over the others that breaks off begins anew, and costs a lease time more.
                () if failed => cluster.jittered(cluster.tick_ms / 4),
                // What moves goes on moving: shards come one after the other.
                () if self.moving => cluster.jittered(cluster.tick_ms / 5),
                () => cluster.jittered(cluster.tick_ms),
            };
            let death = self.others.next_death().map_or(i64::MAX, |death| death - from);
            let pause = pause.min(death.max(cluster.gap()));
            let next = cluster.clock.sleep_until_monotonic(from + pause);
            tokio::pin!(next);
            loop {
                tokio::select! {
                    biased;
                    Some(done) = self.hand_overs.join_next() => {
                        self.handed_over(done);
                        self.hand_over();
                        if self.has_left() {
                            return;
                        }
                    }
                    () = &mut next => break,
                    _ = asked.changed() => {
                        cluster.clock.sleep_until_monotonic(from + cluster.gap().min(pause)).await;
                        break;
                    }
                    _ = beating.changed() => break,
                    () = cluster.leaving.cancelled(), if !self.is_leaving_known() => break,
                    () = cluster.ended.cancelled() => return,
                }
            }
        }
    }

    /// Whether there is nothing left that could be handed over.
    fn has_left(&self) -> bool {
        let owned = || self.cluster.shards.owned().len();
        self.cluster.leaving.is_cancelled()
            && self.hand_overs.is_empty()
            && (owned() == 0 || self.others.lively().next().is_none() || !self.cluster.shards.is_trusted())
    }

    /// Whether what goes on already goes on because of the leave.
    fn is_leaving_known(&self) -> bool {
        self.cluster.leaving.is_cancelled() && !self.hand_overs.is_empty()
    }

    /// Reads the heartbeats, and the owners if that is demanded or something has moved.
    async fn look(&mut self, demanded: bool) -> Result<(), StorageError> {
        self.calm = false;
        let began = self.cluster.clock.monotonic();
        let moved = self.look_at_others().await?;
        let now = self.cluster.clock.monotonic();
        self.moving = moved;
        if moved && self.others.lively_addresses().any(|address| address == self.cluster.address) {
            let address = &self.cluster.address;
            tracing::warn!(address, "another instance has the same address; if it lives, write storage.advertise");
        }
        let stale = self.owners_read.is_none_or(|read| now - read >= self.cluster.lease_ms);
        if moved || demanded || stale || self.outdated {
            // IMPORTANT: the owners first, then the heartbeats: an owner that has none then has lost it. The other way
            // round it could be one that had none yet.
            let owners = self.cluster.soon(self.cluster.leases().owners()).await?;
            self.look_at_others().await?;
            self.note(owners);
            self.owners_read = Some(now);
            self.outdated = false;
        }
        self.calm = self.cluster.clock.monotonic() - began <= self.cluster.tick_ms && self.others.all_lively();
        self.cluster.stats.live.store(self.others.staying() as u64 + 1, Ordering::Relaxed);
        self.cluster.stats.joined.store(true, Ordering::Release);
        Ok(())
    }

    async fn look_at_others(&mut self) -> Result<bool, StorageError> {
        let cluster = &self.cluster;
        let trusted = cluster.shards.is_trusted();
        let began = cluster.clock.monotonic();
        let heartbeats = cluster.soon(cluster.leases().heartbeats()).await?;
        let look = Look { began, ended: cluster.clock.monotonic(), trusted: trusted && cluster.shards.is_trusted() };
        let moved = self.others.see(cluster.view.me(), heartbeats, look);
        let addresses = self.others.addresses().map(|(instance, address)| (instance, address.to_owned())).collect();
        cluster.view.known().addresses = addresses;
        Ok(moved)
    }

    /// The owners as they stand. What was handed to this instance it has from here on, what was taken from it it has not.
    fn note(&mut self, entries: Vec<Owner>) {
        let cluster = &self.cluster;
        let mut entries: HashMap<Shard, Owner> = entries.into_iter().map(|owner| (owner.shard, owner)).collect();
        let owned: HashSet<Shard> = cluster.shards.owned().into_iter().collect();
        let mut known = cluster.view.known();
        let (mut given, mut lost) = (0, Vec::new());
        for shard in 0..cluster.shards.count() {
            // Their entries are in motion by this instance itself.
            if self.leaving.contains_key(&shard) || self.unsettled.contains_key(&shard) {
                continue;
            }
            let entry = entries.remove(&shard);
            let mine = entry.is_some_and(|entry| entry.instance == Some(known.me));
            match (mine, owned.contains(&shard)) {
                (true, false) => {
                    cluster.shards.take(shard);
                    given += 1;
                }
                (false, true) => {
                    cluster.shards.lose(shard);
                    lost.push(shard);
                }
                (true, true) | (false, false) => {}
            }
            known.owners[usize::from(shard)] = entry;
        }
        drop(known);
        if given > 0 {
            tracing::info!(shards = given, "shards were handed to this instance");
        }
        if !lost.is_empty() {
            tracing::warn!(shards = ?lost, "shards were taken from this instance");
            cluster.drop_machines(lost);
        }
    }

    async fn balance(&mut self) {
        if !self.cluster.leaving.is_cancelled() {
            self.fence_the_dead().await;
        }
        self.settle().await;
        if !self.cluster.leaving.is_cancelled() {
            self.take().await;
        }
        self.hand_over();
    }

    async fn fence_the_dead(&mut self) {
        for (instance, beat) in self.others.dead() {
            // Who is not surely alive itself buries nobody.
            if !self.cluster.shards.is_trusted() {
                return;
            }
            match self.cluster.soon(self.cluster.leases().fence(instance, beat)).await {
                Ok(true) => {
                    tracing::warn!(%instance, "an instance has stood still for the whole lease time: it is declared dead");
                    self.others.gone(instance);
                    self.cluster.view.known().addresses.remove(&instance);
                }
                Ok(false) => self.outdated = true,
                Err(error) => {
                    tracing::warn!(%instance, error.reason = %error, "an instance can't be fenced; it is tried again")
                }
            }
        }
    }

    /// Puts again what may or may not stand.
    async fn settle(&mut self) {
        while let Some((shard, owner)) = self.unsettled.first_key_value().map(|(shard, owner)| (*shard, *owner)) {
            match self.cluster.soon(self.cluster.leases().assign(&owner)).await {
                Ok(stands) => {
                    self.unsettled.remove(&shard);
                    self.assigned(owner, stands);
                }
                Err(_) => return,
            }
        }
    }

    /// Takes free shards, up to the fair share.
    async fn take(&mut self) {
        let cluster = self.cluster.clone();
        if !cluster.shards.is_trusted() {
            return;
        }
        let fair = share::fair(cluster.shards.count(), self.others.staying() + 1);
        let (me, free) = {
            let known = cluster.view.known();
            let is_free = |owner: &Owner| owner.instance.is_none_or(|of| of != known.me && !self.others.has(of));
            let free = known.owners.iter().enumerate().filter(|(_, owner)| owner.as_ref().is_none_or(is_free));
            let next = |(shard, owner): (usize, &Option<Owner>)| Owner {
                shard: shard as Shard,
                epoch: owner.as_ref().map_or(1, |owner| owner.epoch + 1),
                instance: Some(known.me),
            };
            (known.me, free.map(next).collect::<Vec<_>>())
        };
        let in_motion =
            |owner: &Owner| self.leaving.contains_key(&owner.shard) || self.unsettled.contains_key(&owner.shard);
        let mut free: Vec<Owner> = free.into_iter().filter(|owner| !in_motion(owner)).collect();
        let coming = self.unsettled.values().filter(|owner| owner.instance == Some(me)).count();
        shuffle(&mut free);
        free.truncate(fair.saturating_sub(cluster.shards.owned().len() + coming));
        if free.is_empty() {
            return;
        }
        let broken = AtomicBool::new(false);
        let taking = free.into_iter().map(|owner| {
            let (cluster, broken) = (&cluster, &broken);
            async move {
                // Where one has failed, the rest would only wait for the same.
                if broken.load(Ordering::Relaxed) {
                    return None;
                }
                let assigned = cluster.soon(cluster.leases().assign(&owner)).await;
                broken.fetch_or(assigned.is_err(), Ordering::Relaxed);
                Some((owner, assigned))
            }
        });
        let mut taken = 0;
        let mut taking = stream::iter(taking).buffer_unordered(TAKEN_AT_ONCE);
        while let Some(answer) = taking.next().await {
            match answer {
                Some((owner, Ok(stands))) => {
                    taken += u64::from(stands);
                    self.assigned(owner, stands);
                }
                Some((owner, Err(_))) => drop(self.unsettled.insert(owner.shard, owner)),
                None => self.outdated = true,
            }
        }
        if taken > 0 {
            cluster.stats.takeovers.fetch_add(taken, Ordering::Relaxed);
            tracing::info!(shards = taken, owned = cluster.shards.owned().len(), "free shards were taken");
            cluster.news.notify_one();
        }
    }

    /// An entry's put is settled.
    fn assigned(&mut self, owner: Owner, stands: bool) {
        if !stands {
            self.outdated = true;
            return;
        }
        let cluster = &self.cluster;
        cluster.stats.changes.fetch_add(1, Ordering::AcqRel);
        let mut known = cluster.view.known();
        known.owners[usize::from(owner.shard)] = Some(owner);
        // It may have been declared dead meanwhile, and is another one now.
        if owner.instance == Some(known.me) {
            cluster.shards.take(owner.shard);
        }
        drop(known);
        cluster.view.touch();
    }

    /// Begins to hand over what is too much, or all when leaving: to those who are there to take it.
    fn hand_over(&mut self) {
        let cluster = self.cluster.clone();
        // A shard on its way is nobody's, and its machines wait. Who need not go takes care that it is worth it: nobody may
        // be dead, whose shards are soon to be had, and what is known of the others must be of now.
        if !self.calm && !cluster.leaving.is_cancelled() {
            return;
        }
        let mut mine = cluster.shards.owned();
        if mine.is_empty() || self.hand_overs.len() >= HAND_OVERS_AT_ONCE || !cluster.shards.is_trusted() {
            return;
        }
        shuffle(&mut mine);
        let known = cluster.view.known();
        let owned_by = |instance| {
            let owned = known.owners.iter().flatten().filter(|owner| owner.instance == Some(instance)).count();
            owned + self.leaving.values().filter(|to| **to == instance).count()
        };
        let heir = |instance| Heir { instance, owned: owned_by(instance) };
        let mut heirs: Vec<Heir> = self.others.lively().map(heir).collect();
        let to = match cluster.leaving.is_cancelled() {
            true => share::estate(mine.len(), &mut heirs),
            false => {
                let richer = |of: &InstanceId| (owned_by(*of), *of) > (mine.len(), known.me);
                let richest = !known.addresses.keys().any(richer);
                share::excess(cluster.shards.count(), self.others.staying() + 1, mine.len(), richest, &mut heirs)
            }
        };
        let room = (HAND_OVERS_AT_ONCE - self.hand_overs.len()) * TOGETHER;
        let next = |(shard, to): (Shard, InstanceId)| {
            let epoch = known.owners[usize::from(shard)].map_or(1, |owner| owner.epoch + 1);
            Owner { shard, epoch, instance: Some(to) }
        };
        let given: Vec<Owner> = mine.into_iter().zip(to).take(room).map(next).collect();
        drop(known);
        for given in given.chunks(TOGETHER) {
            for owner in given {
                cluster.shards.give(owner.shard);
                self.leaving.extend(owner.instance.map(|to| (owner.shard, to)));
            }
            self.hand_overs.spawn(release(cluster.clone(), given.to_vec()));
        }
    }

    fn handed_over(&mut self, done: Result<Passed, tokio::task::JoinError>) {
        let done = match done {
            Ok(Passed::Released(owners)) => return self.pass_on(owners),
            Ok(Passed::Put(done)) => done,
            // Nothing in it panics but a storage; the shard's entry says what became of it.
            Err(error) => {
                tracing::error!(error.reason = %error, "a hand-over has failed");
                self.leaving.clear();
                self.outdated = true;
                return;
            }
        };
        for (owner, assigned) in done {
            self.leaving.remove(&owner.shard);
            match assigned {
                Ok(stands) => {
                    self.assigned(owner, stands);
                    self.cluster.stats.hand_overs.fetch_add(u64::from(stands), Ordering::Relaxed);
                }
                Err(error) => {
                    tracing::warn!(shard = owner.shard, error.reason = %error, "a shard's new owner can't be put; it is tried again");
                    self.unsettled.insert(owner.shard, owner);
                }
            }
        }
        self.cluster.news.notify_one();
    }

    /// Names the new owners of shards of which nothing runs here any more. One who has died, or is going, meanwhile gets
    /// nothing: it would be a whole lease time until anybody took it from there. The shard is this instance's again.
    fn pass_on(&mut self, owners: Vec<Owner>) {
        let cluster = self.cluster.clone();
        // Who goes can only rely on what it saw last. Who stays can wait for the next look, and gives nothing before it.
        let as_of = match cluster.leaving.is_cancelled() {
            true => self.others.looked(),
            false => cluster.clock.monotonic(),
        };
        let (given, kept): (Vec<Owner>, Vec<Owner>) =
            owners.into_iter().partition(|owner| owner.instance.is_some_and(|heir| self.others.is_lively(heir, as_of)));
        self.calm &= kept.is_empty();
        if !given.is_empty() {
            self.hand_overs.spawn(give(cluster.clone(), given));
        }
        let known = cluster.view.known();
        for owner in kept {
            self.leaving.remove(&owner.shard);
            // It may have been declared dead meanwhile, and is another one now.
            if known.owners[usize::from(owner.shard)].is_some_and(|entry| entry.instance == Some(known.me)) {
                cluster.shards.take(owner.shard);
            }
        }
        drop(known);
        cluster.view.touch();
    }
}

/// Waits until nothing runs of shards that are served here no more, or what does has had its time.
async fn release(cluster: Arc<Cluster>, owners: Vec<Owner>) -> Passed {
    let shards: Vec<Shard> = owners.iter().map(|owner| owner.shard).collect();
    let time = match cluster.leaving.is_cancelled() {
        true => cluster.release_ms,
        // Nobody's machines wait longer for a shard that need not go than for one whose owner has died.
        false => cluster.release_ms.min(cluster.lease_ms / 2),
    };
    let until = cluster.clock.monotonic().saturating_add(time);
    let (engine, of) = (cluster.engine.clone(), shards.clone());
    // All loaded machines are looked through: nothing for the thread of the leases.
    let released = AbortOnDropHandle::new(cluster.home.spawn(async move { engine.release(&of).await }));
    tokio::select! {
        _ = released => {}
        // A step that goes on commits on the condition that nobody else did. Nothing more is sent, from now on: the engine
        // hears of the end only later.
        () = cluster.clock.sleep_until_monotonic(until) => {
            shards.iter().for_each(|shard| cluster.shards.lose_given(*shard));
            tracing::warn!(?shards, "shards are handed over while a step of them still runs");
        }
    }
    Passed::Released(owners)
}

/// Puts the entries of shards that others get.
async fn give(cluster: Arc<Cluster>, owners: Vec<Owner>) -> Passed {
    let cluster = &cluster;
    let put = owners.into_iter().map(|owner| async move {
        let mut assigned = cluster.soon(cluster.leases().assign(&owner)).await;
        for _ in 1..TRIES {
            if assigned.is_ok() {
                break;
            }
            let next = cluster.clock.monotonic() + cluster.gap();
            cluster.clock.sleep_until_monotonic(next).await;
            assigned = cluster.soon(cluster.leases().assign(&owner)).await;
        }
        (owner, assigned)
    });
    Passed::Put(join_all(put).await)
}

fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, (random_unit() * (last + 1) as f64) as usize);
    }
}
