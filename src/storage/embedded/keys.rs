//! The embedded store's keys. Their order is part of the format: docs/decisions/0001-embedded-format.md.
//!
//! INVARIANT: no key of one machine is a prefix of, or lies between, the keys of another: what varies in length has its
//! length before it, or stands last.

use fjall::{Slice, UserKey};

use crate::machine::{Epoch, MachineId, MachineKey, Namespace, NotificationId};

/// The longest namespace that is stored, in bytes. With the longest id, every key stays far below fjall's 64 KB.
pub const LONGEST_NAMESPACE: usize = 1024;

const SIGN: u64 = 1 << 63;

/// A machine as other keys begin: `len(ns) ns len(id) id`, lengths as two bytes, big endian.
#[derive(Clone, Debug)]
pub struct MachinePrefix(Vec<u8>);

/// A ledger as its keys begin: `len(sink) sink`.
#[derive(Clone, Debug)]
pub struct LedgerPrefix(Vec<u8>);

/// What a key in `dues` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueKey {
    pub at: i64,
    /// None: the record's own due.
    pub entry: Option<NotificationId>,
    pub machine: MachineKey,
}

/// A stored key that this release can't have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored key is malformed")]
pub struct KeyError;

// === impl MachinePrefix ===

impl MachinePrefix {
    pub fn new(key: &MachineKey) -> Self {
        let (ns, id) = (key.ns.as_str().as_bytes(), key.id.as_bytes());
        let mut bytes = Vec::with_capacity(4 + ns.len() + id.len() + 24);
        push_with_length(&mut bytes, ns);
        push_with_length(&mut bytes, id);
        Self(bytes)
    }

    pub fn event(&self, epoch: Epoch, id: i64) -> UserKey {
        self.followed_by(&[&epoch.0, &ordered(id)])
    }

    pub fn notification(&self, id: NotificationId) -> UserKey {
        self.followed_by(&[&ordered(id)])
    }

    fn followed_by(&self, parts: &[&[u8]]) -> UserKey {
        let mut key = self.0.clone();
        parts.iter().for_each(|part| key.extend_from_slice(part));
        Slice::from(key)
    }
}

// === impl LedgerPrefix ===

impl LedgerPrefix {
    pub fn new(sink: &str) -> Self {
        let mut bytes = Vec::with_capacity(2 + sink.len() + 8);
        push_with_length(&mut bytes, sink.as_bytes());
        Self(bytes)
    }

    /// The key of the head.
    pub fn head(&self) -> UserKey {
        Slice::from(&self.0[..])
    }

    /// The key of an entry by its id, or of a block by its last entry's.
    pub fn at(&self, id: i64) -> UserKey {
        let mut key = self.0.clone();
        key.extend_from_slice(&ordered(id));
        Slice::from(key)
    }
}

// === impl DueKey ===

impl DueKey {
    /// `time kind entry ns id`: in the order of time.
    pub fn encode(at: i64, entry: Option<NotificationId>, machine: &[u8]) -> UserKey {
        let mut key = Vec::with_capacity(17 + machine.len());
        key.extend_from_slice(&ordered(at));
        key.push(u8::from(entry.is_some()));
        key.extend_from_slice(&ordered(entry.unwrap_or(0)));
        key.extend_from_slice(machine);
        Slice::from(key)
    }

    /// The first key that no due up to `until` reaches; none if every due does.
    pub fn end(until: i64) -> Option<UserKey> {
        until.checked_add(1).map(|next| Slice::from(ordered(next)))
    }

    pub fn decode(key: &[u8]) -> Result<Self, KeyError> {
        let (at, rest) = key.split_first_chunk::<8>().ok_or(KeyError)?;
        let (kind, rest) = rest.split_first().ok_or(KeyError)?;
        let (entry, machine) = rest.split_first_chunk::<8>().ok_or(KeyError)?;
        let entry = match kind {
            0 => None,
            1 => Some(from_ordered(*entry)),
            _ => return Err(KeyError),
        };
        Ok(Self { at: from_ordered(*at), entry, machine: decode_machine(machine)? })
    }
}

