//! Every kind of error, with its whole message.

use super::super::{ConfigErrors, load, parse};
use super::{LEAST, errors, messages, no_env, with};

const URL: &str = "write the processor's address, like http://hellgate:8022/v1/stateproc/invoice";
const EMBEDDED: &str = "write `storage: {type: embedded, path: /var/lib/machinegun}`";
const DYNAMODB: &str = "write `storage: {type: dynamodb, table: machinegun, region: eu-central-1}`";
const DURATION: &str = "write digits and a unit of W, D, H, M (minutes), S, MS, MU (microseconds), like 30s";
const SIZE: &str = "write digits and a unit of B, K, M, G, T, P (1024-based), like 64M";

/// A message of each file that is `LEAST` and one more line.
fn expect_of_more(table: &[(&str, &str)]) {
    for (more, expected) in table {
        assert_eq!(messages(&format!("{LEAST}{more}\n")), [*expected], "{more}");
    }
}

/// A message of each file whose namespace says this too.
fn expect_of_namespace(table: &[(&str, String)]) {
    for (more, expected) in table {
        assert_eq!(messages(&with(more)), [expected.as_str()], "{more}");
    }
}

#[test]
fn a_value_of_the_wrong_kind_says_what_to_write() {
    let unit = format!("line 3: woody_server.http_keep_alive_timeout is `5`; {DURATION}");
    let bare = format!("line 3: woody_server.http_keep_alive_timeout is the number 5; {DURATION}");
    let size = format!("line 3: woody_server.max_body_size is `64MB`; {SIZE}");
    expect_of_more(&[
        ("woody_server: {http_keep_alive_timeout: '5'}", &unit),
        ("woody_server: {http_keep_alive_timeout: 5}", &bare),
        ("woody_server: {max_body_size: 64MB}", &size),
        ("woody_server: {max_body_size: 2G}", "line 3: woody_server.max_body_size is `2G`; write a size from 1K to 1G"),
        (
            "woody_server: {idle_timeout: forever}",
            "line 3: woody_server.idle_timeout is `forever`; write `infinity`, or digits and a unit of W, D, H, M (minutes), S, MS, MU (microseconds), like 30s",
        ),
        (
            "woody_server: {http_keep_alive_timeout: 0s}",
            "line 3: woody_server.http_keep_alive_timeout is zero; write a duration of at least 1ms",
        ),
        (
            "woody_server: {port: 65536}",
            "line 3: woody_server.port is the number 65536; write a whole number from 0 to 65535",
        ),
        ("woody_server: {port: '8022'}", "line 3: woody_server.port is `8022`; write a whole number from 0 to 65535"),
        (
            "woody_server: {ip: localhost}",
            "line 3: woody_server.ip is `localhost`; write an IPv4 or IPv6 address, like \"::\" or 127.0.0.1",
        ),
        ("woody_server: 8022", "line 3: woody_server is the number 8022; write a map of keys"),
        ("service_name: 7", "line 3: service_name is the number 7; write a text (numbers in quotes)"),
        ("service_name:", "line 3: service_name has no value; write one, or leave the key out"),
        (
            "snowflake_machine_id: 1024",
            "line 3: snowflake_machine_id is the number 1024; write a whole number from 0 to 1023",
        ),
        (
            "limits: {disk: {value: 90}}",
            "line 3: limits.disk.value is the number 90; write a whole percentage from 0% to 100%, like 90%",
        ),
        (
            "limits: {memory: {type: total}}",
            "line 3: limits.memory.value is missing; write a whole percentage from 0% to 100%, like 90%",
        ),
        (
            "limits: {value_depth: 63}",
            "line 3: limits.value_depth is the number 63; write a whole number from 64 to 10000",
        ),
        (
            "logging: {level: verbose}",
            "line 3: logging.level is `verbose`; write one of: critical, error, warning, info, debug, trace",
        ),
        (
            "logging: {formatter: {level_map: {warn: WARN}}}",
            "line 3: logging.formatter.level_map.warn is no level; write one of: emergency, alert, critical, error, warning, notice, info, debug",
        ),
        (
            "kafka: {main: {endpoints: [{host: k}]}}",
            "line 3: kafka.main.endpoints[0].port is missing; write the broker's port, like 9092",
        ),
    ]);
}

