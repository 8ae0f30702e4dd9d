//! The declared types and `thrift-idl/` are one interface: whoever changes one has to change the other.

#[path = "wire_idl/parser.rs"]
mod parser;
mod wire_types;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;

use machinegun::wire::Value;
use parser::{Field, Interface, Method, Type};

const FILES: [&str; 5] = ["base", "msgpack", "state_processing", "event_sink", "lifecycle_sink"];

fn idl_files() -> Vec<(&'static str, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("thrift-idl");
    let found: BTreeSet<_> = std::fs::read_dir(&folder)
        .expect("thrift-idl/ is there")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("a plain name"))
        .collect();
    assert_eq!(found, FILES.iter().map(|file| format!("{file}.thrift")).collect());
    let read = |file| std::fs::read_to_string(folder.join(format!("{file}.thrift"))).expect("readable");
    FILES.into_iter().map(|file| (file, read(file))).collect()
}

/// Value is opaque to the crate, so its declaration is compared by a test of its own.
fn idl_without_values(files: &[(&str, String)]) -> Interface {
    let mut interface = parser::parse(files);
    interface.types.retain(|(file, _), _| file != "msgpack");
    interface
}

fn fields(schema: &machinegun::wire::schema::Schema) -> Vec<Field> {
    let field = |field: &machinegun::wire::schema::Field| Field {
        id: field.id.into(),
        name: field.name.to_owned(),
        need: match field.need {
            "filled" => "optional",
            need => need,
        },
        kind: field.kind.clone(),
        default: field.default.clone(),
    };
    schema.fields.iter().map(field).collect()
}

fn declared() -> Interface {
    let mut interface = Interface::default();
    for declared in wire_types::types() {
        let shape = match (declared.exception, declared.schema.union) {
            (true, _) => "exception",
            (false, true) => "union",
            (false, false) => "struct",
        };
        let place = (declared.file.to_owned(), declared.schema.name.to_owned());
        interface.types.insert(place, Type { shape, fields: fields(&declared.schema) });
    }
    for declared in wire_types::enums() {
        let symbol = |(name, number): &(&str, i32)| Field {
            id: (*number).into(),
            name: (*name).to_owned(),
            need: "required",
            kind: String::new(),
            default: None,
        };
        let symbols = declared.symbols.iter().map(symbol).collect();
        interface
            .types
            .insert((declared.file.to_owned(), declared.name.to_owned()), Type { shape: "enum", fields: symbols });
    }
    for declared in wire_types::signatures() {
        let throws = declared.throws.iter().map(|(id, name)| ((*id).into(), (*name).to_owned())).collect();
        let method = Method { success: declared.success.clone(), args: fields(&declared.args), throws };
        interface.methods.insert((declared.service.to_owned(), declared.name.to_owned()), method);
    }
    interface
}

fn differences(idl: &Interface, declared: &Interface) -> Vec<String> {
    fn compare<T: PartialEq + Debug>(
        left: &BTreeMap<(String, String), T>,
        right: &BTreeMap<(String, String), T>,
        found: &mut Vec<String>,
    ) {
        let places: BTreeSet<_> = left.keys().chain(right.keys()).collect();
        for place in places {
            let (left, right) = (left.get(place), right.get(place));
            if left != right {
                found.push(format!("{place:?}\n  thrift-idl: {left:?}\n  declared:   {right:?}"));
            }
        }
    }
    let mut found = Vec::new();
    compare(&idl.types, &declared.types, &mut found);
    compare(&idl.methods, &declared.methods, &mut found);
    found
}

#[test]
fn the_declared_types_are_those_of_the_idl() {
    let found = differences(&idl_without_values(&idl_files()), &declared());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The list that the tests walk over is complete: the sources declare nothing that it lacks.
#[test]
fn every_type_and_method_of_the_sources_is_compared() {
    let mut sources = BTreeSet::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wire");
    for entry in std::fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        let place = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some(file @ ("event_sink" | "lifecycle_sink")) => format!("{file}."),
            _ => String::new(),
        };
        let mut inside = false;
        for line in text.lines() {
            match line {
                "thrift_struct! {" | "thrift_union! {" | "thrift_enum! {" | "thrift_methods! {" => inside = true,
                "}" => inside = false,
                _ => {}
            }
            let item = line.strip_prefix("    pub struct ").or_else(|| line.strip_prefix("    pub enum "));
            let method = line.trim_start().split_once(" = \"").map(|(name, _)| name);
            if let Some(item) = item.and_then(|item| item.split_whitespace().next()).or(method)
                && inside
            {
                sources.insert(format!("{place}{item}"));
            }
        }
    }
    let mut listed = BTreeSet::new();
    for declared in wire_types::types() {
        let place = match declared.file {
            file @ ("event_sink" | "lifecycle_sink") => format!("{file}."),
            _ => String::new(),
        };
        listed.insert(format!("{place}{}", declared.schema.name));
    }
    listed.extend(wire_types::enums().iter().map(|declared| declared.name.to_owned()));
    for signature in wire_types::signatures() {
        listed.insert(signature.declared_as.to_owned());
        listed.insert(signature.args.name.to_owned());
    }
    assert_eq!(sources, listed);
}

