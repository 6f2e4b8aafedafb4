//! What a player brings along in the URI it was told to ask at next, so that no server has to
//! remember it: `?sid=..&known=a,b&base=a&told=b&sig=..`.
//!
//! Of what is not signed by an endpoint that signs, only says what its asset has: its playlist may
//! say so. No pathway is sent that is not of his own list or of the fleet.

use std::collections::BTreeSet;

use super::Dialect;
use super::signature::{Secret, name};
use crate::control::registry::appliance::Pathway;
use crate::limits::{PATHWAYS_KNOWN_MAX, STEERING_ENDPOINT_BYTES_MAX, STEERING_SESSION_BYTES_MAX};
use crate::message::target::decoded;

/// One playback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    id: String,
    /// The pathways that its playlist or MPD names; empty: nobody said.
    pub known: Vec<Pathway>,
    /// The one of them that others can be cloned from.
    pub base: Option<Pathway>,
    /// Where it was told to play from the last time.
    pub told: Option<Pathway>,
}

impl Session {
    /// One that begins; `None` unless the id is 1 to 64 characters that need no escape in a URI.
    pub fn new(id: &str) -> Option<Session> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let fits = (1..=STEERING_SESSION_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain);
        fits.then(|| Session { id: id.to_owned(), known: Vec::new(), base: None, told: None })
    }

    /// Nobody's, as a playlist that is served to everybody has it: who asks with it begins his own.
    pub fn nobodys() -> Session {
        Session { id: String::new(), known: Vec::new(), base: None, told: None }
    }

    /// The one that a query tells of; `None` where it has no id. What cannot be read of the rest
    /// is left out.
    pub fn of_query(query: &str) -> Option<Session> {
        let mut session = Session::new(&text(query, "sid")?)?.of_asset_in(query);
        session.told = text(query, "told").and_then(|name| Pathway::new(&name));
        Some(session)
    }

    /// One that begins, under a name that nobody guesses; the query may say what its asset has.
    pub fn begun(query: &str) -> Session {
        let session = Session::new(&name()).expect("a name that is made here needs no escape");
        session.of_asset_in(query)
    }

    fn of_asset_in(mut self, query: &str) -> Session {
        let known = text(query, "known").unwrap_or_default();
        for pathway in known.split(',').filter_map(Pathway::new) {
            if self.known.len() < PATHWAYS_KNOWN_MAX && !self.known.contains(&pathway) {
                self.known.push(pathway);
            }
        }
        self.base = text(query, "base").and_then(|name| Pathway::new(&name));
        self
    }

    /// Its name, which nobody guesses.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it plays from, once it was told where to: before, a pathway that is merely reported
    /// may be that of whoever gave it the playlist. One that left where it was told to play has a
    /// reason, and is not sent back.
    pub fn plays_from<'a>(
        &'a self,
        dialect: Dialect,
        reported: &'a [Pathway],
    ) -> Option<&'a Pathway> {
        let told = self.told.as_ref()?;
        match dialect {
            Dialect::Hls => reported.first(),
            // It reports all that it measured.
            Dialect::Dash => reported.contains(told).then_some(told),
        }
    }

    /// Where it is best left when there is no time to decide: where it seems to be, or else where
    /// its asset begins.
    pub(super) fn goes_on_from<'a>(
        &'a self,
        dialect: Dialect,
        reported: &'a [Pathway],
    ) -> Option<&'a Pathway> {
        let seems = match dialect {
            Dialect::Hls => reported.first(),
            Dialect::Dash => self.told.as_ref(),
        };
        let base = || self.base.as_ref().filter(|base| self.has(reported).contains(base));
        seems.or_else(base)
    }

    /// The pathways that its playlist or MPD names; where nobody said, those that a player reports.
    pub fn has<'a>(&'a self, reported: &'a [Pathway]) -> &'a [Pathway] {
        if self.known.is_empty() { reported } else { &self.known }
    }

    /// The only ones it can be sent to; `None`: any, as clones.
    pub fn among<'a>(&'a self, reported: &'a [Pathway]) -> Option<&'a [Pathway]> {
        let has = self.has(reported);
        let clonable = self.base.as_ref().is_some_and(|base| has.contains(base));
        (!clonable).then_some(has)
    }

    /// The same where a playlist or an MPD names these, and others can be cloned from that one.
    pub(super) fn of_asset(&self, known: Vec<Pathway>, base: &Pathway) -> Session {
        Session { id: self.id.clone(), known, base: Some(base.clone()), told: None }
    }

    fn query(&self) -> String {
        let known: Vec<&str> = self.known.iter().map(Pathway::as_str).collect();
        let known = Some(known.join(",")).filter(|known| !known.is_empty());
        let text = |pathway: &Option<Pathway>| pathway.as_ref().map(Pathway::to_string);
        let others = [("known", known), ("base", text(&self.base)), ("told", text(&self.told))];
        let id = Some(self.id.clone()).filter(|id| !id.is_empty());
        let mut query = String::new();
        for (name, value) in [("sid", id)].into_iter().chain(others) {
            let Some(value) = value else { continue };
            let joint = if query.is_empty() { "" } else { "&" };
            query.extend([joint, name, "=", &value]);
        }
        query
    }
}

