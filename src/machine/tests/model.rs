//! The core against a small model of its own: random impacts, outcomes and times, one after another.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

mod real;
mod sinks;

use real::Real;
use sinks::Sinks;

const DAY: i64 = 24 * 60 * 60 * 1_000;

#[derive(Clone, Debug)]
enum Op {
    Init(Out),
    Call(Out),
    Repair(Out),
    SimpleRepair,
    Remove,
    Timeout(Out),
    /// A new one or the last one again, for this machine or an earlier one of its id.
    Notify {
        again: bool,
        stale: bool,
        out: Out,
    },
    Drained,
    /// The payable epochs are deleted; the commit that says so may never be tried.
    Paid {
        cut_off: bool,
    },
    Acknowledged,
    Forget,
    /// A sink is sent its next parcel, or so many events of it and one.
    Send {
        sink: usize,
        most: i64,
    },
    /// A delivery is acknowledged, in any order, some twice, some never.
    Answer {
        sink: usize,
        which: usize,
        again: bool,
    },
    /// The machine is read again.
    Crash,
    /// Milliseconds go by.
    Pass(i64),
    /// Time goes by until the machine is due.
    PassUntilDue,
}

#[derive(Clone, Debug)]
enum Out {
    Done { events: i64, aux: Option<i64>, timer: TimerOp, remove: bool, tag: Tag },
    TooBig,
    Declined,
    Transient,
    Unexpected,
    HeldBack,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Tag {
    None,
    Free,
    Taken,
}

#[derive(Clone, Copy, Debug)]
enum TimerOp {
    Leave,
    Unset,
    Seconds(i32),
    /// Milliseconds from now.
    At(i64),
}

/// What a machine of an id is to those who use it, in the plainest words.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    is: Is,
    epoch: u128,
    /// How often the timer failed, and when it is tried again.
    retry: Option<(usize, i64)>,
    failed: bool,
    /// Failed for its tag.
    tag_taken: bool,
    timer: Option<i64>,
    events: i64,
    aux: i64,
    look_at: Option<i64>,
    handled: Vec<i64>,
    /// Deletions: epoch, last event, whether a sink wanted the events at the last commit.
    owed: Vec<(u128, i64, bool)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Is {
    #[default]
    Nothing,
    Here,
    /// Removed or paid then.
    Gone(i64),
}

// === impl Model ===

impl Model {
    fn due(&self, sinks: &Sinks) -> Option<i64> {
        let mut dues = Vec::from_iter(sinks.look_at);
        if self.is == Is::Here && !self.failed {
            dues.extend(self.retry.map(|(_, at)| at).or(self.timer));
            dues.extend(self.look_at);
        }
        if self.owed.iter().any(|(_, _, wanted)| !wanted) {
            dues.push(0);
        }
        if let (Is::Gone(at), true, None) = (&self.is, self.owed.is_empty(), sinks.look_at) {
            dues.push(at + DAY);
        }
        dues.into_iter().min().map(|due| due.max(0))
    }

