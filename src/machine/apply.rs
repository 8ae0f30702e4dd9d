//! What a step makes of a machine: every rule of how an outcome changes the record.

use std::time::Duration;

use bytes::Bytes;

use super::impact::{Answer, Change, Impact, NotificationId, Outcome, Refusal, Success, TimerChange};
use super::key::CommitId;
use super::outbox::{Subscription, Unsent, owe};
use super::record::{Debt, KEPT_NOTES, LONGEST_REASON, Phase, Record, RequestContext, Status, Timer, blank_aux_state};
use super::retry::RetryPolicy;
use crate::wire::{Content, Event, HistoryRange, Value, Wire, Writer, timestamp};

/// Milliseconds until a machine that owes only sinks that are configured no more looks whether they are again.
const UNKNOWN_SINK_MS: i64 = 600_000;

const NO_REPAIR: &str = "the processor declined no repair";

/// What a step takes from outside: time and randomness.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    pub now_micros: i64,
    /// The id that the step's commit will have, if it has one.
    pub commit: CommitId,
    /// In 0..1, for retry delays.
    pub jitter: f64,
    /// The store said that the step's tag belongs to another machine.
    pub tag_taken: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of new events and aux state in one step.
    pub step_size: usize,
}

/// A namespace's rules.
#[derive(Clone, Debug)]
pub struct Policy {
    pub timer_retries: RetryPolicy,
    /// Milliseconds until a notification that failed transiently is tried again.
    pub notification_retry_ms: i64,
    pub limits: Limits,
    /// The sinks, in the order of the configuration.
    pub subscriptions: Vec<Subscription>,
    /// Milliseconds until a machine that takes no more steps notes in the store what sinks have acknowledged.
    pub outbox_clear_ms: i64,
}

/// What a commit writes, conditional on the record that it was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The record to put; none if the tombstone goes.
    pub record: Option<Record>,
    /// New events, wire encoded, with consecutive ids that end at the record's `last_event`.
    pub events: Vec<Bytes>,
    /// The notification that took effect.
    pub handled: Option<NotificationId>,
    /// The tag that the machine claims. If another machine has it, the step is applied again with `tag_taken`.
    pub tag: Option<Bytes>,
    /// Events of the record's epoch that are replaced: id, wire encoding.
    pub replaced: Vec<(i64, Bytes)>,
}

/// What becomes of an impact: maybe a step, and what the caller is told once it is committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// None: nothing changes, be it a refusal or a call that only looked.
    pub step: Option<Step>,
    pub answer: Answer,
    /// Why a machine failed that is not there to tell: a Start that made none, or a repair of one that had failed before.
    pub failure: Option<String>,
}

impl Decision {
    /// Nothing changes.
    fn refused(refusal: Refusal) -> Self {
        Self { step: None, answer: Err(refusal), failure: None }
    }
}

/// `outcome` is the processor's, or none if [`super::dispatch`] said that the rules alone decide.
///
/// INVARIANT: called only with what `dispatch` let through for this record, so a missing record means a Start.
pub fn apply(
    record: Option<&Record>,
    impact: &Impact,
    context: &RequestContext,
    outcome: Option<Outcome>,
    policy: &Policy,
    stamp: Stamp,
) -> Decision {
    match (impact, outcome, record) {
        (Impact::Init { .. }, Some(outcome), _) => init(record, context, outcome, policy, stamp),
        (_, Some(outcome), Some(record)) if record.exists() => asked(record, impact, context, outcome, policy, stamp),
        (_, None, Some(record)) => decided(record, impact, policy, stamp),
        (_, _, _) => Decision::refused(Refusal::MachineNotFound),
    }
}

/// A Start: on nothing, or over a tombstone whose debts and commit ids are carried on.
fn init(
    tombstone: Option<&Record>,
    context: &RequestContext,
    outcome: Outcome,
    policy: &Policy,
    stamp: Stamp,
) -> Decision {
    debug_assert!(tombstone.is_none_or(|record| !record.exists()), "a Start never takes the place of a machine");
    // Nothing exists yet that could be failed.
    let failed = |reason| Decision { failure: Some(reason), ..Decision::refused(Refusal::MachineFailed) };
    let (response, change) = match outcome {
        Outcome::Done { response, change } => (response, change),
        Outcome::Transient(reason) | Outcome::HeldBack(reason) => {
            return Decision::refused(Refusal::Unavailable(reason));
        }
        Outcome::Unexpected(reason) => return failed(reason),
        Outcome::RepairFailed(_) => return failed(NO_REPAIR.to_owned()),
    };
    let blank = Record {
        commit: stamp.commit,
        earlier: tombstone.map(Record::history_of_commits).unwrap_or_default(),
        epoch: stamp.commit,
        status: Status::Working(Phase::Idle),
        aux_state: blank_aux_state(),
        timer: None,
        last_event: 0,
        notifications_due: None,
        handled: Vec::new(),
        debts: tombstone.map(|record| record.debts.clone()).unwrap_or_default(),
        unsent: tombstone.map(|record| record.unsent.clone()).unwrap_or_default(),
        outbox_due: None,
    };
    let tag = change.action.tag.clone().filter(|_| !stamp.tag_taken);
    match change_record(blank, change, context, policy, stamp) {
        Ok((record, events)) => {
            let answer = answer(&record, response);
            let step = Step { tag, ..step(tombstone, record, events, policy, stamp) };
            Decision { step: Some(step), answer, failure: None }
        }
        Err(reason) => failed(reason),
    }
}

