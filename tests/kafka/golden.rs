//! Golden bytes, made by the functions of the original itself: keys, values, hashes and partitions.

use std::path::Path;

use bytes::Bytes;
use machinegun::machine::{LifeChange, Lifecycle, MachineId, MachineKey, Namespace};
use machinegun::sink::kafka::{message, partition};
use machinegun::wire::event_sink::SinkEvent;
use machinegun::wire::{Event, Limits, Reader, Value, Wire, Writer, timestamp};
use serde_json::Value as Json;

use crate::meaning::{Meaning, unhex};

fn rows(file: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let text = std::fs::read_to_string(path).expect("the golden file is there");
    text.lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect()
}

fn text<'a>(row: &'a Json, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_else(|| panic!("no {key} in {row}"))
}

fn number(row: &Json, key: &str) -> i64 {
    row[key].as_i64().unwrap_or_else(|| panic!("no {key} in {row}"))
}

fn machine(row: &Json) -> MachineKey {
    let id = match &row["id"] {
        Json::String(id) => id.clone().into_bytes(),
        other => unhex(text(other, "bin")),
    };
    MachineKey { ns: Namespace::new(text(row, "ns")), id: MachineId::new(id.into()).expect("an id") }
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::nil(),
        Json::Bool(value) => Value::bool(*value),
        Json::Number(value) => Value::int(value.as_i64().expect("64 bits")),
        Json::Array(values) => Value::array(&values.iter().map(value).collect::<Vec<_>>()),
        Json::Object(map) => {
            match map.iter().find(|(kind, _)| !["text", "ascii"].contains(&kind.as_str())).expect("a kind") {
                (kind, Json::String(hex)) if kind == "f64" => {
                    let bits = u64::from_str_radix(hex, 16).expect("hex");
                    Value::double(f64::from_bits(bits)).expect("a finite one")
                }
                (kind, Json::String(hex)) if kind == "bin" => Value::bin(&unhex(hex)),
                (kind, Json::String(text)) if kind == "str" => Value::str(text),
                (kind, Json::Array(pairs)) if kind == "map" => {
                    let pairs: Vec<_> = pairs.iter().map(|pair| (value(&pair[0]), value(&pair[1]))).collect();
                    Value::object(&pairs)
                }
                other => panic!("{other:?}"),
            }
        }
        Json::String(other) => panic!("{other}"),
    }
}

/// With a map's pairs in an order of their own: the original writes them in its own, whatever order they came in, and here
/// they stay as they came.
fn unordered(json: Json) -> Json {
    match json {
        Json::Object(map) => map
            .into_iter()
            .map(|(kind, json)| {
                let mut json = unordered(json);
                if let (true, Json::Array(pairs)) = (kind == "obj", &mut json) {
                    pairs.sort_by_key(Json::to_string);
                }
                (kind, json)
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Json::Array(array) => array.into_iter().map(unordered).collect(),
        other => other,
    }
}

#[test]
fn events_have_the_keys_values_and_partitions_that_they_had() {
    let rows = rows("kafka_sink.jsonl");
    assert_eq!(rows.len(), 74);
    for row in &rows {
        let machine = machine(row);
        let created_at = text(row, "created_at_text");
        // Before 1970 the original writes another time than it read. No event is so old.
        if row["created_at_ns"].as_f64().is_some_and(|nanos| nanos >= 0.0) {
            // The last nanoseconds of the year 9999 don't fit 64 bits, and are read back from the text.
            let nanos = row["created_at_ns"].as_i64().map(i128::from);
            let nanos = nanos.or(timestamp::parse_nanos(created_at.as_bytes()).ok()).expect("a time");
            assert_eq!(timestamp::format_micros((nanos / 1_000) as i64), created_at);
        }
        let expected = Bytes::from(unhex(text(row, "value_hex")));
        let SinkEvent::Event(read) =
            SinkEvent::read(&mut Reader::new(expected.clone(), Limits::default())).expect("a message");
        assert_eq!(unordered(read.data.to_json()), unordered(value(&row["data"]).to_json()), "{row}");
        let event = Event {
            id: number(row, "event_id"),
            created_at: Bytes::copy_from_slice(created_at.as_bytes()),
            format_version: row["format_version"].as_i64().map(|version| version as i32),
            data: read.data,
        };
        let mut stored = Writer::default();
        event.write(&mut stored);
        let written = message::event_value(&machine, &stored.into_bytes()).expect("a stored event");
        assert_eq!(written, expected, "{row}");
        assert!(written.starts_with(&[0x0c, 0, 1, 0x0b, 0, 1]));

        let key = message::key(&machine);
        assert_eq!(key, unhex(text(row, "key_hex")), "{row}");
        assert_eq!(i64::from(partition::hash(&key)), number(row, "phash2"), "{row}");
        let partitions = row["partition"].as_object().expect("a map");
        assert_eq!(partitions.len(), 4);
        for (count, expected) in partitions {
            let count = count.parse().expect("a number");
            assert_eq!(Some(i64::from(partition::partition(&key, count))), expected.as_i64(), "{row}");
        }
    }
}

#[test]
fn changes_of_life_have_the_keys_and_values_that_they_had() {
    let rows = rows("lifecycle.jsonl");
    assert_eq!(rows.len(), 36);
    for row in &rows {
        let change = match text(row, "desc") {
            "created" => LifeChange::Created,
            "repaired" => LifeChange::Repaired,
            "removed" => LifeChange::Removed,
            _ => LifeChange::Failed { reason: text(row, "reason_text").to_owned() },
        };
        let lifecycle = Lifecycle { at_micros: number(row, "occurred_at_ns").div_euclid(1_000), change };
        let machine = machine(row);
        let written = message::lifecycle_value(&machine, &lifecycle);
        assert_eq!(written, Bytes::from(unhex(text(row, "value_hex"))), "{row}");
        assert_eq!(message::key(&machine), unhex(text(row, "key_hex")), "{row}");
    }
}
