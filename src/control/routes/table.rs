//! The table: who is for a viewer.
//!
//! It never changes: another one takes its place. Prefixes with the same routes share them, so that
//! a million of them take what their trie takes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use serde::Serialize;

use crate::control::routes::viewers::Viewers;
use crate::control::steering::{self, Candidate, Routes};
use crate::geo::{Geo, Place, Position};

/// Which boxes are for which viewers.
#[derive(Default)]
pub struct Table {
    pub(super) ipv4: PrefixMap<Ipv4Net, u32>,
    pub(super) ipv6: PrefixMap<Ipv6Net, u32>,
    /// Those of ASes and countries.
    pub(super) places: BTreeMap<Viewers, u32>,
    /// What the numbers above stand for: routes, the best way first.
    pub(super) sets: Vec<Box<[Stored]>>,
    /// Boxes that announce together, by their numbers, in order.
    pub(super) groups: Vec<Box<[u32]>>,
    pub(super) names: Vec<Arc<str>>,
    pub(super) sources: Vec<Arc<str>>,
    pub(super) geo: Arc<Geo>,
}

/// How a viewer is reached, as BGP told it. What is less is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Way {
    /// ASes on the way.
    pub as_path: u16,
    /// How the prefix came into BGP.
    pub origin: Origin,
    /// Which of several ways to itself a neighbour prefers (`MULTI_EXIT_DISC`).
    pub med: u32,
}

/// How a prefix came into BGP (RFC 4271 section 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// From the inside of its AS.
    #[default]
    Igp,
    /// By the protocol before BGP.
    Egp,
    /// Some other way.
    Incomplete,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Origin::Igp => "igp",
            Origin::Egp => "egp",
            Origin::Incomplete => "incomplete",
        })
    }
}

/// A route as the table holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Stored {
    pub(super) way: Way,
    pub(super) group: u32,
    pub(super) source: u32,
}

/// A route as it is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Route {
    /// Who announces it.
    pub boxes: Vec<String>,
    /// How viewers are reached.
    #[serde(flatten)]
    pub way: Way,
    /// Which file says so.
    pub source: String,
}

/// A box that is for a viewer, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced<'a> {
    /// Which box.
    pub name: &'a str,
    /// The most special that it announces and that holds the viewer.
    pub viewers: Viewers,
    /// Its best way to him.
    pub way: Way,
    /// Which file says so.
    pub source: &'a str,
}

/// Whose viewer somebody is, to one box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Nobody is for him.
    Nobodys,
    /// It is for him, and others may be too.
    Own,
    /// Others alone are.
    Others,
}

impl Table {
    /// Whose a viewer is, to the box of that name; allocates nothing.
    pub fn whose(&self, viewer: IpAddr, name: &str) -> Whose {
        let groups = |set: u32| self.sets[set as usize].iter().map(|stored| stored.group as usize);
        let is_named = |number: &u32| &*self.names[*number as usize] == name;
        let mut is_others = false;
        let is_own = self.any_match(viewer, |_, set| {
            is_others |= groups(set).any(|group| !self.groups[group].is_empty());
            groups(set).any(|group| self.groups[group].iter().any(is_named))
        });
        match is_own {
            true => Whose::Own,
            false if is_others => Whose::Others,
            false => Whose::Nobodys,
        }
    }

