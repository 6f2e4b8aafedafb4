//! Sites: whose request it is, which origins it fills from, which rule its path falls under.
//!
//! Pure. A `Site` is made by `config`, which has checked it: its last rule matches every path, it
//! has a host and an origin, and no two sites share a host.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderMap, HeaderName, HeaderValue};
use rustls_pki_types::CertificateDer;

use crate::limits::REQUEST_BODY_BYTES_DEFAULT;
use crate::network::Network;
use crate::object::SiteId;

pub use access::{Access, OffRoute};
pub use content::Content;
pub use cors::{Cors, CorsOrigins, Credentials};
pub use entrance::{Barred, Countries, Entrance, Listed, NetworkFile, Networks, Stands};
pub use methods::Methods;
pub use pattern::{PathPattern, PatternError};
pub use players::{Cmsd, Foresight, Pace, Steered};
pub use prefixes::{PrefixFault, Prefixes, network};
pub use sites::{CurrentSites, Sites};
pub use times::{Hours, Times};

mod access;
mod content;
mod cors;
mod entrance;
#[doc(hidden)]
pub mod fuzz;
mod methods;
mod pattern;
mod players;
mod prefixes;
mod sites;
mod times;

/// One publisher's content: host names, origins and rules.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its index in the configuration that was started with, or the next that was free when it was
    /// added: good for one process, in which it is never another site's.
    pub id: SiteId,
    /// What people and metrics call it.
    pub name: String,
    /// Host names, lower case: exact, `*.example.com` (any labels before it) or `*` (any host).
    pub hosts: Vec<String>,
    /// Who a fill asks, in order of preference; at least one.
    pub origins: Vec<Origin>,
    /// Its weight against other sites where there is too little for all; 1 to 1000.
    pub share: u32,
    /// What it may take of the ssd tier, in percent; 1 to 100.
    pub ssd_percent: u8,
    /// Rules by path, the first match counts; the last one matches everything.
    pub rules: Vec<Rule>,
    /// What rules of before edited in answers that came until then.
    pub edited_before: Vec<(SystemTime, HeaderName)>,
}

impl Site {
    /// The first rule whose pattern matches `path` (normalised).
    pub fn rule_for(&self, path: &str) -> &Rule {
        self.rules
            .iter()
            .find(|rule| rule.pattern.matches(path))
            .expect("the last rule of a site matches everything")
    }

    /// Whether who comes in depends on which of its rules a path is about.
    pub fn tells_viewers_apart(&self) -> bool {
        let is_closed = |rule: &Rule| rule.entrance.is_some() || rule.off_route != OffRoute::Serve;
        self.rules.len() > 1 && self.rules.iter().any(is_closed)
    }

    /// Whether the rule for `path` names the query parameters that count: then they are known to
    /// be no secrets, and logs may tell their values.
    pub fn names_parameters(&self, path: &str) -> bool {
        matches!(self.rule_for(path).query, QueryPolicy::Only(_))
    }
}

/// How an origin is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// As URLs write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port a URL without one means.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// What becomes of an origin's 301, 302, 303, 307 and 308.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirects {
    /// The fill follows them, `limits::REDIRECTS_MAX` times; the viewer never sees them.
    Follow,
    /// They are answers like any other.
    PassOn,
}

/// Where a site's content comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// Plain or TLS.
    pub scheme: Scheme,
    /// Host name or IP address, as in a URL: IPv6 in brackets.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// The Host to send; `None`: the origin's own, see [`Origin::authority`].
    pub host_header: Option<String>,
    /// The name the certificate must be for, sent as SNI; `None`: `address`.
    pub server_name: Option<String>,
    /// Fields added to every request to this origin. Their values may be secrets: never shown.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// The only certification authorities trusted; `None`: the system's.
    pub roots: Option<Vec<CertificateDer<'static>>>,
    /// Whether redirects are followed.
    pub redirects: Redirects,
    /// Connections at once.
    pub connections_max: usize,
}

impl Origin {
    /// What Host says: `host_header`, else the address, and the port unless it is the scheme's.
    pub fn authority(&self) -> String {
        match &self.host_header {
            Some(host) => host.clone(),
            None if self.port == self.scheme.default_port() => self.address.clone(),
            None => format!("{}:{}", self.address, self.port),
        }
    }

