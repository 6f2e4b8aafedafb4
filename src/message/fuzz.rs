//! What the fuzz targets of `fuzz/` run: any bytes go in, no panic and no broken promise comes out.
//!
//! Here so that the seeds can be replayed by ordinary tests too. Not part of the appliance.

mod origins;

use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, FORWARDED, HeaderMap, HeaderName, HeaderValue, IF_RANGE, VIA,
};
use http::{Request, StatusCode, Uri, Version};

use crate::limits::{
    DECISION_BYTES_MAX, FORWARDED_HOPS_MAX, PROXY_HEADER_BYTES_MAX, RANGES_ANSWERED_MAX,
};
use crate::message::cmcd::{Cmcd, NEXT_MAX, Told};
use crate::message::conditional::{EntityTag, Validator, Verdict, evaluate, if_range_holds};
use crate::message::decision::{self, Host, Seal};
use crate::message::digest::CONTENT_DIGEST;
use crate::message::forwarded::Forwarders;
use crate::message::freshness::Freshness;
use crate::message::head::{self, Kind};
use crate::message::live;
use crate::message::multirange::{Multipart, RangeSet, Resolved};
use crate::message::proxy_protocol::{self, Brought, START_BYTES};
use crate::message::range::{ContentRange, RangeRequest};
use crate::message::request::ObjectRequest;
use crate::message::response::{self, Stored};
use crate::message::reuse::{RequestControl, Reuse, judge};
use crate::message::target::{canonical_query, host_and_port, normalised_path, told_by_player};
use crate::message::vary::{VariantKey, Vary};
use crate::message::via::Via;
use crate::network::Network;
use crate::site::{Content, QueryPolicy, Rule};

pub use origins::{cache_control, multipart, origin_head, targeted};

/// The target on the first line, then fields: what is accepted is normal, and stays so.
pub fn request(bytes: &[u8]) {
    let (target, fields) = split_once(bytes, b"\n");
    let Ok(uri) = Uri::try_from(target) else { return };
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        let (mut parts, ()) = Request::new(()).into_parts();
        (parts.version, parts.uri, parts.headers) = (version, uri.clone(), headers_of(fields));
        let Ok(request) = ObjectRequest::parse(&parts) else { continue };
        let segments = || request.path.split('/');
        assert!(segments().all(|segment| segment != "." && segment != ".."));
        assert_eq!(normalised_path(&request.path).as_ref(), Some(&request.path));
        assert_eq!(host_and_port(request.host.as_bytes()), Some((request.host.clone(), None)));
        assert!(!request.host.bytes().any(|byte| byte.is_ascii_uppercase()));
        let names = vec!["a".to_owned(), "token".to_owned()];
        for policy in [
            QueryPolicy::All,
            QueryPolicy::None,
            QueryPolicy::Only(names.clone()),
            QueryPolicy::Except(names),
        ] {
            let always = live::directives(&request.path, Content::Live);
            let once = canonical_query(request.query, &policy, always);
            assert_eq!(canonical_query(once.as_deref(), &policy, always), once);
            let target = request.target(&policy, Content::Live);
            assert!(Uri::try_from(&*target).is_ok(), "an origin can be asked for {target}");
        }
        let rule = Rule::everything();
        let forwarded = response::forwarded_request_fields(request.headers, &rule);
        assert_eq!(response::forwarded_request_fields(&forwarded, &rule), forwarded);
        let vary = Vary::of(request.headers);
        let chosen = VariantKey::of(&vary, request.headers);
        assert_eq!(VariantKey::of(&vary, &forwarded), chosen, "the origin sees what chooses");
    }
}

