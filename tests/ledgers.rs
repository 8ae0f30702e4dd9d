//! The ledgers, read by `EventSink.GetHistory` as peers of 2021 read their sink.

mod live;

use std::path::Path;

use bytes::Bytes;
use live::processor::{change, content, to_signal};
use live::{Callee, Failure, Live, NAMESPACE, NOW, id, ledger, namespace, of, refused, start};
use machinegun::clock::Clock;
use machinegun::config::{EmbeddedSettings, NamespaceSettings, Settings, StorageSettings};
use machinegun::wire::{
    Direction, Exception, GetHistory, GetHistoryParams, GetMachine, HistoryRange, ProcessSignal, Remove, SinkEvent,
    Start, StartParams, Void,
};

const LEDGER: &str = "all";

async fn read(live: &Live, name: &str, range: HistoryRange) -> Result<Vec<SinkEvent>, Failure> {
    let params = GetHistoryParams { event_sink_id: Bytes::copy_from_slice(name.as_bytes()), range };
    let entries = live.ask::<GetHistory>(params).await?;
    Ok(entries.decoded().map(|entry| entry.expect("an entry")).collect())
}

async fn ids(live: &Live, after: Option<i64>, limit: Option<i32>, direction: Direction) -> Vec<i64> {
    let entries = read(live, LEDGER, HistoryRange { after, limit, direction }).await.expect("a ledger");
    entries.iter().map(|entry| entry.id).collect()
}

/// Starts a machine of a namespace with so many events.
async fn begin(live: &Live, processor: &mut Callee, ns: &str, machine: &str, events: usize) {
    let events = vec![content(Some(1), machine); events];
    let answer = processor.answer::<ProcessSignal>(|_| to_signal(change(events)));
    let params = StartParams { ns: Bytes::copy_from_slice(ns.as_bytes()), ..start(machine, "") };
    assert_eq!(tokio::join!(live.ask::<Start>(params), answer).0, Ok(Void));
}

/// Two namespaces that share a ledger; the second has one of its own, too.
fn namespaces(url: &str) -> Vec<NamespaceSettings> {
    let mut one = namespace(url);
    one.event_sinks = vec![ledger(LEDGER)];
    let mut other = NamespaceSettings::new("OTHER", url);
    other.event_sinks = vec![ledger(LEDGER), ledger("its own")];
    vec![one, other]
}

async fn world() -> (Live, Callee) {
    let clock = Clock::manual(NOW);
    let processor = Callee::listen(&clock.0);
    let namespaces = namespaces(&processor.url);
    (Live::start(clock, namespaces).await, processor)
}

#[tokio::test]
async fn a_ledger_has_the_events_of_all_its_namespaces_as_soon_as_a_call_is_answered() {
    let (live, mut processor) = world().await;
    begin(&live, &mut processor, NAMESPACE, "one", 1).await;
    assert_eq!(ids(&live, None, None, Direction::Forward).await, [1]);
    begin(&live, &mut processor, "OTHER", "two", 2).await;
    begin(&live, &mut processor, NAMESPACE, "silent", 0).await;
    let entries = read(&live, LEDGER, HistoryRange::ALL).await.expect("a ledger");
    let sources: Vec<_> = entries.iter().map(|it| (it.id, &it.source_ns[..], &it.source_id[..], it.event.id)).collect();
    assert_eq!(
        sources,
        [(1, &b"NS"[..], &b"one"[..], 1), (2, &b"OTHER"[..], &b"two"[..], 1), (3, &b"OTHER"[..], &b"two"[..], 2),]
    );
    // An entry holds the event as the machine shows it.
    let machine = live.ask::<GetMachine>(of(id("one"))).await.expect("a machine");
    let event = machine.history.decoded().next().expect("an event").expect("an event");
    assert_eq!(entries[0].event, event);
    let own = read(&live, "its own", HistoryRange::ALL).await.expect("a ledger");
    assert_eq!(own.iter().map(|it| it.id).collect::<Vec<_>>(), [1, 2]);
    live.stop().await;
}

#[tokio::test]
async fn a_ledger_keeps_the_events_of_a_removed_machine() {
    let (live, mut processor) = world().await;
    begin(&live, &mut processor, NAMESPACE, "one", 2).await;
    assert_eq!(live.ask::<Remove>(live::remove("one")).await, Ok(Void));
    begin(&live, &mut processor, NAMESPACE, "one", 1).await;
    let entries = read(&live, LEDGER, HistoryRange::ALL).await.expect("a ledger");
    assert_eq!(entries.iter().map(|it| (it.id, it.event.id)).collect::<Vec<_>>(), [(1, 1), (2, 2), (3, 1)]);
    live.stop().await;
}