    /// The name its certificate must be for, without brackets.
    pub fn tls_name(&self) -> &str {
        let name = self.server_name.as_deref().unwrap_or(&self.address);
        name.trim_start_matches('[').trim_end_matches(']')
    }
}

/// What applies to the paths under one pattern.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The paths it is for.
    pub pattern: PathPattern,
    /// Who comes in, and when; `None`: everybody, always.
    pub entrance: Option<Arc<Entrance>>,
    /// What becomes of those whom routes have for other boxes.
    pub off_route: OffRoute,
    /// Who is let in of those.
    pub access: Access,
    /// How long responses are fresh.
    pub lifetimes: Lifetimes,
    /// Which query parameters tell objects apart.
    pub query: QueryPolicy,
    /// Whether a request's own `Cache-Control` counts.
    pub request_cache_control: RequestCacheControl,
    /// What is passed on to an origin beside GET and HEAD.
    pub methods: Methods,
    /// What a request that is passed on may have for a body, in bytes.
    pub request_body_bytes_max: u64,
    /// Whose PURGE is listened to, if he shows the token; of nobody else's, it is no method here.
    pub purge_from: Vec<Network>,
    /// Where responses are kept.
    pub keep: Keep,
    /// Whether it is made while it is watched.
    pub content: Content,
    /// Which of a viewer's fields an origin gets.
    pub viewer_fields: ViewerFields,
    /// Edits to the request an origin gets.
    pub request: FieldEdits,
    /// Edits to an origin's response, before it is judged and stored.
    pub response: FieldEdits,
    /// Who may read responses in a browser; `None`: what the origin says goes.
    pub cors: Option<Arc<Cors>>,
    /// Who is told of the way to him (CMSD).
    pub cmsd: Cmsd,
    /// Whether what a player says it will ask for next is brought ahead.
    pub foresight: Foresight,
    /// How fast it is sent at most.
    pub pace: Pace,
    /// Whether playlists and MPDs are served with steering in them.
    pub steered: Steered,
}

impl Rule {
    /// One for every path that says nothing else.
    pub fn everything() -> Rule {
        Rule {
            pattern: PathPattern::everything(),
            entrance: None,
            off_route: OffRoute::default(),
            access: Access::default(),
            lifetimes: Lifetimes::default(),
            query: QueryPolicy::default(),
            request_cache_control: RequestCacheControl::default(),
            methods: Methods::default(),
            request_body_bytes_max: REQUEST_BODY_BYTES_DEFAULT,
            purge_from: Vec::new(),
            keep: Keep::default(),
            content: Content::default(),
            viewer_fields: ViewerFields::default(),
            request: FieldEdits::default(),
            response: FieldEdits::default(),
            cors: None,
            cmsd: Cmsd::default(),
            pace: Pace::default(),
            foresight: Foresight::default(),
            steered: Steered::default(),
        }
    }

    /// The names of what is not stored as the origin said it.
    pub fn edited(&self) -> impl Iterator<Item = &HeaderName> {
        let cors = self.cors.iter().map(|_| &ACCESS_CONTROL_ALLOW_ORIGIN);
        self.response.names().chain(cors)
    }
}

/// Which of the fields of a viewer's request may reach an origin, of those that can at all.
///
/// What reaches it and is named by no `Vary` may change what others are given, without being part
/// of what tells responses apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ViewerFields {
    /// All: what the edge does not understand it passes on (RFC 9110 section 5.1).
    #[default]
    All,
    /// Those of these names alone.
    Only(Vec<HeaderName>),
}

impl ViewerFields {
    /// Whether a field of this name may.
    pub fn pass(&self, name: &HeaderName) -> bool {
        match self {
            ViewerFields::All => true,
            ViewerFields::Only(names) => names.contains(name),
        }
    }
}

/// The tiers that keep responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Ram alone: what changes every few seconds would only wear the ssd.
    Ram,
    /// Ram, and ssd where it is admitted.
    #[default]
    Ssd,
}

impl Keep {
    /// Every choice.
    pub const ALL: [Keep; 2] = [Keep::Ram, Keep::Ssd];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Keep::Ram => "ram",
            Keep::Ssd => "ssd",
        }
    }
}

