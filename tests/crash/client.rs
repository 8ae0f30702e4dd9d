//! A client with machines of its own: it steps them at random, and knows what must have become of each.

use std::sync::Arc;

use futures_util::future::join_all;
use machinegun::wire::Exception;
use tokio::sync::watch;

use super::dice::{Dice, from_environment};
use super::ledger::Follower;
use super::life::{Machine, Step};
use super::round::End;
use crate::process::peer::{Answer, Failure, NAMESPACE, Peer};
use crate::process::processor::{Order, Processor};
use crate::process::{PATIENCE_MS, soon, within};

pub const MACHINES: usize = 4;
/// Within which every machine must answer after a restart, where somebody asks for minutes of it: a short run beside all
/// the other tests says nothing about time.
const CALL_MS: i64 = 5_000;

pub struct Client {
    pub dice: Dice,
    pub ns: String,
    pub machines: Vec<Machine>,
    /// Of the ledgers that have its machines' events.
    pub ledgers: Vec<Follower>,
    /// Makes every token one of a kind.
    tokens: u64,
}

// === impl Client ===

impl Client {
    pub fn new(number: u64, seed: u64) -> Self {
        let machines = (0..MACHINES).map(|it| Machine::new(format!("client-{number}-machine-{it}"))).collect();
        Self { dice: Dice::new(seed), ns: NAMESPACE.to_owned(), machines, ledgers: Vec::new(), tokens: 0 }
    }

    /// Its machines are in `ns`, and their events come to these ledgers.
    pub fn publishing(mut self, ns: &str, sinks: &[&str]) -> Self {
        self.ns = ns.to_owned();
        self.ledgers = sinks.iter().map(|sink| Follower::of(sink)).collect();
        self
    }

    /// Steps sent and not answered.
    pub fn open_steps(&self) -> usize {
        self.machines.iter().filter(|it| it.open.is_some()).count()
    }

    /// Steps its machines until the service ends. Until then every step must succeed.
    pub async fn work(mut self, peer: Peer, end: Arc<End>, steps: Arc<watch::Sender<u64>>) -> Self {
        let peer = peer.in_namespace(&self.ns);
        while !end.has_come() {
            let at = self.dice.below(MACHINES as u64) as usize;
            let step = self.choose(at);
            let machine = &mut self.machines[at];
            machine.open = Some(step.clone());
            if let Err(failure) = take(&peer, &machine.id, &step).await {
                assert!(end.explains_a_failure(), "{}: {step:?}: {failure:?}", machine.id);
                break;
            }
            machine.acknowledged();
            steps.send_modify(|steps| *steps += 1);
            if let Step::Call(order) = &step {
                for ledger in &mut self.ledgers {
                    let read = ledger.finds(&peer, &self.ns, &self.machines[at].id, order).await;
                    assert!(read.is_ok() || end.explains_a_failure(), "GetHistory: {read:?}");
                }
            }
            if self.dice.below(4) == 0 {
                match peer.machine(&self.machines[at].id).await {
                    Ok(found) => self.machines[at].holds(found.as_ref()),
                    Err(failure) => assert!(end.explains_a_failure(), "GetMachine: {failure:?}"),
                }
            }
        }
        self
    }

    pub fn token(&mut self, at: usize) -> String {
        self.tokens += 1;
        format!("{}/{}-{}", self.ns, self.machines[at].id, self.tokens)
    }

    /// Something that the machine can do as it is.
    pub fn choose(&mut self, at: usize) -> Step {
        let mut order = Order::plain(self.token(at));
        order.events = 1 + self.dice.below(3) as usize;
        order.timer = (self.dice.below(4) == 0).then(|| self.dice.below(2) as i32);
        let Some(life) = &self.machines[at].life else { return Step::Start(order) };
        match (life.failed, self.dice.below(20)) {
            (true, 0..5) => Step::SimpleRepair,
            (true, 5..18) => Step::Repair(order),
            (_, 0..4) | (true, _) => Step::Notify(Order::plain(order.token)),
            (_, 4) => Step::Remove,
            (_, 5) => Step::Fail(Order { fail: true, ..order }),
            _ => Step::Call(order),
        }
    }

    /// After a restart: everything acknowledged is there, every machine answers, and what was due takes effect.
    pub async fn recover(&mut self, peer: &Peer, processor: &Processor) {
        let (peer, mut orders) = (&peer.in_namespace(&self.ns), Vec::new());
        for at in 0..MACHINES {
            orders.push([self.token(at), self.token(at), self.token(at)].map(Order::plain));
        }
        let recovered =
            self.machines.iter_mut().zip(orders).enumerate().map(|(at, (machine, [raise, call, last]))| async move {
                let found = soon("GetMachine", peer.machine(&machine.id)).await;
                machine.resolve(found.expect("an answer").as_ref());
                match &machine.life {
                    None => step(peer, machine, Step::Start(raise)).await,
                    Some(life) if life.failed => step(peer, machine, Step::Repair(raise)).await,
                    Some(_) => {}
                }
                // One half is woken by nothing but what is due.
                if at % 2 == 0 {
                    call_soon(peer, machine, call).await;
                    effects(machine, processor).await;
                } else {
                    effects(machine, processor).await;
                    call_soon(peer, machine, call).await;
                }
                // In the machine's turn, so all that was asked for before is committed when it is answered.
                call_soon(peer, machine, last).await;
                let found = soon("GetMachine", peer.machine(&machine.id)).await.expect("an answer");
                machine.holds(found.as_ref());
                machine.is_settled();
            });
        join_all(recovered).await;
    }
}

/// Returns once the processor was asked about all that is known to be due.
async fn effects(machine: &Machine, processor: &Processor) {
    let Some(life) = &machine.life else { return };
    for text in life.due() {
        soon(&format!("{}: {text}", machine.id), processor.answered(&text)).await;
    }
}

fn most_ms() -> i64 {
    let asked_for = |name| from_environment(name).is_some();
    if asked_for("MACHINEGUN_CRASH_ROUNDS") || asked_for("MACHINEGUN_CRASH_SECONDS") { CALL_MS } else { PATIENCE_MS }
}

async fn call_soon(peer: &Peer, machine: &mut Machine, order: Order) {
    let most = most_ms();
    let answer = peer.call_within(most, &machine.id, &order);
    let answer = within(most, &format!("{}: a Call after the restart", machine.id), answer).await;
    assert_eq!(answer, Ok(()), "{}: a Call after the restart", machine.id);
    machine.open = Some(Step::Call(order));
    machine.acknowledged();
}

async fn step(peer: &Peer, machine: &mut Machine, step: Step) {
    let answer = soon("a step after the restart", take(peer, &machine.id, &step)).await;
    assert_eq!(answer, Ok(()), "{}: {step:?}", machine.id);
    machine.open = Some(step);
    machine.acknowledged();
}

/// Ok if the answer is what the step must come to.
pub async fn take(peer: &Peer, id: &str, step: &Step) -> Answer<()> {
    match step {
        Step::Start(order) => peer.start(id, order).await,
        Step::Call(order) => peer.call(id, order).await,
        Step::Fail(order) => match peer.call(id, order).await {
            Err(Failure::Thrown(Exception::MachineFailed)) => Ok(()),
            Ok(()) => panic!("{id}: the processor failed and the Call did not"),
            failure => failure,
        },
        Step::Repair(order) => peer.repair(id, order).await,
        Step::SimpleRepair => peer.simple_repair(id).await,
        Step::Notify(order) => peer.notify(id, order).await,
        Step::Remove => peer.remove(id).await,
    }
}
