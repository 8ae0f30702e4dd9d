//! A service that can't start says why on stderr, and exits with 1. In one line; a configuration has one more for each
//! thing that is wrong with it, since all of them are found in one go.

mod process;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use process::{Folder, Machinegun, configuration, refused_start};

/// Nobody is asked: no machine ever takes a step here.
const PROCESSOR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// The start ends in one line that holds all of `words`.
async fn refuses(config: &Path, words: &[&str]) {
    refuses_in(1, config, words).await;
}

async fn refuses_in(lines: usize, config: &Path, words: &[&str]) {
    let ended = refused_start(config).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), lines, "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word} is not in {:?}", ended.stderr);
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    let text = configuration(&folder.store(), PROCESSOR).replace("port: 0", &format!("port: {}", address.port()));
    refuses(&folder.configured_as(&text), &[&address.to_string()]).await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let folder = Folder::new();
    // For root too.
    let text = configuration(Path::new("/proc/machinegun"), PROCESSOR);
    refuses(&folder.configured_as(&text), &["/proc/machinegun", "can't be written"]).await;
}

#[tokio::test]
async fn a_file_in_the_folders_place_is_named() {
    let folder = Folder::new();
    std::fs::write(folder.store(), "a file").expect("a file is written");
    let store = folder.store().display().to_string();
    refuses(&folder.configured(PROCESSOR), &[&store, "not a folder"]).await;
}

#[tokio::test]
async fn a_store_that_another_process_uses_is_named_and_left_alone() {
    let folder = Folder::new();
    let config = folder.configured(PROCESSOR);
    let first = Machinegun::start(&config).await;
    let store = folder.store().display().to_string();
    refuses(&config, &[&store, "in use by another process"]).await;
    first.terminate();
    assert_eq!(first.ended().await.status.code(), Some(0));
}

#[tokio::test]
async fn a_key_that_does_not_exist_is_named() {
    let folder = Folder::new();
    let text = configuration(&folder.store(), PROCESSOR) + "woody_serwer: {}\n";
    refuses_in(2, &folder.configured_as(&text), &["config.yaml", "woody_serwer"]).await;
}

#[tokio::test]
async fn a_configuration_that_is_no_yaml_is_refused() {
    let folder = Folder::new();
    refuses_in(2, &folder.configured_as("storage: {type: embedded"), &["config.yaml"]).await;
}

#[tokio::test]
async fn a_configuration_that_is_missing_is_named() {
    let folder = Folder::new();
    refuses_in(2, &folder.path().join("nowhere.yaml"), &["nowhere.yaml"]).await;
}
