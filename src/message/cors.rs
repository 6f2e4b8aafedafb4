//! What a browser is told about pages of other origins (CORS, in the Fetch Standard).
//!
//! The edge answers by its rule alone: no origin is asked, what one says about it is left out, and
//! what is stored is the same whoever asked for it.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

use crate::message::syntax::{members, sole};
use crate::site::{Cors, CorsOrigins, Credentials, Methods};

/// Whether a browser asks what a page may ask for.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The fields of the answer to that, which has no content.
pub fn preflight(cors: &Cors, methods: &Methods, asked: &HeaderMap) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(8);
    let Some(_) = allow_origin(cors, asked, &mut fields) else { return fields };
    fields.insert(ACCESS_CONTROL_ALLOW_METHODS, methods.allow().clone());
    if !cors.allowed.is_empty() {
        fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, cors.allowed.clone());
    }
    fields.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age.as_secs()));
    fields
}

/// Adds to any answer what the page that asked may do with it.
pub fn allow(cors: &Cors, asked: &HeaderMap, answer: &mut HeaderMap) {
    remove_all(answer);
    let Some(origin) = allow_origin(cors, asked, answer) else { return };
    answer.insert(TIMING_ALLOW_ORIGIN, origin);
    if !cors.exposed.is_empty() {
        answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, cors.exposed.clone());
    }
}

/// Leaves out what an origin says about it, and that it depends on the page: it is not told.
pub fn remove_from_origin(answer: &mut HeaderMap) {
    remove_all(answer);
    let names_origin = |line: &HeaderValue| {
        members(line.as_bytes()).any(|name| name.eq_ignore_ascii_case(ORIGIN.as_str().as_bytes()))
    };
    if !answer.get_all(VARY).iter().any(names_origin) {
        return;
    }
    let lines: Vec<HeaderValue> = answer.get_all(VARY).iter().cloned().collect();
    answer.remove(VARY);
    let rest: Vec<&[u8]> = lines.iter().flat_map(|line| members(line.as_bytes())).collect();
    let is_other = |name: &&[u8]| !name.eq_ignore_ascii_case(ORIGIN.as_str().as_bytes());
    let rest = rest.into_iter().filter(is_other).collect::<Vec<_>>().join(&b", "[..]);
    if !rest.is_empty() {
        let rest = HeaderValue::from_bytes(&rest).expect("members of a value are a value");
        answer.insert(VARY, rest);
    }
}

/// Says whose page may, and returns that; `None`: the one who asked may not.
fn allow_origin(cors: &Cors, asked: &HeaderMap, fields: &mut HeaderMap) -> Option<HeaderValue> {
    let allowed = match &cors.origins {
        CorsOrigins::Any => Some(HeaderValue::from_static("*")),
        CorsOrigins::Only(_) => {
            vary_by_origin(fields);
            sole(asked, &ORIGIN).filter(|origin| cors.origins.allow(origin)).cloned()
        }
    }?;
    fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed.clone());
    if cors.credentials == Credentials::Included {
        fields.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    Some(allowed)
}

/// Other caches on the way must not take one page's answer for another's.
fn vary_by_origin(fields: &mut HeaderMap) {
    let says = |line: &HeaderValue| {
        members(line.as_bytes()).any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
    };
    if !fields.get_all(VARY).iter().any(says) {
        fields.append(VARY, HeaderValue::from_static("Origin"));
    }
}

fn remove_all(answer: &mut HeaderMap) {
    for name in &THEIRS {
        answer.remove(name);
    }
}

const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

