//! What becomes of shards, and of their machines' steps, on the way from one instance to another.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use machinegun::storage::Storage;
use machinegun::wire::{Call, ProcessCall, ProcessSignal, Start, Value};

use crate::fleet::{LEASE_MS, SHARDS};
use crate::link::{Link, Trap, Way};
use crate::live::processor::{signed, to_call, to_signal};
use crate::live::{self, Callee, NAMESPACE, PATIENCE, id, result};
use crate::town::Town;

const ALL: u64 = SHARDS as u64;

/// A town of one service, with a machine in each shard, and of another whose way to the storage is not open yet.
async fn before_another_joins() -> (Town, Callee, Vec<String>, Arc<Link>) {
    let (mut town, mut callee) = Town::new();
    // A step may take much longer than a lease.
    town.shutdown_timeout = Duration::from_secs(600);
    town.fill(1).await;
    let machines = town.id_in_each_shard();
    for machine in &machines {
        let args = live::start(machine, "args");
        let starting = town.ask::<Start>(0, &[], &args);
        tokio::join!(starting, callee.answer::<ProcessSignal>(|_| to_signal(signed("started"))));
    }
    let link = Link::new(town.storage.clone());
    link.set(Way::Frozen);
    town.build(link.clone()).await;
    (town, callee, machines, link)
}

fn owned(all: &[serde_json::Value]) -> u64 {
    all.iter().filter_map(|it| it["owned"].as_u64()).sum()
}

/// Calls all machines; `then` goes on when the processor works on all of them, and they are answered behind it.
async fn during_a_step_of_each(town: &Town, callee: &mut Callee, machines: &[String], then: impl Future<Output = ()>) {
    let deadline = town.deadline(600);
    let headers = [("woody.deadline", &deadline[..])];
    let calls = machines.iter().map(async |machine| {
        let args = live::to(id(machine), "go");
        town.ask::<Call>(0, &headers, &args).await
    });
    let meanwhile = async {
        let running = format!("machinegun_steps_in_flight{{namespace=\"{NAMESPACE}\"}}");
        while town.metric(0, &running).await < machines.len() as u64 {}
        then.await;
        for _ in machines {
            callee.answer::<ProcessCall>(|_| to_call(signed("x"))).await;
        }
    };
    let (answers, ()) = tokio::join!(join_all(calls), meanwhile);
    for answer in answers {
        assert_eq!(result::<Call>(&answer), Ok(Value::str("done")));
    }
}

#[tokio::test]
async fn a_long_step_keeps_no_shard_from_its_next_owner_for_longer_than_half_a_lease() {
    let (town, mut callee, machines, link) = before_another_joins().await;
    let moving = async {
        link.set(Way::Open);
        town.until(|all| owned(all) < ALL).await;
        let began = town.now();
        town.until(|all| owned(all) == ALL && all[1]["owned"] == ALL / 2).await;
        assert!(town.now() - began < LEASE_MS, "{}", town.now() - began);
    };
    during_a_step_of_each(&town, &mut callee, &machines, moving).await;
}

#[tokio::test]
async fn a_shard_is_kept_when_who_should_have_it_dies_before_it_is_free() {
    let (town, mut callee, machines, link) = before_another_joins().await;
    let moving = async {
        let leases = town.storage.leases().expect("shared");
        link.set(Way::Open);
        while leases.heartbeats().await.expect("memory").len() < 2 {
            town.hand.advance(Duration::from_millis(1));
            town.until(|_| true).await;
        }
        // Its first sign of life is its last.
        link.set(Way::Frozen);
        town.until(|all| owned(all) < ALL).await;
        let began = town.now();
        town.until(|all| all[0]["owned"] == ALL).await;
        // Long before anybody could have been declared dead.
        assert!(town.now() - began < LEASE_MS * 4 / 5, "{}", town.now() - began);
        assert_eq!(leases.heartbeats().await.expect("memory").len(), 2);
        let owners = leases.owners().await.expect("memory");
        let first = owners[0].instance;
        assert!(owners.iter().all(|owner| owner.instance == first), "{owners:?}");
    };
    during_a_step_of_each(&town, &mut callee, &machines, moving).await;
}

/// Half of it goes on otherwise: leases that are renewed for shards that nobody gives away, or an instance that takes
/// no steps and never joins anew.
#[tokio::test]
async fn a_service_ends_when_what_keeps_its_leases_has_failed() {
    for trap in [Trap::Owners, Trap::Beat] {
        let (mut town, _callee) = Town::of(1).await;
        let link = Link::new(town.storage.clone());
        town.build(link.clone()).await;
        town.until(|all| owned(all) == ALL && all.iter().all(|it| it["owned"].as_u64() == Some(ALL / 2))).await;
        let failing = town.houses.pop().expect("two");
        link.spring(trap);
        let ended = async {
            let ended = failing.wait();
            tokio::pin!(ended);
            loop {
                tokio::select! {
                    biased;
                    ended = &mut ended => return ended,
                    () = tokio::task::yield_now() => town.hand.advance(Duration::from_millis(10)),
                }
            }
        };
        let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it ends");
        let error = ended.expect_err("not in order").to_string();
        assert!(error.contains("leases") && error.contains("restarted"), "{trap:?}: {error}");
        town.until(|all| owned(all) == ALL).await;
    }
}
