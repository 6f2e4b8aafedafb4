//! One request upstream: which origin, what is sent, and what of the answer's head can be believed.
//!
//! Nothing here knows pieces or viewers. Every wait has a deadline; an attempt that could not have
//! been answered yet is made again, at the next origin if there is one, a bounded number of times.

mod answer;
mod once;
mod outage;
mod redirect;
mod request_body;
mod strict;

use std::error::Error;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, HOST, VIA};
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, FixedServerNameResolver, HttpsConnector};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::answer::Answer;
pub use self::once::{AnswerBody, Once, OnceAnswer, OnceConnection};
use self::outage::Outage;
use self::redirect::{followed, resolve};
pub use self::request_body::{Pace, RequestBody};
use self::strict::StrictConnector;
use crate::fill::error::FillError;
use crate::limits::{ORIGIN_READ_BYTES_MAX, REDIRECTS_MAX, RESPONSE_FIELDS_MAX};
use crate::memory::{Class, Governor, Reservation, Use};
use crate::message::via::Via;
use crate::purge::Birth;
use crate::site::{Origin, Site, Sites};

/// How long an origin may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection, its TLS handshake included.
    pub connect: Duration,
    /// From the request to the response's head.
    pub first_byte: Duration,
    /// From one part of the body to the next.
    pub progress: Duration,
}

/// A request upstream.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Whose origins are asked.
    pub site: Arc<Site>,
    /// GET or HEAD.
    pub method: Method,
    /// Path and canonical query.
    pub target: Arc<str>,
    /// What the viewer's request and the rule say, end to end.
    pub fields: HeaderMap,
    /// The range and the conditions of this one request.
    pub conditions: Vec<(HeaderName, HeaderValue)>,
    /// How long the origin may hold it on purpose, beside what an answer takes.
    pub hold: Duration,
}

/// A place among an origin's connections, with the memory of its read buffer.
#[derive(Debug)]
pub struct Connection {
    _permit: OwnedSemaphorePermit,
    _reserved: Reservation,
}

/// Speaks to every site's origins.
pub struct Client {
    /// Each site's, by its id.
    upstreams: ArcSwap<Vec<SiteUpstreams>>,
    governor: Arc<Governor>,
    patience: Patience,
    retries: u32,
    via: Via,
}

/// The origins of the sites of a configuration, to be asked from then on.
pub struct Upstreams(Vec<SiteUpstreams>);

type SiteUpstreams = Arc<[Arc<Upstream>]>;

struct Upstream {
    origin: Origin,
    host: HeaderValue,
    authority: Authority,
    /// For connections that are used once.
    connector: Connector,
    http: HttpClient<Connector, Empty<Bytes>>,
    connections: Arc<Semaphore>,
    /// Of those, the ones that what is sent once may hold: a viewer who sends slowly holds one, and
    /// fills must find others.
    once: Arc<Semaphore>,
    outage: Outage,
}

type Connector = StrictConnector<HttpsConnector<HttpConnector>>;

impl Client {
    /// A client for the origins of `sites`; connects to none yet.
    ///
    /// # Errors
    /// One line when an origin's authorities or name cannot be used.
    pub fn new(
        sites: &Sites,
        governor: Arc<Governor>,
        patience: Patience,
        retries: u32,
    ) -> Result<Client, String> {
        // Of this process alone, so that boxes behind each other are not taken for one.
        let via = Via::of(&format!("tidegate-{:08x}", RandomState::new().hash_one(0) as u32));
        let client = Client { upstreams: ArcSwap::default(), governor, patience, retries, via };
        client.adopt(client.upstreams_of(sites)?);
        Ok(client)
    }

