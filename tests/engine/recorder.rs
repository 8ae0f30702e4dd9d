//! A sink that writes down what it is given, and fails as it is told to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use machinegun::clock::random_unit;
use machinegun::machine::LifeChange;
use machinegun::sink::{Content, Delivery, Receipt, Room, Sink, SinkError};

use crate::scripted::{Gate, Inside};
use crate::world::events;

#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    accepted: Vec<(String, Vec<String>)>,
    /// The machines of all attempts, in order, and how many entries each was of.
    attempts: Vec<(String, usize)>,
    faults: VecDeque<Fault>,
    gates: VecDeque<(String, Inside)>,
    /// Every attempt fails so.
    down: Option<SinkError>,
    /// The most entries of a delivery that are taken.
    most: Option<usize>,
    /// In how many of 100 attempts the sink fails, before or after it took what it was given.
    chaos: u32,
}

enum Fault {
    Error(SinkError),
    Panic,
}

// === impl Recorder ===

impl Recorder {
    pub fn new() -> Self {
        Self::default()
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    /// What was accepted of a machine, in order: `1 text` for an event, `created` for a change of life.
    pub fn of(&self, machine: &str) -> Vec<String> {
        let script = self.script();
        script.accepted.iter().filter(|(of, _)| of == machine).flat_map(|(_, entries)| entries.clone()).collect()
    }

    /// How many entries each accepted delivery had.
    pub fn sizes(&self) -> Vec<usize> {
        self.script().accepted.iter().map(|(_, entries)| entries.len()).collect()
    }

    pub fn accepted(&self) -> usize {
        self.sizes().iter().sum()
    }

    pub fn attempts(&self, machine: &str) -> usize {
        self.offered(machine).len()
    }

    /// How many entries each attempt was of, taken or not.
    pub fn offered(&self, machine: &str) -> Vec<usize> {
        let script = self.script();
        script.attempts.iter().filter(|(of, _)| of == machine).map(|(_, entries)| *entries).collect()
    }

    /// The next attempt fails.
    pub fn refuse_once(&self, error: SinkError) {
        self.script().faults.push_back(Fault::Error(error));
    }

    pub fn panic_once(&self) {
        self.script().faults.push_back(Fault::Panic);
    }

    pub fn go_down(&self) {
        self.script().down = Some(unavailable());
    }

    pub fn come_up(&self) {
        self.script().down = None;
    }

    /// From here on it takes no more than so many entries of a delivery.
    pub fn take_at_most(&self, entries: usize) {
        self.script().most = Some(entries);
    }

    pub fn flake(&self, percent: u32) {
        self.script().chaos = percent;
    }

    /// The machine's next delivery waits at the gate before it is accepted; for ever, if the gate is dropped.
    pub fn hold(&self, machine: &str) -> Gate {
        let (gate, inside) = Gate::new();
        self.script().gates.push_back((machine.to_owned(), inside));
        gate
    }
}

pub fn unavailable() -> SinkError {
    SinkError::Unavailable("the test has it so".to_owned())
}

pub fn misconfigured() -> SinkError {
    SinkError::Misconfigured("the test has it so".to_owned())
}

fn entries(content: &Content) -> Vec<String> {
    match content {
        Content::Events { events: encoded, .. } => {
            events(encoded).into_iter().map(|(id, text)| format!("{id} {text}")).collect()
        }
        Content::Lifecycle(lifecycle) => vec![match &lifecycle.change {
            LifeChange::Created => "created".to_owned(),
            LifeChange::Failed { reason } => format!("failed: {reason}"),
            LifeChange::Repaired => "repaired".to_owned(),
            LifeChange::Removed => "removed".to_owned(),
        }],
    }
}

#[async_trait]
impl Sink for Recorder {
    async fn publish(&self, delivery: Delivery) -> Result<Receipt, SinkError> {
        let machine = String::from_utf8_lossy(delivery.key.id.as_bytes()).into_owned();
        let gate = {
            let mut script = self.script();
            script.attempts.push((machine.clone(), delivery.content.entries()));
            let gate = script.gates.iter().position(|(held, _)| *held == machine);
            gate.and_then(|place| script.gates.remove(place))
        };
        if let Some((_, gate)) = gate {
            gate.pass().await;
        }
        let fault = {
            let mut script = self.script();
            let fault = script.faults.pop_front();
            if random_unit() * 100.0 < f64::from(script.chaos) {
                if random_unit() < 0.5 {
                    script.accepted.push((machine, entries(&delivery.content)));
                }
                return Err(unavailable());
            }
            fault.or_else(|| script.down.clone().map(Fault::Error))
        };
        match fault {
            Some(Fault::Error(error)) => Err(error),
            Some(Fault::Panic) => panic!("the test has it so"),
            None => {
                let mut entries = entries(&delivery.content);
                let mut script = self.script();
                entries.truncate(script.most.unwrap_or(usize::MAX));
                let taken = Some(entries.len());
                script.accepted.push((machine, entries));
                Ok(Receipt { taken, ..Receipt::default() })
            }
        }
    }

    /// So both ways are gone wherever a test has more than one event.
    fn promptly(&self, entries: usize) -> Option<Room> {
        (entries == 1).then(Room::default)
    }
}
