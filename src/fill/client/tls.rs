//! Which certification authorities vouch for whoever is asked: an origin, an authority for
//! certificates, who receives the access log.
//!
//! Those that the configuration names for it and no others, or else those of the system.

use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;

use crate::site::{Origin, Scheme};

/// How an origin is spoken to over TLS, and whom it must be known to.
///
/// # Errors
/// Why its authorities cannot be used.
pub fn tls_config(origin: &Origin) -> Result<ClientConfig, String> {
    tls_config_of(origin.roots.as_deref(), origin.scheme)
}

/// The same of anybody, by the authorities trusted; `None`: the system's, or nobody where `scheme`
/// is plain.
///
/// # Errors
/// Why they cannot be used.
pub fn tls_config_of(
    roots: Option<&[CertificateDer<'static>]>,
    scheme: Scheme,
) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match (roots, scheme) {
        (Some(certificates), _) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates {
                roots.add(certificate.clone()).map_err(|error| error.to_string())?;
            }
            builder.with_root_certificates(roots)
        }
        (None, Scheme::Https) => builder.with_native_roots().map_err(|error| error.to_string())?,
        // Never used: a plain origin's redirects to https would need the system's authorities.
        (None, Scheme::Http) => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(config.with_no_client_auth())
}
