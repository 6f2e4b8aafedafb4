//! Fills in what `explain` tells, of one request and one object.
//!
//! Decides nothing itself: it asks the same rules as delivery, and changes nothing but that a head
//! which only a volume knew is in ram afterwards.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::HOST;
use http::request::Parts as RequestHead;
use http::{HeaderMap, HeaderValue};
use tokio::time::timeout;

use super::figures::run_status;
use super::parts::Parts;
use crate::cache::heads::{Head, Known};
use crate::cache::ssd::Recalled;
use crate::control::explained::{Answer, Arithmetic, Explanation, Unexplained, Variant};
use crate::control::status::BlockStatus;
use crate::delivery::purged::find;
use crate::delivery::stored::weigh;
use crate::limits::{
    EXPLAINED_BLOCKS_MAX, PIECE_SIZE_BYTES, STATUS_BLOCKS_MAX, STATUS_OBJECTS_MAX,
};
use crate::message::conditional::{self, Verdict};
use crate::message::freshness::{Exchange, Freshness, LifetimeBy, lifetime};
use crate::message::multirange::Resolved;
use crate::message::range::RangeRequest;
use crate::message::request::{ObjectRequest, host_of};
use crate::message::reuse::{RequestControl, Reuse};
use crate::object::{BlockKey, ByteRange, ObjectKey, PieceMap};
use crate::purge::Standing;
use crate::site::{Access, RequestCacheControl, Rule};

/// Explains the request with this head. Safe to drop.
pub(super) async fn explain(
    parts: Arc<Parts>,
    mut head: RequestHead,
) -> Result<Explanation, Unexplained> {
    let refused = |why: String| Unexplained { error: format!("it would be refused: {why}") };
    let authority = head.uri.authority().map(|authority| authority.to_string());
    let host = authority.and_then(|authority| HeaderValue::try_from(authority).ok());
    head.headers.insert(HOST, host.ok_or_else(|| refused("no host is named".to_owned()))?);
    let is_shown = takes_token(&parts, &mut head);
    let request = ObjectRequest::parse(&head).map_err(|error| refused(error.to_string()))?;
    let site = parts.live.sites.load().find(&request.host).cloned();
    let site = site.ok_or_else(|| refused(format!("no site has the host {:?}", request.host)))?;
    let rule = site.rule_for(&request.path);
    let rule_number = site.rules.iter().position(|one| std::ptr::eq(one, rule));
    let key = ObjectKey::new(site.id, &request.target(&rule.query, rule.content));
    let control = match rule.request_cache_control {
        RequestCacheControl::Honour => RequestControl::of(&head.headers),
        RequestCacheControl::Ignore => RequestControl::default(),
    };
    let doubt = recall(&parts, &key).await;
    let now = SystemTime::now();
    let standing = standing(&parts, &key, &head.headers);
    let known = find(&parts.filler, &key, &head.headers, now);
    let mut answer = answer(&parts, &known, &request, (&control, now));
    if let Some(purged) = standing.and_then(|standing| standing.in_words()) {
        answer.because.push_str("; ");
        answer.because.push_str(purged);
    }
    answer.because.push_str(doubt);
    if rule.access == Access::Token {
        match is_shown {
            true => answer.because.push_str("; whether its token lets him in was not asked"),
            false => answer = without_token(),
        }
    }
    let variants = parts.heads.variants(&key);
    let variant = |one: &Arc<Head>| variant(&parts, rule, one, (&request, now));
    let runs = parts.filler.runs.all().into_iter().filter(|run| run.key == key);
    Ok(Explanation {
        site: site.name.clone(),
        rule: rule.pattern.to_string(),
        rule_number: rule_number.map_or(0, |place| place + 1),
        key: key.target().to_owned(),
        request_cache_control: rule.request_cache_control.as_str(),
        answer,
        variants: variants.iter().map(variant).collect(),
        runs: runs.take(STATUS_OBJECTS_MAX).map(|run| run_status(&parts, &run)).collect(),
    })
}

/// Takes the token out of a request, as the door of its site does; whether it is clear that there
/// was one.
fn takes_token(parts: &Parts, head: &mut RequestHead) -> bool {
    let sites = parts.live.sites.load();
    let site = host_of(head).ok().and_then(|host| sites.find(&host).map(|site| site.id));
    let doors = parts.live.doors.load();
    let Some(door) = site.and_then(|site| doors.of(site)) else { return false };
    let shown = door.take(head);
    !shown.is_nothing() && !shown.is_unclear()
}

