//! A viewer: asks over HTTP/1.1 or HTTP/2, plain or TLS, reads as fast as told, leaves when told.
//!
//! What came is reported as it came: a body cut short is a result (`complete` is false), no error.
//! Every wait has a deadline, so a viewer who is forgotten fails the test and names his request.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio_rustls::rustls;

use super::client_connection::{Connection, Socket, Stream};
use super::origin::PATIENCE;

/// How a viewer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    Http2,
}

/// Where and how to ask; makes requests, each on a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(super) address: SocketAddr,
    pub(super) host: String,
    pub(super) speaks: Speaks,
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
    pub(super) receive_buffer_bytes: Option<usize>,
    pub(super) stream_window_bytes: Option<u32>,
    pub(super) says_first: Vec<u8>,
}

impl Client {
    /// Plain HTTP/1.1.
    pub(crate) fn plain(address: SocketAddr, host: &str) -> Client {
        let (host, speaks) = (host.to_owned(), Speaks::Http1);
        let (receive_buffer_bytes, stream_window_bytes) = (None, None);
        let (tls, says_first) = (None, Vec::new());
        Client { address, host, speaks, tls, receive_buffer_bytes, stream_window_bytes, says_first }
    }

    /// TLS; the protocol is offered by ALPN.
    pub(crate) fn tls(
        address: SocketAddr,
        host: &str,
        roots: rustls::RootCertStore,
        speaks: Speaks,
    ) -> Client {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = match speaks {
            Speaks::Http1 => vec![b"http/1.1".to_vec()],
            Speaks::Http2 => vec![b"h2".to_vec()],
        };
        Client { speaks, tls: Some(Arc::new(config)), ..Client::plain(address, host) }
    }

    /// HTTP/1.1 over TLS, believing and showing what `config` says.
    pub(crate) fn tls_by(address: SocketAddr, host: &str, config: rustls::ClientConfig) -> Client {
        Client { tls: Some(Arc::new(config)), ..Client::plain(address, host) }
    }

    /// Where it asks.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks for another host's objects.
    pub(crate) fn host(&self, host: &str) -> Client {
        Client { host: host.to_owned(), ..self.clone() }
    }

    /// With a small receive buffer in the kernel, so that a slow reader is felt at once.
    pub(crate) fn receive_buffer(&self, bytes: usize) -> Client {
        Client { receive_buffer_bytes: Some(bytes), ..self.clone() }
    }

    /// Each connection begins with these bytes, as a load balancer's may.
    pub(crate) fn saying_first(&self, bytes: &[u8]) -> Client {
        Client { says_first: bytes.to_vec(), ..self.clone() }
    }

    /// With a window of so many bytes for each stream of HTTP/2.
    pub(crate) fn stream_window(&self, bytes: u32) -> Client {
        Client { stream_window_bytes: Some(bytes), ..self.clone() }
    }

    /// A GET.
    pub(crate) fn get(&self, target: &str) -> Request {
        self.request(Method::GET, target)
    }

    /// A HEAD.
    pub(crate) fn head(&self, target: &str) -> Request {
        self.request(Method::HEAD, target)
    }

    /// Any method.
    pub(crate) fn request(&self, method: Method, target: &str) -> Request {
        let (target, headers, body) = (target.to_owned(), HeaderMap::new(), Bytes::new());
        Request { client: self.clone(), method, target, headers, body }
    }

    /// A connection for several requests.
    pub(crate) async fn connect(&self) -> io::Result<Connection> {
        within("a connection", Connection::open(self)).await
    }

    /// Sends these very bytes and reads until the peer closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        within("a raw exchange", async {
            let mut socket = Socket::open(self).await?;
            socket.write(bytes).await?;
            let mut received = BytesMut::new();
            while socket.read_some(&mut received, usize::MAX).await? > 0 {}
            Ok(received.to_vec())
        })
        .await
    }
}

