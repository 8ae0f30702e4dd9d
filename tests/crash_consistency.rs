//! What the embedded store owes after a crash: every acknowledged commit, whole, with its tag and its ledgers' entries.
//!
//! A process is killed in the middle of its writes, journals are cut and garbled behind the store's back. The tail may
//! go, for nobody was told of it; what was acknowledged before it stands, or the store says plainly that it is damaged.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use machinegun::machine::MachineKey;
use machinegun::storage::contract::ledgers::{all_entries, entered, verified, wire_event};
use machinegun::storage::contract::sample::{Sample, all_dues, entry_ids, events, read};
use machinegun::storage::contract::tags::holder;
use machinegun::storage::embedded::{Embedded, EmbeddedOptions};
use machinegun::storage::{Outcome, Storage};
use machinegun::wire::Value;
use tempfile::TempDir;

/// Names the folder for the process that is going to be killed.
const CHILD_FOLDER: &str = "MACHINEGUN_TEST_CRASH_FOLDER";

const WRITERS: usize = 8;

/// What the process that is killed enters its events in.
const LEDGERS: [&str; 2] = ["all", "another"];

/// Every tenth is larger than the others.
fn event(id: i64) -> Bytes {
    wire_event(id, if id % 10 == 0 { Value::str(&"7".repeat(20_000)) } else { Value::int(id) })
}

/// A folder on a real disk, where the build is, rather than in memory.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Small tables, so that they are written out and merged while the process runs.
fn options(path: &Path) -> EmbeddedOptions {
    EmbeddedOptions {
        free_space_reserve: 0,
        cache_size: 8 << 20,
        memtable_size: 128 << 10,
        ..EmbeddedOptions::new(path)
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &to) } else { fs::copy(entry.path(), to).map(drop).unwrap() }
    }
}

fn newest_journal(store: &Path) -> PathBuf {
    let journals = fs::read_dir(store.join("data")).unwrap().map(|entry| entry.unwrap().path());
    let journals = journals.filter(|path| path.extension().is_some_and(|it| it == "jnl"));
    let number = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    journals.max_by_key(number).unwrap()
}

/// One machine's commits, each a batch of its own, and where the journal ended when each was acknowledged.
struct Journal {
    folder: TempDir,
    sample: Sample,
    ends: Vec<u64>,
}

// === impl Journal ===

impl Journal {
    async fn written(commits: i64) -> Self {
        let folder = folder();
        let path = folder.path().join("store");
        // Opened anew, the journal has no zeros at its end: its length tells where the last batch ended.
        Embedded::open(options(&path)).unwrap().close().await;
        let store = Embedded::open(options(&path)).unwrap();
        let mut sample = Sample::new("one");
        let mut ends = Vec::new();
        for step in 1..=commits {
            sample.commit_step(&*store, &events(step..=step), Some(step)).await;
            ends.push(fs::metadata(newest_journal(&path)).unwrap().len());
        }
        assert!(ends.is_sorted_by(|a, b| a < b), "{ends:?}");
        store.close().await;
        Self { folder, sample, ends }
    }

    /// A copy whose newest journal was changed, opened: how many commits stand, or the line that says why it is refused.
    async fn changed(&self, change: impl FnOnce(&Path)) -> Result<usize, String> {
        let copied = folder();
        let path = copied.path().join("store");
        copy(&self.folder.path().join("store"), &path);
        change(&newest_journal(&path));
        let store = match Embedded::open(options(&path)) {
            Ok(store) => store,
            Err(refusal) => {
                let line = refusal.to_string();
                assert!(!line.contains('\n') && line.contains("is damaged: "), "{line}");
                return Err(line);
            }
        };
        let last = read(&*store, &self.sample.key).await.map_or(0, |loaded| {
            // Whole up to the last, and nothing of what comes after it.
            assert_eq!(loaded.events, events(1..=loaded.record.last_event));
            loaded.record.last_event
        });
        let dues: Vec<i64> = all_dues(&*store).await.into_iter().map(|(at, _)| at).collect();
        assert_eq!(dues, (last..=last).filter(|at| *at > 0).collect::<Vec<_>>());
        // The store goes on from there, and that lasts too.
        let mut other = Sample::new("other");
        other.commit_step(&*store, &events(1..=1), None).await;
        store.close().await;
        let store = Embedded::open(options(&path)).unwrap();
        other.assert_stands(&*store, &events(1..=1)).await;
        assert_eq!(read(&*store, &self.sample.key).await.map_or(0, |loaded| loaded.record.last_event), last);
        store.close().await;
        Ok(usize::try_from(last).unwrap())
    }

