//! One step: read, ask the processor, apply, commit, answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::Instrument;

use super::cache::Cached;
use super::error::EngineError;
use super::worker::Worker;
use super::{Request, Shared};
use crate::clock::{random_bytes, random_unit};
use crate::failpoint::{self, Failpoint};
use crate::machine::{
    self, Answer, CommitId, Dispatch, Impact, KEPT_COMMITS, NotificationId, Outcome, Phase, Record, RequestContext,
    Slice, Stamp, Status, Success, slice,
};
use crate::processor::{Ask, Question};
use crate::storage::{Commit, Loaded, Outcome as Committed, StorageError};
use crate::telemetry::metrics::Stored;
use crate::telemetry::trace::{happened, traced};
use crate::wire::{self, HistoryRange, timestamp};
use crate::woody::format_deadline;

/// Milliseconds beyond its deadline after which a processor that still has not answered is given up.
const GUARD_MS: i64 = 3_000;

/// How often a step meets a conflict before it is given up: so often its processor may be asked.
const MOST_CONFLICTS: usize = 2;

/// Milliseconds between two puts of a commit of unknown result when the policy has no more delays.
const LONGEST_WAIT_MS: i64 = 60_000;

/// What a round came to.
enum Round {
    Committed(Answer),
    /// Nothing was written, and nothing was to be: the answer is as good as the record that it was decided on.
    Unchanged {
        answer: Answer,
        asked: bool,
    },
    /// Another commit stands: all is to be dispatched again.
    Conflict,
}

/// What a round came to, once it is certain.
pub(super) enum Ended {
    Answered(Success),
    /// Another commit stands than the one that this was to follow: all is to be dispatched again.
    Conflict,
    /// What was held is not what stands: all is to be dispatched again. Nobody was asked, and nothing was put.
    Outdated,
}

/// A definite answer to a commit.
enum Put {
    Committed,
    Conflict,
    TagTaken,
}

// === impl Worker: the step ===

impl Worker {
    /// The machine's record as of the last commit, tombstones included.
    pub(super) async fn load(&mut self) -> Result<Option<Arc<Record>>, EngineError> {
        if let Some(record) = self.cached(|cached| cached.record.clone()) {
            self.namespace.metrics.cache_hit.inc();
            return Ok(record);
        }
        self.namespace.metrics.cache_miss.inc();
        let read = self.shared().storage.read(&self.key, None);
        let loaded = self.stored(Stored::GetMachine, read).await;
        self.loaded();
        match loaded {
            Ok(loaded) => {
                let record = loaded.map(|loaded| Arc::new(loaded.record));
                if let Some(record) = &record {
                    self.namespace.puts.took_effect(&self.key.id, &record.handled);
                }
                self.ownership.read();
                self.outbox.noted();
                self.change(|cell| *cell = Some(Cached::new(record.clone())));
                self.namespace.metrics.loaded.inc();
                happened!("machine loaded");
                Ok(record)
            }
            Err(error) => {
                self.namespace.metrics.loading_error.inc();
                tracing::error!(
                    mg_pulse_event_id = "mg_core_machine_lifecycle_loading_error",
                    error.class = "error",
                    error.reason = %error,
                    "loading failed"
                );
                Err(error.into())
            }
        }
    }

    /// Works off an impact, from the top again after a conflict, until it is decided or the deadline has passed.
    pub(super) async fn step(&mut self, impact: &Impact, request: &Request) -> Result<Success, EngineError> {
        let mut conflicts = 0;
        while conflicts < MOST_CONFLICTS {
            let record = self.load().await?;
            match self.once(record.as_ref(), impact, request, &[]).await? {
                Ended::Answered(answer) => return Ok(answer),
                Ended::Conflict => conflicts += 1,
                // What is read now is no older than this turn, so this happens once, unless others go on and on.
                Ended::Outdated => {}
            }
            self.conflict();
            if self.shared().clock.now() >= request.deadline {
                return Err(EngineError::TimedOut);
            }
        }
        Err(StorageError::Unavailable("other commits to this machine came between, time and again".to_owned()).into())
    }

