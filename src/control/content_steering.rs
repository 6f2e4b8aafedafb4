//! Content steering: what a player is told of where to go on, in the words of HLS (RFC 8216bis
//! section 7) and DASH (ETSI TS 103 998).
//!
//! The server remembers nothing: a player brings along what the answer before told it
//! ([`session`], by its [`signature`]), and reports what it measured ([`reported`]). What makes
//! players stop asking is never sent: no answer without TTL, no status but 200 (or 410, where
//! steering is over on purpose), no pathway that the asset does not have. [`playlist`] and [`mpd`]
//! make players ask.

pub mod mpd;
pub mod playlist;
pub mod reported;
pub mod session;
pub mod signature;

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::registry::appliance::Pathway;
use super::registry::fleet::Fleet;
use super::steering::Answer;
use crate::limits::{STEERED_MAX, STEERING_UNSETTLED_TTL_MAX, STEERING_UNSETTLED_TTL_MIN};
use crate::message::decision::Seal;
use crate::message::target::{DECISION, host_and_port};
use session::{Endpoint, Session};

/// What players are told that ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Manifest {
    #[serde(rename = "VERSION")]
    version: u8,
    /// Seconds until the player asks again.
    #[serde(rename = "TTL")]
    ttl_seconds: u64,
    #[serde(rename = "RELOAD-URI")]
    reload_uri: String,
    /// Empty in DASH alone, where the player then stays where it is.
    #[serde(rename = "PATHWAY-PRIORITY", skip_serializing_if = "Vec::is_empty")]
    priority: Vec<Pathway>,
    #[serde(rename = "PATHWAY-CLONES", skip_serializing_if = "Vec::is_empty")]
    clones: Vec<PathwayClone>,
}

/// A pathway that the asset does not name: as another one, on another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct PathwayClone {
    #[serde(rename = "BASE-ID")]
    base: Pathway,
    #[serde(rename = "ID")]
    id: Pathway,
    #[serde(rename = "URI-REPLACEMENT")]
    replacement: Replacement,
}

/// What becomes of the other one's URIs. Some players know hosts alone; they ignore the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Replacement {
    #[serde(rename = "HOST")]
    host: String,
    #[serde(rename = "PARAMS")]
    parameters: Parameters,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Parameters {
    #[serde(rename = "tidegate-decision")]
    decision: String,
}

/// Whose words a player uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// HTTP Live Streaming.
    Hls,
    /// MPEG-DASH, whose pathways are called service locations.
    Dash,
}

/// How often players ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Seconds between two times, while all is well.
    pub steady_seconds: u64,
    /// The same while an appliance leaves or seems ill; 10 to 30.
    pub unsettled_seconds: u64,
}

/// Whether the server has more to answer than it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Burden {
    /// It has not.
    Usual,
    /// It has: players are told to ask less often, and not all at once.
    TooMuch,
}

/// What a player is answered of.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Whose words it uses.
    pub dialect: Dialect,
    /// Where it asks.
    pub endpoint: &'a Endpoint,
    /// What it brings along.
    pub session: &'a Session,
    /// What it measured, of pathways that may be.
    pub reported: &'a [Pathway],
    /// What decisions are sealed with, if they are.
    pub seal: Option<&'a Seal>,
    /// Now, in seconds since 1970.
    pub now_seconds: u64,
}

impl Asking<'_> {
    /// What a clone's `HOST` says, so that its player asks at `host`; `None`: nothing would do. In
    /// HLS it stands in for the host alone (hls.js 1.7 sets `hostname`): the port stays the
    /// other one's. In DASH it stands for both.
    fn host_of_clone(&self, host: &str, of_base: Option<&str>) -> Option<String> {
        if self.dialect == Dialect::Dash {
            return Some(host.to_owned());
        }
        let usual = self.endpoint.usual_port();
        let port = |host: &str| {
            let (_, port) = host_and_port(host.as_bytes())?;
            port.filter(|port| Some(*port) != usual)
        };
        let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(is_digit));
        let name = name.map_or(host, |(name, _)| name);
        (port(host) == of_base.and_then(port)).then(|| name.to_owned())
    }
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

