//! Which stored responses the answer to an unsafe request puts an end to (RFC 9111 section 4.4).
//!
//! Those of the URI that was asked, and of what `Location` and `Content-Location` name, of the same
//! origin (RFC 9110 section 4.3.1) alone: nobody is to empty the cache of another's objects.

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, StatusCode};

use crate::message::target::{host_and_port, normalised_path};
use crate::site::Scheme;

/// Scheme, host and port of the URI that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriOrigin {
    /// By the connection.
    pub scheme: Scheme,
    /// In lower case, without a final dot.
    pub host: String,
    /// The usual one where none was named.
    pub port: u16,
}

/// Whether an answer with this status ends anything: one that is no error does.
pub fn ends_stored(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

/// The path, in its one spelling, and the query of each URI that the answer names beside the one
/// asked, whose path is `base`.
pub fn named(asked: &UriOrigin, base: &str, answer: &HeaderMap) -> Vec<(String, Option<String>)> {
    let lines = [LOCATION, CONTENT_LOCATION];
    let lines = lines.iter().flat_map(|name| answer.get_all(name));
    lines.filter_map(|line| resolved(asked, base, line.to_str().ok()?)).collect()
}

/// A reference resolved (RFC 3986 section 5.2); `None` if it leads to another origin, or names
/// nothing but the base itself.
fn resolved(asked: &UriOrigin, base: &str, reference: &str) -> Option<(String, Option<String>)> {
    let reference = reference.split('#').next().unwrap_or_default();
    let scheme_end = reference.find([':', '/', '?']).filter(|at| reference[*at..].starts_with(':'));
    let (relative, has_scheme) = match scheme_end {
        Some(at) if reference[..at].eq_ignore_ascii_case(asked.scheme.as_str()) => {
            (&reference[at + 1..], true)
        }
        Some(_) => return None,
        None => (reference, false),
    };
    let (local, has_authority) = match relative.strip_prefix("//") {
        Some(rest) => {
            let (authority, local) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let (host, port) = host_and_port(authority.as_bytes())?;
            let port = port.unwrap_or(asked.scheme.default_port());
            (host == asked.host && port == asked.port).then_some((local, true))?
        }
        None if has_scheme => return None,
        None => (relative, false),
    };
    let (path, query) = match local.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (local, None),
    };
    let whole = match path {
        "" if has_authority => "/".to_owned(),
        "" if query.is_none() => return None,
        "" => base.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        _ if has_authority => return None,
        path => [&base[..=base.rfind('/')?], path].concat(),
    };
    Some((normalised_path(&whole)?.into_owned(), query))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn references_are_resolved_and_those_to_other_origins_left_out() {
        let asked = UriOrigin { scheme: Scheme::Https, host: "a.test".to_owned(), port: 443 };
        for (reference, expected) in [
            ("/b", Some("/b")),
            ("/b?x=1#f", Some("/b?x=1")),
            ("b", Some("/d/b")),
            ("./b/../c", Some("/d/c")),
            ("../../b", Some("/b")),
            ("?x", Some("/d/base?x")),
            ("", None),
            ("#f", None),
            ("b:c", None),
            ("./b:c", Some("/d/b:c")),
            ("/%7eb", Some("/~b")),
            ("/%zz", None),
            ("https://a.test/b", Some("/b")),
            ("HTTPS://A.Test.:443/b", Some("/b")),
            ("https://a.test", Some("/")),
            ("https://a.test?x", Some("/?x")),
            ("//a.test/b", Some("/b")),
            ("https:b", None),
            ("https:/b", None),
            ("http://a.test/b", None),
            ("http://a.test:443/b", None),
            ("https://a.test:444/b", None),
            ("https://b.test/b", None),
            ("//b.test/b", None),
            ("https://b@a.test/b", None),
            ("https://a.test@b.test/b", None),
            ("https://a.test.b.test/b", None),
            ("https://a.test\\@b.test/b", None),
            ("ftp://a.test/b", None),
            ("javascript:alert(1)", None),
        ] {
            let answer = [(LOCATION, HeaderValue::from_str(reference).unwrap())];
            let found = named(&asked, "/d/base", &answer.into_iter().collect());
            let found = found.into_iter().next().map(|(path, query)| match query {
                Some(query) => format!("{path}?{query}"),
                None => path,
            });
            assert_eq!(found.as_deref(), expected, "{reference:?}");
        }
    }

    #[test]
    fn every_line_of_both_fields_counts() {
        let asked = UriOrigin { scheme: Scheme::Http, host: "a.test".to_owned(), port: 8080 };
        let lines =
            [(LOCATION, "/b"), (CONTENT_LOCATION, "http://a.test:8080/c"), (LOCATION, "/d")];
        let answer = lines.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let mut found = named(&asked, "/", &answer.into_iter().collect());
        found.sort();
        assert_eq!(found, ["/b", "/c", "/d"].map(|path| (path.to_owned(), None)));
    }
}
