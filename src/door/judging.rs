//! Whether a viewer is let in: what he shows, compared with what he asks for.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;
use http::header::{HeaderValue, LOCATION, SET_COOKIE};

use super::bearers::{Allowance, Bearer, Exhausted};
use super::found::{Admitted, Found, Instead, OK, REUSED, Refused, UNRENEWED, VERIFIED};
use super::given::Given;
use super::shown::{Carrier, Shown};
use super::{Asking, Door, Known, SET_CLOCKS_SAY};
use crate::geo::Country;
use crate::message::target::canonical_query;
use crate::site::QueryPolicy;
use crate::token::cat;
use crate::token::key_file::Auth;
use crate::token::uri_signing::{self, Denied, uri_of};

impl Door {
    /// Whether a viewer is let in who shows this. `connect` counts his connection as a bearer's.
    ///
    /// # Errors
    /// He is not.
    pub fn admit(
        &self,
        shown: &Shown,
        asking: &Asking<'_>,
        connect: impl Fn(&Arc<Bearer>) -> Result<(), Exhausted>,
    ) -> Result<Admitted, Refused> {
        let malformed = || Refused::Denied(Denied::Malformed);
        let scheme = self.demands.scheme.unwrap_or(asking.scheme);
        // What players and steering add is for nobody but who serves.
        let query = canonical_query(asking.query, &QueryPolicy::All, |_| false);
        let (host, port, path) = (asking.host, asking.port, asking.path);
        let uri = uri_of(scheme.as_str(), host, port, path, query.as_deref());
        let uri = uri.ok_or_else(malformed)?;
        let known = self.known.load();
        // A port that he names may be none that anybody thought of.
        let without_port = || uri_of(scheme.as_str(), host, None, path, query.as_deref());
        let directed = |uri: &str| known.keys.directed(uri, &self.demands.settings);
        let auth = match known.keys.direct() {
            true => {
                let other = port.and_then(|_| without_port());
                let both = [directed(&uri), other.and_then(|uri| directed(&uri))];
                let is_denied = both.contains(&Some(Auth::Deny));
                if is_denied { Some(Auth::Deny) } else { both[0].or(both[1]) }
            }
            false => None,
        };
        match auth {
            Some(Auth::Deny) => return Err(Refused::Directed),
            Some(Auth::Allow) => {
                return Ok(Admitted { found: Found::Allowed, given: None, bearer: None });
            }
            None => {}
        }
        let in_uri = shown.in_uri.as_ref().map_err(|_| malformed())?.as_deref();
        let cats = shown.cats.as_ref().map_err(|_| Refused::Cat(cat::Denied::Malformed))?;
        if shown.is_nothing() {
            return Err(malformed());
        }
        let now = asking.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let asked = RefCell::default();
        let at = At { known: &known, uri: &uri, asking, connect: &connect, asked: &asked, now };
        // A player that asks for the same playlist again shows the one its URI had at first.
        let tokens = in_uri.into_iter().chain(shown.in_cookies.iter().map(|token| &**token));
        let by_uri = tokens.map(|token| self.by_uri(&at, token));
        let by_cat = cats.iter().map(|(carrier, token)| self.by_cat(&at, *carrier, token));
        let mut answered: Option<Refused> = None;
        for judged in by_uri.chain(by_cat) {
            match judged {
                Ok(admitted) => return Ok(admitted),
                Err(refused @ Refused::Exhausted(_)) => return Err(refused),
                // Of several, the first of those that say most.
                Err(refused) => match &answered {
                    Some(first) if first.says() >= refused.says() => {}
                    _ => answered = Some(refused),
                },
            }
        }
        Err(answered.unwrap_or_else(malformed))
    }

