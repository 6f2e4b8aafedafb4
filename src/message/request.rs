//! A viewer's request head: what object, what of it, and what forbids to answer.
//!
//! What passes is a GET or HEAD without a body, of one host and one normal path; or anything else,
//! to be passed on, of which host and path are known as well. Everything borrows
//! from the head; only a host or path spelled in an unusual way is copied. Whether HTTP/2 sends a
//! body is not in the head: the caller must see that the body has ended.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT, HOST, RANGE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, Uri, Version};

use crate::limits::{REQUEST_FIELDS_MAX, REQUEST_TARGET_BYTES_MAX};
use crate::message::head::HeadFault;
use crate::message::multirange::RangeSet;
use crate::message::range::RangeRequest;
use crate::message::syntax::{decimal, sole};
use crate::message::target::{canonical_target, host_and_port, normalised_path};
use crate::site::{Content, QueryPolicy};

/// The methods an edge answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// The object.
    Get,
    /// Its head alone.
    Head,
    /// That it be purged: of who may.
    Purge,
}

/// A request for one object.
#[derive(Clone, Debug)]
pub struct ObjectRequest<'a> {
    /// With a body in the answer or without.
    pub method: Method,
    /// In lower case, without a port or a final dot.
    pub host: Cow<'a, str>,
    /// That of the target or of `Host`.
    pub port: Option<u16>,
    /// Starts with `/`; the one spelling of [`normalised_path`].
    pub path: Cow<'a, str>,
    /// As it was written, without the `?`.
    pub query: Option<&'a str>,
    /// Of a GET; `None` when there is none or it is to be ignored; the first of several. `If-Range`
    /// may void it yet.
    pub range: Option<RangeRequest>,
    /// All of them, if there are several.
    pub ranges: Option<RangeSet>,
    /// Whether it carries `Authorization`.
    pub has_authorization: bool,
    /// All fields.
    pub headers: &'a HeaderMap,
}

impl<'a> ObjectRequest<'a> {
    /// Checks and reads a head, in the order of the answers: method, size, body, target, host.
    pub fn parse(parts: &'a Parts) -> Result<ObjectRequest<'a>, RequestError> {
        if let Some(fault) = parts.extensions.get() {
            return Err(RequestError::Malformed(*fault));
        }
        let headers = &parts.headers;
        let method = match parts.method {
            http::Method::GET => Method::Get,
            http::Method::HEAD => Method::Head,
            ref other if other.as_str() == "PURGE" => Method::Purge,
            _ => return Err(RequestError::MethodRefused),
        };
        check_size(parts)?;
        check_body(parts)?;
        let path = path_of(&parts.uri)?;
        let (host, port) = authority_of(parts)?;
        // RFC 9110 section 14.2: a range is defined for GET alone.
        let field = sole(headers, &RANGE).filter(|_| method == Method::Get);
        let ranges = field.and_then(RangeSet::parse);
        let range = match &ranges {
            Some(ranges) => Some(ranges.first()),
            None => field.and_then(RangeRequest::parse),
        };
        let has_authorization = headers.contains_key(AUTHORIZATION);
        let query = parts.uri.query();
        Ok(ObjectRequest {
            method,
            host,
            port,
            path,
            query,
            range,
            ranges,
            has_authorization,
            headers,
        })
    }

    /// Path and canonical query: what [`crate::object::ObjectKey`] is made of and origins are
    /// asked.
    pub fn target(&self, policy: &QueryPolicy, content: Content) -> Cow<'_, str> {
        canonical_target(&self.path, self.query, policy, content)
    }
}

/// A request that is passed on: what it is about.
#[derive(Clone, Debug)]
pub struct PassedRequest<'a> {
    /// In lower case, without a port or a final dot.
    pub host: Cow<'a, str>,
    /// That of the target or of `Host`.
    pub port: Option<u16>,
    /// Starts with `/`; the one spelling of [`normalised_path`].
    pub path: Cow<'a, str>,
    /// As it was written, without the `?`.
    pub query: Option<&'a str>,
}

