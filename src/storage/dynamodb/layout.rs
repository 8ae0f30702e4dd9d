//! How a machine's events lie in its item and beside it.

use bytes::Bytes;

use super::keys::FIRST_GENERATION;
use crate::machine::{CommitId, Epoch};
use crate::storage::StorageError;

const VERSION: u8 = 1;
const INLINE: u8 = 0;
const BLOB: u8 = 1;

/// Bytes of one part of a blob: with its key it stays far below an item's 400 KB.
pub const PART: usize = 350_000;

/// Bytes of events that a step may have in the machine's item itself, or a chunk in its own.
pub const MOST_INLINE: usize = 200_000;

/// Bytes of a record that stand in the machine's item; what is longer has all but its beginning in blobs.
pub const MOST_RECORD: usize = 100_000;

/// What stays in the item of a record that doesn't fit: more than a record's head.
pub const RECORD_HEAD: usize = 256;

/// Bytes of committed events that a put may carry along: past it they are spilled. A put pays for the whole item in KB,
/// a spill pays for one more request.
pub const TAIL: usize = 1_600;

/// Consecutive events of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// Never empty.
    Inline { first: i64, events: Vec<Bytes> },
    /// In `parts` items keyed by the commit that brought them.
    Blob { first: i64, last: i64, commit: CommitId, parts: u32 },
}

/// What a machine's item says of its epoch besides the record: attribute `t`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The generation of chunks that holds: the commit that replaced events last.
    pub generation: CommitId,
    /// Events up to this one are deleted.
    pub cut: i64,
    /// How many blobs hold the rest of the record; 0: it stands in the item whole.
    pub record_parts: u32,
    /// The newest events, ascending.
    pub tail: Vec<Run>,
}

/// A machine's item as far as its next commit needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub commit: CommitId,
    pub epoch: Epoch,
    pub layout: Layout,
}

// === impl Run ===

impl Run {
    /// The events that end at `last`; none of none.
    pub fn inline(last: i64, events: &[Bytes]) -> Option<Self> {
        let first = last - events.len() as i64 + 1;
        (!events.is_empty()).then(|| Self::Inline { first, events: events.to_vec() })
    }

    pub fn first(&self) -> i64 {
        match self {
            Self::Inline { first, .. } | Self::Blob { first, .. } => *first,
        }
    }

    pub fn last(&self) -> i64 {
        match self {
            Self::Inline { first, events } => first + events.len() as i64 - 1,
            Self::Blob { last, .. } => *last,
        }
    }

    /// Bytes that it takes in an item.
    pub fn size(&self) -> usize {
        match self {
            Self::Inline { events, .. } => 13 + encoded_size(events),
            Self::Blob { .. } => 37,
        }
    }
}

pub fn encoded_size(events: &[Bytes]) -> usize {
    events.iter().map(|event| 4 + event.len()).sum()
}

/// `(len event)...`: the content of a blob of events.
pub fn encode_events(events: &[Bytes]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(encoded_size(events));
    for event in events {
        // A step is bounded to 1 GB by its setting: the length fits.
        bytes.extend_from_slice(&u32::try_from(event.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(event);
    }
    bytes
}

pub fn decode_events(mut bytes: &[u8]) -> Result<Vec<Bytes>, StorageError> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        events.push(take_event(&mut bytes)?);
    }
    Ok(events)
}

/// `version run...`: the value of a chunk, and the end of a layout.
pub fn encode_runs(runs: &[Run]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + runs.iter().map(Run::size).sum::<usize>());
    bytes.push(VERSION);
    for run in runs {
        match run {
            Run::Inline { first, events } => {
                bytes.push(INLINE);
                bytes.extend_from_slice(&first.to_be_bytes());
                bytes.extend_from_slice(&u32::try_from(events.len()).unwrap_or(u32::MAX).to_be_bytes());
                bytes.extend_from_slice(&encode_events(events));
            }
            Run::Blob { first, last, commit, parts } => {
                bytes.push(BLOB);
                bytes.extend_from_slice(&first.to_be_bytes());
                bytes.extend_from_slice(&last.to_be_bytes());
                bytes.extend_from_slice(&commit.0);
                bytes.extend_from_slice(&parts.to_be_bytes());
            }
        }
    }
    bytes
}