    /// One round: dispatch, ask, apply, commit. `waiting` are the notifications that a failing one holds back, itself
    /// included.
    pub(super) async fn once(
        &mut self,
        record: Option<&Arc<Record>>,
        impact: &Impact,
        request: &Request,
        waiting: &[NotificationId],
    ) -> Result<Ended, EngineError> {
        failpoint::reached_by(Failpoint::RecordRead, impact);
        match self.round(record, impact, request, waiting).await {
            Ok(Round::Committed(answer)) => Ok(Ended::Answered(answer?)),
            Ok(Round::Conflict) => Ok(Ended::Conflict),
            Ok(Round::Unchanged { answer, .. }) if self.is_certain(record).await? => Ok(Ended::Answered(answer?)),
            Ok(Round::Unchanged { asked: false, .. }) => Ok(Ended::Outdated),
            Ok(Round::Unchanged { asked: true, .. }) => Ok(Ended::Conflict),
            // What was to be read with an outdated record may be gone by right.
            Err(EngineError::Storage(error @ StorageError::Corrupt(_))) => match self.stands(record).await {
                Ok(false) => Ok(Ended::Conflict),
                Ok(true) | Err(_) => Err(error.into()),
            },
            Err(error) => Err(error),
        }
    }

    async fn round(
        &mut self,
        record: Option<&Arc<Record>>,
        impact: &Impact,
        request: &Request,
        waiting: &[NotificationId],
    ) -> Result<Round, EngineError> {
        match machine::dispatch(record.map(|record| &**record), impact, self.shared().clock.now()) {
            Dispatch::Answer(answer) => Ok(Round::Unchanged { answer, asked: false }),
            // For notifications alone, and they are looked at before.
            Dispatch::Discard | Dispatch::Park => Ok(Round::Unchanged { answer: Ok(Success::Done), asked: false }),
            Dispatch::Decide => {
                let older = match (impact, record) {
                    (Impact::Modernize { epoch, events }, Some(record)) => {
                        let events = self.still_older(record, events).await?;
                        if events.is_empty() {
                            return Ok(Round::Unchanged { answer: Ok(Success::Done), asked: false });
                        }
                        Some(Impact::Modernize { epoch: *epoch, events })
                    }
                    _ => None,
                };
                self.decide(record, older.as_ref().unwrap_or(impact), request, None, waiting).await
            }
            Dispatch::Ask => {
                let outcome = self.ask(record, impact, request).await?;
                if matches!(outcome, Outcome::Done { .. }) && self.commits_suicide() {
                    return Err(EngineError::Killed);
                }
                self.decide(record, impact, request, Some(outcome), waiting).await
            }
        }
    }

    /// Another commit stands where ours should.
    pub(super) fn conflict(&self) {
        self.namespace.metrics.conflicts.inc();
        self.forget();
    }

