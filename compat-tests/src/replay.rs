//! Plays a recording: sends what clients sent, answers as processors answered, and compares everything else.
//!
//! Causality is kept: an inbound request goes out only after every exchange that had ended before it has ended. So is
//! overlap: a processor's answer is held until all that had begun before it has begun, and all that had ended before it
//! has ended. Nothing else takes time: recorded idleness is not waited for again.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use machinegun::clock::Clock;
use machinegun::wire::timestamp;
use tokio::sync::watch;

use crate::compare::{Comparison, Difference, Moments};
use crate::expected::Row;
use crate::http::{Client, Server};
use crate::node::{Message, Node};
use crate::plan::{self, Deadline, Machine, Plan, Queue};
use crate::recording::{Answer, Direction, Headers, Recording, Request};

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where the recorded processor listens; 0 takes any free port.
    pub processor_port: u16,
    /// Milliseconds after which what was recorded, and has not come, is missing.
    pub patience: i64,
    /// Milliseconds at the end in which requests that nobody recorded are still noticed.
    pub linger: i64,
    /// One difference is enough.
    pub stop_at_first: bool,
}

/// Differences that are shown of one exchange: one thing that is wrong tends to show in many fields.
const SHOWN_PER_EXCHANGE: usize = 10;

/// What came of a replay.
#[derive(Clone, Debug)]
pub struct Report {
    pub recording: String,
    pub exchanges: usize,
    pub differences: Vec<Difference>,
    /// Exchanges that were held against our own answer instead of the recorded one.
    pub ours: usize,
    /// Rows of our own answers that the recording has no use for.
    pub useless: Vec<&'static Row>,
}

/// A replay whose processor already listens, so that a service can be pointed at it.
#[derive(Debug)]
pub struct Replay {
    stage: Arc<Stage>,
    processor: Server,
}

#[derive(Debug)]
struct Stage {
    plan: Plan,
    options: Options,
    clock: Clock,
    client: Client,
    /// The service's origin, once it is known.
    service: watch::Sender<Option<String>>,
    state: watch::Sender<State>,
}

/// Where every exchange stands. Waiters watch it.
#[derive(Debug)]
struct State {
    /// When, in unix milliseconds.
    begun: Vec<Option<i64>>,
    ended: Vec<bool>,
    /// Outbound exchanges that are still to come.
    to_come: HashMap<Queue, VecDeque<usize>>,
    /// Deadlines that were sent with inbound requests, unix milliseconds.
    deadlines: HashMap<usize, i64>,
    /// Starts whose whole step somebody has seen.
    seen_whole: HashSet<usize>,
    spans: HashSet<String>,
    differences: Vec<Difference>,
    stopped: bool,
}

// === impl Options ===

impl Default for Options {
    /// For a real service: timers of the recordings are up to two seconds long.
    fn default() -> Self {
        Self { processor_port: 0, patience: 20_000, linger: 1_500, stop_at_first: false }
    }
}

// === impl Report ===

impl Report {
    /// Exchanges that were as recorded.
    pub fn agreeing(&self) -> usize {
        let differing: HashSet<u64> = self.differences.iter().filter_map(|difference| difference.seq).collect();
        self.exchanges - differing.len()
    }

    pub fn agrees(&self) -> bool {
        self.differences.is_empty() && self.useless.is_empty()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown: HashMap<Option<u64>, usize> = HashMap::new();
        for difference in &self.differences {
            let number = shown.entry(difference.seq).or_default();
            *number += 1;
            match (*number).cmp(&(SHOWN_PER_EXCHANGE + 1)) {
                Ordering::Less => writeln!(f, "{difference}\n")?,
                Ordering::Equal => writeln!(f, "{}: and more\n", difference.whose())?,
                Ordering::Greater => {}
            }
        }
        for row in &self.useless {
            writeln!(f, "expected.rs has a row that is of no use: {}\n", row.difference)?;
        }
        write!(f, "{}: {} of {} exchanges agree", self.recording, self.agreeing(), self.exchanges)?;
        if self.ours > 0 {
            write!(f, ", {} of them held against our own answer", self.ours)?;
        }
        match self.differences.iter().filter(|difference| difference.seq.is_none()).count() {
            0 => Ok(()),
            extra => write!(f, ", {extra} requests that nobody recorded"),
        }
    }
}

