//! What goes wrong between a sink and its brokers, played by librdkafka's own mock of a cluster.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use machinegun::clock::Stopwatch;
use machinegun::config::{KafkaClient, KafkaEndpoint, KafkaProducer};
use machinegun::machine::{CommitId, LifeChange, Lifecycle, MachineId, MachineKey, Namespace};
use machinegun::sink::kafka::{Client, KafkaSink, message, partition};
use machinegun::sink::{Content, Delivery, Leave, Sink, SinkError};
use machinegun::telemetry::Metrics;
use machinegun::wire::{Event, Value, Wire, Writer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Code};

use crate::consumer::everything;

const TOPIC: &str = "events";
const PARTITIONS: i32 = 12;

struct World {
    cluster: MockCluster<'static, DefaultProducerContext>,
    client: Arc<Client>,
}

impl World {
    fn new() -> Self {
        Self::with(KafkaProducer::default())
    }

    fn with(producer: KafkaProducer) -> Self {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic(TOPIC, PARTITIONS, 1).expect("a topic");
        let endpoints = cluster.bootstrap_servers();
        let endpoints = endpoints.split(',').map(|it| {
            let (host, port) = it.rsplit_once(':').expect("an address");
            KafkaEndpoint { host: host.to_owned(), port: port.parse().expect("a port") }
        });
        let client =
            KafkaClient { name: "c".to_owned(), endpoints: endpoints.collect(), ssl: None, sasl: None, producer };
        Self { cluster, client: Client::new(&client, None, true).expect("a client") }
    }

    fn sink(&self, topic: &str) -> KafkaSink {
        self.measured(topic, &Metrics::new())
    }

    fn measured(&self, topic: &str, metrics: &Metrics) -> KafkaSink {
        KafkaSink::new(self.client.clone(), topic, metrics.kafka_sink("ns", "s"))
    }

    /// The next requests to store messages get these answers.
    fn answers(&self, codes: &[Code]) {
        self.cluster.request_errors(RDKafkaApiKey::Produce, codes);
    }

    /// The events of a machine that a consumer finds, each by its id.
    fn found(&self, id: &str) -> Vec<i64> {
        let key = message::key(&machine(id));
        let all = everything(&self.cluster.bootstrap_servers(), TOPIC);
        let own = all.into_iter().filter(|it| it.key == key);
        let ids = own.map(|it| {
            assert_eq!(it.partition, partition::partition(&key, PARTITIONS));
            let known =
                (1..=99).find(|n| it.value == message::event_value(&machine(id), &event(*n)).expect("an event"));
            known.expect("one of the events")
        });
        ids.collect()
    }
}

fn machine(id: &str) -> MachineKey {
    MachineKey { ns: Namespace::new("ns"), id: MachineId::new(Bytes::copy_from_slice(id.as_bytes())).expect("an id") }
}

fn event(id: i64) -> Bytes {
    let created_at = Bytes::from_static(b"2030-01-01T00:00:00Z");
    let mut writer = Writer::default();
    Event { id, created_at, format_version: Some(1), data: Value::int(id) }.write(&mut writer);
    writer.into_bytes()
}

fn events(id: &str, ids: std::ops::RangeInclusive<i64>) -> Delivery {
    let (epoch, first) = (CommitId([7; 16]), *ids.start());
    let content = Content::Events { epoch, first, events: ids.map(event).collect(), behind: 0 };
    Delivery { key: machine(id), content, leave: Leave::default(), room: None }
}

/// How many of its entries were taken.
async fn publish(sink: &KafkaSink, delivery: Delivery) -> Result<usize, SinkError> {
    let entries = delivery.content.entries();
    sink.publish(delivery).await.map(|receipt| receipt.taken.unwrap_or(entries))
}

fn numbers(ids: std::ops::RangeInclusive<i64>) -> Vec<i64> {
    ids.collect()
}

#[tokio::test]
async fn errors_that_pass_repeat_nothing_and_change_no_order() {
    let world = World::new();
    let sink = world.sink(TOPIC);
    world.answers(&[
        Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        Code::RD_KAFKA_RESP_ERR_NO_ERROR,
        Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        Code::RD_KAFKA_RESP_ERR_NO_ERROR,
        Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    ]);
    assert_eq!(publish(&sink, events("m", 1..=10)).await, Ok(10));
    assert_eq!(world.found("m"), numbers(1..=10));
}