#[tokio::test]
async fn a_ledger_is_read_in_ranges_of_both_directions() {
    use Direction::{Backward, Forward};
    let (live, mut processor) = world().await;
    for machine in ["one", "two", "three"] {
        begin(&live, &mut processor, NAMESPACE, machine, 2).await;
    }
    for (after, limit, direction, expected) in [
        (None, None, Forward, vec![1, 2, 3, 4, 5, 6]),
        (None, Some(2), Forward, vec![1, 2]),
        (Some(2), Some(3), Forward, vec![3, 4, 5]),
        (Some(-7), Some(1), Forward, vec![1]),
        (Some(6), None, Forward, vec![]),
        (Some(9), None, Forward, vec![]),
        (None, Some(0), Forward, vec![]),
        (None, None, Backward, vec![6, 5, 4, 3, 2, 1]),
        (None, Some(2), Backward, vec![6, 5]),
        (Some(4), Some(2), Backward, vec![3, 2]),
        (Some(1), None, Backward, vec![]),
        (Some(9), Some(1), Backward, vec![6]),
        (None, Some(0), Backward, vec![]),
    ] {
        let found = ids(&live, after, limit, direction).await;
        assert_eq!(found, expected, "{after:?} {limit:?} {direction:?}");
    }
    live.stop().await;
}

#[tokio::test]
async fn a_ledger_is_empty_not_found_or_badly_asked_for() {
    let (live, mut processor) = world().await;
    assert_eq!(read(&live, LEDGER, HistoryRange::ALL).await, Ok(vec![]));
    let backward = HistoryRange { after: Some(5), limit: None, direction: Direction::Backward };
    assert_eq!(read(&live, LEDGER, backward).await, Ok(vec![]));
    let missing = Err(Failure::Thrown(Exception::EventSinkNotFound));
    for name in ["", "nobody's", NAMESPACE] {
        assert_eq!(read(&live, name, HistoryRange::ALL).await, missing);
    }
    let negative = HistoryRange { limit: Some(-1), ..HistoryRange::ALL };
    assert_eq!(read(&live, LEDGER, negative.clone()).await, Err(refused(400)));
    begin(&live, &mut processor, NAMESPACE, "one", 1).await;
    assert_eq!(read(&live, LEDGER, negative).await, Err(refused(400)));
    live.stop().await;
}

fn on_disk(folder: &Path, url: &str) -> Settings {
    let storage = EmbeddedSettings { path: folder.to_owned(), free_space_reserve: 0 };
    Settings { namespaces: namespaces(url), ..Settings::default_with(StorageSettings::Embedded(storage)) }
}

#[tokio::test]
async fn a_broken_ledger_shows_in_a_metric_while_serving_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Clock::manual(NOW);
    let mut processor = Callee::listen(&clock.0);
    let settings = on_disk(folder.path(), &processor.url);
    let live = Live::start_with(clock, settings.clone()).await;
    begin(&live, &mut processor, "OTHER", "one", 3).await;
    live.stop().await;

    let live = Live::start_with(Clock::manual(NOW), settings.clone()).await;
    assert_eq!(live.metric("machinegun_ledger_broken{sink=\"all\"}").await, "machinegun_ledger_broken{sink=\"all\"} 0");
    live.stop().await;
    {
        // Somebody takes an entry out behind the service's back.
        let database = fjall::Database::builder(folder.path().join("data")).open().expect("a database");
        let entries = database.keyspace("ledger_entries", fjall::KeyspaceCreateOptions::default).expect("a table");
        let keys = entries.iter().map(|entry| entry.key().expect("a key"));
        let second_of_all = keys.filter(|key| key.windows(3).any(|part| part == b"all")).nth(1).expect("an entry");
        entries.remove(second_of_all).expect("removed");
        database.persist(fjall::PersistMode::SyncAll).expect("on disk");
    }
    let live = Live::start_with(Clock::manual(NOW), settings).await;
    assert_eq!(live.metric("machinegun_ledger_broken{sink=\"all\"}").await, "machinegun_ledger_broken{sink=\"all\"} 1");
    let whole = live.metric("machinegun_ledger_broken{sink=\"its own\"}").await;
    assert_eq!(whole, "machinegun_ledger_broken{sink=\"its own\"} 0");
    begin(&live, &mut processor, "OTHER", "two", 1).await;
    assert_eq!(ids(&live, Some(2), None, Direction::Forward).await, [3, 4]);
    live.stop().await;
}
