//! The log of the real binary: JSON lines as dashboards of the original know them, with the ids of whoever caused them,
//! and without a machine's values.

mod process;

use std::collections::BTreeMap;
use std::path::Path;

use process::peer::{NAMESPACE, Peer};
use process::processor::{Order, Processor};
use process::{Folder, Machinegun, configuration, soon};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Stands in every value that goes through the service.
const SECRET: &str = "s3cr3t";

fn configured(folder: &Folder, processor: &Processor, logging: &str) -> std::path::PathBuf {
    let text = configuration(&folder.store(), processor.address);
    let text = text.replace("logging: {out_type: stdout, level: info}", &format!("logging: {logging}"));
    folder.configured_as(&text)
}

fn parsed(line: &str) -> Value {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    for field in ["@timestamp", "@severity", "message"] {
        assert!(value[field].is_string(), "{field}: {line}");
    }
    let time = value["@timestamp"].as_str().expect("a text");
    assert!(time.len() == 27 && time.ends_with('Z'), "microseconds in UTC: {line}");
    value
}

/// The first line that is about a call of this function, at this event.
async fn rpc(service: &Machinegun, role: &str, function: &str, event: &str) -> Value {
    let what = format!("{role} {function} {event}");
    let object = format!("rpc.{role}");
    let look = |line: &str| {
        let line = parsed(line);
        let rpc = &line[object.as_str()];
        (rpc["function"] == function && rpc["event"] == event).then_some(line)
    };
    service.logged(&what, look).await
}

async fn beat(service: &Machinegun, id: &str) -> Value {
    let look = |line: &str| Some(parsed(line)).filter(|line| line["mg_pulse_event_id"] == id);
    service.logged(id, look).await
}

#[tokio::test]
async fn every_line_of_a_request_has_its_ids_and_machine_and_no_value() {
    let (folder, processor) = (Folder::new(), Processor::start());
    let logging = "{out_type: stdout, level: debug, burst_limit_enable: false, drop_mode_qlen: 100000}";
    let service = Machinegun::start(&configured(&folder, &processor, logging)).await;
    let peer = Peer::of(service.address);
    peer.start("m", &Order::plain(SECRET)).await.expect("started");
    let order = Order { timer: Some(0), ..Order::plain(SECRET) };
    peer.call("m", &order).await.expect("called");
    peer.call("nobody", &order).await.expect_err("there is no such machine");
    peer.notify("m", &Order::plain(SECRET)).await.expect("accepted");

    let invoked = rpc(&service, "server", "Call", "invoke service handler").await;
    assert_eq!(invoked["@severity"], "info");
    assert_eq!(invoked["message"], "[server] handling Automaton:Call");
    let server = &invoked["rpc.server"];
    assert_eq!(
        (&server["service"], &server["type"], &server["role"]),
        (&"Automaton".into(), &"call".into(), &"server".into())
    );
    assert_eq!(server["metadata"], serde_json::json!({}));
    assert!(server["deadline"].as_str().is_some_and(|it| it.ends_with('Z')), "{server}");
    assert!(invoked["parent_id"].is_string(), "{invoked}");
    let sent = rpc(&service, "server", "Call", "server send").await;
    assert_eq!(sent["@severity"], "debug");
    assert!(sent["rpc.server"]["execution_duration_ms"].is_u64(), "{sent}");
    assert_eq!(sent["trace_id"], invoked["trace_id"]);
    assert_eq!((&sent["machine_ns"], &sent["machine_id"]), (&NAMESPACE.into(), &"m".into()));

    let asked = rpc(&service, "client", "ProcessCall", "call service").await;
    assert_eq!((&asked["@severity"], &asked["rpc.client"]["service"]), (&"info".into(), &"Processor".into()));
    assert_eq!((&asked["trace_id"], &asked["parent_id"]), (&invoked["trace_id"], &invoked["span_id"]));
    assert_ne!(asked["span_id"], invoked["span_id"]);
    assert_eq!((&asked["machine_ns"], &asked["machine_id"]), (&NAMESPACE.into(), &"m".into()));
    assert!(asked["rpc.client"]["url"].as_str().is_some_and(|url| url.ends_with("/processor")), "{asked}");

    // The timer that the Call set has the Call's ids, though no request causes its step.
    let (trace, span) = (invoked["trace_id"].clone(), invoked["span_id"].clone());
    let timed_out = service
        .logged("the timer's step", |line| {
            let line = parsed(line);
            let signal = line["rpc.client"]["function"] == "ProcessSignal" && line["trace_id"] == trace;
            signal.then_some(line)
        })
        .await;
    assert_eq!((&timed_out["parent_id"], &timed_out["machine_id"]), (&span, &"m".into()));

    let refused = beat(&service, "woody_request_handle_error").await;
    assert_eq!((&refused["@severity"], &refused["machine_id"]), (&"info".into(), &"nobody".into()));
    assert_eq!(refused["error"]["reason"], "MachineNotFound");
    assert!(refused["trace_id"].is_string() && refused["span_id"].is_string(), "{refused}");

    service.terminate();
    service.logged("the last line", |line| line.contains("machinegun has stopped").then_some(())).await;
    for line in service.log() {
        let line = parsed(&line);
        assert!(!line.to_string().contains(SECRET), "a value is logged: {line}");
        if line["rpc.client"].is_object() || line["rpc.server"].is_object() {
            assert!(line["trace_id"].is_string() && line["span_id"].is_string(), "{line}");
        }
    }
}

