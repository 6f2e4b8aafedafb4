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
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier as _};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::super::admin::{ANSWER_BYTES_MAX, ANSWER_WITHIN, runtime};
use crate::cli::Failure;
use crate::config::Control;
use crate::control::believed::{Believed, ServerShows};
use crate::control::issuer::{CA_FILE, OWN_NAME};
use crate::control::plane::wire::EXPORT_PATH;
use crate::limits::{EXPORT_BYTES_MAX, EXPORT_WITHIN};

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
    let bounds = match path {
        EXPORT_PATH => (EXPORT_WITHIN, EXPORT_BYTES_MAX),
        _ => (ANSWER_WITHIN, ANSWER_BYTES_MAX),
    };
    let answer = runtime()?.block_on(async {
        match timeout(bounds.0, answered(address, tls(control)?, request, bounds.1)).await {
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
    bytes_max: usize,
) -> Result<Answer, AnyError> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::from(address.ip());
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let is_good = response.status().is_success();
    let body = Limited::new(response.into_body(), bytes_max).collect().await?.to_bytes();
    connection.abort();
    Ok((is_good, body.to_vec()))
}

fn tls(control: &Control) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let judge = ours(control, &provider)?;
    let verifier = Arc::new(Believed { judge, provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let config = config.dangerous().with_custom_certificate_verifier(verifier);
    Ok(config.with_no_client_auth())
}

type Judge =
    Box<dyn Fn(&ServerShows<'_>) -> Result<ServerCertVerified, rustls::Error> + Send + Sync>;

/// Believes the control plane of one configuration, by whatever address it is asked: what it shows,
/// where that is in the configuration, or else what its own authority issued.
fn ours(control: &Control, provider: &Arc<CryptoProvider>) -> Result<Judge, Failure> {
    if let Some(shown) = control.shown().and_then(|key| key.cert.first().cloned()) {
        return Ok(Box::new(move |shows| match *shows.certificate == shown {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }));
    }
    let path = control.folder.join(CA_FILE);
    let no_ca = |what: String| Failure::Failed(format!("{}: {what}", path.display()));
    let ca = CertificateDer::from_pem_file(&path).map_err(|error| no_ca(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(|error| no_ca(error.to_string()))?;
    let issued = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
    let issued = issued.build().map_err(|error| no_ca(error.to_string()))?;
    Ok(Box::new(move |shows| {
        // It is asked on its own machine, and may have no name for that.
        let name = OWN_NAME.try_into().expect("it is a name");
        let ServerShows { certificate, chain, ocsp, now, .. } = *shows;
        issued.verify_server_cert(certificate, chain, &name, ocsp, now)
    }))
}