pub fn decode_runs(bytes: &[u8]) -> Result<Vec<Run>, StorageError> {
    let mut bytes = versioned(bytes)?;
    let mut runs = Vec::new();
    while let Some((&kind, rest)) = bytes.split_first() {
        bytes = rest;
        let first = i64::from_be_bytes(take(&mut bytes)?);
        runs.push(match kind {
            INLINE => {
                let count = u32::from_be_bytes(take(&mut bytes)?);
                let events: Vec<_> = (0..count).map(|_| take_event(&mut bytes)).collect::<Result<_, _>>()?;
                if events.is_empty() || first.checked_add(events.len() as i64).is_none() {
                    return Err(malformed());
                }
                Run::Inline { first, events }
            }
            BLOB => {
                let last = i64::from_be_bytes(take(&mut bytes)?);
                let commit = CommitId(take(&mut bytes)?);
                Run::Blob { first, last, commit, parts: u32::from_be_bytes(take(&mut bytes)?) }
            }
            _ => return Err(malformed()),
        });
    }
    Ok(runs)
}

// === impl Layout ===

impl Layout {
    /// Of a new epoch, before its first event.
    pub const EMPTY: Self = Self { generation: FIRST_GENERATION, cut: 0, record_parts: 0, tail: Vec::new() };

    pub fn tail_size(&self) -> usize {
        self.tail.iter().map(Run::size).sum()
    }

    /// `version generation cut record-parts runs`
    pub fn encode(&self) -> Vec<u8> {
        let head = [&[VERSION], &self.generation.0[..], &self.cut.to_be_bytes(), &self.record_parts.to_be_bytes()];
        let mut bytes = head.concat();
        bytes.extend_from_slice(&encode_runs(&self.tail));
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        let mut bytes = versioned(bytes)?;
        Ok(Self {
            generation: CommitId(take(&mut bytes)?),
            cut: i64::from_be_bytes(take(&mut bytes)?),
            record_parts: u32::from_be_bytes(take(&mut bytes)?),
            tail: decode_runs(bytes)?,
        })
    }
}

// === impl Standing ===

impl Standing {
    /// Bytes that it takes in memory, about.
    pub fn size(&self) -> usize {
        128 + self.layout.tail_size()
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], StorageError> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or_else(malformed)?;
    *bytes = rest;
    Ok(*taken)
}

/// In memory of its own: what is kept must not hold a whole answer alive.
fn take_event(bytes: &mut &[u8]) -> Result<Bytes, StorageError> {
    let length = u32::from_be_bytes(take(bytes)?);
    let (event, rest) = bytes.split_at_checked(length as usize).ok_or_else(malformed)?;
    *bytes = rest;
    Ok(Bytes::copy_from_slice(event))
}

fn versioned(bytes: &[u8]) -> Result<&[u8], StorageError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((version, _)) => Err(StorageError::Corrupt(format!(
            "stored events have version {version}, this release reads up to {VERSION}"
        ))),
        None => Err(malformed()),
    }
}

fn malformed() -> StorageError {
    StorageError::Corrupt("stored events are malformed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let events = [&b"one"[..], b"", b"three"].map(Bytes::from_static).to_vec();
        Layout {
            generation: CommitId([7; 16]),
            cut: 3,
            record_parts: 2,
            tail: vec![
                Run::Blob { first: 4, last: 6, commit: CommitId([9; 16]), parts: 8 },
                Run::Inline { first: 7, events },
            ],
        }
    }

    #[test]
    fn a_layout_is_read_back() {
        let bytes = layout().encode();
        assert_eq!(Layout::decode(&bytes), Ok(layout()));
        assert_eq!(bytes.len(), 30 + layout().tail_size());
        assert_eq!(Layout::decode(&Layout::EMPTY.encode()), Ok(Layout::EMPTY));
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_refused() {
        let bytes = layout().encode();
        // Runs end where they end: a layout cut between two of them has fewer, which the reader meets as a gap.
        let whole = [30, 30 + 37];
        for length in (0..bytes.len()).filter(|length| !whole.contains(length)) {
            assert!(Layout::decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Layout::decode(&[&[9], &bytes[1..]].concat()).is_err());
        assert!(decode_runs(&[VERSION, 7]).is_err());
        assert!(decode_events(&[0, 0, 0, 9, 1]).is_err());
    }

    #[test]
    fn runs_know_their_ends() {
        assert_eq!(Run::inline(5, &[]), None);
        let run = Run::inline(5, &[Bytes::from_static(b"a"), Bytes::from_static(b"b")]).unwrap();
        assert_eq!((run.first(), run.last()), (4, 5));
    }
}
