//! A decision as JSON: appliances in order, each with where it has the object and its reasons.

use std::net::IpAddr;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::Now;
use crate::control::content_steering::location;
use crate::control::steering::reason::{Moved, Reason};
use crate::control::steering::{Answer, Decision, Ranked};

/// An answer as it is told as JSON.
#[derive(Serialize)]
pub(super) struct RankedAnswer<'a> {
    decision: Decision,
    viewer: IpAddr,
    site: &'a str,
    path: &'a str,
    last_resort: bool,
    unsettled: bool,
    /// So long it is good.
    ttl_seconds: u64,
    ranked: Vec<Told<'a>>,
}

/// An appliance in it.
#[derive(Serialize)]
struct Told<'a> {
    appliance: &'a str,
    pathway: &'a str,
    host: &'a str,
    /// Where it has what was asked for.
    url: String,
    reasons: Vec<ToldReason>,
}

#[derive(Serialize)]
struct ToldReason {
    moved: Moved,
    #[serde(flatten)]
    reason: Reason,
    /// In words.
    text: String,
}

impl<'a> RankedAnswer<'a> {
    pub(super) fn of(
        answer: &'a Answer<'a>,
        site: &'a str,
        path: &'a str,
        (scheme, target): (&str, &str),
        now: &Now<'_>,
    ) -> RankedAnswer<'a> {
        let told = |(rank, one): (usize, &'a Ranked<'a>)| Told {
            appliance: one.appliance,
            pathway: one.pathway.as_str(),
            host: one.host,
            url: location(scheme, target, answer, rank, now.settings.seal.as_ref())
                .unwrap_or_default(),
            reasons: one
                .reasons
                .iter()
                .map(|rule| ToldReason {
                    moved: rule.moved,
                    reason: rule.reason,
                    text: rule.reason.to_string(),
                })
                .collect(),
        };
        let unsettled = answer.unsettled || answer.last_resort;
        // Not all who ask in one second are to come again in one.
        let pace = now.settings.pace;
        let seed = xxh3_64(answer.decision.to_string().as_bytes());
        RankedAnswer {
            decision: answer.decision,
            viewer: now.from.viewer,
            site,
            path,
            last_resort: answer.last_resort,
            unsettled: answer.unsettled,
            ttl_seconds: pace.ttl_seconds(unsettled, now.burden(), seed),
            ranked: answer.ranked.iter().enumerate().map(told).collect(),
        }
    }
}
