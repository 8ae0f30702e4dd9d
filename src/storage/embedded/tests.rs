//! The contract on the embedded store, and what only this store promises.

use std::sync::atomic::Ordering::Relaxed;

use futures_util::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::storage::contract::Subject;
use crate::storage::contract::sample::{Sample, committed, conflicts, due_times, entry_ids, events, put, read};

mod ledger;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn options(&self) -> EmbeddedOptions {
        EmbeddedOptions {
            free_space_reserve: 0,
            cache_size: 8 << 20,
            memtable_size: 4 << 20,
            ..EmbeddedOptions::new(self.0.path().join("store"))
        }
    }

    fn store(&self) -> Arc<Embedded> {
        Embedded::open(self.options()).unwrap()
    }
}

#[async_trait]
impl Subject for Folder {
    async fn open(&self) -> Arc<dyn Storage> {
        self.store()
    }
}

crate::storage_contract!(promises, Folder::new);
crate::tag_contract!(promises_of_tags, Folder::new);
crate::ledger_contract!(ledger_promises, Folder::new);
crate::durable_storage_contract!(durable_promises, Folder::new);

#[track_caller]
fn refused(options: EmbeddedOptions) -> String {
    let line = Embedded::open(options).unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[test]
fn a_second_opener_is_refused_with_the_folders_name() {
    let folder = Folder::new();
    let first = folder.store();
    let path = folder.options().path.display().to_string();
    assert_eq!(
        refused(folder.options()),
        format!("storage folder {path} is in use by another process: two can't share one")
    );
    drop(first);
    folder.store();
}

#[test]
fn a_file_in_the_folders_place_is_refused() {
    let folder = Folder::new();
    std::fs::write(folder.options().path, "a file").unwrap();
    assert!(refused(folder.options()).ends_with("store is not a folder"));
    let below = EmbeddedOptions { path: folder.options().path.join("below"), ..folder.options() };
    assert!(refused(below).ends_with("below is not a folder"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_can_not_be_written_is_refused() {
    let folder = Folder::new();
    let options = EmbeddedOptions { path: "/proc/machinegun".into(), ..folder.options() };
    assert!(refused(options).starts_with("storage folder /proc/machinegun can't be written: "));
}

#[test]
fn an_unknown_format_is_refused() {
    let folder = Folder::new();
    drop(folder.store());
    {
        let db = fjall::Database::builder(folder.options().path.join("data")).open().unwrap();
        let meta = db.keyspace("meta", fjall::KeyspaceCreateOptions::default).unwrap();
        meta.insert("format", [FORMAT + 1]).unwrap();
        db.persist(PersistMode::SyncAll).unwrap();
    }
    let line = refused(folder.options());
    assert!(line.contains("has format 3, this release reads format 2"), "{line}");
}

#[test]
fn a_store_without_its_markers_is_refused_as_damaged() {
    let folder = Folder::new();
    drop(folder.store());
    let marker = folder.options().path.join("data/version");
    let bytes = std::fs::read(&marker).unwrap();
    std::fs::remove_file(&marker).unwrap();
    assert!(refused(folder.options()).contains("is damaged: data/version is missing"));
    std::fs::write(&marker, "garbage").unwrap();
    assert!(refused(folder.options()).contains("has format fjall unknown"));
    std::fs::write(&marker, bytes).unwrap();
    folder.store();
}

/// fjall would take what is missing for what was never made, and begin anew.
#[test]
fn a_store_with_a_missing_part_is_refused_as_damaged() {
    for part in ["keyspaces/0", "keyspaces/1", "keyspaces/2/current", "keyspaces/9", "0.jnl"] {
        let folder = Folder::new();
        drop(folder.store());
        let path = folder.options().path.join("data").join(part);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap()
        } else {
            std::fs::remove_file(path).unwrap()
        }
        let line = refused(folder.options());
        assert!(line.contains("is damaged: data/"), "{part}: {line}");
    }
}

#[test]
fn a_start_that_was_cut_off_is_begun_again() {
    let folder = Folder::new();
    let unfinished = folder.options().path.join("data.new");
    std::fs::create_dir_all(&unfinished).unwrap();
    std::fs::write(unfinished.join("0.jnl"), "half").unwrap();
    folder.store();
    assert!(!unfinished.exists());
}

/// Or an alert about a full disk fires after every start, and never for a disk that others fill.
#[tokio::test]
async fn free_space_is_known_before_the_first_write_and_while_nothing_is_written() {
    let folder = Folder::new();
    let store = folder.store();
    let free = || store.stats().free_bytes.load(Relaxed);
    assert!(free() > 0);
    store.stats().free_bytes.store(0, Relaxed);
    let known = async {
        while free() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        error = store.failure() => panic!("{error}"),
        () = known => {}
    }
}

#[tokio::test]
async fn writes_are_refused_below_the_reserve_while_reads_and_deletions_go_on() {
    let folder = Folder::new();
    let mut sample = Sample::new("one");
    let store = folder.store();
    let first = sample.step(&events(1..=2), Some(9));
    committed(&*store, first.clone()).await;
    put(&*store, &sample, 1, 1).await;
    store.close().await;

    let store = Embedded::open(EmbeddedOptions { free_space_reserve: u64::MAX, ..folder.options() }).unwrap();
    let mut next = sample.clone();
    let Outcome::Refused(StorageError::Unavailable(text)) = store.commit(next.step(&[], None)).await else {
        panic!("a commit is refused");
    };
    assert!(text.starts_with(&folder.options().path.display().to_string()), "{text}");
    assert!(text.ends_with(&format!(" {} are kept in reserve: no writes until space is made", u64::MAX)), "{text}");
    let refused = store.put_notification(&sample.key, &sample.notification(2), 2).await;
    assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
    sample.assert_stands(&*store, &events(1..=2)).await;
    assert!(store.stats().free_bytes.load(Relaxed) > 0);
    // What already stands is known, what conflicts too.
    committed(&*store, first).await;
    conflicts(&*store, Sample::new("one").seeded(4).step(&[], None)).await;
    put(&*store, &sample, 1, 1).await;
    // Deletions make room.
    assert_eq!(store.settle_notifications(&sample.key, &[1], &[]).await, Ok(()));
    committed(&*store, sample.removal(3)).await;
    assert_eq!(store.delete_epoch(&sample.key, sample.epoch(), 2).await, Ok(()));
    committed(&*store, sample.forgetting()).await;
    assert_eq!(read(&*store, &sample.key).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_fill_while_another_is_synced() {
    let folder = Folder::new();
    let store = folder.store();
    let machines = (0..64).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut sample = Sample::new(&format!("machine {number}"));
            for step in 1..=20 {
                sample.commit_step(&*store, &events(step..=step), Some(step)).await;
            }
        })
    });
    for machine in join_all(machines.collect::<Vec<_>>()).await {
        machine.unwrap();
    }
    let stats = store.stats();
    let (writes, batches) = (stats.writes.load(Relaxed), stats.batches.load(Relaxed));
    assert_eq!((writes, stats.idle_writes.load(Relaxed), stats.waiting.load(Relaxed)), (64 * 20, 0, 0));
    assert!(batches < writes, "{batches} batches of {writes} writes");
    assert!(stats.overlapped.load(Relaxed) > 0);
    assert!(stats.max_batch.load(Relaxed) > 1);
    assert!(stats.max_sync_us.load(Relaxed) > 0);
    assert_eq!(stats.sync_seconds.get_sample_count(), batches);
}

/// All of it in one batch: the writer checks each write against the ones before it, and the last change of a key wins.
#[tokio::test(flavor = "current_thread")]
async fn writes_of_one_machine_share_a_batch() {
    let folder = Folder::new();
    let store = folder.store();
    let mut sample = Sample::new("one");
    let [first, second] = [sample.step(&events(1..=1), Some(1)), sample.step(&events(2..=2), Some(2))];
    let mut late = sample.clone().seeded(7);
    let third = Commit { delete_notifications: vec![1], ..sample.step(&events(3..=3), Some(1)) };
    let note = sample.notification(1);
    let outcomes = tokio::join!(
        store.commit(first.clone()),
        store.put_notification(&sample.key, &note, 5),
        store.commit(second),
        store.commit(third),
        store.commit(late.step(&events(3..=4), Some(6))),
        store.commit(first),
    );
    use Outcome::{Committed, Conflict};
    assert_eq!(outcomes, (Committed, Committed, Committed, Committed, Conflict, Committed));
    sample.assert_stands(&*store, &events(1..=3)).await;
    assert_eq!((due_times(&*store).await, entry_ids(&*store, &sample.key).await), (vec![1], vec![]));
    store.close().await;
    let store = folder.store();
    sample.assert_stands(&*store, &events(1..=3)).await;
    assert_eq!((due_times(&*store).await, entry_ids(&*store, &sample.key).await), (vec![1], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_engine_is_fatal_and_leaves_its_batch_unknown() {
    let folder = Folder::new();
    let store = folder.store();
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &events(1..=1), None).await;
    store.fault.store(true, Relaxed);
    let mut ahead = sample.clone();
    let pending = ahead.step(&[], None);
    let outcome = store.commit(pending.clone()).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    assert!(matches!(store.failure().await, StorageError::Unavailable(_)));
    // The engine may be well again, but nobody can know what became of that batch.
    store.fault.store(false, Relaxed);
    let again = store.commit(pending).await;
    assert!(matches!(again, Outcome::Unknown(_)), "put again: {again:?}");
    let fresh = store.commit(ahead.step(&[], None)).await;
    assert!(matches!(fresh, Outcome::Refused(_)), "never queued before: {fresh:?}");
    let refused = store.put_notification(&sample.key, &sample.notification(1), 1).await;
    assert!(matches!(refused, Outcome::Refused(_)), "never queued before: {refused:?}");
    sample.assert_stands(&*store, &events(1..=1)).await;
    store.close().await;
    folder.store();
}

#[tokio::test]
async fn a_record_that_can_not_be_read_stops_its_own_machine_only() {
    let folder = Folder::new();
    let store = folder.store();
    let (mut broken, mut sound) = (Sample::new("broken"), Sample::new("sound"));
    broken.commit_step(&*store, &[], None).await;
    {
        let opened = store.opened.read().unwrap();
        let machines = &opened.as_ref().unwrap().engine.machines;
        machines.insert(keys::machine(&broken.key), [99]).unwrap();
    }
    assert!(matches!(store.read(&broken.key, None).await, Err(StorageError::Corrupt(_))));
    let outcome = store.commit(broken.step(&[], None)).await;
    assert!(matches!(outcome, Outcome::Refused(StorageError::Corrupt(_))), "{outcome:?}");
    sound.commit_step(&*store, &events(1..=1), None).await;
}

#[tokio::test]
async fn a_namespace_too_long_to_be_a_key_is_refused() {
    let folder = Folder::new();
    let store = folder.store();
    let mut sample = Sample::named(&"n".repeat(LONGEST_NAMESPACE + 1), b"id");
    let outcome = store.commit(sample.step(&[], None)).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert!(store.read(&sample.key, None).await.is_err());
    Sample::named(&"n".repeat(LONGEST_NAMESPACE), b"id").commit_step(&*store, &[], None).await;
}
