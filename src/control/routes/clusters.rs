//! Whether all boxes of a cluster announce the same.
//!
//! They must: a viewer whom only one of them is for cannot be sent to the others, and is sent far
//! away where that one is full.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::control::routes::table::Table;
use crate::control::routes::viewers::Viewers;

/// Boxes that stand together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// As the operator calls it.
    pub name: String,
    /// Who belongs to it; nobody belongs to two.
    pub boxes: Vec<Arc<str>>,
}

/// A box that does not announce what others of its cluster do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uneven {
    /// Whose box.
    pub cluster: String,
    /// Which.
    pub name: String,
    /// How many prefixes, ASes and countries others announce and it does not.
    pub missing: u64,
    /// The first of them.
    pub example: Viewers,
}

/// Every box that lacks what others of its cluster announce.
pub fn uneven(table: &Table, clusters: &[Cluster]) -> Vec<Uneven> {
    let of_box: HashMap<&str, usize> = clusters
        .iter()
        .enumerate()
        .flat_map(|(number, cluster)| cluster.boxes.iter().map(move |one| (&**one, number)))
        .collect();
    let mut missing_of_set: HashMap<u32, Vec<(usize, usize)>> = HashMap::new();
    let mut found: BTreeMap<(usize, usize), (u64, Viewers)> = BTreeMap::new();
    for (viewers, set) in table.sets_by_viewers() {
        let missing =
            missing_of_set.entry(set).or_insert_with(|| missing(table, set, clusters, &of_box));
        for one in missing.iter() {
            found.entry(*one).or_insert((0, viewers)).0 += 1;
        }
    }
    let uneven = found.into_iter().map(|((cluster, member), (missing, example))| {
        let cluster = &clusters[cluster];
        let name = cluster.boxes[member].to_string();
        Uneven { cluster: cluster.name.clone(), name, missing, example }
    });
    uneven.collect()
}

/// Who lacks a set of routes that others of his cluster have: clusters and their members, by
/// number.
fn missing(
    table: &Table,
    set: u32,
    clusters: &[Cluster],
    of_box: &HashMap<&str, usize>,
) -> Vec<(usize, usize)> {
    let stored = table.sets[set as usize].iter();
    let numbers = stored.flat_map(|stored| &table.groups[stored.group as usize]);
    let there: HashSet<&str> = numbers.map(|number| &*table.names[*number as usize]).collect();
    let touched: HashSet<usize> =
        there.iter().filter_map(|name| of_box.get(name).copied()).collect();
    let members = touched.into_iter().flat_map(|number| {
        let boxes = clusters[number].boxes.iter().enumerate();
        boxes.map(move |(member, name)| (number, member, name))
    });
    let missing = members.filter(|(.., name)| !there.contains(&***name));
    missing.map(|(number, member, _)| (number, member)).collect()
}

impl fmt::Display for Uneven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Uneven { cluster, name, missing, example } = self;
        write!(
            f,
            "cluster `{cluster}`: `{name}` does not announce {missing} that others of it do, the \
             first {example}; all boxes of a cluster must be told the same"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::routes::fuzz::table_of;

    #[test]
    fn a_box_that_lacks_what_others_of_its_cluster_announce_is_told() {
        let clusters = [("fra", ["fra-1", "fra-2"]), ("muc", ["muc-1", "muc-2"])];
        let clusters = clusters.map(|(name, boxes)| Cluster {
            name: name.into(),
            boxes: boxes.map(Arc::from).to_vec(),
        });
        let table = table_of(
            "10.0.0.0/8 fra-1 fra-2\n11.0.0.0/8 fra-1\n12.0.0.0/8 fra-1 other\n\
             13.0.0.0/8 muc-1\n13.0.0.0/8 muc-2 med=3\nDE fra-2\n",
        );
        let told: Vec<String> = uneven(&table, &clusters).iter().map(Uneven::to_string).collect();
        assert_eq!(
            told,
            [
                "cluster `fra`: `fra-1` does not announce 1 that others of it do, the first DE; \
                 all boxes of a cluster must be told the same",
                "cluster `fra`: `fra-2` does not announce 2 that others of it do, the first \
                 11.0.0.0/8; all boxes of a cluster must be told the same",
            ]
        );
        assert_eq!(uneven(&Table::default(), &clusters), []);
    }
}