impl<'a> PassedRequest<'a> {
    /// Checks and reads a head, whatever its method is and whether a body follows.
    ///
    /// # Errors
    /// As [`ObjectRequest::parse`], but for those.
    pub fn parse(parts: &'a Parts) -> Result<PassedRequest<'a>, RequestError> {
        if let Some(fault) = parts.extensions.get() {
            return Err(RequestError::Malformed(*fault));
        }
        check_size(parts)?;
        check_expectation(parts)?;
        let path = path_of(&parts.uri)?;
        let (host, port) = authority_of(parts)?;
        Ok(PassedRequest { host, port, path, query: parts.uri.query() })
    }
}

fn check_size(parts: &Parts) -> Result<(), RequestError> {
    let uri = &parts.uri;
    let query_bytes = uri.query().map_or(0, |query| query.len() + 1);
    let length_bytes = uri.path().len() + query_bytes;
    if length_bytes > REQUEST_TARGET_BYTES_MAX {
        return Err(RequestError::TargetTooLong { length_bytes });
    }
    let fields = parts.headers.len();
    if fields > REQUEST_FIELDS_MAX {
        return Err(RequestError::TooManyFields { fields });
    }
    Ok(())
}

fn check_body(parts: &Parts) -> Result<(), RequestError> {
    let headers = &parts.headers;
    let lengths = headers.get_all(CONTENT_LENGTH).iter();
    if headers.contains_key(TRANSFER_ENCODING)
        || lengths.map(|value| decimal(value.as_bytes())).any(|length| length != Some(0))
    {
        return Err(RequestError::BodyRefused);
    }
    check_expectation(parts)
}

fn check_expectation(parts: &Parts) -> Result<(), RequestError> {
    // A `100-continue` without a body has nothing to wait for; HTTP/1.0 has no expectations
    // (RFC 9110 section 10.1.1).
    let waits = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if parts.version > Version::HTTP_10 && !parts.headers.get_all(EXPECT).iter().all(waits) {
        return Err(RequestError::ExpectationFailed);
    }
    Ok(())
}

fn path_of(uri: &Uri) -> Result<Cow<'_, str>, RequestError> {
    match uri.scheme_str() {
        None if uri.authority().is_some() => return Err(RequestError::BadTarget),
        None | Some("http" | "https") => {}
        Some(_) => return Err(RequestError::BadTarget),
    }
    normalised_path(uri.path()).ok_or(RequestError::BadTarget)
}

/// The host of the target, else of `Host` (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
///
/// # Errors
/// There is none, more than one, or one that is no host.
pub fn host_of(parts: &Parts) -> Result<Cow<'_, str>, RequestError> {
    authority_of(parts).map(|(host, _)| host)
}

/// The same with its port, if one is named.
fn authority_of(parts: &Parts) -> Result<(Cow<'_, str>, Option<u16>), RequestError> {
    let mut fields = parts.headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(RequestError::HostRepeated);
    }
    let field = match field.map(|value| value.as_bytes()) {
        // An empty `Host` belongs to a target without an authority.
        None | Some(b"") => None,
        Some(value) => Some(host_and_port(value).ok_or(RequestError::BadHost)?),
    };
    let Some(authority) = parts.uri.authority() else {
        return field.ok_or(RequestError::HostMissing);
    };
    let named = host_and_port(authority.as_str().as_bytes()).ok_or(RequestError::BadHost)?;
    match field {
        None if parts.version == Version::HTTP_11 => Err(RequestError::HostMissing),
        Some((host, port))
            if parts.version >= Version::HTTP_2
                && (host != named.0 || matches!((port, named.1), (Some(a), Some(b)) if a != b)) =>
        {
            Err(RequestError::HostsDiffer)
        }
        // HTTP/1: the target's host counts, whatever `Host` says (RFC 9112 section 3.2.2).
        _ => Ok(named),
    }
}

/// Why a request is refused before anything is looked up; all are the viewer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// It could be read in more than one way: 400. Whoever reads heads first notes it in the
    /// request's extensions.
    Malformed(HeadFault),
    /// Neither GET nor HEAD, nor passed on: 405 with `Allow`.
    MethodRefused,
    /// The target is longer than [`REQUEST_TARGET_BYTES_MAX`]: 414.
    TargetTooLong {
        /// Path and query.
        length_bytes: usize,
    },
    /// More than [`REQUEST_FIELDS_MAX`]: 431.
    TooManyFields {
        /// How many.
        fields: usize,
    },
    /// It has or announces a body: 413, and the connection closes.
    BodyRefused,
    /// `Expect` of something else than `100-continue`: 417.
    ExpectationFailed,
    /// The target has no path that can be normalised, or another scheme: 400.
    BadTarget,
    /// No host is named: 400.
    HostMissing,
    /// Several `Host` fields: 400.
    HostRepeated,
    /// The host is no name and no address: 400.
    BadHost,
    /// `:authority` and `Host` name different hosts: 400.
    HostsDiffer,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Malformed(fault) => fault.fmt(f),
            RequestError::MethodRefused => f.write_str("the method is not allowed"),
            RequestError::TargetTooLong { length_bytes } => {
                write!(f, "the target has {length_bytes} bytes, not {REQUEST_TARGET_BYTES_MAX}")
            }
            RequestError::TooManyFields { fields } => {
                write!(f, "the head has {fields} fields, not {REQUEST_FIELDS_MAX}")
            }
            RequestError::BodyRefused => f.write_str("the request has a body"),
            RequestError::ExpectationFailed => f.write_str("the expectation is unknown"),
            RequestError::BadTarget => f.write_str("the target is no path of http or https"),
            RequestError::HostMissing => f.write_str("no host is named"),
            RequestError::HostRepeated => f.write_str("there are several host fields"),
            RequestError::BadHost => f.write_str("the host is no name and no address"),
            RequestError::HostsDiffer => f.write_str("authority and host name different hosts"),
        }
    }
}

