//! When a record wants to be woken, and for what.

use super::*;

fn with(record: Record, notifications: Option<i64>) -> Record {
    Record { notifications_due: notifications, ..record }
}

fn unacknowledged(due: i64, record: Record) -> Record {
    Record { unsent: vec![unsent("events", vec![events(epoch(), 3, 3)])], outbox_due: Some(due), ..record }
}

/// All is acknowledged, but the store does not know.
fn acknowledged(due: i64, record: Record) -> Record {
    Record { outbox_due: Some(due), ..record }
}

fn wanted() -> Debt {
    Debt { wanted: true, ..debt() }
}

fn indebted(record: Record) -> Record {
    Record { debts: vec![debt()], ..record }
}

#[test]
fn a_record_is_due_for_the_earliest_that_it_waits_for() {
    let table = [
        (sleeping(), None),
        (waiting(NOW + 5), Some(NOW + 5)),
        (waiting(-5), Some(0)),
        (waiting(i64::MAX), Some(i64::MAX - 1)),
        (retrying(3, NOW + 7), Some(NOW + 7)),
        (with(sleeping(), Some(NOW + 3)), Some(NOW + 3)),
        (with(waiting(NOW + 5), Some(NOW + 3)), Some(NOW + 3)),
        (with(waiting(NOW + 2), Some(NOW + 3)), Some(NOW + 2)),
        (with(retrying(0, NOW + 2), Some(NOW + 3)), Some(NOW + 2)),
        (failed(&waiting(NOW)), None),
        (failed(&retrying(0, NOW)), None),
        (with(failed(&sleeping()), Some(NOW)), None),
        (indebted(sleeping()), Some(0)),
        (indebted(waiting(NOW + 5)), Some(0)),
        (indebted(failed(&sleeping())), Some(0)),
        (tombstone(NOW, vec![debt()]), Some(0)),
        (tombstone(NOW, vec![]), Some(NOW + TOMBSTONE_REST_MS)),
        (with(tombstone(NOW, vec![]), Some(5)), Some(NOW + TOMBSTONE_REST_MS)),
        (unacknowledged(NOW + 4, sleeping()), Some(NOW + 4)),
        (unacknowledged(NOW + 4, waiting(NOW + 5)), Some(NOW + 4)),
        (unacknowledged(NOW + 6, waiting(NOW + 5)), Some(NOW + 5)),
        (unacknowledged(NOW + 4, failed(&waiting(NOW))), Some(NOW + 4)),
        (unacknowledged(NOW + 4, tombstone(NOW, vec![wanted()])), Some(NOW + 4)),
        (unacknowledged(NOW + 4, tombstone(NOW, vec![wanted(), debt()])), Some(0)),
        (acknowledged(NOW + 4, tombstone(NOW, vec![wanted()])), Some(NOW + 4)),
        (acknowledged(NOW + 4, tombstone(NOW - 2 * TOMBSTONE_REST_MS, vec![])), Some(NOW + 4)),
    ];
    for (record, due) in table {
        assert_eq!(record.due(), due, "{record:?}");
    }
}

#[test]
fn a_woken_record_does_the_most_urgent() {
    let table = [
        (sleeping(), None),
        (waiting(NOW + 1), None),
        (waiting(NOW), Some(Wake::Timeout)),
        (retrying(0, NOW + 1), None),
        (retrying(0, NOW), Some(Wake::Timeout)),
        (with(sleeping(), Some(NOW + 1)), None),
        (with(sleeping(), Some(NOW)), Some(Wake::Notifications)),
        (with(waiting(NOW - 1), Some(NOW)), Some(Wake::Timeout)),
        (with(waiting(NOW), Some(NOW - 1)), Some(Wake::Notifications)),
        (with(waiting(NOW + 1), Some(NOW)), Some(Wake::Notifications)),
        (with(waiting(NOW), Some(NOW + 1)), Some(Wake::Timeout)),
        (with(waiting(NOW), Some(NOW)), Some(Wake::Timeout)),
        (failed(&waiting(NOW)), None),
        (with(failed(&waiting(NOW)), Some(NOW)), None),
        (indebted(sleeping()), Some(Wake::Pay)),
        (indebted(with(waiting(NOW), Some(NOW))), Some(Wake::Pay)),
        (indebted(failed(&sleeping())), Some(Wake::Pay)),
        (tombstone(NOW, vec![debt()]), Some(Wake::Pay)),
        (tombstone(NOW - TOMBSTONE_REST_MS + 1, vec![]), None),
        (tombstone(NOW - TOMBSTONE_REST_MS, vec![]), Some(Wake::Forget)),
        (unacknowledged(NOW + 1, sleeping()), None),
        (unacknowledged(NOW, sleeping()), Some(Wake::Outbox)),
        (unacknowledged(NOW, failed(&sleeping())), Some(Wake::Outbox)),
        (unacknowledged(NOW, waiting(NOW)), Some(Wake::Timeout)),
        (unacknowledged(NOW, tombstone(NOW, vec![wanted()])), Some(Wake::Outbox)),
        (unacknowledged(NOW, tombstone(NOW, vec![debt(), wanted()])), Some(Wake::Pay)),
        (acknowledged(NOW, tombstone(NOW - 2 * TOMBSTONE_REST_MS, vec![])), Some(Wake::Outbox)),
        (acknowledged(NOW + 1, tombstone(NOW - 2 * TOMBSTONE_REST_MS, vec![])), None),
    ];
    for (record, expected) in table {
        assert_eq!(wake(&record, NOW), expected, "{record:?}");
        assert_eq!(expected.is_some(), record.due().is_some_and(|due| due <= NOW), "{record:?}");
    }
}

#[test]
fn each_record_has_its_kind() {
    let table = [
        (sleeping(), StatusKind::Sleeping),
        (waiting(NOW), StatusKind::Waiting),
        (retrying(0, NOW), StatusKind::Retrying),
        (failed(&sleeping()), StatusKind::Failed),
        (failed(&waiting(NOW)), StatusKind::Failed),
        (tombstone(NOW, vec![]), StatusKind::Removed),
    ];
    for (record, kind) in table {
        assert_eq!(record.kind(), kind);
        assert_eq!(record.exists(), kind != StatusKind::Removed);
    }
}
