//! Modernize: events of old formats are rewritten beside the machine's life, all of them or none.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use machinegun::engine::{EngineError, ModernizerOptions};
use machinegun::machine::{Impact, Outcome, Refusal, RequestContext};
use machinegun::processor::{Modernizer, ModernizerError};
use machinegun::wire::{Content, Event, HistoryRange, Limits, MachineEvent, Reader, Value, Wire};

use crate::on_every_storage;
use crate::recorder::Recorder;
use crate::scripted::{Gate, Inside, content, done, reply, text};
use crate::world::{Mg, World, call, id, ok, range, until};

on_every_storage!(
    old_events_get_their_new_form_and_nothing_else_changes,
    what_is_modern_already_is_not_asked_about,
    only_events_in_the_range_are_rewritten,
    a_lower_version_or_none_is_an_error_and_nothing_is_stored,
    a_failing_modernizer_is_an_error_and_nothing_is_stored,
    the_same_version_is_left_alone,
    an_event_without_a_version_takes_whatever_comes_back,
    without_a_modernizer_there_is_no_such_namespace,
    a_machine_that_does_not_exist_is_not_found,
    steps_go_on_meanwhile_and_lose_nothing,
    a_machine_started_anew_meanwhile_is_left_alone,
    two_at_once_never_lower_a_version,
    a_failed_machine_is_modernised_too,
    a_long_history_is_rewritten_whole,
    a_modernized_history_past_the_limit_is_an_error_and_parts_of_it_are_modernized,
);

on_every_storage!(sinks_are_not_fed_again);

#[derive(Clone, Default)]
pub struct Rewriter(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    /// Then `text` becomes `text'` in version 2.
    answers: VecDeque<Result<Content, ModernizerError>>,
    gates: VecDeque<Inside>,
    asked: Vec<i64>,
}

impl Rewriter {
    fn then(&self, version: Option<i32>, text: &str) -> &Self {
        let answer = Content { format_version: version, data: Value::str(text) };
        self.0.lock().unwrap().answers.push_back(Ok(answer));
        self
    }

    fn fail(&self) {
        self.0.lock().unwrap().answers.push_back(Err(ModernizerError("it broke".to_owned())));
    }

    fn hold(&self) -> Gate {
        let (gate, inside) = Gate::new();
        self.0.lock().unwrap().gates.push_back(inside);
        gate
    }

    fn asked(&self) -> Vec<i64> {
        self.0.lock().unwrap().asked.clone()
    }
}

#[async_trait]
impl Modernizer for Rewriter {
    async fn modernize(
        &self,
        event: MachineEvent,
        _: &RequestContext,
        _: Option<i64>,
    ) -> Result<Content, ModernizerError> {
        let (gate, answer) = {
            let mut script = self.0.lock().unwrap();
            script.asked.push(event.event.id);
            (script.gates.pop_front(), script.answers.pop_front())
        };
        if let Some(gate) = gate {
            gate.pass().await;
        }
        let modern = || Content { format_version: Some(2), data: Value::str(&format!("{}'", text(&event.event.data))) };
        answer.unwrap_or_else(|| Ok(modern()))
    }
}

pub fn modernizing(mg: Mg) -> (Mg, Rewriter) {
    let rewriter = Rewriter::default();
    let options = ModernizerOptions { modernizer: Arc::new(rewriter.clone()), current_format_version: 2 };
    (mg.with(|_, namespace| namespace.modernizer = Some(options)), rewriter)
}

/// A machine with events of these versions: `a`, `b` and so on.
async fn versions(mg: &World, machine: &str, versions: &[Option<i32>]) {
    let mut answer: Outcome = done().aux("state").into();
    if let Outcome::Done { change, .. } = &mut answer {
        let event = |(n, version): (usize, &Option<i32>)| Content { format_version: *version, ..content(&letter(n)) };
        change.events = versions.iter().enumerate().map(event).collect();
    }
    mg.processor.then(answer);
    mg.init(machine).await.unwrap();
}

fn letter(n: usize) -> String {
    char::from(b'a' + (n % 26) as u8).to_string()
}

async fn modernize(mg: &World, machine: &str, range: &HistoryRange) -> Result<(), EngineError> {
    mg.ns.modernize(id(machine), range, RequestContext::default(), None).await
}

/// Texts and versions, in memory and in the store alike.
async fn shown(mg: &World, machine: &str) -> Vec<(String, Option<i32>)> {
    let decode = |bytes: &bytes::Bytes| Event::read(&mut Reader::new(bytes.clone(), Limits::default())).unwrap();
    let view = mg.get(machine).await.unwrap();
    let stored = mg.storage.inner().read(&mg.key(machine), Some(&HistoryRange::ALL)).await.unwrap().unwrap();
    assert_eq!((&view.events, &*view.record), (&stored.events, &stored.record));
    view.events.iter().map(decode).map(|event| (text(&event.data), event.format_version)).collect()
}

