//! The socket beneath a connection: vectored, counted, and closed so that the viewer gets the last
//! byte.
//!
//! Under TLS it lies below the records. It holds no bytes of its own: what hyper (or rustls) hands
//! it goes to the kernel from where it lies.

// System calls that no safe interface offers: what a viewer has not confirmed, how fast he is sent.
#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::ConnectionCounts;
use super::Protocol;
use super::Way;
use super::activity::Activity;
use crate::limits::DISCARDED_BYTES_MAX;

/// What a [`Socket`] can lie on.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// From now on, closing throws away what was not sent.
    fn reset_on_close(&self) -> io::Result<()>;

    /// To ask the kernel about; none where there is no kernel in between.
    fn descriptor(&self) -> Option<RawFd>;
}

impl Stream for TcpStream {
    fn reset_on_close(&self) -> io::Result<()> {
        SockRef::from(self).set_linger(Some(Duration::ZERO))
    }

    fn descriptor(&self) -> Option<RawFd> {
        Some(self.as_raw_fd())
    }
}

/// What was written to a socket and its other end has not confirmed, sent or not; 0 if it is none.
pub(super) fn unconfirmed_bytes(socket: RawFd) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `TIOCOUTQ` (`SIOCOUTQ`) writes one `c_int` where we say and changes nothing else,
    // whatever the descriptor is; the pointer is to a `c_int` that outlives the call.
    let asked = unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &raw mut bytes) };
    if asked == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// What the kernel knows of the way to a viewer; `None` where it is no TCP socket.
pub(super) fn way(socket: RawFd) -> Option<Way> {
    // SAFETY: a `tcp_info` is numbers alone, of which all zeros are valid ones.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes where we say, which is how many there are;
    // both pointers outlive the call, and nothing else changes, whatever the descriptor is.
    let asked = unsafe {
        let into = (&raw mut info).cast();
        libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, into, &raw mut length)
    };
    let round_trip = Duration::from_micros(info.tcpi_rtt.into());
    let window_bytes = u64::from(info.tcpi_snd_cwnd) * u64::from(info.tcpi_snd_mss);
    (asked == 0 && !round_trip.is_zero()).then_some(Way { round_trip, window_bytes })
}

/// Has the kernel spread what it sends evenly, with no more than so many bytes in a second; all
/// ones: as fast as it goes. Where it cannot be, nothing changes.
pub(super) fn send_at_most(socket: RawFd, bytes_per_second: u64) {
    let length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes where we say, which is how many there are; the
    // pointer outlives the call, and nothing else changes, whatever the descriptor is.
    unsafe {
        let from = (&raw const bytes_per_second).cast();
        libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, from, length);
    }
}

/// Sets what every accepted socket inherits from its listener (Linux copies these with the socket).
///
/// Not `TCP_USER_TIMEOUT`: where a viewer's window is small it also runs while he takes bytes, and
/// cuts him off. Who takes none is [`Activity`]'s to judge.
pub(super) fn prepare(listener: SockRef<'_>) -> io::Result<()> {
    listener.set_tcp_nodelay(true)?;
    listener.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)
}

/// A viewer's socket.
pub(super) struct Socket<S: Stream> {
    stream: S,
    activity: Rc<Activity>,
    counts: Arc<ConnectionCounts>,
    is_shut: bool,
    /// What the viewer sends after our last byte is read before the socket is closed.
    lingers: bool,
    discarded_bytes: usize,
}

impl<S: Stream> Socket<S> {
    pub(super) fn new(
        stream: S,
        activity: Rc<Activity>,
        counts: Arc<ConnectionCounts>,
    ) -> Socket<S> {
        activity.socket_opened(stream.descriptor());
        Socket { stream, activity, counts, is_shut: false, lingers: false, discarded_bytes: 0 }
    }

    fn count(&self, written: io::Result<usize>) -> io::Result<usize> {
        if let Ok(bytes) = written {
            self.counts.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
            self.activity.bytes_written(bytes as u64);
        }
        written
    }

    /// Reads what a viewer still sends after our last byte: closing with bytes unread makes the
    /// kernel send a reset, which can overtake the response on its way into the viewer's hands.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut space = [0; DISCARD_STEP_BYTES];
        while self.discarded_bytes < DISCARDED_BYTES_MAX {
            let mut buf = ReadBuf::new(&mut space);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                break;
            }
            self.discarded_bytes += buf.filled().len();
        }
        Poll::Ready(())
    }
}

impl<S: Stream> AsyncRead for Socket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            this.activity.bytes_came();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncWrite for Socket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes));
        Poll::Ready(this.count(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices));
        Poll::Ready(this.count(written))
    }

    /// Always: otherwise hyper would copy every body into a buffer of its own.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_shut {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.is_shut = true;
            this.activity.closing();
            // On HTTP/2 viewers send all the while they receive.
            let unconfirmed = this.stream.descriptor().map_or(0, unconfirmed_bytes);
            let may_send = this.activity.protocol() == Protocol::Http2;
            this.lingers = may_send && unconfirmed >= LINGERING_BYTES_MIN;
        }
        if this.lingers || this.activity.has_unread_input() {
            ready!(this.poll_discard(cx));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> Drop for Socket<S> {
    fn drop(&mut self) {
        self.activity.socket_closed();
        if self.activity.is_cut() {
            // A failure leaves the ordinary close.
            let _ = self.stream.reset_on_close();
        }
    }
}

/// What the kernel holds unsent before it asks us for more.
const NOTSENT_LOWAT_BYTES: u32 = 128 << 10;
/// Less than this, unconfirmed at the end, is no body: an idle connection is closed at once.
const LINGERING_BYTES_MIN: u64 = 1 << 10;
/// What is read of a refused body at a time.
const DISCARD_STEP_BYTES: usize = 8 << 10;
