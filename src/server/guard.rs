//! In front of hyper on an HTTP/1 connection: no head reaches it that can be read in two ways.
//!
//! hyper takes lines that end with LF alone, and drops a `Content-Length` beside a
//! `Transfer-Encoding`. A head is held back until all of it is here and was checked; in the place
//! of one that is refused hyper reads a request of our own, so that the refusal is answered in its
//! turn, logged and counted like any other. What follows it on the connection is thrown away. A
//! body whose head tells its length is counted, so that the next head is found where hyper finds
//! it; of one in chunks the end is not looked for, and its connection ends with the answer.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};

use http::{Method, Request, Uri};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::REQUEST_HEAD_BYTES_MAX;
use crate::message::head::{self, Follows, HeadFault, Kind};

/// A connection whose heads are checked.
pub(super) struct Guarded<I> {
    io: I,
    state: State,
    /// What was read; the first `passed` bytes may be handed on.
    held: Vec<u8>,
    passed: usize,
    /// How much of what follows them was searched for the end of a head.
    searched: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// What comes next begins a head.
    Heads,
    /// So many bytes of a body come next, then a head. hyper counts the same ones: the length was
    /// read of the head that it reads.
    Body(u64),
    /// A body whose end is not looked for: the connection ends with its answer.
    Rest,
    Refused,
}

impl<I> Guarded<I> {
    pub(super) fn new(io: I) -> Guarded<I> {
        Guarded { io, state: State::Heads, held: Vec::new(), passed: 0, searched: 0 }
    }

    /// Passes the heads that are whole, and the bodies that follow them.
    fn judge(&mut self) {
        loop {
            let rest = &self.held[self.passed..];
            match self.state {
                State::Heads => {}
                State::Body(left_bytes) if !rest.is_empty() => {
                    let (count, state) = passed_of_body(left_bytes, rest.len());
                    (self.passed, self.state) = (self.passed + count, state);
                    continue;
                }
                State::Body(_) | State::Rest | State::Refused => return,
            }
            let skipped = head::empty_lines(rest);
            if skipped > 0 {
                self.held.drain(self.passed..self.passed + skipped);
                self.searched = 0;
                continue;
            }
            let Some(length) = head::end(rest, self.searched) else {
                self.searched = rest.len();
                if rest.len() > REQUEST_HEAD_BYTES_MAX {
                    // hyper has the answer for it.
                    self.pass_all(State::Rest);
                }
                return;
            };
            self.searched = 0;
            match head::check(Kind::Request, &rest[..length]) {
                Ok(Follows::Chunks) => self.pass_all(State::Rest),
                Ok(follows) => (self.passed, self.state) = (self.passed + length, after(follows)),
                Err(fault) => {
                    self.held.truncate(self.passed);
                    self.held.extend_from_slice(refusal(fault).as_bytes());
                    self.pass_all(State::Refused);
                }
            }
        }
    }

    /// How many bytes at the beginning pass as they are: whole heads, and what follows them.
    fn pass_at_once(&mut self, bytes: &[u8]) -> usize {
        let mut good = 0;
        loop {
            let rest = &bytes[good..];
            match self.state {
                State::Body(left_bytes) if !rest.is_empty() => {
                    let (count, state) = passed_of_body(left_bytes, rest.len());
                    (good, self.state) = (good + count, state);
                }
                State::Heads => {
                    let Some(length) = head::end(rest, 0) else { return good };
                    match head::check(Kind::Request, &rest[..length]) {
                        Ok(follows) => (good, self.state) = (good + length, after(follows)),
                        Err(_) => return good,
                    }
                }
                State::Rest => return bytes.len(),
                State::Body(_) | State::Refused => return good,
            }
        }
    }

    fn pass_all(&mut self, state: State) {
        (self.state, self.passed) = (state, self.held.len());
    }
}

fn after(follows: Follows) -> State {
    match follows {
        Follows::Head => State::Heads,
        Follows::Body(length_bytes) => State::Body(length_bytes),
        Follows::Chunks => State::Rest,
    }
}

