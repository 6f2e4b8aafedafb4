//! The wire of a viewer: HTTP/1.1 written and read by hand, HTTP/2 through hyper.
//!
//! By hand, so that framing is seen as it is on the wire and a test may stop reading anywhere.

use std::io;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::client::{Client, Request, Speaks, Streaming};

/// A connection that takes a request.
#[derive(Debug)]
pub(crate) enum Connection {
    Http1(Socket),
    Http2(SendRequest<Full<Bytes>>),
}

impl Connection {
    pub(super) async fn open(client: &Client) -> io::Result<Connection> {
        let socket = Socket::open(client).await?;
        if client.speaks == Speaks::Http1 {
            return Ok(Connection::Http1(socket));
        }
        let io = TokioIo::new(socket.stream);
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(client.stream_window_bytes);
        let (sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
        // Ends when the last handle of it is dropped.
        tokio::spawn(connection);
        Ok(Connection::Http2(sender))
    }

    /// Another handle of the same connection, where its protocol has streams.
    pub(crate) fn shared(&self) -> Option<Connection> {
        match self {
            Connection::Http1(_) => None,
            Connection::Http2(sender) => Some(Connection::Http2(sender.clone())),
        }
    }

    /// Sends a request and reads the answer's head.
    pub(super) async fn exchange(self, request: &Request) -> io::Result<Streaming> {
        match self {
            Connection::Http1(socket) => exchange_http1(socket, request).await,
            Connection::Http2(sender) => exchange_http2(sender, request).await,
        }
    }
}

async fn exchange_http1(mut socket: Socket, request: &Request) -> io::Result<Streaming> {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    if !request.headers.contains_key("host") {
        head.push_str(&format!("host: {}\r\n", request.client.host));
    }
    for (name, value) in &request.headers {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or("?")));
    }
    if !request.body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", request.body.len()));
    }
    head.push_str("\r\n");
    socket.write(head.as_bytes()).await?;
    // Fails where the peer refuses the body unread: its answer may be there all the same.
    let _ = socket.write(&request.body).await;

    let (status, headers) = loop {
        let (status, headers) = socket.read_head().await?;
        if !(100..200).contains(&status) {
            break (status, headers);
        }
    };
    let framing = framing_of(&request.method, status, &headers)?;
    Ok(Streaming { status, headers, stream: Stream::Http1 { socket, framing } })
}

async fn exchange_http2(
    mut sender: SendRequest<Full<Bytes>>,
    request: &Request,
) -> io::Result<Streaming> {
    let scheme = if request.client.tls.is_some() { "https" } else { "http" };
    let uri = format!("{scheme}://{}{}", request.client.host, request.target);
    let mut asked = http::Request::builder().method(&request.method).uri(uri);
    *asked.headers_mut().expect("method and uri are valid") = request.headers.clone();
    let asked = asked.body(Full::new(request.body.clone())).map_err(io::Error::other)?;
    sender.ready().await.map_err(io::Error::other)?;
    let (head, body) = sender.send_request(asked).await.map_err(io::Error::other)?.into_parts();
    let stream = Stream::Http2 { body, pending: Bytes::new(), sender };
    Ok(Streaming { status: head.status.as_u16(), headers: head.headers, stream })
}

/// A body being read.
#[derive(Debug)]
pub(super) enum Stream {
    Http1 { socket: Socket, framing: Framing },
    Http2 { body: hyper::body::Incoming, pending: Bytes, sender: SendRequest<Full<Bytes>> },
}

impl Stream {
    pub(super) async fn read(&mut self, bytes_max: usize) -> io::Result<Option<Bytes>> {
        match self {
            Stream::Http1 { socket, framing } => framing.read(socket, bytes_max).await,
            Stream::Http2 { body, pending, .. } => {
                while pending.is_empty() {
                    match body.frame().await {
                        None => return Ok(None),
                        Some(Ok(frame)) => *pending = frame.into_data().unwrap_or_default(),
                        Some(Err(error)) => {
                            return Err(io::Error::new(io::ErrorKind::ConnectionReset, error));
                        }
                    }
                }
                Ok(Some(pending.split_to(bytes_max.min(pending.len()))))
            }
        }
    }

    /// The connection, where the body has ended and another request may follow.
    pub(super) fn into_connection(self) -> Option<Connection> {
        match self {
            Stream::Http1 { socket, framing } => {
                let reusable = !matches!(framing, Framing::Close);
                reusable.then_some(Connection::Http1(socket))
            }
            Stream::Http2 { sender, .. } => Some(Connection::Http2(sender)),
        }
    }
}

/// How an HTTP/1.1 body's end is told, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are to come.
    Length(u64),
    /// So many bytes of this chunk are to come; `None` between chunks.
    Chunked(Option<u64>),
    /// The last chunk has come.
    Ended,
    Close,
}

