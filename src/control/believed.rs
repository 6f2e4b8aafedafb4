//! Whom a client believes over TLS: not whoever an authority of the web vouches for, but a control
//! plane that is known in another way.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// What a server shows to say who it is.
#[derive(Debug)]
pub struct ServerShows<'a> {
    /// Its certificate.
    pub certificate: &'a CertificateDer<'a>,
    /// Those behind it.
    pub chain: &'a [CertificateDer<'a>],
    /// By what it was asked.
    pub name: &'a ServerName<'a>,
    /// What is said of its being revoked (RFC 6960), or nothing.
    pub ocsp: &'a [u8],
    /// When.
    pub now: UnixTime,
}

/// A verifier of rustls that asks `judge` who is believed, and checks signatures by `provider`.
pub struct Believed<F> {
    /// Who is.
    pub judge: F,
    /// By whose algorithms.
    pub provider: Arc<CryptoProvider>,
}

impl<F> fmt::Debug for Believed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Believed").finish_non_exhaustive()
    }
}

impl<F> ServerCertVerifier for Believed<F>
where
    F: Fn(&ServerShows<'_>) -> Result<ServerCertVerified, Error> + Send + Sync,
{
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        (self.judge)(&ServerShows { certificate, chain, name, ocsp, now })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
