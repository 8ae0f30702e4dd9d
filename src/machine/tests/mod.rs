//! The core's rules as tables, its formats as bytes, and the whole of it against a model.

mod dispatching;
mod events;
mod format;
mod lifecycle;
mod model;
mod modernizing;
mod notifications;
mod outbox;
mod outcomes;
mod removal;
mod retries;
mod tags;
mod timers;
mod waking;

use std::time::Duration;

use bytes::Bytes;

use super::retry::{MaxRetries, RetryPolicy};
use super::*;
use crate::wire::{Content, Event, HistoryRange, Limits as WireLimits, Reader, Value, Wire};

/// A whole second.
const NOW: i64 = 1_700_000_000_000;
const STEP_SIZE: usize = 1_000;
const NOTIFICATION_RETRY_MS: i64 = 7_000;
const OUTBOX_CLEAR_MS: i64 = 10_000;

fn commit(n: u8) -> CommitId {
    CommitId([n; 16])
}

/// The epoch of every fixture.
fn epoch() -> Epoch {
    commit(1)
}

fn stamp(now: i64) -> Stamp {
    Stamp { now_micros: now * 1_000, commit: commit(200), jitter: 0.5, tag_taken: false }
}

/// Events that sinks have not acknowledged, each counted once per sink.
fn unsent_events(record: &Record) -> u64 {
    record.unsent.iter().flat_map(|unsent| &unsent.parcels).map(Parcel::events).fold(0, u64::saturating_add)
}

/// Retries after 1 s and after 2 s, then the end. No sinks.
fn policy() -> Policy {
    Policy {
        timer_retries: RetryPolicy::exponential(MaxRetries::Times(2), 2.0, Duration::from_secs(1), None),
        notification_retry_ms: NOTIFICATION_RETRY_MS,
        limits: Limits { step_size: STEP_SIZE },
        subscriptions: Vec::new(),
        outbox_clear_ms: OUTBOX_CLEAR_MS,
    }
}

/// The same with three sinks: one for events, one for changes of life, one for both.
fn sinks() -> Policy {
    let sink = |sink: &str, events, lifecycle| Subscription { sink: sink.to_owned(), events, lifecycle };
    let subscriptions = vec![sink("events", true, false), sink("life", false, true), sink("both", true, true)];
    Policy { subscriptions, ..policy() }
}

fn context(name: &'static str) -> RequestContext {
    RequestContext {
        trace_id: Bytes::from_static(name.as_bytes()),
        span_id: Bytes::from_static(b"span"),
        meta: vec![(Bytes::from_static(b"user"), Bytes::from_static(b"someone"))],
        trace: vec![(Bytes::from_static(b"traceparent"), Bytes::from_static(b"00-1-2-01"))],
    }
}

fn content(text: &str) -> Content {
    Content { format_version: Some(3), data: Value::str(text) }
}

fn timer(due: i64) -> Timer {
    let range = HistoryRange { after: Some(1), limit: Some(2), ..HistoryRange::ALL };
    Timer { due, range, timeout: 30, context: context("timer") }
}

// === Machines, one of each status ===

/// Three events, an aux state, no timer.
fn sleeping() -> Record {
    Record {
        commit: commit(3),
        earlier: vec![commit(2), epoch()],
        epoch: epoch(),
        status: Status::Working(Phase::Idle),
        aux_state: content("aux"),
        timer: None,
        last_event: 3,
        notifications_due: None,
        handled: vec![40, 41],
        debts: Vec::new(),
        unsent: Vec::new(),
        outbox_due: None,
    }
}

fn waiting(due: i64) -> Record {
    Record { timer: Some(timer(due)), ..sleeping() }
}

/// The timer was due a minute ago, and fails since now.
fn retrying(attempt: u32, at: i64) -> Record {
    Record { status: Status::Working(Phase::Retrying { attempt, at, since: Some(NOW) }), ..waiting(NOW - 60_000) }
}

fn failed(before: &Record) -> Record {
    let Status::Working(phase) = before.status else { panic!("only a working machine fails") };
    Record { status: Status::Failed { reason: "first".to_owned(), before: phase }, ..before.clone() }
}

fn tombstone(at: i64, debts: Vec<Debt>) -> Record {
    Record {
        status: Status::Removed { at },
        aux_state: Content { format_version: None, data: Value::empty() },
        handled: Vec::new(),
        debts,
        ..sleeping()
    }
}

fn debt() -> Debt {
    Debt { epoch: epoch(), last_event: 3, wanted: false }
}

// === What sinks are owed ===

