//! How a box asks control planes: over HTTPS, one after another, each question within a time, and
//! no answer larger than it may be.
//!
//! It believes who shows a certificate of the fleet's own authority. Where operators gave a control
//! plane another certificate, it is believed where the usual authorities say whose it is: what a
//! box goes by is signed besides.

use std::cell::OnceCell;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::Error as HyperError;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::timeout;

use super::shaken::ShakenConnector;
use crate::control::plane::wire::Refused;
use crate::fill::client::{deepest, tls_config_of};
use crate::limits::FLEET_ANSWER_BYTES_MAX;
use crate::site::Scheme;

type Http = HyperClient<ShakenConnector<HttpsConnector<HttpConnector>>, Full<Bytes>>;

/// Asks the control planes of one fleet.
pub(super) struct Client {
    controls: Vec<Uri>,
    /// Whose turn it is.
    turn: watch::Sender<usize>,
    ours: Http,
    /// By the usual authorities; nobody is believed by them where this machine has none.
    others: OnceCell<Option<Http>>,
    shown: Option<Arc<CertifiedKey>>,
}

/// Somebody's turn to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn(usize);

/// A question.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Bytes,
    /// How long the control plane may keep it on purpose.
    pub(super) hold: Duration,
    pub(super) answer_bytes_max: usize,
}

impl Ask {
    /// One that is answered at once.
    pub(super) fn new(method: Method, path: &str, body: impl Into<Bytes>) -> Ask {
        let (path, body, hold) = (path.to_owned(), body.into(), Duration::ZERO);
        Ask { method, path, body, hold, answer_bytes_max: FLEET_ANSWER_BYTES_MAX }
    }
}

/// What came of it where there was an answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Who has answered.
    pub(super) control: Uri,
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// Why a control plane did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AskError {
    /// There was no answer.
    Silent { control: String, why: String },
    /// It shows a certificate of an authority that is not known.
    Stranger { control: String },
    /// It shows one that is wrong.
    Certificate { control: String, why: String },
    /// It says something that no control plane says.
    Unlike { control: String, what: String },
    /// The answer has no end.
    TooLong { control: String },
    /// It will not.
    Refused { control: String, status: StatusCode, why: String },
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Silent { control, why } => write!(f, "{control} does not answer: {why}"),
            AskError::Stranger { control } => write!(
                f,
                "{control} shows a certificate that neither the fleet's authority nor one that \
                 this machine trusts has issued"
            ),
            AskError::Certificate { control, why } => {
                write!(f, "{control} shows a certificate that does not count: {why}")
            }
            AskError::Unlike { control, what } => {
                write!(f, "{control} is no control plane of Tidegate: {what}")
            }
            AskError::TooLong { control } => write!(f, "{control}: its answer has no end"),
            AskError::Refused { control, why, .. } => write!(f, "{control} refuses: {why}"),
        }
    }
}

impl Error for AskError {}

impl Client {
    /// Asks these, believing what `ours` says; who asks shows `shown`. Blocks for a moment.
    pub(super) fn new(
        controls: &[Uri],
        mut ours: ClientConfig,
        shown: Option<Arc<CertifiedKey>>,
    ) -> Client {
        show(&mut ours, shown.as_ref());
        Client {
            controls: controls.to_vec(),
            turn: watch::Sender::new(0),
            ours: http(ours),
            others: OnceCell::new(),
            shown,
        }
    }

    /// How many there are to ask.
    pub(super) fn count(&self) -> usize {
        self.controls.len()
    }

    /// Whose turn it is.
    pub(super) fn whose(&self) -> Turn {
        Turn(*self.turn.borrow())
    }

    /// Somebody else is to be asked next, unless that is so already: of two questions that fail at
    /// once, the second does not turn back to who failed.
    pub(super) fn turn_from(&self, Turn(turn): Turn) {
        let next = |now: &mut usize| *now = now.wrapping_add(usize::from(*now == turn));
        self.turn.send_modify(next);
    }

    /// Ends when somebody else is to be asked: who does not answer heartbeats is not waited for.
    /// Safe to drop.
    pub(super) async fn turned_from(&self, Turn(turn): Turn) {
        let _ = self.turn.subscribe().wait_for(|now| *now != turn).await;
    }

