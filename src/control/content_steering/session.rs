//! What a player brings along in the URI it was told to ask at next, so that no server has to
//! remember it: `?sid=..&known=a,b&base=a&told=b`.
//!
//! Not signed: who changes it changes his own playback, and no pathway is sent that is not of his
//! own list or of the fleet.

use std::collections::BTreeSet;

use super::Dialect;
use crate::control::registry::appliance::Pathway;
use crate::limits::{PATHWAYS_KNOWN_MAX, STEERING_ENDPOINT_BYTES_MAX, STEERING_SESSION_BYTES_MAX};

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

    /// The one that a query tells of; `None` where it has no id. What cannot be read of the rest
    /// is left out.
    pub fn of_query(query: &str) -> Option<Session> {
        let mut session = Session::new(parameter(query, "sid")?)?;
        let known = parameter(query, "known").unwrap_or_default().split(',');
        for pathway in known.filter_map(Pathway::new) {
            if session.known.len() < PATHWAYS_KNOWN_MAX && !session.known.contains(&pathway) {
                session.known.push(pathway);
            }
        }
        session.base = parameter(query, "base").and_then(Pathway::new);
        session.told = parameter(query, "told").and_then(Pathway::new);
        Some(session)
    }

    /// Its name, which nobody guesses.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it plays from, as far as it was told to: a pathway that is merely reported may be that
    /// of whoever gave it the playlist.
    pub fn plays_from(&self, dialect: Dialect, reported: &[Pathway]) -> Option<&Pathway> {
        let told = self.told.as_ref()?;
        let does = match dialect {
            Dialect::Hls => reported.first() == Some(told),
            Dialect::Dash => reported.contains(told),
        };
        does.then_some(told)
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
        let mut query = format!("sid={}", self.id);
        for (name, value) in others {
            value.into_iter().for_each(|value| query.extend(["&", name, "=", &value]));
        }
        query
    }
}

/// Where players ask about one asset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// A URI of HTTP, or a path; `None` if it is none, or has a query or what would have to be
    /// escaped in a playlist.
    pub fn new(uri: &str) -> Option<Endpoint> {
        let plain =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/[]@!$&'()*+,;=%".contains(&byte);
        let begins = ["https://", "http://", "/"].iter().any(|start| uri.starts_with(start));
        let fits = begins && !uri.starts_with("//") && uri.len() <= STEERING_ENDPOINT_BYTES_MAX;
        (fits && uri.bytes().all(plain)).then(|| Endpoint(uri.to_owned()))
    }

    /// Where that session asks.
    pub fn uri(&self, session: &Session) -> String {
        format!("{}?{}", self.0, session.query())
    }
}

/// Each of them once.
pub(super) fn known<'a>(pathways: impl Iterator<Item = &'a Pathway>) -> Vec<Pathway> {
    BTreeSet::from_iter(pathways).into_iter().cloned().collect()
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
    fn what_cannot_be_read_of_a_session_is_left_out() {
        for without_id in ["", "sid", "sid=", "sid=a%20b", "SID=a", "known=a", &"sid=a".repeat(99)]
        {
            assert_eq!(Session::of_query(without_id), None, "{without_id}");
        }
        let many: Vec<String> = (0..40).map(|n| format!("p{n}")).collect();
        for (query, known) in [
            ("sid=a&known=", 0),
            ("sid=a&known=a,,a,b", 2),
            ("sid=a&known=a%2Cb,c d,e", 1),
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
        assert_eq!(session.plays_from(Dialect::Hls, &both), None, "it plays from another one");
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
            assert_eq!(Endpoint::new(uri), None, "{uri}");
        }
    }
}
