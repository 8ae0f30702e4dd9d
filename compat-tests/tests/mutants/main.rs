//! The replayer itself: it agrees with what was recorded, and notices whatever else there is.
//!
//! The service here is a [`RecordedService`]: it does exactly what was recorded. So a recording agrees with it, and a
//! recording in which one thing was changed must not.

mod mutations;

use std::collections::HashMap;
use std::path::Path;

use compat_tests::compare::Comparison;
use compat_tests::node::{Message, Node};
use compat_tests::plan::Plan;
use compat_tests::recorded_service::{Moment, RecordedService};
use compat_tests::recording::{Answer, Direction, Exchange, Recording, Response};
use compat_tests::replay::{Options, Replay, Report};
use machinegun::clock::Clock;

/// Cases of the suite that together show every kind of exchange: each is the story of one machine.
const CASES: &[&[u64]] = &[
    // An id that can't be, a start, a call, a read, a notification, a removal.
    &[4, 5, 6, 9, 10, 12, 13, 14, 15, 16],
    // A removal by an action.
    &[18, 19, 22, 23, 24],
    // A start that fails, one whose processor never answers.
    &[285, 286, 287, 288, 289, 291, 292],
    // A failure, what is refused then, a repair that fails, one that works, a call.
    &[291, 292, 293, 294, 295, 296, 297, 298, 299, 300, 301, 302, 303, 304],
    // A simple repair.
    &[306, 307, 308, 309, 310, 311, 312],
    // A timer that fires.
    &[314, 315, 316, 317, 318, 319, 320, 321],
    // Deadlines of the caller's: one is kept, one is not.
    &[322, 323, 324, 325, 326, 327, 328],
    // A timer that is unset, a repair that is refused by the processor.
    &[329, 330, 332, 333, 334, 335, 336, 339, 340, 342, 343, 344],
];

/// The same of the other recordings: what only they have.
const OTHER_CASES: &[(&str, &[u64])] = &[
    // A ledger that is empty, that has entries, and one that is not there.
    ("mg2021", &[1, 2, 3, 4, 5, 11, 12, 94]),
    // A tag that is set, a call by it.
    ("mg2021", &[131, 132, 137, 138, 139, 140, 141]),
    // A tag of another machine that exists.
    ("mg2021", &[64, 65, 66, 67, 71]),
    // A repair by a tag, one that a processor refuses.
    ("mg2021", &[74, 75, 76, 77, 82, 83]),
    // Events that are brought to a new format, and read.
    ("modernizer", &[1, 2, 3, 15, 16, 22]),
];

fn recording() -> Recording {
    recording_of("mg_woody")
}

fn recording_of(name: &str) -> Recording {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings").join(name).with_extension("jsonl");
    Recording::read(&path).unwrap()
}

/// Plays one recording against a service that does what another says.
async fn play(played: &Recording, done: &Recording, patience: i64) -> Report {
    play_with(played, done, Options { linger: 100, patience, stop_at_first: true, ..Options::default() }).await
}

async fn play_with(played: &Recording, done: &Recording, options: Options) -> Report {
    let replay = Replay::prepare(played, options, Clock::system()).await.unwrap();
    let service = RecordedService::start(done, &replay.processor_url(), Clock::system()).await.unwrap();
    replay.play(&service.url()).await
}

fn at(recording: &mut Recording, seq: u64) -> &mut Exchange {
    recording.exchanges.iter_mut().find(|exchange| exchange.seq == seq).unwrap()
}

fn without(recording: &Recording, seq: u64) -> Recording {
    let mut recording = recording.clone();
    recording.exchanges.retain(|exchange| exchange.seq != seq);
    recording
}

#[tokio::test]
async fn a_whole_recording_agrees_with_itself() {
    for (name, summary) in [
        ("mg_woody", "mg_woody: 344 of 344 exchanges agree"),
        ("mg2021", "mg2021: 452 of 452 exchanges agree, 252 of them held against our own answer"),
        ("modernizer", "modernizer: 32 of 32 exchanges agree"),
    ] {
        let recording = recording_of(name);
        let report = play(&recording, &recording, 20_000).await;
        assert!(report.agrees(), "{report}");
        assert_eq!(report.to_string(), summary);
    }
}

