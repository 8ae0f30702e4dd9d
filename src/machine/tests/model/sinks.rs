//! Sinks in the plainest words: all that happened to machines of an id, in order, and how far each sink has come.

use super::*;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    Event(u128, i64),
    Life(i64, &'static str),
}

/// What one sink takes, and how far it has come in it.
#[derive(Clone, Debug, Default)]
struct Sink {
    name: &'static str,
    events: bool,
    lives: bool,
    all: Vec<Entry>,
    /// So many were acknowledged.
    known: usize,
    /// So many, as far as the store knows.
    stored: usize,
    /// So many reached the sink.
    received: usize,
    /// Deliveries whose answers are still to come: from where to where, and what was sent.
    under_way: Vec<(usize, usize, Parcel)>,
}

#[derive(Clone, Debug)]
pub(super) struct Sinks {
    sinks: [Sink; 3],
    pub(super) look_at: Option<i64>,
}

// === impl Sinks ===

impl Default for Sinks {
    fn default() -> Self {
        let sink = |name, events, lives| Sink { name, events, lives, ..Sink::default() };
        Self {
            sinks: [sink("events", true, false), sink("life", false, true), sink("both", true, true)],
            look_at: None,
        }
    }
}

impl Sinks {
    /// What a commit tells: the new events, and the machine's change from `before` to `after`.
    pub(super) fn owe(&mut self, before: &Model, after: &Model, now: i64) {
        let new = before.epoch != after.epoch && after.is != Is::Nothing;
        let mut entries = Vec::new();
        let fell = after.failed && (!before.failed || new || (after.tag_taken && !before.tag_taken));
        if new {
            entries.push(Entry::Life(now, "created"));
        } else if before.failed && after.is == Is::Here && (!after.failed || fell) {
            entries.push(Entry::Life(now, "repaired"));
        }
        if after.is != Is::Nothing {
            let known = if new { 0 } else { before.events };
            entries.extend((known + 1..=after.events).map(|id| Entry::Event(after.epoch, id)));
        }
        if fell {
            entries.push(Entry::Life(now, "failed"));
        } else if matches!(after.is, Is::Gone(_)) && (new || before.is == Is::Here) {
            entries.push(Entry::Life(now, "removed"));
        }
        for sink in &mut self.sinks {
            let (events, lives) = (sink.events, sink.lives);
            let taken = |entry: &&Entry| if let Entry::Event(..) = entry { events } else { lives };
            sink.all.extend(entries.iter().filter(taken).cloned());
            sink.stored = sink.known;
        }
        let unsent = self.sinks.iter().any(|sink| sink.known < sink.all.len());
        // In the second half of the time until it is due, it moves.
        self.look_at = match self.look_at {
            _ if !unsent => None,
            Some(due) if (OUTBOX_CLEAR_MS / 2..=OUTBOX_CLEAR_MS).contains(&(due - now)) => Some(due),
            _ => Some(now + OUTBOX_CLEAR_MS),
        };
    }

    pub(super) fn are_done(&self) -> bool {
        self.sinks.iter().all(|sink| sink.known == sink.all.len())
    }

    pub(super) fn want(&self, epoch: u128) -> bool {
        self.sinks.iter().any(|sink| {
            sink.all[sink.known..].iter().any(|entry| matches!(entry, Entry::Event(wanted, _) if *wanted == epoch))
        })
    }

    /// A sink is sent what the record owes it first, at most so many events of it, read from the journal.
    pub(super) fn send(&mut self, place: usize, most: i64, real: &Real) {
        let sink = &mut self.sinks[place];
        let Some(record) = &real.record else { return };
        let Some(front) = owed(record, sink.name).first().cloned() else { return };
        let front = match front {
            Parcel::Events { epoch, first, last } => Parcel::Events { epoch, first, last: last.min(first + most) },
            life => life,
        };
        if let Parcel::Events { epoch, first, last } = front {
            assert!((first..=last).all(|id| real.journal.contains_key(&(epoch, id))), "owed, but deleted: {front:?}");
        }
        let sent = entries([&front]);
        let (from, to) = (sink.known, sink.known + sent.len());
        assert_eq!(sink.all[from..to], sent[..]);
        assert!(from <= sink.received, "the sink misses something");
        sink.received = sink.received.max(to);
        sink.under_way.push((from, to, front));
    }

    /// An answer arrives, of whichever delivery, maybe not for the last time.
    pub(super) fn acknowledge(&mut self, place: usize, which: usize, again: bool, real: &mut Real) {
        let sink = &mut self.sinks[place];
        if sink.under_way.is_empty() {
            return;
        }
        let which = which % sink.under_way.len();
        let (from, to, parcel) = sink.under_way[which].clone();
        if !again {
            sink.under_way.remove(which);
        }
        if let Some(record) = &mut real.record {
            record.acknowledge(sink.name, &parcel);
        }
        // Deliveries go out one by one, so what stands before acknowledged events in their parcel was acknowledged too,
        // though a crash may have made the record forget it.
        let rest = &sink.all[sink.known..];
        let first = rest.first().cloned();
        let parcel = rest.iter().take_while(
            |it| matches!((it, &first), (Entry::Event(epoch, _), Some(Entry::Event(of, _))) if epoch == of),
        );
        let ahead = from > sink.known && to <= sink.known + parcel.count();
        if sink.known < to && (from <= sink.known || ahead) {
            sink.known = to;
        }
    }

    /// What was not stored is forgotten; answers may still come.
    pub(super) fn crash(&mut self) {
        for sink in &mut self.sinks {
            sink.known = sink.stored;
        }
    }

    /// Everything that happened is owed exactly once and in order, but for what was acknowledged.
    pub(super) fn check(&self, record: Option<&Record>) {
        for sink in &self.sinks {
            let owed = record.map(|record| owed(record, sink.name)).unwrap_or_default();
            assert_eq!(entries(&owed), sink.all[sink.known..], "{}", sink.name);
            assert!(sink.known <= sink.received, "nothing is taken off that the sink has not got");
        }
        let count = |sink: &Sink| sink.all[sink.known..].iter().filter(|it| matches!(it, Entry::Event(..))).count();
        let unsent: usize = self.sinks.iter().map(count).sum();
        assert_eq!(record.map_or(0, unsent_events), unsent as u64);
    }

    /// The kinds of what the sinks got.
    pub(super) fn saw(&self) -> BTreeSet<&'static str> {
        let kinds = self.sinks.iter().flat_map(|sink| &sink.all[..sink.received]);
        kinds.map(|entry| if let Entry::Life(_, change) = entry { change } else { "event" }).collect()
    }
}

fn entries<'a>(parcels: impl IntoIterator<Item = &'a Parcel>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for parcel in parcels {
        match parcel {
            Parcel::Events { epoch, first, last } => {
                assert!(first <= last, "an empty parcel");
                entries.extend((*first..=*last).map(|id| Entry::Event(u128::from_be_bytes(epoch.0), id)));
            }
            Parcel::Lifecycle(Lifecycle { at_micros, change }) => {
                let change = match change {
                    LifeChange::Created => "created",
                    LifeChange::Failed { .. } => "failed",
                    LifeChange::Repaired => "repaired",
                    LifeChange::Removed => "removed",
                };
                entries.push(Entry::Life(at_micros / 1_000, change));
            }
        }
    }
    entries
}
