//! The control plane of a fleet: what boxes and operators ask of it over HTTPS.
//!
//! It owns the [`Registry`], says who may what (`who.rs`), keeps what changes in the
//! [`State`] with who changed it, and publishes a snapshot whenever boxes should know something
//! else than before (`publishing.rs`). [`wire`] is what is said; `openapi.json` says it to
//! programs. No viewer waits for anything here.

mod answers;
mod asks;
mod boxes;
mod figures;
mod operators;
mod publishing;
mod rate;
mod read;
mod seldom;
mod who;
pub mod wire;

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use rustls_pki_types::CertificateDer;
use serde::de::DeserializeOwned;

use self::answers::{Reply, response};
use self::asks::{Ask, route};
use self::figures::Figures;
use self::operators::KeyNames;
use self::publishing::Published;
use self::rate::{Client, Rates};
use self::read::watched;
use self::seldom::Seldom;
use self::who::Clients;
use super::asking::{AskedBody, JSON, Said, body_of, refusal};
use super::issuer::{self, Issuer, IssuerError, Own, subject};
use super::registry::fleet::Fleet;
use super::registry::{Registry, Rules};
use super::state::{AuditRecord, By, Purpose, State, StateError, Store};
use crate::limits::{AUDIT_TEXT_BYTES_MAX, PLANE_BODY_BYTES_MAX};
use crate::moment::unix_seconds;
use crate::purge::Tokens;
use crate::server::{BodyRead, ConnectionFacts, Handler, Tls};

/// What a control plane goes by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where its keys lie.
    pub folder: PathBuf,
    /// Where its state lies.
    pub store: Store,
    /// Names and addresses by which it is asked, for the certificate of its own.
    pub names: Vec<String>,
    /// What it shows instead of a certificate of its own.
    pub shown: Arc<ArcSwapOption<rustls::sign::CertifiedKey>>,
    /// Whose certificates operators have to show beside a token; empty: of nobody.
    pub operators_ca: Vec<CertificateDer<'static>>,
    /// Who may what; `None`: no operator may anything.
    pub tokens: Arc<ArcSwapOption<Tokens>>,
    /// When an appliance counts as ill, well, and full.
    pub rules: Rules,
    /// How often an appliance should be heard of.
    pub heartbeat: Duration,
    /// How often one client may ask.
    pub requests_per_second: u32,
}

/// Why there is no control plane.
#[derive(Debug)]
pub enum PlaneError {
    /// Its keys.
    Issuer(IssuerError),
    /// Its state.
    State(StateError),
    /// The epoch was raised by nobody who may.
    Epoch {
        /// Which one.
        epoch: u64,
    },
    /// The snapshot of before was signed by another key than there is.
    SigningKey,
    /// The certificates of operators' authority are none.
    Tls(String),
}

impl fmt::Display for PlaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlaneError::Issuer(error) => error.fmt(f),
            PlaneError::State(error) => error.fmt(f),
            PlaneError::Epoch { epoch } => write!(
                f,
                "epoch {epoch} was begun by no order of the key in `snapshot.key`: put the key \
                 there that it was begun with, or `tidegate control raise-epoch`"
            ),
            PlaneError::SigningKey => write!(
                f,
                "the last snapshot was signed by another key than the one in `snapshot.key`, and \
                 no box would believe the next one: put the key there that it was signed with"
            ),
            PlaneError::Tls(what) => write!(f, "TLS cannot be set up: {what}"),
        }
    }
}

impl Error for PlaneError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            PlaneError::Issuer(source) => Some(source),
            PlaneError::State(source) => Some(source),
            PlaneError::Epoch { .. } | PlaneError::SigningKey | PlaneError::Tls(_) => None,
        }
    }
}

impl From<StateError> for PlaneError {
    fn from(error: StateError) -> PlaneError {
        PlaneError::State(error)
    }
}

/// The name of the state's file in its folder.
pub const STATE_FILE: &str = "state.redb";

/// A control plane.
pub struct Plane {
    settings: Settings,
    state: State,
    issuer: Issuer,
    clients: Clients,
    registry: Mutex<Registry>,
    fleet: Arc<ArcSwap<Fleet>>,
    published: Published,
    key_names: Mutex<Option<KeyNames>>,
    /// Who was refused.
    refused: Mutex<Seldom>,
    /// Who holds what has never been.
    ahead: Mutex<Seldom>,
    rates: Mutex<Rates>,
    figures: Figures,
    own: ArcSwap<Own>,
}

