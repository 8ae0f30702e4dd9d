//! Puts of notifications of which more may come to stand than is known: a put whose answer was lost is put again, and one
//! that was given up may be done late. The machine's record notes the last few notifications that took effect; this
//! remembers, for as long as it matters, whether one of those took effect since.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Clock;
use crate::machine::{MachineId, NotificationId};

/// Milliseconds for which a put that nobody waits for any more may still be done: far longer than a store takes over a
/// request, its own timeouts included.
const LATEST_PUT_MS: i64 = 60_000;

/// Each is put by one request of this instance. Other instances may make equal ids, but not for the same machine: an id
/// that is taken there is not put.
#[derive(Debug)]
pub(super) struct Puts {
    clock: Clock,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Those under way, or unsettled and ended a moment ago; whether it took effect.
    puts: HashMap<(NotificationId, MachineId), bool>,
    /// Of those that ended unsettled, until when they are remembered, in monotonic milliseconds; earliest first.
    ended: VecDeque<(i64, (NotificationId, MachineId))>,
}

/// A put under way. Given up, by whatever accident, it is remembered; settled, it is not.
#[derive(Debug)]
pub(super) struct Put<'a> {
    puts: &'a Puts,
    name: (NotificationId, MachineId),
    settled: bool,
}

// === impl Puts ===

impl Puts {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, known: Mutex::default() }
    }

    /// Before an id is put for the first time.
    pub(super) fn begin(&self, machine: &MachineId, id: NotificationId) -> Put<'_> {
        let now = self.clock.monotonic();
        let mut known = self.lock();
        while let Some((_, name)) = known.ended.pop_front_if(|(until, _)| *until <= now) {
            known.puts.remove(&name);
        }
        let name = (id, machine.clone());
        known.puts.insert(name.clone(), false);
        Put { puts: self, name, settled: false }
    }

    /// These are noted in the machine's record, which stands.
    pub(super) fn took_effect(&self, machine: &MachineId, noted: &[NotificationId]) {
        if noted.is_empty() {
            return;
        }
        let mut known = self.lock();
        if known.puts.is_empty() {
            return;
        }
        for id in noted {
            if let Some(took_effect) = known.puts.get_mut(&(*id, machine.clone())) {
                *took_effect = true;
            }
        }
    }

    /// Whether an entry that is found was put again, or late, behind its own delivery.
    pub(super) fn has_taken_effect(&self, machine: &MachineId, id: NotificationId) -> bool {
        self.lock().puts.get(&(id, machine.clone())).is_some_and(|took_effect| *took_effect)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Put ===

impl Put<'_> {
    /// Whether it has stood, and was delivered.
    pub(super) fn has_taken_effect(&self) -> bool {
        self.puts.has_taken_effect(&self.name.1, self.name.0)
    }

    /// It is known what became of it, each time that it was put.
    pub(super) fn settled(mut self) {
        self.settled = true;
    }
}

impl Drop for Put<'_> {
    fn drop(&mut self) {
        let mut known = self.puts.lock();
        if self.settled {
            known.puts.remove(&self.name);
        } else {
            let until = self.puts.clock.monotonic().saturating_add(LATEST_PUT_MS);
            known.ended.push_back((until, self.name.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    fn machine(id: &str) -> MachineId {
        MachineId::new(Bytes::copy_from_slice(id.as_bytes())).expect("a valid id")
    }

    #[test]
    fn what_is_settled_is_forgotten_at_once_and_the_rest_once_it_can_not_come_any_more() {
        let (clock, hand) = Clock::manual(0);
        let (puts, m) = (Puts::new(clock), machine("m"));
        puts.begin(&m, 1).settled();
        assert!(puts.lock().puts.is_empty());
        drop(puts.begin(&m, 2));
        puts.took_effect(&m, &[1, 2, 3]);
        assert!(puts.has_taken_effect(&m, 2));
        assert!(!puts.has_taken_effect(&m, 1) && !puts.has_taken_effect(&m, 3));
        hand.advance(Duration::from_millis(LATEST_PUT_MS as u64 - 1));
        puts.begin(&m, 4).settled();
        assert!(puts.has_taken_effect(&m, 2));
        hand.advance(Duration::from_millis(1));
        puts.begin(&m, 5).settled();
        assert!(!puts.has_taken_effect(&m, 2));
        let known = puts.lock();
        assert!(known.puts.is_empty() && known.ended.is_empty());
    }

    /// Of another instance, which made the same id.
    #[test]
    fn what_took_effect_at_one_machine_is_not_taken_for_anothers() {
        let puts = Puts::new(Clock::manual(0).0);
        let put = puts.begin(&machine("m"), 1);
        puts.took_effect(&machine("n"), &[1]);
        assert!(!put.has_taken_effect());
        puts.took_effect(&machine("m"), &[1]);
        assert!(put.has_taken_effect());
    }
}
