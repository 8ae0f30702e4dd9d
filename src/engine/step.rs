//! One step: read, ask the processor, apply, commit, answer.

use std::sync::Arc;

use bytes::Bytes;

use super::Request;
use super::cache::Cached;
use super::error::EngineError;
use super::worker::Worker;
use crate::clock::{random_bytes, random_unit};
use crate::machine::{
    self, CommitId, Dispatch, Impact, Notification, NotificationId, Outcome, Record, Refusal, RequestContext, Slice,
    Stamp, Status, Success, slice,
};
use crate::processor::{Ask, Question};
use crate::storage::{Commit, Outcome as Committed};
use crate::wire::{self, HistoryRange};

/// Milliseconds beyond its deadline after which a processor that still has not answered is given up.
const GUARD_MS: i64 = 3_000;

// === impl Worker: the step ===

impl Worker {
    /// The machine's record as of the last commit, tombstones included.
    pub(super) async fn load(&mut self) -> Result<Option<Arc<Record>>, EngineError> {
        if let Some(record) = self.cached(|cached| cached.record.clone()) {
            return Ok(record);
        }
        match self.shared().storage.read(&self.key, None).await {
            Ok(loaded) => {
                let record = loaded.map(|loaded| Arc::new(loaded.record));
                self.change(|cell| *cell = Some(Cached::new(record.clone())));
                self.namespace.metrics.loaded.inc();
                Ok(record)
            }
            Err(error) => {
                self.namespace.metrics.loading_error.inc();
                Err(error.into())
            }
        }
    }

    /// Works off an impact, from the top again for each conflict, until it is decided or the deadline has passed.
    pub(super) async fn step(&mut self, impact: Impact, request: &Request) -> Result<Success, EngineError> {
        loop {
            let record = self.load().await?;
            match machine::dispatch(record.as_deref(), &impact, self.shared().clock.now()) {
                Dispatch::Answer(answer) => return Ok(answer?),
                // Only notifications are discarded and parked, and they don't come this way.
                Dispatch::Discard | Dispatch::Park => return Ok(Success::Done),
                Dispatch::Decide => {
                    if let Some(answer) = self.decide(record, &impact, request, None, &[]).await? {
                        return Ok(answer);
                    }
                }
                Dispatch::Ask => {
                    let outcome = self.ask(record.as_ref(), &impact, request).await?;
                    if let Some(answer) = self.decide(record, &impact, request, Some(outcome), &[]).await? {
                        return Ok(answer);
                    }
                }
            }
            self.conflict(request)?;
        }
    }

    /// Works off the oldest notification of those that wait.
    pub(super) async fn notification(
        &mut self,
        it: Notification,
        waiting: Vec<NotificationId>,
        request: &Request,
    ) -> Result<(), EngineError> {
        let id = it.id;
        let impact = Impact::Notification(it);
        loop {
            let record = self.load().await?;
            match machine::dispatch(record.as_deref(), &impact, self.shared().clock.now()) {
                Dispatch::Discard => {
                    self.shared().storage.settle_notifications(&self.key, &[id], &[]).await?;
                    return Ok(());
                }
                Dispatch::Park => {
                    self.shared().storage.settle_notifications(&self.key, &[], &waiting).await?;
                    return Err(Refusal::MachineFailed.into());
                }
                Dispatch::Answer(_) | Dispatch::Decide => return Ok(()),
                Dispatch::Ask => {
                    let outcome = self.ask(record.as_ref(), &impact, request).await?;
                    if self.decide(record, &impact, request, Some(outcome), &waiting).await?.is_some() {
                        self.namespace.metrics.notification_success.inc();
                        return Ok(());
                    }
                }
            }
            self.conflict(request)?;
        }
    }

    /// Another commit stands where ours should: forget, and begin again while there is time.
    fn conflict(&self, request: &Request) -> Result<(), EngineError> {
        self.namespace.metrics.conflicts.inc();
        self.forget();
        if self.shared().clock.now() < request.deadline { Ok(()) } else { Err(EngineError::TimedOut) }
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
            ns: Bytes::copy_from_slice(self.key.ns.as_str().as_bytes()),
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
        let answer = self.namespace.options.processor.ask(question);
        let outcome = self.shared().clock.timeout_at(deadline.saturating_add(GUARD_MS), answer).await;
        let outcome = outcome.unwrap_or_else(|_| Outcome::Transient("the processor did not answer in time".to_owned()));
        if let Outcome::Transient(reason) | Outcome::HeldBack(reason) = &outcome {
            self.namespace.metrics.transient_error.inc();
            tracing::warn!(ns = self.key.ns.as_str(), id = %self.key.id, impact = impact.name(), reason, "the processor is unavailable");
        }
        Ok(outcome)
    }

