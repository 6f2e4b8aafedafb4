//! Where a token stands in a URI (RFC 9246 section 2.1), and the URI without it.

use std::borrow::Cow;
use std::mem;

use memchr::memchr3_iter;

use crate::message::target::{normalised_path, normalised_query};

/// A target with what was found in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// The token as it is written; `None`: there is none in this target.
    pub token: Option<&'a str>,
    /// The target without it.
    pub bare: Cow<'a, str>,
}

/// A target has several tokens, of which it is undefined which one counts; or one in its query goes
/// over into something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclear;

/// Finds the attribute `name` in a path and query: as `;name=` in either, as `?name=` or `&name=`
/// in the query.
///
/// # Errors
/// It is unclear what the token is, or what is left without it.
pub fn find<'a>(target: &'a str, name: &str) -> Result<Found<'a>, Unclear> {
    find_with(target, name, 0)
}

/// The same, where a token may end in the padding of base64 (CTA-5007 section 4.3.1.1).
///
/// # Errors
/// The same.
pub fn find_padded<'a>(target: &'a str, name: &str) -> Result<Found<'a>, Unclear> {
    find_with(target, name, PADDING_BYTES_MAX)
}

fn find_with<'a>(
    target: &'a str,
    name: &str,
    padding_bytes_max: usize,
) -> Result<Found<'a>, Unclear> {
    let mut found = attributes(target, name);
    let Some(at) = found.next() else {
        return Ok(Found { token: None, bare: target.into() });
    };
    if found.next().is_some() {
        return Err(Unclear);
    }
    let start = at + name.len() + 1;
    let length = token_bytes(&target.as_bytes()[start..]);
    let padding = target[start + length..].bytes().take(padding_bytes_max);
    let length = length + padding.take_while(|byte| *byte == b'=').count();
    let (token, rest) = target[start..].split_at(length);
    // Section 2.2: a sub-delimiter that ends it goes with it, else what stands before it does.
    let bare = match rest.bytes().next() {
        Some(end) if is_sub_delimiter(end) => joined(&target[..at], &rest[1..]),
        // What follows would be moved from the query into the path.
        Some(_) if target[..at].contains('?') => return Err(Unclear),
        _ => joined(&target[..at - 1], rest),
    };
    if attributes(&bare, name).next().is_some() {
        return Err(Unclear);
    }
    Ok(Found { token: Some(token), bare: bare.into() })
}

fn joined(before: &str, after: &str) -> String {
    let mut all = String::with_capacity(before.len() + after.len());
    all.push_str(before);
    all.push_str(after);
    all
}

/// Where the attribute begins, each time.
fn attributes<'a>(target: &'a str, name: &'a str) -> impl Iterator<Item = usize> {
    let (target, mut is_query) = (target.as_bytes(), false);
    let begun = memchr3_iter(b';', b'?', b'&', target).filter(move |at| match target[*at] {
        b'?' => !mem::replace(&mut is_query, true),
        b'&' => is_query,
        _ => true,
    });
    let is_named = move |at: &usize| {
        let value = target[*at..].strip_prefix(name.as_bytes());
        value.is_some_and(|value| value.starts_with(b"="))
    };
    begun.map(|at| at + 1).filter(is_named)
}

/// How many bytes at the beginning may be of a token: a JWS in compact form, base64url and dots.
fn token_bytes(text: &[u8]) -> usize {
    // Tokens are long, and each request has one: many bytes at once, as long as all are.
    let many = whole_chunks::<32>(text);
    let some = many + whole_chunks::<8>(&text[many..]);
    some + whole_chunks::<1>(&text[some..])
}

/// How many bytes at the beginning are chunks of nothing else.
fn whole_chunks<const BYTES: usize>(text: &[u8]) -> usize {
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() | matches!(byte, b'-' | b'_' | b'.');
    let is_whole =
        |chunk: &&[u8; BYTES]| chunk.iter().fold(true, |whole, byte| whole & is_of_token(byte));
    text.as_chunks::<BYTES>().0.iter().take_while(is_whole).count() * BYTES
}

/// What is left over is one byte or two.
const PADDING_BYTES_MAX: usize = 2;

/// RFC 3986 section 2.2.
fn is_sub_delimiter(byte: u8) -> bool {
    b"!$&'()*+,;=".contains(&byte)
}

