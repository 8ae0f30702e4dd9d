//! Golden bytes, made by the functions of the original itself: decoded, compared with the meaning beside them, and
//! encoded again to the same bytes.

#[path = "wire_golden/meaning.rs"]
mod meaning;

use std::fmt::Debug;
use std::path::Path;

use bytes::Bytes;
use machinegun::clock::{Clock, Snowflakes};
use machinegun::wire::timestamp::{self, TimestampError};
use machinegun::wire::*;
use meaning::{Meaning, plain, unhex};
use serde_json::{Value as Json, json};

fn rows(file: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let text = std::fs::read_to_string(path).expect("the golden file is there");
    text.lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect()
}

fn text<'a>(row: &'a Json, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_else(|| panic!("no {key} in {row}"))
}

fn exception_json(exception: &Exception) -> Json {
    match exception {
        Exception::RepairFailed(reason) => json!({ "reason": reason.to_json() }),
        Exception::InvalidRequest(errors) => json!({ "errors": errors.to_json() }),
        _ => json!({}),
    }
}

fn exception_from(name: &str, json: &Json) -> Exception {
    match name {
        "NamespaceNotFound" => Exception::NamespaceNotFound,
        "MachineNotFound" => Exception::MachineNotFound,
        "MachineAlreadyExists" => Exception::MachineAlreadyExists,
        "MachineFailed" => Exception::MachineFailed,
        "MachineAlreadyWorking" => Exception::MachineAlreadyWorking,
        "EventNotFound" => Exception::EventNotFound,
        "EventSinkNotFound" => Exception::EventSinkNotFound,
        "RepairFailed" => Exception::RepairFailed(Meaning::from_json(&json["reason"])),
        "InvalidRequest" => Exception::InvalidRequest(Meaning::from_json(&json["errors"])),
        other => panic!("{other}"),
    }
}

