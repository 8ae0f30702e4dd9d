//! A process ends in the middle of each kind of step, at each place between its beginning and its answer, and another
//! goes on from what is stored: what was acknowledged is there once, and what was due takes effect.
//!
//! The process is this program, which lives one life and is told where to end. A kind of step that comes by no such
//! place never ends it, and that fails the test.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use machinegun::failpoint::{Failpoint, VARIABLE};
use machinegun::machine::{Impact, ImpactKind, Outcome, Refusal, RequestContext, Status};
use machinegun::processor::{Ask, Question};
use machinegun::sink::{Content, Delivery, Receipt, Sink, SinkError};
use machinegun::wire::HistoryRange;

use crate::ledgers::{entered, entries};
use crate::modernizing::modernizing;
use crate::recorder::Recorder;
use crate::scripted::{done, reply, text, unexpected};
use crate::world::{self, BEGIN, CLEAR, Mg, World, events, guarded, id, repair};

/// Tells the process which store to live on: `embedded`, a space and its folder, or `dynamodb`, endpoint and table.
const STORE: &str = "MACHINEGUN_TEST_FAILPOINT_STORE";

const DAY: u64 = 24 * 60 * 60 * 1_000;

/// What the process goes through, each after the one before it was acknowledged and all that was due was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Passage {
    Nothing,
    Start,
    Call,
    TimerFires,
    Notify,
    Fail,
    NotifyTheFailed,
    SimpleRepair,
    FailAgain,
    Repair,
    CallAgain,
    Note,
    Modernize,
    StartOther,
    RemoveOther,
    ForgetOther,
}

/// The machine's events, in the only order in which they can come.
const TEXTS: [(&str, Passage); 7] = [
    ("born", Passage::Start),
    ("called", Passage::Call),
    ("fired", Passage::Start),
    ("noted", Passage::Notify),
    ("noted while failed", Passage::NotifyTheFailed),
    ("repaired", Passage::Repair),
    ("called again", Passage::CallAgain),
];

/// Tells on stdout what it was given.
struct Teller;

// === impl Passage ===

impl Passage {
    const ALL: [Self; 15] = [
        Self::Start,
        Self::Call,
        Self::TimerFires,
        Self::Notify,
        Self::Fail,
        Self::NotifyTheFailed,
        Self::SimpleRepair,
        Self::FailAgain,
        Self::Repair,
        Self::CallAgain,
        Self::Note,
        Self::Modernize,
        Self::StartOther,
        Self::RemoveOther,
        Self::ForgetOther,
    ];

    fn next(self) -> Self {
        *Self::ALL.get(self as usize).unwrap_or(&Self::ForgetOther)
    }

    /// Whether the machine is failed when it has come so far.
    fn leaves_failed(self) -> bool {
        matches!(self, Self::Fail | Self::NotifyTheFailed | Self::FailAgain)
    }

    async fn take(self, mg: &World) {
        let failed = Err(Refusal::MachineFailed.into());
        match self {
            Self::Nothing => {}
            Self::Start => drop(mg.init("a").await.unwrap()),
            Self::Call => drop(mg.call("a", "called").await.unwrap()),
            Self::TimerFires => mg.advance(5_000),
            Self::Notify => drop(mg.notify("a", "noted").await.unwrap()),
            Self::NotifyTheFailed => drop(mg.notify("a", "noted while failed").await.unwrap()),
            Self::Fail | Self::FailAgain => assert_eq!(mg.call("a", "fail").await, failed),
            Self::SimpleRepair => drop(mg.ask("a", Impact::SimpleRepair).await.unwrap()),
            Self::Repair => drop(mg.ask("a", repair("repaired")).await.unwrap()),
            Self::CallAgain => drop(mg.call("a", "called again").await.unwrap()),
            Self::Note => mg.advance(CLEAR as u64),
            Self::Modernize => {
                mg.ns.modernize(id("a"), &HistoryRange::ALL, RequestContext::default(), None).await.unwrap();
            }
            Self::StartOther => drop(mg.init("b").await.unwrap()),
            Self::RemoveOther => drop(mg.ask("b", Impact::Remove).await.unwrap()),
            Self::ForgetOther => mg.turn(DAY + 1_000).await,
        }
        mg.settle().await;
        // What is acknowledged is not sent again, and it is noted by the next commit or by one of its own.
        world::until(|| mg.metric("machinegun_sink_pending", "name=\"s\"") == 0).await;
        mg.settle().await;
    }
}

