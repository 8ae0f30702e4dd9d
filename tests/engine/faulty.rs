//! A store that fails as it is told to, or at random by a seed: requests are late, refused, done or not and nobody is told
//! which, done long after they were put again, or another writer comes between.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use machinegun::clock::random_bytes;
use machinegun::machine::{
    CommitId, Epoch, MachineId, MachineKey, Namespace, Notification, NotificationId, Record, Shard,
};
use machinegun::storage::{
    Append, Commit, Due, Leases, Ledger, Listing, Loaded, MachinePage, Outcome, Storage, StorageError,
};
use machinegun::wire::HistoryRange;

use crate::dice::Dice;
use crate::scripted::{Gate, Inside};

/// What becomes of a commit.
pub enum Fault {
    Refuse,
    /// Refused, and no other try will go better.
    Corrupt,
    /// Done, or not, but nobody is told which.
    Unknown {
        applied: bool,
    },
    /// Another writer commits first, and leaves the machine so.
    Intrude(Box<dyn FnOnce(Record) -> Record + Send>),
    /// Waits at the gate before it is done.
    Hold(Inside),
    Panic,
}

/// What goes wrong at random with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Accident {
    Refused,
    UnknownDone,
    UnknownLate,
    UnknownNever,
    /// Another writer commits first, and changes nothing.
    Overtaken,
    LateBefore,
    LateAfter,
    /// One of unknown result is done after all, before its next put or after it.
    Landed,
}

/// How often each has happened.
#[derive(Debug, Default)]
pub struct Accidents(BTreeMap<Accident, usize>);

/// Commits of unknown result that may still be done at any time. They outlive the run that put them.
#[derive(Clone, Default)]
pub struct UnderWay(Arc<Mutex<Vec<Commit>>>);

/// A commit's name, and whether it puts a record.
type Mark = (MachineKey, Option<CommitId>, bool);

/// A request has ended, or nobody waits for it any more.
struct Answered<'a>(&'a AtomicUsize);

pub struct Faulty {
    inner: Arc<dyn Storage>,
    faults: Mutex<VecDeque<Fault>>,
    /// Of notifications' puts.
    entry_faults: Mutex<VecDeque<Fault>>,
    commits: Mutex<Vec<Commit>>,
    /// The first read waits here, and others wait for it.
    reading: tokio::sync::Mutex<Option<Inside>>,
    /// Nothing is done and nothing is read.
    pub down: AtomicBool,
    /// Deletions are refused.
    pub keeps: AtomicBool,
    /// In how many of 100 requests something goes wrong.
    pub chaos: AtomicU32,
    seed: u64,
    /// For each machine's commits, and for its other requests: so its accidents are the same, however the machines'
    /// requests come one after the other.
    dice: Mutex<HashMap<(MachineKey, bool), Dice>>,
    under_way: UnderWay,
    accidents: Mutex<Vec<Accident>>,
    last_failure: Mutex<Option<StorageError>>,
    /// Commits whose last answer was "unknown": refusing them would be a lie.
    unknown: Mutex<HashSet<Mark>>,
    pub reads: AtomicUsize,
    pub standings: AtomicUsize,
    pub event_reads: AtomicUsize,
    pub notification_reads: AtomicUsize,
    /// Notifications' puts that were answered.
    pub entries: AtomicUsize,
    pub scans: AtomicUsize,
    /// Requests that the store itself has not answered: the clock of a test that waits for one must stand still.
    asked: AtomicUsize,
    /// The shards that the last scan was of.
    pub scanned: Mutex<Option<Vec<Shard>>>,
    /// Epochs whose events were deleted.
    pub deleted: Mutex<Vec<Epoch>>,
}

// === impl Answered ===

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

// === impl Faulty ===

impl Faulty {
    pub fn new(inner: Arc<dyn Storage>, seed: u64, under_way: UnderWay) -> Arc<Self> {
        Arc::new(Self {
            inner,
            faults: Mutex::default(),
            entry_faults: Mutex::default(),
            commits: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            down: AtomicBool::new(false),
            keeps: AtomicBool::new(false),
            chaos: AtomicU32::new(0),
            seed,
            dice: Mutex::default(),
            under_way,
            accidents: Mutex::default(),
            last_failure: Mutex::default(),
            unknown: Mutex::default(),
            reads: AtomicUsize::new(0),
            standings: AtomicUsize::new(0),
            event_reads: AtomicUsize::new(0),
            notification_reads: AtomicUsize::new(0),
            entries: AtomicUsize::new(0),
            scans: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            scanned: Mutex::default(),
            deleted: Mutex::default(),
        })
    }

