//! What this instance has itself seen of the others' heartbeats: who lives, and who has stood still for too long. Pure.
//!
//! Times are monotonic milliseconds of this process; no other's clock is ever read.

use std::collections::HashMap;

use crate::storage::leases::{Heartbeat, InstanceId};

#[derive(Debug)]
pub(super) struct Others {
    lease_ms: i64,
    seen: HashMap<InstanceId, Seen>,
    last: Option<Look>,
}

/// When heartbeats were read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) began: i64,
    pub(super) ended: i64,
    /// Whether this instance's own heartbeat stood all the while. Who can't put one knows nothing of those who don't.
    pub(super) trusted: bool,
}

#[derive(Debug)]
struct Seen {
    heartbeat: Heartbeat,
    /// When this beat was first seen.
    moved: i64,
    /// Since when it has been watched without a break; never before `moved`.
    still: i64,
}

// === impl Others ===

impl Others {
    pub(super) fn new(lease_ms: i64) -> Self {
        Self { lease_ms, seen: HashMap::new(), last: None }
    }

    /// Notes the heartbeats of all, of which `me` is left out. Says whether anything happened that changes owners: who
    /// is there, where, staying or leaving, and what they have changed.
    pub(super) fn see(&mut self, me: InstanceId, heartbeats: Vec<Heartbeat>, look: Look) -> bool {
        let blink = self.lease_ms / 2;
        let watched = look.trusted && self.last.is_some_and(|last| look.ended - last.ended <= blink);
        self.last = Some(look);
        let mut before = std::mem::take(&mut self.seen);
        let mut moved = false;
        for heartbeat in heartbeats.into_iter().filter(|heartbeat| heartbeat.instance != me) {
            let seen = match before.remove(&heartbeat.instance) {
                None => {
                    moved = true;
                    Seen { heartbeat, moved: look.ended, still: look.ended }
                }
                Some(seen) if seen.heartbeat.beat != heartbeat.beat => {
                    let old = &seen.heartbeat;
                    moved |= old.changes != heartbeat.changes
                        || old.leaving != heartbeat.leaving
                        || old.address != heartbeat.address;
                    Seen { heartbeat, moved: look.ended, still: look.ended }
                }
                Some(seen) if watched => seen,
                // What happened while nobody looked is unknown: the watch begins anew.
                Some(seen) => Seen { still: look.ended, ..seen },
            };
            self.seen.insert(seen.heartbeat.instance, seen);
        }
        moved || !before.is_empty()
    }

    /// Those whose heartbeat has been watched standing still for the whole lease time, with their beats.
    pub(super) fn dead(&self) -> Vec<(InstanceId, u64)> {
        let dead = self.seen.values().filter(|seen| self.is_dead(seen));
        dead.map(|seen| (seen.heartbeat.instance, seen.heartbeat.beat)).collect()
    }

    fn is_dead(&self, seen: &Seen) -> bool {
        self.last.is_some_and(|last| last.began - seen.still >= self.lease_ms)
    }

    /// When the next of them will be dead, if it goes on standing still.
    pub(super) fn next_death(&self) -> Option<i64> {
        let alive = self.seen.values().filter(|seen| !self.is_dead(seen));
        alive.map(|seen| seen.still + self.lease_ms).min()
    }

    /// It has been fenced, and its heartbeat is gone.
    pub(super) fn gone(&mut self, instance: InstanceId) {
        self.seen.remove(&instance);
    }

    /// Whether there is a heartbeat of it, moving or not.
    pub(super) fn has(&self, instance: InstanceId) -> bool {
        self.seen.contains_key(&instance)
    }

    /// How many stay, this one not counted: those that may be dead already too, for as long as that isn't sure.
    pub(super) fn staying(&self) -> usize {
        self.seen.values().filter(|seen| !seen.heartbeat.leaving).count()
    }

    /// Those who can be given shards: they stay, and have moved a moment ago.
    pub(super) fn lively(&self) -> impl Iterator<Item = InstanceId> {
        self.lively_beats().map(|heartbeat| heartbeat.instance)
    }

    /// Whether it can be given shards, as far as the last look says it of this time.
    pub(super) fn is_lively(&self, instance: InstanceId, as_of: i64) -> bool {
        let seen = self.seen.get(&instance);
        seen.is_some_and(|seen| !seen.heartbeat.leaving && self.has_moved(seen, as_of))
    }

    /// Whether nobody may be dead already.
    pub(super) fn all_lively(&self) -> bool {
        self.seen.values().all(|seen| self.has_moved(seen, self.looked()))
    }

    fn has_moved(&self, seen: &Seen, as_of: i64) -> bool {
        as_of - seen.moved < self.lease_ms / 2
    }

    /// When the others were last looked at.
    pub(super) fn looked(&self) -> i64 {
        self.last.map_or(0, |last| last.began)
    }

    pub(super) fn lively_addresses(&self) -> impl Iterator<Item = &str> {
        self.lively_beats().map(|heartbeat| heartbeat.address.as_str())
    }

