//! TLS: certificates by name, what is offered, and the handshake.
//!
//! rustls with aws-lc-rs, always given explicitly: a process default would be ambiguous as soon as
//! any dependency brought a second provider. No 0-RTT: a replayed GET is still a request served
//! twice. Keys and certificates are fixed when a [`Tls`] is made; a reload makes another.

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
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Protocol, TlsFacts};
use crate::limits::TLS_BUFFER_BYTES_MAX;

/// A certificate chain with the key that fits it.
#[derive(Clone, Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
}

impl Certificate {
    /// Reads a PEM chain, the server's own certificate first, and its PEM key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Certificate, TlsError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(TlsError::Chain)?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::Key)?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Pair)?;
        Ok(Certificate { key: Arc::new(key) })
    }

    /// A pair that has been read and matched already.
    pub fn of(key: Arc<CertifiedKey>) -> Certificate {
        Certificate { key }
    }

    /// Whether the certificate was issued for `host`, wildcards included.
    pub fn covers(&self, host: &str) -> bool {
        let Ok(name) = ServerName::try_from(host) else { return false };
        let own = self.key.cert.first().expect("a chain is checked to have a certificate");
        ParsedCertificate::try_from(own)
            .is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
    }
}

/// The cipher suites, groups and signatures we speak: AES-128-GCM first, the cheapest where AES has
/// instructions of its own.
pub fn provider() -> Arc<CryptoProvider> {
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
        certificates: &[Certificate],
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
        certificates: &[Certificate],
        hosts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Names, TlsError> {
        let first = certificates.first().ok_or(TlsError::NoCertificate)?;
        let mut by_name = HashMap::new();
        for host in hosts {
            let example = host.replacen("*.", "any-name.", 1);
            if let Some(found) = certificates.iter().find(|one| one.covers(&example)) {
                by_name.insert(host.to_ascii_lowercase(), Arc::clone(&found.key));
            }
        }
        Ok(Names { by_name, first: Arc::clone(&first.key) })
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

/// Why certificates cannot be used.
#[derive(Debug)]
pub enum TlsError {
    /// The chain is not PEM.
    Chain(pem::Error),
    /// There is none.
    NoCertificate,
    /// The key is not PEM.
    Key(pem::Error),
    /// The key is of an unknown kind, or not the certificate's.
    Pair(rustls::Error),
    /// The cryptography itself could not be set up.
    Provider(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Chain(error) => write!(f, "certificate chain is not readable PEM: {error}"),
            TlsError::NoCertificate => write!(f, "no certificate"),
            TlsError::Key(error) => write!(f, "private key is not readable PEM: {error}"),
            TlsError::Pair(error) => write!(f, "private key does not fit the certificate: {error}"),
            TlsError::Provider(error) => write!(f, "TLS cannot be set up: {error}"),
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            TlsError::Chain(error) | TlsError::Key(error) => Some(error),
            TlsError::NoCertificate => None,
            TlsError::Pair(error) | TlsError::Provider(error) => Some(error),
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

    fn issued_for(names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Certificate::from_pem(
            made.cert.pem().as_bytes(),
            made.signing_key.serialize_pem().as_bytes(),
        )
        .unwrap()
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
            assert!(Arc::ptr_eq(names.find(name), &expected.key), "{name}");
        }
        assert!(film.covers("x.cdn.example") && !film.covers("live.example") && !film.covers(""));
    }

    #[test]
    fn a_key_that_is_not_the_certificates_is_refused() {
        let one = rcgen::generate_simple_self_signed(["a.example".to_string()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["a.example".to_string()]).unwrap();
        let (chain, key) = (one.cert.pem(), other.signing_key.serialize_pem());

        let refused = |chain: &str, key: &str| {
            Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err().to_string()
        };
        assert!(refused(&chain, &key).starts_with("private key does not fit the certificate"));
        assert_eq!(refused("", &key), "no certificate");
        assert!(refused(&chain, "nothing").starts_with("private key is not readable PEM"));
        assert!(Tls::new(&[], []).is_err());
    }
}
