//! The chain, and what of it is found out by whom.

use std::sync::Mutex;

use super::*;
use crate::machine::{MachineId, Namespace};
use crate::wire::{Limits, Reader, SinkEvent, Value};

/// A ledger as its enemy left it.
#[derive(Default)]
struct Tampered {
    blocks: Mutex<Vec<Result<Block, StorageError>>>,
    head: Option<Head>,
    /// A block that is appended after the head was read, once.
    late: Mutex<Option<Block>>,
}

#[async_trait]
impl Ledger for Tampered {
    async fn head(&self, _: &str) -> Result<Head, StorageError> {
        let mut blocks = self.blocks.lock().unwrap();
        let noted = self.head.unwrap_or_else(|| {
            blocks.last().and_then(|block| Some(block.as_ref().ok()?.head())).unwrap_or(Head::EMPTY)
        });
        blocks.extend(self.late.lock().unwrap().take().map(Ok));
        Ok(noted)
    }

    async fn entries(&self, _: &str, _: i64, _: i64) -> Result<Vec<Bytes>, StorageError> {
        unreachable!("verifying reads blocks")
    }

    async fn blocks(&self, _: &str, after: i64, _: usize) -> Result<Vec<Block>, StorageError> {
        // Pages of two.
        let blocks = self.blocks.lock().unwrap();
        let behind = |block: &&Result<Block, StorageError>| block.as_ref().is_ok_and(|it| it.head().last <= after);
        let mut page = Vec::new();
        for block in blocks.iter().skip_while(behind).take(2) {
            match block {
                Ok(block) => page.push(block.clone()),
                Err(_) if !page.is_empty() => break,
                Err(error) => return Err(error.clone()),
            }
        }
        Ok(page)
    }
}

fn key() -> MachineKey {
    MachineKey { ns: Namespace::new("ns"), id: MachineId::new(Bytes::from_static(b"\xffid")).unwrap() }
}

fn event(id: i64) -> Event {
    Event { id, created_at: Bytes::from_static(b"2024-01-01T00:00:00Z"), format_version: Some(1), data: Value::int(id) }
}

fn encoded(id: i64) -> Bytes {
    let mut writer = Writer::with_capacity(64);
    event(id).write(&mut writer);
    writer.into_bytes()
}

/// Five blocks of two entries each.
fn chained() -> Vec<Block> {
    let mut head = Head::EMPTY;
    let blocks = (0..5).map(|number| {
        let events = [encoded(number * 2 + 1), encoded(number * 2 + 2)];
        let block = Unnumbered::new(&key(), &events).behind(head);
        head = block.head();
        block
    });
    blocks.collect()
}

fn ledger(blocks: Vec<Block>, head: Option<Head>) -> Tampered {
    Tampered { blocks: Mutex::new(blocks.into_iter().map(Ok).collect()), head, late: Mutex::default() }
}

/// What is found of a chain that was changed behind its head's back.
async fn found(change: impl FnOnce(&mut Vec<Block>)) -> Result<Head, Broken> {
    let mut blocks = chained();
    let head = blocks.last().unwrap().head();
    change(&mut blocks);
    verify(&ledger(blocks, Some(head)), "sink").await
}

#[test]
fn an_entry_is_a_sink_event_on_the_wire() {
    let entry = entry(77, &key(), &encoded(3));
    let read = SinkEvent::read(&mut Reader::new(entry.clone(), Limits::default())).unwrap();
    let expected = SinkEvent {
        id: 77,
        source_id: Bytes::from_static(b"\xffid"),
        source_ns: Bytes::from_static(b"ns"),
        event: event(3),
    };
    assert_eq!(read, expected);
    let mut writer = Writer::with_capacity(64);
    expected.write(&mut writer);
    assert_eq!(writer.into_bytes(), entry);
    assert_eq!(entry_id(&entry), Some(77));
    assert_eq!(entry_id(b"not one"), None);
}

/// The formula is a promise to whoever verifies without this program.
#[test]
fn a_block_is_hashed_over_its_predecessor_and_its_entries() {
    let blocks = chained();
    let mut previous = [0; 32];
    for block in &blocks {
        let mut bytes = previous.to_vec();
        bytes.extend(block.entries.iter().flatten());
        previous = Sha256::digest(&bytes).into();
        assert_eq!(block.hash, Hash(previous));
    }
    // The bytes of entries stay as they are.
    assert_eq!(blocks[0].hash.to_string(), "512db9700247d787066168525c1ee971e3e630aea0ce5a40d162b881565a192a");
}

#[tokio::test]
async fn a_whole_chain_is_verified_to_its_head() {
    let blocks = chained();
    let head = blocks[4].head();
    assert_eq!(head.last, 10);
    let mut told = Vec::new();
    let ledger = ledger(blocks, None);
    assert_eq!(verify_telling(&ledger, "sink", |head| told.push(head.last)).await, Ok(head));
    assert_eq!(told, vec![4, 8, 10]);
    assert_eq!(verify(&Tampered::default(), "sink").await, Ok(Head::EMPTY));
}

