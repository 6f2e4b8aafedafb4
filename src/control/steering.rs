//! Steering: one viewer and what he asks for -> appliances in the order he should try them, each
//! with what moved it up or down.
//!
//! Pure, and of [`Fleet`] and [`Routes`] alone: the same question at the same second has the same
//! answer, wherever it is asked. When nobody is well it says who is least ill, and that this is the
//! last resort: a viewer is never left without an answer while there is an appliance he reaches.

mod cause;
pub mod reason;
mod route;

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;

use serde::{Serialize, Serializer};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Phase;
use super::registry::appliance::{Audience, Pathway};
use super::registry::fleet::{Fleet, Member, Standing};
use super::registry::{Family, Room};
use crate::limits::STEERED_MAX;
use crate::message::decision::{Cause, Given, Host, Seal};
use crate::rendezvous;
use reason::{Reason, Rule};
pub use route::{Candidate, Match, NoRoutes, Route, Routes};

/// Who asks, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Where he asks from.
    pub viewer: IpAddr,
    /// His playback, by a name nobody guesses.
    pub session: &'a str,
    /// The site's name.
    pub site: &'a str,
    /// The object's normalised path; what lies in one folder is steered alike.
    pub path: &'a str,
    /// Where he plays from by now, as far as he was sent there.
    pub plays_from: Option<&'a Pathway>,
    /// The only pathways that what he asks for has; `None`: it may be had from any appliance.
    pub among: Option<&'a [Pathway]>,
    /// Now, in seconds since 1970.
    pub now_seconds: u64,
}

/// What is steered by.
#[derive(Clone, Copy)]
pub struct Steering<'a> {
    /// The appliances and how they are.
    pub fleet: &'a Fleet,
    /// Whom they are for.
    pub routes: &'a dyn Routes,
    /// Whether an appliance has what is asked for; `None`: nobody knows, and it would fetch it.
    pub holds: &'a dyn Fn(&Member) -> Option<bool>,
    /// Over so many appliances the viewers of one folder are spread, among equals: with more, each
    /// holds more that others hold too.
    pub spread: NonZeroU32,
}

/// Names an answer, so that what is served by it can be told from what is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision(u64);

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Decision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where one viewer should go.
#[derive(Clone, Debug, Serialize)]
pub struct Answer<'a> {
    /// Names this answer.
    pub decision: Decision,
    /// When it was made, since 1970.
    #[serde(skip)]
    pub made_seconds: u64,
    /// Whose a miss of the best one is; `None`: there is none.
    pub miss: Option<Cause>,
    /// Nobody he could be sent to is well: these are sent anyway.
    pub last_resort: bool,
    /// Of those he would be sent to, some are leaving or seem ill: he should ask again soon.
    pub unsettled: bool,
    /// The best first, and no more than [`STEERED_MAX`] unless all were asked for.
    pub ranked: Vec<Ranked<'a>>,
    /// Who was left out and why; empty unless all were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<Ranked<'a>>,
}

/// An appliance in an answer.
#[derive(Clone, Debug, Serialize)]
pub struct Ranked<'a> {
    /// Its name.
    pub appliance: &'a str,
    /// What players call it.
    pub pathway: &'a Pathway,
    /// Where it is reached.
    pub host: &'a str,
    /// What moved it up or down, or left it out, in the order it was looked at.
    pub reasons: Vec<Rule>,
}

/// How much an answer tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// The best, and no more than [`STEERED_MAX`].
    Firsts,
    /// Every appliance, those that are left out too.
    All,
}

/// An appliance with what is known of it for one viewer.
struct Seen<'a> {
    member: &'a Member,
    route: Option<Route>,
    absent: bool,
    /// If it is known where both are.
    distance_km: Option<u32>,
    stays: bool,
    /// It seems ill and is kept.
    kept: bool,
    /// Why it gets no viewer.
    out: Option<Reason>,
    score: f64,
    /// The same if it were not near its limit.
    score_at_ease: f64,
}

