//! Answers that are lost, requests that are, and tables that are gone.

use std::sync::Arc;

use bytes::Bytes;
use machinegun::machine::{KEPT_COMMITS, Notification};
use machinegun::storage::contract::sample::{Sample, committed, due_times, entry_ids, events, put};
use machinegun::storage::contract::tags::{claim, holder};
use machinegun::storage::dynamodb::{Dynamodb, DynamodbOptions};
use machinegun::storage::leases::{Heartbeat, InstanceId, Leases, Owner};
use machinegun::storage::{Commit, Outcome, Storage, StorageError};
use machinegun::wire::Value;

use super::proxy::Proxy;
use super::services;

/// A table through a proxy, and without.
pub async fn two_addresses() -> (Proxy, DynamodbOptions, DynamodbOptions) {
    let direct = services::made_table().await;
    let proxy = Proxy::before(&services::dynamodb()).await;
    let through = DynamodbOptions { endpoint_url: Some(proxy.endpoint.clone()), ..direct.clone() };
    (proxy, through, direct)
}

/// The same, opened.
pub async fn two_ways() -> (Proxy, Arc<Dynamodb>, Arc<Dynamodb>) {
    let (proxy, through, direct) = two_addresses().await;
    (proxy, Dynamodb::open(&through).await.unwrap(), Dynamodb::open(&direct).await.unwrap())
}

#[track_caller]
fn assert_unknown(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_recognised_when_put_again() {
    let (proxy, store, direct) = two_ways().await;
    let mut sample = Sample::new("one");
    for step in 1..=3 {
        let commit = sample.step(&events(step..=step), Some(step));
        proxy.lose_next_answer();
        assert_unknown(&store.commit(commit.clone()).await);
        sample.assert_stands(&*direct, &events(1..=step)).await;
        committed(&*store, commit).await;
        sample.assert_stands(&*store, &events(1..=step)).await;
        assert_eq!(due_times(&*store).await, vec![step]);
    }
}

#[tokio::test]
async fn a_lost_request_is_unknown_and_done_when_put_again() {
    let (proxy, store, direct) = two_ways().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=1), None).await;
    let before = sample.clone();
    let commit = sample.step(&events(2..=2), None);
    proxy.lose_next_request();
    assert_unknown(&store.commit(commit.clone()).await);
    before.assert_stands(&*direct, &events(1..=1)).await;
    committed(&*store, commit).await;
    sample.assert_stands(&*store, &events(1..=2)).await;
}

#[tokio::test]
async fn a_lost_answer_is_recognised_after_later_commits_of_others() {
    let (proxy, store, direct) = two_ways().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=1), None).await;
    let lost = sample.step(&events(2..=2), None);
    proxy.lose_next_answer();
    assert_unknown(&store.commit(lost.clone()).await);
    for step in 3..2 + KEPT_COMMITS as i64 {
        sample.commit_step(&*direct, &events(step..=step), None).await;
    }
    committed(&*store, lost).await;
    sample.commit_step(&*store, &events(10..=10), None).await;
    sample.assert_stands(&*store, &events(1..=10)).await;
}

#[tokio::test]
async fn what_another_has_committed_meanwhile_is_a_conflict_also_for_a_hot_machine() {
    let (_proxy, store, direct) = two_ways().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=1), None).await;
    let mut other = sample.clone().seeded(1);
    other.commit_step(&*direct, &events(2..=2), Some(5)).await;
    assert_eq!(store.commit(sample.step(&events(2..=3), None)).await, Outcome::Conflict);
    other.assert_stands(&*store, &events(1..=2)).await;
    // The loser goes on from what stands there.
    other.commit_step(&*store, &events(3..=3), None).await;
    other.assert_stands(&*direct, &events(1..=3)).await;
}

