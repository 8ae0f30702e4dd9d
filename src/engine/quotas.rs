//! `limits.scheduler_tasks`: how many machines may be awake at once, of all schedulers of all namespaces together, and
//! who gets how many of these places when there are not enough.
//!
//! While there are enough, a wake-up takes a place and gives it back, and that is all. Once somebody finds none left, the
//! places are shared out among all who want some, anew each second until there are enough again: a scheduler that has more than its
//! target takes no new ones. A wake-up without a place waits in its schedule: nothing fails, and nothing counts as a try.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::Notify;

use super::Engine;
use super::schedule::Schedule;
use crate::telemetry::NamespaceMetrics;
use crate::telemetry::metrics::Scheduler;

/// Milliseconds after which places that are short are shared out anew.
const SHARE_OUT_MS: i64 = 1_000;

/// The target of a scheduler that may take what is there.
const NONE: usize = usize::MAX;

/// The places of this instance.
#[derive(Debug)]
pub(super) struct Quota {
    limit: usize,
    taken: AtomicUsize,
    /// How many namespaces wait for any place to be given back; they are told by `freed`.
    waiting: AtomicUsize,
    freed: Notify,
    /// Somebody found no place left.
    short: Notify,
}

/// A namespace's part of them.
#[derive(Debug)]
pub(super) struct Places {
    quota: Arc<Quota>,
    /// In the order of [`Scheduler::ALL`].
    of: [Part; Scheduler::ALL.len()],
    /// As in [`Quota`], for places of this namespace.
    waiting: AtomicUsize,
    freed: Notify,
}

/// One scheduler's.
#[derive(Debug)]
struct Part {
    /// The most that it may have in any case.
    capacity: usize,
    taken: AtomicUsize,
    /// The most that it may have while places are short.
    target: AtomicUsize,
}

/// Somebody is awake, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    scheduler: Scheduler,
}

/// Why there is no place. The greater is freed by more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Short {
    /// The scheduler has as many as it may have.
    OfItsOwn,
    /// There is none left in all.
    OfAny,
}

/// What a scheduler asks for when places are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    share: u64,
    /// The places that it has, and those that it had use for.
    wants: usize,
}

/// Counts for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

/// The shares of the original.
fn share(scheduler: Scheduler) -> u64 {
    match scheduler {
        Scheduler::Timers => 2,
        Scheduler::TimersRetries | Scheduler::Notification => 1,
        Scheduler::Overseer => 0,
    }
}

// === impl Quota ===

impl Quota {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            short: Notify::new(),
        })
    }
}

// === impl Places ===

impl Places {
    /// By the capacities of the schedulers that are not disabled.
    pub(super) fn new(quota: Arc<Quota>, timers: Option<usize>, notifications: Option<usize>) -> Arc<Self> {
        // What is found in the store says its reason only once it is read, and debts have no key of their own: they take
        // what there is.
        let any = timers.max(notifications).unwrap_or(1);
        let part = |scheduler| {
            let capacity = match scheduler {
                Scheduler::Timers | Scheduler::TimersRetries => timers.unwrap_or(any),
                Scheduler::Notification => notifications.unwrap_or(any),
                Scheduler::Overseer => any,
            };
            Part { capacity, taken: AtomicUsize::new(0), target: AtomicUsize::new(NONE) }
        };
        Arc::new(Self { quota, of: Scheduler::ALL.map(part), waiting: AtomicUsize::new(0), freed: Notify::new() })
    }

    fn part(&self, scheduler: Scheduler) -> &Part {
        // One for each, in their order.
        &self.of[scheduler as usize]
    }

    pub(super) fn take(self: &Arc<Self>, scheduler: Scheduler) -> Result<Place, Short> {
        let part = self.part(scheduler);
        let below = |most: usize| move |taken: usize| (taken < most).then(|| taken + 1);
        let most = part.capacity.min(part.target.load(SeqCst));
        part.taken.fetch_update(SeqCst, SeqCst, below(most)).map_err(|_| Short::OfItsOwn)?;
        if self.quota.taken.fetch_update(SeqCst, SeqCst, below(self.quota.limit)).is_err() {
            part.taken.fetch_sub(1, SeqCst);
            self.quota.short.notify_one();
            return Err(Short::OfAny);
        }
        Ok(Place { places: self.clone(), scheduler })
    }

