//! Three instances on one table under load, while they are killed, stopped, frozen past their leases and woken, and their
//! ways to the table break: what was acknowledged is there, once, on whatever instance it is asked for.
//!
//! Some seconds; `MACHINEGUN_CRASH_SECONDS` asks for more, `MACHINEGUN_CRASH_MACHINES` for more machines,
//! `MACHINEGUN_CRASH_LEASE_MS` for another lease time, and `MACHINEGUN_CRASH_SEED` for the same choices again.
#![cfg(feature = "dynamodb")]

mod chaos;
#[path = "crash/mod.rs"]
mod crash;
mod process;
mod services;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::future::join_all;
use machinegun::clock::Clock;

use chaos::client::{Tally, recover, work};
use chaos::cluster::{Cluster, SHARDS};
use chaos::tags::race;
use chaos::torment::{Blows, some_go_on, torment};
use crash::client::{Client, MACHINES};
use crash::dice::{Dice, from_environment};
use crash::ledger::Ledger;
use process::peer::NAMESPACE;
use process::processor::Processor;
use process::{Folder, command, namespace};

const INSTANCES: usize = 3;
const SECONDS: u64 = 10;
const SOME_MACHINES: u64 = 40;
/// Short, for a short test.
const SHORT_LEASE_MS: u64 = 3_000;
const LEDGER: &str = "all";
const TAGGED: &str = "tagged";
/// Clients that look for each Call's events in the ledger.
const FOLLOWERS: usize = 2;
const RACES: u64 = 2;