    fn by_uri(&self, at: &At<'_>, token: &str) -> Result<Admitted, Refused> {
        let At { known, uri, asking, now, .. } = *at;
        if now < SET_CLOCKS_SAY {
            // What has expired could not be told from what has not.
            return Err(Refused::Denied(Denied::Early));
        }
        let settings = &self.demands.settings;
        let verify = || {
            let verified = uri_signing::Verified::of(token, &known.keys, settings)?;
            let bytes = verified.bytes();
            Ok((verified, bytes))
        };
        let verified = known.uris.of(token, verify).map_err(Refused::Denied)?;
        let (path, client, now_seconds) = (asking.path, asking.client, now.as_secs_f64());
        let asked = uri_signing::Asked { uri, path, client, now: now_seconds };
        let lets_in = || verified.admits(&asked, |_| true).map(drop).map_err(Refused::Denied);
        let bearer = self.bearer(at, verified.bearer(), lets_in)?;
        let is_first = |used: uri_signing::Use<'_>| {
            // Of the same content, however it is asked for.
            let used = uri_signing::Use { uri: asking.object, ..used };
            self.uses.is_first(&self.site, &used, now)
        };
        let renewal = verified.admits(&asked, is_first).map_err(Refused::Denied)?;
        let is_due = renewal.is_some();
        let given = renewal.and_then(|renewal| {
            let renewed = verified.renewed(renewal, &asked, &known.keys)?;
            Some(Given::of(&self.demands.name, renewal, renewed))
        });
        let is_renewed = !is_due || given.is_some();
        let found = if is_renewed { Found::UriSigning(VERIFIED) } else { Found::Unrenewed };
        Ok(Admitted { found, given, bearer })
    }

    fn by_cat(&self, at: &At<'_>, carrier: Carrier, token: &str) -> Result<Admitted, Refused> {
        let At { known, uri, asking, now, .. } = *at;
        if now < SET_CLOCKS_SAY {
            return Err(Refused::Cat(cat::Denied::Early));
        }
        let verify = || {
            let uri_signing::Settings { issuers, audience, .. } = self.demands.settings.clone();
            let settings = cat::Settings { issuers, audience };
            let verified = cat::Verified::of(token, &known.keys, &settings)?;
            let bytes = verified.bytes(token);
            Ok((verified, bytes))
        };
        let verified = known.cats.of(token, verify).map_err(Refused::Cat)?;
        let places = asking.places;
        let asn = |address| places.place(address).as_number;
        let country = |address| places.place(address).country.map(Country::letters);
        let asked = cat::Asked {
            uri,
            method: asking.method,
            headers: asking.fields,
            alpn: asking.protocol,
            tls_public_key: None,
            client: asking.client,
            asn: Some(&asn),
            country: Some(&country),
            now: now.as_secs_f64(),
        };
        let refused = |refused: cat::Refused<'_>| {
            let why = refused.denied;
            let instead = refused.answer.and_then(|answer| {
                let fields = verified.answered(answer, &asked, &known.keys)?;
                let status = StatusCode::from_u16(answer.status).ok()?;
                Some(Box::new(Instead { status, fields, why: Some(why) }))
            });
            instead.map_or(Refused::Cat(why), Refused::Answered)
        };
        let lets_in = || verified.admits(&asked, |_| true).map(drop).map_err(refused);
        let bearer = self.bearer(at, verified.bearer(), lets_in)?;
        let mut found = OK;
        let is_first = |used: cat::Use<'_>| {
            let (issuer, id, expires) = (used.issuer, used.id, used.expires);
            let used = uri_signing::Use { issuer, id, uri: "", expires, is_renewed: false };
            let is_first = self.uses.is_first(&self.site, &used, now);
            found = if is_first { OK } else { REUSED };
            is_first
        };
        let renewal = verified.admits(&asked, is_first).map_err(refused)?;
        let renewed = renewal
            .and_then(|renewal| Some((renewal, verified.renewed(renewal, &asked, &known.keys)?)));
        let given = match renewed {
            None => {
                if renewal.is_some() {
                    found = UNRENEWED;
                }
                None
            }
            Some((renewal, token)) => Some(self.given(renewal, carrier, &token, asking)?),
        };
        Ok(Admitted { found: Found::Cat(found), given, bearer })
    }

    /// The next Common Access Token, with the answer.
    ///
    /// # Errors
    /// The viewer is sent to where it is in the query.
    fn given(
        &self,
        renewal: &cat::Renewal,
        carrier: Carrier,
        token: &str,
        asking: &Asking<'_>,
    ) -> Result<Given, Refused> {
        use cat::Transport::{Automatic, Cookie, Header, Redirect};
        match (renewal.transport, carrier) {
            (Cookie, _) | (Automatic, Carrier::Cookie) => {
                Ok(Given::Field(SET_COOKIE, renewal.set_cookie(token)))
            }
            (Header, _) | (Automatic, Carrier::Header) => {
                Ok(Given::Field(renewal.header.clone(), renewal.value(token)))
            }
            (Redirect, _) | (Automatic, Carrier::Query) => {
                let name = self.demands.cat.as_deref().unwrap_or_default();
                let query = asking.query.map_or(String::new(), |query| format!("{query}&"));
                let location = format!("{}?{query}{name}={token}", asking.path);
                let status = StatusCode::from_u16(renewal.status);
                let location = HeaderValue::from_str(&location);
                let (Ok(status), Ok(location)) = (status, location) else {
                    return Err(Refused::Cat(cat::Denied::Renewal));
                };
                let fields = vec![(LOCATION, location)];
                Err(Refused::Answered(Box::new(Instead { status, fields, why: None })))
            }
        }
    }

    /// Who bears a token, where what he may have is bounded: asked before it is used up, and only
    /// of one that lets in; once, however many of his tokens are shown.
    fn bearer(
        &self,
        at: &At<'_>,
        token: u128,
        lets_in: impl FnOnce() -> Result<(), Refused>,
    ) -> Result<Option<Arc<Bearer>>, Refused> {
        let allowance = self.demands.allowance;
        if allowance == Allowance::default() {
            return Ok(None);
        }
        lets_in()?;
        let bearer = self.bearers.of(&self.site, token, allowance);
        let mut asked = at.asked.borrow_mut();
        if !asked.iter().any(|one| Arc::ptr_eq(one, &bearer)) {
            bearer.ask(at.now).map_err(Refused::Exhausted)?;
            (at.connect)(&bearer).map_err(Refused::Exhausted)?;
            asked.push(bearer.clone());
        }
        Ok(Some(bearer))
    }
}