/// A URI as containers are compared with it (RFC 3986 sections 6.2.2 and 6.2.3): host in lower
/// case, no usual port, escapes in one spelling, no dot segments. `None`: it is none.
///
/// `host` is normalised already, `target` is a path and perhaps a query.
pub fn normalised(scheme: &str, host: &str, port: Option<u16>, target: &str) -> Option<String> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    uri_of(scheme, host, port, &normalised_path(path)?, query)
}

/// The same of a path that is normalised already.
pub fn uri_of(
    scheme: &str,
    host: &str,
    port: Option<u16>,
    path: &str,
    query: Option<&str>,
) -> Option<String> {
    let usual = if scheme == "https" { 443 } else { 80 };
    let query_bytes = query.map_or(0, |query| query.len() + 1);
    let bytes = scheme.len() + "://".len() + host.len() + ":65535".len() + path.len() + query_bytes;
    let mut uri = String::with_capacity(bytes);
    uri.extend([scheme, "://", host]);
    if let Some(port) = port.filter(|port| *port != usual) {
        uri.extend([":", itoa::Buffer::new().format(port)]);
    }
    uri.push_str(path);
    if let Some(query) = query {
        uri.push('?');
        uri.push_str(&normalised_query(query)?);
    }
    Some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JWT: &str = "eyJh-_.e30.c2ln";

    /// RFC 9246 section 2.2's rule, in each place.
    #[test]
    fn a_token_is_found_and_taken_out_with_what_belongs_to_it() {
        for (target, bare) in [
            ("/path?come=data&token=JWT&other=data", "/path?come=data&other=data"),
            ("/path?token=JWT&other=data", "/path?other=data"),
            ("/path?come=data&token=JWT", "/path?come=data"),
            ("/path?token=JWT", "/path"),
            ("/path;token=JWT/file.ts", "/path/file.ts"),
            ("/path;token=JWT?a=b", "/path?a=b"),
            ("/path;token=JWT;b=c/file.ts", "/path;b=c/file.ts"),
            ("/path;token=JWT", "/path"),
        ] {
            let target = target.replace("JWT", JWT);
            let found = find(&target, "token").unwrap();
            assert_eq!((found.token, &*found.bare), (Some(JWT), bare), "{target}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_none_and_of_two_neither_counts() {
        for target in ["/token=a", "/a?xtoken=b", "/a&token=b", "/a?b=token=c", "/a?token", "/a"] {
            let found = find(target, "token").unwrap();
            assert_eq!((found.token, &*found.bare), (None, target), "{target}");
        }
        for target in [
            "/a?token=b&token=c",
            "/a;token=b?token=c",
            "/a?token=b&x=1&token=b",
            // One that stands there when the other is gone.
            "/a?token=b,token=c",
            // What would be another path, and other queries.
            "/secret/film.mp4?token=b/../../public/x.mp4",
            "/a?token=b%41",
            "/a?token=b?x=1",
        ] {
            assert_eq!(find(target, "token"), Err(Unclear), "{target}");
        }
        assert_eq!(find("/a?token=&b=c", "token").unwrap().token, Some(""));
        let padded = find_padded("/a?token=bc==&d=e", "token").unwrap();
        assert_eq!((padded.token, &*padded.bare), (Some("bc=="), "/a?d=e"));
    }

    #[test]
    fn a_token_of_any_length_ends_where_something_else_stands() {
        let token: String =
            ('0'..='9').chain('A'..='Z').chain('a'..='z').chain("-_.".chars()).collect();
        for (length, end) in
            (0..=token.len()).flat_map(|length| [(length, ""), (length, "/x"), (length, "%41")])
        {
            let text = [&token[..length], end].concat();
            assert_eq!(token_bytes(text.as_bytes()), length, "{text}");
        }
    }

    #[test]
    fn a_uri_has_one_spelling() {
        let normalised = |target| normalised("https", "a.test", Some(443), target).unwrap();
        assert_eq!(normalised("/%7efoo/./b%2f?x=%7e%3a?"), "https://a.test/~foo/b%2F?x=~%3A?");
        assert_eq!(normalised("/"), "https://a.test/");
        assert!(super::normalised("http", "a.test", Some(443), "/%zz").is_none());
        let uri = super::normalised("http", "a.test", Some(443), "/").unwrap();
        assert_eq!(uri, "http://a.test:443/");
    }
}
