//! The token a viewer shows, taken out of his request.
//!
//! What is left has no token any more, in its target, its cookies and its referer: it names
//! objects, is logged and is sent to origins.

use std::fmt;

use bytes::Bytes;
use http::header::{COOKIE, HeaderName, HeaderValue, REFERER};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};

use crate::limits::{ACCESS_TOKEN_BYTES_MAX, TOKENS_IN_COOKIES_MAX};
use crate::token::uri_signing::{Found, Unclear, find, find_padded};

/// What was shown.
pub struct Shown {
    /// In the URI, if it is clear what.
    pub(super) in_uri: Result<Option<Box<str>>, Unclear>,
    /// In cookies, in their order.
    pub(super) in_cookies: Vec<Box<str>>,
    /// Common Access Tokens, in the order in which they are tried, if it is clear which.
    pub(super) cats: Result<Vec<(Carrier, Box<str>)>, Unclear>,
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
        let both = [(name, find as Finding), (cat.unwrap_or(name), find_padded)];
        let attributes = &both[..1 + usize::from(cat.is_some())];
        forget_in_referer(&mut parts.headers, attributes);
        let mut in_uri = from_uri(&mut parts.uri, name, find);
        let in_cookies = from_cookies(&mut parts.headers, |one| one == name.as_bytes());
        let cats = cat.map_or(Ok(Vec::new()), |cat| take_cats(parts, cat));
        let left = parts.uri.path_and_query().map_or("", |target| target.as_str());
        // One that stands there when the other is gone.
        if cat.is_some() && !is_bare(left, attributes) {
            in_uri = Err(Unclear);
            attributes.iter().for_each(|(name, _)| cut(&mut parts.uri, name));
        }
        Shown { in_uri, in_cookies, cats }
    }

    /// Whether it is unclear what: nobody may see what else there is.
    pub fn is_unclear(&self) -> bool {
        self.in_uri.is_err() || self.cats.is_err()
    }

    /// Whether nothing was.
    pub fn is_nothing(&self) -> bool {
        let is_no_cat = self.cats.as_ref().is_ok_and(Vec::is_empty);
        self.in_uri == Ok(None) && self.in_cookies.is_empty() && is_no_cat
    }
}

/// In the header, then in the query, then in cookies: a player keeps on showing the one it had at
/// first where it did. Two in the header, or in the query, are none.
fn take_cats(parts: &mut Parts, name: &str) -> Result<Vec<(Carrier, Box<str>)>, Unclear> {
    let in_query = from_uri(&mut parts.uri, name, find_padded);
    let is_cookie = |one: &[u8]| one.eq_ignore_ascii_case(CAT.as_str().as_bytes());
    let in_cookies = from_cookies(&mut parts.headers, is_cookie);
    let mut fields = parts.headers.get_all(CAT).iter();
    let (first, second) = (fields.next(), fields.next());
    let first = first.map(|value| value.to_str().map(Box::<str>::from).map_err(|_| Unclear));
    let is_one = second.is_none();
    parts.headers.remove(CAT);
    let in_header = if is_one { first.transpose() } else { Err(Unclear) };
    let carried = |carrier| move |token| (carrier, token);
    let in_header = in_header?.into_iter().map(carried(Carrier::Header));
    let in_query = in_query?.into_iter().map(carried(Carrier::Query));
    let in_cookies = in_cookies.into_iter().map(carried(Carrier::Cookie));
    Ok(in_header.chain(in_query).chain(in_cookies).collect())
}

/// CTA-5007 section 5. The cookie is called so too; some write that in lower case.
const CAT: HeaderName = HeaderName::from_static("cta-common-access-token");

/// How an attribute is found in a target.
type Finding = for<'a> fn(&'a str, &str) -> Result<Found<'a>, Unclear>;

fn from_uri(uri: &mut Uri, name: &str, find: Finding) -> Result<Option<Box<str>>, Unclear> {
    let Some(target) = uri.path_and_query() else { return Ok(None) };
    let (token, bare) = match find(target.as_str(), name) {
        Ok(Found { token: None, .. }) => return Ok(None),
        Ok(Found { token: Some(token), bare }) if token.len() <= ACCESS_TOKEN_BYTES_MAX => {
            (Ok(Some(token.into())), bare.into_owned())
        }
        // Whatever it is, nobody is to see it.
        Ok(_) | Err(Unclear) => (Err(Unclear), before(target.as_str(), name)),
    };
    set_target(uri, bare);
    token
}

