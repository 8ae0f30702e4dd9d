//! Files as they were written for the original.

use std::time::Duration;

use super::super::{Became, NamespaceSettings, describe, parse};
use super::{LEAST, no_env, notices, read};
use crate::machine::retry::{MaxRetries, Pattern};

const OF_THE_ORIGINAL: &str = "\
service_name: machinegun
dist_node_name:
  hostpart: hostname
dist_port:
  mode: static
  port: 31337
erlang:
  secret_cookie_file: ${COOKIE_FILE}
  ipv6: true
opentelemetry:
  exporter: {protocol: http/protobuf}
woody_server:
  ip: '::'
  port: 8022
  http_keep_alive_timeout: 60S
  shutdown_timeout: 0s
consuela:
  presence: {check_interval: 5s}
process_registry:
  module: mg_procreg_global
limits:
  process_heap: 2M
  disk: {path: /, value: 99%}
  memory: {type: cgroups, value: 90%}
  scheduler_tasks: 5000
logging:
  burst_limit_enable: false
  formatter:
    level_map: {'error': 'ERROR'}
x-namespace: &namespace
  default_processing_timeout: 30s
  hibernate_timeout: 5s
  timers: &timers {scan_interval: 1m, scan_limit: 1000}
namespaces:
  party/claims:
    <<: *namespace
    event_stash_size: 5
    suicide_probability: 0.0
    overseer: disabled
    event_sinks: {}
    processor:
      url: http://hellgate:8022/v1/stateproc/party
    notification:
      scan_handicap: 10s
  invoice:
    <<: *namespace
    default_processing_timeout: 1m
    suicide_probability: 0.5
    timers:
      <<: *timers
      scan_limit: 7
    processor:
      url: http://hellgate:8022/v1/stateproc/invoice
      pool_size: 10
storage:
  type: memory
  pool: {size: 100, queue_max: 1000}
kafka:
  main:
    endpoints:
      - host: kafka1
        port: 9092
    ssl: false
cluster:
  discovery: {type: dns, options: {domain_name: mg, sname: mg}}
  reconnect_timeout: '4000'
";

#[test]
fn a_file_of_the_original_starts_and_says_what_is_different() {
    let (settings, report) = read(OF_THE_ORIGINAL);
    let expected = [
        "line 2: dist_node_name is ignored: only the Erlang node needs it",
        "line 4: dist_port is ignored: only the Erlang node needs it",
        "line 7: erlang is ignored: only the Erlang node needs it",
        "line 10: opentelemetry is ignored: the environment's OTEL_* variables say where traces go",
        "line 16: woody_server.shutdown_timeout is used differently: it bounds the steps that still run; idle connections are not waited for",
        "line 17: consuela is ignored: instances no longer meet through Consul",
        "line 19: process_registry is ignored: machines live in the instance that owns them",
        "line 22: limits.process_heap is ignored: requests have no heap of their own; woody_server.max_body_size bounds them",
        "line 37: namespaces.party/claims.event_stash_size is ignored: events and record are one commit, so there is nothing to stash",
        "line 39: namespaces.party/claims.overseer is used differently: a step is one commit, so there are no interrupted ones to look for",
        "line 44: namespaces.party/claims.notification.scan_handicap is used differently: a notification is found by a due of its own, however old it is",
        "line 35: namespaces.party/claims.hibernate_timeout is ignored: an idle machine holds no memory that hibernating would free",
        "line 35: namespaces.party/claims.timers.scan_limit is used differently: one scan is for all namespaces: it pauses after as many as all their limits together, for the shortest of their delays",
        "line 51: namespaces.invoice.timers.scan_limit is used differently: one scan is for all namespaces: it pauses after as many as all their limits together, for the shortest of their delays",
        "line 45: namespaces.invoice.hibernate_timeout is ignored: an idle machine holds no memory that hibernating would free",
        "line 57: storage.pool is ignored: only the Riak storage had connections of that kind",
        "line 64: cluster is ignored: instances meet through the table of `storage.type: dynamodb`, and on any other storage exactly one may run",
        "line 48: namespaces.invoice.suicide_probability makes steps fail on purpose: it is for tests",
        "line 59: kafka.main has no effect: no sink names it",
    ];
    assert_eq!(notices(&report), expected);
    let [party, invoice] = settings.namespaces.as_slice() else {
        panic!("two namespaces");
    };
    assert_eq!((party.name.as_str(), invoice.name.as_str()), ("party/claims", "invoice"));
    assert_eq!(party.overseer, None);
    assert_eq!(invoice.processor.pool_size, 10);
    assert_eq!(settings.woody_server.shutdown_timeout, Some(Duration::ZERO));
    assert_eq!(settings.kafka[0].ssl, None);
}

