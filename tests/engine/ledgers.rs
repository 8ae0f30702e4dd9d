//! The ledger as the engine fills it: each committed event once, in one order, chained.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use machinegun::engine::Request;
use machinegun::machine::{Impact, RequestContext};
use machinegun::processor::Ask;
use machinegun::storage::ledger;
use machinegun::wire::{Event, Limits, Reader, Value, Wire};

use crate::faulty::Fault;
use crate::on_every_storage;
use crate::scripted::{done, reply, text};
use crate::world::{self, CLEAR, Mg, World, call, guarded, id};

on_every_storage!(
    conflicts_and_lost_answers_add_nothing,
    removed_machines_stay,
    a_crash_before_the_acknowledgement_is_noted_enters_nothing_twice,
    a_machine_of_another_life_is_entered_behind_the_one_before,
);

const NAMESPACES: usize = 8;
const MACHINES: usize = 4;
const CALLS: usize = 25;

pub fn entered(mg: Mg) -> Mg {
    mg.with(|_, namespace| namespace.ledgers.push("l".to_owned()))
}

/// Namespace, machine, event id and text of each entry.
pub async fn entries(mg: &World) -> Vec<(String, String, i64, String)> {
    let ledger = mg.storage.inner().ledger().unwrap();
    let head = ledger::verify(ledger, "l").await.unwrap();
    assert_eq!(ledger.head("l").await.unwrap(), head);
    let entries = ledger.entries("l", 1, head.last).await.unwrap();
    assert!(entries.iter().map(|entry| ledger::entry_id(entry).unwrap()).eq(1..=head.last));
    entries.iter().map(decode).collect()
}

fn decode(entry: &Bytes) -> (String, String, i64, String) {
    let entry = machinegun::wire::SinkEvent::read(&mut Reader::new(entry.clone(), Limits::default())).unwrap();
    let string = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let Event { id, data, .. } = entry.event;
    (string(&entry.source_ns), string(&entry.source_id), id, text(&data))
}

async fn conflicts_and_lost_answers_add_nothing(mg: Mg) {
    let mg = entered(mg).start().await;
    mg.machine("m", done().event("a")).await;
    mg.storage.then(Fault::Intrude(Box::new(|record| record)));
    mg.processor.then(reply("").event("b")).then(reply("").event("b"));
    mg.call("m", "x").await.unwrap();
    mg.storage.then(Fault::Unknown { applied: true }).then(Fault::Unknown { applied: false });
    mg.processor.then(reply("").event("c"));
    let asked = tokio::spawn(mg.ask("m", call("x")));
    mg.until_later(|| asked.is_finished()).await;
    asked.await.unwrap().unwrap();
    // Steps without events are not entered.
    mg.change("m", reply("").aux("new")).await;
    let texts: Vec<_> = entries(&mg).await.into_iter().map(|(_, _, id, text)| (id, text)).collect();
    assert_eq!(texts, [(1, "a".to_owned()), (2, "b".to_owned()), (3, "c".to_owned())]);
}

async fn removed_machines_stay(mg: Mg) {
    let mg = entered(mg).start().await;
    mg.machine("m", done().event("old")).await;
    mg.ask("m", Impact::Remove).await.unwrap();
    mg.settle().await;
    mg.machine("m", done().event("new")).await;
    let mg = mg.restart(1).await;
    let texts: Vec<_> = entries(&mg).await.into_iter().map(|(_, _, id, text)| (id, text)).collect();
    assert_eq!(texts, [(1, "old".to_owned()), (1, "new".to_owned())]);
}

/// Entered and answered, but the store was not told: where the ledger is a sink, it is delivered again.
async fn a_crash_before_the_acknowledgement_is_noted_enters_nothing_twice(mg: Mg) {
    let mut mg = entered(mg).start().await;
    mg.machine("m", done().event("1")).await;
    mg.machine("other", done().event("1")).await;
    for n in 2..=4 {
        mg.change("m", reply("").event(&n.to_string())).await;
        mg = mg.crash().await;
        // By its due, and by its next step.
        if n == 3 {
            mg.advance(CLEAR as u64);
            mg.settle().await;
        }
    }
    mg.change("m", reply("").event("5")).await;
    let of_m = entries(&mg).await.into_iter().filter(|(_, machine, ..)| machine == "m");
    assert_eq!(of_m.map(|(_, _, id, _)| id).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    mg.advance(CLEAR as u64);
    mg.settle().await;
    mg.until_noted("m").await;
    assert_eq!(entries(&mg).await.len(), 6);
}

async fn a_machine_of_another_life_is_entered_behind_the_one_before(mg: Mg) {
    let mut mg = entered(mg).start().await;
    for life in 1..=3 {
        mg.machine("m", done().event(&format!("born {life}"))).await;
        mg.change("m", reply("").event(&format!("{life}"))).await;
        mg = mg.crash().await;
        mg.ask("m", Impact::Remove).await.unwrap();
    }
    let texts: Vec<_> = entries(&mg).await.into_iter().map(|(_, _, id, text)| (id, text)).collect();
    let expected = (1..=3).flat_map(|life| [(1, format!("born {life}")), (2, format!("{life}"))]);
    assert_eq!(texts, expected.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_namespaces_share_a_ledger_in_memory() {
    guarded(share(world::memory())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_namespaces_share_a_ledger_embedded() {
    guarded(share(world::embedded())).await;
}

#[cfg(feature = "dynamodb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_namespaces_share_a_ledger_on_dynamodb() {
    guarded(async { share(world::dynamodb().await).await }).await;
}

async fn share(mg: Mg) {
    let mut mg = entered(mg);
    mg.others = (1..NAMESPACES).map(|n| format!("ns{n}")).collect();
    let names: Vec<_> = std::iter::once("ns".to_owned()).chain(mg.others.clone()).collect();
    let mg = mg.start().await;
    mg.processor.behave(|question| match &question.ask {
        Ask::Call(args) => reply("").event(&text(args)).event("second").into(),
        _ => done().event("born").into(),
    });
    let mut tasks = Vec::new();
    for name in &names {
        for machine in 0..MACHINES {
            let ns = mg.engine.namespace(name.as_bytes()).unwrap().clone();
            let request = Request { context: RequestContext::default(), deadline: mg.clock.now() + 60_000 };
            tasks.push(tokio::spawn(async move {
                let id = id(&format!("m{machine}"));
                let args = || Value::str("");
                ns.execute(id.clone(), Impact::Init { args: args() }, request.clone()).await.unwrap();
                for n in 0..CALLS {
                    ns.execute(id.clone(), call(&format!("c{n}")), request.clone()).await.unwrap();
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    let entries = entries(&mg).await;
    let each = 1 + 2 * CALLS;
    assert_eq!(entries.len(), NAMESPACES * MACHINES * each);
    let unique: HashSet<_> = entries.iter().map(|(ns, machine, id, _)| (ns, machine, id)).collect();
    assert_eq!(unique.len(), entries.len(), "each event once");
    let mut of_machine: HashMap<_, Vec<i64>> = HashMap::new();
    for (ns, machine, id, _) in &entries {
        of_machine.entry((ns, machine)).or_default().push(*id);
    }
    assert!(of_machine.values().all(|ids| ids.iter().copied().eq(1..=each as i64)), "in each machine's order");
}
