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
mod tls;
mod upstream;

use std::error::Error;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use http::header::VIA;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

pub use self::answer::Answer;
pub use self::once::{AnswerBody, Once, OnceAnswer, OnceConnection};
use self::redirect::{followed, resolve};
pub use self::request_body::{Pace, RequestBody};
pub use self::strict::Strict;
pub use self::tls::{tls_config, tls_config_of};
use self::upstream::{SiteUpstreams, Trust, Upstream};
pub use self::upstream::{Standing, Upstreams};
use crate::fill::error::FillError;
use crate::limits::{ORIGIN_READ_BYTES_MAX, REDIRECTS_MAX};
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
    /// Each site's, by its id; of those that were reloaded too, as long as somebody asks by them.
    upstreams: ArcSwap<Vec<Vec<SiteUpstreams>>>,
    governor: Arc<Governor>,
    patience: Patience,
    retries: u32,
    via: Via,
}

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

    /// The origins of `sites`, ready to be asked: one that is what it was keeps its connections,
    /// and what is known of it.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn upstreams_of(&self, sites: &Sites) -> Result<Upstreams, String> {
        let before = self.upstreams.load();
        let mut all = Vec::clone(&before);
        for site in sites.iter() {
            let index = usize::from(site.id.0);
            if all.len() <= index {
                all.resize(index + 1, Vec::new());
            }
            let known = all[index].iter().flat_map(|one| one.upstreams.iter());
            let known: Vec<_> = known.cloned().collect();
            let upstream = |origin: &Origin| match known.iter().find(|one| one.origin == *origin) {
                Some(known) => Ok(known.clone()),
                None => {
                    let new = Upstream::new(origin, self.patience)?;
                    let before = known.iter().find(|one| one.is_where(origin));
                    Ok(Arc::new(match before {
                        Some(before) => new.in_place_of(before),
                        None => new,
                    }))
                }
            };
            let upstreams = site.origins.iter().map(upstream).collect::<Result<_, String>>()?;
            all[index].retain(|one| one.site.strong_count() > 0);
            all[index].insert(0, SiteUpstreams { site: Arc::downgrade(site), upstreams });
        }
        Ok(Upstreams(all))
    }

    /// Asks these from now on; who asks already, asks on.
    pub fn adopt(&self, Upstreams(upstreams): Upstreams) {
        self.upstreams.store(Arc::new(upstreams));
    }

    /// Those that the site had when it was read: who began with one of before is told, and asks
    /// with, nothing that is meant for others.
    fn upstreams(&self, site: &Site) -> Arc<[Arc<Upstream>]> {
        let all = self.upstreams.load();
        let of_site = &all[usize::from(site.id.0)];
        let its_own = of_site.iter().find(|one| std::ptr::eq(one.site.as_ptr(), site));
        its_own.unwrap_or(&of_site[0]).upstreams.clone()
    }

    /// How the origins of `sites` do.
    pub fn standings(&self, sites: &Sites, now: Instant) -> Vec<Standing> {
        let of_site = |site: &Arc<Site>| -> Vec<Standing> {
            self.upstreams(site).iter().map(|one| one.standing(site, now)).collect()
        };
        sites.iter().flat_map(of_site).collect()
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
        let asked = Instant::now();
        let answered = match tokio::time::timeout(deadline, upstream.http.request(request)).await {
            Err(_) => Err(FillError::FirstByteTimeout { origin: origin() }),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(FillError::Connect { origin: origin(), reason: deepest(&error) }),
        };
        upstream.tell(answered.as_ref().err());
        answered.inspect(|_| upstream.answered_after(asked.elapsed()))
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The cause that says most: the innermost one.
pub fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
