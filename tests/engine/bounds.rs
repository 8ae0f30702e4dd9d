//! Bounds: each with its refusal and its metric, and what a panic costs.

use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use machinegun::engine::{Bound, EngineError, EngineOptions, NamespaceOptions};
use machinegun::machine::{Impact, Refusal, StatusKind};
use machinegun::wire::Value;

use crate::faulty::Fault;
use crate::on_every_storage;
use crate::scripted::{done, reply};
use crate::world::{Mg, World, call, id, memory, ok, until};

on_every_storage!(
    a_full_queue_refuses_and_says_so,
    machines_being_loaded_are_bounded_and_those_that_are_loaded_are_not,
    a_machine_that_waits_for_its_processor_is_not_loading_any_more,
    steps_in_flight_are_bounded_in_all_and_per_namespace,
    arguments_of_one_namespace_are_bounded_in_bytes,
    while_memory_is_short_no_work_is_taken_and_reads_go_on,
    a_cache_that_must_shrink_lets_idle_machines_go,
    callers_who_hang_up_do_not_widen_the_bound,
    reads_and_notifications_go_on_while_steps_are_refused,
    a_timer_refused_by_a_bound_fires_a_moment_later,
    the_cache_lets_go_of_the_least_recently_used_and_they_still_answer,
    a_machine_that_was_shed_while_it_worked_is_not_counted,
    an_idle_machine_is_unloaded_and_loaded_again,
    an_unloaded_machine_is_not_counted_as_held,
    a_panicking_processor_costs_one_answer,
    a_panicking_store_costs_one_answer,
    a_timer_whose_processor_panics_comes_again,
);

fn overload(bound: Bound) -> Result<machinegun::machine::Success, EngineError> {
    Err(EngineError::Overload(bound))
}

fn refusals(mg: &World, bound: Bound) -> i64 {
    mg.metric("machinegun_refusals_total", bound.setting())
}

async fn a_full_queue_refuses_and_says_so(mg: Mg) {
    let mg = mg.with(|options, _| options.machine_queue_limit = 2).start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    let running = mg.ask("m", call("running"));
    gate.reached().await;
    let waiting = [mg.ask("m", call("1")), mg.ask("m", call("2"))];
    assert_eq!(mg.call("m", "3").await, overload(Bound::MachineQueue));
    assert_eq!(refusals(&mg, Bound::MachineQueue), 1);
    mg.machine("other", done()).await;
    gate.open();
    running.await.unwrap();
    for call in waiting {
        call.await.unwrap();
    }
    assert_eq!(mg.call("m", "3").await, ok("3"));
}

async fn machines_being_loaded_are_bounded_and_those_that_are_loaded_are_not(mg: Mg) {
    let mg = mg.with(|options, _| options.loading_limit = 2).start().await;
    mg.machine("loaded", done()).await;
    let mut gate = mg.storage.hold_reads();
    let loading = [mg.ask("a", call("x")), mg.ask("b", call("x"))];
    assert_eq!(mg.call("c", "x").await, overload(Bound::Loading));
    assert_eq!(refusals(&mg, Bound::Loading), 1);
    assert_eq!(mg.call("loaded", "x").await, ok("x"));
    gate.reached().await;
    gate.open();
    for call in loading {
        call.await.unwrap_err();
    }
    mg.machine("c", done()).await;
}

async fn a_machine_that_waits_for_its_processor_is_not_loading_any_more(mg: Mg) {
    let mg = mg.with(|options, _| options.loading_limit = 1).start().await;
    let mut gate = mg.processor.hold("a");
    let init = mg.ask("a", Impact::Init { args: Value::str("") });
    gate.reached().await;
    mg.machine("b", done()).await;
    gate.open();
    init.await.unwrap();
}