fn set_target(uri: &mut Uri, target: String) {
    let target = PathAndQuery::from_maybe_shared(Bytes::from(target)).ok();
    *uri = match uri.authority() {
        // As almost all are.
        None => target.map(Uri::from),
        Some(_) => {
            let mut parts = std::mem::take(uri).into_parts();
            parts.path_and_query = target;
            Uri::from_parts(parts).ok()
        }
    }
    .unwrap_or_default();
}

/// Leaves what stands before the first of this name.
fn cut(uri: &mut Uri, name: &str) {
    let left = uri.path_and_query().map(|target| before(target.as_str(), name));
    left.into_iter().for_each(|left| set_target(uri, left));
}

/// Whether none of these attributes stands in a text.
fn is_bare(text: &str, attributes: &[(&str, Finding)]) -> bool {
    let is_without = |found: Found<'_>| found.token.is_none();
    attributes.iter().all(|(name, find)| find(text, name).is_ok_and(is_without))
}

/// What stands before the first attribute of this name and the character that begins it: anybody
/// may have written any there.
fn before(target: &str, name: &str) -> String {
    let last = |at| target[..at].char_indices().next_back().map_or(0, |(before, _)| before);
    let end = target.find(name).map_or(target.len(), last);
    if end == 0 { "/".to_owned() } else { target[..end].to_owned() }
}

/// Those of that name, the first ones: browsers send those of the longest path first, and of those
/// the oldest (RFC 6265 section 5.4), which another one may have replaced in vain.
fn from_cookies(fields: &mut HeaderMap, is_name: impl Fn(&[u8]) -> bool) -> Vec<Box<str>> {
    let token = |one| {
        let one = <[u8]>::trim_ascii(one);
        let at = one.iter().position(|byte| *byte == b'=').filter(|at| is_name(&one[..*at]))?;
        Some(&one[at + 1..])
    };
    let pairs = || {
        let values = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        values.flat_map(|value| value.split(|byte| *byte == b';'))
    };
    let read = |found| {
        let found = str::from_utf8(found).ok();
        let found = found.filter(|found| found.len() <= ACCESS_TOKEN_BYTES_MAX);
        found.map_or_else(Box::default, Box::<str>::from)
    };
    let found: Vec<_> = pairs().filter_map(token).map(read).take(TOKENS_IN_COOKIES_MAX).collect();
    if found.is_empty() {
        return found;
    }
    let others = pairs().filter(|one| token(one).is_none()).map(<[u8]>::trim_ascii);
    let others: Vec<&[u8]> = others.filter(|one| !one.is_empty()).collect();
    let others = HeaderValue::from_bytes(&others.join(&b"; "[..])).ok();
    set(fields, COOKIE, others.filter(|left| !left.is_empty()));
    found
}

