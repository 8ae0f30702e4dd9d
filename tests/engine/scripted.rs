//! A processor that does as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use machinegun::machine::{Action, Change, Outcome, TimerChange};
use machinegun::processor::{Ask, Processor, Question};
use machinegun::wire::{Content, HistoryRange, Value};
use tokio::sync::{oneshot, watch};

type Behaviour = Box<dyn Fn(&Question) -> Outcome + Send + Sync>;

/// Answers what was queued for it, in order; then by its behaviour, which echoes arguments.
#[derive(Clone)]
pub struct Scripted(Arc<Inner>);

struct Inner {
    script: Mutex<Script>,
    asked: watch::Sender<usize>,
}

struct Script {
    questions: Vec<Question>,
    queued: VecDeque<Outcome>,
    gates: VecDeque<(String, Inside)>,
    behaviour: Arc<Behaviour>,
}

/// Holds one step in the middle.
pub struct Gate {
    reached: oneshot::Receiver<()>,
    open: oneshot::Sender<()>,
}

/// The other side of a gate.
pub struct Inside {
    reached: oneshot::Sender<()>,
    opened: oneshot::Receiver<()>,
}

/// A processor's answer, put together.
#[derive(Clone, Default)]
pub struct Answer {
    response: Option<Value>,
    change: Change,
}

// === impl Gate ===

impl Gate {
    pub fn new() -> (Self, Inside) {
        let (reach, reached) = oneshot::channel();
        let (open, opened) = oneshot::channel();
        (Self { reached, open }, Inside { reached: reach, opened })
    }

    /// Returns once somebody waits at the gate.
    pub async fn reached(&mut self) {
        (&mut self.reached).await.unwrap();
    }

    pub fn open(self) {
        self.open.send(()).unwrap();
    }
}