/// What is answered who shows no token where one is asked for.
fn without_token() -> Answer {
    let because = "its rule lets in who shows a token, and it has none".to_owned();
    Answer { how: "refuse", because, status: Some(403) }
}

/// Brings to ram what only a volume knows; what there is to add if that cannot be.
async fn recall(parts: &Parts, key: &ObjectKey) -> &'static str {
    if !parts.heads.variants(key).is_empty() {
        return "";
    }
    match timeout(parts.config.fill.first_byte_timeout, parts.ssd.recall(key)).await {
        Ok(Recalled::Found | Recalled::NotHeld) => "",
        Ok(Recalled::Ill) => "; a volume that may know more is ill",
        Ok(Recalled::NoMemory) => "; there is no memory to ask the volumes",
        Err(_) => "; a volume that may know more does not answer",
    }
}

/// What purges leave of what the request would have been answered with.
fn standing(parts: &Parts, key: &ObjectKey, fields: &HeaderMap) -> Option<Standing> {
    let Known::Variant(head) = parts.heads.find(key, fields, Instant::now()) else { return None };
    Some(parts.purges.reckon(key, &head.birth, &head.tags))
}

fn answer(
    parts: &Parts,
    known: &Known,
    request: &ObjectRequest<'_>,
    (control, now): (&RequestControl, SystemTime),
) -> Answer {
    let asks = |how, because: &str| match control.only_if_cached {
        true => Answer {
            how: "refuse",
            because: format!("{because}; only-if-cached (RFC 9111 section 5.2.1.7)"),
            status: Some(504),
        },
        false => Answer { how, because: because.to_owned(), status: None },
    };
    let head = match known {
        Known::Nothing => return asks("fetch", "nothing is stored"),
        Known::OtherVariants => {
            return asks(
                "fetch",
                "what is stored was chosen by other fields (RFC 9111 section 4.1)",
            );
        }
        Known::Uncacheable => {
            return asks("pass", "its origin said a moment ago that it may not be shared");
        }
        Known::Variant(head) => head,
    };
    let asked = (control, request.has_authorization);
    let (reuse, because) = weigh(head, asked, now, || !head.version.was_asked_about(now));
    let how = match reuse {
        Reuse::Now => "stored",
        Reuse::WhileRevalidated => "stored-and-refreshed",
        Reuse::OnceConfirmed(_) => return asks("confirm", because),
    };
    let (status, taken) = status(head, request);
    let held = match taken {
        Some(taken) => are_held(parts, head, &taken),
        None => parts.filler.runs.bring(head.version.id, 0),
    };
    let how = if held { how } else { "stored-in-part" };
    Answer { how, because: because.to_owned(), status: Some(status) }
}

/// The status of an answer from what is stored (RFC 9110 section 13.2.2), and the parts of the
/// object that it takes; `None` where all of it is taken and nobody knows how much that is.
fn status(head: &Head, request: &ObjectRequest<'_>) -> (u16, Option<Vec<ByteRange>>) {
    let (stored, length) = (&head.stored, head.version.length_bytes());
    let whole = |length| ByteRange::new(0, length).into_iter().collect();
    let all = (stored.status().as_u16(), length.map(whole));
    let nothing = || Some(Vec::new());
    if !stored.status().is_success() {
        return all;
    }
    match conditional::evaluate(request.headers, stored.validator()) {
        Verdict::PreconditionFailed => return (412, nothing()),
        Verdict::NotModified => return (304, nothing()),
        Verdict::Proceed => {}
    }
    let is_part = stored.status() == http::StatusCode::OK
        && conditional::if_range_holds(request.headers, stored.validator());
    let Some(length) = length.filter(|_| is_part) else { return all };
    if length == 0 && request.range.is_some_and(RangeRequest::is_satisfied_by_nothing) {
        return all;
    }
    match (&request.ranges, request.range) {
        (Some(_), _) if !head.version.is_resumable() => all,
        (Some(several), _) => match several.resolve(length) {
            Ok(Resolved::TooMany) => all,
            Ok(Resolved::Parts(parts)) => (206, Some(parts)),
            Err(_) => (416, nothing()),
        },
        (None, Some(range)) => match range.resolve(length) {
            Ok(range) => (206, Some(vec![range])),
            Err(_) => (416, nothing()),
        },
        (None, None) => all,
    }
}

