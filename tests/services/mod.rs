//! Real services that tests run against: each is started once per test process and goes with it.
#![allow(dead_code, reason = "each test takes its part")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use machinegun::clock::{Clock, random_bytes};
use machinegun::storage::dynamodb::{DynamodbOptions, schema};

/// A service in a process of its own. It ends when the pipe to it does: with this process, however that ends.
struct Service {
    _process: Child,
    address: String,
}

/// Where a DynamoDB API answers: the one that `TEST_DYNAMODB_ENDPOINT` names, or one of our own.
pub fn dynamodb() -> String {
    static SERVICE: OnceLock<Service> = OnceLock::new();
    match std::env::var("TEST_DYNAMODB_ENDPOINT") {
        Ok(endpoint) => endpoint,
        Err(_) => SERVICE.get_or_init(|| start("dynamodb")).address.clone(),
    }
}

fn start(name: &str) -> Service {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/test-services.sh");
    let mut process = Command::new(script)
        .arg(name)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("deploy/test-services.sh runs: it needs bash");
    let mut address = String::new();
    let output = process.stdout.take().expect("its output is a pipe");
    BufReader::new(output).read_line(&mut address).expect("its output is text");
    assert!(address.starts_with("http://"), "deploy/test-services.sh has not started {name}: it says above why");
    Service { _process: process, address: address.trim_end().to_owned() }
}

/// A table of its own at this endpoint, not made yet.
pub fn table_at(endpoint: &str) -> DynamodbOptions {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    DynamodbOptions {
        table: format!("machinegun-test-{:08x}-{number}", u32::from_be_bytes(random_bytes())),
        region: "eu-central-1".to_owned(),
        endpoint_url: Some(endpoint.to_owned()),
        shards: 4,
        request_timeout: Duration::from_secs(20),
        max_concurrent_requests: 256,
        credentials: Some(("test".to_owned(), "test".to_owned())),
    }
}

/// A table that is there.
pub async fn made_table() -> DynamodbOptions {
    let options = table_at(&dynamodb());
    schema::create(&options, &Clock::system()).await.expect("a table is made");
    options
}
