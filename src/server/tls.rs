//! TLS: certificates by name, what is offered, and the handshake.
//!
//! rustls with aws-lc-rs, always given explicitly: a process default would be ambiguous as soon as
//! any dependency brought a second provider. No 0-RTT: a replayed GET is still a request served
//! twice. Keys and certificates are fixed when a [`Tls`] is made; reading and matching them is the
//! configuration's.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedCipherSuite};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Protocol, TlsFacts};
use crate::limits::TLS_BUFFER_BYTES_MAX;

/// The cipher suites, groups and signatures we speak: AES-128-GCM first, the cheapest where AES has
/// instructions of its own.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = CIPHER_SUITES.to_vec();
    Arc::new(provider)
}

/// Everything needed to accept TLS connections; clones share it.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Each of `hosts` (a name, or `*.` and a name) is answered with the first certificate that
    /// covers it, every other name with the first of all.
    pub fn new<'a>(
        certificates: &[Arc<CertifiedKey>],
        hosts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Tls, TlsError> {
        let names = Names::new(certificates, hosts)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Provider)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(names));
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), b"http/1.1".to_vec()];
        // OpenSSL's clients put AES-256 first, for no reason that concerns a film.
        config.ignore_client_order = true;
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Provider)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Shakes hands. Dropping it midway closes the connection.
    pub(super) async fn handshake<S>(
        &self,
        stream: S,
    ) -> io::Result<(TlsStream<S>, Protocol, TlsFacts)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let limit = |session: &mut rustls::ServerConnection| {
            session.set_buffer_limit(Some(TLS_BUFFER_BYTES_MAX));
        };
        let stream = self.acceptor.accept_with(stream, limit).await?;
        let session = stream.get_ref().1;
        let protocol = match session.alpn_protocol() {
            Some(ALPN_HTTP2) => Protocol::Http2,
            _ => Protocol::Http1,
        };
        let facts = TlsFacts { server_name: session.server_name().map(str::to_ascii_lowercase) };
        Ok((stream, protocol, facts))
    }
}

/// Which certificate answers which name.
#[derive(Debug)]
struct Names {
    /// Exact names, and wildcards with their `*.`.
    by_name: HashMap<String, Arc<CertifiedKey>>,
    first: Arc<CertifiedKey>,
}

impl Names {
    fn new<'a>(
        certificates: &[Arc<CertifiedKey>],
        hosts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Names, TlsError> {
        let first = certificates.first().ok_or(TlsError::NoCertificate)?;
        let mut by_name = HashMap::new();
        for host in hosts {
            let example = host.replacen("*.", "any-name.", 1);
            if let Some(found) = certificates.iter().find(|one| covers(one, &example)) {
                by_name.insert(host.to_ascii_lowercase(), Arc::clone(found));
            }
        }
        Ok(Names { by_name, first: Arc::clone(first) })
    }

    fn find(&self, name: &str) -> &Arc<CertifiedKey> {
        let name = name.to_ascii_lowercase();
        let wildcard = || {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        };
        self.by_name.get(&name).or_else(wildcard).unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let key = hello.server_name().map_or(&self.first, |name| self.find(name));
        Some(Arc::clone(key))
    }
}

/// Whether the certificate was issued for `host`, wildcards included.
fn covers(certificate: &CertifiedKey, host: &str) -> bool {
    let Ok(name) = ServerName::try_from(host) else { return false };
    let own = certificate.cert.first().expect("a chain is checked to have a certificate");
    ParsedCertificate::try_from(own)
        .is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
}

/// Why TLS cannot be offered.
#[derive(Debug)]
pub enum TlsError {
    /// There is no certificate.
    NoCertificate,
    /// The cryptography itself could not be set up.
    Provider(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::NoCertificate => write!(f, "no certificate"),
            TlsError::Provider(error) => write!(f, "{error}"),
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            TlsError::NoCertificate => None,
            TlsError::Provider(error) => Some(error),
        }
    }
}

const ALPN_HTTP2: &[u8] = b"h2";

const CIPHER_SUITES: [SupportedCipherSuite; 9] = [
    aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
    aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::certified;

    fn issued_for(names: &[&str]) -> Arc<CertifiedKey> {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        certified(&made)
    }

    #[test]
    fn a_name_gets_the_first_certificate_that_covers_it() {
        let film = issued_for(&["film.example", "*.cdn.example"]);
        let live = issued_for(&["live.example", "film.example"]);
        let hosts = ["film.example", "Live.example", "*.cdn.example", "lost.example"];
        let names = Names::new(&[film.clone(), live.clone()], hosts).unwrap();

        for (name, expected) in [
            ("film.example", &film),
            ("LIVE.example", &live),
            ("a.cdn.example", &film),
            ("a.b.cdn.example", &film),
            ("lost.example", &film),
            ("localhost", &film),
        ] {
            assert!(Arc::ptr_eq(names.find(name), expected), "{name}");
        }
        assert!(covers(&film, "x.cdn.example"));
        assert!(!covers(&film, "live.example") && !covers(&film, ""));
    }

    #[test]
    fn without_a_certificate_there_is_no_tls() {
        assert!(matches!(Tls::new(&[], []), Err(TlsError::NoCertificate)));
    }
}