async fn steps_in_flight_are_bounded_in_all_and_per_namespace(mg: Mg) {
    let bounded = mg.with(|options, _| options.steps_in_flight_per_namespace = 2).start().await;
    let check = async |mg: &World| {
        let mut gate = mg.processor.hold("m");
        let running = mg.ask("m", call("running"));
        gate.reached().await;
        let waiting = mg.ask("m", call("waiting"));
        assert_eq!(mg.metric("machinegun_steps_in_flight", "ns"), 2);
        assert_eq!(mg.call("other", "x").await, overload(Bound::StepsInFlight));
        gate.open();
        running.await.unwrap();
        waiting.await.unwrap();
        assert_eq!(mg.metric("machinegun_steps_in_flight", "ns"), 0);
        assert_eq!(mg.call("m", "again").await, ok("again"));
        assert_eq!(refusals(mg, Bound::StepsInFlight), 1);
    };
    bounded.machine("m", done()).await;
    check(&bounded).await;
    let in_all = bounded
        .restart_with(1, |mg| {
            mg.with(|options, _| {
                options.steps_in_flight_per_namespace = 100;
                options.steps_in_flight = 2;
            })
        })
        .await;
    check(&in_all).await;
}

async fn arguments_of_one_namespace_are_bounded_in_bytes(mut mg: Mg) {
    mg.others.push("other".to_owned());
    let mg = mg.with(|options, _| options.arguments_per_namespace = 10_000).start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    let large = "x".repeat(6_000);
    let running = mg.ask("m", call(&large));
    gate.reached().await;
    assert_eq!(mg.call("else", &large).await, overload(Bound::Bodies));
    assert_eq!(refusals(&mg, Bound::Bodies), 1);
    // What is small goes on, and so does another namespace.
    assert_eq!(mg.call("else", "x").await, Err(Refusal::MachineNotFound.into()));
    let other = mg.engine.namespace(b"other").unwrap().execute(id("m"), call(&large), mg.request()).await;
    assert_eq!(other, Err(Refusal::MachineNotFound.into()));
    gate.open();
    running.await.unwrap();
    assert_eq!(mg.call("m", &large).await, ok(&large));
}

async fn while_memory_is_short_no_work_is_taken_and_reads_go_on(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    mg.machine("timed", done().timer(1)).await;
    let mut gate = mg.processor.hold("m");
    let running = mg.ask("m", call("running"));
    gate.reached().await;
    mg.engine.set_short(true);
    assert_eq!(mg.call("m", "x").await, overload(Bound::Memory));
    assert_eq!(mg.init("new").await, overload(Bound::Memory));
    assert_eq!(mg.notify("m", "x").await, Err(EngineError::Overload(Bound::Memory)));
    assert_eq!(refusals(&mg, Bound::Memory), 3);
    assert_eq!(mg.events("m").await.len(), 3);
    gate.open();
    assert_eq!(running.await, ok("running"), "what runs goes on");
    // A timer is put off, time and again, and no failure of its processor's.
    for _ in 0..10 {
        mg.advance(1_500);
        mg.settle().await;
    }
    assert_eq!(mg.processor.count(), 3);
    mg.engine.set_short(false);
    mg.advance(1_500);
    mg.processor.question(4).await;
    mg.settle().await;
    assert_eq!(mg.stored("timed").await.kind(), StatusKind::Sleeping);
    assert_eq!(mg.call("m", "x").await, ok("x"));
}

async fn a_cache_that_must_shrink_lets_idle_machines_go(mg: Mg) {
    let mg = mg.start().await;
    for n in 0..10 {
        mg.three_events(&format!("m{n}")).await;
    }
    let mut gate = mg.processor.hold("m0");
    let running = mg.ask("m0", call("running"));
    gate.reached().await;
    let held = mg.engine.cached_bytes();
    mg.engine.allow_cache(held / 2);
    until(|| mg.metric("machinegun_workers", "ns") <= 6).await;
    assert!(mg.engine.cached_bytes() <= held / 2);
    mg.engine.allow_cache(0);
    until(|| mg.metric("machinegun_workers", "ns") == 1).await;
    gate.open();
    assert_eq!(running.await, ok("running"));
    assert_eq!(mg.call("m9", "x").await, ok("x"));
    let (allowed, capacity) = mg.engine.cache_allowed();
    assert_eq!(allowed, 0);
    mg.engine.allow_cache(usize::MAX);
    assert_eq!(mg.engine.cache_allowed(), (capacity, capacity));
    mg.call("m9", "x").await.unwrap();
    let reads = mg.storage.reads.load(Ordering::SeqCst);
    mg.call("m9", "x").await.unwrap();
    assert_eq!(mg.storage.reads.load(Ordering::SeqCst), reads, "it is held again");
}

