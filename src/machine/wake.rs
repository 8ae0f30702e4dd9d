//! What a record that was woken has to do.

use super::record::{Record, Status};

/// What is due, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Deletions are owed.
    Pay,
    Timeout,
    Notifications,
    /// Sinks may not have acknowledged everything.
    Outbox,
    /// The tombstone has rested long enough.
    Forget,
}

/// What `record` is due for at `now` (unix milliseconds).
pub fn wake(record: &Record, now: i64) -> Option<Wake> {
    if record.payable().next().is_some() {
        return Some(Wake::Pay);
    }
    let reached = |due: Option<i64>| due.is_some_and(|due| due <= now);
    let outbox = reached(record.outbox_due).then_some((record.outbox_due, Wake::Outbox));
    match &record.status {
        Status::Removed { .. } if outbox.is_none() => reached(record.due()).then_some(Wake::Forget),
        Status::Removed { .. } | Status::Failed { .. } => outbox.map(|(_, wake)| wake),
        Status::Working(_) => {
            let timeout = reached(record.timer_due()).then_some((record.timer_due(), Wake::Timeout));
            let notifications =
                reached(record.notifications_due).then_some((record.notifications_due, Wake::Notifications));
            [timeout, notifications, outbox].into_iter().flatten().min_by_key(|(due, _)| *due).map(|(_, wake)| wake)
        }
    }
}
