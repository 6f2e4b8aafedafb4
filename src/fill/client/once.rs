//! A request that is sent once: its method may change something.
//!
//! It goes over a connection of its own. One that was idle may have been closed just when a request
//! was written to it, and nobody can tell then whether that was read: it could not be sent again
//! (RFC 9110 section 9.2.2), and fails for nothing. Until the connection stands another origin may
//! be asked; from then on there is one attempt. Redirects are answers like any other.

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HOST, VIA};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::ext::on_informational;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tower_service::Service as _;

use super::request_body::{RequestBody, Stage};
use super::upstream::Upstream;
use super::{Client, Connection, FIRST_PAUSE, deepest};
use crate::fill::error::FillError;
use crate::limits::{
    ORIGIN_READ_BYTES_MAX, PASSED_ANSWER_BYTES, REQUEST_BODY_BUFFER_BYTES, RESPONSE_FIELDS_MAX,
};
use crate::memory::{Class, Reservation, Use};
use crate::site::Site;

/// A request that is sent once.
#[derive(Debug)]
pub struct Once<'a> {
    /// As the viewer wrote it.
    pub method: Method,
    /// Path and canonical query.
    pub target: &'a str,
    /// What the viewer's request and the rule say, end to end.
    pub fields: HeaderMap,
    /// Whether the viewer waits for a word before he sends the body.
    pub expects_continue: bool,
    /// What he sends.
    pub body: RequestBody,
}

/// What came of it.
#[derive(Debug)]
pub struct OnceAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, as they came.
    pub fields: HeaderMap,
    /// Its body.
    pub body: AnswerBody,
    /// Whether all of the request's body had been read when it came.
    pub is_read: bool,
}

/// A connection that stands.
pub struct OnceConnection<'a> {
    client: &'a Client,
    upstream: Arc<Upstream>,
    sender: http1::SendRequest<RequestBody>,
    driver: AbortOnDropHandle<()>,
    place: Place,
}

/// One of an origin's connections, and one of those that such requests may hold.
type Place = (Connection, OwnedSemaphorePermit);

impl Client {
    /// A connection for one request to an origin of `site`; nothing is sent.
    ///
    /// # Errors
    /// `Connect`, `Overload`.
    pub async fn connect_once(&self, site: &Site) -> Result<OnceConnection<'_>, FillError> {
        let upstreams = self.upstreams(site);
        let attempts = AtomicU32::new(0);
        let attempt = || {
            let turn = attempts.fetch_add(1, Ordering::Relaxed) as usize % upstreams.len();
            self.stand(upstreams[turn].clone())
        };
        let pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_max_times(self.retries as usize);
        let nothing_was_sent = |error: &FillError| matches!(error, FillError::Connect { .. });
        attempt.retry(pauses).when(nothing_was_sent).await
    }
}

impl OnceConnection<'_> {
    /// Sends it, and waits for the head of the answer. Dropping it midway closes the connection.
    ///
    /// # Errors
    /// `Overload` when nothing was sent; `RequestBody`, `FirstByteTimeout`, `Closed` and `Unusable`
    /// when it may have been done all the same.
    pub async fn send(self, once: Once<'_>) -> Result<OnceAnswer, FillError> {
        let OnceConnection { client, upstream, mut sender, driver, place } = self;
        let room_bytes = match once.body.is_some() {
            true => PASSED_ANSWER_BYTES + REQUEST_BODY_BUFFER_BYTES,
            false => PASSED_ANSWER_BYTES,
        };
        // It has its place now, and gives way to whoever asks for what can be cached.
        let room = client.governor.try_reserve(Use::Requests, Class::Admission, room_bytes);
        let room = room.ok_or(FillError::Overload { what: "memory" })?;
        let (stages, is_answered) = once.body.followed();
        let request = client.once_request(&upstream, once)?;
        let sending = sender.send_request(request);
        let origin = upstream.authority.as_str();
        let silent = |error: &FillError| {
            if matches!(error, FillError::FirstByteTimeout { .. }) {
                upstream.tell(Some(error));
            }
        };
        let response =
            client.answered(sending, stages.clone(), origin).await.inspect_err(silent)?;
        is_answered.store(true, Ordering::Release);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let reason = "it answers with a protocol that nobody asked for".to_owned();
            return Err(FillError::Unusable { reason });
        }
        let is_read = *stages.borrow() == Stage::Whole;
        let (head, body) = response.into_parts();
        let body = AnswerBody {
            body,
            patience: client.patience.progress,
            waiting: None,
            offset: 0,
            _room: room,
            _driver: driver,
            _place: place,
        };
        Ok(OnceAnswer { status: head.status, fields: head.headers, body, is_read })
    }
}

