//! How many machines there are, without a scan on anybody's way.

use machinegun::machine::StatusKind;

use crate::scripted::{done, reply};
use crate::world::{Mg, World, until};

fn numbers(mg: &World) -> [i64; 5] {
    mg.ns.numbers().expect("machines were counted")
}

async fn counted(mg: &World) {
    until(|| mg.ns.numbers().is_some()).await;
}

async fn numbers_follow_commits_and_are_counted_anew_after_a_restart(mg: Mg) {
    let mg = mg.start().await;
    counted(&mg).await;
    assert_eq!(numbers(&mg), [0; 5]);
    for name in ["a", "b", "c", "d", "e"] {
        mg.machine(name, done()).await;
    }
    mg.change("a", reply("").timer(1_000_000)).await;
    mg.fail("b").await;
    mg.change("c", reply("").remove()).await;
    // Sleeping, waiting, retrying, failed, removed.
    assert_eq!(numbers(&mg), [2, 1, 0, 1, 1]);
    let text = String::from_utf8(mg.metrics.render()).unwrap();
    for (status, number) in StatusKind::ALL.iter().zip(numbers(&mg)) {
        let line = format!("machinegun_machines{{namespace=\"ns\",status=\"{}\"}} {number}", status.name());
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    let mg = mg.restart(1).await;
    counted(&mg).await;
    assert_eq!(numbers(&mg), [2, 1, 0, 1, 1]);
}

async fn a_count_that_failed_is_begun_again(mg: Mg) {
    let mg = mg.start().await;
    counted(&mg).await;
    mg.machine("a", done()).await;
    let mg = mg.restart_down().await;
    assert_eq!(mg.ns.numbers(), None);
    mg.storage.down.store(false, std::sync::atomic::Ordering::SeqCst);
    until(|| {
        mg.advance(1_000);
        mg.ns.numbers().is_some()
    })
    .await;
    assert_eq!(numbers(&mg), [1, 0, 0, 0, 0]);
}

crate::on_every_storage! {
    numbers_follow_commits_and_are_counted_anew_after_a_restart,
    a_count_that_failed_is_begun_again,
}
