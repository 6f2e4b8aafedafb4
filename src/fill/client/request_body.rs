//! The body of a request on its way from a viewer to an origin.
//!
//! Pulled by the connection to the origin when that has room for more, so that a viewer sends no
//! faster than the origin reads. It has a bound in bytes and one in
//! time. A body that breaks it breaks off: the origin never takes a part for the whole. Trailers
//! are dropped (RFC 9110 section 6.5.1).

use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::fill::error::BodyFault;

/// What a viewer sends at least while he is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// So many bytes.
    pub bytes: u64,
    /// In this time.
    pub period: Duration,
}

/// Who is waited for, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The viewer sends.
    Viewer,
    /// The origin takes; told anew with each part.
    Origin,
    /// The origin has all of it, or will have.
    Whole,
    /// The origin's connection wants no more of it.
    LeftOff,
    /// It broke off.
    Broken(BodyFault),
}

/// A request's body; of a request without one it has ended from the beginning.
pub struct RequestBody {
    body: Incoming,
    left_bytes: u64,
    pace: Pace,
    /// What is left of the period, and what came in it.
    patience: Duration,
    came_bytes: u64,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Not begun before the origin says so.
    begins: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    stage: watch::Sender<Stage>,
    /// What was wrong with it: from then on there is no more of it.
    fault: Option<BodyFault>,
    is_answered: Arc<AtomicBool>,
    /// By HTTP/2: a stream may be reset so that it looks like the end of a body.
    is_stream: bool,
}

impl RequestBody {
    /// A body of up to so many bytes, of a request of this version.
    pub fn new(body: Incoming, version: Version, bytes_max: u64, pace: Pace) -> RequestBody {
        let has_none = body.is_end_stream() || body.size_hint().exact() == Some(0);
        let stage = if has_none { Stage::Whole } else { Stage::Viewer };
        RequestBody {
            is_stream: version == Version::HTTP_2,
            body,
            left_bytes: bytes_max,
            pace,
            patience: pace.period,
            came_bytes: 0,
            waiting: None,
            begins: None,
            stage: watch::Sender::new(stage),
            fault: None,
            is_answered: Arc::default(),
        }
    }

    /// Whether there is one.
    pub(super) fn is_some(&self) -> bool {
        *self.stage.borrow() != Stage::Whole
    }

    /// To follow what becomes of it, and to tell it that the answer is here: then nothing that is
    /// wrong with it matters to that any more.
    pub(super) fn followed(&self) -> (watch::Receiver<Stage>, Arc<AtomicBool>) {
        (self.stage.subscribe(), self.is_answered.clone())
    }

    /// It is begun when that is told, or after [`CONTINUE_WITHIN`]: an origin may not know how to
    /// say it (RFC 9110 section 10.1.1). One that has answered instead wants none of it.
    pub(super) fn begun_by(&mut self, told: oneshot::Receiver<()>) {
        self.begins = Some(Box::pin(async move {
            if let Ok(Err(_)) = timeout(CONTINUE_WITHIN, told).await {
                pending().await
            }
        }));
    }

    fn is_at(&self, stage: Stage) {
        self.stage.send_if_modified(|old| std::mem::replace(old, stage) != stage);
    }

    fn came(&mut self, bytes: usize) -> Result<(), BodyFault> {
        if let Some((since, _)) = self.waiting.take() {
            self.patience = self.patience.saturating_sub(since.elapsed());
        }
        self.came_bytes += bytes as u64;
        if self.came_bytes >= self.pace.bytes {
            (self.came_bytes, self.patience) = (0, self.pace.period);
        }
        let left_bytes = self.left_bytes.checked_sub(bytes as u64);
        self.left_bytes = left_bytes.ok_or(BodyFault::TooLong)?;
        Ok(())
    }

    /// The viewer's next bytes; his patience is counted only while he is waited for.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyFault>>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                self.is_at(Stage::Viewer);
                let patience = self.patience;
                let wait = || (Instant::now(), Box::pin(sleep(patience)));
                let (_, late) = self.waiting.get_or_insert_with(wait);
                ready!(late.as_mut().poll(cx));
                return Poll::Ready(Some(Err(BodyFault::Stopped)));
            };
            let Some(frame) = frame else {
                let is_cut = self.is_stream && !self.body.is_end_stream();
                return Poll::Ready(is_cut.then_some(Err(BodyFault::BrokenOff)));
            };
            let Ok(frame) = frame else { return Poll::Ready(Some(Err(BodyFault::BrokenOff))) };
            if let Ok(bytes) = frame.into_data() {
                return Poll::Ready(Some(self.came(bytes.len()).map(|()| bytes)));
            }
        }
    }
}

impl RequestBody {
    /// Breaks the request off; or no more comes of it, where the answer that is on its way would be
    /// broken off with it.
    fn broken_off<T>(&self, fault: BodyFault) -> Poll<Option<Result<T, BodyFault>>> {
        if self.is_answered.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.is_at(Stage::Broken(fault));
        Poll::Ready(Some(Err(fault)))
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let is_due = |stage: Stage| matches!(stage, Stage::Viewer | Stage::Origin);
        self.stage.send_if_modified(|stage| {
            is_due(*stage) && std::mem::replace(stage, Stage::LeftOff) != Stage::LeftOff
        });
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = self.get_mut();
        if let Some(fault) = this.fault {
            return this.broken_off(fault);
        }
        if let Some(begins) = &mut this.begins {
            ready!(begins.as_mut().poll(cx));
            this.begins = None;
        }
        match ready!(this.poll_bytes(cx)) {
            Some(Ok(bytes)) => {
                let is_all = this.body.is_end_stream();
                this.stage.send_replace(if is_all { Stage::Whole } else { Stage::Origin });
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Err(fault)) => {
                this.fault = Some(fault);
                this.broken_off(fault)
            }
            None => {
                this.is_at(Stage::Whole);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.fault.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a body at {:?}", *self.stage.borrow())
    }
}

/// How long an origin is waited for that was asked whether it wants the body.
const CONTINUE_WITHIN: Duration = Duration::from_secs(1);
