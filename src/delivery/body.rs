//! A response's body: pulled by the connection, one slice at a time.
//!
//! hyper asks for the next frame when it has room, never before. What is held is one slice,
//! reserved in the governor. An error after the head was sent can only cut the body short; the log
//! says so.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use crate::access_log::Outcome;
use crate::delivery::feed::Feed;
use crate::delivery::record::Record;
use crate::delivery::slice::{Slice, Span};
use crate::fill::client::AnswerBody;
use crate::fill::error::FillError;
use crate::limits::H2_BODY_FRAME_BYTES;
use crate::message::multirange::Multipart;
use crate::metrics::labels::Tier;
use crate::object::ByteRange;
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
    /// What was made of an object, from where it lies on, and of which tier the object came.
    Made(Bytes, u64, Tier),
    Object(Box<Sending>),
    /// An origin's answer to this viewer alone.
    Passed(Box<AnswerBody>),
    /// Told at the next poll, as [`State::Failing`] is.
    Failing(Arc<FillError>),
}

/// An object's bytes on their way to a viewer.
struct Sending {
    span: Span,
    /// Pinned and not yet handed to the connection.
    slice: Option<Slice>,
    feed: State,
    /// Since when there has been nothing to hand to the connection.
    waits_since: Option<Instant>,
    frame_bytes_max: usize,
    /// Of an answer in parts: what stands before the span, and what follows it.
    parts: Option<Box<Parts>>,
}

/// The rest of an answer in parts.
struct Parts {
    /// To be sent before anything else.
    text: Option<Bytes>,
    /// Each with the text before it.
    rest: VecDeque<(Bytes, ByteRange)>,
    /// After the last; taken when it is its turn.
    end: Option<Bytes>,
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
    /// Of a text, or of an answer that is passed on.
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

    /// What was made of an object, from `position` on.
    pub fn made(record: Record, bytes: Bytes, position: u64, tier: Tier) -> ViewerBody {
        ViewerBody { record, content: Content::Made(bytes, position, tier) }
    }

    /// The bytes of `span`; `first` when its first slice is here already.
    pub fn object(record: Record, feed: Feed, span: Span, first: Option<Slice>) -> ViewerBody {
        let frame_bytes_max = match feed.viewer.connection.protocol {
            Protocol::Http1 => usize::MAX,
            Protocol::Http2 => H2_BODY_FRAME_BYTES,
        };
        let feed = State::Idle(feed);
        let sending =
            Sending { span, slice: first, feed, waits_since: None, frame_bytes_max, parts: None };
        ViewerBody { record, content: Content::Object(Box::new(sending)) }
    }

    /// An origin's answer, as it comes.
    pub fn passed(mut record: Record, body: AnswerBody) -> ViewerBody {
        if body.is_end() {
            record.outcome = Outcome::Complete;
        }
        ViewerBody { record, content: Content::Passed(Box::new(body)) }
    }

    /// The same in parts, of which the first is the span it has.
    pub fn in_parts(mut self, multipart: Multipart) -> ViewerBody {
        let mut rest = VecDeque::from(multipart.parts);
        let text = rest.pop_front().map(|(text, _)| text);
        if let Content::Object(sending) = &mut self.content {
            sending.parts = Some(Box::new(Parts { text, rest, end: Some(multipart.end) }));
        }
        self
    }
}

impl Sending {
    /// What is to be sent before the next slice: between parts the next one begins.
    fn next_text(&mut self) -> Option<Bytes> {
        let parts = self.parts.as_mut()?;
        if let Some(text) = parts.text.take() {
            return Some(text);
        }
        if self.slice.is_some() || self.span.end != Some(self.span.position) {
            return None;
        }
        let Some((text, range)) = parts.rest.pop_front() else { return parts.end.take() };
        self.span = Span::of(range);
        if let State::Idle(feed) = &self.feed {
            self.feed = State::Idle(feed.for_another_part());
        }
        Some(text)
    }

    /// Whether all has been handed to the connection.
    fn is_done(&self) -> bool {
        let spoken = self.parts.as_ref().is_none_or(|parts| parts.end.is_none());
        spoken && self.span.end == Some(self.span.position)
    }

    /// Bytes that are left, if the end is known.
    fn bytes_left(&self) -> Option<u64> {
        let span = self.span.end? - self.span.position;
        let Some(parts) = &self.parts else { return Some(span) };
        let texts = parts.text.iter().chain(&parts.end).map(|text| text.len() as u64);
        let rest = parts.rest.iter().map(|(text, range)| text.len() as u64 + range.length_bytes());
        Some(span + texts.chain(rest).sum::<u64>())
    }

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
                    self.waits_since = Some(Instant::now());
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

impl ViewerBody {
    /// The next bytes of an origin's answer.
    fn poll_passed(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, Arc<FillError>>>> {
        let Content::Passed(body) = &mut self.content else { return Poll::Ready(None) };
        match std::task::ready!(body.poll_bytes(context)) {
            Some(Ok(bytes)) => {
                self.record.passed(bytes.len());
                if body.is_end() {
                    self.record.outcome = Outcome::Complete;
                }
                Poll::Ready(Some(Ok(Frame::data(Chunk::Text(bytes)))))
            }
            Some(Err(error)) => {
                self.record.cut_short(&error);
                self.content = Content::Failing(Arc::new(error));
                context.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                self.record.outcome = Outcome::Complete;
                self.content = Content::Empty;
                Poll::Ready(None)
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
                record.said(text.len());
                record.outcome = Outcome::Complete;
                self.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(Chunk::Text(text)))))
            }
            Content::Made(bytes, position, tier) => {
                let frame = bytes.split_to(bytes.len().min(H2_BODY_FRAME_BYTES));
                record.sent(*tier, *position, frame.len());
                *position += frame.len() as u64;
                if bytes.is_empty() {
                    record.outcome = Outcome::Complete;
                    self.content = Content::Empty;
                }
                Poll::Ready(Some(Ok(Frame::data(Chunk::Text(frame)))))
            }
            Content::Passed(_) => self.poll_passed(context),
            Content::Failing(error) => {
                let error = error.clone();
                self.content = Content::Empty;
                Poll::Ready(Some(Err(error)))
            }
            Content::Object(sending) => {
                if let Some(text) = sending.next_text() {
                    record.said(text.len());
                    if sending.is_done() {
                        record.outcome = Outcome::Complete;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(Chunk::Text(text)))));
                }
                match std::task::ready!(sending.poll_slice(context)) {
                    Ok(Some(mut slice)) => {
                        if let Some(since) = sending.waits_since.take() {
                            record.has_waited(slice.tier, since.elapsed());
                        }
                        if slice.remaining() > sending.frame_bytes_max {
                            let frame = slice.split_to(sending.frame_bytes_max);
                            sending.slice = Some(std::mem::replace(&mut slice, frame));
                        }
                        record.sent(slice.tier, sending.span.position, slice.remaining());
                        sending.span.position += slice.remaining() as u64;
                        if sending.is_done() {
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
                        record.cut_short(&error);
                        self.content = Content::Empty;
                        Poll::Ready(Some(Err(error)))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Text(text) | Content::Made(text, ..) => text.is_empty(),
            Content::Object(sending) => sending.is_done(),
            Content::Passed(body) => body.is_end(),
            Content::Failing(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Text(text) | Content::Made(text, ..) => {
                SizeHint::with_exact(text.len() as u64)
            }
            Content::Passed(body) => body.size_hint(),
            Content::Failing(_) => SizeHint::default(),
            Content::Object(sending) => {
                sending.bytes_left().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
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