/// As many as a service takes in all.
#[tokio::test]
async fn ten_thousand_calls_on_one_machine_leave_all_others_unharmed() {
    const CALLS: usize = 10_000;
    let mut mg = memory();
    mg.others.push("other".to_owned());
    let set = |options: &mut EngineOptions, _: &mut NamespaceOptions| {
        options.steps_in_flight_per_namespace = 5_000;
        options.machine_queue_limit = 10_000;
    };
    let mg = mg.with(set).start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    let running = mg.ask("m", call("running"));
    gate.reached().await;
    let mut waiting = Vec::new();
    for _ in 0..CALLS {
        let mut asked = mg.ask("m", call("waiting"));
        match (&mut asked).now_or_never() {
            None => waiting.push(asked),
            Some(refused) => assert_eq!(refused, overload(Bound::MachineQueue)),
        }
    }
    assert_eq!(waiting.len(), 2_500, "half of what its namespace may have");
    assert_eq!(refusals(&mg, Bound::MachineQueue), (CALLS - waiting.len()) as i64);
    mg.machine("neighbour", done().timer(1)).await;
    assert_eq!(mg.call("neighbour", "x").await, ok("x"));
    mg.advance(1_000);
    mg.processor.question(5).await;
    let other = mg.engine.namespace(b"other").unwrap();
    other.execute(id("m"), Impact::Init { args: Value::str("") }, mg.request()).await.unwrap();
    assert_eq!(other.execute(id("m"), call("y"), mg.request()).await, ok("y"));
    assert_eq!(mg.events("m").await, [], "reads pass the queue by");
    gate.open();
    running.await.unwrap();
    for asked in waiting {
        assert_eq!(asked.await, ok("waiting"));
    }
    assert_eq!(mg.call("m", "again").await, ok("again"));
}

async fn callers_who_hang_up_do_not_widen_the_bound(mg: Mg) {
    let mg = mg.with(|options, _| options.steps_in_flight = 2).start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    drop(mg.ask("m", call("running")));
    gate.reached().await;
    drop(mg.ask("m", call("waiting")));
    assert_eq!(mg.call("m", "x").await, overload(Bound::StepsInFlight));
    gate.open();
    mg.processor.question(3).await;
    until(|| mg.metric("machinegun_steps_in_flight", "ns") == 0).await;
    assert_eq!(mg.call("m", "x").await, ok("x"));
}

async fn reads_and_notifications_go_on_while_steps_are_refused(mg: Mg) {
    let mg = mg.with(|options, _| options.steps_in_flight = 1).start().await;
    mg.three_events("m").await;
    let mut gate = mg.processor.hold("m");
    let running = mg.ask("m", call("running"));
    gate.reached().await;
    assert_eq!(mg.call("m", "x").await, overload(Bound::StepsInFlight));
    assert_eq!(mg.events("m").await.len(), 3);
    mg.notify("m", "x").await.unwrap();
    gate.open();
    running.await.unwrap();
    mg.processor.question(3).await;
}

async fn a_timer_refused_by_a_bound_fires_a_moment_later(mg: Mg) {
    let mg = mg.with(|options, _| options.machine_queue_limit = 1).start().await;
    mg.machine("m", done().timer(1)).await;
    let mut gate = mg.processor.hold("m");
    let running = mg.ask("m", call("running"));
    gate.reached().await;
    let waiting = mg.ask("m", call("waiting"));
    mg.advance(1_000);
    until(|| refusals(&mg, Bound::MachineQueue) == 1).await;
    gate.open();
    running.await.unwrap();
    waiting.await.unwrap();
    assert_eq!(mg.processor.count(), 3);
    mg.advance(1_500);
    mg.processor.question(4).await;
}

async fn the_cache_lets_go_of_the_least_recently_used_and_they_still_answer(mg: Mg) {
    // Room for about three machines.
    let mg = mg.with(|options, _| options.cache = 8_000).start().await;
    for n in 0..10 {
        mg.three_events(&format!("m{n}")).await;
    }
    until(|| mg.metric("machinegun_workers", "ns") <= 3).await;
    assert!(mg.engine.cached_bytes() <= 8_000, "{}", mg.engine.cached_bytes());
    let reads = mg.storage.reads.load(Ordering::SeqCst);
    mg.call("m9", "x").await.unwrap();
    assert_eq!(mg.storage.reads.load(Ordering::SeqCst), reads, "the latest is held");
    for n in 0..10 {
        mg.change(&format!("m{n}"), reply("").event("d")).await;
        assert_eq!(mg.events(&format!("m{n}")).await.len(), 4);
    }
    assert!(mg.storage.reads.load(Ordering::SeqCst) > reads);
}

