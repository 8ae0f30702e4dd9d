//! TLS to peers, whose certificates the system's authorities vouch for, or those of the file that `SSL_CERT_FILE` names.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// Nobody could vouch for a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no certificates of authorities can be read ({0}): install the system's (Debian: ca-certificates), or name a file of them by SSL_CERT_FILE"
)]
pub struct NoAuthorities(String);

/// Reads the authorities: for a start, not for a request.
pub fn trusting_the_system() -> Result<ClientConfig, NoAuthorities> {
    let found = rustls_native_certs::load_native_certs();
    let mut authorities = RootCertStore::empty();
    let (_, unreadable) = authorities.add_parsable_certificates(found.certs);
    if authorities.is_empty() {
        let errors = found.errors.iter().map(ToString::to_string);
        let unreadable = (unreadable > 0).then(|| format!("{unreadable} are none"));
        let reasons: Vec<_> = errors.chain(unreadable).collect();
        return Err(NoAuthorities(if reasons.is_empty() { "there are none".to_owned() } else { reasons.join("; ") }));
    }
    Ok(trusting(authorities))
}

pub fn trusting(authorities: RootCertStore) -> ClientConfig {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("the provider has suites for each version");
    config.with_root_certificates(authorities).with_no_client_auth()
}
