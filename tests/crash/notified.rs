//! A machine that is notified, and what must have become of the notifications: each acknowledged one took effect once,
//! in the order in which they were accepted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use machinegun::wire::Machine;
use tokio::sync::watch;

use super::dice::Dice;
use super::life::read;
use crate::process::peer::Peer;
use crate::process::processor::{Order, Processor, note_text, text};
use crate::process::soon;

/// Notifications that are sent at once, at most: among themselves they have no order.
const BURST: u64 = 4;

pub struct Notified {
    id: String,
    dice: Dice,
    /// Acknowledged notifications that it is to get.
    goal: usize,
    sent: Vec<Sent>,
    bursts: usize,
}

struct Sent {
    token: String,
    /// All of one burst are accepted before any of the next is sent.
    burst: usize,
    /// False: cut off by a kill, so it may take effect or not.
    accepted: bool,
}

// === impl Notified ===

impl Notified {
    pub fn new(number: u64, goal: usize, seed: u64) -> Self {
        Self { id: format!("machine-{number}"), dice: Dice::new(seed), goal, sent: Vec::new(), bursts: 0 }
    }

    pub async fn start(&self, peer: &Peer) {
        let order = Order::plain(format!("{}-start", self.id));
        assert_eq!(soon("Start", peer.start(&self.id, &order)).await, Ok(()), "{}", self.id);
    }

    pub fn accepted(&self) -> usize {
        self.sent.iter().filter(|sent| sent.accepted).count()
    }

    pub fn open(&self) -> usize {
        self.sent.len() - self.accepted()
    }

    /// Notifies until the goal is reached or the service is killed. Until then every notification must be accepted.
    pub async fn work(mut self, peer: Peer, killed: Arc<AtomicBool>, accepted: Arc<watch::Sender<usize>>) -> Self {
        let mut missing = self.goal - self.accepted();
        while missing > 0 && !killed.load(Ordering::SeqCst) {
            self.bursts += 1;
            let count = missing.min(1 + self.dice.below(BURST) as usize);
            let orders: Vec<_> =
                (0..count).map(|it| Order::plain(format!("{}-{}", self.id, self.sent.len() + it))).collect();
            let answers = join_all(orders.iter().map(|order| peer.notify(&self.id, order))).await;
            for (order, answer) in orders.into_iter().zip(answers) {
                assert!(answer.is_ok() || killed.load(Ordering::SeqCst), "{}: {answer:?}", order.token);
                self.sent.push(Sent { token: order.token, burst: self.bursts, accepted: answer.is_ok() });
                missing -= usize::from(answer.is_ok());
                accepted.send_modify(|it| *it += usize::from(answer.is_ok()));
            }
        }
        self
    }

    /// Returns when all that was accepted has taken effect, with how many that were cut off did too. The processor has
    /// noted all signals since the service was started.
    pub async fn settles(&self, peer: &Peer, processor: &Processor) -> usize {
        let stood: HashSet<String> = self.found(peer).await.into_iter().collect();
        for sent in self.sent.iter().filter(|sent| sent.accepted) {
            let note = note_text(&sent.token);
            if !stood.contains(&note) {
                // Each of them is waited for alone: only one that makes no progress is too late.
                soon(&note, processor.answered(&note)).await;
            }
        }
        let last = Order::plain(format!("{}-last", self.id));
        assert_eq!(soon("a Call", peer.call(&self.id, &last)).await, Ok(()), "{}", self.id);
        // What the processor answered just when the service was killed is asked for, and answered, again.
        let all = async { while self.without_effect(&self.found(peer).await).is_some() {} };
        soon(&format!("{}: all that it accepted", self.id), all).await;
        let found = self.found(peer).await;
        self.took_effect(&found).unwrap_or_else(|why| panic!("{}: {why}", self.id))
    }

    /// So far nothing took effect twice, out of order, or without having been sent.
    pub async fn is_in_order(&self, peer: &Peer) {
        let found = self.found(peer).await;
        self.in_order(&found).unwrap_or_else(|why| panic!("{}: {why}", self.id));
    }

    /// The texts of the machine's events. Their ids are contiguous from 1.
    async fn found(&self, peer: &Peer) -> Vec<String> {
        let machine: Option<Machine> = soon("GetMachine", peer.machine(&self.id)).await.expect("an answer");
        let events = read(&machine.expect("the machine"));
        assert!(events.iter().map(|event| event.id).eq(1..=events.len() as i64), "{}: {events:?}", self.id);
        events.iter().map(|event| text(&event.data)).collect()
    }

    fn in_order(&self, found: &[String]) -> Result<(), String> {
        let mut sent: HashMap<String, usize> = self.sent.iter().map(|it| (note_text(&it.token), it.burst)).collect();
        let mut reached = 0;
        for note in found.iter().filter(|text| text.starts_with("note:")) {
            let burst = sent.remove(note).ok_or_else(|| format!("{note} stands there twice, or was never sent"))?;
            if burst < reached {
                return Err(format!("{note} of burst {burst} comes behind one of burst {reached}: {found:?}"));
            }
            reached = burst;
        }
        Ok(())
    }

    /// How many that were cut off took effect; or what is wrong.
    fn took_effect(&self, found: &[String]) -> Result<usize, String> {
        self.in_order(found)?;
        if let Some(lost) = self.without_effect(found) {
            return Err(format!("{lost} was accepted, and has no effect"));
        }
        let (notes, others): (Vec<&String>, Vec<_>) = found.iter().partition(|text| text.starts_with("note:"));
        if others.len() != 2 || !others.iter().all(|text| text.starts_with("step:")) {
            return Err(format!("events of nobody: {others:?}"));
        }
        Ok(notes.len() - self.accepted())
    }

    /// One that was accepted and is not there.
    fn without_effect(&self, found: &[String]) -> Option<&str> {
        let found: HashSet<&String> = found.iter().collect();
        let lost = self.sent.iter().find(|sent| sent.accepted && !found.contains(&note_text(&sent.token)));
        lost.map(|sent| &*sent.token)
    }
}
