//! The processor: it does what a Call's arguments say, so that every event of a history is known beforehand.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use machinegun::clock::Clock;
use machinegun::wire::{
    self, CallResult, ComplexAction, Content, HistoryRange, Machine, MachineStateChange, Method, ProcessCall,
    ProcessRepair, ProcessSignal, Reader, RepairResult, SetTimerAction, Signal, SignalResult, TagAction, Timer,
    TimerAction, Type, Value, Wire,
};
use machinegun::woody::{Error, MethodKind, Reply, Request, Server, ServerSettings, Service};
use tokio::sync::watch;

/// What a step is asked to do, as the arguments of a Start, Call, Repair or Notify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Stands in the events, and is the response. No spaces.
    pub token: String,
    pub events: usize,
    /// Seconds.
    pub timer: Option<i32>,
    /// The processor is at fault, and the machine fails.
    pub fail: bool,
    /// The answer is held until the gate is opened.
    pub hold: bool,
    /// The machine claims it. No spaces.
    pub tag: Option<String>,
}

/// In a process of the test's own.
pub struct Processor {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// What the answers to signals were, by the text of their events.
    answered: watch::Sender<HashSet<String>>,
    held: watch::Sender<usize>,
    open: watch::Sender<bool>,
    /// The headers of traces that came with calls: function, name, value.
    traced: watch::Sender<Vec<(String, String, String)>>,
    /// How often each step was asked about, by its token.
    asked: Mutex<HashMap<String, u64>>,
}

struct Decider(Arc<Shared>);

// === impl Order ===

impl Order {
    /// One event and nothing else.
    pub fn plain(token: impl Into<String>) -> Self {
        Self { token: token.into(), events: 1, timer: None, fail: false, hold: false, tag: None }
    }

    pub fn value(&self) -> Value {
        let Self { token, events, timer, fail, hold, tag } = self;
        let (timer, tag) = (timer.map_or(-1, |it| it), tag.as_deref().unwrap_or_default());
        Value::str(&format!("{token} {events} {timer} {} {} {tag}", u8::from(*fail), u8::from(*hold)))
    }

    fn read(value: &Value) -> Self {
        let text = text(value);
        let mut words = text.split(' ');
        let token = words.next().expect("a token").to_owned();
        let mut number = || words.next().expect("a word").parse::<i32>().expect("a number");
        let (events, timer, fail, hold) = (number() as usize, number(), number() == 1, number() == 1);
        let tag = words.next().filter(|tag| !tag.is_empty()).map(str::to_owned);
        Self { token, events, timer: Some(timer).filter(|it| *it >= 0), fail, hold, tag }
    }

    /// The texts of its events.
    pub fn texts(&self) -> Vec<String> {
        (1..=self.events).map(|it| format!("step:{}/{it} {}", self.token, "x".repeat(200))).collect()
    }
}

pub fn note_text(token: &str) -> String {
    format!("note:{token}")
}

pub fn timer_text(token: &str) -> String {
    format!("timer:{token}")
}

/// A text that stands in a value.
pub fn text(value: &Value) -> String {
    let mut reader = Reader::new(value.as_bytes().clone(), wire::Limits::default());
    assert_eq!(reader.field().expect("a union"), Some((Type::String, 5)), "a text");
    String::from_utf8(reader.string().expect("a text").to_vec()).expect("UTF-8")
}

// === impl Processor ===

impl Processor {
    /// The headers of traces that have come so far: function, name, value.
    pub fn traced(&self) -> Vec<(String, String, String)> {
        self.shared.traced.borrow().clone()
    }

    pub fn start() -> Self {
        let server =
            Server::bind("127.0.0.1:0".parse().expect("an address"), ServerSettings::default(), Clock::system());
        let server = server.expect("a free port");
        let address = server.local_addr();
        let shared = Arc::new(Shared {
            answered: watch::Sender::default(),
            held: watch::Sender::default(),
            open: watch::Sender::default(),
            traced: watch::Sender::default(),
            asked: Mutex::default(),
        });
        let server = server.route("/processor", Arc::new(Decider(shared.clone())));
        tokio::spawn(server.serve(std::future::pending(), async {}));
        Self { address, shared }
    }

    /// Forgets which signals it has answered.
    pub fn forget(&self) {
        self.shared.answered.send_modify(HashSet::clear);
    }

    /// Returns once a signal was answered by an event of this text.
    pub async fn answered(&self, text: &str) {
        let mut answered = self.shared.answered.subscribe();
        answered.wait_for(|it| it.contains(text)).await.expect("the processor lives");
    }

    /// Returns once so many different signals were answered.
    pub async fn answered_in_all(&self, count: usize) {
        self.shared.answered.subscribe().wait_for(|it| it.len() >= count).await.expect("the processor lives");
    }

