//! What a consumer finds in a topic.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

/// Of one answer of a broker.
const PATIENCE: Duration = Duration::from_secs(30);

/// A message as it lies in its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub partition: i32,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// Everything that the topic holds, each partition in its order; nothing if there is no such topic.
pub fn everything(bootstrap: &str, topic: &str) -> Vec<Message> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "tests")
        .set("enable.auto.commit", "false")
        .set("allow.auto.create.topics", "false")
        .set("reconnect.backoff.max.ms", "500")
        .create()
        .expect("a consumer");
    let Some(partitions) = partitions(&consumer, topic) else { return Vec::new() };
    let mut wanted = TopicPartitionList::new();
    let mut left = 0;
    for partition in 0..partitions {
        let (low, high) = ends(&consumer, topic, partition);
        left += high - low;
        wanted.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&wanted).expect("an assignment");
    let mut found: Vec<Message> = Vec::new();
    while (found.len() as i64) < left {
        let message = consumer.poll(PATIENCE).expect("a message in time").expect("a message");
        let bytes = |it: Option<&[u8]>| it.unwrap_or_default().to_vec();
        let (key, value) = (bytes(message.key()), bytes(message.payload()));
        found.push(Message { partition: message.partition(), key, value });
    }
    found
}

/// A partition whose broker just came back has no leader for a moment.
fn ends(consumer: &BaseConsumer, topic: &str, partition: i32) -> (i64, i64) {
    let mut tries = 0;
    loop {
        match consumer.fetch_watermarks(topic, partition, PATIENCE) {
            Ok(ends) => return ends,
            Err(error) if tries == 300 => panic!("{topic}: {error}"),
            Err(_) => tries += 1,
        }
        consumer.poll(Duration::from_millis(100));
    }
}

/// Makes topics with so many partitions each.
pub async fn make(bootstrap: &str, topics: &[&str], partitions: i32) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a client");
    let topics: Vec<_> =
        topics.iter().map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(1))).collect();
    for made in admin.create_topics(&topics, &AdminOptions::new()).await.expect("an answer") {
        made.expect("a topic is made");
    }
}

/// None: there is no such topic.
pub fn partitions(consumer: &BaseConsumer, topic: &str) -> Option<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("the topic's metadata");
    let found = metadata.topics().iter().find(|it| it.name() == topic && it.error().is_none())?;
    Some(found.partitions().len() as i32)
}
