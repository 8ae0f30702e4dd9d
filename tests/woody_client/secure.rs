//! Peers of `https` URLs.

use std::sync::Arc;

use machinegun::woody::{Class, ClientSettings, Source};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::certificates::{self, AUTHORITY, STRANGER};
use crate::script::*;

/// A peer behind TLS, and a client that trusts those whom the file vouches for.
async fn trusting(file: &str) -> (Script, String) {
    let certificate = CertificateDer::from_pem_file(certificates::file(file)).expect("a certificate");
    let mut authorities = RootCertStore::empty();
    authorities.add(certificate).expect("a certificate of an authority");
    let tls = Some(Arc::new(machinegun::tls::trusting(authorities)));
    let script = Script::with(|settings: &mut ClientSettings| settings.tls = tls).await;
    let front = certificates::front(script.address).await;
    (script, format!("https://{front}/v1/processor"))
}

#[tokio::test]
async fn calls_go_out_over_one_connection_after_the_other_like_any_others() {
    let (script, url) = trusting(AUTHORITY).await;
    let peer = async {
        let mut taken = script.take().await;
        for _ in 0..3 {
            let (head, body) = taken.request().await;
            assert!(head.starts_with("POST /v1/processor HTTP/1.1\r\n"), "{head}");
            assert!(head.contains(&format!("host: {}\r\n", url[8..].trim_end_matches("/v1/processor"))), "{head}");
            assert_eq!(body, unhex(CALL));
            taken.send(ok(REPLY)).await;
        }
        script.nobody_came().await;
    };
    let calls = async {
        for _ in 0..3 {
            assert_eq!(script.call_to(&url).await.expect("a reply"), unhex(RESULT));
        }
    };
    tokio::join!(calls, peer);
}

#[tokio::test]
async fn a_connection_that_a_secure_peer_closed_meanwhile_is_made_anew() {
    let (script, url) = trusting(AUTHORITY).await;
    for _ in 0..2 {
        let peer = async {
            let mut taken = script.take().await;
            taken.request().await;
            taken.send(ok(REPLY)).await;
        };
        assert!(tokio::join!(script.call_to(&url), peer).0.is_ok());
    }
}

#[tokio::test]
async fn nothing_is_sent_to_a_peer_whom_nobody_vouches_for() {
    let (script, url) = trusting(STRANGER).await;
    let error = script.call_to(&url).await.expect_err("it is not trusted");
    assert_eq!((error.source, error.class), (Source::Internal, Class::ResourceUnavailable));
    assert!(
        error.details.starts_with("tls: 127.0.0.1: ") && error.details.contains("certificate"),
        "{}",
        error.details
    );
    script.nobody_came().await;
}

/// The certificate is of 127.0.0.1.
#[tokio::test]
async fn nothing_is_sent_to_a_peer_of_another_name() {
    let (script, url) = trusting(AUTHORITY).await;
    let error = script.call_to(&url.replace("127.0.0.1", "localhost")).await.expect_err("it is not trusted");
    assert!(error.details.starts_with("tls: localhost: "), "{}", error.details);
    script.nobody_came().await;
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_is_unavailable() {
    let (script, _) = trusting(AUTHORITY).await;
    let peer = async { script.take().await.send("HTTP/1.1 400 Bad Request\r\n\r\n").await };
    let url = format!("https://{}/", script.address);
    let error = tokio::join!(script.call_to(&url), peer).0.expect_err("no TLS");
    assert_eq!((error.source, error.class), (Source::Internal, Class::ResourceUnavailable));
    assert!(error.details.starts_with("tls: 127.0.0.1: "), "{}", error.details);
}
