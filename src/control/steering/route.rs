//! What steering is told of the ways to a viewer, and by whom.

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use crate::geo::Position;

/// Which appliances the networks of viewers were announced to.
pub trait Routes {
    /// Those a viewer's network was announced to, in any order.
    fn candidates(&self, viewer: IpAddr) -> Vec<Candidate<'_>>;

    /// Whether no viewer's network was announced to anybody.
    fn is_empty(&self) -> bool;

    /// About where a viewer is, if that is known.
    fn position(&self, viewer: IpAddr) -> Option<Position>;
}

/// An appliance that a viewer's network was announced to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// How.
    pub route: Route,
}

/// How a network was announced. The less one, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// By what of him.
    pub by: Match,
    /// Networks on the way.
    pub as_path_length: u32,
    /// Where the announcement is from: 0 the network itself, 1 an older protocol, 2 unknown.
    pub origin: u8,
    /// What the neighbour prefers, the less the better.
    pub med: u32,
}

/// By what of a viewer he was announced. The less one, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// A network, by the bits that all its addresses have in common.
    Network(Reverse<u8>),
    /// The AS that announces his address.
    As,
    /// The country his address is used in.
    Country,
}

impl Match {
    /// A network of so many bits.
    pub fn bits(bits: u8) -> Match {
        Match::Network(Reverse(bits))
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Match::Network(Reverse(bits)) => write!(f, "/{bits}"),
            Match::As => f.write_str("AS"),
            Match::Country => f.write_str("country"),
        }
    }
}

impl Serialize for Match {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A fleet without routes: every appliance is for everybody.
#[derive(Clone, Copy, Debug)]
pub struct NoRoutes;

impl Routes for NoRoutes {
    fn candidates(&self, _: IpAddr) -> Vec<Candidate<'_>> {
        Vec::new()
    }

    fn is_empty(&self) -> bool {
        true
    }

    fn position(&self, _: IpAddr) -> Option<Position> {
        None
    }
}