impl Manifest {
    /// What the player is told. `decided` is `None` where there was no time to decide: it goes on
    /// as it did.
    pub fn of(
        asking: &Asking<'_>,
        decided: Option<(&Answer<'_>, &Fleet)>,
        pace: Pace,
        burden: Burden,
    ) -> Manifest {
        let Asking { dialect, session, reported, .. } = *asking;
        let known = session.has(reported);
        let (mut priority, clones) = match decided {
            Some((answer, fleet)) => listed(answer, fleet, known, asking),
            None => (Vec::new(), Vec::new()),
        };
        if priority.is_empty() {
            let first = session.goes_on_from(dialect, reported);
            // Where nobody knows, a DASH player stays where it is if it is told nothing.
            if first.is_some() || dialect == Dialect::Hls {
                let others = known.iter().filter(|pathway| Some(*pathway) != first);
                priority.extend(first.into_iter().chain(others).cloned());
            }
        }
        if priority.is_empty() && dialect == Dialect::Hls {
            priority.extend(Pathway::new(UNNAMED));
        }
        let unsettled = decided.is_some_and(|(answer, _)| answer.unsettled || answer.last_resort);
        let seed = xxh3_64_with_seed(session.id().as_bytes(), asking.now_seconds);
        let mut told = session.clone();
        if decided.is_some() {
            told.told = priority.first().cloned();
        }
        Manifest {
            version: 1,
            ttl_seconds: pace.ttl_seconds(unsettled, burden, seed),
            reload_uri: asking.endpoint.uri(&told),
            priority,
            clones,
        }
    }

    /// Seconds until the player asks again.
    pub fn ttl_seconds(&self) -> u64 {
        self.ttl_seconds
    }

    /// The pathways the player should try, the best first.
    pub fn priority(&self) -> &[Pathway] {
        &self.priority
    }

    /// The answer, as it is sent.
    pub fn response(&self) -> Response<Bytes> {
        let body = serde_json::to_vec(self).expect("text and numbers can be written as JSON");
        let mut response = answer(StatusCode::OK, body.into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// What is answered where steering has been ended on purpose: players stop asking for good.
pub fn ended() -> Response<Bytes> {
    answer(StatusCode::GONE, Bytes::new())
}

/// Sends a viewer who asked for `target` to the best of an answer; `None` where nobody is left.
pub fn redirect(
    scheme: &str,
    target: &str,
    decided: &Answer<'_>,
    seal: Option<&Seal>,
) -> Option<Response<Bytes>> {
    let location = location(scheme, target, decided, 0, seal)?;
    let location = HeaderValue::try_from(location).ok().filter(|_| target.starts_with('/'))?;
    let mut response = answer(StatusCode::FOUND, Bytes::new());
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

/// Where the appliance of that rank in an answer has `target`: with the decision, and without the
/// one that an answer before gave along.
pub fn location(
    scheme: &str,
    target: &str,
    decided: &Answer<'_>,
    rank: usize,
    seal: Option<&Seal>,
) -> Option<String> {
    let host = decided.ranked.get(rank)?.host;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let is_decision = |one: &&str| one.split('=').next() == Some(DECISION);
    let others: Vec<&str> = query.split('&').filter(|one| !is_decision(one)).collect();
    let others = others.join("&");
    let joint = if others.is_empty() { "" } else { "&" };
    let decision = decided.given(rank, seal)?;
    Some(format!("{scheme}://{host}{path}?{others}{joint}{DECISION}={decision}"))
}

/// An answer is for one viewer, and pages of any origin may read it.
pub(super) fn answer(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// Of an answer, what the asset has, and what it can have as a clone; behind them what is no
/// appliance of ours: other services, the origin. Before them where nobody of ours is well.
fn listed(
    answer: &Answer<'_>,
    fleet: &Fleet,
    known: &[Pathway],
    asking: &Asking<'_>,
) -> (Vec<Pathway>, Vec<PathwayClone>) {
    let base = asking.session.base.as_ref().filter(|base| known.contains(base));
    let (mut priority, mut clones) = (Vec::with_capacity(STEERED_MAX), Vec::new());
    for (rank, ranked) in answer.ranked.iter().enumerate() {
        if !known.contains(ranked.pathway) {
            let given = base.zip(answer.given(rank, asking.seal));
            let Some((base, decision)) = given else { continue };
            let of_base = fleet.by_pathway(base).map(|base| base.appliance.host());
            let Some(host) = asking.host_of_clone(ranked.host, of_base) else { continue };
            let replacement = Replacement { host, parameters: Parameters { decision } };
            let (base, id) = (base.clone(), ranked.pathway.clone());
            clones.push(PathwayClone { base, id, replacement });
        }
        priority.push(ranked.pathway.clone());
    }
    let others = known.iter().filter(|pathway| fleet.by_pathway(pathway).is_none()).cloned();
    match answer.last_resort {
        true => drop(priority.splice(0..0, others)),
        false => priority.extend(others),
    }
    (priority, clones)
}

impl Pace {
    /// Never 0, which players take for none and never ask again.
    pub(super) fn ttl_seconds(self, unsettled: bool, burden: Burden, seed: u64) -> u64 {
        let bound = |seconds: u64| match unsettled {
            true => seconds.clamp(STEERING_UNSETTLED_TTL_MIN, STEERING_UNSETTLED_TTL_MAX),
            false => seconds.max(1),
        };
        let usual = bound(if unsettled { self.unsettled_seconds } else { self.steady_seconds });
        match burden {
            Burden::Usual => usual,
            // Twice as long, a fifth more or less.
            Burden::TooMuch => {
                let longest = bound(usual.saturating_mul(2).saturating_mul(6) / 5);
                bound(longest.saturating_mul(67 + seed % 34) / 100)
            }
        }
    }
}

/// What HLS calls the pathway of variants that name none (RFC 8216bis section 4.4.6.2).
const UNNAMED: &str = ".";

#[cfg(test)]
mod tests;
