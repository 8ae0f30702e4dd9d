//! One history of calls on every storage: the same answers, the same questions to processors, the same machines.
//!
//! 8 histories; `MACHINEGUN_DIFFERENTIAL_CASES` asks for more, `MACHINEGUN_CRASH_SEED` for the same ones again. One that
//! tells storages apart is made as short as it gets.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use machinegun::machine::{CommitId, Impact, Notification, Outcome, Record, RequestContext};
use machinegun::processor::{Ask, Question};
use machinegun::wire::{Direction, HistoryRange, Value, Wire, Writer};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use crate::dice::{Dice, from_environment};
use crate::modernizing::modernizing;
use crate::scripted::{Answer, done, name, reply, text, transient, unexpected};
use crate::world::{self, BEGIN, World, id};

const CASES: u64 = 8;
const LONGEST: usize = 40;
/// For one operation on one storage.
const PATIENCE: Duration = Duration::from_secs(30);
const MACHINES: [&str; 3] = ["a", "b", "c"];
const TAGS: [&str; 2] = ["t", "u"];

#[derive(Clone, Debug)]
enum Operation {
    Start(&'static str, Plan),
    Call(&'static str, Plan, HistoryRange),
    Repair(&'static str, Plan, HistoryRange),
    SimpleRepair(&'static str),
    Remove(&'static str),
    Notify(&'static str, Plan, HistoryRange),
    Get(&'static str, HistoryRange),
    Modernize(&'static str, HistoryRange),
    /// So many milliseconds pass.
    Turn(u64),
    Restart,
}

/// What the processor makes of a step.
#[derive(Clone, Debug)]
enum Plan {
    Done { events: Vec<usize>, aux: bool, timer: Option<Timer>, tag: Option<&'static str>, remove: bool },
    Transient,
    Unexpected,
    Declined,
}

#[derive(Clone, Debug)]
enum Timer {
    Unset,
    In(i32, HistoryRange),
    At(i64),
}

// === impl Operation ===

impl Operation {
    fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Start(_, plan) | Self::Call(_, plan, _) | Self::Repair(_, plan, _) | Self::Notify(_, plan, _) => {
                Some(plan)
            }
            _ => None,
        }
    }

    /// What came of it, as text. `number` is its place in the history, which the processor is given.
    async fn take(&self, number: usize, mg: &World) -> String {
        let args = Value::str(&number.to_string());
        let answer = match self {
            Self::Start(machine, _) => format!("{:?}", mg.ask(machine, Impact::Init { args }).await),
            Self::Call(machine, _, range) => {
                format!("{:?}", mg.ask(machine, Impact::Call { args, range: range.clone() }).await)
            }
            Self::Repair(machine, _, range) => {
                format!("{:?}", mg.ask(machine, Impact::Repair { args, range: range.clone() }).await)
            }
            Self::SimpleRepair(machine) => format!("{:?}", mg.ask(machine, Impact::SimpleRepair).await),
            Self::Remove(machine) => format!("{:?}", mg.ask(machine, Impact::Remove).await),
            Self::Notify(machine, _, range) => {
                format!("{:?}", mg.ns.notify(id(machine), args, range.clone(), mg.request()).await)
            }
            Self::Get(machine, range) => shown(mg, machine, range).await,
            Self::Modernize(machine, range) => {
                format!("{:?}", mg.ns.modernize(id(machine), range, RequestContext::default(), None).await)
            }
            Self::Turn(ms @ ..60_000) => {
                mg.advance(*ms);
                String::new()
            }
            Self::Turn(ms) => {
                mg.turn(*ms).await;
                String::new()
            }
            Self::Restart => String::new(),
        };
        mg.settle().await;
        answer
    }
}

// === impl Plan ===

impl Plan {
    fn outcome(&self, number: usize, answer: Answer) -> Outcome {
        let Self::Done { events, aux, timer, tag, remove } = self else {
            return match self {
                Self::Transient => transient(),
                Self::Declined => Outcome::RepairFailed(Value::str("declined")),
                _ => unexpected(),
            };
        };
        let mut answer = answer;
        for (place, size) in events.iter().enumerate() {
            answer = answer.event(&format!("{number}/{place} {}", "x".repeat(*size)));
        }
        if *aux {
            answer = answer.aux(&number.to_string());
        }
        answer = match timer {
            None => answer,
            Some(Timer::Unset) => answer.unset(),
            Some(Timer::In(seconds, range)) => answer.timer_with(*seconds, range.clone()),
            Some(Timer::At(due)) => answer.timer_at(*due),
        };
        if let Some(tag) = tag {
            answer = answer.tag(tag);
        }
        if *remove { answer.remove() } else { answer }.into()
    }
}

fn behave(history: &[Operation], question: &Question) -> Outcome {
    let plan = |args: &Value| {
        let number: usize = text(args).parse().unwrap();
        (history[number].plan().unwrap(), number)
    };
    match &question.ask {
        Ask::Call(args) | Ask::Repair(args) => {
            let (plan, number) = plan(args);
            plan.outcome(number, reply("answer"))
        }
        Ask::Init(args) | Ask::Notification(args) => {
            let (plan, number) = plan(args);
            plan.outcome(number, done())
        }
        Ask::Timeout => match question.machine.history.len() % 4 {
            2 => transient(),
            3 => unexpected(),
            _ => done().event("fired").into(),
        },
    }
}

fn ranges() -> impl Strategy<Value = HistoryRange> {
    let after = prop_oneof![Just(None), (-1..20_i64).prop_map(Some), Just(Some(i64::MAX)), Just(Some(i64::MIN))];
    let limit = prop_oneof![Just(None), (0..6).prop_map(Some), Just(Some(i32::MAX))];
    let direction = prop_oneof![Just(Direction::Forward), Just(Direction::Backward)];
    (after, limit, direction).prop_map(|(after, limit, direction)| HistoryRange { after, limit, direction })
}

fn plans() -> impl Strategy<Value = Plan> {
    // Small ones, some that fill a page, and some that are stored in parts.
    let sizes = prop_oneof![8 => 0..50_usize, 2 => 3_000..40_000_usize, 1 => Just(450_000)];
    let seconds = prop_oneof![Just(-5), Just(0), Just(1), Just(7), Just(100), Just(100_000)];
    let timers = prop_oneof![
        1 => Just(Timer::Unset),
        4 => (seconds, ranges()).prop_map(|(seconds, range)| Timer::In(seconds, range)),
        1 => prop_oneof![Just(0), Just(BEGIN + 3_600_000), Just(i64::MAX)].prop_map(Timer::At),
    ];
    let tags = prop::sample::select(&TAGS[..]);
    let done = (
        vec(sizes, 0..4),
        any::<bool>(),
        prop::option::weighted(0.4, timers),
        prop::option::weighted(0.15, tags),
        prop::bool::weighted(0.05),
    );
    let done = done.prop_map(|(events, aux, timer, tag, remove)| Plan::Done { events, aux, timer, tag, remove });
    prop_oneof![16 => done, 1 => Just(Plan::Transient), 1 => Just(Plan::Unexpected), 1 => Just(Plan::Declined)]
}

fn operations() -> impl Strategy<Value = Operation> {
    let machines = || prop::sample::select(&MACHINES[..]);
    let turns = prop_oneof![
        4 => prop_oneof![Just(1), Just(999), Just(5_000), Just(10_000)],
        2 => Just(101_000),
        1 => Just(25 * 60 * 60 * 1_000),
    ];
    prop_oneof![
        5 => (machines(), plans()).prop_map(|(machine, plan)| Operation::Start(machine, plan)),
        8 => (machines(), plans(), ranges()).prop_map(|(machine, plan, range)| Operation::Call(machine, plan, range)),
        2 => (machines(), plans(), ranges()).prop_map(|(machine, plan, range)| Operation::Repair(machine, plan, range)),
        2 => machines().prop_map(Operation::SimpleRepair),
        1 => machines().prop_map(Operation::Remove),
        4 => (machines(), plans(), ranges()).prop_map(|(machine, plan, range)| Operation::Notify(machine, plan, range)),
        4 => (machines(), ranges()).prop_map(|(machine, range)| Operation::Get(machine, range)),
        2 => (machines(), ranges()).prop_map(|(machine, range)| Operation::Modernize(machine, range)),
        5 => turns.prop_map(Operation::Turn),
        1 => Just(Operation::Restart),
    ]
}

/// Commit ids are random: only how many are kept is the same.
fn without_ids(record: &Record) -> Record {
    let none = CommitId([0; 16]);
    let mut record = Record { commit: none, epoch: none, ..record.clone() };
    record.earlier.fill(none);
    record.debts.iter_mut().for_each(|debt| debt.epoch = none);
    record
}

async fn shown(mg: &World, machine: &str, range: &HistoryRange) -> String {
    match mg.ns.get(id(machine), range).await {
        Ok(view) => format!("{:?} {:?}", without_ids(&view.record), digests(&view.events)),
        Err(error) => format!("{error:?}"),
    }
}

/// Bytes in short: their number and a hash.
fn digest(bytes: &[u8]) -> (usize, u64) {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    (bytes.len(), hasher.finish())
}

fn digests(all: &[Bytes]) -> Vec<(usize, u64)> {
    all.iter().map(|bytes| digest(bytes)).collect()
}

/// Everything that is stored, or can be asked for, and what the processor was asked behind its first `asked` questions.
async fn stored(mg: &World, asked: usize) -> Vec<String> {
    let store = mg.storage.inner();
    let mut all = Vec::new();
    for machine in MACHINES {
        let key = mg.key(machine);
        let read = store.read(&key, Some(&HistoryRange::ALL)).await.unwrap();
        let read = read.map(|loaded| (without_ids(&loaded.record), digests(&loaded.events)));
        let entries = store.notifications(&key, usize::MAX).await.unwrap();
        let entries: Vec<_> = entries.into_iter().map(|it| Notification { epoch: CommitId([0; 16]), ..it }).collect();
        all.push(format!("{machine}: {read:?} {entries:?}"));
        all.push(format!("{machine}: {}", shown(mg, machine, &HistoryRange::ALL).await));
        let questions = mg.processor.questions_behind(asked);
        let asked = questions.iter().filter(|it| it.machine.id == machine).map(|it| {
            let mut writer = Writer::with_capacity(it.machine.size_hint());
            it.machine.write(&mut writer);
            (name(&it.ask), digest(&writer.into_bytes()), it.machine.timer.clone(), it.deadline)
        });
        all.push(format!("{machine}: {:?}", asked.collect::<Vec<_>>()));
    }
    for tag in TAGS {
        all.push(format!("{tag}: {:?}", mg.ns.tagged(tag.as_bytes()).await));
    }
    all
}

/// The first place at which two texts differ, with a little of what is around it: they may be very long.
#[track_caller]
fn same(storage: &str, of: &str, expected: &str, found: &str) {
    if expected != found {
        let place = expected.bytes().zip(found.bytes()).take_while(|(a, b)| a == b).count();
        let around = |text: &str| {
            let bytes = &text.as_bytes()[place.saturating_sub(200)..(place + 200).min(text.len())];
            String::from_utf8_lossy(bytes).into_owned()
        };
        panic!("{storage}, {of}:\n{}\n in memory:\n{}", around(found), around(expected));
    }
}

async fn the_same_everywhere(history: Vec<Operation>) {
    let history = Arc::new(history);
    let mut starting = vec![("memory", world::memory()), ("shared", world::shared()), ("embedded", world::embedded())];
    #[cfg(feature = "dynamodb")]
    starting.push(("dynamodb", world::dynamodb().await));
    let mut worlds = Vec::new();
    for (storage, mg) in starting {
        let history = history.clone();
        let (mg, _) = modernizing(mg);
        worlds.push((storage, mg.behaving(move |question| behave(&history, question)).start().await));
    }
    for (number, operation) in history.iter().enumerate() {
        let mut expected: Option<(String, Vec<String>)> = None;
        let mut later = Vec::new();
        for (storage, mut mg) in worlds {
            let asked = mg.processor.count();
            if matches!(operation, Operation::Restart) {
                mg = mg.restart(1).await;
            }
            let taking = async { (operation.take(number, &mg).await, stored(&mg, asked).await) };
            let taken = tokio::time::timeout(PATIENCE, taking).await;
            let (answer, all) = taken.unwrap_or_else(|_| {
                panic!("{storage}: {number} never ended: {operation:?}, behind {:?}", mg.storage.last_failure())
            });
            later.push((storage, mg));
            match &expected {
                None => expected = Some((answer, all)),
                Some((expected_answer, expected_all)) => {
                    same(storage, &format!("the answer to {number}"), expected_answer, &answer);
                    for (expected, found) in expected_all.iter().zip(&all) {
                        same(storage, &format!("what is stored behind {number}"), expected, found);
                    }
                }
            }
        }
        worlds = later;
    }
    for (_, mg) in worlds {
        mg.engine.stop().await;
    }
}

#[test]
fn one_history_comes_to_the_same_on_every_storage() {
    let cases = from_environment("MACHINEGUN_DIFFERENTIAL_CASES").unwrap_or(CASES) as u32;
    let mut dice = Dice::thrown();
    let seed: Vec<u8> = (0..4).flat_map(|_| dice.next().to_be_bytes()).collect();
    let config = Config { cases, max_shrink_iters: 300, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let failed = runner.run(&vec(operations(), 1..LONGEST), |history| {
        runtime.block_on(the_same_everywhere(history));
        Ok(())
    });
    match failed {
        Ok(()) => {}
        Err(TestError::Fail(why, history)) => panic!("{why}\nby the history {history:#?}"),
        Err(aborted) => panic!("{aborted}"),
    }
}
