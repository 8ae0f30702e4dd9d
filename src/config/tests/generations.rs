//! What a namespace says of its generation, its sinks, and whom it calls.

use std::time::Duration;

use super::super::{
    Ack, EventSinkKind, EventSinkSettings, KafkaTopic, ModernizerSettings, NamespaceSettings, OutboxSettings,
    ProcessorSettings, StepProcessors,
};
use super::{notices, read, with};
use crate::wire::Protocol;

/// The namespace that says this too, and the notices that it comes with.
fn namespace(more: &str) -> (NamespaceSettings, Vec<String>) {
    let (mut settings, report) = read(&with(more));
    (settings.namespaces.remove(0), notices(&report))
}

fn ledger(name: &str, machine_id: &str) -> EventSinkSettings {
    let kind = EventSinkKind::Ledger { machine_id: machine_id.to_owned() };
    EventSinkSettings { name: name.to_owned(), kind, ack: Ack::BeforeReply }
}

#[test]
fn a_generation_is_named_by_text_or_number() {
    let table = [
        ("protocol: current", Protocol::Current),
        ("protocol: 2021", Protocol::Y2021),
        ("protocol: '2021'", Protocol::Y2021),
        ("protocol: damsel", Protocol::Damsel),
    ];
    for (more, expected) in table {
        let (namespace, notices) = namespace(more);
        assert_eq!((namespace.protocol, notices), (expected, vec![]), "{more}");
    }
}

#[test]
fn a_generation_without_notifications_says_so_of_their_settings() {
    let table = [("2021", true), ("damsel", true), ("current", false)];
    for (protocol, says) in table {
        let (namespace, notices) = namespace(&format!(
            "protocol: {protocol}, notification: {{capacity: 7}}, processors: {{notification: {{url: 'http://n/'}}}}"
        ));
        let why = format!("has no effect: processors of `protocol: {protocol}` have no signal for notifications");
        let expected = [
            format!("line 2: namespaces.ns.processors.notification {why}"),
            format!("line 2: namespaces.ns.notification {why}"),
        ];
        assert_eq!(notices, if says { &expected[..] } else { &[] });
        assert_eq!(namespace.notification.is_none(), says);
        assert_eq!(namespace.processors.notification.is_none(), says);
    }
    let (off, notices) = namespace("protocol: 2021, notification: disabled");
    assert_eq!((off.notification, notices), (None, vec![]));
}

#[test]
fn topics_of_kafka_are_sinks_that_no_caller_waits_for_unless_it_is_asked_for() {
    let kafka = "kafka: {c: {endpoints: [{host: h, port: 1}]}, unused: {endpoints: [{host: h, port: 1}]}}\n\
                 lifecycle_pulse: {client: c, topic: lives}\n";
    let text = with(
        "outbox: {max_pending: 7}, \
         event_sinks: {a: {type: kafka, client: c, topic: t}, b: {type: kafka, client: c, topic: u, ack: before_reply}}",
    );
    let (settings, report) = read(&(text + kafka));
    let topic = |topic: &str| KafkaTopic { client: "c".to_owned(), topic: topic.to_owned() };
    let sink = |name: &str, it: &str, ack| EventSinkSettings {
        name: name.to_owned(),
        kind: EventSinkKind::Kafka(topic(it)),
        ack,
    };
    assert_eq!(settings.namespaces[0].event_sinks, [sink("a", "t", Ack::Committed), sink("b", "u", Ack::BeforeReply)]);
    assert_eq!(settings.lifecycle_pulse, Some(topic("lives")));
    assert_eq!(notices(&report), ["line 3: kafka.unused has no effect: no sink names it"]);
}

#[test]
fn sinks_keep_their_order_and_have_their_name_for_an_id() {
    let (namespace, notices) = namespace(
        "event_sinks: {z: {type: machine}, a: {type: machine, machine_id: payproc}, \
         m: {type: ledger, id: audit}, l: {type: ledger, machine_id: x, ack: before_reply}}",
    );
    let expected = [ledger("z", "z"), ledger("a", "payproc"), ledger("m", "audit"), ledger("l", "x")];
    assert_eq!(namespace.event_sinks, expected);
    assert_eq!(notices, [""; 0]);
}

#[test]
fn namespaces_may_share_a_ledger() {
    let (settings, _) = read(
        "storage: {type: memory}\nx-sinks: &sinks {m: {type: machine, machine_id: payproc}}\nnamespaces:\n  \
         a: {processor: {url: 'http://p/'}, event_sinks: *sinks}\n  \
         b: {processor: {url: 'http://p/'}, event_sinks: *sinks}\n",
    );
    for namespace in settings.namespaces {
        assert_eq!(namespace.event_sinks, [ledger("m", "payproc")]);
    }
}

#[test]
fn what_the_commit_itself_pays_makes_ack_and_outbox_meaningless() {
    let (namespace, notices) =
        namespace("event_sinks: {m: {type: ledger, ack: committed}}, outbox: {clear_interval: 1s, max_pending: 5}");
    assert_eq!(namespace.event_sinks, [EventSinkSettings { ack: Ack::Committed, ..ledger("m", "m") }]);
    assert_eq!(namespace.outbox, OutboxSettings { clear_interval: Duration::from_secs(1), max_pending: 5 });
    let expected = [
        "line 2: namespaces.ns.event_sinks.m.ack has no effect on this storage: a ledger's entries are part of the commit itself",
        "line 2: namespaces.ns.outbox has no effect: on this storage a ledger's entries are part of the commit itself, so nothing is ever owed",
    ];
    assert_eq!(notices, expected);
}

#[test]
fn an_outbox_without_a_sink_is_told_so() {
    let expected =
        "line 2: namespaces.ns.outbox has no effect: the namespace has no event sinks, so nothing is ever owed";
    assert_eq!(namespace("outbox: {max_pending: 5}").1, [expected]);
    // The defaults ask for nothing.
    assert_eq!(namespace("outbox: {max_pending: 100000, clear_interval: 10s}").1, [""; 0]);
}

#[test]
fn a_step_without_a_processor_of_its_own_has_that_of_the_namespace() {
    let (with, notices) = namespace(
        "processors: {repair: {url: 'http://r/', pool_size: 2, http_keep_alive_timeout: 1s}, init: {url: 'http://i/'}}",
    );
    let repair = ProcessorSettings { url: "http://r/".to_owned(), pool_size: 2, keep_alive: Duration::from_secs(1) };
    let init = ProcessorSettings::new("http://i/");
    let expected = StepProcessors { repair: Some(repair), init: Some(init), ..StepProcessors::default() };
    assert_eq!((with.processors, notices), (expected, vec![]));
    assert_eq!(namespace("processors: {}").0, NamespaceSettings::new("ns", "http://p/"));
}

#[test]
fn a_modernizer_is_a_version_and_a_handler() {
    let (with, notices) =
        namespace("modernizer: {current_format_version: 3, handler: {url: 'http://m/', pool_size: 5}}");
    let handler = ProcessorSettings { pool_size: 5, ..ProcessorSettings::new("http://m/") };
    assert_eq!(with.modernizer, Some(ModernizerSettings { current_format_version: 3, handler }));
    assert_eq!(notices, [""; 0]);
}
