//! A service that knows nothing but a recording: it asks the processor what was asked, and answers what was answered.
//!
//! It keeps the recording's causes: requests to processors are made in the course of the inbound request that caused
//! them. Against the same recording it agrees; against a recording that was changed anywhere it must not.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use machinegun::clock::Clock;
use machinegun::wire::timestamp;

use crate::http::{Client, Server};
use crate::node::{Message, Node};
use crate::plan::{Deadline, Plan};
use crate::recording::{Answer, Direction, Headers, Recording, Request, Response};

/// Longer than anything in a recording, milliseconds.
const PATIENCE: i64 = 60_000;

#[derive(Debug)]
pub struct RecordedService {
    server: Server,
    actor: Arc<Actor>,
}

/// What happened to an exchange, as the service sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// An inbound request came, and was replied to.
    Received,
    Replied,
    /// A processor was asked, and answered.
    Asked,
    Answered,
}

#[derive(Debug)]
struct Actor {
    plan: Plan,
    processor: String,
    client: Client,
    clock: Clock,
    /// Starts that somebody knows of: whoever reads from now on must see them.
    known: Mutex<HashSet<usize>>,
    /// By the exchanges' numbers, in order.
    moments: Mutex<Vec<(Moment, u64)>>,
}

// === impl RecordedService ===

impl RecordedService {
    pub async fn start(recording: &Recording, processor: &str, clock: Clock) -> std::io::Result<Self> {
        let actor = Arc::new(Actor {
            plan: Plan::new(recording),
            processor: processor.to_owned(),
            client: Client::new(clock.clone()),
            clock,
            known: Mutex::default(),
            moments: Mutex::default(),
        });
        let handler = Arc::clone(&actor);
        let server = Server::start(0, move |request| Arc::clone(&handler).answer(request)).await?;
        Ok(Self { server, actor })
    }

    /// Everything that happened so far.
    pub fn moments(&self) -> Vec<(Moment, u64)> {
        self.actor.moments.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn url(&self) -> String {
        self.server.url()
    }
}

// === impl Actor ===

impl Actor {
    async fn answer(self: Arc<Self>, request: Request) -> Answer {
        let span = request.headers.get("woody.span-id").map(String::as_str);
        let found = self
            .plan
            .steps
            .iter()
            .position(|step| step.is(Direction::Inbound) && step.header("woody.span-id") == span && span.is_some());
        let Some(at) = found else { return already_working() };
        let inbound = &self.plan.steps[at];
        self.note(Moment::Received, at);
        let deadline = request.headers.get("woody.deadline").cloned();
        let mut later = Vec::new();
        for (number, step) in self.plan.steps.iter().enumerate().filter(|(_, step)| step.cause == Some(at)) {
            if step.background || step.exchange.ended > inbound.exchange.ended {
                later.push(number);
            } else {
                self.ask(number, deadline.as_deref()).await;
            }
        }
        if !later.is_empty() {
            let actor = Arc::clone(&self);
            tokio::spawn(async move {
                for number in later {
                    actor.ask(number, deadline.as_deref()).await;
                }
            });
        }
        self.note(Moment::Replied, at);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if inbound.method == "Start" {
            known.insert(at);
        }
        match &inbound.race {
            Some(race) if known.contains(&race.start) => Answer::Reply(race.whole.clone()),
            Some(race) => {
                let saw_it = inbound.exchange.reply() != Some(&race.nothing);
                known.extend(saw_it.then_some(race.start));
                inbound.exchange.answer.clone()
            }
            None => inbound.exchange.answer.clone(),
        }
    }

    async fn ask(&self, at: usize, callers_deadline: Option<&str>) {
        let step = &self.plan.steps[at];
        let now = self.clock.now();
        let mut request = step.exchange.request.clone();
        let deadline = match step.deadline {
            Deadline::Callers => callers_deadline.map(str::to_owned),
            Deadline::Timeout(timeout) => Some(timestamp::format_millis(now + timeout)),
            Deadline::Absent | Deadline::Left(_) => None,
        };
        if let Some(deadline) = deadline {
            request.headers.insert("woody.deadline".to_owned(), deadline);
        }
        self.note(Moment::Asked, at);
        self.client.send(&self.processor, request, now + PATIENCE).await;
        self.note(Moment::Answered, at);
    }

    fn note(&self, moment: Moment, at: usize) {
        let seq = self.plan.steps[at].exchange.seq;
        self.moments.lock().unwrap_or_else(PoisonError::into_inner).push((moment, seq));
    }
}

/// To the request by which a replay waits for a machine's turn.
fn already_working() -> Answer {
    let body = Node::Struct([(4, Node::Struct(Default::default()))].into());
    let headers = [
        ("content-type", "application/x-thrift"),
        ("woody.error-class", "Business Error"),
        ("woody.error-reason", "MachineAlreadyWorking"),
    ];
    Answer::Reply(Response {
        status: 200,
        headers: Headers::from(headers.map(|(name, value)| (name.to_owned(), value.to_owned()))),
        body: Message { kind: 2, name: "SimpleRepair".to_owned(), seqid: 0, body }.encode().into(),
    })
}
