//! A viewer: HTTP/1.1 by hand, so that it costs little and reads no more than it says.

use std::io;
use std::net::SocketAddr;

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpSocket, TcpStream};

use crate::content::Content;

/// A connection to the edge.
pub(crate) struct Connection {
    stream: TcpStream,
}

/// A response's head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) body_bytes: u64,
    /// Nobody was asked for it.
    pub(crate) hit: bool,
    /// It says when to ask again.
    pub(crate) says_when: bool,
}

impl Connection {
    /// Connects; the kernel keeps no more than `receive_buffer_bytes` for us if that is said.
    pub(crate) async fn open(
        address: SocketAddr,
        receive_buffer_bytes: Option<u32>,
    ) -> io::Result<Connection> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream })
    }

    /// Sends a GET, from `first` on if that is said.
    pub(crate) async fn send(&mut self, path: &str, first: Option<u64>) -> io::Result<()> {
        let range = first.map(|first| format!("Range: bytes={first}-\r\n")).unwrap_or_default();
        let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{range}\r\n");
        self.stream.write_all(head.as_bytes()).await
    }

    /// A GET of a site by its host, and the head of its answer.
    pub(crate) async fn ask_of(&mut self, host: &str, path: &str) -> io::Result<Head> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        self.read_head().await
    }

    /// Reads the head, and not a byte of the body.
    pub(crate) async fn read_head(&mut self) -> io::Result<Head> {
        let mut head = Vec::new();
        loop {
            let mut seen = [0; 2048];
            let count = self.stream.peek(&mut seen).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let before = head.len();
            head.extend_from_slice(&seen[..count]);
            let end = head.windows(4).position(|window| window == b"\r\n\r\n");
            let taken = end.map_or(count, |end| end + 4 - before);
            self.stream.read_exact(&mut seen[..taken]).await?;
            if let Some(end) = end {
                return parsed(&head[..end]);
            }
        }
    }

    /// A GET and the head of its answer.
    pub(crate) async fn ask(&mut self, path: &str, first: Option<u64>) -> io::Result<Head> {
        self.send(path, first).await?;
        self.read_head().await
    }

    /// Reads some of the body.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }

    /// Takes what is there of the body, if anything is.
    pub(crate) fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stream.try_read(buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            read => read,
        }
    }

    /// Reads the body from `position` to `end`, letting others go on between reads.
    ///
    /// # Errors
    /// `InvalidData` where a byte is not the object's.
    pub(crate) async fn read_to(
        &mut self,
        content: Content,
        mut position: u64,
        end: u64,
    ) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        while position < end {
            let room = READ_BYTES.min((end - position) as usize);
            let count = self.read(&mut buffer[..room]).await?;
            if content.first_difference(position, &buffer[..count]).is_some() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            position += count as u64;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Has the kernel throw away the next `bytes` of the body: nobody copies them.
    pub(crate) async fn discard(&mut self, mut bytes: u64) -> io::Result<()> {
        let mut buffer = vec![0_u8; DISCARD_BYTES];
        while bytes > 0 {
            self.stream.readable().await?;
            let room = DISCARD_BYTES.min(bytes as usize);
            let thrown = self.stream.try_io(Interest::READABLE, || {
                let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
                let (_, count) = recv(&self.stream, &mut buffer[..room], flags)?;
                Ok(count)
            });
            match thrown {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => bytes -= count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// A body that is text.
    pub(crate) async fn read_text(&mut self, bytes: u64) -> io::Result<String> {
        let mut text = vec![0; bytes as usize];
        self.stream.read_exact(&mut text).await?;
        String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

fn parsed(head: &[u8]) -> io::Result<Head> {
    let text = std::str::from_utf8(head).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let fields: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
    let field = |wanted: &str| {
        let mut fields = fields.iter();
        fields.find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then(|| value.trim()))
    };
    let length = field("content-length").and_then(|length| length.parse().ok());
    let hit = field("cache-status").is_some_and(|status| status.contains("hit"));
    match (status, length) {
        (Some(status), Some(body_bytes)) => {
            let says_when = field("retry-after").is_some();
            Ok(Head { status, body_bytes, hit, says_when })
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A buffer that is never written, so that it costs nothing.
const DISCARD_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 256 << 10;
