//! A round: the clients step their machines until the service is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use machinegun::clock::Clock;
use tokio::sync::watch;

use super::client::Client;
use super::dice::Dice;
use crate::process::peer::Peer;
use crate::process::{Machinegun, soon};

pub struct Round {
    pub clients: Vec<Client>,
    /// Acknowledged.
    pub steps: u64,
    /// Without an answer.
    pub open: usize,
    /// How long the load went on.
    pub milliseconds: i64,
}

/// Kills the service at a random moment of the clients' work.
pub async fn killed_under_load(service: Machinegun, clients: Vec<Client>, dice: &mut Dice) -> Round {
    killed_within(1_500, service, clients, dice).await
}

/// After at least 100 steps, and about so many more at most.
pub async fn killed_within(most: u64, service: Machinegun, clients: Vec<Client>, dice: &mut Dice) -> Round {
    let (after_steps, and_milliseconds) = (100 + dice.below(most), dice.below(20));
    let clock = Clock::system();
    let begun = clock.now();
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
    clock.sleep_until(clock.now() + and_milliseconds as i64).await;
    let milliseconds = clock.now() - begun;
    killed.store(true, Ordering::SeqCst);
    service.kill().await;
    let mut clients = Vec::new();
    for client in working {
        clients.push(soon("a client's end", client).await.expect("no acknowledged step was wrong"));
    }
    let open = clients.iter().map(Client::open_steps).sum();
    Round { clients, steps: *steps.borrow(), open, milliseconds }
}