/// Who asks, before he has shown who he is.
#[derive(Clone, Debug)]
struct Asker {
    ip: IpAddr,
    certificate: Option<CertificateDer<'static>>,
    /// By whom that was issued, as he shows it.
    intermediates: Vec<CertificateDer<'static>>,
}

impl Asker {
    /// Whose rate counts: many boxes may ask from one address.
    fn client(&self) -> Client {
        match self.certificate.as_deref().and_then(subject) {
            Some(who) => Client::Named(who.name),
            None => Client::at(self.ip),
        }
    }
}

/// When somebody asks.
#[derive(Clone, Copy, Debug)]
struct Now {
    instant: Instant,
    system: SystemTime,
}

impl Now {
    fn seconds(self) -> u64 {
        unix_seconds(self.system)
    }
}

const OPENAPI: &str = include_str!("openapi.json");

impl Plane {
    /// Opens the state and the keys, or begins them; what it knows of the fleet is in `fleet` from
    /// then on. Blocks.
    ///
    /// # Errors
    /// Another process has the state, or something in the folder cannot be used.
    pub fn open(
        settings: Settings,
        fleet: Arc<ArcSwap<Fleet>>,
        now: SystemTime,
    ) -> Result<Plane, PlaneError> {
        // Who has the state makes keys, and nobody else does.
        issuer::look_at_clock(&settings.folder, now).map_err(PlaneError::Issuer)?;
        let state = State::open_in(&settings.store, Purpose::GoOn, now)?;
        let issuer = Issuer::open(&settings.folder, now).map_err(PlaneError::Issuer)?;
        publishing::look_at_epoch(&state, &issuer)?;
        let own = issuer.own(&settings.names, now).map_err(PlaneError::Issuer)?;
        let clients = Clients::new(issuer.certificate(), &settings.operators_ca)?;
        let instant = Instant::now();
        let (registry, published) = publishing::resumed(&state, &issuer, &settings.rules, instant)?;
        fleet.store(Arc::new(registry.fleet(instant)));
        state.attend(&settings.names);
        Ok(Plane {
            rates: Mutex::new(Rates::new(settings.requests_per_second)),
            figures: Figures::new(state.commits()),
            settings,
            state,
            issuer,
            clients,
            registry: Mutex::new(registry),
            fleet,
            published,
            key_names: Mutex::default(),
            refused: Mutex::default(),
            ahead: Mutex::default(),
            own: ArcSwap::from_pointee(own),
        })
    }

    /// How all appliances are; swapped whole as that changes.
    pub fn fleet(&self) -> Arc<ArcSwap<Fleet>> {
        self.fleet.clone()
    }

    /// What connections to it begin with.
    ///
    /// # Errors
    /// When the cryptography itself cannot be set up.
    pub fn tls(self: &Arc<Plane>) -> Result<Tls, PlaneError> {
        let plane = self.clone();
        let choose = move |_: Option<&str>| match plane.settings.shown.load_full() {
            Some(shown) => Some(shown),
            None => Some(plane.own.load().key.clone()),
        };
        Tls::for_clients(choose, self.clients.verifier())
            .map_err(|error| PlaneError::Tls(error.to_string()))
    }