/// How many lines a machine's life takes at a level, by their severity; in none of them is a value.
async fn lines_at(level: &str) -> BTreeMap<String, usize> {
    let (folder, processor) = (Folder::new(), Processor::start());
    let logging = format!("{{out_type: stdout, level: {level}, burst_limit_enable: false, drop_mode_qlen: 100000}}");
    let service = Machinegun::start(&configured(&folder, &processor, &logging)).await;
    let peer = Peer::of(service.address);
    peer.start("m", &Order::plain(SECRET)).await.expect("started");
    peer.call("m", &Order::plain(SECRET)).await.expect("called");
    peer.call("m", &Order { fail: true, ..Order::plain(SECRET) }).await.expect_err("it fails");
    service.terminate();
    service.logged("the last line", |line| line.contains("machinegun has stopped").then_some(())).await;
    let mut lines = BTreeMap::new();
    for line in service.log() {
        let line = parsed(&line);
        assert!(!line.to_string().contains(SECRET), "a value is logged at {level}: {line}");
        *lines.entry(line["@severity"].as_str().expect("a text").to_owned()).or_default() += 1;
    }
    lines
}

#[tokio::test]
async fn each_level_shows_what_the_one_above_does_and_more_and_never_a_value() {
    let (info, debug, trace) = tokio::join!(lines_at("info"), lines_at("debug"), lines_at("trace"));
    assert_eq!(info.get("debug"), None, "{info:?}");
    for more in [&debug, &trace] {
        // Three requests, each received, sent on, and answered.
        assert!(more.get("debug").is_some_and(|lines| *lines >= 6), "{more:?}");
        for (severity, lines) in &info {
            assert_eq!(more.get(severity), Some(lines), "{severity}: {more:?}");
        }
    }
    assert!(trace["debug"] >= debug["debug"], "{trace:?} {debug:?}");
}

#[tokio::test]
async fn what_goes_wrong_with_a_machine_is_logged_at_the_originals_levels() {
    let (folder, processor) = (Folder::new(), Processor::start());
    let logging = "{out_type: stdout, level: info, formatter: {level_map: {error: ERROR, warning: '30'}}}";
    let service = Machinegun::start(&configured(&folder, &processor, logging)).await;
    let peer = Peer::of(service.address);
    peer.start("m", &Order::plain(SECRET)).await.expect("started");
    peer.call("m", &Order { fail: true, ..Order::plain(SECRET) }).await.expect_err("it fails");

    let failed = beat(&service, "mg_core_machine_lifecycle_failed").await;
    assert_eq!((&failed["@severity"], &failed["message"]), (&"ERROR".into(), &"machine failed".into()));
    assert_eq!((&failed["machine_ns"], &failed["machine_id"]), (&NAMESPACE.into(), &"m".into()));
    assert_eq!(failed["processor_impact"], "call");
    assert!(failed["error"]["reason"].as_str().is_some_and(|it| it.contains("processor")), "{failed}");
    assert!(failed["trace_id"].is_string(), "{failed}");
    let answered = rpc(&service, "client", "ProcessCall", "service result").await;
    assert_eq!(answered["@severity"], "30");
    assert_eq!(answered["error"]["class"], "Result Unexpected");
    service.terminate();
    for line in service.log() {
        let severity = parsed(&line)["@severity"].clone();
        assert!(["ERROR", "30", "info"].map(Value::from).contains(&severity), "below the level: {line}");
    }
}

