//! A round: the clients step their machines until the service is killed, or ends by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use machinegun::clock::Clock;
use tokio::sync::watch;

use super::client::Client;
use super::dice::Dice;
use crate::process::peer::Peer;
use crate::process::{Ended, Machinegun, soon};

/// The service's end, as far as its clients know of it.
pub struct End {
    came: AtomicBool,
    /// It ends by itself in the middle of a step: the first failure tells.
    any_moment: bool,
}

pub struct Round {
    pub clients: Vec<Client>,
    /// Acknowledged.
    pub steps: u64,
    /// Without an answer.
    pub open: usize,
    /// How long the load went on.
    pub milliseconds: i64,
}

// === impl End ===

impl End {
    fn told() -> Arc<Self> {
        Arc::new(Self { came: AtomicBool::new(false), any_moment: false })
    }

    fn at_any_moment() -> Arc<Self> {
        Arc::new(Self { came: AtomicBool::new(false), any_moment: true })
    }

    pub fn has_come(&self) -> bool {
        self.came.load(Ordering::SeqCst)
    }

    /// Whether a failure may be the end; if so, it has come.
    pub fn explains_a_failure(&self) -> bool {
        self.came.fetch_or(self.any_moment, Ordering::SeqCst) || self.any_moment
    }
}

/// The clients work until the service has ended by itself, and how it did.
pub async fn ended_under_load(service: Machinegun, clients: Vec<Client>) -> (Vec<Client>, Ended) {
    let (end, steps) = (End::at_any_moment(), Arc::new(watch::Sender::new(0_u64)));
    let peer = Peer::of(service.address);
    let working: Vec<_> =
        clients.into_iter().map(|client| tokio::spawn(client.work(peer.clone(), end.clone(), steps.clone()))).collect();
    let ended = service.ended().await;
    let mut clients = Vec::new();
    for client in working {
        clients.push(soon("a client's end", client).await.expect("no acknowledged step was wrong"));
    }
    (clients, ended)
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
    let end = End::told();
    let steps = Arc::new(watch::Sender::new(0_u64));
    let peer = Peer::of(service.address);
    let working: Vec<_> =
        clients.into_iter().map(|client| tokio::spawn(client.work(peer.clone(), end.clone(), steps.clone()))).collect();

    let enough = async {
        steps.subscribe().wait_for(|steps| *steps >= after_steps).await.expect("clients work");
    };
    soon("the load", enough).await;
    clock.sleep_until(clock.now() + and_milliseconds as i64).await;
    let milliseconds = clock.now() - begun;
    end.came.store(true, Ordering::SeqCst);
    service.kill().await;
    let mut clients = Vec::new();
    for client in working {
        clients.push(soon("a client's end", client).await.expect("no acknowledged step was wrong"));
    }
    let open = clients.iter().map(Client::open_steps).sum();
    Round { clients, steps: *steps.borrow(), open, milliseconds }
}
