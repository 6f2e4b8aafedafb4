//! What moved an appliance up or down for a viewer, in words for operators.

use std::fmt;

use serde::Serialize;

use super::{Match, Route};
use crate::control::registry::Family;

/// Which way a reason moves an appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Moved {
    /// Ahead of others.
    Up,
    /// Behind others.
    Down,
    /// Out of the list.
    Out,
    /// To its place among its equals.
    Among,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Moved::Up => "up",
            Moved::Down => "down",
            Moved::Out => "out",
            Moved::Among => "among",
        })
    }
}

/// A reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "rule", rename_all = "kebab-case")]
pub enum Reason {
    /// The viewer's network was announced to it as well as to any.
    Announced {
        /// By what of him.
        by: Match,
    },
    /// What was announced to it holds more viewers than what was announced to the best.
    ShorterMatch {
        /// By what of him.
        by: Match,
        /// The same of the best one's.
        best_by: Match,
    },
    /// More networks are on the way than to the best.
    LongerPath {
        /// So many.
        networks: u32,
        /// So many to the best.
        best_networks: u32,
    },
    /// It is less certain where the announcement is from.
    LessCertainOrigin,
    /// The neighbour prefers another one.
    HigherMed,
    /// It is as near as the best, or nearer.
    Near {
        /// So far it is.
        distance_km: u32,
    },
    /// Nobody knows where it is.
    NowhereKnown,
    /// It is further away.
    Further {
        /// So far.
        distance_km: u32,
        /// So far is the best.
        best_distance_km: u32,
    },
    /// The viewer's network was announced to others.
    NotAnnounced,
    /// It does not have what is asked for.
    Absent,
    /// He plays from it by now.
    PlaysFromIt,
    /// It seems ill, as too many do to take all of them out.
    Kept,
    /// It is near its limit and gets less than its share.
    Tight {
        /// So much of it.
        share_percent: u8,
    },
    /// Among its equals, by its share of the folder's viewers.
    Share,
    /// Nobody is well: it is sent anyway.
    LastResort,
    /// It is at its limit.
    Full,
    /// It is being drained.
    Draining,
    /// It is ill.
    Ill,
    /// It has not been well yet.
    New,
    /// It is starting, or has not been heard of.
    Starting,
    /// It is drained.
    Drained,
    /// It serves other sites.
    OtherSites,
    /// What is asked for does not name its pathway.
    OtherPathways,
    /// It has no address that the viewer reaches.
    NoAddress {
        /// Of which family he is.
        family: Family,
    },
    /// It is for those alone whose networks were announced to it.
    NotForHim,
}

/// A reason and which way it moved, as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Which way.
    pub moved: Moved,
    /// Why.
    #[serde(flatten)]
    pub reason: Reason,
}

impl Reason {
    /// With the way it moves.
    pub(super) fn rule(self) -> Rule {
        let moved = match self {
            Reason::Announced { .. }
            | Reason::Near { .. }
            | Reason::PlaysFromIt
            | Reason::LastResort => Moved::Up,
            Reason::Share => Moved::Among,
            reason if reason.severity() > 0 => Moved::Out,
            _ => Moved::Down,
        };
        Rule { moved, reason: self }
    }

    /// How little an appliance is fit for viewers that is left out for this; 0: it is not.
    pub(super) fn severity(self) -> u8 {
        match self {
            Reason::Full => 1,
            Reason::Draining => 2,
            Reason::Ill => 3,
            Reason::New => 4,
            Reason::Starting => 5,
            Reason::Drained => 6,
            Reason::NotForHim => 7,
            Reason::OtherSites | Reason::OtherPathways | Reason::NoAddress { .. } => 8,
            _ => 0,
        }
    }

    /// Whether a viewer who is left out for this might be served nevertheless.
    pub(super) fn is_sendable(self) -> bool {
        self.severity() <= 7
    }
}

/// What is said of a route beside the best one.
pub(super) fn of_route(route: Option<Route>, best: Option<Route>) -> Option<Reason> {
    let Some((route, best)) = route.zip(best) else {
        return match (route, best) {
            (None, Some(_)) => Some(Reason::NotAnnounced),
            (Some(route), None) => Some(Reason::Announced { by: route.by }),
            _ => None,
        };
    };
    let (by, best_by) = (route.by, best.by);
    let (networks, best_networks) = (route.as_path_length, best.as_path_length);
    Some(match () {
        () if route <= best => Reason::Announced { by },
        () if by > best_by => Reason::ShorterMatch { by, best_by },
        () if networks > best_networks => Reason::LongerPath { networks, best_networks },
        () if route.origin > best.origin => Reason::LessCertainOrigin,
        () => Reason::HigherMed,
    })
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Announced { by } => write!(f, "his network is announced to it ({by})"),
            Reason::ShorterMatch { by, best_by } => {
                write!(f, "a larger network is announced to it: {by}, not {best_by}")
            }
            Reason::LongerPath { networks, best_networks } => {
                write!(f, "{networks} networks are on the way, not {best_networks}")
            }
            Reason::LessCertainOrigin => f.write_str("where its route is from is less certain"),
            Reason::HigherMed => f.write_str("the neighbour prefers another one (MED)"),
            Reason::Near { distance_km } => write!(f, "it is {distance_km} km away"),
            Reason::NowhereKnown => f.write_str("nobody knows where it is"),
            Reason::Further { distance_km, best_distance_km } => {
                write!(f, "it is {distance_km} km away, not {best_distance_km}")
            }
            Reason::NotAnnounced => f.write_str("his network is announced to others"),
            Reason::Absent => f.write_str("it does not have what is asked for"),
            Reason::PlaysFromIt => f.write_str("he plays from it by now"),
            Reason::Kept => f.write_str("it seems ill, and so many do that it stays"),
            Reason::Tight { share_percent } => {
                write!(f, "it is near its limit and gets {share_percent} % of its share")
            }
            Reason::Share => f.write_str("among its equals, by its share"),
            Reason::LastResort => f.write_str("nobody is well: it is sent anyway"),
            Reason::Full => f.write_str("it is at its limit"),
            Reason::Draining => f.write_str("it is being drained"),
            Reason::Ill => f.write_str("it is ill"),
            Reason::New => f.write_str("it has not been well yet"),
            Reason::Starting => f.write_str("it is starting, or has not been heard of"),
            Reason::Drained => f.write_str("it is drained"),
            Reason::OtherSites => f.write_str("it serves other sites"),
            Reason::OtherPathways => f.write_str("what is asked for does not name its pathway"),
            Reason::NoAddress { family: Family::Ipv4 } => f.write_str("it has no IPv4 address"),
            Reason::NoAddress { family: Family::Ipv6 } => f.write_str("it has no IPv6 address"),
            Reason::NotForHim => f.write_str("it is for those alone who are announced to it"),
        }
    }
}
