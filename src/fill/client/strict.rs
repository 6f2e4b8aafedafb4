//! Between hyper and an origin: a response whose head can be read in two ways is none.
//!
//! hyper takes lines that end with LF alone, fields that go on in the next line, and drops a
//! `Content-Length` beside a `Transfer-Encoding`. Here each head is read and checked whole before
//! any of it is handed on; the bytes of bodies pass untouched. Interim responses are held back
//! until the response is here, but where a request waits for one.

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
pub struct Strict<I> {
    io: I,
    /// A request was sent: what comes next is the head of its response.
    awaits_head: bool,
    is_used: Used,
    /// What is written goes nowhere any more.
    is_deaf: bool,
    /// What has come of that head, or is to be handed on when it is whole.
    held: Vec<u8>,
    /// So much of it are interim responses that were checked.
    checked: usize,
    /// So much of what follows them was searched for the end of a head.
    searched: usize,
}

/// How often a connection is used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Used {
    Again,
    Once,
}

impl<I> Strict<I> {
    /// For requests one after another; `io` has not been read from.
    pub fn new(io: I) -> Strict<I> {
        let (awaits_head, is_used) = (true, Used::Again);
        Strict {
            io,
            awaits_head,
            is_used,
            is_deaf: false,
            held: Vec::new(),
            checked: 0,
            searched: 0,
        }
    }

    /// For one request and its answer.
    pub(super) fn once(self) -> Strict<I> {
        Strict { is_used: Used::Once, ..self }
    }

    /// How much of what is held may be handed on.
    fn passes(&self) -> usize {
        match (self.awaits_head, self.is_used) {
            (false, _) => self.held.len(),
            (true, Used::Once) => self.checked,
            (true, Used::Again) => 0,
        }
    }

    /// Checks the heads that are whole.
    fn judge(&mut self) -> io::Result<()> {
        while let Some(length) = head::end(&self.held[self.checked..], self.searched) {
            let head = &self.held[self.checked..self.checked + length];
            head::check(Kind::Response, head).map_err(malformed)?;
            // 103 and its like come before the response itself.
            let is_interim = head.get(9) == Some(&b'1') && !head[9..].starts_with(b"101");
            self.searched = 0;
            if !is_interim {
                (self.awaits_head, self.checked) = (false, 0);
                return Ok(());
            }
            self.checked += length;
        }
        self.searched = self.held.len() - self.checked;
        match self.held.len() > ORIGIN_READ_BYTES_MAX {
            true => Err(malformed("the head of its response is too long")),
            false => Ok(()),
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
        while this.passes() == 0 && this.awaits_head {
            let mut space = [MaybeUninit::uninit(); READ_BYTES];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut this.io).poll_read(cx, read.unfilled()))?;
            if read.filled().is_empty() {
                // Closed before the head was whole, which hyper tells.
                this.awaits_head = false;
                break;
            }
            this.held.extend_from_slice(read.filled());
            this.judge()?;
        }
        if this.held.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let count = this.passes().min(buf.remaining());
        buf.put_slice(&this.held[..count]);
        this.held.drain(..count);
        this.checked = this.checked.saturating_sub(count);
        if this.held.is_empty() {
            this.held = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I> Strict<I> {
    /// Only requests are sent: the answer begins with a head. A request with a body may be answered
    /// while it is sent, by one who reads no more of it: what he has said is read all the same.
    fn sent(&mut self, written: io::Result<usize>) -> Poll<io::Result<usize>> {
        match (self.is_used, &written) {
            (Used::Once, Err(_)) => {
                self.is_deaf = true;
                return Poll::Pending;
            }
            (Used::Again, Ok(1..)) if self.held.is_empty() => self.awaits_head = true,
            _ => {}
        }
        Poll::Ready(written)
    }
}

impl<I: Write + Unpin> Write for Strict<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_deaf {
            return Poll::Pending;
        }
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, bytes));
        this.sent(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_deaf {
            return Poll::Pending;
        }
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, slices));
        this.sent(written)
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
