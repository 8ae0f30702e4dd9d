//! What is queued for the writer: keys and values as they will be stored, encoded in the caller's task.

use fjall::{UserKey, UserValue};
use tokio::sync::oneshot;

use super::draft::{Draft, Table};
use super::keys::{self, DueKey, MachinePrefix};
use super::ledger::Entering;
use super::space::Space;
use super::stats::WriterStats;
use super::values::{self, Entry};
use crate::machine::{
    CommitId, Head, MachineId, MachineKey, Namespace, Notification, NotificationId, Status, StatusKind,
};
use crate::storage::{Commit, Outcome, StorageError};

/// One write, and who waits for it.
pub struct Request {
    pub work: Work,
    pub answer: oneshot::Sender<Outcome>,
}

pub enum Work {
    Commit(Box<CommitWork>),
    PutNotification { machine: UserKey, id: NotificationId, key: UserKey, entry: UserValue, due: i64 },
    Settle(Settlement),
    DeleteEvents(Vec<UserKey>),
}

pub struct CommitWork {
    machine: UserKey,
    expect: Option<CommitId>,
    /// None: the record goes.
    record: Option<NewRecord>,
    /// Takes no more room than it gives back: done below the reserve too.
    frees: bool,
    events: Vec<(UserKey, UserValue)>,
    /// Each stands already.
    replaced: Vec<(UserKey, UserValue)>,
    tag: Option<Claim>,
    entering: Option<Entering>,
    settlement: Settlement,
}

/// A tag that the commit's machine wants to hold.
struct Claim {
    ns: Namespace,
    by: MachineId,
    key: UserKey,
}

/// What stands in the way of a tag.
enum Claimed {
    Already,
    Free,
    Taken,
}

struct NewRecord {
    commit: CommitId,
    due: Option<i64>,
    value: UserValue,
}

/// Notifications' entries that go, and entries that lose their due.
pub struct Settlement {
    machine: UserKey,
    delete: Vec<(NotificationId, UserKey)>,
    park: Vec<(NotificationId, UserKey)>,
}

/// Why a write could not be tried: what is stored of this machine is broken, or the engine is.
pub enum Broken {
    Stored(StorageError),
    Engine(fjall::Error),
}

// === impl Work ===

impl Work {
    pub fn put_notification(key: &MachineKey, it: &Notification, due: i64) -> Self {
        Self::PutNotification {
            machine: keys::machine(key),
            id: it.id,
            key: MachinePrefix::new(key).notification(it.id),
            entry: Entry::encode(it, due),
            due,
        }
    }

    /// The id under which this write could be put again.
    pub fn commit_id(&self) -> Option<CommitId> {
        match self {
            Self::Commit(work) => work.record.as_ref().map(|record| record.commit),
            Self::PutNotification { .. } | Self::Settle(_) | Self::DeleteEvents(_) => None,
        }
    }

    /// Lays the write over the draft, if it may be done. An error is the engine's, and fatal.
    ///
    /// INVARIANT: all that is read is read before the first change: a write is in the draft whole, or not at all.
    pub fn stage(self, draft: &mut Draft<'_>, space: &mut Space, stats: &WriterStats) -> fjall::Result<Outcome> {
        let staged = match self {
            Self::Commit(work) => work.stage(draft, space, stats),
            Self::PutNotification { machine, id, key, entry, due } => (|| {
                if let Some(present) = draft.get(Table::Notifications, &key)? {
                    let same = Entry::read(&present)?.holds_as(&Entry::read(&entry)?);
                    return Ok(if same { Outcome::Committed } else { Outcome::Conflict });
                }
                space.check(stats)?;
                draft.put(Table::Notifications, key, entry);
                if due != i64::MAX {
                    draft.put(Table::Dues, DueKey::encode(due, Some(id), &machine), values::due());
                }
                Ok(Outcome::Committed)
            })(),
            Self::Settle(settlement) => settlement.dues(draft).map(|dues| {
                settlement.apply(draft, dues);
                Outcome::Committed
            }),
            Self::DeleteEvents(keys) => {
                keys.into_iter().for_each(|key| draft.remove(Table::Events, key));
                Ok(Outcome::Committed)
            }
        };
        match staged {
            Ok(outcome) => Ok(outcome),
            Err(Broken::Stored(error)) => Ok(Outcome::Refused(error)),
            Err(Broken::Engine(error)) => Err(error),
        }
    }
}

// === impl CommitWork ===

impl CommitWork {
    pub fn new(commit: &Commit) -> Self {
        let prefix = MachinePrefix::new(&commit.key);
        let machine = keys::machine(&commit.key);
        let events = commit.record.as_ref().map_or_else(Vec::new, |record| {
            let first = record.last_event - commit.events.len() as i64 + 1;
            let numbered = (first..).zip(&commit.events);
            numbered.map(|(id, event)| (prefix.event(record.epoch, id), values::encode_event(event))).collect()
        });
        let replaced = commit.record.as_ref().map_or_else(Vec::new, |record| {
            let replaced = commit.replaced_events.iter();
            replaced.map(|(id, event)| (prefix.event(record.epoch, *id), values::encode_event(event))).collect()
        });
        let tag = commit.tag.as_ref().filter(|_| commit.record.is_some()).map(|tag| Claim {
            ns: commit.key.ns.clone(),
            by: commit.key.id.clone(),
            key: keys::tag(&commit.key.ns, tag),
        });
        let removed = |status: &Status| matches!(status, Status::Removed { .. });
        let adds = !events.is_empty() || !replaced.is_empty() || tag.is_some();
        let frees = commit.record.as_ref().is_none_or(|record| removed(&record.status) && !adds);
        let record = commit.record.as_ref().map(|record| NewRecord {
            commit: record.commit,
            due: record.due().filter(|at| *at != i64::MAX),
            value: UserValue::from(&record.encode()[..]),
        });
        let settlement = Settlement::new(&commit.key, &commit.delete_notifications, &commit.park_notifications);
        let entering = Entering::new(commit);
        Self { machine, expect: commit.expect, record, frees, events, replaced, tag, entering, settlement }
    }

