//! Who may do what in which status.

use super::impact::{Answer, Impact, Refusal, Success};
use super::outbox::MOST_PARCELS;
use super::record::{Record, Status};
use super::wake::{Wake, wishes};

#[derive(Clone, Debug, PartialEq)]
pub enum Dispatch {
    /// The processor decides.
    Ask,
    /// The rules alone decide: [`super::apply`] takes no outcome.
    Decide,
    /// Nothing happens.
    Answer(Answer),
    /// The notification can't take effect any more: its entry goes.
    Discard,
    /// The notification waits until the machine is repaired.
    Park,
}

/// The table; `now` in unix milliseconds.
pub fn dispatch(record: Option<&Record>, impact: &Impact, now: i64) -> Dispatch {
    let refuse = |refusal| Dispatch::Answer(Err(refusal));
    let ignore = Dispatch::Answer(Ok(Success::Done));
    let hindered = record.and_then(Record::hindered_by).map(|sink| {
        let reason =
            format!("event_sink_unavailable: the machine owes {sink} {MOST_PARCELS} parcels, the most there may be");
        refuse(Refusal::Unavailable(reason))
    });
    let Some(record) = record.filter(|record| {
        record.exists() || matches!(impact, Impact::Paid { .. } | Impact::Acknowledged | Impact::Forget)
    }) else {
        return match impact {
            Impact::Init { .. } => hindered.unwrap_or(Dispatch::Ask),
            Impact::Notification(_) => Dispatch::Discard,
            Impact::Timeout | Impact::Drained | Impact::Paid { .. } | Impact::Acknowledged | Impact::Forget => ignore,
            Impact::Call { .. }
            | Impact::Repair { .. }
            | Impact::SimpleRepair
            | Impact::Remove
            | Impact::Modernize { .. } => refuse(Refusal::MachineNotFound),
        };
    };
    let failed = matches!(record.status, Status::Failed { .. });
    match impact {
        Impact::Init { .. } => refuse(Refusal::MachineAlreadyExists),
        Impact::Call { .. } if failed => refuse(Refusal::MachineFailed),
        Impact::Call { .. } => Dispatch::Ask,
        Impact::Repair { .. } if failed => hindered.unwrap_or(Dispatch::Ask),
        Impact::SimpleRepair if failed => hindered.unwrap_or(Dispatch::Decide),
        Impact::Repair { .. } | Impact::SimpleRepair => refuse(Refusal::MachineAlreadyWorking),
        Impact::Remove => Dispatch::Decide,
        // A timer that was moved, unset or handled meanwhile: its wake-up is stale.
        Impact::Timeout if record.timer_due().is_none_or(|due| due > now) => ignore,
        Impact::Timeout => Dispatch::Ask,
        Impact::Notification(it) if it.epoch != record.epoch || record.handled.contains(&it.id) => Dispatch::Discard,
        Impact::Notification(_) if failed => Dispatch::Park,
        Impact::Notification(_) => Dispatch::Ask,
        Impact::Drained if record.notifications_due.is_none() => ignore,
        Impact::Drained => Dispatch::Decide,
        Impact::Paid { epochs } if !record.payable().any(|debt| epochs.contains(&debt.epoch)) => ignore,
        Impact::Paid { .. } => Dispatch::Decide,
        Impact::Acknowledged if record.outbox_due.is_none() => ignore,
        Impact::Acknowledged => Dispatch::Decide,
        Impact::Modernize { epoch, .. } if *epoch != record.epoch => refuse(Refusal::MachineNotFound),
        Impact::Modernize { events, .. } if events.is_empty() => ignore,
        Impact::Modernize { .. } => Dispatch::Decide,
        // A tombstone that still owes may be due, but not for this.
        Impact::Forget if wishes(record).any(|(due, wake)| wake == Wake::Forget && due <= now) => Dispatch::Decide,
        Impact::Forget => ignore,
    }
}
