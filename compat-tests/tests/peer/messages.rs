//! Messages, each as our type and as the tree of ids and types that the interface makes of it.

use bytes::Bytes;
use machinegun::wire::*;
use thrift::protocol::TType;

use super::tree::Tree;

fn one(id: i16, value: Tree) -> Tree {
    Tree::Struct(vec![(id, value)])
}

fn variant(id: i16, value: Tree) -> Tree {
    Tree::Opaque(vec![(id, value)])
}

/// Every variant of a value, nested.
pub fn value() -> (Value, Tree) {
    let (text, number) = (Value::str("ключ"), Value::int(i64::MIN));
    let double = Value::double(-0.0).expect("finite");
    let scalars =
        Value::array(&[Value::nil(), Value::bool(true), number.clone(), double, text.clone(), Value::bin(b"\xff\0")]);
    let whole = Value::object(&[
        (text, scalars.clone()),
        (number, Value::object(&[])),
        (Value::array(&[]), Value::bool(false)),
    ]);

    let (text, number) = (variant(5, Tree::text("ключ")), variant(3, Tree::I64(i64::MIN)));
    let scalars = [
        variant(1, Tree::Opaque(vec![])),
        variant(2, Tree::Bool(true)),
        number.clone(),
        variant(4, Tree::Double(-0.0)),
        text.clone(),
        variant(6, Tree::Bytes(b"\xff\0".to_vec())),
    ];
    let object = |pairs| variant(7, Tree::Map(TType::Struct, TType::Struct, pairs));
    let array = |elements| variant(8, Tree::List(TType::Struct, elements));
    let pairs =
        vec![(text, array(scalars.to_vec())), (number, object(vec![])), (array(vec![]), variant(2, Tree::Bool(false)))];
    (whole, object(pairs))
}

pub fn content() -> (Content, Tree) {
    let (data, tree) = value();
    (Content { format_version: Some(-3), data }, Tree::Struct(vec![(1, Tree::I32(-3)), (2, tree)]))
}

pub fn event(id: i64, format_version: Option<i32>) -> (Event, Tree) {
    let (data, tree) = value();
    let created_at = "2017-07-14T02:40:00.123Z";
    let mut fields = vec![(1, Tree::I64(id)), (2, Tree::text(created_at))];
    fields.extend(format_version.map(|version| (5, Tree::I32(version))));
    fields.push((4, tree));
    (Event { id, created_at: created_at.into(), format_version, data }, Tree::Struct(fields))
}

pub fn range() -> (HistoryRange, Tree) {
    let range = HistoryRange { after: Some(7), limit: Some(i32::MAX), direction: Direction::Backward };
    (range, Tree::Struct(vec![(1, Tree::I64(7)), (2, Tree::I32(i32::MAX)), (3, Tree::I32(2))]))
}

pub fn machine() -> (Machine, Tree) {
    let (first, first_tree) = event(1, None);
    let (second, second_tree) = event(2, Some(1));
    let (history_range, range_tree) = range();
    let (aux_state, aux_tree) = content();
    let (legacy, legacy_tree) = value();
    let machine = Machine {
        ns: "пространство".into(),
        id: Bytes::from_static(b"\xff\xfe"),
        history: History::from_encoded(vec![encode(&first), encode(&second)]),
        history_range,
        status: Some(MachineStatus::Failed(MachineStatusFailed { reason: Some("because".into()) })),
        aux_state: Some(aux_state),
        timer: Some("2017-07-14T02:40:00Z".into()),
        aux_state_legacy: Some(legacy),
    };
    let fields = vec![
        (1, Tree::text("пространство")),
        (2, Tree::Bytes(b"\xff\xfe".to_vec())),
        // Events are kept as they came.
        (3, Tree::List(TType::Struct, vec![opaque(first_tree), opaque(second_tree)])),
        (4, range_tree),
        (8, one(2, one(1, Tree::text("because")))),
        (7, aux_tree),
        (6, Tree::text("2017-07-14T02:40:00Z")),
        (5, legacy_tree),
    ];
    (machine, Tree::Struct(fields))
}

fn encode<T: Wire>(it: &T) -> Bytes {
    let mut writer = Writer::default();
    it.write(&mut writer);
    writer.into_bytes()
}

fn opaque(tree: Tree) -> Tree {
    match tree {
        Tree::Struct(fields) => Tree::Opaque(fields),
        other => other,
    }
}

pub fn descriptor() -> (MachineDescriptor, Tree) {
    let (range, tree) = range();
    let descriptor = MachineDescriptor { ns: "NS".into(), r#ref: Reference::Id("ID".into()), range };
    (descriptor, Tree::Struct(vec![(1, Tree::text("NS")), (2, one(1, Tree::text("ID"))), (3, tree)]))
}

pub fn change() -> (MachineStateChange, Tree) {
    let (data, tree) = value();
    let (content, content_tree) = content();
    let change = MachineStateChange {
        aux_state_legacy: Some(data.clone()),
        events_legacy: Some(vec![data]),
        aux_state: Some(content.clone()),
        events: Some(vec![content.clone(), content]),
    };
    let fields = vec![
        (1, tree.clone()),
        (2, Tree::List(TType::Struct, vec![tree])),
        (3, content_tree.clone()),
        (4, Tree::List(TType::Struct, vec![content_tree.clone(), content_tree])),
    ];
    (change, Tree::Struct(fields))
}

pub fn action() -> (ComplexAction, Tree) {
    let (range, range_tree) = range();
    let set = |timer| SetTimerAction { timer, range: Some(range.clone()), timeout: Some(60) };
    let set_tree = |timer| Tree::Struct(vec![(1, timer), (2, range_tree.clone()), (3, Tree::I32(60))]);
    let action = ComplexAction {
        set_timer: Some(set(Timer::Timeout(0))),
        timer: Some(TimerAction::Set(set(Timer::Deadline("2017-07-14T02:40:00Z".into())))),
        tag: Some(TagAction { tag: "tag".into() }),
        remove: Some(RemoveAction {}),
    };
    let fields = vec![
        (1, set_tree(one(1, Tree::I32(0)))),
        (3, one(1, set_tree(one(2, Tree::text("2017-07-14T02:40:00Z"))))),
        (2, one(1, Tree::text("tag"))),
        (4, Tree::Struct(vec![])),
    ];
    (action, Tree::Struct(fields))
}

pub fn described() -> (DescribedParams, Tree) {
    let ((desc, desc_tree), (a, tree)) = (descriptor(), value());
    (DescribedParams { desc, a }, Tree::Struct(vec![(1, desc_tree), (2, tree)]))
}

pub fn signal_results() -> (SignalResult, Tree) {
    let ((change, change_tree), (action, action_tree)) = (change(), action());
    (SignalResult { change, action }, Tree::Struct(vec![(1, change_tree), (2, action_tree)]))
}

pub fn response_tree() -> Tree {
    Tree::Struct(vec![(1, value().1), (2, change().1), (3, action().1)])
}

/// A ledger's entries, as they are kept and as they are read.
pub fn sink_events() -> (Encoded<SinkEvent>, Tree) {
    let (entry, tree) = sink_event();
    (Encoded::from_encoded(vec![encode(&entry)]), Tree::List(TType::Struct, vec![opaque(tree)]))
}

pub fn sink_event() -> (SinkEvent, Tree) {
    let (event, event_tree) = event(5, Some(2));
    let fields = vec![(1, Tree::I64(9)), (2, Tree::text("ID")), (3, Tree::text("NS")), (4, event_tree)];
    (SinkEvent { id: 9, source_id: "ID".into(), source_ns: "NS".into(), event }, Tree::Struct(fields))
}