fn asked(
    record: &Record,
    impact: &Impact,
    context: &RequestContext,
    outcome: Outcome,
    policy: &Policy,
    stamp: Stamp,
) -> Decision {
    match outcome {
        Outcome::Done { response, change } => {
            let mut next = successor(record, stamp);
            if matches!(impact, Impact::Timeout) {
                // The signal took the timer with it: without a timer action there is none any more.
                next.timer = None;
            }
            let tag = change.action.tag.clone().filter(|_| !stamp.tag_taken);
            match change_record(next, change, context, policy, stamp) {
                Ok((mut next, events)) => {
                    let handled = if let Impact::Notification(it) = impact { Some(it.id) } else { None };
                    if let Some(id) = handled.filter(|_| next.exists()) {
                        note(&mut next, id);
                    }
                    if matches!(impact, Impact::Notification(_) | Impact::Repair { .. }) {
                        next.notifications_due = look_again(&next, impact, stamp);
                    }
                    let answer = answer(&next, response);
                    let new = handled.is_some() || tag.is_some() || !events.is_empty() || changed(record, &next);
                    let step = new.then(|| Step { handled, tag, ..step(Some(record), next, events, policy, stamp) });
                    Decision { step, answer, failure: None }
                }
                Err(reason) => unexpected(record, impact, reason, policy, stamp),
            }
        }
        Outcome::RepairFailed(reason) if matches!(impact, Impact::Repair { .. }) => {
            Decision::refused(Refusal::RepairFailed(reason))
        }
        Outcome::RepairFailed(_) => unexpected(record, impact, NO_REPAIR.to_owned(), policy, stamp),
        Outcome::Unexpected(reason) => unexpected(record, impact, reason, policy, stamp),
        Outcome::HeldBack(reason) => Decision::refused(Refusal::Unavailable(reason)),
        Outcome::Transient(reason) => {
            let next = match impact {
                Impact::Timeout => Some(retry_timer(record, &reason, policy, stamp)),
                Impact::Notification(_) => {
                    let mut next = successor(record, stamp);
                    next.notifications_due = Some(now(stamp).saturating_add(policy.notification_retry_ms));
                    Some(next)
                }
                _ => None,
            };
            let step = next.map(|next| step(Some(record), next, Vec::new(), policy, stamp));
            Decision { step, ..Decision::refused(Refusal::Unavailable(reason)) }
        }
    }
}

/// A tag that belongs to another machine fails this one, with all else that the step did.
fn answer(next: &Record, response: Option<Value>) -> Answer {
    match next.status {
        Status::Failed { .. } => Err(Refusal::MachineFailed),
        _ => Ok(response.map_or(Success::Done, Success::Response)),
    }
}

/// The processor, or its answer, was wrong.
fn unexpected(record: &Record, impact: &Impact, reason: String, policy: &Policy, stamp: Stamp) -> Decision {
    let refused = Decision::refused(Refusal::MachineFailed);
    match &record.status {
        // A failed repair keeps the original reason, and changes nothing.
        Status::Failed { .. } => {
            debug_assert!(matches!(impact, Impact::Repair { .. }), "only a repair is asked of a failed machine");
            Decision { failure: Some(reason), ..refused }
        }
        _ => {
            let step = step(Some(record), fail(record, reason, stamp), Vec::new(), policy, stamp);
            Decision { step: Some(step), ..refused }
        }
    }
}

/// A delivery that is repeated is recognised by the note.
fn note(next: &mut Record, id: NotificationId) {
    next.handled.push(id);
    next.handled.drain(..next.handled.len().saturating_sub(KEPT_NOTES));
}

