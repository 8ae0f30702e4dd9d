//! The original's own API suite, played against the service: its clients and its processors notice no difference.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use compat_tests::configuration::{self, Storage};
use compat_tests::node::{Message, Node};
use compat_tests::recording::{Answer, Exchange, Recording};
use compat_tests::replay::{Options, Replay, Report};
use compat_tests::service_under_test::ServiceUnderTest;
use machinegun::clock::Clock;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings").join(name).with_extension("jsonl")
}

/// Plays `recording` against a service of its own, configured as `name` needs.
async fn play(name: &str, recording: &Recording, storage: Storage, options: Options) -> Report {
    let replay = Replay::prepare(recording, options, Clock::system()).await.unwrap();
    let template = configuration::built_in(name).unwrap();
    let service =
        ServiceUnderTest::start(&configuration::fill(template, &replay.processor_url(), &storage)).await.unwrap();
    let report = replay.play(&service.url()).await;
    service.stop().await.unwrap();
    report
}

async fn agrees_on_memory(name: &str, exchanges: usize) {
    let recording = Recording::read(&file(name)).unwrap();
    let report = play(name, &recording, Storage::Memory, Options::default()).await;
    assert!(report.agrees(), "{report}");
    assert_eq!(report.agreeing(), exchanges);
}

