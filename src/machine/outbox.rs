//! What a commit still owes to sinks, and the changes of life that go there beside events.

use serde::{Deserialize, Serialize};

use super::key::Epoch;
use super::record::{Record, Status, commit_id};

/// A sink as the namespace names it, and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub sink: String,
    pub events: bool,
    pub lifecycle: bool,
}

/// What one sink has not acknowledged, in the order in which it must get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsent {
    pub sink: String,
    pub parcels: Vec<Parcel>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Parcel {
    /// Consecutive events of one epoch, both ends included.
    Events {
        #[serde(with = "commit_id")]
        epoch: Epoch,
        first: i64,
        last: i64,
    },
    Lifecycle(Lifecycle),
}

/// A change in a machine's life, at a unix time in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    pub at_micros: i64,
    pub change: LifeChange,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LifeChange {
    Created,
    Failed { reason: String },
    Repaired,
    Removed,
}

/// What a step did to the machine's life, in order.
pub fn life_changes(before: Option<&Record>, after: &Record) -> Vec<LifeChange> {
    let lived = before.is_some_and(Record::exists);
    let was_failed = before.is_some_and(|record| matches!(record.status, Status::Failed { .. }));
    let mut changes = Vec::new();
    // A tombstone that pays goes on being one.
    if !lived && before.is_none_or(|record| record.epoch != after.epoch) {
        changes.push(LifeChange::Created);
    }
    match &after.status {
        Status::Failed { reason, .. } if !was_failed => changes.push(LifeChange::Failed { reason: reason.clone() }),
        Status::Working(_) if was_failed => changes.push(LifeChange::Repaired),
        Status::Removed { .. } if lived || before.is_none_or(|record| record.epoch != after.epoch) => {
            changes.push(LifeChange::Removed);
        }
        Status::Failed { .. } | Status::Working(_) | Status::Removed { .. } => {}
    }
    changes
}

/// Adds a step's events and changes of life to what each sink is owed.
pub(super) fn owe(
    before: Option<&Record>,
    after: &mut Record,
    events: usize,
    subscriptions: &[Subscription],
    at_micros: i64,
) {
    let changes = life_changes(before, after);
    for subscription in subscriptions {
        let mut parcels = Vec::new();
        if subscription.events && events > 0 {
            let last = after.last_event;
            parcels.push(Parcel::Events { epoch: after.epoch, first: last - events as i64 + 1, last });
        }
        if subscription.lifecycle {
            let entries =
                changes.iter().map(|change| Parcel::Lifecycle(Lifecycle { at_micros, change: change.clone() }));
            // Created comes before the events, all else after them.
            let place = if changes.first() == Some(&LifeChange::Created) { 1 } else { 0 };
            let mut entries: Vec<_> = entries.collect();
            let behind = entries.split_off(place.min(entries.len()));
            entries.append(&mut parcels);
            entries.extend(behind);
            parcels = entries;
        }
        if !parcels.is_empty() {
            after.owe(&subscription.sink, parcels);
        }
    }
}

// === impl Parcel ===

impl Parcel {
    /// How many events it has.
    pub fn events(&self) -> u64 {
        match self {
            Self::Events { first, last, .. } if first <= last => last.abs_diff(*first) + 1,
            Self::Events { .. } | Self::Lifecycle(_) => 0,
        }
    }
}

// === impl Unsent ===

impl Unsent {
    /// Takes out what the sink acknowledged, if it stands in front. What was acknowledged before is passed over.
    /// True: something was taken out.
    pub fn acknowledge(&mut self, sent: &Parcel) -> bool {
        match (self.parcels.first_mut(), sent) {
            // All that stood before it was acknowledged earlier, even if this record was read again since.
            (
                Some(Parcel::Events { epoch, first, last }),
                Parcel::Events { epoch: sent_epoch, first: sent_first, last: sent_last },
            ) if epoch == sent_epoch && *first <= *sent_first && *first <= *sent_last => {
                if *sent_last < *last {
                    *first = sent_last + 1;
                } else {
                    drop(self.parcels.remove(0));
                }
                true
            }
            (Some(front), sent) if front == sent => {
                drop(self.parcels.remove(0));
                true
            }
            _ => false,
        }
    }

    /// How many events and changes of life the sink has not acknowledged.
    pub fn entries(&self) -> u64 {
        let entries = |parcel: &Parcel| match parcel {
            Parcel::Events { .. } => parcel.events(),
            Parcel::Lifecycle(_) => 1,
        };
        self.parcels.iter().map(entries).sum()
    }

    fn push(&mut self, parcel: Parcel) {
        if let (
            Some(Parcel::Events { epoch, last, .. }),
            Parcel::Events { epoch: next_epoch, first: next_first, last: next_last },
        ) = (self.parcels.last_mut(), &parcel)
            && epoch == next_epoch
            && *last + 1 == *next_first
        {
            *last = *next_last;
            return;
        }
        self.parcels.push(parcel);
    }
}

// === impl Record ===

impl Record {
    fn owe(&mut self, sink: &str, parcels: Vec<Parcel>) {
        let place = match self.unsent.iter().position(|unsent| unsent.sink == sink) {
            Some(place) => place,
            None => {
                self.unsent.push(Unsent { sink: sink.to_owned(), parcels: Vec::new() });
                self.unsent.len() - 1
            }
        };
        for parcel in parcels {
            self.unsent[place].push(parcel);
        }
    }

    /// Takes out what a sink acknowledged. The store learns of it with the next commit. True: something was taken out.
    pub fn acknowledge(&mut self, sink: &str, sent: &Parcel) -> bool {
        let unsent = self.unsent.iter_mut().find(|unsent| unsent.sink == sink);
        let taken = unsent.is_some_and(|unsent| unsent.acknowledge(sent));
        self.unsent.retain(|unsent| !unsent.parcels.is_empty());
        taken
    }

    /// Whether some sink still wants to read this epoch's events: until then they are not deleted.
    pub fn is_unsent(&self, epoch: Epoch) -> bool {
        let mut parcels = self.unsent.iter().flat_map(|unsent| &unsent.parcels);
        parcels.any(|parcel| matches!(parcel, Parcel::Events { epoch: unsent, .. } if *unsent == epoch))
    }

    /// Deletions whose events no sink waits for.
    pub fn payable(&self) -> impl Iterator<Item = &super::record::Debt> {
        self.debts.iter().filter(|debt| !self.is_unsent(debt.epoch))
    }
}