/// Where players ask about one asset.
#[derive(Clone, Debug)]
pub struct Endpoint {
    uri: String,
    /// Where its path begins.
    path_at: usize,
    secret: Option<Secret>,
}

impl Endpoint {
    /// A URI of HTTP, or a path; `None` if it is none, or has a query or what would have to be
    /// escaped in a playlist.
    pub fn new(uri: &str) -> Option<Endpoint> {
        let plain =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/[]@!$&'()*+,;=%".contains(&byte);
        let begins = ["https://", "http://", "/"].iter().any(|start| uri.starts_with(start));
        let fits = begins && !uri.starts_with("//") && uri.len() <= STEERING_ENDPOINT_BYTES_MAX;
        let path = uri
            .split_once("://")
            .map_or(uri, |(_, rest)| &rest[rest.find('/').unwrap_or(rest.len())..]);
        let (uri, path_at, secret) = (uri.to_owned(), uri.len() - path.len(), None);
        (fits && uri.bytes().all(plain)).then_some(Endpoint { uri, path_at, secret })
    }

    /// The same, where sessions are signed.
    pub fn signed_with(self, secret: Secret) -> Endpoint {
        Endpoint { secret: Some(secret), ..self }
    }

    /// The port that its scheme has where none is named; `None`: it is a path.
    pub(super) fn usual_port(&self) -> Option<u16> {
        let is = |scheme: &str| self.uri.starts_with(scheme);
        if is("https://") { Some(443) } else { is("http://").then_some(80) }
    }

    /// Where that session asks.
    pub fn uri(&self, session: &Session) -> String {
        let (uri, query) = (&self.uri, session.query());
        match &self.secret {
            None => format!("{uri}?{query}"),
            Some(secret) => {
                let signature = secret.signature(&self.signed_of(&query));
                format!("{uri}?{query}&{SIGNATURE}={signature}")
            }
        }
    }

    /// The session of who asks here: what he brings along, if it was signed here, or another one.
    pub fn session(&self, query: &str) -> Brought {
        let Some(session) = Session::of_query(query) else {
            return Brought::Nothing(Session::begun(query));
        };
        let signature = text(query, SIGNATURE).unwrap_or_default();
        let is_ours = self.secret.as_ref().is_none_or(|secret| {
            secret.is_signature(&signature, &self.signed_of(&session.query()))
        });
        match is_ours {
            true => Brought::Session(session),
            false => Brought::Forged(Session::begun(query)),
        }
    }

