//! One connection from its first byte to its last.
//!
//! Chooses the protocol (ALPN, or the HTTP/2 preface on a plain socket), and lets hyper
//! speak it under a [`Watch`]. The future of [`run`] owns everything the connection needs, so that
//! dropping it closes the socket and returns the permit.

use std::cell::{OnceCell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Version;
use http::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use http_body_util::BodyExt;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, body::Body, body::Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::activity::Activity;
use super::guard::{Guarded, note_refusal};
use super::listener::{Accepted, canonical};
use super::outgoing::{OpenRequest, Outgoing};
use super::proxy;
use super::transport::Socket;
use super::watch::Watch;
use super::{
    BodyRead, ConnectionFacts, Handler, Protocol, ProxyHeader, ServerContext, Tls, TlsFacts, Wish,
};
use crate::limits;

/// What the connections of one [`super::serve`] share.
pub(super) struct Server<H> {
    handler: Rc<H>,
    tls: Option<Tls>,
    pub(super) context: Arc<ServerContext>,
    pub(super) tasks: TaskTracker,
    http1: http1::Builder,
    http2: http2::Builder<LocalExecutor>,
}

impl<H: Handler> Server<H> {
    pub(super) fn new(
        handler: Rc<H>,
        tls: Option<Tls>,
        context: Arc<ServerContext>,
        tasks: TaskTracker,
    ) -> Server<H> {
        let http2 = http2_builder(LocalExecutor { tasks: tasks.clone() });
        Server { handler, tls, context, tasks, http1: http1_builder(), http2 }
    }
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // `Activity` times heads; see there why not hyper.
        .header_read_timeout(None)
        .max_buf_size(limits::SEND_BUFFER_BYTES_MAX)
        .max_header_size(limits::REQUEST_HEAD_BYTES_MAX);
    if limits::REQUEST_FIELDS_MAX != HTTP1_FIELDS_OF_HYPER {
        // Only then: a number that is set, even the same, costs an allocation for each request.
        builder.max_headers(limits::REQUEST_FIELDS_MAX);
    }
    builder
}

fn http2_builder(executor: LocalExecutor) -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::H2_STREAMS_MAX)
        .max_header_list_size(limits::H2_HEADER_LIST_BYTES_MAX)
        .max_send_buf_size(limits::SEND_BUFFER_BYTES_MAX)
        // Few requests have a body, and none is in a hurry: the least room there can be.
        .initial_stream_window_size(H2_RECEIVE_WINDOW_BYTES)
        .initial_connection_window_size(H2_RECEIVE_WINDOW_BYTES)
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT)
        .max_pending_accept_reset_streams(limits::H2_RESETS_PENDING_MAX)
        .max_local_error_reset_streams(limits::H2_RESETS_OF_OURS_MAX);
    builder
}

/// Serves one connection to its end.
pub(super) async fn run<H: Handler>(server: Rc<Server<H>>, accepted: Accepted) {
    let Accepted { stream, viewer: peer, ticket: _ticket } = accepted;
    let Ok(mut stream) = TcpStream::from_std(stream) else { return };
    // A viewer who has gone has left no address behind; there is nobody to serve.
    let Ok(local) = stream.local_addr() else { return };
    let Some(viewer) = viewer_of(&server, &mut stream, peer).await else { return };
    let gate = &server.context.gate;
    let Ok(_place) = gate.connect(viewer.ip()) else { return };
    let socket = stream.as_raw_fd();
    let facts = |protocol, tls| {
        let (id, local) = (NEXT_ID.fetch_add(1, Ordering::Relaxed), canonical(local));
        Rc::new(ConnectionFacts {
            id,
            viewer,
            local,
            protocol,
            tls,
            pace: 0.into(),
            ahead: Arc::default(),
            let_in: OnceCell::new(),
            beside: RefCell::default(),
            cut: None.into(),
            wish: Wish::Serving.into(),
            sends_at_most: u64::MAX.into(),
            socket: Some(socket),
        })
    };

    let activity = Rc::new(Activity::new());
    let counts = Arc::clone(&server.context.counts);
    match &server.tls {
        Some(tls) => {
            if gate.admit_handshake(Instant::now().into_std()).is_err() {
                return;
            }
            let socket = Socket::new(stream, Rc::clone(&activity), counts);
            let Some((stream, protocol, tls)) = shake_hands(&server, tls, socket).await else {
                return;
            };
            speak(&server, stream, &facts(protocol, Some(tls)), activity).await;
        }
        None => {
            let Some(protocol) = sniff(&server, &stream).await else { return };
            let socket = Socket::new(stream, Rc::clone(&activity), counts);
            speak(&server, socket, &facts(protocol, None), activity).await;
        }
    }
}

