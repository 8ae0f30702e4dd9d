//! Namespaces publish into ledgers while the service is killed again and again: each committed event is there once, in
//! its machine's order, and the chain holds.
//!
//! Three kills; `MACHINEGUN_CRASH_SECONDS` asks for so many seconds of load, `MACHINEGUN_CRASH_SEED` for the same choices
//! again.

#[path = "crash/mod.rs"]
mod crash;
mod process;
#[cfg(feature = "dynamodb")]
mod services;

use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;

use crash::client::Client;
use crash::dice::{Dice, from_environment};
use crash::ledger::Ledger;
use crash::round::killed_within;
use machinegun::wire::Exception;
use process::peer::{Failure, Peer};
use process::processor::Processor;
use process::{Folder, Machinegun, command, configuration_on, namespace, soon};

const KILLS: u64 = 3;
const NAMESPACES: [&str; 8] = ["bills", "fees", "invoices", "payouts", "refunds", "rates", "wallets", "withdrawals"];
const CLIENTS_OF_EACH: u64 = 2;
/// Gets everything.
const ALL: &str = "all";
/// Gets what happens in two of the namespaces.
const MONEY_OUT: &str = "money-out";
const OUTGOING: [&str; 2] = ["payouts", "withdrawals"];

/// Every other namespace names its sinks as files of the original do.
fn configuration(storage: &str, processor: &Processor) -> String {
    let namespaces = NAMESPACES.iter().enumerate().map(|(at, ns)| {
        let kind = if at % 2 == 0 { "machine" } else { "ledger" };
        let sinks =
            sinks_of(ns).into_iter().map(|sink| format!("      {sink}: {{type: {kind}, machine_id: {sink}}}\n"));
        namespace(ns, processor.address) + "    event_sinks:\n" + &sinks.collect::<String>()
    });
    configuration_on(storage, &namespaces.collect::<String>())
}

fn sinks_of(ns: &str) -> Vec<&'static str> {
    if OUTGOING.contains(&ns) { vec![ALL, MONEY_OUT] } else { vec![ALL] }
}

/// Where the ledger ends, as `machinegun ledger verify` says after it has walked the chain: id and hash.
async fn verified(sink: &str, config: &Path) -> (i64, String) {
    let (ended, line) = command(&["ledger", "verify", sink], config).await;
    assert_eq!(ended.status.code(), Some(0), "ledger verify {sink}: {line}{}", ended.stderr);
    let (last, hash) = line.trim_end().split_once(" entries, head ").expect("a line with the head");
    let (head, noted) = command(&["ledger", "head", sink], config).await;
    assert_eq!((head.status.code(), noted.trim_end()), (Some(0), &*format!("{last} {hash}")));
    (last.parse().expect("a number"), hash.to_owned())
}

/// How a storage's ledgers get their entries.
#[derive(PartialEq)]
enum Blocks {
    /// One for each commit, in the commit itself.
    OfCommits,
    /// Beside the commits, as many deliveries together as wait.
    OfDeliveries,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_holds_each_committed_event_once_across_kills() {
    let folder = Folder::new();
    let storage = format!("{{type: embedded, path: {:?}, free_space_reserve: 64M}}", folder.store());
    killed_again_and_again(&folder, &storage, Blocks::OfCommits).await;
}

#[cfg(feature = "dynamodb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_on_dynamodb_holds_each_committed_event_once_across_kills() {
    let table = services::made_table().await;
    let endpoint = table.endpoint_url.expect("an endpoint of our own");
    let storage = format!(
        "{{type: dynamodb, table: {}, region: {}, endpoint_url: '{endpoint}', shards: {}, request_timeout: 20s, \
         lease_time: 6s}}",
        table.table, table.region, table.shards
    );
    killed_again_and_again(&Folder::new(), &storage, Blocks::OfDeliveries).await;
}

/// Returns once every shard has an owner that answers: on a shared storage that takes a lease's time.
async fn all_at_home(peer: &Peer) {
    let peer = peer.in_namespace(NAMESPACES[0]);
    for number in 0..32 {
        let nobody = format!("nobody-{number}");
        let answered = async {
            while !matches!(peer.simple_repair(&nobody).await, Err(Failure::Thrown(Exception::MachineNotFound))) {}
        };
        soon("an owner", answered).await;
    }
}

async fn killed_again_and_again(folder: &Folder, storage: &str, blocks: Blocks) {
    let seconds = from_environment("MACHINEGUN_CRASH_SECONDS").unwrap_or(0);
    let mut dice = Dice::thrown();
    // Over HTTP, and to a table that is on the same cores, steps take their time.
    let most = if blocks == Blocks::OfCommits { 1_500 } else { 300 };
    let processor = Arc::new(Processor::start());
    let config = folder.configured_as(&configuration(storage, &processor));
    let numbers = NAMESPACES.iter().flat_map(|ns| (0..CLIENTS_OF_EACH).map(move |number| (ns, number)));
    let mut clients: Vec<_> =
        numbers.map(|(ns, number)| Client::new(number, dice.next()).publishing(ns, &sinks_of(ns))).collect();
    let (mut all, mut money_out) = (Ledger::of(ALL), Ledger::of(MONEY_OUT));
    let (mut kills, mut steps, mut milliseconds) = (0, 0, 0);

    let mut service = Machinegun::start(&config).await;
    while kills < KILLS || milliseconds < seconds as i64 * 1_000 {
        let round = killed_within(most, service, clients, &mut dice).await;
        kills += 1;
        steps += round.steps;
        milliseconds += round.milliseconds;
        println!("kill {kills}: after {} steps, {} without an answer", round.steps, round.open);
        clients = round.clients;
        // Not always: verifying opens the store, and would spare the service what the kill has left.
        if dice.below(4) == 0 {
            verified(ALL, &config).await;
        }
        processor.forget();
        service = Machinegun::start(&config).await;
        let peer = Peer::of(service.address);
        all.read_on(&peer).await;
        money_out.read_on(&peer).await;
        all_at_home(&peer).await;
        join_all(clients.iter_mut().map(|client| client.recover(&peer, &processor))).await;
    }
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));

    let heads = [verified(ALL, &config).await, verified(MONEY_OUT, &config).await];
    let service = Machinegun::start(&config).await;
    let peer = Peer::of(service.address);
    let before = [all, money_out];
    let mut ledgers = [Ledger::of(ALL), Ledger::of(MONEY_OUT)];
    for ((ledger, before), (last, hash)) in ledgers.iter_mut().zip(&before).zip(&heads) {
        ledger.read_on(&peer).await;
        ledger.continues(before);
        if blocks == Blocks::OfCommits {
            assert_eq!(ledger.hash_at(*last), *hash, "the chain at entry {last}");
        }
    }
    let [all, money_out] = &ledgers;
    let everyone: Vec<_> = clients.iter().collect();
    let outgoing: Vec<_> = clients.iter().filter(|client| OUTGOING.contains(&&*client.ns)).collect();
    let removed = all.holds_the_lives_of(&everyone);
    money_out.holds_the_lives_of(&outgoing);
    all.begins_the_histories_of(&everyone, &peer).await;
    money_out.agrees_with(all, &OUTGOING);
    println!(
        "{kills} kills in {milliseconds} ms of load: {steps} acknowledged steps, {} and {} entries, {removed} machines \
         removed",
        all.last(),
        money_out.last()
    );
    assert!(removed > 0 && money_out.last() > 0);
    service.terminate();
    assert_eq!(service.ended().await.status.code(), Some(0));
}