fn is(expected: &[(&str, i32)]) -> Vec<(String, Option<i32>)> {
    expected.iter().map(|(text, version)| ((*text).to_owned(), Some(*version))).collect()
}

async fn old_events_get_their_new_form_and_nothing_else_changes(mg: Mg) {
    let (mg, _) = modernizing(mg);
    let mg = mg.start().await;
    versions(&mg, "m", &[Some(1), Some(1)]).await;
    let created = |bytes: &bytes::Bytes| Event::read(&mut Reader::new(bytes.clone(), Limits::default())).unwrap();
    let before = mg.get("m").await.unwrap();
    mg.advance(5_000);
    modernize(&mg, "m", &HistoryRange::ALL).await.unwrap();
    assert_eq!(shown(&mg, "m").await, is(&[("a'", 2), ("b'", 2)]));
    let after = mg.get("m").await.unwrap();
    assert_eq!((&after.record.aux_state, after.record.last_event), (&content("state"), 2));
    for (before, after) in before.events.iter().map(created).zip(after.events.iter().map(created)) {
        assert_eq!((before.id, before.created_at), (after.id, after.created_at));
    }
    // The processor is given the new form.
    mg.call("m", "x").await.unwrap();
    let history = mg.processor.question(2).await.machine.history;
    assert_eq!(history.decoded().map(|event| text(&event.unwrap().data)).collect::<Vec<_>>(), ["a'", "b'"]);
    let mg = mg.restart(1).await;
    assert_eq!(shown(&mg, "m").await, is(&[("a'", 2), ("b'", 2)]));
}

async fn what_is_modern_already_is_not_asked_about(mg: Mg) {
    let (mg, rewriter) = modernizing(mg);
    let mg = mg.start().await;
    versions(&mg, "m", &[Some(2), Some(1), Some(3)]).await;
    modernize(&mg, "m", &HistoryRange::ALL).await.unwrap();
    assert_eq!((shown(&mg, "m").await, rewriter.asked()), (is(&[("a", 2), ("b'", 2), ("c", 3)]), vec![2]));
    modernize(&mg, "m", &HistoryRange::ALL).await.unwrap();
    assert_eq!((rewriter.asked().len(), mg.storage.commits().len()), (1, 2));
}

async fn only_events_in_the_range_are_rewritten(mg: Mg) {
    let (mg, rewriter) = modernizing(mg);
    let mg = mg.start().await;
    versions(&mg, "m", &[Some(1); 5]).await;
    modernize(&mg, "m", &range(1, 2)).await.unwrap();
    assert_eq!(shown(&mg, "m").await, is(&[("a", 1), ("b'", 2), ("c'", 2), ("d", 1), ("e", 1)]));
    let backward =
        HistoryRange { direction: machinegun::wire::Direction::Backward, limit: Some(1), ..HistoryRange::ALL };
    modernize(&mg, "m", &backward).await.unwrap();
    assert_eq!(shown(&mg, "m").await[3..], is(&[("d", 1), ("e'", 2)]));
    assert_eq!(rewriter.asked(), [2, 3, 5]);
}

async fn a_lower_version_or_none_is_an_error_and_nothing_is_stored(mg: Mg) {
    let (mg, rewriter) = modernizing(mg);
    let mg = mg.start().await;
    versions(&mg, "m", &[Some(1), Some(1)]).await;
    for worse in [Some(0), None] {
        rewriter.then(Some(2), "modern").then(worse, "worse");
        let error = modernize(&mg, "m", &HistoryRange::ALL).await.unwrap_err();
        assert!(matches!(error, EngineError::Modernizer(_)), "{error}");
        assert_eq!(shown(&mg, "m").await, is(&[("a", 1), ("b", 1)]));
    }
    assert_eq!(mg.storage.commits().len(), 1);
}

async fn a_failing_modernizer_is_an_error_and_nothing_is_stored(mg: Mg) {
    let (mg, rewriter) = modernizing(mg);
    let mg = mg.start().await;
    versions(&mg, "m", &[Some(1), Some(1)]).await;
    rewriter.then(Some(2), "modern").fail();
    assert!(matches!(modernize(&mg, "m", &HistoryRange::ALL).await, Err(EngineError::Modernizer(_))));
    assert_eq!(shown(&mg, "m").await, is(&[("a", 1), ("b", 1)]));
}

