//! The service is killed under load and started again on the same folder: what it had acknowledged is there, unchanged,
//! and goes on.
//!
//! Three rounds; `MACHINEGUN_CRASH_ROUNDS` asks for more, `MACHINEGUN_CRASH_SEED` for the same choices again.

#[path = "crash/client.rs"]
mod client;
#[path = "crash/life.rs"]
mod life;
mod process;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use machinegun::clock::{Clock, random_bytes};
use tokio::sync::watch;

use client::{Client, Dice};
use process::peer::Peer;
use process::processor::Processor;
use process::{Folder, Machinegun, soon};

const ROUNDS: u64 = 3;
const CLIENTS: u64 = 16;

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let rounds = from_environment("MACHINEGUN_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let seed =
        from_environment("MACHINEGUN_CRASH_SEED").unwrap_or_else(|| u64::from(u32::from_be_bytes(random_bytes())));
    println!("MACHINEGUN_CRASH_SEED={seed} MACHINEGUN_CRASH_ROUNDS={rounds}");
    let mut dice = Dice::new(seed);
    let folder = Folder::new();
    let processor = Arc::new(Processor::start());
    let config = folder.configured(processor.address);
    let mut clients: Vec<_> = (0..CLIENTS).map(|number| Client::new(number, dice.next())).collect();
    let mut service = Machinegun::start(&config).await;
    for round in 1..=rounds {
        let (after_steps, and_milliseconds) = (100 + dice.below(1_500), dice.below(20));
        let killed = Arc::new(AtomicBool::new(false));
        let steps = Arc::new(watch::Sender::new(0_u64));
        let peer = Peer::of(service.address);
        let working: Vec<_> = clients
            .into_iter()
            .map(|client| tokio::spawn(client.work(peer.clone(), killed.clone(), steps.clone())))
            .collect();

        let enough = async {
            steps.subscribe().wait_for(|steps| *steps >= after_steps).await.expect("clients work");
        };
        soon("the load", enough).await;
        let clock = Clock::system();
        clock.sleep_until(clock.now() + and_milliseconds as i64).await;
        killed.store(true, Ordering::SeqCst);
        service.kill().await;
        clients = Vec::new();
        for client in working {
            clients.push(soon("a client's end", client).await.expect("no acknowledged step was wrong"));
        }
        let open = clients.iter().map(Client::open_steps).sum::<usize>();
        println!("round {round}: killed after {} steps, {open} without an answer", *steps.borrow());

        processor.forget();
        service = Machinegun::start(&config).await;
        let peer = Peer::of(service.address);
        join_all(clients.iter_mut().map(|client| client.recover(&peer, &processor))).await;
    }
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));
}
