//! Where we differ from the recordings on purpose: each row is needed, is held to what it says, and is written down.

use std::collections::HashSet;
use std::path::Path;

use compat_tests::expected::{Ours, ROWS, Row};
use compat_tests::node::{Message, Node};
use compat_tests::plan::Plan;
use compat_tests::recorded_service::RecordedService;
use compat_tests::recording::{Answer, Direction, Exchange, Recording};
use compat_tests::replay::{Options, Replay, Report};
use machinegun::clock::Clock;

const NAMES: &[&str] = &["mg_woody", "mg2021", "modernizer"];

fn recording(name: &str) -> Recording {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings").join(name).with_extension("jsonl");
    Recording::read(&path).unwrap()
}

/// Plays one recording against a service that does what another says.
async fn play(played: &Recording, done: &Recording) -> Report {
    let options = Options { linger: 0, ..Options::default() };
    let replay = Replay::prepare(played, options, Clock::system()).await.unwrap();
    let service = RecordedService::start(done, &replay.processor_url(), Clock::system()).await.unwrap();
    replay.play(&service.url()).await
}

/// The exchanges whose answers rows put ours in the place of.
fn ours(recording: &Recording) -> Vec<(u64, &'static Row)> {
    let steps = Plan::new(recording).steps;
    steps.iter().filter_map(|step| step.ours.map(|row| (step.exchange.seq, row))).collect()
}

#[tokio::test]
async fn a_service_that_answers_as_the_original_did_differs_in_every_row_and_nowhere_else() {
    let mut rows = 0;
    for name in NAMES {
        let recorded = recording(name);
        // Under a name that no row knows it is what the original did.
        let original = Recording { name: "original".to_owned(), ..recorded.clone() };
        let report = play(&recorded, &original).await;
        let differing: HashSet<u64> = report.differences.iter().map(|it| it.seq.unwrap()).collect();
        let named: HashSet<u64> = ours(&recorded).iter().map(|(seq, _)| *seq).collect();
        assert!(named.is_subset(&differing), "{report}");
        // A read that overlaps a Start, and saw nothing when it was recorded, may see the whole now.
        let steps = Plan::new(&recorded).steps;
        let races: HashSet<u64> =
            steps.iter().filter(|step| step.race.is_some()).map(|step| step.exchange.seq).collect();
        assert!(differing.difference(&named).all(|seq| races.contains(seq)), "{report}");
        rows += ROWS.iter().filter(|row| ours(&recorded).iter().any(|(_, it)| it.because == row.because)).count();
    }
    assert_eq!(rows, ROWS.len(), "each row is of a recording that is kept here");
}

#[test]
fn a_row_says_all_of_our_answer() {
    for row in ROWS {
        let plan = Plan::new(&recording(row.recording));
        let reply =
            |wanted: u64| plan.steps.iter().find(|it| it.exchange.seq == wanted).unwrap().exchange.reply().unwrap();
        match row.ours {
            Ours::Refusal { seq, status, class } => {
                assert_eq!((reply(seq).status, reply(seq).headers["woody.error-class"].as_str()), (status, class));
                assert!(reply(seq).body.is_empty());
            }
            Ours::MachineStatus { failed } => {
                for step in plan.steps.iter().filter(|step| step.method == "GetMachine") {
                    let message = Message::decode(&step.exchange.reply().unwrap().body).unwrap();
                    if message.body.at(&[0]).is_some() {
                        let variant = if failed.contains(&step.exchange.seq) { 2 } else { 1 };
                        assert!(matches!(message.body.at(&[0, 8, variant]), Some(Node::Struct(_))));
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_row_that_a_recording_has_no_use_for_fails_its_replay() {
    let recorded = recording("mg2021");
    let refusal = |it: &&Row| matches!(it.ours, Ours::Refusal { .. });
    let row = ROWS.iter().find(refusal).unwrap();
    let Ours::Refusal { seq, status, class } = row.ours else { panic!("it is a refusal") };
    // What it names is not there; or it is answered so already.
    let mut without = recorded.clone();
    without.exchanges.retain(|exchange| exchange.seq != seq);
    let mut already = recorded.clone();
    let Answer::Reply(reply) = &mut of(&mut already, seq).answer else { panic!("{seq} has a reply") };
    reply.status = status;
    reply.headers.insert("woody.error-class".to_owned(), class.to_owned());
    for changed in [without, already] {
        let report = play(&changed, &changed).await;
        assert!(!report.agrees() && report.differences.is_empty());
        assert!(
            report.to_string().starts_with("expected.rs has a row that is of no use: A negative limit"),
            "{report}"
        );
    }
    // A machine that should have failed, and is not read.
    let mut unread = recorded;
    unread.exchanges.retain(|exchange| exchange.seq != 71);
    assert_eq!(Plan::new(&unread).useless.len(), 1);
}

fn of(recording: &mut Recording, seq: u64) -> &mut Exchange {
    recording.exchanges.iter_mut().find(|exchange| exchange.seq == seq).unwrap()
}

#[test]
fn each_row_stands_on_a_row_of_the_differences() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/differences.md");
    let differences = std::fs::read_to_string(path).unwrap();
    for row in ROWS {
        let cell = format!("| {} | ", row.difference);
        assert!(differences.lines().any(|line| line.starts_with(&cell)), "{}", row.difference);
    }
}

/// Ledgers' entries are compared in their order, so the recordings must leave none of it to chance: no two steps with
/// events overlap, and nobody reads a ledger while one is under way.
#[test]
fn no_recording_leaves_a_ledgers_order_to_chance() {
    let mut steps_with_events = 0;
    for name in NAMES {
        let plan = Plan::new(&recording(name));
        let (mut steps, mut reads) = (Vec::new(), Vec::new());
        for step in &plan.steps {
            let exchange = &step.exchange;
            if step.method == "GetHistory" {
                reads.push((exchange.began, exchange.ended, exchange.seq));
            } else if step.is(Direction::Outbound) && makes_events(exchange) {
                let cause = step.cause.filter(|_| !step.background).map_or(exchange, |it| &plan.steps[it].exchange);
                steps.push((cause.began, cause.ended, exchange.seq));
            }
        }
        for (at, one) in steps.iter().enumerate() {
            for other in steps[at + 1..].iter().chain(&reads) {
                assert!(one.1 <= other.0 || other.1 <= one.0, "{name}: seq {} and {} overlap", one.2, other.2);
            }
        }
        steps_with_events += steps.len();
    }
    assert!(steps_with_events > 50, "{steps_with_events} steps with events");
}

fn makes_events(exchange: &Exchange) -> bool {
    let Some(message) = exchange.reply().and_then(|reply| Message::decode(&reply.body).ok()) else { return false };
    // `events` of the change that a signal's result has in field 1, and a call's or a repair's in field 2.
    [[0, 1, 4], [0, 2, 4]].iter().any(|path| match message.body.at(path) {
        Some(Node::List { items, .. }) => !items.is_empty(),
        _ => false,
    })
}
