//! What is stored of a machine besides its events, and its format.
//!
//! A stored record begins with a fixed head, so that a store can check a commit and index a due without decoding the
//! rest: version, commit id, epoch, status, due, earlier commit ids. The rest is MessagePack.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::key::{CommitId, Epoch};
use super::outbox::Unsent;
use super::wake::wishes;
use crate::wire::{Content, Direction, HistoryRange, Value, timestamp};

/// How many commit ids a record remembers, its own included: a lost answer is recognised so far back.
pub const KEPT_COMMITS: usize = 8;

/// How long a tombstone rests after its debts are paid, in milliseconds: writes that are still under way find it.
pub const TOMBSTONE_REST_MS: i64 = 24 * 60 * 60 * 1_000;

/// How many handled notifications a record notes.
pub const KEPT_NOTES: usize = 8;

/// Bytes of a failure's reason that are kept: it is shown, never computed with, and every commit carries it.
pub const LONGEST_REASON: usize = 4096;

const VERSION: u8 = 1;
const NO_DUE: i64 = i64::MAX;
const HEAD_SIZE: usize = 1 + 16 + 16 + 1 + 8 + 1;

#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub commit: CommitId,
    /// The commits before `commit`, newest first, at most [`KEPT_COMMITS`] - 1.
    pub earlier: Vec<CommitId>,
    pub epoch: Epoch,
    pub status: Status,
    pub aux_state: Content,
    /// Armed while the machine works; kept, and shown, while it retries or is failed.
    pub timer: Option<Timer>,
    /// 0 before the first event.
    pub last_event: i64,
    /// When the notifications that wait for this machine want it to wake; none if none are known to wait.
    pub notifications_due: Option<i64>,
    /// The last notifications that took effect, newest last, at most [`KEPT_NOTES`]: one that is delivered again is
    /// recognised. A commit is done only once the entries that it deletes are gone, so a note never goes before its
    /// entry.
    pub handled: Vec<i64>,
    /// What removals still owe.
    pub debts: Vec<Debt>,
    /// What sinks have not acknowledged; a machine started anew carries its predecessor's ahead of its own.
    pub unsent: Vec<Unsent>,
    /// When to look whether all was acknowledged, and to send again what was not; some while anything may be unsent.
    pub outbox_due: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    Working(Phase),
    /// Stopped until a repair. `before` is what a SimpleRepair restores.
    Failed {
        reason: String,
        before: Phase,
    },
    /// A tombstone: not found to everyone, still owing its deletions. `at` is when it was removed or last paid.
    Removed {
        at: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Sleeping, or waiting if there is a timer.
    Idle,
    /// The timer's signal failed `attempt` + 1 times in a row, `since` then for the first time; it is tried again at `at`.
    Retrying {
        attempt: u32,
        at: i64,
        // Records from before policies were measured by it end here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<i64>,
    },
}

/// A status without its data, as stores index it and metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StatusKind {
    Sleeping = 1,
    Waiting = 2,
    Retrying = 3,
    Failed = 4,
    Removed = 5,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Timer {
    /// Unix milliseconds. May lie in the past.
    pub due: i64,
    /// The history that the timeout signal is given.
    pub range: HistoryRange,
    /// Seconds that the processor may take over the signal, as it asked.
    pub timeout: i32,
    /// Of the request that set the timer.
    pub context: RequestContext,
}

/// Where a request came from, as far as a later processor call continues it. Never holds a deadline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestContext {
    pub trace_id: Bytes,
    pub span_id: Bytes,
    pub meta: Vec<(Bytes, Bytes)>,
    /// W3C trace headers as they came: name, value.
    pub trace: Vec<(Bytes, Bytes)>,
}

/// Events and notifications of a removed machine that are still stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Debt {
    #[serde(with = "commit_id")]
    pub epoch: Epoch,
    pub last_event: i64,
    /// Some sink wanted these events when the record was last committed.
    ///
    /// INVARIANT: set anew by each commit, never by an acknowledgement. While the store knows of a sink that wants them
    /// they stay, or a record that is read again would owe events that nobody can read.
    #[serde(default)]
    pub wanted: bool,
}

/// The fixed beginning of a stored record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    pub commit: CommitId,
    pub epoch: Epoch,
    pub status: StatusKind,
    pub due: Option<i64>,
    earlier: &'a [u8],
}