/// The key in `machines`: `len(ns) ns id`.
pub fn machine(key: &MachineKey) -> UserKey {
    in_namespace(&key.ns, key.id.as_bytes())
}

/// The key in `tags`: `len(ns) ns tag`.
pub fn tag(ns: &Namespace, tag: &[u8]) -> UserKey {
    in_namespace(ns, tag)
}

/// What the keys in `machines` of a namespace begin with: `len(ns) ns`.
pub fn namespace(ns: &Namespace) -> Vec<u8> {
    let ns = ns.as_str().as_bytes();
    let mut bytes = Vec::with_capacity(2 + ns.len());
    push_with_length(&mut bytes, ns);
    bytes
}

fn in_namespace(ns: &Namespace, id: &[u8]) -> UserKey {
    let ns = ns.as_str().as_bytes();
    let mut bytes = Vec::with_capacity(2 + ns.len() + id.len());
    push_with_length(&mut bytes, ns);
    bytes.extend_from_slice(id);
    Slice::from(bytes)
}

pub fn decode_machine(key: &[u8]) -> Result<MachineKey, KeyError> {
    let (length, rest) = key.split_first_chunk::<2>().ok_or(KeyError)?;
    let (ns, id) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(KeyError)?;
    let ns = std::str::from_utf8(ns).map_err(|_| KeyError)?;
    let id = MachineId::new(bytes::Bytes::copy_from_slice(id)).map_err(|_| KeyError)?;
    Ok(MachineKey { ns: Namespace::new(ns), id })
}

/// The notification's id, from its key.
pub fn notification_id(key: &[u8]) -> Result<NotificationId, KeyError> {
    key.last_chunk::<8>().map(|id| from_ordered(*id)).ok_or(KeyError)
}

/// The event's id, from its key.
pub fn event_id(key: &[u8]) -> Result<i64, KeyError> {
    key.last_chunk::<8>().map(|id| from_ordered(*id)).ok_or(KeyError)
}

/// The entry's id, from its key or its block's.
pub fn entry_id(key: &[u8]) -> Result<i64, KeyError> {
    key.last_chunk::<8>().map(|id| from_ordered(*id)).ok_or(KeyError)
}

