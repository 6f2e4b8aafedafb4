//! Between hyper and an origin: a response whose head can be read in two ways is none.
//!
//! hyper takes lines that end with LF alone, fields that go on in the next line, and drops a
//! `Content-Length` beside a `Transfer-Encoding`. Here each head is read and checked whole before
//! any of it is handed on; the bytes of bodies pass untouched.

use std::error::Error;
use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Uri;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower_service::Service;

use crate::limits::ORIGIN_READ_BYTES_MAX;
use crate::message::head::{self, Kind};

/// Connects by `C`.
#[derive(Clone)]
pub(super) struct StrictConnector<C>(pub(super) C);

impl<C> Service<Uri> for StrictConnector<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
{
    type Response = Strict<C::Response>;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, origin: Uri) -> Self::Future {
        let connecting = self.0.call(origin);
        Box::pin(async move { Ok(Strict::new(connecting.await?)) })
    }
}

/// A connection to an origin.
pub(super) struct Strict<I> {
    io: I,
    /// A request was sent: what comes next is the head of its response.
    awaits_head: bool,
    /// What has come of that head, or is to be handed on when it is whole.
    held: Vec<u8>,
    /// So much of it are interim responses that were checked.
    checked: usize,
    /// So much of what follows them was searched for the end of a head.
    searched: usize,
}

impl<I> Strict<I> {
    fn new(io: I) -> Strict<I> {
        Strict { io, awaits_head: true, held: Vec::new(), checked: 0, searched: 0 }
    }

    /// Whether what is held may be handed on.
    fn judge(&mut self) -> io::Result<bool> {
        while let Some(length) = head::end(&self.held[self.checked..], self.searched) {
            let head = &self.held[self.checked..self.checked + length];
            head::check(Kind::Response, head).map_err(malformed)?;
            // 103 and its like come before the response itself.
            let is_interim = head.get(9) == Some(&b'1') && !head[9..].starts_with(b"101");
            self.searched = 0;
            if !is_interim {
                (self.awaits_head, self.checked) = (false, 0);
                return Ok(true);
            }
            self.checked += length;
        }
        self.searched = self.held.len() - self.checked;
        match self.held.len() > ORIGIN_READ_BYTES_MAX {
            true => Err(malformed("the head of its response is too long")),
            false => Ok(false),
        }
    }
}

fn malformed(why: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl<I: Read + Unpin> Read for Strict<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.awaits_head {
            let mut space = [MaybeUninit::uninit(); READ_BYTES];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut this.io).poll_read(cx, read.unfilled()))?;
            if read.filled().is_empty() {
                // Closed before the head was whole, which hyper tells.
                break;
            }
            this.held.extend_from_slice(read.filled());
            if this.judge()? {
                break;
            }
        }
        if this.held.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let count = this.held.len().min(buf.remaining());
        buf.put_slice(&this.held[..count]);
        this.held.drain(..count);
        if this.held.is_empty() {
            this.held = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I> Strict<I> {
    /// Only requests are sent: the answer begins with a head.
    fn sent(&mut self, written: io::Result<usize>) -> io::Result<usize> {
        if matches!(written, Ok(1..)) && self.held.is_empty() {
            self.awaits_head = true;
        }
        written
    }
}

impl<I: Write + Unpin> Write for Strict<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, bytes));
        Poll::Ready(this.sent(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, slices));
        Poll::Ready(this.sent(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl<I: Connection> Connection for Strict<I> {
    fn connected(&self) -> Connected {
        self.io.connected()
    }
}

/// What is read at once of a head; the body that follows it is read into hyper's buffer.
const READ_BYTES: usize = 8 << 10;