    /// How many steps it was asked about, and how often it was asked again about one of them.
    pub fn repeats(&self) -> (usize, u64) {
        let asked = self.shared.asked.lock().expect("nobody panics with it");
        (asked.len(), asked.values().map(|times| times - 1).sum())
    }

    /// Returns once so many answers are held at the gate.
    pub async fn holds(&self, count: usize) {
        self.shared.held.subscribe().wait_for(|it| *it >= count).await.expect("the processor lives");
    }

    pub fn open(&self) {
        self.shared.open.send_replace(true);
    }
}

// === impl Shared ===

impl Shared {
    fn asks(&self, token: &str) {
        *self.asked.lock().expect("nobody panics with it").entry(token.to_owned()).or_default() += 1;
    }
}

// === impl Decider ===

impl Decider {
    async fn obey(&self, order: &Order, machine: &Machine) -> Result<(MachineStateChange, ComplexAction), Error> {
        self.0.asks(&order.token);
        if order.hold {
            self.0.held.send_modify(|it| *it += 1);
            self.0.open.subscribe().wait_for(|it| *it).await.expect("the processor lives");
        }
        if order.fail {
            return Err(Error::unexpected("told to fail"));
        }
        let timer = order.timer.map(|seconds| {
            let (timer, range) = (Timer::Timeout(seconds), Some(HistoryRange::ALL));
            TimerAction::Set(SetTimerAction { timer, range, timeout: None })
        });
        // The aux state says which order set the timer.
        let aux_state = order.timer.map_or_else(|| aux(machine), |_| order.token.clone());
        let tag = order.tag.as_ref().map(|tag| TagAction { tag: Bytes::copy_from_slice(tag.as_bytes()) });
        let action = ComplexAction { set_timer: None, timer, tag, remove: None };
        Ok((change(&aux_state, order.texts()), action))
    }

    async fn signal(&self, signal: Signal, machine: &Machine) -> Result<SignalResult, Error> {
        let event = match signal {
            Signal::Init(init) => {
                let (change, action) = self.obey(&Order::read(&init.arg), machine).await?;
                return Ok(SignalResult { change, action });
            }
            Signal::Timeout(_) => timer_text(&aux(machine)),
            Signal::Notification(it) => note_text(&Order::read(&it.arg).token),
        };
        self.0.asks(&event);
        self.0.answered.send_modify(|it| {
            it.insert(event.clone());
        });
        let action = ComplexAction { set_timer: None, timer: None, tag: None, remove: None };
        Ok(SignalResult { change: change(&aux(machine), vec![event]), action })
    }
}

fn aux(machine: &Machine) -> String {
    let aux = machine.aux_state.as_ref().expect("an aux state");
    if aux.data == Value::empty() { String::new() } else { text(&aux.data) }
}

fn change(aux_state: &str, events: Vec<String>) -> MachineStateChange {
    let content = |text: &str| Content { format_version: Some(1), data: Value::str(text) };
    MachineStateChange {
        aux_state_legacy: None,
        events_legacy: None,
        aux_state: Some(content(aux_state)),
        events: Some(events.iter().map(|text| content(text)).collect()),
    }
}

fn done<M: Method>(seqid: i32, success: M::Success) -> Result<Reply, Error>
where
    M::Success: Wire,
{
    let body: Bytes = wire::write_reply::<M>(seqid, &Ok(success)).expect("no exception");
    Ok(Reply::Result { body, business: None })
}

#[async_trait]
impl Service for Decider {
    fn method(&self, name: &[u8]) -> Option<MethodKind> {
        let known = [ProcessCall::NAME, ProcessSignal::NAME, ProcessRepair::NAME];
        known.iter().any(|it| it.as_bytes() == name).then_some(MethodKind::Call)
    }

    async fn handle(&self, request: Request) -> Result<Reply, Error> {
        let Request { context, name, mut args, seqid, .. } = request;
        self.0.traced.send_modify(|traced| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let header =
                |(header, value): &(HeaderName, HeaderValue)| (text(&name), header.to_string(), text(value.as_bytes()));
            traced.extend(context.trace.iter().map(header));
        });
        if name == ProcessCall::NAME {
            let asked = wire::read_args::<ProcessCall>(&mut args)?.a;
            let order = Order::read(&asked.arg);
            let (change, action) = self.obey(&order, &asked.machine).await?;
            done::<ProcessCall>(seqid, CallResult { response: Value::str(&order.token), change, action })
        } else if name == ProcessRepair::NAME {
            let asked = wire::read_args::<ProcessRepair>(&mut args)?.a;
            let order = Order::read(&asked.arg);
            let (change, action) = self.obey(&order, &asked.machine).await?;
            done::<ProcessRepair>(seqid, RepairResult { response: Value::str(&order.token), change, action })
        } else {
            let asked = wire::read_args::<ProcessSignal>(&mut args)?.a;
            done::<ProcessSignal>(seqid, self.signal(asked.signal, &asked.machine).await?)
        }
    }
}