fn behave(question: &Question) -> Outcome {
    match &question.ask {
        Ask::Init(_) if question.machine.id == "a" => done().event("born").timer(5).into(),
        Ask::Init(_) => done().event("born").into(),
        Ask::Call(args) | Ask::Repair(args) => match &*text(args) {
            "fail" => unexpected(),
            args => reply("").event(args).into(),
        },
        Ask::Timeout => done().event("fired").into(),
        Ask::Notification(args) => done().event(&text(args)).into(),
    }
}

#[async_trait]
impl Sink for Teller {
    async fn publish(&self, delivery: Delivery) -> Result<Receipt, SinkError> {
        if let Content::Events { events: encoded, .. } = &delivery.content {
            for (number, _) in events(encoded) {
                println!("\ntook {} {number}", String::from_utf8_lossy(delivery.key.id.as_bytes()));
            }
        }
        Ok(Receipt::default())
    }
}

async fn on_the_store(store: &str) -> Mg {
    entered(match store.split(' ').collect::<Vec<_>>()[..] {
        ["embedded", folder] => world::embedded_in(folder.as_ref()),
        #[cfg(feature = "dynamodb")]
        ["dynamodb", endpoint, table] => world::dynamodb_at(endpoint, table).await,
        _ => panic!("{STORE}={store}"),
    })
}

/// The process that ends. Run as a test of its own it has nothing to live on, and nothing to prove.
#[tokio::test]
async fn child_that_ends_at_a_failpoint() {
    let Ok(store) = std::env::var(STORE) else { return };
    guarded(async {
        let (mg, _) = modernizing(on_the_store(&store).await.sink("s", &Recorder::new()));
        let mg = mg.with(|_, namespace| namespace.sinks[0].sink = Arc::new(Teller)).behaving(behave).start().await;
        for passage in Passage::ALL {
            passage.take(&mg).await;
            println!("\npassed {passage:?}");
        }
    })
    .await;
}

/// Lets a process end there, and returns how far it had come and which events its sink was given.
fn ended_at(store: &str, point: Failpoint, times: u64, impact: Option<ImpactKind>) -> (Passage, Vec<(String, i64)>) {
    let armed = format!("{} {times}{}", point.name(), impact.map(|it| format!(" {}", it.name())).unwrap_or_default());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "failpoints::child_that_ends_at_a_failpoint", "--nocapture"])
        .env(STORE, store)
        .env(VARIABLE, &armed)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8(child.stdout).unwrap(), String::from_utf8_lossy(&child.stderr));
    // SIGABRT
    assert_eq!(child.status.signal(), Some(6), "no step came by {armed}: {stdout}{stderr}");
    assert!(stderr.contains(&format!("failpoint {} reached", point.name())), "{armed}: {stderr}");
    let mut passed = stdout.lines().filter_map(|line| line.strip_prefix("passed "));
    let passed = passed
        .next_back()
        .map_or(Passage::Nothing, |name| Passage::ALL.into_iter().find(|it| format!("{it:?}") == name).unwrap());
    let took = stdout.lines().filter_map(|line| line.strip_prefix("took ")?.split_once(' '));
    (passed, took.map(|(machine, number)| (machine.to_owned(), number.parse().unwrap())).collect())
}

/// The machine's events that a sink was given, in order.
fn numbers(sink: &Recorder, machine: &str) -> Vec<(String, i64)> {
    let numbers = sink.of(machine).into_iter().map(|it| it.split(' ').next().unwrap().parse().unwrap());
    numbers.map(|number| (machine.to_owned(), number)).collect()
}

