//! The stored formats: what is written is read again, what is not of this format is refused.

use proptest::prelude::*;

use super::*;
use crate::wire::Direction;

fn any_bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn any_commit() -> impl Strategy<Value = CommitId> {
    any::<[u8; 16]>().prop_map(CommitId)
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::nil()),
        any::<i64>().prop_map(Value::int),
        any::<String>().prop_map(|text| Value::str(&text)),
        any_bytes().prop_map(|bytes| Value::bin(&bytes)),
    ]
}

fn any_range() -> impl Strategy<Value = HistoryRange> {
    (any::<Option<i64>>(), any::<Option<i32>>(), any::<bool>()).prop_map(|(after, limit, backward)| HistoryRange {
        after,
        limit,
        direction: if backward { Direction::Backward } else { Direction::Forward },
    })
}

fn any_context() -> impl Strategy<Value = RequestContext> {
    let pairs = || prop::collection::vec((any_bytes(), any_bytes()), 0..3);
    (any_bytes(), any_bytes(), pairs(), pairs()).prop_map(|(trace_id, span_id, meta, trace)| RequestContext {
        trace_id,
        span_id,
        meta,
        trace,
    })
}

fn any_timer() -> impl Strategy<Value = Timer> {
    (any::<i64>(), any_range(), any::<i32>(), any_context()).prop_map(|(due, range, timeout, context)| Timer {
        due,
        range,
        timeout,
        context,
    })
}

fn any_phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        Just(Phase::Idle),
        (any::<u32>(), any::<i64>(), any::<Option<i64>>()).prop_map(|(attempt, at, since)| Phase::Retrying {
            attempt,
            at,
            since
        }),
    ]
}

fn any_status() -> impl Strategy<Value = Status> {
    prop_oneof![
        any_phase().prop_map(Status::Working),
        (any::<String>(), any_phase()).prop_map(|(reason, before)| Status::Failed { reason, before }),
        any::<i64>().prop_map(|at| Status::Removed { at }),
    ]
}

fn any_parcel() -> impl Strategy<Value = Parcel> {
    let change = prop_oneof![
        Just(LifeChange::Created),
        any::<String>().prop_map(|reason| LifeChange::Failed { reason }),
        Just(LifeChange::Repaired),
        Just(LifeChange::Removed),
    ];
    prop_oneof![
        (any_commit(), any::<i64>(), any::<i64>()).prop_map(|(epoch, first, last)| Parcel::Events {
            epoch,
            first,
            last
        }),
        (any::<i64>(), change).prop_map(|(at_micros, change)| Parcel::Lifecycle(Lifecycle { at_micros, change })),
    ]
}

fn any_unsent() -> impl Strategy<Value = Unsent> {
    (any::<String>(), prop::collection::vec(any_parcel(), 0..4), any::<i64>())
        .prop_map(|(sink, parcels, behind)| Unsent { sink, parcels, behind })
}

