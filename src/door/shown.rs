//! The token a viewer shows, taken out of his request.
//!
//! What is left has no token any more, in its target, its cookies and its referer: it names
//! objects, is logged and is sent to origins.

use std::borrow::Cow;

use http::header::{COOKIE, HeaderName, HeaderValue, REFERER};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};

use crate::token::uri_signing::{Unclear, find};

/// What was shown.
#[derive(Debug)]
pub struct Shown {
    /// In the URI, if it is clear what.
    pub(super) in_uri: Result<Option<Box<str>>, Unclear>,
    /// In a cookie.
    pub(super) in_cookie: Option<Box<str>>,
    /// A Common Access Token, if it is clear which one.
    pub(super) cat: Result<Option<(Carrier, Box<str>)>, Unclear>,
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
    let found = find(target.as_str(), name)?;
    let Some(token) = found.token else { return Ok(None) };
    let bare: PathAndQuery = found.bare.parse().map_err(|_| Unclear)?;
    let token = token.into();
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(bare);
    *uri = Uri::from_parts(parts).map_err(|_| Unclear)?;
    Ok(Some(token))
}

/// The first of that name: browsers send that of the longest path first (RFC 6265 section 5.4).
fn from_cookies(fields: &mut HeaderMap, name: &str) -> Option<Box<str>> {
    let pair = |one: &str| one.trim().strip_prefix(name)?.strip_prefix('=').map(Box::<str>::from);
    let texts = || fields.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let token = texts().flat_map(|text| text.split(';')).find_map(pair)?;
    let others = texts().flat_map(|text| text.split(';')).filter(|one| pair(one).is_none());
    let others: Vec<&str> = others.map(str::trim).filter(|one| !one.is_empty()).collect();
    let others = HeaderValue::from_str(&others.join("; ")).ok().filter(|left| !left.is_empty());
    set(fields, COOKIE, others);
    Some(token)
}

/// A page of this site may have been asked for with a token.
fn forget_in_referer(fields: &mut HeaderMap, name: &str) {
    let Some(value) = fields.get(REFERER) else { return };
    let bare = match value.to_str().map(|referer| find(referer, name)) {
        Ok(Ok(found)) => match found.bare {
            Cow::Borrowed(_) => return,
            Cow::Owned(bare) => HeaderValue::from_str(&bare).ok(),
        },
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
        let (shown, _) = taken("/a?URISigningPackage=x&URISigningPackage=y", &[]);
        assert!(shown.in_uri.is_err());
    }

    #[test]
    fn of_cookies_the_first_counts_and_the_others_stay() {
        for (cookies, token, left) in [
            (&["URISigningPackage=a.b.c"][..], Some("a.b.c"), None),
            (&["u=1; URISigningPackage=a.b.c; v=2"], Some("a.b.c"), Some("u=1; v=2")),
            (&["u=1", "URISigningPackage=a.b.c", "v=2"], Some("a.b.c"), Some("u=1; v=2")),
            (&["URISigningPackage=a; URISigningPackage=b"], Some("a"), None),
            (&["xURISigningPackage=a"], None, Some("xURISigningPackage=a")),
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