    /// The boxes that are for a viewer, each once: what is more special first, then the best way.
    /// That is the order of steering's routes too, as `fuzz.rs` checks.
    pub fn announced(&self, viewer: IpAddr) -> Vec<Announced<'_>> {
        let mut is_found = vec![false; self.names.len()];
        let mut found = Vec::new();
        for (viewers, set) in self.matches(viewer) {
            for stored in &self.sets[set as usize] {
                let source = &*self.sources[stored.source as usize];
                for number in &self.groups[stored.group as usize] {
                    let number = *number as usize;
                    if !std::mem::replace(&mut is_found[number], true) {
                        let name = &*self.names[number];
                        found.push(Announced { name, viewers, way: stored.way, source });
                    }
                }
            }
        }
        found
    }

    /// The routes that are for a viewer, the most special first.
    pub fn routes_for(&self, viewer: IpAddr) -> Vec<(Viewers, Vec<Route>)> {
        let matches = self.matches(viewer).into_iter();
        matches.map(|(viewers, set)| (viewers, self.told(set))).collect()
    }

    /// All routes, in the order of lists.
    pub fn routes(&self) -> impl Iterator<Item = (Viewers, Vec<Route>)> {
        self.sets_by_viewers().map(|(viewers, set)| (viewers, self.told(set)))
    }

    /// Where a viewer is, as far as the databases know.
    pub fn place(&self, viewer: IpAddr) -> Place {
        self.geo.place(viewer)
    }

    /// How many prefixes there are.
    pub fn prefixes(&self) -> usize {
        self.ipv4.len() + self.ipv6.len()
    }

    /// The memory it takes, without the databases.
    pub fn bytes(&self) -> usize {
        let sets: usize = self.sets.iter().map(|set| size_of_val(&**set)).sum();
        let groups: usize = self.groups.iter().map(|group| size_of_val(&**group)).sum();
        let names: usize = self.names.iter().map(|name| size_of_val(name) + name.len()).sum();
        self.ipv4.mem_size() + self.ipv6.mem_size() + sets + groups + names
    }

    /// The memory that the databases take.
    pub fn places_bytes(&self) -> u64 {
        self.geo.bytes()
    }

    /// What holds a viewer, the most special first.
    fn matches(&self, viewer: IpAddr) -> Vec<(Viewers, u32)> {
        let mut found = Vec::new();
        self.any_match(viewer, |viewers, set| {
            found.push((viewers, set));
            false
        });
        let is_prefix = |(viewers, _): &(Viewers, u32)| matches!(viewers, Viewers::Prefix(_));
        let prefixes = found.iter().filter(|one| is_prefix(one)).count();
        found[..prefixes].reverse();
        found
    }

    /// Whether anything that holds a viewer is what is asked: prefixes, the most special last, then
    /// AS and country, which are dear to find.
    fn any_match(&self, viewer: IpAddr, mut is: impl FnMut(Viewers, u32) -> bool) -> bool {
        let mut is_it = |prefix: IpNet, set: &u32| is(Viewers::Prefix(prefix), *set);
        let is_found = match viewer.to_canonical() {
            IpAddr::V4(address) => {
                let mut covers = self.ipv4.cover(&Ipv4Net::from(address));
                covers.any(|(prefix, set)| is_it(prefix.into(), set))
            }
            IpAddr::V6(address) => {
                let mut covers = self.ipv6.cover(&Ipv6Net::from(address));
                covers.any(|(prefix, set)| is_it(prefix.into(), set))
            }
        };
        if is_found || self.places.is_empty() {
            return is_found;
        }
        let place = self.place(viewer);
        let country = place.likely_country().map(Viewers::Country);
        let by_place = [place.as_number.map(Viewers::As), country];
        let mut by_place = by_place.into_iter().flatten();
        by_place.any(|viewers| self.places.get(&viewers).is_some_and(|set| is(viewers, *set)))
    }

    /// How many routes each source told.
    pub(super) fn routes_by_source(&self) -> Vec<usize> {
        let mut uses = vec![0_usize; self.sets.len()];
        self.sets_by_viewers().for_each(|(_, set)| uses[set as usize] += 1);
        let mut counts = vec![0; self.sources.len()];
        for (set, uses) in self.sets.iter().zip(uses) {
            set.iter().for_each(|stored| counts[stored.source as usize] += uses);
        }
        counts
    }

    /// Everything in the table, in the order of lists.
    pub(super) fn sets_by_viewers(&self) -> impl Iterator<Item = (Viewers, u32)> {
        let ipv4 = self.ipv4.iter().map(|(prefix, set)| (Viewers::Prefix(prefix.into()), *set));
        let ipv6 = self.ipv6.iter().map(|(prefix, set)| (Viewers::Prefix(prefix.into()), *set));
        let places = self.places.iter().map(|(viewers, set)| (*viewers, *set));
        ipv4.chain(ipv6).chain(places)
    }

    /// The routes of one prefix, AS or country.
    pub(super) fn set_of(&self, viewers: Viewers) -> Option<u32> {
        match viewers {
            Viewers::Prefix(IpNet::V4(prefix)) => self.ipv4.get(&prefix).copied(),
            Viewers::Prefix(IpNet::V6(prefix)) => self.ipv6.get(&prefix).copied(),
            Viewers::As(_) | Viewers::Country(_) => self.places.get(&viewers).copied(),
        }
    }

    /// Routes as they are told, in an order of their own: two sets that say the same are equal.
    pub(super) fn told(&self, set: u32) -> Vec<Route> {
        let told = |stored: &Stored| {
            let numbers = self.groups[stored.group as usize].iter();
            let mut boxes: Vec<String> =
                numbers.map(|number| self.names[*number as usize].to_string()).collect();
            boxes.sort_unstable();
            Route {
                boxes,
                way: stored.way,
                source: self.sources[stored.source as usize].to_string(),
            }
        };
        let mut routes: Vec<Route> = self.sets[set as usize].iter().map(told).collect();
        routes.sort_unstable_by(|one, other| (one.way, one).cmp(&(other.way, other)));
        routes
    }
}

impl Announced<'_> {
    /// As steering compares it.
    fn route(&self) -> steering::Route {
        let Way { as_path, origin, med } = self.way;
        let (by, as_path_length) = (self.viewers.matched(), u32::from(as_path));
        steering::Route { by, as_path_length, origin: origin as u8, med }
    }
}

