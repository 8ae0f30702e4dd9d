//! Who owns which shard, and when that changes.

use std::collections::HashSet;

use futures_util::FutureExt;
use machinegun::clock::Stopwatch;
use machinegun::cluster::LeaseThread;
use machinegun::storage::Storage;
use machinegun::storage::leases::Owner;
use tokio::runtime::Builder;

use crate::fleet::{Fleet, LEASE_MS, SHARDS};
use crate::link::Way;
use crate::live::PATIENCE;

const ALL: usize = SHARDS as usize;

#[tokio::test]
async fn a_lone_instance_on_an_empty_table_owns_all_shards_at_once() {
    let mut fleet = Fleet::new();
    let began = fleet.now();
    let it = fleet.join();
    assert!(!fleet.instances[it].cluster.has_joined());
    fleet.settle().await;
    assert_eq!((fleet.held(it).len(), fleet.now()), (ALL, began));
    assert!(fleet.instances[it].cluster.has_joined());
    let standing = fleet.standing(it);
    assert_eq!((standing.owned, standing.total, standing.live_instances), (ALL, SHARDS, 1));
    assert_eq!((standing.shards, standing.trusted), (vec!["0-15".to_owned()], true));
}

#[tokio::test]
async fn who_joins_is_handed_a_fair_share_long_before_a_lease_runs_out() {
    let mut fleet = Fleet::of(1).await;
    let began = fleet.now();
    fleet.join();
    fleet.until("a half each", |fleet| fleet.held(0).len() == 8 && fleet.held(1).len() == 8).await;
    fleet.join();
    let shares = |fleet: &Fleet| (0..3).all(|at| (5..=6).contains(&fleet.held(at).len()));
    fleet.until("a third each", shares).await;
    assert!(fleet.now() - began < LEASE_MS, "{}", fleet.now() - began);
    // And there it stays.
    let before: Vec<_> = (0..3).map(|at| fleet.owned(at)).collect();
    fleet.pass(5 * LEASE_MS).await;
    assert_eq!((0..3).map(|at| fleet.owned(at)).collect::<Vec<_>>(), before);
    assert_eq!(fleet.standing(0).live_instances, 3);
}

#[tokio::test]
async fn all_who_start_at_once_share_all_shards() {
    let mut fleet = Fleet::new();
    for _ in 0..5 {
        fleet.join();
    }
    let share = |fleet: &Fleet| (0..5).map(|at| fleet.held(at).len()).sum::<usize>() == ALL;
    fleet.until("an owner for all", share).await;
    fleet.until("a fair share", |fleet| (0..5).all(|at| (3..=4).contains(&fleet.held(at).len()))).await;
}

#[tokio::test]
async fn who_is_killed_is_followed_after_a_whole_lease_time_watched_and_never_before() {
    let mut fleet = Fleet::of(2).await;
    let dead = fleet.standing(0).instance;
    fleet.set(0, Way::Frozen);
    let mut fenced_at = None;
    while fleet.owned(1).len() < ALL {
        assert!(fleet.still_ms(&dead) < 3 * LEASE_MS, "nobody followed");
        let stands = fleet.heartbeats().await.iter().any(|it| it.instance.to_string() == dead);
        if stands {
            assert_eq!(fleet.owned(1).len(), 8, "shards were taken from one who was not fenced");
        } else {
            fenced_at.get_or_insert(fleet.still_ms(&dead));
        }
        fleet.step().await;
    }
    let fenced_at = fenced_at.unwrap_or_else(|| fleet.still_ms(&dead));
    assert!(fenced_at >= LEASE_MS, "{fenced_at}");
    // What was stopped comes back: it lost its trust long ago, and learns that it was declared dead.
    assert!(fleet.held(0).is_empty() && fleet.owned(0).len() == 8);
    fleet.set(0, Way::Open);
    fleet.until("a fair share again", |fleet| fleet.held(0).len() == 8 && fleet.held(1).len() == 8).await;
    assert_ne!(fleet.standing(0).instance, dead);
    assert!(fleet.shows(0, "machinegun_fenced_total 1"));
    assert!(fleet.shows(1, "machinegun_fenced_total 0"));
}