/// One request at a door.
#[derive(Clone, Copy)]
struct At<'a> {
    known: &'a Known,
    /// As tokens name it.
    uri: &'a str,
    asking: &'a Asking<'a>,
    connect: &'a dyn Fn(&Arc<Bearer>) -> Result<(), Exhausted>,
    /// Bearers that this request has been counted of.
    asked: &'a RefCell<Vec<Arc<Bearer>>>,
    /// Since 1970.
    now: Duration,
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use http::{HeaderMap, Request};
    use serde_json::json;

    use super::*;
    use crate::door::bearers::Bearers;
    use crate::door::{Demands, KeySource, Secret, Uses};
    use crate::geo::Geo;
    use crate::site::Scheme;
    use crate::token::key_file::KeyFile;
    use crate::token::uri_signing::{Matching, mint};

    const KEYS: &str = r#"{ "a": { "renewal_kid": "k", "keys": [ { "kty": "oct", "kid": "k",
        "alg": "HS256", "k": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE" } ] } }"#;

    #[test]
    fn where_the_clock_says_that_it_is_before_2020_no_token_is_good_and_then_the_same_one_is() {
        let keys = KeyFile::parse(KEYS.as_bytes()).unwrap().keys(Matching::Full).unwrap();
        let claims = json!({ "cdniuc": "regex:.*", "exp": 1_600_000_000 });
        let token = mint(claims.as_object().unwrap(), keys.renewal("a").unwrap()).unwrap();
        let cat = cat::mint(
            json!({ "exp": 1_600_000_000 }).as_object().unwrap(),
            keys.renewal("a").unwrap(),
        )
        .unwrap();
        let demands = Demands {
            name: "t".to_owned(),
            source: KeySource::Fleet("film".to_owned()),
            keys: Secret(KEYS.as_bytes().into()),
            settings: uri_signing::Settings::default(),
            cat: Some("cat".to_owned()),
            scheme: None,
            allowance: Allowance::default(),
        };
        let (bearers, uses) = (Arc::new(Bearers::default()), Uses::nowhere());
        let door = Door::new("media", demands, 1 << 20, bearers, uses).unwrap();
        let (fields, places) = (HeaderMap::new(), Geo::default());
        let admitted = |target: &str, seconds: u64| {
            let asking = Asking {
                scheme: Scheme::Http,
                host: "media.test",
                port: None,
                path: "/a",
                query: None,
                object: "/a",
                method: "GET",
                fields: &fields,
                protocol: None,
                client: IpAddr::V4(Ipv4Addr::LOCALHOST),
                places: &places,
                now: UNIX_EPOCH + Duration::from_secs(seconds),
            };
            let mut parts = Request::builder().uri(target).body(()).unwrap().into_parts().0;
            door.admit(&door.take(&mut parts), &asking, |_| Ok(())).map(|admitted| admitted.found)
        };
        let (by_uri, by_cat) = (format!("/a?t={token}"), format!("/a?cat={cat}"));
        for early in [0, 1, 1_577_836_799] {
            assert!(matches!(admitted(&by_uri, early), Err(Refused::Denied(Denied::Early))));
            assert!(matches!(admitted(&by_cat, early), Err(Refused::Cat(cat::Denied::Early))));
        }
        for set in [1_577_836_800, 1_599_999_999] {
            assert_eq!(admitted(&by_uri, set).unwrap(), Found::UriSigning(VERIFIED));
            assert_eq!(admitted(&by_cat, set).unwrap(), Found::Cat(OK));
        }
    }
}
