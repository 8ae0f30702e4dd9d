//! Listings: every machine once, in one order, in pages that lose nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::Subject;
use super::sample::{Sample, committed};
use crate::machine::{MachineId, MachineKey, Namespace, Phase, Status, StatusKind};
use crate::storage::{Listed, Listing, Storage};

/// More pages than any of these listings has.
const ENOUGH: usize = 2_000;

fn of(ns: &str) -> Listing {
    Listing { ns: Some(Namespace::new(ns)), ..Listing::default() }
}

async fn listed_from(store: &dyn Storage, of: &Listing, mut after: Option<Bytes>, limit: usize) -> Vec<Listed> {
    let mut found = Vec::new();
    for _ in 0..ENOUGH {
        let page = store.machines(of, after.as_ref(), limit).await.expect("machines are listed");
        assert!(page.machines.len() <= limit);
        found.extend(page.machines);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
    panic!("the listing does not end");
}

async fn listed(store: &dyn Storage, of: &Listing, limit: usize) -> Vec<Listed> {
    listed_from(store, of, None, limit).await
}

/// Each once, whatever the order.
fn keys(found: &[Listed]) -> BTreeSet<MachineKey> {
    let keys: BTreeSet<_> = found.iter().map(|it| it.key.clone()).collect();
    assert_eq!(keys.len(), found.len(), "some machine is listed twice: {found:?}");
    keys
}

/// A machine in this status.
async fn machine(store: &dyn Storage, ns: &str, id: &[u8], status: StatusKind) -> Sample {
    let mut sample = Sample::named(ns, id);
    let commit = match status {
        StatusKind::Sleeping => sample.step(&[], None),
        StatusKind::Waiting => sample.step(&[], Some(1 << 50)),
        StatusKind::Retrying => sample.step_with(&[], |record| {
            record.status = Status::Working(Phase::Retrying { attempt: 0, at: 1 << 50, since: None });
        }),
        StatusKind::Failed => sample.step_with(&[], |record| {
            record.status = Status::Failed { reason: "it broke".to_owned(), before: Phase::Idle };
        }),
        StatusKind::Removed => {
            sample.commit_step(store, &[], None).await;
            sample.removal(0)
        }
    };
    committed(store, commit).await;
    assert_eq!(sample.record().kind(), status);
    sample
}

async fn machines(store: &dyn Storage, ns: &str, names: std::ops::Range<usize>) -> Vec<Sample> {
    let made = stream::iter(names).map(|name| async move {
        machine(store, ns, format!("machine {name}").as_bytes(), StatusKind::ALL[name % 5]).await
    });
    made.buffered(16).collect().await
}

pub async fn every_machine_is_listed_once_in_one_order(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    assert_eq!(listed(&*store, &of("ns"), 3).await, vec![]);
    let samples = machines(&*store, "ns", 0..25).await;
    machines(&*store, "other", 0..5).await;
    let found = listed(&*store, &of("ns"), 100).await;
    assert_eq!(keys(&found), samples.iter().map(|sample| sample.key.clone()).collect());
    for Listed { key, status } in &found {
        let sample = samples.iter().find(|sample| sample.key == *key).expect("it was made");
        assert_eq!(sample.record().kind(), *status);
    }
    for limit in [1, 2, 7, 25] {
        assert_eq!(listed(&*store, &of("ns"), limit).await, found, "in pages of {limit}");
    }
}

pub async fn machines_are_listed_by_status(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut samples = machines(&*store, "ns", 0..15).await;
    for status in StatusKind::ALL {
        let found = listed(&*store, &Listing { status: Some(status), ..of("ns") }, 2).await;
        assert!(found.iter().all(|it| it.status == status), "{found:?}");
        let expected = samples.iter().filter(|sample| sample.record().kind() == status);
        assert_eq!(keys(&found), expected.map(|sample| sample.key.clone()).collect(), "{status:?}");
    }
    // One that changes its status moves, and one that is forgotten is listed no more.
    let key = samples[0].key.clone();
    samples[0].commit_step(&*store, &[], Some(1 << 50)).await;
    let waiting = Listing { status: Some(StatusKind::Waiting), ..of("ns") };
    assert!(keys(&listed(&*store, &waiting, 2).await).contains(&key));
    let sleeping = Listing { status: Some(StatusKind::Sleeping), ..of("ns") };
    assert!(!keys(&listed(&*store, &sleeping, 2).await).contains(&key));
    committed(&*store, samples[0].forgetting()).await;
    assert!(!keys(&listed(&*store, &of("ns"), 4).await).contains(&key));
}

pub async fn namespaces_are_listed_apart_and_together(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let names = ["a", "ab", "a/b", "", "abc"];
    let mut all = BTreeSet::new();
    for ns in names {
        for id in ["b", "bc", "c"] {
            all.insert(machine(&*store, ns, id.as_bytes(), StatusKind::Sleeping).await.key);
        }
    }
    for ns in names {
        let expected = all.iter().filter(|key| key.ns.as_str() == ns).cloned().collect();
        assert_eq!(keys(&listed(&*store, &of(ns), 2).await), expected, "{ns:?}");
    }
    assert_eq!(keys(&listed(&*store, &Listing::default(), 4).await), all);
    assert_eq!(listed(&*store, &of("ab/"), 2).await, vec![]);
}

pub async fn a_cursor_stays_good_when_machines_come_and_go(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut samples = machines(&*store, "ns", 0..20).await;
    let page = store.machines(&of("ns"), None, 7).await.expect("machines are listed");
    // All that was listed goes, and so do some of the others; others come.
    let seen = keys(&page.machines);
    let mut left = BTreeSet::new();
    for (number, sample) in samples.iter_mut().enumerate() {
        if seen.contains(&sample.key) || number % 3 == 0 {
            committed(&*store, sample.forgetting()).await;
        } else {
            left.insert(sample.key.clone());
        }
    }
    let new: BTreeSet<_> = machines(&*store, "ns", 100..110).await.into_iter().map(|sample| sample.key).collect();
    let rest = keys(&listed_from(&*store, &of("ns"), page.next, 3).await);
    assert!(rest.is_superset(&left), "{rest:?} lacks some of {left:?}");
    assert!(rest.iter().all(|key| left.contains(key) || new.contains(key)), "{rest:?}");
    assert_eq!(keys(&listed(&*store, &of("ns"), 3).await), left.union(&new).cloned().collect());
}

pub async fn the_longest_ids_are_listed(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let mut expected = BTreeSet::new();
    for last in 0..5 {
        let mut id = vec![b'x'; MachineId::LONGEST];
        id[MachineId::LONGEST - 1] = last;
        expected.insert(machine(&*store, "a long namespace", &id, StatusKind::Sleeping).await.key);
    }
    for limit in [1, 2, 9] {
        assert_eq!(keys(&listed(&*store, &of("a long namespace"), limit).await), expected);
    }
}

pub async fn shards_are_listed_apart(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let samples = machines(&*store, "ns", 0..30).await;
    let mut all = BTreeSet::new();
    // More than there are: a shard that is not there is empty.
    for shard in 0..300 {
        let of_shard = keys(&listed(&*store, &Listing { shards: Some(vec![shard]), ..of("ns") }, 4).await);
        assert!(all.is_disjoint(&of_shard));
        all.extend(of_shard);
    }
    assert_eq!(all, samples.iter().map(|sample| sample.key.clone()).collect());
    assert_eq!(keys(&listed(&*store, &Listing { shards: Some((0..300).collect()), ..of("ns") }, 4).await), all);
    assert_eq!(listed(&*store, &Listing { shards: Some(Vec::new()), ..of("ns") }, 4).await, vec![]);
}

pub async fn hundreds_of_machines_are_paged(subject: Arc<impl Subject>) {
    let store = subject.open().await;
    let samples = machines(&*store, "ns", 0..500).await;
    let expected = samples.iter().map(|sample| sample.key.clone()).collect();
    assert_eq!(keys(&listed(&*store, &of("ns"), 64).await), expected);
    let failed = listed(&*store, &Listing { status: Some(StatusKind::Failed), ..of("ns") }, 64).await;
    assert_eq!(keys(&failed).len(), 100);
}