    /// What is signed: by which name the server was reached does not count.
    fn signed_of(&self, query: &str) -> String {
        [&self.uri[self.path_at..], "?", query].concat()
    }
}

/// What somebody who asks brings along, and the session that it is or begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brought {
    /// A session.
    Session(Session),
    /// None.
    Nothing(Session),
    /// One that was not signed here, or for another asset.
    Forged(Session),
}

const SIGNATURE: &str = "sig";

/// Each of them once.
pub(super) fn known<'a>(pathways: impl Iterator<Item = &'a Pathway>) -> Vec<Pathway> {
    BTreeSet::from_iter(pathways).into_iter().cloned().collect()
}

/// The first parameter of a query that is called so. Players that add theirs write all others anew
/// (`URLSearchParams`): a comma comes back as `%2C`.
fn text(query: &str, name: &str) -> Option<String> {
    String::from_utf8(decoded(parameter(query, name)?)?).ok()
}

/// The first parameter of a query that is called so, as it is written.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut parameters = query.split('&').filter_map(|parameter| parameter.split_once('='));
    parameters.find(|(found, _)| *found == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pathway(name: &str) -> Pathway {
        Pathway::new(name).unwrap()
    }

    #[test]
    fn a_session_comes_back_as_it_was_sent() {
        let endpoint = Endpoint::new("https://steer.example/steer/hls/film").unwrap();
        let mut session = Session::new("a1-._~").unwrap();
        assert_eq!(endpoint.uri(&session), "https://steer.example/steer/hls/film?sid=a1-._~");
        session.known = vec![pathway("edge-1"), pathway("origin")];
        session.base = Some(pathway("origin"));
        session.told = Some(pathway("edge-1"));
        let uri = endpoint.uri(&session);
        let (_, query) = uri.split_once('?').unwrap();
        assert_eq!(query, "sid=a1-._~&known=edge-1,origin&base=origin&told=edge-1");
        assert_eq!(Session::of_query(query), Some(session.clone()));
        let with_report = format!("{query}&_HLS_pathway=edge-1&_HLS_throughput=1");
        assert_eq!(Session::of_query(&with_report), Some(session));
    }

    #[test]
    fn nobodys_session_names_its_asset_and_who_asks_with_it_begins_his_own() {
        let endpoint = Endpoint::new("/steer/hls/film").unwrap();
        let pathway = Pathway::new("a").unwrap();
        let nobodys = Session::nobodys();
        assert_eq!(
            endpoint.uri(&nobodys.of_asset(vec![pathway.clone()], &pathway)),
            "/steer/hls/film?known=a&base=a"
        );
        let signed = endpoint.signed_with(Secret::random().unwrap());
        let Brought::Nothing(begun) = signed.session("known=a&base=a") else { panic!("forged") };
        assert_eq!(
            (begun.id().len(), begun.known, begun.base),
            (22, vec![pathway.clone()], Some(pathway))
        );
    }

    #[test]
    fn what_cannot_be_read_of_a_session_is_left_out() {
        for without_id in ["", "sid", "sid=", "sid=a%20b", "SID=a", "known=a", &"sid=a".repeat(99)]
        {
            assert_eq!(Session::of_query(without_id), None, "{without_id}");
        }
        let many: Vec<String> = (0..40).map(|n| format!("p{n}")).collect();
        for (query, known) in [
            ("sid=a&known=", 0),
            ("sid=a&known=a,,a,b", 2),
            ("sid=a&known=a%2Cb,c d,e", 3),
            ("sid=a&known=a%2Cb%ff", 0),
            (&format!("sid=a&known={}", many.join(",")), PATHWAYS_KNOWN_MAX),
        ] {
            assert_eq!(Session::of_query(query).unwrap().known.len(), known, "{query}");
        }
        let session = Session::of_query("sid=a&base=%22&told=a/b").unwrap();
        assert_eq!((session.base, session.told), (None, None));
    }

    #[test]
    fn a_player_plays_where_it_was_told_to_when_it_says_so() {
        let mut session = Session::new("a").unwrap();
        let both = [pathway("a"), pathway("b")];
        assert_eq!(session.plays_from(Dialect::Hls, &both), None);
        session.told = Some(pathway("b"));
        let left = session.plays_from(Dialect::Hls, &both);
        assert_eq!(left, Some(&both[0]), "it has left where it was told to");
        assert_eq!(session.plays_from(Dialect::Hls, &[]), None);
        assert_eq!(session.plays_from(Dialect::Hls, &both[1..]), Some(&both[1]));
        assert_eq!(session.plays_from(Dialect::Dash, &both), Some(&both[1]), "it measured both");
        assert_eq!(session.plays_from(Dialect::Dash, &[]), None);
    }

    #[test]
    fn an_endpoint_needs_no_escape_in_a_playlist() {
        for uri in ["https://s.example/a", "http://[::1]:8080/a", "/steer/hls/a%20b/c.m3u8"] {
            assert!(Endpoint::new(uri).is_some(), "{uri}");
        }
        let long = format!("/{}", "a".repeat(STEERING_ENDPOINT_BYTES_MAX));
        for uri in ["", "a", "//a", "ftp://a/", "/a?b", "/a#b", "/a\"b", "/a\nb", "/é", "/<", &long]
        {
            assert!(Endpoint::new(uri).is_none(), "{uri}");
        }
    }

    #[test]
    fn players_that_write_the_query_anew_bring_the_same_session() {
        let endpoint = Endpoint::new("https://s.example/hls/film").unwrap();
        let endpoint = endpoint.signed_with(Secret::random().unwrap());
        let session = Session {
            known: vec![pathway("a"), pathway("b.c")],
            told: Some(pathway("a")),
            ..Session::new("~a-._").unwrap()
        };
        let uri = endpoint.uri(&session);
        let (_, query) = uri.split_once('?').unwrap();
        // As `URL.searchParams.set` leaves it, which hls.js and dash.js call.
        let anew = query.replace(',', "%2C").replace('~', "%7E") + "&_HLS_pathway=a";
        assert_ne!(anew, query);
        for query in [query, &anew] {
            assert_eq!(endpoint.session(query), Brought::Session(session.clone()), "{query}");
        }
    }

    #[test]
    fn a_session_that_was_not_signed_here_begins_anew_and_keeps_what_its_asset_has() {
        let secret = || Secret::of(b"0123456789abcdef").unwrap();
        let at = |uri| Endpoint::new(uri).unwrap().signed_with(secret());
        let endpoint = at("https://s.example/hls/film");
        let mut session = Session::new("chosen").unwrap();
        session.known = vec![pathway("a")];
        session.told = Some(pathway("a"));
        let signed = endpoint.uri(&session);
        let (_, signed) = signed.split_once('?').unwrap();
        for uri in ["/hls/film", "http://other.example:8080/hls/film"] {
            assert_eq!(at(uri).session(signed), Brought::Session(session.clone()), "{uri}");
        }
        let forged = [
            (&endpoint, "sid=chosen&known=a&told=a".to_owned()),
            (&endpoint, signed.replace("chosen", "another")),
            (&endpoint, signed.replace("told=a", "told=b")),
            (&at("/hls/other"), signed.to_owned()),
        ];
        for (endpoint, query) in forged {
            let Brought::Forged(begun) = endpoint.session(&query) else { panic!("{query}") };
            assert_eq!((begun.id().len(), begun.known.len(), begun.told), (22, 1, None));
        }
        let Brought::Nothing(begun) = endpoint.session("known=a,b&base=b") else { panic!() };
        assert_eq!((begun.known.len(), begun.base.clone()), (2, Some(pathway("b"))));
        let Brought::Nothing(other) = endpoint.session("") else { panic!() };
        assert_ne!(begun.id(), other.id(), "nobody guesses it");
    }
}
