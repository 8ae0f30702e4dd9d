//! The table's keys and the indexes' keys. They are part of the format: docs/decisions/0003-dynamodb-layout.md.
//!
//! INVARIANT: what varies in length has its length before it, or stands last: no two things have one key.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::machine::{CommitId, Epoch, MachineId, MachineKey, Namespace, NotificationId, Shard, StatusKind};
use crate::storage::StorageError;

/// The longest namespace that is stored, in bytes: with the longest id, a key stays within DynamoDB's 2048 bytes.
pub const LONGEST_NAMESPACE: usize = 512;

/// A sort key is not longer.
const LONGEST_SORT: usize = 1024;

const VERSION: u8 = 1;
const MACHINE: u8 = b'm';
const TAG: u8 = b't';
const INSTANCES: u8 = b'i';
const OWNERS: u8 = b'o';
const META: u8 = b's';
const LEDGER: u8 = b'l';

/// Entries' ids in a bucket of a ledger: a block has fewer, so none but the last bucket is empty.
pub const BUCKET: i64 = 1024;
const SIGN: u64 = 1 << 63;

/// The generation of events that no Modernize has replaced.
pub const FIRST_GENERATION: CommitId = CommitId([0; 16]);

/// The one sort key of a machine's item, of a tag's and of the table's own.
pub const SELF: &[u8] = b"m";

// === partition keys ===

/// `version 'm' len(ns) ns id`: everything of one machine.
pub fn machine(key: &MachineKey) -> Vec<u8> {
    in_namespace(MACHINE, &key.ns, key.id.as_bytes())
}

/// `version 't' len(ns) ns tag`
pub fn tag(ns: &Namespace, tag: &[u8]) -> Vec<u8> {
    in_namespace(TAG, ns, tag)
}

/// `version 'l' len(sink) sink bucket`: the blocks whose first entries' ids share a bucket. So the load of a ledger goes from
/// partition to partition, and none grows without end.
pub fn ledger(sink: &str, bucket: i64) -> Vec<u8> {
    [&ledger_note(sink)[..], &ordered(bucket)].concat()
}

/// `version 'l' len(sink) sink`: what is noted of a ledger.
pub fn ledger_note(sink: &str) -> Vec<u8> {
    let length = u16::try_from(sink.len()).unwrap_or(u16::MAX);
    [&[VERSION, LEDGER], &length.to_be_bytes()[..], sink.as_bytes()].concat()
}

/// Where the block stands that begins with this entry.
pub fn bucket(first: i64) -> i64 {
    first.div_euclid(BUCKET)
}

/// `version 's'`: what the table says of itself.
pub fn meta() -> Vec<u8> {
    vec![VERSION, META]
}

/// `version 'i'`: the heartbeats, by instance.
pub fn instances() -> Vec<u8> {
    vec![VERSION, INSTANCES]
}

/// `version 'o'`: the owners, by shard.
pub fn owners() -> Vec<u8> {
    vec![VERSION, OWNERS]
}

fn in_namespace(kind: u8, ns: &Namespace, rest: &[u8]) -> Vec<u8> {
    let ns = ns.as_str().as_bytes();
    // Every method of the store checks namespaces: the length fits.
    let length = u16::try_from(ns.len()).unwrap_or(u16::MAX);
    [&[VERSION, kind], &length.to_be_bytes()[..], ns, rest].concat()
}

pub fn decode_machine(key: &[u8]) -> Result<MachineKey, StorageError> {
    let malformed = || StorageError::Corrupt("a stored key is malformed".to_owned());
    let rest = key.strip_prefix(&[VERSION, MACHINE]).ok_or_else(malformed)?;
    let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(malformed)?;
    let (ns, id) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(malformed)?;
    let ns = std::str::from_utf8(ns).map_err(|_| malformed())?;
    let id = MachineId::new(Bytes::copy_from_slice(id)).map_err(|_| malformed())?;
    Ok(MachineKey { ns: Namespace::new(ns), id })
}

// === sort keys ===

/// `'c' epoch generation`: all chunks of a generation begin so.
pub fn chunks(epoch: Epoch, generation: CommitId) -> Vec<u8> {
    [b"c", &epoch.0[..], &generation.0].concat()
}

/// `'c' epoch generation last first`: by their last event, so that a range's first chunk is found by its first event.
pub fn chunk(epoch: Epoch, generation: CommitId, first: i64, last: i64) -> Vec<u8> {
    [&chunks(epoch, generation)[..], &ordered(last), &ordered(first)].concat()
}

