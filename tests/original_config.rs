//! A configuration of the original, taken as it is but for `storage`.

mod process;

use std::path::Path;
use std::process::Stdio;

use process::{Folder, Machinegun, soon};
use tokio::process::Command;

const ORIGINAL: &str = include_str!("originals/config.yaml");

/// What only Erlang, Riak or an older release needs: each has to be named when the service starts.
const IGNORED: [&str; 20] = [
    "dist_node_name",
    "dist_port",
    "erlang",
    "process_registry",
    "consuela",
    "consul",
    "metrics",
    "postgres",
    "canal",
    "progressor",
    "storage.host",
    "storage.port",
    "storage.pool",
    "storage.connect_timeout",
    "storage.index_query_timeout",
    "storage.r_options",
    "namespaces.com.rbkmoney/invoice.reschedule_timeout",
    "namespaces.com.rbkmoney/invoice.hibernate_timeout",
    "namespaces.com.rbkmoney/invoice.event_stash_size",
    "logging.flush_qlen",
];

fn command(name: &str, config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_machinegun"));
    command.args([name, "--config"]).arg(config).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // The cookie's file is not there, and its variable is not set: nothing asks for either.
    command.env("MG_IP", "127.0.0.1").env("MG_KAFKA_PASSWORD", "qwerty").env_remove("MG_COOKIE_FILE");
    command.kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_file_of_the_original_is_refused_for_its_storage_alone() {
    let folder = Folder::new();
    let config = folder.configured_as(ORIGINAL);
    let output = soon("the check", command("check-config", &config).output()).await.expect("it runs");
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!((output.status.code(), errors.lines().count()), (Some(1), 2), "{errors}");
    assert!(errors.contains("storage.type is `riak`") && errors.contains("type: embedded"), "{errors}");
}

#[tokio::test]
async fn a_file_of_the_original_starts_once_its_storage_is_changed_and_names_each_key_that_it_ignores() {
    let folder = Folder::new();
    // Only what the refusal says: the keys of Riak may stay.
    let storage = format!("type: embedded\n  path: {:?}", folder.store());
    let text = ORIGINAL.replace("type: riak", &storage);
    assert_ne!(text, ORIGINAL);
    let config = folder.configured_as(&text);

    let output = soon("the check", command("check-config", &config).output()).await.expect("it runs");
    let described = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    for key in IGNORED {
        assert!(described.contains(&format!("#   {key}: ignored\n")), "{key} is not accounted for in\n{described}");
    }
    assert!(!described.contains("qwerty"), "a secret is shown");

    let child = command("serve", &config).spawn().expect("the binary starts");
    let service = Machinegun::up(child).await;
    for key in IGNORED {
        let said = format!("{key} is ignored: ");
        let times = service.log().iter().filter(|line| line.contains(&said)).count();
        assert_eq!(times, 1, "{key}: {:#?}", service.log());
    }
    service.terminate();
    let ended = service.ended().await;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
}