    async fn ask(
        &mut self,
        record: Option<&Arc<Record>>,
        impact: &Impact,
        request: &Request,
    ) -> Result<Outcome, EngineError> {
        // A tombstone is nothing to a processor.
        let record = record.filter(|record| record.exists());
        let (ask, range) = match impact {
            Impact::Init { args } => (Ask::Init(args.clone()), HistoryRange::ALL),
            Impact::Call { args, range } => (Ask::Call(args.clone()), range.clone()),
            Impact::Repair { args, range } => (Ask::Repair(args.clone()), range.clone()),
            Impact::Notification(it) => (Ask::Notification(it.args.clone()), it.range.clone()),
            Impact::Timeout => {
                let timer = record.and_then(|record| record.timer.as_ref());
                (Ask::Timeout, timer.map_or(HistoryRange::ALL, |timer| timer.range.clone()))
            }
            Impact::SimpleRepair
            | Impact::Remove
            | Impact::Drained
            | Impact::Paid { .. }
            | Impact::Acknowledged
            | Impact::Modernize { .. }
            | Impact::Forget => {
                return Ok(Outcome::HeldBack("no processor is asked about this".to_owned()));
            }
        };
        let history = match record {
            Some(record) => self.events(record, &slice(&range, record.last_event)).await?,
            None => Vec::new(),
        };
        let own_signal = matches!(impact, Impact::Timeout);
        let machine = wire::Machine {
            ns: self.namespace.wire_name.clone(),
            id: self.key.id.as_bytes().clone(),
            history: wire::History::from_encoded(history),
            history_range: range,
            status: None,
            aux_state: Some(record.map_or_else(machine::blank_aux_state, |record| record.aux_state.clone())),
            timer: record.filter(|_| !own_signal).and_then(|record| machine::shown_timer(record)),
            aux_state_legacy: None,
        };
        let deadline = request.deadline;
        let question = Question { ask, machine, context: request.context.clone(), deadline };
        let span = traced!(
            tracing::field::display(format_args!("processing machine '{}'", impact.name())),
            mg.machine.ns = self.key.ns.as_str(),
            mg.machine.id = %self.key.id,
        );
        self.may_begin()?;
        failpoint::reached_by(Failpoint::BeforeProcessor, impact);
        let answer = self.namespace.options.processor.ask(question).instrument(span);
        let outcome = self.shared().clock.timeout_at(deadline.saturating_add(GUARD_MS), answer).await;
        let outcome = outcome.unwrap_or_else(|_| Outcome::Transient("the processor did not answer in time".to_owned()));
        failpoint::reached_by(Failpoint::AfterProcessor, impact);
        if let Outcome::Transient(reason) | Outcome::HeldBack(reason) = &outcome {
            self.namespace.metrics.transient_error.inc();
            tracing::warn!(
                mg_pulse_event_id = "mg_core_machine_process_transient_error",
                processor_impact = impact.name(),
                deadline = format_deadline(deadline),
                error.class = "throw",
                error.reason = reason,
                "transient error: the processor is unavailable"
            );
        }
        Ok(outcome)
    }

    /// Events of the loaded machine, from memory or the store, in the slice's direction.
    pub(super) async fn events(&self, record: &Arc<Record>, slice: &Slice) -> Result<Vec<Bytes>, EngineError> {
        if let Some(events) = self.cached(|cached| cached.events(slice)).flatten() {
            return Ok(events);
        }
        let storage = &self.shared().storage;
        let read = storage.events(&self.key, record.epoch, slice.first, slice.last);
        let mut events = self.stored(Stored::GetEvents, read).await?;
        let most = self.shared().budget.most_per_machine();
        self.change(|cell| {
            if let Some(cached) = cell {
                cached.remember(slice, &events, most);
            }
        });
        if slice.backward {
            events.reverse();
        }
        Ok(events)
    }

