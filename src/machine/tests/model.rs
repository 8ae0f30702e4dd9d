//! The core against a small model of its own: random impacts, outcomes and times, one after another.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

mod sinks;

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

// === The core, driven as an engine drives it ===

#[derive(Default)]
struct Real {
    record: Option<Record>,
    /// As the store has it: without what was acknowledged since.
    stored: Option<Bytes>,
    /// The acknowledged events, by epoch and id.
    journal: BTreeMap<(CommitId, i64), Bytes>,
    commits: u128,
}

fn commit_of(n: u128) -> CommitId {
    CommitId(n.to_be_bytes())
}

fn word(answer: &Answer) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(Refusal::MachineNotFound) => "not found",
        Err(Refusal::MachineAlreadyExists) => "exists",
        Err(Refusal::MachineFailed) => "failed",
        Err(Refusal::MachineAlreadyWorking) => "working",
        Err(Refusal::RepairFailed(_)) => "declined",
        Err(Refusal::Unavailable(_)) => "unavailable",
    }
}

fn outcome(out: &Out, now: i64) -> Outcome {
    let range = HistoryRange::ALL;
    match out {
        Out::Done { events, aux, timer, remove, tag } => {
            let timer = match *timer {
                TimerOp::Leave => None,
                TimerOp::Unset => Some(TimerChange::Unset),
                TimerOp::Seconds(seconds) => Some(TimerChange::In { seconds, range, timeout: 30 }),
                TimerOp::At(offset) => Some(TimerChange::At { due: now + offset, range, timeout: 30 }),
            };
            let tag = (*tag != Tag::None).then(|| Bytes::from_static(b"tag"));
            let events = (0..*events).map(|n| Content { format_version: None, data: Value::int(now + n) }).collect();
            let aux_state = aux.map(|aux| Content { format_version: None, data: Value::int(aux) });
            done(Change { aux_state, events, action: Action { timer, tag, remove: *remove } })
        }
        Out::TooBig => done(too_big()),
        Out::Declined => Outcome::RepairFailed(Value::nil()),
        Out::Transient => Outcome::Transient("busy".to_owned()),
        Out::Unexpected => Outcome::Unexpected("bug".to_owned()),
        Out::HeldBack => Outcome::HeldBack("full".to_owned()),
    }
}

