//! The metrics of the real binary after calls of every kind: every name that the page about them lists is there, nothing
//! else is, and the values are what happened.

mod process;

use std::collections::BTreeSet;

use process::peer::{NAMESPACE, Peer};
use process::processor::{Order, Processor};
use process::{Folder, Machinegun, configuration, soon};

/// Only a namespace with a sink that is paid beside the commit has these; the tests of the engine look at them.
const OF_SINKS: [&str; 2] = ["mg_events_sink_", "machinegun_sink_"];

/// Only instances that share a storage have these; the tests of clusters look at them.
const OF_CLUSTERS: [&str; 8] = [
    "machinegun_fenced_",
    "machinegun_forwards_",
    "machinegun_lease_",
    "machinegun_ledger_appends_",
    "machinegun_ledger_entries_",
    "machinegun_live_",
    "machinegun_shard",
    "machinegun_table_requests",
];

/// What the page lists, with its type.
fn listed() -> Vec<(String, String)> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).expect("the page");
    let rows = page.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some((name.to_owned(), rest.split([' ', '|']).next()?.to_owned()))
    });
    rows.collect()
}

/// The sum over all series of a name that have these labels.
fn value(scraped: &str, name: &str, labels: &[&str]) -> f64 {
    let series = scraped.lines().filter(|line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']));
        rest.is_some_and(|rest| labels.iter().all(|label| rest.contains(label)))
    });
    let values: Vec<f64> =
        series.map(|line| line.rsplit(' ').next().and_then(|it| it.parse().ok()).expect("a number")).collect();
    assert!(!values.is_empty(), "no series {name} {labels:?}");
    values.iter().sum()
}

