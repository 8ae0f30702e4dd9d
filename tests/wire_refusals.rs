//! What the reader takes and what it refuses, case by case: the rules of strict binary Thrift as the peers know them.

mod wire_types;

use bytes::Bytes;
use machinegun::wire::exception::InvalidRequest;
use machinegun::wire::*;
use wire_types::again;

const NIL: &[u8] = &[12, 0, 1, 0, 0];

fn read<T: Wire>(bytes: &[u8]) -> Result<T, Error> {
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes), Limits::default());
    let value = T::read(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

fn field(kind: u8, id: i16, bytes: &[u8]) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    [&[kind, high, low], bytes].concat()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// A struct of these fields.
fn of(fields: &[Vec<u8>]) -> Vec<u8> {
    [&fields.concat()[..], &[0]].concat()
}

/// Arguments of Remove with something before them.
fn remove_with(extra: &[u8]) -> Result<RemoveParams, Error> {
    read(&of(&[extra.to_vec(), field(11, 1, &text(b"NS")), field(11, 2, &text(b"ID"))]))
}

fn nested_arrays(depth: usize) -> Vec<u8> {
    let begin = [15, 0, 8, 12, 0, 0, 0, 1];
    [&begin.repeat(depth - 1)[..], NIL, &vec![0; depth - 1]].concat()
}

#[test]
fn unknown_fields_of_every_type_are_skipped() {
    for (kind, bytes) in [
        (2, vec![1]),
        (3, vec![1]),
        (4, 1.5f64.to_be_bytes().to_vec()),
        (6, vec![0, 1]),
        (8, vec![0, 0, 0, 1]),
        (10, vec![0; 8]),
        (11, text(b"\xff\xfe")),
        (12, of(&[field(12, 1, &[0])])),
        (13, vec![2, 11, 0, 0, 0, 1, 1, 0, 0, 0, 0]),
        (14, vec![8, 0, 0, 0, 1, 0, 0, 0, 1]),
        (15, vec![2, 0, 0, 0, 3, 0, 1, 0]),
        (15, vec![0, 0, 0, 0, 0]),
        (13, vec![0, 0, 0, 0, 0, 0]),
    ] {
        assert!(remove_with(&field(kind, 9, &bytes)).is_ok(), "type {kind}");
    }
}

#[test]
fn wire_types_that_no_strict_peer_sends_are_refused() {
    for kind in [1, 5, 7, 9, 16, 17, 127, 128, 255] {
        assert_eq!(remove_with(&field(kind, 9, &[0; 16])), Err(Error::UnknownType(kind)));
        assert_eq!(remove_with(&field(15, 9, &[kind, 0, 0, 0, 0])), Err(Error::UnknownType(kind)));
        assert_eq!(remove_with(&field(13, 9, &[2, kind, 0, 0, 0, 0])), Err(Error::UnknownType(kind)));
    }
    // A list of stops would take no bytes at all.
    assert!(remove_with(&field(15, 9, &[0, 0, 0, 0, 1, 0, 0, 0, 0, 0])).is_err());
}

#[test]
fn the_first_occurrence_of_a_field_wins() {
    let params = remove_with(&field(11, 1, &text(b"first"))).expect("accepted");
    assert_eq!(&params.ns[..], b"first");
}

#[test]
fn a_known_field_of_another_type_counts_as_absent() {
    let params = remove_with(&field(8, 1, &[0, 0, 0, 1])).expect("the true one follows");
    assert_eq!(&params.ns[..], b"NS");
    let missing = read::<RemoveParams>(&of(&[field(8, 1, &[0, 0, 0, 1]), field(11, 2, &text(b"ID"))]));
    assert_eq!(missing, Err(Error::Missing { of: "RemoveParams", field: "ns" }));
    let missing = read::<SimpleRepairParams>(&of(&[field(11, 1, &text(b"NS"))]));
    assert_eq!(missing, Err(Error::Missing { of: "SimpleRepairParams", field: "ref" }));
    let range = read::<HistoryRange>(&of(&[field(11, 3, &text(b"forward"))])).expect("the default stands in");
    assert_eq!(range, HistoryRange::ALL);
}

#[test]
fn ids_may_be_any_bytes() {
    let params = read::<RemoveParams>(&of(&[field(11, 2, &text(b"\xff\xfe\0")), field(11, 1, &text(b""))]));
    assert_eq!(params, Ok(RemoveParams { ns: Bytes::new(), id: Bytes::from_static(b"\xff\xfe\0") }));
}

#[test]
fn a_union_holds_exactly_one_known_field() {
    let (id, tag) = (field(11, 1, &text(b"ID")), field(11, 2, &text(b"tag")));
    let unknown = field(11, 3, &text(b"?"));
    let other_type = field(8, 1, &[0, 0, 0, 1]);
    assert_eq!(read(&of(std::slice::from_ref(&id))), Ok(Reference::Id("ID".into())));
    assert_eq!(read(&of(&[unknown.clone(), id.clone(), unknown.clone()])), Ok(Reference::Id("ID".into())));
    assert_eq!(read(&of(&[other_type.clone(), id.clone()])), Ok(Reference::Id("ID".into())));
    for fields in [vec![], vec![id.clone(), tag], vec![id.clone(), id], vec![unknown], vec![other_type]] {
        assert!(matches!(read::<Reference>(&of(&fields)), Err(Error::Union { of: "Reference", .. })), "{fields:?}");
    }
}

#[test]
fn a_value_holds_exactly_one_known_field() {
    let (number, flag) = (field(10, 3, &[0; 8]), field(2, 2, &[1]));
    let unknown = field(15, 9, &[2, 0, 0, 0, 1, 1]);
    let other_type = field(8, 3, &[0, 0, 0, 1]);
    for fields in
        [vec![number.clone()], vec![unknown.clone(), number.clone()], vec![number.clone(), other_type.clone()]]
    {
        let bytes = Bytes::from(of(&fields));
        assert_eq!(again::<Value>(bytes.clone()), Ok(bytes), "opaque: as it came");
    }
    for fields in [vec![], vec![number.clone(), flag], vec![number.clone(), number], vec![unknown], vec![other_type]] {
        let bytes = of(&fields);
        assert!(matches!(read::<Value>(&bytes), Err(Error::Union { of: "Value", .. })), "{fields:?}");
        // And so within another one.
        let array = of(&[field(15, 8, &[&[12, 0, 0, 0, 1][..], &bytes].concat())]);
        assert!(matches!(read::<Value>(&array), Err(Error::Union { of: "Value", .. })), "{fields:?}");
    }
}

#[test]
fn text_in_a_value_is_utf8_and_bytes_are_any() {
    let bad = b"\xff\xfe";
    assert_eq!(read::<Value>(&of(&[field(11, 5, &text(bad))])), Err(Error::NotUtf8));
    assert_eq!(read::<Value>(&of(&[field(11, 6, &text(bad))])), Ok(Value::bin(bad)));
    let key = [&[12, 12, 0, 0, 0, 1][..], &of(&[field(11, 5, &text(bad))]), NIL].concat();
    assert_eq!(read::<Value>(&of(&[field(13, 7, &key)])), Err(Error::NotUtf8));
}

#[test]
fn doubles_without_a_finite_value_are_refused_wherever_they_stand() {
    for double in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let bytes = double.to_be_bytes();
        assert_eq!(Value::double(double), None);
        assert_eq!(read::<Value>(&of(&[field(4, 4, &bytes)])), Err(Error::NotFinite));
        assert_eq!(remove_with(&field(4, 9, &bytes)), Err(Error::NotFinite));
        assert_eq!(remove_with(&field(15, 9, &[&[4, 0, 0, 0, 1][..], &bytes].concat())), Err(Error::NotFinite));
        assert_eq!(read::<Value>(&of(&[field(4, 9, &bytes), field(2, 2, &[1])])), Err(Error::NotFinite));
    }
    assert_eq!(read(&of(&[field(4, 4, &(-0.0f64).to_be_bytes())])), Ok(Value::double(-0.0).expect("finite")));
}

