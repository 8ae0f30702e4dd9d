//! A client that goes on through everything: what it was refused was not done, and what it was told nothing of it finds
//! out before it does anything else to that machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use machinegun::clock::Clock;
use machinegun::wire::{self, Exception};
use machinegun::woody::Class;

use super::cluster::{Cluster, PATIENCE_MS};
use crate::crash::client::{Client, MACHINES, take};
use crate::crash::life::{Machine, Step, read};
use crate::process::peer::{Failure, Peer};
use crate::process::processor::{Order, text};
use crate::process::soon;

/// What the answers were.
#[derive(Debug, Default)]
pub struct Tally {
    pub acknowledged: AtomicU64,
    /// Surely not done.
    pub refused: AtomicU64,
    pub unknown: AtomicU64,
    /// Unknown, and done.
    pub done_all_the_same: AtomicU64,
    pub reads: AtomicU64,
    pub reads_refused: AtomicU64,
}

/// Milliseconds beyond a request's deadline after which nobody begins it any more.
const SLACK_MS: i64 = 200;

/// Steps its machines, one after the other, until told to stop. None is left open.
pub async fn work(
    mut client: Client,
    cluster: Arc<Cluster>,
    enough: Arc<AtomicBool>,
    tally: Arc<Tally>,
    bursts: Arc<AtomicU64>,
) -> Client {
    let clock = Clock::system();
    while !enough.load(Ordering::SeqCst) {
        let at = client.dice.below(MACHINES as u64) as usize;
        let step = client.choose(at);
        let id = client.machines[at].id.clone();
        client.machines[at].open = Some(step.clone());
        let until = clock.now() + PATIENCE_MS + SLACK_MS;
        let peer = cluster.peer().await.in_namespace(&client.ns);
        match take(&peer, &id, &step).await {
            Ok(()) => {
                client.machines[at].acknowledged();
                tally.acknowledged.fetch_add(1, Ordering::Relaxed);
                if let Step::Call(order) = &step {
                    for ledger in &mut client.ledgers {
                        // Who reads may be refused; what is read must hold it.
                        let _ = ledger.finds(&peer, &client.ns, &id, order).await;
                    }
                }
            }
            Err(failure) if is_refusal(&failure) && !matches!(step, Step::Notify(_)) => {
                client.machines[at].open = None;
                tally.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(failure) => {
                assert!(is_unknown(&failure), "{id}: {step:?}: {failure:?}");
                tally.unknown.fetch_add(1, Ordering::Relaxed);
                settle(&mut client, at, step, until, &cluster, &tally).await;
            }
        }
        bursts.fetch_add(1, Ordering::Relaxed);
        if client.dice.below(3) == 0 {
            let peer = cluster.peer().await.in_namespace(&client.ns);
            match peer.machine(&id).await {
                Ok(found) => {
                    client.machines[at].holds(found.as_ref());
                    tally.reads.fetch_add(1, Ordering::Relaxed);
                }
                Err(failure) => {
                    assert!(is_refusal(&failure) || is_unknown(&failure), "{id}: GetMachine: {failure:?}");
                    tally.reads_refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
    client
}

/// It was not done, and will not be. A sink that a reply waits for speaks of a step that is done.
pub fn is_refusal(failure: &Failure) -> bool {
    match failure {
        Failure::Failed(error) => error.class == Class::ResourceUnavailable && !error.details.starts_with("event_sink"),
        Failure::Thrown(_) => false,
    }
}

/// It was done, or not, or may still be done.
pub fn is_unknown(failure: &Failure) -> bool {
    match failure {
        Failure::Failed(error) => error.class == Class::ResultUnknown || error.class == Class::ResourceUnavailable,
        Failure::Thrown(_) => false,
    }
}

/// Finds out whether a step was done, and makes sure that it won't be done later: by a step of its own that the machine
/// can take either way. Behind its deadline nobody begins the first one any more; and if somebody has begun it and not
/// committed, the commit of this one stands in its way for ever.
async fn settle(client: &mut Client, at: usize, step: Step, mut until: i64, cluster: &Cluster, tally: &Tally) {
    let clock = Clock::system();
    let id = client.machines[at].id.clone();
    if let Step::Notify(_) = step {
        // Accepted or not: it may take effect once.
        let found = read_surely(cluster, &client.ns, &id).await;
        return client.machines[at].resolve(found.as_ref());
    }
    let mut probes: Vec<Order> = Vec::new();
    // None: not known from the probes' answers alone.
    let done = loop {
        clock.sleep_until(until).await;
        until = clock.now() + PATIENCE_MS + SLACK_MS;
        let peer = cluster.peer().await.in_namespace(&client.ns);
        let thrown =
            |failure: &Failure, exception: Exception| matches!(failure, Failure::Thrown(it) if *it == exception);
        let answer = match &step {
            Step::Start(order) => match peer.start(&id, order).await {
                Err(failure) if thrown(&failure, Exception::MachineAlreadyExists) => Ok(Some(true)),
                answer => answer.map(|()| Some(true)),
            },
            Step::Remove => match peer.remove(&id).await {
                Err(failure) if thrown(&failure, Exception::MachineNotFound) => Ok(Some(true)),
                answer => answer.map(|()| Some(true)),
            },
            Step::Fail(_) => {
                probes.push(Order::plain(client.token(at)));
                match peer.call(&id, probes.last().expect("a probe")).await {
                    Err(failure) if thrown(&failure, Exception::MachineFailed) => Ok(Some(true)),
                    answer => answer.map(|()| Some(false)),
                }
            }
            Step::Call(_) => {
                probes.push(Order::plain(client.token(at)));
                peer.call(&id, probes.last().expect("a probe")).await.map(|()| None)
            }
            Step::Repair(_) | Step::SimpleRepair => match peer.simple_repair(&id).await {
                Err(failure) if thrown(&failure, Exception::MachineAlreadyWorking) => Ok(None),
                answer => answer.map(|()| None),
            },
            Step::Notify(_) => unreachable!("settled above"),
        };
        match answer {
            Ok(done) => break done,
            Err(failure) => {
                assert!(is_refusal(&failure) || is_unknown(&failure), "{id}: settling {step:?}: {failure:?}")
            }
        }
    };
    let found = read_surely(cluster, &client.ns, &id).await;
    let stands = |order: &Order| order.texts().iter().all(|text| texts(found.as_ref()).contains(text));
    let machine = &mut client.machines[at];
    machine.open = None;
    let was_done = match &step {
        Step::Call(order) | Step::Repair(order) => stands(order),
        // Working again in any case.
        Step::SimpleRepair => true,
        _ => done == Some(true),
    };
    if was_done {
        tally.done_all_the_same.fetch_add(1, Ordering::Relaxed);
        becomes(machine, step);
    } else if let Step::Repair(_) = step {
        becomes(machine, Step::SimpleRepair);
    }
    for probe in probes.into_iter().filter(&stands) {
        becomes(machine, Step::Call(probe));
    }
    machine.holds(found.as_ref());
}

fn becomes(machine: &mut Machine, step: Step) {
    machine.open = Some(step);
    machine.acknowledged();
}

/// The machine as some instance shows it, asked until one answers.
async fn read_surely(cluster: &Cluster, ns: &str, id: &str) -> Option<wire::Machine> {
    loop {
        if let Some(found) = look(&cluster.peer().await.in_namespace(ns), id).await {
            return found;
        }
    }
}

/// The same of one instance.
pub async fn seen(peer: &Peer, id: &str) -> Option<wire::Machine> {
    loop {
        if let Some(found) = look(peer, id).await {
            return found;
        }
    }
}

/// None: no answer.
async fn look(peer: &Peer, id: &str) -> Option<Option<wire::Machine>> {
    match peer.machine(id).await {
        Ok(found) => Some(found),
        Err(failure) => {
            assert!(is_refusal(&failure) || is_unknown(&failure), "{id}: GetMachine: {failure:?}");
            None
        }
    }
}

fn texts(found: Option<&wire::Machine>) -> Vec<String> {
    found.map(|machine| read(machine).iter().map(|event| text(&event.data)).collect()).unwrap_or_default()
}

/// In good weather: every machine answers, whatever was due takes effect, and nothing is there that should not be.
pub async fn recover(client: &mut Client, peer: &Peer) {
    let peer = peer.in_namespace(&client.ns);
    for at in 0..MACHINES {
        let orders = [Order::plain(client.token(at)), Order::plain(client.token(at))];
        let machine = &mut client.machines[at];
        let found = soon("GetMachine", seen(&peer, &machine.id)).await;
        machine.holds(found.as_ref());
        let [raise, call] = orders;
        let step = match &machine.life {
            None => Step::Start(raise),
            Some(life) if life.failed => Step::Repair(raise),
            Some(_) => Step::Call(raise),
        };
        for step in [step, Step::Call(call)] {
            // A host under load misses heartbeats in any weather: what was refused is asked for again.
            let taken = async {
                loop {
                    match take(&peer, &machine.id, &step).await {
                        Err(failure) if is_refusal(&failure) => {}
                        answer => return answer,
                    }
                }
            };
            assert_eq!(soon("a step in good weather", taken).await, Ok(()), "{}: {step:?}", machine.id);
            becomes(machine, step);
        }
    }
    let clock = Clock::system();
    for machine in &mut client.machines {
        let settled = async {
            loop {
                let found = seen(&peer, &machine.id).await;
                machine.holds(found.as_ref());
                if machine.life.as_ref().is_none_or(|life| life.due().is_empty()) {
                    return;
                }
                clock.sleep_until(clock.now() + 100).await;
            }
        };
        let clock = Clock::system();
        if clock.timeout_at(clock.now() + crate::process::PATIENCE_MS, settled).await.is_err() {
            machine.is_settled();
        }
    }
}