    /// The origins of `sites`, ready to be asked: one that is what it was keeps its connections, and
    /// what is known of it.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn upstreams_of(&self, sites: &Sites) -> Result<Upstreams, String> {
        let before = self.upstreams.load();
        let mut all = Vec::clone(&before);
        for site in sites.iter() {
            let index = usize::from(site.id.0);
            let known = before.get(index).map_or(&[][..], |known| known);
            let upstream = |origin: &Origin| match known.iter().find(|one| one.origin == *origin) {
                Some(known) => Ok(known.clone()),
                None => Upstream::new(origin, self.patience).map(Arc::new),
            };
            let upstreams = site.origins.iter().map(upstream).collect::<Result<_, String>>()?;
            if all.len() <= index {
                all.resize(index + 1, Arc::new([]));
            }
            all[index] = upstreams;
        }
        Ok(Upstreams(all))
    }

    /// Asks these from now on; who asks already, asks on.
    pub fn adopt(&self, Upstreams(upstreams): Upstreams) {
        self.upstreams.store(Arc::new(upstreams));
    }

    fn upstreams(&self, site: &Site) -> SiteUpstreams {
        self.upstreams.load()[usize::from(site.id.0)].clone()
    }

    /// What we call ourselves to origins.
    pub fn via(&self) -> &Via {
        &self.via
    }

    /// How often a broken answer is asked for again.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// How long origins may take.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Asks until an answer's head is here, each time the next origin. Dropping it midway closes
    /// the connection.
    ///
    /// # Errors
    /// `Connect` or `FirstByteTimeout` after the last attempt, `Redirect`, `Overload`.
    pub async fn ask(&self, ask: &Ask) -> Result<Answer, FillError> {
        let attempts = AtomicU32::new(0);
        let attempt = || self.ask_once(ask, attempts.fetch_add(1, Ordering::Relaxed));
        let pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_max_times(self.retries as usize);
        let may_be_better = |error: &FillError| match error {
            FillError::Connect { .. } => true,
            // Nobody waits any more for what an origin held in vain.
            FillError::FirstByteTimeout { .. } => ask.hold.is_zero(),
            _ => false,
        };
        attempt.retry(pauses).when(may_be_better).await
    }

    /// Asks one origin once: the first, or for a later `attempt` the one whose turn it is.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn ask_once(&self, ask: &Ask, attempt: u32) -> Result<Answer, FillError> {
        let upstreams = self.upstreams(&ask.site);
        self.ask_one(&upstreams[attempt as usize % upstreams.len()], ask).await
    }

    async fn ask_one(&self, upstream: &Upstream, ask: &Ask) -> Result<Answer, FillError> {
        let connection = self.connection(upstream).await?;
        let mut target = upstream.uri(&ask.target)?;
        let mut host = upstream.host.clone();
        let mut trust = Trust::Origin;
        for _ in 0..=REDIRECTS_MAX {
            let requested_at = SystemTime::now();
            let mut request = upstream.request(ask, &target, &host, trust);
            request.headers_mut().append(VIA, self.via.value().clone());
            let response = self.send(upstream, request, ask.hold).await?;
            let Some(location) = followed(upstream.origin.redirects, &response) else {
                let (head, body) = response.into_parts();
                return Ok(Answer {
                    status: head.status,
                    fields: head.headers,
                    body,
                    requested_at,
                    received_at: SystemTime::now(),
                    birth: Birth::default(),
                    tags: None,
                    connection,
                });
            };
            target = resolve(&target, &location)?;
            if let Some(authority) = target.authority().filter(|a| **a != upstream.authority) {
                host = HeaderValue::from_str(authority.as_str())
                    .map_err(|_| FillError::Redirect { location: target.to_string() })?;
            }
            trust = upstream.trust_in(&target);
        }
        Err(FillError::Redirect { location: target.to_string() })
    }

    async fn connection(&self, upstream: &Upstream) -> Result<Connection, FillError> {
        let permit = upstream.connections.clone().acquire_owned();
        let permit = tokio::time::timeout(self.patience.first_byte, permit)
            .await
            .map_err(|_| FillError::Overload { what: "connection to the origin" })?
            .expect("the semaphore is never closed");
        let buffer = ORIGIN_READ_BYTES_MAX as u64;
        let reserved = self.governor.reserve(Use::Origins, Class::Viewer, buffer);
        let reserved = tokio::time::timeout(self.patience.first_byte, reserved)
            .await
            .map_err(|_| FillError::Overload { what: "memory" })?;
        Ok(Connection { _permit: permit, _reserved: reserved })
    }

    async fn send(
        &self,
        upstream: &Upstream,
        request: Request<Empty<Bytes>>,
        hold: Duration,
    ) -> Result<Response<Incoming>, FillError> {
        let origin = || upstream.authority.to_string();
        let deadline = self.patience.connect + self.patience.first_byte + hold;
        let answered = match tokio::time::timeout(deadline, upstream.http.request(request)).await {
            Err(_) => Err(FillError::FirstByteTimeout { origin: origin() }),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(FillError::Connect { origin: origin(), reason: deepest(&error) }),
        };
        upstream.tell(answered.as_ref().err());
        answered
    }
}