#[test]
fn enum_numbers_are_known_ones() {
    let range = |number: u8| read::<HistoryRange>(&of(&[field(8, 3, &[0, 0, 0, number])]));
    assert_eq!(range(2).map(|range| range.direction), Ok(Direction::Backward));
    for number in [0, 3, 255] {
        assert_eq!(range(number), Err(Error::UnknownSymbol { of: "Direction", number: number.into() }));
    }
}

#[test]
fn every_true_is_written_as_one() {
    for byte in [1, 2, 0xff] {
        assert_eq!(again::<bool>(Bytes::copy_from_slice(&[byte])), Ok(Bytes::from_static(&[1])));
    }
    assert_eq!(read::<bool>(&[0]), Ok(false));
}

#[test]
fn a_true_inside_an_opaque_value_keeps_its_byte() {
    for byte in [0, 1, 2, 0xff] {
        let value = of(&[field(2, 2, &[byte])]);
        assert_eq!(again::<Value>(value.clone().into()), Ok(Bytes::from(value)));
    }
}

#[test]
fn elements_are_of_the_declared_type_even_when_there_are_none() {
    let errors = |list: &[u8]| read::<InvalidRequest>(&of(&[field(15, 1, list)]));
    assert_eq!(errors(&[11, 0, 0, 0, 0]), Ok(InvalidRequest { errors: vec![] }));
    for found in [0, 12, 16] {
        assert_eq!(errors(&[found, 0, 0, 0, 0]), Err(Error::ElementType { expected: Type::String, found }));
    }
    for (kinds, found) in [([0, 12], 0), ([12, 11], 11), ([0, 0], 0)] {
        let map = field(13, 7, &[&kinds[..], &[0; 4]].concat());
        assert_eq!(read::<Value>(&of(&[map])), Err(Error::ElementType { expected: Type::Struct, found }));
    }
    assert!(read::<Value>(&of(&[field(15, 8, &[0, 0, 0, 0, 0])])).is_err());
}

