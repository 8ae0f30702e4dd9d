//! TLS below HTTP, for peers of `https` URLs.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pool::name;
use super::socket::Socket;

/// Who may be trusted, and what is spoken.
#[derive(Clone)]
pub(super) struct Secure(TlsConnector);

// === impl Secure ===

impl Secure {
    pub(super) fn new(config: Arc<ClientConfig>) -> Self {
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self(TlsConnector::from(Arc::new(config)))
    }

    /// A peer that proves to be the `host` of its URL. The error is for logs and details: nothing was sent.
    pub(super) async fn handshake(&self, host: &str, socket: Socket) -> Result<TlsStream<Socket>, String> {
        let server = ServerName::try_from(host.to_owned()).map_err(|error| format!("tls: {host}: {error}"))?;
        let stream = self.0.connect(server, socket).await;
        stream.map_err(|error| format!("tls: {host}: {}", name(&error, "handshake failed")))
    }
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secure")
    }
}
