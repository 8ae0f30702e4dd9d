//! What a connection's socket and the exchange above it tell each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Where a connection is in its exchange, which says how long the client may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing has come yet.
    Fresh = 0,
    /// Between two requests.
    Idle = 1,
    /// Some of a request's headers are here.
    Head = 2,
    /// The request's body is being read.
    Body = 3,
    /// The request is being handled; the client owes nothing.
    Busy = 4,
    /// The reply went out early; the rest of the body is skipped.
    Skip = 5,
}

/// What the socket and the exchange above it tell each other.
#[derive(Debug)]
pub(super) struct Watch {
    /// A count of changes, and the phase in the lowest three bits: a timer is armed anew when it differs.
    phase: AtomicU32,
    unread: AtomicBool,
    ambiguous: AtomicBool,
    /// Some of a reply is still to be taken by the client.
    stalled: AtomicBool,
    born: Instant,
    /// Milliseconds between that and the last time that the connection became idle.
    idle_since: AtomicU64,
    leaving: AtomicBool,
    leave: Notify,
    /// One of those beyond all places.
    spare: bool,
}

// === impl Phase ===

impl Phase {
    pub(super) fn of(value: u32) -> Self {
        match value & 7 {
            0 => Self::Fresh,
            1 => Self::Idle,
            2 => Self::Head,
            3 => Self::Body,
            4 => Self::Busy,
            _ => Self::Skip,
        }
    }
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(spare: bool) -> Arc<Self> {
        Arc::new(Self {
            phase: AtomicU32::new(0),
            unread: AtomicBool::new(false),
            ambiguous: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            born: Instant::now(),
            idle_since: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            leave: Notify::new(),
            spare,
        })
    }

    /// Returns what [`Self::leave`] needs.
    pub(super) fn enter(&self, phase: Phase) -> u32 {
        if phase == Phase::Idle {
            self.note_idle();
        }
        let changes = (self.phase.load(Ordering::Relaxed) >> 3).wrapping_add(1);
        let value = changes << 3 | phase as u32;
        self.phase.store(value, Ordering::Release);
        value
    }

    fn note_idle(&self) {
        self.idle_since.store(self.born.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Enters `phase`, unless something else happened since `value` was given out.
    pub(super) fn leave(&self, value: u32, phase: Phase) {
        self.note_idle();
        let next = (value >> 3).wrapping_add(1) << 3 | phase as u32;
        let _ = self.phase.compare_exchange(value, next, Ordering::AcqRel, Ordering::Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::of(self.value())
    }

    /// Another one after each change.
    pub(super) fn value(&self) -> u32 {
        self.phase.load(Ordering::Acquire)
    }

    /// The connection will close with some of a request unread.
    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Release);
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Acquire)
    }

    /// Whether the client has yet to take some of a reply.
    pub(super) fn stalls(&self, stalls: bool) {
        self.stalled.store(stalls, Ordering::Relaxed);
    }

    /// For how long the client has asked for nothing and been owed nothing. None: it has not, or it was told to leave.
    pub(super) fn idle_for(&self, now: Instant) -> Option<Duration> {
        let idle = matches!(self.phase(), Phase::Fresh | Phase::Idle)
            && !self.stalled.load(Ordering::Relaxed)
            && !self.is_leaving();
        let since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        idle.then(|| now.saturating_duration_since(self.born).saturating_sub(since))
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Asks the connection to make room for another.
    pub(super) fn tell_to_leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.leave.notify_one();
    }

    /// Returns once it was told to leave.
    pub(super) async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    /// Whether this connection is one of those beyond all places.
    pub(super) fn is_spare(&self) -> bool {
        self.spare
    }

    pub(super) fn note_ambiguous_length(&self, ambiguous: bool) {
        self.ambiguous.store(ambiguous, Ordering::Release);
    }

    /// The request had more than one `content-length`.
    pub(super) fn ambiguous_length(&self) -> bool {
        self.ambiguous.load(Ordering::Acquire)
    }
}
