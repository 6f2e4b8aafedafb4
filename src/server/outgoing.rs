//! A response body and its buffers on the way out, watched but not touched.
//!
//! Delegates everything to the handler's body and `Buf`, so that what reaches the socket is the
//! handler's own memory. Beside that it tells [`Activity`] how many buffers wait to be sent, and
//! when the request is over.

use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::Version;
use http_body::{Body, Frame, SizeHint};

use super::activity::Activity;

/// One request from its head to the end of its response, however that comes about.
pub(super) struct OpenRequest {
    activity: Rc<Activity>,
    outcome: Outcome,
    version: Version,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The whole response was handed to the protocol.
    Finished,
    /// The viewer left, or the body failed.
    Cancelled,
}

impl OpenRequest {
    pub(super) fn new(activity: &Rc<Activity>, version: Version) -> OpenRequest {
        activity.request_opened();
        OpenRequest { activity: Rc::clone(activity), outcome: Outcome::Cancelled, version }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.activity.request_closed(self.outcome);
    }
}

/// A response body being sent.
pub(super) struct Outgoing<B> {
    body: B,
    request: OpenRequest,
}

impl<B: Body> Outgoing<B> {
    pub(super) fn new(body: B, mut request: OpenRequest) -> Outgoing<B> {
        if body.is_end_stream() {
            request.outcome = Outcome::Finished;
        }
        Outgoing { body, request }
    }
}

impl<B: Body + Unpin> Body for Outgoing<B> {
    type Data = OutgoingBuf<B::Data>;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, B::Error>>> {
        let this = self.get_mut();
        ready!(this.request.activity.poll_room(cx));
        // Where the end is told by closing, an ordinary close would say that this is all.
        let told_by_closing =
            this.request.version <= Version::HTTP_10 && this.body.size_hint().exact().is_none();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || this.body.is_end_stream() {
            this.request.outcome = Outcome::Finished;
        }
        if matches!(polled, Poll::Ready(Some(Err(_)))) && told_by_closing {
            this.request.activity.cut();
        }
        polled.map_ok(|frame| frame.map_data(|buf| OutgoingBuf::new(buf, &this.request.activity)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A buffer handed to the protocol and not yet wholly sent.
pub(super) struct OutgoingBuf<D> {
    buf: D,
    activity: Rc<Activity>,
}

impl<D: Buf> OutgoingBuf<D> {
    fn new(buf: D, activity: &Rc<Activity>) -> OutgoingBuf<D> {
        activity.buffer_waits();
        OutgoingBuf { buf, activity: Rc::clone(activity) }
    }
}

impl<D> Drop for OutgoingBuf<D> {
    fn drop(&mut self) {
        self.activity.buffer_sent();
    }
}

impl<D: Buf> Buf for OutgoingBuf<D> {
    fn remaining(&self) -> usize {
        self.buf.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.buf.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.buf.chunks_vectored(slices)
    }

    fn advance(&mut self, taken_bytes: usize) {
        self.buf.advance(taken_bytes);
    }
}