#[tokio::test]
async fn what_is_appended_meanwhile_is_verified_too() {
    let mut blocks = chained();
    let late = blocks.pop().unwrap();
    let expected = late.head();
    let ledger = Tampered { late: Mutex::new(Some(late)), ..ledger(blocks, None) };
    assert_eq!(verify(&ledger, "sink").await, Ok(expected));
}

#[tokio::test]
async fn a_changed_entry_is_named() {
    for at in [0, 12, 20, 40] {
        let broken = found(|blocks| {
            let mut entry = blocks[2].entries[1].to_vec();
            let at = at.min(entry.len() - 1);
            entry[at] ^= 1;
            blocks[2].entries[1] = entry.into();
        });
        assert_eq!(broken.await, Err(Broken::Entry { entry: 6 }), "byte {at}");
    }
}

#[tokio::test]
async fn an_entry_changed_with_its_digest_breaks_the_chain() {
    let broken = found(|blocks| {
        blocks[2].entries[1] = entry(6, &key(), &encoded(99));
        blocks[2].digests[1] = Hash::of(&blocks[2].entries[1]);
    });
    assert_eq!(broken.await, Err(Broken::Chain { entry: 5 }));
}

/// A block that was made anew is whole in itself; the one behind it gives it away.
#[tokio::test]
async fn a_block_made_anew_breaks_the_chain_behind_it() {
    let broken =
        found(|blocks| blocks[2] = Unnumbered::new(&key(), &[encoded(8), encoded(9)]).behind(blocks[1].head()));
    assert_eq!(broken.await, Err(Broken::Chain { entry: 7 }));
    let last = found(|blocks| blocks[4] = Unnumbered::new(&key(), &[encoded(8), encoded(9)]).behind(blocks[3].head()));
    assert_eq!(last.await, Err(Broken::Head { entry: 10 }));
}

#[tokio::test]
async fn a_removed_entry_is_named() {
    assert_eq!(found(|blocks| blocks[1].entries[0] = Bytes::new()).await, Err(Broken::Missing { entry: 3 }));
    assert_eq!(found(|blocks| drop(blocks[1].entries.pop())).await, Err(Broken::Missing { entry: 4 }));
    assert_eq!(found(|blocks| drop(blocks[1].entries.remove(0))).await, Err(Broken::Missing { entry: 3 }));
    assert_eq!(found(|blocks| drop(blocks.remove(1))).await, Err(Broken::Missing { entry: 3 }));
    assert_eq!(found(|blocks| drop(blocks.remove(0))).await, Err(Broken::Missing { entry: 1 }));
}

#[tokio::test]
async fn a_cut_end_is_named() {
    assert_eq!(found(|blocks| drop(blocks.pop())).await, Err(Broken::Missing { entry: 9 }));
    assert_eq!(found(Vec::clear).await, Err(Broken::Missing { entry: 1 }));
}

#[tokio::test]
async fn a_head_set_back_is_named() {
    let blocks = chained();
    for (head, entry) in [(Head::EMPTY, 1), (blocks[3].head(), 9), (Head { last: 10, hash: Hash([1; 32]) }, 10)] {
        let ledger = ledger(blocks.clone(), Some(head));
        assert_eq!(verify(&ledger, "sink").await, Err(Broken::Head { entry }));
    }
}

#[tokio::test]
async fn swapped_pairs_are_named() {
    assert_eq!(found(|blocks| blocks[1].entries.swap(0, 1)).await, Err(Broken::Missing { entry: 3 }));
    assert_eq!(found(|blocks| blocks.swap(1, 2)).await, Err(Broken::Missing { entry: 3 }));
    let across = found(|blocks| {
        let (front, back) = blocks.split_at_mut(2);
        std::mem::swap(&mut front[1].entries, &mut back[0].entries);
    });
    assert_eq!(across.await, Err(Broken::Missing { entry: 3 }));
    // With their numbers put right as well.
    let renumbered = found(|blocks| {
        blocks[1].entries = vec![entry(3, &key(), &encoded(4)), entry(4, &key(), &encoded(3))];
    });
    assert_eq!(renumbered.await, Err(Broken::Entry { entry: 3 }));
}

#[tokio::test]
async fn a_block_that_can_not_be_read_is_named() {
    let ledger = ledger(chained(), Some(chained()[4].head()));
    ledger.blocks.lock().unwrap()[3] = Err(StorageError::Corrupt("garbage".to_owned()));
    let expected = Broken::Unreadable { entry: 7, detail: "garbage".to_owned() };
    assert_eq!(verify(&ledger, "sink").await, Err(expected));
    let away = StorageError::Unavailable("away".to_owned());
    ledger.blocks.lock().unwrap()[3] = Err(away.clone());
    assert_eq!(verify(&ledger, "sink").await, Err(Broken::Storage(away)));
}