// === impl Replay ===

impl Replay {
    pub async fn prepare(recording: &Recording, options: Options, clock: Clock) -> std::io::Result<Self> {
        let plan = Plan::new(recording);
        if plan.epoch.is_none() && plan.steps.iter().any(|step| step.header("woody.deadline").is_some()) {
            return Err(std::io::Error::other("nothing in the recording tells what its deadlines mean"));
        }
        let state = State {
            begun: vec![None; plan.steps.len()],
            ended: vec![false; plan.steps.len()],
            to_come: plan.queues(),
            deadlines: HashMap::new(),
            seen_whole: HashSet::new(),
            spans: HashSet::new(),
            differences: Vec::new(),
            stopped: false,
        };
        let stage = Arc::new(Stage {
            plan,
            options,
            client: Client::new(clock.clone()),
            clock,
            service: watch::Sender::new(None),
            state: watch::Sender::new(state),
        });
        let processor_stage = Arc::clone(&stage);
        let processor = Server::start(options.processor_port, move |request| {
            let stage = Arc::clone(&processor_stage);
            async move { stage.process(request).await }
        })
        .await?;
        Ok(Self { stage, processor })
    }

    /// The origin of the recorded processor and modernizer.
    pub fn processor_url(&self) -> String {
        self.processor.url()
    }

    /// Plays the whole recording against the service at this origin.
    pub async fn play(self, service: &str) -> Report {
        let stage = self.stage;
        stage.service.send_replace(Some(service.to_owned()));
        for at in 0..stage.plan.steps.len() {
            if !stage.plan.steps[at].is(Direction::Inbound) {
                continue;
            }
            stage.wait_turn(at).await;
            if stage.state.borrow().stopped {
                break;
            }
            let request = stage.begin(at);
            tokio::spawn(Arc::clone(&stage).send(at, request));
        }
        stage.wait_for_all("before the end", |_| true, |_| true).await;
        let count = |state: &State| state.differences.len();
        let before = count(&stage.state.borrow());
        let _ = stage.within(stage.options.linger, |state| count(state) > before).await;
        let differences = stage.state.borrow().differences.clone();
        self.processor.stop().await;
        let Plan { name, steps, useless, .. } = &stage.plan;
        let ours = steps.iter().filter(|step| step.ours.is_some()).count();
        Report { recording: name.clone(), exchanges: steps.len(), differences, ours, useless: useless.clone() }
    }
}

// === impl Stage: order ===

impl Stage {
    /// True once `condition` holds or the replay has stopped; false if it takes too long.
    async fn within(&self, millis: i64, mut condition: impl FnMut(&State) -> bool) -> bool {
        let mut state = self.state.subscribe();
        let until = self.clock.now() + millis;
        self.clock.timeout_at(until, state.wait_for(|state| state.stopped || condition(state))).await.is_ok()
    }

    /// Until every exchange that had ended before this one has ended, and what had come before it has come.
    async fn wait_turn(&self, at: usize) {
        let began = self.plan.steps[at].exchange.began;
        let steps = &self.plan.steps;
        self.wait_for_all(
            &format!("before seq {}", steps[at].exchange.seq),
            |other| other != at && steps[other].exchange.ended <= began,
            |other| steps[other].is(Direction::Outbound) && steps[other].exchange.began <= began,
        )
        .await;
    }

    /// Until a processor may answer: what had begun before its answer has begun, what had ended before it has ended.
    async fn wait_release(&self, at: usize) {
        let ended = self.plan.steps[at].exchange.ended;
        let steps = &self.plan.steps;
        self.wait_for_all(
            &format!("before the answer of seq {}", steps[at].exchange.seq),
            |other| other != at && steps[other].exchange.ended <= ended,
            |other| steps[other].is(Direction::Inbound) && steps[other].exchange.began <= ended,
        )
        .await;
    }