impl Real {
    fn take(&mut self, op: &Op, id: i64, now: i64) -> &'static str {
        let (impact, out) = match op {
            Op::Pass(_) | Op::PassUntilDue | Op::Send { .. } | Op::Answer { .. } => return "ok",
            Op::Crash => {
                self.record = self.stored.as_ref().map(|bytes| Record::decode(bytes).expect("what was stored is read"));
                return "ok";
            }
            Op::Init(out) => (init(), Some(out)),
            Op::Call(out) => (call(), Some(out)),
            Op::Repair(out) => (repair(), Some(out)),
            Op::Timeout(out) => (Impact::Timeout, Some(out)),
            Op::Notify { stale, out, .. } => {
                let epoch = self.record.as_ref().filter(|_| !stale).map_or(commit_of(0), |record| record.epoch);
                (notification(id, epoch), Some(out))
            }
            Op::SimpleRepair => (Impact::SimpleRepair, None),
            Op::Remove => (Impact::Remove, None),
            Op::Drained => (Impact::Drained, None),
            Op::Paid { cut_off } => {
                let owed = self.record.iter().flat_map(Record::payable);
                let epochs: Vec<_> = owed.map(|debt| debt.epoch).collect();
                self.journal.retain(|(epoch, _), _| !epochs.contains(epoch));
                if *cut_off {
                    return "ok";
                }
                (Impact::Paid { epochs }, None)
            }
            Op::Acknowledged => (Impact::Acknowledged, None),
            Op::Forget => (Impact::Forget, None),
        };
        let outcome = match dispatch(self.record.as_ref(), &impact, now) {
            Dispatch::Answer(answer) => return word(&answer),
            Dispatch::Discard => return "discarded",
            Dispatch::Park => return "parked",
            Dispatch::Decide => None,
            Dispatch::Ask => Some(outcome(out.expect("rules alone decide of what has no outcome"), now)),
        };
        let stamp = Stamp { commit: commit_of(self.commits + 1), ..stamp(now) };
        let attempt = |stamp| apply(self.record.as_ref(), &impact, &context("c"), outcome.clone(), &sinks(), stamp);
        let mut decision = attempt(stamp);
        let tag = out.map_or(Tag::None, Out::tag);
        let claimed = decision.step.as_ref().and_then(|step| step.tag.as_ref());
        assert_eq!(claimed.is_some(), tag != Tag::None && outcome.is_some());
        if tag == Tag::Taken && claimed.is_some() {
            decision = attempt(Stamp { tag_taken: true, ..stamp });
            assert_eq!(decision.step.as_ref().and_then(|step| step.tag.as_ref()), None);
        }
        if let Some(step) = decision.step {
            self.commits += 1;
            self.commit(step);
        }
        word(&decision.answer)
    }

    fn commit(&mut self, step: Step) {
        let Some(record) = step.record else {
            assert!(step.events.is_empty());
            assert!(self.record.as_ref().is_some_and(|record| record.unsent.is_empty() && record.debts.is_empty()));
            (self.record, self.stored) = (None, None);
            return;
        };
        assert_eq!(record.commit, commit_of(self.commits));
        assert_eq!(record.earlier, self.record.as_ref().map(Record::history_of_commits).unwrap_or_default());
        let read = self.record.as_ref().filter(|read| read.epoch == record.epoch);
        let last = read.map_or(0, |read| read.last_event);
        for (id, event) in (last + 1..).zip(&step.events) {
            assert_eq!(decode(event).id, id);
            let before = self.journal.insert((record.epoch, id), event.clone());
            assert_eq!(before, None, "an acknowledged event never changes");
        }
        assert_eq!(record.last_event, last + step.events.len() as i64);
        let stored = record.encode();
        self.record = Some(Record::decode(&stored).expect("what was stored is read"));
        self.stored = Some(stored);
    }

    /// What the model speaks of.
    fn seen(&self) -> Model {
        let Some(record) = &self.record else { return Model::default() };
        let phase = match record.status {
            Status::Working(phase) | Status::Failed { before: phase, .. } => phase,
            Status::Removed { .. } => Phase::Idle,
        };
        Model {
            is: if let Status::Removed { at } = record.status { Is::Gone(at) } else { Is::Here },
            epoch: u128::from_be_bytes(record.epoch.0),
            retry: match phase {
                Phase::Idle => None,
                Phase::Retrying { attempt, at } => Some((attempt as usize, at)),
            },
            failed: record.kind() == StatusKind::Failed,
            tag_taken: matches!(&record.status, Status::Failed { reason, .. } if reason.starts_with("double_tagging")),
            timer: record.timer.as_ref().map(|timer| timer.due),
            events: record.last_event,
            aux: (0..4).find(|aux| record.aux_state.data == Value::int(*aux)).unwrap_or(0),
            look_at: record.notifications_due,
            handled: record.handled.clone(),
            owed: record.debts.iter().map(|it| (u128::from_be_bytes(it.epoch.0), it.last_event, it.wanted)).collect(),
        }
    }

    /// Every event of the machine is there, and every one that a sink may still want; no others but those of debts.
    fn check_journal(&self) {
        let record = self.record.as_ref();
        let ids = |epoch, last| (1..=last).map(move |id| (epoch, id));
        let own = record.filter(|record| record.exists()).into_iter().flat_map(|it| ids(it.epoch, it.last_event));
        let debts = || record.into_iter().flat_map(|record| &record.debts);
        let wanted = debts().filter(|debt| debt.wanted).flat_map(|debt| ids(debt.epoch, debt.last_event));
        let owed = debts().flat_map(|debt| ids(debt.epoch, debt.last_event));
        let all: BTreeSet<_> = own.clone().chain(owed).collect();
        assert!(own.chain(wanted).all(|event| self.journal.contains_key(&event)), "an event is missing");
        assert!(self.journal.keys().all(|event| all.contains(event)), "an event is left over");
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

#[test]
fn a_machine_is_what_its_model_says_whatever_happens_to_it() {
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    let (met, seen) = (RefCell::new(BTreeSet::new()), RefCell::new(BTreeSet::new()));
    let run = TestRunner::new(config).run(&prop::collection::vec(any_op(), 1..160), |ops| {
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
    });
    if let Err(failure) = run {
        panic!("{failure}");
    }
    let kinds = BTreeSet::from(["created", "event", "failed", "removed", "repaired"]);
    assert_eq!(*seen.borrow(), kinds, "or the sinks show nothing");
    // Each status was met with each answer that it gives, or the test shows nothing.
    let of_working = ["ok", "exists", "working", "unavailable", "failed", "discarded"];
    for (kind, answers) in [
        (None, &["ok", "unavailable", "failed", "not found", "discarded"][..]),
        (Some(StatusKind::Sleeping), &of_working),
        (Some(StatusKind::Waiting), &of_working),
        (Some(StatusKind::Retrying), &of_working),
        (Some(StatusKind::Failed), &["ok", "exists", "unavailable", "failed", "declined", "discarded", "parked"]),
        (Some(StatusKind::Removed), &["ok", "unavailable", "failed", "not found", "discarded"]),
    ] {
        for answer in answers {
            assert!(met.borrow().contains(&(kind.map(|kind| kind as u8), *answer)), "{kind:?} never answered {answer}");
        }
    }
}
