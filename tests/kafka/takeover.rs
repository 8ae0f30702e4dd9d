//! Two instances on one table, and a real Kafka: one dies owing events, and consumers find them from the other, in order.

use std::collections::BTreeMap;

use machinegun::sink::kafka::message;
use machinegun::wire::Exception;

use crate::broker::{broker, topic};
use crate::consumer::{Message, make};
use crate::crash::repeats;
use crate::process::peer::{Failure, Peer};
use crate::process::processor::{Order, Processor};
use crate::process::{Folder, Machinegun, configuration_on, within};
use crate::service::{PARTITIONS, by_machine, client, key, life, sunk, until, values};
use crate::services;

const MACHINES: usize = 8;

/// How long the taking over may take, in milliseconds: some times the lease.
const PATIENCE_MS: i64 = 120_000;

fn order(token: &str, events: usize) -> Order {
    Order { events, ..Order::plain(token) }
}

/// Waits until an instance owns so many shards.
async fn owns(instance: &Machinegun, shards: usize) {
    let line = format!("machinegun_shards_owned {shards}");
    let wait = async { while !instance.get("/metrics").await.2.lines().any(|it| it == line) {} };
    within(PATIENCE_MS, "its shards", wait).await;
}

/// Whether each machine's last value is in the topic.
fn has_last(found: &[Message], expected: &BTreeMap<Vec<u8>, Vec<Vec<u8>>>, read: impl Fn(&[u8]) -> Vec<u8>) -> bool {
    expected
        .iter()
        .all(|(key, values)| found.iter().any(|it| it.key == *key && Some(&read(&it.value)) == values.last()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_find_events_and_changes_of_life_in_order_across_a_takeover() {
    let mut broker = broker().await;
    let (folder, processor, events, lives) = (Folder::new(), Processor::start(), topic("events"), topic("lives"));
    make(&broker.plain, &[&events, &lives], PARTITIONS).await;
    let table = services::table_at(&services::dynamodb());
    let storage = format!(
        "{{type: dynamodb, table: {}, region: here, endpoint_url: '{}', shards: {}, create_table: true, lease_time: 5s}}",
        table.table,
        services::dynamodb(),
        table.shards
    );
    let sink = format!("{{type: kafka, client: client, topic: {events}}}");
    let more = client(&broker.plain, "") + &format!("lifecycle_pulse: {{client: client, topic: {lives}}}\n");
    let config = folder.configured_as(&(configuration_on(&storage, &sunk(&processor, &sink)) + &more));
    let (first, second) = (Machinegun::start(&config).await, Machinegun::start(&config).await);
    let half = usize::from(table.shards / 2);
    owns(&first, half).await;
    owns(&second, half).await;

    let ids: Vec<_> = (0..MACHINES).map(|it| format!("machine-{it}")).collect();
    let peer = Peer::of(first.address);
    for id in &ids {
        peer.start(id, &order("a", 1)).await.expect("a start");
        peer.call(id, &order("b", 2)).await.expect("a call");
    }
    // From here on it is owed.
    broker.kill();
    for id in &ids {
        peer.call(id, &order("c", 2)).await.expect("a call");
        let failed = peer.call(id, &Order { fail: true, ..order("d", 1) }).await;
        assert_eq!(failed, Err(Failure::Thrown(Exception::MachineFailed)));
    }
    first.kill().await;
    broker.revive();
    let peer = Peer::of(second.address);
    let mut expected = BTreeMap::new();
    for id in &ids {
        peer.repair(id, &order("e", 1)).await.expect("a repair by whoever owns it now");
        let machine = peer.machine(id).await.expect("an answer").expect("a machine");
        assert_eq!(machine.history.len(), 6);
        expected.insert(message::key(&key(id)).to_vec(), values(id, &machine));
        peer.remove(id).await.expect("a removal");
    }
    owns(&second, 2 * half).await;

    let all = |found: &[Message]| has_last(found, &expected, <[u8]>::to_vec);
    let found = by_machine(until(&broker.plain, &events, "every machine's last event", all).await, PARTITIONS);
    assert_eq!(found.len(), MACHINES);
    for (key, values) in &expected {
        repeats(&String::from_utf8_lossy(key), values, &found[key]);
    }
    // Without the time, and without a failure's words.
    let change = |value: &[u8]| {
        let change = format!("{:?}", life(value));
        change.split(' ').next().unwrap_or_default().as_bytes().to_vec()
    };
    let a_life: Vec<_> = ["Created", "Failed", "Repaired", "Removed"].map(|it| it.as_bytes().to_vec()).into();
    let expected: BTreeMap<_, _> = expected.into_keys().map(|key| (key, a_life.clone())).collect();
    let all = |found: &[Message]| has_last(found, &expected, change);
    let found = by_machine(until(&broker.plain, &lives, "every machine's end", all).await, PARTITIONS);
    for (key, values) in &expected {
        let changes: Vec<_> = found[key].iter().map(|value| change(value)).collect();
        repeats(&String::from_utf8_lossy(key), values, &changes);
    }
    second.terminate();
    assert!(second.ended().await.status.success());
}