    /// The next commit that no fault is waiting for has this one.
    pub fn then(&self, fault: Fault) -> &Self {
        self.faults.lock().unwrap().push_back(fault);
        self
    }

    /// The next notification that no fault is waiting for has this one when it is put.
    pub fn then_entry(&self, fault: Fault) -> &Self {
        self.entry_faults.lock().unwrap().push_back(fault);
        self
    }

    /// Holds the next commit before it is done.
    pub fn hold(&self) -> Gate {
        let (gate, inside) = Gate::new();
        self.then(Fault::Hold(inside));
        gate
    }

    /// Holds all reads from now on.
    pub fn hold_reads(&self) -> Gate {
        let (gate, inside) = Gate::new();
        *self.reading.try_lock().unwrap() = Some(inside);
        gate
    }

    /// All that were answered, retries included.
    pub fn commits(&self) -> Vec<Commit> {
        self.commits.lock().unwrap().clone()
    }

    /// Why the last commit that was refused, or whose result is unknown, was.
    pub fn last_failure(&self) -> Option<StorageError> {
        self.last_failure.lock().unwrap().clone()
    }

    /// What went wrong with commits, in order.
    pub fn accidents(&self) -> Vec<Accident> {
        self.accidents.lock().unwrap().clone()
    }

    /// The store without its faults.
    pub fn inner(&self) -> &Arc<dyn Storage> {
        &self.inner
    }

    /// Whether nothing is asked of the store itself. What waits at a gate has not come to it.
    pub fn is_idle(&self) -> bool {
        self.asked.load(Ordering::SeqCst) == 0
    }

    /// A request to the store itself.
    async fn inside<T>(&self, request: impl Future<Output = T>) -> T {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let _answered = Answered(&self.asked);
        request.await
    }

    fn up(&self) -> Result<(), StorageError> {
        if self.down.load(Ordering::SeqCst) { Err(unavailable()) } else { Ok(()) }
    }

    fn roll(&self, key: &MachineKey, commits: bool, sides: u64) -> u64 {
        let mut all = self.dice.lock().unwrap();
        let dice = all.entry((key.clone(), commits)).or_insert_with(|| {
            let mut hasher = DefaultHasher::new();
            (self.seed, key, commits).hash(&mut hasher);
            Dice::new(hasher.finish())
        });
        dice.below(sides)
    }

    fn is_unlucky(&self, key: &MachineKey, commits: bool) -> bool {
        let chaos = u64::from(self.chaos.load(Ordering::SeqCst));
        chaos > 0 && self.roll(key, commits, 100) < chaos
    }

    /// Others have their turns.
    async fn dawdle(&self, key: &MachineKey, commits: bool) {
        for _ in 0..self.roll(key, commits, 40) {
            tokio::task::yield_now().await;
        }
    }

    async fn accident(&self, commit: Commit) -> Outcome {
        let key = commit.key.clone();
        if self.chaos.load(Ordering::SeqCst) > 0 {
            self.land(&key).await;
        }
        if !self.is_unlucky(&key, true) {
            return self.inside(self.inner.commit(commit)).await;
        }
        use Accident::{Landed, LateAfter, LateBefore, Overtaken, Refused, UnknownDone, UnknownLate, UnknownNever};
        let all = [Refused, UnknownDone, UnknownLate, UnknownNever, Overtaken, LateBefore, LateAfter];
        let accident = all[self.roll(&key, true, all.len() as u64) as usize];
        self.accidents.lock().unwrap().push(accident);
        match accident {
            Refused => return Outcome::Refused(unavailable()),
            Landed => unreachable!("it happens to earlier commits"),
            UnknownDone => drop(self.inside(self.inner.commit(commit)).await),
            UnknownLate => self.under_way.0.lock().unwrap().push(commit),
            UnknownNever => {}
            Overtaken => {
                if self.inside(self.inner.read(&key, None)).await.is_ok_and(|found| found.is_some()) {
                    self.intrude(&key, |record| record).await;
                }
                return self.inside(self.inner.commit(commit)).await;
            }
            LateBefore => {
                self.dawdle(&key, true).await;
                return self.inside(self.inner.commit(commit)).await;
            }
            LateAfter => {
                let answer = self.inside(self.inner.commit(commit)).await;
                self.dawdle(&key, true).await;
                return answer;
            }
        }
        Outcome::Unknown(unavailable())
    }

