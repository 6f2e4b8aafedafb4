//! What viewers and their players are answered who ask where to go: JSON, a redirect, or the
//! manifests of content steering.
//!
//! `/steer/v1/{rank,go,hls,dash}/SITE/PATH`. Decides by the fleet and the routes of now, waits for
//! nobody and reads no file. A player is answered 200 whatever happens, with a TTL, or it would not
//! ask again: 410 only where steering has been ended on purpose. With too much to do, players are
//! told to ask less often.

mod figures;
mod question;
mod ranked;
mod rate;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE, ALLOW,
    CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER,
};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Serialize;

use super::content_steering::reported::Reported;
use super::content_steering::session::{Brought, Endpoint};
use super::content_steering::signature::Secret;
use super::content_steering::{Asking, Burden, Dialect, Manifest, Pace, answer, ended, redirect};
use super::registry::fleet::{Fleet, Member};
use super::routes::Table;
use super::steering::reason::Reason;
use super::steering::{Answer, Asked, Steering};
use crate::message::decision::Seal;
use crate::message::forwarded::Forwarders;
use crate::message::target::host_and_port;
use crate::moment::unix_seconds;
use crate::server::{ConnectionFacts, Handler};
pub use figures::{Decided, Figures, Kind};
use question::Question;
use ranked::RankedAnswer;
pub use rate::Rate;

/// What viewers are steered by beside the fleet and its routes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where players reach this, without a slash at its end: they are sent on by its scheme.
    /// `None`: where and by the scheme that they ask; behind a proxy they are told a path alone.
    pub url: Option<String>,
    /// What sessions are signed with.
    pub secret: Option<Secret>,
    /// What decisions are sealed with, where those who serve may have the same secret.
    pub seal: Option<Seal>,
    /// Over so many appliances the viewers of one folder are spread.
    pub spread: NonZeroU32,
    /// How often players ask.
    pub pace: Pace,
    /// From so many answers in a second on players are to ask less often; with twice as many they
    /// are told to go on as they do.
    pub answers_per_second: u32,
    /// Sites by their names.
    pub sites: BTreeSet<String>,
    /// Those whose steering was ended on purpose.
    pub ended: BTreeSet<String>,
}

impl Settings {
    /// By which scheme who asks by `asked` is sent on: before a proxy he may ask by another one.
    pub fn scheme<'a>(&self, asked: &'a str) -> &'a str {
        let of_url = |url: &String| if url.starts_with("https:") { "https" } else { "http" };
        self.url.as_ref().map_or(asked, of_url)
    }
}

/// What answers viewers' questions; one serves any number of connections.
pub struct Steer {
    /// The appliances and how they are.
    pub fleet: Arc<ArcSwap<Fleet>>,
    /// Whom they are for.
    pub table: Arc<ArcSwap<Table>>,
    /// The rest it is steered by.
    pub settings: Arc<ArcSwap<Settings>>,
    /// Which proxies are believed.
    pub forwarders: Arc<ArcSwap<Forwarders>>,
    /// What is counted.
    pub figures: Arc<Figures>,
    /// How much there is to do.
    pub rate: RefCell<Rate>,
}

/// Who asks, how, and when.
#[derive(Clone, Copy, Debug)]
pub struct From<'a> {
    /// His address, through proxies that are believed.
    pub viewer: IpAddr,
    /// By which scheme he asks.
    pub scheme: &'static str,
    /// By which name he asks, with a port where it is not the usual one; `None`: a proxy does,
    /// and by what he asked it nobody knows.
    pub host: Option<&'a str>,
    /// Now, in seconds since 1970.
    pub now_seconds: u64,
}

/// What one question is answered of: all of one moment.
struct Now<'a> {
    fleet: &'a Fleet,
    table: &'a Table,
    settings: &'a Settings,
    from: From<'a>,
    /// Answers in a second.
    rate: u32,
}

