//! What is counted of each namespace.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::definition::{DURATIONS, FRACTIONS, QUEUES, Register};
use super::schedule::{ScheduleFamilies, Scheduler, SchedulerMetrics, TimerMetrics};
use super::stored::{OperationMetrics, Stored, StoredFamilies};

const IMPACTS: &[&str] =
    &["init", "call", "repair", "simple_repair", "remove", "timeout", "notification", "modernize", "continuation"];

#[derive(Debug)]
pub(super) struct NamespaceFamilies {
    lifecycle: IntCounterVec,
    notifications: IntCounterVec,
    processing: IntCounterVec,
    processing_duration: HistogramVec,
    machines: IntGaugeVec,
    delivery_failures: IntCounterVec,
    worker_actions: IntCounterVec,
    loading_length: HistogramVec,
    loading_usage: HistogramVec,
    queue_length: HistogramVec,
    cache: IntCounterVec,
    wakes: IntCounterVec,
    pub(super) schedule: ScheduleFamilies,
    stored: StoredFamilies,
    workers: IntGaugeVec,
    in_flight: IntGaugeVec,
    refusals: IntCounterVec,
    conflicts: IntCounterVec,
}

/// One namespace's handles.
#[derive(Debug)]
pub struct NamespaceMetrics {
    pub loaded: IntCounter,
    pub unloaded: IntCounter,
    pub created: IntCounter,
    pub removed: IntCounter,
    pub repaired: IntCounter,
    pub failed: IntCounter,
    pub committed_suicide: IntCounter,
    pub loading_error: IntCounter,
    pub transient_error: IntCounter,
    pub notification_created: IntCounter,
    pub notification_success: IntCounter,
    pub notification_error: IntCounter,
    /// A notification that failed waits for its next delivery.
    pub delivery_rescheduled: IntCounter,
    /// A notification that can be delivered to nobody any more.
    pub delivery_deleted: IntCounter,
    pub timers: TimerMetrics,
    /// Wake-ups taken out of the schedule, and ended, whatever their reason turned out to be.
    pub task_created: IntCounter,
    pub task_finished: IntCounter,
    schedulers: Vec<SchedulerMetrics>,
    stored: Vec<OperationMetrics>,
    pub call_attempts: IntCounter,
    pub start_attempts: IntCounter,
    /// Machines that are being loaded when one more is to be, and their share of the bound.
    pub loading_length: Histogram,
    pub loading_usage: Histogram,
    /// What waits for a machine when one more request comes.
    pub queue_length: Histogram,
    pub cache_hit: IntCounter,
    pub cache_miss: IntCounter,
    pub workers: IntGauge,
    pub in_flight: IntGauge,
    pub conflicts: IntCounter,
    machines: IntGaugeVec,
    refusals: IntCounterVec,
    namespace: String,
    impacts: Vec<(&'static str, ImpactMetrics)>,
}

#[derive(Debug)]
pub struct ImpactMetrics {
    pub started: IntCounter,
    pub finished: IntCounter,
    pub duration: Histogram,
}

// === impl NamespaceFamilies ===

impl NamespaceFamilies {
    pub(super) fn new(register: &Register) -> Self {
        let counter = |name, help, labels| register.counter(name, help, labels);
        let gauge = |name, help, labels| register.gauge(name, help, labels);
        Self {
            lifecycle: counter(
                "mg_machine_lifecycle_changes_total",
                "Changes in the lives of machines and their workers: `loaded`, `unloaded`, `created`, `removed`, `repaired`, `failed`, `committed_suicide` (by `suicide_probability`), `loading_error`, `transient_error`.",
                &["namespace", "change"],
            ),
            notifications: counter(
                "mg_machine_notification_changes_total",
                "Notifications accepted (`created`), delivered (`success`), and failed to be delivered (`error`).",
                &["namespace", "status"],
            ),
            processing: counter(
                "mg_machine_processing_changes_total",
                "Steps `started` and `finished`, by impact. A `continuation` is a step that the service takes on its own.",
                &["namespace", "impact", "change"],
            ),
            processing_duration: register.histogram(
                "mg_machine_processing_duration_seconds",
                "Time a step took, its processor and its commit included.",
                &["namespace", "impact"],
                DURATIONS,
            ),
            delivery_failures: counter(
                "mg_machine_notification_delivery_failure_actions_total",
                "What became of notifications that were not delivered: `reschedule`; `delete`, its machine is gone or started anew; `ignore` (never: none is forgotten).",
                &["namespace", "action"],
            ),
            worker_actions: counter(
                "mg_worker_actions_total",
                "Requests and wake-ups handed to a machine's worker (`call_attempt`), and workers that were to be started for them (`start_attempt`).",
                &["namespace", "action"],
            ),
            loading_length: register.histogram(
                "mg_worker_action_queue_length",
                "Machines being loaded when one more is to be (`start_attempt`).",
                &["namespace", "action"],
                QUEUES,
            ),
            loading_usage: register.histogram(
                "mg_worker_action_queue_usage",
                "Their share of `worker.message_queue_len_limit`.",
                &["namespace", "action"],
                FRACTIONS,
            ),
            queue_length: register.histogram(
                "machinegun_machine_queue_length",
                "What waits for a machine when one more request comes, of `worker.machine_queue_limit`.",
                &["namespace"],
                QUEUES,
            ),
            cache: counter(
                "machinegun_cache_requests_total",
                "Records that steps needed: in memory (`hit`), or read from the store (`miss`).",
                &["namespace", "result"],
            ),
            wakes: counter(
                "machinegun_wakes_total",
                "Wake-ups of machines, whatever their reason turned out to be: taken out of the schedule (`created`), and ended (`finished`).",
                &["namespace", "change"],
            ),
            machines: gauge(
                "machinegun_machines",
                "Machines stored in the shards of this instance, by status, as of the last count and the commits since; absent until the first count is done.",
                &["namespace", "status"],
            ),
            schedule: ScheduleFamilies::new(register),
            stored: StoredFamilies::new(register),
            workers: gauge("machinegun_workers", "Machines loaded now.", &["namespace"]),
            in_flight: gauge("machinegun_steps_in_flight", "Requests waiting or running now.", &["namespace"]),
            refusals: counter(
                "machinegun_refusals_total",
                "Requests refused by one of our own bounds, by the setting that bounds them.",
                &["namespace", "bound"],
            ),
            conflicts: counter(
                "machinegun_commit_conflicts_total",
                "Commits that found another one in their place; the step was done again.",
                &["namespace"],
            ),
        }
    }

