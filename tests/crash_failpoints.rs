//! The service ends in the middle of its work, at each place between a request and its answer, and is started again on
//! the same folder: what it had acknowledged is there, unchanged, and goes on.
//!
//! Once at each place; `MACHINEGUN_CRASH_ROUNDS` asks for more, `MACHINEGUN_CRASH_SEED` for the same choices again. What
//! a service on embedded storage does not come by, `failpoints` of the engine's tests does.

#[path = "crash/mod.rs"]
mod crash;
mod process;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use machinegun::failpoint::{Failpoint, VARIABLE};

use crash::client::Client;
use crash::dice::{Dice, from_environment};
use crash::round::ended_under_load;
use process::peer::Peer;
use process::processor::Processor;
use process::{Folder, Machinegun};

const CLIENTS: u64 = 6;
/// A place ends the service when it is reached for the first time, or so many times later.
const LATEST: u64 = 12;

/// What the clients' load comes by. A new place does not compile before somebody says where it is reached.
fn is_reached(point: Failpoint) -> bool {
    match point {
        Failpoint::RequestDecoded
        | Failpoint::StepQueued
        | Failpoint::RecordRead
        | Failpoint::BeforeProcessor
        | Failpoint::AfterProcessor
        | Failpoint::BeforeCommit
        | Failpoint::BatchDrafted
        | Failpoint::BatchSynced
        | Failpoint::AfterCommit
        | Failpoint::BeforeAnswer
        | Failpoint::AnswerEncoded
        | Failpoint::BeforeNotificationPut
        | Failpoint::NotificationPut
        | Failpoint::BeforeSettling
        | Failpoint::AfterSettling
        | Failpoint::BeforePayment
        | Failpoint::AfterPayment => true,
        // A modernizer, sinks, DynamoDB: `tests/engine/failpoints.rs`.
        Failpoint::Modernized
        | Failpoint::BeforeDelivery
        | Failpoint::AfterDelivery
        | Failpoint::BeforeBlock
        | Failpoint::BlockPut
        | Failpoint::DeliveryKnown
        | Failpoint::PartsWritten
        | Failpoint::ItemPut => false,
    }
}

/// Starts the service with the place armed and lets the clients work until it has ended there. It may get there before
/// it is up: what was left due is done at once.
async fn ended_at(point: Failpoint, times: u64, config: &Path, clients: Vec<Client>) -> Vec<Client> {
    let armed = ["env".to_owned(), format!("{VARIABLE}={} {times}", point.name())];
    let (clients, stderr) = match Machinegun::try_start_under(&armed, config).await {
        Err(stderr) => (clients, stderr),
        Ok(service) => {
            let (clients, ended) = ended_under_load(service, clients).await;
            let aborted = ended.status.signal() == Some(6);
            assert!(aborted, "{point:?}: it ended with {:?}: {}", ended.status, ended.stderr);
            (clients, ended.stderr)
        }
    };
    assert!(stderr.contains(&format!("failpoint {} reached", point.name())), "{point:?}: {stderr}");
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_an_end_anywhere_is_there_after_it() {
    let rounds = from_environment("MACHINEGUN_CRASH_ROUNDS").unwrap_or(1);
    let mut dice = Dice::thrown();
    let folder = Folder::new();
    let processor = Arc::new(Processor::start());
    let config = folder.configured(processor.address);
    let mut clients: Vec<_> = (0..CLIENTS).map(|number| Client::new(number, dice.next())).collect();
    for _ in 0..rounds {
        for point in Failpoint::ALL.iter().copied().filter(|it| is_reached(*it)) {
            let times = 1 + dice.below(LATEST);
            clients = ended_at(point, times, &config, clients).await;
            let open: usize = clients.iter().map(Client::open_steps).sum();
            println!("{}: the {times}th time, {open} without an answer", point.name());

            processor.forget();
            let service = Machinegun::start(&config).await;
            let peer = Peer::of(service.address);
            join_all(clients.iter_mut().map(|client| client.recover(&peer, &processor))).await;
            service.terminate();
            assert_eq!(service.ended().await.status.code(), Some(0), "after {}", point.name());
        }
    }
}