#[test]
fn an_unknown_key_is_an_error_with_the_nearest_right_name() {
    expect_of_more(&[
        ("wody_server: {}", "line 3: wody_server is no key that exists; write `woody_server`, or leave it out"),
        (
            "woody_server: {shutdown-timeout: 5s}",
            "line 3: woody_server.shutdown-timeout is no key that exists; write `shutdown_timeout`, or leave it out",
        ),
        (
            "woody_server: {prot: 8022}",
            "line 3: woody_server.prot is no key that exists; write `port`, or leave it out",
        ),
        (
            "zzz: 1",
            "line 3: zzz is no key that exists; leave it out, or begin its name with `x-` if it is a note of your own",
        ),
    ]);
    expect_of_namespace(&[(
        "proccessor: {}",
        "line 2: namespaces.ns.proccessor is no key that exists; write `processor`, or leave it out".to_owned(),
    )]);
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    expect_of_namespace(&[
        (
            "event_sink: payproc",
            "line 2: namespaces.ns.event_sink is how a namespace named its one sink, before it could have several; write `event_sinks: {NAME: {type: machine, machine_id: NAME}}` with that sink's name".to_owned(),
        ),
        (
            "engine: progressor",
            "line 2: namespaces.ns.engine is `progressor`, which this service does not have; write `machinegun`, or leave it out; its tasks have to be moved before".to_owned(),
        ),
    ]);
}

#[test]
fn a_storage_that_is_not_there_is_refused_with_what_to_write() {
    let table = [
        ("", "storage.type is missing", EMBEDDED),
        ("storage: {}", "line 2: storage.type is missing", EMBEDDED),
        ("storage: {type: embedded}", "line 2: storage.path is missing", EMBEDDED),
        ("storage: {type: embedded, path: ''}", "line 2: storage.path is empty", EMBEDDED),
        (
            "storage: {type: riak, host: riak, port: 8078}",
            "line 2: storage.type is `riak`, which this service does not speak",
            "write `storage: {type: embedded, path: /var/lib/machinegun}`, and move the machines there",
        ),
        ("storage: {type: dynamodb, table: t}", "line 2: storage.region is missing", DYNAMODB),
        ("storage: {type: dynamodb, table: '', region: r}", "line 2: storage.table is empty", DYNAMODB),
        (
            "storage: {type: dynamodb, table: t, region: r, endpoint_url: 'localhost:8000'}",
            "line 2: storage.endpoint_url is no URL",
            "write it like `http://127.0.0.1:8000`",
        ),
        (
            "storage: {type: dynamodb, table: t, region: r, lease_time: 500ms}",
            "line 2: storage.lease_time is out of bounds",
            "write a duration from 1s to 10m",
        ),
        (
            "storage: {type: dynamodb, table: t, region: r, advertise: '0.0.0.0:8022'}",
            "line 2: storage.advertise is no address",
            "write host and port at which the other instances reach this one, like `10.0.0.7:8022`",
        ),
        (
            "storage: {type: dynamodb, table: t, region: r, advertise: 'machinegun-1'}",
            "line 2: storage.advertise is no address",
            "write host and port at which the other instances reach this one, like `10.0.0.7:8022`",
        ),
        (
            "storage: {type: dynamodb, table: t, region: r, shards: 0}",
            "line 2: storage.shards is the number 0",
            "write a whole number from 1 to 4096",
        ),
        (
            "storage: {type: rocksdb}",
            "line 2: storage.type is `rocksdb`",
            "write `embedded`, `dynamodb`, or `memory` for tests",
        ),
    ];
    for (storage, wrong, instead) in table {
        let text = format!("namespaces: {{ns: {{processor: {{url: 'http://p/'}}}}}}\n{storage}\n");
        assert_eq!(messages(&text), [format!("{wrong}; {instead}")], "{storage}");
    }
}

#[test]
fn a_processor_needs_an_absolute_url() {
    let table = [
        ("{}", "url is missing".to_owned()),
        ("{url: '/v1'}", "url is `/v1`, no absolute http or https url".to_owned()),
        ("{url: 'ftp://p/'}", "url is `ftp://p/`, no absolute http or https url".to_owned()),
        ("{url: 'http://a b/'}", "url is `http://a b/`, no url".to_owned()),
        ("{url: 'http://u:p@h/'}", "url is a url with a user, which no request would carry".to_owned()),
    ];
    for (processor, expected) in table {
        let text = format!("storage: {{type: memory}}\nnamespaces: {{ns: {{processor: {processor}}}}}");
        let expected = format!("line 2: namespaces.ns.processor.{expected}; {URL}");
        assert_eq!(messages(&text), [expected]);
    }
}