fn configuration(table: &str, lease_ms: u64, endpoint: &str, processor: &Processor) -> String {
    let with_ledger = format!("    event_sinks:\n      {LEDGER}: {{type: ledger}}\n");
    format!(
        "service_name: machinegun\n\
         woody_server: {{ip: 127.0.0.1, port: 0}}\n\
         logging: {{out_type: stdout, level: info}}\n\
         storage: {{type: dynamodb, table: {table}, region: here, endpoint_url: '{endpoint}', shards: {SHARDS}, \
         request_timeout: 2s, lease_time: {lease_ms}ms}}\n\
         namespaces:\n{}{with_ledger}{}    protocol: 2021\n",
        namespace(NAMESPACE, processor.address),
        namespace(TAGGED, processor.address),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_die_freeze_and_lose_their_way_lose_nothing() {
    let clock = Clock::system();
    let seconds = from_environment("MACHINEGUN_CRASH_SECONDS").unwrap_or(SECONDS);
    let machines = from_environment("MACHINEGUN_CRASH_MACHINES").unwrap_or(SOME_MACHINES);
    let lease_ms = from_environment("MACHINEGUN_CRASH_LEASE_MS").unwrap_or(SHORT_LEASE_MS);
    let mut dice = Dice::thrown();
    let folder = Folder::new();
    let processor = Processor::start();
    let mut table = services::table_at(&services::dynamodb());
    table.shards = SHARDS;
    machinegun::storage::dynamodb::schema::create(&table, &clock).await.expect("a table is made");
    let configured = |endpoint: &str| configuration(&table.table, lease_ms, endpoint, &processor);
    let cluster = Cluster::start(INSTANCES, &services::dynamodb(), &folder, &mut dice, configured).await;
    println!("all shards owned {} ms after three starts", cluster.all_owned().await);

    let mut clients: Vec<_> =
        (0..machines.div_ceil(MACHINES as u64)).map(|number| Client::new(number, dice.next())).collect();
    clients = clients
        .into_iter()
        .enumerate()
        .map(|(at, client)| if at < FOLLOWERS { client.publishing(NAMESPACE, &[LEDGER]) } else { client })
        .collect();
    let (enough, calm) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (tally, steps) = (Arc::new(Tally::default()), Arc::new(AtomicU64::new(0)));
    let down = some_go_on();
    let torments: Vec<_> = (0..INSTANCES)
        .map(|which| {
            let dice = Dice::new(dice.next());
            tokio::spawn(torment(cluster.clone(), which, dice, lease_ms, down.clone(), calm.clone()))
        })
        .collect();
    let working: Vec<_> = clients
        .into_iter()
        .map(|client| tokio::spawn(work(client, cluster.clone(), enough.clone(), tally.clone(), steps.clone())))
        .collect();
    let racing: Vec<_> =
        (0..RACES).map(|number| tokio::spawn(race(TAGGED, number, cluster.clone(), enough.clone()))).collect();

    let (begun, mut told) = (clock.now(), 0);
    while clock.now() < begun + seconds as i64 * 1_000 {
        clock.sleep_until(clock.now() + 250).await;
        // A client that found something wrong ends the test at once.
        if working.iter().any(|client| client.is_finished()) {
            break;
        }
        if clock.now() - begun > told + 10_000 {
            told = clock.now() - begun;
            println!("{told} ms: {} steps, {tally:?}", steps.load(Ordering::Relaxed));
        }
    }
    calm.store(true, Ordering::SeqCst);
    let mut blows = Blows::default();
    for torment in torments {
        blows = blows + torment.await.expect("every instance went on");
    }
    let settled = cluster.all_owned().await;
    enough.store(true, Ordering::SeqCst);
    let mut clients = Vec::new();
    for client in working {
        clients.push(client.await.expect("no acknowledged step was wrong"));
    }
    let mut races = Vec::new();
    for race in racing {
        races.extend(race.await.expect("no race was won twice"));
    }

    let peer = cluster.instances[0].steady_peer();
    for clients in clients.chunks_mut(32) {
        join_all(clients.iter_mut().map(|client| recover(client, &peer))).await;
    }
    let tagged = peer.in_namespace(TAGGED);
    let mut won = 0;
    for race in &races {
        won += u64::from(race.has_one_winner(&tagged).await);
    }
    let everyone: Vec<_> = clients.iter().collect();
    let (ledger, removed) = whole_ledger(&everyone, &cluster).await;
    let config = folder.configured_as(&configuration(&table.table, lease_ms, &services::dynamodb(), &processor));
    let (ended, line) = command(&["ledger", "verify", LEDGER], &config).await;
    assert_eq!(ended.status.code(), Some(0), "ledger verify: {line}{}", ended.stderr);
    assert!(line.starts_with(&format!("{} entries", ledger.last())), "{line}, but {} were read", ledger.last());

    let (asked, repeats) = processor.repeats();
    let spoilt: u64 = cluster.instances.iter().map(|instance| instance.storm.spoilt()).sum();
    let refused_starts: u64 = cluster.instances.iter().map(|it| it.refused_starts.load(Ordering::Relaxed)).sum();
    println!("{blows:?}, {spoilt} requests to the table spoilt, {refused_starts} starts refused by it");
    println!("{} machines, {} steps: {tally:?}", clients.len() * MACHINES, steps.load(Ordering::Relaxed));
    println!(
        "{} races for tags, {won} won; {} entries in the ledger, {removed} machines removed",
        races.len(),
        ledger.last()
    );
    println!("the processor was asked about {asked} steps, and {repeats} times again");
    // Told and not asserted: on a host with more to do than it can, the time is the host's too.
    let bar = 2 * lease_ms as i64;
    let held = if settled <= bar { "held" } else { "MISSED" };
    println!("all shards owned {settled} ms after the last blow; the bar is {bar} ms, two leases: {held}");
    for metric in [
        "machinegun_forwards_total",
        "machinegun_shard_takeovers_total",
        "machinegun_shard_hand_overs_total",
        "machinegun_commit_conflicts_total",
        "machinegun_table_requests_refused_total",
    ] {
        println!("{metric} of those that run now: {}", cluster.total(metric).await);
    }
    assert!(tally.acknowledged.load(Ordering::Relaxed) > 0 && blows.kills + blows.freezes + blows.storms > 0);
    for instance in &cluster.instances {
        instance.stop().await;
    }
}

/// Sinks are paid within moments: what is not there yet is on its way.
async fn whole_ledger(clients: &[&Client], cluster: &Cluster) -> (Ledger, usize) {
    let clock = Clock::system();
    let until = clock.now() + process::PATIENCE_MS;
    let mut ledger = Ledger::of(LEDGER);
    loop {
        ledger.read_on(&cluster.instances[1].steady_peer()).await;
        let held = std::panic::catch_unwind(AssertUnwindSafe(|| ledger.holds_the_lives_of(clients)));
        match held {
            Ok(removed) => return (ledger, removed),
            Err(_) if clock.now() < until => clock.sleep_until(clock.now() + 1_000).await,
            Err(why) => std::panic::resume_unwind(why),
        }
    }
}