impl Routes for Table {
    fn candidates(&self, viewer: IpAddr) -> Vec<Candidate<'_>> {
        let announced = self.announced(viewer).into_iter();
        announced.map(|one| Candidate { name: one.name, route: one.route() }).collect()
    }

    fn is_empty(&self) -> bool {
        self.sets_by_viewers().next().is_none()
    }

    fn position(&self, viewer: IpAddr) -> Option<Position> {
        self.place(viewer).position
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::routes::fuzz::table_of;
    use crate::control::steering::Match;

    fn names(table: &Table, viewer: &str) -> Vec<String> {
        let candidates = table.announced(viewer.parse().unwrap());
        candidates.iter().map(|one| format!("{} {}", one.name, one.viewers)).collect()
    }

    #[test]
    fn each_box_is_found_once_by_the_most_special_that_it_announces() {
        let table = table_of(
            "10.0.0.0/8 far near\n10.1.0.0/16 near\n10.1.2.0/24 nearest\n2001:db8::/32 six near\n",
        );
        assert_eq!(
            names(&table, "10.1.2.3"),
            ["nearest 10.1.2.0/24", "near 10.1.0.0/16", "far 10.0.0.0/8"]
        );
        assert_eq!(names(&table, "10.9.9.9"), ["far 10.0.0.0/8", "near 10.0.0.0/8"]);
        assert_eq!(names(&table, "2001:db8::1"), ["near 2001:db8::/32", "six 2001:db8::/32"]);
        assert_eq!(names(&table, "::ffff:10.1.2.3").len(), 3, "an IPv4 viewer, written as IPv6");
        assert_eq!(names(&table, "192.0.2.1"), [""; 0]);
        assert_eq!(table.prefixes(), 4);
    }

    #[test]
    fn the_best_way_of_a_box_counts() {
        let table = table_of(
            "10.0.0.0/8 a as-path=3\n10.0.0.0/8 b as-path=2 med=7\n10.0.0.0/8 a as-path=1\n",
        );
        let found = table.announced("10.0.0.1".parse().unwrap());
        let ways: Vec<_> =
            found.iter().map(|one| (one.name, one.way.as_path, one.way.med)).collect();
        assert_eq!(ways, [("a", 1, 0), ("b", 2, 7)]);
        assert_eq!(table.routes().count(), 1);
        let routes = table.routes_for("10.0.0.1".parse().unwrap());
        assert_eq!(routes[0].1.len(), 2, "what is worse of the same boxes is not held");
    }

    #[test]
    fn steering_is_told_each_box_with_what_it_is_compared_by() {
        let table = table_of("10.0.0.0/8 far as-path=3 med=9\n10.1.0.0/16 near as-path=2\n");
        let found = table.candidates("10.1.2.3".parse().unwrap());
        let route = |bits, as_path_length, med| steering::Route {
            by: Match::bits(bits),
            as_path_length,
            origin: 0,
            med,
        };
        let expected = [("near", route(16, 2, 0)), ("far", route(8, 3, 9))]
            .map(|(name, route)| Candidate { name, route });
        assert_eq!(found, expected);
        assert_eq!(table.position("10.1.2.3".parse().unwrap()), None, "without databases");
    }

    #[test]
    fn whose_a_viewer_is_is_what_the_list_of_his_boxes_says() {
        let table = table_of(
            "10.0.0.0/8 far near\n10.1.0.0/16 near\n10.1.2.0/24 nearest\n2001:db8::/32 six\n",
        );
        let mut seen = Vec::new();
        for viewer in ["10.1.2.3", "10.9.9.9", "::ffff:10.1.2.3", "2001:db8::1", "192.0.2.1"] {
            let viewer = viewer.parse().unwrap();
            for name in ["far", "near", "nearest", "six", "nobody"] {
                let announced = table.announced(viewer);
                let expected = match announced.iter().any(|one| one.name == name) {
                    true => Whose::Own,
                    false if announced.is_empty() => Whose::Nobodys,
                    false => Whose::Others,
                };
                assert_eq!(table.whose(viewer, name), expected, "{viewer} {name}");
                seen.push(expected);
            }
        }
        let count = |whose| seen.iter().filter(|one| **one == whose).count();
        assert_eq!([Whose::Own, Whose::Nobodys, Whose::Others].map(count), [9, 5, 11]);
    }

    #[test]
    fn prefixes_with_the_same_routes_share_them() {
        let lines: String = (0..256).map(|n| format!("10.{n}.0.0/16 a b\n")).collect();
        let table = table_of(&lines);
        assert_eq!((table.prefixes(), table.sets.len(), table.groups.len()), (256, 1, 1));
        assert!(table.bytes() < 64 << 10, "{} bytes", table.bytes());
    }
}
