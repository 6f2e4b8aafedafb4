//! A body of bytes already held, sent at a rate if one is given.
//!
//! The first slice goes at once, each later one when the rate allows it. Bytes are never copied.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

const SLICE_BYTES: usize = 32 << 10;

/// The bytes still to send, and when the next slice may go.
#[derive(Debug)]
pub(super) struct PacedBody {
    rest: Bytes,
    pace: Option<Pace>,
}

#[derive(Debug)]
struct Pace {
    bytes_per_second: u64,
    next: Pin<Box<Sleep>>,
}

impl PacedBody {
    /// Sends `bytes`, at `bytes_per_second` if given.
    pub(super) fn new(bytes: Bytes, bytes_per_second: Option<u64>) -> PacedBody {
        let pace = bytes_per_second.map(|bytes_per_second| Pace {
            bytes_per_second: bytes_per_second.max(1),
            next: Box::pin(sleep_until(Instant::now())),
        });
        PacedBody { rest: bytes, pace }
    }
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let body = &mut *self;
        let Some(pace) = &mut body.pace else {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut body.rest)))));
        };
        ready!(pace.next.as_mut().poll(cx));
        let slice = body.rest.split_to(SLICE_BYTES.min(body.rest.len()));
        let micros = slice.len() as u64 * 1_000_000 / pace.bytes_per_second;
        let next = pace.next.deadline() + Duration::from_micros(micros);
        pace.next.as_mut().reset(next);
        Poll::Ready(Some(Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
