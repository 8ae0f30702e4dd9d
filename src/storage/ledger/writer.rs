//! Appends what machines deliver to one ledger: each event once, though deliveries repeat, come late, and come from several
//! instances.
//!
//! All that waits goes into one block, behind the last block that the writer knows of. If another block stands there
//! already, that one is taken in first: maybe it has some of the same events. So a block is put only by a writer that knows
//! of all blocks before it, and no matter when the put lands, or whether its answer does:
//!
//! - It lands behind exactly those blocks, or not at all, since its place is taken once for ever.
//! - None of its events is in one of those blocks. A source's last event is known from the blocks in memory; of older
//!   ones, its debt says behind which entry they stand if they stand anywhere (`behind`: the place that the ledger had
//!   reached before the events were committed). What is neither in memory nor ruled out is looked for.
//!
//! An answer that was lost needs no treatment of its own: what became of the block is seen when its place is found taken.
//! Nothing is kept for a restart either: the debts say how far back it must look.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};

use super::append::{Link, Run, Source};
use super::lookback::{Lookback, appended};
use super::marks::{Known, Mark, Marks};
use super::{Block, Head, Unnumbered};
use crate::clock::Clock;
use crate::machine::{Epoch, MachineKey};
use crate::storage::{Storage, StorageError};
use crate::telemetry::LedgerMetrics;

/// Entries in one block.
pub const MOST_ENTRIES: usize = 500;

/// Bytes of entries in one block; one delivery alone may be larger.
const MOST_BYTES: usize = 200_000;

/// Deliveries that wait for the writer, past which more wait for those.
const QUEUE: usize = 1_024;

/// Runs in memory: some twenty seconds at 5,000 deliveries a second. What is older is looked for in the store.
const MOST_RUNS: usize = 100_000;

/// How often a writer that has nothing to append looks at what others have, so that its `place` is not long past; and
/// how often it notes the head.
pub const LOOK_EVERY_MS: i64 = 10_000;

/// Pages of others' blocks that a writer takes in one after the other. Past it, it goes to the end and forgets.
const MOST_PAGES: usize = 16;

/// The way into one ledger. Its writer is a task of its own, which ends when this is dropped.
pub struct LedgerWriter {
    store: Arc<dyn Storage>,
    queue: mpsc::Sender<Entering>,
    place: Arc<AtomicI64>,
    lookback: Lookback,
    metrics: LedgerMetrics,
}

/// Events that wait to be entered.
struct Entering {
    key: MachineKey,
    source: Source,
    /// The first event's id.
    first: i64,
    events: Vec<Bytes>,
    behind: i64,
    answer: oneshot::Sender<Result<Entered, StorageError>>,
}

enum Entered {
    /// All of it stands. What the source delivers later stands behind this entry.
    Behind(i64),
    /// Nothing was done, for nobody knows what the blocks up to this entry have of it.
    LookUntil(i64),
}

struct Writer {
    store: Arc<dyn Storage>,
    sink: String,
    clock: Clock,
    queue: mpsc::Receiver<Entering>,
    place: Arc<AtomicI64>,
    metrics: LedgerMetrics,
    head: Head,
    marks: Marks,
    waiting: VecDeque<Entering>,
    /// Unix milliseconds.
    look_at: i64,
    /// Something was appended since the head was noted.
    unnoted: bool,
}

/// What will be put, and what it is made of.
struct Draft {
    block: Block,
    runs: Vec<Run>,
}

// === impl LedgerWriter ===

impl LedgerWriter {
    /// Finds the ledger's end. The store must be one that appends.
    pub async fn open(
        store: Arc<dyn Storage>,
        sink: &str,
        clock: Clock,
        metrics: LedgerMetrics,
    ) -> Result<Arc<Self>, StorageError> {
        let head = appended(&store)?.head(sink).await?;
        let place = Arc::new(AtomicI64::new(head.last));
        let (queue, waiting) = mpsc::channel(QUEUE);
        let writer = Writer {
            store: store.clone(),
            sink: sink.to_owned(),
            look_at: clock.now().saturating_add(LOOK_EVERY_MS),
            clock,
            queue: waiting,
            place: place.clone(),
            metrics: metrics.clone(),
            head,
            marks: Marks::new(head.last, MOST_RUNS),
            waiting: VecDeque::new(),
            unnoted: false,
        };
        tokio::spawn(writer.run());
        Ok(Arc::new(Self { store, queue, place, lookback: Lookback::new(sink), metrics }))
    }

