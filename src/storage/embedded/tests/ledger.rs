//! A ledger whose stored bytes somebody changed behind the service's back, and a store from before there were ledgers.

use super::*;
use crate::storage::contract::ledgers::{entered, verified, wire_events};
use crate::storage::contract::tags::{claim, holder};
use crate::storage::ledger::{Broken, Hash, Head, entry, verify};

const SINK: &str = "all";

/// A store with one ledger: ten commits of two events each, written out and read from the disk.
async fn written() -> (Folder, Arc<Embedded>, Sample) {
    let folder = Folder::new();
    let store = folder.store();
    let mut sample = Sample::new("one");
    for step in 0..10 {
        let events = wire_events(step * 2 + 1..=step * 2 + 2);
        committed(&*store, entered(&mut sample, &events, &[SINK])).await;
    }
    store.close().await;
    drop(store);
    let store = folder.store();
    assert_eq!(verified(&*store, SINK).await.last, 20);
    (folder, store, sample)
}

/// Where a stored key of the ledger stands.
#[derive(Clone, Copy)]
enum At {
    Head,
    /// By its last entry.
    Block(i64),
    Entry(i64),
}

impl At {
    fn find(self, store: &Embedded) -> (fjall::Keyspace, fjall::UserKey) {
        let prefix = keys::LedgerPrefix::new(SINK);
        let opened = store.opened.read().unwrap();
        let engine = &opened.as_ref().unwrap().engine;
        match self {
            Self::Head => (engine.ledger_heads.clone(), prefix.head()),
            Self::Block(last) => (engine.ledger_blocks.clone(), prefix.at(last)),
            Self::Entry(id) => (engine.ledger_entries.clone(), prefix.at(id)),
        }
    }

    fn get(self, store: &Embedded) -> Vec<u8> {
        let (keyspace, key) = self.find(store);
        keyspace.get(key).unwrap().unwrap().to_vec()
    }

    fn put(self, store: &Embedded, value: &[u8]) {
        let (keyspace, key) = self.find(store);
        keyspace.insert(key, value).unwrap();
    }

    fn remove(self, store: &Embedded) {
        let (keyspace, key) = self.find(store);
        keyspace.remove(key).unwrap();
    }

    /// Turns one bit, and back.
    fn garble(self, store: &Embedded, byte: usize) {
        let mut value = self.get(store);
        value[byte] ^= 1;
        self.put(store, &value);
    }
}

#[tokio::test]
async fn each_changed_byte_of_an_entry_is_found_and_named() {
    let (_folder, store, _) = written().await;
    for byte in 0..At::Entry(7).get(&store).len() {
        At::Entry(7).garble(&store, byte);
        let named = match verify(&*store, SINK).await {
            Err(Broken::Entry { entry }) => entry,
            // In its id.
            Err(Broken::Missing { entry }) if (4..12).contains(&byte) => entry,
            found => panic!("byte {byte}: {found:?}"),
        };
        assert_eq!(named, 7, "byte {byte}");
        At::Entry(7).garble(&store, byte);
    }
    assert_eq!(verified(&*store, SINK).await.last, 20);
}

#[tokio::test]
async fn each_changed_byte_of_a_block_or_head_is_found_and_named() {
    let (_folder, store, _) = written().await;
    for byte in 0..At::Block(8).get(&store).len() {
        At::Block(8).garble(&store, byte);
        match verify(&*store, SINK).await {
            Err(Broken::Entry { entry: 7 | 8 } | Broken::Chain { entry: 7 } | Broken::Unreadable { entry: 7, .. }) => {}
            found => panic!("byte {byte}: {found:?}"),
        }
        At::Block(8).garble(&store, byte);
    }
    for byte in 0..At::Head.get(&store).len() {
        At::Head.garble(&store, byte);
        assert!(verify(&*store, SINK).await.is_err(), "byte {byte}");
        At::Head.garble(&store, byte);
    }
    assert_eq!(verified(&*store, SINK).await.last, 20);
}

