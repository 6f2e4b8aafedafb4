//! A response's body: pulled by the connection, one slice at a time.
//!
//! hyper asks for the next frame when it has room, never before. What is held is one slice,
//! reserved in the governor. An error after the head was sent can only cut the body short; the log
//! says so.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use crate::access_log::Outcome;
use crate::delivery::feed::{Feed, Slice, Span};
use crate::delivery::record::Record;
use crate::fill::error::FillError;
use crate::limits::H2_BODY_FRAME_BYTES;
use crate::server::Protocol;

/// The body of any response.
pub struct ViewerBody {
    record: Record,
    content: Content,
}

enum Content {
    Empty,
    /// A short text of our own.
    Text(Bytes),
    Object(Box<Sending>),
}

/// An object's bytes on their way to a viewer.
struct Sending {
    span: Span,
    /// Pinned and not yet handed to the connection.
    slice: Option<Slice>,
    feed: State,
    frame_bytes_max: usize,
}

enum State {
    Idle(Feed),
    Waiting(Pin<Box<dyn Future<Output = (Feed, Next)>>>),
    /// Told at the next poll: hyper forgets what it has not flushed when it is told of an error.
    Failing(Arc<FillError>),
    Ended,
}

type Next = Result<Option<Slice>, Arc<FillError>>;

/// A piece of body as the connection takes it.
pub enum Chunk {
    /// Of an object.
    Slice(Slice),
    /// Of a text.
    Text(Bytes),
}

impl ViewerBody {
    /// No body.
    pub fn empty(mut record: Record) -> ViewerBody {
        record.outcome = Outcome::Complete;
        ViewerBody { record, content: Content::Empty }
    }

    /// A short text.
    pub fn text(record: Record, text: Bytes) -> ViewerBody {
        ViewerBody { record, content: Content::Text(text) }
    }

    /// The bytes of `span`; `first` when its first slice is here already.
    pub fn object(record: Record, feed: Feed, span: Span, first: Option<Slice>) -> ViewerBody {
        let frame_bytes_max = match feed.viewer.connection.protocol {
            Protocol::Http1 => usize::MAX,
            Protocol::Http2 => H2_BODY_FRAME_BYTES,
        };
        let sending = Sending { span, slice: first, feed: State::Idle(feed), frame_bytes_max };
        ViewerBody { record, content: Content::Object(Box::new(sending)) }
    }
}

impl Sending {
    /// The next slice, or the end.
    fn poll_slice(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        if let Some(slice) = self.slice.take() {
            return Poll::Ready(Ok(Some(slice)));
        }
        if self.span.end == Some(self.span.position) {
            return Poll::Ready(Ok(None));
        }
        loop {
            match std::mem::replace(&mut self.feed, State::Ended) {
                State::Ended => return Poll::Ready(Ok(None)),
                State::Failing(error) => return Poll::Ready(Err(error)),
                State::Idle(mut feed) => {
                    let span = self.span;
                    if let Some(slice) = feed.try_next(span) {
                        self.feed = State::Idle(feed);
                        return Poll::Ready(Ok(Some(slice)));
                    }
                    self.feed = State::Waiting(Box::pin(async move {
                        let next = feed.next(span).await;
                        (feed, next)
                    }));
                }
                State::Waiting(mut waiting) => match waiting.as_mut().poll(context) {
                    Poll::Pending => {
                        self.feed = State::Waiting(waiting);
                        return Poll::Pending;
                    }
                    Poll::Ready((_, Err(error))) => {
                        self.feed = State::Failing(error);
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Poll::Ready((feed, next)) => {
                        self.feed = State::Idle(feed);
                        return Poll::Ready(next);
                    }
                },
            }
        }
    }
}

impl Body for ViewerBody {
    type Data = Chunk;
    type Error = Arc<FillError>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, Arc<FillError>>>> {
        let ViewerBody { record, content } = &mut *self;
        match content {
            Content::Empty => Poll::Ready(None),
            Content::Text(text) => {
                let text = std::mem::take(text);
                record.outcome = Outcome::Complete;
                self.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(Chunk::Text(text)))))
            }
            Content::Object(sending) => match std::task::ready!(sending.poll_slice(context)) {
                Ok(Some(mut slice)) => {
                    if slice.remaining() > sending.frame_bytes_max {
                        let frame = slice.split_to(sending.frame_bytes_max);
                        sending.slice = Some(std::mem::replace(&mut slice, frame));
                    }
                    sending.span.position += slice.remaining() as u64;
                    record.sent(slice.tier, slice.remaining());
                    if sending.span.end == Some(sending.span.position) {
                        record.outcome = Outcome::Complete;
                    }
                    Poll::Ready(Some(Ok(Frame::data(Chunk::Slice(slice)))))
                }
                Ok(None) => {
                    record.outcome = Outcome::Complete;
                    self.content = Content::Empty;
                    Poll::Ready(None)
                }
                Err(error) => {
                    record.outcome = Outcome::CutShort(error.word());
                    self.content = Content::Empty;
                    Poll::Ready(Some(Err(error)))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Text(text) => text.is_empty(),
            Content::Object(sending) => sending.span.end == Some(sending.span.position),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Text(text) => SizeHint::with_exact(text.len() as u64),
            Content::Object(sending) => match sending.span.end {
                Some(end) => SizeHint::with_exact(end - sending.span.position),
                None => SizeHint::default(),
            },
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        match self {
            Chunk::Slice(slice) => slice.remaining(),
            Chunk::Text(text) => text.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Chunk::Slice(slice) => slice.chunk(),
            Chunk::Text(text) => text.chunk(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Chunk::Slice(slice) => slice.advance(count),
            Chunk::Text(text) => text.advance(count),
        }
    }
}