impl Inside {
    /// Waits until the gate is opened, for ever if it was dropped.
    pub async fn pass(self) {
        let _ = self.reached.send(());
        if self.opened.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

// === impl Answer ===

pub fn reply(text: &str) -> Answer {
    Answer { response: Some(Value::str(text)), ..Answer::default() }
}

/// Of a signal: there is nothing to reply to.
pub fn done() -> Answer {
    Answer::default()
}

pub fn transient() -> Outcome {
    Outcome::Transient("processor_unavailable".to_owned())
}

pub fn unexpected() -> Outcome {
    Outcome::Unexpected("it broke".to_owned())
}

pub fn content(text: &str) -> Content {
    Content { format_version: Some(1), data: Value::str(text) }
}

impl Answer {
    pub fn event(mut self, text: &str) -> Self {
        self.change.events.push(content(text));
        self
    }

    pub fn aux(mut self, text: &str) -> Self {
        self.change.aux_state = Some(content(text));
        self
    }

    pub fn timer(self, seconds: i32) -> Self {
        self.timer_with(seconds, HistoryRange::ALL)
    }

    pub fn timer_with(mut self, seconds: i32, range: HistoryRange) -> Self {
        self.change.action.timer = Some(TimerChange::In { seconds, range, timeout: 30 });
        self
    }

    pub fn timer_at(mut self, due: i64) -> Self {
        self.change.action.timer = Some(TimerChange::At { due, range: HistoryRange::ALL, timeout: 30 });
        self
    }

    /// Of the timer that is set: what its signal may take.
    pub fn allowing(mut self, seconds: i32) -> Self {
        if let Some(TimerChange::In { timeout, .. } | TimerChange::At { timeout, .. }) = &mut self.change.action.timer {
            *timeout = seconds;
        }
        self
    }

    pub fn unset(mut self) -> Self {
        self.change.action.timer = Some(TimerChange::Unset);
        self
    }

    pub fn tag(mut self, tag: &str) -> Self {
        self.change.action.tag = Some(bytes::Bytes::copy_from_slice(tag.as_bytes()));
        self
    }

    pub fn remove(mut self) -> Self {
        self.change.action = Action { remove: true, ..self.change.action };
        self
    }
}

impl From<Answer> for Outcome {
    fn from(Answer { response, change }: Answer) -> Self {
        Outcome::Done { response, change }
    }
}

// === impl Scripted ===

impl Scripted {
    pub fn new() -> Self {
        let script = Script {
            questions: Vec::new(),
            queued: VecDeque::new(),
            gates: VecDeque::new(),
            behaviour: Arc::new(Box::new(echo)),
        };
        Self(Arc::new(Inner { script: Mutex::new(script), asked: watch::Sender::new(0) }))
    }

    /// The next question, of whatever machine, is answered so.
    pub fn then(&self, outcome: impl Into<Outcome>) -> &Self {
        self.0.script.lock().unwrap().queued.push_back(outcome.into());
        self
    }

    /// What nothing is queued for is answered so.
    pub fn behave(&self, behaviour: impl Fn(&Question) -> Outcome + Send + Sync + 'static) {
        self.0.script.lock().unwrap().behaviour = Arc::new(Box::new(behaviour));
    }

    /// The next question about this machine waits at the gate, after it was noted and before it is answered.
    pub fn hold(&self, id: &str) -> Gate {
        let (gate, inside) = Gate::new();
        self.0.script.lock().unwrap().gates.push_back((id.to_owned(), inside));
        gate
    }

    /// All that was asked so far.
    pub fn questions(&self) -> Vec<Question> {
        self.0.script.lock().unwrap().questions.clone()
    }

    /// Those that came after the first `n`.
    pub fn questions_behind(&self, n: usize) -> Vec<Question> {
        self.0.script.lock().unwrap().questions[n..].to_vec()
    }

    pub fn count(&self) -> usize {
        *self.0.asked.borrow()
    }

    /// Waits for question number `n`, counted from 1.
    pub async fn question(&self, n: usize) -> Question {
        self.0.asked.subscribe().wait_for(|count| *count >= n).await.unwrap();
        self.0.script.lock().unwrap().questions[n - 1].clone()
    }

    /// What the questions were about, in order.
    pub fn asks(&self) -> Vec<String> {
        self.questions().iter().map(|question| name(&question.ask)).collect()
    }
}

pub fn name(ask: &Ask) -> String {
    match ask {
        Ask::Init(args) => format!("init {}", text(args)),
        Ask::Call(args) => format!("call {}", text(args)),
        Ask::Repair(args) => format!("repair {}", text(args)),
        Ask::Timeout => "timeout".to_owned(),
        Ask::Notification(args) => format!("notification {}", text(args)),
    }
}

/// The text of a value that [`Value::str`] made.
pub fn text(value: &Value) -> String {
    // Type, field and length before it, a stop behind it.
    let bytes = value.as_bytes();
    String::from_utf8_lossy(&bytes[7..bytes.len() - 1]).into_owned()
}

fn echo(question: &Question) -> Outcome {
    match &question.ask {
        Ask::Init(_) | Ask::Timeout | Ask::Notification(_) => done().into(),
        Ask::Call(args) | Ask::Repair(args) => {
            Outcome::Done { response: Some(args.clone()), change: Change::default() }
        }
    }
}

#[async_trait]
impl Processor for Scripted {
    async fn ask(&self, question: Question) -> Outcome {
        let id = String::from_utf8_lossy(&question.machine.id).into_owned();
        let gate = {
            let mut script = self.0.script.lock().unwrap();
            script.questions.push(question.clone());
            let gate = script.gates.iter().position(|(held, _)| *held == id);
            gate.and_then(|place| script.gates.remove(place))
        };
        self.0.asked.send_modify(|count| *count += 1);
        if let Some((_, gate)) = gate {
            gate.pass().await;
        }
        let (queued, behaviour) = {
            let mut script = self.0.script.lock().unwrap();
            (script.queued.pop_front(), script.behaviour.clone())
        };
        queued.unwrap_or_else(|| behaviour(&question))
    }
}