#[tokio::test]
async fn what_was_removed_is_found_and_named() {
    let (_folder, store, _) = written().await;
    let whole = [At::Entry(5), At::Entry(6), At::Block(6)].map(|at| (at, at.get(&store)));
    At::Entry(6).remove(&store);
    assert_eq!(verify(&*store, SINK).await, Err(Broken::Missing { entry: 6 }));
    assert!(store.entries(SINK, 6, 6).await.is_err());
    At::Entry(5).remove(&store);
    assert_eq!(verify(&*store, SINK).await, Err(Broken::Missing { entry: 5 }));
    At::Block(6).remove(&store);
    assert_eq!(verify(&*store, SINK).await, Err(Broken::Missing { entry: 5 }));
    whole.iter().for_each(|(at, value)| at.put(&store, value));
    assert_eq!(verified(&*store, SINK).await.last, 20);
    // The end, with or without its entries.
    At::Block(20).remove(&store);
    assert_eq!(verify(&*store, SINK).await, Err(Broken::Missing { entry: 19 }));
    [At::Entry(19), At::Entry(20), At::Block(18)].iter().for_each(|at| at.remove(&store));
    assert_eq!(verify(&*store, SINK).await, Err(Broken::Missing { entry: 17 }));
}

#[tokio::test]
async fn what_was_swapped_or_made_anew_is_found_and_named() {
    let (_folder, store, sample) = written().await;
    let (three, four, fifteen) = (At::Entry(3), At::Entry(4), At::Entry(15));
    let values = [three, four, fifteen].map(|at| (at, at.get(&store)));
    three.put(&store, &values[1].1);
    four.put(&store, &values[0].1);
    assert_eq!(verify(&*store, SINK).await, Err(Broken::Missing { entry: 3 }));
    // Across blocks, with their numbers put right.
    let renumbered = |id, event: i64| values::encode_entry(&entry(id, &sample.key, &wire_events(event..=event)[0]));
    three.put(&store, &renumbered(3, 15));
    four.put(&store, &values[1].1);
    fifteen.put(&store, &renumbered(15, 3));
    assert_eq!(verify(&*store, SINK).await, Err(Broken::Entry { entry: 3 }));
    values.iter().for_each(|(at, value)| at.put(&store, value));
    // A whole block, sound in itself.
    let mut block = values::decode_block(&At::Block(10).get(&store)).unwrap();
    block.hash = Hash([7; 32]);
    At::Block(10).put(&store, &values::encode_block(&block));
    assert_eq!(verify(&*store, SINK).await, Err(Broken::Chain { entry: 9 }));
}

#[tokio::test]
async fn a_head_set_back_is_found_and_named() {
    let (_folder, store, _) = written().await;
    let block = values::decode_block(&At::Block(10).get(&store)).unwrap();
    At::Head.put(&store, &values::encode_head(Head { last: 10, hash: block.hash }));
    assert_eq!(verify(&*store, SINK).await, Err(Broken::Head { entry: 11 }));
}

/// A commit that would go behind a head that can't be read is refused; other ledgers and machines go on.
#[tokio::test]
async fn a_head_that_can_not_be_read_stops_its_own_ledger_only() {
    let (_folder, store, mut sample) = written().await;
    let damages: [fn(&Embedded); 2] = [|store| At::Head.put(store, &[99]), |store| At::Head.remove(store)];
    for damage in damages {
        damage(&store);
        let refused = store.commit(entered(&mut sample.clone(), &wire_events(21..=21), &["other", SINK])).await;
        assert!(matches!(refused, Outcome::Refused(StorageError::Corrupt(_))), "{refused:?}");
        assert_eq!(store.head("other").await, Ok(Head::EMPTY));
        assert!(verify(&*store, SINK).await.is_err());
    }
    committed(&*store, entered(&mut sample, &wire_events(21..=21), &["other"])).await;
}

/// All in one batch: each block is chained to the one before it in the batch, what is refused leaves no gap.
#[tokio::test(flavor = "current_thread")]
async fn commits_of_one_batch_chain_behind_each_other() {
    // The writer may wake before all of them are queued: what it says holds for any batches, and is asked again until
    // they were one.
    for _ in 0..200 {
        if six_commits_at_once().await == 1 {
            return;
        }
    }
    panic!("the six commits were never one batch");
}

