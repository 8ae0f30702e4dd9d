//! What is asked of the store, and for how long it is waited for.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::definition::{DURATIONS, Register};

/// A request to the store, by the names of the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A record, with its events if they are asked for.
    GetMachine,
    /// A step's whole commit, events and notifications included.
    PutMachine,
    /// By a tag.
    SearchMachine,
    GetEvents,
    DeleteEvents,
    PutNotification,
    /// Those that wait for a machine.
    SearchNotifications,
    /// And those that lose their due.
    DeleteNotifications,
}

const ALL: [Stored; 8] = [
    Stored::GetMachine,
    Stored::PutMachine,
    Stored::SearchMachine,
    Stored::GetEvents,
    Stored::DeleteEvents,
    Stored::PutNotification,
    Stored::SearchNotifications,
    Stored::DeleteNotifications,
];

#[derive(Debug)]
pub(super) struct StoredFamilies {
    operations: IntCounterVec,
    duration: HistogramVec,
}

#[derive(Debug)]
pub struct OperationMetrics {
    pub start: IntCounter,
    pub finish: IntCounter,
    pub duration: Histogram,
}

// === impl Stored ===

impl Stored {
    /// As a span says it.
    pub fn doing(self) -> &'static str {
        match self {
            Self::GetMachine => "getting machine",
            Self::PutMachine => "updating machine",
            Self::SearchMachine => "searching machines",
            Self::GetEvents => "getting events",
            Self::DeleteEvents => "deleting events",
            Self::PutNotification => "updating notification",
            Self::SearchNotifications => "searching notifications",
            Self::DeleteNotifications => "deleting notifications",
        }
    }

    /// Which things, and what is done to them.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::GetMachine => ("machines", "get"),
            Self::PutMachine => ("machines", "put"),
            Self::SearchMachine => ("machines", "search"),
            Self::GetEvents => ("events", "get"),
            Self::DeleteEvents => ("events", "delete"),
            Self::PutNotification => ("notifications", "put"),
            Self::SearchNotifications => ("notifications", "search"),
            Self::DeleteNotifications => ("notifications", "delete"),
        }
    }
}

// === impl StoredFamilies ===

impl StoredFamilies {
    pub(super) fn new(register: &Register) -> Self {
        Self {
            operations: register.counter(
                "mg_storage_operation_changes_total",
                "Requests to the store, `start` and `finish`, by what they are about. A step's commit is one `put` of `machines`: events and notifications are part of it.",
                &["namespace", "name", "operation", "change"],
            ),
            duration: register.histogram(
                "mg_storage_operation_duration_seconds",
                "Time that a request to the store took.",
                &["namespace", "name", "operation"],
                DURATIONS,
            ),
        }
    }

    /// In the order of [`Stored`].
    pub(super) fn namespace(&self, namespace: &str) -> Vec<OperationMetrics> {
        let metrics = |stored: &Stored| {
            let (name, operation) = stored.names();
            let change = |change: &str| self.operations.with_label_values(&[namespace, name, operation, change]);
            OperationMetrics {
                start: change("start"),
                finish: change("finish"),
                duration: self.duration.with_label_values(&[namespace, name, operation]),
            }
        };
        ALL.iter().map(metrics).collect()
    }
}
