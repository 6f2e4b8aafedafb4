//! Ships the access log: batch by batch, oldest first, each until it has arrived or is refused.
//!
//! At least once: a batch whose answer was lost is sent again as it was, with the id it had
//! (`Idempotency-Key`), by which a receiver knows it. What is not sent when the process ends waits
//! in the spool for the next one.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::parts::Parts;
use crate::access_log::{Batch, Lost, Spool};
use crate::config::units::duration_about;
use crate::config::{Shipping, shipped_fields};
use crate::fill::client::tls_config_of;
use crate::site::Scheme;

/// Ships until the appliance drains, where that is wanted.
///
/// # Errors
/// Why the receiver's authorities cannot be used.
pub(super) fn start(parts: &Arc<Parts>) -> Result<(), String> {
    let Some((spool, shipping)) = parts.log.spool().zip(parts.config.log.shipping.as_ref()) else {
        return Ok(());
    };
    let mut shipper = Shipper::new(spool.clone(), shipping)?;
    let stop = parts.filler.stop.clone();
    let ship = async move {
        tokio::select! {
            () = shipper.ship() => {}
            () = stop.cancelled() => {}
        }
    };
    parts.filler.tasks.spawn_on(ship, &parts.filler.runtime);
    Ok(())
}

struct Shipper {
    spool: Arc<Spool>,
    url: Uri,
    fields: HeaderMap,
    /// What they were read from.
    fields_file: Option<PathBuf>,
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Why a batch has not arrived.
enum Failed {
    /// It never will.
    Refused(StatusCode),
    /// It may later, but not before.
    Later { why: String, not_before: Duration },
    /// It may when another token is sent, or the receiver knows the one that is.
    Unknown(StatusCode),
}

impl Shipper {
    fn new(spool: Arc<Spool>, shipping: &Shipping) -> Result<Shipper, String> {
        let Shipping { url, roots, .. } = shipping;
        let is_https = url.scheme_str() == Some("https");
        let scheme = if is_https { Scheme::Https } else { Scheme::Http };
        let tls = tls_config_of(roots.as_deref(), scheme)
            .map_err(|error| format!("`log.ship`: {error}"))?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(ATTEMPT_WITHIN));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let connector = connector.enable_http1().build();
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .http1_max_buf_size(ANSWER_BYTES_MAX)
            .build(connector);
        let fields = sent_with(&shipping.fields);
        let fields_file = shipping.fields_file.clone();
        Ok(Shipper { spool, url: url.clone(), fields, fields_file, http })
    }

    async fn ship(&mut self) {
        let mut lock = None;
        loop {
            let spool = self.spool.clone();
            let look = spawn_blocking(move || {
                let lock = match lock {
                    Some(lock) => Some(lock),
                    None => spool.lock()?,
                };
                spool.take_over()?;
                let next = if lock.is_some() { spool.take()? } else { None };
                io::Result::Ok((lock, next))
            });
            let next = match look.await {
                Ok(Ok((held, next))) => {
                    lock = held;
                    next
                }
                Ok(Err(error)) => {
                    lock = None;
                    tracing::warn!(%error, "the spool of the access log cannot be read");
                    None
                }
                // The process ends.
                Err(error) if error.is_cancelled() => return,
                Err(error) => {
                    lock = None;
                    tracing::error!(%error, "a look for what is to be shipped failed: again soon");
                    None
                }
            };
            match next {
                Some((batch, lines)) => {
                    if !self.deliver(batch, lines.into()).await {
                        sleep(LOOK_AGAIN).await;
                    }
                }
                None => tokio::select! {
                    () = self.spool.arrived.notified(), if lock.is_some() => {}
                    () = sleep(LOOK_AGAIN) => {}
                },
            }
        }
    }