    /// Waits until there may be a place for one who found none. `look_again` says, once nothing that is freed can be missed
    /// any more, whether there is something to do already.
    pub(super) async fn freed(&self, short: Short, look_again: impl FnOnce() -> bool) {
        let mut own = pin!(self.freed.notified());
        let mut any = pin!(self.quota.freed.notified());
        // IMPORTANT: first to be told, then to be counted, then the look. Who gives back a place looks at the count last.
        own.as_mut().enable();
        let _own = Counted::new(&self.waiting);
        let _any = (short == Short::OfAny).then(|| {
            any.as_mut().enable();
            Counted::new(&self.quota.waiting)
        });
        if look_again() {
            return;
        }
        tokio::select! {
            () = own => {}
            () = any, if short == Short::OfAny => {}
        }
    }

    /// Says how many places each scheduler may have.
    pub(super) fn show(&self, metrics: &NamespaceMetrics) {
        for scheduler in Scheduler::ALL {
            let Part { capacity, target, .. } = self.part(scheduler);
            let reserved = self.quota.limit.min(*capacity).min(target.load(SeqCst));
            metrics.scheduler(scheduler).reserved.set(i64::try_from(reserved).unwrap_or(i64::MAX));
        }
    }

    fn tell(&self) {
        if self.waiting.load(SeqCst) > 0 {
            self.freed.notify_waiters();
        }
    }

    fn claim(&self, scheduler: Scheduler, schedule: &Schedule) -> Claim {
        let part = self.part(scheduler);
        // More than all places are as good as all.
        let waiting = schedule.waiting(scheduler, self.quota.limit);
        let wants = part.taken.load(SeqCst).saturating_add(waiting);
        Claim { share: share(scheduler), wants: wants.min(part.capacity) }
    }
}

// === impl Place ===

impl Place {
    pub(super) fn scheduler(&self) -> Scheduler {
        self.scheduler
    }

