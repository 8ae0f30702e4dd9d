//! Three services on one table over HTTP, on the real clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use machinegun::clock::Clock;
use machinegun::config::{DynamodbSettings, Settings, StorageSettings};
use machinegun::service::{self, Running};
use machinegun::storage::dynamodb::{Dynamodb, DynamodbOptions, schema};
use machinegun::wire::{self, Call, GetMachine, Method, ProcessCall, ProcessSignal, Start};

use crate::live::processor::{signed, to_call, to_signal};
use crate::live::{self, Callee, PATIENCE, http, id};
use crate::services;

const MACHINES: usize = 8;

pub async fn serve(table: &DynamodbOptions, processor: &str) -> Running {
    let storage = StorageSettings::Dynamodb(DynamodbSettings {
        table: table.table.clone(),
        region: table.region.clone(),
        endpoint_url: table.endpoint_url.clone(),
        create_table: false,
        shards: table.shards,
        request_timeout: table.request_timeout,
        max_concurrent_requests: table.max_concurrent_requests,
        lease_time: Duration::from_secs(3),
        advertise: None,
        peer_pool_size: 16,
    });
    let mut settings = Settings::default_with(storage).with_namespace(live::namespace(processor));
    settings.woody_server.ip = [127, 0, 0, 1].into();
    settings.woody_server.port = 0;
    let storage = Dynamodb::open(table).await.expect("a table is opened");
    service::start_over(settings, Clock::system(), storage).await.expect("it starts")
}

pub async fn health(address: SocketAddr) -> serde_json::Value {
    let health = http::exchange(address, "GET /health", &[], b"").await;
    serde_json::from_slice(&health.body).expect("health is JSON")
}

async fn owned(address: SocketAddr) -> u64 {
    health(address).await["shards"]["owned"].as_u64().expect("a number")
}

pub async fn until_each_owns(addresses: &[SocketAddr], least: u64) {
    let wait = async {
        for address in addresses {
            while owned(*address).await < least {}
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("a fair share for all");
}

pub async fn ask<M: Method>(address: SocketAddr, args: &M::Args) -> M::Success {
    let (ids, body) = (live::ids(), wire::write_call::<M>(args, 0));
    let answered = async {
        loop {
            let answer = http::exchange(address, "POST /v1/automaton", &ids, &body).await;
            match live::result::<M>(&answer) {
                Ok(result) => return result,
                // Surely not done: a table that stalls longer than leases are trusted, say.
                Err(live::Failure::Status(503, _)) => {}
                Err(failure) => panic!("{}: {failure:?}: {answer:?}", M::NAME),
            }
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("an answer in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_answered_once_while_one_of_three_stops_and_another_takes_its_place() {
    let table = DynamodbOptions { shards: 16, ..services::table_at(&services::dynamodb()) };
    schema::create(&table, &Clock::system()).await.expect("a table is made");
    let mut callee = Callee::listen(&Clock::system());
    let url = callee.url.clone();
    let mut houses = Vec::new();
    for _ in 0..3 {
        houses.push(serve(&table, &url).await);
    }
    let addresses: Vec<_> = houses.iter().map(Running::address).collect();
    until_each_owns(&addresses, 5).await;

    for number in 0..MACHINES {
        let args = live::start(&number.to_string(), "args");
        let starting = ask::<Start>(addresses[number % 3], &args);
        tokio::join!(starting, callee.answer::<ProcessSignal>(|_| to_signal(signed("started"))));
    }
    let processor = tokio::spawn(async move {
        loop {
            callee.answer::<ProcessCall>(|_| to_call(signed("called"))).await;
        }
    });

    // Callers of the two that stay, one after the other through all machines, from before the change until after it.
    let changed = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = [addresses[0], addresses[2]]
        .into_iter()
        .map(|address| {
            let changed = changed.clone();
            tokio::spawn(async move {
                let mut rounds = 0;
                loop {
                    let last = changed.load(Ordering::Acquire);
                    for number in 0..MACHINES {
                        ask::<Call>(address, &live::to(id(&number.to_string()), "go")).await;
                    }
                    rounds += 1;
                    if last {
                        return rounds;
                    }
                }
            })
        })
        .collect();
    let stopping = houses.remove(1);
    tokio::time::timeout(PATIENCE, stopping.stop()).await.expect("it stops in time").expect("in order");
    until_each_owns(&[addresses[0], addresses[2]], 8).await;
    houses.push(serve(&table, &url).await);
    let addresses = [houses[0].address(), houses[1].address(), houses[2].address()];
    until_each_owns(&addresses, 5).await;
    changed.store(true, Ordering::Release);
    let mut rounds = 0;
    for caller in callers {
        rounds += caller.await.expect("all its calls were answered");
    }

    for number in 0..MACHINES {
        let machine = ask::<GetMachine>(addresses[number % 3], &live::of(id(&number.to_string()))).await;
        assert_eq!(machine.history.len(), 1 + rounds, "machine {number}");
    }
    processor.abort();
    for house in houses {
        tokio::time::timeout(PATIENCE, house.stop()).await.expect("it stops in time").expect("in order");
    }
}
