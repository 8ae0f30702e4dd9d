//! What a recording says between its lines: which request caused which, whose turn it was, what came in between.

use std::collections::HashMap;

use machinegun::wire::timestamp;

use crate::configuration::DEFAULT_PROCESSING_TIMEOUT;
use crate::expected::{self, Row};
use crate::node::{Message, Node};
use crate::recording::{Direction, Exchange, Headers, Recording, Response};

/// A recording, worked out.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    /// In the order in which they began.
    pub steps: Vec<Planned>,
    /// Unix milliseconds of the recording's start. None if nothing tells.
    pub epoch: Option<f64>,
    /// Rows of our own answers that the recording has no use for.
    pub useless: Vec<&'static Row>,
}

/// An exchange and its relations. Others are named by their index in the plan.
#[derive(Clone, Debug)]
pub struct Planned {
    pub exchange: Exchange,
    /// Why its answer is ours and not the recorded one.
    pub ours: Option<&'static Row>,
    /// The Thrift method, or what stands there instead.
    pub method: String,
    /// None where the request names none by its id.
    pub machine: Option<Machine>,
    /// The inbound request in whose context an outbound one is made.
    pub cause: Option<usize>,
    /// Nobody waits for the step that an outbound request belongs to: a timer's or a notification's.
    pub background: bool,
    pub deadline: Deadline,
    /// Inbound: the caller's deadline had passed when the answer came.
    pub expired: bool,
    pub race: Option<Race>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    pub ns: Vec<u8>,
    pub id: Vec<u8>,
}

/// What a request says of the time it has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deadline {
    Absent,
    /// Inbound: milliseconds left when it was sent.
    Left(i64),
    /// Outbound: the very deadline of its cause.
    Callers,
    /// Outbound: as many milliseconds from some moment between its cause and itself.
    Timeout(i64),
}

/// A read that overlaps a Start: it may see nothing, or the whole of the step, and nothing in between.
#[derive(Clone, Debug)]
pub struct Race {
    /// The Start's index.
    pub start: usize,
    pub nothing: Response,
    pub whole: Response,
}

/// Whose turn is whose: outbound requests come one by one to a path for a machine.
pub type Queue = (String, Option<Machine>);

// === impl Plan ===

impl Plan {
    pub fn new(recording: &Recording) -> Self {
        let mut recording = recording.clone();
        let (rows, useless) = expected::put_ours(&mut recording);
        let mut steps: Vec<Planned> =
            recording.exchanges.into_iter().zip(rows).map(|(exchange, ours)| Planned::new(exchange, ours)).collect();
        let spans: HashMap<String, usize> = (steps.iter().enumerate())
            .filter(|(_, step)| step.is(Direction::Inbound))
            .filter_map(|(at, step)| Some((step.header("woody.span-id")?.to_owned(), at)))
            .collect();
        for step in steps.iter_mut().filter(|step| step.is(Direction::Outbound)) {
            step.cause = step.header("woody.parent-id").and_then(|parent| spans.get(parent)).copied();
        }
        let epoch = recording.epoch.or_else(|| epoch(&steps));
        for at in 0..steps.len() {
            steps[at].deadline = deadline(&steps, at, epoch);
            let left = steps[at].exchange.ended - steps[at].exchange.began;
            steps[at].expired = matches!(steps[at].deadline, Deadline::Left(ms) if left >= ms as f64 - 100.0);
        }
        for at in 0..steps.len() {
            steps[at].race = race(&steps, at);
        }
        Self { name: recording.name, steps, epoch, useless }
    }

    /// Outbound exchanges by queue, each in its order.
    pub fn queues(&self) -> HashMap<Queue, std::collections::VecDeque<usize>> {
        let mut queues: HashMap<Queue, std::collections::VecDeque<usize>> = HashMap::new();
        for (at, step) in self.steps.iter().enumerate().filter(|(_, step)| step.is(Direction::Outbound)) {
            queues.entry((step.exchange.request.path.clone(), step.machine.clone())).or_default().push_back(at);
        }
        queues
    }
}

// === impl Planned ===

impl Planned {
    fn new(exchange: Exchange, ours: Option<&'static Row>) -> Self {
        let message = Message::decode(&exchange.request.body);
        Self {
            method: message.as_ref().map_or("?", |message| message.name.as_str()).to_owned(),
            machine: message.as_ref().ok().and_then(machine),
            background: message.as_ref().is_ok_and(is_background),
            cause: None,
            deadline: Deadline::Absent,
            expired: false,
            race: None,
            ours,
            exchange,
        }
    }

    pub fn is(&self, direction: Direction) -> bool {
        self.exchange.direction == direction
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.exchange.request.headers.get(name).map(String::as_str)
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        let machine = self.machine.as_ref().map(|machine| format!(" {machine}")).unwrap_or_default();
        format!("{} {}{machine}", self.exchange.direction, self.method)
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", String::from_utf8_lossy(&self.ns), String::from_utf8_lossy(&self.id))
    }
}

