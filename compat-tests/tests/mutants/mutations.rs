//! Every way to change one thing of a recording that is compared.

use compat_tests::names::{self, Kind};
use compat_tests::node::{Message, Node};
use compat_tests::recording::{Answer, Direction, Exchange, Recording, Response};

/// A recording with one change.
pub struct Mutant {
    pub seq: u64,
    pub what: String,
    pub recording: Recording,
}

/// One change of an exchange.
type Change = (String, Exchange);

/// All mutants of all exchanges of a recording.
pub fn all(recording: &Recording) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    for (at, exchange) in recording.exchanges.iter().enumerate() {
        for (what, changed) in of_exchange(exchange) {
            let mut recording = recording.clone();
            recording.exchanges[at] = changed;
            mutants.push(Mutant { seq: exchange.seq, what, recording });
        }
    }
    mutants
}

fn of_exchange(exchange: &Exchange) -> Vec<Change> {
    match (exchange.direction, exchange.reply()) {
        (Direction::Inbound, Some(reply)) => {
            let with = |(what, reply)| (what, Exchange { answer: Answer::Reply(reply), ..exchange.clone() });
            of_reply(reply).into_iter().map(with).collect()
        }
        (Direction::Inbound, None) => Vec::new(),
        (Direction::Outbound, _) => of_request(exchange),
    }
}

fn of_reply(reply: &Response) -> Vec<(String, Response)> {
    let mut changes = Vec::new();
    let status = if reply.status == 500 { 400 } else { 500 };
    changes.push(("status".to_owned(), Response { status, ..reply.clone() }));
    let business = reply.headers.get("woody.error-class").is_some_and(|class| class == "Business Error");
    for name in ["woody.error-class", "woody.error-reason", "content-type"] {
        let mut without = reply.clone();
        let had = without.headers.remove(name);
        if had.is_some() {
            changes.push((format!("{name} dropped"), without));
        }
        // The text of a system error's reason differs from run to run.
        if name != "woody.error-reason" || business || had.is_none() {
            let mut with = reply.clone();
            with.headers.insert(name.to_owned(), "Another".to_owned());
            changes.push((format!("{name} changed"), with));
        }
    }
    let bodies = of_body(&reply.body);
    changes.extend(bodies.into_iter().map(|(what, body)| (what, Response { body: body.into(), ..reply.clone() })));
    changes
}

fn of_request(exchange: &Exchange) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut change = |what: &str, apply: &dyn Fn(&mut Exchange)| {
        let mut changed = exchange.clone();
        apply(&mut changed);
        changes.push((what.to_owned(), changed));
    };
    change("http method", &|it| it.request.method = "PUT".to_owned());
    change("path", &|it| it.request.path.push_str("/other"));
    let headers = ["content-type", "accept", "woody.trace-id", "woody.parent-id", "woody.meta.key", "woody.deadline"];
    for name in headers {
        if exchange.request.headers.contains_key(name) {
            change(&format!("{name} dropped"), &|it| drop(it.request.headers.remove(name)));
        }
        let value = if name == "woody.deadline" { "2031-01-01T00:00:00.000Z" } else { "another" };
        change(&format!("{name} changed"), &|it| drop(it.request.headers.insert(name.to_owned(), value.to_owned())));
    }
    for (what, body) in of_body(&exchange.request.body) {
        change(&what, &|it| it.request.body = body.clone().into());
    }
    changes
}

fn of_body(body: &[u8]) -> Vec<(String, Vec<u8>)> {
    if body.is_empty() {
        let body = Node::Struct(Default::default());
        return vec![("body added".to_owned(), Message { kind: 2, name: "Start".to_owned(), seqid: 0, body }.encode())];
    }
    let message = Message::decode(body).unwrap();
    assert_eq!(Message::decode(&message.encode()).unwrap().body, message.body, "decoding and encoding lose nothing");
    let mut bodies = vec![
        ("message type".to_owned(), Message { kind: 3, ..message.clone() }.encode()),
        ("method".to_owned(), Message { name: "Another".to_owned(), ..message.clone() }.encode()),
        ("seqid".to_owned(), Message { seqid: 77, ..message.clone() }.encode()),
        ("body dropped".to_owned(), Vec::new()),
    ];
    let kind = names::body(&message.name, message.kind == 1);
    for (path, body) in of_node(&message.body, &kind) {
        bodies.push((path, Message { body, ..message.clone() }.encode()));
    }
    bodies
}

/// Every leaf changed, every field dropped, one field added to every struct, every list shortened.
fn of_node(node: &Node, kind: &Kind) -> Vec<(String, Node)> {
    let mut nodes = Vec::new();
    match node {
        Node::Struct(fields) => {
            let mut with = fields.clone();
            with.insert(99, Node::I32(7));
            nodes.push((" field added".to_owned(), Node::Struct(with)));
            for (id, field) in fields {
                let (name, field_kind) = names::field(kind, *id);
                let mut without = fields.clone();
                without.remove(id);
                nodes.push((format!(".{name} dropped"), Node::Struct(without)));
                // What differs from run to run is not compared by value.
                if names::shape(kind, &name).is_some() {
                    continue;
                }
                for (what, changed) in of_node(field, &field_kind) {
                    let mut with = fields.clone();
                    with.insert(*id, changed);
                    nodes.push((format!(".{name}{what}"), Node::Struct(with)));
                }
            }
        }
        Node::List { element, items } => {
            let list = |items| Node::List { element: *element, items };
            if let Some((last, rest)) = items.split_last() {
                nodes.push((" shortened".to_owned(), list(rest.to_vec())));
                for (what, changed) in of_node(last, &names::element(kind)) {
                    let mut items = rest.to_vec();
                    items.push(changed);
                    nodes.push((format!("[{}]{what}", rest.len()), list(items)));
                }
            }
            if items.len() > 1 && items.first() != items.last() {
                nodes.push((" reversed".to_owned(), list(items.iter().rev().cloned().collect())));
            }
        }
        Node::Bool(value) => nodes.push((" changed".to_owned(), Node::Bool(!value))),
        Node::I8(value) => nodes.push((" changed".to_owned(), Node::I8(value ^ 1))),
        Node::I16(value) => nodes.push((" changed".to_owned(), Node::I16(value ^ 1))),
        Node::I32(value) => {
            nodes.push((" changed".to_owned(), Node::I32(value ^ 1)));
            nodes.push((" of another type".to_owned(), Node::I64(i64::from(*value))));
        }
        Node::I64(value) => nodes.push((" changed".to_owned(), Node::I64(value ^ 1))),
        Node::Double(bits) => nodes.push((" changed".to_owned(), Node::Double(bits ^ 1))),
        Node::Bytes(bytes) => {
            let mut longer = bytes.clone();
            longer.push(b'x');
            nodes.push((" changed".to_owned(), Node::Bytes(longer)));
        }
        Node::Map { types, pairs } => {
            if let Some((_, rest)) = pairs.split_last() {
                nodes.push((" shortened".to_owned(), Node::Map { types: *types, pairs: rest.to_vec() }));
            }
        }
        Node::Set { element, items } => {
            if let Some((_, rest)) = items.split_last() {
                nodes.push((" shortened".to_owned(), Node::Set { element: *element, items: rest.to_vec() }));
            }
        }
    }
    nodes
}
