//! More to ask the table at once than it may be asked.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use machinegun::storage::contract::sample::{Sample, committed, due_times, entry_ids, events, put};
use machinegun::storage::dynamodb::{Dynamodb, DynamodbOptions};
use machinegun::storage::leases::{Heartbeat, InstanceId, Leases};
use machinegun::storage::{Commit, Listing, Outcome, Storage};
use tokio_util::task::AbortOnDropHandle;

use super::faults::two_addresses;
use super::proxy::Proxy;
use super::services;

const PLACES: usize = 2;

/// Says that a test is the one of this name, in a process of its own.
const ALONE: &str = "MACHINEGUN_TEST_ALONE";

/// Requests that hang, and each has a place. They are given up when this is dropped.
async fn take_all_places(proxy: &Proxy, store: &Arc<Dynamodb>) -> Vec<AbortOnDropHandle<()>> {
    let hung = proxy.requests() + PLACES as u64;
    proxy.hang(PLACES);
    let ask = |_| {
        let store = store.clone();
        AbortOnDropHandle::new(tokio::spawn(async move { drop(store.read(&Sample::new("hangs").key, None).await) }))
    };
    let hanging = (0..PLACES).map(ask).collect();
    until(|| proxy.requests() == hung).await;
    hanging
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn leases_go_out_while_every_place_is_taken_by_a_request_that_hangs() {
    let (proxy, through, _) = two_addresses().await;
    let store = Dynamodb::open(&DynamodbOptions { max_concurrent_requests: PLACES, ..through }).await.unwrap();
    let (hung, read) = (proxy.requests() + PLACES as u64, Sample::new("one").key);
    proxy.hang(PLACES);
    let ask = |store: &Arc<Dynamodb>| {
        let (store, read) = (store.clone(), read.clone());
        tokio::spawn(async move { store.read(&read, None).await })
    };
    let hanging: Vec<_> = (0..PLACES).map(|_| ask(&store)).collect();
    until(|| proxy.requests() == hung).await;
    let waiting = ask(&store);
    until(|| store.places().waiting() == 1).await;
    let instance = InstanceId([7; 16]);
    for beat in 1..=3 {
        let heartbeat = Heartbeat { instance, beat, changes: 0, address: "here:1".to_owned(), leaving: false };
        assert_eq!(store.beat(&heartbeat).await, Ok(true));
        assert_eq!(store.heartbeats().await, Ok(vec![heartbeat]));
    }
    assert_eq!((store.places().taken(), store.places().waiting()), (PLACES as u64, 1));
    // A place is free again when its request is given up.
    for hanging in hanging {
        hanging.abort();
    }
    assert_eq!(waiting.await.expect("it does not panic"), Ok(None));
    until(|| store.places().taken() == 0).await;
    assert_eq!((store.places().waiting(), store.places().refused()), (0, 0));
}

#[tokio::test]
async fn what_finds_no_place_in_time_is_refused_and_surely_not_done() {
    let (proxy, through, direct) = two_addresses().await;
    let request_timeout = Duration::from_secs(1);
    let options = DynamodbOptions { max_concurrent_requests: PLACES, request_timeout, ..through };
    let store = Dynamodb::open(&options).await.unwrap();
    proxy.hang(usize::MAX);
    let mut samples: Vec<_> = (0..20).map(|number| Sample::new(&format!("machine-{number}"))).collect();
    let commits: Vec<_> = samples.iter_mut().map(|sample| sample.step(&events(1..=1), None)).collect();
    let outcomes = join_all(commits.into_iter().map(|commit| store.commit(commit))).await;
    proxy.mend();
    let direct = Dynamodb::open(&direct).await.unwrap();
    let mut refused = 0;
    for (sample, outcome) in samples.iter().zip(outcomes) {
        match outcome {
            Outcome::Refused(error) => {
                assert!(error.to_string().contains("overload: storage.max_concurrent_requests is reached"), "{error}");
                assert_eq!(direct.standing(&sample.key).await, Ok(None));
                refused += 1;
            }
            outcome => assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}"),
        }
    }
    assert!(refused > 0);
    assert_eq!(store.places().refused(), refused);
}

