//! How many bytes of bodies may be in memory at once: of requests and answers, or of the replies of those who are called.
//!
//! Policy. What counts is what is there: a body counts chunk by chunk as it comes, so that a client that claims much and
//! sends little holds nothing; and it counts until its last slice is dropped, wherever that went. One that claims more
//! than is left is refused before it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

/// What may still come while memory is short: reads, and what frees memory, are no larger.
const SMALL: u64 = 64 * 1024;

/// Answers up to this many bytes do not count: they are many, and in the sockets' buffers at once.
const UNCOUNTED_ANSWER: usize = 4 * 1024;

/// What operators turn when memory is short.
const MEMORY: &str = "limits.memory";

/// A bound on bytes, and how many there are.
#[derive(Debug)]
pub struct Bodies {
    /// What operators turn.
    setting: &'static str,
    most: u64,
    /// Of which this is a share: what counts here counts there too.
    whole: Option<Arc<Bodies>>,
    held: AtomicU64,
    refused: AtomicU64,
    short: AtomicBool,
}

/// The setting that stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted(pub &'static str);

/// Bytes that count until this is dropped.
#[derive(Debug)]
pub struct Held {
    bodies: Arc<Bodies>,
    bytes: u64,
}

/// A body whose memory counts until its last slice is dropped.
struct Kept {
    body: Bytes,
    _held: Held,
}

// === impl Bodies ===

impl Bodies {
    /// Up to `most` bytes; `setting` is where an operator says how many.
    pub fn new(setting: &'static str, most: u64) -> Arc<Self> {
        Arc::new(Self {
            setting,
            most,
            whole: None,
            held: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            short: AtomicBool::new(false),
        })
    }

    /// For tools and tests, whose few bodies nobody has to bound.
    pub fn unbounded() -> Arc<Self> {
        Self::new("nothing", u64::MAX)
    }

    /// A share of this, that takes no more than `most` of it.
    pub fn share(self: &Arc<Self>, most: u64) -> Arc<Self> {
        Arc::new(Self {
            setting: self.setting,
            most,
            whole: Some(self.clone()),
            held: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            short: AtomicBool::new(false),
        })
    }

    /// Whether memory is short: then only small bodies come in.
    pub fn set_short(&self, short: bool) {
        self.short.store(short, Ordering::Relaxed);
    }

    /// Bytes there are now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Bodies refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// For a body that begins to come.
    pub fn hold(self: &Arc<Self>) -> Held {
        Held { bodies: self.clone(), bytes: 0 }
    }

    /// An answer on its way out. It was worked for, so it is never refused; but what it takes is not left for others.
    pub fn answer(self: &Arc<Self>, body: Bytes) -> Bytes {
        if body.len() <= UNCOUNTED_ANSWER {
            return body;
        }
        let mut held = self.hold();
        held.bytes = body.len() as u64;
        self.each(|bodies| {
            bodies.held.fetch_add(held.bytes, Ordering::Relaxed);
        });
        held.keep(body)
    }

    fn each(&self, visit: impl Fn(&Self)) {
        let mut next = Some(self);
        while let Some(bodies) = next {
            visit(bodies);
            next = bodies.whole.as_deref();
        }
    }

    fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed) || self.whole.as_ref().is_some_and(|whole| whole.is_short())
    }

    /// Takes `bytes` more here, and in what this is a share of; or nothing.
    fn take(&self, bytes: u64) -> bool {
        let fits = |held: u64| held.checked_add(bytes).filter(|held| *held <= self.most);
        if self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        let taken = self.whole.as_ref().is_none_or(|whole| whole.take(bytes));
        if !taken {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
        }
        taken
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.held().saturating_add(bytes) <= self.most && self.whole.as_ref().is_none_or(|whole| whole.has_room(bytes))
    }

    fn refuse(&self, setting: &'static str) -> Exhausted {
        self.each(|bodies| {
            bodies.refused.fetch_add(1, Ordering::Relaxed);
        });
        Exhausted(setting)
    }
}

// === impl Held ===

