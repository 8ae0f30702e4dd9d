//! The connections that are held, and which of them makes room for another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::watch::Watch;

/// Connections that were asked to leave and are still there, at most: so far the bound may be overrun for a moment.
const MOST_LEAVING: usize = 64;

#[derive(Debug)]
pub(super) struct Crowd {
    most: usize,
    least_idle: Duration,
    held: Mutex<Members>,
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
        Arc::new(Self { most, least_idle, held: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, Members> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in: there is room, or the one that has been idle for longest is told to leave. None: all that
    /// are here are at work. True beside it: another has to go for this one.
    pub(super) fn enter(self: &Arc<Self>, watch: &Arc<Watch>, now: Instant) -> Option<(Member, bool)> {
        let mut held = self.held();
        let crowded = held.by_number.len() >= self.most;
        if crowded {
            if held.by_number.len() >= self.most.saturating_add(MOST_LEAVING) {
                return None;
            }
            let idle = held.by_number.values().filter_map(|watch| Some((watch.idle_for(now)?, watch)));
            let (_, longest) = idle.filter(|(time, _)| *time >= self.least_idle).max_by_key(|(time, _)| *time)?;
            longest.tell_to_leave();
        }
        let number = held.next;
        held.next += 1;
        held.by_number.insert(number, watch.clone());
        Some((Member { crowd: self.clone(), number }, crowded))
    }
}

// === impl Member ===

impl Drop for Member {
    fn drop(&mut self) {
        self.crowd.held().by_number.remove(&self.number);
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
        assert!(crowd.enter(&watches[3], now).is_none(), "nobody has been idle for long enough");
        let (fourth, made_room) = crowd.enter(&watches[3], later).expect("one makes room");
        assert!(made_room);
        assert_eq!(told(), [false, true, false, false, false]);
        // Who was asked already is not asked again.
        let fifth = crowd.enter(&watches[4], later).expect("one makes room");
        assert_eq!(told(), [false, true, true, false, false]);
        drop((fourth, fifth));
    }
}
