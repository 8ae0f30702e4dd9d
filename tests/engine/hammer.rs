//! Random operations from many tasks against a store that fails at random, on two threads. What was acknowledged is
//! there once and in order; what was refused is not there; nobody ever sees a history change.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use machinegun::clock::{ClockHand, random_unit};
use machinegun::engine::EngineError;
use machinegun::machine::{Epoch, Impact, Outcome, Refusal};
use machinegun::processor::{Ask, Question};

use crate::recorder::Recorder;
use crate::scripted::{done, reply, text, transient, unexpected};
use crate::world::{self, Mg, World, call, events, guarded};

const TASKS: usize = 8;
const OPERATIONS: usize = 120;
const ROUNDS: usize = 3;

/// Never removed, so that each acknowledged event can be looked for.
const KEPT: [&str; 4] = ["k0", "k1", "k2", "k3"];

/// Removed and started anew all the time.
const FLEETING: [&str; 2] = ["f0", "f1"];

#[derive(Default)]
struct Model {
    /// Texts that must be there once, in the order in which one task was told of them.
    acknowledged: Mutex<HashMap<(&'static str, usize), Vec<String>>>,
    /// Accepted notifications, which must be there once.
    notified: Mutex<Vec<(&'static str, String)>>,
    /// Texts that must not be there.
    refused: Mutex<HashSet<String>>,
    /// The longest history that anybody saw.
    seen: Mutex<HashMap<(&'static str, Epoch), Vec<String>>>,
    serial: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_event_is_lost_changed_or_doubled_in_memory() {
    guarded(hammer(world::memory())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_event_is_lost_changed_or_doubled_embedded() {
    guarded(hammer(world::embedded())).await;
}

/// With no time to stay, a machine leaves as soon as nobody waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_lost_while_its_machine_is_being_unloaded() {
    guarded(async {
        let mg = world::memory().with(|_, namespace| namespace.unload_ms = 0).start().await;
        mg.processor.behave(|_| reply("").event("x").into());
        mg.init("m").await.unwrap();
        let mg = Arc::new(mg);
        let callers = (0..4).map(|_| mg.clone()).map(|mg| {
            tokio::spawn(async move {
                for _ in 0..250 {
                    mg.call("m", "x").await.unwrap();
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        assert_eq!(mg.get("m").await.unwrap().record.last_event, 1_001);
        mg.engine.stop().await;
        nothing_is_left(&mg);
    })
    .await;
}

/// What was counted up was counted down.
fn nothing_is_left(mg: &World) {
    assert_eq!(mg.engine.cached_bytes(), 0);
    assert_eq!(mg.metric("machinegun_workers", "ns"), 0);
    assert_eq!(mg.metric("machinegun_steps_in_flight", "ns"), 0);
}

fn pick<T: Copy>(of: &[T]) -> T {
    of[(random_unit() * of.len() as f64) as usize]
}

fn behave(question: &Question) -> Outcome {
    match &question.ask {
        Ask::Init(_) => done().event("born").into(),
        _ if random_unit() < 0.03 => transient(),
        Ask::Call(args) | Ask::Repair(args) => match &*text(args) {
            "look" => reply("").into(),
            "fail" => unexpected(),
            args if args.ends_with('7') => reply("").event(args).timer(0).into(),
            args => reply("").event(args).into(),
        },
        Ask::Timeout => done().aux("fired").into(),
        Ask::Notification(args) => done().event(&text(args)).into(),
    }
}

async fn hammer(mg: Mg) {
    let model = Arc::new(Model::default());
    let sink = Recorder::new();
    let mut mg = mg
        .sink("s", &sink)
        .with(|options, namespace| {
            options.cache = 12_000;
            namespace.unload_ms = 40;
            namespace.policy.notification_retry_ms = 30;
        })
        .start()
        .await;
    mg.processor.behave(behave);
    for machine in KEPT {
        mg.init(machine).await.unwrap();
    }
    for round in 0..ROUNDS {
        mg.storage.chaos.store(15, Ordering::SeqCst);
        sink.flake(20);
        mg = round_of(mg, &model, round).await;
        mg.engine.stop().await;
        nothing_is_left(&mg);
        mg = mg.restart(1).await;
    }
    sink.flake(0);
    verify(&mg, &model).await;
    delivered(&mg, &sink).await;
}

/// The sink has each event. Where it has one again, it had all that came before it: no reader ever sees a gap.
async fn delivered(mg: &World, sink: &Recorder) {
    mg.until_later(|| mg.metric("machinegun_sink_pending", "name=\"s\"") == 0).await;
    for machine in KEPT {
        let expected: Vec<_> = mg.events(machine).await.into_iter().map(|(id, text)| format!("{id} {text}")).collect();
        mg.until_later(|| sink.of(machine).last() == expected.last()).await;
        let mut seen = 0;
        for entry in sink.of(machine) {
            let place = expected.iter().position(|it| *it == entry).expect("what the sink has was committed");
            assert!(place <= seen, "{machine}: {entry} came before its predecessor");
            seen = seen.max(place + 1);
        }
        assert_eq!(seen, expected.len());
    }
}

async fn round_of(mg: World, model: &Arc<Model>, round: usize) -> World {
    let (world, ticking) = (Arc::new(mg), Arc::new(AtomicBool::new(true)));
    let clock = tokio::spawn(tick(world.clone(), ticking.clone()));
    let tasks: Vec<_> =
        (0..TASKS).map(|task| tokio::spawn(operate(world.clone(), model.clone(), round * TASKS + task))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    ticking.store(false, Ordering::SeqCst);
    clock.await.unwrap();
    world.storage.chaos.store(0, Ordering::SeqCst);
    Arc::try_unwrap(world).ok().expect("all tasks have ended")
}

async fn tick(world: Arc<World>, ticking: Arc<AtomicBool>) {
    let hand: &ClockHand = &world.hand;
    while ticking.load(Ordering::SeqCst) {
        hand.advance(std::time::Duration::from_millis(1));
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
}

async fn operate(world: Arc<World>, model: Arc<Model>, task: usize) {
    for _ in 0..OPERATIONS {
        let kept = pick(&KEPT);
        match (random_unit() * 20.0) as u32 {
            0..=8 => add(&world, &model, task, kept).await,
            9..=11 => look(&world, &model, pick(&[KEPT[0], KEPT[1], KEPT[2], KEPT[3], FLEETING[0], FLEETING[1]])).await,
            12 | 13 => {
                let text = format!("n{}", model.serial.fetch_add(1, Ordering::SeqCst));
                if world.notify(kept, &text).await.is_ok() {
                    model.notified.lock().unwrap().push((kept, text));
                }
            }
            14 => drop(world.call(kept, "fail").await),
            15 | 16 => drop(world.ask(kept, Impact::SimpleRepair).await),
            17 => drop(world.call(kept, "look").await),
            18 => drop(world.init(pick(&FLEETING)).await),
            _ => {
                let fleeting = pick(&FLEETING);
                drop(world.call(fleeting, "x").await);
                drop(world.notify(fleeting, "y").await);
                drop(world.ask(fleeting, Impact::Remove).await);
            }
        }
    }
}

async fn add(world: &World, model: &Model, task: usize, machine: &'static str) {
    let text = format!("c{}", model.serial.fetch_add(1, Ordering::SeqCst));
    // Some have hardly any time.
    let patience = if random_unit() < 0.2 { 5 } else { 5_000 };
    match world.ask_by(machine, call(&text), world.clock.now() + patience).await {
        Ok(_) => model.acknowledged.lock().unwrap().entry((machine, task)).or_default().push(text),
        // Nobody knows.
        Err(EngineError::TimedOut | EngineError::Killed) => {}
        Err(_) => drop(model.refused.lock().unwrap().insert(text)),
    }
}

async fn look(world: &World, model: &Model, machine: &'static str) {
    let epoch = world.get(machine).await.ok().map(|view| view.record.epoch);
    let known = epoch.and_then(|epoch| model.seen.lock().unwrap().get(&(machine, epoch)).cloned());
    let view = match world.get(machine).await {
        Ok(view) => view,
        Err(error) => {
            assert!(matches!(error, EngineError::Refused(Refusal::MachineNotFound)), "{error}");
            return;
        }
    };
    let history = events(&view.events);
    assert!(history.iter().map(|(id, _)| *id).eq(1..=view.record.last_event), "ids are contiguous: {history:?}");
    let history: Vec<_> = history.into_iter().map(|(_, text)| text).collect();
    // What was known before this was read is still there.
    if let Some(known) = known.filter(|_| epoch == Some(view.record.epoch)) {
        assert!(history.starts_with(&known), "{known:?} became {history:?}");
    }
    let mut seen = model.seen.lock().unwrap();
    let longest = seen.entry((machine, view.record.epoch)).or_default();
    let common = longest.len().min(history.len());
    assert_eq!(longest[..common], history[..common], "two readers see the same history");
    if history.len() > longest.len() {
        *longest = history;
    }
}

async fn verify(mg: &World, model: &Model) {
    for machine in KEPT {
        let _ = mg.ask(machine, Impact::SimpleRepair).await;
    }
    // Those that fail hold back the rest for a while.
    let notified = model.notified.lock().unwrap().clone();
    for machine in KEPT {
        let key = mg.key(machine);
        while !mg.storage.inner().notifications(&key, 1).await.unwrap().is_empty() {
            mg.advance(1);
            tokio::task::yield_now().await;
        }
    }
    for machine in KEPT {
        look(mg, model, machine).await;
        let history: Vec<_> = mg.events(machine).await.into_iter().map(|(_, text)| text).collect();
        let unique: HashSet<_> = history.iter().collect();
        assert_eq!(unique.len(), history.len(), "no event is doubled");
        for (_, text) in notified.iter().filter(|(to, _)| *to == machine) {
            assert!(unique.contains(text), "notification {text} of {machine} took no effect");
        }
        for ((_, task), texts) in model.acknowledged.lock().unwrap().iter().filter(|((of, _), _)| *of == machine) {
            let place = |text: &String| history.iter().position(|event| event == text);
            let places: Vec<_> = texts.iter().map(place).collect();
            assert!(places.iter().all(Option::is_some), "task {task} was told of events that are not there");
            assert!(places.is_sorted(), "task {task} finds its events in another order");
        }
        let refused = model.refused.lock().unwrap();
        assert!(history.iter().all(|text| !refused.contains(text)), "an event of a refused step is there");
    }
    let acknowledged: usize = model.acknowledged.lock().unwrap().values().map(Vec::len).sum();
    assert!(acknowledged > 100 && notified.len() > 20, "{acknowledged} calls and {} notifications", notified.len());
}
