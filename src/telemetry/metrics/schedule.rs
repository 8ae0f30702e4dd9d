//! What is woken, when, and how late.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::definition::{DURATIONS, OFFSETS, Register, SCANS};

/// Why a machine is woken, by the name of the original's scheduler that did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    Timers,
    TimersRetries,
    /// What only this service does on its own: debts to sinks, deletions, tombstones.
    Overseer,
    Notification,
}

#[derive(Debug)]
pub(super) struct ScheduleFamilies {
    timers: IntCounterVec,
    timer_offset: HistogramVec,
    timer_processing: IntCounterVec,
    timer_duration: HistogramVec,
    scans: IntCounterVec,
    scan_delay: HistogramVec,
    scan_duration: HistogramVec,
    tasks: IntCounterVec,
    task_delay: HistogramVec,
    task_duration: HistogramVec,
    quota: IntGaugeVec,
}

/// A namespace's timers.
#[derive(Debug)]
pub struct TimerMetrics {
    pub created: TimerChange,
    pub rescheduled: TimerChange,
    pub rescheduling_error: TimerChange,
    pub removed: TimerChange,
    pub normal: TimerProcessing,
    pub retries: TimerProcessing,
}

#[derive(Debug)]
pub struct TimerChange {
    changes: IntCounter,
    offset: Histogram,
}

#[derive(Debug)]
pub struct TimerProcessing {
    pub started: IntCounter,
    pub finished: IntCounter,
    pub duration: Histogram,
}

/// One scheduler of a namespace.
#[derive(Debug)]
pub struct SchedulerMetrics {
    pub scanned: IntCounter,
    pub scan_error: IntCounter,
    pub scan_delay: Histogram,
    pub scan_duration: Histogram,
    pub created: IntCounter,
    pub started: IntCounter,
    pub finished: IntCounter,
    pub error: IntCounter,
    pub delay: Histogram,
    pub duration: Histogram,
    pub active: IntGauge,
    pub reserved: IntGauge,
}

// === impl Scheduler ===

impl Scheduler {
    /// In the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Timers, Self::TimersRetries, Self::Overseer, Self::Notification];

    fn name(self) -> &'static str {
        match self {
            Self::Timers => "timers",
            Self::TimersRetries => "timers_retries",
            Self::Overseer => "overseer",
            Self::Notification => "notification",
        }
    }
}

// === impl ScheduleFamilies ===

impl ScheduleFamilies {
    pub(super) fn new(register: &Register) -> Self {
        const OF_SCHEDULER: &[&str] = &["namespace", "name"];
        Self {
            timers: register.counter(
                "mg_timer_lifecycle_changes_total",
                "Timers set, retried and gone: `created`, `rescheduled`, `rescheduling_error` (its failure could not be stored), `removed`.",
                &["namespace", "change"],
            ),
            timer_offset: register.histogram(
                "mg_timer_lifecycle_change_offset_seconds",
                "How far ahead a timer was due when it changed; 0 if its time had come.",
                &["namespace", "change"],
                OFFSETS,
            ),
            timer_processing: register.counter(
                "mg_timer_processing_changes_total",
                "Steps of timers, `started` and `finished`, by `queue`: `normal`, or `retries` after one that failed.",
                &["namespace", "queue", "change"],
            ),
            timer_duration: register.histogram(
                "mg_timer_processing_duration_seconds",
                "Time that a timer's step took.",
                &["namespace", "queue"],
                DURATIONS,
            ),
            scans: register.counter(
                "mg_scheduler_scan_changes_total",
                "Looks for what is due in the store: `success` or `error`. One look is for all schedulers.",
                &["namespace", "name", "change"],
            ),
            scan_delay: register.histogram(
                "mg_scheduler_scan_delay_seconds",
                "Time from the end of one look to the beginning of the next.",
                OF_SCHEDULER,
                SCANS,
            ),
            scan_duration: register.histogram(
                "mg_scheduler_scan_duration_seconds",
                "Time that a look for what is due took.",
                OF_SCHEDULER,
                DURATIONS,
            ),
            tasks: register.counter(
                "mg_scheduler_task_changes_total",
                "Wake-ups of machines by their reason: `created`, `started`, `finished`, and `error`, put off because a bound or the store stood in the way.",
                &["namespace", "name", "change"],
            ),
            task_delay: register.histogram(
                "mg_scheduler_task_processing_delay_seconds",
                "How late a wake-up began: since it was due.",
                OF_SCHEDULER,
                DURATIONS,
            ),
            task_duration: register.histogram(
                "mg_scheduler_task_processing_duration_seconds",
                "Time that a wake-up took, its step included.",
                OF_SCHEDULER,
                DURATIONS,
            ),
            quota: register.gauge(
                "mg_scheduler_task_quota_usage",
                "Wake-ups: `active` ones, those that are due and `waiting`, and how many are `reserved`, the most that there may be at once: the scheduler's capacity, or its part of `limits.scheduler_tasks` while that is short. A record found by a scan counts as a timer until it is read.",
                &["namespace", "name", "status"],
            ),
        }
    }

    pub(super) fn timers(&self, namespace: &str) -> TimerMetrics {
        let change = |change: &str| TimerChange {
            changes: self.timers.with_label_values(&[namespace, change]),
            offset: self.timer_offset.with_label_values(&[namespace, change]),
        };
        let processing = |queue: &str| TimerProcessing {
            started: self.timer_processing.with_label_values(&[namespace, queue, "started"]),
            finished: self.timer_processing.with_label_values(&[namespace, queue, "finished"]),
            duration: self.timer_duration.with_label_values(&[namespace, queue]),
        };
        TimerMetrics {
            created: change("created"),
            rescheduled: change("rescheduled"),
            rescheduling_error: change("rescheduling_error"),
            removed: change("removed"),
            normal: processing("normal"),
            retries: processing("retries"),
        }
    }

    /// What is due and waits.
    pub(super) fn waiting(&self, namespace: &str, scheduler: Scheduler) -> IntGauge {
        self.quota.with_label_values(&[namespace, scheduler.name(), "waiting"])
    }

    /// In the order of [`Scheduler`].
    pub(super) fn schedulers(&self, namespace: &str) -> Vec<SchedulerMetrics> {
        Scheduler::ALL.iter().map(|scheduler| self.scheduler(namespace, scheduler.name())).collect()
    }

    fn scheduler(&self, namespace: &str, name: &str) -> SchedulerMetrics {
        let scans = |change: &str| self.scans.with_label_values(&[namespace, name, change]);
        let tasks = |change: &str| self.tasks.with_label_values(&[namespace, name, change]);
        let quota = |status: &str| self.quota.with_label_values(&[namespace, name, status]);
        let labels = [namespace, name];
        SchedulerMetrics {
            scanned: scans("success"),
            scan_error: scans("error"),
            scan_delay: self.scan_delay.with_label_values(&labels),
            scan_duration: self.scan_duration.with_label_values(&labels),
            created: tasks("created"),
            started: tasks("started"),
            finished: tasks("finished"),
            error: tasks("error"),
            delay: self.task_delay.with_label_values(&labels),
            duration: self.task_duration.with_label_values(&labels),
            active: quota("active"),
            reserved: quota("reserved"),
        }
    }
}

// === impl TimerChange ===

impl TimerChange {
    /// `milliseconds` until the timer's time, or since it.
    pub fn happened(&self, milliseconds: i64) {
        self.changes.inc();
        self.offset.observe(milliseconds.max(0) as f64 / 1_000.0);
    }

    pub fn get(&self) -> u64 {
        self.changes.get()
    }
}