#[tokio::test]
async fn a_late_heartbeat_of_one_who_was_fenced_does_not_stand() {
    let mut fleet = Fleet::of(2).await;
    let late = fleet.standing(0).instance;
    // Stopped in the middle of a put, whose beat arrives behind the fence.
    fleet.set(0, Way::Frozen);
    fleet.until("all", |fleet| fleet.owned(1).len() == ALL).await;
    fleet.set(0, Way::Open);
    fleet.settle().await;
    assert!(fleet.heartbeats().await.iter().all(|it| it.instance.to_string() != late));
    assert!(fleet.held(0).is_empty());
}

#[tokio::test]
async fn a_frozen_owner_loses_its_trust_before_anyone_may_follow() {
    let mut fleet = Fleet::of(2).await;
    fleet.set(0, Way::Frozen);
    let mut trusted_ms = 0;
    // `settle` looks at each step that no shard is worked on by two.
    while fleet.owned(1).len() < ALL {
        if fleet.standing(0).trusted {
            trusted_ms = fleet.standing(0).lease_age_ms.expect("an age");
        }
        fleet.step().await;
    }
    assert!(trusted_ms < LEASE_MS * 4 / 5, "{trusted_ms}");
}

#[tokio::test]
async fn whoever_starts_anew_alone_waits_for_its_predecessors_lease() {
    let mut fleet = Fleet::of(1).await;
    let dead = fleet.standing(0).instance;
    fleet.set(0, Way::Frozen);
    let began = fleet.now();
    let it = fleet.join();
    while fleet.owned(it).is_empty() {
        fleet.step().await;
    }
    assert!(fleet.now() - began >= LEASE_MS, "{}", fleet.now() - began);
    assert!(fleet.still_ms(&dead) >= LEASE_MS);
    fleet.until("all", |fleet| fleet.held(it).len() == ALL).await;
    assert!(fleet.now() - began < 2 * LEASE_MS);
}

#[tokio::test]
async fn an_outage_of_the_storage_changes_no_owner() {
    let mut fleet = Fleet::of(3).await;
    let before: Vec<_> = (0..3).map(|at| (fleet.standing(at).instance, fleet.owned(at))).collect();
    for way in [Way::Broken, Way::Frozen] {
        (0..3).for_each(|at| fleet.set(at, way));
        fleet.pass(12 * LEASE_MS).await;
        assert!((0..3).all(|at| fleet.held(at).is_empty()));
        (0..3).for_each(|at| fleet.set(at, Way::Open));
        fleet.until("trust", |fleet| (0..3).all(|at| fleet.standing(at).trusted)).await;
        fleet.pass(5 * LEASE_MS).await;
        let after: Vec<_> = (0..3).map(|at| (fleet.standing(at).instance, fleet.held(at))).collect();
        assert_eq!(after, before);
    }
}

#[tokio::test]
async fn who_alone_is_cut_off_buries_nobody_when_it_is_back() {
    let mut fleet = Fleet::of(2).await;
    let other = fleet.standing(1).instance;
    fleet.set(0, Way::Broken);
    fleet.until("all", |fleet| fleet.owned(1).len() == ALL).await;
    fleet.set(0, Way::Open);
    fleet.until("a half each", |fleet| fleet.held(0).len() == 8 && fleet.held(1).len() == 8).await;
    assert_eq!(fleet.standing(1).instance, other);
}

#[tokio::test]
async fn a_heartbeat_of_unknown_result_is_put_again_until_it_is_known() {
    let mut fleet = Fleet::of(2).await;
    let before: Vec<_> = (0..2).map(|at| (fleet.standing(at).instance, fleet.owned(at))).collect();
    // A beat that stands without its instance's knowing: trust counts from its first put, so it runs out in time.
    for _ in 0..5 {
        fleet.set(0, Way::Mute);
        fleet.pass(LEASE_MS / 2).await;
        fleet.set(0, Way::Open);
        fleet.pass(LEASE_MS / 2).await;
    }
    let after: Vec<_> = (0..2).map(|at| (fleet.standing(at).instance, fleet.held(at))).collect();
    assert_eq!(after, before);
    fleet.set(0, Way::Mute);
    fleet.until("all", |fleet| fleet.owned(1).len() == ALL).await;
    assert!(fleet.held(0).is_empty());
}