    /// Waits for exchanges to end and to begin. What does not is missing: a difference, and nobody waits for it again.
    async fn wait_for_all(&self, when: &str, must_end: impl Fn(usize) -> bool, must_begin: impl Fn(usize) -> bool) {
        let all = 0..self.plan.steps.len();
        let late = |state: &State, at: usize| {
            (must_end(at) && !state.ended[at]) || (must_begin(at) && state.begun[at].is_none())
        };
        while !self.within(self.options.patience, |state| !all.clone().any(|at| late(state, at))).await {
            self.change(|state| {
                let missing: Vec<usize> = all.clone().filter(|at| late(state, *at)).collect();
                let never_came =
                    |at: &usize| self.plan.steps[*at].is(Direction::Outbound) && state.begun[*at].is_none();
                let outbound: Vec<usize> = missing.iter().copied().filter(never_came).collect();
                for at in if outbound.is_empty() { missing } else { outbound } {
                    let mut comparison = Comparison::of(&self.plan.steps[at]);
                    let got = if state.begun[at].is_none() { "it never came" } else { "it did not end" };
                    comparison.differ("exchange", format!("to come {when}"), got);
                    state.differences.extend(comparison.differences);
                    state.begun[at] = state.begun[at].or(Some(self.clock.now()));
                    state.ended[at] = true;
                    state.to_come.values_mut().for_each(|queue| queue.retain(|waiting| *waiting != at));
                }
            });
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(|state| {
            change(state);
            state.stopped |= self.options.stop_at_first && !state.differences.is_empty();
        });
    }
}

// === impl Stage: inbound ===

impl Stage {
    /// Notes that an inbound request goes out, and gives it as much time as it had.
    fn begin(&self, at: usize) -> Request {
        let step = &self.plan.steps[at];
        let now = self.clock.now();
        let mut request = step.exchange.request.clone();
        let deadline = match step.deadline {
            Deadline::Left(left) => Some(now + left),
            _ => None,
        };
        if let Some(deadline) = deadline {
            request.headers.insert("woody.deadline".to_owned(), timestamp::format_millis(deadline));
        }
        self.change(|state| {
            state.begun[at] = Some(now);
            state.deadlines.extend(deadline.map(|deadline| (at, deadline)));
        });
        request
    }

    async fn send(self: Arc<Self>, at: usize, request: Request) {
        let step = &self.plan.steps[at];
        // Whoever comes after the Start, or after somebody who saw it whole, can't see nothing.
        let whole_only = step.race.as_ref().is_some_and(|race| {
            let state = self.state.borrow();
            state.ended[race.start] || state.seen_whole.contains(&race.start)
        });
        let left = if let Deadline::Left(left) = step.deadline { left } else { 0 };
        let service = self.service.borrow().clone().unwrap_or_default();
        let got = self.client.send(&service, request, self.clock.now() + left + self.options.patience).await;
        let mut comparison = Comparison::of(step);
        let mut saw_whole = None;
        match (&step.race, &step.exchange.answer) {
            (Some(race), recorded) => {
                let nothing = (!whole_only).then_some(&race.nothing);
                saw_whole = comparison.either_answer(nothing, &race.whole, &got).then_some(race.start);
                // A recording that has it otherwise is not to be trusted.
                comparison.either_answer(Some(&race.nothing), &race.whole, recorded);
            }
            (None, Answer::Reply(recorded)) => comparison.answer(recorded, &got),
            (None, Answer::Broken(_)) => {}
        }
        self.change(|state| {
            state.seen_whole.extend(saw_whole);
            state.differences.extend(comparison.differences);
            state.ended[at] = true;
        });
    }
}

// === impl Stage: outbound ===

impl Stage {
    /// Answers the service as the recorded processor did, in the recorded order of the machine. An exchange is used up
    /// by the request that comes in its turn, whether it agrees or not.
    async fn process(self: Arc<Self>, request: Request) -> Answer {
        let arrived = self.clock.now();
        let machine = Message::decode(&request.body).ok().as_ref().and_then(plan::machine);
        let queue = (request.path.clone(), machine);
        let mut taken = None;
        self.change(|state| {
            taken = state.to_come.get_mut(&queue).and_then(VecDeque::pop_front);
            match taken {
                Some(at) => {
                    state.begun[at] = Some(arrived);
                    let differences = self.compare_outbound(at, &request, arrived, state);
                    state.differences.extend(differences);
                }
                None => state.differences.push(unexpected(&request, queue.1.as_ref())),
            }
        });
        let Some(at) = taken else {
            return Answer::Broken("nobody recorded this".to_owned());
        };
        self.wait_release(at).await;
        let step = &self.plan.steps[at];
        if step.background && step.exchange.reply().is_some() {
            tokio::spawn(self.clone().settle(at));
        } else {
            self.change(|state| state.ended[at] = true);
        }
        step.exchange.answer.clone()
    }