/// `kind epoch`: what begins with it belongs to the epoch: chunks `c`, events' blobs `b`, records' blobs `r`.
pub fn of_epoch(kind: u8, epoch: Epoch) -> Vec<u8> {
    [&[kind], &epoch.0[..]].concat()
}

/// The last event's id, of a chunk's or a blob's key: both have it behind their 33 bytes of kind, epoch and commit.
pub fn last_event(sort: &[u8]) -> Result<i64, StorageError> {
    let id = sort.get(33..41).and_then(|id| id.first_chunk::<8>());
    id.map(|id| from_ordered(*id)).ok_or_else(|| StorageError::Corrupt("a stored chunk's key is cut off".to_owned()))
}

/// `'b' epoch commit last first part`
pub fn event_blob(epoch: Epoch, commit: CommitId, first: i64, last: i64, part: u32) -> Vec<u8> {
    [b"b", &epoch.0[..], &commit.0, &ordered(last), &ordered(first), &part.to_be_bytes()].concat()
}

/// `'r' epoch commit part`
pub fn record_blob(epoch: Epoch, commit: CommitId, part: u32) -> Vec<u8> {
    [b"r", &epoch.0[..], &commit.0, &part.to_be_bytes()].concat()
}

/// `'e' epoch`: what generation a replaced machine's events ended in.
pub fn epoch_end(epoch: Epoch) -> Vec<u8> {
    of_epoch(b'e', epoch)
}

/// `'b' first`: a ledger's block by its first entry.
pub fn block(first: i64) -> Vec<u8> {
    [b"b", &ordered(first)[..]].concat()
}

/// `'x' first hash part`: entries of a block that doesn't fit an item. The block's hash says what they are.
pub fn block_blob(first: i64, hash: &[u8; 32], part: u32) -> Vec<u8> {
    [b"x", &ordered(first)[..], hash, &part.to_be_bytes()].concat()
}

pub fn first_entry(sort: &[u8]) -> Result<i64, StorageError> {
    let id = sort.strip_prefix(b"b").and_then(|id| id.first_chunk::<8>());
    id.map(|id| from_ordered(*id)).ok_or_else(|| StorageError::Corrupt("a stored block's key is malformed".to_owned()))
}

/// `'n' id`
pub fn notification(id: NotificationId) -> Vec<u8> {
    [b"n", &ordered(id)[..]].concat()
}

pub fn notification_id(sort: &[u8]) -> Result<NotificationId, StorageError> {
    let id = sort.strip_prefix(b"n").and_then(|id| id.as_chunks::<8>().0.first());
    id.map(|id| from_ordered(*id)).ok_or_else(|| StorageError::Corrupt("a stored entry's key is malformed".to_owned()))
}

/// `'x' id digest part`: of a notification too large for one item. The digest keeps what is put under one id apart.
pub fn notification_blob(id: NotificationId, digest: [u8; 16], part: u32) -> Vec<u8> {
    [b"x", &ordered(id)[..], &digest, &part.to_be_bytes()].concat()
}

/// `shard`, among the owners.
pub fn owner(shard: Shard) -> [u8; 2] {
    shard.to_be_bytes()
}

// === the indexes' keys ===

/// `time digest(machine) kind entry`: in the order of time. The machine itself would not fit into a sort key; the index
/// holds the table's key beside this.
pub fn due(at: i64, partition: &[u8], entry: Option<NotificationId>) -> Vec<u8> {
    let entry_id = ordered(entry.unwrap_or(0));
    [&ordered(at)[..], &digest(partition), &[u8::from(entry.is_some())], &entry_id].concat()
}

/// All dues up to `until` stand before this; none: every due does.
pub fn due_end(until: i64) -> Option<Vec<u8>> {
    until.checked_add(1).map(|next| ordered(next).to_vec())
}

pub fn due_time(due: &[u8]) -> Result<i64, StorageError> {
    let at = due.first_chunk::<8>().ok_or_else(|| StorageError::Corrupt("a stored due is cut off".to_owned()))?;
    Ok(from_ordered(*at))
}

/// `len(ns) ns status id`, as much of it as fits.
pub fn listing(key: &MachineKey, status: StatusKind) -> Vec<u8> {
    let mut sort = [&listing_prefix(&key.ns, Some(status))[..], key.id.as_bytes()].concat();
    sort.truncate(LONGEST_SORT);
    sort
}