async fn a_machine_that_was_shed_while_it_worked_is_not_counted(mg: Mg) {
    let mg = mg.with(|options, _| options.cache = 5_000).start().await;
    mg.machine("old", done()).await;
    let mut gate = mg.processor.hold("old");
    let running = mg.ask("old", call("running"));
    gate.reached().await;
    // Two more than there is room for: the one that works is told to let go.
    mg.machine("a", done()).await;
    mg.machine("b", done()).await;
    gate.open();
    assert_eq!(running.await, ok("running"));
    until(|| mg.metric("machinegun_workers", "ns") <= 2).await;
    mg.quiet().await;
    let held = mg.engine.cached_bytes() as i64;
    let each = held / mg.metric("machinegun_workers", "ns").max(1);
    assert!((2_000..3_000).contains(&each), "{held} bytes for {} workers", mg.metric("machinegun_workers", "ns"));
    assert_eq!(mg.call("old", "x").await, ok("x"));
}

async fn an_idle_machine_is_unloaded_and_loaded_again(mg: Mg) {
    let mg = mg.with(|_, namespace| namespace.unload_ms = 1_000).start().await;
    mg.three_events("m").await;
    mg.advance(999);
    mg.call("m", "x").await.unwrap();
    mg.advance(999);
    assert_eq!(mg.metric("machinegun_workers", "ns"), 1);
    let reads = mg.storage.reads.load(Ordering::SeqCst);
    mg.call("m", "x").await.unwrap();
    assert_eq!(mg.storage.reads.load(Ordering::SeqCst), reads);
    mg.advance(1_000);
    until(|| mg.metric("machinegun_workers", "ns") == 0).await;
    assert_eq!(mg.call("m", "x").await, ok("x"));
    assert_eq!(mg.processor.questions().pop().unwrap().machine.history.len(), 3);
    assert_eq!(mg.storage.reads.load(Ordering::SeqCst), reads + 1);
}

async fn an_unloaded_machine_is_not_counted_as_held(mg: Mg) {
    let mg = mg.with(|_, namespace| namespace.unload_ms = 1_000).start().await;
    mg.three_events("m").await;
    assert!(mg.engine.cached_bytes() > 0);
    mg.advance(1_000);
    until(|| mg.metric("machinegun_workers", "ns") == 0).await;
    assert_eq!(mg.engine.cached_bytes(), 0);
}

async fn a_panicking_processor_costs_one_answer(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    mg.processor.behave(|question| {
        assert_ne!(crate::scripted::name(&question.ask), "call break", "the test has it so");
        reply("fine").into()
    });
    let mut gate = mg.processor.hold("m");
    let breaking = mg.ask("m", call("break"));
    let waiting = mg.ask("m", call("x"));
    gate.reached().await;
    gate.open();
    assert_eq!(breaking.await, Err(EngineError::Killed));
    assert_eq!(waiting.await, ok("fine"));
    assert_eq!(mg.call("m", "y").await, ok("fine"));
    assert_eq!(mg.events("m").await.len(), 3);
    assert_eq!(mg.metric("machinegun_workers", "ns"), 1);
    assert_eq!(mg.metric("machinegun_steps_in_flight", "ns"), 0);
}

async fn a_panicking_store_costs_one_answer(mg: Mg) {
    let mg = mg.start().await;
    mg.three_events("m").await;
    mg.storage.then(Fault::Panic);
    mg.processor.then(reply("").event("never"));
    assert_eq!(mg.call("m", "x").await, Err(EngineError::Killed));
    mg.change("m", reply("").event("d")).await;
    assert_eq!(mg.events("m").await[3..], [(4, "d".to_owned())]);
}

async fn a_timer_whose_processor_panics_comes_again(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("m", done().timer(1)).await;
    mg.processor.behave(|_| panic!("the test has it so"));
    mg.advance(1_000);
    mg.processor.question(2).await;
    mg.settle().await;
    mg.processor.behave(|_| done().into());
    mg.advance(1_500);
    mg.processor.question(3).await;
}
