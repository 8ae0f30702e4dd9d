//! Leases: whose heartbeat stands, and who owns which shard.

use std::sync::Arc;

use futures_util::future::join_all;

use super::Subject;
use crate::storage::Storage;
use crate::storage::leases::{Heartbeat, InstanceId, Leases, Owner};

const ONE: InstanceId = InstanceId([1; 16]);
const OTHER: InstanceId = InstanceId([0xff; 16]);

fn beat_of(instance: InstanceId, beat: u64) -> Heartbeat {
    Heartbeat {
        instance,
        beat,
        changes: beat * 3,
        address: format!("host-{beat}:8022"),
        leaving: beat.is_multiple_of(2),
    }
}

fn owner(shard: u16, epoch: u64, instance: Option<InstanceId>) -> Owner {
    Owner { shard, epoch, instance }
}

fn leases(store: &Arc<dyn Storage>) -> &dyn Leases {
    store.leases().expect("the store has leases")
}

async fn beats(store: &Arc<dyn Storage>, heartbeat: Heartbeat) -> bool {
    leases(store).beat(&heartbeat).await.expect("a heartbeat is answered")
}

async fn fences(store: &Arc<dyn Storage>, instance: InstanceId, beat: u64) -> bool {
    leases(store).fence(instance, beat).await.expect("a fence is answered")
}

async fn assigns(store: &Arc<dyn Storage>, owner: Owner) -> bool {
    leases(store).assign(&owner).await.expect("an assignment is answered")
}

async fn assert_beating(store: &Arc<dyn Storage>, expected: &[Heartbeat]) {
    let mut found = leases(store).heartbeats().await.expect("heartbeats are read");
    found.sort_by_key(|it| it.instance);
    assert_eq!(found, expected);
}

async fn assert_owners(store: &Arc<dyn Storage>, expected: &[Owner]) {
    assert_eq!(leases(store).owners().await.as_deref(), Ok(expected));
}

pub async fn nobody_beats_and_owns_at_first(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    assert!(leases(&store).shards() > 0);
    assert_beating(&store, &[]).await;
    assert_owners(&store, &[]).await;
}

pub async fn beats_stand_in_their_order(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    assert!(!beats(&store, beat_of(ONE, 2)).await, "nothing stands before it");
    assert_beating(&store, &[]).await;
    for number in 1..=11 {
        assert!(beats(&store, beat_of(ONE, number)).await);
        assert_beating(&store, &[beat_of(ONE, number)]).await;
    }
    for wrong in [1, 2, 10, 13] {
        assert!(!beats(&store, beat_of(ONE, wrong)).await, "{wrong}");
    }
    assert_beating(&store, &[beat_of(ONE, 11)]).await;
}

pub async fn a_beat_put_again_is_recognised(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    for number in 1..=3 {
        for _ in 0..3 {
            assert!(beats(&store, beat_of(ONE, number)).await);
        }
        // The same number with another content is another's.
        assert!(!beats(&store, Heartbeat { changes: 77, ..beat_of(ONE, number) }).await);
        assert_beating(&store, &[beat_of(ONE, number)]).await;
    }
}

pub async fn instances_beat_beside_each_other(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    assert!(beats(&store, beat_of(OTHER, 1)).await);
    assert!(beats(&store, beat_of(ONE, 1)).await);
    assert!(beats(&store, beat_of(OTHER, 2)).await);
    assert_beating(&store, &[beat_of(ONE, 1), beat_of(OTHER, 2)]).await;
    assert!(fences(&store, OTHER, 2).await);
    assert_beating(&store, &[beat_of(ONE, 1)]).await;
    assert!(beats(&store, beat_of(ONE, 2)).await);
}

pub async fn a_fenced_instance_beats_no_more(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    for last in 1..=3 {
        let instance = InstanceId([last; 16]);
        for number in 1..=u64::from(last) {
            assert!(beats(&store, beat_of(instance, number)).await);
        }
        assert!(fences(&store, instance, last.into()).await);
        assert_beating(&store, &[]).await;
        assert!(!beats(&store, beat_of(instance, u64::from(last) + 1)).await);
        assert_beating(&store, &[]).await;
    }
}