const THEIRS: [HeaderName; 7] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
    TIMING_ALLOW_ORIGIN,
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().map(line) {
            headers.append(name, value);
        }
        headers
    }

    fn cors(origins: &[&str], credentials: Credentials) -> Cors {
        let only = || CorsOrigins::Only(origins.iter().map(|one| (*one).to_owned()).collect());
        Cors {
            origins: if origins == ["*"] { CorsOrigins::Any } else { only() },
            exposed: HeaderValue::from_static("Date"),
            allowed: HeaderValue::from_static("Range"),
            credentials,
            max_age: Duration::from_secs(60),
        }
    }

    #[test]
    fn an_answer_says_whose_page_may_read_it_and_nobody_else_does() {
        let any = cors(&["*"], Credentials::Omitted);
        let one = cors(&["https://a.example"], Credentials::Included);
        for (cors, origin, vary, allowed, varies) in [
            (&any, None, None, Some("*"), None),
            (&any, Some("https://b.example"), None, Some("*"), None),
            (&one, None, None, None, Some("Origin")),
            (&one, Some("https://a.example"), None, Some("https://a.example"), Some("Origin")),
            (&one, Some("https://b.example"), None, None, Some("Origin")),
            (&one, Some("https://b.example"), Some("X"), None, Some("X, Origin")),
            (&one, Some("https://b.example"), Some("X, origin"), None, Some("X, origin")),
            (&one, Some("https://b.example"), Some("*"), None, Some("*")),
        ] {
            let mut asked = HeaderMap::new();
            asked.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))));
            let mut answer = headers(&[
                ("access-control-allow-origin", "https://evil.example"),
                ("access-control-allow-credentials", "true"),
                ("access-control-expose-headers", "*"),
                ("timing-allow-origin", "https://evil.example"),
                ("etag", "\"a\""),
            ]);
            answer.extend(vary.map(|vary| (VARY, HeaderValue::from_static(vary))));
            allow(cors, &asked, &mut answer);
            let found = |name: &str| {
                let lines = answer.get_all(name).iter().map(|line| line.to_str().unwrap());
                Some(lines.collect::<Vec<_>>().join(", ")).filter(|lines| !lines.is_empty())
            };
            let context = format!("{origin:?} {vary:?}");
            assert_eq!(found("access-control-allow-origin").as_deref(), allowed, "{context}");
            assert_eq!(found("timing-allow-origin").as_deref(), allowed, "{context}");
            let exposed = allowed.map(|_| "Date");
            assert_eq!(found("access-control-expose-headers").as_deref(), exposed, "{context}");
            let credentials = allowed.filter(|_| cors.credentials == Credentials::Included);
            let found_credentials = found("access-control-allow-credentials");
            assert_eq!(found_credentials.as_deref(), credentials.map(|_| "true"), "{context}");
            assert_eq!(found("vary").as_deref(), varies, "{context}");
            assert_eq!(found("etag").as_deref(), Some("\"a\""), "{context}");
        }
    }

    #[test]
    fn what_an_origin_says_about_it_is_left_out() {
        for (vary, rest) in [
            (&["Origin"][..], None),
            (&["ORIGIN , Origin"], None),
            (&["Origin, Accept-Encoding", "Foo"], Some("Accept-Encoding, Foo")),
            (&["Foo", "origin"], Some("Foo")),
            (&["*"], Some("*")),
            (&[], None),
        ] {
            let mut answer = headers(&[("access-control-allow-origin", "*"), ("age", "1")]);
            for line in vary {
                answer.append(VARY, HeaderValue::from_static(line));
            }
            remove_from_origin(&mut answer);
            assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
            assert!(answer.contains_key("age"));
            assert_eq!(answer.get(VARY).map(|line| line.to_str().unwrap()), rest, "{vary:?}");
        }
    }

    #[test]
    fn a_preflight_is_one_that_names_a_page_and_a_method() {
        let asked = [("origin", "https://a.example"), ("access-control-request-method", "GET")];
        assert!(is_preflight(&Method::OPTIONS, &headers(&asked)));
        assert!(!is_preflight(&Method::GET, &headers(&asked)));
        assert!(!is_preflight(&Method::OPTIONS, &headers(&asked[..1])));
        assert!(!is_preflight(&Method::OPTIONS, &headers(&asked[1..])));
        let refused = cors(&["https://b.example"], Credentials::Omitted);
        let told = preflight(&refused, &Methods::default(), &headers(&asked));
        assert_eq!(told, headers(&[("vary", "Origin")]));
    }
}