    /// The wake-up turned out to be for another reason. It may come to more than that scheduler's target: it takes no
    /// new ones then.
    pub(super) fn turn_into(&mut self, scheduler: Scheduler) {
        if scheduler != self.scheduler {
            self.places.part(scheduler).taken.fetch_add(1, SeqCst);
            self.places.part(self.scheduler).taken.fetch_sub(1, SeqCst);
            self.scheduler = scheduler;
            self.places.tell();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Places { quota, .. } = &*self.places;
        self.places.part(self.scheduler).taken.fetch_sub(1, SeqCst);
        quota.taken.fetch_sub(1, SeqCst);
        self.places.tell();
        if quota.waiting.load(SeqCst) > 0 {
            quota.freed.notify_waiters();
        }
    }
}

// === impl Counted ===

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

// === impl Engine: sharing out ===

impl Engine {
    /// Shares places out for as long as they are short, whenever they are.
    pub(super) async fn share_places(&self) {
        let clock = &self.shared.clock;
        let work = async {
            loop {
                self.shared.quota.short.notified().await;
                while self.share_out() {
                    clock.sleep_until(clock.now().saturating_add(SHARE_OUT_MS)).await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = self.shared.stopping.cancelled() => {}
        }
    }

    /// True: there are not enough for all.
    fn share_out(&self) -> bool {
        let mut namespaces: Vec<_> = self.namespaces.values().collect();
        // Who gets one of a rest must not change with each second.
        namespaces.sort_unstable_by(|a, b| a.name().as_str().cmp(b.name().as_str()));
        let claims = namespaces.iter().flat_map(|namespace| {
            Scheduler::ALL.map(|scheduler| namespace.places.claim(scheduler, &namespace.schedule))
        });
        let targets = targets(self.shared.quota.limit, &claims.collect::<Vec<_>>());
        let is_short = targets.is_some();
        let mut targets = targets.into_iter().flatten();
        for namespace in namespaces {
            for part in &namespace.places.of {
                part.target.store(targets.next().unwrap_or(NONE), SeqCst);
            }
            namespace.places.show(&namespace.metrics);
            namespace.places.tell();
        }
        is_short
    }
}

/// How many of `limit` places each of the claims may have; none, if there are enough for all.
///
/// By their shares, and one at least, among those who want more than that; what a claim does not want is shared out among the others. Claims
/// without a share get what is left once all others have what they want.
fn targets(limit: usize, claims: &[Claim]) -> Option<Vec<usize>> {
    let wanted = claims.iter().fold(0, |sum: usize, claim| sum.saturating_add(claim.wants));
    if wanted <= limit {
        return None;
    }
    let mut targets = vec![0; claims.len()];
    let (with, without): (Vec<_>, Vec<_>) = (0..claims.len()).partition(|at| claims[*at].share > 0);
    let left = share_among(limit, claims, with, &mut targets);
    if left > 0 {
        share_among(left, claims, without, &mut targets);
    }
    Some(targets)
}

/// Returns what nobody of them wants.
fn share_among(mut left: usize, claims: &[Claim], mut needy: Vec<usize>, targets: &mut [usize]) -> usize {
    // Those without a share are all alike.
    let share = |at: &usize| u128::from(claims[*at].share.max(1));
    while left > 0 && !needy.is_empty() {
        let shares: u128 = needy.iter().map(share).sum();
        // No more than `left`, since no share is more than all of them.
        let fair = |at: &usize| ((left as u128 * share(at) / shares) as usize).max(1);
        let (content, more): (Vec<_>, Vec<_>) = needy.iter().partition(|at| claims[**at].wants <= fair(at));
        if content.is_empty() {
            // All want more than that. What the division leaves goes to the first.
            let mut rest = left.saturating_sub(more.iter().map(fair).sum());
            for at in &more {
                targets[*at] = fair(at) + usize::from(rest > 0);
                rest = rest.saturating_sub(1);
            }
            return 0;
        }
        for at in &content {
            targets[*at] = claims[*at].wants;
        }
        left = left.saturating_sub(content.iter().map(|at| claims[*at].wants).sum());
        needy = more;
    }
    for at in needy {
        targets[at] = claims[at].wants.min(1);
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(share: u64, wants: usize) -> Claim {
        Claim { share, wants }
    }

    #[test]
    fn places_are_shared_out_as_the_original_does() {
        type Row<'a> = (usize, &'a [(u64, usize)], Option<&'a [usize]>);
        let table: &[Row] = &[
            // Enough for all: nobody is bound.
            (100, &[], None),
            (100, &[(1, 25), (1, 75)], None),
            (100, &[(0, 100), (1, 0)], None),
            // By shares, among those who want more.
            (100, &[(1, 1000), (1, 1000)], Some(&[50, 50])),
            (6, &[(1, 10), (2, 10)], Some(&[2, 4])),
            (6, &[(1, 10), (1, 10)], Some(&[3, 3])),
            (100, &[(1, 20); 10], Some(&[10; 10])),
            // What one does not want goes to the others.
            (100, &[(1, 25), (1, 90)], Some(&[25, 75])),
            (100, &[(1, 40), (1, 90)], Some(&[40, 60])),
            (100, &[(1, 50), (1, 90)], Some(&[50, 50])),
            (100, &[(1, 10), (1, 1000)], Some(&[10, 90])),
            (10, &[(2, 1), (2, 100), (1, 100)], Some(&[1, 6, 3])),
            // Those without a share get what is left when all others have what they want, all alike.
            (6, &[(1, 1), (0, 10)], Some(&[1, 5])),
            (6, &[(1, 2), (0, 10), (0, 10)], Some(&[2, 2, 2])),
            (6, &[(1, 6), (0, 10)], Some(&[6, 0])),
            (6, &[(1, 60), (0, 10)], Some(&[6, 0])),
            // One at least, though that is too many in all, and none for who wants none.
            (2, &[(1, 5), (1, 5), (1, 5), (1, 0)], Some(&[1, 1, 1, 0])),
            (2, &[(1, 1), (1, 1), (1, 1), (1, 5)], Some(&[1, 1, 1, 1])),
            (10, &[(1, 9), (0, 5), (0, 5)], Some(&[9, 1, 1])),
            // What the division leaves goes to the first.
            (11, &[(1, 100), (1, 100), (1, 100)], Some(&[4, 4, 3])),
        ];
        for (limit, claims, expected) in table {
            let claims: Vec<_> = claims.iter().map(|(share, wants)| claim(*share, *wants)).collect();
            assert_eq!(targets(*limit, &claims).as_deref(), *expected, "{limit} among {claims:?}");
        }
    }

    #[test]
    fn ten_thousand_claims_are_shared_out_alike() {
        for share in [0, 1] {
            let claims = vec![claim(share, 20); 10_000];
            assert_eq!(targets(100_000, &claims), Some(vec![10; 10_000]));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_who_waits_for_a_place_misses_one_and_there_are_never_too_many() {
        let quota = Quota::new(3);
        let namespaces = [2, 5].map(|capacity| Places::new(quota.clone(), Some(capacity), Some(capacity)));
        let held = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..12 {
            let (places, held) = (namespaces[number % 2].clone(), held.clone());
            let scheduler = Scheduler::ALL[number % 3];
            tasks.spawn(async move {
                let mut done = 0;
                while done < 500 {
                    let mut place = places.take(scheduler);
                    if let Err(short) = place {
                        let look_again = || {
                            place = places.take(scheduler);
                            place.as_ref().is_ok() || place.as_ref().is_err_and(|again| *again > short)
                        };
                        places.freed(short, look_again).await;
                    }
                    let Ok(mut place) = place else { continue };
                    assert!(held.fetch_add(1, SeqCst) < 3);
                    place.turn_into(Scheduler::Notification);
                    tokio::task::yield_now().await;
                    held.fetch_sub(1, SeqCst);
                    drop(place);
                    done += 1;
                }
            });
        }
        let all = async { while tasks.join_next().await.transpose().expect("no panic").is_some() {} };
        tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("everybody has had a place");
        assert_eq!((quota.taken.load(SeqCst), quota.waiting.load(SeqCst)), (0, 0));
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_wanted_and_nothing_is_wasted_or_taken_from_a_share(
            limit in 1_usize..200,
            claims in proptest::collection::vec((0_u64..4, 0_usize..60), 0..12),
        ) {
            let claims: Vec<_> = claims.into_iter().map(|(share, wants)| claim(share, wants)).collect();
            let wanted: usize = claims.iter().map(|claim| claim.wants).sum();
            let Some(targets) = targets(limit, &claims) else {
                prop_assert!(wanted <= limit);
                return Ok(());
            };
            prop_assert!(wanted > limit);
            let shares: u64 = claims.iter().map(|claim| claim.share).sum();
            let enough_for_one_each = claims.iter().all(|claim| limit as u64 * claim.share.max(1) >= shares);
            let mut with_shares_are_content = true;
            for (claim, target) in claims.iter().zip(&targets) {
                prop_assert!(*target <= claim.wants);
                if claim.share > 0 {
                    with_shares_are_content &= *target == claim.wants;
                    // Whatever the others want.
                    let fair = (limit as u64 * claim.share / shares) as usize;
                    let least = if enough_for_one_each { fair } else { 1 };
                    prop_assert!(*target >= claim.wants.min(least));
                }
            }
            let without = claims.iter().zip(&targets).filter(|(claim, _)| claim.share == 0);
            prop_assert!(with_shares_are_content || without.map(|(_, target)| target).sum::<usize>() == 0);
            // Where one each is no more than there are, it comes out even.
            let given: usize = targets.iter().sum();
            prop_assert!(given >= limit, "{} of {} are given", given, limit);
            prop_assert!(given <= limit + claims.len());
        }
    }
}
