//! Random operations from many tasks against a store that fails at random, on two threads. What was acknowledged is
//! there once and in order; what was refused is not there; every timer fires; notifications take effect once, in the order
//! in which they were accepted; nobody ever sees a history change.
//!
//! About 3,000 steps; `MACHINEGUN_HAMMER_STEPS` asks for more, in lives of so many with a store of its own each.
//! `MACHINEGUN_CRASH_SEED` asks for the same choices again: what each task does, and what goes wrong with each machine's
//! commits, in their order.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use machinegun::clock::ClockHand;
use machinegun::engine::EngineError;
use machinegun::machine::{Epoch, Impact, Outcome, Refusal, Status};
use machinegun::processor::{Ask, Question};

use crate::dice::{Dice, from_environment};
use crate::faulty::Accidents;
use crate::recorder::Recorder;
use crate::scripted::{done, reply, text, transient, unexpected};
use crate::world::{self, Mg, World, call, events, guarded};

const TASKS: usize = 8;
const OPERATIONS: usize = 120;
const ROUNDS: usize = 3;
const STEPS: u64 = (TASKS * OPERATIONS * ROUNDS) as u64;

/// Never removed, so that each acknowledged event can be looked for.
const KEPT: [&str; 4] = ["k0", "k1", "k2", "k3"];

/// Removed and started anew all the time.
const FLEETING: [&str; 2] = ["f0", "f1"];

