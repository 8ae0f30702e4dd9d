//! Histories that outgrow their item, and steps that never fit one.

use bytes::Bytes;
use machinegun::machine::{LifeChange, Lifecycle, MOST_PARCELS, Parcel, SHORTEST_REASON, Unsent};
use machinegun::storage::contract::sample::{Sample, committed, events, everything};
use machinegun::storage::dynamodb::Dynamodb;
use machinegun::storage::{Commit, Outcome, Storage};
use machinegun::wire::{Content, Direction, HistoryRange, Value};

use super::ledger::raw;
use super::services;

/// Bytes that are not the same anywhere.
fn large(seed: u8, length: u32) -> Bytes {
    (0..length).map(|at| seed ^ at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect()
}

#[tokio::test]
async fn hundreds_of_events_spill_and_are_merged_whole() {
    let options = services::made_table().await;
    let store = Dynamodb::open(&options).await.unwrap();
    let mut sample = Sample::new("one");
    let event = |id: i64| Bytes::from(format!("event {id} {}", "x".repeat((id * 37 % 900) as usize)));
    let expected: Vec<_> = (1..=400).map(event).collect();
    for id in 1..=400 {
        // From time to time by a store that holds nothing of the machine.
        let fresh = Dynamodb::open(&options).await.unwrap();
        let store = if id % 7 == 0 { &fresh } else { &store };
        sample.commit_step(&**store, &[event(id)], Some(id)).await;
        if id % 50 == 0 {
            sample.assert_stands(&**store, &expected[..id as usize]).await;
        }
    }
    for (first, last) in [(1, 1), (1, 400), (17, 290), (250, 250), (399, 400), (400, 400)] {
        let found = store.events(&sample.key, sample.epoch(), first, last).await;
        assert_eq!(found.as_deref(), Ok(&expected[first as usize - 1..last as usize]), "{first} to {last}");
    }
    let range = HistoryRange { after: Some(300), limit: Some(20), direction: Direction::Backward };
    assert_eq!(store.read(&sample.key, Some(&range)).await.unwrap().unwrap().events, expected[279..299]);
    // A new epoch keeps the old one's tail.
    let old = sample.epoch();
    committed(&*store, sample.removal(1)).await;
    sample.commit_step(&*store, &events(1..=2), None).await;
    assert_eq!(store.events(&sample.key, old, 1, 400).await, Ok(expected));
    sample.assert_stands(&*store, &events(1..=2)).await;
    assert_eq!(store.delete_epoch(&sample.key, old, 400).await, Ok(()));
    assert!(store.events(&sample.key, old, 1, 1).await.is_err());
    assert!(store.events(&sample.key, old, 400, 400).await.is_err());
    sample.assert_stands(&*store, &events(1..=2)).await;
}

#[tokio::test]
async fn steps_larger_than_an_item_are_read_back_among_small_ones() {
    let options = services::made_table().await;
    let store = Dynamodb::open(&options).await.unwrap();
    let mut sample = Sample::new("one");
    let mut expected = Vec::new();
    for (round, length) in [(1, 10), (2, 199_000), (3, 900_000), (4, 20), (5, 400_000), (6, 3_000), (7, 201_000)] {
        let new = vec![large(round, length), large(round + 100, 5), large(round + 50, length / 2)];
        sample.commit_step(&*store, &new, None).await;
        expected.extend(new);
        sample.assert_stands(&*store, &expected).await;
    }
    let fresh = Dynamodb::open(&options).await.unwrap();
    sample.commit_step(&*fresh, &events(1..=1), None).await;
    expected.extend(events(1..=1));
    sample.assert_stands(&*fresh, &expected).await;
    // Replaced: some small, some large, one that grows past an item.
    let replaced_events = vec![(1, large(9, 500_000)), (3, Bytes::from_static(b"small")), (8, large(8, 7))];
    for (id, event) in &replaced_events {
        expected[*id as usize - 1] = event.clone();
    }
    committed(&*fresh, Commit { replaced_events, ..sample.step(&[], None) }).await;
    sample.assert_stands(&*store, &expected).await;
    sample.commit_step(&*store, &[large(3, 300_000)], None).await;
    expected.push(large(3, 300_000));
    sample.assert_stands(&*fresh, &expected).await;
    // A replaced history is found from the next epoch too.
    let (old, last) = (sample.epoch(), sample.record().last_event);
    committed(&*fresh, sample.removal(1)).await;
    sample.commit_step(&*fresh, &events(1..=1), None).await;
    assert_eq!(fresh.events(&sample.key, old, 1, last).await, Ok(expected));
    assert_eq!(fresh.delete_epoch(&sample.key, old, last).await, Ok(()));
    assert!(fresh.events(&sample.key, old, last, last).await.is_err());
}

#[tokio::test]
async fn a_record_larger_than_an_item_is_read_back_and_shrinks_again() {
    let options = services::made_table().await;
    let store = Dynamodb::open(&options).await.unwrap();
    let mut sample = Sample::new("one");
    for length in [10, 90_000, 1_200_000, 500_000, 10] {
        let aux = Value::str(&"a".repeat(length));
        let commit = sample.step_with(&events(1..=1), |record| {
            record.aux_state = Content { format_version: None, data: aux };
        });
        committed(&*store, commit.clone()).await;
        committed(&*store, commit).await;
        let loaded = store.read(&sample.key, Some(&everything())).await.unwrap().unwrap();
        assert_eq!(&loaded.record, sample.record(), "{length}");
    }
    committed(&*store, sample.forgetting()).await;
    assert_eq!(store.read(&sample.key, None).await, Ok(None));
}

#[tokio::test]
async fn a_notification_larger_than_an_item_is_read_back_and_deleted() {
    let options = services::made_table().await;
    let store = Dynamodb::open(&options).await.unwrap();
    let sample = Sample::new("one");
    let mut it = sample.notification(7);
    it.args = Value::str(&"n".repeat(900_000));
    for due in [5, 6] {
        assert_eq!(store.put_notification(&sample.key, &it, due).await, Outcome::Committed);
    }
    assert_eq!(store.notifications(&sample.key, 9).await, Ok(vec![it]));
    assert_eq!(store.settle_notifications(&sample.key, &[7], &[]).await, Ok(()));
    assert_eq!(store.notifications(&sample.key, 9).await, Ok(vec![]));
}

#[tokio::test]
async fn a_large_notification_that_is_put_late_goes_once_it_is_found_without_its_parts() {
    let options = services::made_table().await;
    let store = Dynamodb::open(&options).await.unwrap();
    let sample = Sample::new("one");
    let mut it = sample.notification(7);
    it.args = Value::str(&"n".repeat(300_000));
    assert_eq!(store.put_notification(&sample.key, &it, 5).await, Outcome::Committed);
    let table = raw(&options);
    let entries = || async {
        let all = table.scan().table_name(&options.table).send().await.unwrap().items.unwrap();
        all.into_iter().filter(|item| item.contains_key("h")).collect::<Vec<_>>()
    };
    let put = entries().await;
    assert_eq!(put.len(), 1);
    assert_eq!(store.settle_notifications(&sample.key, &[7], &[]).await, Ok(()));
    assert_eq!(entries().await, []);
    // The same put's second request comes.
    table.put_item().table_name(&options.table).set_item(Some(put[0].clone())).send().await.unwrap();
    assert_eq!(store.dues(None, 9, None, 9).await.unwrap().len(), 1);
    assert_eq!(store.notifications(&sample.key, 9).await, Ok(vec![]));
    assert_eq!(entries().await, []);
    assert_eq!(store.dues(None, 9, None, 9).await, Ok(vec![]));
    // As a whole it may come again.
    assert_eq!(store.put_notification(&sample.key, &it, 5).await, Outcome::Committed);
    assert_eq!(store.notifications(&sample.key, 9).await, Ok(vec![it]));
}

/// As much as the bounds let a machine owe, to three sinks at once.
#[tokio::test]
async fn a_record_that_owes_its_sinks_much_is_read_back_and_shrinks_again() {
    let options = services::made_table().await;
    let store = Dynamodb::open(&options).await.unwrap();
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &[], None).await;
    let parcels: Vec<_> = (0..MOST_PARCELS as i64)
        .map(|number| match number % 2 {
            0 => Parcel::Events { epoch: sample.epoch(), first: number, last: number },
            _ => Parcel::Lifecycle(Lifecycle {
                at_micros: number,
                change: LifeChange::Failed { reason: "r".repeat(SHORTEST_REASON) },
            }),
        })
        .collect();
    for sinks in [3, 1, 0] {
        let unsent = (0..sinks).map(|sink| Unsent { sink: format!("s{sink}"), parcels: parcels.clone(), behind: sink });
        committed(&*store, sample.step_with(&[], |record| record.unsent = unsent.collect())).await;
        let loaded = store.read(&sample.key, None).await.unwrap().unwrap();
        assert_eq!(&loaded.record, sample.record(), "{sinks}");
    }
}