prop_compose! {
    fn any_record()(
        (commit, epoch) in (any_commit(), any_commit()),
        earlier in prop::collection::vec(any_commit(), 0..KEPT_COMMITS),
        status in any_status(),
        (format_version, data) in (any::<Option<i32>>(), any_value()),
        timer in prop::option::of(any_timer()),
        (last_event, notifications_due) in (any::<i64>(), any::<Option<i64>>()),
        handled in prop::collection::vec(any::<i64>(), 0..KEPT_NOTES),
        debts in prop::collection::vec((any_commit(), any::<i64>(), any::<bool>()), 0..3),
        (unsent, outbox_due) in (prop::collection::vec(any_unsent(), 0..3), any::<Option<i64>>()),
    ) -> Record {
        let debts = debts.into_iter().map(|(epoch, last_event, wanted)| Debt { epoch, last_event, wanted }).collect();
        let aux_state = Content { format_version, data };
        Record {
            commit, earlier, epoch, status, aux_state, timer, last_event, notifications_due, handled, debts, unsent,
            outbox_due,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stored_record_is_read_as_it_was_written(record in any_record()) {
        let bytes = record.encode();
        prop_assert_eq!(Record::decode(&bytes), Ok(record.clone()));
        let head = Head::read(&bytes).expect("a head");
        prop_assert_eq!(
            (head.commit, head.epoch, head.status, head.due),
            (record.commit, record.epoch, record.kind(), record.due())
        );
        prop_assert!(head.remembers(record.commit));
        prop_assert!(record.earlier.iter().all(|commit| head.remembers(*commit)));
    }

    #[test]
    fn a_truncated_record_is_refused(record in any_record()) {
        let bytes = record.encode();
        for end in 0..bytes.len() {
            prop_assert!(Record::decode(&bytes[..end]).is_err(), "{} of {} bytes", end, bytes.len());
        }
    }

    #[test]
    fn a_garbled_record_never_panics(
        record in any_record(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = record.encode().to_vec();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(record) = Record::decode(&bytes) {
            let _ = (record.due(), record.kind(), record.encode(), unsent_events(&record), record.payable().count());
        }
        let _ = Head::read(&bytes).map(|head| head.remembers(commit(1)));
    }

    #[test]
    fn any_bytes_at_all_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for version in [1, 2] {
            let _ = (Record::decode(&bytes), Head::read(&bytes), Notification::decode(1, &bytes));
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
        }
    }

    #[test]
    fn a_stored_notification_is_read_as_it_was_written(
        id in any::<i64>(),
        epoch in any_commit(),
        args in any_value(),
        range in any_range(),
        context in any_context(),
    ) {
        let it = Notification { id, epoch, args, range, context };
        let bytes = it.encode();
        prop_assert_eq!(Notification::decode(id, &bytes), Ok(it));
        for end in 0..bytes.len() {
            prop_assert!(Notification::decode(id, &bytes[..end]).is_err());
        }
    }
}

#[test]
fn a_record_of_another_version_is_refused_by_its_number() {
    for version in [0, 2, 255] {
        let mut bytes = sleeping().encode().to_vec();
        bytes[0] = version;
        assert_eq!(Record::decode(&bytes), Err(RecordError::Version(version)));
        assert_eq!(Head::read(&bytes), Err(RecordError::Version(version)));
        assert_eq!(Notification::decode(1, &bytes), Err(RecordError::Version(version)));
    }
}

#[test]
fn an_unknown_status_is_refused() {
    let mut bytes = sleeping().encode().to_vec();
    bytes[33] = 6;
    assert!(matches!(Head::read(&bytes), Err(RecordError::Malformed(_))));
}

/// Every field in use, and no byte that depends on anything but the format.
fn golden_record() -> Record {
    let reason = "why".to_owned();
    let changes = [LifeChange::Created, LifeChange::Failed { reason }, LifeChange::Repaired, LifeChange::Removed];
    let life = |change| Parcel::Lifecycle(Lifecycle { at_micros: NOW * 1_000 + 7, change });
    Record {
        status: Status::Failed {
            reason: "why".to_owned(),
            before: Phase::Retrying { attempt: 2, at: NOW, since: None },
        },
        notifications_due: Some(NOW + 1),
        debts: vec![debt(), Debt { wanted: true, ..debt() }],
        unsent: vec![
            unsent("one", vec![Parcel::Events { epoch: epoch(), first: 2, last: 3 }]),
            unsent("two", changes.into_iter().map(life).collect()),
        ],
        outbox_due: Some(NOW + 2),
        ..waiting(NOW)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
    text.as_bytes().chunks(2).map(digits).collect()
}

// IMPORTANT: what is stored by one release is read by the next. If one of these changes, the format has a new version,
// and the old one stays readable.

#[test]
fn records_are_stored_in_version_1_of_the_format() {
    let bytes = golden_record().encode();
    assert_eq!(hex(&bytes), GOLDEN_RECORD);
    assert_eq!(Record::decode(&bytes), Ok(golden_record()));
}

#[test]
fn every_status_is_stored_in_version_1_of_the_format() {
    let retrying = |since| {
        let phase = Phase::Retrying { attempt: 0, at: 1, since };
        Record { status: Status::Working(phase), ..sleeping() }
    };
    let table = [
        (sleeping(), GOLDEN_SLEEPING),
        (retrying(Some(2)), GOLDEN_RETRYING),
        (retrying(None), EARLY_RETRYING),
        (tombstone(NOW, vec![]), GOLDEN_TOMBSTONE),
    ];
    for (record, golden) in table {
        assert_eq!(hex(&record.encode()), golden);
        assert_eq!(Record::decode(&unhex(golden)), Ok(record));
    }
}

#[test]
fn a_record_from_before_there_were_sinks_owes_them_nothing() {
    let record = Record { debts: vec![debt()], unsent: vec![], outbox_due: None, ..golden_record() };
    assert_eq!(Record::decode(&unhex(EARLY_RECORD)), Ok(record));
}

#[test]
fn notifications_are_stored_in_version_1_of_the_format() {
    let Impact::Notification(it) = notified() else { unreachable!() };
    assert_eq!(hex(&it.encode()), GOLDEN_NOTIFICATION);
}

// One line each: version, commit, epoch, status, due, number of earlier commits and those. Then the body.

const GOLDEN_RECORD: &str = concat!(
    "01",
    "03030303030303030303030303030303",
    "01010101010101010101010101010101",
    "04",
    "0000000000000000",
    "02",
    "02020202020202020202020202020202",
    "01010101010101010101010101010101",
    "9a81a64661696c656492a377687981a85265747279696e679202cf0000018bcfe5680003c40b0b0005000000036175780094",
    "cf0000018bcfe56800930102c21e94c40574696d6572c4047370616e9192c40475736572c407736f6d656f6e659192c40b74",
    "72616365706172656e74c40930302d312d322d303103cf0000018bcfe568019228299293c410010101010101010101010101",
    "0101010103c293c4100101010101010101010101010101010103c39292a36f6e659181a64576656e747393c4100101010101",
    "0101010101010101010101020392a374776f9481a94c6966656379636c6592cf00060a24181e4007a74372656174656481a9",
    "4c6966656379636c6592cf00060a24181e400781a64661696c656491a377687981a94c6966656379636c6592cf00060a2418",
    "1e4007a8526570616972656481a94c6966656379636c6592cf00060a24181e4007a752656d6f766564cf0000018bcfe56802",
);
/// The same as it was stored before there were sinks.
const EARLY_RECORD: &str = concat!(
    "01",
    "03030303030303030303030303030303",
    "01010101010101010101010101010101",
    "04",
    "0000000000000000",
    "02",
    "02020202020202020202020202020202",
    "01010101010101010101010101010101",
    "9881a64661696c656492a377687981a85265747279696e679202cf0000018bcfe5680003c40b0b0005000000036175780094",
    "cf0000018bcfe56800930102c21e94c40574696d6572c4047370616e9192c40475736572c407736f6d656f6e659192c40b74",
    "72616365706172656e74c40930302d312d322d303103cf0000018bcfe568019228299192c410010101010101010101010101",
    "0101010103",
);
const GOLDEN_SLEEPING: &str = concat!(
    "01",
    "03030303030303030303030303030303",
    "01010101010101010101010101010101",
    "01",
    "7fffffffffffffff",
    "02",
    "02020202020202020202020202020202",
    "01010101010101010101010101010101",
    "9a81a7576f726b696e67a449646c6503c40b0b00050000000361757800c003c09228299090c0",
);
const GOLDEN_RETRYING: &str = concat!(
    "01",
    "03030303030303030303030303030303",
    "01010101010101010101010101010101",
    "03",
    "0000000000000001",
    "02",
    "02020202020202020202020202020202",
    "01010101010101010101010101010101",
    "9a81a7576f726b696e6781a85265747279696e679300010203c40b0b00050000000361757800c003c09228299090c0",
);
/// From before the first failure was noted.
const EARLY_RETRYING: &str = concat!(
    "01",
    "03030303030303030303030303030303",
    "01010101010101010101010101010101",
    "03",
    "0000000000000001",
    "02",
    "02020202020202020202020202020202",
    "01010101010101010101010101010101",
    "9a81a7576f726b696e6781a85265747279696e6792000103c40b0b00050000000361757800c003c09228299090c0",
);
const GOLDEN_TOMBSTONE: &str = concat!(
    "01",
    "03030303030303030303030303030303",
    "01010101010101010101010101010101",
    "05",
    "0000018bd50bc400",
    "02",
    "02020202020202020202020202020202",
    "01010101010101010101010101010101",
    "9a81a752656d6f76656491cf0000018bcfe56800c0c4080b00060000000000c003c0909090c0",
);
const GOLDEN_NOTIFICATION: &str = concat!(
    "01",
    "94c41001010101010101010101010101010101c40c0b0005000000046e6f74650093c0c0c294c4066e6f74696679c4047370",
    "616e9192c40475736572c407736f6d656f6e659192c40b7472616365706172656e74c40930302d312d322d3031",
);
