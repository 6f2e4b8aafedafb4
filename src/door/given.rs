//! The token that takes the place of the one that was shown, as it comes with an answer (RFC 9246
//! section 3, CTA-5007 section 4.9.2). It is for one viewer, and kept nowhere.

use std::fmt;

use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, LOCATION, SET_COOKIE};

use crate::token::uri_signing::{Renewal, Renewed, Transport};

/// A token that comes with an answer.
#[derive(Clone, PartialEq)]
pub enum Given {
    /// In a cookie.
    Cookie {
        /// The cookie.
        name: String,
        /// What takes its place, and for which paths.
        renewed: Renewed,
        /// For how long, in seconds.
        seconds: u64,
    },
    /// In the query of where he is sent, if he is.
    Location {
        /// The parameter.
        name: String,
        /// The token.
        token: String,
    },
    /// In a field.
    Field(HeaderName, HeaderValue),
}

impl Given {
    /// One of RFC 9246.
    pub(super) fn of(name: &str, renewal: &Renewal, renewed: Renewed) -> Given {
        let name = name.to_owned();
        match renewal.transport {
            Transport::Cookie => Given::Cookie { name, renewed, seconds: renewal.seconds as u64 },
            Transport::Query => Given::Location { name, token: renewed.token },
        }
    }

    /// Has an answer bring it, unless that is a failure. `is_secure`: it goes over TLS.
    pub fn add_to(self, status: StatusCode, fields: &mut HeaderMap, is_secure: bool) {
        if !status.is_success() && !status.is_redirection() {
            return;
        }
        let is_added = match self {
            Given::Cookie { name, renewed, seconds } => {
                // A page of another site plays with it, which browsers let over TLS alone.
                let secure = if is_secure { "; Secure; SameSite=None" } else { "" };
                let (token, path) = (renewed.token, renewed.path);
                let cookie =
                    format!("{name}={token}; Path={path}; Max-Age={seconds}; HttpOnly{secure}");
                let cookie = HeaderValue::from_str(&cookie);
                cookie.map(|cookie| fields.append(SET_COOKIE, cookie)).is_ok()
            }
            Given::Location { .. } if !status.is_redirection() => false,
            Given::Location { name, token } => {
                let location = fields.get(LOCATION).and_then(|value| value.to_str().ok());
                let location = location.map(|location| with(location, &name, &token));
                let location = location.and_then(|text| HeaderValue::from_str(&text).ok());
                location.map(|location| fields.insert(LOCATION, location)).is_some()
            }
            Given::Field(name, value) => {
                fields.append(name, value);
                true
            }
        };
        if is_added {
            // Whoever stands between would give it to others; some go by fields of their own first
            // (RFC 9213).
            fields.append(CACHE_CONTROL, HeaderValue::from_static("private"));
            TARGETED.iter().for_each(|name| drop(fields.remove(name)));
        }
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

const TARGETED: [HeaderName; 2] =
    [HeaderName::from_static("cdn-cache-control"), HeaderName::from_static("surrogate-control")];

/// A URI with one parameter more.
fn with(uri: &str, name: &str, value: &str) -> String {
    let (uri, fragment) = uri.split_at(uri.find('#').unwrap_or(uri.len()));
    let mark = if uri.contains('?') { '&' } else { '?' };
    format!("{uri}{mark}{name}={value}{fragment}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_stands_before_the_fragment() {
        for (uri, expected) in [
            ("/a", "/a?t=v"),
            ("/a?b=c", "/a?b=c&t=v"),
            ("http://h/a?b#c?d", "http://h/a?b&t=v#c?d"),
            ("/a#c", "/a?t=v#c"),
        ] {
            assert_eq!(with(uri, "t", "v"), expected);
        }
    }

    #[test]
    fn a_failure_brings_no_token() {
        let given = || Given::Field(SET_COOKIE, HeaderValue::from_static("a=b"));
        for (status, expected) in [(200, 1), (206, 1), (304, 1), (404, 0), (503, 0)] {
            let mut fields = HeaderMap::new();
            given().add_to(StatusCode::from_u16(status).unwrap(), &mut fields, true);
            assert_eq!(fields.get_all(SET_COOKIE).iter().count(), expected, "{status}");
            assert_eq!(fields.contains_key(CACHE_CONTROL), expected == 1);
        }
    }
}
