//! What the command line answers: help where something is missing, one line where something is wrong.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_machinegun")).args(arguments).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_missing_or_unknown_command_explains_itself_and_fails() {
    for (arguments, says) in [
        (&[][..], "machinegun demo"),
        (&["dance"], "unrecognized subcommand 'dance'"),
        (&["serve"], "--config <FILE>"),
        (&["demo", "--port", "many"], "--port"),
    ] {
        let output = run(arguments);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(errors.contains(says), "{arguments:?}: {errors}");
    }
}

#[test]
fn help_names_every_command_and_the_first_steps() {
    let output = run(&["--help"]);
    let help = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for word in ["serve", "check-config", "demo", "ledger", "schema", "--version", "First steps"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert_eq!(text(&run(&["--version"]).stdout), concat!("machinegun ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn both_shipped_configurations_pass_the_check() {
    for file in ["config/dev.yaml", "config/config.yaml"] {
        let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
        let output = run(&["check-config", "--config", &path]);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{file}");
    }
}

#[test]
fn a_configuration_with_errors_fails_the_check_and_the_start_alike() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, "storage: {type: riak}\nnamespaces: {}\nservise_name: x\n").expect("written");
    let path = path.to_str().expect("a plain path");
    for command in ["check-config", "serve"] {
        let output = run(&[command, "--config", path]);
        let errors = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""), "{command}: {errors}");
        for word in ["riak", "servise_name", "service_name"] {
            assert!(errors.contains(word), "{command}, {word}: {errors}");
        }
        let output = run(&[command, "--config", "/no/such/file"]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(text(&output.stderr).contains("/no/such/file"), "{command}");
    }
}