async fn the_same_version_is_left_alone(mg: Mg) {
    let (mg, rewriter) = modernizing(mg);
    let mg = mg.start().await;
    versions(&mg, "m", &[Some(1), Some(1)]).await;
    rewriter.then(Some(1), "the same");
    modernize(&mg, "m", &HistoryRange::ALL).await.unwrap();
    assert_eq!(shown(&mg, "m").await, is(&[("a", 1), ("b'", 2)]));
}

async fn an_event_without_a_version_takes_whatever_comes_back(mg: Mg) {
    let (mg, rewriter) = modernizing(mg);
    let mg = mg.start().await;
    versions(&mg, "m", &[None, None, None]).await;
    rewriter.then(Some(0), "low").then(None, "none").then(Some(5), "high");
    modernize(&mg, "m", &HistoryRange::ALL).await.unwrap();
    let expected = [("low".to_owned(), Some(0)), ("none".to_owned(), None), ("high".to_owned(), Some(5))];
    assert_eq!(shown(&mg, "m").await, expected);
}

async fn without_a_modernizer_there_is_no_such_namespace(mg: Mg) {
    let mg = mg.start().await;
    versions(&mg, "m", &[Some(1)]).await;
    assert_eq!(modernize(&mg, "m", &HistoryRange::ALL).await, Err(EngineError::NamespaceNotFound));
}

async fn a_machine_that_does_not_exist_is_not_found(mg: Mg) {
    let (mg, _) = modernizing(mg);
    let mg = mg.start().await;
    assert_eq!(modernize(&mg, "m", &HistoryRange::ALL).await, Err(Refusal::MachineNotFound.into()));
}

/// A Modernize of all events that waits at its modernizer.
async fn begun(mg: &World, rewriter: &Rewriter) -> (Gate, tokio::task::JoinHandle<Result<(), EngineError>>) {
    let mut gate = rewriter.hold();
    let ns = mg.ns.clone();
    let context = RequestContext::default();
    let running = tokio::spawn(async move { ns.modernize(id("m"), &HistoryRange::ALL, context, None).await });
    gate.reached().await;
    (gate, running)
}

async fn steps_go_on_meanwhile_and_lose_nothing(mg: Mg) {
    let (mg, rewriter) = modernizing(mg);
    let mg = mg.start().await;
    versions(&mg, "m", &[Some(1), Some(1)]).await;
    let (gate, running) = begun(&mg, &rewriter).await;
    mg.change("m", reply("").event("c").aux("new")).await;
    gate.open();
    running.await.unwrap().unwrap();
    assert_eq!(shown(&mg, "m").await, is(&[("a'", 2), ("b'", 2), ("c", 1)]));
    assert_eq!(mg.get("m").await.unwrap().record.aux_state, content("new"));
    // A step that runs while the swap waits for its turn.
    let (gate, running) = begun(&mg, &rewriter).await;
    let mut step = mg.processor.hold("m");
    mg.processor.then(reply("done").event("d"));
    let asked = mg.ask("m", call("x"));
    step.reached().await;
    gate.open();
    mg.quiet().await;
    step.open();
    assert_eq!(asked.await, ok("done"));
    running.await.unwrap().unwrap();
    assert_eq!(shown(&mg, "m").await, is(&[("a'", 2), ("b'", 2), ("c'", 2), ("d", 1)]));
}

async fn a_machine_started_anew_meanwhile_is_left_alone(mg: Mg) {
    let (mg, rewriter) = modernizing(mg);
    let mg = mg.start().await;
    versions(&mg, "m", &[Some(1)]).await;
    for anew in [true, false] {
        let (gate, running) = begun(&mg, &rewriter).await;
        mg.ask("m", Impact::Remove).await.unwrap();
        if anew {
            versions(&mg, "m", &[Some(1), Some(1)]).await;
        }
        gate.open();
        assert_eq!(running.await.unwrap(), Err(Refusal::MachineNotFound.into()));
        if anew {
            assert_eq!(shown(&mg, "m").await, is(&[("a", 1), ("b", 1)]));
        }
    }
}