    /// The commits that were acknowledged before the journal reached `length`.
    fn acknowledged_within(&self, length: u64) -> usize {
        self.ends.iter().filter(|end| **end <= length).count()
    }
}

fn garble(journal: &Path, at: u64) {
    let mut bytes = fs::read(journal).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 0xff;
    fs::write(journal, bytes).unwrap();
}

fn append(journal: &Path, bytes: &[u8]) {
    let mut all = fs::read(journal).unwrap();
    all.extend_from_slice(bytes);
    fs::write(journal, all).unwrap();
}

#[tokio::test]
async fn a_journal_cut_off_anywhere_keeps_every_commit_before_the_cut() {
    let journal = Journal::written(6).await;
    let (first, end) = (journal.ends[3], journal.ends[5]);
    for cut in (first..=end).rev().step_by(29).chain([first, first + 1, journal.ends[4], journal.ends[4] - 1]) {
        let stand = journal.changed(|path| fs::File::options().write(true).open(path).unwrap().set_len(cut).unwrap());
        assert_eq!(stand.await, Ok(journal.acknowledged_within(cut)), "cut to {cut}");
    }
}

#[tokio::test]
async fn a_torn_batch_behind_the_last_is_dropped() {
    let journal = Journal::written(4).await;
    let whole = fs::read(newest_journal(&journal.folder.path().join("store"))).unwrap();
    let last = &whole[usize::try_from(journal.ends[2]).unwrap()..usize::try_from(journal.ends[3]).unwrap()];
    // The beginning of a batch, then zeros as a journal is made of, then nothing but zeros, then noise.
    let torn = [
        last[..last.len() / 2].to_vec(),
        [&last[..last.len() / 2], &[0; 5_000]].concat(),
        vec![0; 100_000],
        b"noise".repeat(9),
        [&[0; 13], &last[13..]].concat(),
    ];
    for tail in torn {
        assert_eq!(journal.changed(|path| append(path, &tail)).await, Ok(4), "{} bytes", tail.len());
    }
}

/// Keys and values may hold any bytes: a torn batch whose inside looked like the head of another was taken for damage,
/// and a healthy store refused to open after a crash.
#[tokio::test]
async fn a_torn_batch_whose_inside_looks_like_a_later_head_is_dropped() {
    let journal = Journal::written(4).await;
    let whole = fs::read(newest_journal(&journal.folder.path().join("store"))).unwrap();
    let last = &whole[usize::try_from(journal.ends[2]).unwrap()..usize::try_from(journal.ends[3]).unwrap()];
    for sequence in [1_u64, 100, 5_000, 1 << 20] {
        let head = [&[1, 1, 0, 0, 0][..], &sequence.to_le_bytes(), &[2]].concat();
        let inside = [&last[..last.len() / 2], &head.repeat(50)].concat();
        for zeros in [0, 70_000] {
            let tail = [&inside[..], &vec![0; zeros]].concat();
            let stand = journal.changed(|path| append(path, &tail)).await;
            assert_eq!(stand, Ok(4), "sequence {sequence}, {zeros} zeros behind");
        }
    }
}

#[tokio::test]
async fn a_garbled_last_batch_costs_no_commit_before_it() {
    let journal = Journal::written(5).await;
    for at in (journal.ends[3]..journal.ends[4]).step_by(5) {
        let stand = journal.changed(|path| garble(path, at)).await;
        assert!(stand.as_ref().map_or(true, |stand| *stand >= 4), "byte {at}: {stand:?}");
    }
}

#[tokio::test]
async fn damage_before_acknowledged_commits_is_refused_not_passed_over() {
    let journal = Journal::written(5).await;
    for at in (journal.ends[1]..journal.ends[3]).step_by(7) {
        let stand = journal.changed(|path| garble(path, at)).await;
        assert!(stand.is_err(), "byte {at} was garbled, and {stand:?} commits of 5 stand");
    }
    let (from, to) = (journal.ends[1], journal.ends[2]);
    let lost_page = journal.changed(|path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()].fill(0);
        fs::write(path, bytes).unwrap();
    });
    assert!(lost_page.await.is_err());
}