#[test]
fn whoever_else_is_called_needs_an_absolute_url_too() {
    let modernizer = "write the modernizer's address, like http://hellgate:8022/v1/modernizer";
    let at = "line 2: namespaces.ns";
    expect_of_namespace(&[
        ("processors: {repair: {}}", format!("{at}.processors.repair.url is missing; {URL}")),
        ("processors: {timeout: null}", format!("{at}.processors.timeout.url is missing; {URL}")),
        (
            "processors: {call: {url: /v1}}",
            format!("{at}.processors.call.url is `/v1`, no absolute http or https url; {URL}"),
        ),
        (
            "processors: {init: {url: 'http://p/', pool_size: 0}}",
            format!("{at}.processors.init.pool_size is the number 0; write a whole number from 1 to 1000000"),
        ),
        (
            "processors: {timer: {url: 'http://p/'}}",
            format!("{at}.processors.timer is no key that exists; write `timeout`, or leave it out"),
        ),
        ("modernizer: {current_format_version: 1}", format!("{at}.modernizer.handler.url is missing; {modernizer}")),
        (
            "modernizer: {current_format_version: 1, handler: {url: 'ftp://m/'}}",
            format!("{at}.modernizer.handler.url is `ftp://m/`, no absolute http or https url; {modernizer}"),
        ),
    ]);
}

#[test]
fn a_modernizer_needs_the_version_of_today() {
    let at = "line 2: namespaces.ns.modernizer.current_format_version";
    let table = [
        ("", "is missing; write the version of the events that are written today, like 1"),
        (
            "current_format_version: 2147483648, ",
            "is the number 2147483648; write a whole number from -2147483648 to 2147483647",
        ),
    ];
    for (version, expected) in table {
        let more = format!("modernizer: {{{version}handler: {{url: 'http://m/'}}}}");
        expect_of_namespace(&[(&more, format!("{at} {expected}"))]);
    }
}

#[test]
fn a_generation_that_does_not_exist_is_refused() {
    let at = "line 2: namespaces.ns.protocol";
    let one_of = "write one of: current, 2021, damsel";
    expect_of_namespace(&[
        ("protocol: 2020", format!("{at} is the number 2020; {one_of}")),
        ("protocol: '2022'", format!("{at} is `2022`; {one_of}")),
        ("protocol: Damsel", format!("{at} is `Damsel`; {one_of}")),
        ("protocol: null", format!("{at} has no value; write one, or leave the key out")),
    ]);
}

#[test]
fn a_sink_is_checked() {
    let at = "line 2: namespaces.ns.event_sinks";
    let ledger = "write `type: kafka`, or `ledger`, or `machine`, its old name";
    let name = "name it in 1 to 255 bytes";
    let long = "m".repeat(256);
    let table = [
        ("m: {}", format!("{at}.m.type is missing; {ledger}")),
        ("m: null", format!("{at}.m.type is missing; {ledger}")),
        ("m: {type: rabbit}", format!("{at}.m.type is `rabbit`; {ledger}")),
        ("m: {type: 7}", format!("{at}.m.type is the number 7; write a text (numbers in quotes)")),
        ("m: {type: ledger, ack: never}", format!("{at}.m.ack is `never`; write one of: before_reply, committed")),
        ("'': {type: ledger, id: m}", format!("{at}. has a name that is empty or too long; {name}")),
        ("m: {type: ledger, id: ''}", format!("{at}.m.id is empty or too long; {name}")),
        (
            &format!("m: {{type: machine, machine_id: {long}}}"),
            format!("{at}.m.machine_id is empty or too long; {name}"),
        ),
        ("m: {type: machine, id: m}", format!("{at}.m.id is no key of `type: machine`; write `machine_id`")),
        (
            "m: {type: ledger, id: m, machine_id: m}",
            format!("{at}.m.id says the same as `machine_id`; leave one of them out"),
        ),
        ("m: {type: ledger, client: c}", format!("{at}.m.client is no key of `type: ledger`; leave it out")),
        ("m: {type: machine, topic: t}", format!("{at}.m.topic is no key of `type: machine`; leave it out")),
        (
            "lifecycle_pulse: {type: ledger}",
            format!(
                "{at}.lifecycle_pulse has the name by which machines know what they owe to the lifecycle's topic; rename it"
            ),
        ),
        (
            "m: {type: machine, machine-id: m}",
            format!("{at}.m.machine-id is no key that exists; write `machine_id`, or leave it out"),
        ),
        (
            "a: {type: machine, machine_id: m}, m: {type: ledger}",
            format!(
                "{at}.m writes to `m`, as the namespace's sink `a` does: it would hold each event twice; \
                 leave one of them out, or give it a `machine_id` of its own"
            ),
        ),
    ];
    for (sinks, expected) in table {
        expect_of_namespace(&[(&format!("event_sinks: {{{sinks}}}"), expected)]);
    }
    expect_of_namespace(&[("event_sinks: [m]", format!("{at} is a list; write a map of keys"))]);
}

