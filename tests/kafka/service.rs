//! The service as a process of its own, and a real Kafka: what consumers find in the topics.

use std::collections::BTreeMap;

use bytes::Bytes;
use machinegun::machine::{LifeChange, MachineId, MachineKey, Namespace};
use machinegun::sink::kafka::{message, partition};
use machinegun::wire::{
    Exception, Limits, Machine, MachineStatus, Reader, Wire, lifecycle_sink::LifecycleEvent,
    lifecycle_sink::LifecycleEventData, lifecycle_sink::MachineLifecycleEvent,
};
use machinegun::woody::Class;

use crate::broker::{USER, bootstrap, broker, topic};
use crate::consumer::{Message, everything, make};
use crate::process::peer::{Failure, NAMESPACE, Peer};
use crate::process::processor::{Order, Processor};
use crate::process::{Folder, Machinegun, configuration_with, namespace, within};

/// What our own broker gives a topic that it makes.
pub const PARTITIONS: i32 = 12;

/// How long a topic is looked into, in milliseconds: longer than the longest pause between two attempts.
const LONG_MS: i64 = 300_000;

/// A configuration of one namespace: where its events and lifecycles go, and what else the file says.
pub fn configuration(folder: &Folder, processor: &Processor, sink: &str, more: &str) -> String {
    configuration_with(&folder.store(), &sunk(processor, sink)) + more
}

/// The namespace, and where its events go.
pub fn sunk(processor: &Processor, sink: &str) -> String {
    namespace(NAMESPACE, processor.address)
        + "    outbox: {clear_interval: 1s}\n    event_sinks:\n"
        + &format!("      main: {sink}\n")
}

pub fn client(bootstrap: &str, more: &str) -> String {
    let (host, port) = bootstrap.rsplit_once(':').expect("an address");
    format!("kafka:\n  client:\n    endpoints: [{{host: '{host}', port: {port}}}]\n{more}")
}

pub fn key(id: &str) -> MachineKey {
    let id = MachineId::new(Bytes::copy_from_slice(id.as_bytes())).expect("an id");
    MachineKey { ns: Namespace::new(NAMESPACE), id }
}

/// Reads a topic again and again until what is there is enough.
pub async fn until(bootstrap: &str, topic: &str, what: &str, enough: impl Fn(&[Message]) -> bool) -> Vec<Message> {
    let wait = async {
        loop {
            let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
            let found = tokio::task::spawn_blocking(move || everything(&bootstrap, &topic)).await.expect("it reads");
            if enough(&found) {
                return found;
            }
        }
    };
    within(LONG_MS, what, wait).await
}

/// By their machines, which all have their partition.
pub fn by_machine(messages: Vec<Message>, partitions: i32) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut machines: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for Message { partition, key, value } in messages {
        assert_eq!(partition, partition::partition(&key, partitions));
        machines.entry(key).or_default().push(value);
    }
    machines
}

/// A machine's events as consumers must find them.
pub fn values(id: &str, machine: &Machine) -> Vec<Vec<u8>> {
    let events = machine.history.decoded().map(|event| {
        let mut stored = machinegun::wire::Writer::default();
        event.expect("an event").write(&mut stored);
        message::event_value(&key(id), &stored.into_bytes()).expect("an event").to_vec()
    });
    events.collect()
}

pub fn life(value: &[u8]) -> LifeChange {
    let mut reader = Reader::new(Bytes::copy_from_slice(value), Limits::default());
    let LifecycleEvent { data: LifecycleEventData::Machine(event), .. } =
        LifecycleEvent::read(&mut reader).expect("a change of life");
    match event {
        MachineLifecycleEvent::Created(_) => LifeChange::Created,
        MachineLifecycleEvent::Removed(_) => LifeChange::Removed,
        MachineLifecycleEvent::StatusChanged(change) => match change.new_status {
            MachineStatus::Working(_) => LifeChange::Repaired,
            MachineStatus::Failed(failed) => {
                LifeChange::Failed { reason: String::from_utf8_lossy(&failed.reason.expect("a reason")).into_owned() }
            }
        },
    }
}

/// Three events, a failure, a repair with another, and the end.
async fn live_a_life(peer: &Peer, id: &str) -> Machine {
    let order = |token: &str, events| Order { events, ..Order::plain(token) };
    peer.start(id, &order("a", 1)).await.expect("a start");
    peer.call(id, &order("b", 2)).await.expect("a call");
    let failed = peer.call(id, &Order { fail: true, ..Order::plain("c") }).await;
    assert_eq!(failed, Err(Failure::Thrown(Exception::MachineFailed)));
    peer.repair(id, &order("d", 1)).await.expect("a repair");
    let machine = peer.machine(id).await.expect("an answer").expect("a machine");
    peer.remove(id).await.expect("a removal");
    machine
}