#[tokio::test]
async fn a_message_that_was_refused_is_not_lost_to_the_acknowledgement_of_the_next() {
    // Each is a request of its own, and both are on the wire together.
    let world = World::with(KafkaProducer { max_linger_count: 1, ..KafkaProducer::default() });
    world.cluster.broker_round_trip_time(1, Duration::from_millis(100)).expect("a broker");
    let sink = world.sink(TOPIC);
    let partition = |id: &str| partition::partition(&message::key(&machine(id)), PARTITIONS);
    let neighbour = (0..).map(|n| format!("n{n}")).find(|id| partition(id) == partition("m")).expect("one of all");
    // As while the partition's leader comes up.
    world.answers(&[Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION]);
    let (refused, next) = tokio::join!(publish(&sink, events("m", 1..=1)), publish(&sink, events(&neighbour, 1..=1)));
    assert_eq!(next, Ok(1));
    assert!(
        matches!(&refused, Err(SinkError::Unavailable(why)) if why.contains("where the message stands")),
        "{refused:?}"
    );
    assert_eq!(world.found("m"), Vec::<i64>::new());
    assert_eq!(publish(&sink, events("m", 1..=2)).await, Ok(2));
    assert_eq!(world.found("m"), [1, 2]);
}

#[tokio::test]
async fn a_delivery_that_loses_its_leave_on_its_way_goes_no_further() {
    let world = World::new();
    let sink = world.sink(TOPIC);
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    // It stands until the first message has gone.
    let leave = Leave::as_long_as({
        let found = (world.cluster.bootstrap_servers(), asked.clone());
        move |_| {
            found.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            everything(&found.0, TOPIC).is_empty()
        }
    });
    assert_eq!(publish(&sink, Delivery { leave, ..events("m", 1..=3) }).await, Ok(1));
    assert!(asked.load(std::sync::atomic::Ordering::SeqCst) > 0);
    assert_eq!(world.found("m"), [1]);
}

#[tokio::test]
async fn a_message_that_would_outlive_its_lease_is_not_sent() {
    let world = World::new();
    let sink = world.sink(TOPIC);
    // It stands now, and will not for long.
    let leave = Leave::as_long_as(|time| time < Duration::from_secs(1));
    let refused = publish(&sink, Delivery { leave, ..events("m", 1..=1) }).await;
    assert!(matches!(&refused, Err(SinkError::Unavailable(_))), "{refused:?}");
    assert_eq!(world.found("m"), Vec::<i64>::new());
}

