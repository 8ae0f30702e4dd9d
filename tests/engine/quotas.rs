//! `limits.scheduler_tasks`: what becomes of wake-ups when there are more than may be worked off at once.

use machinegun::engine::{Request, SchedulerOptions};
use machinegun::machine::{Impact, MachineId, Phase, RequestContext, Status};
use machinegun::processor::Question;
use machinegun::wire::Value;

use crate::on_every_storage;
use crate::recorder::Recorder;
use crate::scripted::{Gate, done};
use crate::timers::timeouts;
use crate::world::{CLEAR, Mg, World, id, until};

on_every_storage!(
    wake_ups_over_the_quota_wait_and_it_counts_against_nobody,
    a_busy_namespace_leaves_the_others_their_share_of_the_quota,
    busy_timers_leave_notifications_their_share_of_the_quota,
    what_was_due_before_the_start_is_shared_out_too,
    debts_take_the_places_that_timers_leave,
);

/// What a scheduler is said to have.
fn usage(mg: &World, namespace: &str, scheduler: &str, status: &str) -> i64 {
    let labels = format!("name=\"{scheduler}\",namespace=\"{namespace}\",status=\"{status}\"");
    mg.metric("mg_scheduler_task_quota_usage", &labels)
}

/// Machines whose timers are due in a second, and whose signals wait at gates.
async fn timed(mg: &World, machines: &[&str]) -> Vec<Gate> {
    let mut gates = Vec::new();
    for machine in machines {
        mg.machine(machine, done().timer(1)).await;
        gates.push(mg.processor.hold(machine));
    }
    gates
}

async fn start_elsewhere(mg: &World, namespace: &str, machine: &str) {
    let ns = mg.engine.namespace(namespace.as_bytes()).unwrap();
    let request = Request { context: RequestContext::default(), ..mg.request() };
    ns.execute(id(machine), Impact::Init { args: Value::str("") }, request).await.unwrap();
}

fn machine_of(question: &Question) -> MachineId {
    MachineId::new(question.machine.id.clone()).unwrap()
}

async fn wake_ups_over_the_quota_wait_and_it_counts_against_nobody(mg: Mg) {
    let mg = mg.with(|options, _| options.scheduler_tasks = 2).start().await;
    let [a, b, mut c] = <[Gate; 3]>::try_from(timed(&mg, &["a", "b", "c"]).await).ok().unwrap();
    mg.advance(1_000);
    mg.processor.question(5).await;
    for _ in 0..50 {
        mg.advance(1_000);
        mg.quiet().await;
    }
    assert_eq!(timeouts(&mg), 2);
    let of_timers = ["active", "waiting", "reserved"].map(|status| usage(&mg, "ns", "timers", status));
    assert_eq!(of_timers, [2, 1, 2]);
    let waiting = mg.stored("c").await;
    assert_eq!((waiting.status, waiting.timer.is_some()), (Status::Working(Phase::Idle), true));
    a.open();
    c.reached().await;
    assert_eq!(timeouts(&mg), 3);
    b.open();
    c.open();
    mg.settle().await;
    for machine in ["a", "b", "c"] {
        assert_eq!(mg.get(machine).await.unwrap().record.timer, None, "{machine}");
    }
    assert_eq!(mg.metric("mg_scheduler_task_changes_total", "change=\"error\",name=\"timers\""), 0);
    assert_eq!(mg.metric("mg_timer_lifecycle_changes_total", "rescheduled"), 0);
}

async fn a_busy_namespace_leaves_the_others_their_share_of_the_quota(mut mg: Mg) {
    mg.others.push("other".to_owned());
    let mg = mg.with(|options, _| options.scheduler_tasks = 4).start().await;
    let mut gates = timed(&mg, &["a", "b", "c", "d", "e", "f", "g", "h"]).await;
    mg.processor.then(done().timer(2));
    start_elsewhere(&mg, "other", "quiet").await;
    mg.advance(1_000);
    mg.processor.question(13).await;
    assert_eq!(usage(&mg, "ns", "timers", "reserved"), 4);
    // All places are taken, and shared out anew each second: those in use are given back first.
    mg.advance(1_000);
    until(|| usage(&mg, "ns", "timers", "reserved") == 3).await;
    assert_eq!(usage(&mg, "other", "timers", "reserved"), 1);
    assert_eq!(usage(&mg, "other", "timers", "waiting"), 1);
    mg.quiet().await;
    assert_eq!(timeouts(&mg), 4);
    gates.remove(0).open();
    assert_eq!(machine_of(&mg.processor.question(14).await), id("quiet"), "four more wait for longer");
    gates.into_iter().for_each(Gate::open);
    mg.processor.question(18).await;
    until(|| usage(&mg, "ns", "timers", "active") == 0).await;
    // There are enough again for all.
    mg.advance(1_000);
    until(|| usage(&mg, "ns", "timers", "reserved") == 4 && usage(&mg, "other", "timers", "reserved") == 4).await;
}

async fn busy_timers_leave_notifications_their_share_of_the_quota(mg: Mg) {
    let mg = mg.with(|options, _| options.scheduler_tasks = 3).start().await;
    mg.machine("notified", done()).await;
    let mut gates = timed(&mg, &["a", "b", "c", "d", "e", "f"]).await;
    mg.advance(1_000);
    mg.processor.question(10).await;
    mg.notify("notified", "hear").await.unwrap();
    mg.advance(1_000);
    until(|| usage(&mg, "ns", "timers", "reserved") == 2).await;
    assert_eq!(usage(&mg, "ns", "notification", "reserved"), 1);
    gates.remove(0).open();
    assert_eq!(machine_of(&mg.processor.question(11).await), id("notified"), "three timers wait for longer");
    gates.into_iter().for_each(Gate::open);
    mg.processor.question(14).await;
}

async fn what_was_due_before_the_start_is_shared_out_too(mg: Mg) {
    // Nobody is woken in this run.
    let mg = mg.timers(None).notifications(None).start().await;
    mg.machine("notified", done()).await;
    let mut gates = timed(&mg, &["a", "b", "c", "d", "e", "f"]).await;
    mg.advance(2_000);
    mg.notify("notified", "hear").await.unwrap();
    let all = SchedulerOptions::default();
    let again = mg.restart_with(1, |mg| {
        mg.timers(Some(all)).notifications(Some(all)).with(|options, _| options.scheduler_tasks = 3)
    });
    let mg = again.await;
    mg.processor.question(10).await;
    mg.advance(1_000);
    until(|| usage(&mg, "ns", "notification", "reserved") == 1).await;
    gates.remove(0).open();
    assert_eq!(machine_of(&mg.processor.question(11).await), id("notified"), "three timers wait for longer");
    gates.into_iter().for_each(Gate::open);
    mg.processor.question(14).await;
}

async fn debts_take_the_places_that_timers_leave(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).with(|options, _| options.scheduler_tasks = 1).start().await;
    mg.machine("owes", done().event("e1")).await;
    until(|| mg.metric("machinegun_sink_pending", "name=\"s\"") == 0 && sink.accepted() == 1).await;
    let [mut a, mut b] = <[Gate; 2]>::try_from(timed(&mg, &["a", "b"]).await).ok().unwrap();
    mg.advance(CLEAR as u64);
    a.reached().await;
    until(|| usage(&mg, "ns", "overseer", "reserved") == 0).await;
    a.open();
    b.reached().await;
    mg.quiet().await;
    assert!(!mg.stored("owes").await.unsent.is_empty(), "the timer came first");
    b.open();
    mg.until_noted("owes").await;
}
