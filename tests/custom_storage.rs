//! A storage of one's own, as `examples/custom_storage.rs` has one, keeps the promises of every storage; and the service
//! runs on it.

#[path = "../examples/custom_storage.rs"]
#[allow(dead_code, reason = "its main is run by hand")]
mod custom_storage;
mod process;

use std::sync::Arc;

use async_trait::async_trait;
use custom_storage::Counted;
use machinegun::config::{NamespaceSettings, Settings, StorageSettings};
use machinegun::service;
use machinegun::storage::Storage;
use machinegun::storage::contract::Subject;
use process::peer::{NAMESPACE, Peer};
use process::processor::{Order, Processor};
use process::soon;

struct Fresh;

#[async_trait]
impl Subject for Fresh {
    async fn open(&self) -> Arc<dyn Storage> {
        Arc::new(Counted::default())
    }
}

machinegun::storage_contract!(custom, || Fresh);
machinegun::ledger_contract!(custom_ledger, || Fresh);

#[tokio::test]
async fn the_service_runs_on_a_storage_of_ones_own() {
    let processor = Processor::start();
    let namespace = NamespaceSettings::new(NAMESPACE, format!("http://{}/processor", processor.address));
    // What the settings say of storage would fail, if anything looked at it.
    let mut settings = Settings::default_with(StorageSettings::embedded("/proc/machinegun")).with_namespace(namespace);
    settings.woody_server.ip = [127, 0, 0, 1].into();
    settings.woody_server.port = 0;

    let storage = Arc::new(Counted::default());
    let running = service::start_with_storage(settings, storage.clone()).await.expect("it starts");
    let peer = Peer::of(running.address());
    soon("a Start", peer.start("id", &Order::plain("start"))).await.expect("started");
    assert_eq!(storage.commits(), 1);
    soon("a Call", peer.call("id", &Order::plain("call"))).await.expect("called");
    assert_eq!(storage.commits(), 2);

    let machine = soon("GetMachine", peer.machine("id")).await.expect("an answer").expect("a machine");
    assert_eq!(machine.history.decoded().count(), 2);
    soon("a stop", running.stop()).await.expect("it stops in order");
}