/// Whether each piece of these parts is in ram or on a volume. Of more than a glance can look for,
/// it is not known that they are.
fn are_held(parts: &Parts, head: &Head, taken: &[ByteRange]) -> bool {
    let (version, block_size) = (head.version.id, parts.config.block_size);
    let mut glances = EXPLAINED_BLOCKS_MAX;
    let mut is_held = |part: &ByteRange, index: u32| {
        let Some(left) = glances.checked_sub(1) else { return false };
        glances = left;
        let key = BlockKey { version, index };
        let in_ram = parts.ram.peek(&key).map_or_else(PieceMap::default, |block| block.pieces());
        let held = in_ram.union(parts.ssd.held(&key));
        let block = block_size.start_of(index);
        let start = part.start().max(block) - block;
        let end = part.end().min(block + block_size.bytes()) - block;
        let mut pieces = start / PIECE_SIZE_BYTES..end.div_ceil(PIECE_SIZE_BYTES);
        pieces.all(|piece| held.holds(piece as u32))
    };
    taken.iter().all(|part| {
        let ends = block_size.block_at(part.start()).zip(block_size.block_at(part.last()));
        ends.is_some_and(|(first, last)| (first..=last).all(|index| is_held(part, index)))
    })
}

/// The blocks that are looked at: of a long object not all, but those from the first on that is
/// asked for, or as many as there are at its end.
fn looked_at(parts: &Parts, head: &Head, request: &ObjectRequest<'_>) -> Range<u32> {
    let block_size = parts.config.block_size;
    let taken = status(head, request).1.unwrap_or_default();
    let start = taken.first().map_or(0, |part| part.start() / block_size.bytes());
    let length_bytes = head.version.length_bytes();
    let all = length_bytes.map_or(u64::MAX, |length| length.div_ceil(block_size.bytes()));
    let first = start.min(all.saturating_sub(STATUS_BLOCKS_MAX));
    let end = all.min(first.saturating_add(STATUS_BLOCKS_MAX));
    first as u32..end as u32
}

fn variant(
    parts: &Parts,
    rule: &Rule,
    head: &Head,
    (request, now): (&ObjectRequest<'_>, SystemTime),
) -> Variant {
    let fields = head.stored.fields();
    let version = &head.version;
    let blocks = looked_at(parts, head, request);
    let shown = |held: Vec<(u32, PieceMap)>| {
        held.into_iter().map(|(index, pieces)| BlockStatus::new(index, pieces)).collect()
    };
    let on_ssd = |index| (index, parts.ssd.held(&BlockKey { version: version.id, index }));
    let on_ssd = blocks.clone().map(on_ssd).filter(|(_, pieces)| *pieces != PieceMap::default());
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Variant {
        is_selected: head.is_selected_by(request.headers),
        chosen_by: head.variant.lines(),
        status: head.stored.status().as_u16(),
        fields: fields.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        version: version.id.to_string(),
        is_joinable: version.validator.is_strong(),
        length_bytes: version.length_bytes(),
        freshness: arithmetic(rule, head, now),
        origin_rests: version.rests(now),
        block_size_bytes: parts.config.block_size.bytes(),
        first_block: blocks.start,
        ram: shown(parts.ram.held(version.id, blocks)),
        ssd: shown(on_ssd.collect()),
    }
}

/// The lifetime is reckoned once more of what is stored, so that who gave it can be told.
fn arithmetic(rule: &Rule, head: &Head, now: SystemTime) -> Arithmetic {
    let Freshness { received_at, initial_age, no_cache, must_revalidate, immutable, .. } =
        head.freshness;
    let found = lifetime(&Exchange {
        request_has_authorization: false,
        status: head.stored.status(),
        headers: head.stored.fields(),
        requested_at: received_at,
        received_at,
        lifetimes: &rule.lifetimes,
    });
    let age = head.freshness.age(now);
    Arithmetic {
        initial_age_seconds: initial_age.as_secs(),
        resident_seconds: now.duration_since(received_at).unwrap_or_default().as_secs(),
        age_seconds: age.as_secs(),
        lifetime_seconds: head.freshness.lifetime.as_secs(),
        found_lifetime_seconds: found.map_or(Duration::ZERO, |found| found.found).as_secs(),
        lifetime_by: found.map_or(LifetimeBy::Nobody, |found| found.by).sentence(),
        ttl_seconds: head.freshness.ttl_seconds(now),
        stale_while_revalidate_seconds: head.freshness.stale_while_revalidate.as_secs(),
        stale_if_error_seconds: head.freshness.stale_if_error.as_secs(),
        no_cache,
        must_revalidate,
        immutable,
    }
}