#[test]
fn merged_keys_stand_behind_the_maps_own() {
    let (settings, _) = read(OF_THE_ORIGINAL);
    let [party, invoice] = settings.namespaces.as_slice() else {
        panic!("two namespaces");
    };
    assert_eq!(party.default_processing_timeout, Duration::from_secs(30));
    assert_eq!(invoice.default_processing_timeout, Duration::from_secs(60));
    let limits = [party, invoice].map(|ns| ns.timers.as_ref().map(|timers| timers.scan_limit));
    assert_eq!(limits, [Some(1000), Some(7)]);
}

#[test]
fn every_key_of_the_file_is_accounted_for() {
    let (_, report) = read(OF_THE_ORIGINAL);
    let became = |path: &str| {
        let key = report.keys.iter().find(|key| key.path == path);
        key.map(|key| key.became)
    };
    let table = [
        ("woody_server.port", Became::Used),
        ("namespaces.invoice.timers.scan_interval", Became::Used),
        ("namespaces.invoice.timers.scan_limit", Became::UsedDifferently),
        ("namespaces.party/claims.notification.scan_handicap", Became::UsedDifferently),
        ("limits.scheduler_tasks", Became::Used),
        ("x-namespace", Became::Ignored),
        ("erlang", Became::Ignored),
    ];
    for (path, expected) in table {
        assert_eq!(became(path), Some(expected), "{path}");
    }
}

#[test]
fn what_asks_for_nothing_is_not_worth_a_notice() {
    let text = LEAST.replace(
        "processor:",
        "suicide_probability: 0, honour_timer_timeout: false, strict_ranges: false, \
         event_sinks: {}, processor:",
    );
    assert_eq!(notices(&read(&text).1), [""; 0]);
    let (settings, report) = read(&text.replace("false", "true"));
    assert_eq!(notices(&report), [""; 0]);
    assert!(settings.namespaces[0].strict_ranges && settings.namespaces[0].honour_timer_timeout);
}

#[test]
fn each_scheduler_may_be_disabled() {
    let disabled =
        LEAST.replace("processor:", "timers: disabled, overseer: disabled, notification: disabled, processor:");
    let (settings, report) = read(&disabled);
    let NamespaceSettings { timers, overseer, notification, .. } = &settings.namespaces[0];
    assert_eq!((timers, overseer, notification), (&None, &None, &None));
    let expected = [
        "line 2: namespaces.ns.overseer is used differently: a step is one commit, so there are no interrupted ones to look for",
    ];
    assert_eq!(notices(&report), expected);
}

#[test]
fn a_policy_of_retries_goes_key_by_key_over_its_default() {
    let text = LEAST.replace(
        "processor:",
        "retries: {timers: {max_retries: 3, jitter: 50ms}, storage: {type: linear, timeout: 1s}, \
         continuation: {type: intervals, timeouts: [1s, 2s], factor: 3}}, processor:",
    );
    let (settings, report) = read(&text);
    let retries = &settings.namespaces[0].retries;
    assert_eq!(retries.timers.max_retries, MaxRetries::Times(3));
    assert_eq!(retries.timers.jitter, Duration::from_millis(50));
    assert_eq!(retries.timers.delay(1, 0.5), Some(Duration::from_secs(2)));
    assert_eq!(retries.storage.max_retries, MaxRetries::Infinity);
    let second = Duration::from_secs(1);
    assert_eq!(retries.storage.pattern, Pattern::Linear { timeout: second });
    assert_eq!(retries.continuation.delay(1, 0.5), Some(2 * second));
    assert_eq!(retries.continuation.delay(2, 0.5), None);
    let last = notices(&report).pop();
    assert_eq!(
        last.as_deref(),
        Some("line 2: namespaces.ns.retries.continuation.factor has no effect with `type: intervals`")
    );
}

#[test]
fn a_variable_that_only_an_ignored_key_needs_may_be_missing() {
    assert!(parse(&format!("{LEAST}erlang: {{secret_cookie_file: '${{NONE}}'}}\n"), &no_env).is_ok());
}