#[test]
fn an_opaque_value_begins_as_the_idl_declares_it() {
    let interface = parser::parse(&idl_files());
    let declared = &interface.types[&("msgpack".to_owned(), "Value".to_owned())];
    let samples = [
        Value::nil(),
        Value::bool(true),
        Value::int(1),
        Value::double(1.5).expect("finite"),
        Value::str("text"),
        Value::bin(b"bytes"),
        Value::object(&[]),
        Value::array(&[]),
    ];
    assert_eq!(declared.shape, "union");
    assert_eq!(declared.fields.len(), samples.len());
    for (field, sample) in declared.fields.iter().zip(samples) {
        let kind = match field.kind.as_str() {
            "Nil" => 12,
            "bool" => 2,
            "i64" => 10,
            "double" => 4,
            "string" => 11,
            "map<Value,Value>" => 13,
            "list<Value>" => 15,
            other => panic!("{other}"),
        };
        let id = i16::try_from(field.id).expect("ids are 16 bits").to_be_bytes();
        assert_eq!(sample.as_bytes()[..3], [kind, id[0], id[1]], "{}", field.name);
        assert_eq!(wire_types::again::<Value>(sample.as_bytes().clone()).as_ref(), Ok(sample.as_bytes()));
    }
}

#[test]
fn the_comparison_notices_every_kind_of_change() {
    let changes = [
        ("    5: optional i32 format_version\n    4:", "    6: optional i32 format_version\n    4:"),
        ("5: optional i32 format_version\n    4: required msgpack.Value data", "5: optional i32 format_version"),
        ("4: required msgpack.Value data", "4: optional msgpack.Value data"),
        ("5: optional i32 format_version", "5: optional i64 format_version"),
        ("5: optional i32 format_version", "5: optional i32 version"),
        ("4: optional list<EventBody> events", "4: optional list<msgpack.Value> events"),
        ("direction = Direction.forward", "direction = Direction.backward"),
        ("Direction direction = Direction.forward", "Direction direction"),
        ("backward = 2", "backward = 3"),
        ("backward = 2", "backwards = 2"),
        ("exception MachineFailed {}", "struct MachineFailed {}"),
        ("union Reference", "union OtherReference"),
        ("struct RemoveAction {}", ""),
        ("struct RemoveAction {}", "struct RemoveAction {} struct Added {}"),
        ("void Remove (1", "bool Remove (1"),
        ("void Remove (1: base.Namespace ns, 2: base.ID id)", "void Remove (1: base.Namespace ns, 3: base.ID id)"),
        ("void SimpleRepair", "void simpleRepair"),
        ("3: EventNotFound ex3", ""),
        ("3: EventNotFound ex3", "4: EventNotFound ex3"),
        ("3: EventNotFound ex3", "3: MachineFailed ex3"),
        ("typedef string NotificationID", "typedef i64 NotificationID"),
    ];
    for (from, to) in changes {
        let mut files = idl_files();
        let text = &mut files[2].1;
        assert!(text.contains(from), "{from}");
        *text = text.replacen(from, to, 1);
        assert!(!differences(&idl_without_values(&files), &declared()).is_empty(), "unnoticed: {from} -> {to}");
    }
    let place = ("state_processing".to_owned(), "Content".to_owned());
    let idl = idl_without_values(&idl_files());
    let mutations: [fn(&mut Field); 5] = [
        |field| field.id += 1,
        |field| field.name.push('s'),
        |field| field.need = "required",
        |field| field.kind = "i64".to_owned(),
        |field| field.default = Some(vec![0, 0, 0, 1]),
    ];
    for mutate in mutations {
        let mut declared = declared();
        mutate(&mut declared.types.get_mut(&place).expect("declared").fields[0]);
        assert_eq!(differences(&idl, &declared).len(), 1);
    }
    let mut declared = declared();
    declared.types.remove(&place);
    assert_eq!(differences(&idl, &declared).len(), 1);
}
