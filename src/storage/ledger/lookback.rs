//! Looks for what a writer has forgotten, or never knew: the events of a few sources in blocks further back. Rare: after a
//! restart for what was delivered and not noted, and for debts that are old.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::append::{Append, Link, Source};
use super::marks::Mark;
use crate::storage::{Storage, StorageError};

/// What was found in the blocks that were asked for.
type Found = Result<Option<Mark>, StorageError>;

pub struct Lookback {
    sink: String,
    wanted: Mutex<Vec<Wanted>>,
    /// Held by who reads. All that is wanted by then is looked for at once: however many ask, the blocks are read once.
    turn: tokio::sync::Mutex<()>,
}

struct Wanted {
    source: Source,
    behind: i64,
    until: i64,
    answer: oneshot::Sender<Found>,
}

// === impl Lookback ===

impl Lookback {
    pub fn new(sink: &str) -> Self {
        Self { sink: sink.to_owned(), wanted: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    fn wanted(&self) -> MutexGuard<'_, Vec<Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the blocks behind entry `behind` have of the source, those that begin behind `until` aside.
    pub async fn look(&self, store: &Arc<dyn Storage>, source: Source, behind: i64, until: i64) -> Found {
        loop {
            let (answer, mut found) = oneshot::channel();
            self.wanted().push(Wanted { source, behind, until, answer });
            let turn = self.turn.lock().await;
            match found.try_recv() {
                Ok(found) => return found,
                // Who had taken it was dropped while reading.
                Err(oneshot::error::TryRecvError::Closed) => continue,
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let wanted = std::mem::take(&mut *self.wanted());
            let read = self.read(store, &wanted).await;
            for it in wanted {
                let found = read.as_ref().map(|marks| marks.get(&it.source).copied());
                // Who does not wait any more asks again.
                let _ = it.answer.send(found.map_err(Clone::clone));
            }
            drop(turn);
            if let Ok(found) = found.try_recv() {
                return found;
            }
        }
    }

    async fn read(&self, store: &Arc<dyn Storage>, wanted: &[Wanted]) -> Result<HashMap<Source, Mark>, StorageError> {
        let ledger = appended(store)?;
        let mut marks: HashMap<Source, Mark> = HashMap::new();
        let Some(mut after) = wanted.iter().map(|it| it.behind).min() else { return Ok(marks) };
        let until = wanted.iter().map(|it| it.until).max().unwrap_or(after);
        let sources: std::collections::HashSet<_> = wanted.iter().map(|it| it.source).collect();
        while after < until {
            let page = ledger.links(&self.sink, after).await?;
            for link in &page {
                let runs = link.runs.iter().filter(|run| sources.contains(&run.source));
                marks.extend(runs.map(|run| (run.source, Mark { last: run.last, before: link.first - 1 })));
            }
            match page.last() {
                Some(Link { last, .. }) => after = *last,
                None => break,
            }
        }
        Ok(marks)
    }
}

/// The ledgers of a store that was found to have them.
pub fn appended(store: &Arc<dyn Storage>) -> Result<&dyn Append, StorageError> {
    let none = || StorageError::Unavailable("this store appends to no ledgers".to_owned());
    store.appended_ledger().ok_or_else(none)
}
