//! The original's settings as librdkafka's. `docs/kafka.md` shows the same as a table.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::{Compression, KafkaClient, KafkaSsl, RequiredAcks, SaslLogin, SaslMechanism};

/// How long a message may be on its way at most, from the moment that it is handed over; then it fails, and is sent anew
/// as a debt.
const LONGEST_LIFE: Duration = Duration::from_secs(8);

/// Messages that count as one batch, where the original counts batches.
const MESSAGES_OF_A_BATCH: u32 = 100;

/// Requests to one broker without an answer. More would cost the broker's check for repetitions.
const REQUESTS_ON_WIRE: u32 = 5;

/// Bytes of a request that the broker alone judges: what is too large for it comes back as its error.
const LARGEST_REQUEST: u64 = 1_000_000_000;

/// So long a message waits for others that share its request if nobody has said for how long, and no reply waits for it.
/// The original's client had one request of a partition on the wire, and what came meanwhile shared the next; this one
/// would send a request for nearly every message, which costs the brokers, and this service, more than the messages do.
const LINGER: Duration = Duration::from_millis(20);

/// Why there is no such client. One line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    #[error("kafka.{client}.sasl.file: {file}: {reason}")]
    Login { client: String, file: String, reason: String },
    #[error("kafka.{client}: {reason}")]
    Refused { client: String, reason: String },
}

/// Messages that librdkafka takes beyond those that find a place here. It counts one until its answer was heard and let go
/// of, which is after its place is free again: without the slack it would refuse the next one while all is well.
const SLACK: u32 = 100_000;

/// Bytes of the messages that a client holds, in KB: what comes beyond is refused, and comes again.
const MOST_HELD_KB: u32 = 256 << 10;

/// How many messages a client holds that no broker has acknowledged. What comes beyond waits before it.
pub(super) fn room(client: &KafkaClient) -> u32 {
    client.producer.partition_buffer_limit.saturating_mul(MESSAGES_OF_A_BATCH).min(10_000_000)
}

/// How long a message lives where instances hold leases for so long.
///
/// IMPORTANT: so short that what is handed over while a lease lasts that long still ends with it ([`Leave::check`]). A
/// process that was frozen finds its messages too old to be sent, so it can't produce for machines that others own by
/// then. Leases are trusted for four fifths of their time, and renewed each fifth.
///
/// [`Leave::check`]: crate::sink::Leave::check
pub(super) fn life(lease: Option<Duration>) -> Duration {
    lease.map_or(LONGEST_LIFE, |lease| (lease * 2 / 5).min(LONGEST_LIFE))
}

/// All that librdkafka is told. `awaited`: replies wait for some of the client's messages.
pub(super) fn client_config(
    client: &KafkaClient,
    lease: Option<Duration>,
    awaited: bool,
) -> Result<ClientConfig, KafkaError> {
    let life = life(lease);
    let brokers: Vec<String> = client.endpoints.iter().map(|it| format!("{}:{}", it.host, it.port)).collect();
    let mut config = ClientConfig::new();
    config
        .set("client.id", "machinegun")
        .set("bootstrap.servers", brokers.join(","))
        .set("message.timeout.ms", life.as_millis().to_string())
        // A topic that no broker knows is told of before its messages are too old, and found once it is made.
        .set("topic.metadata.propagation.max.ms", (life / 2).as_millis().to_string())
        .set("topic.metadata.refresh.interval.ms", "10000")
        // A broker that is back is found soon.
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.connection.setup.timeout.ms", "5000")
        .set("socket.keepalive.enable", "true")
        .set("log.connection.close", "false")
        .set_log_level(RDKafkaLogLevel::Info);
    producer(&mut config, client, life, awaited);
    security(&mut config, client)?;
    Ok(config)
}

fn producer(config: &mut ClientConfig, client: &KafkaClient, life: Duration, awaited: bool) {
    let producer = &client.producer;
    let milliseconds = |time: Duration| time.as_micros() as f64 / 1_000.0;
    let acks = match producer.required_acks {
        RequiredAcks::None => "0",
        RequiredAcks::LeaderOnly => "1",
        RequiredAcks::AllIsr => "all",
    };
    let compression = match producer.compression {
        Compression::NoCompression => "none",
        Compression::Gzip => "gzip",
        Compression::Snappy => "snappy",
    };
    // Brokers know a repetition only where all replicas have to acknowledge.
    let idempotent = producer.required_acks == RequiredAcks::AllIsr;
    // Such a message is tried for as long as it lives: as a new one, the broker would not know it again.
    let retries = match u32::try_from(producer.max_retries) {
        Ok(retries) if !idempotent => retries,
        _ => i32::MAX as u32,
    };
    let backoff = producer.retry_backoff.as_millis().clamp(1, 300_000).to_string();
    let ack_timeout = producer.ack_timeout.min(life).as_millis().max(1);
    let linger = if producer.max_linger.is_zero() && !awaited { LINGER } else { producer.max_linger }.min(life / 4);
    config
        .set("acks", acks)
        .set("enable.idempotence", idempotent.to_string())
        .set("max.in.flight.requests.per.connection", REQUESTS_ON_WIRE.to_string())
        .set("compression.codec", compression)
        .set("request.timeout.ms", ack_timeout.to_string())
        .set("retries", retries.to_string())
        .set("retry.backoff.ms", &backoff)
        .set("retry.backoff.max.ms", &backoff)
        .set("linger.ms", milliseconds(linger).to_string())
        .set("batch.size", producer.max_batch_size.to_string())
        .set("message.max.bytes", LARGEST_REQUEST.to_string())
        .set("queue.buffering.max.messages", room(client).saturating_mul(2).saturating_add(SLACK).to_string())
        .set("queue.buffering.max.kbytes", MOST_HELD_KB.to_string());
    if producer.max_linger_count > 0 {
        config.set("batch.num.messages", producer.max_linger_count.to_string());
    }
}