/// A target of any form on the first line, a host on the second: the object's key is normal, and a
/// target made of it has the same key, under every policy.
pub fn key(bytes: &[u8]) {
    let (target, host) = split_once(bytes, b"\n");
    let text = String::from_utf8_lossy(target);
    let (path, query) = text.split_once('?').map_or((&*text, None), |(p, q)| (p, Some(q)));
    if let Some((host, _)) = host_and_port(host) {
        assert_eq!(host_and_port(host.as_bytes()), Some((host.clone(), None)));
    }
    let Some(path) = normalised_path(path) else { return };
    assert!(path.starts_with('/') && path.is_ascii() && !path.contains(['?', '#', ' ']));
    assert!(path.split('/').all(|segment| segment != "." && segment != ".."));
    assert_eq!(normalised_path(&path).as_deref(), Some(&*path));
    let names = vec!["a".to_owned(), "token".to_owned(), "CMCD".to_owned()];
    for policy in [
        QueryPolicy::All,
        QueryPolicy::None,
        QueryPolicy::Only(names.clone()),
        QueryPolicy::Except(names),
    ] {
        let once = canonical_query(query, &policy, |_| false);
        assert_eq!(canonical_query(once.as_deref(), &policy, |_| false), once);
        assert_eq!(once.as_deref().and_then(told_by_player), None);
        assert!(once.as_ref().map_or(0, |once| once.len()) <= query.map_or(0, str::len));
    }
}

/// The query on the first line, then fields: what is told is of a closed set and bounded, and it
/// reaches neither the key nor the origin.
pub fn cmcd(bytes: &[u8]) {
    let (query, fields) = split_once(bytes, b"\n");
    let (query, headers) = (String::from_utf8_lossy(query), headers_of(fields));
    let forwarded = response::forwarded_request_fields(&headers, &Rule::everything());
    let key = canonical_query(Some(&query), &QueryPolicy::All, |_| false);
    assert_eq!(Cmcd::of(&forwarded, key.as_deref()), None);
    let Some(cmcd) = Cmcd::of(&headers, Some(&query)) else { return };
    let keys: Vec<_> = cmcd.told().map(|(key, _)| key).collect();
    assert!(keys.iter().all(|key| keys.iter().filter(|other| *other == key).count() == 1));
    for (_, told) in cmcd.told() {
        if let Told::Text(text) = told {
            assert!(text.len() <= 64 && text.is_ascii());
        }
    }
    assert!(cmcd.next.len() <= NEXT_MAX && cmcd.number("v").is_none_or(|v| v == 1 || v == 2));
    for next in &cmcd.next {
        assert!(next.path.is_some() || next.range.is_some());
        assert!(next.path.as_ref().is_none_or(|path| path.len() <= 1024));
        if let Some(range) = &next.range {
            let range = HeaderValue::from_str(&format!("bytes={range}")).expect("digits, a dash");
            assert!(RangeSet::parse(&range).is_none());
        }
    }
}

/// Eight bytes of length, then the field: a resolved range lies within the object.
pub fn range(bytes: &[u8]) {
    let Some((length, field)) = bytes.split_first_chunk() else { return };
    let length = u64::from_be_bytes(*length);
    let Ok(value) = HeaderValue::from_bytes(field) else { return };
    let Some(request) = RangeRequest::parse(&value) else { return };
    let written = HeaderValue::from_str(&request.to_string()).expect("a range is plain ASCII");
    assert_eq!(RangeRequest::parse(&written), Some(request));
    match (request.resolve(length), request) {
        (Ok(range), RangeRequest::FromTo { first, last }) => {
            assert!(range.start() == first && range.end() <= length);
            assert!(last.is_none_or(|last| range.last() == last.min(length - 1)));
            assert!(ContentRange::of(range, Some(length)).is_some());
        }
        (Ok(range), RangeRequest::Suffix { length: suffix }) => {
            assert!(range.end() == length && range.length_bytes() == suffix.min(length));
        }
        (Err(_), RangeRequest::FromTo { first, .. }) => assert!(first >= length),
        (Err(_), RangeRequest::Suffix { length: suffix }) => assert!(suffix == 0 || length == 0),
    }
}

