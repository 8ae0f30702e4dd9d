//! `suicide_probability`: a worker dies behind its processor's answer, before anything of the step is stored.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use machinegun::engine::EngineError;
use machinegun::machine::Outcome;
use machinegun::processor::{Ask, Question};

use crate::dice::Dice;
use crate::on_every_storage;
use crate::recorder::Recorder;
use crate::scripted::{done, reply, text};
use crate::world::{CLEAR, Mg, World, call, ok, until};

on_every_storage!(
    a_worker_that_dies_in_a_step_stores_nothing_of_it_and_the_next_one_goes_on,
    who_waits_behind_a_step_whose_worker_dies_is_told_that_the_result_is_unknown,
    a_timer_and_a_notification_whose_workers_die_come_again,
    nothing_is_lost_or_done_twice_while_workers_die_at_random,
);

/// Workers die while the switch is on.
fn mortal(mg: Mg) -> (Mg, Arc<AtomicBool>) {
    let switch = Arc::<AtomicBool>::default();
    let asked = switch.clone();
    let suicide = Arc::new(move || asked.load(Ordering::SeqCst));
    (mg.with(|_, namespace| namespace.suicide = Some(suicide)), switch)
}

fn suicides(mg: &World) -> i64 {
    mg.metric("mg_machine_lifecycle_changes_total", "committed_suicide")
}

async fn a_worker_that_dies_in_a_step_stores_nothing_of_it_and_the_next_one_goes_on(mg: Mg) {
    let (mg, dies) = mortal(mg);
    let mg = mg.start().await;
    mg.three_events("m").await;
    dies.store(true, Ordering::SeqCst);
    mg.processor.then(reply("").event("never").aux("never").timer(1));
    assert_eq!(mg.call("m", "x").await, Err(EngineError::Killed));
    assert_eq!(mg.init("n").await, Err(EngineError::Killed));
    dies.store(false, Ordering::SeqCst);
    mg.settle().await;
    assert_eq!((suicides(&mg), mg.storage.commits().len()), (2, 1));
    assert_eq!(mg.events("m").await.len(), 3);
    assert_eq!(mg.call("m", "y").await, ok("y"));
    mg.change("m", reply("").event("d")).await;
    assert_eq!(mg.events("m").await[3..], [(4, "d".to_owned())]);
    mg.machine("n", done()).await;
    assert_eq!(mg.metric("machinegun_steps_in_flight", "ns"), 0);
    assert_eq!(mg.metric("machinegun_workers", "ns"), 2);
}

async fn who_waits_behind_a_step_whose_worker_dies_is_told_that_the_result_is_unknown(mg: Mg) {
    let (mg, dies) = mortal(mg);
    let mg = mg.start().await;
    mg.machine("m", done()).await;
    let mut gate = mg.processor.hold("m");
    let dying = mg.ask("m", call("x"));
    let waiting = mg.ask("m", call("y"));
    gate.reached().await;
    dies.store(true, Ordering::SeqCst);
    gate.open();
    assert_eq!(dying.await, Err(EngineError::Killed));
    assert_eq!(waiting.await, Err(EngineError::Killed));
    dies.store(false, Ordering::SeqCst);
    assert_eq!(mg.processor.asks(), ["init ", "call x"]);
    assert_eq!(mg.call("m", "z").await, ok("z"));
}

async fn a_timer_and_a_notification_whose_workers_die_come_again(mg: Mg) {
    let (mg, dies) = mortal(mg);
    let mg = mg.start().await;
    mg.machine("timed", done().timer(1)).await;
    mg.machine("notified", done()).await;
    mg.processor.behave(|question| match &question.ask {
        Ask::Timeout => done().event("fired").into(),
        Ask::Notification(args) => done().event(&text(args)).into(),
        _ => reply("").into(),
    });
    dies.store(true, Ordering::SeqCst);
    mg.notify("notified", "heard").await.unwrap();
    mg.advance(1_000);
    mg.until_later(|| suicides(&mg) >= 4).await;
    dies.store(false, Ordering::SeqCst);
    mg.until_later(|| mg.metric("mg_scheduler_task_quota_usage", "status=\"waiting\"") == 0).await;
    mg.advance(1_500);
    mg.settle().await;
    assert_eq!(mg.events("timed").await, [(1, "fired".to_owned())]);
    assert_eq!(mg.events("notified").await, [(1, "heard".to_owned())]);
    // No try of a timer was counted.
    assert_eq!(mg.metric("mg_timer_lifecycle_changes_total", "rescheduled\""), 0);
}

/// What is said to a machine becomes an event.
fn noting(question: &Question) -> Outcome {
    match &question.ask {
        Ask::Init(_) => done().event("born").timer(5).into(),
        Ask::Timeout => done().event("fired").into(),
        Ask::Notification(args) => done().event(&text(args)).into(),
        Ask::Call(args) | Ask::Repair(args) => reply("").event(&text(args)).into(),
    }
}

async fn nothing_is_lost_or_done_twice_while_workers_die_at_random(mg: Mg) {
    let sink = Recorder::new();
    let dice = Mutex::new(Dice::new(42));
    let suicide = Arc::new(move || dice.lock().unwrap().below(100) < 40);
    let mg = mg.sink("s", &sink).with(|_, namespace| namespace.suicide = Some(suicide)).behaving(noting).start().await;
    let machines = ["a", "b", "c"];
    for machine in machines {
        while mg.init(machine).await == Err(EngineError::Killed) {}
    }
    for n in 0..8 {
        for machine in machines {
            mg.notify(machine, &format!("notified {n}")).await.unwrap();
            // Nothing of a step is stored whose worker died, so it may be asked for again.
            while mg.call(machine, &format!("called {n}")).await == Err(EngineError::Killed) {}
        }
        mg.advance(500);
    }
    // Born, fired, and what was said.
    let complete = |seen: &Recorder| machines.iter().all(|machine| firsts(seen, machine).len() == 2 + 16);
    mg.until_later(|| complete(&sink)).await;
    for machine in machines {
        let events: Vec<_> = mg.events(machine).await.into_iter().map(|(id, text)| format!("{id} {text}")).collect();
        assert_eq!(events.len(), 18, "{events:?}");
        for kind in ["called", "notified"] {
            let of_kind = events.iter().filter_map(|event| event.split_once(' ')?.1.strip_prefix(kind));
            assert!(of_kind.eq((0..8).map(|n| format!(" {n}"))), "{events:?}");
        }
        assert_eq!(firsts(&sink, machine), events, "a sink may have some twice, but none too late");
    }
    assert!(suicides(&mg) > 20, "{}", suicides(&mg));
    mg.advance(CLEAR as u64);
    until(|| mg.metric("machinegun_sink_pending", "name=\"s\"") == 0).await;
}

/// What the sink has of a machine, without what came again.
fn firsts(sink: &Recorder, machine: &str) -> Vec<String> {
    let mut firsts: Vec<String> = Vec::new();
    for entry in sink.of(machine) {
        if !firsts.contains(&entry) {
            firsts.push(entry);
        }
    }
    firsts
}
