//! The origin under load: a thread of its own, any number of objects, none of them stored.
//!
//! `/LENGTH/NAME` is an object of so many bytes; what they are is a function of path and place. It
//! notes what it is asked, and when.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};

use crate::content::Content;

/// How an origin behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    /// From the request to the answer.
    pub(crate) first_byte_after: Duration,
    /// Of one response.
    pub(crate) bytes_per_second: u64,
}

/// One request, as the origin saw it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    /// The first byte asked for, and one past the last.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// How long it took to answer.
    pub(crate) answered_after: Duration,
}

/// A running origin; its thread ends with the process.
pub(crate) struct Origin {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Origin {
    /// Starts one.
    pub(crate) fn start(behaviour: Behaviour) -> Origin {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::default();
        let noted = Arc::clone(&asked);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(accept(listener, behaviour, noted));
        });
        Origin { address, asked }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests for `path` that were answered so far.
    pub(crate) fn asked(&self, path: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|asked| asked.path == path).cloned().collect()
    }

    /// How many requests were answered so far.
    pub(crate) fn requests(&self) -> usize {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// The bytes of the object at `path`.
pub(crate) fn content(path: &str) -> Content {
    Content::of(path, 1)
}

async fn accept(
    listener: std::net::TcpListener,
    behaviour: Behaviour,
    noted: Arc<Mutex<Vec<Asked>>>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let mut connection = Serving { stream, unread: Vec::new(), noted: noted.clone() };
        tokio::spawn(async move { while connection.answer(behaviour).await.is_some() {} });
    }
}

struct Serving {
    stream: TcpStream,
    unread: Vec<u8>,
    noted: Arc<Mutex<Vec<Asked>>>,
}

impl Serving {
    /// Answers one request; `None` when the edge has gone.
    async fn answer(&mut self, behaviour: Behaviour) -> Option<()> {
        let head = self.read_head().await?;
        let arrived = Instant::now();
        let path = head.split(' ').nth(1)?.to_owned();
        let length: u64 = path.split('/').nth(1)?.parse().ok()?;
        let range = head.lines().find_map(range_in);
        let start = range.map_or(0, |(first, _)| first).min(length);
        let end = range.and_then(|(_, last)| last).map_or(length, |last| length.min(last + 1));
        if !behaviour.first_byte_after.is_zero() {
            sleep(behaviour.first_byte_after).await;
        }
        let answered_after = arrived.elapsed();
        let asked = Asked { path: path.clone(), start, end, answered_after };
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        let status = match range {
            None => "200 OK".to_owned(),
            Some(_) => {
                format!("206 Partial\r\nContent-Range: bytes {start}-{}/{length}", end - 1)
            }
        };
        // What stands after a dot is its tag.
        let tag = path.rsplit_once('.').map(|(_, tag)| format!("Cache-Tag: {tag}\r\n"));
        let tag = tag.unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {status}\r\n{tag}Content-Length: {}\r\nETag: \"1\"\r\n\
             Cache-Control: max-age=86400\r\nAccept-Ranges: bytes\r\n\r\n",
            end - start
        );
        self.stream.write_all(head.as_bytes()).await.ok()?;
        self.write_body(content(&path), start, end, behaviour.bytes_per_second).await
    }

    async fn write_body(
        &mut self,
        content: Content,
        start: u64,
        end: u64,
        bytes_per_second: u64,
    ) -> Option<()> {
        let began = Instant::now();
        let mut buffer = Vec::with_capacity(WRITE_BYTES as usize);
        let mut at = start;
        while at < end {
            let due = Duration::from_secs_f64((at - start) as f64 / bytes_per_second as f64);
            if due > began.elapsed() {
                sleep_until(began + due).await;
            }
            buffer.clear();
            let length = WRITE_BYTES.min(end - at);
            content.append_to(&mut buffer, at, length as usize);
            self.stream.write_all(&buffer).await.ok()?;
            at += length;
        }
        Some(())
    }

    async fn read_head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return String::from_utf8(head).ok();
            }
            if self.stream.read_buf(&mut self.unread).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// The first and last byte of a `Range` field.
fn range_in(line: &str) -> Option<(u64, Option<u64>)> {
    let (name, value) = line.split_once(':')?;
    let range = name.eq_ignore_ascii_case("range").then(|| value.trim())?;
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()))
}

const WRITE_BYTES: u64 = 64 << 10;