impl Framing {
    async fn read(&mut self, socket: &mut Socket, max: usize) -> io::Result<Option<Bytes>> {
        match *self {
            Framing::Ended | Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                let bytes = socket.take(max.min(clamped(left))).await?;
                if bytes.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *self = Framing::Length(left - bytes.len() as u64);
                Ok(Some(bytes))
            }
            Framing::Close => {
                let bytes = socket.take(max).await?;
                Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
            }
            Framing::Chunked(None) => {
                let line = socket.read_line().await?;
                let size = line.split(';').next().unwrap_or("").trim();
                let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
                if size == 0 {
                    while !socket.read_line().await?.is_empty() {}
                    *self = Framing::Ended;
                    return Ok(None);
                }
                *self = Framing::Chunked(Some(size));
                Box::pin(self.read(socket, max)).await
            }
            Framing::Chunked(Some(left)) => {
                let bytes = socket.take(max.min(clamped(left))).await?;
                if bytes.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let left = left - bytes.len() as u64;
                *self = Framing::Chunked(Some(left));
                if left == 0 {
                    socket.read_line().await?;
                    *self = Framing::Chunked(None);
                }
                Ok(Some(bytes))
            }
        }
    }
}

fn clamped(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX)
}

fn framing_of(method: &Method, status: u16, headers: &HeaderMap) -> io::Result<Framing> {
    if method == Method::HEAD || matches!(status, 204 | 304) {
        return Ok(Framing::Length(0));
    }
    if headers.get("transfer-encoding").is_some_and(|value| value == "chunked") {
        return Ok(Framing::Chunked(None));
    }
    match headers.get("content-length") {
        None => Ok(Framing::Close),
        Some(length) => {
            let length = length.to_str().map_err(io::Error::other)?;
            Ok(Framing::Length(length.parse().map_err(io::Error::other)?))
        }
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Io for T {}

/// A socket, plain or under TLS, and what was read of it but not yet taken.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Box<dyn Io>,
    unread: BytesMut,
}

impl Socket {
    pub(super) async fn open(client: &Client) -> io::Result<Socket> {
        let mut stream = connected(client).await?;
        stream.write_all(&client.says_first).await?;
        let stream: Box<dyn Io> = match &client.tls {
            None => Box::new(stream),
            Some(config) => {
                let connector = tokio_rustls::TlsConnector::from(config.clone());
                let name = ServerName::try_from(client.host.clone()).map_err(io::Error::other)?;
                Box::new(connector.connect(name, stream).await?)
            }
        };
        Ok(Socket { stream, unread: BytesMut::new() })
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Reads once, appending at most `bytes_max` bytes; 0 where the peer has closed.
    pub(super) async fn read_some(
        &mut self,
        received: &mut BytesMut,
        bytes_max: usize,
    ) -> io::Result<usize> {
        let bytes = self.take(bytes_max).await?;
        received.extend_from_slice(&bytes);
        Ok(bytes.len())
    }

    /// At most so many bytes, as soon as there are any; empty where the peer has closed.
    async fn take(&mut self, bytes_max: usize) -> io::Result<Bytes> {
        if self.unread.is_empty() {
            self.unread.reserve(READ_BYTES.min(bytes_max));
            let mut limited = (&mut self.stream).take(READ_BYTES.min(bytes_max) as u64);
            limited.read_buf(&mut self.unread).await?;
        }
        Ok(self.unread.split_to(bytes_max.min(self.unread.len())).freeze())
    }

    async fn read_until(&mut self, end: &[u8]) -> io::Result<Bytes> {
        loop {
            let found = self.unread.windows(end.len()).position(|window| window == end);
            if let Some(place) = found {
                return Ok(self.unread.split_to(place + end.len()).freeze());
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn read_line(&mut self) -> io::Result<String> {
        let line = self.read_until(b"\r\n").await?;
        Ok(String::from_utf8_lossy(&line[..line.len() - 2]).into_owned())
    }

    async fn read_head(&mut self) -> io::Result<(u16, HeaderMap)> {
        let head = self.read_until(b"\r\n\r\n").await?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
        let status_line = lines.next().unwrap_or("");
        assert!(status_line.starts_with("HTTP/1.1 "), "a status line: {status_line}");
        let status = status_line.split(' ').nth(1).unwrap_or("").parse();
        let status = status.map_err(io::Error::other)?;
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').expect("a field has a colon");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
            let value = HeaderValue::from_str(value.trim()).map_err(io::Error::other)?;
            headers.append(name, value);
        }
        Ok((status, headers))
    }
}

async fn connected(client: &Client) -> io::Result<TcpStream> {
    let socket = match client.address.is_ipv4() {
        true => TcpSocket::new_v4()?,
        false => TcpSocket::new_v6()?,
    };
    if let Some(bytes) = client.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes as u32)?;
    }
    let stream = socket.connect(client.address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

const READ_BYTES: usize = 64 << 10;