impl Held {
    /// Whether a body of this size could come now. It is not taken yet: that is done as it comes.
    pub fn expect(&self, bytes: u64) -> Result<(), Exhausted> {
        if bytes > SMALL && self.bodies.is_short() {
            return Err(self.bodies.refuse(MEMORY));
        }
        if !self.bodies.has_room(bytes) {
            return Err(self.bodies.refuse(self.bodies.setting));
        }
        Ok(())
    }

    /// So many bytes more have come.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let bytes = bytes as u64;
        if self.bytes + bytes > SMALL && self.bodies.is_short() {
            return Err(self.bodies.refuse(MEMORY));
        }
        if !self.bodies.take(bytes) {
            return Err(self.bodies.refuse(self.bodies.setting));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// The whole body, which counts for as long as any slice of it is there.
    pub fn keep(self, body: Bytes) -> Bytes {
        Bytes::from_owner(Kept { body, _held: self })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bodies.each(|bodies| {
            bodies.held.fetch_sub(self.bytes, Ordering::Relaxed);
        });
    }
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

// === impl Exhausted ===

impl std::fmt::Display for Exhausted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "overload: {} is reached", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_counts_until_its_last_slice_is_dropped() {
        let bodies = Bodies::new("limits.bodies.requests", 10);
        let mut held = bodies.hold();
        assert_eq!(held.grow(6), Ok(()));
        let body = held.keep(Bytes::from_static(b"sixsix"));
        let slice = body.slice(1..2);
        drop(body);
        assert_eq!(bodies.held(), 6);
        assert_eq!(bodies.hold().expect(5), Err(Exhausted("limits.bodies.requests")));
        assert_eq!(bodies.hold().expect(4), Ok(()), "nothing is taken by what only may come");
        assert_eq!(bodies.hold().grow(5), Err(Exhausted("limits.bodies.requests")));
        assert_eq!(bodies.refused(), 2);
        drop(slice);
        assert_eq!(bodies.held(), 0);
        assert_eq!(bodies.hold().grow(10), Ok(()));
    }

    #[test]
    fn a_share_takes_its_part_of_the_whole_and_no_more() {
        let whole = Bodies::new("limits.bodies.replies", 10);
        let (one, other) = (whole.share(6), whole.share(6));
        let (mut first, mut second) = (one.hold(), other.hold());
        assert_eq!(first.grow(6), Ok(()));
        assert_eq!(first.grow(1), Err(Exhausted("limits.bodies.replies")));
        assert_eq!(second.grow(5), Err(Exhausted("limits.bodies.replies")), "the whole is full");
        assert_eq!(second.grow(4), Ok(()));
        assert_eq!((one.held(), other.held(), whole.held(), whole.refused()), (6, 4, 10, 2));
        drop(first);
        assert_eq!((one.held(), whole.held()), (0, 4));
    }

    #[test]
    fn while_memory_is_short_only_small_bodies_come() {
        let whole = Bodies::new("limits.bodies.requests", u64::MAX);
        let share = whole.share(u64::MAX);
        whole.set_short(true);
        for bodies in [&whole, &share] {
            let mut held = bodies.hold();
            assert_eq!(held.expect(SMALL + 1), Err(Exhausted("limits.memory")));
            assert_eq!(held.grow(SMALL as usize), Ok(()));
            assert_eq!(held.grow(1), Err(Exhausted("limits.memory")));
        }
        whole.set_short(false);
        assert_eq!(share.hold().grow(SMALL as usize + 1), Ok(()));
    }

    #[test]
    fn an_answer_is_never_refused_and_leaves_less_for_others() {
        let bodies = Bodies::new("limits.bodies.requests", 5_000);
        let answers = [bodies.answer(vec![0; 4_500].into()), bodies.answer(vec![0; 4_500].into())];
        assert_eq!(bodies.held(), 9_000);
        assert_eq!(bodies.hold().grow(1), Err(Exhausted("limits.bodies.requests")));
        drop(answers);
        assert_eq!(bodies.held(), 0);
        drop(bodies.answer(vec![0; 4_096].into()));
    }
}
