//! The connections that are held, and which of them makes room for another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::watch::Watch;

/// Connections that were asked to leave and are still there, at most: so far the bound may be overrun for a moment.
const MOST_LEAVING: usize = 64;

#[derive(Debug)]
pub(super) struct Crowd {
    most: usize,
    least_idle: Duration,
    held: Mutex<Members>,
    left: Notify,
}

/// Why nobody else gets in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crowded {
    /// All that are here are at work.
    Busy,
    /// Some are silent, if not for long enough yet, or were asked to leave.
    Passing,
}

#[derive(Debug, Default)]
struct Members {
    next: u64,
    by_number: HashMap<u64, Arc<Watch>>,
}

/// A connection's membership. It ends with this.
#[derive(Debug)]
pub(super) struct Member {
    crowd: Arc<Crowd>,
    number: u64,
}

// === impl Crowd ===

impl Crowd {
    pub(super) fn new(most: usize, least_idle: Duration) -> Arc<Self> {
        Arc::new(Self { most, least_idle, held: Mutex::default(), left: Notify::new() })
    }

    fn held(&self) -> MutexGuard<'_, Members> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in: there is room, or the one that has been idle for longest is told to leave, which is the
    /// truth beside it.
    pub(super) fn enter(self: &Arc<Self>, watch: &Arc<Watch>, now: Instant) -> Result<(Member, bool), Crowded> {
        let mut held = self.held();
        let crowded = held.by_number.len() >= self.most;
        if crowded {
            if held.by_number.len() >= self.most.saturating_add(MOST_LEAVING) {
                return Err(Crowded::Passing);
            }
            let idle = held.by_number.values().filter_map(|watch| Some((watch.idle_for(now)?, watch)));
            match idle.max_by_key(|(time, _)| *time) {
                Some((time, longest)) if time >= self.least_idle => longest.tell_to_leave(),
                Some(_) => return Err(Crowded::Passing),
                None if held.by_number.values().any(|watch| watch.is_leaving()) => return Err(Crowded::Passing),
                None => return Err(Crowded::Busy),
            }
        }
        let number = held.next;
        held.next += 1;
        held.by_number.insert(number, watch.clone());
        Ok((Member { crowd: self.clone(), number }, crowded))
    }

    /// The same, but waits while those that are here may be gone in a moment: by then, who is silent now has been so for
    /// long enough.
    pub(super) async fn enter_soon(self: &Arc<Self>, watch: &Arc<Watch>) -> Option<(Member, bool)> {
        let end = Instant::now() + self.least_idle;
        loop {
            let now = Instant::now();
            match self.enter(watch, now) {
                Ok(entered) => return Some(entered),
                Err(Crowded::Passing) if now < end => _ = timeout_at(end, self.left.notified()).await,
                Err(_) => return None,
            }
        }
    }
}

// === impl Member ===

impl Drop for Member {
    fn drop(&mut self) {
        self.crowd.held().by_number.remove(&self.number);
        self.crowd.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::super::watch::Phase;
    use super::*;

    #[test]
    fn who_has_been_idle_for_longest_makes_room_and_who_is_at_work_does_not() {
        const LEAST_IDLE: Duration = Duration::from_secs(1);
        let crowd = Crowd::new(3, LEAST_IDLE);
        let watches: Vec<_> = (0..5).map(|_| Watch::new(false)).collect();
        let (now, later) = (Instant::now(), Instant::now() + LEAST_IDLE);
        let told = || watches.iter().map(|watch| watch.is_leaving()).collect::<Vec<_>>();
        let _members: Vec<_> = watches[..3].iter().map(|watch| crowd.enter(watch, now).expect("room")).collect();
        watches[0].enter(Phase::Busy);
        let refused = crowd.enter(&watches[3], now).expect_err("nobody has been idle for long enough");
        assert_eq!(refused, Crowded::Passing);
        // One that was asked to leave is still there.
        let (small, leaving) = (Crowd::new(1, Duration::ZERO), Watch::new(false));
        let _leaving = small.enter(&leaving, now).expect("room");
        leaving.tell_to_leave();
        assert_eq!(small.enter(&watches[4], now).expect_err("it is still there"), Crowded::Passing);
        let (fourth, made_room) = crowd.enter(&watches[3], later).expect("one makes room");
        assert!(made_room);
        assert_eq!(told(), [false, true, false, false, false]);
        // Who was asked already is not asked again.
        let fifth = crowd.enter(&watches[4], later).expect("one makes room");
        assert_eq!(told(), [false, true, true, false, false]);
        drop((fourth, fifth));
    }
}
