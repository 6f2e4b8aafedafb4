//! One request to one address of an origin, as a fill would make it, each step within its time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{DATE, HOST, LOCATION, RANGE, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::CertificateError;
use rustls_pki_types::{ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::{Fill, Validity, cause};
use crate::fill::client::{Strict, deepest, tls_config};
use crate::message::conditional::Validator;
use crate::message::range::ContentRange;
use crate::moment::http_date;
use crate::site::{Origin, Scheme};

/// The second byte: an origin that gives the beginning to everybody is found out.
pub(super) const ASKED: &str = "bytes=1-1";
/// However patient fills are.
const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// What is asked of each address.
pub(super) struct Question {
    pub(super) origin: Origin,
    /// `None`: `/`, of which nothing is judged but that it answers.
    pub(super) path: Option<String>,
    pub(super) patience: Fill,
}

/// What an address answered.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) status: StatusCode,
    /// Where it redirects to.
    pub(super) location: Option<String>,
    /// Which byte it says it gave.
    pub(super) content_range: Option<ContentRange>,
    /// Whether that byte came, and no other; true where it gave no part.
    pub(super) is_exact: bool,
    pub(super) validator: Validator,
    /// Its clock against ours, in seconds; after ours is more than 0.
    pub(super) clock_ahead_seconds: Option<i64>,
    /// The last moment of its certificate.
    pub(super) certificate_end: Option<SystemTime>,
}

/// Why an address did not answer, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) found: String,
    pub(super) to_do: &'static str,
}

const LOOK_THERE: &str = "look whether it runs, and at routes and firewalls on the way";
const SPEAK_HTTP: &str = "look at its log: it does not answer as HTTP/1.1 has it";

/// Asks it. Dropping it midway closes the connection.
pub(super) async fn ask(question: &Question, address: SocketAddr) -> Result<Seen, Trouble> {
    let connect = question.patience.connect_timeout.min(PATIENCE_MAX);
    let late = |what: &str| Trouble {
        found: format!("{what} in {:.1} s", connect.as_secs_f64()),
        to_do: LOOK_THERE,
    };
    let stream = timeout(connect, TcpStream::connect(address))
        .await
        .map_err(|_| late("no connection"))?
        .map_err(|error| Trouble { found: cause(&error), to_do: LOOK_THERE })?;
    if question.origin.scheme == Scheme::Http {
        return answered(question, stream, None).await;
    }
    let bad = |found: String| Trouble { found, to_do: "look at `ca` and `server_name`" };
    let config = tls_config(&question.origin).map_err(bad)?;
    let name = ServerName::try_from(question.origin.tls_name().to_owned());
    let name = name.map_err(|error| bad(error.to_string()))?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = timeout(connect, connecting)
        .await
        .map_err(|_| late("no TLS handshake"))?
        .map_err(|error| refused(&error, question.origin.tls_name()))?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let ends = chain.iter().filter_map(|der| Some(Validity::of(der)?.not_after));
    let end = ends.min();
    answered(question, stream, end).await
}

async fn answered(
    question: &Question,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    certificate_end: Option<SystemTime>,
) -> Result<Seen, Trouble> {
    let patience = question.patience.first_byte_timeout.min(PATIENCE_MAX);
    let no_http = |error: hyper::Error| {
        let found = format!("its answer is not believed: {}", deepest(&error));
        Trouble { found, to_do: SPEAK_HTTP }
    };
    let io = Strict::new(TokioIo::new(stream));
    let (mut sender, connection) = http1::handshake(io).await.map_err(no_http)?;
    let connection = tokio::spawn(connection);
    let request = request(question)
        .map_err(|found| Trouble { found, to_do: "look at `host` and `fields` of the origin" })?;
    let asked = Instant::now();
    let response = match timeout(patience, sender.send_request(request)).await {
        Ok(response) => response.map_err(no_http)?,
        Err(_) => {
            let found = format!("connected, and no answer in {:.1} s", patience.as_secs_f64());
            return Err(Trouble { found, to_do: "look at its log, and how busy it is" });
        }
    };
    let (head, body) = response.into_parts();
    let is_exact = match head.status {
        StatusCode::PARTIAL_CONTENT => {
            let read = timeout(patience, Limited::new(body, 1).collect()).await;
            read.is_ok_and(|read| read.is_ok_and(|read| read.to_bytes().len() == 1))
        }
        _ => true,
    };
    connection.abort();
    let fields = &head.headers;
    let text = |name| fields.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let date = text(DATE).and_then(|text| httpdate::parse_http_date(text).ok());
    Ok(Seen {
        status: head.status,
        location: text(LOCATION).map(str::to_owned),
        content_range: ContentRange::of_response(fields),
        is_exact,
        validator: Validator::of(fields),
        clock_ahead_seconds: date.map(|date| ahead(date, asked.elapsed())),
        certificate_end,
    })
}

/// How far ahead of ours a clock is, given that its `date` may be as old as what it `took`.
fn ahead(date: SystemTime, took: Duration) -> i64 {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let now = SystemTime::now();
    match date.duration_since(now) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration().saturating_sub(took)),
    }
}

fn request(question: &Question) -> Result<Request<Empty<Bytes>>, String> {
    let origin = &question.origin;
    let mut request = Request::new(Empty::new());
    let path = question.path.as_deref().unwrap_or("/");
    *request.uri_mut() = path.parse().map_err(|_| format!("{path} is no path"))?;
    let host = HeaderValue::from_str(&origin.authority()).map_err(|error| error.to_string())?;
    let fields = request.headers_mut();
    fields.insert(USER_AGENT, HeaderValue::from_static("tidegate-doctor"));
    for (name, value) in &origin.fields {
        fields.insert(name, value.clone());
    }
    fields.insert(HOST, host);
    match question.path {
        Some(_) => drop(fields.insert(RANGE, HeaderValue::from_static(ASKED))),
        None => *request.method_mut() = Method::HEAD,
    }
    Ok(request)
}

/// A handshake that failed, in words.
fn refused(error: &io::Error, name: &str) -> Trouble {
    let source = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(why)) = source else {
        let found = format!("no TLS: {}", cause(error));
        return Trouble { found, to_do: "look whether it speaks TLS at this port, and its log" };
    };
    let date = |time: &UnixTime| http_date(Duration::from_secs(time.as_secs()));
    let renew = "renew it there, and look at this machine's clock";
    let (found, to_do) = match why {
        CertificateError::ExpiredContext { not_after, .. } => {
            (format!("its certificate expired on {}", date(not_after)), renew)
        }
        CertificateError::Expired => ("its certificate has expired".to_owned(), renew),
        CertificateError::NotValidYetContext { not_before, .. } => {
            (format!("its certificate is not valid before {}", date(not_before)), renew)
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            format!("its certificate is not for {name}"),
            "set `server_name` of the origin to a name that it is for",
        ),
        // The latter: by one with the name of an authority that is trusted, and another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            "its certificate is by an authority that is not trusted here".to_owned(),
            "set `ca` of the origin to a file with that authority",
        ),
        other => (format!("its certificate is refused: {other}"), "look at its certificate"),
    };
    Trouble { found, to_do }
}