#[tokio::test]
async fn after_calls_of_every_kind_every_metric_is_there_and_says_what_happened() {
    let (folder, processor) = (Folder::new(), Processor::start());
    let ledger = "    event_sinks: {all: {type: ledger}}\n";
    let config = folder.configured_as(&(configuration(&folder.store(), processor.address) + ledger));
    let service = Machinegun::start(&config).await;
    let peer = Peer::of(service.address);

    // Two machines: one lives, fails, is repaired and removed; the other has a timer and a notification.
    let fail = |token: &str| Order { fail: true, ..Order::plain(token) };
    peer.start("one", &Order::plain("1")).await.expect("started");
    peer.call("one", &Order::plain("2")).await.expect("called");
    peer.call("one", &fail("3")).await.expect_err("it fails");
    peer.repair("one", &Order::plain("4")).await.expect("repaired");
    peer.call("one", &fail("5")).await.expect_err("it fails again");
    peer.simple_repair("one").await.expect("repaired");
    peer.machine("one").await.expect("an answer").expect("a machine");
    peer.remove("one").await.expect("removed");
    peer.start("two", &Order { timer: Some(1800), ..Order::plain("6") }).await.expect("started");
    peer.call("two", &Order { timer: Some(0), ..Order::plain("7") }).await.expect("called");
    peer.notify("two", &Order::plain("8")).await.expect("accepted");
    let text = soon("the timer and the notification", async {
        loop {
            let (_, _, text) = service.get("/metrics").await;
            let done = |impact| value(&text, "mg_machine_processing_changes_total", &[impact, "\"finished\""]) >= 1.0;
            let deleted = value(&text, "mg_storage_operation_changes_total", &["\"delete\"", "\"finish\""]) >= 1.0;
            // The last that a task does.
            let timers = value(&text, "mg_timer_processing_changes_total", &["queue=\"normal\""]) >= 2.0;
            let delivered = value(&text, "mg_machine_notification_changes_total", &["status=\"success\""]) >= 1.0;
            let idle = value(&text, "mg_scheduler_task_quota_usage", &["status=\"active\""]) == 0.0;
            let ended = |name| value(&text, "mg_scheduler_task_changes_total", &["change=\"finished\"", name]) >= 1.0;
            let ended = ended("name=\"timers\"") && ended("name=\"notification\"");
            if done("\"timeout\"") && done("\"notification\"") && deleted && timers && delivered && idle && ended {
                return text;
            }
        }
    })
    .await;

    let (status, head, _) = service.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert_eq!(service.get("/metrics/default").await.0, 200);
    assert_eq!(service.get("/metrics/nowhere").await.0, 404);

    let listed = listed();
    assert!(listed.len() > 40, "{listed:?}");
    let families: BTreeSet<(String, String)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split_once(' ').expect("a name and a type"))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    for family in &families {
        assert!(listed.contains(family), "docs/metrics.md does not list {family:?}");
    }
    for (name, kind) in listed {
        let elsewhere = OF_SINKS.iter().chain(&OF_CLUSTERS).any(|prefix| name.starts_with(prefix));
        assert!(elsewhere || families.contains(&(name.clone(), kind)), "{name} is not there");
    }

    let ns = format!("namespace=\"{NAMESPACE}\"");
    let exactly = [
        ("mg_machine_lifecycle_changes_total", "change=\"created\"", 2.0),
        ("mg_machine_lifecycle_changes_total", "change=\"removed\"", 1.0),
        ("mg_machine_lifecycle_changes_total", "change=\"failed\"", 2.0),
        ("mg_machine_lifecycle_changes_total", "change=\"repaired\"", 2.0),
        ("mg_machine_lifecycle_changes_total", "change=\"loading_error\"", 0.0),
        ("mg_machine_lifecycle_changes_total", "change=\"transient_error\"", 0.0),
        ("mg_machine_lifecycle_changes_total", "change=\"committed_suicide\"", 0.0),
        ("mg_machine_notification_changes_total", "status=\"created\"", 1.0),
        ("mg_machine_notification_changes_total", "status=\"success\"", 1.0),
        ("mg_machine_notification_delivery_failure_actions_total", "action=\"reschedule\"", 0.0),
        ("mg_machine_processing_duration_seconds_count", "impact=\"init\"", 2.0),
        ("mg_machine_processing_duration_seconds_count", "impact=\"call\"", 4.0),
        ("mg_machine_processing_duration_seconds_count", "impact=\"repair\"", 1.0),
        ("mg_machine_processing_duration_seconds_count", "impact=\"simple_repair\"", 1.0),
        ("mg_machine_processing_duration_seconds_count", "impact=\"remove\"", 1.0),
        ("mg_timer_lifecycle_changes_total", "change=\"created\"", 2.0),
        ("mg_timer_lifecycle_changes_total", "change=\"rescheduling_error\"", 0.0),
        // Half an hour ahead, and not ahead at all: the original's were 0 both.
        ("mg_timer_lifecycle_change_offset_seconds_count", "change=\"created\"", 2.0),
        (
            "mg_timer_lifecycle_change_offset_seconds_bucket",
            "change=\"created\",namespace=\"payments\",le=\"600\"",
            1.0,
        ),
        (
            "mg_timer_lifecycle_change_offset_seconds_bucket",
            "change=\"created\",namespace=\"payments\",le=\"3600\"",
            2.0,
        ),
        ("mg_timer_processing_changes_total", "queue=\"normal\"", 2.0),
        ("mg_timer_processing_duration_seconds_count", "queue=\"retries\"", 0.0),
        ("mg_scheduler_scan_changes_total", "change=\"error\"", 0.0),
        ("mg_scheduler_task_quota_usage", "status=\"active\"", 0.0),
        ("mg_scheduler_task_quota_usage", "name=\"timers\",namespace=\"payments\",status=\"reserved\"", 1000.0),
        ("mg_worker_actions_total", "action=\"start_attempt\"", 2.0),
        ("mg_worker_action_queue_length_count", "action=\"start_attempt\"", 2.0),
        ("mg_worker_action_queue_usage_count", "action=\"start_attempt\"", 2.0),
        ("machinegun_steps_in_flight", "", 0.0),
        ("machinegun_workers", "", 2.0),
        ("machinegun_commit_conflicts_total", "", 0.0),
        ("machinegun_cache_requests_total", "result=\"miss\"", 2.0),
    ];
    for (name, label, wanted) in exactly {
        assert_eq!(value(&text, name, &[label, &ns]), wanted, "{name} {label}");
    }
    let at_least = [
        ("mg_machine_lifecycle_changes_total", "change=\"loaded\"", 2.0),
        ("mg_scheduler_scan_changes_total", "change=\"success\"", 1.0),
        ("mg_scheduler_scan_duration_seconds_count", "name=\"notification\"", 1.0),
        ("mg_scheduler_task_changes_total", "change=\"finished\",name=\"timers\"", 1.0),
        ("mg_scheduler_task_changes_total", "change=\"finished\",name=\"notification\"", 1.0),
        ("mg_scheduler_task_processing_delay_seconds_count", "name=\"timers\"", 1.0),
        ("mg_scheduler_task_processing_duration_seconds_count", "name=\"timers\"", 1.0),
        ("mg_worker_actions_total", "action=\"call_attempt\"", 9.0),
        (
            "mg_storage_operation_changes_total",
            "change=\"finish\",name=\"machines\",namespace=\"payments\",operation=\"put\"",
            9.0,
        ),
        (
            "mg_storage_operation_changes_total",
            "change=\"finish\",name=\"machines\",namespace=\"payments\",operation=\"get\"",
            2.0,
        ),
        (
            "mg_storage_operation_changes_total",
            "change=\"finish\",name=\"notifications\",namespace=\"payments\",operation=\"put\"",
            1.0,
        ),
        (
            "mg_storage_operation_duration_seconds_count",
            "name=\"notifications\",namespace=\"payments\",operation=\"search\"",
            1.0,
        ),
        ("machinegun_machine_queue_length_count", "", 7.0),
        ("machinegun_cache_requests_total", "result=\"hit\"", 5.0),
    ];
    for (name, label, least) in at_least {
        let value = value(&text, name, &[label, &ns]);
        assert!(value >= least, "{name} {label}: {value}");
    }
    let (batches, writes) = (
        value(&text, "machinegun_commit_batch_size_count", &[]),
        value(&text, "machinegun_commit_batch_size_sum", &[]),
    );
    assert!(batches >= 9.0 && writes >= batches, "{batches} batches of {writes} writes");
    assert_eq!(
        value(&text, "machinegun_commit_sync_seconds_count", &[]),
        value(&text, "machinegun_commit_batches_total", &[])
    );
    assert!(value(&text, "machinegun_commit_sync_seconds_sum", &[]) > 0.0);
    assert!(value(&text, "machinegun_storage_free_bytes", &[]) > 0.0);
    assert!(value(&text, "machinegun_cache_bytes", &[]) > 0.0);
    assert!(value(&text, "woody_ranch_listener_connections", &["{woody_server_thrift_v2,woody_server}"]) >= 1.0);
    assert_eq!(value(&text, "machinegun_ledger_broken", &["sink=\"all\""]), 0.0);
    // The ids are in no label.
    assert!(!text.contains("\"one\"") && !text.contains("\"two\""));
}
