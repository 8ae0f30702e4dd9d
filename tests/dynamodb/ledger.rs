//! Blocks appended beside the commits, by several instances, over a connection that loses things: each event once, in its
//! machine's order, and the chain whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use futures_util::future::join_all;
use machinegun::clock::{Clock, random_unit};
use machinegun::machine::{CommitId, Epoch, MachineKey};
use machinegun::storage::contract::ledgers::{all_entries, verified, wire_event, wire_events};
use machinegun::storage::contract::sample::key;
use machinegun::storage::dynamodb::{Dynamodb, DynamodbOptions};
use machinegun::storage::ledger::{Append, Broken, Head, Ledger, LedgerWriter, Run, Source, Unnumbered, verify};
use machinegun::storage::{Storage, StorageError};
use machinegun::telemetry::Metrics;
use machinegun::wire::Value;

use super::faults::{two_addresses, two_ways};
use super::services;

const SINK: &str = "all";
const LIFE: Epoch = CommitId([7; 16]);

async fn writer(store: &Arc<Dynamodb>) -> Arc<LedgerWriter> {
    let (store, metrics): (Arc<dyn Storage>, _) = (store.clone(), Metrics::new());
    LedgerWriter::open(store, SINK, Clock::system(), metrics.ledger(SINK)).await.unwrap()
}

async fn opened(options: &DynamodbOptions) -> Arc<Dynamodb> {
    Dynamodb::open(options).await.unwrap()
}

fn machine(name: &str) -> MachineKey {
    key("ns", name.as_bytes())
}

/// The events of each machine, in the order of the ledger, whose chain is whole.
async fn entered(store: &Dynamodb) -> BTreeMap<MachineKey, Vec<Bytes>> {
    let head = verified(store, SINK).await;
    let mut machines: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let entries = all_entries(store, SINK).await;
    assert_eq!(entries.len() as i64, head.last);
    for (entry, id) in entries.into_iter().zip(1..) {
        assert_eq!(entry.id, id, "no gaps");
        machines.entry(entry.source).or_default().push(entry.event);
    }
    machines
}

async fn assert_entered(store: &Dynamodb, machine: &MachineKey, events: &[Bytes]) {
    assert_eq!(entered(store).await.get(machine).map(Vec::as_slice), Some(events));
}

fn pick<T>(of: &[T]) -> &T {
    &of[(random_unit() * of.len() as f64) as usize]
}

/// Each machine's deliveries repeat, at once and later, through any of three instances, over two lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_writers_enter_each_event_of_fifty_machines_once() {
    const EVENTS: i64 = 12;
    let options = services::made_table().await;
    let stores = [opened(&options).await, opened(&options).await, opened(&options).await];
    let writers = Arc::new(join_all(stores.iter().map(writer)).await);
    let machines = (0..50).map(|number| {
        let writers = writers.clone();
        tokio::spawn(async move {
            let key = machine(&format!("m{number}"));
            let mut past: Vec<(Epoch, i64, Vec<Bytes>, i64)> = Vec::new();
            for life in [CommitId([1; 16]), CommitId([2; 16])] {
                let mut first = 1;
                while first <= EVENTS {
                    let last = (first + (random_unit() * 3.0) as i64).min(EVENTS);
                    // As the record that is committed now says it.
                    let behind = pick(&writers).place();
                    let events: Vec<_> = (first..=last).map(|id| wire_event(id, Value::bin(&life.0))).collect();
                    let deliveries = (0..=(random_unit() * 2.0) as usize)
                        .map(|_| pick(&writers).enter(&key, life, first, &events, behind));
                    for entered in join_all(deliveries).await {
                        entered.unwrap();
                    }
                    past.push((life, first, events, behind));
                    if random_unit() < 0.2 {
                        // An instance that was frozen for long.
                        let (life, first, events, behind) = pick(&past);
                        pick(&writers).enter(&key, *life, *first, events, *behind).await.unwrap();
                    }
                    first = last + 1;
                }
            }
        })
    });
    for machine in join_all(machines.collect::<Vec<_>>()).await {
        machine.unwrap();
    }
    let lives = [[1; 16], [2; 16]];
    let expected: Vec<_> =
        lives.iter().flat_map(|life| (1..=EVENTS).map(|id| wire_event(id, Value::bin(life)))).collect();
    let fresh = opened(&options).await;
    let machines = entered(&fresh).await;
    assert_eq!(machines.len(), 50);
    for (machine, events) in machines {
        assert_eq!(events, expected, "{machine:?}");
    }
    // All of them agree on where it ends.
    let head = fresh.head(SINK).await;
    for store in &stores {
        assert_eq!(store.head(SINK).await, head);
    }
}