    /// What is answered, and what the machine is then.
    fn take(&mut self, op: &Op, id: i64, commit: u128, now: i64, sinks: &Sinks) -> &'static str {
        let here = self.is == Is::Here;
        match op {
            Op::Pass(_) | Op::PassUntilDue | Op::Send { .. } | Op::Answer { .. } | Op::Crash => "ok",
            Op::Paid { cut_off: true } => "ok",
            Op::Init(_) if here => "exists",
            Op::Init(out @ Out::Done { .. }) => {
                let owed = std::mem::take(&mut self.owed);
                *self = Model { is: Is::Here, epoch: commit, owed, ..Model::default() };
                self.done(out, now)
            }
            Op::Init(Out::Transient | Out::HeldBack) => "unavailable",
            Op::Init(_) => "failed",
            Op::Drained => {
                self.look_at = None;
                "ok"
            }
            Op::Paid { cut_off: false } => {
                let payable = self.owed.iter().any(|(_, _, wanted)| !wanted);
                if let (Is::Gone(at), true) = (&mut self.is, payable) {
                    *at = now;
                }
                self.owed.retain(|(_, _, wanted)| *wanted);
                "ok"
            }
            Op::Acknowledged => {
                if let (Is::Gone(at), Some(_), true) = (&mut self.is, sinks.look_at, sinks.are_done()) {
                    *at = now;
                }
                "ok"
            }
            Op::Forget => {
                let owes = !self.owed.is_empty() || sinks.look_at.is_some();
                if matches!(self.is, Is::Gone(at) if !owes && at + DAY <= now) {
                    *self = Model::default();
                }
                "ok"
            }
            Op::Timeout(_) if !here || self.failed => "ok",
            Op::Notify { .. } if !here => "discarded",
            _ if !here => "not found",
            Op::Notify { stale: true, .. } => "discarded",
            Op::Notify { .. } if self.handled.contains(&id) => "discarded",
            Op::Notify { .. } if self.failed => "parked",
            Op::Repair(_) | Op::SimpleRepair if !self.failed => "working",
            Op::Call(_) if self.failed => "failed",
            Op::Remove => {
                self.remove(now);
                "ok"
            }
            Op::SimpleRepair => {
                (self.failed, self.tag_taken) = (false, false);
                self.look_at = Some(now);
                "ok"
            }
            Op::Timeout(_) if self.retry.map(|(_, at)| at).or(self.timer).is_none_or(|due| due > now) => "ok",
            Op::Call(out) => self.asked(out, now),
            Op::Repair(Out::Declined) => "declined",
            Op::Repair(out) => {
                let answer = self.asked(out, now);
                if (answer == "ok" || out.tag() == Tag::Taken) && self.is == Is::Here {
                    self.look_at = Some(now);
                }
                answer
            }
            Op::Timeout(Out::Transient) => {
                let failures = self.retry.map_or(0, |(failures, _)| failures + 1);
                match [1_000, 2_000].get(failures) {
                    Some(delay) => self.retry = Some((failures, now + delay)),
                    None => self.failed = true,
                }
                "unavailable"
            }
            Op::Timeout(out) => {
                if let Out::Done { .. } = out {
                    self.timer = None;
                }
                self.asked(out, now)
            }
            Op::Notify { out: Out::Transient, .. } => {
                self.look_at = Some(now + NOTIFICATION_RETRY_MS);
                "unavailable"
            }
            Op::Notify { out, .. } => {
                let answer = self.asked(out, now);
                if (answer == "ok" || out.tag() == Tag::Taken) && self.is == Is::Here {
                    self.handled.push(id);
                    self.look_at = self.look_at.map(|_| now);
                }
                answer
            }
        }
    }

    fn asked(&mut self, out: &Out, now: i64) -> &'static str {
        match out {
            Out::Done { .. } => self.done(out, now),
            Out::Transient | Out::HeldBack => "unavailable",
            Out::TooBig | Out::Unexpected | Out::Declined => {
                self.failed = true;
                "failed"
            }
        }
    }

    fn done(&mut self, out: &Out, now: i64) -> &'static str {
        let Out::Done { events, aux, timer, remove, tag } = out else { return "failed" };
        (self.failed, self.tag_taken, self.retry) = (false, false, None);
        match timer {
            TimerOp::Leave => {}
            TimerOp::Unset => self.timer = None,
            TimerOp::Seconds(seconds) => self.timer = Some(now + i64::from(*seconds) * 1_000),
            TimerOp::At(offset) => self.timer = Some(now + offset),
        }
        self.events += events;
        self.aux = aux.unwrap_or(self.aux);
        if *tag == Tag::Taken {
            (self.failed, self.tag_taken) = (true, true);
            return "failed";
        }
        if *remove {
            self.remove(now);
        }
        "ok"
    }

    fn remove(&mut self, now: i64) {
        let mut owed = std::mem::take(&mut self.owed);
        owed.push((self.epoch, self.events, false));
        *self = Model { is: Is::Gone(now), epoch: self.epoch, events: self.events, owed, ..Model::default() };
    }
}

// === impl Out ===

impl Out {
    fn tag(&self) -> Tag {
        if let Out::Done { tag, .. } = self { *tag } else { Tag::None }
    }
}

// === What happens ===

