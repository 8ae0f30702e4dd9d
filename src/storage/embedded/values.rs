//! The embedded store's values. Each begins with its version; a record brings its own (`Record::encode`).

use bytes::Bytes;
use fjall::{Slice, UserValue};

use crate::machine::{MachineId, Notification, NotificationId, RecordError};
use crate::storage::StorageError;
use crate::storage::ledger::{Block, Hash, Head};

const EVENT_VERSION: u8 = 1;
const ENTRY_VERSION: u8 = 1;
const DUE_VERSION: u8 = 1;
const TAG_VERSION: u8 = 1;
const HEAD_VERSION: u8 = 1;
const BLOCK_VERSION: u8 = 1;
const LEDGER_ENTRY_VERSION: u8 = 1;

/// A notification's entry as it is stored: `version due notification`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The due under which the entry was put. A parked entry still says it; only its key in `dues` is gone.
    pub due: i64,
    notification: &'a [u8],
}

// === impl Entry ===

impl<'a> Entry<'a> {
    pub fn encode(it: &Notification, due: i64) -> UserValue {
        let notification = it.encode();
        let mut bytes = Vec::with_capacity(9 + notification.len());
        bytes.push(ENTRY_VERSION);
        bytes.extend_from_slice(&due.to_be_bytes());
        bytes.extend_from_slice(&notification);
        Slice::from(bytes)
    }

    pub fn read(bytes: &'a [u8]) -> Result<Self, StorageError> {
        let rest = versioned(bytes, ENTRY_VERSION, "notification")?;
        let (due, notification) = rest
            .split_first_chunk::<8>()
            .ok_or_else(|| StorageError::Corrupt("a stored notification is cut off".to_owned()))?;
        Ok(Self { due: i64::from_be_bytes(*due), notification })
    }

    /// Whether both hold the same notification, whenever it is due.
    pub fn holds_as(&self, other: &Entry<'_>) -> bool {
        self.notification == other.notification
    }

    pub fn notification(&self, id: NotificationId) -> Result<Notification, StorageError> {
        Notification::decode(id, self.notification).map_err(corrupt)
    }
}

pub fn encode_event(event: &[u8]) -> UserValue {
    with_version(EVENT_VERSION, event)
}

/// The one copy that a read makes: memory of the event's own, so that keeping it does not keep a block of the store.
pub fn decode_event(bytes: &[u8]) -> Result<Bytes, StorageError> {
    versioned(bytes, EVENT_VERSION, "event").map(Bytes::copy_from_slice)
}

/// A due is all in its key.
pub fn due() -> UserValue {
    Slice::from([DUE_VERSION])
}

/// `version machine-id`
pub fn encode_tag(holder: &MachineId) -> UserValue {
    with_version(TAG_VERSION, holder.as_bytes())
}

/// The holder's id.
pub fn decode_tag(bytes: &[u8]) -> Result<MachineId, StorageError> {
    let id = versioned(bytes, TAG_VERSION, "tag")?;
    MachineId::new(Bytes::copy_from_slice(id)).map_err(|error| StorageError::Corrupt(error.to_string()))
}

/// `version last(8) hash(32)`
pub fn encode_head(head: Head) -> UserValue {
    let mut bytes = Vec::with_capacity(41);
    bytes.push(HEAD_VERSION);
    bytes.extend_from_slice(&head.last.to_be_bytes());
    bytes.extend_from_slice(&head.hash.0);
    Slice::from(bytes)
}

pub fn decode_head(bytes: &[u8]) -> Result<Head, StorageError> {
    let rest = versioned(bytes, HEAD_VERSION, "ledger's head")?;
    let (last, hash) = id_and_hashes(rest).ok_or_else(|| cut("ledger's head"))?;
    match hash {
        // One more is always to be had.
        [hash] if (0..i64::MAX).contains(&last) => Ok(Head { last, hash: Hash(*hash) }),
        _ => Err(cut("ledger's head")),
    }
}

/// `version first(8) hash(32) digest(32)...`: all of a block but its entries.
pub fn encode_block(block: &Block) -> UserValue {
    let mut bytes = Vec::with_capacity(41 + 32 * block.digests.len());
    bytes.push(BLOCK_VERSION);
    bytes.extend_from_slice(&block.first.to_be_bytes());
    bytes.extend_from_slice(&block.hash.0);
    block.digests.iter().for_each(|digest| bytes.extend_from_slice(&digest.0));
    Slice::from(bytes)
}

