//! How a token that is used is renewed (CTA-5007 section 4.9.2): a playback goes on with short
//! ones.

use aws_lc_rs::rand;
use coset::cbor::Value;
use http::{HeaderName, HeaderValue};

use super::answer::FRAMING;
use super::cbor::{Map, at, int, map, number, seconds, whole, written};
use super::cose;
use super::denied::Denied;
use super::names::{EXPIRES, ID, ISSUED, REPLAY};
use crate::limits::TOKEN_RENEWAL_SECONDS_MAX;
use crate::token::key::Key;

/// How the next token comes to the viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As the last one came to us.
    Automatic,
    /// In a cookie.
    Cookie,
    /// In a header.
    Header,
    /// In the query of where he is sent.
    Redirect,
}

/// That a token is to be renewed, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Renewal {
    /// How it comes to the viewer.
    pub transport: Transport,
    /// How long the next one is valid from now, in seconds.
    pub seconds: f64,
    /// The status by which he is sent to where it is in the query.
    pub status: u16,
    /// The name of the header it comes in.
    pub header: HeaderName,
    cookie: String,
    cookie_parameters: Vec<String>,
    header_parameters: Vec<String>,
    /// How long before its end it is renewed.
    deadline: f64,
}

impl Renewal {
    /// What the claim says of it.
    ///
    /// # Errors
    /// [`Denied::Renewal`]: nothing that is known here.
    pub(super) fn of(claim: &Value) -> Result<Renewal, Denied> {
        map(claim).and_then(read).ok_or(Denied::Renewal)
    }

    /// Whether a token that ends then is to be renewed now.
    pub(super) fn is_due(&self, expires: Option<f64>, now: f64) -> bool {
        // The next one is not to be due as soon as it is there: who is sent on with it would be
        // sent on again.
        let deadline = self.deadline.min(self.seconds / 2.0);
        expires.is_some_and(|expires| now > expires - deadline)
    }

    /// `Set-Cookie` with this token.
    pub fn set_cookie(&self, token: &str) -> HeaderValue {
        field(&[self.cookie.as_str(), "=", token].concat(), &self.cookie_parameters)
    }

    /// The value of [`Renewal::header`] with this token.
    pub fn value(&self, token: &str) -> HeaderValue {
        field(token, &self.header_parameters)
    }

    /// The next token: it says what the last one said, but for its time.
    pub(super) fn renewed(&self, claims: &Map, key: &Key, now: f64) -> Option<String> {
        let mut claims = claims.clone();
        let is_used_up = at(&claims, REPLAY).and_then(whole) == Some(1);
        for (label, value) in &mut claims {
            match int(label) {
                Some(EXPIRES) => *value = seconds(now + self.seconds),
                Some(ISSUED) => *value = seconds(now),
                // The id of a token that may be used once is used up with it.
                Some(ID) if is_used_up => {
                    let mut id = [0; 16];
                    rand::fill(&mut id).ok()?;
                    *value = id[..].into();
                }
                _ => {}
            }
        }
        cose::signed(written(&Value::Map(claims)), key)
    }
}

fn read(all: &Map) -> Option<Renewal> {
    if !all.iter().all(|(part, _)| int(part).is_some_and(|part| (0..=7).contains(&part))) {
        return None;
    }
    let transport = match at(all, 0).and_then(whole)? {
        0 => Transport::Automatic,
        1 => Transport::Cookie,
        2 => Transport::Header,
        3 => Transport::Redirect,
        _ => return None,
    };
    let header = at(all, 4).map_or(Some(NAME), Value::as_text)?;
    let header = HeaderName::from_bytes(header.as_bytes()).ok()?;
    let cookie = at(all, 3).map_or(Some(NAME), Value::as_text)?;
    // A cookie is called as a header may be (RFC 6265 section 4.1.1).
    HeaderName::from_bytes(cookie.as_bytes()).ok()?;
    let is_in_cookie = matches!(transport, Transport::Automatic | Transport::Cookie);
    // Nobody would look at one that comes back under another name.
    if FRAMING.contains(&header) || is_in_cookie && !cookie.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let status = at(all, 7).map_or(Some(307), whole)?;
    Some(Renewal {
        transport,
        seconds: number(at(all, 1)?)
            .filter(|added| (1.0..=TOKEN_RENEWAL_SECONDS_MAX).contains(added))?,
        deadline: at(all, 2).map_or(Some(DEADLINE_SECONDS), number).filter(|it| *it >= 0.0)?,
        status: u16::try_from(status).ok().filter(|it| [301, 302, 303, 307, 308].contains(it))?,
        header,
        cookie: cookie.to_owned(),
        cookie_parameters: at(all, 5).map_or(Some(Vec::new()), parameters)?,
        header_parameters: at(all, 6).map_or(Some(Vec::new()), parameters)?,
    })
}

/// A text of several, or each by itself.
fn parameters(value: &Value) -> Option<Vec<String>> {
    let texts: Vec<&str> = match value {
        Value::Array(all) => all.iter().map(Value::as_text).collect::<Option<_>>()?,
        one => vec![one.as_text()?],
    };
    let all = texts.iter().flat_map(|text| text.split(';')).map(|one| one.trim().to_owned());
    let all: Vec<String> = all.filter(|one| !one.is_empty()).collect();
    let is_sound = |one: &String| one.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    all.iter().all(is_sound).then_some(all)
}

fn field(start: &str, parameters: &[String]) -> HeaderValue {
    let text = parameters.iter().fold(start.to_owned(), |text, one| text + "; " + one);
    HeaderValue::from_str(&text).expect("a token and its parameters are printable")
}

/// What cookie and header are called (CTA-5007 section 5), unless it says so: what comes in the
/// place of the publisher's cookie has its name.
const NAME: &str = "CTA-Common-Access-Token";
/// How long before its end a token is renewed that does not say so, as published verifiers have it.
const DEADLINE_SECONDS: f64 = 60.0;