/// Another process goes on, days later.
async fn goes_on(store: &str, passed: Passage, mut took: Vec<(String, i64)>) {
    let sink = Recorder::new();
    let (mg, _) = modernizing(on_the_store(store).await.sink("s", &sink));
    let mg = mg.later(3 * DAY).behaving(behave).start().await;
    mg.settle().await;

    // The passage in the middle of which it ended was done, or not at all.
    let next = passed.next();
    if let Ok(view) = mg.get("a").await {
        let failed = matches!(view.record.status, Status::Failed { .. });
        let may_be = [passed.leaves_failed(), next.leaves_failed()];
        assert!(may_be.contains(&failed), "behind {passed:?} it is failed: {failed}");
        if failed {
            mg.ask("a", Impact::SimpleRepair).await.unwrap();
            mg.settle().await;
        }
        let history = mg.events("a").await;
        let modern = history.iter().filter(|(_, text)| text.ends_with('\'')).count();
        let all_or_none = match passed.cmp(&Passage::Modernize) {
            _ if next == Passage::Modernize => modern == 0 || modern == TEXTS.len(),
            std::cmp::Ordering::Less => modern == 0,
            _ => modern == TEXTS.len(),
        };
        assert!(all_or_none, "behind {passed:?}: {history:?}");
        let mut places = TEXTS.iter();
        for ((number, text), expected) in history.iter().zip(1..) {
            assert_eq!(*number, expected, "{history:?}");
            let text = text.trim_end_matches('\'');
            let place = places.find(|(known, _)| *known == text);
            let (_, by) = place.unwrap_or_else(|| panic!("{text} stands twice, or in the wrong place: {history:?}"));
            assert!(*by <= next, "{text} was not asked for: {history:?}");
        }
        for (text, _) in TEXTS.iter().filter(|(_, by)| *by <= passed) {
            let there = history.iter().any(|(_, it)| it.trim_end_matches('\'') == *text);
            assert!(there, "behind {passed:?}, {text} is lost: {history:?}");
        }
        mg.call("a", "more").await.unwrap();
        let last = history.len() as i64 + 1;
        assert_eq!(mg.events("a").await.last(), Some(&(last, "more".to_owned())));
        mg.until_later(|| sink.of("a").last() == Some(&format!("{last} more"))).await;
    } else {
        assert_eq!(passed, Passage::Nothing, "the machine is lost");
        mg.init("a").await.unwrap();
    }

    let there = mg.get("b").await.is_ok();
    let may_be = [passed, next].map(|it| it == Passage::StartOther);
    assert!(may_be.contains(&there), "behind {passed:?} the other is there: {there}");
    if there {
        mg.ask("b", Impact::Remove).await.unwrap();
    }
    while mg.storage.inner().read(&mg.key("b"), None).await.unwrap().is_some() {
        mg.advance(DAY / 24);
        mg.settle().await;
        mg.quiet().await;
    }

    // Every event, and none before its predecessors.
    mg.until_later(|| mg.metric("machinegun_sink_pending", "name=\"s\"") == 0).await;
    took.extend(numbers(&sink, "a"));
    took.extend(numbers(&sink, "b"));
    for (machine, last) in
        [("a", mg.get("a").await.unwrap().record.last_event), ("b", i64::from(passed >= Passage::StartOther))]
    {
        let mut seen = 0;
        for (_, number) in took.iter().filter(|(of, _)| of == machine) {
            assert!(*number <= seen + 1, "{machine}: {number} came before its predecessor: {took:?}");
            seen = seen.max(*number);
        }
        assert!(seen >= last, "{machine}: the sink never got {last}: {took:?}");
    }

    // Each event once, in the machine's order.
    mg.until_later(|| mg.metric("machinegun_sink_pending", "name=\"l\"") == 0).await;
    let entered = entries(&mg).await;
    let entered = |machine: &str| entered.iter().filter(|it| it.1 == machine).map(|it| it.2).collect::<Vec<_>>();
    let last = mg.get("a").await.unwrap().record.last_event;
    assert_eq!(entered("a"), (1..=last).collect::<Vec<_>>(), "behind {passed:?}");
    let may_be = [passed, next].map(|it| Vec::from_iter((it >= Passage::StartOther).then_some(1)));
    assert!(may_be.contains(&entered("b")), "behind {passed:?}: {:?}", entered("b"));
    mg.engine.stop().await;
}