/// The machine that a call is about, inbound or outbound.
pub fn machine(call: &Message) -> Option<Machine> {
    let (ns, id): (&[i16], &[i16]) = match call.name.as_str() {
        "Start" | "Remove" => (&[1], &[2]),
        "SimpleRepair" => (&[1], &[2, 1]),
        "Call" | "Repair" | "GetMachine" | "Notify" | "Modernize" => (&[1, 1], &[1, 2, 1]),
        "ProcessSignal" | "ProcessCall" | "ProcessRepair" => (&[1, 2, 1], &[1, 2, 2]),
        "ModernizeEvent" => (&[1, 1], &[1, 2]),
        _ => return None,
    };
    let bytes = |path| call.body.at(path).and_then(Node::bytes).map(<[u8]>::to_vec);
    Some(Machine { ns: bytes(ns)?, id: bytes(id)? })
}

/// Signals `timeout` and `notification`: the service takes such a step of its own accord.
fn is_background(call: &Message) -> bool {
    call.name == "ProcessSignal" && [2, 3].iter().any(|signal| call.body.at(&[1, 1, *signal]).is_some())
}

/// The recording's start: a deadline that no caller sent is `default_processing_timeout` after some moment between the
/// caller's request and ours. All of them together tell it within milliseconds.
fn epoch(steps: &[Planned]) -> Option<f64> {
    let bounds = steps.iter().filter(|step| step.is(Direction::Outbound) && !step.background).filter_map(|step| {
        let cause = &steps[step.cause?];
        let deadline = timestamp::parse_millis(step.header("woody.deadline")?.as_bytes()).ok()?;
        let moment = (deadline - DEFAULT_PROCESSING_TIMEOUT) as f64;
        let known = cause.header("woody.deadline").is_none();
        known.then_some((moment - step.exchange.began, moment - cause.exchange.began))
    });
    let (earliest, latest) =
        bounds.fold((f64::NEG_INFINITY, f64::INFINITY), |known, bound| (known.0.max(bound.0), known.1.min(bound.1)));
    (earliest.is_finite() && latest.is_finite()).then_some((earliest + latest) / 2.0)
}

fn deadline(steps: &[Planned], at: usize, epoch: Option<f64>) -> Deadline {
    let step = &steps[at];
    let Some(text) = step.header("woody.deadline") else { return Deadline::Absent };
    let (Ok(millis), Some(epoch)) = (timestamp::parse_millis(text.as_bytes()), epoch) else { return Deadline::Absent };
    let left = millis as f64 - epoch - step.exchange.began;
    match step.exchange.direction {
        Direction::Inbound => Deadline::Left(left.round() as i64),
        Direction::Outbound => match step.cause {
            Some(cause) if steps[cause].header("woody.deadline") == Some(text) => Deadline::Callers,
            // Timeouts are whole seconds; what is missing is the time that the original took.
            _ => Deadline::Timeout((left / 1_000.0).round() as i64 * 1_000),
        },
    }
}

/// Whether a read overlaps the commit of a Start, and what it may see then. The whole of the step is taken from a read
/// of the same range that came after it and before the machine's next step.
fn race(steps: &[Planned], at: usize) -> Option<Race> {
    let read = &steps[at];
    if read.method != "GetMachine" || read.machine.is_none() {
        return None;
    }
    let of_machine = |method: &'static str| {
        let machine = read.machine.clone();
        move |other: &(usize, &Planned)| other.1.method == method && other.1.machine == machine
    };
    let (start, answered) = steps.iter().enumerate().filter(of_machine("Start")).find_map(|(start, step)| {
        let signal = steps.iter().find(|other| other.cause == Some(start) && !other.background)?;
        let answered = signal.exchange.ended;
        let succeeded = whole(&step.exchange).is_some();
        let overlaps = read.exchange.ended > answered && read.exchange.began < step.exchange.ended;
        (succeeded && overlaps).then_some((start, answered))
    })?;
    let next_step = (steps.iter())
        .filter(|other| other.machine == read.machine && other.exchange.began > steps[start].exchange.ended)
        .filter(|other| other.is(Direction::Outbound) || other.method == "Remove")
        .map(|other| other.exchange.began)
        .fold(f64::INFINITY, f64::min);
    let whole = (steps.iter().enumerate())
        .filter(of_machine("GetMachine"))
        .filter(|(_, other)| other.exchange.request.body == read.exchange.request.body)
        .filter(|(_, other)| other.exchange.ended > answered && other.exchange.ended < next_step)
        .filter_map(|(_, other)| whole(&other.exchange))
        .last()?;
    Some(Race { start, nothing: nothing(&read.exchange), whole: whole.clone() })
}

/// The reply of a call that succeeded.
fn whole(exchange: &Exchange) -> Option<&Response> {
    exchange.reply().filter(|reply| reply.status == 200 && !reply.headers.contains_key("woody.error-class"))
}

/// What a read of a machine that is not there is answered.
fn nothing(read: &Exchange) -> Response {
    let seqid = Message::decode(&read.request.body).map_or(0, |call| call.seqid);
    let body = Node::Struct([(2, Node::Struct(Default::default()))].into());
    let headers = [
        ("content-type", "application/x-thrift"),
        ("woody.error-class", "Business Error"),
        ("woody.error-reason", "MachineNotFound"),
    ];
    Response {
        status: 200,
        headers: Headers::from(headers.map(|(name, value)| (name.to_owned(), value.to_owned()))),
        body: Message { kind: 2, name: "GetMachine".to_owned(), seqid, body }.encode().into(),
    }
}

// === impl Recording ===

impl Recording {
    /// Finds out when it began, so that a part of it knows too.
    pub(crate) fn with_epoch(mut self) -> Self {
        self.epoch = Plan::new(&self).epoch;
        self
    }
}
