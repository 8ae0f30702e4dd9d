use compat_tests::recorded_service::RecordedService;
use compat_tests::recording::Recording;
use compat_tests::replay::{Options, Replay};
use machinegun::clock::Clock;
use std::path::Path;

#[tokio::test]
async fn the_recording_agrees_with_itself() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/mg_woody.jsonl");
    let recording = Recording::read(&path).unwrap();
    let options = Options { linger: 0, ..Options::default() };
    let replay = Replay::prepare(&recording, options, Clock::system()).await.unwrap();
    let service = RecordedService::start(&recording, &replay.processor_url(), Clock::system()).await.unwrap();
    let report = replay.play(&service.url()).await;
    assert!(report.agrees(), "{report}");
}
