//! What Tidegate makes of an exchange, by the functions that the appliance decides with.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

use tidegate::message::conditional::Validator;
use tidegate::message::freshness::{Assessment, Exchange, Freshness, assess};
use tidegate::message::response::{Stored, merged};
use tidegate::message::reuse::{RequestControl, Reuse, judge};
use tidegate::message::vary::VariantKey;
use tidegate::site::Lifetimes;

use crate::cases::{Case, Fields, stored_at};
use crate::exceptions::Use;

/// A response that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assessed {
    /// In seconds; zero for what must be confirmed before each use.
    pub(crate) lifetime: u64,
    /// In seconds, when the second request comes.
    pub(crate) age: u64,
}

/// What the origin's second answer makes of what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It failed, and what is stored may be used.
    Kept,
    /// What is stored is what it was.
    Confirmed,
    /// It is another response.
    Replaced,
}

/// All answers about a case.
pub(crate) struct Answers {
    pub(crate) first: Option<Assessed>,
    pub(crate) reuse: Use,
    pub(crate) outcome: Outcome,
    pub(crate) after: Option<Assessed>,
}

/// Rules that add nothing to what an origin says.
const SILENT: Lifetimes = Lifetimes {
    absence_most: None,
    given: None,
    least: None,
    most: None,
    errors: Duration::ZERO,
    stale_while_revalidate: Duration::ZERO,
    stale_if_error: Duration::ZERO,
};

/// What is fresh for how long, if it may be stored at all.
fn freshness(
    request: &HeaderMap,
    status: u16,
    fields: &HeaderMap,
    at: SystemTime,
) -> Option<Freshness> {
    let assessment = assess(&Exchange {
        request_has_authorization: request.contains_key("authorization"),
        status: StatusCode::from_u16(status).expect("cases have statuses"),
        headers: fields,
        requested_at: at,
        received_at: at,
        lifetimes: &SILENT,
    });
    match assessment {
        Assessment::Shared(freshness) if !RequestControl::of(request).no_store => Some(freshness),
        Assessment::Shared(_) | Assessment::Uncacheable(_) => None,
    }
}

fn assessed(freshness: &Freshness, at: SystemTime) -> Assessed {
    let lifetime = if freshness.no_cache { 0 } else { freshness.lifetime.as_secs() };
    Assessed { lifetime, age: freshness.age(at).as_secs() }
}

impl Answers {
    pub(crate) fn of(case: &Case) -> Answers {
        let exchange = &case.written;
        let asked_at = case.asked_at();
        let map = |fields: &Fields| fields.map();
        let (first, second) = (map(&exchange.first), map(&exchange.second));
        let (fields, told) = (map(&exchange.stored.fields), map(&exchange.told.fields));
        let held = freshness(&first, exchange.stored.status, &fields, stored_at());
        let replaced = || freshness(&second, exchange.told.status, &told, asked_at);
        let Some(held) = held else {
            let (reuse, outcome) = (Use::Confirmed, Outcome::Replaced);
            return Answers { first: None, reuse, outcome, after: None };
        };
        let status = StatusCode::from_u16(exchange.stored.status).expect("cases have statuses");
        let stored = Stored::new(status, &fields, stored_at());
        let of = |request| VariantKey::of(stored.vary(), request);
        let reuse = match judge(&held, &RequestControl::of(&second), asked_at).0 {
            _ if of(&first) != of(&second) => Use::Confirmed,
            Reuse::Now => Use::Now,
            Reuse::WhileRevalidated => Use::While,
            Reuse::OnceConfirmed(_) => Use::Confirmed,
        };
        let is_kept = held.is_fresh(asked_at) || held.serves_on_error(asked_at);
        let (outcome, after) = match exchange.told.status {
            500 | 502 | 503 | 504 if is_kept => (Outcome::Kept, Some(held)),
            304 if stored.validator().is_confirmed_by(&Validator::of(&told)) => {
                let merged = merged(stored.fields(), &told).expect("cases have few fields");
                let again = stored.refreshed(&merged, asked_at);
                let status = again.status().as_u16();
                (Outcome::Confirmed, freshness(&second, status, &merged, asked_at))
            }
            304 => (Outcome::Replaced, None),
            _ => (Outcome::Replaced, replaced()),
        };
        let first = Some(assessed(&held, asked_at));
        let after = after.map(|after| assessed(&after, asked_at));
        Answers { first, reuse, outcome, after }
    }
}