    fn compare_outbound(&self, at: usize, request: &Request, arrived: i64, state: &mut State) -> Vec<Difference> {
        let step = &self.plan.steps[at];
        let cause = step.cause.and_then(|cause| state.begun[cause]);
        let moments = Moments {
            caused: cause.unwrap_or(arrived),
            arrived,
            callers_deadline: step.cause.and_then(|cause| state.deadlines.get(&cause)).copied(),
        };
        let mut comparison = Comparison::of(step);
        comparison.outbound(request, moments);
        if step.cause.is_some() && cause.is_none() {
            comparison.differ("exchange", "to come after its cause", "it came before");
        }
        let span = request.headers.get("woody.span-id");
        if span.is_some_and(|span| !state.spans.insert(span.clone())) {
            comparison.differ("woody.span-id", "an id of its own", "one that was used before");
        }
        comparison.differences
    }

    /// Nobody is told when a step that no client waits for is done. Another turn of the same machine tells: it is
    /// refused, without effect, as soon as the step before it is over.
    async fn settle(self: Arc<Self>, at: usize) {
        let step = &self.plan.steps[at];
        let Some(machine) = &step.machine else { return };
        let succeeded = step.exchange.reply().is_some_and(|reply| [200, 503, 504].contains(&reply.status));
        let request = harmless(machine, succeeded);
        let service = self.service.borrow().clone().unwrap_or_default();
        let got = self.client.send(&service, request, self.clock.now() + self.options.patience).await;
        self.change(|state| {
            if let Answer::Broken(why) = got {
                let mut comparison = Comparison::of(step);
                comparison.differ("exchange", "to be settled", why);
                state.differences.extend(comparison.differences);
            }
            state.ended[at] = true;
        });
    }
}

fn unexpected(request: &Request, machine: Option<&Machine>) -> Difference {
    let call = Message::decode(&request.body);
    let method = call.as_ref().map_or("?", |call| call.name.as_str());
    let machine = machine.map(|machine| format!(" {machine}")).unwrap_or_default();
    Difference {
        seq: None,
        exchange: format!("outbound {method}{machine} to {}", request.path),
        field: "exchange".to_owned(),
        expected: "no more requests to this path for this machine".to_owned(),
        got: call.map_or_else(|error| error, |call| call.body.to_string()),
    }
}

/// A request that takes its turn and changes nothing: SimpleRepair of a machine that works, Call of one that failed.
fn harmless(machine: &Machine, works: bool) -> Request {
    let bytes = |bytes: &[u8]| Node::Bytes(bytes.to_vec());
    let object = |fields: Vec<(i16, Node)>| Node::Struct(fields.into_iter().collect());
    let reference = object(vec![(1, bytes(&machine.id))]);
    let (name, body) = if works {
        ("SimpleRepair", object(vec![(1, bytes(&machine.ns)), (2, reference)]))
    } else {
        let range = object(vec![(2, Node::I32(0))]);
        let descriptor = object(vec![(1, bytes(&machine.ns)), (2, reference), (3, range)]);
        ("Call", object(vec![(1, descriptor), (2, object(vec![(1, object(vec![]))]))]))
    };
    let headers = [
        ("content-type", "application/x-thrift"),
        ("accept", "application/x-thrift"),
        ("woody.trace-id", "replay"),
        ("woody.span-id", "replay-settle"),
        ("woody.parent-id", "undefined"),
    ];
    Request {
        method: "POST".to_owned(),
        path: "/v1/automaton".to_owned(),
        headers: Headers::from(headers.map(|(name, value)| (name.to_owned(), value.to_owned()))),
        body: Message { kind: 1, name: name.to_owned(), seqid: 0, body }.encode().into(),
    }
}
