//! The fleet as steering sees it: each appliance with how it stands, at one moment.
//!
//! A value without clocks: it can be kept, signed, sent, and steered by while nobody else answers.
//! Of those that are wanted and were well, no more than a set share is taken out for illness: when
//! half a fleet seems ill, it is more likely that who looks at it is.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::appliance::{Appliance, Pathway};
use super::health::{Health, State};
use super::{Family, Heartbeat, Room, Rules};
use crate::control::Phase;

/// How an appliance stands, in one family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It has never been well: no viewers yet.
    New,
    /// Viewers are sent there.
    Well,
    /// It seems ill, and stays although: too many would be taken out.
    Kept,
    /// It is ill: no viewers.
    Ill,
}

/// An appliance and how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Which one.
    pub appliance: Appliance,
    ipv4: Option<Standing>,
    ipv6: Option<Standing>,
    /// What it can still take.
    pub room: Room,
    /// What it last said.
    pub heard: Option<Heartbeat>,
}

impl Member {
    /// How it stands for such viewers; `None`: they do not reach it.
    pub fn standing(&self, family: Family) -> Option<Standing> {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    /// Whether it wants viewers.
    pub fn phase(&self) -> Phase {
        self.heard.as_ref().map_or(Phase::Starting, |heartbeat| heartbeat.phase)
    }
}

/// Every appliance and how it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Member>", into = "Vec<Member>")]
pub struct Fleet {
    /// By name.
    members: Vec<Member>,
    /// Places in `members`, by pathway.
    by_pathway: Vec<usize>,
}

impl From<Vec<Member>> for Fleet {
    fn from(mut members: Vec<Member>) -> Fleet {
        members.sort_by(|one, other| one.appliance.name().cmp(other.appliance.name()));
        let mut by_pathway: Vec<usize> = (0..members.len()).collect();
        by_pathway.sort_by(|one, other| pathway(&members, *one).cmp(pathway(&members, *other)));
        Fleet { members, by_pathway }
    }
}

impl From<Vec<Appliance>> for Fleet {
    /// Of appliances that nobody hears of: they are taken for well, ready and idle.
    fn from(appliances: Vec<Appliance>) -> Fleet {
        let member = |appliance: Appliance| {
            let [ipv4, ipv6] =
                Family::ALL.map(|family| appliance.has(family).then_some(Standing::Well));
            let heard = Heartbeat {
                phase: Phase::Ready,
                load_percent: 0,
                free_bits_per_second: appliance.capacity_bits_per_second(),
                hit_percent: 0,
                volumes_online: 0,
                volumes_failed: 0,
                answers_ipv4: ipv4.is_some(),
                answers_ipv6: ipv6.is_some(),
            };
            Member { appliance, ipv4, ipv6, room: Room::Open, heard: Some(heard) }
        };
        Fleet::from(appliances.into_iter().map(member).collect::<Vec<_>>())
    }
}

impl From<Fleet> for Vec<Member> {
    fn from(fleet: Fleet) -> Vec<Member> {
        fleet.members
    }
}

/// An appliance and what is thought of it.
pub(super) struct Judged {
    pub(super) appliance: Appliance,
    /// By family, in the order of [`Family::ALL`].
    pub(super) health: [Health; 2],
    pub(super) room: Room,
    pub(super) heard: Option<Heartbeat>,
}

impl Fleet {
    /// How all stand.
    pub(super) fn judged(all: Vec<Judged>, rules: &Rules) -> Fleet {
        let [ipv4, ipv6] = Family::ALL.map(|family| standings(&all, family, rules));
        let standings = ipv4.into_iter().zip(ipv6);
        let member = |(judged, (ipv4, ipv6)): (Judged, _)| Member {
            appliance: judged.appliance,
            ipv4,
            ipv6,
            room: judged.room,
            heard: judged.heard,
        };
        Fleet::from(all.into_iter().zip(standings).map(member).collect::<Vec<_>>())
    }

    /// All, by name.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Where the one of this name stands among them.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.members.binary_search_by(|member| member.appliance.name().cmp(name)).ok()
    }

    /// The one players call so.
    pub fn by_pathway(&self, wanted: &Pathway) -> Option<&Member> {
        let found = self.by_pathway.binary_search_by(|n| pathway(&self.members, *n).cmp(wanted));
        found.ok().map(|n| &self.members[self.by_pathway[n]])
    }
}

fn pathway(members: &[Member], n: usize) -> &Pathway {
    members[n].appliance.pathway()
}

/// How each stands in one family: those that have been ill longest are taken out, as many as may.
fn standings(all: &[Judged], family: Family, rules: &Rules) -> Vec<Option<Standing>> {
    let state = |judged: &Judged| {
        judged.appliance.has(family).then(|| judged.health[family as usize].state())
    };
    let is_wanted = |judged: &Judged| {
        let phase = judged.heard.as_ref().map(|heartbeat| heartbeat.phase);
        !matches!(phase, Some(Phase::Draining | Phase::Drained))
    };
    let mut counted = 0;
    let mut ill: Vec<(Instant, usize)> = Vec::new();
    for (n, judged) in all.iter().enumerate().filter(|(_, judged)| is_wanted(judged)) {
        counted += usize::from(!matches!(state(judged), None | Some(State::New)));
        if let Some(State::Ill { since }) = state(judged) {
            ill.push((since, n));
        }
    }
    ill.sort_unstable();
    let removed_max = counted * usize::from(rules.removed_share_percent_max.min(100)) / 100;
    let mut is_kept = vec![false; all.len()];
    ill.iter().skip(removed_max).for_each(|(_, n)| is_kept[*n] = true);
    let standing = |(n, judged): (usize, &Judged)| {
        state(judged).map(|state| match state {
            State::New => Standing::New,
            State::Well => Standing::Well,
            State::Ill { .. } if is_kept[n] => Standing::Kept,
            State::Ill { .. } => Standing::Ill,
        })
    };
    all.iter().enumerate().map(standing).collect()
}