#[test]
fn a_claimed_size_beyond_what_is_left_is_refused_at_once() {
    let max = [0x7f, 0xff, 0xff, 0xff];
    for kind in [2, 3, 12] {
        let list = field(15, 9, &[&[kind][..], &max].concat());
        let left = of(&[field(11, 1, &text(b"NS")), field(11, 2, &text(b"ID"))]).len();
        assert_eq!(remove_with(&list), Err(Error::Oversized { size: i32::MAX, left }));
        assert!(matches!(remove_with(&field(14, 9, &[&[kind][..], &max].concat())), Err(Error::Oversized { .. })));
        assert!(matches!(remove_with(&field(13, 9, &[&[kind, 2][..], &max].concat())), Err(Error::Oversized { .. })));
    }
    for value in [field(15, 8, &[&[12][..], &max].concat()), field(13, 7, &[&[12, 12][..], &max].concat())] {
        assert_eq!(read::<Value>(&of(&[value])), Err(Error::Oversized { size: i32::MAX, left: 1 }));
    }
    let history = field(15, 3, &[&[12][..], &max].concat());
    assert!(matches!(read::<Machine>(&of(&[history])), Err(Error::Oversized { .. })));
    let wanted = i32::MAX as usize;
    assert!(matches!(remove_with(&field(11, 1, &max)), Err(Error::Truncated { wanted: found, .. }) if found == wanted));
    assert!(matches!(read::<Value>(&field(11, 5, &max)), Err(Error::Truncated { .. })));
}

#[test]
fn a_negative_size_is_refused() {
    let minus = [0xff; 4];
    assert_eq!(remove_with(&field(11, 1, &minus)), Err(Error::NegativeLength(-1)));
    assert_eq!(remove_with(&field(15, 9, &[&[2][..], &minus].concat())), Err(Error::NegativeLength(-1)));
    assert_eq!(remove_with(&field(13, 9, &[&[2, 2][..], &minus].concat())), Err(Error::NegativeLength(-1)));
    assert_eq!(read::<Value>(&field(15, 8, &[&[12][..], &minus].concat())), Err(Error::NegativeLength(-1)));
    assert_eq!(read::<Value>(&field(11, 5, &minus)), Err(Error::NegativeLength(-1)));
}

#[test]
fn values_nest_a_thousand_levels_and_no_more() {
    let deepest = Bytes::from(nested_arrays(1_000));
    assert_eq!(again::<Value>(deepest.clone()), Ok(deepest));
    assert_eq!(read::<Value>(&nested_arrays(1_001)), Err(Error::TooDeep(1_000)));
    let mut value = Value::nil();
    (1..1_000).for_each(|_| value = Value::object(&[(value.clone(), Value::nil())]));
    assert_eq!(again::<Value>(value.as_bytes().clone()).as_ref(), Ok(value.as_bytes()));
    let deeper = Value::array(&[value]);
    assert_eq!(again::<Value>(deeper.as_bytes().clone()), Err(Error::TooDeep(1_000)));
}

#[test]
fn unknown_fields_nest_a_thousand_levels_and_no_more() {
    let structs = |depth: usize| [&[12, 0, 1].repeat(depth - 1)[..], &vec![0; depth]].concat();
    let lists = |depth: usize| [&[15, 0, 0, 0, 1].repeat(depth - 1)[..], &[2, 0, 0, 0, 0]].concat();
    for (kind, nested) in [(12, structs(1_000)), (15, lists(1_000))] {
        assert!(remove_with(&field(kind, 9, &nested)).is_ok());
        assert!(read::<Value>(&of(&[field(kind, 9, &nested), field(2, 2, &[1])])).is_ok());
    }
    for (kind, nested) in [(12, structs(1_001)), (15, lists(1_001))] {
        assert_eq!(remove_with(&field(kind, 9, &nested)), Err(Error::TooDeep(1_000)));
        assert_eq!(read::<Value>(&of(&[field(kind, 9, &nested)])), Err(Error::TooDeep(1_000)));
    }
}