impl Steer {
    /// Answers one request.
    pub fn answer(&self, method: &Method, target: &str, from: From<'_>) -> Response<Bytes> {
        match *method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return preflight(),
            _ => {
                let mut refused = refused(StatusCode::METHOD_NOT_ALLOWED, "send GET\n");
                refused.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
                return refused;
            }
        }
        let Some(question) = Question::of(target) else {
            return refused(
                StatusCode::NOT_FOUND,
                "ask for /steer/v1/go/SITE/PATH, or rank, hls \
                or dash in the place of go\n",
            );
        };
        let (fleet, table, settings) = (self.fleet.load(), self.table.load(), self.settings.load());
        let rate = self.rate.borrow_mut().after_one(from.now_seconds);
        let now = Now { fleet: &fleet, table: &table, settings: &settings, from, rate };
        self.figures.asked(question.kind);
        if settings.ended.contains(question.site) {
            self.figures.decided(Decided::Ended);
            return ended();
        }
        match question.kind {
            Kind::Hls => self.manifest(&question, &now, Dialect::Hls),
            Kind::Dash => self.manifest(&question, &now, Dialect::Dash),
            Kind::Rank | Kind::Go => self.direct(&question, &now),
        }
    }

    /// What a player is told, whatever it asked.
    fn manifest(
        &self,
        question: &Question<'_>,
        now: &Now<'_>,
        dialect: Dialect,
    ) -> Response<Bytes> {
        let Now { fleet, settings, from, .. } = *now;
        let endpoint = endpoint(question, settings, from);
        let session = match endpoint.session(question.query) {
            Brought::Session(session) => session,
            Brought::Nothing(session) => {
                self.figures.begun();
                session
            }
            Brought::Forged(session) => {
                self.figures.begun();
                self.figures.flawed("session");
                session
            }
        };
        let is_known =
            |pathway: &_| session.known.contains(pathway) || fleet.by_pathway(pathway).is_some();
        let reported = Reported::of_query(question.query, dialect, is_known);
        reported.flaws.iter().for_each(|flaw| self.figures.flawed(flaw.word()));
        let reported = &*reported.pathways;
        let is_steered = settings.sites.contains(question.site) && !now.is_overrun();
        let path = question.path.as_deref().filter(|_| is_steered);
        let answer = path.map(|path| {
            now.steering().answer(&Asked {
                viewer: from.viewer,
                session: session.id(),
                site: question.site,
                path,
                plays_from: session.plays_from(dialect, reported),
                among: session.among(reported),
                now_seconds: from.now_seconds,
            })
        });
        self.figures.decided(answer.as_ref().map_or(Decided::Nothing, decided));
        answer.iter().for_each(|answer| self.figures.was_among(answer.ranked.len()));
        let burden = now.burden();
        if burden == Burden::TooMuch {
            self.figures.slowed();
        }
        let asking = Asking {
            dialect,
            endpoint: &endpoint,
            session: &session,
            reported,
            seal: settings.seal.as_ref(),
            now_seconds: from.now_seconds,
        };
        let decided = answer.as_ref().map(|answer| (answer, fleet));
        Manifest::of(&asking, decided, settings.pace, burden).response()
    }

    /// Where a viewer is to go, as JSON or by sending him there.
    fn direct(&self, question: &Question<'_>, now: &Now<'_>) -> Response<Bytes> {
        let Now { settings, from, .. } = *now;
        if !settings.sites.contains(question.site) {
            return refused(StatusCode::NOT_FOUND, "no such site\n");
        }
        let Some(path) = question.path.as_deref() else {
            return refused(StatusCode::BAD_REQUEST, "an escape in the path is broken\n");
        };
        // Who has no playback that we know of is told apart by his address.
        let session = from.viewer.to_string();
        let answer = now.steering().answer(&Asked {
            viewer: from.viewer,
            session: &session,
            site: question.site,
            path,
            plays_from: None,
            among: None,
            now_seconds: from.now_seconds,
        });
        self.figures.decided(decided(&answer));
        self.figures.was_among(answer.ranked.len());
        let scheme = settings.scheme(from.scheme);
        let target = match question.query {
            "" => path.to_owned(),
            query => format!("{path}?{query}"),
        };
        if question.kind == Kind::Rank {
            return as_json(&RankedAnswer::of(
                &answer,
                question.site,
                path,
                (scheme, &target),
                now,
            ));
        }
        redirect(scheme, &target, &answer, settings.seal.as_ref()).unwrap_or_else(|| {
            let text = "no appliance is there that this viewer reaches\n";
            let mut refused = refused(StatusCode::SERVICE_UNAVAILABLE, text);
            refused.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
            refused
        })
    }
}

