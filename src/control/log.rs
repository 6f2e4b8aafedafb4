//! `GET /log`, `/session` and `/top`: what becomes of each request as it ends, a line of JSON for
//! each; what became of those of one playback; what was hot.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame};
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::asking::{Said, refusal};
use super::top::{By, Window};
use super::{session, top};
use crate::access_log::filter::Filter;
use crate::access_log::{AccessLog, Following};
use crate::limits::{LOOK_BYTES, TOP_WINDOW_MAX};
use crate::memory::{Class, Governor, Reservation, Use};
use crate::message::target::decoded;
use crate::moment::unix_millis;

/// Tells of requests.
pub struct LogSource {
    /// What is told of.
    pub log: AccessLog,
    /// Who follows takes memory.
    pub governor: Arc<Governor>,
    /// Taken by who looks through the latest requests.
    pub look: Semaphore,
}

impl LogSource {
    /// Follows the log for who asks, as far as his filter says.
    pub(super) fn follow<B>(&self, request: &Request<B>) -> Result<Response<LiveLog>, Said> {
        let wrong = |why: &str| refusal(StatusCode::BAD_REQUEST, why);
        let filter = parameter(request.uri(), "filter").map_err(|()| {
            wrong("ask for /log?filter=FILTER, percent-encoded, such as status%3E%3D500")
        })?;
        let filter = Filter::parse(&filter).map_err(|error| wrong(&format!("filter, {error}")))?;
        let busy =
            |error| refusal(StatusCode::SERVICE_UNAVAILABLE, &format!("not followed: {error}"));
        let following = (*request.method() != Method::HEAD)
            .then(|| self.log.follow(filter, &self.governor).map_err(busy))
            .transpose()?;
        let mut response = Response::new(LiveLog { next: following.map(next) });
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(response)
    }

    /// What is remembered of one playback. Dropping it midway is safe.
    pub(super) async fn session<B>(&self, request: &Request<B>) -> Result<Said, Said> {
        let sid = parameter(request.uri(), "sid").unwrap_or_default();
        if sid.is_empty() || sid.len() > SID_BYTES_MAX {
            let text = format!(
                "a session id has 1 to {SID_BYTES_MAX} bytes; write /session?sid=SID, \
                 percent-encoded"
            );
            return Err(refusal(StatusCode::BAD_REQUEST, &text));
        }
        let _looking = self.looking()?;
        let session = session::find(&sid, self.log.finished()).await;
        Ok((StatusCode::OK, json!(session)))
    }

    /// What was hot a moment ago. Dropping it midway is safe.
    pub(super) async fn top<B>(&self, request: &Request<B>) -> Result<Said, Said> {
        let asked = |name| parameter(request.uri(), name).unwrap_or_default();
        let by = match &*asked("by") {
            "" | "requests" => Some(By::Requests),
            "bytes" => Some(By::Bytes),
            _ => None,
        };
        let seconds = match &*asked("seconds") {
            "" => Some(60),
            seconds => seconds.parse().ok(),
        };
        let window = seconds.map(Duration::from_secs).filter(|window| *window <= TOP_WINDOW_MAX);
        let (Some(by), Some(window)) = (by, window) else {
            let most = TOP_WINDOW_MAX.as_secs();
            let text = format!("ask for /top?seconds=N&by=requests, or bytes; N is {most} at most");
            return Err(refusal(StatusCode::BAD_REQUEST, &text));
        };
        let _looking = self.looking()?;
        let (now_ms, asked_ms) = (unix_millis(SystemTime::now()), window.as_millis() as u64);
        let (lines, whole) = (self.log.finished(), self.log.whole_for(Instant::now()));
        let whole_ms = whole.map(|whole| whole.as_millis() as u64);
        let top = top::look(lines, now_ms, Window { asked_ms, whole_ms }, by).await;
        Ok((StatusCode::OK, json!(top)))
    }

    /// A look through the latest requests: one at a time, and paid for.
    fn looking(&self) -> Result<(SemaphorePermit<'_>, Reservation), Said> {
        let busy = |text| refusal(StatusCode::SERVICE_UNAVAILABLE, text);
        let permit = self.look.try_acquire();
        let permit = permit.map_err(|_| busy("somebody else looks just now; ask again"))?;
        let reserved = self.governor.try_reserve(Use::Requests, Class::Admission, LOOK_BYTES);
        Ok((permit, reserved.ok_or_else(|| busy("there is no memory to spare to look with"))?))
    }
}

/// The value of a parameter of the query, decoded; empty where it is not there.
pub(super) fn parameter(uri: &Uri, name: &str) -> Result<String, ()> {
    let mut parameters = uri.query().unwrap_or_default().split('&');
    let value = parameters.find_map(|parameter| match parameter.split_once('=') {
        Some((named, value)) if named == name => Some(value),
        _ => None,
    });
    let decoded = decoded(value.unwrap_or_default()).ok_or(())?;
    String::from_utf8(decoded).map_err(|_| ())
}

type Next = Pin<Box<dyn Future<Output = Option<(Following, String)>>>>;

/// Lines as they come; dropped, nobody follows any more.
pub struct LiveLog {
    next: Option<Next>,
}

fn next(mut following: Following) -> Next {
    Box::pin(async move {
        let lines = following.next().await?;
        Some((following, lines))
    })
}

impl Body for LiveLog {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(waiting) = &mut self.next else { return Poll::Ready(None) };
        let told = ready!(waiting.as_mut().poll(context));
        self.next = None;
        let Some((following, lines)) = told else { return Poll::Ready(None) };
        self.next = Some(next(following));
        Poll::Ready(Some(Ok(Frame::data(lines.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none()
    }
}

/// An id that a player tells (CTA-5004).
const SID_BYTES_MAX: usize = 64;