    /// Answers one request. Safe to drop: what has begun to change is changed whole.
    async fn answer<B: AskedBody>(
        &self,
        request: Request<B>,
        asker: &Asker,
        now: Now,
    ) -> Response<Full<Bytes>> {
        let is_let_in = lock(&self.rates).is_let_in(&asker.client(), now.instant);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let (request, is_read) = watched(request);
        let answered = match is_let_in {
            true => self.asked(request, asker, now).await,
            false => {
                let text = "too many requests from this address: ask again in a second";
                Err(refusal(StatusCode::TOO_MANY_REQUESTS, text))
            }
        };
        if let Err((status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), why)) = &answered
            && let Some(others) = lock(&self.refused).tells(now.instant)
        {
            let (status, why) = (status.as_u16(), &why["error"]);
            tracing::warn!(from = %asker.ip, others, "{status} {method} {path}: {why}");
        }
        let mut response = response(answered);
        self.figures.answered(&method, &path, response.status());
        if is_read.get() {
            response.extensions_mut().insert(BodyRead);
        }
        response
    }

    async fn asked<B: AskedBody>(
        &self,
        request: Request<B>,
        asker: &Asker,
        now: Now,
    ) -> Result<Reply, Said> {
        let (head, body) = request.into_parts();
        let (ask, name) = route(&head.method, head.uri.path())?;
        let (fields, query) = (&head.headers, head.uri.query().unwrap_or_default());
        match ask {
            Ask::Enrol => self.enrol(read(body).await?, asker, now).await,
            Ask::Renew => {
                let who = self.clients.appliance(asker, &self.state, now)?;
                self.renew(read(body).await?, who, asker, now).await
            }
            Ask::Register => {
                let who = self.clients.appliance(asker, &self.state, now)?;
                self.register(read(body).await?, name, &who, asker, now).await
            }
            Ask::Beat => {
                let who = self.clients.appliance(asker, &self.state, now)?;
                self.hear(read(body).await?, &who, now)
            }
            Ask::Snapshot => {
                let who = self.clients.appliance(asker, &self.state, now)?;
                self.snapshot(query, &who).await
            }
            Ask::Appliances => self.viewer(fields, asker).and_then(|_| self.appliances()),
            Ask::Remove => self.remove(name, &self.operator(fields, asker)?, asker, now).await,
            Ask::NewCode => {
                let by = self.operator(fields, asker)?;
                self.new_code(read(body).await?, &by, asker, now).await
            }
            Ask::KeyNames => self.viewer(fields, asker).and_then(|_| self.key_names()),
            Ask::PutKeys => {
                let by = self.operator(fields, asker)?;
                self.put_keys(name, body, &by, asker, now).await
            }
            Ask::RemoveKeys => {
                self.remove_keys(name, &self.operator(fields, asker)?, asker, now).await
            }
            Ask::Audit => {
                self.viewer(fields, asker)?;
                self.audit(query).await
            }
            Ask::Export => {
                let by = self.operator(fields, asker)?;
                self.export(&by, asker, now).await
            }
            Ask::RaiseEpoch => {
                let by = self.operator(fields, asker)?;
                self.raise_epoch(read(body).await?, &by, asker, now).await
            }
            Ask::Nodes => self.viewer(fields, asker).and_then(|_| self.nodes()),
            Ask::Metrics => self.viewer(fields, asker).map(|_| self.metrics(now)),
            Ask::OpenApi => Ok(Reply {
                status: StatusCode::OK,
                content_type: JSON,
                body: Bytes::from_static(OPENAPI.as_bytes()),
            }),
            Ask::Live => Ok(Reply::json(StatusCode::OK, &serde_json::json!({ "live": true }))),
        }
    }

    fn operator(&self, fields: &HeaderMap, asker: &Asker) -> Result<Arc<str>, Said> {
        self.clients.operator(&self.settings.tokens.load(), fields, asker)
    }

    fn viewer(&self, fields: &HeaderMap, asker: &Asker) -> Result<Arc<str>, Said> {
        self.clients.viewer(&self.settings.tokens.load(), fields, asker)
    }
}

impl Handler for PlaneHandler {
    type Body = Full<Bytes>;

    async fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Rc<ConnectionFacts>,
    ) -> Response<Full<Bytes>> {
        let ip = connection.viewer.ip().to_canonical();
        let (certificate, intermediates) = match &connection.tls {
            Some(tls) => (tls.certificate.clone(), tls.intermediates.clone()),
            None => (None, Vec::new()),
        };
        let asker = Asker { ip, certificate, intermediates };
        let now = Now { instant: Instant::now(), system: SystemTime::now() };
        self.0.answer(request, &asker, now).await
    }
}

/// A control plane as connections see it.
pub struct PlaneHandler(
    /// Which one.
    pub Arc<Plane>,
);

/// What is written down of a change by an operator, and told.
fn changed(by: &str, asker: &Asker, now: Now, what: String) -> AuditRecord {
    let what: String =
        what.chars().filter(|c| !c.is_control()).take(AUDIT_TEXT_BYTES_MAX).collect();
    let (by, from) = (by.to_owned(), Some(asker.ip.to_string()));
    AuditRecord { at: now.seconds(), by, of: By::Operator, from, what }
}

/// The same of one by a box.
fn changed_by_box(by: &str, asker: &Asker, now: Now, what: String) -> AuditRecord {
    AuditRecord { of: By::Box, ..changed(by, asker, now, what) }
}

/// The JSON of a request.
async fn read<T: DeserializeOwned>(body: impl AskedBody) -> Result<T, Said> {
    let body = body_of(body, PLANE_BODY_BYTES_MAX).await?;
    serde_json::from_slice(&body)
        .map_err(|error| refusal(StatusCode::BAD_REQUEST, &format!("not understood: {error}")))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
