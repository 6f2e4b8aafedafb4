//! Asking the control plane that runs on this machine: over TLS, and only one that shows what the
//! configuration says it has, or what its own authority has issued.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::super::admin::{ANSWER_BYTES_MAX, ANSWER_WITHIN, runtime};
use crate::cli::Failure;
use crate::config::Control;
use crate::control::issuer::CA_FILE;

/// What the control plane of this configuration answers.
pub(super) fn ask(
    control: &Control,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Value, Failure> {
    let Some(tokens) = &control.tokens else {
        let text = "nobody may ask it: write `control.token_file` in the configuration";
        return Err(Failure::Failed(text.to_owned()));
    };
    let token = tokens.to_show().as_str();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .body(Full::new(body.into()))
        .expect("a token is printable");
    let address = reached(control.listen[0]);
    let silent = |what: &str| {
        Failure::Failed(format!("no control plane answers at {address}: {what}; is it running?"))
    };
    let answer = runtime()?.block_on(async {
        match timeout(ANSWER_WITHIN, answered(address, tls(control)?, request)).await {
            Ok(answer) => answer.map_err(|error| silent(&error.to_string())),
            Err(_) => Err(silent("no answer in time")),
        }
    })?;
    let (is_good, body) = answer;
    let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    match value["error"].as_str() {
        _ if is_good => Ok(value),
        Some(why) => Err(Failure::Failed(why.to_owned())),
        None => Err(silent("it answers something else")),
    }
}

/// From this machine; an address of any stands for one of it.
fn reached(listen: SocketAddr) -> SocketAddr {
    let here = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(here, listen.port())
}

type Answer = (bool, Vec<u8>);
type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn answered(
    address: SocketAddr,
    config: ClientConfig,
    request: Request<Full<bytes::Bytes>>,
) -> Result<Answer, AnyError> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::from(address.ip());
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let is_good = response.status().is_success();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
    connection.abort();
    Ok((is_good, body.to_vec()))
}

fn tls(control: &Control) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let shown = control.certificate.as_ref().and_then(|key| key.cert.first().cloned());
    let verifier = Ours::new(shown, control, provider.clone())?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(config.with_no_client_auth())
}

/// Believes the control plane of one configuration, by whatever address it is asked.
#[derive(Debug)]
struct Ours {
    /// What it shows, where that is in the configuration.
    shown: Option<CertificateDer<'static>>,
    /// What its own authority issued.
    issued: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Ours {
    fn new(
        shown: Option<CertificateDer<'static>>,
        control: &Control,
        provider: Arc<CryptoProvider>,
    ) -> Result<Ours, Failure> {
        if shown.is_some() {
            return Ok(Ours { shown, issued: None, provider });
        }
        let path = control.folder.join(CA_FILE);
        let no_ca = |what: String| Failure::Failed(format!("{}: {what}", path.display()));
        let ca = CertificateDer::from_pem_file(&path).map_err(|error| no_ca(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca).map_err(|error| no_ca(error.to_string()))?;
        let issued =
            WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build();
        let issued = issued.map_err(|error| no_ca(error.to_string()))?;
        Ok(Ours { shown: None, issued: Some(issued), provider })
    }
}

impl ServerCertVerifier for Ours {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.shown.as_ref().is_some_and(|shown| shown == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        let unknown = rustls::CertificateError::UnknownIssuer;
        let issued = self.issued.as_ref().ok_or(rustls::Error::InvalidCertificate(unknown))?;
        // It is asked on its own machine, and may have no name for that.
        let name = crate::control::issuer::OWN_NAME.try_into().expect("it is a name");
        issued.verify_server_cert(end_entity, intermediates, &name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