/// A page of this site may have been asked for with a token.
fn forget_in_referer(fields: &mut HeaderMap, attributes: &[(&str, Finding)]) {
    let mut values = fields.get_all(REFERER).iter();
    let (Some(value), second) = (values.next(), values.next()) else { return };
    let referer = value.to_str().ok().filter(|_| second.is_none());
    if referer.is_some_and(|referer| is_bare(referer, attributes)) {
        return;
    }
    let without = |left: String, (name, find): &(&str, Finding)| {
        find(&left, name).map(|found| found.bare.into_owned())
    };
    let bare = referer.and_then(|text| attributes.iter().try_fold(text.into(), without).ok());
    let bare = bare.filter(|bare| is_bare(bare, attributes));
    set(fields, REFERER, bare.and_then(|bare| HeaderValue::from_str(&bare).ok()));
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
            assert!(shown.in_cookies.is_empty());
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
        let target = "/a?cat=x,URISigningPackage=y";
        let referer = format!("http://h.test{target}");
        let (shown, parts) = taken(target, &[(REFERER, &referer)]);
        assert!(shown.is_unclear() && parts.uri == "/a", "{}", parts.uri);
        assert!(!parts.headers.contains_key(REFERER));
        let long = format!("/a?URISigningPackage={}", "x".repeat(ACCESS_TOKEN_BYTES_MAX + 1));
        assert!(taken(&long, &[]).0.is_unclear());
    }

    #[test]
    fn of_cookies_those_of_the_name_count_in_their_order_and_the_others_stay() {
        let many = "URISigningPackage=a; ".repeat(TOKENS_IN_COOKIES_MAX + 1);
        for (cookies, tokens, left) in [
            (&["URISigningPackage=a.b.c"][..], &["a.b.c"][..], None),
            (&["u=1; URISigningPackage=a.b.c; v=2"], &["a.b.c"], Some("u=1; v=2")),
            (&["u=1", "URISigningPackage=a.b.c", "v=2"], &["a.b.c"], Some("u=1; v=2")),
            (&["URISigningPackage=a; URISigningPackage=b"], &["a", "b"], None),
            (&[&many], &["a"; TOKENS_IN_COOKIES_MAX], None),
            (&["xURISigningPackage=a"], &[], Some("xURISigningPackage=a")),
            (&["urisigningpackage=a"], &[], Some("urisigningpackage=a")),
            (&["u=\u{f6}; URISigningPackage=a.b.c"], &["a.b.c"], Some("u=\u{f6}")),
        ] {
            let fields: Vec<_> = cookies.iter().map(|one| (COOKIE, *one)).collect();
            let (shown, parts) = taken("/", &fields);
            let found: Vec<&str> = shown.in_cookies.iter().map(|one| &**one).collect();
            assert_eq!(found, tokens, "{cookies:?}");
            let told: Vec<_> = parts.headers.get_all(COOKIE).iter().collect();
            assert_eq!(told, left.into_iter().collect::<Vec<_>>(), "{cookies:?}");
        }
    }

    #[test]
    fn a_common_access_token_is_taken_out_of_wherever_it_stands() {
        let (cat, cookie) = (CAT, "u=1; CTA-Common-Access-Token=c; cta-common-access-token=d");
        let [header, query] = [(Carrier::Header, "h"), (Carrier::Query, "q")];
        let cookies = [(Carrier::Cookie, "c"), (Carrier::Cookie, "d")];
        for (uri, fields, tokens) in [
            ("/a?cat=q&b=c", &[][..], &[query][..]),
            ("/a?b=c", &[(COOKIE, cookie)], &cookies),
            (
                "/a?cat=q&b=c",
                &[(COOKIE, cookie), (cat.clone(), "h")],
                &[header, query, cookies[0], cookies[1]],
            ),
            ("/a?b=c", &[], &[]),
            ("/a?cat=q==&b=c", &[], &[(Carrier::Query, "q==")]),
            ("/a?b=c&cat=q=", &[], &[(Carrier::Query, "q=")]),
        ] {
            let (shown, parts) = taken(uri, fields);
            let found = shown.cats.as_ref().unwrap().iter();
            let found: Vec<_> = found.map(|(carrier, token)| (*carrier, &**token)).collect();
            assert_eq!(found, tokens, "{uri}");
            assert_eq!(parts.uri, "/a?b=c");
            assert!(!parts.headers.contains_key(&cat));
            assert!(parts.headers.get(COOKIE).is_none_or(|left| left == "u=1"));
        }
        let (shown, parts) = taken("/a", &[(cat.clone(), "h"), (cat.clone(), "i")]);
        assert!(shown.cats.is_err() && !parts.headers.contains_key(&cat));
        assert!(taken("/a?cat=q&cat=r", &[]).0.cats.is_err());
    }

    #[test]
    fn a_referer_tells_no_token() {
        for (referer, left) in [
            ("https://h.test/a;URISigningPackage=x.y.z/b", Some("https://h.test/a/b")),
            ("https://h.test/a?URISigningPackage=x&URISigningPackage=y", None),
            ("https://h.test/a", Some("https://h.test/a")),
            ("https://h.test/a?cat=q==&b=c", Some("https://h.test/a?b=c")),
        ] {
            let (_, parts) = taken("/", &[(REFERER, referer)]);
            let told = parts.headers.get(REFERER).map(|value| value.to_str().unwrap());
            assert_eq!(told, left, "{referer}");
        }
    }
}