    /// Some of the machine's commits that are still under way come to their end: done, or in conflict with what stands.
    async fn land(&self, key: &MachineKey) {
        let (landing, flying): (Vec<_>, Vec<_>) = std::mem::take(&mut *self.under_way.0.lock().unwrap())
            .into_iter()
            .partition(|commit| commit.key == *key && self.roll(key, true, 3) == 0);
        self.under_way.0.lock().unwrap().extend(flying);
        for commit in landing {
            if self.inside(self.inner.commit(commit)).await == Outcome::Committed {
                self.accidents.lock().unwrap().push(Accident::Landed);
            }
        }
    }

    /// A request that is no commit: refused, done and refused all the same, or late.
    async fn request<T>(
        &self,
        key: &MachineKey,
        request: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        self.up()?;
        let request = self.inside(request);
        if !self.is_unlucky(key, false) {
            return request.await;
        }
        match self.roll(key, false, 4) {
            0 => Err(unavailable()),
            1 => request.await.and(Err(unavailable())),
            2 => {
                self.dawdle(key, false).await;
                request.await
            }
            _ => {
                let answer = request.await;
                self.dawdle(key, false).await;
                answer
            }
        }
    }

    /// A notification's put: done or not, and told or not.
    async fn enter(&self, key: &MachineKey, it: &Notification, due: i64) -> Outcome {
        let put = self.inside(self.inner.put_notification(key, it, due));
        let fault = self.entry_faults.lock().unwrap().pop_front();
        match fault {
            Some(Fault::Refuse) => return Outcome::Refused(unavailable()),
            Some(Fault::Unknown { applied }) => {
                if applied {
                    put.await;
                }
                return Outcome::Unknown(unavailable());
            }
            Some(_) => panic!("a notification's put is refused, or of unknown result"),
            None if !self.is_unlucky(key, false) => return put.await,
            None => {}
        }
        match self.roll(key, false, 5) {
            0 => return Outcome::Refused(unavailable()),
            1 => return Outcome::Unknown(unavailable()),
            2 => drop(put.await),
            3 => {
                self.dawdle(key, false).await;
                return put.await;
            }
            _ => {
                let answer = put.await;
                self.dawdle(key, false).await;
                return answer;
            }
        }
        Outcome::Unknown(unavailable())
    }

    /// A commit's answer, which never contradicts an earlier one: refused means that no earlier put was done either.
    async fn faulty(&self, commit: Commit) -> Outcome {
        let mark = (
            commit.key.clone(),
            commit.record.as_ref().map_or(commit.expect, |it| Some(it.commit)),
            commit.record.is_some(),
        );
        let outcome = match self.up() {
            Err(error) => Outcome::Refused(error),
            Ok(()) => self.put(commit).await,
        };
        if let Outcome::Refused(error) | Outcome::Unknown(error) = &outcome {
            *self.last_failure.lock().unwrap() = Some(error.clone());
        }
        let mut unknown = self.unknown.lock().unwrap();
        match outcome {
            Outcome::Refused(error) if unknown.contains(&mark) => Outcome::Unknown(error),
            Outcome::Unknown(error) => {
                unknown.insert(mark);
                Outcome::Unknown(error)
            }
            outcome => {
                unknown.remove(&mark);
                outcome
            }
        }
    }

    async fn put(&self, commit: Commit) -> Outcome {
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            None => self.accident(commit).await,
            Some(Fault::Corrupt) => Outcome::Refused(StorageError::Corrupt("the test has it so".to_owned())),
            Some(Fault::Refuse) => Outcome::Refused(unavailable()),
            Some(Fault::Unknown { applied }) => {
                if applied {
                    self.inside(self.inner.commit(commit)).await;
                }
                Outcome::Unknown(unavailable())
            }
            Some(Fault::Intrude(change)) => {
                self.intrude(&commit.key, change).await;
                self.inside(self.inner.commit(commit)).await
            }
            Some(Fault::Hold(gate)) => {
                gate.pass().await;
                self.inside(self.inner.commit(commit)).await
            }
            Some(Fault::Panic) => panic!("the test has it so"),
        }
    }

    async fn intrude(&self, key: &MachineKey, change: impl FnOnce(Record) -> Record) {
        let Loaded { record, .. } =
            self.inside(self.inner.read(key, None)).await.unwrap().expect("a machine to intrude on");
        let next =
            change(Record { commit: CommitId(random_bytes()), earlier: record.history_of_commits(), ..record.clone() });
        let commit = Commit {
            key: key.clone(),
            expect: Some(record.commit),
            record: Some(Arc::new(next)),
            events: Vec::new(),
            delete_notifications: Vec::new(),
            park_notifications: Vec::new(),
            replaced_events: Vec::new(),
            tag: None,
            ledgers: Vec::new(),
        };
        assert_eq!(self.inside(self.inner.commit(commit)).await, Outcome::Committed);
    }
}

