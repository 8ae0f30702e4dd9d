//! The configurations that come with the recordings are what the service takes.

use std::path::Path;

use compat_tests::configuration::{self, Storage};

#[test]
fn every_built_in_configuration_is_taken_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["mg_woody", "mg2021", "modernizer"] {
        for storage in [Storage::Memory, Storage::Embedded(directory.path().to_owned())] {
            let template = configuration::built_in(name).unwrap();
            let text = configuration::fill(template, "http://127.0.0.1:1", &storage);
            if let Err(errors) = machinegun::config::parse(&text, &|_| None) {
                panic!("{name}: {errors}");
            }
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
