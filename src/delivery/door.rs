//! Whether a viewer is let in: asked before the cache or an origin is touched. His site's rules say
//! from where and when he comes in, `src/door.rs` by which token; here a request is shown to both,
//! and what they say is counted, logged and sent.

use std::sync::Arc;

use http::Uri;
use http::request::Parts;

use crate::access_log::{Code, Decision};
use crate::delivery::Delivery;
use crate::delivery::error::DeliveryError;
use crate::delivery::record::Record;
use crate::delivery::viewer::Viewer;
use crate::door::{Admitted, Asking, Bearer, Connected, Door, Exhausted, Found, Refused, Shown};
use crate::geo::Geo;
use crate::limits::BEARERS_PER_CONNECTION_MAX;
use crate::message::request::host_of;
use crate::message::target::{is_ambiguous, without_parameters};
use crate::metrics::labels;
use crate::object::SiteId;
use crate::server::{ConnectionFacts, Protocol};
use crate::site::{Access, Barred, Entrance, Rule, Scheme, Site};
use crate::token::uri_signing::Denied;

/// At whose door a viewer shows what.
#[derive(Debug)]
pub struct Showing {
    site: SiteId,
    door: Arc<Door>,
    shown: Shown,
    /// As he wrote it.
    asked: Uri,
}

/// What a viewer asks for, as its head says.
pub(super) struct Named<'a> {
    pub(super) site: SiteId,
    pub(super) host: &'a str,
    pub(super) port: Option<u16>,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    /// Path and query, as they name an object.
    pub(super) object: &'a str,
}

impl Delivery {
    /// Takes what a viewer shows out of his request, where his site looks at it: nobody else sees
    /// it.
    pub(super) fn shown(&self, parts: &mut Parts) -> Option<Box<Showing>> {
        let mut doors = self.doors.borrow_mut();
        let doors = doors.load();
        if doors.is_empty() {
            return None;
        }
        let host = host_of(parts).ok();
        let site = host.and_then(|host| self.shared.sites.load().find(&host).map(|site| site.id));
        let Some(site) = site else {
            // It may be of a site that moved, and is logged.
            doors.forget(parts);
            return None;
        };
        let door = doors.of(site)?.clone();
        let asked = parts.uri.clone();
        let shown = door.take(parts);
        Some(Box::new(Showing { site, door, shown, asked }))
    }

    /// Whether a viewer comes in from where he is, and now.
    fn comes_in(
        &self,
        viewer: &Viewer,
        record: &mut Record,
        (entrance, path): (Option<&Entrance>, &str),
    ) -> Result<(), DeliveryError> {
        let site = record.site.as_deref().filter(|site| site.tells_viewers_apart());
        let checked = match entrance {
            _ if site.is_some_and(|site| is_unclear(site, path)) => Err(Barred::Unclear),
            None => return Ok(()),
            Some(entrance) => {
                let mut places = self.places.borrow_mut();
                entrance.check(viewer.client, viewer.time, places.load())
            }
        };
        checked.map_err(|barred| {
            let word = barred.word();
            let label = labels::Barred::ALL.iter().find(|label| label.label() == word);
            record.counters().barred.count(*label.expect("each word has a label"));
            record.barred = Some(word);
            viewer.tell(|| Decision::of("entrance", "barred").because(word));
            DeliveryError::Barred(barred)
        })
    }

    /// Lets a viewer in, or not.
    pub(super) fn let_in(
        &self,
        viewer: &Viewer,
        record: &mut Record,
        rule: &Rule,
        named: &Named<'_>,
    ) -> Result<(), DeliveryError> {
        self.comes_in(viewer, record, (rule.entrance.as_deref(), named.path))?;
        self.keeps(viewer, record, rule.off_route, named)?;
        // By the door of another site, which this one's host was a moment ago, nobody comes in.
        let showing = viewer.showing.as_ref().filter(|showing| showing.site == named.site);
        let is_open = rule.access == Access::Open;
        let admitted = match showing {
            None if is_open => return Ok(()),
            Some(showing) if showing.is_unclear(record, named) => {
                Err(Refused::Denied(Denied::Malformed))
            }
            Some(_) if is_open => {
                record.token = Some((Code::UriSigning(UNCHECKED), None));
                return Ok(());
            }
            Some(showing) => showing.admit(viewer, named, self.places.borrow_mut().load()),
            None => Err(Refused::Denied(Denied::Malformed)),
        };
        let (found, denied) = match &admitted {
            Ok(admitted) => (admitted.found, None),
            Err(refused) => (refused.found(), Some(refused.reason())),
        };
        tell(found, denied, viewer, record);
        let admitted = admitted.map_err(|refused| DeliveryError::Denied(Box::new(refused)))?;
        record.given = admitted.given.map(Box::new);
        if let Some(bearer) = admitted.bearer {
            // A request has one token.
            let _ = viewer.bearer.set(bearer);
        }
        Ok(())
    }
}

impl Showing {
    /// What he asked for, with what he shows.
    pub(super) fn asked(&self) -> &Uri {
        &self.asked
    }