    /// Applies the rules and commits what they say.
    async fn decide(
        &mut self,
        record: Option<&Arc<Record>>,
        impact: &Impact,
        request: &Request,
        mut outcome: Option<Outcome>,
        waiting: &[NotificationId],
    ) -> Result<Round, EngineError> {
        let mut stamp = Stamp {
            now_micros: self.shared().clock.now_micros(),
            commit: CommitId(random_bytes()),
            // Only a timer's retry is jittered, and randomness costs a system call.
            jitter: if matches!(impact, Impact::Timeout) { random_unit() } else { 0.5 },
            tag_taken: false,
        };
        let transient = matches!(outcome, Some(Outcome::Transient(_)));
        let asked = outcome.is_some();
        let tagged = matches!(&outcome, Some(Outcome::Done { change, .. }) if change.action.tag.is_some());
        let record = record.map(|record| &**record);
        let (next, events, answer) = loop {
            let context: &RequestContext = &request.context;
            let policy = &self.namespace.options.policy;
            // Only a tag can be refused, and then all is decided again.
            let outcome = if tagged && !stamp.tag_taken { outcome.clone() } else { outcome.take() };
            let decision = machine::apply(record, impact, context, outcome, policy, stamp);
            if let Some(reason) = &decision.failure {
                self.failed(reason, impact);
            }
            let Some(step) = decision.step else {
                return Ok(Round::Unchanged { answer: decision.answer, asked });
            };
            let mut next = step.record;
            if let Some(next) = &mut next {
                self.stands_behind(record, next);
            }
            let next = next.map(Arc::new);
            let commit = Commit {
                key: self.key.clone(),
                expect: record.map(|record| record.commit),
                record: next.clone(),
                events: step.events.clone(),
                delete_notifications: step.handled.into_iter().collect(),
                park_notifications: if transient { waiting.to_vec() } else { Vec::new() },
                replaced_events: step.replaced,
                tag: step.tag,
                ledgers: if step.events.is_empty() { Vec::new() } else { self.namespace.options.ledgers.clone() },
            };
            self.may_begin()?;
            failpoint::reached_by(Failpoint::BeforeCommit, impact);
            match self.commit(commit, request.deadline).await? {
                Put::Committed => break (next, step.events, decision.answer),
                Put::Conflict => return Ok(Round::Conflict),
                Put::TagTaken => stamp = Stamp { commit: CommitId(random_bytes()), tag_taken: true, ..stamp },
            }
        };
        failpoint::reached_by(Failpoint::AfterCommit, impact);
        self.outbox.noted();
        self.committed_events |= !events.is_empty();
        self.count(record, next.as_deref(), impact);
        if let (Impact::Notification(_), Some(next)) = (impact, &next) {
            self.namespace.puts.took_effect(&self.key.id, &next.handled);
        }
        let most = self.shared().budget.most_per_machine();
        self.change(|cell| match next {
            // What was rewritten is read again when it is wanted.
            Some(next) if matches!(impact, Impact::Modernize { .. }) => *cell = Some(Cached::new(Some(next))),
            Some(next) => cell.get_or_insert_default().advance(next, events, most),
            None => *cell = Some(Cached::new(None)),
        });
        Ok(Round::Committed(answer))
    }

    /// Puts a commit until the answer is definite.
    ///
    /// INVARIANT: while the answer is unknown, no other step of this machine begins here: only the same bytes under the
    /// same commit id are put again, however long it takes.
    async fn commit(&self, commit: Commit, deadline: i64) -> Result<Put, EngineError> {
        let Shared { storage, clock, stopping, outage, .. } = self.shared();
        let begun = clock.now();
        let mut attempt = 0;
        let mut last = false;
        // Whether some put of it may have been done.
        let mut uncertain = false;
        let _awaited = self.store.awaited();
        loop {
            let outcome = self.namespace.stored(Stored::PutMachine, storage.commit(commit.clone())).await;
            if !matches!(outcome, Committed::Refused(_) | Committed::Unknown(_)) {
                outage.over();
            }
            let (error, unknown) = match outcome {
                Committed::Committed => return Ok(Put::Committed),
                Committed::Conflict if uncertain && !self.was_overtaken(&commit).await => {
                    self.forget();
                    return Err(EngineError::TimedOut);
                }
                Committed::Conflict => return Ok(Put::Conflict),
                Committed::TagTaken => return Ok(Put::TagTaken),
                Committed::Refused(error) => (error, false),
                Committed::Unknown(error) => (error, true),
            };
            let out_of_reach = matches!(error, StorageError::Unavailable(_)) && outage.goes_on();
            let elapsed = Duration::from_millis(u64::try_from(clock.now().saturating_sub(begun)).unwrap_or(0));
            let delay = self.namespace.options.storage_retries.delay_after(attempt, elapsed, random_unit());
            let wait = delay.and_then(|delay| i64::try_from(delay.as_millis()).ok()).unwrap_or(LONGEST_WAIT_MS);
            let until = clock.now().saturating_add(wait);
            uncertain |= unknown;
            if unknown {
                // What is held may be outdated: those who pass the queue by read the store until this is settled.
                self.forget();
                if last {
                    // Nobody takes a step here any more: the next run reads what became of it.
                    return Err(EngineError::Killed);
                }
            }
            let hopeless =
                delay.is_none() || until >= deadline || out_of_reach || matches!(error, StorageError::Corrupt(_));
            if !unknown && (last || hopeless) {
                return Err(error.into());
            }
            tracing::warn!(
                mg_pulse_event_id = "mg_core_machine_lifecycle_transient_error",
                context = "commit",
                unknown,
                attempt,
                wait_timeout = wait,
                next_retry_strategy = ?self.namespace.options.storage_retries.delay(attempt.saturating_add(1), 0.5),
                deadline = format_deadline(deadline),
                error.class = "throw",
                error.reason = %error,
                "transient error during a commit, retrying in {wait} msec"
            );
            tokio::select! {
                biased;
                () = stopping.cancelled() => last = true,
                () = clock.sleep_until(until) => {}
            }
            attempt = attempt.saturating_add(1);
        }
    }