impl<'a> Steering<'a> {
    /// Where this viewer should go.
    pub fn answer(&self, asked: &Asked<'_>) -> Answer<'a> {
        self.answered(asked, Told::Firsts)
    }

    /// The same with every appliance, and why each that is left out is.
    pub fn explained(&self, asked: &Asked<'_>) -> Answer<'a> {
        self.answered(asked, Told::All)
    }

    fn answered(&self, asked: &Asked<'_>, told: Told) -> Answer<'a> {
        let ranked_max = if told == Told::All { usize::MAX } else { STEERED_MAX };
        let seen = self.seen(asked);
        let (fit, out): (Vec<&Seen<'_>>, Vec<&Seen<'_>>) =
            seen.iter().partition(|seen| seen.out.is_none());
        let sendable = |seen: &&Seen<'_>| seen.out.is_none_or(|reason| reason.is_sendable());
        let last_resort = fit.is_empty() && out.iter().any(sendable);
        let (ranked, left_out): (Vec<_>, Vec<_>) = match last_resort {
            true => out.into_iter().partition(sendable),
            false => (fit, out),
        };
        let by_illness = |one: &Seen<'_>, other: &Seen<'_>| {
            let severity = |seen: &Seen<'_>| seen.out.map(Reason::severity);
            severity(one).cmp(&severity(other)).then_with(|| one.order(other))
        };
        let ranked = firsts(ranked, ranked_max, by_illness);
        let best = ranked.first().copied();
        let of_ranked = |seen: &Seen<'a>| seen.ranked(best, last_resort);
        let left_out = if told == Told::All { left_out } else { Vec::new() };
        Answer {
            decision: asked.decision(),
            made_seconds: asked.now_seconds,
            miss: best.map(|best| cause::of(best, &seen, self.routes.is_empty())),
            last_resort,
            unsettled: is_unsettled(&seen),
            ranked: ranked.into_iter().map(of_ranked).collect(),
            left_out: left_out.into_iter().map(|seen| seen.ranked(best, false)).collect(),
        }
    }

    /// Every appliance, as it is for this viewer.
    fn seen(&self, asked: &Asked<'_>) -> Vec<Seen<'a>> {
        let members = self.fleet.members();
        let mut routes: Vec<Option<Route>> = vec![None; members.len()];
        for Candidate { name, route } in self.routes.candidates(asked.viewer) {
            if let Some(place) = self.fleet.place(name) {
                routes[place] = Some(routes[place].map_or(route, |known| known.min(route)));
            }
        }
        let family = Family::of(asked.viewer);
        let (seed, his) = (asked.seed(self.spread), self.routes.position(asked.viewer));
        let seen = |(member, route): (&'a Member, Option<Route>)| {
            let appliance = &member.appliance;
            let stays = asked.plays_from == Some(appliance.pathway());
            let share_percent = match member.room {
                Room::Tight { share_percent } if !stays => share_percent,
                _ => 100,
            };
            let hash = xxh3_64_with_seed(appliance.name().as_bytes(), seed);
            let score_at_ease = rendezvous::score(hash, appliance.share() * 100.0);
            // In proportion to the weight.
            let score = score_at_ease * f64::from(share_percent) / 100.0;
            Seen {
                member,
                route,
                absent: (self.holds)(member) == Some(false),
                distance_km: his.zip(appliance.position()).map(|(his, its)| his.km_to(its)),
                stays,
                kept: member.standing(family) == Some(Standing::Kept),
                out: left_out(member, asked, family, route.is_some(), stays),
                score,
                score_at_ease,
            }
        };
        members.iter().zip(routes).map(seen).collect()
    }
}

/// Why an appliance gets no such viewer.
fn left_out(
    member: &Member,
    asked: &Asked<'_>,
    family: Family,
    is_announced: bool,
    stays: bool,
) -> Option<Reason> {
    if !member.appliance.serves(asked.site) {
        return Some(Reason::OtherSites);
    }
    if asked.among.is_some_and(|among| !among.contains(member.appliance.pathway())) {
        return Some(Reason::OtherPathways);
    }
    let Some(standing) = member.standing(family) else {
        return Some(Reason::NoAddress { family });
    };
    if !is_announced && member.appliance.audience() == Audience::Announced {
        return Some(Reason::NotForHim);
    }
    match (member.phase(), standing) {
        (Phase::Starting, _) => Some(Reason::Starting),
        (Phase::Draining, _) => Some(Reason::Draining),
        (Phase::Drained, _) => Some(Reason::Drained),
        (Phase::Ready, Standing::New) => Some(Reason::New),
        (Phase::Ready, Standing::Ill) => Some(Reason::Ill),
        (Phase::Ready, Standing::Well | Standing::Kept) => {
            (member.room == Room::Full && !stays).then_some(Reason::Full)
        }
    }
}

/// Whether one of those he would be sent to, were all well, is leaving or seems ill.
fn is_unsettled(seen: &[Seen<'_>]) -> bool {
    let goes =
        |seen: &Seen<'_>| seen.kept || matches!(seen.out, Some(Reason::Draining | Reason::Ill));
    // Mostly none does, and their order need not be known.
    if !seen.iter().any(goes) {
        return false;
    }
    let his = |seen: &&Seen<'_>| seen.out.is_none_or(|reason| reason.is_sendable());
    let his: Vec<&Seen<'_>> = seen.iter().filter(his).collect();
    let firsts = firsts(his, STEERED_MAX, |one, other| one.order(other));
    firsts.into_iter().any(goes)
}

/// The first so many of them, in order.
fn firsts<'s, 'a>(
    mut seen: Vec<&'s Seen<'a>>,
    count_max: usize,
    order: impl Fn(&Seen<'_>, &Seen<'_>) -> Ordering,
) -> Vec<&'s Seen<'a>> {
    if seen.len() > count_max {
        seen.select_nth_unstable_by(count_max, |one, other| order(one, other));
        seen.truncate(count_max);
    }
    seen.sort_unstable_by(|one, other| order(one, other));
    seen
}

impl<'a> Seen<'a> {
    /// Which of two is better for the viewer, were both well.
    fn order(&self, other: &Seen<'_>) -> Ordering {
        self.order_by(other, |seen| (seen.absent, seen.score))
    }

    /// The same by whether each is without what is asked for, and by its score.
    fn order_by(&self, other: &Seen<'_>, of: fn(&Seen<'_>) -> (bool, f64)) -> Ordering {
        let ((absent, score), (other_absent, other_score)) = (of(self), of(other));
        let key = |seen: &Seen<'_>, absent| {
            (seen.route.is_none(), absent, seen.route, seen.distance_steps(), !seen.stays)
        };
        let (name, others) = (self.member.appliance.name(), other.member.appliance.name());
        let by_score = || other_score.total_cmp(&score);
        let by_key = key(self, absent).cmp(&key(other, other_absent));
        by_key.then_with(by_score).then_with(|| name.cmp(others))
    }

    /// Databases know towns, not streets: what is nearer by less is not told apart. Who is nobody
    /// knows where is behind who is somewhere.
    fn distance_steps(&self) -> u32 {
        self.distance_km.map_or(u32::MAX, |km| km / DISTANCE_STEP_KM)
    }

    fn ranked(&self, best: Option<&Seen<'_>>, last_resort: bool) -> Ranked<'a> {
        let appliance = &self.member.appliance;
        Ranked {
            appliance: appliance.name(),
            pathway: appliance.pathway(),
            host: appliance.host(),
            reasons: self.reasons(best, last_resort).into_iter().map(Reason::rule).collect(),
        }
    }

    fn reasons(&self, best: Option<&Seen<'_>>, last_resort: bool) -> Vec<Reason> {
        let mut reasons = Vec::new();
        reasons.extend(self.out);
        if last_resort {
            reasons.push(Reason::LastResort);
        }
        let best_route = best.and_then(|best| best.route);
        reasons.extend(reason::of_route(self.route, best_route));
        if let Some((best, best_distance_km)) = best.and_then(|it| Some((it, it.distance_km?))) {
            let is_further = self.distance_steps() > best.distance_steps();
            reasons.push(match self.distance_km {
                Some(distance_km) if is_further => {
                    Reason::Further { distance_km, best_distance_km }
                }
                Some(distance_km) => Reason::Near { distance_km },
                None => Reason::NowhereKnown,
            });
        }
        if self.absent {
            reasons.push(Reason::Absent);
        }
        if self.stays {
            reasons.push(Reason::PlaysFromIt);
        }
        if self.kept {
            reasons.push(Reason::Kept);
        }
        if let (Room::Tight { share_percent }, false) = (self.member.room, self.stays) {
            reasons.push(Reason::Tight { share_percent });
        }
        if self.out.is_none() {
            reasons.push(Reason::Share);
        }
        reasons
    }
}

impl Answer<'_> {
    /// The decision as the URLs of the appliance of that rank carry it.
    pub fn given(&self, rank: usize, seal: Option<&Seal>) -> Option<String> {
        let (ranked, Decision(number)) = (self.ranked.get(rank)?, self.decision);
        let (cause, made_seconds) = (self.miss?, self.made_seconds);
        let host = Host::of(ranked.host);
        Some(Given { number, rank, cause, made_seconds, host }.text(seal))
    }
}

impl Asked<'_> {
    /// Names the answer.
    fn decision(&self) -> Decision {
        let asked = [self.site, self.path, self.session].map(|text| xxh3_64(text.as_bytes()));
        let viewer = match self.viewer {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let mut bytes = [0; 48];
        let words = asked.into_iter().chain([self.now_seconds]).map(u64::to_le_bytes);
        let words = words.flatten().chain(viewer.octets());
        bytes.iter_mut().zip(words).for_each(|(byte, word)| *byte = word);
        Decision(xxh3_64(&bytes))
    }

    /// What is hashed with the appliances' names: the same for all of a folder and one of so many
    /// parts of its viewers.
    fn seed(&self, spread: NonZeroU32) -> u64 {
        let folder = self.path.rfind('/').map_or("", |end| &self.path[..=end]);
        let part = xxh3_64(self.session.as_bytes()) % u64::from(spread.get());
        let site = xxh3_64_with_seed(self.site.as_bytes(), part);
        xxh3_64_with_seed(folder.as_bytes(), site)
    }
}

/// Appliances nearer to each other than this are as near to a viewer.
const DISTANCE_STEP_KM: u32 = 50;

#[cfg(test)]
pub(in crate::control) mod tests;