/// Eight bytes of length, then the field: parts are disjoint, in order, within the object and what
/// was asked for, and the body of an answer in parts is as long as it says.
pub fn multirange(bytes: &[u8]) {
    let Some((length, field)) = bytes.split_first_chunk() else { return };
    let length = u64::from_be_bytes(*length) >> 1;
    let Ok(value) = HeaderValue::from_bytes(field) else { return };
    let Some(ranges) = RangeSet::parse(&value) else { return };
    assert_eq!(RangeRequest::parse(&value), None, "one range or several");
    let Ok(Resolved::Parts(parts)) = ranges.resolve(length) else { return };
    assert!((1..=RANGES_ANSWERED_MAX).contains(&parts.len()));
    assert!(parts.iter().all(|part| part.end() <= length && part.length_bytes() > 0));
    assert!(parts.windows(2).all(|pair| pair[0].end() < pair[1].start()));
    let fields = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("video/mp4"))]);
    let stored = Stored::new(StatusCode::OK, &fields, UNIX_EPOCH);
    let Multipart { parts: written, end, length_bytes, .. } =
        Multipart::of(&stored, &parts, length, "boundary");
    let whole = written.iter().map(|(head, part)| head.len() as u64 + part.length_bytes());
    assert_eq!(whole.sum::<u64>() + end.len() as u64, length_bytes);
    assert!(written.iter().map(|(_, part)| part).eq(&parts));
}

