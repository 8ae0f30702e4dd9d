//! Machines in a folder: fjall behind one writer thread that group-commits.
//!
//! The way of a commit: encoded in its caller's task (`work`), queued, taken by the `writer` with all that waits, checked
//! against the commit id that stands there, laid into one batch (`draft`), synced, answered. Reads go to a snapshot and
//! never wait for the writer.
//!
//! Formats: `keys`, `values`, docs/decisions/0001-embedded-format.md.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use fjall::PersistMode;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Commit, Due, LONGEST_TAG, Ledger, Listing, Loaded, MachinePage, Outcome, Storage, StorageError};
use crate::clock::Clock;
use crate::machine::{CommitId, Epoch, MachineId, MachineKey, Namespace, Notification, NotificationId, Shard};
use crate::wire::HistoryRange;

mod draft;
mod engine;
mod journal;
mod keys;
mod ledger;
mod read;
mod space;
mod stats;
#[cfg(test)]
mod tests;
mod values;
mod work;
mod writer;

use engine::{Engine, FolderLock};
pub use engine::{FORMAT, OpenError};
pub use keys::LONGEST_NAMESPACE;
pub use stats::WriterStats;
use work::{CommitWork, Request, Settlement, Work};

/// How many events one write of a deletion takes: others' commits wait for no more.
const DELETED_AT_ONCE: usize = 1_000;

/// How often an idle store is looked at, in milliseconds: whether one of the engine's own threads has failed, and how much
/// space is free.
const LOOK_EVERY_MS: i64 = 1_000;

#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    pub path: PathBuf,
    /// Makes the folder, and a store in it, if they are missing; else that is refused.
    pub create: bool,
    /// Bytes: with less than this free on the folder's volume, writes are refused. 0: never.
    pub free_space_reserve: u64,
    /// Bytes of blocks held in memory for reads.
    pub cache_size: u64,
    /// Bytes of one of the tables held in memory before they are written out in order. Decided when a store is
    /// made; later openings keep what it was made with.
    pub memtable_size: u64,
    /// Writes that wait in the queue at most; further callers wait to be let in.
    pub queue: usize,
}

/// Dropping it closes it as well, but blocks until the last writes are synced: prefer [`Storage::close`].
pub struct Embedded {
    /// None once closed.
    queue: RwLock<Option<mpsc::Sender<Request>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    opened: Arc<RwLock<Option<Opened>>>,
    folder: PathBuf,
    stats: Arc<WriterStats>,
    failure: watch::Receiver<Option<StorageError>>,
    failed: Arc<watch::Sender<Option<StorageError>>>,
    #[cfg(test)]
    fault: Arc<std::sync::atomic::AtomicBool>,
}

/// INVARIANT: fields are dropped in this order: the folder is let go of last.
struct Opened {
    engine: Engine,
    _lock: FolderLock,
}

// === impl EmbeddedOptions ===

impl EmbeddedOptions {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            create: true,
            free_space_reserve: 1 << 30,
            cache_size: 128 << 20,
            memtable_size: 32 << 20,
            queue: 4096,
        }
    }
}

// === impl Embedded ===

