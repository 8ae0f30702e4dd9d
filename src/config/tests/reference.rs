//! The reference file says what the code does, and all of it.

use super::super::keys::{Fate, KEYS, find};
use super::super::tree::{self, Node, Value};
use super::super::{NamespaceSettings, Settings, StorageSettings, check, describe, parse, reader, service};
use super::{LEAST, no_env, read};

const REFERENCE: &str = include_str!("../../../config/config.yaml");
const DEV: &str = include_str!("../../../config/dev.yaml");

/// The reference with the keys that are not set by default: a `#` directly before a key.
fn everything() -> String {
    let uncomment = |line: &str| {
        let text = line.trim_start();
        match text.strip_prefix('#') {
            Some(key) if !key.is_empty() && !key.starts_with([' ', '#']) => {
                format!("{}{key}\n", &line[..line.len() - text.len()])
            }
            _ => format!("{line}\n"),
        }
    };
    let text: String = REFERENCE.lines().map(uncomment).collect();
    text.replace("level_map: {}", "level_map:")
}

fn env(name: &str) -> Option<String> {
    (name == "KAFKA_PASSWORD").then(|| "qwerty".to_owned())
}

/// Every key of a tree, below what the table leaves to readers too.
fn keys<'a>(node: &'a Node, found: &mut Vec<&'a Node>) {
    match &node.value {
        Value::Map(entries) => {
            for (_, entry) in entries {
                found.push(entry);
                keys(entry, found);
            }
        }
        Value::List(items) => items.iter().for_each(|item| keys(item, found)),
        _ => {}
    }
}

fn defaults() -> Settings {
    Settings::default_with(StorageSettings::embedded("/var/lib/machinegun"))
        .with_namespace(NamespaceSettings::new("example", "http://localhost:8023/processor"))
}

#[test]
fn the_reference_shows_the_defaults_of_the_code() {
    let (settings, report) = read(REFERENCE);
    assert_eq!(settings, defaults());
    let (without, _) = read(
        "storage: {type: embedded, path: /var/lib/machinegun}\n\
         namespaces: {example: {processor: {url: 'http://localhost:8023/processor'}}}",
    );
    assert_eq!(without, defaults());
    assert!(report.keys.len() > 80);
}

#[test]
fn the_reference_has_every_key_that_is_not_refused() {
    let root = tree::read(&everything()).expect("a tree");
    let mut found = Vec::new();
    keys(&root, &mut found);
    let is_there = |path: &str| {
        let key = super::super::keys::Key { path: Box::leak(path.to_owned().into_boxed_str()), fate: Fate::Used };
        found.iter().any(|node| key.matches(&node.path))
    };
    for key in KEYS {
        let riak = key.path.starts_with("storage.host");
        // Another shape of `max_retries`, which can't be there twice: the comment above them says it.
        let in_words = key.path.ends_with("max_total_timeout") && REFERENCE.contains("{max_total_timeout: 1d}");
        if matches!(key.fate, Fate::Refused(..)) || riak || in_words || key.path.ends_with("[]") {
            continue;
        }
        let (parent, last) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        for name in last.split('|') {
            let path = if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") };
            assert!(is_there(&path), "{path} is not in config/config.yaml");
        }
    }
}

#[test]
fn every_key_that_the_table_says_is_used_is_really_read() {
    let root = tree::read(&everything()).expect("a tree");
    let reading = reader::Reading::new(&env);
    service::read(&reading.section(&root));
    let asked = reading.finish().asked;
    let mut found = Vec::new();
    keys(&root, &mut found);
    for node in found {
        let ancestors = (1..=node.path.len()).map(|n| find(&node.path[..n]));
        let ignored = ancestors.flatten().any(|key| matches!(key.fate, Fate::Ignored(_)));
        let path = tree::show(&node.path);
        assert!(ignored || asked.contains(&node.path), "nobody reads {path}");
    }
}