fn security(config: &mut ClientConfig, client: &KafkaClient) -> Result<(), KafkaError> {
    let protocol = match (&client.ssl, &client.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(KafkaSsl { certfile, keyfile, cacertfile }) = &client.ssl {
        let mut file = |key: &str, path: &Option<std::path::PathBuf>| {
            if let Some(path) = path {
                config.set(key, path.to_string_lossy());
            }
        };
        file("ssl.certificate.location", certfile);
        file("ssl.key.location", keyfile);
        file("ssl.ca.location", cacertfile);
        if cacertfile.is_none() {
            // The system's, wherever it keeps them: the OpenSSL that is built in does not know.
            config.set("ssl.ca.location", "probe");
        }
    }
    if let Some(sasl) = &client.sasl {
        let (username, password) = login(client, &sasl.login)?;
        let mechanism = match sasl.mechanism {
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::Plain => "PLAIN",
        };
        config.set("sasl.mechanism", mechanism).set("sasl.username", username).set("sasl.password", password);
    }
    Ok(())
}

fn login(client: &KafkaClient, login: &SaslLogin) -> Result<(String, String), KafkaError> {
    let file = match login {
        SaslLogin::Password { username, password } => return Ok((username.clone(), password.expose().to_owned())),
        SaslLogin::File { file } => file,
    };
    let refused =
        |reason: String| KafkaError::Login { client: client.name.clone(), file: file.display().to_string(), reason };
    let text = std::fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
    let mut lines = text.lines();
    match (lines.next(), lines.next()) {
        (Some(username), Some(password)) => Ok((username.to_owned(), password.to_owned())),
        _ => Err(refused("it has not two lines, the name and the password".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rdkafka::producer::BaseProducer;

    use super::*;
    use crate::config::{KafkaEndpoint, KafkaProducer, KafkaSasl, Secret};

    fn client() -> KafkaClient {
        let endpoint = |host: &str| KafkaEndpoint { host: host.to_owned(), port: 9092 };
        KafkaClient {
            name: "c".to_owned(),
            endpoints: vec![endpoint("a"), endpoint("b")],
            ssl: None,
            sasl: None,
            producer: KafkaProducer::default(),
        }
    }

    fn expect(client: &KafkaClient, expected: &[(&str, &str)]) {
        let config = client_config(client, None, true).expect("a configuration");
        for (key, value) in expected {
            assert_eq!(config.get(key), Some(*value), "{key}");
        }
    }

    /// librdkafka takes it.
    fn is_taken(client: &KafkaClient) {
        let config = client_config(client, None, true).expect("a configuration");
        let taken: Result<BaseProducer, _> = config.create();
        assert!(taken.is_ok(), "{:?}", taken.err());
    }

    #[test]
    fn each_key_of_the_original_becomes_its_setting() {
        expect(
            &client(),
            &[
                ("bootstrap.servers", "a:9092,b:9092"),
                ("security.protocol", "plaintext"),
                ("acks", "all"),
                ("enable.idempotence", "true"),
                ("compression.codec", "none"),
                ("request.timeout.ms", "8000"),
                ("message.timeout.ms", "8000"),
                ("retries", "2147483647"),
                ("retry.backoff.ms", "500"),
                ("linger.ms", "0"),
                ("batch.size", "1048576"),
                ("queue.buffering.max.messages", "151200"),
                ("queue.buffering.max.kbytes", "262144"),
            ],
        );
        is_taken(&client());
        let producer = KafkaProducer {
            compression: Compression::Snappy,
            partition_onwire_limit: 7,
            partition_buffer_limit: 2,
            ack_timeout: Duration::from_millis(1_500),
            required_acks: RequiredAcks::LeaderOnly,
            max_linger: Duration::from_micros(2_500),
            max_linger_count: 9,
            max_batch_size: 12_345,
            max_retries: 4,
            retry_backoff: Duration::from_millis(70),
        };
        let changed = KafkaClient { producer, ..client() };
        expect(
            &changed,
            &[
                ("acks", "1"),
                ("enable.idempotence", "false"),
                ("compression.codec", "snappy"),
                ("request.timeout.ms", "1500"),
                ("retries", "4"),
                ("retry.backoff.ms", "70"),
                ("retry.backoff.max.ms", "70"),
                ("linger.ms", "2.5"),
                ("batch.num.messages", "9"),
                ("batch.size", "12345"),
                ("queue.buffering.max.messages", "100400"),
            ],
        );
        is_taken(&changed);
        let none = KafkaProducer {
            required_acks: RequiredAcks::None,
            compression: Compression::Gzip,
            max_retries: -1,
            retry_backoff: Duration::ZERO,
            ..KafkaProducer::default()
        };
        let none = KafkaClient { producer: none, ..client() };
        expect(&none, &[("acks", "0"), ("compression.codec", "gzip"), ("retries", "2147483647")]);
        is_taken(&none);
    }

    #[test]
    fn messages_that_no_reply_waits_for_share_requests() {
        for (awaited, max_linger, linger) in
            [(true, 0, "0"), (true, 2, "2"), (false, 0, "20"), (false, 1, "1"), (false, 90, "90")]
        {
            let producer = KafkaProducer { max_linger: Duration::from_millis(max_linger), ..KafkaProducer::default() };
            let config = client_config(&KafkaClient { producer, ..client() }, None, awaited).expect("a configuration");
            assert_eq!(config.get("linger.ms"), Some(linger));
        }
    }

    #[test]
    fn a_message_lives_shorter_than_a_lease() {
        for (lease, life, linger) in [(10_000, "4000", "1000"), (60_000, "8000", "1000"), (1_000, "400", "100")] {
            let producer = KafkaProducer { max_linger: Duration::from_secs(1), ..KafkaProducer::default() };
            let client = KafkaClient { producer, ..client() };
            let config = client_config(&client, Some(Duration::from_millis(lease)), true).expect("a configuration");
            assert_eq!((config.get("message.timeout.ms"), config.get("linger.ms")), (Some(life), Some(linger)));
            let taken: Result<BaseProducer, _> = config.create();
            assert!(taken.is_ok(), "{:?}", taken.err());
        }
    }

    #[test]
    fn tls_and_a_login_become_their_settings() {
        let login = |mechanism| {
            let login = SaslLogin::Password { username: "me".to_owned(), password: Secret::new("secret") };
            Some(KafkaSasl { mechanism, login })
        };
        let plain = KafkaClient { sasl: login(SaslMechanism::Plain), ..client() };
        expect(
            &plain,
            &[("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "PLAIN"), ("sasl.username", "me")],
        );
        is_taken(&plain);
        let ssl = KafkaSsl { certfile: None, keyfile: None, cacertfile: None };
        for (mechanism, name) in
            [(SaslMechanism::ScramSha512, "SCRAM-SHA-512"), (SaslMechanism::ScramSha256, "SCRAM-SHA-256")]
        {
            let both = KafkaClient { sasl: login(mechanism), ssl: Some(ssl.clone()), ..client() };
            let expected = [("security.protocol", "sasl_ssl"), ("sasl.mechanism", name), ("sasl.password", "secret")];
            expect(&both, &expected);
            // This build has TLS and SCRAM.
            is_taken(&both);
        }
        let path = |name: &str| Some(PathBuf::from(name));
        let files = KafkaSsl { certfile: path("c.pem"), keyfile: path("k.pem"), cacertfile: path("ca.pem") };
        expect(
            &KafkaClient { ssl: Some(files), ..client() },
            &[
                ("security.protocol", "ssl"),
                ("ssl.certificate.location", "c.pem"),
                ("ssl.key.location", "k.pem"),
                ("ssl.ca.location", "ca.pem"),
            ],
        );
    }

    #[test]
    fn a_login_is_read_from_the_first_two_lines_of_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("login");
        let sasl = |file: PathBuf| {
            let login = SaslLogin::File { file };
            KafkaClient { sasl: Some(KafkaSasl { mechanism: SaslMechanism::Plain, login }), ..client() }
        };
        std::fs::write(&file, "me\nsecret\nmore\n").expect("written");
        expect(&sasl(file.clone()), &[("sasl.username", "me"), ("sasl.password", "secret")]);
        std::fs::write(&file, "me\n").expect("written");
        let error = client_config(&sasl(file.clone()), None, true).expect_err("no password").to_string();
        assert!(error.starts_with("kafka.c.sasl.file: ") && error.ends_with("the name and the password"), "{error}");
        let error = client_config(&sasl(folder.path().join("none")), None, true).expect_err("no file").to_string();
        assert!(error.contains("No such file"), "{error}");
    }
}