    /// Events of the loaded machine, from memory or the store, in the slice's direction.
    async fn events(&self, record: &Arc<Record>, slice: &Slice) -> Result<Vec<Bytes>, EngineError> {
        if let Some(events) = self.cached(|cached| cached.events(slice)).flatten() {
            return Ok(events);
        }
        let storage = &self.shared().storage;
        let mut events = storage.events(&self.key, record.epoch, slice.first, slice.last).await?;
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

    /// Applies the rules and commits what they say. None: a conflict, to be dispatched again.
    async fn decide(
        &mut self,
        record: Option<Arc<Record>>,
        impact: &Impact,
        request: &Request,
        outcome: Option<Outcome>,
        waiting: &[NotificationId],
    ) -> Result<Option<Success>, EngineError> {
        let stamp = Stamp {
            now_micros: self.shared().clock.now_micros(),
            commit: CommitId(random_bytes()),
            jitter: random_unit(),
            tag_taken: false,
        };
        let transient = matches!(outcome, Some(Outcome::Transient(_)));
        let context: &RequestContext = &request.context;
        let policy = &self.namespace.options.policy;
        let decision = machine::apply(record.as_deref(), impact, context, outcome, policy, stamp);
        let Some(step) = decision.step else { return Ok(Some(decision.answer?)) };
        let next = step.record.map(Arc::new);
        let commit = Commit {
            key: self.key.clone(),
            expect: record.as_ref().map(|record| record.commit),
            record: next.clone(),
            events: step.events.clone(),
            delete_notifications: step.handled.into_iter().collect(),
            park_notifications: if transient { waiting.to_vec() } else { Vec::new() },
            replaced_events: step.replaced.clone(),
            tag: step.tag.clone(),
            ledgers: Vec::new(),
        };
        if !self.commit(commit, request.deadline).await? {
            return Ok(None);
        }
        self.count(record.as_deref(), next.as_deref(), impact);
        let most = self.shared().budget.most_per_machine();
        self.change(|cell| match next {
            Some(next) => cell.get_or_insert_default().advance(next, step.events, most),
            None => *cell = Some(Cached::new(None)),
        });
        Ok(Some(decision.answer?))
    }

    /// Puts a commit until the answer is definite. False: a conflict.
    ///
    /// INVARIANT: while the answer is unknown, no other step of this machine begins here: only the same bytes under the
    /// same commit id are put again, however long it takes.
    async fn commit(&self, commit: Commit, deadline: i64) -> Result<bool, EngineError> {
        let mut attempt = 0;
        loop {
            let outcome = self.shared().storage.commit(commit.clone()).await;
            let (error, unknown) = match outcome {
                Committed::Committed => return Ok(true),
                Committed::Conflict => return Ok(false),
                Committed::Refused(error) => (error, false),
                // Replaced by the engine's tag flow.
                Committed::TagTaken => (crate::storage::StorageError::Unavailable("tag taken".to_owned()), false),
                Committed::Unknown(error) => (error, true),
            };
            let delay = self.namespace.options.storage_retries.delay(attempt, random_unit());
            let wait = delay.and_then(|delay| i64::try_from(delay.as_millis()).ok()).unwrap_or(60_000);
            let until = self.shared().clock.now().saturating_add(wait);
            let give_up = !unknown && (delay.is_none() || until >= deadline);
            if give_up || self.shared().stopping.is_cancelled() {
                if unknown {
                    self.forget();
                    return Err(EngineError::Killed);
                }
                return Err(error.into());
            }
            tracing::warn!(ns = self.key.ns.as_str(), id = %self.key.id, %error, unknown, attempt, "a commit is tried again");
            self.shared().clock.sleep_until(until).await;
            attempt = attempt.saturating_add(1);
        }
    }

    fn count(&self, before: Option<&Record>, after: Option<&Record>, impact: &Impact) {
        let metrics = &self.namespace.metrics;
        let existed = before.is_some_and(Record::exists);
        let exists = after.is_some_and(Record::exists);
        let failed = |record: Option<&Record>| record.is_some_and(|it| matches!(it.status, Status::Failed { .. }));
        if matches!(impact, Impact::Init { .. }) {
            metrics.created.inc();
        }
        if !exists && (existed || matches!(impact, Impact::Init { .. })) {
            metrics.removed.inc();
        }
        match (failed(before), failed(after)) {
            (false, true) => {
                metrics.failed.inc();
                if let Some(Record { status: Status::Failed { reason, .. }, .. }) = after {
                    tracing::error!(ns = self.key.ns.as_str(), id = %self.key.id, impact = impact.name(), reason, "the machine failed");
                }
            }
            (true, false) if exists => metrics.repaired.inc(),
            _ => {}
        }
        let due = |record: Option<&Record>| record.and_then(Record::timer_due);
        match (due(before), due(after)) {
            (before, Some(after)) if before != Some(after) => match impact {
                Impact::Timeout => metrics.timer_rescheduled.inc(),
                _ => metrics.timer_created.inc(),
            },
            (Some(_), None) => metrics.timer_removed.inc(),
            _ => {}
        }
    }
}