#[tokio::test]
async fn an_entry_of_unknown_result_is_put_again_until_it_is_known() {
    let mut fleet = Fleet::new();
    let it = fleet.join();
    // The heartbeat stands; from here on no answer comes.
    fleet.until("a heartbeat", |fleet| fleet.standing(it).trusted).await;
    fleet.join();
    fleet.pass(100).await;
    fleet.set(it, Way::Mute);
    fleet.pass(LEASE_MS / 4).await;
    fleet.set(it, Way::Open);
    fleet.until("a half each", |fleet| fleet.held(0).len() == 8 && fleet.held(1).len() == 8).await;
    for at in 0..2 {
        assert!(fleet.shows(at, "machinegun_fenced_total 0"));
    }
}

#[tokio::test]
async fn who_leaves_hands_everything_over_and_no_shard_stands_unowned() {
    let mut fleet = Fleet::of(3).await;
    let (leaver, began) = (fleet.standing(1).instance, fleet.now());
    let cluster = fleet.instances[1].cluster.clone();
    let leaving = tokio::spawn(async move {
        cluster.leave().await;
        cluster.end().await;
    });
    while !leaving.is_finished() {
        let there: HashSet<_> = fleet.heartbeats().await.into_iter().map(|it| Some(it.instance)).collect();
        for owner in fleet.owners().await {
            assert!(there.contains(&owner.instance), "shard {} has no living owner", owner.shard);
        }
        assert!(fleet.now() - began < LEASE_MS / 2, "it takes too long");
        fleet.step().await;
    }
    assert!(fleet.heartbeats().await.iter().all(|it| it.instance.to_string() != leaver));
    let shares = |fleet: &Fleet| fleet.held(0).len() == 8 && fleet.held(2).len() == 8;
    fleet.until("a half each", shares).await;
    assert!(fleet.now() - began < LEASE_MS / 2, "{}", fleet.now() - began);
    assert!(fleet.shows(1, "machinegun_shards_owned 0"));
}

#[tokio::test]
async fn who_leaves_alone_is_followed_at_once() {
    let mut fleet = Fleet::of(1).await;
    let cluster = fleet.instances[0].cluster.clone();
    let leaving = tokio::spawn(async move {
        cluster.leave().await;
        cluster.end().await;
    });
    while !leaving.is_finished() {
        fleet.step().await;
    }
    assert_eq!(fleet.heartbeats().await, []);
    let began = fleet.now();
    let it = fleet.join();
    fleet.settle().await;
    assert_eq!((fleet.held(it).len(), fleet.now()), (ALL, began));
}

#[tokio::test]
async fn a_stop_ends_in_time_when_the_storage_is_gone() {
    for way in [Way::Broken, Way::Frozen] {
        let mut fleet = Fleet::of(2).await;
        fleet.set(0, way);
        let began = fleet.now();
        let cluster = fleet.instances[0].cluster.clone();
        let leaving = tokio::spawn(async move { cluster.leave().await });
        while !leaving.is_finished() {
            assert!(fleet.now() - began <= LEASE_MS + 1_000, "{way:?}");
            fleet.step().await;
        }
        let cluster = fleet.instances[0].cluster.clone();
        let ending = tokio::spawn(async move { cluster.end().await });
        let began = fleet.now();
        while !ending.is_finished() {
            assert!(fleet.now() - began <= LEASE_MS, "{way:?}");
            fleet.step().await;
        }
    }
}

#[tokio::test]
async fn a_shard_whose_entry_was_given_up_is_taken() {
    let mut fleet = Fleet::of(2).await;
    let owner = fleet.owners().await[0];
    let free = Owner { epoch: owner.epoch + 1, instance: None, ..owner };
    assert!(fleet.storage.leases().expect("shared").assign(&free).await.expect("memory"));
    let has = |fleet: &Fleet| (0..2).map(|at| fleet.held(at).len()).sum::<usize>() == ALL;
    fleet.pass(2 * LEASE_MS).await;
    fleet.until("an owner for all", has).await;
    assert!(fleet.owners().await.iter().all(|owner| owner.instance.is_some()));
}

