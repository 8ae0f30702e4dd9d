//! Tags: one machine has each, whoever races for it.

use machinegun::engine::EngineError;
use machinegun::machine::{Impact, Refusal, Status};

use crate::on_every_storage;
use crate::recorder::Recorder;
use crate::scripted::{done, reply};
use crate::world::{self, Mg, World, call, guarded, id, ok, until};

on_every_storage!(
    a_machine_is_found_by_its_tag,
    a_start_with_a_tag_of_another_machine_leaves_a_failed_machine,
    a_tag_outlives_its_machine_and_may_be_taken_then,
    a_failed_machine_keeps_its_tag,
);

on_every_storage!(a_tag_of_another_machine_fails_the_step_with_its_events_kept_and_published);

const RACES: usize = 1_000;

fn failed<T>() -> Result<T, EngineError> {
    Err(Refusal::MachineFailed.into())
}

async fn is_failed(mg: &World, machine: &str) -> bool {
    let status = mg.get(machine).await.unwrap().record.status.clone();
    match status {
        Status::Failed { reason, .. } => reason.starts_with("double_tagging"),
        _ => false,
    }
}

async fn a_machine_is_found_by_its_tag(mg: Mg) {
    let mg = mg.start().await;
    assert_eq!(mg.ns.tagged(b"t").await, Err(Refusal::MachineNotFound.into()));
    mg.machine("m", done().tag("t")).await;
    assert_eq!(mg.ns.tagged(b"t").await, Ok(id("m")));
    // Again, and another one.
    mg.change("m", reply("").tag("t")).await;
    mg.change("m", reply("").tag("u")).await;
    assert_eq!((mg.ns.tagged(b"t").await, mg.ns.tagged(b"u").await), (Ok(id("m")), Ok(id("m"))));
    let mg = mg.restart(1).await;
    assert_eq!(mg.ns.tagged(b"t").await, Ok(id("m")));
    assert_eq!(mg.ns.tagged(b"v").await, Err(Refusal::MachineNotFound.into()));
}

async fn a_tag_of_another_machine_fails_the_step_with_its_events_kept_and_published(mg: Mg) {
    let sink = Recorder::new();
    let mg = mg.sink("s", &sink).with(|_, namespace| namespace.ledgers.push("l".to_owned())).start().await;
    mg.machine("holder", done().tag("t")).await;
    mg.machine("m", done()).await;
    mg.processor.then(reply("done").event("a").aux("new").timer(5).tag("t"));
    assert_eq!(mg.call("m", "x").await, failed());
    assert!(is_failed(&mg, "m").await);
    assert_eq!(mg.events("m").await, [(1, "a".to_owned())]);
    assert_eq!(mg.ns.tagged(b"t").await, Ok(id("holder")));
    until(|| sink.of("m") == ["1 a"]).await;
    assert_eq!(mg.storage.inner().ledger().unwrap().head("l").await.unwrap().last, 1);
    assert_eq!(mg.processor.count(), 3, "nobody is asked again");
    mg.advance(5_000);
    mg.settle().await;
    assert_eq!(mg.processor.count(), 3, "a failed machine's timer does not fire");
    // After a repair that claims nothing it goes on.
    mg.ask("m", Impact::SimpleRepair).await.unwrap();
    mg.until_later(|| mg.processor.count() == 4).await;
}

async fn a_start_with_a_tag_of_another_machine_leaves_a_failed_machine(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("holder", done().tag("t")).await;
    mg.processor.then(done().event("a").tag("t"));
    assert_eq!(mg.init("m").await, failed());
    assert!(is_failed(&mg, "m").await);
    assert_eq!(mg.events("m").await, [(1, "a".to_owned())]);
    // Even one that would remove itself.
    mg.processor.then(done().event("a").tag("t").remove());
    assert_eq!(mg.init("n").await, failed());
    assert!(is_failed(&mg, "n").await);
}

async fn a_tag_outlives_its_machine_and_may_be_taken_then(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("old", done().tag("t").tag("t")).await;
    mg.ask("old", Impact::Remove).await.unwrap();
    // It leads to a machine that is not found.
    assert_eq!(mg.ns.tagged(b"t").await, Ok(id("old")));
    assert_eq!(mg.get("old").await.unwrap_err(), Refusal::MachineNotFound.into());
    mg.machine("old", done()).await;
    mg.machine("new", done()).await;
    mg.processor.then(reply("").tag("t"));
    assert_eq!(mg.call("new", "x").await, failed(), "it was started anew, and has its tag again");
    mg.ask("new", Impact::SimpleRepair).await.unwrap();
    mg.ask("old", Impact::Remove).await.unwrap();
    mg.change("new", reply("").tag("t")).await;
    assert_eq!(mg.ns.tagged(b"t").await, Ok(id("new")));
    mg.processor.then(done().tag("t"));
    assert_eq!(mg.init("old").await, failed());
}

async fn a_failed_machine_keeps_its_tag(mg: Mg) {
    let mg = mg.start().await;
    mg.machine("holder", done().tag("t")).await;
    mg.fail("holder").await;
    mg.processor.then(done().tag("t"));
    assert_eq!(mg.init("m").await, failed());
    assert_eq!(mg.ns.tagged(b"t").await, Ok(id("holder")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_machines_that_race_for_a_tag_one_wins_each_time_in_memory() {
    guarded(race(world::memory())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_machines_that_race_for_a_tag_one_wins_each_time_embedded() {
    guarded(race(world::embedded())).await;
}

async fn race(mg: Mg) {
    let mg = mg.with(|_, namespace| namespace.ledgers.push("l".to_owned())).start().await;
    mg.processor.behave(|question| match &question.ask {
        machinegun::processor::Ask::Call(tag) => reply("done").event("a").tag(&crate::scripted::text(tag)).into(),
        _ => done().into(),
    });
    for n in 0..RACES {
        let (tag, left, right) = (format!("t{n}"), format!("l{n}"), format!("r{n}"));
        mg.init(&left).await.unwrap();
        mg.init(&right).await.unwrap();
        let answers = tokio::join!(tokio::spawn(mg.ask(&left, call(&tag))), tokio::spawn(mg.ask(&right, call(&tag))));
        let answers = (answers.0.unwrap(), answers.1.unwrap());
        let (winner, loser) = if answers.0.is_ok() { (left, right) } else { (right, left) };
        assert!(answers == (ok("done"), failed()) || answers == (failed(), ok("done")), "{answers:?}");
        assert_eq!(mg.ns.tagged(tag.as_bytes()).await, Ok(id(&winner)));
        assert!(is_failed(&mg, &loser).await && !is_failed(&mg, &winner).await);
        assert_eq!((mg.events(&winner).await.len(), mg.events(&loser).await.len()), (1, 1));
    }
    let ledger = mg.storage.inner().ledger().unwrap();
    assert_eq!(machinegun::storage::ledger::verify(ledger, "l").await.unwrap().last, 2 * RACES as i64);
}