async fn finds_a_life(bootstrap: &str, events: &str, lives: &str, id: &str, machine: &Machine) {
    let found = until(bootstrap, events, "four events", |found| found.len() >= 4).await;
    let found = by_machine(found, PARTITIONS);
    assert_eq!(found.keys().collect::<Vec<_>>(), [&message::key(&key(id))]);
    assert_eq!(found.values().next().expect("a machine"), &values(id, machine));
    let found = until(bootstrap, lives, "four changes of life", |found| found.len() >= 4).await;
    let found = by_machine(found, PARTITIONS);
    let changes: Vec<_> = found[&message::key(&key(id))].iter().map(|value| life(value)).collect();
    let [LifeChange::Created, LifeChange::Failed { reason }, LifeChange::Repaired, LifeChange::Removed] = &*changes
    else {
        panic!("{changes:?}");
    };
    assert!(reason.contains("the processor"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_find_the_events_and_the_changes_of_life_of_a_machine() {
    let broker = broker().await;
    let bootstrap = bootstrap(&broker);
    let (folder, processor, events, lives) = (Folder::new(), Processor::start(), topic("events"), topic("lives"));
    let sink = format!("{{type: kafka, client: client, topic: {events}}}");
    let more = client(&bootstrap, "") + &format!("lifecycle_pulse: {{client: client, topic: {lives}}}\n");
    let config = folder.configured_as(&configuration(&folder, &processor, &sink, &more));
    make(&bootstrap, &[&events, &lives], PARTITIONS).await;
    let service = Machinegun::start(&config).await;
    let machine = live_a_life(&Peer::of(service.address), "one").await;
    finds_a_life(&bootstrap, &events, &lives, "one", &machine).await;
    service.terminate();
    assert!(service.ended().await.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_is_spoken_to_by_tls_and_with_a_login() {
    let broker = broker().await;
    let (folder, processor) = (Folder::new(), Processor::start());
    let (events, lives) = (topic("events"), topic("lives"));
    let sink = format!("{{type: kafka, client: client, topic: {events}}}");
    let (user, password) = USER;
    let ssl = format!("    ssl: {{cacertfile: '{}'}}\n", broker.certificate);
    let secure = |password: &str| {
        let sasl = format!("    sasl: {{username: {user}, password: {password}}}\n");
        let more = client(&broker.secure, &(ssl.clone() + &sasl));
        more + &format!("lifecycle_pulse: {{client: client, topic: {lives}}}\n")
    };
    // Nothing goes with the wrong password, and it is said so.
    let config = folder.configured_as(&configuration(&folder, &processor, &sink, &secure("wrong")));
    let service = Machinegun::start(&config).await;
    let peer = Peer::of(service.address);
    let machine = live_a_life(&peer, "one").await;
    let wait = async {
        loop {
            let health = get(&service, "/health").await;
            let metric = format!("machinegun_sink_misconfigured{{name=\"main\",namespace=\"{NAMESPACE}\"}} 1");
            if health.contains("event_sinks") && get(&service, "/metrics").await.contains(&metric) {
                return health;
            }
        }
    };
    let health = within(LONG_MS, "the misconfiguration in /health", wait).await;
    assert!(health.contains("uthentication failed") && !health.contains("one"), "{health}");
    service.kill().await;
    let config = folder.configured_as(&configuration(&folder, &processor, &sink, &secure(password)));
    let service = Machinegun::start(&config).await;
    finds_a_life(&broker.plain, &events, &lives, "one", &machine).await;
    service.kill().await;
}

/// Its certificate is trusted, and says another address than the one that was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_whose_certificate_has_another_name_is_told_nothing() {
    let broker = broker().await;
    let (folder, processor, events) = (Folder::new(), Processor::start(), topic("events"));
    make(&broker.plain, &[&events], PARTITIONS).await;
    let (_, port) = broker.secure.rsplit_once(':').expect("an address");
    let (user, password) = USER;
    let ssl = format!("    ssl: {{cacertfile: '{}'}}\n", broker.certificate);
    let sasl = format!("    sasl: {{username: {user}, password: {password}}}\n");
    let sink = format!("{{type: kafka, client: client, topic: {events}}}");
    let more = client(&format!("localhost:{port}"), &(ssl + &sasl));
    let service = Machinegun::start(&folder.configured_as(&configuration(&folder, &processor, &sink, &more))).await;
    Peer::of(service.address).start("one", &Order::plain("a")).await.expect("a start");
    let said = |line: &str| line.contains("certificate verify failed").then_some(());
    service.logged("that its certificate is not the one", said).await;
    assert_eq!(everything(&broker.plain, &events), []);
    service.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_waits_for_kafka_is_503_while_it_is_down_though_the_step_is_done() {
    let mut broker = broker().await;
    let (folder, processor, events) = (Folder::new(), Processor::start(), topic("events"));
    let sink = format!("{{type: kafka, client: client, topic: {events}, ack: before_reply}}");
    let config = folder.configured_as(&configuration(&folder, &processor, &sink, &client(&broker.plain, "")));
    let service = Machinegun::start(&config).await;
    let peer = Peer::of(service.address);
    peer.start("one", &Order::plain("a")).await.expect("a start");
    // As soon as it is answered, consumers find it.
    assert_eq!(everything(&broker.plain, &events).len(), 1);
    broker.kill();
    let refused = peer.call("one", &Order::plain("b")).await;
    let Err(Failure::Failed(error)) = refused else { panic!("{refused:?}") };
    assert_eq!(error.class, Class::ResourceUnavailable, "{error:?}");
    assert!(error.details.contains("event_sink_unavailable"), "{error:?}");
    let machine = peer.machine("one").await.expect("an answer").expect("a machine");
    assert_eq!(machine.history.len(), 2);
    broker.revive();
    let found = until(&broker.plain, &events, "the second event", |found| found.len() >= 2).await;
    assert_eq!(by_machine(found, PARTITIONS)[&message::key(&key("one"))], values("one", &machine));
    peer.call("one", &Order::plain("c")).await.expect("a call");
    service.kill().await;
}

async fn get(service: &Machinegun, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(service.address).await.expect("the service listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}