/// Returns how many batches they were.
async fn six_commits_at_once() -> u64 {
    let folder = Folder::new();
    let store = folder.store();
    let mut samples = ["a", "b", "c", "d"].map(Sample::new);
    let [a, b, c, d] = &mut samples;
    let tagged = |commit| Commit { tag: Some("tag".into()), ..commit };
    let first = tagged(entered(a, &wire_events(1..=2), &[SINK]));
    let outcomes = tokio::join!(
        store.commit(first.clone()),
        store.commit(tagged(entered(b, &wire_events(1..=1), &[SINK]))),
        store.commit(entered(c, &wire_events(1..=1), &[SINK, "other"])),
        store.commit(entered(&mut c.clone().seeded(3), &wire_events(2..=2), &[SINK]).over_nothing()),
        store.commit(first),
        store.commit(entered(d, &wire_events(1..=3), &["other", SINK])),
    );
    use Outcome::{Committed, Conflict, TagTaken};
    assert_eq!(outcomes, (Committed, TagTaken, Committed, Conflict, Committed, Committed));
    let batches = store.stats().batches.load(Relaxed);
    assert_eq!((verified(&*store, SINK).await.last, verified(&*store, "other").await.last), (6, 4));
    store.close().await;
    batches
}

impl Commit {
    fn over_nothing(self) -> Self {
        Self { expect: None, ..self }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_failed_leaves_no_entries() {
    let (folder, store, sample) = written().await;
    store.fault.store(true, Relaxed);
    let outcome = store.commit(entered(&mut sample.clone(), &wire_events(21..=21), &[SINK])).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    assert_eq!(verified(&*store, SINK).await.last, 20);
    store.close().await;
    drop(store);
    let store = folder.store();
    committed(&*store, entered(&mut sample.clone(), &wire_events(21..=21), &[SINK])).await;
    assert_eq!(verified(&*store, SINK).await.last, 21);
}

#[tokio::test]
async fn names_too_long_to_be_keys_are_refused() {
    let folder = Folder::new();
    let store = folder.store();
    let long = "n".repeat(LONGEST_NAMESPACE + 1);
    let mut sample = Sample::new("one");
    let outcome = store.commit(entered(&mut sample.clone(), &wire_events(1..=1), &[&long])).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert!(store.head(&long).await.is_err());
    committed(&*store, entered(&mut sample, &wire_events(1..=1), &[&long[1..]])).await;
    assert_eq!(verified(&*store, &long[1..]).await.last, 1);
}

/// As format 1 left it: without the keyspaces of tags and ledgers.
#[tokio::test]
async fn a_store_from_before_there_were_ledgers_is_taken_up() {
    let folder = Folder::new();
    let path = folder.options().path.join("data");
    std::fs::create_dir_all(&path).unwrap();
    let mut sample = Sample::new("one");
    let first = sample.step(&events(1..=1), None);
    {
        let db = fjall::Database::builder(&path).open().unwrap();
        let keyspace = |name| db.keyspace(name, fjall::KeyspaceCreateOptions::default).unwrap();
        keyspace("meta").insert("format", [1]).unwrap();
        let [machines, events, _, _] = ["machines", "events", "notifications", "dues"].map(keyspace);
        let record = first.record.as_ref().unwrap();
        machines.insert(keys::machine(&first.key), &record.encode()[..]).unwrap();
        let event = keys::MachinePrefix::new(&first.key).event(record.epoch, 1);
        events.insert(event, values::encode_event(&first.events[0])).unwrap();
        db.persist(PersistMode::SyncAll).unwrap();
    }
    for round in 1..=2 {
        let store = folder.store();
        sample.assert_stands(&*store, &events(1..=round)).await;
        let next = round + 1;
        committed(&*store, claim(&mut sample, b"tag")).await;
        assert_eq!(holder(&*store, &sample, b"tag").await, Some(sample.key.id.clone()));
        sample.assert_stands(&*store, &events(1..=next)).await;
        store.close().await;
    }
    // From now on, a table that is missing is damage.
    std::fs::remove_dir_all(path.join("keyspaces/8")).unwrap();
    assert!(refused(folder.options()).contains("is damaged: data/keyspaces/* is missing"));
}

#[test]
fn a_folder_without_a_store_is_left_alone_if_none_may_be_made() {
    let folder = Folder::new();
    let options = EmbeddedOptions { create: false, ..folder.options() };
    assert!(refused(options.clone()).ends_with("store holds no store"));
    assert!(!options.path.exists());
    drop(folder.store());
    Embedded::open(options).unwrap();
}