    /// The last entry that the writer knows of: what is not committed yet comes behind it.
    pub fn place(&self) -> i64 {
        self.place.load(Ordering::Acquire)
    }

    /// Returns once consecutive events of one epoch are in the ledger, be it by another delivery. If they are already, they
    /// are behind entry `behind`; what the machine delivers later is behind the one that is returned.
    ///
    /// A machine's events must come in their order, and an epoch's before those of the next.
    pub async fn enter(
        &self,
        key: &MachineKey,
        epoch: Epoch,
        first: i64,
        events: &[Bytes],
        behind: i64,
    ) -> Result<i64, StorageError> {
        let mut place = behind;
        for (part, first) in events.chunks(MOST_ENTRIES).zip((first..).step_by(MOST_ENTRIES)) {
            place = self.enter_part(key, Source::of(key, epoch), first, part, behind).await?;
        }
        Ok(place)
    }

    async fn enter_part(
        &self,
        key: &MachineKey,
        source: Source,
        mut first: i64,
        mut events: &[Bytes],
        mut behind: i64,
    ) -> Result<i64, StorageError> {
        loop {
            let (answer, entered) = oneshot::channel();
            let entering = Entering { key: key.clone(), source, first, events: events.to_vec(), behind, answer };
            let gone = || StorageError::Unavailable("the ledger's writer gave up".to_owned());
            self.queue.send(entering).await.map_err(|_| gone())?;
            let until = match entered.await.map_err(|_| gone())?? {
                Entered::Behind(place) => return Ok(place),
                Entered::LookUntil(until) => until,
            };
            self.metrics.looked_back.inc();
            if let Some(mark) = self.lookback.look(&self.store, source, behind, until).await? {
                let known = known_of(first, events.len(), mark.last);
                (first, events) = (first + known as i64, &events[known..]);
                if events.is_empty() {
                    return Ok(later(mark, first - 1));
                }
            }
            behind = until;
        }
    }
}

/// How many of `length` events from `first` on are not behind event `last`.
fn known_of(first: i64, length: usize, last: i64) -> usize {
    usize::try_from(last.saturating_sub(first).saturating_add(1)).unwrap_or(0).min(length)
}

/// Where a source's events behind `last` are, if they are: if the mark is of another one, that one may be before its block.
fn later(mark: Mark, last: i64) -> i64 {
    if mark.last == last { mark.before } else { 0 }
}

// === impl Writer ===

impl Writer {
    async fn run(mut self) {
        loop {
            let next = tokio::select! {
                biased;
                next = self.queue.recv() => next,
                () = self.clock.sleep_until(self.look_at) => {
                    let _ = AssertUnwindSafe(self.look()).catch_unwind().await;
                    continue;
                }
            };
            let Some(next) = next else { break };
            self.waiting.push_back(next);
            if AssertUnwindSafe(self.append()).catch_unwind().await.is_err() {
                tracing::error!(sink = self.sink, "the ledger's writer panicked; it begins anew");
                self.waiting.clear();
                self.forget(self.head);
            }
        }
        self.note().await;
    }

    /// Until nothing waits.
    async fn append(&mut self) {
        let mut taken = 0;
        loop {
            while self.waiting.len() < QUEUE
                && let Ok(more) = self.queue.try_recv()
            {
                self.waiting.push_back(more);
            }
            let Some(Draft { block, runs }) = self.draft() else { return };
            let put = match appended(&self.store) {
                Ok(ledger) => ledger.append(&self.sink, &block, &runs).await,
                Err(error) => Err(error),
            };
            let done = match put {
                Ok(None) => {
                    taken = 0;
                    self.unnoted = true;
                    self.metrics.blocks.inc();
                    self.metrics.entries.inc_by(block.entries.len() as u64);
                    self.fold(&Link::of(&block, runs))
                }
                Ok(Some(other)) => {
                    taken += 1;
                    self.metrics.taken.inc();
                    match self.fold(&other) {
                        // Others are far ahead.
                        Ok(()) if taken > 1 => self.catch_up().await,
                        folded => folded,
                    }
                }
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                self.metrics.failed.inc();
                tracing::warn!(sink = self.sink, error.reason = %error, "the ledger takes nothing now; what waits is delivered again");
                for it in self.waiting.drain(..) {
                    let _ = it.answer.send(Err(error.clone()));
                }
                return;
            }
            if self.clock.now() >= self.look_at {
                self.note().await;
            }
        }
    }