#[tokio::test]
async fn machines_go_side_by_side() {
    let world = World::new();
    let sink = world.sink(TOPIC);
    let ids: Vec<_> = (0..50).map(|n| format!("m{n}")).collect();
    let all = ids.iter().map(|id| publish(&sink, events(id, 1..=5)));
    assert_eq!(futures_util::future::join_all(all).await, vec![Ok(5); 50]);
    for id in &ids {
        assert_eq!(world.found(id), numbers(1..=5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_whose_room_is_all_in_use_refuses_nothing() {
    // Room for a hundred.
    let world = World::with(KafkaProducer { partition_buffer_limit: 1, ..KafkaProducer::default() });
    let sink = Arc::new(world.sink(TOPIC));
    let machines = (0..2_000).map(|n| {
        let sink = sink.clone();
        tokio::spawn(async move {
            let id = format!("m{n}");
            for event in 1..=5 {
                let mut delivery = events(&id, event..=event);
                delivery.room = sink.promptly(1);
                assert_eq!(publish(&sink, delivery).await, Ok(1));
            }
        })
    });
    for machine in machines.collect::<Vec<_>>() {
        machine.await.expect("nothing is refused");
    }
}

#[tokio::test]
async fn what_its_machine_does_meanwhile_is_no_part_of_a_messages_time() {
    // Room for a hundred.
    let world = World::with(KafkaProducer { partition_buffer_limit: 1, ..KafkaProducer::default() });
    let metrics = Metrics::new();
    let sink = world.measured(TOPIC, &metrics);
    let mut places: Vec<_> = std::iter::from_fn(|| sink.promptly(1)).collect();
    assert_eq!(places.len(), 100);
    let delivery = Delivery { room: places.pop(), ..events("m", 1..=1) };
    let whole = Stopwatch::start();
    let mut publishing = Box::pin(publish(&sink, delivery));
    assert_eq!((&mut publishing).now_or_never(), None);
    // Its place is free: it was acknowledged. Nobody has polled it since.
    while sink.promptly(1).is_none() {
        tokio::task::yield_now().await;
    }
    let meanwhile = Stopwatch::start();
    assert_eq!(world.found("m"), [1]);
    let meanwhile = meanwhile.elapsed();
    assert_eq!(publishing.await, Ok(1));
    let whole = whole.elapsed();
    let text = String::from_utf8(metrics.render()).expect("text");
    let line = text
        .lines()
        .find(|it| it.starts_with("mg_events_sink_kafka_produced_duration_seconds_sum") && it.contains("send"));
    let sent: f64 = line.and_then(|it| it.rsplit(' ').next()).and_then(|it| it.parse().ok()).expect("a sum");
    assert!(sent > 0.0 && sent + meanwhile.as_secs_f64() <= whole.as_secs_f64(), "{sent} {meanwhile:?} {whole:?}");
}

#[tokio::test]
async fn an_event_that_is_too_large_waits_for_mending_and_lets_none_pass_it() {
    let world = World::new();
    let sink = world.sink(TOPIC);
    world.answers(&[
        Code::RD_KAFKA_RESP_ERR_NO_ERROR,
        Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
        Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
    ]);
    // What was taken counts, and the rest is told of by itself.
    assert_eq!(publish(&sink, events("m", 1..=3)).await, Ok(1));
    let refused = publish(&sink, events("m", 2..=3)).await.expect_err("too large");
    assert!(matches!(refused, SinkError::Misconfigured(_)), "{refused}");
    assert_eq!(world.found("m"), [1]);
    // Another machine is none the worse.
    assert_eq!(publish(&sink, events("other", 1..=2)).await, Ok(2));
    assert_eq!(publish(&sink, events("m", 2..=3)).await, Ok(2));
    assert_eq!(world.found("m"), numbers(1..=3));
}

#[tokio::test]
async fn a_topic_without_leave_waits_for_mending_and_one_that_is_unknown_for_its_making() {
    let world = World::new();
    let refused = [
        ("forbidden", Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED),
        ("missing", Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART),
    ];
    for (topic, code) in refused {
        world.cluster.create_topic(topic, 1, 1).expect("a topic");
        world.cluster.topic_error(topic, code).expect("an error");
    }
    let (forbidden, missing) = (world.sink("forbidden"), world.sink("missing"));
    let errors = tokio::join!(publish(&forbidden, events("m", 1..=1)), publish(&missing, events("m", 1..=1)));
    assert!(matches!(errors.0, Err(SinkError::Misconfigured(_))), "{errors:?}");
    assert!(matches!(errors.1, Err(SinkError::Unavailable(_))), "{errors:?}");
    for (topic, _) in refused {
        world.cluster.topic_error(topic, Code::RD_KAFKA_RESP_ERR_NO_ERROR).expect("no error");
    }
    // Once the client has asked again what topics there are, each is found.
    for sink in [forbidden, missing] {
        while let Err(error) = publish(&sink, events("m", 1..=1)).await {
            assert!(!matches!(error, SinkError::Misconfigured(ref why) if !why.contains("authorization")), "{error}");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_broker_that_is_down_is_waited_for_as_long_as_a_message_lives() {
    let world = World::new();
    let sink = world.sink(TOPIC);
    assert_eq!(publish(&sink, events("m", 1..=1)).await, Ok(1));
    world.cluster.broker_down(1).expect("a broker");
    let error = publish(&sink, events("m", 2..=2)).await.expect_err("nobody is there");
    assert!(matches!(&error, SinkError::Unavailable(why) if why.contains("timed out")), "{error}");
    world.cluster.broker_up(1).expect("a broker");
    assert_eq!(publish(&sink, events("m", 2..=3)).await, Ok(2));
    assert_eq!(world.found("m"), numbers(1..=3));
}

#[tokio::test]
async fn a_producer_that_is_broken_for_good_is_replaced() {
    let world = World::new();
    let sink = world.sink(TOPIC);
    assert_eq!(publish(&sink, events("m", 1..=1)).await, Ok(1));
    // The broker lost count, which breaks an idempotent producer.
    world.answers(&[Code::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let error = publish(&sink, events("m", 2..=2)).await.expect_err("it is broken");
    assert!(matches!(error, SinkError::Unavailable(_)), "{error}");
    assert_eq!(publish(&sink, events("m", 2..=2)).await, Ok(1));
    assert_eq!(world.found("m"), numbers(1..=2));
}

#[tokio::test]
async fn a_change_of_life_is_one_message() {
    let world = World::new();
    let lifecycle = Lifecycle { at_micros: 0, change: LifeChange::Removed };
    let content = Content::Lifecycle(lifecycle.clone());
    let delivery = Delivery { key: machine("m"), content, leave: Leave::default(), room: None };
    assert_eq!(publish(&world.sink(TOPIC), delivery).await, Ok(1));
    let all = everything(&world.cluster.bootstrap_servers(), TOPIC);
    let values: Vec<_> = all.into_iter().map(|it| it.value).collect();
    assert_eq!(values, [message::lifecycle_value(&machine("m"), &lifecycle)]);
}

#[tokio::test]
async fn a_client_that_is_closed_gives_up_what_is_under_way() {
    let world = World::new();
    let sink = world.sink(TOPIC);
    assert_eq!(publish(&sink, events("m", 1..=1)).await, Ok(1));
    world.cluster.broker_down(1).expect("a broker");
    let publishing = publish(&sink, events("m", 2..=2));
    let (error, ()) = tokio::join!(biased; publishing, world.client.close());
    // Not by its age.
    assert!(matches!(&error, Err(SinkError::Unavailable(why)) if why.contains("Purged")), "{error:?}");
    let error = publish(&sink, events("m", 2..=2)).await;
    assert!(matches!(error, Err(SinkError::Unavailable(_))), "{error:?}");
}