fn any_out() -> impl Strategy<Value = Out> {
    let timer = prop_oneof![
        4 => Just(TimerOp::Leave),
        1 => Just(TimerOp::Unset),
        3 => (-2..5_i32).prop_map(TimerOp::Seconds),
        2 => (-2_000..5_000_i64).prop_map(TimerOp::At),
    ];
    let tag = prop_oneof![10 => Just(Tag::None), 1 => Just(Tag::Free), 1 => Just(Tag::Taken)];
    let done = (0..4_i64, prop::option::of(0..4_i64), timer, prop::bool::weighted(0.05), tag);
    prop_oneof![
        10 => done.prop_map(|(events, aux, timer, remove, tag)| Out::Done { events, aux, timer, remove, tag }),
        1 => Just(Out::TooBig),
        1 => Just(Out::Declined),
        3 => Just(Out::Transient),
        2 => Just(Out::Unexpected),
        1 => Just(Out::HeldBack),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    let notify = (prop::bool::weighted(0.2), prop::bool::weighted(0.1), any_out());
    prop_oneof![
        4 => any_out().prop_map(Op::Init),
        4 => any_out().prop_map(Op::Call),
        3 => any_out().prop_map(Op::Repair),
        2 => Just(Op::SimpleRepair),
        1 => Just(Op::Remove),
        6 => any_out().prop_map(Op::Timeout),
        4 => notify.prop_map(|(again, stale, out)| Op::Notify { again, stale, out }),
        1 => Just(Op::Drained),
        1 => any::<bool>().prop_map(|cut_off| Op::Paid { cut_off }),
        1 => Just(Op::Acknowledged),
        8 => (0..3_usize, 0..4_i64).prop_map(|(sink, most)| Op::Send { sink, most }),
        8 => (0..3_usize, 0..9_usize, prop::bool::weighted(0.2)).prop_map(|(sink, which, again)| Op::Answer {
            sink,
            which,
            again,
        }),
        1 => Just(Op::Crash),
        1 => Just(Op::Forget),
        3 => (0..3_000_i64).prop_map(Op::Pass),
        3 => Just(Op::PassUntilDue),
    ]
}

/// Of the whole test, at the most.
const ROUNDS: usize = 5;

#[test]
fn a_machine_is_what_its_model_says_whatever_happens_to_it() {
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    let (met, seen) = (RefCell::new(BTreeSet::new()), RefCell::new(BTreeSet::new()));
    let run = || {
        TestRunner::new(config.clone()).run(&prop::collection::vec(any_op(), 1..160), |ops| {
            let (mut real, mut model, mut sinks) = (Real::default(), Model::default(), Sinks::default());
            let (mut now, mut id) = (NOW, 0);
            for op in ops {
                match &op {
                    Op::Pass(ms) => now += ms,
                    Op::PassUntilDue => now = model.due(&sinks).map_or(now, |due| due.max(now)),
                    Op::Notify { again: false, .. } => id += 1,
                    Op::Send { sink, most } => sinks.send(*sink, *most, &real),
                    Op::Answer { sink, which, again } => sinks.acknowledge(*sink, *which, *again, &mut real),
                    Op::Crash => sinks.crash(),
                    _ => {}
                }
                let kind = real.record.as_ref().map(|record| record.kind() as u8);
                let (commits, before) = (real.commits, model.clone());
                let answer = real.take(&op, id, now);
                let expected = model.take(&op, id, real.commits.max(1), now, &sinks);
                // The core keeps only so many notes; here an older one never comes again.
                let surplus = model.handled.len().saturating_sub(KEPT_NOTES);
                model.handled.drain(..surplus);
                let committed = real.commits > commits;
                if committed {
                    sinks.owe(&before, &model, now);
                    model.owed.iter_mut().for_each(|(epoch, _, wanted)| *wanted = sinks.want(*epoch));
                }
                prop_assert_eq!(answer, expected, "{:?}", op);
                prop_assert_eq!(&real.seen(), &model, "{:?}", op);
                sinks.check(real.record.as_ref());
                let due = real.record.as_ref().and_then(Record::due);
                prop_assert_eq!(due, model.due(&sinks));
                let wake = real.record.as_ref().and_then(|record| wake(record, now));
                prop_assert_eq!(wake.is_some(), due.is_some_and(|due| due <= now));
                real.check_journal();
                met.borrow_mut().insert((kind, answer));
                // So that no two changes of life are of the same time.
                now += i64::from(committed);
            }
            seen.borrow_mut().extend(sinks.saw());
            Ok(())
        })
    };
    // Each status was met with each answer that it gives, or the test shows nothing. Chance may want a second round.
    let missing = || {
        let of_working = ["ok", "exists", "working", "unavailable", "failed", "discarded"];
        let all = [
            (None, &["ok", "unavailable", "failed", "not found", "discarded"][..]),
            (Some(StatusKind::Sleeping), &of_working),
            (Some(StatusKind::Waiting), &of_working),
            (Some(StatusKind::Retrying), &of_working),
            (Some(StatusKind::Failed), &["ok", "exists", "unavailable", "failed", "declined", "discarded", "parked"]),
            (Some(StatusKind::Removed), &["ok", "unavailable", "failed", "not found", "discarded"]),
        ];
        let pairs = all.into_iter().flat_map(|(kind, answers)| answers.iter().map(move |answer| (kind, *answer)));
        let met = met.borrow();
        pairs.filter(|(kind, answer)| !met.contains(&(kind.map(|kind| kind as u8), *answer))).collect::<Vec<_>>()
    };
    for _ in 0..ROUNDS {
        if let Err(failure) = run() {
            panic!("{failure}");
        }
        if missing().is_empty() {
            break;
        }
    }
    let kinds = BTreeSet::from(["created", "event", "failed", "removed", "repaired"]);
    assert_eq!(*seen.borrow(), kinds, "or the sinks show nothing");
    assert_eq!(missing(), [], "statuses and answers that were never met");
}
