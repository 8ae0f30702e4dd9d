//! The core, driven as an engine drives it.

use super::*;

#[derive(Default)]
pub(super) struct Real {
    pub(super) record: Option<Record>,
    /// As the store has it: without what was acknowledged since.
    stored: Option<Bytes>,
    /// The acknowledged events, by epoch and id.
    pub(super) journal: BTreeMap<(CommitId, i64), Bytes>,
    pub(super) commits: u128,
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
    pub(super) fn take(&mut self, op: &Op, id: i64, now: i64) -> &'static str {
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
    pub(super) fn seen(&self) -> Model {
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
                Phase::Retrying { attempt, at, .. } => Some((attempt as usize, at)),
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
    pub(super) fn check_journal(&self) {
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