#[tokio::test]
async fn a_start_that_fails_is_told_of_though_there_is_no_machine() {
    let (folder, processor) = (Folder::new(), Processor::start());
    let logging = "{out_type: stdout, level: info}";
    let service = Machinegun::start(&configured(&folder, &processor, logging)).await;
    let refused = Peer::of(service.address).start("m", &Order { fail: true, ..Order::plain(SECRET) }).await;
    refused.expect_err("it fails");
    let failed = beat(&service, "mg_core_machine_lifecycle_failed").await;
    assert_eq!((&failed["machine_id"], &failed["processor_impact"]), (&"m".into(), &"init".into()));
    assert!(failed["error"]["reason"].as_str().is_some_and(|it| it.contains("processor")), "{failed}");
    assert!(failed["trace_id"].is_string() && !failed.to_string().contains(SECRET), "{failed}");
    service.terminate();
}

#[tokio::test]
async fn a_request_refused_at_its_headers_is_found_by_its_ids_and_the_reason_its_caller_got() {
    let (folder, processor) = (Folder::new(), Processor::start());
    let service = Machinegun::start(&configured(&folder, &processor, "{out_type: stdout, level: info}")).await;
    let mut stream = TcpStream::connect(service.address).await.expect("the service listens");
    let head = "POST /v1/automaton HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-thrift\r\ncontent-length: 0\r\n\
        woody.trace-id: trace\r\nwoody.span-id: span\r\nwoody.parent-id: parent\r\n\
        woody.deadline: 2001-01-01T00:00:00Z\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("a request is sent");
    let look = |line: &str| Some(parsed(line)).filter(|line| line["message"] == "request refused");
    let refused = service.logged("the refusal", look).await;
    assert_eq!((&refused["trace_id"], &refused["span_id"]), (&"trace".into(), &"span".into()));
    assert_eq!((&refused["status"], &refused["error"]["reason"]), (&503.into(), &"deadline reached".into()));
    service.terminate();
}

#[tokio::test]
async fn messages_and_texts_are_cut_and_ids_are_not() {
    let (folder, processor) = (Folder::new(), Processor::start());
    let logging = "{out_type: stdout, level: info, formatter: {max_length: 20, max_printable_string_length: 16}}";
    let service = Machinegun::start(&configured(&folder, &processor, logging)).await;
    let id = "a-machine-with-a-name-that-is-longer-than-texts-may-be";
    Peer::of(service.address).start(id, &Order::plain(SECRET)).await.expect("started");
    let asked = rpc(&service, "client", "ProcessSignal", "call service").await;
    assert_eq!(asked["message"], "[client] calling ...");
    assert_eq!(asked["rpc.client"]["url"], "http://127.0....");
    assert_eq!(asked["machine_id"], id);
}

async fn text_of(path: &Path, wanted: &str) -> String {
    soon(wanted, async {
        loop {
            let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
            if text.contains(wanted) {
                return text;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_log_that_was_moved_away_is_made_anew_at_the_hangup() {
    let (folder, processor) = (Folder::new(), Processor::start());
    let root = folder.path().join("log");
    let (path, moved) = (root.join("mg.json"), root.join("mg.json.1"));
    let config = configured(&folder, &processor, &format!("{{root: {root:?}, json_log: mg.json}}"));
    let service = Machinegun::start_logging_to(&path, &config).await;
    let peer = Peer::of(service.address);
    peer.start("before", &Order::plain(SECRET)).await.expect("started");
    text_of(&path, "before").await;
    std::fs::rename(&path, &moved).expect("the log is moved");
    service.hang_up();
    // It is there before anything is in it.
    text_of(&path, "").await;
    soon("the new log", async {
        while !path.exists() {
            tokio::task::yield_now().await
        }
    })
    .await;
    peer.start("behind", &Order::plain(SECRET)).await.expect("started");
    let new = text_of(&path, "behind").await;
    assert!(new.lines().all(|line| parsed(line).is_object()));
    let old = std::fs::read_to_string(&moved).expect("the old log");
    assert!(old.contains("before") && !old.contains("behind"), "{old}");
    service.terminate();
    text_of(&path, "machinegun has stopped").await;
    assert_eq!(service.ended().await.status.code(), Some(0));
}

#[tokio::test]
async fn a_hangup_does_not_end_a_service_that_logs_to_stdout() {
    let (folder, processor) = (Folder::new(), Processor::start());
    let service = Machinegun::start(&configured(&folder, &processor, "{out_type: stdout, level: info}")).await;
    service.hang_up();
    Peer::of(service.address).start("behind", &Order::plain(SECRET)).await.expect("started");
    // Had the signal its own meaning, the process would end by it, whatever comes after it.
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));
}
