//! One connection of the scripted origin: reads heads, acts the answers out.
//!
//! Every fault of a body's end is played here, at the byte it was written for.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::answer::{Answer, Body, RequestHead, answer};
use super::content::Content;
use super::origin_state::{Shared, Turn};
use super::script::{Change, Ending, Framing, HeadFault};

/// Answers requests until the peer closes or a script does.
pub(super) async fn serve(stream: TcpStream, number: u64, shared: Arc<Shared>) {
    stream.set_nodelay(true).unwrap();
    // Small, so that what was sent is near what was taken.
    socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES).unwrap();
    let mut connection = Connection { stream, unread: Vec::new() };
    while let Some(head) = connection.read_head().await {
        let next = match shared.begin(head.clone(), number) {
            Some(turn) => connection.act(&head, &turn).await,
            None => connection.write(NOT_FOUND).await,
        };
        match next {
            Next::Request => {}
            Next::Close => return connection.close().await,
            Next::Reset => return connection.reset(),
        }
    }
}

/// What follows an answer.
#[derive(Clone, Copy)]
enum Next {
    Request,
    Close,
    Reset,
}

struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    /// The next request's head; `None` where the peer has closed.
    async fn read_head(&mut self) -> Option<RequestHead> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Some(parsed(&head));
            }
            assert!(self.unread.len() < HEAD_BYTES_MAX, "the edge's request head is too long");
            if self.stream.read_buf(&mut self.unread).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn act(&mut self, request: &RequestHead, turn: &Turn) -> Next {
        let script = &turn.script;
        if script.head == HeadFault::Closed {
            return Next::Close;
        }
        let prelude = async {
            tokio::time::sleep(script.first_byte_after).await;
            turn.together().await;
            if script.head == HeadFault::Held {
                turn.released().await;
            }
        };
        if self.unless_closed(prelude).await.is_none() {
            return Next::Close;
        }
        if script.head == HeadFault::Garbled {
            self.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n").await;
            return Next::Close;
        }

        let answer = answer(&turn.key, script, request, turn.version, turn.number);
        turn.is_answered(
            answer.status,
            match answer.body {
                Body::Text(_) => 0..0,
                Body::Object { start, end, .. } => start..end,
            },
        );
        if let Next::Close = self.write(head_of(&answer).as_bytes()).await {
            return Next::Close;
        }
        if request.method == Method::HEAD || matches!(answer.status, 204 | 304) {
            return Next::Request;
        }
        match answer.body {
            Body::Text(text) => self.write(text.as_bytes()).await,
            Body::Object { content, start, end } => {
                let plan = Plan::of(turn, start, end);
                let next = self.write_object(turn, content, start, plan).await;
                if plan.turns && matches!(next, Next::Close) {
                    turn.turn_over();
                }
                next
            }
        }
    }

    async fn write_object(
        &mut self,
        turn: &Turn,
        content: Content,
        start: u64,
        plan: Plan,
    ) -> Next {
        let script = &turn.script;
        let mut buffer = Vec::with_capacity(WRITE_BYTES as usize + 32);
        let mut at = start;
        while at < plan.end {
            if plan.held == Some(at) && self.unless_closed(turn.released()).await.is_none() {
                return Next::Close;
            }
            let next_stop = plan.held.filter(|held| *held > at).unwrap_or(plan.end);
            let step = script.rate_bytes_per_second.map_or(WRITE_BYTES, per_tick);
            let length = step.min(next_stop - at);
            buffer.clear();
            if script.framing == Framing::Chunked {
                buffer.extend_from_slice(format!("{length:x}\r\n").as_bytes());
            }
            content.append_to(&mut buffer, at, length as usize);
            if script.framing == Framing::Chunked {
                buffer.extend_from_slice(b"\r\n");
            }
            // Counted before the write: what a peer holds has been counted, whoever looks first.
            turn.sent(length);
            if let Next::Close = self.write(&buffer).await {
                return Next::Close;
            }
            at += length;
            let paced = script.rate_bytes_per_second.is_some() && at < plan.end;
            if paced && self.unless_closed(tokio::time::sleep(TICK)).await.is_none() {
                return Next::Close;
            }
        }
        match (plan.next, script.framing) {
            (Next::Request, Framing::Chunked) => self.write(b"0\r\n\r\n").await,
            (Next::Request, Framing::Close) => Next::Close,
            (next, _) => next,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Next {
        match self.stream.write_all(bytes).await {
            Ok(()) => Next::Request,
            Err(_) => Next::Close,
        }
    }

    /// `None` where the peer closes before `event` comes.
    async fn unless_closed<T>(&mut self, event: impl Future<Output = T>) -> Option<T> {
        let mut event = std::pin::pin!(event);
        loop {
            tokio::select! {
                biased;
                value = &mut event => return Some(value),
                read = self.stream.read_buf(&mut self.unread) => match read {
                    Ok(0) | Err(_) => return None,
                    // A pipelined request: it waits for its turn.
                    Ok(_) => assert!(self.unread.len() < HEAD_BYTES_MAX),
                },
            }
        }
    }

    async fn close(mut self) {
        // Fails only where the peer was faster.
        let _ = self.stream.shutdown().await;
    }

    fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// How far a body goes and what then.
#[derive(Clone, Copy)]
struct Plan {
    end: u64,
    held: Option<u64>,
    next: Next,
    /// The object becomes its next version where this body is cut.
    turns: bool,
}

impl Plan {
    /// For the bytes `start..end`; a fault outside them does not happen.
    fn of(turn: &Turn, start: u64, end: u64) -> Plan {
        let whole = Plan { end, held: None, next: Next::Request, turns: false };
        let within = |offset: u64| (start..end).contains(&offset);
        if let Change::AtByte(offset) = turn.script.change
            && within(offset)
            && turn.is_unturned()
        {
            return Plan { end: offset, next: Next::Close, turns: true, ..whole };
        }
        match turn.script.ending {
            Ending::CutAt(offset) if within(offset) => {
                Plan { end: offset, next: Next::Close, ..whole }
            }
            Ending::CutAtEnd => Plan { next: Next::Close, ..whole },
            Ending::ResetAt(offset) if within(offset) => {
                Plan { end: offset, next: Next::Reset, ..whole }
            }
            Ending::HeldAt(offset) if within(offset) => Plan { held: Some(offset), ..whole },
            Ending::Surplus(more) => Plan { end: end + more, ..whole },
            _ => whole,
        }
    }
}

fn head_of(answer: &Answer) -> String {
    let mut head = format!("HTTP/1.1 {} Scripted\r\n", answer.status);
    for (name, value) in &answer.fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let length = match &answer.body {
        Body::Text(text) => text.len() as u64,
        Body::Object { start, end, .. } => end - start,
    };
    let bodiless = matches!(answer.status, 204 | 304);
    match answer.framing {
        Framing::Length if !bodiless => head.push_str(&format!("Content-Length: {length}\r\n")),
        Framing::Chunked if !bodiless => head.push_str("Transfer-Encoding: chunked\r\n"),
        Framing::Close => head.push_str("Connection: close\r\n"),
        _ => {}
    }
    head + "\r\n"
}

fn parsed(head: &[u8]) -> RequestHead {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let mut request_line = lines.next().unwrap_or("").split(' ');
    let method = Method::from_bytes(request_line.next().unwrap_or("").as_bytes()).unwrap();
    let target = request_line.next().expect("a request line has a target").to_owned();
    let mut headers = HeaderMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').expect("a field has a colon");
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
    }
    RequestHead { method, target, headers }
}

fn per_tick(bytes_per_second: u64) -> u64 {
    (bytes_per_second / 100).clamp(1, WRITE_BYTES)
}

const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
const HEAD_BYTES_MAX: usize = 64 << 10;
const SEND_BUFFER_BYTES: usize = 128 << 10;
const WRITE_BYTES: u64 = 64 << 10;
const TICK: Duration = Duration::from_millis(10);