/// The process that is killed: it prints a line for each commit that was acknowledged, until it is no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_is_killed() {
    let Some(path) = std::env::var_os(CHILD_FOLDER) else { return };
    let store: Arc<dyn Storage> = Embedded::open(options(Path::new(&path))).unwrap();
    let writers = (0..WRITERS).map(|number| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut sample = Sample::new(&format!("machine {number}"));
            sample.record = read(&*store, &sample.key).await.map(|loaded| loaded.record);
            // Other commit ids than in the lives before.
            let life = sample.record.as_ref().map_or(0, |record| record.last_event);
            sample = sample.seeded(u8::try_from(life % 251).unwrap() + 1);
            loop {
                let next = sample.record.as_ref().map_or(0, |record| record.last_event) + 1;
                let put = store.put_notification(&sample.key, &sample.notification(next), next).await;
                assert_eq!(put, Outcome::Committed);
                let mut commit = entered(&mut sample, &[event(next)], &LEDGERS);
                commit.tag = Some(format!("{number} {next}").into());
                // All but the newest entry go with their commit.
                commit.delete_notifications = vec![next - 1];
                assert_eq!(store.commit(commit).await, Outcome::Committed);
                println!("\nacknowledged {number} {next}");
            }
        })
    });
    for writer in writers.collect::<Vec<tokio::task::JoinHandle<()>>>() {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn every_acknowledged_commit_survives_a_kill() {
    let folder = folder();
    let path = folder.path().join("store");
    let mut before = [0_i64; WRITERS];
    for round in 1..=3_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed", "--nocapture"])
            .env(CHILD_FOLDER, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = before;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        // Killed in the midst of it; what it had printed until then is read to its end.
        while let Some(Ok(line)) = lines.next() {
            let Some((writer, step)) = line.strip_prefix("acknowledged ").and_then(|it| it.split_once(' ')) else {
                continue;
            };
            let (Ok(writer), Ok(step)) = (writer.parse::<usize>(), step.parse::<i64>()) else { continue };
            acknowledged[writer] = acknowledged[writer].max(step);
            seen += 1;
            if seen == 150 * round {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success());
        assert!(seen >= 150 * round, "round {round} saw {seen}");

        let store = Embedded::open(options(&path)).unwrap();
        let mut committed: BTreeMap<MachineKey, Vec<Bytes>> = BTreeMap::new();
        for (number, acknowledged) in acknowledged.into_iter().enumerate() {
            let sample = Sample::new(&format!("machine {number}"));
            let loaded = read(&*store, &sample.key).await;
            let last = loaded.as_ref().map_or(0, |loaded| loaded.record.last_event);
            // One more may have been written and not told.
            assert!((acknowledged..=acknowledged + 1).contains(&last), "{number}: {acknowledged} told, {last} stand");
            for (id, stored) in (1..).zip(loaded.iter().flat_map(|loaded| &loaded.events)) {
                assert!(*stored == event(id), "event {id} of {number} has changed");
            }
            let tagged = holder(&*store, &sample, format!("{number} {last}").as_bytes()).await;
            assert_eq!(tagged, loaded.as_ref().map(|_| sample.key.id.clone()));
            assert_eq!(holder(&*store, &sample, format!("{number} {}", last + 1).as_bytes()).await, None);
            committed.insert(sample.key.clone(), loaded.map(|loaded| loaded.events).unwrap_or_default());
            let entries = entry_ids(&*store, &sample.key).await;
            assert!(entries == [last] || entries == [last, last + 1] || entries == [1], "{entries:?} at {last}");
            before[number] = last;
        }
        // Each committed event once, in its machine's order, and nothing else: what was not committed was not entered.
        committed.retain(|_, events| !events.is_empty());
        for sink in LEDGERS {
            assert_eq!(verified(&*store, sink).await.last, before.iter().sum::<i64>());
            let mut seen: BTreeMap<MachineKey, Vec<Bytes>> = BTreeMap::new();
            for entry in all_entries(&*store, sink).await {
                seen.entry(entry.source).or_default().push(entry.event);
            }
            assert!(seen == committed, "round {round}: the ledger {sink} is not what was committed");
        }
        store.close().await;
    }
}
