//! TLS: certificates by name, what is offered, and the handshake.
//!
//! rustls with aws-lc-rs, always given explicitly: a process default would be ambiguous as soon as
//! any dependency brought a second provider. No 0-RTT: a replayed GET is still a request served
//! twice. Which certificate is shown is asked at each handshake; reading and matching them is the
//! configuration's. An authority that asks whether a name is ours (RFC 8737) gets a handshake with
//! another certificate, and nothing more.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedCipherSuite};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
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
    /// Viewers are shown the certificate that `choose` gives for the name they ask for, in lower
    /// case, or for none; an authority that asks whether a name is ours the one of `prove`.
    ///
    /// # Errors
    /// When the cryptography itself cannot be set up.
    pub fn new(choose: impl Choose, prove: impl Choose) -> Result<Tls, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ByName { choose, prove }));
        config.alpn_protocols = [ALPN_HTTP2, b"http/1.1", ALPN_PROOF].map(<[u8]>::to_vec).into();
        // OpenSSL's clients put AES-256 first, for no reason that concerns a film.
        config.ignore_client_order = true;
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Whoever has a certificate that `clients` verifies may show it, and be known by it. Nothing
    /// is resumed: who was let in once proves again who he is.
    ///
    /// # Errors
    /// When the cryptography itself cannot be set up.
    pub fn for_clients(
        choose: impl Choose,
        clients: Arc<dyn ClientCertVerifier>,
    ) -> Result<Tls, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(ByName { choose, prove: |_: Option<&str>| None }));
        config.alpn_protocols = [ALPN_HTTP2, b"http/1.1"].map(<[u8]>::to_vec).into();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Shakes hands; nothing is left of a handshake that was a proof. Dropping it midway closes the
    /// connection.
    pub(super) async fn handshake<S>(
        &self,
        stream: S,
    ) -> io::Result<Option<(TlsStream<S>, Protocol, TlsFacts)>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let limit = |session: &mut rustls::ServerConnection| {
            session.set_buffer_limit(Some(TLS_BUFFER_BYTES_MAX));
        };
        let mut stream = self.acceptor.accept_with(stream, limit).await?;
        let session = stream.get_ref().1;
        let protocol = match session.alpn_protocol() {
            Some(ALPN_HTTP2) => Protocol::Http2,
            Some(ALPN_PROOF) => {
                stream.shutdown().await?;
                return Ok(None);
            }
            _ => Protocol::Http1,
        };
        let chain = session.peer_certificates().unwrap_or_default();
        let mut shown = chain.iter().map(|one| one.clone().into_owned());
        let facts = TlsFacts {
            server_name: session.server_name().map(str::to_ascii_lowercase),
            certificate: shown.next(),
            intermediates: shown.collect(),
        };
        Ok(Some((stream, protocol, facts)))
    }
}

/// The certificate for a name, or for no name.
pub trait Choose: Fn(Option<&str>) -> Option<Arc<CertifiedKey>> + Send + Sync + 'static {}

impl<F> Choose for F
where
    F: Fn(Option<&str>) -> Option<Arc<CertifiedKey>>,
    F: Send + Sync + 'static,
{
}

struct ByName<F, P> {
    choose: F,
    prove: P,
}

impl<F, P> fmt::Debug for ByName<F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByName")
    }
}

impl<F: Choose, P: Choose> ResolvesServerCert for ByName<F, P> {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        // An authority offers this protocol and no other.
        let mut offered = hello.alpn().into_iter().flatten();
        match offered.next() == Some(ALPN_PROOF) && offered.next().is_none() {
            true => (self.prove)(name.as_deref()),
            false => (self.choose)(name.as_deref()),
        }
    }
}

const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_PROOF: &[u8] = b"acme-tls/1";

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
