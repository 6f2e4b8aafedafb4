//! A viewer for the smoke test: one TLS connection to the edge, HTTP/1.1 or HTTP/2 as told.
//!
//! Trusts the demo's own certificate and nothing else. One request at a time, each within a
//! deadline.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
const BODY_BYTES_MAX: usize = 16 << 20;

/// Where the edge listens for HTTPS, its site's name, and the certificate to trust.
#[derive(Clone, Debug)]
pub struct EdgeAddress {
    /// The HTTPS listener.
    pub address: SocketAddr,
    /// The host name asked for, in the TLS handshake too.
    pub host: String,
    /// The edge's own certificate.
    pub certificate: CertificateDer<'static>,
}

/// An open connection.
pub(super) struct Viewer {
    sender: Sender,
    authority: String,
    connection: JoinHandle<()>,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

/// A whole response.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
    pub(super) body: Bytes,
    /// From the request to the response's head.
    pub(super) first_byte: Duration,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ViewerError {
    /// No TLS session that speaks `version`.
    Connect {
        /// HTTP/1.1 or HTTP/2.
        version: Version,
        /// What went wrong.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The request or its response failed.
    Request {
        /// The path asked for.
        path: String,
        /// What went wrong.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The response did not end in time.
    Late {
        /// The path asked for.
        path: String,
    },
}

impl fmt::Display for ViewerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ViewerError::Connect { version, cause } => {
                write!(f, "cannot connect with {version:?}: {cause}")
            }
            ViewerError::Request { path, cause } => write!(f, "{path}: {cause}"),
            ViewerError::Late { path } => {
                write!(f, "{path}: no whole response within {} s", REQUEST_TIMEOUT.as_secs())
            }
        }
    }
}

impl Error for ViewerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ViewerError::Connect { cause, .. } | ViewerError::Request { cause, .. } => {
                Some(cause.as_ref())
            }
            ViewerError::Late { .. } => None,
        }
    }
}

impl Viewer {
    /// Connects and shakes hands; `version` is HTTP/1.1 or HTTP/2, and the only one offered.
    pub(super) async fn connect(
        edge: &EdgeAddress,
        version: Version,
    ) -> Result<Viewer, ViewerError> {
        let connecting = tokio::time::timeout(REQUEST_TIMEOUT, connect(edge, version)).await;
        let connected = connecting.unwrap_or_else(|late| Err(late.into()));
        connected.map_err(|cause| ViewerError::Connect { version, cause })
    }

    /// The whole response to a GET of `path`, of `range` (`bytes=0-1`) if given.
    ///
    /// Dropped midway, the connection is only good for being closed.
    pub(super) async fn get(
        &mut self,
        path: &str,
        range: Option<&str>,
    ) -> Result<Answer, ViewerError> {
        let answering = tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(path, range)).await;
        match answering {
            Ok(answer) => {
                answer.map_err(|cause| ViewerError::Request { path: path.to_string(), cause })
            }
            Err(_) => Err(ViewerError::Late { path: path.to_string() }),
        }
    }

    async fn exchange(
        &mut self,
        path: &str,
        range: Option<&str>,
    ) -> Result<Answer, Box<dyn Error + Send + Sync>> {
        let started = Instant::now();
        let authority = &self.authority;
        let mut request = match self.sender {
            Sender::Http1(_) => Request::get(path).header(header::HOST, authority),
            Sender::Http2(_) => Request::get(format!("https://{authority}{path}")),
        };
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        let request = request.body(Empty::new())?;
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let first_byte = started.elapsed();
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await?.to_bytes();
        Ok(Answer { status: head.status, fields: head.headers, body, first_byte })
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn connect(
    edge: &EdgeAddress,
    version: Version,
) -> Result<Viewer, Box<dyn Error + Send + Sync>> {
    let config = tls_config(edge, if version == Version::HTTP_2 { b"h2" } else { b"http/1.1" })?;
    let name = ServerName::try_from(edge.host.clone())?;
    let stream = TcpStream::connect(edge.address).await?;
    stream.set_nodelay(true)?;
    let io = TokioIo::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?);
    // How a connection ends shows in the requests that are on it.
    let (sender, connection) = if version == Version::HTTP_2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        (Sender::Http2(sender), tokio::spawn(async { drop(connection.await) }))
    } else {
        let (sender, connection) = http1::handshake(io).await?;
        (Sender::Http1(sender), tokio::spawn(async { drop(connection.await) }))
    };
    let authority = format!("{}:{}", edge.host, edge.address.port());
    Ok(Viewer { sender, authority, connection })
}

fn tls_config(edge: &EdgeAddress, protocol: &[u8]) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(edge.certificate.clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}