fn events(epoch: Epoch, first: i64, last: i64) -> Parcel {
    Parcel::Events { epoch, first, last }
}

/// A change of life at [`NOW`].
fn life(change: LifeChange) -> Parcel {
    Parcel::Lifecycle(Lifecycle { at_micros: NOW * 1_000, change })
}

fn fell(reason: &str) -> Parcel {
    life(LifeChange::Failed { reason: reason.to_owned() })
}

fn unsent(sink: &str, parcels: Vec<Parcel>) -> Unsent {
    Unsent { sink: sink.to_owned(), parcels, behind: 0 }
}

/// What a sink is owed, in its order.
fn owed(record: &Record, sink: &str) -> Vec<Parcel> {
    let mut all = record.unsent.iter().filter(|unsent| unsent.sink == sink);
    let owed = all.next().map(|unsent| unsent.parcels.clone()).unwrap_or_default();
    assert_eq!(all.next(), None, "a sink has one queue");
    owed
}

// === Impacts ===

fn init() -> Impact {
    Impact::Init { args: Value::nil() }
}

fn call() -> Impact {
    Impact::Call { args: Value::nil(), range: HistoryRange::ALL }
}

fn repair() -> Impact {
    Impact::Repair { args: Value::nil(), range: HistoryRange::ALL }
}

fn notification(id: NotificationId, epoch: Epoch) -> Impact {
    let (args, range) = (Value::str("note"), HistoryRange::ALL);
    Impact::Notification(Notification { id, epoch, args, range, context: context("notify") })
}

fn paid() -> Impact {
    Impact::Paid { epochs: vec![epoch()] }
}

/// Another event 2.
fn modernize(epoch: Epoch) -> Impact {
    Impact::Modernize { epoch, events: vec![(2, Bytes::from_static(b"modern"))] }
}

/// Not yet handled by the fixtures.
fn notified() -> Impact {
    notification(50, epoch())
}

// === Outcomes ===

fn done(change: Change) -> Outcome {
    Outcome::Done { response: Some(Value::str("response")), change }
}

fn appended(events: &[&str]) -> Change {
    Change { events: events.iter().map(|text| content(text)).collect(), ..Change::default() }
}

fn timed(timer: TimerChange) -> Change {
    Change { action: Action { timer: Some(timer), ..Action::default() }, ..Change::default() }
}

fn after(seconds: i32) -> TimerChange {
    TimerChange::In { seconds, range: HistoryRange::ALL, timeout: 30 }
}

fn removing() -> Change {
    Change { action: Action { remove: true, ..Action::default() }, ..Change::default() }
}

fn too_big() -> Change {
    appended(&["x".repeat(STEP_SIZE).as_str()])
}

fn response() -> Answer {
    Ok(Success::Response(Value::str("response")))
}

fn unavailable(reason: &str) -> Answer {
    Err(Refusal::Unavailable(reason.to_owned()))
}

// === Steps ===

/// Applies at [`NOW`], in the context `request`.
fn decide(record: Option<&Record>, impact: &Impact, outcome: impl Into<Option<Outcome>>) -> Decision {
    apply(record, impact, &context("request"), outcome.into(), &policy(), stamp(NOW))
}

/// The same with [`sinks`].
fn subscribed(record: Option<&Record>, impact: &Impact, outcome: impl Into<Option<Outcome>>) -> Decision {
    apply(record, impact, &context("request"), outcome.into(), &sinks(), stamp(NOW))
}

/// The record after a step with [`sinks`], which must have been one.
#[track_caller]
fn owing(record: &Record, impact: &Impact, outcome: impl Into<Option<Outcome>>) -> Record {
    let step = subscribed(Some(record), impact, outcome).step.expect("a step");
    step.record.expect("a record")
}

/// The record after a step that must have been one.
#[track_caller]
fn next(record: &Record, impact: &Impact, outcome: impl Into<Option<Outcome>>) -> Record {
    let step = decide(Some(record), impact, outcome).step.expect("a step");
    step.record.expect("a record")
}

/// The step that writes this record and nothing else.
fn only(record: Record) -> Step {
    Step { record: Some(record), events: vec![], handled: None, tag: None, replaced: vec![] }
}

/// The same machine as another commit, the next one, leaves it.
fn committed(record: Record, read: &Record) -> Record {
    Record { commit: commit(200), earlier: read.history_of_commits(), ..record }
}

fn decode(event: &Bytes) -> Event {
    let mut reader = Reader::new(event.clone(), WireLimits::default());
    let decoded = Event::read(&mut reader).expect("an event");
    assert_eq!(reader.position(), event.len(), "nothing follows the event");
    decoded
}
