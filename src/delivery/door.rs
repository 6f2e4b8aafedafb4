//! Whether a viewer is let in to what is behind a token: asked before the cache or an origin is
//! touched. `src/door.rs` decides; here a request is shown to it, and what it says is counted,
//! logged and sent.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE};
use http::request::Parts;
use http::{HeaderValue, Response};

use crate::delivery::Delivery;
use crate::delivery::body::ViewerBody;
use crate::delivery::error::DeliveryError;
use crate::delivery::record::{Record, Viewer};
use crate::door::{Admitted, Asking, Bearer, Connected, Door, Given, Refused, Shown};
use crate::limits::BEARERS_PER_CONNECTION_MAX;
use crate::message::request::host_of;
use crate::metrics::labels;
use crate::server::ConnectionFacts;
use crate::site::{Access, Rule, Scheme};
use crate::token::uri_signing::{Denied, Transport};

/// At whose door a viewer shows what.
#[derive(Debug)]
pub struct Showing {
    door: Arc<Door>,
    shown: Shown,
}

/// What a viewer asks for, as its head says.
pub(super) struct Named<'a> {
    pub(super) host: &'a str,
    pub(super) port: Option<u16>,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
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
        let site = self.shared.sites.load().find(&host_of(parts).ok()?)?.id;
        let door = doors.of(site)?.clone();
        let shown = door.take(parts);
        Some(Box::new(Showing { door, shown }))
    }

    /// Lets a viewer in, or not.
    pub(super) fn let_in(
        &self,
        viewer: &Viewer,
        record: &mut Record,
        rule: &Rule,
        named: &Named<'_>,
    ) -> Result<(), DeliveryError> {
        if rule.access == Access::Open {
            return Ok(());
        }
        let admitted = match &viewer.showing {
            Some(showing) => showing.admit(viewer, named),
            None => Err(Refused::Denied(Denied::Malformed)),
        };
        record.shown(label(&admitted), code(&admitted));
        let admitted = admitted.map_err(DeliveryError::Denied)?;
        record.given = admitted.renewed.map(Box::new);
        if let Some(bearer) = admitted.bearer {
            // A request has one token.
            let _ = viewer.bearer.set(bearer);
        }
        Ok(())
    }
}

impl Showing {
    fn admit(&self, viewer: &Viewer, named: &Named<'_>) -> Result<Admitted, Refused> {
        let Named { host, port, path, query } = *named;
        let connection = &viewer.connection;
        let scheme = if connection.tls.is_some() { Scheme::Https } else { Scheme::Http };
        let (client, now) = (viewer.client, viewer.time);
        let asking = Asking { scheme, host, port, path, query, client, now };
        let admitted = self.door.admit(&self.shown, &asking)?;
        if let Some(bearer) = &admitted.bearer {
            connect(bearer, connection)?;
        }
        Ok(admitted)
    }
}

/// Counts a connection as a bearer's, once.
fn connect(bearer: &Arc<Bearer>, connection: &ConnectionFacts) -> Result<(), Refused> {
    if !bearer.counts_connections() {
        return Ok(());
    }
    let mut beside = connection.beside.borrow_mut();
    let is_his = |one: &Connected| one.is_of(bearer);
    if beside.iter().any(|one| one.downcast_ref::<Connected>().is_some_and(is_his)) {
        return Ok(());
    }
    let connected = bearer.connect().map_err(Refused::Exhausted)?;
    if beside.len() >= BEARERS_PER_CONNECTION_MAX {
        // A proxy brings viewers over one connection; the first of them has not come lately.
        beside.remove(0);
    }
    beside.push(Box::new(connected));
    Ok(())
}

/// As it is counted.
fn label(admitted: &Result<Admitted, Refused>) -> labels::Shown {
    match admitted {
        Ok(Admitted { by_token: true, .. }) => labels::Shown::Verified,
        Ok(_) => labels::Shown::Allowed,
        Err(Refused::Directed) => labels::Shown::Forbidden,
        Err(Refused::Exhausted(_)) => labels::Shown::Exhausted,
        Err(Refused::Denied(denied)) => match denied {
            Denied::Signature => labels::Shown::Signature,
            Denied::Issuer => labels::Shown::Issuer,
            Denied::Subject => labels::Shown::Subject,
            Denied::Audience => labels::Shown::Audience,
            Denied::Expired => labels::Shown::Expired,
            Denied::Early => labels::Shown::Early,
            Denied::Renewal => labels::Shown::Renewal,
            Denied::Used => labels::Shown::Used,
            Denied::Version => labels::Shown::Version,
            Denied::Critical => labels::Shown::Critical,
            Denied::Address => labels::Shown::Address,
            Denied::Container => labels::Shown::Container,
            Denied::Malformed => labels::Shown::Malformed,
        },
    }
}

/// As it is logged.
fn code(admitted: &Result<Admitted, Refused>) -> (u16, Option<&'static str>) {
    match admitted {
        Ok(Admitted { by_token: true, .. }) => (crate::door::VERIFIED, None),
        Ok(_) => (crate::door::UNCHECKED, None),
        Err(refused) => (refused.code(), Some(refused.reason())),
    }
}

/// Has an answer bring the token that takes the place of the one that was shown (RFC 9246 section
/// 3). It is for this viewer alone, and kept nowhere.
pub(super) fn give(given: &Given, is_secure: bool, response: &mut Response<ViewerBody>) {
    let status = response.status();
    if !status.is_success() && !status.is_redirection() {
        return;
    }
    let fields = response.headers_mut();
    let Given { name, token, path, age, .. } = given;
    match given.transport {
        Transport::Cookie => {
            // A page of another site plays with it, which browsers let over TLS alone.
            let secure = if is_secure { "; Secure; SameSite=None" } else { "" };
            let age = age.as_secs();
            let cookie = format!("{name}={token}; Path={path}; Max-Age={age}; HttpOnly{secure}");
            let Ok(cookie) = HeaderValue::from_str(&cookie) else { return };
            fields.append(SET_COOKIE, cookie);
        }
        Transport::Query => {
            let Some(location) = fields.get(LOCATION).and_then(|value| value.to_str().ok()) else {
                return;
            };
            let (uri, fragment) = match location.split_once('#') {
                Some((uri, fragment)) => (uri, format!("#{fragment}")),
                None => (location, String::new()),
            };
            let mark = if uri.contains('?') { '&' } else { '?' };
            let location = format!("{uri}{mark}{name}={token}{fragment}");
            let Ok(location) = HeaderValue::from_str(&location) else { return };
            fields.insert(LOCATION, location);
        }
    }
    // Whoever stands between would give it to others.
    fields.append(CACHE_CONTROL, HeaderValue::from_static("private"));
}
