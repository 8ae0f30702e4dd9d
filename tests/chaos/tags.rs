//! Machines that race for tags: one of them has each in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use machinegun::clock::Clock;
use machinegun::wire::{Exception, MachineStatus};

use super::client::{is_refusal, is_unknown, seen};
use super::cluster::{Cluster, PATIENCE_MS};
use crate::crash::life::read;
use crate::process::peer::{Failure, Peer};
use crate::process::processor::{Order, text};

const RIVALS: usize = 3;

/// The machines that raced for one tag.
pub struct Race {
    tag: String,
    rivals: Vec<String>,
    /// Who was told that it has the tag.
    told: Vec<String>,
}

/// Races one after the other, until told to stop.
pub async fn race(ns: &str, number: u64, cluster: Arc<Cluster>, enough: Arc<AtomicBool>) -> Vec<Race> {
    let (clock, mut races) = (Clock::system(), Vec::new());
    while !enough.load(Ordering::SeqCst) {
        let tag = format!("tag-{number}-{}", races.len());
        let rivals: Vec<String> = (0..RIVALS).map(|it| format!("{tag}-rival-{it}")).collect();
        for id in &rivals {
            loop {
                let peer = cluster.peer().await.in_namespace(ns);
                match peer.start(id, &Order::plain(id.as_str())).await {
                    Ok(()) | Err(Failure::Thrown(Exception::MachineAlreadyExists)) => break,
                    Err(failure) => assert!(is_refusal(&failure) || is_unknown(&failure), "{id}: {failure:?}"),
                }
            }
        }
        let calls = rivals.iter().map(async |id| {
            let order = Order { tag: Some(tag.clone()), ..Order::plain(format!("{id}-claims")) };
            let peer = cluster.peer().await.in_namespace(ns);
            match peer.call(id, &order).await {
                Ok(()) => Some(id.clone()),
                Err(Failure::Thrown(Exception::MachineFailed)) => None,
                Err(failure) => {
                    assert!(is_refusal(&failure) || is_unknown(&failure), "{id}: {failure:?}");
                    None
                }
            }
        });
        let told = join_all(calls).await.into_iter().flatten().collect();
        races.push(Race { tag, rivals, told });
        clock.sleep_until(clock.now() + 100).await;
    }
    // What was begun in the last race is over by then.
    clock.sleep_until(clock.now() + PATIENCE_MS).await;
    races
}

// === impl Race ===

impl Race {
    /// At most one rival has the tag, it is the one that was told so, and the tag leads to it. True: one has it.
    pub async fn has_one_winner(&self, peer: &Peer) -> bool {
        assert!(self.told.len() <= 1, "{}: {:?} were told that it is theirs", self.tag, self.told);
        let mut winners = Vec::new();
        for id in &self.rivals {
            let found = seen(peer, id).await.expect("the machine");
            let claimed = read(&found).iter().any(|event| text(&event.data).contains("-claims/"));
            if claimed && !matches!(found.status, Some(MachineStatus::Failed(_))) {
                winners.push(id.clone());
            }
        }
        assert!(winners.len() <= 1, "{}: {winners:?} have it", self.tag);
        if let [told] = &self.told[..] {
            assert_eq!(winners, std::slice::from_ref(told), "{}", self.tag);
        }
        let tagged = peer.tagged(&self.tag).await.expect("an answer");
        assert_eq!(tagged.as_deref(), winners.first().map(String::as_str), "{}: whom it leads to", self.tag);
        !winners.is_empty()
    }
}