#[tokio::test]
async fn what_was_lost_on_the_way_is_entered_once() {
    let (proxy, store, direct) = two_ways().await;
    let (writer, key) = (writer(&store).await, machine("one"));
    let mut first = 1;
    // Once: the client tries again by itself. Always: whoever delivers is told, and delivers again.
    for times in [1, 2, 20] {
        type Break<'a> = &'a (dyn Fn(usize) + Sync);
        let faults: [Break<'_>; 4] = [
            &|times| proxy.lose_answers(times),
            &|times| proxy.lose_requests(times),
            &|times| proxy.throttle(times),
            &|times| proxy.fail(times),
        ];
        for fault in faults {
            let (behind, events) = (writer.place(), wire_events(first..=first + 1));
            fault(times);
            let entered = writer.enter(&key, LIFE, first, &events, behind).await;
            assert_eq!(entered.is_err(), times == 20, "{entered:?}");
            proxy.mend();
            writer.enter(&key, LIFE, first, &events, behind).await.unwrap();
            first += 2;
            assert_entered(&direct, &key, &wire_events(1..=first - 1)).await;
        }
    }
}

/// Put by an instance that nobody has heard of since; it lands when it likes.
#[tokio::test]
async fn a_block_that_lands_late_is_taken_in_or_finds_its_place_taken() {
    let options = services::made_table().await;
    let (store, other) = (opened(&options).await, opened(&options).await);
    let (one, two) = (machine("one"), machine("two"));
    let block = |head: Head, key: &MachineKey, ids: std::ops::RangeInclusive<i64>| {
        let run = Run { source: Source::of(key, LIFE), last: *ids.end() };
        (Unnumbered::new(key, &wire_events(ids)).behind(head), [run])
    };
    let writer = writer(&store).await;
    // In time: the writer's own block comes behind it, without the event that it brought.
    let (late, runs) = block(Head::EMPTY, &one, 1..=1);
    assert_eq!(other.append(SINK, &late, &runs).await, Ok(None));
    assert_eq!(writer.enter(&one, LIFE, 1, &wire_events(1..=2), 0).await, Ok(1));
    assert_entered(&store, &one, &wire_events(1..=2)).await;
    // Too late.
    let head = other.head(SINK).await.unwrap();
    let (late, runs) = block(head, &one, 3..=4);
    assert_eq!(writer.enter(&two, LIFE, 1, &wire_events(1..=1), 2).await, Ok(2));
    let there = other.append(SINK, &late, &runs).await.unwrap().expect("another block");
    assert_eq!((there.first, there.last, there.hash == late.hash), (3, 3, false));
    // The same again is recognised.
    let (own, runs) = block(head, &two, 1..=1);
    let there = other.append(SINK, &own, &runs).await.unwrap().expect("its own");
    assert_eq!(there.hash, own.hash);
    assert_eq!(writer.enter(&one, LIFE, 3, &wire_events(3..=4), 2).await, Ok(3));
    assert_entered(&store, &one, &wire_events(1..=4)).await;
    assert_entered(&store, &two, &wire_events(1..=1)).await;
}