impl Error for RequestError {}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(version: Version, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn error(version: Version, uri: &str, fields: &[(&str, &str)]) -> Option<RequestError> {
        ObjectRequest::parse(&parts(version, uri, fields)).err()
    }

    #[test]
    fn a_usual_request_is_read_without_copying() {
        let fields =
            [("host", "cdn.example:8443"), ("range", "bytes=0-9"), ("authorization", "Basic x")];
        let parts = parts(Version::HTTP_11, "/film/seg-1.m4s?a=1&b", &fields);
        let request = ObjectRequest::parse(&parts).unwrap();
        assert_eq!(request.method, Method::Get);
        assert!(matches!(request.host, Cow::Borrowed("cdn.example")));
        assert!(matches!(request.path, Cow::Borrowed("/film/seg-1.m4s")));
        assert_eq!(request.query, Some("a=1&b"));
        assert_eq!(request.range, Some(RangeRequest::FromTo { first: 0, last: Some(9) }));
        assert!(request.has_authorization);
        assert_eq!(request.headers.len(), 3);
        let target = |policy| request.target(policy, Content::OnDemand);
        assert_eq!(target(&QueryPolicy::All), "/film/seg-1.m4s?a=1&b");
        assert!(matches!(target(&QueryPolicy::None), Cow::Borrowed("/film/seg-1.m4s")));
    }

    #[test]
    fn the_host_comes_from_the_target_or_else_from_the_field() {
        use RequestError::{BadHost, BadTarget, HostMissing, HostRepeated, HostsDiffer};

        let (v10, v11, v2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        for (version, uri, hosts, expected) in [
            // RFC 9112 3.2, 3.2.1.
            (v11, "/", &["a.example"][..], Ok("a.example")),
            (v11, "/", &["A.Example:80"], Ok("a.example")),
            (v11, "/", &["a.example."], Ok("a.example")),
            (v11, "/", &["[2001:DB8::1]:80"], Ok("[2001:db8::1]")),
            (v11, "/", &[], Err(HostMissing)),
            (v11, "/", &[""], Err(HostMissing)),
            (v10, "/", &[], Err(HostMissing)),
            (v10, "/", &["a.example"], Ok("a.example")),
            (v11, "/", &["a.example", "a.example"], Err(HostRepeated)),
            (v11, "/", &["a.example", ""], Err(HostRepeated)),
            (v11, "/", &["a.example, b.example"], Err(BadHost)),
            (v11, "/", &["user@a.example"], Err(BadHost)),
            (v11, "/", &["a.example/path"], Err(BadHost)),
            (v11, "/", &["a.example:port"], Err(BadHost)),
            // RFC 9112 3.2.2: the absolute form wins over `Host`, which must still be sound.
            (v11, "http://a.example/", &["a.example"], Ok("a.example")),
            (v11, "http://a.example/", &["b.example"], Ok("a.example")),
            (v11, "HTTPS://A.example:1/", &["b.example"], Ok("a.example")),
            (v11, "http://a.example", &["a.example"], Ok("a.example")),
            (v11, "http://a.example/", &[], Err(HostMissing)),
            (v11, "http://a.example/", &["b c"], Err(BadHost)),
            (v11, "http://a.example/", &["a.example", "a.example"], Err(HostRepeated)),
            (v11, "http://user@a.example/", &["a.example"], Err(BadHost)),
            (v10, "http://a.example/", &[], Ok("a.example")),
            (v11, "ftp://a.example/", &["a.example"], Err(BadTarget)),
            (v11, "a.example:80", &["a.example"], Err(BadTarget)),
            (v11, "*", &["a.example"], Err(BadTarget)),
            // RFC 9113 8.3.1.
            (v2, "https://a.example/", &[], Ok("a.example")),
            (v2, "https://a.example:443/", &["A.example"], Ok("a.example")),
            (v2, "https://a.example:443/", &["a.example:443"], Ok("a.example")),
            (v2, "https://a.example/", &["b.example"], Err(HostsDiffer)),
            (v2, "https://a.example:443/", &["a.example:444"], Err(HostsDiffer)),
            (v2, "/", &["a.example"], Ok("a.example")),
            (v2, "/", &[], Err(HostMissing)),
        ] {
            let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let parts = parts(version, uri, &fields);
            let found = ObjectRequest::parse(&parts).map(|request| request.host.into_owned());
            assert_eq!(found.as_deref(), expected.as_ref().copied(), "{version:?} {uri} {hosts:?}");
        }
    }

    #[test]
    fn what_is_no_plain_get_or_head_is_refused() {
        use RequestError::{BadTarget, BodyRefused, ExpectationFailed};

        for (uri, field, expected) in [
            ("/", ("content-length", "0"), None),
            ("/", ("content-length", "00"), None),
            ("/", ("content-length", "1"), Some(BodyRefused)),
            ("/", ("content-length", "-1"), Some(BodyRefused)),
            ("/", ("content-length", "0, 0"), Some(BodyRefused)),
            ("/", ("content-length", ""), Some(BodyRefused)),
            ("/", ("transfer-encoding", "chunked"), Some(BodyRefused)),
            ("/", ("transfer-encoding", ""), Some(BodyRefused)),
            ("/", ("expect", "100-continue"), None),
            ("/", ("expect", "100-Continue"), None),
            ("/", ("expect", "magic"), Some(ExpectationFailed)),
            ("/", ("expect", "100-continue, magic"), Some(ExpectationFailed)),
            ("/%zz", ("x", "y"), Some(BadTarget)),
            ("/a%", ("x", "y"), Some(BadTarget)),
            ("/../%2e%2e/a", ("x", "y"), None),
        ] {
            let found = error(Version::HTTP_11, uri, &[("host", "a"), field]);
            assert_eq!(found, expected, "{uri} {field:?}");
        }
        let old = error(Version::HTTP_10, "/", &[("host", "a"), ("expect", "magic")]);
        assert_eq!(old, None, "HTTP/1.0 has no expectations");
        for name in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "purge", "get"] {
            let mut parts = parts(Version::HTTP_11, "/", &[("host", "a")]);
            parts.method = http::Method::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(ObjectRequest::parse(&parts).err(), Some(RequestError::MethodRefused));
        }
    }

    #[test]
    fn a_target_and_a_field_section_have_a_bound() {
        let target = |bytes: usize| format!("/{}?{}", "a".repeat(9), "b".repeat(bytes - 11));
        let host = [("host", "a")];
        assert_eq!(error(Version::HTTP_11, &target(REQUEST_TARGET_BYTES_MAX), &host), None);
        let length_bytes = REQUEST_TARGET_BYTES_MAX + 1;
        let too_long = error(Version::HTTP_11, &target(length_bytes), &host);
        assert_eq!(too_long, Some(RequestError::TargetTooLong { length_bytes }));

        let names: Vec<_> = (0..REQUEST_FIELDS_MAX).map(|n| format!("x-{n}")).collect();
        let mut fields: Vec<_> = names.iter().skip(1).map(|name| (name.as_str(), "1")).collect();
        fields.push(("host", "a"));
        assert_eq!(error(Version::HTTP_11, "/", &fields), None);
        fields.push(("x-0", "1"));
        let too_many = RequestError::TooManyFields { fields: REQUEST_FIELDS_MAX + 1 };
        assert_eq!(error(Version::HTTP_11, "/", &fields), Some(too_many));
    }

    #[test]
    fn a_range_is_read_of_a_get_and_only_once() {
        let one = ("range", "bytes=-5");
        let range = |fields: &[(&str, &str)], method: http::Method| {
            let fields: Vec<_> = fields.iter().copied().chain([("host", "a")]).collect();
            let mut parts = parts(Version::HTTP_11, "/", &fields);
            parts.method = method;
            ObjectRequest::parse(&parts).unwrap().range
        };
        assert!(range(&[one], http::Method::GET).is_some());
        assert!(range(&[one], http::Method::HEAD).is_none());
        assert!(range(&[one, one], http::Method::GET).is_none());
        assert!(range(&[("range", "lines=1-2")], http::Method::GET).is_none());
        assert!(range(&[], http::Method::GET).is_none());
    }
}
