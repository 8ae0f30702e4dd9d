//! What a commit still owes to sinks, and the changes of life that go there beside events.

use serde::{Deserialize, Serialize};

use super::key::Epoch;
use super::record::{Debt, Record, Status, commit_id};

/// Parcels that one sink is owed by one machine, past which the machine begins no new life: nothing starts over it, and
/// no repair takes place. All that adds parcels without end begins with one of these; the steps of a working machine
/// only lengthen the last parcel.
pub const MOST_PARCELS: usize = 1_000;

/// Bytes of failures' reasons that wait for one sink in one record. What no longer fits is cut down to
/// [`SHORTEST_REASON`], since every commit carries all of it.
pub const MOST_REASONS: usize = 16 * 1024;

/// Bytes that are kept of any reason.
pub const SHORTEST_REASON: usize = 64;

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
    /// A place in the sink's own order that all of this comes behind, if the sink has any of it already: nobody need look
    /// for it further back. 0: anywhere.
    #[serde(default, skip_serializing_if = "is_anywhere")]
    pub behind: i64,
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

/// Records that owe nothing to a sink with an order of its own keep the bytes that they always had.
fn is_anywhere(behind: &i64) -> bool {
    *behind == 0
}

/// What a step did to the machine's life, in order.
pub fn life_changes(before: Option<&Record>, after: &Record) -> Vec<LifeChange> {
    // A Start finds no machine, be it over a tombstone. The steps of a tombstone change no life.
    let found = before.filter(|record| record.epoch == after.epoch).map(|record| &record.status);
    let mut changes = Vec::new();
    match (found, &after.status) {
        (None, _) => changes.push(LifeChange::Created),
        // A repair that took effect and claimed a tag in vain: failed again, for another reason.
        (Some(before @ Status::Failed { .. }), after @ (Status::Working(_) | Status::Failed { .. }))
            if before != after =>
        {
            changes.push(LifeChange::Repaired);
        }
        _ => {}
    }
    if found != Some(&after.status) {
        match (found, &after.status) {
            (_, Status::Failed { reason, .. }) => changes.push(LifeChange::Failed { reason: reason.clone() }),
            (Some(Status::Removed { .. }), _) | (_, Status::Working(_)) => {}
            (_, Status::Removed { .. }) => changes.push(LifeChange::Removed),
        }
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
        let entries = changes.iter().filter(|_| subscription.lifecycle).map(|change| Lifecycle {
            at_micros,
            change: match change {
                LifeChange::Failed { reason } => {
                    LifeChange::Failed { reason: after.shortened(&subscription.sink, reason) }
                }
                other => other.clone(),
            },
        });
        // A life begins before the events that it brings, and ends after them.
        let (ahead, behind): (Vec<_>, Vec<_>) =
            entries.partition(|entry| matches!(entry.change, LifeChange::Created | LifeChange::Repaired));
        let mut parcels: Vec<_> = ahead.into_iter().map(Parcel::Lifecycle).collect();
        if subscription.events && events > 0 {
            let last = after.last_event;
            parcels.push(Parcel::Events { epoch: after.epoch, first: last - events as i64 + 1, last });
        }
        parcels.extend(behind.into_iter().map(Parcel::Lifecycle));
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
            Self::Events { first, last, .. } if first <= last => last.abs_diff(*first).saturating_add(1),
            Self::Events { .. } | Self::Lifecycle(_) => 0,
        }
    }
}

// === impl Unsent ===

impl Unsent {
    /// Takes out what the sink acknowledged, if it stands in front. Anything else is passed over: it was acknowledged
    /// before, or is not what the store knows, and is sent again. True: something was taken out.
    pub fn acknowledge(&mut self, sent: &Parcel) -> bool {
        match (self.parcels.first_mut(), sent) {
            // All that stood before it was acknowledged earlier, even if this record was read again since.
            (
                Some(Parcel::Events { epoch, first, last }),
                Parcel::Events { epoch: sent_epoch, last: sent_last, .. },
            ) if epoch == sent_epoch && *first <= *sent_last => {
                if *sent_last < *last {
                    *first = sent_last + 1;
                } else {
                    drop(self.parcels.remove(0));
                }
                true
            }
            (Some(front @ Parcel::Lifecycle(_)), sent) if front == sent => {
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
        self.parcels.iter().map(entries).fold(0, u64::saturating_add)
    }

    fn push(&mut self, parcel: Parcel) {
        if let (
            Some(Parcel::Events { epoch, last, .. }),
            Parcel::Events { epoch: next_epoch, first: next_first, last: next_last },
        ) = (self.parcels.last_mut(), &parcel)
            && epoch == next_epoch
            && last.checked_add(1) == Some(*next_first)
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
                self.unsent.push(Unsent { sink: sink.to_owned(), parcels: Vec::new(), behind: 0 });
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

    /// Notes a place in a sink's order that all comes behind of what it is owed now. No step takes one back.
    pub fn stands_behind(&mut self, sink: &str, place: i64) {
        if let Some(unsent) = self.unsent.iter_mut().find(|unsent| unsent.sink == sink) {
            unsent.behind = unsent.behind.max(place);
        }
    }

    /// Whether a sink has not acknowledged something.
    pub fn owes(&self, sink: &str) -> bool {
        self.unsent.iter().any(|unsent| unsent.sink == sink)
    }

    /// Whether some sink still wants to read this epoch's events: until then they are not deleted.
    pub fn is_unsent(&self, epoch: Epoch) -> bool {
        let mut parcels = self.unsent.iter().flat_map(|unsent| &unsent.parcels);
        parcels.any(|parcel| matches!(parcel, Parcel::Events { epoch: unsent, .. } if *unsent == epoch))
    }

    /// Deletions whose events no sink waits for, and of which the store knows so.
    pub fn payable(&self) -> impl Iterator<Item = &Debt> {
        self.debts.iter().filter(|debt| !debt.wanted)
    }

    /// The sink that is owed so much that no new life may begin, if there is one.
    pub fn hindered_by(&self) -> Option<&str> {
        self.unsent.iter().find(|unsent| unsent.parcels.len() >= MOST_PARCELS).map(|unsent| &*unsent.sink)
    }

    /// As much of a reason as there is room for among what waits for `sink`.
    fn shortened(&self, sink: &str, reason: &str) -> String {
        let parcels = self.unsent.iter().filter(|unsent| unsent.sink == sink).flat_map(|unsent| &unsent.parcels);
        let waiting = parcels.map(|parcel| match parcel {
            Parcel::Lifecycle(Lifecycle { change: LifeChange::Failed { reason }, .. }) => reason.len(),
            Parcel::Lifecycle(_) | Parcel::Events { .. } => 0,
        });
        let room = MOST_REASONS.saturating_sub(waiting.sum()).max(SHORTEST_REASON);
        reason[..reason.floor_char_boundary(room)].to_owned()
    }
}