// === impl Accidents ===

impl Accidents {
    pub fn add(&mut self, storage: &Faulty) {
        for accident in storage.accidents() {
            *self.0.entry(accident).or_default() += 1;
        }
    }

    /// Nothing was left out by chance.
    pub fn all_happened(&self) {
        assert_eq!(self.0.len(), 8, "{self:?}");
    }
}

fn unavailable() -> StorageError {
    StorageError::Unavailable("the test has it so".to_owned())
}

#[async_trait]
impl Storage for Faulty {
    async fn read(&self, key: &MachineKey, range: Option<&HistoryRange>) -> Result<Option<Loaded>, StorageError> {
        self.up()?;
        let mut reading = self.reading.lock().await;
        if let Some(gate) = reading.take() {
            gate.pass().await;
        }
        drop(reading);
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.request(key, self.inner.read(key, range)).await
    }

    async fn standing(&self, key: &MachineKey) -> Result<Option<CommitId>, StorageError> {
        self.standings.fetch_add(1, Ordering::SeqCst);
        self.request(key, self.inner.standing(key)).await
    }

    async fn events(&self, key: &MachineKey, epoch: Epoch, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError> {
        self.event_reads.fetch_add(1, Ordering::SeqCst);
        self.request(key, self.inner.events(key, epoch, first, last)).await
    }

    async fn commit(&self, commit: Commit) -> Outcome {
        let answer = self.faulty(commit.clone()).await;
        // Noted at the end, so who sees it here knows that the engine goes on from it.
        self.commits.lock().unwrap().push(commit);
        answer
    }

    async fn put_notification(&self, key: &MachineKey, it: &Notification, due: i64) -> Outcome {
        let answer = match self.up() {
            Ok(()) => self.enter(key, it, due).await,
            Err(error) => Outcome::Refused(error),
        };
        // At the end, so who sees it here knows that the engine goes on from it.
        self.entries.fetch_add(1, Ordering::SeqCst);
        answer
    }

    async fn notifications(&self, key: &MachineKey, limit: usize) -> Result<Vec<Notification>, StorageError> {
        self.notification_reads.fetch_add(1, Ordering::SeqCst);
        self.request(key, self.inner.notifications(key, limit)).await
    }

    async fn settle_notifications(
        &self,
        key: &MachineKey,
        delete: &[NotificationId],
        park: &[NotificationId],
    ) -> Result<(), StorageError> {
        self.request(key, self.inner.settle_notifications(key, delete, park)).await
    }

    async fn delete_epoch(&self, key: &MachineKey, epoch: Epoch, last: i64) -> Result<(), StorageError> {
        self.up()?;
        if self.keeps.load(Ordering::SeqCst) {
            return Err(unavailable());
        }
        self.deleted.lock().unwrap().push(epoch);
        self.request(key, self.inner.delete_epoch(key, epoch, last)).await
    }

    async fn tagged(&self, ns: &Namespace, tag: &[u8]) -> Result<Option<MachineId>, StorageError> {
        self.up()?;
        self.inside(self.inner.tagged(ns, tag)).await
    }

    fn has_tags(&self) -> bool {
        self.inner.has_tags()
    }

    fn ledger(&self) -> Option<&dyn Ledger> {
        self.inner.ledger()
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.inner.leases()
    }

    fn appended_ledger(&self) -> Option<&dyn Append> {
        self.inner.appended_ledger().filter(|_| self.up().is_ok())
    }

    async fn dues(
        &self,
        shards: Option<&[Shard]>,
        until: i64,
        after: Option<&Bytes>,
        limit: usize,
    ) -> Result<Vec<Due>, StorageError> {
        let answer = match self.up() {
            Ok(()) => self.inside(self.inner.dues(shards, until, after, limit)).await,
            Err(error) => Err(error),
        };
        // At the end, so who sees it here knows what was found.
        self.scans.fetch_add(1, Ordering::SeqCst);
        *self.scanned.lock().unwrap() = shards.map(<[Shard]>::to_vec);
        answer
    }

    async fn machines(&self, of: &Listing, after: Option<&Bytes>, limit: usize) -> Result<MachinePage, StorageError> {
        self.up()?;
        self.inside(self.inner.machines(of, after, limit)).await
    }
}