#[test]
fn nothing_is_read_that_the_table_does_not_know() {
    let root = tree::read(&everything()).expect("a tree");
    let reading = reader::Reading::new(&env);
    service::read(&reading.section(&root));
    for path in reading.finish().asked {
        let key = find(&path);
        let of_reader = path.starts_with(&["logging".to_owned(), "formatter".to_owned()]);
        let fits = key.is_some_and(|key| !matches!(key.fate, Fate::Ignored(_) | Fate::Refused(..)));
        assert!(fits || of_reader, "{} is read", tree::show(&path));
    }
}

#[test]
fn the_reference_with_all_its_examples_is_without_errors() {
    let text = everything();
    let checked = check::check(&tree::read(&text).expect("a tree"));
    assert_eq!(checked.problems, vec![]);
    let (settings, _) = parse(&text, &env).expect("a file without errors");
    assert_eq!(settings.snowflake_machine_id, Some(1));
    assert_eq!(settings.kafka[0].endpoints[0].port, 9092);
    assert!(settings.limits.disk.is_some());
}

#[test]
fn what_is_described_reads_back_as_the_same_settings() {
    let changed = format!(
        "{LEAST}limits: {{disk: {{value: 9%}}, memory: {{type: cgroups, value: 80%}}}}\n\
         kafka: {{c: {{endpoints: [{{host: h, port: 1}}], ssl: {{certfile: f}}, sasl: {{file: s}}}}}}\n\
         lifecycle_pulse: {{client: c, topic: t}}\n"
    );
    let retries = LEAST.replace(
        "processor:",
        "timers: disabled, retries: {storage: {type: linear, jitter: 3ms, timecap: 1m}, \
         timers: {type: intervals, timeouts: [1s, 90s]}, \
         continuation: {max_timeout: infinity, max_retries: {max_total_timeout: 1h}}}, processor:",
    );
    let sinks = LEAST.replace(
        "processor:",
        "protocol: 2021, outbox: {clear_interval: 1ms, max_pending: 7}, \
         event_sinks: {b: {type: machine, machine_id: x, ack: committed}, a: {type: ledger, id: '7'}}, \
         processors: {repair: {url: 'http://r/', pool_size: 3}, timeout: {url: 'http://t/'}}, \
         modernizer: {current_format_version: -1, handler: {url: 'http://m/'}}, processor:",
    );
    for text in [LEAST, DEV, REFERENCE, &changed, &retries, &sinks] {
        let (settings, report) = read(text);
        let described = describe(&settings, &report);
        let (again, _) = parse(&described, &no_env).unwrap_or_else(|errors| panic!("{errors}\n{described}"));
        assert_eq!(again, settings, "{described}");
    }
}

#[test]
fn no_secret_is_described_or_debugged() {
    let text = everything().replace("      file: secret.txt\n", "");
    let (settings, report) = parse(&text, &env).expect("a file without errors");
    let described = describe(&settings, &report);
    assert!(described.contains("username: root"), "{described}");
    assert!(described.contains("redacted"), "{described}");
    assert!(!described.contains("qwerty"), "{described}");
    assert!(!format!("{settings:?}").contains("qwerty"));
}

#[test]
fn a_description_says_what_became_of_each_key() {
    let (settings, report) = read(&format!("{LEAST}erlang: {{}}\nlimits: {{scheduler_tasks: 7}}\n"));
    let described = describe(&settings, &report);
    for line in [
        "port: 8022",
        "idle_timeout: infinity",
        "scheduler_tasks: 7",
        "#   line 3: erlang is ignored: only the Erlang node needs it",
        "#   namespaces.ns.processor.url: used",
        "#   limits.scheduler_tasks: used",
        "#   erlang: ignored",
    ] {
        assert!(described.contains(line), "{line} is not in\n{described}");
    }
}

#[test]
fn the_development_file_starts_without_a_notice() {
    let (settings, report) = read(DEV);
    assert_eq!(report.notices, vec![]);
    assert!(matches!(settings.storage, StorageSettings::Embedded(_)));
}