fn fail(record: &Record, mut reason: String, stamp: Stamp) -> Record {
    reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
    let before = match &record.status {
        Status::Working(phase) | Status::Failed { before: phase, .. } => *phase,
        Status::Removed { .. } => Phase::Idle,
    };
    Record { status: Status::Failed { reason, before }, ..successor(record, stamp) }
}

fn retry_timer(record: &Record, reason: &str, policy: &Policy, stamp: Stamp) -> Record {
    let now = now(stamp);
    let (attempt, since) = match &record.status {
        Status::Working(Phase::Retrying { attempt, since, .. }) => (attempt.saturating_add(1), since.unwrap_or(now)),
        _ => (0, now),
    };
    let elapsed = Duration::from_millis(u64::try_from(now.saturating_sub(since)).unwrap_or(0));
    match policy.timer_retries.delay_after(attempt, elapsed, stamp.jitter) {
        Some(delay) => {
            let at = now.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
            let phase = Phase::Retrying { attempt, at, since: Some(since) };
            Record { status: Status::Working(phase), ..successor(record, stamp) }
        }
        None => fail(record, format!("timer_retries_exhausted after {attempt} retries, the last for: {reason}"), stamp),
    }
}

/// What the rules decide without a processor.
fn decided(record: &Record, impact: &Impact, policy: &Policy, stamp: Stamp) -> Decision {
    let next = match impact {
        Impact::SimpleRepair => {
            let mut next = successor(record, stamp);
            if let Status::Failed { before, .. } = &record.status {
                next.status = Status::Working(*before);
            }
            next.notifications_due = look_again(&next, impact, stamp);
            Some(next)
        }
        Impact::Remove => Some(remove(successor(record, stamp), stamp)),
        Impact::Paid { epochs } => {
            let mut next = successor(record, stamp);
            next.debts.retain(|debt| debt.wanted || !epochs.contains(&debt.epoch));
            if let Status::Removed { at } = &mut next.status {
                *at = now(stamp);
            }
            Some(next)
        }
        Impact::Drained => Some(Record { notifications_due: None, ..successor(record, stamp) }),
        Impact::Acknowledged => {
            let mut next = successor(record, stamp);
            if let Status::Removed { at } = &mut next.status
                && next.unsent.is_empty()
            {
                *at = now(stamp);
            }
            Some(next)
        }
        Impact::Modernize { events, .. } => {
            let step = Step {
                replaced: events.clone(),
                ..step(Some(record), successor(record, stamp), Vec::new(), policy, stamp)
            };
            return Decision { step: Some(step), answer: Ok(Success::Done), failure: None };
        }
        Impact::Forget => None,
        Impact::Init { .. }
        | Impact::Call { .. }
        | Impact::Repair { .. }
        | Impact::Timeout
        | Impact::Notification(_) => {
            let answer = Err(Refusal::Unavailable("nothing happens without the processor's answer".to_owned()));
            return Decision { step: None, answer, failure: None };
        }
    };
    let step = match next {
        Some(next) => step(Some(record), next, Vec::new(), policy, stamp),
        None => Step { record: None, events: Vec::new(), handled: None, tag: None, replaced: Vec::new() },
    };
    Decision { step: Some(step), answer: Ok(Success::Done), failure: None }
}

/// What is committed: the record with all that the step makes it owe.
fn step(before: Option<&Record>, mut next: Record, events: Vec<Bytes>, policy: &Policy, stamp: Stamp) -> Step {
    owe(before, &mut next, events.len(), &policy.subscriptions, stamp.now_micros);
    for place in 0..next.debts.len() {
        next.debts[place].wanted = next.is_unsent(next.debts[place].epoch);
    }
    let configured = |unsent: &Unsent| policy.subscriptions.iter().any(|it| it.sink == unsent.sink);
    let look_ms = match next.unsent.iter().any(configured) {
        true => Some(policy.outbox_clear_ms),
        false => (!next.unsent.is_empty()).then_some(UNKNOWN_SINK_MS),
    };
    let due = before.and_then(|before| before.outbox_due);
    next.outbox_due = look_ms.map(|delay| look_at(due, now(stamp), delay));
    Step { record: Some(next), events, handled: None, tag: None, replaced: Vec::new() }
}

/// When the machine has to look whether all was acknowledged: `delay` after now, or up to half of that earlier if it was
/// due then already. A due that moves is paid for in every storage's index, so a busy machine moves it rarely.
fn look_at(due: Option<i64>, now: i64, delay: i64) -> i64 {
    let (soonest, latest) = (now.saturating_add(delay / 2), now.saturating_add(delay));
    due.filter(|due| (soonest..=latest).contains(due)).unwrap_or(latest)
}