/// Stored bytes that are no record of a version that this release reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("a stored record has version {0}, this release reads up to {VERSION}")]
    Version(u8),
    #[error("a stored record is malformed: {0}")]
    Malformed(String),
}

#[derive(Serialize, Deserialize)]
struct Body {
    status: Status,
    aux_format: Option<i32>,
    aux_data: Bytes,
    timer: Option<TimerBody>,
    last_event: i64,
    notifications_due: Option<i64>,
    handled: Vec<i64>,
    debts: Vec<Debt>,
    // Records from before there were sinks end here.
    #[serde(default)]
    unsent: Vec<Unsent>,
    #[serde(default)]
    outbox_due: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct TimerBody {
    due: i64,
    range: RangeBody,
    timeout: i32,
    context: RequestContext,
}

/// A history range as it is stored, with timers and notifications alike.
#[derive(Serialize, Deserialize)]
pub(super) struct RangeBody {
    after: Option<i64>,
    limit: Option<i32>,
    backward: bool,
}

// === impl Record ===

impl Record {
    pub fn kind(&self) -> StatusKind {
        match &self.status {
            Status::Working(Phase::Retrying { .. }) => StatusKind::Retrying,
            Status::Working(Phase::Idle) if self.timer.is_some() => StatusKind::Waiting,
            Status::Working(Phase::Idle) => StatusKind::Sleeping,
            Status::Failed { .. } => StatusKind::Failed,
            Status::Removed { .. } => StatusKind::Removed,
        }
    }

    /// When the timer's signal is due: the retry's time while retrying.
    pub fn timer_due(&self) -> Option<i64> {
        match &self.status {
            Status::Working(Phase::Idle) => self.timer.as_ref().map(|timer| timer.due),
            Status::Working(Phase::Retrying { at, .. }) => Some(*at),
            Status::Failed { .. } | Status::Removed { .. } => None,
        }
    }

    /// When the record wants to be woken next, never before 1970.
    pub fn due(&self) -> Option<i64> {
        // So a store may order dues as unsigned bytes, and the greatest number stays free for none.
        wishes(self).map(|(due, _)| due).min().map(|due| due.clamp(0, NO_DUE - 1))
    }

    pub fn exists(&self) -> bool {
        !matches!(self.status, Status::Removed { .. })
    }

    /// Whether it is known to be, or to come behind, this commit.
    pub fn remembers(&self, commit: CommitId) -> bool {
        self.commit == commit || self.earlier.contains(&commit)
    }

    /// The commit ids that the next record remembers as earlier ones.
    pub fn history_of_commits(&self) -> Vec<CommitId> {
        std::iter::once(self.commit).chain(self.earlier.iter().copied()).take(KEPT_COMMITS - 1).collect()
    }

    pub fn encode(&self) -> Bytes {
        let mut bytes =
            Vec::with_capacity(HEAD_SIZE + 16 * self.earlier.len() + self.aux_state.data.as_bytes().len() + 256);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.commit.0);
        bytes.extend_from_slice(&self.epoch.0);
        bytes.push(self.kind() as u8);
        bytes.extend_from_slice(&self.due().unwrap_or(NO_DUE).to_be_bytes());
        let earlier = &self.earlier[..self.earlier.len().min(KEPT_COMMITS - 1)];
        bytes.push(earlier.len() as u8);
        for commit in earlier {
            bytes.extend_from_slice(&commit.0);
        }
        let body = Body {
            status: self.status.clone(),
            aux_format: self.aux_state.format_version,
            aux_data: self.aux_state.data.as_bytes().clone(),
            timer: self.timer.as_ref().map(|timer| TimerBody {
                due: timer.due,
                range: RangeBody::from(&timer.range),
                timeout: timer.timeout,
                context: timer.context.clone(),
            }),
            last_event: self.last_event,
            notifications_due: self.notifications_due,
            handled: self.handled.clone(),
            debts: self.debts.clone(),
            unsent: self.unsent.clone(),
            outbox_due: self.outbox_due,
        };
        // Writing plain data into memory has no way to fail.
        rmp_serde::encode::write(&mut bytes, &body).expect("a record encodes");
        bytes.into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (head, body) = Head::split(bytes)?;
        let body: Body = rmp_serde::from_slice(body).map_err(|error| RecordError::Malformed(error.to_string()))?;
        Ok(Self {
            commit: head.commit,
            earlier: head.earlier().collect(),
            epoch: head.epoch,
            status: body.status,
            aux_state: Content { format_version: body.aux_format, data: Value::from_stored(body.aux_data) },
            timer: body.timer.map(|timer| Timer {
                due: timer.due,
                range: timer.range.into(),
                timeout: timer.timeout,
                context: timer.context,
            }),
            last_event: body.last_event,
            notifications_due: body.notifications_due,
            handled: body.handled,
            debts: body.debts,
            unsent: body.unsent,
            outbox_due: body.outbox_due,
        })
    }
}

