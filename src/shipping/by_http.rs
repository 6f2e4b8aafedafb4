//! Sends a batch by POST, with the id by which a receiver knows one that comes again
//! (`Idempotency-Key`): it is the same as before then.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Failed;
use crate::access_log::Batch;
use crate::config::units::duration_about;
use crate::config::{Shipping, shipped_fields};
use crate::fill::client::tls_config_of;
use crate::site::Scheme;

/// A receiver that is asked by HTTP.
pub(super) struct ByHttp {
    url: Uri,
    fields: HeaderMap,
    /// What they were read from.
    fields_file: Option<PathBuf>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl ByHttp {
    pub(super) fn new(url: &Uri, shipping: &Shipping) -> Result<ByHttp, String> {
        let is_https = url.scheme_str() == Some("https");
        let scheme = if is_https { Scheme::Https } else { Scheme::Http };
        let tls = tls_config_of(shipping.roots.as_deref(), scheme)
            .map_err(|error| format!("`log.ship`: {error}"))?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(ATTEMPT_WITHIN));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let connector = connector.enable_http1().build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .http1_max_buf_size(ANSWER_BYTES_MAX)
            .build(connector);
        let fields = sent_with(&shipping.fields);
        let fields_file = shipping.fields_file.clone();
        Ok(ByHttp { url: url.clone(), fields, fields_file, client })
    }

    pub(super) async fn attempt(&mut self, batch: &Batch, lines: Bytes) -> Result<(), Failed> {
        let later = |why: String| Failed::Later { why, not_before: Duration::ZERO };
        let mut request = Request::new(Full::new(lines));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.fields.clone();
        let id = HeaderValue::from_str(&format!("\"{}\"", batch.id));
        request.headers_mut().extend(id.ok().map(|id| (ID, id)));
        let head = match timeout(ATTEMPT_WITHIN, self.client.request(request)).await {
            Err(_) => {
                return Err(later(format!("no answer within {}", duration_about(ATTEMPT_WITHIN))));
            }
            Ok(Err(error)) => return Err(later(chain(&error))),
            Ok(Ok(answer)) => {
                let (head, body) = answer.into_parts();
                // Read, so that the connection serves again; what it says is not asked for, nor
                // whether it ends.
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect();
                let _ = timeout(BODY_WITHIN, body).await;
                head
            }
        };
        match head.status {
            status if status.is_success() => Ok(()),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(Failed::Later {
                why: head.status.to_string(),
                not_before: wanted(&head.headers),
            }),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                let why = match self.read_fields_again().await {
                    Ok(true) => return Err(Failed::Anew),
                    Ok(false) => format!("{status}; look at the token in `log.ship.headers_file`"),
                    Err(why) => format!("{status}; {why}"),
                };
                Err(Failed::Denied { why, not_before: wanted(&head.headers) })
            }
            // Somebody moves it, perhaps; what waits is bounded.
            StatusCode::NOT_FOUND => Err(Failed::Denied {
                why: format!("{}; look at `log.ship.url`", head.status),
                not_before: wanted(&head.headers),
            }),
            status if status.is_client_error() => Err(Failed::Refused(status)),
            status => {
                Err(Failed::Later { why: status.to_string(), not_before: wanted(&head.headers) })
            }
        }
    }

    /// Whether there are other fields to send than before, or why that is not known.
    async fn read_fields_again(&mut self) -> Result<bool, String> {
        let Some(file) = self.fields_file.clone() else { return Ok(false) };
        let fields = match spawn_blocking(move || shipped_fields(&file)).await {
            Ok(Ok(fields)) => sent_with(&fields),
            Ok(Err(error)) => return Err(format!("`log.ship.headers_file` names {error}")),
            Err(_) => return Ok(false),
        };
        let is_other = fields != self.fields;
        self.fields = fields;
        Ok(is_other)
    }
}

/// What each batch is sent with.
fn sent_with(more: &[(HeaderName, HeaderValue)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    fields.insert(USER_AGENT, HeaderValue::from_static(NAME));
    for (name, value) in more {
        fields.insert(name, value.clone());
    }
    fields
}

/// What `Retry-After` asks for, in seconds or until a time, within a bound.
fn wanted(fields: &HeaderMap) -> Duration {
    let value = fields.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let seconds = value.parse().ok().map(Duration::from_secs);
    let until = || {
        let until = httpdate::parse_http_date(value).ok()?;
        until.duration_since(std::time::SystemTime::now()).ok()
    };
    seconds.or_else(until).unwrap_or_default().min(RETRY_AFTER_MAX)
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    // One of the same name has another key, perhaps: it was made anew.
    if ["UnknownIssuer", "BadSignature"].iter().any(|why| text.contains(why)) {
        text.push_str("; set `log.ship.ca` to the authority that signed its certificate");
    }
    text
}

const NAME: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));
/// What a receiver knows a batch by (draft-ietf-httpapi-idempotency-key-header).
const ID: HeaderName = HeaderName::from_static("idempotency-key");
/// For a connection, all of the batch and the head of the answer to it.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(30);
/// For what comes after the head.
const BODY_WITHIN: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 64 << 10;
const IDLE_CONNECTION: Duration = Duration::from_secs(60);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use rustls::CertificateError;

    use super::*;

    #[test]
    fn of_an_authority_that_is_not_known_it_is_said_what_to_set() {
        for why in [CertificateError::UnknownIssuer, CertificateError::BadSignature] {
            let text = chain(&rustls::Error::InvalidCertificate(why));
            assert!(text.contains("; set `log.ship.ca`"), "{text}");
        }
        assert_eq!(chain(&std::io::Error::other("refused")), "refused");
    }

    #[test]
    fn a_receiver_says_when_to_come_again() {
        let after = |value: &str| {
            wanted(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).unwrap())]))
        };
        assert_eq!(after("7"), Duration::from_secs(7));
        assert_eq!(after("86400"), RETRY_AFTER_MAX);
        for past in ["", "soon", "-1", "Sun, 06 Nov 1994 08:49:37 GMT"] {
            assert_eq!(after(past), Duration::ZERO, "{past}");
        }
        let soon = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(90));
        let wait = after(&soon);
        assert!(wait > Duration::from_secs(60) && wait <= Duration::from_secs(90), "{wait:?}");
    }
}