/// Who the viewer is, where a load balancer may bring him.
async fn viewer_of<H>(
    server: &Server<H>,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> Option<SocketAddr> {
    let (settings, counts) = (server.context.settings.load_full(), &server.context.counts);
    let asked = proxy::viewer_of(stream, peer, &settings, counts);
    let told = within(server.context.wishes.subscribe(), settings.header_timeout, asked).await;
    if told.is_none() {
        counts.began_with(ProxyHeader::Late);
    }
    told?
}

type TlsSocket = tokio_rustls::server::TlsStream<Socket<TcpStream>>;

async fn shake_hands<H>(
    server: &Server<H>,
    tls: &Tls,
    socket: Socket<TcpStream>,
) -> Option<(TlsSocket, Protocol, TlsFacts)> {
    let limit = server.context.settings.load().handshake_timeout;
    // Boxed, so that its state does not stay part of the connection's.
    let handshake = Box::pin(tls.handshake(socket));
    let shaken = within(server.context.wishes.subscribe(), limit, handshake).await;
    let counts = &server.context.counts;
    match shaken {
        Some(Ok(shaken)) => {
            counts.handshakes_ok.fetch_add(1, Ordering::Relaxed);
            shaken
        }
        failed => {
            counts.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            debug!(error = ?failed.map(|handshake| handshake.err()), "TLS handshake failed");
            None
        }
    }
}

/// What a plain connection speaks, told by its first bytes, which stay unread.
async fn sniff<H>(server: &Server<H>, stream: &TcpStream) -> Option<Protocol> {
    let limit = server.context.settings.load().header_timeout;
    let sniffed = within(server.context.wishes.subscribe(), limit, async {
        stream.async_io(Interest::READABLE, || peek_protocol(stream)).await
    });
    let sniffed = sniffed.await;
    if sniffed.is_none() {
        server.context.counts.header_timeouts.fetch_add(1, Ordering::Relaxed);
    }
    sniffed?.ok()
}

/// Would block as long as the bytes that came could still become the HTTP/2 preface (RFC 9113
/// section 3.4).
fn peek_protocol(stream: &TcpStream) -> io::Result<Protocol> {
    let mut bytes = [0; H2_PREFACE.len()];
    let (_, len) = rustix::net::recv(stream, &mut bytes[..], RecvFlags::PEEK)?;
    match &bytes[..len] {
        [] => Err(io::ErrorKind::UnexpectedEof.into()),
        whole if whole == H2_PREFACE => Ok(Protocol::Http2),
        part if H2_PREFACE.starts_with(part) => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(Protocol::Http1),
    }
}

/// What `work` returns, or nothing if it takes longer than `limit` or the server is at its end.
async fn within<T>(
    mut wishes: watch::Receiver<Wish>,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = timeout(limit, work) => done.ok(),
        _ = wishes.wait_for(|wish| *wish == Wish::Abandoned) => None,
    }
}