/// A head as it comes over the wire: what passes is read by others as it is here.
pub fn head(bytes: &[u8]) {
    let skipped = head::empty_lines(bytes);
    let Some(length) = head::end(&bytes[skipped..], 0) else { return };
    let whole = &bytes[skipped..skipped + length];
    for cut in [1, length / 2] {
        assert_eq!(head::end(&whole[..cut], 0).or_else(|| head::end(whole, cut)), Some(length));
    }
    for kind in [Kind::Request, Kind::Response] {
        if head::check(kind, whole).is_err() {
            continue;
        }
        let text = whole.strip_suffix(b"\r\n\r\n").expect("it ends with an empty line");
        assert!(!text.windows(4).any(|four| four == b"\r\n\r\n"), "there is one head");
        for (number, byte) in text.iter().enumerate() {
            let is_control = (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
            let ends_line = match byte {
                b'\r' => text.get(number + 1) == Some(&b'\n'),
                b'\n' => number > 0 && text[number - 1] == b'\r',
                _ => false,
            };
            assert!(!is_control || ends_line, "byte {number} is {byte}");
        }
        let lines = text.split(|byte| *byte == b'\n').skip(1);
        let lengths =
            lines.filter(|line| line.to_ascii_lowercase().starts_with(b"content-length:"));
        assert!(lengths.count() <= 1);
    }
}

/// The field: what is believed is consistent and is written as it was read.
pub fn content_range(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let Ok(found) = ContentRange::parse(&value) else { return };
    let written = HeaderValue::from_str(&found.to_string()).expect("a range is plain ASCII");
    assert_eq!(ContentRange::parse(&written), Ok(found));
    match (found.range(), found.complete()) {
        (Some(range), Some(complete)) => assert!(range.end() <= complete),
        (Some(range), None) => assert!(range.start() < range.end()),
        (None, complete) => assert!(complete.is_some()),
    }
}

/// A response's fields, an empty line, a request's fields: only a true match decides over bytes.
pub fn conditional(bytes: &[u8]) {
    let (stored, asked) = split_once(bytes, b"\n\n");
    let (stored, asked) = (headers_of(stored), headers_of(asked));
    let validator = Validator::of(&stored);
    let verdict = evaluate(&asked, &validator);
    if asked.keys().all(|name| !name.as_str().starts_with("if-")) {
        assert_eq!(verdict, Verdict::Proceed);
    }
    if if_range_holds(&asked, &validator)
        && let Some(value) = asked.get(IF_RANGE)
    {
        let tag = EntityTag::parse(value);
        assert_eq!(tag.as_ref(), validator.etag().filter(|_| tag.is_some()));
        assert!(tag.is_none_or(|tag| !tag.is_weak()));
    }
    assert_eq!(validator.strong_matches(&validator), validator.is_strong());
    assert!(validator.is_confirmed_by(&validator) || !validator.is_strong());
    if let Some(tag) = validator.etag() {
        assert_eq!(EntityTag::parse(tag.as_header()).as_ref(), Some(tag));
    }
    let strong = |head: &Stored| head.validator().is_strong();
    let head = Stored::new(StatusCode::OK, &stored, UNIX_EPOCH);
    if let Some(merged) = response::merged(head.fields(), &asked)
        && head.validator().is_confirmed_by(&Validator::of(&asked))
    {
        let again = head.refreshed(&merged, UNIX_EPOCH);
        assert_eq!(again.validator().etag(), head.validator().etag());
        assert!(head.validator().etag().is_none() || strong(&head) == strong(&again));
        let mut stored = again.fields().clone();
        stored.remove(CONTENT_DIGEST);
        assert_eq!(response::storable_fields(again.fields()), stored);
    }
}

/// A byte of age, one of what its origin allows, then a request's `Cache-Control`: what is used is
/// fresh, or both sides take it stale.
pub fn request_cache_control(bytes: &[u8]) {
    let Some(([age, allowed], field)) = bytes.split_first_chunk::<2>().map(|(a, b)| (*a, b)) else {
        return;
    };
    let Ok(value) = HeaderValue::from_bytes(field) else { return };
    let asked = RequestControl::of(&HeaderMap::from_iter([(CACHE_CONTROL, value)]));
    let allows = |bit: u8| allowed & 1 << bit != 0;
    let freshness = Freshness {
        lifetime: Duration::from_secs(100),
        must_revalidate: allows(0),
        no_cache: allows(1),
        immutable: allows(2),
        stale_while_revalidate: Duration::from_secs(if allows(3) { 50 } else { 0 }),
        ..Freshness::expired(UNIX_EPOCH)
    };
    let now = UNIX_EPOCH + Duration::from_secs(age.into());
    let is_fresh = freshness.is_fresh(now);
    let old = asked.max_age.is_some_and(|most| freshness.age(now) > most);
    let reloads = freshness.immutable && asked.max_age == Some(Duration::ZERO);
    match judge(&freshness, &asked, now).0 {
        Reuse::Now => {
            assert!(!asked.no_cache && !freshness.no_cache);
            assert!(is_fresh || asked.max_stale.is_some() && !freshness.must_revalidate);
            assert!(!is_fresh || !old || reloads);
        }
        Reuse::WhileRevalidated => {
            assert!(!asked.no_cache && !freshness.no_cache && !is_fresh && allows(3));
            assert!(asked.max_age.is_none() && asked.min_fresh.is_none());
        }
        Reuse::OnceConfirmed(_) => assert!(asked != RequestControl::default() || !is_fresh),
    }
    let ended = HeaderValue::from_bytes(&[field, b", no-cache, only-if-cached"].concat());
    let ended = ended.expect("a value and ASCII are a value");
    let ended = RequestControl::of(&HeaderMap::from_iter([(CACHE_CONTROL, ended)]));
    assert!(ended.no_cache && ended.only_if_cached, "what is not closed hides nothing");
}

/// Lines of `Via`: we know ourselves among others, and only there.
pub fn via(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(100) {
        headers.extend(HeaderValue::from_bytes(line).ok().map(|line| (VIA, line)));
    }
    let us = Via::of("tidegate-us");
    let names_us = bytes.windows(11).any(|window| window == b"tidegate-us");
    assert!(!us.has_passed(&headers) || names_us);
    headers.append(VIA, us.value().clone());
    assert!(us.has_passed(&headers));
}

/// A query: what a log repeats of it is short and plain, and what counts is of ours.
pub fn decision(bytes: &[u8]) {
    let Ok(query) = str::from_utf8(bytes) else { return };
    let host = || Host::of("edge-1");
    let logged = decision::logged(Some(query));
    assert!(logged.is_none_or(|text| {
        text.len() <= DECISION_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
    }));
    let cause = decision::cause(Some(query), host, 1_800_000_000, None);
    assert!(cause.is_none() || logged.is_some_and(|text| text.contains(".0")));
    let seal = Seal::new(b"nobody knows it");
    assert_eq!(decision::cause(Some(query), host, 1_800_000_000, Some(&seal)), None);
}

/// A header is as long as its start says, and brings somebody or is refused; a bit more or less of
/// it is none.
pub fn proxy_protocol(bytes: &[u8]) {
    let Some(start) = bytes.first_chunk() else { return };
    let Ok(length) = proxy_protocol::length_bytes(start) else {
        return assert!(proxy_protocol::read(bytes).is_err());
    };
    assert!((START_BYTES..=PROXY_HEADER_BYTES_MAX).contains(&length));
    let header = bytes.get(..length);
    let brought = header.map(proxy_protocol::read);
    if let Some(Ok(Brought::Viewer(viewer))) = brought {
        assert_eq!(viewer.ip(), viewer.ip().to_canonical());
    }
    if bytes.len() != length {
        assert!(proxy_protocol::read(bytes).is_err());
    }
}

/// Lines of a field: whom it names was written there, or is who says it; who is not believed
/// changes nothing.
pub fn forwarded(bytes: &[u8]) {
    let networks: Vec<Network> = vec!["10.0.0.0/8".parse().expect("a network is one")];
    let peers = ["10.0.0.1", "192.0.2.1"].map(|peer| peer.parse().expect("an address is one"));
    for field in [FORWARDED, HeaderName::from_static("x-forwarded-for")] {
        let mut headers = HeaderMap::new();
        for line in bytes.split(|byte| *byte == b'\n').take(100) {
            if let Ok(line) = HeaderValue::from_bytes(line) {
                headers.append(&field, line);
            }
        }
        let forwarders = Forwarders { networks: networks.clone(), field };
        let [known, stranger] = peers.map(|peer: IpAddr| forwarders.client(peer, &headers));
        assert_eq!(stranger, peers[1]);
        assert_eq!(known, known.to_canonical());
        // He is still the one when another proxy that is believed passes it on.
        let said = match forwarders.field == FORWARDED {
            true => "for=10.0.0.1".to_owned(),
            false => "10.0.0.1".to_owned(),
        };
        headers.append(&forwarders.field, HeaderValue::from_str(&said).expect("it is plain"));
        let again = forwarders.client("10.0.0.2".parse().expect("an address is one"), &headers);
        let elements = 1 + bytes.iter().filter(|byte| b",\n".contains(byte)).count();
        assert!(again == known || elements >= FORWARDED_HOPS_MAX);
    }
}

/// Lines of `name: value`; what is no field is skipped.
fn headers_of(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(1000) {
        let (name, value) = split_once(line, b":");
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii()))
        {
            headers.append(name, value);
        }
    }
    headers
}

