//! The token a viewer shows, taken out of his request.
//!
//! What is left has no token any more, in its target, its cookies and its referer: it names
//! objects, is logged and is sent to origins.

use std::fmt;

use http::header::{COOKIE, HeaderName, HeaderValue, REFERER};
use http::request::Parts;
use http::{HeaderMap, Uri};

use crate::limits::ACCESS_TOKEN_BYTES_MAX;
use crate::token::uri_signing::{Found, Unclear, find};

/// What was shown.
pub struct Shown {
    /// In the URI, if it is clear what.
    pub(super) in_uri: Result<Option<Box<str>>, Unclear>,
    /// In a cookie.
    pub(super) in_cookie: Option<Box<str>>,
    /// A Common Access Token, if it is clear which one.
    pub(super) cat: Result<Option<(Carrier, Box<str>)>, Unclear>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// Where a Common Access Token was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Header,
    Cookie,
    Query,
}

impl Shown {
    /// Takes what is called `name` out of a request, and the Common Access Token, where the
    /// parameter for it has a name.
    pub(super) fn take(parts: &mut Parts, name: &str, cat: Option<&str>) -> Shown {
        let in_uri = from_uri(&mut parts.uri, name);
        let in_cookie = from_cookies(&mut parts.headers, name);
        forget_in_referer(&mut parts.headers, name);
        let cat = cat.map_or(Ok(None), |cat| take_cat(parts, cat));
        Shown { in_uri, in_cookie, cat }
    }

    /// Whether it is unclear what: nobody may see what else there is.
    pub fn is_unclear(&self) -> bool {
        self.in_uri.is_err() || self.cat.is_err()
    }

    /// Whether nothing was.
    pub(super) fn is_nothing(&self) -> bool {
        matches!((&self.in_uri, &self.in_cookie, &self.cat), (Ok(None), None, Ok(None)))
    }
}

/// In the header, else in the query, else in the cookie; two in one of them are none.
fn take_cat(parts: &mut Parts, name: &str) -> Result<Option<(Carrier, Box<str>)>, Unclear> {
    let in_query = from_uri(&mut parts.uri, name);
    let in_cookie = from_cookies(&mut parts.headers, CAT_COOKIE);
    forget_in_referer(&mut parts.headers, name);
    let mut fields = parts.headers.get_all(CAT).iter();
    let (first, second) = (fields.next(), fields.next());
    let first = first.map(|value| value.to_str().map(Box::<str>::from).map_err(|_| Unclear));
    let is_one = second.is_none();
    parts.headers.remove(CAT);
    let in_header = if is_one { first.transpose() } else { Err(Unclear) };
    let carried = |carrier| move |token| (carrier, token);
    Ok(in_header?
        .map(carried(Carrier::Header))
        .or(in_query?.map(carried(Carrier::Query)))
        .or(in_cookie.map(carried(Carrier::Cookie))))
}

/// CTA-5007 section 5.
const CAT: HeaderName = HeaderName::from_static("cta-common-access-token");
const CAT_COOKIE: &str = "CTA-Common-Access-Token";

fn from_uri(uri: &mut Uri, name: &str) -> Result<Option<Box<str>>, Unclear> {
    let Some(target) = uri.path_and_query() else { return Ok(None) };
    let (token, bare) = match find(target.as_str(), name) {
        Ok(Found { token: None, .. }) => return Ok(None),
        Ok(Found { token: Some(token), bare }) if token.len() <= ACCESS_TOKEN_BYTES_MAX => {
            (Ok(Some(token.into())), bare.into_owned())
        }
        // Whatever it is, nobody is to see it.
        Ok(_) | Err(Unclear) => (Err(Unclear), before(target.as_str(), name)),
    };
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = bare.parse().ok();
    *uri = Uri::from_parts(parts).unwrap_or_default();
    token
}

/// What stands before the first attribute of this name and the character that begins it: anybody
/// may have written any there.
fn before(target: &str, name: &str) -> String {
    let last = |at| target[..at].char_indices().next_back().map_or(0, |(before, _)| before);
    let end = target.find(name).map_or(target.len(), last);
    if end == 0 { "/".to_owned() } else { target[..end].to_owned() }
}

/// The first of that name: browsers send that of the longest path first (RFC 6265 section 5.4).
fn from_cookies(fields: &mut HeaderMap, name: &str) -> Option<Box<str>> {
    fn token<'a>(one: &'a [u8], name: &str) -> Option<&'a [u8]> {
        one.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")
    }
    let pairs = || {
        let values = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        values.flat_map(|value| value.split(|byte| *byte == b';'))
    };
    let found = pairs().find_map(|one| token(one, name))?;
    let found = str::from_utf8(found).ok().filter(|found| found.len() <= ACCESS_TOKEN_BYTES_MAX);
    let found = found.map_or_else(Box::default, Box::<str>::from);
    let others = pairs().filter(|one| token(one, name).is_none()).map(<[u8]>::trim_ascii);
    let others: Vec<&[u8]> = others.filter(|one| !one.is_empty()).collect();
    let others = HeaderValue::from_bytes(&others.join(&b"; "[..])).ok();
    set(fields, COOKIE, others.filter(|left| !left.is_empty()));
    Some(found)
}

/// A page of this site may have been asked for with a token.
fn forget_in_referer(fields: &mut HeaderMap, name: &str) {
    let mut values = fields.get_all(REFERER).iter();
    let (Some(value), second) = (values.next(), values.next()) else { return };
    let bare = match value.to_str().map(|referer| find(referer, name)) {
        Ok(Ok(Found { token: None, .. })) if second.is_none() => return,
        Ok(Ok(found)) if second.is_none() => HeaderValue::from_str(&found.bare).ok(),
        _ => None,
    };
    set(fields, REFERER, bare);
}