    /// Until it has arrived or is lost; whether its file went then.
    async fn deliver(&mut self, batch: Batch, lines: Bytes) -> bool {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSE_MIN)
            .with_max_delay(PAUSE_MAX)
            .without_max_times()
            .with_jitter()
            .build();
        let mut attempts = 0_u32;
        let lost = loop {
            attempts += 1;
            let attempt = self.attempt(&batch, lines.clone()).await;
            match attempt {
                Ok(()) => break None,
                Err(Failed::Refused(status)) => {
                    tracing::warn!(
                        batch = batch.id,
                        lines = batch.lines,
                        "{} refused a batch of the access log with {status}: it is lost",
                        self.host(),
                    );
                    break Some(Lost::Refused);
                }
                Err(Failed::Unknown(status)) => {
                    if !self.read_fields_again().await {
                        let help = "look at the token in `log.ship.headers_file`";
                        self.pause(attempts, PAUSE_MAX, &format!("{status}; {help}")).await;
                    }
                }
                Err(Failed::Later { why, not_before }) => {
                    let pause = pauses.next().unwrap_or(PAUSE_MAX).max(not_before);
                    self.pause(attempts, pause, &why).await;
                }
            }
        };
        if lost.is_none() && attempts > 1 {
            tracing::info!(attempts, "{} takes the access log again", self.host());
        }
        let spool = self.spool.clone();
        let went = spawn_blocking(move || match lost {
            None => spool.shipped(&batch),
            Some(why) => spool.lose(&batch, why),
        });
        // Ended with the process: the batch then waits for the next one.
        went.await.unwrap_or(false)
    }

    async fn pause(&self, attempts: u32, pause: Duration, why: &str) {
        if attempts.is_power_of_two() {
            let again = duration_about(pause.max(Duration::from_secs(1)));
            tracing::warn!(
                attempts,
                "{} has not taken a batch of the access log: {why}; again in {again}",
                self.host()
            );
        }
        sleep(pause).await;
    }

    /// Whether there are other fields to send than before.
    async fn read_fields_again(&mut self) -> bool {
        let Some(file) = self.fields_file.clone() else { return false };
        match spawn_blocking(move || shipped_fields(&file)).await {
            Ok(Ok(fields)) => {
                let fields = sent_with(&fields);
                let is_other = fields != self.fields;
                self.fields = fields;
                is_other
            }
            Ok(Err(error)) => {
                tracing::warn!("`log.ship.headers_file` names {error}");
                false
            }
            Err(_) => false,
        }
    }

    fn host(&self) -> &str {
        self.url.authority().map_or("", |host| host.as_str())
    }

    async fn attempt(&self, batch: &Batch, lines: Bytes) -> Result<(), Failed> {
        let later = |why: String| Failed::Later { why, not_before: Duration::ZERO };
        let mut request = Request::new(Full::new(lines));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.fields.clone();
        let id = HeaderValue::from_str(&format!("\"{}\"", batch.id));
        request.headers_mut().extend(id.ok().map(|id| (ID, id)));
        let asked = timeout(ATTEMPT_WITHIN, async {
            let (head, body) = self.http.request(request).await?.into_parts();
            // Read, so that the connection serves again; what it says is not asked for.
            let _ = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            Ok::<_, ClientError>(head)
        });
        let head = match asked.await {
            Err(_) => {
                return Err(later(format!("no answer within {}", duration_about(ATTEMPT_WITHIN))));
            }
            Ok(Err(error)) => return Err(later(chain(&error))),
            Ok(Ok(head)) => head,
        };
        match head.status {
            status if status.is_success() => Ok(()),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(Failed::Later {
                why: head.status.to_string(),
                not_before: wanted(&head.headers),
            }),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Err(Failed::Unknown(status))
            }
            // Somebody moves it, perhaps; what waits is bounded.
            StatusCode::NOT_FOUND => Err(Failed::Later {
                why: format!("{}; look at `log.ship.url`", head.status),
                not_before: PAUSE_MAX,
            }),
            status if status.is_client_error() => Err(Failed::Refused(status)),
            status => {
                Err(Failed::Later { why: status.to_string(), not_before: wanted(&head.headers) })
            }
        }
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
    if text.contains("UnknownIssuer") {
        text.push_str("; set `log.ship.ca` to the authority that signed its certificate");
    }
    text
}

const NAME: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));
/// What a receiver knows a batch by (draft-ietf-httpapi-idempotency-key-header).
const ID: HeaderName = HeaderName::from_static("idempotency-key");
/// For a connection, all of the batch and the answer to it.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 64 << 10;
const IDLE_CONNECTION: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// For a batch that another process left, or the lock that it held.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_authority_that_is_not_known_it_is_said_what_to_set() {
        let unknown = rustls::CertificateError::UnknownIssuer;
        let text = chain(&rustls::Error::InvalidCertificate(unknown));
        assert!(text.contains("; set `log.ship.ca`"), "{text}");
        assert_eq!(chain(&io::Error::other("refused")), "refused");
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
