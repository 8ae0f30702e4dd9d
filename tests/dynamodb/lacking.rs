//! Tables that are short of something: rights, credentials, transactions, conditions that hold.

use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use machinegun::clock::Clock;
use machinegun::storage::contract::Subject;
use machinegun::storage::contract::sample::Sample;
use machinegun::storage::contract::tags::claim;
use machinegun::storage::dynamodb::{Dynamodb, DynamodbOptions, schema};
use machinegun::storage::{Outcome, Storage};

use super::services;
use super::shim::{Lacks, before};

/// A table reached over an API that lacks something; it was made over one that does not.
async fn lacking(lacks: Lacks) -> DynamodbOptions {
    let whole = services::made_table().await;
    let endpoint = before(whole.endpoint_url.as_deref().unwrap(), lacks).await;
    DynamodbOptions { endpoint_url: Some(endpoint), ..whole }
}

async fn refusal(lacks: Lacks) -> String {
    let options = lacking(lacks).await;
    let line = Dynamodb::open(&options).await.unwrap_err().to_string();
    assert_eq!(schema::check(&options).await.unwrap_err().to_string(), line);
    line
}

/// As ScyllaDB's Alternator is, as far as its documents say.
struct Alternator(DynamodbOptions);

#[async_trait]
impl Subject for Alternator {
    async fn open(&self) -> Arc<dyn Storage> {
        let lacks = Lacks::as_alternator(Some("always_use_lwt"));
        let endpoint = before(self.0.endpoint_url.as_deref().unwrap(), lacks).await;
        let options = DynamodbOptions { endpoint_url: Some(endpoint), ..self.0.clone() };
        schema::create(&options, &Clock::system()).await.expect("a table is made");
        Dynamodb::open(&options).await.expect("a table is opened")
    }
}

machinegun::storage_contract!(alternator, || Alternator(services::table_at(&services::dynamodb())));

#[tokio::test]
async fn a_missing_right_is_refused_at_the_start_with_the_policy_that_gives_it() {
    for operation in [
        "DescribeTable",
        "GetItem",
        "PutItem",
        "UpdateItem",
        "DeleteItem",
        "BatchWriteItem",
        "Query",
        "TransactWriteItems",
    ] {
        let line = refusal(Lacks::operation(operation, "AccessDeniedException")).await;
        assert!(line.contains(operation) && line.contains("deploy/iam-policy.json"), "{line}");
        assert!(line.contains("machinegun schema check --config"), "{line}");
    }
}

#[tokio::test]
async fn credentials_that_are_not_taken_are_refused_at_the_start() {
    for error in ["UnrecognizedClientException", "ExpiredTokenException", "InvalidSignatureException"] {
        let line = refusal(Lacks::operation("DescribeTable", error)).await;
        assert!(line.contains("credentials") && line.contains("AWS_ACCESS_KEY_ID"), "{line}");
    }
}

#[tokio::test]
async fn conditions_that_alternator_does_not_keep_are_refused_with_the_command_that_mends_it() {
    for isolation in [None, Some("unsafe_rmw"), Some("forbid_rmw")] {
        let line = refusal(Lacks::as_alternator(isolation)).await;
        assert!(line.contains("aws dynamodb tag-resource --resource-arn arn:scylla:"), "{line}");
    }
    for isolation in ["always_use_lwt", "only_rmw_uses_lwt"] {
        schema::check(&lacking(Lacks::as_alternator(Some(isolation))).await).await.unwrap();
    }
}

#[tokio::test]
async fn without_transactions_no_tag_is_claimed() {
    let store = Dynamodb::open(&lacking(Lacks::as_alternator(Some("always_use_lwt"))).await).await.unwrap();
    assert!(!store.has_tags());
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &[], None).await;
    let before = sample.clone();
    let outcome = store.commit(claim(&mut sample, b"tag")).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    before.assert_stands(&*store, &[]).await;
    assert!(Dynamodb::open(&services::made_table().await).await.unwrap().has_tags());
}

/// What `serve` says before it ends.
fn serve(options: &DynamodbOptions, protocol: &str, credentials: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.yaml");
    let text = format!(
        "storage: {{type: dynamodb, table: {}, region: here, endpoint_url: '{}', shards: 4, request_timeout: 20s}}\n\
         woody_server: {{ip: 127.0.0.1, port: 0}}\n\
         namespaces: {{ns: {{processor: {{url: 'http://127.0.0.1:1/'}}, protocol: {protocol}}}}}\n",
        options.table,
        options.endpoint_url.as_deref().unwrap_or_default(),
    );
    std::fs::write(&config, text).expect("written");
    let output = Command::new(env!("CARGO_BIN_EXE_machinegun"))
        .args(["serve", "--config"])
        .arg(&config)
        .env_clear()
        .env("HOME", folder.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(credentials.iter().copied())
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_with_tags_are_refused_at_the_start_on_a_table_without_transactions() {
    let options = lacking(Lacks::as_alternator(Some("always_use_lwt"))).await;
    let credentials = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];
    for protocol in ["2021", "damsel"] {
        let given = options.clone();
        let line = tokio::task::spawn_blocking(move || serve(&given, protocol, &credentials)).await.unwrap();
        assert!(line.contains("namespaces.ns.protocol") && line.contains("transactions"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_credentials_are_refused_at_the_start() {
    let options = services::made_table().await;
    let line = tokio::task::spawn_blocking(move || serve(&options, "current", &[])).await.unwrap();
    assert!(line.contains("with these credentials: there are none") && line.contains("AWS_ACCESS_KEY_ID"), "{line}");
}