fn set(fields: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => drop(fields.insert(name, value)),
        None => drop(fields.remove(name)),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const NAME: &str = "URISigningPackage";

    fn taken(uri: &str, fields: &[(HeaderName, &str)]) -> (Shown, Parts) {
        let mut request = Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(name, *value);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        (Shown::take(&mut parts, NAME, Some("cat")), parts)
    }

    #[test]
    fn a_token_is_taken_out_of_wherever_it_stands() {
        for (uri, token, left) in [
            ("/a;URISigningPackage=x.y.z/b?c=d", Some("x.y.z"), "/a/b?c=d"),
            ("/a?URISigningPackage=x.y.z&c=d", Some("x.y.z"), "/a?c=d"),
            ("/a?c=d&URISigningPackage=x.y.z", Some("x.y.z"), "/a?c=d"),
            ("/a?URISigningPackage=x.y.z", Some("x.y.z"), "/a"),
            ("http://h.test/a?URISigningPackage=x.y.z", Some("x.y.z"), "http://h.test/a"),
            ("/a?c=d", None, "/a?c=d"),
        ] {
            let (shown, parts) = taken(uri, &[]);
            assert_eq!(shown.in_uri.as_ref().unwrap().as_deref(), token, "{uri}");
            assert_eq!(parts.uri.to_string(), left, "{uri}");
            assert!(shown.in_cookie.is_none());
        }
        for (uri, left) in [
            ("/a?URISigningPackage=x&URISigningPackage=y", "/a"),
            ("/a;URISigningPackage=x/b;URISigningPackage=y", "/a"),
            ("/a?b=c&URISigningPackage=x%41", "/a?b=c"),
            ("/\u{e9}URISigningPackage;URISigningPackage=a;URISigningPackage=b", "/"),
            ("/a\u{1f600}URISigningPackage?URISigningPackage=x%41", "/a"),
        ] {
            let (shown, parts) = taken(uri, &[]);
            assert!(shown.is_unclear() && parts.uri == left, "{uri} {}", parts.uri);
        }
        let long = format!("/a?URISigningPackage={}", "x".repeat(ACCESS_TOKEN_BYTES_MAX + 1));
        assert!(taken(&long, &[]).0.is_unclear());
    }

    #[test]
    fn of_cookies_the_first_counts_and_the_others_stay() {
        for (cookies, token, left) in [
            (&["URISigningPackage=a.b.c"][..], Some("a.b.c"), None),
            (&["u=1; URISigningPackage=a.b.c; v=2"], Some("a.b.c"), Some("u=1; v=2")),
            (&["u=1", "URISigningPackage=a.b.c", "v=2"], Some("a.b.c"), Some("u=1; v=2")),
            (&["URISigningPackage=a; URISigningPackage=b"], Some("a"), None),
            (&["xURISigningPackage=a"], None, Some("xURISigningPackage=a")),
            (&["u=\u{f6}; URISigningPackage=a.b.c"], Some("a.b.c"), Some("u=\u{f6}")),
        ] {
            let fields: Vec<_> = cookies.iter().map(|one| (COOKIE, *one)).collect();
            let (shown, parts) = taken("/", &fields);
            assert_eq!(shown.in_cookie.as_deref(), token, "{cookies:?}");
            let told: Vec<_> = parts.headers.get_all(COOKIE).iter().collect();
            assert_eq!(told, left.into_iter().collect::<Vec<_>>(), "{cookies:?}");
        }
    }

    #[test]
    fn a_common_access_token_is_taken_out_of_wherever_it_stands() {
        let (cat, cookie) = (CAT, "u=1; CTA-Common-Access-Token=c");
        for (uri, fields, token) in [
            ("/a?cat=q&b=c", &[][..], Some((Carrier::Query, "q"))),
            ("/a?b=c", &[(COOKIE, cookie)], Some((Carrier::Cookie, "c"))),
            ("/a?cat=q&b=c", &[(COOKIE, cookie), (cat.clone(), "h")], Some((Carrier::Header, "h"))),
            ("/a?b=c", &[], None),
        ] {
            let (shown, parts) = taken(uri, fields);
            let found = shown.cat.as_ref().unwrap().as_ref();
            assert_eq!(found.map(|(carrier, token)| (*carrier, &**token)), token, "{uri}");
            assert_eq!(parts.uri, "/a?b=c");
            assert!(!parts.headers.contains_key(&cat));
            assert!(parts.headers.get(COOKIE).is_none_or(|left| left == "u=1"));
        }
        let (shown, parts) = taken("/a", &[(cat.clone(), "h"), (cat.clone(), "i")]);
        assert!(shown.cat.is_err() && !parts.headers.contains_key(&cat));
        assert!(taken("/a?cat=q&cat=r", &[]).0.cat.is_err());
    }

    #[test]
    fn a_referer_tells_no_token() {
        for (referer, left) in [
            ("https://h.test/a;URISigningPackage=x.y.z/b", Some("https://h.test/a/b")),
            ("https://h.test/a?URISigningPackage=x&URISigningPackage=y", None),
            ("https://h.test/a", Some("https://h.test/a")),
        ] {
            let (_, parts) = taken("/", &[(REFERER, referer)]);
            let told = parts.headers.get(REFERER).map(|value| value.to_str().unwrap());
            assert_eq!(told, left, "{referer}");
        }
    }
}