/// The aux state before the first step.
pub fn blank_aux_state() -> Content {
    Content { format_version: None, data: Value::empty() }
}

/// The timer as it is shown to processors and callers: whole seconds.
pub fn shown_timer(record: &Record) -> Option<Bytes> {
    record.timer.as_ref().map(|timer| timestamp::format_seconds(timer.due).into())
}

// === impl RequestContext ===

impl RequestContext {
    /// The context in memory of its own: what is kept for long must not hold a whole request alive.
    pub fn detached(&self) -> Self {
        let copy = Bytes::copy_from_slice;
        let pairs = |pairs: &[(Bytes, Bytes)]| pairs.iter().map(|(name, value)| (copy(name), copy(value))).collect();
        Self {
            trace_id: copy(&self.trace_id),
            span_id: copy(&self.span_id),
            meta: pairs(&self.meta),
            trace: pairs(&self.trace),
        }
    }
}

// === impl Head ===

impl<'a> Head<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Self, RecordError> {
        Ok(Self::split(bytes)?.0)
    }

    fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), RecordError> {
        let cut = || RecordError::Malformed("cut off in its head".to_owned());
        let (&version, rest) = bytes.split_first().ok_or_else(cut)?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let (commit, rest) = rest.split_first_chunk::<16>().ok_or_else(cut)?;
        let (epoch, rest) = rest.split_first_chunk::<16>().ok_or_else(cut)?;
        let (&status, rest) = rest.split_first().ok_or_else(cut)?;
        let (due, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let (&count, rest) = rest.split_first().ok_or_else(cut)?;
        let (earlier, body) = rest.split_at_checked(usize::from(count) * 16).ok_or_else(cut)?;
        let due = i64::from_be_bytes(*due);
        let head = Self {
            commit: CommitId(*commit),
            epoch: CommitId(*epoch),
            status: StatusKind::from_byte(status)?,
            due: (due != NO_DUE).then_some(due),
            earlier,
        };
        Ok((head, body))
    }

    fn earlier(&self) -> impl Iterator<Item = CommitId> + 'a {
        self.earlier.as_chunks::<16>().0.iter().map(|chunk| CommitId(*chunk))
    }

    /// Whether `commit` wrote this record or one of those just before it.
    pub fn remembers(&self, commit: CommitId) -> bool {
        self.commit == commit || self.earlier().any(|earlier| earlier == commit)
    }
}

// === impl StatusKind ===

impl StatusKind {
    pub const ALL: [Self; 5] = [Self::Sleeping, Self::Waiting, Self::Retrying, Self::Failed, Self::Removed];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sleeping => "sleeping",
            Self::Waiting => "waiting",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
            Self::Removed => "removed",
        }
    }

    pub fn from_byte(byte: u8) -> Result<Self, RecordError> {
        Self::ALL
            .into_iter()
            .find(|kind| *kind as u8 == byte)
            .ok_or_else(|| RecordError::Malformed(format!("unknown status {byte}")))
    }
}

// === impl RangeBody ===

impl From<&HistoryRange> for RangeBody {
    fn from(range: &HistoryRange) -> Self {
        Self { after: range.after, limit: range.limit, backward: range.direction == Direction::Backward }
    }
}

impl From<RangeBody> for HistoryRange {
    fn from(body: RangeBody) -> Self {
        let direction = if body.backward { Direction::Backward } else { Direction::Forward };
        Self { after: body.after, limit: body.limit, direction }
    }
}

pub(super) mod commit_id {
    use super::CommitId;

    pub fn serialize<S: serde::Serializer>(id: &CommitId, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(&id.0, serializer)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<CommitId, D::Error> {
        serde_bytes::deserialize(deserializer).map(CommitId)
    }
}