/// A request being put together.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(super) client: Client,
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Request {
    /// Adds a field.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Request {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    /// The bytes of a half-open range, at least one.
    pub(crate) fn range(self, range: Range<u64>) -> Request {
        let last = range.end.checked_sub(1).expect("a range asked for is not empty");
        self.header("range", &format!("bytes={}-{last}", range.start))
    }

    /// From `first` to the end.
    pub(crate) fn range_from(self, first: u64) -> Request {
        self.header("range", &format!("bytes={first}-"))
    }

    /// The last `length_bytes` bytes.
    pub(crate) fn suffix(self, length_bytes: u64) -> Request {
        self.header("range", &format!("bytes=-{length_bytes}"))
    }

    /// The `Range` field; empty where there is none.
    pub(crate) fn range_field(&self) -> &str {
        self.headers.get("range").and_then(|range| range.to_str().ok()).unwrap_or("")
    }

    /// With a body.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Request {
        self.body = body.into();
        self
    }

    /// With a document as its body.
    pub(crate) fn json(mut self, document: &serde_json::Value) -> Request {
        self.body = document.to_string().into();
        self
    }

    /// Asks and reads the whole answer; panics where there is none.
    pub(crate) async fn send(&self) -> Response {
        self.try_send().await.unwrap_or_else(|error| panic!("{self}: {error}"))
    }

    /// Asks and reads the whole answer, as much of it as comes.
    pub(crate) async fn try_send(&self) -> io::Result<Response> {
        let asked = async { self.try_open().await?.finish().await };
        within(self, asked).await
    }

    /// Asks and reads the head; panics where there is none.
    pub(crate) async fn open(&self) -> Streaming {
        self.try_open().await.unwrap_or_else(|error| panic!("{self}: {error}"))
    }

    /// Asks and reads the head.
    pub(crate) async fn try_open(&self) -> io::Result<Streaming> {
        let connection = self.client.connect().await?;
        self.on(connection).await
    }

    /// Asks on a connection that is open already.
    pub(crate) async fn on(&self, connection: Connection) -> io::Result<Streaming> {
        within(self, connection.exchange(self)).await
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.method, self.target, self.range_field())
    }
}

/// An answer whose head has come and whose body is read as the test likes. Dropped, it leaves.
#[derive(Debug)]
pub(crate) struct Streaming {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(super) stream: Stream,
}

impl Streaming {
    /// The field's values joined with `, `; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> String {
        joined(&self.headers, name)
    }

    /// The next bytes of the body, at most so many; `None` at its end.
    ///
    /// A body cut short is an `UnexpectedEof`, one reset a `ConnectionReset`.
    pub(crate) async fn read(&mut self, bytes_max: usize) -> io::Result<Option<Bytes>> {
        within("a body's next bytes", self.stream.read(bytes_max)).await
    }

    /// So many bytes, or fewer where the body ends before.
    pub(crate) async fn read_exactly(&mut self, length_bytes: usize) -> io::Result<Bytes> {
        let mut taken = BytesMut::with_capacity(length_bytes.min(1 << 20));
        while taken.len() < length_bytes {
            match self.read(length_bytes - taken.len()).await? {
                Some(bytes) => taken.extend_from_slice(&bytes),
                None => break,
            }
        }
        Ok(taken.freeze())
    }

    /// The rest of the body, read at about this rate.
    pub(crate) async fn finish_slowly(mut self, bytes_per_second: usize) -> io::Result<Response> {
        let mut ticks = tokio::time::interval(TICK);
        let step = (bytes_per_second / 50).max(1);
        let mut body = BytesMut::new();
        let complete = loop {
            ticks.tick().await;
            match self.read(step).await {
                Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                Ok(None) => break true,
                Err(error) if is_cut(&error) => break false,
                Err(error) => return Err(error),
            }
        };
        let (status, headers) = (self.status, self.headers);
        Ok(Response { status, headers, body: body.freeze(), complete })
    }

    /// The rest of the body.
    pub(crate) async fn finish(self) -> io::Result<Response> {
        Ok(self.finish_and_keep().await?.0)
    }

    /// The rest of the body, and the connection where it can be used again.
    pub(crate) async fn finish_and_keep(mut self) -> io::Result<(Response, Option<Connection>)> {
        let mut body = BytesMut::new();
        let complete = loop {
            match self.read(usize::MAX).await {
                Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                Ok(None) => break true,
                Err(error) if is_cut(&error) => break false,
                Err(error) => return Err(error),
            }
        };
        let (status, headers) = (self.status, self.headers);
        let response = Response { status, headers, body: body.freeze(), complete };
        Ok((response, self.stream.into_connection().filter(|_| complete)))
    }
}

/// An answer read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether the body's end came as the head had told.
    pub(crate) complete: bool,
}

impl Response {
    /// The field's values joined with `, `; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> String {
        joined(&self.headers, name)
    }

    /// First byte, last byte and complete length (where known) of `Content-Range`.
    pub(crate) fn content_range(&self) -> Option<(u64, u64, Option<u64>)> {
        let range = self.header("content-range");
        let (range, complete) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?, complete.parse().ok()))
    }
}

/// A body that ended before its time, by closing or by reset.
fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

fn joined(headers: &HeaderMap, name: &str) -> String {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap_or("?")).collect::<Vec<_>>().join(", ")
}

async fn within<T>(what: impl fmt::Display, event: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE * 2, event).await;
    waited.unwrap_or_else(|_| panic!("no end within {:?}: {what}", PATIENCE * 2))
}

const TICK: Duration = Duration::from_millis(20);
