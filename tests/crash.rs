//! The service is killed under load and started again on the same folder: what it had acknowledged is there, unchanged,
//! and goes on.
//!
//! Three rounds; `MACHINEGUN_CRASH_ROUNDS` asks for more, `MACHINEGUN_CRASH_SEED` for the same choices again.

#[path = "crash/mod.rs"]
mod crash;
mod process;

use std::sync::Arc;

use futures_util::future::join_all;

use crash::client::Client;
use crash::dice::{Dice, from_environment};
use crash::round::{Round, killed_under_load};
use process::peer::Peer;
use process::processor::Processor;
use process::{Folder, Machinegun};

const ROUNDS: u64 = 3;
const CLIENTS: u64 = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let rounds = from_environment("MACHINEGUN_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let mut dice = Dice::thrown();
    let folder = Folder::new();
    let processor = Arc::new(Processor::start());
    let config = folder.configured(processor.address);
    let mut clients: Vec<_> = (0..CLIENTS).map(|number| Client::new(number, dice.next())).collect();
    let mut service = Machinegun::start(&config).await;
    for round in 1..=rounds {
        let Round { clients: working, steps, open, .. } = killed_under_load(service, clients, &mut dice).await;
        clients = working;
        println!("round {round} of {rounds}: killed after {steps} steps, {open} without an answer");

        processor.forget();
        service = Machinegun::start(&config).await;
        let peer = Peer::of(service.address);
        join_all(clients.iter_mut().map(|client| client.recover(&peer, &processor))).await;
    }
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));
}