impl Upstream {
    fn new(origin: &Origin, patience: Patience) -> Result<Upstream, String> {
        let authority = format!("{}:{}", origin.address, origin.port);
        let authority = Authority::try_from(authority.as_str())
            .map_err(|error| format!("origin {authority}: {error}"))?;
        let host = HeaderValue::from_str(&origin.authority())
            .map_err(|error| format!("origin {authority}: {error}"))?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        // What an origin has not read yet is none of its time to answer.
        connector.set_send_buffer_size(Some(SEND_BUFFER_BYTES));
        connector.set_connect_timeout(Some(patience.connect));
        let builder = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(origin).map_err(|e| format!("origin {authority}: {e}"))?)
            .https_or_http();
        // HTTP/1.1 only: many connections outrun one flow-controlled one on long paths.
        let connector = match &origin.server_name {
            None => builder.enable_http1().wrap_connector(connector),
            Some(name) => {
                let name = ServerName::try_from(name.clone())
                    .map_err(|error| format!("origin {authority}: {error}"))?;
                let resolver = FixedServerNameResolver::new(name);
                builder.with_server_name_resolver(resolver).enable_http1().wrap_connector(connector)
            }
        };
        let connector = StrictConnector(connector);
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(origin.connections_max.min(IDLE_CONNECTIONS_MAX))
            .http1_max_buf_size(ORIGIN_READ_BYTES_MAX)
            .http1_max_headers(RESPONSE_FIELDS_MAX)
            .set_host(false)
            .build(connector.clone());
        let connections = Arc::new(Semaphore::new(origin.connections_max));
        let once = Arc::new(Semaphore::new((origin.connections_max / 2).max(1)));
        let (origin, outage) = (origin.clone(), Outage::default());
        Ok(Upstream { origin, host, authority, connector, http, connections, once, outage })
    }

    /// Logs that it does not answer, or answers again, if it is time to.
    fn tell(&self, failed: Option<&FillError>) {
        let now = Instant::now();
        match failed {
            Some(error) => {
                if let Some(how_often) = self.outage.failed(now) {
                    tracing::warn!("{error}{how_often}");
                }
            }
            None => {
                if let Some(how_long) = self.outage.answered(now) {
                    tracing::info!("origin {} answers again: {how_long}", self.authority);
                }
            }
        }
    }

    fn uri(&self, target: &str) -> Result<Uri, FillError> {
        let path = PathAndQuery::try_from(target)
            .map_err(|error| FillError::Unusable { reason: error.to_string() })?;
        Uri::builder()
            .scheme(self.origin.scheme.as_str())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|error| FillError::Unusable { reason: error.to_string() })
    }

    /// Whether a redirect's target is the origin itself: by the same scheme, host and port.
    fn trust_in(&self, target: &Uri) -> Trust {
        let usual = if target.scheme() == Some(&UriScheme::HTTPS) { 443 } else { 80 };
        let is_origin = target.scheme_str() == Some(self.origin.scheme.as_str())
            && target.host() == Some(self.authority.host())
            && Some(target.port_u16().unwrap_or(usual)) == self.authority.port_u16();
        if is_origin { Trust::Origin } else { Trust::Stranger }
    }

    fn request(
        &self,
        ask: &Ask,
        target: &Uri,
        host: &HeaderValue,
        trust: Trust,
    ) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = target.clone();
        let fields = request.headers_mut();
        *fields = ask.fields.clone();
        for (name, value) in &self.origin.fields {
            fields.insert(name, value.clone());
        }
        if trust == Trust::Stranger {
            let ours = self.origin.fields.iter().map(|(name, _)| name);
            for name in [&AUTHORIZATION, &COOKIE].into_iter().chain(ours) {
                fields.remove(name);
            }
        }
        for (name, value) in &ask.conditions {
            fields.insert(name, value.clone());
        }
        fields.insert(HOST, host.clone());
        request
    }
}

/// Whether who is asked may know what the origin and its viewers tell each other in confidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Origin,
    /// Somebody the origin redirects to.
    Stranger,
}

/// More than enough for a head; a body that is passed on has no more on its way.
const SEND_BUFFER_BYTES: usize = 256 << 10;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
const IDLE_CONNECTIONS_MAX: usize = 64;

fn tls_config(origin: &Origin) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match (&origin.roots, origin.scheme) {
        (Some(certificates), _) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates {
                roots.add(certificate.clone()).map_err(|error| error.to_string())?;
            }
            builder.with_root_certificates(roots)
        }
        (None, crate::site::Scheme::Https) => {
            builder.with_native_roots().map_err(|error| error.to_string())?
        }
        // Never used: a plain origin's redirects to https would need the system's authorities.
        (None, crate::site::Scheme::Http) => {
            builder.with_root_certificates(rustls::RootCertStore::empty())
        }
    };
    Ok(config.with_no_client_auth())
}

/// The cause that says most: the innermost one.
pub(super) fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