    fn stage(self, draft: &mut Draft<'_>, space: &mut Space, stats: &WriterStats) -> Result<Outcome, Broken> {
        let present = draft.get(Table::Machines, &self.machine)?;
        let head = present.as_deref().map(Head::read).transpose().map_err(values::corrupt)?;
        match (head, &self.record) {
            (Some(head), Some(record)) if head.remembers(record.commit) => return Ok(Outcome::Committed),
            (None, None) => return Ok(Outcome::Committed),
            (head, _) if head.map(|head| head.commit) != self.expect => return Ok(Outcome::Conflict),
            _ => {}
        }
        for (key, _) in &self.replaced {
            if !draft.contains(Table::Events, key)? {
                let missing = "an event that should be replaced is not stored";
                return Err(StorageError::Corrupt(missing.to_owned()).into());
            }
        }
        let claim = match self.tag {
            None => None,
            Some(claim) => match claim.look(draft)? {
                Claimed::Taken => return Ok(Outcome::TagTaken),
                Claimed::Already => None,
                Claimed::Free => Some(claim),
            },
        };
        // IMPORTANT: only now: a refusal says that the commit is surely not done, by no earlier put either.
        if !self.frees {
            space.check(stats)?;
        }
        let settled = self.settlement.dues(draft)?;
        let entered = self.entering.map(|entering| entering.chain(draft)).transpose()?;
        let (was, is) = (head.and_then(|head| head.due), self.record.as_ref().and_then(|record| record.due));
        if was != is {
            if let Some(due) = was {
                draft.remove(Table::Dues, DueKey::encode(due, None, &self.machine));
            }
            if let Some(due) = is {
                draft.put(Table::Dues, DueKey::encode(due, None, &self.machine), values::due());
            }
        }
        match self.record {
            Some(record) => {
                let events = self.replaced.into_iter().chain(self.events);
                events.for_each(|(key, event)| draft.put(Table::Events, key, event));
                if let Some(Claim { by, key, .. }) = claim {
                    draft.put(Table::Tags, key, values::encode_tag(&by));
                }
                if let Some(entered) = entered {
                    entered.apply(draft);
                }
                draft.put(Table::Machines, self.machine, record.value);
            }
            None => draft.remove(Table::Machines, self.machine),
        }
        self.settlement.apply(draft, settled);
        Ok(Outcome::Committed)
    }
}

// === impl Claim ===

impl Claim {
    /// The holder's record is looked at as the batch leaves it: of two that race within one, the second finds the first.
    fn look(&self, draft: &Draft<'_>) -> Result<Claimed, Broken> {
        let Some(holder) = draft.get(Table::Tags, &self.key)? else { return Ok(Claimed::Free) };
        let holder = values::decode_tag(&holder)?;
        if holder == self.by {
            return Ok(Claimed::Already);
        }
        let holder = keys::machine(&MachineKey { ns: self.ns.clone(), id: holder });
        let record = draft.get(Table::Machines, &holder)?;
        let head = record.as_deref().map(Head::read).transpose().map_err(values::corrupt)?;
        Ok(if head.is_some_and(|head| head.status != StatusKind::Removed) { Claimed::Taken } else { Claimed::Free })
    }
}

// === impl Settlement ===

impl Settlement {
    pub fn new(key: &MachineKey, delete: &[NotificationId], park: &[NotificationId]) -> Self {
        let machine = keys::machine(key);
        if delete.is_empty() && park.is_empty() {
            return Self { machine, delete: Vec::new(), park: Vec::new() };
        }
        let prefix = MachinePrefix::new(key);
        let keyed = |ids: &[NotificationId]| ids.iter().map(|id| (*id, prefix.notification(*id))).collect();
        Self { machine, delete: keyed(delete), park: keyed(park) }
    }

    /// The dues that go with it: an entry says its own.
    fn dues(&self, draft: &Draft<'_>) -> Result<Vec<UserKey>, Broken> {
        let mut dues = Vec::with_capacity(self.delete.len() + self.park.len());
        for (id, key) in self.delete.iter().chain(&self.park) {
            if let Some(entry) = draft.get(Table::Notifications, key)? {
                dues.push(DueKey::encode(Entry::read(&entry)?.due, Some(*id), &self.machine));
            }
        }
        Ok(dues)
    }

    fn apply(self, draft: &mut Draft<'_>, dues: Vec<UserKey>) {
        dues.into_iter().for_each(|key| draft.remove(Table::Dues, key));
        self.delete.into_iter().for_each(|(_, key)| draft.remove(Table::Notifications, key));
    }
}

// === impl Broken ===

impl From<fjall::Error> for Broken {
    fn from(error: fjall::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<StorageError> for Broken {
    fn from(error: StorageError) -> Self {
        Self::Stored(error)
    }
}