    pub(super) fn of(&self, name: &str) -> NamespaceMetrics {
        let lifecycle = |change: &str| self.lifecycle.with_label_values(&[name, change]);
        let notification = |status: &str| self.notifications.with_label_values(&[name, status]);
        let delivery = |action: &str| self.delivery_failures.with_label_values(&[name, action]);
        let worker = |action: &str| self.worker_actions.with_label_values(&[name, action]);
        let cache = |result: &str| self.cache.with_label_values(&[name, result]);
        let loading = [name, "start_attempt"];
        // Known to dashboards, though nothing here ever does it.
        delivery("ignore");
        NamespaceMetrics {
            loaded: lifecycle("loaded"),
            unloaded: lifecycle("unloaded"),
            created: lifecycle("created"),
            removed: lifecycle("removed"),
            repaired: lifecycle("repaired"),
            failed: lifecycle("failed"),
            committed_suicide: lifecycle("committed_suicide"),
            loading_error: lifecycle("loading_error"),
            transient_error: lifecycle("transient_error"),
            notification_created: notification("created"),
            notification_success: notification("success"),
            notification_error: notification("error"),
            delivery_rescheduled: delivery("reschedule"),
            delivery_deleted: delivery("delete"),
            timers: self.schedule.timers(name),
            task_created: self.wakes.with_label_values(&[name, "created"]),
            task_finished: self.wakes.with_label_values(&[name, "finished"]),
            schedulers: self.schedule.schedulers(name),
            stored: self.stored.namespace(name),
            call_attempts: worker("call_attempt"),
            start_attempts: worker("start_attempt"),
            loading_length: self.loading_length.with_label_values(&loading),
            loading_usage: self.loading_usage.with_label_values(&loading),
            queue_length: self.queue_length.with_label_values(&[name]),
            cache_hit: cache("hit"),
            cache_miss: cache("miss"),
            workers: self.workers.with_label_values(&[name]),
            in_flight: self.in_flight.with_label_values(&[name]),
            conflicts: self.conflicts.with_label_values(&[name]),
            machines: self.machines.clone(),
            refusals: self.refusals.clone(),
            namespace: name.to_owned(),
            impacts: IMPACTS.iter().map(|impact| (*impact, self.impact(name, impact))).collect(),
        }
    }

    fn impact(&self, namespace: &str, impact: &str) -> ImpactMetrics {
        let processing = |change: &str| self.processing.with_label_values(&[namespace, impact, change]);
        ImpactMetrics {
            started: processing("started"),
            finished: processing("finished"),
            duration: self.processing_duration.with_label_values(&[namespace, impact]),
        }
    }
}

// === impl NamespaceMetrics ===

impl NamespaceMetrics {
    pub fn impact(&self, name: &str) -> &ImpactMetrics {
        let found = self.impacts.iter().find(|(impact, _)| *impact == name);
        // Every name that an impact has is listed above, and a test walks through them.
        &found.unwrap_or(&self.impacts[0]).1
    }

    pub fn machines(&self, status: &str, number: i64) {
        self.machines.with_label_values(&[&self.namespace, status]).set(number);
    }

    pub fn scheduler(&self, scheduler: Scheduler) -> &SchedulerMetrics {
        // One for each, in their order.
        &self.schedulers[scheduler as usize]
    }

    pub fn stored(&self, stored: Stored) -> &OperationMetrics {
        // One for each, in their order.
        &self.stored[stored as usize]
    }

    /// So that a bound shows before it refuses anything.
    pub fn bounded_by(&self, bound: &str) {
        self.refusals.with_label_values(&[&self.namespace, bound]);
    }

    pub fn refused(&self, bound: &str) {
        self.refusals.with_label_values(&[&self.namespace, bound]).inc();
    }
}
