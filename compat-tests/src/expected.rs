//! Where we differ from the original on purpose: what we answer in place of what was recorded.
//!
//! Nothing else may differ. Each row names the row of `docs/differences.md` that it stands on. It is held to it: what is
//! answered must be what the row says, and a row that a recording has no use for fails that recording's replay.

use crate::node::{Message, Node};
use crate::recording::{Answer, Direction, Exchange, Headers, Recording, Response};

/// One way in which our answers to a recording differ.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub recording: &'static str,
    pub ours: Ours,
    /// Why ours is the better answer.
    pub because: &'static str,
    /// The row of `docs/differences.md`: its first cell.
    pub difference: &'static str,
}

/// What we answer instead.
#[derive(Clone, Copy, Debug)]
pub enum Ours {
    /// One inbound exchange gets this status and class, with an empty body and any reason.
    Refusal { seq: u64, status: u16, class: &'static str },
    /// Every GetMachine that finds a machine tells its status too: failed in these exchanges, working in all others.
    MachineStatus { failed: &'static [u64] },
}

pub const ROWS: &[Row] = &[
    Row {
        recording: "mg2021",
        ours: Ours::Refusal { seq: 106, status: 400, class: "Result Unexpected" },
        because: "GetHistory with limit -1 crashes the original's handler; the fault is the request's",
        difference: "A negative limit fails the machine or gives 500",
    },
    Row {
        recording: "mg2021",
        ours: Ours::MachineStatus { failed: &[71] },
        because: "readers skip a field that they don't know, and those of today's interface may read every machine",
        difference: "GetMachine of 2021 does not tell a machine's status",
    },
];

/// `Machine.status` in a reply.
const SUCCESS: i16 = 0;
const STATUS: i16 = 8;

/// Puts our answers in the place of the recorded ones. Returns the rows that changed each exchange, and the rows that a
/// whole recording has no use for: they name what is not there, or what is answered so already.
pub fn put_ours(recording: &mut Recording) -> (Vec<Option<&'static Row>>, Vec<&'static Row>) {
    let mut changed = vec![None; recording.exchanges.len()];
    let mut useless = Vec::new();
    for row in ROWS.iter().filter(|row| row.recording == recording.name) {
        let mut used = Vec::new();
        for (exchange, changed) in recording.exchanges.iter_mut().zip(&mut changed) {
            if let Some(answer) = row.ours.in_place_of(exchange) {
                exchange.answer = answer;
                *changed = Some(row);
                used.push(exchange.seq);
            }
        }
        if recording.whole && !row.ours.is_served_by(&used) {
            useless.push(row);
        }
    }
    (changed, useless)
}

// === impl Ours ===

impl Ours {
    /// Our answer to an exchange, if it is another one than was recorded.
    fn in_place_of(&self, exchange: &Exchange) -> Option<Answer> {
        let recorded = exchange.reply().filter(|_| exchange.direction == Direction::Inbound)?;
        match *self {
            Self::Refusal { seq, status, class } => {
                let class = ("woody.error-class", class);
                let same = recorded.status == status && recorded.headers.get(class.0).is_some_and(|it| it == class.1);
                let headers = [class, ("woody.error-reason", "any")];
                let refusal = Response {
                    status,
                    headers: Headers::from(headers.map(|(name, value)| (name.to_owned(), value.to_owned()))),
                    body: Default::default(),
                };
                (exchange.seq == seq && !same).then_some(Answer::Reply(refusal))
            }
            Self::MachineStatus { failed } => {
                let mut message = Message::decode(&recorded.body).ok().filter(|reply| reply.name == "GetMachine")?;
                let Node::Struct(results) = &mut message.body else { return None };
                let Some(Node::Struct(machine)) = results.get_mut(&SUCCESS) else { return None };
                if machine.contains_key(&STATUS) {
                    return None;
                }
                let status = if failed.contains(&exchange.seq) {
                    let reason = Node::Bytes(b"any".to_vec());
                    Node::Struct([(2, Node::Struct([(1, reason)].into()))].into())
                } else {
                    Node::Struct([(1, Node::Struct(Default::default()))].into())
                };
                machine.insert(STATUS, status);
                Some(Answer::Reply(Response { body: message.encode().into(), ..recorded.clone() }))
            }
        }
    }

    /// Whether these exchanges are all that it names.
    fn is_served_by(&self, used: &[u64]) -> bool {
        match self {
            Self::Refusal { .. } => !used.is_empty(),
            Self::MachineStatus { failed } => !used.is_empty() && failed.iter().all(|seq| used.contains(seq)),
        }
    }
}