/// After a crash, all that was delivered and not noted is delivered again. A new instance knows of no block.
#[tokio::test]
async fn what_an_earlier_run_has_entered_is_found_again_by_reading_its_blocks_once() {
    const MACHINES: i64 = 60;
    let (proxy, through, direct) = two_addresses().await;
    let (store, direct) = (opened(&through).await, opened(&direct).await);
    let machines: Vec<_> = (0..MACHINES).map(|number| machine(&format!("m{number}"))).collect();
    let before = writer(&store).await;
    for key in &machines {
        before.enter(key, LIFE, 1, &wire_events(1..=2), 0).await.unwrap();
    }
    let behind = before.place();
    for key in &machines {
        before.enter(key, LIFE, 3, &wire_events(3..=4), behind).await.unwrap();
    }
    drop(before);
    let fresh = opened(&through).await;
    let writer = writer(&fresh).await;
    let requests = proxy.requests();
    // One event more, committed before the crash and never delivered.
    let deliveries = machines.iter().map(|key| async {
        let events = wire_events(3..=5);
        writer.enter(key, LIFE, 3, &events, behind).await.unwrap()
    });
    join_all(deliveries).await;
    let asked = proxy.requests() - requests;
    assert!(asked <= 12, "{asked} requests for {MACHINES} deliveries");
    for (key, events) in entered(&direct).await {
        assert_eq!(events, wire_events(1..=5), "{key:?}");
    }
    // Of a debt that is as old as the ledger.
    for key in &machines {
        writer.enter(key, LIFE, 1, &wire_events(1..=5), 0).await.unwrap();
    }
    assert_eq!(verified(&*direct, SINK).await.last, MACHINES * 5);
}

#[tokio::test]
async fn one_delivery_is_one_request_and_many_at_once_share_theirs() {
    const MACHINES: usize = 64;
    const CALLS: i64 = 20;
    let (proxy, store, direct) = two_ways().await;
    let writer = writer(&store).await;
    let before = proxy.requests();
    for id in 1..=5 {
        writer.enter(&machine("slow"), LIFE, id, &wire_events(id..=id), writer.place()).await.unwrap();
    }
    assert_eq!(proxy.requests() - before, 5);
    let before = proxy.requests();
    let machines = (0..MACHINES).map(|number| {
        let writer = writer.clone();
        async move {
            let key = machine(&format!("m{number}"));
            for id in 1..=CALLS {
                writer.enter(&key, LIFE, id, &wire_events(id..=id), writer.place()).await.unwrap();
            }
        }
    });
    join_all(machines).await;
    let (asked, calls) = (proxy.requests() - before, MACHINES as u64 * CALLS as u64);
    println!("{asked} requests for {calls} deliveries");
    assert!(asked * 10 <= calls, "{asked} requests for {calls} deliveries");
    assert_eq!(entered(&direct).await.len(), MACHINES + 1);
}

/// Larger than a block, larger than an item, and many of them: all is split, read back and verified.
#[tokio::test]
async fn large_deliveries_are_split_and_large_events_lie_beside_their_block() {
    let options = services::made_table().await;
    let (store, key) = (opened(&options).await, machine("one"));
    let writer = writer(&store).await;
    let mut events: Vec<_> = wire_events(1..=1_700);
    writer.enter(&key, LIFE, 1, &events, 0).await.unwrap();
    events.push(wire_event(1_701, Value::bin(&[9; 3 << 20])));
    events.extend((1_702..=1_720).map(|id| wire_event(id, Value::bin(&[id as u8; 40_000]))));
    writer.enter(&key, LIFE, 1_701, &events[1_700..], 0).await.unwrap();
    let fresh = opened(&options).await;
    assert_entered(&fresh, &key, &events).await;
    let blocks = fresh.blocks(SINK, 0, 100).await.unwrap();
    let sizes: Vec<_> = blocks.iter().map(|block| block.entries.len()).collect();
    assert_eq!(sizes[..4], [500, 500, 500, 200]);
}

