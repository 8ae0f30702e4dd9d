//! The wire against an independent peer, the `thrift` crate: it reads what we write, byte for byte what it would have
//! written itself, and we read what it writes, also in another field order and among fields that we do not know.

#[path = "peer/golden.rs"]
mod golden;
#[path = "peer/messages.rs"]
mod messages;
#[path = "peer/tree.rs"]
mod tree;

use std::fmt::Debug;

use bytes::Bytes;
use machinegun::wire::*;
use messages::*;
use thrift::protocol::{TMessageIdentifier, TMessageType};
use tree::{Tree, read_message, write_message};

const SEQID: i32 = -7;

/// A peer's message, its envelope taken off.
fn opened(bytes: Vec<u8>, kind: MessageType, name: &str) -> Reader {
    let mut reader = Reader::new(bytes.into(), Limits::default());
    let header = Header::read(&mut reader).expect("an envelope");
    assert_eq!((header.kind, &header.name[..], header.seqid), (kind, name.as_bytes(), SEQID));
    reader
}

fn call<M: Method>((args, tree): (M::Args, Tree))
where
    M::Args: PartialEq + Debug,
{
    let ours = write_call::<M>(&args, 0);
    assert_eq!(read_message(&ours), (TMessageIdentifier::new(M::NAME, TMessageType::Call, 0), tree.seen()));
    assert_eq!(ours, write_message(TMessageType::Call, M::NAME, 0, &tree));
    for tree in [&tree, &tree.disturbed()] {
        let theirs = write_message(TMessageType::Call, M::NAME, SEQID, tree);
        let mut reader = opened(theirs, MessageType::Call, M::NAME);
        assert_eq!(read_args::<M>(&mut reader).as_ref(), Ok(&args));
    }
}

fn reply<M: Method>(result: Result<M::Success, Exception>, tree: Tree)
where
    M::Success: PartialEq + Debug,
{
    let ours = write_reply::<M>(SEQID, &result).expect("declared");
    assert_eq!(read_message(&ours), (TMessageIdentifier::new(M::NAME, TMessageType::Reply, SEQID), tree.seen()));
    assert_eq!(ours, write_message(TMessageType::Reply, M::NAME, SEQID, &tree));
    for tree in [&tree, &tree.disturbed()] {
        let theirs = Bytes::from(write_message(TMessageType::Reply, M::NAME, SEQID, tree));
        let at = opened(theirs.to_vec(), MessageType::Reply, M::NAME).position();
        assert_eq!(read_reply::<M>(theirs.slice(at..), Limits::default()).as_ref(), Ok(&result));
    }
}

/// The result in field 0, and every exception that the method declares.
fn replies<M: Method>(success: M::Success, tree: Option<Tree>)
where
    M::Success: PartialEq + Debug,
{
    reply::<M>(Ok(success), Tree::Struct(tree.map(|tree| (0, tree)).into_iter().collect()));
    for (id, name) in M::THROWS {
        let (exception, fields) = match *name {
            "NamespaceNotFound" => (Exception::NamespaceNotFound, vec![]),
            "MachineNotFound" => (Exception::MachineNotFound, vec![]),
            "MachineAlreadyExists" => (Exception::MachineAlreadyExists, vec![]),
            "MachineFailed" => (Exception::MachineFailed, vec![]),
            "MachineAlreadyWorking" => (Exception::MachineAlreadyWorking, vec![]),
            "EventNotFound" => (Exception::EventNotFound, vec![]),
            "EventSinkNotFound" => (Exception::EventSinkNotFound, vec![]),
            "RepairFailed" => (Exception::RepairFailed(value().0), vec![(1, value().1)]),
            "InvalidRequest" => {
                let errors = Tree::List(thrift::protocol::TType::String, vec![Tree::text("bad"), Tree::text("worse")]);
                (Exception::InvalidRequest(vec!["bad".into(), "worse".into()]), vec![(1, errors)])
            }
            other => panic!("{other}"),
        };
        reply::<M>(Err(exception), Tree::Struct(vec![(*id, Tree::Struct(fields))]));
    }
}

#[test]
fn start_and_remove() {
    let (a, tree) = value();
    let place = vec![(1, Tree::text("NS")), (2, Tree::text("ID"))];
    let mut fields = place.clone();
    fields.push((3, tree));
    call::<Start>((StartParams { ns: "NS".into(), id: "ID".into(), a }, Tree::Struct(fields)));
    replies::<Start>(Void, None);
    call::<Remove>((RemoveParams { ns: "NS".into(), id: "ID".into() }, Tree::Struct(place)));
    replies::<Remove>(Void, None);
}