async fn agrees_on_the_embedded_store(name: &str, exchanges: usize) {
    let recording = Recording::read(&file(name)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::Embedded(directory.path().to_owned());
    let report = play(name, &recording, storage, Options::default()).await;
    assert!(report.agrees(), "{report}");
    assert_eq!(report.agreeing(), exchanges);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_originals_suite_agrees_on_memory() {
    agrees_on_memory("mg_woody", 344).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_originals_suite_agrees_on_the_embedded_store() {
    agrees_on_the_embedded_store("mg_woody", 344).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_of_2021_with_tags_and_its_event_sink_agrees_on_memory() {
    agrees_on_memory("mg2021", 452).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_of_2021_with_tags_and_its_event_sink_agrees_on_the_embedded_store() {
    agrees_on_the_embedded_store("mg2021", 452).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_modernizers_suite_agrees_on_memory() {
    agrees_on_memory("modernizer", 32).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_modernizers_suite_agrees_on_the_embedded_store() {
    agrees_on_the_embedded_store("modernizer", 32).await;
}

/// Some exchanges, with one of them changed, against the real service.
async fn play_changed_of(name: &str, seqs: &[u64], seq: u64, change: impl FnOnce(&mut Exchange)) -> Report {
    let mut recording = Recording::read(&file(name)).unwrap().only(seqs);
    change(recording.exchanges.iter_mut().find(|exchange| exchange.seq == seq).unwrap());
    let options = Options { stop_at_first: true, ..Options::default() };
    play(name, &recording, Storage::Memory, options).await
}

/// The exchanges of one machine, with one of them changed.
async fn play_changed(seqs: &[u64], seq: u64, change: impl FnOnce(&mut Exchange)) -> Report {
    play_changed_of("mg_woody", seqs, seq, change).await
}

fn change_body(body: &mut bytes::Bytes, path: &[i16], value: Option<Node>) {
    let mut message = Message::decode(body).unwrap();
    let (last, parents) = path.split_last().unwrap();
    let parent = parents.iter().fold(&mut message.body, |node, id| match node {
        Node::Struct(fields) => fields.get_mut(id).unwrap(),
        other => other,
    });
    if let Node::Struct(fields) = parent {
        match value {
            Some(value) => fields.insert(*last, value),
            None => fields.remove(last),
        };
    }
    *body = message.encode().into();
}

fn change_reply(exchange: &mut Exchange, path: &[i16], value: Option<Node>) {
    if let Answer::Reply(reply) = &mut exchange.answer {
        change_body(&mut reply.body, path, value);
    }
}

const NOTIFIED: &[u64] = &[5, 6, 9, 10, 12, 13, 14, 15];

#[tokio::test(flavor = "multi_thread")]
async fn one_machines_exchanges_agree_by_themselves() {
    let report = play_changed(NOTIFIED, 5, |_| {}).await;
    assert!(report.agrees(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_processor_says_reaches_the_clients() {
    // The processor answers a call otherwise, so the client gets, and the machine holds, something else.
    let report =
        play_changed(NOTIFIED, 10, |it| change_reply(it, &[0, 1, 6], Some(Node::Bytes(b"other".to_vec())))).await;
    assert_eq!(report.differences[0].seq, Some(9), "{report}");
    let report = play_changed(NOTIFIED, 10, |it| change_reply(it, &[0, 2, 3, 1], Some(Node::I32(43)))).await;
    assert_eq!(report.differences[0].seq, Some(12), "{report}");
    let report = play_changed(NOTIFIED, 14, |it| change_reply(it, &[0, 1, 4], None)).await;
    assert_eq!(report.differences[0].seq, Some(15), "a notification's event: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_asks_is_compared() {
    let report =
        play_changed(NOTIFIED, 10, |it| change_body(&mut it.request.body, &[1, 1, 6], Some(Node::Bytes(vec![])))).await;
    assert_eq!(report.differences[0].seq, Some(10), "{report}");
    let report = play_changed(NOTIFIED, 6, |it| drop(it.request.headers.remove("woody.deadline"))).await;
    assert_eq!(report.differences[0].field, "woody.deadline", "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_that_should_have_been_unset_is_noticed() {
    let unset: &[u64] = &[329, 330, 332, 333, 334, 335];
    let report = play_changed(unset, 335, |_| {}).await;
    assert!(report.agrees(), "{report}");
    let report = play_changed(unset, 335, |it| change_reply(it, &[0, 3, 3], None)).await;
    assert_eq!((report.differences[0].seq, report.differences.len()), (None, 1), "{report}");
}

/// Two machines, a tag of the one, and the calls that find it by that.
const TAGGED: &[u64] = &[57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 71];

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_a_processor_says_is_the_one_that_finds_its_machine() {
    let tag = &[0, 3, 2, 1];
    let report = play_changed_of("mg2021", TAGGED, 60, |_| {}).await;
    assert!(report.agrees(), "{report}");
    let other = Some(Node::Bytes(b"other".to_vec()));
    let report = play_changed_of("mg2021", TAGGED, 60, |it| change_reply(it, tag, other.clone())).await;
    assert_eq!(report.differences[0].seq, Some(61), "nobody has the tag: {report}");
    let report = play_changed_of("mg2021", TAGGED, 67, |it| change_reply(it, tag, other)).await;
    assert_eq!(report.differences[0].seq, Some(66), "a tag of its own fails no machine: {report}");
    let report = play_changed_of("mg2021", TAGGED, 60, |it| change_reply(it, &[0, 3, 2], None)).await;
    assert_eq!(report.differences[0].seq, Some(61), "no tag at all: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_processor_says_reaches_the_readers_of_the_event_sink() {
    let sink: &[u64] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    let report = play_changed_of("mg2021", sink, 9, |_| {}).await;
    assert!(report.agrees(), "{report}");
    let report = play_changed_of("mg2021", sink, 9, |it| change_reply(it, &[0, 2, 4], None)).await;
    assert_eq!(report.differences[0].seq, Some(10), "an event that is not there: {report}");
    let number = Node::Struct([(3, Node::I64(3))].into());
    let list = Node::List { element: 12, items: vec![Node::Struct([(1, Node::I32(43)), (2, number)].into())] };
    let report = play_changed_of("mg2021", sink, 9, |it| change_reply(it, &[0, 2, 4], Some(list))).await;
    let first = &report.differences[0];
    assert_eq!((first.seq, first.field.as_str()), (Some(10), "success[2].event.format_version"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_modernizer_says_is_what_readers_get() {
    let modernized: Vec<u64> = (1..=22).collect();
    let payload = &[0, 1, 2];
    let report = play_changed_of("modernizer", &modernized, 16, |_| {}).await;
    assert!(report.agrees(), "{report}");
    let other = Some(Node::Struct([(3, Node::I64(7))].into()));
    let report = play_changed_of("modernizer", &modernized, 16, |it| change_reply(it, payload, other)).await;
    let first = &report.differences[0];
    assert_eq!(first.seq, Some(22), "{report}");
    assert!(first.field.starts_with("success.history[0].data"), "{report}");
    let version = Some(Node::I32(41));
    let report = play_changed_of("modernizer", &modernized, 16, |it| change_reply(it, &[0, 1, 1], version)).await;
    assert_eq!(report.differences[0].seq, Some(18), "an old event is modernized again: {report}");
}

fn command(arguments: &[&OsStr]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_compat-tests")).arg("replay").args(arguments).output().unwrap()
}

#[test]
fn the_command_says_what_differs_and_fails() {
    let recorded = std::fs::read_to_string(file("mg_woody")).unwrap();
    let mut lines = recorded.lines().filter(|line| !line.contains("outbound"));
    let first = lines.next().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mg_woody.jsonl");

    std::fs::write(&path, first).unwrap();
    let output = command(&[path.as_os_str()]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "mg_woody: 1 of 1 exchanges agree\n");
    assert!(output.status.success());

    std::fs::write(&path, first.replace("\"woody.error-reason\": \"N", "\"woody.error-reason\": \"Another N")).unwrap();
    let output = command(&[path.as_os_str()]);
    let expected = "seq 1, inbound Start incorrect_NS/a1agTb7Acg7WKTjcMZ61AgNd8mW\n    field     woody.error-reason\n    \
                    expected  Another NamespaceNotFound\n    got       NamespaceNotFound\n\n\
                    mg_woody: 0 of 1 exchanges agree\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert_eq!(output.status.code(), Some(1));
}

/// Lines of a recording, as a file of their own.
fn part_of(name: &str, seqs: &[u64], path: &Path) {
    let recorded = std::fs::read_to_string(file(name)).unwrap();
    let is_wanted = |line: &&str| seqs.iter().any(|seq| line.contains(&format!("\"seq\": {seq},")));
    let lines: Vec<&str> = recorded.lines().filter(is_wanted).collect();
    assert_eq!(lines.len(), seqs.len());
    std::fs::write(path, lines.join("\n")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_plays_several_recordings_against_a_service_that_runs_already() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let template = configuration::built_in("modernizer").unwrap();
    let processor = format!("http://127.0.0.1:{port}");
    let service = ServiceUnderTest::start(&configuration::fill(template, &processor, &Storage::Memory)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let part = directory.path().join("part.jsonl");
    part_of("mg_woody", NOTIFIED, &part);
    let (url, port, modernizer) = (service.url(), port.to_string(), file("modernizer"));

    let play = move || {
        let options = [OsStr::new("--url"), OsStr::new(&url), OsStr::new("--processor-port"), OsStr::new(&port)];
        command(&[&options[..], &[modernizer.as_os_str(), part.as_os_str()]].concat())
    };
    let output = tokio::task::spawn_blocking(play).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = "modernizer: 32 of 32 exchanges agree\npart: 8 of 8 exchanges agree\n\
                    in all: 40 of 40 exchanges agree\n";
    assert_eq!(said, expected);
    assert!(output.status.success());
    service.stop().await.unwrap();
}

#[test]
fn a_recording_that_can_not_be_played_fails_the_command_and_not_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let part = directory.path().join("mg_woody.jsonl");
    part_of("mg_woody", NOTIFIED, &part);
    let output = command(&[OsStr::new("nowhere.jsonl"), part.as_os_str()]);
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = "mg_woody: 8 of 8 exchanges agree\nin all: 8 of 8 exchanges agree\nnot played: 1 of 2 recordings\n";
    assert_eq!(said, expected);
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("nowhere.jsonl: "));
    assert_eq!(output.status.code(), Some(1));
}