impl Client {
    async fn stand(&self, upstream: Arc<Upstream>) -> Result<OnceConnection<'_>, FillError> {
        let share = timeout(self.patience.first_byte, upstream.once.clone().acquire_owned());
        let share = share
            .await
            .map_err(|_| FillError::Overload { what: "connection to the origin" })?
            .expect("the semaphore is never closed");
        let place = (self.connection(&upstream).await?, share);
        let mut connector = upstream.connector.clone();
        let failed = |reason: String| {
            let error = FillError::Connect { origin: upstream.authority.to_string(), reason };
            upstream.tell(Some(&error));
            error
        };
        let connecting = async {
            poll_fn(|cx| connector.poll_ready(cx)).await?;
            connector.call(upstream.uri("/")?).await
        };
        let io = match timeout(self.patience.connect, connecting).await {
            Ok(Ok(io)) => io.once(),
            Ok(Err(error)) => return Err(failed(deepest(&*error))),
            Err(_) => return Err(failed("no connection in time".to_owned())),
        };
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(ORIGIN_READ_BYTES_MAX)
            .max_headers(RESPONSE_FIELDS_MAX)
            .handshake(io)
            .await
            .map_err(|error| failed(deepest(&error)))?;
        upstream.tell(None);
        // How it ends the request and the answer's body say.
        let driver = tokio::spawn(async move { drop(connection.await) });
        let driver = AbortOnDropHandle::new(driver);
        Ok(OnceConnection { client: self, upstream, sender, driver, place })
    }

    fn once_request(
        &self,
        upstream: &Upstream,
        once: Once<'_>,
    ) -> Result<Request<RequestBody>, FillError> {
        let Once { method, target, fields, expects_continue, mut body, .. } = once;
        let target = PathAndQuery::try_from(target)
            .map_err(|error| FillError::Unusable { reason: error.to_string() })?;
        let begins = (expects_continue && body.is_some()).then(|| {
            let (tell, told) = oneshot::channel();
            body.begun_by(told);
            tell
        });
        let mut request = Request::new(body);
        (*request.method_mut(), *request.uri_mut()) = (method, Uri::from(target));
        let sent = request.headers_mut();
        *sent = fields;
        for (name, value) in &upstream.origin.fields {
            sent.insert(name, value.clone());
        }
        sent.append(VIA, self.via.value().clone());
        sent.insert(HOST, upstream.host.clone());
        sent.insert(CONNECTION, HeaderValue::from_static("close"));
        if let Some(begins) = begins {
            sent.insert(EXPECT, HeaderValue::from_static("100-continue"));
            let begins = Mutex::new(Some(begins));
            on_informational(&mut request, move |interim| {
                if interim.status() == StatusCode::CONTINUE
                    && let Some(begins) = begins.lock().ok().and_then(|mut begins| begins.take())
                {
                    // Nobody waits any more when the origin took too long.
                    let _ = begins.send(());
                }
            });
        }
        Ok(request)
    }

    /// Waits for the answer, and for whoever it is that is to do something: the viewer's time is
    /// his body's to tell, the origin's is told here.
    async fn answered(
        &self,
        sending: impl Future<Output = hyper::Result<Response<Incoming>>>,
        mut stages: watch::Receiver<Stage>,
        origin: &str,
    ) -> Result<Response<Incoming>, FillError> {
        let mut sending = pin!(sending);
        loop {
            let stage = *stages.borrow_and_update();
            let late = async {
                match stage {
                    Stage::Viewer | Stage::Broken(_) => pending().await,
                    Stage::Origin => sleep(self.patience.progress).await,
                    Stage::Whole | Stage::LeftOff => sleep(self.patience.first_byte).await,
                }
            };
            tokio::select! {
                biased;
                answered = &mut sending => {
                    let fault = match *stages.borrow() {
                        Stage::Broken(fault) => Some(FillError::RequestBody(fault)),
                        _ => None,
                    };
                    return answered.map_err(|error| {
                        fault.unwrap_or(FillError::Closed { offset: 0, reason: deepest(&error) })
                    });
                }
                Ok(()) = stages.changed() => {}
                () = late => {
                    return Err(FillError::FirstByteTimeout { origin: origin.to_owned() });
                }
            }
        }
    }
}

/// The body of an answer for one viewer, who pulls it.
#[derive(Debug)]
pub struct AnswerBody {
    body: Incoming,
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    offset: u64,
    _room: Reservation,
    _driver: AbortOnDropHandle<()>,
    _place: Place,
}

impl AnswerBody {
    /// Whether all of it was pulled.
    pub fn is_end(&self) -> bool {
        self.body.is_end_stream()
    }

    /// What is left of it, as far as that is known.
    pub fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    /// The next bytes. Trailers are dropped (RFC 9110 section 6.5.1).
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, FillError>>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                let patience = self.patience;
                let late = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
                ready!(late.as_mut().poll(cx));
                let offset = self.offset;
                return Poll::Ready(Some(Err(FillError::ProgressTimeout { offset })));
            };
            self.waiting = None;
            match frame {
                None => return Poll::Ready(None),
                Some(Err(error)) => {
                    let (offset, reason) = (self.offset, deepest(&error));
                    return Poll::Ready(Some(Err(FillError::Closed { offset, reason })));
                }
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.offset += bytes.len() as u64;
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
            }
        }
    }
}