    /// Whether what is asked for, or shown, could be read in two ways: one rule or token would be
    /// looked at here, and something else be served.
    fn is_unclear(&self, record: &Record, named: &Named<'_>) -> bool {
        let site = record.site.as_deref();
        self.shown.is_unclear() || site.is_none_or(|site| is_unclear(site, named.path))
    }

    fn admit(&self, viewer: &Viewer, named: &Named<'_>, places: &Geo) -> Result<Admitted, Refused> {
        let Named { host, port, path, query, object, .. } = *named;
        let connection = &viewer.connection;
        let scheme = if connection.tls.is_some() { Scheme::Https } else { Scheme::Http };
        let (parts, protocol) = (&viewer.parts, connection.protocol);
        let asking = Asking {
            scheme,
            host,
            port,
            path,
            query,
            object,
            method: parts.method.as_str(),
            fields: &parts.headers,
            protocol: connection.tls.as_ref().map(|_| alpn(protocol)),
            client: viewer.client,
            places,
            now: viewer.time,
        };
        self.door.admit(&self.shown, &asking, |bearer| connect(bearer, connection))
    }
}

/// Whether an origin may read a path otherwise than the site's rules do: then one rule would be
/// looked at here, and what is another's be served.
pub(super) fn is_unclear(site: &Site, path: &str) -> bool {
    let is_read_otherwise =
        |bare: &str| is_ambiguous(bare) || !std::ptr::eq(site.rule_for(path), site.rule_for(bare));
    is_ambiguous(path) || (path.contains(';') && is_read_otherwise(&without_parameters(path)))
}

/// What TLS agreed to speak (RFC 7301).
fn alpn(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Http1 => b"http/1.1",
        Protocol::Http2 => b"h2",
    }
}

/// Counts a connection as a bearer's, once.
fn connect(bearer: &Arc<Bearer>, connection: &ConnectionFacts) -> Result<(), Exhausted> {
    if !bearer.counts_connections() {
        return Ok(());
    }
    let mut beside = connection.beside.borrow_mut();
    let is_his = |one: &Connected| one.is_of(bearer);
    if beside.iter().any(|one| one.downcast_ref::<Connected>().is_some_and(is_his)) {
        return Ok(());
    }
    let connected = bearer.connect()?;
    if beside.len() >= BEARERS_PER_CONNECTION_MAX {
        // A proxy brings viewers over one connection; the first of them has not come lately.
        beside.remove(0);
    }
    beside.push(Box::new(connected));
    Ok(())
}

/// Counts and logs what a token was found to be.
fn tell(found: Found, denied: Option<&'static str>, viewer: &Viewer, record: &mut Record) {
    let uri_signing = |word: &str| {
        let shown = labels::Shown::ALL.iter().find(|shown| shown.label() == word);
        record.counters().shown.count(*shown.expect("each code has a label"));
    };
    let code = match found {
        Found::UriSigning(code) => {
            uri_signing(itoa::Buffer::new().format(code));
            Code::UriSigning(code)
        }
        Found::Cat(word) => {
            let shown = labels::CatShown::ALL.iter().find(|shown| shown.label() == word);
            record.counters().cats.count(*shown.expect("each word has a label"));
            Code::Cat(word)
        }
        Found::Unrenewed => {
            uri_signing("unrenewed");
            Code::UriSigning(VERIFIED)
        }
        Found::Allowed => {
            uri_signing("allowed");
            Code::UriSigning(UNCHECKED)
        }
        Found::Forbidden => {
            uri_signing("forbidden");
            Code::UriSigning(UNCHECKED)
        }
        Found::Exhausted => {
            uri_signing("exhausted");
            Code::UriSigning(VERIFIED)
        }
    };
    record.token = Some((code, denied));
    viewer.tell(|| {
        let decision = Decision::of("token", if denied.is_none() { "lets in" } else { "denied" });
        let why = denied.or(found.remark());
        why.map_or(decision.clone(), |why| decision.because(why))
    });
}

/// `s-uri-signing` of a token that is good, and where none was looked at (RFC 9246 section 4.5).
const VERIFIED: u16 = 200;
const UNCHECKED: u16 = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Barred;
    use crate::token::cat;

    #[test]
    fn whatever_a_token_is_found_to_be_and_who_does_not_come_in_has_a_label() {
        let codes = Denied::ALL.iter().map(|denied| denied.code()).chain([VERIFIED]);
        for code in codes.map(|code| code.to_string()) {
            assert!(labels::Shown::ALL.iter().any(|shown| shown.label() == code), "{code}");
        }
        for barred in Barred::ALL {
            assert!(labels::Barred::ALL.iter().any(|label| label.label() == barred.word()));
        }
        let words = cat::Denied::ALL.iter().map(|denied| denied.code());
        for word in words.chain(["ok", "reused", "renewed", "unrenewed"]) {
            assert!(labels::CatShown::ALL.iter().any(|shown| shown.label() == word), "{word}");
        }
    }
}
