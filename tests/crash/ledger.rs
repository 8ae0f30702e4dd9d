//! What a ledger must hold, from what the clients were told; and its chain, by the formula alone.

use std::collections::HashMap;

use machinegun::wire::{Direction, Event, HistoryRange, SinkEvent, Wire, Writer};
use sha2::{Digest, Sha256};

use super::client::Client;
use super::life::read;
use crate::process::peer::{Answer, Peer};
use crate::process::processor::{Order, text};
use crate::process::soon;

/// Entries read at once.
const PAGE: i32 = 1_000;
/// Entries read at once by who looks for the newest.
const NEWEST: i32 = 50;

/// A reader that has seen a ledger up to some entry.
pub struct Follower {
    sink: String,
    reached: i64,
}

/// A ledger from its first entry to its last.
#[derive(PartialEq)]
pub struct Ledger {
    sink: String,
    entries: Vec<SinkEvent>,
}

/// A machine's namespace and id.
type Source = (String, String);

// === impl Follower ===

impl Follower {
    pub fn of(sink: &str) -> Self {
        Self { sink: sink.to_owned(), reached: 0 }
    }

    /// The events of a Call that was answered are there at once, together.
    pub async fn finds(&mut self, peer: &Peer, ns: &str, id: &str, order: &Order) -> Answer<()> {
        let expected = order.texts();
        let mut found: Vec<(i64, String)> = Vec::new();
        let mut before = None;
        loop {
            let range = HistoryRange { after: before, limit: Some(NEWEST), direction: Direction::Backward };
            let page = peer.ledger(&self.sink, range).await?;
            for entry in &page {
                let text = text(&entry.event.data);
                if source(entry) == (ns.to_owned(), id.to_owned()) && expected.contains(&text) {
                    found.push((entry.id, text));
                }
            }
            if found.len() >= expected.len() {
                break;
            }
            before = page.last().map(|entry| entry.id).filter(|last| *last > self.reached + 1);
            assert!(
                before.is_some(),
                "{ns} {id}: a Call was answered, and of its {} events ledger {} has {found:?} behind {}",
                expected.len(),
                self.sink,
                self.reached
            );
        }
        found.reverse();
        let (first, last) = (found[0].0, found[found.len() - 1].0);
        let texts: Vec<_> = (first..=last).zip(expected).collect();
        assert_eq!(found, texts, "{ns} {id}: a Call's events in ledger {}", self.sink);
        assert!(first > self.reached, "{ns} {id}: entry {first} of ledger {} is no new one", self.sink);
        self.reached = last;
        Ok(())
    }
}

// === impl Ledger ===

impl Ledger {
    pub fn of(sink: &str) -> Self {
        Self { sink: sink.to_owned(), entries: Vec::new() }
    }

    pub fn last(&self) -> i64 {
        self.entries.last().map_or(0, |entry| entry.id)
    }

    /// Reads on to the end. The ids have no gaps.
    pub async fn read_on(&mut self, peer: &Peer) {
        loop {
            let after = Some(self.last()).filter(|last| *last > 0);
            let range = HistoryRange { after, limit: Some(PAGE), direction: Direction::Forward };
            let page = soon("GetHistory", peer.ledger(&self.sink, range)).await.expect("an answer");
            let ids = page.iter().map(|entry| entry.id);
            assert!(ids.eq((self.last() + 1..).take(page.len())), "{}: a gap behind {}", self.sink, self.last());
            if page.is_empty() {
                return;
            }
            self.entries.extend(page);
        }
    }

    /// What was read before is its beginning still.
    pub fn continues(&self, before: &Self) {
        assert!(self.last() >= before.last(), "{}: its end is gone", self.sink);
        for (was, is) in before.entries.iter().zip(&self.entries) {
            assert_eq!(was, is, "{}: an entry has changed", self.sink);
        }
    }

    /// The chain's hash behind entry `last`, which must be the last of a step: SHA-256 over the previous hash and the
    /// entries of one step at a time.
    pub fn hash_at(&self, last: i64) -> String {
        let mut hash = [0_u8; 32];
        let upto = &self.entries[..last as usize];
        for step in upto.chunk_by(|_, next| !begins_a_step(next)) {
            let mut hasher = Sha256::new();
            hasher.update(hash);
            for entry in step {
                let mut writer = Writer::with_capacity(400);
                entry.write(&mut writer);
                hasher.update(writer.into_bytes());
            }
            hash = hasher.finalize().into();
        }
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// It holds each event of each life of the clients' machines once, in the machine's order, and no others. Returns how
    /// many lives ended before, and were told apart.
    pub fn holds_the_lives_of(&self, clients: &[&Client]) -> usize {
        let mut epochs = self.epochs();
        let mut ended = 0;
        for client in clients {
            for machine in &client.machines {
                let found = epochs.remove(&(client.ns.clone(), machine.id.clone())).unwrap_or_default();
                let which = format!("{}: {} {}", self.sink, client.ns, machine.id);
                assert_eq!(found.len(), machine.lives().count(), "{which}: that many lives");
                ended += found.len() - usize::from(machine.life.is_some());
                for (events, life) in found.iter().zip(machine.lives()) {
                    life.contradicts_events(events).unwrap_or_else(|why| panic!("{which}: {why}"));
                }
            }
        }
        assert!(epochs.is_empty(), "{}: nobody has machines {:?}", self.sink, epochs.keys());
        ended
    }

    /// The machines that live have histories that begin as the ledger says; it was read before them.
    pub async fn begins_the_histories_of(&self, clients: &[&Client], peer: &Peer) {
        let epochs = self.epochs();
        for client in clients {
            let peer = peer.in_namespace(&client.ns);
            for machine in client.machines.iter().filter(|it| it.life.is_some()) {
                let found = soon("GetMachine", peer.machine(&machine.id)).await.expect("an answer");
                let history = read(&found.expect("the machine"));
                let events = epochs[&(client.ns.clone(), machine.id.clone())].last().expect("a life");
                assert!(history.starts_with(events), "{}: {} {}", self.sink, client.ns, machine.id);
            }
        }
    }

    /// Of these namespaces both say the same about every machine.
    pub fn agrees_with(&self, all: &Self, namespaces: &[&str]) {
        let mut others = all.epochs();
        others.retain(|(ns, _), _| namespaces.contains(&ns.as_str()));
        let epochs = self.epochs();
        assert_eq!(epochs.len(), others.len(), "{} has the machines that {} has", self.sink, all.sink);
        for (source, events) in epochs {
            assert_eq!(Some(&events), others.get(&source), "{source:?} in {} and in {}", self.sink, all.sink);
        }
    }

    /// Each machine's events, a list for each time that they begin at 1.
    fn epochs(&self) -> HashMap<Source, Vec<Vec<Event>>> {
        let mut epochs: HashMap<Source, Vec<Vec<Event>>> = HashMap::new();
        for entry in &self.entries {
            let epochs = epochs.entry(source(entry)).or_default();
            if entry.event.id == 1 {
                epochs.push(Vec::new());
            }
            let epoch = epochs.last_mut().unwrap_or_else(|| panic!("{}: {entry:?} is of no life", self.sink));
            epoch.push(entry.event.clone());
        }
        epochs
    }
}

fn source(entry: &SinkEvent) -> Source {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (text(&entry.source_ns), text(&entry.source_id))
}

/// A step's first event; a timer's and a notification's step have no other.
fn begins_a_step(entry: &SinkEvent) -> bool {
    let text = text(&entry.event.data);
    match text.strip_prefix("step:") {
        Some(step) => step.split(' ').next().is_some_and(|step| step.ends_with("/1")),
        None => true,
    }
}
