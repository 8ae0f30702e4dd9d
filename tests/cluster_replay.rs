//! The original's own traffic, played against three instances on one table behind a balancer that takes them by turns: its
//! clients and processors notice no difference.
#![cfg(feature = "dynamodb")]

mod process;
mod services;

use std::net::SocketAddr;
use std::path::Path;

use compat_tests::configuration::{self, Storage};
use compat_tests::recording::Recording;
use compat_tests::replay::{Options, Replay};
use machinegun::clock::Clock;
use machinegun::storage::dynamodb::schema;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use process::{Folder, Machinegun};

const INSTANCES: usize = 3;

/// Each connection goes to the next instance.
async fn balancer(before: Vec<SocketAddr>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        for instance in before.into_iter().cycle() {
            let Ok((mut client, _)) = listener.accept().await else { return };
            tokio::spawn(async move {
                let mut server = TcpStream::connect(instance).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    address
}

async fn agrees(name: &str, exchanges: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests/recordings").join(name);
    let recording = Recording::read(&path.with_extension("jsonl")).expect("a recording");
    let replay = Replay::prepare(&recording, Options::default(), Clock::system()).await.expect("a port is free");
    let table = services::table_at(&services::dynamodb());
    schema::create(&table, &Clock::system()).await.expect("a table is made");
    let storage = format!(
        "{{type: dynamodb, table: {}, region: here, endpoint_url: '{}', shards: {}, lease_time: 10s}}",
        table.table,
        services::dynamodb(),
        table.shards
    );
    let template = configuration::built_in(name).expect("its configuration");
    let folder = Folder::new();
    // To say where it listens, each has to say so.
    let filled = configuration::fill(template, &replay.processor_url(), &Storage::Other(storage))
        .replace("level: error", "level: info");
    let config = folder.configured_as(&filled);
    let mut instances = Vec::new();
    for _ in 0..INSTANCES {
        instances.push(Machinegun::start(&config).await);
    }
    let balancer = balancer(instances.iter().map(|instance| instance.address).collect()).await;
    let report = replay.play(&format!("http://{balancer}")).await;
    assert!(report.agrees(), "{report}");
    assert_eq!(report.agreeing(), exchanges);
    for instance in instances {
        instance.terminate();
        let ended = instance.ended().await;
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_originals_suite_agrees_on_three_instances() {
    agrees("mg_woody", 344).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_2021_with_tags_and_its_event_sink_agrees_on_three_instances() {
    agrees("mg2021", 452).await;
}
