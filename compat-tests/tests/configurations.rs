//! The configurations that come with the recordings are what the service takes, or will take.

use std::path::Path;

use compat_tests::configuration::{self, Storage};

#[test]
fn every_built_in_configuration_is_refused_for_nothing_but_what_is_not_built_yet() {
    for name in ["mg_woody", "mg2021", "modernizer"] {
        let template = configuration::built_in(name).unwrap();
        let text = configuration::fill(template, "http://127.0.0.1:1", &Storage::Memory);
        if let Err(errors) = machinegun::config::parse(&text, &|_| None) {
            for problem in errors.to_string().lines().skip(1) {
                assert!(problem.contains("not built yet"), "{name}: {problem}");
            }
            assert_ne!(name, "mg_woody");
        }
    }
}

#[test]
fn a_template_beside_the_recording_comes_before_the_built_in_one() {
    let directory = tempfile::tempdir().unwrap();
    let recording = directory.path().join("mg_woody.jsonl");
    assert_eq!(configuration::template(&recording).unwrap(), configuration::built_in("mg_woody").unwrap());
    std::fs::write(recording.with_extension("yaml"), "mine").unwrap();
    assert_eq!(configuration::template(&recording).unwrap(), "mine");
    let error = configuration::template(Path::new("unheard_of.jsonl")).unwrap_err();
    assert!(error.contains("write unheard_of.yaml with {{processor}} and {{storage}}"), "{error}");
}