fn check<M: Method>(row: &Json)
where
    M::Args: Meaning + PartialEq + Debug,
    M::Success: Meaning + PartialEq + Debug,
{
    let bytes = Bytes::from(unhex(text(row, "hex")));
    let seqid = row["seqid"].as_i64().expect("a number") as i32;
    let mut reader = Reader::new(bytes.clone(), Limits::default());
    let header = Header::read(&mut reader).expect("an envelope");
    assert_eq!((&header.name[..], header.seqid), (M::NAME.as_bytes(), seqid), "{row}");
    let filled = row.get("read_back_differs");
    let value = filled.unwrap_or(&row["value"]);

    let read_reply = |bytes: &Bytes| read_reply::<M>(bytes.slice(reader.position()..), Limits::default());
    let written = match text(row, "kind") {
        "call" => {
            assert_eq!(header.kind, MessageType::Call);
            let args = read_args::<M>(&mut reader.clone()).expect("it was written by a peer");
            assert_eq!(args, M::Args::from_json(value), "{row}");
            assert_eq!(args.to_json(), plain(value), "{row}");
            write_call::<M>(&args, 0)
        }
        "reply" => {
            assert_eq!(header.kind, MessageType::Reply);
            let success = read_reply(&bytes).expect("it was written by a peer").expect("no exception");
            assert_eq!(success, M::Success::from_json(value), "{row}");
            assert_eq!(success.to_json(), plain(value), "{row}");
            write_reply::<M>(seqid, &Ok(success)).expect("a result is always declared")
        }
        "exception" => {
            assert_eq!(header.kind, MessageType::Reply);
            let exception = read_reply(&bytes).expect("it was written by a peer").expect_err("an exception");
            let name = text(row, "exception");
            assert_eq!(exception, exception_from(name, value), "{row}");
            assert_eq!(exception_json(&exception), plain(value), "{row}");
            assert_eq!(exception.name(), name);
            let id: i16 = text(row, "field")[2..].parse().expect("exN");
            assert!(M::THROWS.contains(&(id, name)), "{row}");
            write_reply::<M>(seqid, &Err(exception)).expect("it was read as declared")
        }
        other => panic!("{other}"),
    };
    match filled {
        None => assert_eq!(written, bytes, "{row}"),
        // The default that the reader filled in is written, and fields in our order.
        Some(_) => {
            let mut row = row.clone();
            let fields = row.as_object_mut().expect("a row");
            let value = fields.remove("read_back_differs").expect("it differs");
            fields.insert("value".to_owned(), value);
            fields
                .insert("hex".to_owned(), json!(written.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
            assert_ne!(written, bytes);
            check::<M>(&row);
        }
    }
}

fn check_message(row: &Json) {
    let known =
        ["n", "service", "method", "kind", "desc", "seqid", "value", "read_back_differs", "hex", "exception", "field"];
    assert!(row.as_object().expect("a row").keys().all(|key| known.contains(&key.as_str())), "{row}");
    match (text(row, "service"), text(row, "method")) {
        ("Automaton", "Start") => check::<Start>(row),
        ("Automaton", "Repair") => check::<Repair>(row),
        ("Automaton", "SimpleRepair") => check::<SimpleRepair>(row),
        ("Automaton", "Call") => check::<Call>(row),
        ("Automaton", "GetMachine") => check::<GetMachine>(row),
        ("Automaton", "Remove") => check::<Remove>(row),
        ("Automaton", "Modernize") => check::<Modernize>(row),
        ("Automaton", "Notify") => check::<Notify>(row),
        ("Processor", "ProcessSignal") => check::<ProcessSignal>(row),
        ("Processor", "ProcessCall") => check::<ProcessCall>(row),
        ("Processor", "ProcessRepair") => check::<ProcessRepair>(row),
        ("Modernizer", "ModernizeEvent") => check::<ModernizeEvent>(row),
        ("LegacyAutomaton", "Repair") => check::<LegacyRepair>(row),
        ("EventSink", "GetHistory") => check::<GetHistory>(row),
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_of_the_current_generation_are_read_and_written_as_the_original_does() {
    let rows = rows("wire.jsonl");
    assert_eq!(rows.len(), 82);
    rows.iter().for_each(check_message);
}

#[test]
fn messages_of_2021_are_read_and_written_as_the_original_does() {
    let rows = rows("wire2021.jsonl");
    assert_eq!(rows.len(), 25);
    rows.iter().for_each(check_message);
}

#[test]
fn messages_of_damsel_are_read_and_written_as_the_interface_says() {
    let rows = rows("damsel.jsonl");
    assert_eq!(rows.len(), 23);
    rows.iter().for_each(check_message);
}

fn check_snowflake(id: u64, parts: &Json) {
    let part = |name: &str| parts[name].as_u64().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(id >> 22, part("ms_since_2012"));
    assert_eq!(id >> 12 & 0x3ff, part("machine_id"));
    assert_eq!(id & 0xfff, part("sequence"));
    let unix_ms = (id >> 22) + 1_325_376_000_000;
    if parts.get("unix_ms").is_some() {
        assert_eq!(unix_ms, part("unix_ms"));
    }
    // The ids that are made here look the same; the first of a millisecond after the epoch has the number 0.
    if part("sequence") == 0 && part("ms_since_2012") > 0 && id >> 63 == 0 {
        let (clock, _hand) = Clock::manual(unix_ms as i64);
        let snowflakes = Snowflakes::new(part("machine_id") as u16, clock);
        assert_eq!(snowflakes.next(), id as i64);
    }
}

/// The original's words, as far as one of its functions lets them out.
fn check_timestamp_error(row: &Json, error: TimestampError) {
    let original = text(row, "error");
    let bare = original.trim_start_matches("{error,").trim_start_matches("{bad_deadline,").trim_end_matches('}');
    let expected = match bare {
        "not_utc" | "{badmatch,false" => TimestampError::NotUtc,
        "if_clause" => TimestampError::NoSuchDay,
        other if other.starts_with("{badmatch,\"") || other.starts_with("{case_clause,") => TimestampError::Malformed,
        other => panic!("{other}"),
    };
    assert_eq!(error, expected, "{row}");
}

#[test]
fn ids_and_times_are_read_and_written_as_the_original_does() {
    let rows = rows("ids.jsonl");
    assert_eq!(rows.len(), 106);
    for row in &rows {
        let number = |key: &str| row[key].as_i64().unwrap_or_else(|| panic!("no {key} in {row}"));
        let wanted = text(row, "text");
        match text(row, "kind") {
            "notification_id" => {
                let id: u64 = text(row, "integer").parse().expect("a number");
                assert_eq!(notification_id::format(id as i64), wanted);
                assert_eq!(notification_id::parse(wanted.as_bytes()), Some(id as i64));
                if let Some(parts) = row.get("snowflake") {
                    check_snowflake(id, parts);
                }
            }
            "woody_req_id" => check_snowflake(wanted.parse().expect("a number"), &row["snowflake"]),
            "deadline_written" => {
                assert_eq!(timestamp::format_millis(number("ms")), wanted);
                assert_eq!(timestamp::format_micros(number("ms") * 1_000), text(row, "log_text"));
                assert_eq!(timestamp::parse_millis(wanted.as_bytes()), Ok(number("ms")));
            }
            "deadline_read" => match timestamp::parse_millis(wanted.as_bytes()) {
                // Before 1970 the original subtracts fractions, and then loses a second more. Nobody can tell: such a
                // deadline is past. We keep the true time.
                Ok(millis) if number("ms") < 0 => assert_eq!((millis, number("ms")), (-1, -2999)),
                Ok(millis) => assert_eq!(millis, number("ms"), "{row}"),
                Err(error) => check_timestamp_error(row, error),
            },
            "timer_deadline_read" => match timestamp::parse_seconds(wanted.as_bytes()) {
                Ok(seconds) => assert_eq!(seconds, number("unix_seconds"), "{row}"),
                Err(error) => check_timestamp_error(row, error),
            },
            "timer_written" => {
                let seconds = number("unix_seconds");

                assert_eq!(timestamp::format_seconds(seconds * 1_000), wanted);
                assert_eq!(timestamp::format_seconds(seconds * 1_000 + 999), wanted);
                assert_eq!(timestamp::parse_seconds(wanted.as_bytes()), Ok(seconds));
            }
            "event_created_at_written" => {
                assert_eq!(timestamp::format_micros(number("ns").div_euclid(1_000)), wanted);
                let whole_micros = i128::from(number("ns").div_euclid(1_000)) * 1_000;
                assert_eq!(timestamp::parse_nanos(wanted.as_bytes()), Ok(whole_micros));
            }
            other => panic!("{other}"),
        }
    }
}
