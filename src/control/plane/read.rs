//! Whether the body of a request was read to its end, which tells whether its connection can be
//! used for the next one: a box asks every few seconds, and shaking hands costs both more than
//! asking.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};

use crate::control::asking::AskedBody;

/// A body, and who is told when it has ended.
pub(super) struct Watched<B> {
    body: Pin<Box<B>>,
    is_read: Rc<Cell<bool>>,
}

/// The request, and whether its body has been read.
pub(super) fn watched<B: AskedBody>(request: Request<B>) -> (Request<Watched<B>>, Rc<Cell<bool>>) {
    let is_read = Rc::new(Cell::new(request.body().is_end_stream()));
    let told = is_read.clone();
    (request.map(|body| Watched { body: Box::pin(body), is_read }), told)
}

impl<B: AskedBody> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(self.body.as_mut().poll_frame(context));
        let is_broken = matches!(frame, Some(Err(_)));
        if frame.is_none() || !is_broken && self.body.is_end_stream() {
            self.is_read.set(true);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