fn push_with_length(bytes: &mut Vec<u8>, part: &[u8]) {
    // Ids are checked to 1024 bytes, namespaces by every method of the store: the length fits.
    let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(part);
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
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::machine::CommitId;

    fn key(ns: &str, id: &[u8]) -> MachineKey {
        MachineKey { ns: Namespace::new(ns), id: MachineId::new(Bytes::copy_from_slice(id)).unwrap() }
    }

    fn any_key() -> impl Strategy<Value = MachineKey> {
        ("[a-c/é]{0,3}", prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(ns, id)| key(&ns, &id))
    }

    proptest! {
        #[test]
        fn a_machine_is_read_back_from_its_key(machine in any_key()) {
            prop_assert_eq!(decode_machine(&super::machine(&machine)), Ok(machine));
        }

        #[test]
        fn a_due_is_read_back_from_its_key(at: i64, entry: Option<i64>, machine in any_key()) {
            let encoded = DueKey::encode(at, entry, &super::machine(&machine));
            prop_assert_eq!(DueKey::decode(&encoded), Ok(DueKey { at, entry, machine }));
        }

        #[test]
        fn dues_are_in_the_order_of_time(a: i64, b: i64, first in any_key(), second in any_key()) {
            let [left, right] = [(a, &first), (b, &second)].map(|(at, key)| DueKey::encode(at, Some(at), &machine(key)));
            prop_assume!(a != b);
            prop_assert_eq!(left < right, a < b);
            prop_assert_eq!(DueKey::end(a).is_none_or(|end| right < end), b <= a);
        }

        #[test]
        fn events_are_in_the_order_of_epoch_then_id(e: [u8; 16], f: [u8; 16], a: i64, b: i64, machine in any_key()) {
            let prefix = MachinePrefix::new(&machine);
            let (left, right) = (prefix.event(CommitId(e), a), prefix.event(CommitId(f), b));
            prop_assert_eq!(left.cmp(&right), (e, a).cmp(&(f, b)));
            prop_assert_eq!(event_id(&left), Ok(a));
        }

        #[test]
        fn no_key_of_another_machine_lies_between_the_events_of_one(
            one in any_key(), other in any_key(), e: [u8; 16], f: [u8; 16], a: i64,
        ) {
            prop_assume!(one != other);
            let (first, last) = (MachinePrefix::new(&one).event(CommitId(e), i64::MIN), MachinePrefix::new(&one).event(CommitId(e), i64::MAX));
            let foreign = MachinePrefix::new(&other).event(CommitId(f), a);
            prop_assert!(foreign < first || foreign > last);
        }
    }

    #[test]
    fn an_id_made_of_another_machines_key_does_not_mix_with_it() {
        let epoch = CommitId([7; 16]);
        let one = MachinePrefix::new(&key("a", b"x"));
        let (first, last) = (one.event(epoch, 1), one.event(epoch, 9));
        let crafted = [b"x".as_slice(), &epoch.0, &ordered(5)].concat();
        let foreign = MachinePrefix::new(&key("a", &crafted)).event(epoch, 5);
        assert!(foreign < first || foreign > last);
        assert_ne!(machine(&key("a", b"bc")), machine(&key("ab", b"c")));
    }

    #[test]
    fn a_notification_is_read_back_from_its_key() {
        let prefix = MachinePrefix::new(&key("a", b"x"));
        let ids = [i64::MIN, -1, 0, 1, i64::MAX];
        let keys = ids.map(|id| prefix.notification(id));
        assert!(keys.is_sorted());
        assert_eq!(keys.map(|key| notification_id(&key)), ids.map(Ok));
    }

    proptest! {
        #[test]
        fn entries_are_in_the_order_of_their_ids(sink in "[a-c\u{e9}]{0,3}", a: i64, b: i64) {
            let prefix = LedgerPrefix::new(&sink);
            prop_assert_eq!(prefix.at(a).cmp(&prefix.at(b)), a.cmp(&b));
            prop_assert_eq!(entry_id(&prefix.at(a)), Ok(a));
            prop_assert!(prefix.head() < prefix.at(i64::MIN));
        }

        #[test]
        fn no_key_of_another_ledger_lies_between_the_entries_of_one(one in "[a-c]{0,3}", other in "[a-c]{0,3}", a: i64) {
            prop_assume!(one != other);
            let prefix = LedgerPrefix::new(&one);
            let (first, last) = (prefix.at(i64::MIN), prefix.at(i64::MAX));
            let foreign = LedgerPrefix::new(&other).at(a);
            prop_assert!(foreign < first || foreign > last);
        }

        #[test]
        fn tags_of_namespaces_do_not_mix(one in any_key(), other in any_key()) {
            prop_assume!(one != other);
            prop_assert_ne!(tag(&one.ns, one.id.as_bytes()), tag(&other.ns, other.id.as_bytes()));
        }
    }

    #[test]
    fn the_bytes_of_keys_stay_as_they_are() {
        let machine_key = key("a/b", b"x\0");
        assert_eq!(&*machine(&machine_key), b"\0\x03a/bx\0");
        let prefix = MachinePrefix::new(&machine_key);
        assert_eq!(
            &*prefix.event(CommitId([9; 16]), 1),
            [b"\0\x03a/b\0\x02x\0".as_slice(), &[9; 16], &[0x80, 0, 0, 0, 0, 0, 0, 1]].concat()
        );
        assert_eq!(&*tag(&machine_key.ns, b"tag"), b"\0\x03a/btag");
        assert_eq!(&*tag(&machine_key.ns, b""), b"\0\x03a/b");
        assert_eq!(&*LedgerPrefix::new("all").head(), b"\0\x03all");
        assert_eq!(&*LedgerPrefix::new("all").at(1), b"\0\x03all\x80\0\0\0\0\0\0\x01");
        let due = DueKey::encode(-1, Some(2), &machine(&machine_key));
        assert_eq!(&*due, b"\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x80\0\0\0\0\0\0\x02\0\x03a/bx\0");
    }
}