#[tokio::test]
async fn a_notification_whose_answer_was_lost_is_unknown_and_recognised_when_put_again() {
    let (proxy, store, direct) = two_ways().await;
    let sample = Sample::new("one");
    let it = sample.notification(1);
    proxy.lose_next_answer();
    assert_unknown(&store.put_notification(&sample.key, &it, 10).await);
    assert_eq!(direct.notifications(&sample.key, 9).await, Ok(vec![it.clone()]));
    assert_eq!(store.put_notification(&sample.key, &it, 10).await, Outcome::Committed);
    // Another one's answer that is lost makes nothing of it either.
    let other = Notification { args: Value::nil(), ..it.clone() };
    proxy.lose_next_answer();
    assert_unknown(&store.put_notification(&sample.key, &other, 10).await);
    assert_eq!(store.put_notification(&sample.key, &other, 10).await, Outcome::Conflict);
    proxy.lose_next_request();
    assert_unknown(&store.put_notification(&sample.key, &sample.notification(2), 20).await);
    proxy.throttle_next();
    let outcome = store.put_notification(&sample.key, &sample.notification(2), 20).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert_eq!(direct.notifications(&sample.key, 9).await, Ok(vec![it]));
    assert_eq!(due_times(&*direct).await, vec![10]);
}

#[tokio::test]
async fn a_table_out_of_reach_refuses_what_was_never_sent_and_nothing_else() {
    let (proxy, store, direct) = two_ways().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=1), None).await;
    let before = sample.clone();
    let lost = sample.step(&events(2..=2), None);
    proxy.lose_next_request();
    assert_unknown(&store.commit(lost.clone()).await);
    proxy.go_down();
    // It may still be under way: out of reach is no refusal of it.
    assert_unknown(&store.commit(lost).await);
    let mut other = Sample::new("two");
    let outcome = store.commit(other.step(&[], None)).await;
    assert!(matches!(outcome, Outcome::Refused(StorageError::Unavailable(_))), "{outcome:?}");
    assert!(store.read(&sample.key, None).await.is_err());
    before.assert_stands(&*direct, &events(1..=1)).await;
}

#[tokio::test]
async fn a_commit_is_done_only_once_its_entries_are_gone() {
    let (proxy, store, direct) = two_ways().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &[], None).await;
    put(&*store, &sample, 1, 10).await;
    let commit = Commit { delete_notifications: vec![1], ..sample.step(&events(1..=1), None) };
    proxy.lose_next_answer();
    assert_unknown(&store.commit(commit.clone()).await);
    sample.assert_stands(&*direct, &events(1..=1)).await;
    assert_eq!(entry_ids(&*direct, &sample.key).await, vec![1]);
    committed(&*store, commit).await;
    assert_eq!(entry_ids(&*direct, &sample.key).await, Vec::<i64>::new());
    assert_eq!(due_times(&*direct).await, Vec::<i64>::new());
}

#[tokio::test]
async fn a_lost_claim_and_a_lost_forgetting_are_recognised() {
    let (proxy, store, direct) = two_ways().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &[], None).await;
    // A claim reads first: what is lost may be an answer to that, which is asked for again.
    let claiming = claim(&mut sample, b"tag");
    proxy.lose_next_answer();
    let outcome = store.commit(claiming.clone()).await;
    assert!(matches!(outcome, Outcome::Unknown(_) | Outcome::Committed), "{outcome:?}");
    committed(&*store, claiming).await;
    assert_eq!(holder(&*direct, &sample, b"tag").await, Some(sample.key.id.clone()));
    let forgetting = sample.forgetting();
    proxy.lose_next_answer();
    assert_unknown(&store.commit(forgetting.clone()).await);
    assert_eq!(direct.read(&sample.key, None).await, Ok(None));
    committed(&*store, forgetting).await;
}

