//! Places on a step's way at which a test ends the process, to see that nothing is lost there.
//!
//! Only builds with debug assertions have them; in a release every call here is empty. `MACHINEGUN_FAILPOINT` arms one:
//! `before_commit 3` ends the process when that place is reached for the third time, `before_commit 1 timeout` when a
//! timeout first reaches it.

use crate::machine::Impact;

/// The variable that arms a failpoint.
pub const VARIABLE: &str = "MACHINEGUN_FAILPOINT";

macro_rules! failpoints {
    ($($(#[doc = $what:literal])* $point:ident = $name:literal,)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Failpoint {
            $($(#[doc = $what])* $point,)+
        }

        impl Failpoint {
            /// In the order in which a step comes by.
            pub const ALL: &[Self] = &[$(Self::$point,)+];

            /// As the variable has it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)+
                }
            }
        }
    };
}

failpoints! {
    /// A request was decoded; nothing knows of it but its handler.
    RequestDecoded = "request_decoded",
    /// A step waits in its machine's queue.
    StepQueued = "step_queued",
    /// A round of a step begins: the record is known. Says its impact.
    RecordRead = "record_read",
    /// Says its impact.
    BeforeProcessor = "before_processor",
    /// Says its impact.
    AfterProcessor = "after_processor",
    /// A modernizer has answered for all events; nothing is stored of it.
    Modernized = "modernized",
    /// Says its impact.
    BeforeCommit = "before_commit",
    /// The embedded writer has a batch in its hands.
    BatchDrafted = "batch_drafted",
    /// The embedded writer's batch is durable, and nobody was told.
    BatchSynced = "batch_synced",
    /// All stands in the table that has to stand before the machine's item points at it.
    PartsWritten = "parts_written",
    /// The machine's item is put; what it replaces is still there.
    ItemPut = "item_put",
    /// A commit is known to stand. Says its impact.
    AfterCommit = "after_commit",
    BeforeDelivery = "before_delivery",
    /// A block of the table's ledger is not put yet, though its parts may be.
    BeforeBlock = "before_block",
    /// A block of the table's ledger is put, and its writer was not told.
    BlockPut = "block_put",
    /// A sink has acknowledged, and its worker does not know.
    AfterDelivery = "after_delivery",
    /// The worker knows of an acknowledgement, and the store does not.
    DeliveryKnown = "delivery_known",
    /// The step is decided, and whoever waits for it was not told. Says its impact.
    BeforeAnswer = "before_answer",
    AnswerEncoded = "answer_encoded",
    BeforeNotificationPut = "before_notification_put",
    /// A notification is stored, and whoever sent it was not told.
    NotificationPut = "notification_put",
    /// Entries of notifications go or are parked outside of a step.
    BeforeSettling = "before_settling",
    AfterSettling = "after_settling",
    BeforePayment = "before_payment",
    /// All that a removal owed is deleted, and the record still owes it.
    AfterPayment = "after_payment",
}

/// Ends the process if this place is armed.
#[inline(always)]
pub fn reached(point: Failpoint) {
    #[cfg(debug_assertions)]
    armed::pass(point, None);
    #[cfg(not(debug_assertions))]
    let _ = point;
}

/// As [`reached`], where a step's impact is known.
#[inline(always)]
pub fn reached_by(point: Failpoint, impact: &Impact) {
    #[cfg(debug_assertions)]
    armed::pass(point, Some(impact.kind().name()));
    #[cfg(not(debug_assertions))]
    let _ = (point, impact);
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Failpoint, VARIABLE};
    use crate::machine::ImpactKind;

    struct Armed {
        point: Failpoint,
        impact: Option<&'static str>,
        /// How often it may still be passed, and once more.
        left: AtomicU64,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        Some(Armed::read(&text).unwrap_or_else(|| {
            // A test that arms what is not there would prove nothing.
            eprintln!("{VARIABLE}={text} names no failpoint");
            std::process::abort()
        }))
    });

    pub(super) fn pass(point: Failpoint, impact: Option<&'static str>) {
        let Some(armed) = &*ARMED else { return };
        if armed.point == point
            && (armed.impact.is_none() || armed.impact == impact)
            && armed.left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            eprintln!("failpoint {} reached", point.name());
            std::process::abort();
        }
    }

    // === impl Armed ===

    impl Armed {
        fn read(text: &str) -> Option<Self> {
            let mut words = text.split(' ');
            let point = words.next()?;
            let point = *Failpoint::ALL.iter().find(|it| it.name() == point)?;
            let left = words.next()?.parse().ok().filter(|times| *times > 0)?;
            let impact = match words.next() {
                Some(word) => Some(ImpactKind::ALL.into_iter().map(ImpactKind::name).find(|it| *it == word)?),
                None => None,
            };
            words.next().is_none().then_some(Self { point, impact, left: AtomicU64::new(left) })
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_arms_a_failpoint_is_read_to_the_letter() {
            let read = |text: &str| Armed::read(text).map(|it| (it.point, it.left.into_inner(), it.impact));
            assert_eq!(read("before_commit 3"), Some((Failpoint::BeforeCommit, 3, None)));
            assert_eq!(read("after_commit 1 timeout"), Some((Failpoint::AfterCommit, 1, Some("timeout"))));
            for wrong in ["", "before_commit", "before_commit 0", "before_commit x", "nowhere 1", "after_commit 1 x"] {
                assert_eq!(read(wrong), None, "{wrong}");
            }
            assert_eq!(read("after_commit 1 call more"), None);
        }
    }
}