/// Tries every change of the exchanges of a case. Returns what was changed.
async fn all_are_noticed(recorded: Recording) -> Vec<String> {
    let report = play(&recorded, &recorded, 20_000).await;
    assert!(report.agrees(), "unchanged: {report}");
    let mut tried = Vec::new();
    for mutant in mutations::all(&recorded) {
        let report = play(&mutant.recording, &recorded, 20_000).await;
        let (seq, what) = (mutant.seq, mutant.what);
        let first = report.differences.first();
        let first = first.unwrap_or_else(|| panic!("seq {seq}, {what}: nobody noticed"));
        // Whose turn it is goes by path and machine: with another one it is somebody else's.
        let turn = |recording: &Recording| {
            let plan = Plan::new(recording);
            let step = plan.steps.iter().find(|step| step.exchange.seq == seq).unwrap();
            (step.exchange.request.path.clone(), step.machine.clone())
        };
        let same_turn = turn(&mutant.recording) == turn(&recorded);
        assert!(!same_turn || first.seq == Some(seq), "seq {seq}, {what}: noticed as {first}");
        tried.push(what);
    }
    tried
}

#[tokio::test]
async fn every_changed_field_is_noticed() {
    let whole = recording();
    let mut tried = 0;
    for case in CASES {
        tried += all_are_noticed(whole.only(case)).await.len();
    }
    assert!(tried > 500, "only {tried} mutants");
}

#[tokio::test]
async fn every_changed_field_of_ledgers_tags_and_modernized_events_is_noticed() {
    let mut tried = Vec::new();
    for (name, case) in OTHER_CASES {
        tried.extend(all_are_noticed(recording_of(name).only(case)).await);
    }
    for what in [
        // Of the last of a ledger's entries.
        ".success[1].id changed",
        ".success[1].source_id changed",
        ".success[1].source_ns changed",
        ".success[1].event.id changed",
        ".success[1].event.data.i changed",
        ".success shortened",
        ".success reversed",
        ".EventSinkNotFound dropped",
        // Of an event that is to be modernized, and of one that was.
        ".ev.ns changed",
        ".ev.id changed",
        ".ev.event.id changed",
        ".ev.event.data.arr shortened",
        ".success.history[3].format_version changed",
        ".success.history[3].data.arr[1].arr[1].i changed",
    ] {
        assert!(tried.iter().any(|it| it == what), "nobody tried {what}: {tried:#?}");
    }
}

#[tokio::test]
async fn every_meta_is_noticed() {
    let mut recorded = recording().only(CASES[0]);
    for seq in [9, 10] {
        at(&mut recorded, seq).request.headers.insert("woody.meta.user".to_owned(), "one".to_owned());
    }
    assert!(play(&recorded, &recorded, 20_000).await.agrees());
    for value in [None, Some("another")] {
        let mut mutant = recorded.clone();
        let headers = &mut at(&mut mutant, 10).request.headers;
        match value {
            Some(value) => headers.insert("woody.meta.user".to_owned(), value.to_owned()),
            None => headers.remove("woody.meta.user"),
        };
        let report = play(&mutant, &recorded, 20_000).await;
        assert_eq!(report.differences.first().unwrap().field, "woody.meta.user");
    }
}

#[tokio::test]
async fn a_request_that_nobody_recorded_is_noticed() {
    let recorded = recording().only(CASES[5]);
    // In the middle it comes in another's turn.
    let report = play(&without(&recorded, 318), &recorded, 20_000).await;
    assert_eq!(report.differences.first().unwrap().seq, Some(320), "{report}");
    // At a machine's end it has none, even after all others have ended.
    for case in [CASES[5], &[314, 315, 317, 318, 320]] {
        let recorded = recording().only(case);
        let options = Options { linger: 20_000, stop_at_first: true, ..Options::default() };
        let report = play_with(&without(&recorded, 320), &recorded, options).await;
        assert_eq!(report.differences.first().unwrap().seq, None, "{report}");
    }
}