#[tokio::test]
async fn the_end_is_found_from_anywhere() {
    let (proxy, through, direct) = two_addresses().await;
    let store = opened(&through).await;
    let mut head = Head::EMPTY;
    for (number, size) in [1, 1_000, 22, 1, 500, 500, 1_000, 24, 1_023, 1, 1_000, 1_000, 999, 1_000].iter().enumerate()
    {
        let key = machine(&format!("m{number}"));
        let block = Unnumbered::new(&key, &wire_events(1..=*size)).behind(head);
        assert_eq!(store.append(SINK, &block, &[]).await, Ok(None));
        head = block.head();
        let fresh = opened(&direct).await;
        assert_eq!(fresh.head(SINK).await, Ok(head), "from the beginning");
        // What it has seen is where it looks the next time.
        let before = proxy.requests();
        assert_eq!(store.head(SINK).await, Ok(head));
        assert_eq!(proxy.requests() - before, 1);
        if number == 6 {
            store.note_head(SINK, head).await.unwrap();
            // An older one changes nothing.
            store.note_head(SINK, Head { last: 1, ..head }).await.unwrap();
        }
    }
    assert_eq!(verified(&*opened(&direct).await, SINK).await, head);
}

/// Somebody's hand in the table.
#[tokio::test]
async fn what_was_changed_or_taken_out_of_the_table_is_named() {
    let options = services::made_table().await;
    let store = opened(&options).await;
    let writer = writer(&store).await;
    for number in 0..6 {
        let key = machine(&format!("m{number}"));
        writer.enter(&key, LIFE, 1, &wire_events(1..=500), 0).await.unwrap();
    }
    let head = verified(&*store, SINK).await;
    store.note_head(SINK, head).await.unwrap();
    let table = raw(&options);
    let all = table.scan().table_name(&options.table).send().await.unwrap().items.unwrap();
    let mut blocks: Vec<_> = all.into_iter().filter(|item| item.contains_key("g")).collect();
    blocks.sort_by_key(|item| item["sk"].as_b().unwrap().as_ref().to_vec());
    assert_eq!(blocks.len(), 6);
    let put = |item| table.put_item().table_name(&options.table).set_item(Some(item)).send();
    for (place, block) in blocks.iter().enumerate() {
        let first = place as i64 * 500 + 1;
        let mut changed = block.clone();
        let mut entries = block["e"].as_b().unwrap().as_ref().to_vec();
        *entries.last_mut().unwrap() ^= 1;
        changed.insert("e".to_owned(), AttributeValue::B(entries.into()));
        put(changed).await.unwrap();
        let fresh = opened(&options).await;
        assert_eq!(verify(&*fresh, SINK).await, Err(Broken::Entry { entry: first + 499 }));
        // Gone: in the middle, in front, and at the end, as far as it was noted.
        let delete = table.delete_item().table_name(&options.table);
        let delete = delete.key("pk", block["pk"].clone()).key("sk", block["sk"].clone());
        delete.send().await.unwrap();
        let fresh = opened(&options).await;
        assert_eq!(verify(&*fresh, SINK).await, Err(Broken::Missing { entry: first }));
        let read = fresh.entries(SINK, first.max(2) - 1, first).await;
        assert!(matches!(read, Err(StorageError::Corrupt(_))), "{read:?}");
        put(block.clone()).await.unwrap();
    }
    assert_eq!(verified(&*opened(&options).await, SINK).await, head);
}

pub fn raw(options: &DynamodbOptions) -> aws_sdk_dynamodb::Client {
    use aws_sdk_dynamodb::config::{BehaviorVersion, Builder, Credentials, Region};
    let config = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(options.region.clone()))
        .endpoint_url(options.endpoint_url.clone().unwrap())
        .credentials_provider(Credentials::new("test", "test", None, None, "given"))
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    aws_sdk_dynamodb::Client::from_conf(config.build())
}