#[test]
fn call_and_repair() {
    let (success, tree) = value();
    call::<Call>(described());
    replies::<Call>(success.clone(), Some(tree.clone()));
    call::<Repair>(described());
    replies::<Repair>(success, Some(tree));
    call::<LegacyRepair>(described());
    replies::<LegacyRepair>(Void, None);
    let params = SimpleRepairParams { ns: "NS".into(), r#ref: Reference::Tag("tag".into()) };
    let reference = Tree::Struct(vec![(2, Tree::text("tag"))]);
    call::<SimpleRepair>((params, Tree::Struct(vec![(1, Tree::text("NS")), (2, reference)])));
    replies::<SimpleRepair>(Void, None);
}

#[test]
fn get_machine_and_modernize() {
    let (desc, tree) = descriptor();
    let (params, tree) = (DescriptorParams { desc }, Tree::Struct(vec![(1, tree)]));
    call::<GetMachine>((params.clone(), tree.clone()));
    let (machine, machine_tree) = machine();
    replies::<GetMachine>(machine, Some(machine_tree));
    call::<Modernize>((params, tree));
    replies::<Modernize>(Void, None);
}

#[test]
fn notify() {
    call::<Notify>(described());
    let tree = Tree::Struct(vec![(1, Tree::text("2kWxLRAWakn"))]);
    replies::<Notify>(NotifyResponse { id: "2kWxLRAWakn".into() }, Some(tree));
}

#[test]
fn get_history() {
    let (range, tree) = range();
    let fields = vec![(1, Tree::text("default")), (2, tree)];
    call::<GetHistory>((GetHistoryParams { event_sink_id: "default".into(), range }, Tree::Struct(fields)));
    let (events, tree) = sink_events();
    replies::<GetHistory>(events, Some(tree));

    // Entries are kept as they came, and understood from a peer of another build too.
    let (entry, tree) = sink_event();
    let list = Tree::List(thrift::protocol::TType::Struct, vec![tree.disturbed()]);
    let theirs = write_message(TMessageType::Reply, GetHistory::NAME, SEQID, &Tree::Struct(vec![(0, list)]));
    let at = opened(theirs.clone(), MessageType::Reply, GetHistory::NAME).position();
    let read = read_reply::<GetHistory>(Bytes::from(theirs).slice(at..), Limits::default());
    let entries: Vec<_> = read.expect("a reply").expect("entries").decoded().collect();
    assert_eq!(entries, [Ok(entry)]);
}

#[test]
fn process_signal() {
    let (arg, tree) = value();
    let argument = Tree::Struct(vec![(1, tree)]);
    let signals = [
        (Signal::Init(InitSignal { arg: arg.clone() }), 1, argument.clone()),
        (Signal::Timeout(TimeoutSignal {}), 2, Tree::Struct(vec![])),
        (Signal::Notification(NotificationSignal { arg }), 3, argument),
    ];
    for (signal, id, tree) in signals {
        let (machine, machine_tree) = machine();
        let tree = Tree::Struct(vec![(1, Tree::Struct(vec![(id, tree)])), (2, machine_tree)]);
        let params = ProcessSignalParams { a: SignalArgs { signal, machine } };
        call::<ProcessSignal>((params, Tree::Struct(vec![(1, tree)])));
    }
    let (success, tree) = signal_results();
    replies::<ProcessSignal>(success, Some(tree));
}

#[test]
fn process_call_and_process_repair() {
    let ((arg, arg_tree), (machine, machine_tree)) = (value(), machine());
    let tree = Tree::Struct(vec![(1, Tree::Struct(vec![(1, arg_tree), (2, machine_tree)]))]);
    let a = CallArgs { arg: arg.clone(), machine: machine.clone() };
    call::<ProcessCall>((ProcessCallParams { a }, tree.clone()));
    call::<ProcessRepair>((ProcessRepairParams { a: RepairArgs { arg, machine } }, tree));

    let ((response, _), (change, _), (action, _)) = (value(), change(), action());
    let result = CallResult { response: response.clone(), change: change.clone(), action: action.clone() };
    replies::<ProcessCall>(result, Some(response_tree()));
    replies::<ProcessRepair>(RepairResult { response, change, action }, Some(response_tree()));
}

#[test]
fn modernize_event() {
    let (event, tree) = event(3, Some(0));
    let tree = Tree::Struct(vec![(1, Tree::text("NS")), (2, Tree::text("ID")), (3, tree)]);
    let params = ModernizeEventParams { ev: MachineEvent { ns: "NS".into(), id: "ID".into(), event } };
    call::<ModernizeEvent>((params, Tree::Struct(vec![(1, tree)])));
    let (event_payload, tree) = content();
    replies::<ModernizeEvent>(ModernizeEventResult { event_payload }, Some(Tree::Struct(vec![(1, tree)])));
}