#[test]
fn a_topic_is_checked() {
    let kafka = "kafka: {c: {endpoints: [{host: h, port: 1}]}, d: {endpoints: [{host: h, port: 1}]}}";
    let sinks = |sinks: &str| with(&format!("event_sinks: {{{sinks}}}")) + kafka;
    let at = "line 2: namespaces.ns.event_sinks.k";
    let long = "t".repeat(250);
    let table = [
        (sinks("k: {type: kafka, topic: t}"), format!("{at}.client is missing; name one of the clients below `kafka`")),
        (sinks("k: {type: kafka, client: c}"), format!("{at}.topic is missing; name the topic")),
        (
            sinks("k: {type: kafka, client: c, topic: t, id: m}"),
            format!("{at}.id is no key of `type: kafka`; leave it out"),
        ),
        (
            sinks("k: {type: kafka, client: e, topic: t}"),
            format!("{at}.client is `e`, which `kafka` does not have; write one of: c, d"),
        ),
        (
            with("event_sinks: {k: {type: kafka, client: e, topic: t}}"),
            format!(
                "{at}.client is `e`, which `kafka` does not have; \
                 write `kafka: {{NAME: {{endpoints: [{{host: ..., port: 9092}}]}}}}` and name that one"
            ),
        ),
        (
            sinks(&format!("k: {{type: kafka, client: c, topic: {long}}}")),
            format!("{at}.topic is no name that Kafka has for a topic; write 1 to 249 letters, digits, `.`, `_`, `-`"),
        ),
        (
            sinks("k: {type: kafka, client: c, topic: 'a b'}"),
            format!("{at}.topic is no name that Kafka has for a topic; write 1 to 249 letters, digits, `.`, `_`, `-`"),
        ),
        (
            sinks("j: {type: kafka, client: c, topic: t}, k: {type: kafka, client: c, topic: t}"),
            format!(
                "{at} writes to `t`, as the namespace's sink `j` does: it would hold each event twice; \
                 leave one of them out, or give it a `topic` of its own"
            ),
        ),
        (
            format!("{LEAST}lifecycle_pulse: {{topic: t}}\n{kafka}"),
            "line 3: lifecycle_pulse.client is missing; name one of the clients below `kafka`".to_owned(),
        ),
        (
            format!("{LEAST}kafka: {{c: {{endpoints: [{{host: h, port: 1}}], producer: {{max_linger: 2s}}}}}}"),
            "line 3: kafka.c.producer.max_linger is longer than 1s; write a duration up to 1s: a message lives for 8 s"
                .to_owned(),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(messages(&text), [expected], "{text}");
    }
}

#[test]
fn an_outbox_is_checked() {
    let at = "line 2: namespaces.ns.outbox";
    expect_of_namespace(&[
        ("outbox: {clear_interval: 0s}", format!("{at}.clear_interval is zero; write a duration of at least 1ms")),
        (
            "outbox: {max_pending: 0}",
            format!("{at}.max_pending is the number 0; write a whole number from 1 to 1000000000"),
        ),
    ]);
}

#[test]
fn a_policy_of_retries_is_checked() {
    let at = "line 2: namespaces.ns.retries.timers";
    let how_many = "write a whole number from 1, `infinity`, or {max_total_timeout: 1d}";
    let table = [
        ("type: random", format!("{at}.type is `random`; write one of: linear, exponential, intervals")),
        ("max_retries: 0", format!("{at}.max_retries is the number 0; {how_many}")),
        ("max_retries: many", format!("{at}.max_retries is `many`; {how_many}")),
        ("max_retries: {}", format!("{at}.max_retries.max_total_timeout is missing; {how_many}")),
        ("factor: 0.5", format!("{at}.factor is the number 0.5; write a number from 1 to 1000000")),
        ("timeout: 0s", format!("{at}.timeout is zero; write a duration of at least 1ms")),
        ("timeout: 999MU", format!("{at}.timeout is less than 1ms; write a duration of at least 1ms")),
        ("max_timeout: 1MU", format!("{at}.max_timeout is less than 1ms; write a duration of at least 1ms")),
        ("type: intervals", format!("{at}.timeouts is missing; write a list of durations, like [1s, 10s, 1m]")),
        ("timeouts: [1s, 5]", format!("{at}.timeouts[1] is the number 5; {DURATION}")),
    ];
    for (policy, expected) in table {
        let more = format!("retries: {{timers: {{{policy}}}}}");
        expect_of_namespace(&[(&more, expected)]);
    }
}

#[test]
fn a_namespace_without_a_name_or_no_namespace_is_refused() {
    let write = "write at least one namespace, like `namespaces: {payproc: {processor: {url: \"http://...\"}}}`";
    let table = [
        ("", format!("namespaces is missing; {write}")),
        ("namespaces:", format!("line 2: namespaces is empty; {write}")),
        (
            "namespaces: {'': {processor: {url: 'http://p/'}}}",
            "line 2: namespaces. has a name that is empty or too long; name it in 1 to 255 bytes".to_owned(),
        ),
    ];
    for (namespaces, expected) in table {
        assert_eq!(messages(&format!("storage: {{type: memory}}\n{namespaces}\n")), [expected]);
    }
}

#[test]
fn a_variable_must_be_set_but_may_be_empty() {
    let env = |name: &str| match name {
        "NAME" => Some("mg".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    let named =
        |text: &str| parse(&format!("{LEAST}service_name: {text}\n"), &env).map(|(settings, _)| settings.service_name);
    assert_eq!(named("${NAME}-${EMPTY}1").as_deref(), Ok("mg-1"));
    let message = |text: &str| named(text).expect_err("an error").problems[0].to_string();
    assert_eq!(
        message("a${NONE}"),
        "line 3: service_name needs the environment variable NONE, which is not set; set NONE (it may be empty), or write the value itself"
    );
    assert_eq!(message("a${NAME"), "line 3: service_name has a `${` without its `}`; write `${VARIABLE}`");
}

#[test]
fn all_errors_come_in_one_go_in_the_order_of_the_file() {
    let text = "\
woody_server:
  port: -1
  ipp: '::'
storage:
  type: embedded
namespaces:
  a:
    processor: {}
    timers: off
";
    let expected = format!(
        "the configuration has 5 errors:
  line 2: woody_server.port is the number -1; write a whole number from 0 to 65535
  line 3: woody_server.ipp is no key that exists; write `ip`, or leave it out
  line 4: storage.path is missing; {EMBEDDED}
  line 8: namespaces.a.processor.url is missing; {URL}
  line 9: namespaces.a.timers is `off`; write `disabled`, or a map of keys"
    );
    assert_eq!(errors(text).to_string(), expected);
}

#[test]
fn a_text_that_is_no_yaml_or_no_map_is_refused() {
    let table = [
        ("a: [", "line "),
        ("a: 1\na: 2\n", "line 1: is not readable as YAML: duplicate entry with key \"a\""),
        ("- a\n", "line 1: the file holds a list; write a map of keys"),
        ("a: !x 1\n", "line 1: a has the YAML tag !x; leave the tag out"),
        ("<<: 1\n", "merges (`<<`) something that is no map; name an anchor"),
    ];
    for (text, expected) in table {
        let message = messages(text).concat();
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let Err(ConfigErrors { file, problems }) = load("/nowhere/config.yaml".as_ref()) else {
        panic!("a file that is there");
    };
    assert_eq!(file.as_deref(), Some("/nowhere/config.yaml".as_ref()));
    assert!(problems[0].wrong.starts_with("can't be read: "));
    assert!(parse(LEAST, &no_env).is_ok());
}

proptest::proptest! {
    #[test]
    fn a_damaged_file_is_an_error_or_settings_and_never_a_panic(
        at: proptest::sample::Index,
        length in 0usize..60,
        put in "[-:{}\\[\\]&*<#'\"$a0 \n]{0,8}",
    ) {
        let reference = include_str!("../../../config/config.yaml");
        let start = at.index(reference.len());
        let end = (start + length).min(reference.len());
        // The reference is ASCII, so that every index is between characters.
        let damaged = format!("{}{put}{}", &reference[..start], &reference[end..]);
        if let Err(errors) = parse(&damaged, &no_env) {
            proptest::prop_assert!(!errors.problems.is_empty());
        }
    }
}

#[test]
fn a_bound_on_bodies_leaves_room_for_one_largest_body() {
    expect_of_more(&[
        ("limits: {bodies: {requests: 63M}}", "line 3: limits.bodies.requests is `63M`; write a size from 64M to 1P"),
        ("limits: {bodies: {replies: 1M}}", "line 3: limits.bodies.replies is `1M`; write a size from 64M to 1P"),
    ]);
    let (settings, _) = parse(&format!("{LEAST}woody_server: {{max_body_size: 1G}}\n"), &no_env).expect("no errors");
    assert_eq!((settings.limits.bodies.requests, settings.limits.bodies.replies), (1 << 30, 1 << 30));
}