impl<'a> Now<'a> {
    fn steering(&self) -> Steering<'a> {
        let Now { fleet, table, settings, .. } = *self;
        Steering { fleet, routes: table, holds: &nobody_knows, spread: settings.spread }
    }

    fn burden(&self) -> Burden {
        match self.rate > self.settings.answers_per_second {
            true => Burden::TooMuch,
            false => Burden::Usual,
        }
    }

    /// Whether there is no time to decide.
    fn is_overrun(&self) -> bool {
        self.rate / 2 > self.settings.answers_per_second
    }
}

/// What appliances have is not known here.
fn nobody_knows(_: &Member) -> Option<bool> {
    None
}

/// Where players ask at `url` about what a site has; one whose path is longer than is told back
/// asks for its site. `None`: one of these cannot be written in a playlist.
pub fn endpoint_at(url: &str, kind: Kind, site: &str, path: Option<&str>) -> Option<Endpoint> {
    let at = |path: &str| Endpoint::new(&format!("{url}{ROOT}{}/{site}{path}", kind.word()));
    path.and_then(at).or_else(|| at("/"))
}

/// Where a player asks about one asset. One whose path is longer than is told back asks for its
/// site. Shaka Player (5.2) ends its steering where it is told a path alone.
fn endpoint(question: &Question<'_>, settings: &Settings, from: From<'_>) -> Endpoint {
    let asked_at = || Some(format!("{}://{}", from.scheme, from.host?));
    let url = settings.url.clone().or_else(asked_at).unwrap_or_default();
    let kind = question.kind;
    let endpoint = endpoint_at(&url, kind, question.site, question.path.as_deref());
    let bare = || Endpoint::new(&format!("{ROOT}{}/-/", kind.word()));
    let endpoint = endpoint.or_else(bare).expect("this path needs no escape");
    match &settings.secret {
        Some(secret) => endpoint.signed_with(secret.clone()),
        None => endpoint,
    }
}

/// What kind of a decision an answer is.
fn decided(answer: &Answer<'_>) -> Decided {
    let Some(best) = answer.ranked.first() else { return Decided::Nobody };
    let has = |is: fn(&Reason) -> bool| best.reasons.iter().any(|rule| is(&rule.reason));
    match () {
        () if answer.last_resort => Decided::LastResort,
        () if has(|it| matches!(it, Reason::PlaysFromIt)) => Decided::Stays,
        () if has(|it| matches!(it, Reason::Announced { .. })) => Decided::Route,
        () if has(|it| matches!(it, Reason::Near { .. })) => Decided::Distance,
        () => Decided::Share,
    }
}

fn as_json(value: &impl Serialize) -> Response<Bytes> {
    let body = serde_json::to_vec(value).expect("text and numbers can be written as JSON");
    let mut response = answer(StatusCode::OK, body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn refused(status: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut response = answer(status, Bytes::from_static(text.as_bytes()));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// Pages of any origin may ask, with any fields.
fn preflight() -> Response<Bytes> {
    let mut response = answer(StatusCode::NO_CONTENT, Bytes::new());
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (ACCESS_CONTROL_ALLOW_HEADERS, "*"),
        (ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Handler for Steer {
    type Body = Full<Bytes>;

    async fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Rc<ConnectionFacts>,
    ) -> Response<Full<Bytes>> {
        let (peer, forwarders) = (connection.viewer.ip().to_canonical(), self.forwarders.load());
        let is_direct = !forwarders.believe(peer);
        let from = From {
            viewer: forwarders.client(peer, request.headers()),
            scheme: if connection.tls.is_some() { "https" } else { "http" },
            host: host(&request).filter(|_| is_direct),
            now_seconds: unix_seconds(SystemTime::now()),
        };
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let mut response = self.answer(request.method(), target, from);
        let length = response.body().len();
        if response.status() != StatusCode::NO_CONTENT {
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        match *request.method() {
            Method::HEAD => response.map(|_| Full::default()),
            _ => response.map(Full::new),
        }
    }
}

/// By which name a request asks, if that is one.
fn host<B>(request: &Request<B>) -> Option<&str> {
    let field = || request.headers().get(HOST)?.to_str().ok();
    let host = request.uri().authority().map(Authority::as_str).or_else(field);
    host.filter(|host| host_and_port(host.as_bytes()).is_some())
}

/// Below it all questions are.
const ROOT: &str = "/steer/v1/";
const METHODS: &str = "GET, HEAD, OPTIONS";

#[cfg(test)]
mod tests;
