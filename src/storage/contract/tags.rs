//! Tags: a machine's second name, held by one machine that exists.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::future::join_all;

use super::Subject;
use super::sample::{Sample, committed, conflicts, due_times, events, read};
use crate::machine::MachineId;
use crate::storage::{Commit, LONGEST_TAG, Outcome, Storage};

/// The sample's next step, with one event, claims a tag.
pub fn claim(sample: &mut Sample, tag: &[u8]) -> Commit {
    let next = sample.record.as_ref().filter(|record| record.exists()).map_or(0, |record| record.last_event) + 1;
    Commit { tag: Some(Bytes::copy_from_slice(tag)), ..sample.step(&events(next..=next), Some(next)) }
}

pub async fn holder(store: &dyn Storage, of: &Sample, tag: &[u8]) -> Option<MachineId> {
    store.tagged(&of.key.ns, tag).await.expect("a tag is looked up")
}

pub async fn a_tag_finds_the_machine_that_claimed_it(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let (mut one, mut two) = (Sample::new("one"), Sample::new("two"));
    assert_eq!(holder(&*store, &one, b"tag").await, None);
    committed(&*store, claim(&mut one, b"tag")).await;
    committed(&*store, claim(&mut one, b"another")).await;
    committed(&*store, claim(&mut two, b"ta")).await;
    for (tag, expected) in
        [(&b"tag"[..], Some(&one)), (b"another", Some(&one)), (b"ta", Some(&two)), (b"tags", None), (b"", None)]
    {
        assert_eq!(holder(&*store, &one, tag).await, expected.map(|it| it.key.id.clone()), "{tag:?}");
    }
    one.assert_stands(&*store, &events(1..=2)).await;
}

pub async fn a_tag_of_another_machine_is_taken_and_nothing_is_written(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let (mut one, mut two) = (Sample::new("one"), Sample::new("two"));
    committed(&*store, claim(&mut one, b"tag")).await;
    // Over nothing, and over a record.
    for _ in 0..2 {
        let before = two.clone();
        let stood = read(&*store, &two.key).await;
        let dues = due_times(&*store).await;
        assert_eq!(store.commit(claim(&mut two, b"tag")).await, Outcome::TagTaken);
        assert_eq!(read(&*store, &two.key).await, stood);
        assert_eq!(due_times(&*store).await, dues);
        assert_eq!(holder(&*store, &one, b"tag").await, Some(one.key.id.clone()));
        // The machine takes its step without the tag.
        two = before;
        two = two.seeded(9);
        two.commit_step(&*store, &events(1..=1), Some(6)).await;
    }
}

pub async fn a_machine_claims_its_own_tag_again(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut one = Sample::new("one");
    for _ in 0..3 {
        committed(&*store, claim(&mut one, b"tag")).await;
    }
    committed(&*store, one.removal(7)).await;
    committed(&*store, claim(&mut one, b"tag")).await;
    assert_eq!(holder(&*store, &one, b"tag").await, Some(one.key.id.clone()));
}

pub async fn a_tag_outlives_its_machine_until_another_claims_it(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let (mut one, mut two, mut three) = (Sample::new("one"), Sample::new("two"), Sample::new("three"));
    committed(&*store, claim(&mut one, b"tag")).await;
    committed(&*store, one.removal(7)).await;
    assert_eq!(holder(&*store, &one, b"tag").await, Some(one.key.id.clone()));
    committed(&*store, claim(&mut two, b"tag")).await;
    assert_eq!(holder(&*store, &one, b"tag").await, Some(two.key.id.clone()));
    // Whoever comes again finds it taken now.
    assert_eq!(store.commit(claim(&mut one, b"tag")).await, Outcome::TagTaken);
    committed(&*store, two.forgetting()).await;
    assert_eq!(holder(&*store, &one, b"tag").await, Some(two.key.id.clone()));
    committed(&*store, claim(&mut three, b"tag")).await;
    assert_eq!(holder(&*store, &one, b"tag").await, Some(three.key.id.clone()));
}

pub async fn tags_of_namespaces_do_not_mix(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut samples = [Sample::named("a", b"1"), Sample::named("ab", b"2"), Sample::named("a/b", b"3")];
    for (sample, tag) in samples.iter_mut().zip([&b"bc"[..], b"c", b"c"]) {
        committed(&*store, claim(sample, tag)).await;
    }
    let [one, two, three] = samples;
    assert_eq!(holder(&*store, &one, b"bc").await, Some(one.key.id.clone()));
    assert_eq!(holder(&*store, &one, b"c").await, None);
    assert_eq!(holder(&*store, &two, b"c").await, Some(two.key.id.clone()));
    assert_eq!(holder(&*store, &three, b"c").await, Some(three.key.id.clone()));
}