/// What the machines of a namespace, or those in one status, begin with.
pub fn listing_prefix(ns: &Namespace, status: Option<StatusKind>) -> Vec<u8> {
    let ns = ns.as_str().as_bytes();
    let length = u16::try_from(ns.len()).unwrap_or(u16::MAX);
    let status = status.map(|status| status as u8);
    [&length.to_be_bytes()[..], ns, status.as_slice()].concat()
}

pub fn listed_status(listing: &[u8]) -> Result<StatusKind, StorageError> {
    let malformed = || StorageError::Corrupt("a stored listing is malformed".to_owned());
    let (length, rest) = listing.split_first_chunk::<2>().ok_or_else(malformed)?;
    let status = rest.get(usize::from(u16::from_be_bytes(*length))).ok_or_else(malformed)?;
    StatusKind::from_byte(*status).map_err(|error| StorageError::Corrupt(error.to_string()))
}

/// The first half of SHA-256.
pub fn digest(bytes: &[u8]) -> [u8; 16] {
    let whole: [u8; 32] = Sha256::digest(bytes).into();
    let mut half = [0; 16];
    half.copy_from_slice(&whole[..16]);
    half
}

/// Big endian with the sign turned: bytes in the order of the numbers.
fn ordered(number: i64) -> [u8; 8] {
    (number.cast_unsigned() ^ SIGN).to_be_bytes()
}

fn from_ordered(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ SIGN).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(ns: &str, id: &[u8]) -> MachineKey {
        MachineKey { ns: Namespace::new(ns), id: MachineId::new(Bytes::copy_from_slice(id)).unwrap() }
    }

    fn any_key() -> impl Strategy<Value = MachineKey> {
        ("[a-c/é]{0,3}", prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(ns, id)| key(&ns, &id))
    }

    proptest! {
        #[test]
        fn a_machine_is_read_back_from_its_key(one in any_key(), other in any_key()) {
            prop_assert_eq!(machine(&one) == machine(&other), one == other);
            prop_assert_eq!(tag(&one.ns, one.id.as_bytes()) == tag(&other.ns, other.id.as_bytes()), one == other);
            prop_assert_eq!(decode_machine(&machine(&one)), Ok(one));
        }

        #[test]
        fn dues_are_in_the_order_of_time(a: i64, b: i64, first in any_key(), second in any_key()) {
            let (left, right) = (due(a, &machine(&first), Some(b)), due(b, &machine(&second), None));
            prop_assume!(a != b);
            prop_assert_eq!(left < right, a < b);
            prop_assert_eq!(due_end(a).is_none_or(|end| right < end), b <= a);
            prop_assert_eq!(due_time(&left), Ok(a));
        }

        #[test]
        fn chunks_are_in_the_order_of_their_last_events(a: i64, b: i64) {
            let epoch = CommitId([7; 16]);
            let (left, right) = (chunk(epoch, FIRST_GENERATION, 1, a), chunk(epoch, FIRST_GENERATION, 1, b));
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
            prop_assert_eq!(last_event(&left), Ok(a));
            prop_assert_eq!(last_event(&event_blob(epoch, epoch, 1, b, 3)), Ok(b));
            prop_assert_eq!(notification_id(&notification(a)), Ok(a));
        }
    }

    #[test]
    fn no_key_is_longer_than_dynamodb_takes() {
        let longest = key(&"n".repeat(LONGEST_NAMESPACE), &[b'i'; MachineId::LONGEST]);
        assert!(machine(&longest).len() <= 2048);
        assert!(listing(&longest, StatusKind::Sleeping).len() <= 1024);
        assert!(due(1, &machine(&longest), Some(1)).len() <= 1024);
    }

    #[test]
    fn the_bytes_of_keys_stay_as_they_are() {
        let partition = machine(&key("a/b", b"x\0"));
        assert_eq!(partition, b"\x01m\0\x03a/bx\0");
        assert_eq!(tag(&Namespace::new("a/b"), b""), b"\x01t\0\x03a/b");
        assert_eq!(notification(-1), b"n\x7f\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(&due(2, &partition, None)[..8], b"\x80\0\0\0\0\0\0\x02");
        let listed = listing(&key("ns", b"id"), StatusKind::Retrying);
        assert_eq!(listed, b"\0\x02ns\x03id");
        assert_eq!(listed_status(&listed), Ok(StatusKind::Retrying));
    }
}
