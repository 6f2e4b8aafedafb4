//! One origin of a site: how it is reached, what is sent to it, and how it does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, HOST};
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};
use http::{HeaderValue, Request, Uri};
use http_body_util::Empty;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::sync::Semaphore;

use super::outage::Outage;
use super::strict::StrictConnector;
use super::tls::tls_config;
use super::{Ask, Patience};
use crate::fill::error::FillError;
use crate::limits::{ORIGIN_READ_BYTES_MAX, RESPONSE_FIELDS_MAX};
use crate::site::{Origin, Site};

/// The origins of the sites of a configuration, to be asked from then on.
pub struct Upstreams(pub(super) Vec<Vec<SiteUpstreams>>);

/// The origins of one site, as one configuration has them.
#[derive(Clone)]
pub(super) struct SiteUpstreams {
    pub(super) site: Weak<Site>,
    pub(super) upstreams: Arc<[Arc<Upstream>]>,
}

pub(super) struct Upstream {
    pub(super) origin: Origin,
    pub(super) host: HeaderValue,
    pub(super) authority: Authority,
    /// For connections that are used once.
    pub(super) connector: Connector,
    pub(super) http: HttpClient<Connector, Empty<Bytes>>,
    pub(super) connections: Arc<Semaphore>,
    /// Of those, the ones that what is sent once may hold: a viewer who sends slowly holds one, and
    /// fills must find others.
    pub(super) once: Arc<Semaphore>,
    pub(super) outage: Outage,
    pub(super) counts: Counts,
}

/// What is counted of an origin.
#[derive(Default)]
pub(super) struct Counts {
    answers: AtomicU64,
    waited_us: AtomicU64,
    failures: AtomicU64,
}

/// How an origin does; counts since the process started.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Whose it is.
    pub site: String,
    /// Scheme, address and port.
    pub origin: String,
    /// Connections that are in use.
    pub connections: usize,
    /// As many may be.
    pub connections_max: usize,
    /// Heads of answers that fills got.
    pub answers: u64,
    /// What they waited for them, in all; connecting is part of it.
    pub waited: Duration,
    /// How often it did not answer.
    pub failures: u64,
    /// For how long it has not answered; `None`: it does, or was never asked.
    pub fails_for: Option<Duration>,
}

pub(super) type Connector = StrictConnector<HttpsConnector<HttpConnector>>;

impl Upstream {
    pub(super) fn new(origin: &Origin, patience: Patience) -> Result<Upstream, String> {
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
        let (origin, outage, counts) = (origin.clone(), Outage::default(), Counts::default());
        Ok(Upstream { origin, host, authority, connector, http, connections, once, outage, counts })
    }

    /// The same, with the places of `before` among the origin's connections: who asks it as it was
    /// holds them.
    pub(super) fn in_place_of(self, before: &Upstream) -> Upstream {
        let (connections, once) = (before.connections.clone(), before.once.clone());
        Upstream { connections, once, ..self }
    }

    /// Whether both are at one address, with as many connections at once.
    pub(super) fn is_where(&self, origin: &Origin) -> bool {
        let place = |one: &Origin| (one.scheme, one.address.clone(), one.port, one.connections_max);
        place(&self.origin) == place(origin)
    }

    /// How it does for `site`.
    pub(super) fn standing(&self, site: &Site, now: Instant) -> Standing {
        let Counts { answers, waited_us, failures } = &self.counts;
        let connections_max = self.origin.connections_max;
        Standing {
            site: site.name.clone(),
            origin: format!("{}://{}", self.origin.scheme.as_str(), self.authority),
            connections: connections_max.saturating_sub(self.connections.available_permits()),
            connections_max,
            answers: answers.load(Ordering::Relaxed),
            waited: Duration::from_micros(waited_us.load(Ordering::Relaxed)),
            failures: failures.load(Ordering::Relaxed),
            fails_for: self.outage.lasts(now),
        }
    }

    /// Counts the head of an answer that was waited for so long.
    pub(super) fn answered_after(&self, waited: Duration) {
        self.counts.answers.fetch_add(1, Ordering::Relaxed);
        self.counts.waited_us.fetch_add(waited.as_micros() as u64, Ordering::Relaxed);
    }

    /// Logs that it does not answer, or answers again, if it is time to.
    pub(super) fn tell(&self, failed: Option<&FillError>) {
        let now = Instant::now();
        match failed {
            Some(error) => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
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

    pub(super) fn uri(&self, target: &str) -> Result<Uri, FillError> {
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
    pub(super) fn trust_in(&self, target: &Uri) -> Trust {
        let usual = if target.scheme() == Some(&UriScheme::HTTPS) { 443 } else { 80 };
        let is_origin = target.scheme_str() == Some(self.origin.scheme.as_str())
            && target.host() == Some(self.authority.host())
            && Some(target.port_u16().unwrap_or(usual)) == self.authority.port_u16();
        if is_origin { Trust::Origin } else { Trust::Stranger }
    }

    pub(super) fn request(
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
pub(super) enum Trust {
    Origin,
    /// Somebody the origin redirects to.
    Stranger,
}

/// More than enough for a head; a body that is passed on has no more on its way.
const SEND_BUFFER_BYTES: usize = 256 << 10;
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
const IDLE_CONNECTIONS_MAX: usize = 64;
