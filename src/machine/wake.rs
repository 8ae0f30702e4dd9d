//! What a record wants to be woken for, and when.

use super::record::{Record, Status, TOMBSTONE_REST_MS};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Deletions are owed.
    Pay,
    Timeout,
    Notifications,
    /// Sinks may not have acknowledged everything, or the store may not know that they have.
    Outbox,
    /// The tombstone has rested long enough.
    Forget,
}

/// All that `record` wants to be woken for, with its unix milliseconds. A failed machine waits for its repair, but its
/// debts don't: they are due before everything.
pub fn wishes(record: &Record) -> impl Iterator<Item = (i64, Wake)> {
    let pay = record.payable().next().map(|_| (i64::MIN, Wake::Pay));
    let outbox = record.outbox_due.map(|due| (due, Wake::Outbox));
    let forget = match &record.status {
        Status::Removed { at } if record.debts.is_empty() && record.unsent.is_empty() && outbox.is_none() => {
            Some((at.saturating_add(TOMBSTONE_REST_MS), Wake::Forget))
        }
        _ => None,
    };
    let timeout = record.timer_due().map(|due| (due, Wake::Timeout));
    let notifications = match &record.status {
        Status::Working(_) => record.notifications_due.map(|due| (due, Wake::Notifications)),
        Status::Failed { .. } | Status::Removed { .. } => None,
    };
    [pay, timeout, notifications, outbox, forget].into_iter().flatten()
}

/// What `record` is due for at `now` (unix milliseconds): what has been due for longest.
pub fn wake(record: &Record, now: i64) -> Option<Wake> {
    wishes(record).filter(|(due, _)| *due <= now).min_by_key(|(due, _)| *due).map(|(_, wake)| wake)
}