    fn lively_beats(&self) -> impl Iterator<Item = &Heartbeat> {
        let lively = move |seen: &&Seen| !seen.heartbeat.leaving && self.has_moved(seen, self.looked());
        self.seen.values().filter(lively).map(|seen| &seen.heartbeat)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = (InstanceId, &str)> {
        self.seen.values().map(|seen| (seen.heartbeat.instance, seen.heartbeat.address.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: i64 = 10_000;
    const ME: InstanceId = InstanceId([0; 16]);
    const THEM: InstanceId = InstanceId([1; 16]);

    fn heartbeat(instance: InstanceId, beat: u64) -> Heartbeat {
        Heartbeat { instance, beat, changes: 0, address: "host:1".to_owned(), leaving: false }
    }

    fn at(now: i64) -> Look {
        Look { began: now, ended: now, trusted: true }
    }

    /// Looks each second from `from` to `to`, and sees the same beat.
    fn watch(others: &mut Others, beat: u64, from: i64, to: i64) {
        for second in from..=to {
            others.see(ME, vec![heartbeat(ME, 1), heartbeat(THEM, beat)], at(second * 1_000));
        }
    }

    #[test]
    fn who_stands_still_is_dead_after_a_whole_lease_time_watched() {
        let mut others = Others::new(LEASE);
        watch(&mut others, 7, 0, 9);
        assert_eq!((others.dead(), others.next_death()), (vec![], Some(10_000)));
        watch(&mut others, 7, 10, 10);
        assert_eq!((others.dead(), others.next_death()), (vec![(THEM, 7)], None));
        watch(&mut others, 8, 11, 20);
        assert_eq!(others.dead(), []);
        watch(&mut others, 8, 21, 21);
        assert_eq!(others.dead(), [(THEM, 8)]);
        others.gone(THEM);
        assert!(!others.has(THEM) && others.staying() == 0);
    }

    #[test]
    fn a_watch_begins_anew_when_nobody_could_look() {
        let mut others = Others::new(LEASE);
        watch(&mut others, 7, 0, 4);
        watch(&mut others, 7, 60, 69);
        assert_eq!(others.dead(), []);
        watch(&mut others, 7, 70, 70);
        assert_eq!(others.dead(), [(THEM, 7)]);
    }

    #[test]
    fn who_can_not_beat_itself_declares_nobody_dead() {
        let mut others = Others::new(LEASE);
        watch(&mut others, 7, 0, 9);
        for second in 10..60 {
            others.see(ME, vec![heartbeat(THEM, 7)], Look { trusted: false, ..at(second * 1_000) });
            assert_eq!(others.dead(), []);
        }
        watch(&mut others, 7, 60, 68);
        assert_eq!(others.dead(), []);
        watch(&mut others, 7, 69, 69);
        assert_eq!(others.dead(), [(THEM, 7)]);
    }

    #[test]
    fn a_slow_look_counts_from_its_end_and_until_its_beginning() {
        let mut others = Others::new(LEASE);
        others.see(ME, vec![heartbeat(THEM, 7)], Look { began: 0, ended: 900, trusted: true });
        watch(&mut others, 7, 1, 9);
        others.see(ME, vec![heartbeat(THEM, 7)], Look { began: 10_800, ended: 11_500, trusted: true });
        assert_eq!(others.dead(), []);
        others.see(ME, vec![heartbeat(THEM, 7)], Look { began: 11_600, ended: 11_700, trusted: true });
        assert_eq!(others.dead(), [(THEM, 7)]);
    }

    #[test]
    fn only_what_changes_owners_is_news() {
        let mut others = Others::new(LEASE);
        assert!(!others.see(ME, vec![heartbeat(ME, 1)], at(0)));
        assert!(others.see(ME, vec![heartbeat(THEM, 1)], at(1)));
        assert!(!others.see(ME, vec![heartbeat(THEM, 2)], at(2)));
        assert!(others.see(ME, vec![Heartbeat { changes: 1, ..heartbeat(THEM, 3) }], at(3)));
        assert!(others.see(ME, vec![Heartbeat { changes: 1, leaving: true, ..heartbeat(THEM, 4) }], at(4)));
        assert_eq!((others.staying(), others.lively().count()), (0, 0));
        assert!(others.see(ME, vec![], at(5)));
    }

    #[test]
    fn only_who_moved_a_moment_ago_is_given_anything() {
        let mut others = Others::new(LEASE);
        watch(&mut others, 7, 0, 4);
        assert_eq!(others.lively().collect::<Vec<_>>(), [THEM]);
        watch(&mut others, 7, 5, 5);
        assert_eq!((others.lively().count(), others.staying()), (0, 1));
    }

    #[test]
    fn who_was_lively_at_the_last_look_is_so_only_for_a_while() {
        let mut others = Others::new(LEASE);
        watch(&mut others, 7, 0, 1);
        assert!(others.is_lively(THEM, 4_999) && others.all_lively());
        assert!(!others.is_lively(THEM, 5_000) && others.all_lively());
        watch(&mut others, 7, 2, 5);
        assert!(!others.all_lively());
        watch(&mut others, 8, 6, 6);
        others.see(ME, vec![Heartbeat { leaving: true, ..heartbeat(THEM, 9) }], at(7_000));
        assert!(!others.is_lively(THEM, 7_000) && others.all_lively());
    }
}
