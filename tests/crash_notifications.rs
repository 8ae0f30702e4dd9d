//! Machines are notified while the service is killed again and again: each acknowledged notification takes effect once,
//! in the order in which they were accepted.
//!
//! 10 machines with 100 notifications each; `MACHINEGUN_CRASH_MACHINES` and `MACHINEGUN_CRASH_NOTIFICATIONS` (for each
//! machine) ask for more, `MACHINEGUN_CRASH_SEED` for the same choices again.

#[path = "crash/mod.rs"]
mod crash;
mod process;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use machinegun::clock::Clock;
use tokio::sync::watch;

use crash::dice::{Dice, from_environment};
use crash::notified::Notified;
use process::peer::Peer;
use process::processor::Processor;
use process::{Folder, Machinegun, PATIENCE_MS, soon, within};

const MACHINES: u64 = 10;
const NOTIFICATIONS: u64 = 100;
/// In which one is accepted even on a busy machine, and its predecessors delivered beside it.
const MOST_MS_EACH: i64 = 50;
/// Kills while what was accepted is still being delivered, and nothing new comes in.
const KILLS_WHILE_DELIVERING: u64 = 2;

/// About so many kills while notifications come in.
fn kills(notifications: usize) -> u64 {
    3 + notifications as u64 / 5_000
}

/// Kills the service when `enough` more were accepted and some milliseconds have passed, or lets it live if all are.
async fn notified(
    service: Machinegun,
    machines: Vec<Notified>,
    enough: usize,
    dice: &mut Dice,
) -> (Option<Machinegun>, Vec<Notified>) {
    let (peer, clock) = (Peer::of(service.address), Clock::system());
    let killed = Arc::new(AtomicBool::new(false));
    let accepted = Arc::new(watch::Sender::new(0_usize));
    let working: Vec<_> = machines
        .into_iter()
        .map(|machine| tokio::spawn(machine.work(peer.clone(), killed.clone(), accepted.clone())))
        .collect();
    let mut counted = accepted.subscribe();
    drop(accepted);
    // An error: all have reached their goal.
    let reached = async { counted.wait_for(|it| *it >= enough).await.is_ok() };
    let reached = within(PATIENCE_MS + enough as i64 * MOST_MS_EACH, "the load", reached).await;
    let service = if reached {
        clock.sleep_until(clock.now() + dice.below(20) as i64).await;
        killed.store(true, Ordering::SeqCst);
        service.kill().await;
        None
    } else {
        Some(service)
    };
    let mut machines = Vec::new();
    for machine in working {
        machines.push(soon("a client's end", machine).await.expect("no notification was refused"));
    }
    (service, machines)
}

async fn restarted(config: &Path, processor: &Processor) -> (Machinegun, Peer) {
    processor.forget();
    let service = Machinegun::start(config).await;
    let peer = Peer::of(service.address);
    (service, peer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_acknowledged_notification_takes_effect_once_and_in_order_across_kills() {
    let count = from_environment("MACHINEGUN_CRASH_MACHINES").unwrap_or(MACHINES);
    let each = from_environment("MACHINEGUN_CRASH_NOTIFICATIONS").unwrap_or(NOTIFICATIONS) as usize;
    let total = count as usize * each;
    let mut dice = Dice::thrown();
    let (folder, clock) = (Folder::new(), Clock::system());
    let processor = Processor::start();
    let config = folder.configured(processor.address);
    let begun = clock.now();
    let mut machines: Vec<_> = (0..count).map(|number| Notified::new(number, each, dice.next())).collect();
    let (mut service, peer) = restarted(&config, &processor).await;
    join_all(machines.iter().map(|machine| machine.start(&peer))).await;

    let mut killed = 0;
    loop {
        let enough = 1 + dice.below(2 * total as u64 / kills(total)) as usize;
        let (lives, worked) = notified(service, machines, enough, &mut dice).await;
        machines = worked;
        let accepted: usize = machines.iter().map(Notified::accepted).sum();
        if let Some(lives) = lives {
            service = lives;
            break;
        }
        killed += 1;
        println!("kill {killed}: {accepted} of {total} accepted");
        let (again, peer) = restarted(&config, &processor).await;
        service = again;
        let one = &machines[dice.below(count) as usize];
        one.is_in_order(&peer).await;
    }
    for _ in 0..KILLS_WHILE_DELIVERING {
        // Nothing may be left to deliver: then it is killed while it is idle.
        let delivered = 1 + dice.below(total as u64 / 50) as usize;
        let wait = 2_000;
        let some = clock.timeout_at(clock.now() + wait, processor.answered_in_all(delivered)).await;
        service.kill().await;
        killed += 1;
        println!("kill {killed}: while delivering: {}", some.is_ok());
        (service, _) = restarted(&config, &processor).await;
    }

    let peer = Peer::of(service.address);
    let cut_off: usize = machines.iter().map(Notified::open).sum();
    let settled = join_all(machines.iter().map(|machine| machine.settles(&peer, &processor))).await;
    let seconds = (clock.now() - begun) / 1_000;
    let (accepted, too): (usize, usize) = (machines.iter().map(Notified::accepted).sum(), settled.iter().sum());
    println!(
        "{killed} kills in {seconds} s: {accepted} accepted, each took effect once; {too} of {cut_off} cut off too"
    );
    assert_eq!(accepted, total);
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));
}