async fn two_at_once_never_lower_a_version(mg: Mg) {
    let (mg, rewriter) = modernizing(mg);
    let mg = mg.start().await;
    versions(&mg, "m", &[Some(1), None, Some(1)]).await;
    // The slow one has a modernizer of an older release behind it.
    rewriter.then(Some(2), "slow a");
    let (gate, slow) = begun(&mg, &rewriter).await;
    rewriter.then(Some(3), "fast a").then(Some(3), "fast b").then(Some(1), "c");
    modernize(&mg, "m", &HistoryRange::ALL).await.unwrap();
    rewriter.then(Some(2), "slow b").then(Some(2), "slow c");
    gate.open();
    slow.await.unwrap().unwrap();
    assert_eq!(shown(&mg, "m").await, is(&[("fast a", 3), ("fast b", 3), ("slow c", 2)]));
    // All of it done already: not even a commit.
    versions(&mg, "n", &[Some(1)]).await;
    let commits = mg.storage.commits().len();
    let mut gate = rewriter.hold();
    let ns = mg.ns.clone();
    let slow =
        tokio::spawn(async move { ns.modernize(id("n"), &HistoryRange::ALL, RequestContext::default(), None).await });
    gate.reached().await;
    modernize(&mg, "n", &HistoryRange::ALL).await.unwrap();
    gate.open();
    slow.await.unwrap().unwrap();
    assert_eq!(mg.storage.commits().len(), commits + 1);
}

async fn a_modernized_history_past_the_limit_is_an_error_and_parts_of_it_are_modernized(mg: Mg) {
    let (mg, rewriter) = modernizing(mg.with(|_, namespace| namespace.policy.limits.step_size = 1_000));
    let mg = mg.start().await;
    versions(&mg, "m", &[Some(1); 4]).await;
    let long = |letter: &str| letter.repeat(300);
    let script = || {
        for letter in ["A", "B", "C", "D"] {
            rewriter.then(Some(2), &long(letter));
        }
    };
    script();
    let Err(EngineError::Modernizer(error)) = modernize(&mg, "m", &HistoryRange::ALL).await else {
        panic!("it is too large");
    };
    let text = error.to_string();
    assert!(text.contains("events up to 3") && text.contains("limits.step_size allows 1000"), "{text}");
    let old = |texts: &[&str]| texts.iter().map(|it| ((*it).to_owned(), Some(1))).collect::<Vec<_>>();
    assert_eq!(shown(&mg, "m").await, old(&["a", "b", "c", "d"]));
    // What was left of the script is for nobody.
    rewriter.0.lock().unwrap().answers.clear();
    script();
    for range in [HistoryRange { limit: Some(2), ..HistoryRange::ALL }, range(2, 2)] {
        modernize(&mg, "m", &range).await.unwrap();
    }
    let modern: Vec<_> = ["A", "B", "C", "D"].iter().map(|letter| (long(letter), Some(2))).collect();
    assert_eq!(shown(&mg, "m").await, modern);
}

async fn sinks_are_not_fed_again(mg: Mg) {
    let (mg, _) = modernizing(mg);
    let sink = Recorder::new();
    let mg = mg.lifecycle("s", &sink).with(|_, namespace| namespace.ledgers.push("l".to_owned())).start().await;
    versions(&mg, "m", &[Some(1)]).await;
    until(|| sink.accepted() == 2).await;
    modernize(&mg, "m", &HistoryRange::ALL).await.unwrap();
    mg.advance(60_000);
    mg.settle().await;
    assert_eq!(sink.of("m"), ["created", "1 a"]);
    let ledger = mg.storage.inner().ledger().unwrap();
    assert_eq!(machinegun::storage::ledger::verify(ledger, "l").await.unwrap().last, 1);
}

async fn a_failed_machine_is_modernised_too(mg: Mg) {
    let (mg, _) = modernizing(mg);
    let mg = mg.start().await;
    versions(&mg, "m", &[Some(1)]).await;
    mg.fail("m").await;
    modernize(&mg, "m", &HistoryRange::ALL).await.unwrap();
    assert_eq!(shown(&mg, "m").await, is(&[("a'", 2)]));
    assert_eq!(mg.call("m", "x").await, Err(Refusal::MachineFailed.into()));
}

async fn a_long_history_is_rewritten_whole(mg: Mg) {
    let (mg, rewriter) = modernizing(mg.with(|options, _| options.cache = 10_000));
    let mg = mg.start().await;
    // Every third is modern already.
    let long: Vec<_> = (0..1_700).map(|n| Some(if n % 3 == 0 { 2 } else { 1 })).collect();
    versions(&mg, "m", &long).await;
    let (gate, running) = begun(&mg, &rewriter).await;
    mg.change("m", reply("").event("last")).await;
    gate.open();
    running.await.unwrap().unwrap();
    let shown = shown(&mg, "m").await;
    let expected = |n: usize| if n.is_multiple_of(3) { letter(n) } else { format!("{}'", letter(n)) };
    assert!(shown[..1_700].iter().enumerate().all(|(n, it)| *it == (expected(n), Some(2))));
    assert_eq!(shown[1_700], ("last".to_owned(), Some(1)));
}
