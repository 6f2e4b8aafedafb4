//! How a table is made: routes are told one by one, those of a table before are carried over.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;

use ipnet::IpNet;

use crate::control::routes::table::{Stored, Table, Way};
use crate::control::routes::viewers::Viewers;
use crate::geo::Geo;

/// A table that is being made.
#[derive(Default)]
pub struct Builder {
    told: Vec<(Viewers, Stored)>,
    names: Numbered<Arc<str>>,
    groups: Numbered<Box<[u32]>>,
    sources: Vec<Arc<str>>,
}

impl Builder {
    /// One that tells routes, by its name; its number.
    pub(super) fn source(&mut self, name: &str) -> u32 {
        self.sources.push(name.into());
        (self.sources.len() - 1) as u32
    }

    /// Boxes that announce together; their number.
    pub(super) fn group<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> u32 {
        let mut numbers: Vec<u32> = names.map(|name| self.names.number(name)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        self.groups.number(&*numbers)
    }

    /// One route.
    pub(super) fn announce(&mut self, viewers: Viewers, group: u32, source: u32, way: Way) {
        self.told.push((viewers, Stored { way, group, source }));
    }

    /// How many routes were told.
    pub(super) fn len(&self) -> usize {
        self.told.len()
    }

    /// Takes back all routes but the first `length`.
    pub(super) fn truncate(&mut self, length: usize) {
        self.told.truncate(length);
    }

    /// Takes back some of the routes, by their order.
    pub(super) fn forget(&mut self, range: Range<usize>) {
        self.told.drain(range);
    }

    /// Carries over the routes of a table before: `sources` says which number here each of its
    /// sources has, if it is to be carried over.
    pub(super) fn carry(&mut self, table: &Table, sources: &[Option<u32>]) {
        let mut groups: HashMap<u32, u32> = HashMap::new();
        for (viewers, set) in table.sets_by_viewers() {
            for stored in &table.sets[set as usize] {
                let source = sources.get(stored.source as usize).copied().flatten();
                let Some(source) = source else { continue };
                let group = *groups.entry(stored.group).or_insert_with(|| {
                    let numbers = table.groups[stored.group as usize].iter();
                    self.group(numbers.map(|number| &*table.names[*number as usize]))
                });
                self.announce(viewers, group, source, stored.way);
            }
        }
    }

    /// The table, with what is known of where viewers are.
    pub(super) fn build(mut self, geo: Arc<Geo>) -> Table {
        self.told.sort_unstable();
        let mut sets: Numbered<Box<[Stored]>> = Numbered::default();
        let mut table = Table::default();
        let mut one: Vec<Stored> = Vec::new();
        for same in self.told.chunk_by(|(one, _), (other, _)| one == other) {
            let viewers = same[0].0;
            one.clear();
            one.extend(same.iter().map(|(_, stored)| *stored));
            // Of what the same boxes announce by the same source, the best way counts.
            one.sort_unstable_by_key(|stored| (stored.group, stored.source, stored.way));
            one.dedup_by_key(|stored| (stored.group, stored.source));
            one.sort_unstable();
            let set = sets.number(&*one);
            match viewers {
                Viewers::Prefix(IpNet::V4(prefix)) => drop(table.ipv4.insert(prefix, set)),
                Viewers::Prefix(IpNet::V6(prefix)) => drop(table.ipv6.insert(prefix, set)),
                Viewers::As(_) | Viewers::Country(_) => drop(table.places.insert(viewers, set)),
            }
        }
        table.sets = sets.all;
        table.groups = self.groups.all;
        table.names = self.names.all;
        table.sources = self.sources;
        table.geo = geo;
        table
    }
}

/// Things, each once, with a number.
struct Numbered<T> {
    numbers: HashMap<T, u32>,
    all: Vec<T>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered { numbers: HashMap::new(), all: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Numbered<T> {
    /// Copies a thing only if it is new: most are not.
    fn number<Q>(&mut self, one: &Q) -> u32
    where
        Q: Eq + Hash + ?Sized,
        T: Borrow<Q> + for<'a> From<&'a Q>,
    {
        if let Some(number) = self.numbers.get(one) {
            return *number;
        }
        let (number, one) = (self.all.len() as u32, T::from(one));
        self.all.push(one.clone());
        self.numbers.insert(one, number);
        number
    }
}