#[tokio::test]
async fn a_request_that_never_comes_is_noticed() {
    let recorded = recording().only(CASES[5]);
    let report = play(&recorded, &without(&recorded, 318), 20_000).await;
    assert_eq!(report.differences.first().unwrap().seq, Some(318), "the next one comes in its turn: {report}");
    // A timer that does not fire, whether or not somebody reads after it.
    for case in [CASES[5], &[314, 315, 317, 318, 320]] {
        let recorded = recording().only(case);
        let report = play(&recorded, &without(&recorded, 320), 1_500).await;
        let first = report.differences.first().unwrap();
        assert_eq!((first.seq, first.got.as_str()), (Some(320), "it never came"), "{report}");
    }
}

#[tokio::test]
async fn the_order_of_a_machines_requests_is_noticed() {
    let recorded = recording().only(CASES[3]);
    let mut swapped = recorded.clone();
    let [first, second] = [294, 302].map(|seq| at(&mut swapped, seq).request.clone());
    at(&mut swapped, 294).request = second;
    at(&mut swapped, 302).request = first;
    let report = play(&swapped, &recorded, 20_000).await;
    assert_eq!(report.differences.first().unwrap().seq, Some(294), "{report}");
}

#[tokio::test]
async fn an_answer_that_never_comes_is_noticed() {
    let recorded = recording().only(CASES[0]);
    let mut silent = recorded.clone();
    at(&mut silent, 12).answer = Answer::Broken("silent".to_owned());
    let report = play(&recorded, &silent, 20_000).await;
    let first = report.differences.first().unwrap();
    assert_eq!((first.seq, first.field.as_str()), (Some(12), "answer"));
}

#[tokio::test]
async fn what_differs_from_run_to_run_is_left_out_and_nothing_else() {
    let recorded = recording().only(CASES[5]);
    let text = |bytes: &str| Node::Bytes(bytes.as_bytes().to_vec());
    let timer = |value: Node| {
        let mut other = recorded.clone();
        let Answer::Reply(reply) = &mut at(&mut other, 319).answer else { panic!("319 has a reply") };
        edit(reply, &[0, 6], value);
        other
    };
    let created = |value: Node| {
        let mut other = recorded.clone();
        let body = &mut at(&mut other, 320).request.body;
        let mut message = Message::decode(body).unwrap();
        let Some(Node::List { items, .. }) = find(&mut message.body, &[1, 2, 3]) else { panic!("320 has a history") };
        *find(&mut items[0], &[2]).unwrap() = value;
        *body = message.encode().into();
        other
    };
    for agreeing in [
        timer(text("2031-01-01T00:00:00Z")),
        created(text("2031-01-01T00:00:00Z")),
        created(text("2031-01-01T00:00:00.123Z")),
        created(text("2031-01-01T00:00:00.123456Z")),
    ] {
        let report = play(&recorded, &agreeing, 20_000).await;
        assert!(report.agrees(), "{report}");
    }
    for differing in [
        timer(text("2031-01-01T00:00:00.123Z")),
        timer(text("soon")),
        timer(Node::I64(7)),
        created(text("2031-01-01T00:00:00.120000Z")),
        created(text("2031-01-01T00:00:00+00:00")),
        created(text("2031-01-01")),
    ] {
        assert!(!play(&recorded, &differing, 20_000).await.agrees());
    }
}

#[tokio::test]
async fn an_expired_deadline_is_503_or_504_with_the_class_that_goes_with_it() {
    let recorded = recording().only(CASES[6]);
    for (status, class, agrees) in [
        (503, "Resource Unavailable", true),
        (504, "Result Unknown", true),
        (503, "Result Unknown", false),
        (502, "Result Unknown", false),
    ] {
        let mut other = recorded.clone();
        let Answer::Reply(reply) = &mut at(&mut other, 326).answer else { panic!("326 has a reply") };
        reply.status = status;
        reply.headers.insert("woody.error-class".to_owned(), class.to_owned());
        let report = play(&recorded, &other, 20_000).await;
        assert_eq!(report.agrees(), agrees, "{status} {class}: {report}");
    }
}

