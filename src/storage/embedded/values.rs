//! The embedded store's values. Each begins with its version; a record brings its own (`Record::encode`).

use bytes::Bytes;
use fjall::{Slice, UserValue};

use crate::machine::{Notification, NotificationId, RecordError};
use crate::storage::StorageError;

const EVENT_VERSION: u8 = 1;
const ENTRY_VERSION: u8 = 1;
const DUE_VERSION: u8 = 1;

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

    pub fn notification(&self, id: NotificationId) -> Result<Notification, StorageError> {
        Notification::decode(id, self.notification).map_err(corrupt)
    }
}

pub fn encode_event(event: &[u8]) -> UserValue {
    let mut bytes = Vec::with_capacity(1 + event.len());
    bytes.push(EVENT_VERSION);
    bytes.extend_from_slice(event);
    Slice::from(bytes)
}

/// The one copy that a read makes: memory of the event's own, so that keeping it does not keep a block of the store.
pub fn decode_event(bytes: &[u8]) -> Result<Bytes, StorageError> {
    versioned(bytes, EVENT_VERSION, "event").map(Bytes::copy_from_slice)
}

/// A due is all in its key.
pub fn due() -> UserValue {
    Slice::from([DUE_VERSION])
}

pub fn corrupt(error: RecordError) -> StorageError {
    StorageError::Corrupt(error.to_string())
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
    fn a_value_of_an_unknown_version_is_refused_by_name() {
        let text = decode_event(&[9, 1, 2]).unwrap_err().to_string();
        assert_eq!(text, "storage corrupt: a stored event has version 9, this release reads up to 1");
        assert!(Entry::read(&[2]).is_err());
        assert!(Entry::read(&[]).is_err());
        assert!(Entry::read(&[ENTRY_VERSION, 0]).is_err());
        assert_eq!(decode_event(&encode_event(b"event")).unwrap(), "event");
    }
}