/// Speaks HTTP over `io` until it ends.
pub(super) async fn speak<H: Handler, I: AsyncRead + AsyncWrite + Unpin + 'static>(
    server: &Server<H>,
    io: I,
    facts: &Rc<ConnectionFacts>,
    activity: Rc<Activity>,
) {
    activity.begin(facts.protocol, Instant::now());
    let service = {
        let (handler, facts) = (Rc::clone(&server.handler), Rc::clone(facts));
        let activity = Rc::clone(&activity);
        service_fn(move |mut request: Request<Incoming>| {
            note_refusal(&mut request);
            let open = OpenRequest::new(&activity, request.version());
            let body = (!request.body().is_end_stream()).then(|| OpenBody {
                activity: Rc::clone(&activity),
                // Of what follows chunks nothing is checked.
                ends_connection: request.headers().contains_key(TRANSFER_ENCODING),
                version: request.version(),
            });
            let (handler, facts) = (Rc::clone(&handler), Rc::clone(&facts));
            async move {
                let mut response = handler.handle(request, &facts).await;
                if let Some(body) = body {
                    body.answered(&mut response);
                }
                if facts.wish.get() >= Wish::Leaving && facts.protocol == Protocol::Http1 {
                    response.headers_mut().insert(CONNECTION, CLOSE);
                }
                Ok::<_, Infallible>(response.map(|body| Outgoing::new(body, open)))
            }
        })
    };
    let settings = server.context.settings.load_full();
    let watch = Watch {
        activity: &activity,
        settings: &settings,
        wishes: server.context.wishes.subscribe(),
        facts,
    };
    let end = match facts.protocol {
        Protocol::Http1 => {
            let io = TokioIo::new(Guarded::new(io));
            let connection = pin!(server.http1.serve_connection(io, service));
            watch.over(connection).await
        }
        // Boxed: much the larger of the two, and the rarer.
        Protocol::Http2 => {
            let io = TokioIo::new(io);
            let mut connection = Box::pin(server.http2.serve_connection(io, service));
            watch.over(connection.as_mut()).await
        }
    };
    end.count(&server.context);
}

/// A body that came with a request.
struct OpenBody {
    activity: Rc<Activity>,
    ends_connection: bool,
    version: Version,
}

impl OpenBody {
    /// Where it was not read to its end, what comes next on an HTTP/1 connection is the rest of it.
    fn answered<B>(self, response: &mut Response<B>) {
        let is_read = response.extensions().get::<BodyRead>().is_some();
        if !is_read {
            self.activity.refuse_body();
        }
        if self.version <= Version::HTTP_11 && (self.ends_connection || !is_read) {
            response.headers_mut().insert(CONNECTION, CLOSE);
        }
    }
}

/// Takes leave of a body that a refusal leaves unread. Over HTTP/2 the stream would be reset right
/// behind the answer, as RFC 9113 section 8.1 allows, and clients lose the answer by it: so a
/// little of the body is read for a while, which most end meanwhile.
pub fn leave(mut body: Incoming, version: Version) {
    if version != Version::HTTP_2 || body.is_end_stream() {
        return;
    }
    spawn_local(timeout(LEAVE_TAKING, async move {
        let mut left_bytes = UNREAD_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(bytes) = frame.into_data() else { break };
            let Some(left) = left_bytes.checked_sub(bytes.len()) else { break };
            left_bytes = left;
        }
    }));
}

/// Runs the streams of HTTP/2 connections beside them, on the same thread.
#[derive(Clone)]
pub(super) struct LocalExecutor {
    tasks: TaskTracker,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, stream: F) {
        spawn_local(self.tasks.track_future(stream));
    }
}

const CLOSE: HeaderValue = HeaderValue::from_static("close");
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What hyper takes by default, and parses without an allocation.
const HTTP1_FIELDS_OF_HYPER: usize = 100;
/// The least the protocol allows for a connection (RFC 9113 section 6.9.2).
const H2_RECEIVE_WINDOW_BYTES: u32 = 65_535;
/// A viewer on a slow way has his answer by then, and one who sends his body nevertheless is heard
/// no longer.
const LEAVE_TAKING: Duration = Duration::from_secs(1);
/// What one window lets him send.
const UNREAD_BYTES_MAX: usize = H2_RECEIVE_WINDOW_BYTES as usize;
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);
