//! An origin that is dictated what it says, request by request.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// A request as it came, and where its answer goes.
pub(crate) struct Heard {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// The answer; dropped, the connection is closed.
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// An answer as it goes over the wire.
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    /// The connection ends with it.
    pub(crate) closes: bool,
}

type Listeners = Arc<Mutex<HashMap<String, mpsc::Sender<Heard>>>>;

/// A running origin; it stops when dropped.
pub(crate) struct Dictated {
    address: SocketAddr,
    listeners: Listeners,
    accepting: JoinHandle<()>,
}

impl Dictated {
    pub(crate) async fn start() -> Dictated {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let listeners = Listeners::default();
        let heard = listeners.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, heard.clone()));
            }
        });
        Dictated { address, listeners, accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests for `path`, from now on.
    pub(crate) fn hears(&self, path: &str) -> mpsc::Receiver<Heard> {
        let (tell, heard) = mpsc::channel(HEARD_MAX);
        self.listeners.lock().unwrap().insert(path.to_owned(), tell);
        heard
    }
}

impl Drop for Dictated {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, listeners: Listeners) -> Option<()> {
    let mut unread = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut unread).await.ok()? == 0 {
                return None;
            }
        };
        let head: Vec<u8> = unread.drain(..end).collect();
        let head = String::from_utf8(head).expect("the edge asks in ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let mut words = lines.next()?.split(' ').map(str::to_owned);
        let (method, target) = (words.next()?, words.next()?);
        let mut fields = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':')?;
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            fields.append(name, HeaderValue::from_bytes(value.trim().as_bytes()).ok()?);
        }
        let length = fields.get("content-length").and_then(|length| length.to_str().ok());
        let length = length.map_or(0, |length| length.parse().unwrap());
        while unread.len() < length {
            stream.read_buf(&mut unread).await.ok()?;
        }
        let body = unread.drain(..length).collect();
        let path = target.split('?').next()?.to_owned();
        let object = path.split('/').nth(1).map(|object| format!("/{object}"))?;
        let (answer, answered) = oneshot::channel();
        let listener = listeners.lock().unwrap().get(&object).cloned()?;
        listener.send(Heard { method, target, fields, body, answer }).await.ok()?;
        let answer = answered.await.ok()?;
        stream.write_all(&answer.bytes).await.ok()?;
        if answer.closes {
            return None;
        }
    }
}

/// Requests of one case that nobody has answered yet.
const HEARD_MAX: usize = 64;