fn split_once<'a>(bytes: &'a [u8], separator: &[u8]) -> (&'a [u8], &'a [u8]) {
    match bytes.windows(separator.len()).position(|window| window == separator) {
        Some(at) => (&bytes[..at], &bytes[at + separator.len()..]),
        None => (bytes, b""),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 17] = [
        ("decision", decision),
        ("proxy_protocol", proxy_protocol),
        ("forwarded", forwarded),
        ("targeted", targeted),
        ("request_cache_control", request_cache_control),
        ("origin_head", origin_head),
        ("multipart", multipart),
        ("via", via),
        ("head", head),
        ("key", key),
        ("cmcd", cmcd),
        ("multirange", multirange),
        ("request", request),
        ("range", range),
        ("content_range", content_range),
        ("conditional", conditional),
        ("cache_control", cache_control),
    ];

    /// What a target begins with, so many at least.
    pub(crate) fn seeds(target: &str, count_min: usize) -> Vec<Vec<u8>> {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let files = fs::read_dir(&seeds).unwrap().map(Result::unwrap);
        let found: Vec<_> = files.map(|file| fs::read(file.path()).unwrap()).collect();
        assert!(found.len() >= count_min, "{} has seeds", seeds.display());
        found
    }

    #[test]
    fn the_seeds_of_every_target_keep_its_promises() {
        for (name, target) in TARGETS {
            seeds(name, 5).iter().for_each(|seed| target(seed));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_a_promise(
            bytes in "(/|http://a/|GET / HTTP/1.1\r\n|content-length:|bytes=?|[0-9]{0,20}|\
                [-/*, ]|%2[eEfF]|\\.|\
                (age|etag|date|host|if-range|if-match|cache-control|authorization):|\
                (CMCD|%43|%2C|bl=|nor=|cmcd-request:|v=3)|\
                (no-store|max-age=|private|=?\"|W/\"|\\\\|\n|\r\n|\n\n|[a-c\u{e9}?&=;]))*",
        ) {
            for (_, target) in TARGETS {
                target(bytes.as_bytes());
            }
        }
    }
}
