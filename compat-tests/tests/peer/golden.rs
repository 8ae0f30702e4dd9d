//! The golden messages of the first generation, which nobody's service made: read by the `thrift` crate, they mean what
//! stands beside them, by the ids of the interface alone.

use std::path::Path;

use serde_json::{Map, Value as Json, json};
use thrift::protocol::TMessageType;

use crate::tree::{Tree, read_message, write_message};

/// A field's id, its name, and its type. `[T]` is a list.
type Field = (i16, &'static str, &'static str);

/// The interface: each type's fields.
const TYPES: &[(&str, &[Field])] = &[
    ("Repair call", &[(1, "desc", "MachineDescriptor"), (2, "a", "Value")]),
    ("ProcessSignal call", &[(1, "a", "SignalArgs")]),
    ("ProcessCall call", &[(1, "a", "CallArgs")]),
    ("Repair exception", &[(1, "ex1", "Nothing"), (2, "ex2", "Nothing"), (3, "ex3", "Nothing")]),
    ("Repair reply", &[]),
    ("GetMachine reply", &[(0, "success", "Machine")]),
    ("ProcessSignal reply", &[(0, "success", "SignalResult")]),
    ("ProcessCall reply", &[(0, "success", "CallResult")]),
    ("GetHistory reply", &[(0, "success", "[SinkEvent]")]),
    ("Nothing", &[]),
    ("MachineDescriptor", &[(1, "ns", "string"), (2, "ref", "Reference"), (3, "range", "HistoryRange")]),
    ("Reference", &[(1, "id", "string"), (2, "tag", "string")]),
    ("HistoryRange", &[(1, "after", "number"), (2, "limit", "number"), (3, "direction", "Direction")]),
    ("SignalArgs", &[(1, "signal", "Signal"), (2, "machine", "Machine")]),
    ("CallArgs", &[(1, "arg", "Value"), (2, "machine", "Machine")]),
    // The third was RepairSignal: its number and shape are those of today's.
    ("Signal", &[(1, "init", "Argument"), (2, "timeout", "Nothing"), (3, "notification", "Argument")]),
    ("Argument", &[(1, "arg", "Value")]),
    (
        "Machine",
        &[
            (1, "ns", "string"),
            (2, "id", "string"),
            (3, "history", "[Event]"),
            (4, "history_range", "HistoryRange"),
            (5, "aux_state_legacy", "Value"),
            (6, "timer", "string"),
            (7, "aux_state", "Content"),
            (8, "status", "MachineStatus"),
        ],
    ),
    ("MachineStatus", &[(1, "working", "Nothing"), (2, "failed", "Failed")]),
    ("Failed", &[(1, "reason", "string")]),
    ("Event", &[(1, "id", "number"), (2, "created_at", "string"), (4, "data", "Value")]),
    ("Content", &[(1, "format_version", "number"), (2, "data", "Value")]),
    ("SignalResult", &[(1, "change", "Change"), (2, "action", "Action")]),
    ("CallResult", &[(1, "response", "Value"), (2, "change", "Change"), (3, "action", "Action")]),
    (
        "Change",
        &[
            (1, "aux_state_legacy", "Value"),
            (2, "events_legacy", "[Value]"),
            (3, "aux_state", "Content"),
            (4, "events", "[Content]"),
        ],
    ),
    (
        "Action",
        &[(1, "set_timer", "SetTimer"), (2, "tag", "Tag"), (3, "timer", "TimerAction"), (4, "remove", "Nothing")],
    ),
    ("SetTimer", &[(1, "timer", "Timer"), (2, "range", "HistoryRange"), (3, "timeout", "number")]),
    ("Timer", &[(1, "timeout", "number"), (2, "deadline", "string")]),
    ("TimerAction", &[(1, "set_timer", "SetTimer"), (2, "unset_timer", "Nothing")]),
    ("Tag", &[(1, "tag", "string")]),
    (
        "SinkEvent",
        &[(1, "id", "number"), (2, "source_id", "string"), (3, "source_ns", "string"), (4, "event", "Event")],
    ),
];

fn named(of: &str, tree: &Tree) -> Json {
    if let Some(element) = of.strip_prefix('[') {
        let Tree::List(_, list) = tree else { panic!("{of}: {tree:?}") };
        return list.iter().map(|tree| named(element.trim_end_matches(']'), tree)).collect();
    }
    match (of, tree) {
        ("Value", Tree::Struct(fields)) => value(fields),
        ("Direction", Tree::I32(1)) => json!("forward"),
        ("Direction", Tree::I32(2)) => json!("backward"),
        ("string", Tree::Bytes(bytes)) => json!(std::str::from_utf8(bytes).expect("UTF-8")),
        ("number", Tree::I32(number)) => json!(number),
        ("number", Tree::I64(number)) => json!(number),
        (_, Tree::Struct(fields)) => {
            let (_, known) = TYPES.iter().find(|(name, _)| *name == of).unwrap_or_else(|| panic!("no type {of}"));
            let field = |(id, tree): &(i16, Tree)| {
                let (_, name, kind) = known.iter().find(|(known, ..)| known == id).expect("a field of the interface");
                ((*name).to_owned(), named(kind, tree))
            };
            fields.iter().map(field).collect::<Map<_, _>>().into()
        }
        (of, tree) => panic!("{of}: {tree:?}"),
    }
}

fn value(fields: &[(i16, Tree)]) -> Json {
    let tree = |tree: &Tree| named("Value", tree);
    match fields {
        [(1, Tree::Struct(nothing))] if nothing.is_empty() => json!({ "nl": {} }),
        [(3, Tree::I64(number))] => json!({ "i": number }),
        [(5, Tree::Bytes(text))] => json!({ "str": std::str::from_utf8(text).expect("UTF-8") }),
        [(6, Tree::Bytes(bytes))] => json!({ "bin": bytes.iter().map(|it| format!("{it:02x}")).collect::<String>() }),
        [(7, Tree::Map(.., pairs))] => {
            json!({ "obj": pairs.iter().map(|(key, value)| json!([tree(key), tree(value)])).collect::<Vec<_>>() })
        }
        [(8, Tree::List(_, list))] => json!({ "arr": list.iter().map(tree).collect::<Vec<_>>() }),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_golden_messages_of_damsel_say_the_same_to_a_peer() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/damsel.jsonl");
    let text = std::fs::read_to_string(path).expect("the golden file is there");
    assert_eq!(text.lines().count(), 23);
    for line in text.lines() {
        let row: Json = serde_json::from_str(line).expect("a row is JSON");
        let word = |key: &str| row[key].as_str().unwrap_or_else(|| panic!("no {key} in {row}"));
        let hex = word("hex");
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();

        let (begin, body) = read_message(&bytes);
        let kind = if word("kind") == "call" { TMessageType::Call } else { TMessageType::Reply };
        assert_eq!((begin.name.as_str(), begin.message_type), (word("method"), kind), "{row}");
        assert_eq!(i64::from(begin.sequence_number), row["seqid"], "{row}");
        assert_eq!(write_message(kind, &begin.name, begin.sequence_number, &body), bytes, "{row}");

        let meant = match word("kind") {
            "call" => row["value"].clone(),
            "exception" => json!({ (word("field")): row["value"] }),
            _ if row["value"].is_null() => json!({}),
            _ => json!({ "success": row["value"] }),
        };
        assert_eq!(named(&format!("{} {}", word("method"), word("kind")), &body), meant, "{row}");
    }
}