#[tokio::test]
async fn a_throttled_commit_is_refused_unless_an_earlier_put_may_be_under_way() {
    let (proxy, store, direct) = two_ways().await;
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=1), None).await;
    let before = sample.clone();
    let commit = sample.step(&events(2..=2), None);
    proxy.throttle_next();
    let outcome = store.commit(commit.clone()).await;
    assert!(
        matches!(&outcome, Outcome::Refused(StorageError::Unavailable(why)) if why.contains("Throttling")),
        "{outcome:?}"
    );
    before.assert_stands(&*direct, &events(1..=1)).await;
    before.clone().seeded(3).commit_step(&*direct, &events(2..=2), None).await;
    assert_eq!(store.commit(commit).await, Outcome::Conflict);

    let mut other = Sample::new("two");
    let lost = other.step(&events(1..=1), None);
    proxy.fail_next();
    assert_unknown(&store.commit(lost.clone()).await);
    proxy.throttle_next();
    assert_unknown(&store.commit(lost.clone()).await);
    committed(&*store, lost).await;
    other.assert_stands(&*direct, &events(1..=1)).await;
}

#[tokio::test]
async fn lost_answers_about_leases_are_told_and_recognised_when_asked_again() {
    let (proxy, store, direct) = two_ways().await;
    let instance = InstanceId([7; 16]);
    let heartbeat = |beat| Heartbeat { instance, beat, changes: 0, address: "a:1".to_owned(), leaving: false };
    for beat in [1, 2] {
        proxy.lose_next_answer();
        assert!(store.beat(&heartbeat(beat)).await.is_err());
        assert_eq!(direct.heartbeats().await, Ok(vec![heartbeat(beat)]), "it was done all the same");
        assert_eq!(store.beat(&heartbeat(beat)).await, Ok(true));
    }
    let owner = Owner { shard: 3, epoch: 1, instance: Some(instance) };
    proxy.lose_next_answer();
    assert!(store.assign(&owner).await.is_err());
    assert_eq!(store.assign(&owner).await, Ok(true));
    assert_eq!(direct.owners().await, Ok(vec![owner]));
    for (instance, beats) in [(instance, 2), (InstanceId([8; 16]), 1)] {
        if beats == 1 {
            assert_eq!(store.beat(&Heartbeat { instance, ..heartbeat(1) }).await, Ok(true));
        }
        proxy.lose_next_answer();
        assert!(store.fence(instance, beats).await.is_err());
        assert_eq!(store.fence(instance, beats).await, Ok(true));
        assert_eq!(direct.heartbeats().await, Ok(vec![]));
    }
}

/// Its time counts: who was put off has to know it, and to look at the clock before it asks again.
#[tokio::test]
async fn a_heartbeat_is_put_once_whatever_it_meets() {
    let (proxy, store, direct) = two_ways().await;
    let heartbeat =
        Heartbeat { instance: InstanceId([7; 16]), beat: 1, changes: 0, address: "a:1".to_owned(), leaving: false };
    proxy.throttle_next();
    assert!(store.beat(&heartbeat).await.is_err());
    proxy.fail_next();
    assert!(store.beat(&heartbeat).await.is_err());
    proxy.lose_next_request();
    assert!(store.beat(&heartbeat).await.is_err());
    assert_eq!(direct.heartbeats().await, Ok(vec![]));
}

#[tokio::test]
async fn a_hot_commit_is_one_request_and_a_spill_one_more() {
    let (proxy, store, _) = two_ways().await;
    let mut sample = Sample::new("one");
    let event = |id: i64| Bytes::from(format!("{id} {}", "e".repeat(300)));
    let before = proxy.requests();
    for id in 1..=5 {
        sample.commit_step(&*store, &[event(id)], Some(id)).await;
    }
    assert_eq!(proxy.requests() - before, 5);
    for id in 6..=100 {
        sample.commit_step(&*store, &[event(id)], None).await;
    }
    let requests = proxy.requests() - before;
    assert!((105..=120).contains(&requests), "{requests} requests for 100 commits");
    sample.assert_stands(&*store, &(1..=100).map(event).collect::<Vec<_>>()).await;
}
