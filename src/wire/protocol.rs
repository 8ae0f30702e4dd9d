//! The generations of the interface.

use std::fmt;

/// The generation of the interface that a namespace's processor speaks.
///
/// Callers of every generation may call every method whatever it is: it decides what the processor is sent, what of
/// its answers is understood, and what callers get where the generations contradict each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Notifications; no tags.
    #[default]
    Current,
    /// Tags; no notifications; timers in the deprecated field too.
    Y2021,
    /// As of 2021, with aux state and events in their first fields too, and Repair as a signal that nobody answers.
    Damsel,
}

// === impl Protocol ===

impl Protocol {
    /// The newest first.
    pub const ALL: [Self; 3] = [Self::Current, Self::Y2021, Self::Damsel];

    /// The name that a configuration uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Y2021 => "2021",
            Self::Damsel => "damsel",
        }
    }

    /// Whether a processor has a signal for notifications. Where it has none, nobody can notify.
    pub const fn has_notifications(self) -> bool {
        matches!(self, Self::Current)
    }

    /// Whether a processor can tag its machine, and a caller name a machine by its tag.
    pub const fn has_tags(self) -> bool {
        !matches!(self, Self::Current)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