/// On a runtime that has something else to do, nearly all of the time.
#[tokio::test]
async fn heartbeats_go_out_while_nothing_else_has_its_turn() {
    let mut fleet = Fleet::new();
    let it = fleet.join_on(Some(LeaseThread::start().expect("a thread")));
    let began = Stopwatch::start();
    let mut seen = 0;
    while seen < 10 {
        assert!(began.elapsed() < PATIENCE, "{seen} heartbeats");
        // Less than a lease time, in which nothing is awaited, so no other task of this runtime runs.
        let beats = |fleet: &Fleet| {
            let beats = fleet.heartbeats().now_or_never().expect("memory answers at once");
            beats.first().map_or(0, |heartbeat| heartbeat.beat)
        };
        let before = beats(&fleet);
        for _ in 0..80 {
            fleet.turn(LEASE_MS / 100);
            std::thread::yield_now();
        }
        seen += beats(&fleet).saturating_sub(before);
        tokio::task::yield_now().await;
    }
    let cluster = fleet.instances[it].cluster.clone();
    tokio::spawn(async move { cluster.end().await }).await.expect("it ends");
    assert_eq!(fleet.heartbeats().await, []);
}

/// Its heart would go on for ever, and hold shards whose machines nobody serves.
#[tokio::test]
async fn an_instance_of_which_nothing_but_its_heart_runs_loses_its_shards() {
    let mut fleet = Fleet::new();
    let home = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let stuck = {
        let _home = home.enter();
        fleet.join_on(Some(LeaseThread::start().expect("a thread")))
    };
    let other = fleet.join();
    let shared = |fleet: &Fleet| fleet.held(stuck).len() == 8 && fleet.held(other).len() == 8;
    fleet.until("a half each", shared).await;
    let (release, released) = std::sync::mpsc::sync_channel::<()>(0);
    home.spawn(async move { released.recv() });
    fleet.until("all", |fleet| fleet.owned(other).len() == ALL).await;
    fleet.pass(5 * LEASE_MS).await;
    assert_eq!((fleet.held(other).len(), fleet.standing(stuck).trusted), (ALL, false));
    drop(release);
    fleet.until("a half each again", shared).await;
    home.shutdown_background();
}

#[tokio::test]
async fn looks_that_fail_for_a_while_do_not_begin_the_watch_over_the_dead_anew() {
    for way in [Way::Broken, Way::Silent] {
        let mut fleet = Fleet::of(2).await;
        let dead = fleet.standing(0).instance;
        fleet.set(0, Way::Frozen);
        fleet.until("a while of silence", |fleet| fleet.still_ms(&dead) >= LEASE_MS / 2).await;
        // Less than half a lease, but longer than the time between two looks.
        fleet.set(1, way);
        fleet.pass(LEASE_MS / 4).await;
        fleet.set(1, Way::Open);
        fleet.until("all", |fleet| fleet.owned(1).len() == ALL).await;
        assert!(fleet.still_ms(&dead) < LEASE_MS * 3 / 2, "{way:?}: {}", fleet.still_ms(&dead));
    }
}

#[tokio::test]
async fn nobody_gives_shards_away_while_another_may_be_dead() {
    let mut fleet = Fleet::of(2).await;
    let (dead, kept) = (fleet.standing(0).instance, fleet.owned(1));
    fleet.set(0, Way::Frozen);
    fleet.until("a while of silence", |fleet| fleet.still_ms(&dead) > LEASE_MS * 3 / 5).await;
    let it = fleet.join();
    // It gets its share of what the dead one leaves, and nobody's machines wait for that but the dead one's.
    while fleet.owned(it).is_empty() {
        assert!(fleet.still_ms(&dead) < 2 * LEASE_MS, "nobody followed");
        assert_eq!(fleet.owned(1), kept);
        fleet.step().await;
    }
    fleet.until("a half each", |fleet| fleet.held(1).len() == 8 && fleet.held(it).len() == 8).await;
}