    /// Answers what stands, and what nobody knows of. The next block of what is left, in the order of coming.
    fn draft(&mut self) -> Option<Draft> {
        // Of this block: two deliveries of the same events may wait at once.
        let mut drafted: HashMap<Source, i64> = HashMap::new();
        let (mut parts, mut runs) = (Vec::new(), Vec::new());
        let (mut entries, mut bytes) = (0, 0);
        let mut kept = VecDeque::with_capacity(self.waiting.len());
        while let Some(it) = self.waiting.pop_front() {
            let end = it.first + it.events.len() as i64 - 1;
            let mark = match self.marks.known(it.source, it.behind) {
                Known::Mark(mark) if mark.last >= end => {
                    let _ = it.answer.send(Ok(Entered::Behind(later(mark, end))));
                    continue;
                }
                Known::Behind(until) => {
                    let _ = it.answer.send(Ok(Entered::LookUntil(until)));
                    continue;
                }
                Known::Mark(mark) => Some(mark.last),
                Known::None => None,
            };
            let last = drafted.get(&it.source).copied().or(mark);
            let new = &it.events[last.map_or(0, |last| known_of(it.first, it.events.len(), last))..];
            let size: usize = new.iter().map(|event| event.len() + it.key.id.as_bytes().len()).sum();
            if entries > 0 && (entries + new.len() > MOST_ENTRIES || bytes + size > MOST_BYTES) {
                kept.push_back(it);
                break;
            }
            if !new.is_empty() {
                (entries, bytes) = (entries + new.len(), bytes + size);
                parts.push(Unnumbered::new(&it.key, new));
                runs.push(Run { source: it.source, last: end });
                drafted.insert(it.source, end);
            }
            kept.push_back(it);
        }
        kept.append(&mut self.waiting);
        self.waiting = kept;
        (!runs.is_empty()).then(|| Draft { block: Unnumbered::joined(parts).behind(self.head), runs })
    }

    /// Takes in the next block.
    fn fold(&mut self, link: &Link) -> Result<(), StorageError> {
        if link.first != self.head.last + 1 || link.last < link.first {
            let text =
                format!("block {} of ledger {:?} does not follow entry {}", link.first, self.sink, self.head.last);
            return Err(StorageError::Corrupt(text));
        }
        self.marks.fold(link);
        self.head = link.head();
        self.place.store(self.head.last, Ordering::Release);
        Ok(())
    }

    /// Takes in what others have appended.
    async fn catch_up(&mut self) -> Result<(), StorageError> {
        let store = self.store.clone();
        let ledger = appended(&store)?;
        for _ in 0..MOST_PAGES {
            let page = ledger.links(&self.sink, self.head.last).await?;
            if page.is_empty() {
                return Ok(());
            }
            for link in &page {
                self.fold(link)?;
            }
        }
        let head = ledger.head(&self.sink).await?;
        if head.last > self.head.last {
            self.forget(head);
        }
        Ok(())
    }

    /// Goes on from a head of which nothing else is known.
    fn forget(&mut self, head: Head) {
        self.head = head;
        self.marks = Marks::new(head.last, MOST_RUNS);
        self.place.store(head.last, Ordering::Release);
    }

    /// While nothing is to be appended.
    async fn look(&mut self) {
        self.look_at = self.clock.now().saturating_add(LOOK_EVERY_MS);
        if let Err(error) = self.catch_up().await {
            tracing::debug!(sink = self.sink, error.reason = %error, "the ledger can't be looked at now");
        }
        self.note().await;
    }

    async fn note(&mut self) {
        self.look_at = self.clock.now().saturating_add(LOOK_EVERY_MS);
        if !std::mem::take(&mut self.unnoted) {
            return;
        }
        if let Ok(ledger) = appended(&self.store)
            && let Err(error) = ledger.note_head(&self.sink, self.head).await
        {
            tracing::debug!(sink = self.sink, error.reason = %error, "the ledger's head is noted later");
            self.unnoted = true;
        }
    }
}

impl std::fmt::Debug for LedgerWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LedgerWriter").field("place", &self.place()).finish_non_exhaustive()
    }
}