/// When the machine has to look for notifications after a step that may let more of them in.
///
/// An entry brings a due of its own, until it is parked: from then on the record's due stands for it. So a record that
/// stands for parked entries goes on doing so until none are found, and a repair assumes that there are some.
fn look_again(next: &Record, impact: &Impact, stamp: Stamp) -> Option<i64> {
    let parked = next.notifications_due.is_some() || !matches!(impact, Impact::Notification(_));
    (next.exists() && parked).then(|| now(stamp))
}

/// Whether `next` says anything new besides its commit: a step that changes nothing commits nothing.
fn changed(record: &Record, next: &Record) -> bool {
    *record != Record { commit: record.commit, earlier: record.earlier.clone(), ..next.clone() }
}

/// The record as the step's commit finds it, under the new commit id.
fn successor(record: &Record, stamp: Stamp) -> Record {
    Record { commit: stamp.commit, earlier: record.history_of_commits(), ..record.clone() }
}

/// The order of the original: timer, events, aux state, then removal over all of it.
fn change_record(
    mut next: Record,
    change: Change,
    context: &RequestContext,
    policy: &Policy,
    stamp: Stamp,
) -> Result<(Record, Vec<Bytes>), String> {
    let Change { aux_state, events, action } = change;
    match action.timer {
        None => {}
        Some(TimerChange::Unset) => next.timer = None,
        Some(TimerChange::In { seconds, range, timeout }) => {
            let due = millis_up(stamp.now_micros.saturating_add(i64::from(seconds) * 1_000_000));
            // At once is now, not within the next millisecond.
            let due = if seconds > 0 { due } else { due.min(now(stamp)) };
            next.timer = Some(arm(due, range, timeout, context)?);
        }
        Some(TimerChange::At { due, range, timeout }) => next.timer = Some(arm(due, range, timeout, context)?),
    }
    next.status = Status::Working(Phase::Idle);

    let created_at = Bytes::from(timestamp::format_micros(stamp.now_micros));
    let mut size = 0;
    let mut encoded = Vec::with_capacity(events.len());
    for Content { format_version, data } in events {
        next.last_event += 1;
        let mut writer = Writer::with_capacity(data.as_bytes().len() + 64);
        Event { id: next.last_event, created_at: created_at.clone(), format_version, data }.write(&mut writer);
        let bytes = writer.into_bytes();
        size += bytes.len();
        encoded.push(bytes);
    }
    if let Some(Content { format_version, data }) = aux_state {
        size += data.as_bytes().len();
        // Kept for long: must not hold the processor's whole answer alive.
        next.aux_state = Content { format_version, data: data.detached() };
    }
    if size > policy.limits.step_size {
        return Err(format!(
            "the step's events and aux state have {size} bytes, limits.step_size allows {}",
            policy.limits.step_size
        ));
    }
    if stamp.tag_taken && action.tag.is_some() {
        next.status = Status::Failed {
            reason: "double_tagging: the tag belongs to another machine".to_owned(),
            before: Phase::Idle,
        };
    } else if action.remove {
        next = remove(next, stamp);
    }
    Ok((next, encoded))
}

fn arm(due: i64, range: HistoryRange, timeout: i32, context: &RequestContext) -> Result<Timer, String> {
    if let Some(limit) = range.limit.filter(|limit| *limit < 0) {
        return Err(format!("the timer's history range has a negative limit: {limit}"));
    }
    Ok(Timer { due, range, timeout, context: context.detached() })
}

/// The tombstone of a machine. Its epoch's events and notifications are owed to deletion.
fn remove(record: Record, stamp: Stamp) -> Record {
    let mut debts = record.debts;
    // Whether a sink wants them is noted with the commit, like that of all others.
    debts.push(Debt { epoch: record.epoch, last_event: record.last_event, wanted: false });
    Record {
        commit: record.commit,
        earlier: record.earlier,
        epoch: record.epoch,
        status: Status::Removed { at: now(stamp) },
        aux_state: blank_aux_state(),
        timer: None,
        last_event: record.last_event,
        notifications_due: None,
        handled: Vec::new(),
        debts,
        unsent: record.unsent,
        outbox_due: record.outbox_due,
    }
}

/// A wake-up that is due in the middle of a millisecond waits for its end: never early.
fn millis_up(micros: i64) -> i64 {
    micros.div_euclid(1_000) + i64::from(micros.rem_euclid(1_000) > 0)
}

fn now(stamp: Stamp) -> i64 {
    stamp.now_micros.div_euclid(1_000)
}
