//! TLS as a peer speaks it, by certificates made for these tests alone: an authority, and what it says of 127.0.0.1.
#![allow(dead_code, reason = "each test takes its part")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Who vouches for the peer, and somebody who does not.
pub const AUTHORITY: &str = "authority.pem";
pub const STRANGER: &str = "collector.pem";

pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
}

pub fn acceptor() -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let chain = CertificateDer::pem_file_iter(file("collector.pem")).expect("a certificate");
    let chain = chain.collect::<Result<_, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(file("collector.key")).expect("a key");
    let config = config.expect("versions").with_no_client_auth().with_single_cert(chain, key);
    TlsAcceptor::from(Arc::new(config.expect("they belong together")))
}

/// An address at which TLS is spoken for a peer that does not.
pub async fn front(peer: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let acceptor = acceptor();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Whoever does not trust the certificate goes again.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let Ok(mut peer) = TcpStream::connect(peer).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut peer).await;
            });
        }
    });
    address
}
