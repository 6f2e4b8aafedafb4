//! Messages that are passed on: of a request and of its answer the fields that go along.
//!
//! What is asked for by GET and HEAD is asked in the edge's own words, because others are given the
//! answer. Here it is for the one who asked: his words go along, and so do the origin's.

use http::header::{ALT_SVC, CONTENT_LENGTH, HeaderValue, MAX_FORWARDS};
use http::{HeaderMap, HeaderName, Method, StatusCode};

use crate::message::response::{copied, edit, is_end_to_end, is_forwarded, join_cookies};
use crate::message::syntax::{decimal, sole, written};
use crate::site::Rule;

/// Whether a request with this method may change something (RFC 9110 section 9.2.1): one that is
/// not known may.
pub fn is_unsafe(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

/// What of a viewer's request goes along, in memory of its own, edited by the rule.
///
/// All that is for more than this connection, but for its length, which the body has, and what some
/// origins take for another host, path, method or address than those the rule was found by. What
/// describes the body, and what is asked of it, goes along whatever fields the rule lets through.
pub fn request_fields(headers: &HeaderMap, rule: &Rule) -> HeaderMap {
    let mut fields = copied(headers, |name| {
        let is_about_it = is_about_this(name);
        is_end_to_end(headers, name)
            && (is_about_it || is_forwarded(name) && rule.viewer_fields.pass(name))
    });
    if sole(headers, &CONTENT_LENGTH).is_some_and(|length| decimal(length.as_bytes()) == Some(0)) {
        // Of a body that is none the client says nothing (RFC 9110 section 8.6).
        fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    join_cookies(&mut fields);
    rule.request.apply_to(&mut fields);
    fields
}

/// What of its answer goes along, edited by the rule. Its length is the body's to say.
pub fn answer_fields(headers: &HeaderMap, rule: &Rule) -> HeaderMap {
    let mut fields = copied(headers, |name| {
        // Another way to the origin is none to us.
        is_end_to_end(headers, name) && *name != CONTENT_LENGTH && *name != ALT_SVC
    });
    edit(rule, &mut fields);
    fields
}

/// Whether an answer with this status to any method but HEAD has a body.
pub fn has_body(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Whether it may be passed on once more (RFC 9110 section 7.6.2), with the number counted down in
/// what goes along. Only OPTIONS and TRACE are counted.
pub fn may_go_on(method: &Method, fields: &mut HeaderMap) -> bool {
    let is_counted = matches!(*method, Method::OPTIONS | Method::TRACE);
    let left = sole(fields, &MAX_FORWARDS).and_then(|value| decimal(value.as_bytes()));
    match left.filter(|_| is_counted) {
        Some(0) => return false,
        Some(left) => {
            fields.insert(MAX_FORWARDS, written(&(left - 1)));
        }
        None => {}
    }
    true
}

/// Of a request: what is said of its own body, what is asked for and on which conditions. An edge
/// that answers asks for these in its own words.
fn is_about_this(name: &HeaderName) -> bool {
    ABOUT_THIS.contains(&name.as_str())
}

const ABOUT_THIS: [&str; 23] = [
    "access-control-request-headers",
    "access-control-request-method",
    "cache-control",
    "content-digest",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-location",
    "content-range",
    "content-type",
    "early-data",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "pragma",
    "priority",
    "range",
    "repr-digest",
    "want-content-digest",
    "want-repr-digest",
];

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::*;
    use crate::site::ViewerFields;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn a_rule_that_names_fields_lets_those_of_the_body_through_too() {
        let asked = fields(&[
            ("content-type", "text/plain"),
            ("content-length", "5"),
            ("if-match", "\"1\""),
            ("cookie", "a=b"),
            ("x-other", "1"),
            ("x-http-method-override", "DELETE"),
            ("x-hop", "1"),
            ("connection", "x-hop"),
        ]);
        let names = |rule: &Rule| {
            let fields = request_fields(&asked, rule);
            let mut names: Vec<_> = fields.keys().map(|name| name.as_str().to_owned()).collect();
            names.sort();
            names
        };
        let mut rule = Rule::everything();
        assert_eq!(names(&rule), ["content-type", "cookie", "if-match", "x-other"]);
        rule.viewer_fields = ViewerFields::Only(vec![HeaderName::from_static("x-other")]);
        assert_eq!(names(&rule), ["content-type", "if-match", "x-other"]);
    }

    #[test]
    fn cookies_of_several_lines_go_in_one() {
        let mut asked = fields(&[("cookie", "a=b")]);
        asked.append(COOKIE, HeaderValue::from_static("c=d"));
        let sent = request_fields(&asked, &Rule::everything());
        assert_eq!(sent.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=b; c=d"]);
    }

    #[test]
    fn forwards_are_counted_down_of_options_alone() {
        for (method, value, expected) in [
            (Method::OPTIONS, "0", None),
            (Method::OPTIONS, "1", Some("0")),
            (Method::OPTIONS, "x", Some("x")),
            (Method::POST, "0", Some("0")),
        ] {
            let mut fields = fields(&[("max-forwards", value)]);
            let goes_on = may_go_on(&method, &mut fields);
            let left = goes_on.then(|| fields[MAX_FORWARDS].to_str().unwrap());
            assert_eq!(left, expected, "{method} {value}");
        }
    }
}