#[tokio::test]
async fn what_ended_before_and_what_overlapped_is_kept() {
    let recording = recording();
    let options = Options { linger: 0, ..Options::default() };
    let replay = Replay::prepare(&recording, options, Clock::system()).await.unwrap();
    let service = RecordedService::start(&recording, &replay.processor_url(), Clock::system()).await.unwrap();
    assert!(replay.play(&service.url()).await.agrees());
    let moments: HashMap<(Moment, u64), usize> =
        service.moments().into_iter().enumerate().map(|(at, moment)| (moment, at)).collect();
    let of = |moment: Moment, exchange: &Exchange| moments[&(moment, exchange.seq)];
    let (inbound, outbound): (Vec<&Exchange>, Vec<&Exchange>) =
        recording.exchanges.iter().partition(|exchange| exchange.direction == Direction::Inbound);
    let mut pairs = 0;
    for later in &inbound {
        for earlier in inbound.iter().filter(|earlier| earlier.ended <= later.began) {
            assert!(of(Moment::Replied, earlier) < of(Moment::Received, later), "{} {}", earlier.seq, later.seq);
        }
        for asked in outbound.iter().filter(|asked| asked.began <= later.began) {
            assert!(of(Moment::Asked, asked) < of(Moment::Received, later), "{} {}", asked.seq, later.seq);
        }
        // What was asked and answered while a processor thought is asked and answered while it thinks.
        for asked in outbound.iter().filter(|asked| asked.began <= later.began && later.ended <= asked.ended) {
            assert!(of(Moment::Replied, later) < of(Moment::Answered, asked), "{} {}", asked.seq, later.seq);
            pairs += 1;
        }
    }
    assert!(pairs > 15, "only {pairs} requests overlap a processor's answer");
}

#[test]
fn a_read_during_a_start_sees_nothing_or_the_whole() {
    let plan = Plan::new(&recording());
    let step = |seq: u64| plan.steps.iter().find(|step| step.exchange.seq == seq).unwrap();
    // 27 to 46 were asked while the Start of 25 was under way, 47 came after it, 79 was answered before the processor.
    for seq in 27..=46 {
        assert!(step(seq).race.is_some(), "{seq}");
    }
    for seq in [47, 76, 79, 319] {
        assert!(step(seq).race.is_none(), "{seq}");
    }
    let race = step(27).race.as_ref().unwrap();
    assert_eq!(Some(&race.nothing), step(27).exchange.reply());
    assert_eq!(race.whole.body, step(43).exchange.reply().unwrap().body);

    let either = |nothing: Option<&Response>, got: &Response| {
        let mut comparison = Comparison::of(step(27));
        let whole = comparison.either_answer(nothing, &race.whole, &Answer::Reply(got.clone()));
        (comparison.differences.is_empty(), whole)
    };
    assert_eq!(either(Some(&race.nothing), &race.nothing), (true, false));
    assert_eq!(either(Some(&race.nothing), &race.whole), (true, true));
    assert_eq!(either(None, &race.whole), (true, true));
    assert_eq!(either(None, &race.nothing), (false, false), "nobody unsees a machine");
    let mut between = race.whole.clone();
    edit(&mut between, &[0, 3], Node::List { element: 12, items: Vec::new() });
    assert_eq!(either(Some(&race.nothing), &between), (false, false), "no events yet");
}

fn edit(reply: &mut Response, path: &[i16], value: Node) {
    let mut message = Message::decode(&reply.body).unwrap();
    *find(&mut message.body, path).unwrap() = value;
    reply.body = message.encode().into();
}

fn find<'a>(node: &'a mut Node, path: &[i16]) -> Option<&'a mut Node> {
    path.iter().try_fold(node, |node, id| match node {
        Node::Struct(fields) => fields.get_mut(id),
        _ => None,
    })
}