/// With the limit taken away, a million levels fit on a stack of 64 KiB: nothing recurses.
#[test]
fn depth_costs_no_stack() {
    let deep = || {
        let limits = Limits { depth: u32::MAX };
        let value = nested_arrays(1_000_000);
        Value::read(&mut Reader::new(value.into(), limits)).expect("well formed");
        let structs = [&[12, 0, 1].repeat(1_000_000)[..], &[0; 1_000_001]].concat();
        Reader::new(structs.into(), limits).skip(Type::Struct).expect("well formed");
    };
    let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(deep).expect("a thread");
    thread.join().expect("no overflow");
}

#[test]
fn what_a_value_hands_out_shares_the_memory_of_the_message() {
    let message = Bytes::from(of(&[field(11, 1, &text(b"NS")), field(11, 2, &text(b"ID")), field(12, 3, NIL)]));
    let params = StartParams::read(&mut Reader::new(message.clone(), Limits::default())).expect("well formed");
    let range = message.as_ptr_range();
    assert!(range.contains(&params.id.as_ptr()) && range.contains(&params.a.as_bytes().as_ptr()));
    assert!(!range.contains(&params.a.detached().as_bytes().as_ptr()));
}

#[test]
fn envelopes_are_strict() {
    let header = |bytes: &[u8]| Header::read(&mut Reader::new(Bytes::copy_from_slice(bytes), Limits::default()));
    let envelope = |word: u32| [&word.to_be_bytes()[..], &[0, 0, 0, 3], b"Str", &[0xff; 4]].concat();
    let expected = Header { kind: MessageType::Call, name: "Str".into(), seqid: -1 };
    assert_eq!(header(&envelope(0x8001_0001)), Ok(expected.clone()));
    assert_eq!(header(&envelope(0x8001_ff01)), Ok(expected));
    for bytes in [&b"\0\0\0\x03Str\x01\0\0\0\0"[..], &[0; 20], b"GET / HTTP/1.1", b"[1,\"Str\",1,0,{}]"] {
        assert_eq!(header(bytes), Err(HeaderError::NotStrict));
    }
    let refusals = [
        (0x8002_0001, "thrift: bad binary protocol version: -2147352575"),
        (0x8221_0103, "thrift: bad binary protocol version: -2111766269"),
        (0x8001_0000, "thrift: unknown message type: 0"),
        (0x8001_0005, "thrift: unknown message type: 5"),
        (0x8001_00ff, "thrift: unknown message type: 255"),
    ];
    for (word, refusal) in refusals {
        assert_eq!(header(&envelope(word)).map_err(|error| error.to_string()), Err(refusal.to_owned()));
    }
    let whole = envelope(0x8001_0001);
    for end in 0..whole.len() {
        assert!(matches!(header(&whole[..end]), Err(HeaderError::Malformed(_))), "cut at {end}");
    }
}

#[test]
fn a_reply_holds_exactly_one_result() {
    let reply = |fields: &[Vec<u8>]| read_reply::<Call>(of(fields).into(), Limits::default());
    let (success, failed) = (field(12, 0, NIL), field(12, 3, &[0]));
    assert_eq!(reply(std::slice::from_ref(&success)), Ok(Ok(Value::nil())));
    assert_eq!(reply(&[failed.clone(), field(12, 9, &[0])]), Ok(Err(Exception::MachineFailed)));
    assert_eq!(reply(&[]), Err(Error::Missing { of: "Call", field: "success" }));
    assert_eq!(reply(&[field(12, 9, &[0])]), Err(Error::Missing { of: "Call", field: "success" }));
    for fields in [[success.clone(), failed.clone()], [failed.clone(), failed.clone()], [success.clone(), success]] {
        assert!(matches!(reply(&fields), Err(Error::Union { .. })));
    }
    let void = |fields: &[Vec<u8>]| read_reply::<Start>(of(fields).into(), Limits::default());
    assert_eq!(void(&[]), Ok(Ok(Void)));
    assert_eq!(void(&[field(12, 9, &[0])]), Ok(Ok(Void)));
    assert_eq!(void(&[failed]), Ok(Err(Exception::MachineFailed)));
}

#[test]
fn an_exception_that_is_not_declared_is_not_written() {
    let undeclared = Undeclared { method: "Remove", exception: "MachineFailed" };
    assert_eq!(write_reply::<Remove>(0, &Err(Exception::MachineFailed)), Err(undeclared));
}