/// What becomes of a request's `Cache-Control`, which is advice (RFC 9111 section 5.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestCacheControl {
    /// It is followed; a version is asked about on request once a second at most.
    #[default]
    Honour,
    /// As if it were not there.
    Ignore,
}

impl RequestCacheControl {
    /// Every choice.
    pub const ALL: [RequestCacheControl; 2] =
        [RequestCacheControl::Honour, RequestCacheControl::Ignore];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            RequestCacheControl::Honour => "honour",
            RequestCacheControl::Ignore => "ignore",
        }
    }
}

/// How long responses keep under one rule. `least` and `given` <= `most` where they are set.
///
/// None of these lets a response be shared that says it must not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// For a response whose origin is silent about its lifetime; `None`: a part of the time since
    /// it was last changed, if it says when (RFC 9111 section 4.2.2), else zero: ask each time.
    pub given: Option<Duration>,
    /// Raises shorter lifetimes, those of errors excepted.
    pub least: Option<Duration>,
    /// Lowers longer lifetimes; wins over `least`.
    pub most: Option<Duration>,
    /// For 4xx and 5xx responses whose origin is silent; zero: not kept.
    pub errors: Duration,
    /// The longest that a 404 or 410 is used, whatever its origin says; `None`: no bound of its
    /// own.
    pub absence_most: Option<Duration>,
    /// How long a stale response may be used while its origin is asked, where that is silent.
    pub stale_while_revalidate: Duration,
    /// How long a stale response may be used where its origin fails, where that is silent.
    pub stale_if_error: Duration,
}

/// Which query parameters name an object; the names are compared as the URL writes them.
///
/// What does not count is neither in the key nor sent to the origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QueryPolicy {
    /// The query counts as it was written.
    #[default]
    All,
    /// No query counts.
    None,
    /// Only the parameters of these names count, in the order of their names.
    Only(Vec<String>),
    /// All parameters but those of these names count, in the order of their names.
    Except(Vec<String>),
}

/// Fields removed, then fields added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldEdits {
    /// Removed, every occurrence.
    pub remove: Vec<HeaderName>,
    /// Added after that, replacing what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl FieldEdits {
    /// Makes the edits.
    pub fn apply_to(&self, fields: &mut HeaderMap) {
        for name in &self.remove {
            fields.remove(name);
        }
        for (name, value) in &self.add {
            fields.insert(name, value.clone());
        }
    }

    /// The names of what is edited.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.remove.iter().chain(self.add.iter().map(|(name, _)| name))
    }

    /// Whether nothing is edited.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn site(id: u16, hosts: &[&str]) -> Site {
        let rule = |pattern| Rule { pattern, ..Rule::everything() };
        Site {
            id: SiteId(id),
            name: format!("site-{id}"),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            origins: Vec::new(),
            share: 1,
            ssd_percent: 100,
            edited_before: Vec::new(),
            rules: vec![
                rule(PathPattern::parse("*.m3u8").unwrap()),
                rule(PathPattern::everything()),
            ],
        }
    }

    #[test]
    fn the_first_matching_rule_counts() {
        let site = site(0, &["a"]);
        assert_eq!(site.rule_for("/live/x.m3u8").pattern.to_string(), "*.m3u8");
        assert_eq!(site.rule_for("/x.ts").pattern.to_string(), "**");
    }

    #[test]
    fn an_origin_says_its_own_host_unless_told_otherwise() {
        let mut origin = Origin {
            scheme: Scheme::Https,
            address: "[::1]".to_owned(),
            port: 443,
            host_header: None,
            server_name: None,
            fields: Vec::new(),
            roots: None,
            redirects: Redirects::Follow,
            connections_max: 1,
        };
        assert_eq!((origin.authority().as_str(), origin.tls_name()), ("[::1]", "::1"));
        origin.port = 80;
        assert_eq!(origin.authority(), "[::1]:80");
        origin.host_header = Some("o.example.com".to_owned());
        origin.server_name = Some("s.example.com".to_owned());
        assert_eq!(
            (origin.authority().as_str(), origin.tls_name()),
            ("o.example.com", "s.example.com")
        );
    }
}
