//! What is passed on to an origin that is driven by hand: streamed, sent once, and what it ends.
//!
//! What can be said as a dialogue is said in `dialogues/passed.http` and
//! `dialogues/invalidation.http`.

use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::{Configured, Edge, HOST, Response, Speaks};

mod bodies;
mod connections;
mod ended;

/// An origin that does what a test does.
struct Driven(TcpListener);

impl Driven {
    /// With room for little that was not read.
    fn start() -> Driven {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(BUFFER_BYTES).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Driven(socket.listen(64).unwrap())
    }

    /// An edge in front of it that passes on what a body may come with.
    fn edge(&self) -> Configured {
        let methods =
            "methods = [\"POST\", \"PUT\", \"DELETE\", \"OPTIONS\"]\nrequest_body = \"1 GiB\"";
        Edge::at(self.0.local_addr().unwrap()).rule("**", methods)
    }

    /// The next connection, at the end of its first head.
    async fn asked(&self) -> Asked {
        loop {
            let accepted = within("the edge to ask", self.0.accept()).await;
            let mut said = Said { stream: accepted.unwrap().0, unread: Vec::new() };
            // A process that starts calls on it, and says nothing.
            if within("a word", said.stream.read_buf(&mut said.unread)).await.unwrap() > 0 {
                let head = said.head().await;
                return Asked { said, head };
            }
        }
    }

    /// Whether nobody has connected who was not accepted.
    async fn is_left_alone(&self) -> bool {
        timeout(Duration::from_millis(200), self.0.accept()).await.is_err()
    }
}

/// A request that an origin has.
struct Asked {
    said: Said,
    head: String,
}

/// One end of a connection.
struct Said {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Said {
    /// A viewer's connection, with room for little that was not sent.
    async fn to(edge: &Edge) -> Said {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(BUFFER_BYTES).unwrap();
        let stream = socket.connect(edge.client().address()).await.unwrap();
        Said { stream, unread: Vec::new() }
    }

    async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        within("to be heard", self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// A head, in lower case but for its values.
    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.unread.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            let count = within("a head", self.stream.read_buf(&mut self.unread)).await.unwrap();
            assert!(count > 0, "closed in a head: {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    async fn exactly(&mut self, bytes: usize) -> Vec<u8> {
        while self.unread.len() < bytes {
            let count = within("a body", self.stream.read_buf(&mut self.unread)).await.unwrap();
            assert!(count > 0, "closed {} bytes before the end", bytes - self.unread.len());
        }
        self.unread.drain(..bytes).collect()
    }

    /// All there is until it closes, however it does that.
    async fn rest(&mut self) -> String {
        while let Ok(1..) = within("the end", self.stream.read_buf(&mut self.unread)).await {}
        String::from_utf8(std::mem::take(&mut self.unread)).unwrap()
    }
}

async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    let happened = timeout(Duration::from_secs(30), event).await;
    happened.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// What a head says in a field, or nothing.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let line = head.lines().find(|line| {
        let colon = line.find(':').unwrap_or(0);
        line[..colon].eq_ignore_ascii_case(name)
    });
    line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
}

fn posted(path: &str, fields: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")
}

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const BUFFER_BYTES: u32 = 64 << 10;
