//! Notify: an entry is put, and whoever sent it is answered once it is known to stand.

use std::sync::Arc;

use super::error::{Bound, EngineError};
use super::namespace::NamespaceEngine;
use super::{Request, Shared};
use crate::clock::random_unit;
use crate::failpoint::{self, Failpoint};
use crate::machine::{MachineId, MachineKey, Notification, NotificationId, Refusal};
use crate::storage::{Outcome, StorageError};
use crate::telemetry::metrics::{Scheduler, Stored};
use crate::telemetry::trace::happened;
use crate::wire::{HistoryRange, Value};
use crate::woody::format_deadline;

/// How many ids are tried that other notifications turn out to have.
const MOST_IDS: usize = 16;

// === impl NamespaceEngine: notifying ===

impl NamespaceEngine {
    /// Accepts a notification: it is stored when this returns, and delivered later. Never waits for the machine's turn. Of
    /// an owner alone, which delivers it soon.
    pub async fn notify(
        self: &Arc<Self>,
        id: MachineId,
        args: Value,
        range: HistoryRange,
        request: Request,
    ) -> Result<NotificationId, EngineError> {
        self.check_owned(&id)?;
        if self.shared.stopping.is_cancelled() {
            return Err(EngineError::Stopping);
        }
        if self.shared.is_short() {
            return Err(self.overload(Bound::Memory));
        }
        let key = self.key(id.clone());
        let epoch = match self.cached(&id, None).await? {
            Some(view) => view?.record.epoch,
            None => match self.stored(Stored::GetMachine, self.shared.storage.read(&key, None)).await? {
                Some(loaded) if loaded.record.exists() => loaded.record.epoch,
                _ => return Err(Refusal::MachineNotFound.into()),
            },
        };
        let Request { context, deadline } = request;
        let mut notification = Notification { id: self.shared.snowflakes.next(), epoch, args, range, context };
        let now = self.shared.clock.now();
        failpoint::reached(Failpoint::BeforeNotificationPut);
        self.put(&key, &mut notification, now, deadline).await?;
        failpoint::reached(Failpoint::NotificationPut);
        self.metrics.notification_created.inc();
        happened!("notification created");
        if self.options.notifications.is_some() {
            // If it can't be told now, the entry's own due is found by the next scan.
            self.schedule.wake_at(&id, (now, Scheduler::Notification));
        }
        Ok(notification.id)
    }

    /// Puts an entry until it is known to stand, within the deadline; under another id, if it turns out that another
    /// notification has its own.
    ///
    /// INVARIANT: while it is not known what became of a put, only the same bytes under the same id are put again, and only
    /// by an owner. Should the entry have stood, been delivered and gone meanwhile, [`Puts`](super::puts::Puts) recognise
    /// it here; elsewhere, and after a crash, where it can only come late, the record's notes do, unless more than
    /// [`KEPT_NOTES`](crate::machine::KEPT_NOTES) others have taken effect since.
    async fn put(&self, key: &MachineKey, it: &mut Notification, due: i64, deadline: i64) -> Result<(), EngineError> {
        let Shared { storage, clock, stopping, outage, snowflakes, .. } = &*self.shared;
        let retries = &self.options.storage_retries;
        let tenure = self.check_owned(&key.id)?;
        let (mut attempt, mut ids) = (0, 1);
        let mut put = self.puts.begin(&key.id, it.id);
        // Whether a put of this id may stand, or may still come to stand.
        let mut unknown = false;
        loop {
            let outcome = self.stored(Stored::PutNotification, storage.put_notification(key, it, due)).await;
            if !matches!(outcome, Outcome::Refused(_) | Outcome::Unknown(_)) {
                outage.over();
            }
            let error = match outcome {
                Outcome::Committed => {
                    if !unknown {
                        put.settled();
                    }
                    return Ok(());
                }
                Outcome::Conflict | Outcome::TagTaken if ids < MOST_IDS => {
                    tracing::warn!(
                        machine_ns = key.ns.as_str(),
                        machine_id = %key.id,
                        "another instance has made the same notification id, and a new one is made: give each instance \
                         a `snowflake_machine_id` of its own"
                    );
                    (it.id, ids, unknown) = (snowflakes.next(), ids + 1, false);
                    put.settled();
                    put = self.puts.begin(&key.id, it.id);
                    continue;
                }
                Outcome::Conflict | Outcome::TagTaken => {
                    put.settled();
                    let text = format!("other notifications have each of {MOST_IDS} new ids");
                    return Err(StorageError::Unavailable(text).into());
                }
                Outcome::Refused(error) => error,
                Outcome::Unknown(error) => {
                    unknown = true;
                    error
                }
            };
            let out_of_reach = matches!(error, StorageError::Unavailable(_)) && outage.goes_on();
            let delay = retries.delay(attempt, random_unit());
            let wait = delay.map_or(0, |delay| i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
            let until = clock.now().saturating_add(wait);
            let last =
                delay.is_none() || until >= deadline || out_of_reach || matches!(error, StorageError::Corrupt(_));
            if last && unknown {
                return Err(EngineError::TimedOut);
            }
            if last {
                put.settled();
                return Err(error.into());
            }
            tracing::warn!(
                mg_pulse_event_id = "mg_core_machine_lifecycle_transient_error",
                context = "notification",
                unknown,
                attempt,
                wait_timeout = wait,
                next_retry_strategy = ?retries.delay(attempt.saturating_add(1), 0.5),
                deadline = format_deadline(deadline),
                error.class = "throw",
                error.reason = %error,
                "transient error while a notification was put, retrying in {wait} msec"
            );
            tokio::select! {
                biased;
                () = stopping.cancelled() => {
                    return Err(if unknown { EngineError::Killed } else { EngineError::Stopping });
                }
                () = clock.sleep_until(until) => {}
            }
            if put.has_taken_effect() {
                return Ok(());
            }
            match self.check_owned(&key.id) {
                Ok(present) if present == tenure => {}
                // Others may have delivered it meanwhile.
                Ok(_) | Err(_) if unknown => return Err(EngineError::TimedOut),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
            attempt = attempt.saturating_add(1);
        }
    }
}