/// Longer than a connection on which nothing moves counts as a living one elsewhere.
#[tokio::test]
async fn what_waits_long_for_a_place_is_refused_and_does_not_count_as_a_stalled_upload() {
    let (proxy, through, _) = two_addresses().await;
    let request_timeout = Duration::from_secs(14);
    let options = DynamodbOptions { max_concurrent_requests: PLACES, request_timeout, ..through };
    let store = Dynamodb::open(&options).await.unwrap();
    let _hanging = take_all_places(&proxy, &store).await;
    let outcome = store.commit(Sample::new("one").step(&events(1..=1), None)).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_commit_that_stands_is_never_refused_for_want_of_a_place_while_its_entries_are_not_gone() {
    let (proxy, through, direct) = two_addresses().await;
    let request_timeout = Duration::from_secs(1);
    let options = DynamodbOptions { max_concurrent_requests: PLACES, request_timeout, ..through };
    let (store, direct) = (Dynamodb::open(&options).await.unwrap(), Dynamodb::open(&direct).await.unwrap());
    let mut sample = Sample::new("one");
    sample.commit_step(&*store, &[], None).await;
    put(&*store, &sample, 1, 10).await;
    let commit = Commit { delete_notifications: vec![1], ..sample.step(&events(1..=1), None) };
    proxy.hang_after(1);
    let outcome = store.commit(commit.clone()).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    sample.assert_stands(&*direct, &events(1..=1)).await;
    let hanging = take_all_places(&proxy, &store).await;
    // Should a place be free before it is refused one, it hangs too.
    proxy.hang(usize::MAX);
    let outcome = store.commit(commit.clone()).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    drop(hanging);
    proxy.mend();
    committed(&*store, commit).await;
    assert_eq!(entry_ids(&*direct, &sample.key).await, Vec::<i64>::new());
}

#[tokio::test]
async fn a_place_is_taken_until_the_whole_answer_is_there() {
    let (proxy, through, _) = two_addresses().await;
    let store = Dynamodb::open(&DynamodbOptions { max_concurrent_requests: 1, ..through }).await.unwrap();
    let ask = || {
        let store = store.clone();
        tokio::spawn(async move { store.read(&Sample::new("one").key, None).await })
    };
    proxy.halve_next_answer();
    let halved = ask();
    until(|| proxy.halved() == 1).await;
    let mut waiting = ask();
    tokio::select! {
        answer = &mut waiting => panic!("it had a place: {answer:?}"),
        () = until(|| store.places().waiting() == 1) => {}
    }
    halved.abort();
    assert_eq!(waiting.await.expect("it does not panic"), Ok(None));
    until(|| store.places().taken() == 0).await;
}

#[tokio::test]
async fn dues_are_found_and_machines_listed_while_every_place_is_taken() {
    let (proxy, through, direct) = two_addresses().await;
    let store = Dynamodb::open(&DynamodbOptions { max_concurrent_requests: PLACES, ..through }).await.unwrap();
    Sample::new("one").commit_step(&*Dynamodb::open(&direct).await.unwrap(), &[], Some(7)).await;
    let _hanging = take_all_places(&proxy, &store).await;
    assert_eq!(due_times(&*store).await, vec![7]);
    let listed = store.machines(&Listing::default(), None, 10).await.expect("they are listed");
    assert_eq!(listed.machines.len(), 1);
    assert_eq!((store.places().taken(), store.places().waiting()), (PLACES as u64, 0));
}

#[tokio::test]
async fn shards_that_give_no_answer_are_asked_again_and_what_the_others_said_is_kept() {
    let (proxy, through, direct) = two_addresses().await;
    let store = Dynamodb::open(&DynamodbOptions { request_timeout: Duration::from_secs(1), ..through }).await.unwrap();
    let direct = Dynamodb::open(&direct).await.unwrap();
    for number in 1..=20 {
        Sample::new(&format!("machine-{number}")).commit_step(&*direct, &[], Some(number)).await;
    }
    proxy.hang(2);
    assert_eq!(due_times(&*store).await, (1..=20).collect::<Vec<_>>());
    proxy.hang(usize::MAX);
    assert!(store.dues(None, 20, None, 10).await.is_err(), "none of them answers");
}

/// In a process of its own, whose environment says where credentials come from: each time others, that have run out.
#[test]
fn credentials_that_ran_out_are_fetched_while_every_place_is_taken() {
    let name = "crowded::credentials_that_ran_out_are_fetched_while_every_place_is_taken";
    if std::env::var_os(ALONE).is_some_and(|alone| alone == name) {
        return beat_while_every_place_is_taken();
    }
    let (folder, from) = (tempfile::tempdir().expect("a folder"), serve_credentials());
    let mut alone = Command::new(std::env::current_exe().expect("this program"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        alone.env_remove(name);
    }
    let alone = alone.args(["--exact", name, "--nocapture"]).envs([
        (ALONE, name),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &from),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("HOME", folder.path().to_str().expect("UTF-8")),
        ("TEST_DYNAMODB_ENDPOINT", &services::dynamodb()),
    ]);
    let output = alone.output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[tokio::main(flavor = "current_thread")]
async fn beat_while_every_place_is_taken() {
    let (proxy, through, _) = two_addresses().await;
    let options = DynamodbOptions { max_concurrent_requests: PLACES, credentials: None, ..through };
    let store = Dynamodb::open(&options).await.unwrap();
    let _hanging = take_all_places(&proxy, &store).await;
    for beat in 1..=3 {
        let instance = InstanceId([7; 16]);
        let heartbeat = Heartbeat { instance, beat, changes: 0, address: "here:1".to_owned(), leaving: false };
        assert_eq!(store.beat(&heartbeat).await, Ok(true));
    }
    assert_eq!((store.places().taken(), store.places().refused()), (PLACES as u64, 0));
}

/// Serves them for as long as this process lives.
fn serve_credentials() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let from = format!("http://{}/", listener.local_addr().expect("it is bound"));
    std::thread::spawn(move || {
        let body =
            r#"{"AccessKeyId":"id","SecretAccessKey":"secret","Token":"token","Expiration":"2000-01-01T00:00:00Z"}"#;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
        for mut asking in listener.incoming().flatten() {
            let lines = BufReader::new(&asking).lines().map_while(Result::ok);
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let _ = write!(asking, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    });
    from
}