/// It was sent before the fence, and some network kept it.
pub async fn a_beat_that_lands_after_the_fence_does_nothing(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    for last in 1..=3 {
        let instance = InstanceId([last; 16]);
        let last = u64::from(last);
        for number in 1..=last {
            assert!(beats(&store, beat_of(instance, number)).await);
        }
        assert!(fences(&store, instance, last).await);
        assert!(!beats(&store, beat_of(instance, last)).await, "beat {last} came late");
        assert!(!beats(&store, beat_of(instance, last + 1)).await);
        assert_beating(&store, &[]).await;
    }
}

pub async fn a_fence_of_an_older_beat_is_refused(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    for number in 1..=3 {
        assert!(beats(&store, beat_of(ONE, number)).await);
    }
    for wrong in [1, 2, 4] {
        assert!(!fences(&store, ONE, wrong).await, "{wrong}");
    }
    assert_beating(&store, &[beat_of(ONE, 3)]).await;
    assert!(beats(&store, beat_of(ONE, 4)).await);
}

pub async fn a_fence_put_again_is_recognised(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    assert!(fences(&store, OTHER, 1).await, "one that never was is gone");
    for last in 1..=2 {
        let instance = InstanceId([last; 16]);
        for number in 1..=u64::from(last) {
            assert!(beats(&store, beat_of(instance, number)).await);
        }
        for _ in 0..3 {
            assert!(fences(&store, instance, last.into()).await);
        }
    }
    assert_beating(&store, &[]).await;
}

pub async fn of_a_beat_and_its_fence_one_wins(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    for round in 0..20 {
        let instance = InstanceId([round; 16]);
        assert!(beats(&store, beat_of(instance, 1)).await);
        assert!(beats(&store, beat_of(instance, 2)).await);
        let (beaten, fenced) = tokio::join!(beats(&store, beat_of(instance, 3)), fences(&store, instance, 2));
        assert_ne!(beaten, fenced, "round {round}");
        let stands = leases(&store).heartbeats().await.expect("heartbeats are read");
        assert_eq!(stands.iter().any(|it| it.instance == instance), beaten);
    }
}

pub async fn owners_are_in_the_order_of_their_shards(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let shards = [3, 0, 2, 1];
    for shard in shards {
        assert!(assigns(&store, owner(shard, 1, Some(ONE))).await);
    }
    assert!(assigns(&store, owner(2, 2, None)).await);
    let expected = [owner(0, 1, Some(ONE)), owner(1, 1, Some(ONE)), owner(2, 2, None), owner(3, 1, Some(ONE))];
    assert_owners(&store, &expected).await;
}

pub async fn an_owner_is_assigned_over_the_epoch_before_it(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    assert!(!assigns(&store, owner(1, 2, Some(ONE))).await, "nothing stands before it");
    assert!(assigns(&store, owner(1, 1, Some(ONE))).await);
    assert!(!assigns(&store, owner(1, 1, Some(OTHER))).await);
    assert!(!assigns(&store, owner(1, 3, Some(OTHER))).await);
    assert!(assigns(&store, owner(1, 2, None)).await);
    assert!(assigns(&store, owner(1, 3, Some(OTHER))).await);
    assert!(!assigns(&store, owner(1, 1, Some(ONE))).await);
    assert!(!assigns(&store, owner(1, 2, None)).await);
    assert_owners(&store, &[owner(1, 3, Some(OTHER))]).await;
}

pub async fn an_assignment_put_again_is_recognised(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    for (epoch, instance) in [(1, Some(ONE)), (2, None), (3, Some(OTHER))] {
        for _ in 0..3 {
            assert!(assigns(&store, owner(0, epoch, instance)).await);
        }
        assert_owners(&store, &[owner(0, epoch, instance)]).await;
    }
}

pub async fn of_many_who_take_a_shard_one_wins(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    for epoch in 1..=10 {
        let rivals = (0..8).map(|rival| {
            let store = Arc::clone(&store);
            let owner = owner(0, epoch, Some(InstanceId([rival; 16])));
            tokio::spawn(async move { assigns(&store, owner).await.then_some(owner) })
        });
        let won = join_all(rivals.collect::<Vec<_>>()).await.into_iter().filter_map(|it| it.expect("a rival ends"));
        let won: Vec<_> = won.collect();
        assert_eq!(won.len(), 1, "epoch {epoch}");
        assert_owners(&store, &won).await;
    }
}