/// Where each kind of step comes by, as far as it says so. A new place does not compile before it is here.
fn impacts(point: Failpoint) -> Vec<Option<ImpactKind>> {
    use ImpactKind::{Call, Init, Modernize, Notification, Remove, Repair, SimpleRepair, Timeout};
    let some = |kinds: &[ImpactKind]| kinds.iter().copied().map(Some).collect();
    match point {
        Failpoint::BeforeCommit | Failpoint::AfterCommit => some(&ImpactKind::ALL),
        Failpoint::BeforeProcessor | Failpoint::AfterProcessor => some(&[Init, Call, Repair, Timeout, Notification]),
        Failpoint::BeforeAnswer => some(&[Init, Call, Repair, SimpleRepair, Remove, Modernize]),
        Failpoint::StepQueued
        | Failpoint::RecordRead
        | Failpoint::Modernized
        | Failpoint::BatchDrafted
        | Failpoint::BatchSynced
        | Failpoint::PartsWritten
        | Failpoint::ItemPut
        | Failpoint::BeforeDelivery
        | Failpoint::BeforeBlock
        | Failpoint::BlockPut
        | Failpoint::AfterDelivery
        | Failpoint::DeliveryKnown
        | Failpoint::BeforeNotificationPut
        | Failpoint::NotificationPut
        | Failpoint::BeforeSettling
        | Failpoint::AfterSettling
        | Failpoint::BeforePayment
        | Failpoint::AfterPayment => vec![None],
        // Above the engine: `tests/crash_failpoints.rs`.
        Failpoint::RequestDecoded | Failpoint::AnswerEncoded => Vec::new(),
    }
}

#[tokio::test]
async fn every_kind_of_step_ends_anywhere_and_nothing_is_lost_embedded() {
    for point in Failpoint::ALL.iter().copied() {
        use Failpoint::{BeforeBlock, BlockPut, ItemPut, PartsWritten};
        if matches!(point, PartsWritten | ItemPut | BeforeBlock | BlockPut) {
            continue;
        }
        for impact in impacts(point) {
            let folder = tempfile::tempdir().unwrap();
            let store = format!("embedded {}", folder.path().join("store").display());
            let (passed, took) = ended_at(&store, point, 1, impact);
            println!("{} {impact:?}: behind {passed:?}", point.name());
            guarded(goes_on(&store, passed, took)).await;
        }
    }
}

/// The embedded writer's batches, one after the other.
#[tokio::test]
async fn each_batch_ends_before_or_behind_its_sync_and_nothing_is_lost() {
    for point in [Failpoint::BatchDrafted, Failpoint::BatchSynced] {
        for times in (2..=22).step_by(5) {
            let folder = tempfile::tempdir().unwrap();
            let store = format!("embedded {}", folder.path().join("store").display());
            let (passed, took) = ended_at(&store, point, times, None);
            guarded(goes_on(&store, passed, took)).await;
        }
    }
}

/// Nothing comes from one step to the next but through the folder.
#[tokio::test]
async fn the_store_is_opened_anew_for_every_step_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("embedded {}", folder.path().join("store").display());
    let (sink, mut elapsed) = (Recorder::new(), 0);
    for passage in Passage::ALL {
        let (mg, _) = modernizing(on_the_store(&store).await.sink("s", &sink));
        let mg = mg.later(elapsed).behaving(behave).start().await;
        guarded(passage.take(&mg)).await;
        elapsed = (mg.clock.now() - BEGIN) as u64 + 1;
        mg.engine.stop().await;
        mg.storage.inner().close().await;
    }
    let took = ["a", "b"].into_iter().flat_map(|machine| numbers(&sink, machine)).collect();
    guarded(goes_on(&store, Passage::ForgetOther, took)).await;
}

/// The table's items, each put for itself.
#[cfg(feature = "dynamodb")]
#[tokio::test]
async fn every_kind_of_step_ends_between_the_puts_of_a_table_and_nothing_is_lost() {
    let steps = ImpactKind::ALL.map(|impact| (Failpoint::AfterCommit, 1, Some(impact)));
    let items = [Failpoint::PartsWritten, Failpoint::ItemPut, Failpoint::BeforeBlock, Failpoint::BlockPut];
    let items = items.map(|point| [1, 4, 7].map(|times| (point, times, None)));
    let others = [Failpoint::AfterSettling, Failpoint::AfterPayment, Failpoint::NotificationPut];
    let others = others.map(|point| (point, 1, None));
    for (point, times, impact) in items.into_iter().flatten().chain(others).chain(steps) {
        let table = crate::services::made_table().await;
        let endpoint = table.endpoint_url.clone().unwrap();
        let store = format!("dynamodb {endpoint} {}", table.table);
        let (passed, took) = ended_at(&store, point, times, impact);
        guarded(goes_on(&store, passed, took)).await;
    }
}