pub async fn a_conflict_claims_no_tag(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let (mut one, mut two) = (Sample::new("one"), Sample::new("two"));
    one.commit_step(&*store, &[], None).await;
    conflicts(&*store, claim(&mut Sample::new("one").seeded(4), b"tag")).await;
    assert_eq!(holder(&*store, &one, b"tag").await, None);
    committed(&*store, claim(&mut two, b"tag")).await;
    // A conflict is said before a taken tag.
    conflicts(&*store, claim(&mut Sample::new("one").seeded(4), b"tag")).await;
}

pub async fn a_claim_put_again_is_committed(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let (mut one, mut two) = (Sample::new("one"), Sample::new("two"));
    let first = claim(&mut one, b"tag");
    committed(&*store, first.clone()).await;
    committed(&*store, first.clone()).await;
    committed(&*store, one.removal(7)).await;
    committed(&*store, claim(&mut two, b"tag")).await;
    // It was done once; it is not done again.
    committed(&*store, first).await;
    assert_eq!(holder(&*store, &one, b"tag").await, Some(two.key.id.clone()));
}

pub async fn a_tag_may_be_any_bytes_up_to_the_longest(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut one = Sample::new("one");
    for tag in [vec![], vec![0], vec![0, 255], vec![7; LONGEST_TAG]] {
        committed(&*store, claim(&mut one, &tag)).await;
        assert_eq!(holder(&*store, &one, &tag).await, Some(one.key.id.clone()), "{tag:?}");
    }
    let before = one.clone();
    let too_long = vec![7; LONGEST_TAG + 1];
    assert!(matches!(store.commit(claim(&mut one, &too_long)).await, Outcome::Refused(_)));
    before.assert_stands(&*store, &events(1..=4)).await;
    assert_eq!(holder(&*store, &one, &too_long).await, None);
}

/// A thousand times, many races at once, so that both of a pair come to stand in one batch of writes.
pub async fn of_two_machines_that_race_for_a_tag_one_wins(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    for start in (0..1_000).step_by(50) {
        let races = (start..start + 50).map(|race| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let tag = format!("tag {race}");
                let rivals = ["left", "right"].map(|side| Sample::new(&format!("{side} {race}")));
                let claims = rivals.map(|mut rival| {
                    let (store, commit) = (Arc::clone(&store), claim(&mut rival, tag.as_bytes()));
                    tokio::spawn(async move { (store.commit(commit).await, rival) })
                });
                let ended = join_all(claims).await.into_iter().map(|claim| claim.expect("a claim ends"));
                let (won, lost): (Vec<_>, Vec<_>) = ended.partition(|(outcome, _)| *outcome == Outcome::Committed);
                let ([(_, won)], [(outcome, lost)]) = (&won[..], &lost[..]) else {
                    panic!("{} have won race {race}", won.len());
                };
                assert_eq!(*outcome, Outcome::TagTaken);
                assert_eq!(holder(&*store, won, tag.as_bytes()).await, Some(won.key.id.clone()));
                won.assert_stands(&*store, &events(1..=1)).await;
                assert_eq!(read(&*store, &lost.key).await, None);
            })
        });
        for race in join_all(races.collect::<Vec<_>>()).await {
            race.expect("a race has one winner");
        }
    }
    assert_eq!(due_times(&*store).await.len(), 1_000);
}

/// A commit is seen whole or not at all, by who looks just while it is applied.
pub async fn a_reader_never_finds_a_tag_without_its_machine(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let done = Arc::new(AtomicBool::new(false));
    let started = Arc::new(AtomicI64::new(0));
    let readers = (0..3).map(|_| {
        let (store, done, started) = (Arc::clone(&store), Arc::clone(&done), Arc::clone(&started));
        tokio::spawn(async move {
            while !done.load(Relaxed) {
                let sample = Sample::new(&format!("machine {}", started.load(Relaxed)));
                if holder(&*store, &sample, sample.key.id.as_bytes()).await.is_some() {
                    assert!(read(&*store, &sample.key).await.is_some(), "{:?}", sample.key);
                }
                tokio::task::yield_now().await;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    for number in 0..150 {
        started.store(number, Relaxed);
        let mut sample = Sample::new(&format!("machine {number}"));
        let tag = sample.key.id.as_bytes().to_vec();
        committed(&*store, claim(&mut sample, &tag)).await;
    }
    done.store(true, Relaxed);
    for reader in join_all(readers).await {
        reader.expect("a reader sees whole commits only");
    }
}