/// Every key of the original that this service has, with the original's default.
#[test]
fn every_key_of_the_original_has_the_originals_default() {
    let text = LEAST.replace(
        "processor:",
        "modernizer: {current_format_version: 1, handler: {url: 'http://m/'}}, \
         retries: {storage: {type: linear}}, processor:",
    );
    let text = format!(
        "{text}limits: {{disk: {{value: 1%}}, memory: {{value: 1%}}}}\n\
         kafka: {{k: {{endpoints: [{{host: h, port: 1}}], sasl: {{file: f}}}}}}\n"
    );
    let (settings, report) = read(&text);
    let described: serde_json::Value = yaml_serde::from_str(&describe(&settings, &report)).expect("YAML");
    let table = [
        ("service_name", "machinegun"),
        ("woody_server.ip", "::"),
        ("woody_server.port", "8022"),
        ("woody_server.max_concurrent_connections", "1024"),
        ("woody_server.http_keep_alive_timeout", "5s"),
        ("woody_server.idle_timeout", "infinity"),
        ("woody_server.shutdown_timeout", "5s"),
        ("worker.message_queue_len_limit", "500"),
        ("limits.disk.path", "/"),
        ("limits.memory.type", "total"),
        ("limits.scheduler_tasks", "5000"),
        ("logging.root", "/var/log/machinegun"),
        ("logging.json_log", "log.json"),
        ("logging.out_type", "file"),
        ("logging.level", "info"),
        ("logging.formatter.max_length", "1000"),
        ("logging.formatter.max_printable_string_length", "1000"),
        ("logging.formatter.level_map", "{}"),
        ("kafka.k.sasl.mechanism", "scram_sha_512"),
        ("kafka.k.producer.compression", "no_compression"),
        ("kafka.k.producer.partition_onwire_limit", "1"),
        ("kafka.k.producer.partition_buffer_limit", "256"),
        ("kafka.k.producer.ack_timeout", "10s"),
        ("kafka.k.producer.required_acks", "all_isr"),
        ("kafka.k.producer.max_linger", "0s"),
        ("kafka.k.producer.max_linger_count", "0"),
        ("kafka.k.producer.max_batch_size", "1M"),
        ("kafka.k.producer.max_retries", "3"),
        ("kafka.k.producer.retry_backoff", "500ms"),
        ("namespaces.ns.processor.pool_size", "50"),
        ("namespaces.ns.processor.http_keep_alive_timeout", "4s"),
        ("namespaces.ns.default_processing_timeout", "30s"),
        ("namespaces.ns.timer_processing_timeout", "1m"),
        ("namespaces.ns.unload_timeout", "1m"),
        ("namespaces.ns.shutdown_timeout", "5s"),
        ("namespaces.ns.suicide_probability", "0.0"),
        ("namespaces.ns.retries.storage.timeout", "10ms"),
        ("namespaces.ns.retries.storage.max_retries", "infinity"),
        ("namespaces.ns.retries.timers.type", "exponential"),
        ("namespaces.ns.retries.timers.max_retries", "100"),
        ("namespaces.ns.retries.timers.factor", "2.0"),
        ("namespaces.ns.retries.timers.timeout", "1s"),
        ("namespaces.ns.retries.timers.max_timeout", "30m"),
        ("namespaces.ns.retries.continuation.type", "exponential"),
        ("namespaces.ns.retries.continuation.max_retries", "infinity"),
        ("namespaces.ns.retries.continuation.timeout", "10ms"),
        ("namespaces.ns.retries.continuation.max_timeout", "1m"),
        ("namespaces.ns.timers.scan_interval", "1m"),
        ("namespaces.ns.timers.scan_limit", "5000"),
        ("namespaces.ns.timers.capacity", "1000"),
        ("namespaces.ns.timers.min_scan_delay", "1s"),
        ("namespaces.ns.overseer.scan_interval", "10m"),
        ("namespaces.ns.overseer.scan_limit", "5000"),
        ("namespaces.ns.overseer.capacity", "1000"),
        ("namespaces.ns.overseer.min_scan_delay", "1s"),
        ("namespaces.ns.notification.scan_interval", "1m"),
        ("namespaces.ns.notification.scan_limit", "5000"),
        ("namespaces.ns.notification.capacity", "1000"),
        ("namespaces.ns.notification.min_scan_delay", "1s"),
        ("namespaces.ns.notification.scan_handicap", "10s"),
        ("namespaces.ns.notification.scan_cutoff", "4w"),
        ("namespaces.ns.notification.reschedule_time", "5s"),
        ("namespaces.ns.modernizer.handler.pool_size", "50"),
        ("namespaces.ns.modernizer.handler.http_keep_alive_timeout", "4s"),
    ];
    for (path, expected) in table {
        let value = described.pointer(&format!("/{}", path.replace('.', "/")));
        let text = value.map(|it| it.as_str().map_or_else(|| it.to_string(), str::to_owned));
        assert_eq!(text.as_deref(), Some(expected), "{path}");
    }
}
