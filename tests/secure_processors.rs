//! Processors behind TLS, and whom the service trusts.

mod certificates;
mod process;

use certificates::{AUTHORITY, STRANGER};
use process::peer::Peer;
use process::processor::{Order, Processor};
use process::{Folder, Machinegun};

#[tokio::test]
async fn a_machine_lives_on_a_processor_behind_tls_if_the_systems_authorities_vouch_for_it() {
    let (folder, processor) = (Folder::new(), Processor::start());
    let front = certificates::front(processor.address).await;
    let text = process::configuration(&folder.store(), front).replace("http://", "https://");
    assert!(text.contains("https://"), "{text}");
    let config = folder.configured_as(&text);
    let trusting = |name| [("SSL_CERT_FILE", certificates::file(name).display().to_string())];
    let start = async |name| {
        let [(variable, file)] = trusting(name);
        Machinegun::start_in(&[(variable, &file)], &config).await
    };
    let service = start(STRANGER).await;
    let refused = Peer::of(service.address).start("m", &Order::plain("1")).await;
    assert!(refused.is_err(), "{refused:?}");
    let said = |line: &str| (line.contains("tls: 127.0.0.1: ") && line.contains("certificate")).then_some(());
    service.logged("why the processor is unavailable", said).await;
    assert_eq!(processor.repeats().0, 0, "nothing was asked");
    service.kill().await;
    let service = start(AUTHORITY).await;
    let peer = Peer::of(service.address);
    peer.start("m", &Order::plain("2")).await.expect("started");
    peer.call("m", &Order::plain("3")).await.expect("called");
    assert_eq!(processor.repeats(), (2, 0), "the start and the call");
}

#[tokio::test]
async fn a_service_that_could_trust_no_processor_does_not_start() {
    let (folder, processor) = (Folder::new(), Processor::start());
    let text = process::configuration(&folder.store(), processor.address).replace("http://", "https://");
    let config = folder.configured_as(&text);
    let nobody = folder.path().join("nobody.pem");
    std::fs::write(&nobody, "").expect("written");
    let runner = ["env".to_owned(), format!("SSL_CERT_FILE={}", nobody.display()), "SSL_CERT_DIR=".to_owned()];
    let said = Machinegun::try_start_under(&runner, &config).await.err().expect("it does not start");
    assert!(said.contains("no certificates of authorities can be read"), "{said}");
    assert!(said.contains("SSL_CERT_FILE"), "{said}");
}
