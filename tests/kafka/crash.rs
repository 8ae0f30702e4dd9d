//! Machines publish while the broker is killed and comes back, and the service too: consumers find each machine's events
//! in order and none is missing.
//!
//! 20 machines with 50 events each, and each is killed once; `MACHINEGUN_KAFKA_MACHINES`, `MACHINEGUN_KAFKA_EVENTS` and
//! `MACHINEGUN_KAFKA_KILLS` ask for others, `MACHINEGUN_CRASH_SEED` for the same choices again.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use machinegun::sink::kafka::message;
use tokio::sync::watch;

use crate::broker::{broker, topic};
use crate::dice::{Dice, from_environment};
use crate::process::peer::Peer;
use crate::process::processor::{Order, Processor};
use crate::process::{Folder, Machinegun, within};
use crate::service::{PARTITIONS, by_machine, client, configuration, key, until, values};

/// Within which all machines have done all their steps, kills and all.
const PATIENCE_MS: i64 = 30 * 60_000;

/// Steps one machine until it has its events. Where the service is depends on the hour: none while it is dead. What its
/// answers were does not matter here: the store is asked at the end.
async fn work(
    id: String,
    events: usize,
    mut dice: Dice,
    mut service: watch::Receiver<Option<Peer>>,
    steps: Arc<watch::Sender<u64>>,
) {
    let mut done = 0;
    while done < events {
        let peer = service.wait_for(Option::is_some).await.expect("the test goes on").clone().expect("it is some");
        let Ok(machine) = peer.machine(&id).await else { continue };
        done = machine.as_ref().map_or(0, |machine| machine.history.len());
        let order =
            Order { events: (1 + dice.below(3) as usize).min(events - done), ..Order::plain(format!("{id}-{done}")) };
        let answer = match machine {
            _ if order.events == 0 => return,
            None => peer.start(&id, &order).await,
            Some(_) => peer.call(&id, &order).await,
        };
        if answer.is_ok() {
            steps.send_modify(|steps| *steps += order.events as u64);
        }
    }
}

/// The walk of a consumer through a machine's events, which may go back and begin again from an earlier one, never ahead
/// of the next. How often it went back.
pub fn repeats(id: &str, expected: &[Vec<u8>], found: &[Vec<u8>]) -> usize {
    let ids: BTreeMap<_, _> = expected.iter().enumerate().map(|(at, value)| (value, at)).collect();
    let (mut next, mut repeats) = (0, 0);
    let mut newest = 0;
    for value in found {
        let at = *ids.get(value).unwrap_or_else(|| panic!("{id}: an event that its history does not have"));
        if at != next {
            let came: Vec<_> = found.iter().take(20).filter_map(|it| ids.get(it)).map(|at| at + 1).collect();
            assert!(at < next, "{id}: event {} stands where {} should, it began with {came:?}", at + 1, next + 1);
            repeats += 1;
        }
        next = at + 1;
        newest = newest.max(next);
    }
    assert_eq!((newest, next), (expected.len(), expected.len()), "{id}: events are missing");
    repeats
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_find_each_event_in_order_across_kills_of_the_broker_and_of_the_service() {
    let chosen = |name, default| from_environment(name).unwrap_or(default);
    let machines = chosen("MACHINEGUN_KAFKA_MACHINES", 20);
    let events = chosen("MACHINEGUN_KAFKA_EVENTS", 50);
    let kills = chosen("MACHINEGUN_KAFKA_KILLS", 1);
    let mut dice = Dice::thrown();
    let mut broker = broker().await;
    let (folder, processor, topic) = (Folder::new(), Processor::start(), topic("events"));
    let sink = format!("{{type: kafka, client: client, topic: {topic}}}");
    let config = folder.configured_as(&configuration(&folder, &processor, &sink, &client(&broker.plain, "")));
    let mut service = Machinegun::start(&config).await;

    let (address, here) = watch::channel(Some(Peer::of(service.address)));
    let (steps, mut done) = watch::channel(0);
    let steps = Arc::new(steps);
    let ids: Vec<_> = (0..machines).map(|it| format!("machine-{it}")).collect();
    let workers = ids.iter().map(|id| {
        let dice = Dice::new(dice.next());
        tokio::spawn(work(id.clone(), events as usize, dice, here.clone(), steps.clone()))
    });
    let workers: Vec<_> = workers.collect();
    // Kills come evenly over the load, now of the one, now of the other, or of both at once.
    let part = (machines * events / (2 * kills + 1)).max(1);
    for kill in 0..2 * kills {
        done.wait_for(|done| *done >= part * (kill + 1)).await.expect("the workers go on");
        if kill % 2 == 0 {
            broker.kill();
            // Its absence is felt.
            let more = *done.borrow() + part / 4;
            done.wait_for(|done| *done >= more).await.expect("the workers go on");
            broker.revive();
        } else {
            address.send_replace(None);
            service.kill().await;
            service = Machinegun::start(&config).await;
            address.send_replace(Some(Peer::of(service.address)));
        }
    }
    for worker in within(PATIENCE_MS, "all the steps", join_all(workers)).await {
        worker.expect("the worker has not failed");
    }

    let peer = Peer::of(service.address);
    let mut expected = BTreeMap::new();
    for id in &ids {
        let machine = peer.machine(id).await.expect("an answer").expect("a machine");
        assert_eq!(machine.history.len() as u64, events);
        expected.insert(message::key(&key(id)), (id, values(id, &machine)));
    }
    let all_there = |found: &[crate::consumer::Message]| {
        let mut left: BTreeMap<_, _> =
            expected.iter().map(|(key, (_, values))| (key, values.last().expect("an event"))).collect();
        found.iter().for_each(|it| {
            if left.get(&it.key) == Some(&&it.value) {
                left.remove(&it.key);
            }
        });
        left.is_empty()
    };
    let found = by_machine(until(&broker.plain, &topic, "every machine's last event", all_there).await, PARTITIONS);
    assert_eq!(found.len(), ids.len());
    let mut all = 0;
    for (key, (id, values)) in &expected {
        let repeats = repeats(id, values, &found[key]);
        // Of a service that was killed, from what its store knew; of a broker, what it may or may not have had.
        assert!(repeats as u64 <= 2 * kills, "{id}: went back {repeats} times");
        all += repeats;
    }
    let messages: usize = found.values().map(Vec::len).sum();
    println!("{} events in {messages} messages: consumers were taken back {all} times", machines * events);
    service.kill().await;
}