/// A block still without its entries.
pub fn decode_block(bytes: &[u8]) -> Result<Block, StorageError> {
    let rest = versioned(bytes, BLOCK_VERSION, "block")?;
    let (first, hashes) = id_and_hashes(rest).ok_or_else(|| cut("block"))?;
    let (hash, digests) = hashes.split_first().ok_or_else(|| cut("block"))?;
    // Far from where its last id would not be a number any more.
    if !(1..i64::MAX / 2).contains(&first) {
        return Err(cut("block"));
    }
    let digests: Vec<_> = digests.iter().copied().map(Hash).collect();
    Ok(Block { first, hash: Hash(*hash), entries: Vec::with_capacity(digests.len()), digests })
}

/// `version entry`
pub fn encode_entry(entry: &[u8]) -> UserValue {
    with_version(LEDGER_ENTRY_VERSION, entry)
}

pub fn decode_entry(bytes: &[u8]) -> Result<Bytes, StorageError> {
    versioned(bytes, LEDGER_ENTRY_VERSION, "ledger's entry").map(Bytes::copy_from_slice)
}

fn id_and_hashes(bytes: &[u8]) -> Option<(i64, &[[u8; 32]])> {
    let (id, hashes) = bytes.split_first_chunk::<8>()?;
    match hashes.as_chunks::<32>() {
        (hashes, []) => Some((i64::from_be_bytes(*id), hashes)),
        _ => None,
    }
}

fn cut(what: &str) -> StorageError {
    StorageError::Corrupt(format!("a stored {what} is malformed"))
}

pub fn corrupt(error: RecordError) -> StorageError {
    StorageError::Corrupt(error.to_string())
}

fn with_version(version: u8, rest: &[u8]) -> UserValue {
    let mut bytes = Vec::with_capacity(1 + rest.len());
    bytes.push(version);
    bytes.extend_from_slice(rest);
    Slice::from(bytes)
}

fn versioned<'a>(bytes: &'a [u8], known: u8, what: &str) -> Result<&'a [u8], StorageError> {
    match bytes.split_first() {
        Some((version, rest)) if *version == known => Ok(rest),
        Some((version, _)) => Err(StorageError::Corrupt(format!(
            "a stored {what} has version {version}, this release reads up to {known}"
        ))),
        None => Err(StorageError::Corrupt(format!("a stored {what} is empty"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{CommitId, RequestContext};
    use crate::wire::{Direction, HistoryRange, Value};

    #[test]
    fn an_entry_is_read_back_as_it_was_put() {
        let it = Notification {
            id: -5,
            epoch: CommitId([3; 16]),
            args: Value::str("args"),
            range: HistoryRange { after: None, limit: Some(1), direction: Direction::Backward },
            context: RequestContext::default(),
        };
        let bytes = Entry::encode(&it, i64::MIN);
        let entry = Entry::read(&bytes).unwrap();
        assert_eq!((entry.due, entry.notification(-5)), (i64::MIN, Ok(it)));
    }

    #[test]
    fn a_tag_is_read_back_with_any_holder() {
        let holder = MachineId::new(Bytes::from_static(b"\xff\0id")).unwrap();
        assert_eq!(decode_tag(&encode_tag(&holder)), Ok(holder));
        assert!(decode_tag(&[TAG_VERSION]).is_err());
        assert!(decode_tag(&[9, 1]).is_err());
    }

    #[test]
    fn a_ledgers_values_are_read_back() {
        let head = Head { last: 7, hash: Hash([3; 32]) };
        assert_eq!(decode_head(&encode_head(head)), Ok(head));
        let digests = vec![Hash([1; 32]), Hash([2; 32])];
        let block = Block { first: 6, hash: head.hash, digests, entries: Vec::new() };
        assert_eq!(decode_block(&encode_block(&block)), Ok(block.clone()));
        assert_eq!(decode_entry(&encode_entry(b"entry")).unwrap(), "entry");
        for length in 0..41 {
            assert!(decode_head(&encode_head(head)[..length]).is_err());
            assert!(decode_block(&encode_block(&block)[..length]).is_err());
        }
        assert!(decode_head(&encode_head(Head { last: -1, ..head })).is_err());
        assert!(decode_block(&encode_block(&Block { first: i64::MAX, ..block })).is_err());
        assert!(decode_entry(&[9, 1]).is_err());
    }

    #[test]
    fn a_value_of_an_unknown_version_is_refused_by_name() {
        let text = decode_event(&[9, 1, 2]).unwrap_err().to_string();
        assert_eq!(text, "storage corrupt: a stored event has version 9, this release reads up to 1");
        assert!(Entry::read(&[2]).is_err());
        assert!(Entry::read(&[]).is_err());
        assert!(Entry::read(&[ENTRY_VERSION, 0]).is_err());
        assert_eq!(decode_event(&encode_event(b"event")).unwrap(), "event");
    }
}