impl Embedded {
    /// Opens the store in a folder, or makes one there. Blocks: for a start, not for a request.
    pub fn open(options: EmbeddedOptions) -> Result<Arc<Self>, OpenError> {
        let (engine, lock) = Engine::open(&options)?;
        let stats = Arc::new(WriterStats::default());
        // What can't be told is told by the first write.
        let _ = space::look(&options.path, &stats);
        let folder = options.path.clone();
        let (failed, failure) = watch::channel(None);
        let failed = Arc::new(failed);
        let (sender, receiver) = mpsc::channel(options.queue.max(1));
        #[cfg(test)]
        let fault = Arc::default();
        let writer = writer::Writer {
            engine: engine.clone(),
            queue: receiver,
            space: space::Space::new(options.path.clone(), options.free_space_reserve),
            stats: Arc::clone(&stats),
            failure: Arc::clone(&failed),
            #[cfg(test)]
            fault: Arc::clone(&fault),
        };
        let thread = std::thread::Builder::new()
            .name("storage-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| OpenError::Failed { path: options.path, detail: error.to_string() })?;
        Ok(Arc::new(Self {
            queue: RwLock::new(Some(sender)),
            writer: Mutex::new(Some(thread)),
            opened: Arc::new(RwLock::new(Some(Opened { engine, _lock: lock }))),
            folder,
            stats,
            failure,
            failed,
            #[cfg(test)]
            fault,
        }))
    }

    pub fn stats(&self) -> &Arc<WriterStats> {
        &self.stats
    }

    async fn write(&self, key: &MachineKey, work: Work) -> Outcome {
        if let Err(error) = check(key) {
            return Outcome::Refused(error);
        }
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (answer, answered) = oneshot::channel();
        let Some(queue) = queue else { return Outcome::Refused(closed()) };
        let Ok(permit) = queue.reserve().await else { return Outcome::Refused(closed()) };
        self.stats.queued();
        permit.send(Request { work, answer });
        drop(queue);
        // The writer answers all that it takes, unless it panicked in the middle.
        let gone = || StorageError::Unavailable("the store's writer stopped before it answered".to_owned());
        answered.await.unwrap_or_else(|_| Outcome::Unknown(gone()))
    }

    async fn done(&self, key: &MachineKey, work: Work) -> Result<(), StorageError> {
        match self.write(key, work).await {
            Outcome::Committed => Ok(()),
            Outcome::Refused(error) | Outcome::Unknown(error) => Err(error),
            // Only commits and new entries are conditional.
            Outcome::Conflict | Outcome::TagTaken => {
                Err(StorageError::Corrupt("an unconditional write met a conflict".to_owned()))
            }
        }
    }

    /// Every read of an LSM tree may touch the disk, and nobody knows before which will: so all of them go where
    /// blocking is allowed. A hot machine is not read at all, its worker holds it.
    async fn look<T: Send + 'static>(
        &self,
        key: Option<&MachineKey>,
        read: impl FnOnce(&Engine) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        key.map_or(Ok(()), check)?;
        let opened = Arc::clone(&self.opened);
        let read = tokio::task::spawn_blocking(move || {
            let opened = opened.read().unwrap_or_else(PoisonError::into_inner);
            read(&opened.as_ref().ok_or_else(closed)?.engine)
        });
        read.await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => Err(StorageError::Corrupt(engine::panic_text(&*panic))),
            Err(_) => Err(StorageError::Unavailable("the service is stopping".to_owned())),
        })
    }

    /// Lets the writer work off its queue and waits for it, then lets go of the folder. Blocks.
    fn shut(writer: Option<JoinHandle<()>>, opened: &RwLock<Option<Opened>>) {
        if let Some(Err(_)) = writer.map(JoinHandle::join) {
            tracing::error!("the store's writer panicked");
        }
        // Waits for the reads that are under way.
        drop(opened.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// From here on nothing is let into the queue; the writer ends when it is empty.
    fn stop(&self) -> Option<JoinHandle<()>> {
        drop(self.queue.write().unwrap_or_else(PoisonError::into_inner).take());
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        Self::shut(self.stop(), &self.opened);
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("stats", &self.stats).finish_non_exhaustive()
    }
}

fn closed() -> StorageError {
    StorageError::Unavailable("the store is closed".to_owned())
}

fn check(key: &MachineKey) -> Result<(), StorageError> {
    check_namespace(&key.ns)
}

fn check_commit(commit: &Commit) -> Result<(), StorageError> {
    if let Some(tag) = commit.tag.as_ref().filter(|tag| tag.len() > LONGEST_TAG) {
        let length = tag.len();
        let error = format!("a tag of {length} bytes can't be stored, {LONGEST_TAG} are the most");
        return Err(StorageError::Unavailable(error));
    }
    commit.ledgers.iter().try_for_each(|sink| ledger::check(sink))
}

fn check_namespace(ns: &Namespace) -> Result<(), StorageError> {
    match ns.as_str().len() {
        0..=LONGEST_NAMESPACE => Ok(()),
        length => Err(StorageError::Unavailable(format!(
            "a namespace of {length} bytes can't be stored, {LONGEST_NAMESPACE} are the most"
        ))),
    }
}

#[async_trait]
impl Storage for Embedded {
    async fn read(&self, key: &MachineKey, range: Option<&HistoryRange>) -> Result<Option<Loaded>, StorageError> {
        let (key, range) = (key.clone(), range.cloned());
        self.look(Some(&key.clone()), move |engine| read::machine(engine, &key, range.as_ref())).await
    }

    async fn standing(&self, key: &MachineKey) -> Result<Option<CommitId>, StorageError> {
        let key = key.clone();
        self.look(Some(&key.clone()), move |engine| read::standing(engine, &key)).await
    }

    async fn events(&self, key: &MachineKey, epoch: Epoch, first: i64, last: i64) -> Result<Vec<Bytes>, StorageError> {
        let key = key.clone();
        self.look(Some(&key.clone()), move |engine| {
            read::events(engine, &engine.db.snapshot(), &key, epoch, first, last)
        })
        .await
    }

    async fn commit(&self, commit: Commit) -> Outcome {
        if let Err(error) = check_commit(&commit) {
            return Outcome::Refused(error);
        }
        let work = CommitWork::new(&commit);
        self.write(&commit.key, Work::Commit(Box::new(work))).await
    }

    async fn put_notification(&self, key: &MachineKey, it: &Notification, due: i64) -> Outcome {
        self.write(key, Work::put_notification(key, it, due)).await
    }

    async fn notifications(&self, key: &MachineKey, limit: usize) -> Result<Vec<Notification>, StorageError> {
        let key = key.clone();
        self.look(Some(&key.clone()), move |engine| read::notifications(engine, &key, limit)).await
    }

    async fn settle_notifications(
        &self,
        key: &MachineKey,
        delete: &[NotificationId],
        park: &[NotificationId],
    ) -> Result<(), StorageError> {
        self.done(key, Work::Settle(Settlement::new(key, delete, park))).await
    }

    async fn delete_epoch(&self, key: &MachineKey, epoch: Epoch, last: i64) -> Result<(), StorageError> {
        // What is found is deleted page by page, behind the page before: deleted keys are never walked over again.
        let mut first = 1;
        loop {
            let owner = key.clone();
            let page = move |engine: &Engine| read::event_keys(engine, &owner, epoch, first, last, DELETED_AT_ONCE);
            let (keys, next) = self.look(Some(key), page).await?;
            if !keys.is_empty() {
                self.done(key, Work::DeleteEvents(keys)).await?;
            }
            let Some(next) = next else { break };
            first = next;
        }
        let owner = key.clone();
        let entries = self.look(Some(key), move |engine| read::notifications(engine, &owner, usize::MAX)).await?;
        let gone: Vec<_> = entries.iter().filter(|it| it.epoch == epoch).map(|it| it.id).collect();
        for page in gone.chunks(DELETED_AT_ONCE) {
            self.settle_notifications(key, page, &[]).await?;
        }
        Ok(())
    }

    async fn tagged(&self, ns: &Namespace, tag: &[u8]) -> Result<Option<MachineId>, StorageError> {
        check_namespace(ns)?;
        if tag.len() > LONGEST_TAG {
            return Ok(None);
        }
        let (ns, tag) = (ns.clone(), tag.to_owned());
        self.look(None, move |engine| read::tagged(engine, &ns, &tag)).await
    }

    fn ledger(&self) -> Option<&dyn Ledger> {
        Some(self)
    }

    async fn dues(
        &self,
        shards: Option<&[Shard]>,
        until: i64,
        after: Option<&Bytes>,
        limit: usize,
    ) -> Result<Vec<Due>, StorageError> {
        // Never shared, so one shard.
        if shards.is_some_and(|shards| !shards.contains(&0)) {
            return Ok(Vec::new());
        }
        let after = after.cloned();
        self.look(None, move |engine| read::dues(engine, until, after.as_deref(), limit)).await
    }

    async fn machines(&self, of: &Listing, after: Option<&Bytes>, limit: usize) -> Result<MachinePage, StorageError> {
        of.ns.as_ref().map_or(Ok(()), check_namespace)?;
        let (of, after) = (of.clone(), after.cloned());
        self.look(None, move |engine| read::machines(engine, &of, after.as_deref(), limit)).await
    }

    /// The writer's failures are told at once. fjall's own threads only leave a mark that its next write meets, so an
    /// idle store is asked for it from time to time, and its volume looked at.
    async fn failure(&self) -> StorageError {
        let clock = Clock::system();
        let mut failure = self.failure.clone();
        loop {
            // The sender is a field of this store: it does not go before the wait does.
            let told = async { failure.wait_for(Option::is_some).await.ok().and_then(|told| told.clone()) };
            if let Ok(Some(error)) = clock.timeout_at(clock.now() + LOOK_EVERY_MS, told).await {
                return error;
            }
            let (folder, stats) = (self.folder.clone(), Arc::clone(&self.stats));
            let poisoned = self.look(None, move |engine| {
                // Others fill the volume too.
                let _ = space::look(&folder, &stats);
                Ok(engine.db.persist(PersistMode::Buffer).err())
            });
            let poisoned = poisoned.await;
            if let Ok(Some(error)) = poisoned {
                self.failed.send_replace(Some(StorageError::Unavailable(error.to_string())));
            }
        }
    }

    async fn close(&self) {
        let (writer, opened) = (self.stop(), Arc::clone(&self.opened));
        // With the runtime gone there is nobody to wait; dropping the store closes it then.
        let _ = tokio::task::spawn_blocking(move || Self::shut(writer, &opened)).await;
    }
}
