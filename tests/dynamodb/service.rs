//! The program on a table: refused without one, made by command, and what it wrote is there after a restart.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use machinegun::config::{StorageSettings, parse};

use super::services;

fn text(options: &machinegun::storage::dynamodb::DynamodbOptions, shards: u16) -> String {
    format!(
        "storage: {{type: dynamodb, table: {}, region: here, endpoint_url: '{}', shards: {shards}, request_timeout: 20s}}\n\
         woody_server: {{ip: 127.0.0.1, port: 0}}\n\
         namespaces: {{ns: {{processor: {{url: 'http://127.0.0.1:1/'}}}}}}\n",
        options.table,
        options.endpoint_url.as_deref().unwrap_or_default(),
    )
}

fn run(arguments: &[&str], config: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_machinegun"))
        .args(arguments)
        .arg("--config")
        .arg(config)
        .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
        .output()
        .expect("the binary starts")
}

fn error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

#[test]
fn a_table_is_made_and_checked_by_command_and_serve_refuses_any_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.yaml");
    let options = services::table_at(&services::dynamodb());
    std::fs::write(&config, text(&options, 3)).expect("written");
    for command in [&["serve"][..], &["schema", "check"]] {
        let line = error(&run(command, &config));
        assert!(line.contains("there is no table") && line.contains("machinegun schema create --config"), "{line}");
    }
    for _ in 0..2 {
        let output = run(&["schema", "create"], &config);
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("is there, with 3 shards"), "{output:?}");
    }
    let output = run(&["schema", "check"], &config);
    assert!(output.status.success(), "{output:?}");
    std::fs::write(&config, text(&options, 4)).expect("written");
    for command in [&["serve"][..], &["schema", "check"], &["schema", "create"]] {
        let line = error(&run(command, &config));
        assert!(line.contains("3 shards") && line.contains("write `shards: 3`"), "{line}");
    }
    std::fs::write(&config, "storage: {type: memory}\nnamespaces: {ns: {processor: {url: 'http://127.0.0.1:1/'}}}\n")
        .expect("written");
    assert!(error(&run(&["schema", "check"], &config)).contains("only `storage.type: dynamodb` has a schema"));
}

#[test]
fn a_configuration_starts_without_a_notice() {
    let options = services::table_at("http://127.0.0.1:1");
    let (settings, report) = parse(&text(&options, 4), &|_| None).expect("a file without errors");
    assert!(matches!(settings.storage, StorageSettings::Dynamodb(_)));
    assert_eq!(report.notices, vec![]);
}

#[test]
fn a_service_starts_on_a_table_that_it_may_make_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.yaml");
    let options = services::table_at(&services::dynamodb());
    for create in [true, false] {
        let text = text(&options, 4).replace("shards: 4", &format!("shards: 4, create_table: {create}"));
        std::fs::write(&config, format!("{text}logging: {{out_type: stdout}}\n")).expect("written");
        let mut service = Command::new(env!("CARGO_BIN_EXE_machinegun"))
            .args(["serve", "--config"])
            .arg(&config)
            .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let lines = BufReader::new(service.stdout.take().expect("its output is a pipe")).lines();
        let mut lines = lines.map(|line| line.expect("its output is text"));
        assert!(lines.by_ref().any(|line| line.contains("machinegun is up")), "create_table: {create}");
        let pid = rustix::process::Pid::from_child(&service);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        assert!(lines.any(|line| line.contains("machinegun has stopped")), "create_table: {create}");
        assert!(service.wait().expect("it ends").success(), "create_table: {create}");
    }
}