    /// Whether a commit that can't be done any more was not done by an earlier put either. The record that stands says so
    /// while it remembers what came in the commit's place; many commits later nobody knows.
    async fn was_overtaken(&self, commit: &Commit) -> bool {
        // Forgotten twice is as good as once.
        let Some(own) = &commit.record else { return true };
        let read = self.shared().storage.read(&self.key, None);
        match self.namespace.stored(Stored::GetMachine, read).await {
            Ok(Some(Loaded { record, .. })) if !record.remembers(own.commit) => match commit.expect {
                Some(expect) => record.remembers(expect),
                None => record.earlier.len() < KEPT_COMMITS - 1,
            },
            Ok(_) | Err(_) => false,
        }
    }

    /// What this step owes anew is nowhere yet: it comes behind all that the sinks have by now.
    fn stands_behind(&self, before: Option<&Record>, next: &mut Record) {
        for sink in &self.namespace.options.sinks {
            if next.owes(&sink.name) && !before.is_some_and(|before| before.owes(&sink.name)) {
                next.stands_behind(&sink.name, sink.sink.place());
            }
        }
    }

    /// Counts it and says why.
    fn failed(&self, reason: &str, impact: &Impact) {
        self.namespace.metrics.failed.inc();
        tracing::error!(
            mg_pulse_event_id = "mg_core_machine_lifecycle_failed",
            processor_impact = impact.name(),
            error.class = "throw",
            error.reason = reason,
            "machine failed"
        );
    }

    fn count(&self, before: Option<&Record>, after: Option<&Record>, impact: &Impact) {
        let metrics = &self.namespace.metrics;
        self.namespace.census.moved(before.map(Record::kind), after.map(Record::kind), metrics);
        let existed = before.is_some_and(Record::exists);
        let exists = after.is_some_and(Record::exists);
        let failed = |record: Option<&Record>| record.is_some_and(|it| matches!(it.status, Status::Failed { .. }));
        if matches!(impact, Impact::Init { .. }) {
            metrics.created.inc();
            happened!("machine created");
        }
        if !exists && (existed || matches!(impact, Impact::Init { .. })) {
            metrics.removed.inc();
            happened!("machine removed");
        }
        match (failed(before), failed(after)) {
            (false, true) => {
                if let Some(Record { status: Status::Failed { reason, .. }, .. }) = after {
                    self.failed(reason, impact);
                }
            }
            (true, false) if exists => {
                metrics.repaired.inc();
                happened!("machine repaired");
            }
            _ => {}
        }
        let now = self.shared().clock.now();
        let due = |record: Option<&Record>| record.and_then(Record::timer_due);
        match (due(before), due(after)) {
            (due_before, Some(due)) if due_before != Some(due) => match impact {
                Impact::Timeout => {
                    metrics.timers.rescheduled.happened(due - now);
                    happened!("timer rescheduled");
                    if let Some(Status::Working(Phase::Retrying { attempt, at, .. })) = after.map(|it| &it.status) {
                        tracing::info!(
                            mg_pulse_event_id = "mg_core_timer_lifecycle_rescheduled",
                            target_timestamp = timestamp::format_seconds(*at),
                            attempt,
                            "machine rescheduled"
                        );
                    }
                }
                _ => {
                    metrics.timers.created.happened(due - now);
                    happened!("timer created");
                }
            },
            (Some(due), None) => {
                metrics.timers.removed.happened(due - now);
                happened!("timer removed");
            }
            _ => {}
        }
    }
}
