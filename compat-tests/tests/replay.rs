//! The original's own API suite, played against the service: its clients and its processors notice no difference.

use std::path::{Path, PathBuf};

use compat_tests::configuration::{self, Storage};
use compat_tests::recording::Recording;
use compat_tests::replay::{Options, Replay, Report};
use compat_tests::service_under_test::ServiceUnderTest;
use machinegun::clock::Clock;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings").join(name).with_extension("jsonl")
}

/// Plays `recording` against a service of its own, configured as `name` needs.
async fn play(name: &str, recording: &Recording, storage: Storage, options: Options) -> Report {
    let replay = Replay::prepare(recording, options, Clock::system()).await.unwrap();
    let template = configuration::built_in(name).unwrap();
    let service =
        ServiceUnderTest::start(&configuration::fill(template, &replay.processor_url(), &storage)).await.unwrap();
    let report = replay.play(&service.url()).await;
    service.stop().await.unwrap();
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn the_originals_suite_agrees_on_memory() {
    let recording = Recording::read(&file("mg_woody")).unwrap();
    let report = play("mg_woody", &recording, Storage::Memory, Options::default()).await;
    assert!(report.agrees(), "{report}");
    assert_eq!(report.agreeing(), 344);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_originals_suite_agrees_on_the_embedded_store() {
    let recording = Recording::read(&file("mg_woody")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::Embedded(directory.path().to_owned());
    let report = play("mg_woody", &recording, storage, Options::default()).await;
    assert!(report.agrees(), "{report}");
    assert_eq!(report.agreeing(), 344);
}