    /// Asks whose turn it is. Safe to drop: the connection is closed then.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<Answer, AskError> {
        let control = &self.controls[self.whose().0 % self.controls.len()];
        let named = named(control);
        let silent = |why: String| AskError::Silent { control: named.clone(), why };
        let late = |_| silent("no answer in time".to_owned());
        let request = Request::builder()
            .method(ask.method.clone())
            .uri(format!("{named}{}", ask.path))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Full::new(ask.body.clone()))
            .map_err(|error| silent(error.to_string()))?;
        let sent = timeout(ask.hold + ANSWERED_WITHIN, self.sent(request)).await.map_err(late)?;
        let (head, body) = sent.map_err(|error| self.told(&named, &error))?.into_parts();
        let body = Limited::new(body, ask.answer_bytes_max).collect();
        let body =
            timeout(SENT_WITHIN, body).await.map_err(late)?.map_err(|error| match error
                .is::<LengthLimitError>(
            ) {
                true => AskError::TooLong { control: named.clone() },
                false => silent(deepest(&*error)),
            })?;
        Ok(Answer { control: control.clone(), status: head.status, body: body.to_bytes() })
    }

    async fn sent(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, HyperError> {
        match self.ours.request(request.clone()).await {
            Err(error) if is_of_another_authority(&error) => match self.others() {
                Some(others) => others.request(request).await,
                None => Err(error),
            },
            sent => sent,
        }
    }

    fn others(&self) -> Option<&Http> {
        let by_the_system = || {
            let mut config = tls_config_of(None, Scheme::Https).ok()?;
            show(&mut config, self.shown.as_ref());
            Some(http(config))
        };
        self.others.get_or_init(by_the_system).as_ref()
    }

    fn told(&self, control: &str, error: &HyperError) -> AskError {
        let (control, why) = (control.to_owned(), deepest(error));
        match is_certificate(error) {
            Some(CertificateError::UnknownIssuer) => AskError::Stranger { control },
            Some(_) => AskError::Certificate { control, why },
            None => AskError::Silent { control, why },
        }
    }
}

impl Answer {
    /// What it says where it says yes.
    pub(super) fn understood<T: DeserializeOwned>(&self) -> Result<T, AskError> {
        if !self.status.is_success() {
            return Err(self.refused());
        }
        serde_json::from_slice(&self.body)
            .map_err(|_| self.unlike("what it answers is something else".to_owned()))
    }

    /// What it says where it says no.
    pub(super) fn refused(&self) -> AskError {
        let (control, status) = (named(&self.control), self.status);
        match serde_json::from_slice::<Refused>(&self.body) {
            Ok(Refused { error }) if !status.is_success() => {
                // It is told in one line, and not more than one.
                let why = error.chars().filter(|c| !c.is_control()).take(REFUSAL_CHARS).collect();
                AskError::Refused { control, status, why }
            }
            _ => self.unlike(format!("it answers {status}")),
        }
    }

    fn unlike(&self, what: String) -> AskError {
        AskError::Unlike { control: named(&self.control), what }
    }
}

/// As it is written.
pub(super) fn named(control: &Uri) -> String {
    let authority = control.authority().map(|authority| authority.as_str());
    format!("https://{}", authority.unwrap_or_default())
}

fn show(config: &mut ClientConfig, shown: Option<&Arc<CertifiedKey>>) {
    if let Some(shown) = shown {
        let shown = CertifiedKey::clone(shown);
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(shown));
    }
}

fn http(config: ClientConfig) -> Http {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECTED_WITHIN));
    connector.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_http1()
        .wrap_connector(connector);
    HyperClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_CONNECTION)
        .build(ShakenConnector(connector))
}

fn is_of_another_authority(error: &HyperError) -> bool {
    matches!(is_certificate(error), Some(CertificateError::UnknownIssuer))
}

/// What is wrong with the certificate that was shown, where that is what went wrong.
fn is_certificate(error: &HyperError) -> Option<&CertificateError> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(one) = cause {
        if let Some(rustls::Error::InvalidCertificate(found)) = of_tls(one) {
            return Some(found);
        }
        cause = one.source();
    }
    None
}

/// An error of TLS comes inside one of the system, perhaps inside another.
fn of_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<io::Error>() {
        Some(outer) => of_tls(outer.get_ref()?),
        None => error.downcast_ref(),
    }
}

const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
/// A control plane that has much to do takes its time.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// All of a large snapshot over a slow line.
const SENT_WITHIN: Duration = Duration::from_secs(120);
/// Longer than between two heartbeats, as is usual.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);
const REFUSAL_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn client(controls: &[String]) -> Client {
        let controls: Vec<Uri> = controls.iter().map(|control| control.parse().unwrap()).collect();
        Client::new(&controls, tls_config_of(None, Scheme::Http).unwrap(), None)
    }

    #[test]
    fn two_who_ask_the_same_one_in_vain_do_not_come_back_to_him() {
        let client = client(&["https://a.test".to_owned(), "https://b.test".to_owned()]);
        let (beat, snapshot) = (client.whose(), client.whose());
        client.turn_from(beat);
        client.turn_from(snapshot);
        assert_eq!(client.whose().0 % client.count(), 1);
        client.turn_from(client.whose());
        assert_eq!(client.whose().0 % client.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_shakes_no_hand_is_not_waited_for_as_long_as_a_question_may_be_kept() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = client(&[format!("https://{}", silent.local_addr().unwrap())]);
        let hold = Duration::from_secs(60);
        let begun = Instant::now();
        let asked = client.ask(&Ask { hold, ..Ask::new(Method::GET, "/", "") }).await;
        assert!(matches!(asked, Err(AskError::Silent { .. })), "{asked:?}");
        assert!(begun.elapsed() < ANSWERED_WITHIN, "{:?}", begun.elapsed());
    }
}