/// How much of so many bytes that came belongs to a body, and what comes then.
fn passed_of_body(left_bytes: u64, came_bytes: usize) -> (usize, State) {
    let count = left_bytes.min(came_bytes as u64);
    let state = if count == left_bytes { State::Heads } else { State::Body(left_bytes - count) };
    (count as usize, state)
}

impl<I: AsyncRead + Unpin> AsyncRead for Guarded<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.passed > 0 {
                let count = this.passed.min(buf.remaining());
                buf.put_slice(&this.held[..count]);
                this.held.drain(..count);
                this.passed -= count;
                if this.held.is_empty() {
                    // An idle connection holds nothing.
                    this.held = Vec::new();
                }
                return Poll::Ready(Ok(()));
            }
            if this.state == State::Rest {
                return Pin::new(&mut this.io).poll_read(cx, buf);
            }
            if this.state != State::Refused && this.held.is_empty() {
                let before = buf.filled().len();
                ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
                let came = &buf.filled()[before..];
                // As a rule one head, or a part of a body, and nothing is copied.
                let good = this.pass_at_once(came);
                if good == came.len() {
                    return Poll::Ready(Ok(()));
                }
                this.held.extend_from_slice(&came[good..]);
                buf.set_filled(before + good);
                this.judge();
                if good > 0 {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let mut space = [MaybeUninit::uninit(); READ_BYTES];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
            match (this.state, read.filled()) {
                // The end: hyper sees that half a head is missing.
                (State::Heads, []) if !this.held.is_empty() => this.pass_all(State::Rest),
                (_, []) => return Poll::Ready(Ok(())),
                (State::Refused, _) => {}
                (_, bytes) => {
                    this.held.extend_from_slice(bytes);
                    this.judge();
                }
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Guarded<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, slices)
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

/// The request that hyper reads instead of one that was refused. No viewer knows its method.
fn refusal(fault: HeadFault) -> String {
    let number = HeadFault::ALL.iter().position(|one| *one == fault).expect("all are in the list");
    format!("{} /{number} HTTP/1.1\r\nconnection: close\r\n\r\n", *REFUSED)
}

/// Notes in a request that stands for a refused one why that was, and takes our own words out.
pub(super) fn note_refusal<B>(request: &mut Request<B>) {
    if request.method().as_str() != *REFUSED {
        return;
    }
    let number = request.uri().path().trim_start_matches('/').parse::<usize>();
    let fault = number.ok().and_then(|number| HeadFault::ALL.get(number));
    request.extensions_mut().insert(*fault.expect("what stands for a refused head names why"));
    *request.method_mut() = Method::GET;
    *request.uri_mut() = Uri::from_static("/");
    request.headers_mut().clear();
}

static REFUSED: LazyLock<String> = LazyLock::new(|| {
    use std::hash::{BuildHasher, RandomState};
    // Keyed by the system's random numbers.
    format!(
        "REFUSED-{:016x}{:016x}",
        RandomState::new().hash_one(1),
        RandomState::new().hash_one(2)
    )
});

/// What is read at once: as a rule a head is less.
const READ_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What hyper reads of `bytes` that come in steps of `step`.
    async fn read_of(bytes: &[u8], step: usize) -> Vec<u8> {
        let (mut viewer, server) = tokio::io::duplex(step);
        let mut guarded = Guarded::new(server);
        let bytes = bytes.to_vec();
        let sending = tokio::spawn(async move {
            viewer.write_all(&bytes).await.unwrap();
            viewer
        });
        let mut read = Vec::new();
        let mut space = [0; 100];
        tokio::select! {
            ended = sending => drop(ended.unwrap()),
            () = async {
                loop {
                    let count = guarded.read(&mut space).await.unwrap();
                    read.extend_from_slice(&space[..count]);
                }
            } => {}
        }
        guarded.read_to_end(&mut read).await.unwrap();
        read
    }

    const GOOD: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";

    #[tokio::test]
    async fn good_heads_pass_as_they_came_and_a_bad_one_in_its_turn_however_they_come() {
        let bad: &[u8] = b"GET /b HTTP/1.1\nHost: a\r\n\r\n";
        let posted: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nGET /b HT";
        let short: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\nGET /b HTTP/1.1\n\n";
        let chunked: &[u8] =
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /b HT\nTP";
        let empty: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        let refused = refusal(HeadFault::LineEnd);
        let lengths = refusal(HeadFault::Length);
        let twice: &[u8] =
            b"POST / HTTP/1.1\r\nContent-Length: 9\r\nContent-Length: 9\r\n\r\nGET /b HT";
        let long =
            [b"GET /", vec![b'a'; REQUEST_HEAD_BYTES_MAX].as_slice(), b" HTTP/1.1\n"].concat();
        for (sent, expected) in [
            (GOOD.to_vec(), GOOD.to_vec()),
            ([GOOD, GOOD, GOOD].concat(), [GOOD, GOOD, GOOD].concat()),
            ([b"\r\n\r\n", GOOD, b"\r\n", GOOD].concat(), [GOOD, GOOD].concat()),
            ([GOOD, bad, GOOD].concat(), [GOOD, refused.as_bytes()].concat()),
            ([GOOD, posted, GOOD].concat(), [GOOD, posted, GOOD].concat()),
            ([posted, posted, bad, GOOD].concat(), [posted, posted, refused.as_bytes()].concat()),
            ([posted, b"\r\n", GOOD].concat(), [posted, GOOD].concat()),
            ([posted, b"\n", GOOD].concat(), [posted, refused.as_bytes()].concat()),
            ([empty, bad].concat(), [empty, refused.as_bytes()].concat()),
            ([twice, GOOD].concat(), lengths.clone().into_bytes()),
            ([posted, twice].concat(), [posted, lengths.as_bytes()].concat()),
            (short.to_vec(), short.to_vec()),
            ([GOOD, chunked].concat(), [GOOD, chunked].concat()),
            ([posted, chunked].concat(), [posted, chunked].concat()),
            ([GOOD, b"GET /half"].concat(), [GOOD, b"GET /half"].concat()),
            (b"\r\n\r\n".to_vec(), Vec::new()),
            ([b"\r\n\r\n", GOOD, b"\r\n\r\n"].concat(), GOOD.to_vec()),
            (long.clone(), long),
            (Vec::new(), Vec::new()),
        ] {
            for step in [1, 7, 50, 1 << 20] {
                let read = read_of(&sent, step).await;
                assert!(
                    read == expected,
                    "{step}: {:?}",
                    String::from_utf8_lossy(&sent[..sent.len().min(90)])
                );
            }
        }
    }

    /// Where a message ends is told by its head alone, wherever what comes is cut in two.
    #[test]
    fn messages_end_where_their_heads_say_wherever_they_are_cut() {
        let posted = |body: &str| {
            format!("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        let good = String::from_utf8(GOOD.to_vec()).unwrap();
        let smuggled = posted(&format!("{good}POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n"));
        let messages = [posted("a"), smuggled, good.clone(), posted("\r\n\r\n"), good];
        let bad = "GET /b HTTP/1.1\r\nHost : a\r\n\r\n";
        let sent = messages.concat() + bad;
        let expected = messages.concat() + &refusal(HeadFault::FieldName);
        for cut in 0..=sent.len() {
            let mut guarded = Guarded::new(());
            let (first, second) = sent.as_bytes().split_at(cut);
            let mut read = Vec::new();
            for part in [first, second] {
                let good = match guarded.held.is_empty() {
                    true => guarded.pass_at_once(part),
                    false => 0,
                };
                read.extend_from_slice(&part[..good]);
                guarded.held.extend_from_slice(&part[good..]);
                guarded.judge();
                let passed = std::mem::take(&mut guarded.passed);
                read.extend(guarded.held.drain(..passed));
            }
            assert_eq!(String::from_utf8(read).unwrap(), expected, "cut at {cut}");
        }
    }
}