#[derive(Default)]
struct Model {
    /// Texts that must be there once, in the order in which one task was told of them.
    acknowledged: Mutex<HashMap<(&'static str, usize), Vec<String>>>,
    /// Accepted notifications, which must be there once.
    notified: Mutex<Vec<Notified>>,
    /// Texts that must not be there.
    refused: Mutex<HashSet<String>>,
    /// The longest history that anybody saw.
    seen: Mutex<HashMap<(&'static str, Epoch), Vec<String>>>,
    serial: AtomicU64,
}

#[derive(Clone)]
struct Notified {
    machine: &'static str,
    text: String,
    /// Before it was sent and after it was accepted, by the model's serial numbers: one that was sent after another was
    /// accepted comes behind it.
    sent: u64,
    accepted: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_event_is_lost_changed_or_doubled_in_memory() {
    let mut dice = Dice::thrown();
    let steps = from_environment("MACHINEGUN_HAMMER_STEPS").unwrap_or(STEPS);
    let lives = steps.div_ceil(STEPS);
    let mut accidents = Accidents::default();
    for life in 1..=lives {
        guarded(hammer(world::memory(), OPERATIONS, &mut dice, &mut accidents)).await;
        println!("life {life} of {lives}: {accidents:?}");
    }
    accidents.all_happened();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_event_is_lost_changed_or_doubled_embedded() {
    guarded(hammer(world::embedded(), OPERATIONS, &mut Dice::thrown(), &mut Accidents::default())).await;
}

/// Every answer that no commit comes before is checked with the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_event_is_lost_changed_or_doubled_on_shared_storage() {
    guarded(hammer(world::shared(), OPERATIONS, &mut Dice::thrown(), &mut Accidents::default())).await;
}

#[cfg(feature = "dynamodb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_event_is_lost_changed_or_doubled_on_dynamodb() {
    guarded(async {
        let operations = OPERATIONS / 10;
        hammer(world::dynamodb().await, operations, &mut Dice::thrown(), &mut Accidents::default()).await;
    })
    .await;
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

fn pick<T: Copy>(dice: &mut Dice, of: &[T]) -> T {
    of[dice.below(of.len() as u64) as usize]
}

fn behave(question: &Question, dice: &Mutex<Dice>) -> Outcome {
    match &question.ask {
        Ask::Init(_) => done().event("born").into(),
        _ if dice.lock().unwrap().below(100) < 3 => transient(),
        Ask::Call(args) | Ask::Repair(args) => match &*text(args) {
            "look" => reply("").into(),
            "fail" => unexpected(),
            // The aux state says whose timer it is.
            args if sets_a_timer(args) => reply("").event(args).aux(args).timer(i32::from(args.ends_with("77"))).into(),
            args => reply("").event(args).into(),
        },
        Ask::Timeout => {
            let aux = question.machine.aux_state.as_ref().expect("an aux state");
            done().event(&fired(&text(&aux.data))).into()
        }
        Ask::Notification(args) => done().event(&text(args)).into(),
    }
}

fn sets_a_timer(text: &str) -> bool {
    text.starts_with('c') && text.ends_with('7')
}

fn fired(text: &str) -> String {
    format!("fired {text}")
}

async fn hammer(mg: Mg, operations: usize, dice: &mut Dice, accidents: &mut Accidents) {
    let model = Arc::new(Model::default());
    let sink = Recorder::new();
    let mut mg = mg
        .seeded(dice.next())
        .sink("s", &sink)
        .with(|options, namespace| {
            options.cache = 12_000;
            namespace.unload_ms = 40;
            namespace.policy.notification_retry_ms = 30;
        })
        .start()
        .await;
    let processors = Mutex::new(Dice::new(dice.next()));
    mg.processor.behave(move |question| behave(question, &processors));
    for machine in KEPT {
        mg.init(machine).await.unwrap();
    }
    for round in 0..ROUNDS {
        mg.storage.chaos.store(15, Ordering::SeqCst);
        sink.flake(20);
        let tasks = (0..TASKS).map(|_| Dice::new(dice.next())).collect();
        mg = round_of(mg, &model, round, tasks, operations).await;
        accidents.add(&mg.storage);
        // By turns in good order and cut off; what is still under way may be done in the next run.
        if round % 2 == 0 {
            mg.engine.stop().await;
            nothing_is_left(&mg);
            mg = mg.restart(1).await;
        } else {
            mg = mg.crash().await;
        }
    }
    sink.flake(0);
    verify(&mg, &model, operations * TASKS * ROUNDS).await;
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

async fn round_of(mg: World, model: &Arc<Model>, round: usize, dice: Vec<Dice>, operations: usize) -> World {
    let (world, ticking) = (Arc::new(mg), Arc::new(AtomicBool::new(true)));
    let clock = tokio::spawn(tick(world.clone(), ticking.clone()));
    let operate = |(task, dice)| operate(world.clone(), model.clone(), round * TASKS + task, dice, operations);
    let tasks: Vec<_> = dice.into_iter().enumerate().map(|it| tokio::spawn(operate(it))).collect();
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

async fn operate(world: Arc<World>, model: Arc<Model>, task: usize, mut dice: Dice, operations: usize) {
    for _ in 0..operations {
        let kept = pick(&mut dice, &KEPT);
        match dice.below(20) {
            // Some have hardly any time.
            0..=8 => {
                let patience = if dice.below(5) == 0 { 5 } else { 5_000 };
                add(&world, &model, task, kept, patience).await;
            }
            9..=11 => {
                let all = [KEPT[0], KEPT[1], KEPT[2], KEPT[3], FLEETING[0], FLEETING[1]];
                look(&world, &model, pick(&mut dice, &all)).await;
            }
            12 | 13 => {
                let sent = model.serial.fetch_add(1, Ordering::SeqCst);
                let text = format!("n{sent}");
                // Refused, it may be there all the same: then once.
                if world.notify(kept, &text).await.is_ok() {
                    let accepted = model.serial.fetch_add(1, Ordering::SeqCst);
                    model.notified.lock().unwrap().push(Notified { machine: kept, text, sent, accepted });
                }
            }
            14 => drop(world.call(kept, "fail").await),
            15 | 16 => drop(world.ask(kept, Impact::SimpleRepair).await),
            17 => drop(world.call(kept, "look").await),
            18 => drop(world.init(pick(&mut dice, &FLEETING)).await),
            _ => {
                let fleeting = pick(&mut dice, &FLEETING);
                drop(world.call(fleeting, "x").await);
                drop(world.notify(fleeting, "y").await);
                drop(world.ask(fleeting, Impact::Remove).await);
            }
        }
    }
}

async fn add(world: &World, model: &Model, task: usize, machine: &'static str, patience: i64) {
    let text = format!("c{}", model.serial.fetch_add(1, Ordering::SeqCst));
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
        // The store has its moments.
        Err(EngineError::Refused(Refusal::MachineNotFound) | EngineError::Storage(_)) => return,
        Err(error) => panic!("{error}"),
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

async fn verify(mg: &World, model: &Model, operations: usize) {
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
        loop {
            let stored = mg.stored(machine).await;
            match (&stored.timer, &stored.status) {
                (None, _) => break,
                (_, Status::Failed { .. }) => drop(mg.ask(machine, Impact::SimpleRepair).await),
                _ => {}
            }
            mg.advance(100);
            mg.quiet().await;
        }
    }
    for machine in KEPT {
        look(mg, model, machine).await;
        let history: Vec<_> = mg.events(machine).await.into_iter().map(|(_, text)| text).collect();
        let unique: HashSet<_> = history.iter().collect();
        let mut seen = HashSet::new();
        let doubled: Vec<_> = history.iter().filter(|text| !seen.insert(*text)).collect();
        assert!(doubled.is_empty(), "{machine}: {doubled:?} stand twice in {history:?}");
        for Notified { text, .. } in notified.iter().filter(|it| it.machine == machine) {
            assert!(unique.contains(text), "notification {text} of {machine} took no effect");
        }
        in_order_of_acceptance(&history, &notified);
        every_timer_fired(&history);
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
    // About half of them are calls, and a tenth are notifications.
    let enough = acknowledged * 8 > operations && notified.len() * 40 > operations;
    assert!(enough, "of {operations}: {acknowledged} calls and {} notifications", notified.len());
}

/// None comes behind one that was sent only after it was accepted.
fn in_order_of_acceptance(history: &[String], notified: &[Notified]) {
    let notified: HashMap<_, _> = notified.iter().map(|it| (&it.text, it)).collect();
    let mut latest = 0;
    for it in history.iter().filter_map(|text| notified.get(text)) {
        assert!(it.accepted > latest, "{} of {} comes behind one that was sent later", it.text, it.machine);
        latest = latest.max(it.sent);
    }
}

/// Each timer fired once, unless another took its place before.
fn every_timer_fired(history: &[String]) {
    let mut armed = None;
    for text in history {
        if sets_a_timer(text) {
            armed = Some(fired(text));
        } else if text.starts_with("fired ") {
            assert_eq!(armed.take().as_ref(), Some(text), "a timer fires once: {history:?}");
        }
    }
    assert_eq!(armed, None, "it never fired: {history:?}");
}

/// So that a failure can be looked at again.
#[tokio::test]
async fn the_same_seed_makes_the_same_accidents() {
    let run = async |seed| {
        let mg = world::memory().seeded(seed).start().await;
        mg.init("m").await.unwrap();
        mg.storage.chaos.store(60, Ordering::SeqCst);
        mg.processor.behave(|_| reply("").event("x").into());
        for _ in 0..50 {
            let asked = mg.ask("m", call("x"));
            let ticking = async {
                loop {
                    mg.advance(1_000);
                    mg.quiet().await;
                }
            };
            tokio::select! {
                _ = asked => {}
                () = ticking => {}
            }
        }
        mg.storage.accidents()
    };
    let (first, again, other) = (run(5).await, run(5).await, run(6).await);
    assert!(first.len() > 30, "{first:?}");
    assert_eq!(first, again);
    assert_ne!(first, other);
}
