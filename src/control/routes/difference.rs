//! What differs between two tables.

use std::collections::HashMap;

use serde::Serialize;

use crate::control::routes::table::{Route, Table};
use crate::control::routes::viewers::Viewers;
use crate::limits::ROUTE_CHANGES_TOLD_MAX;

/// What differs between two tables. Counts are of all, changes are told of the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Prefixes, ASes and countries that are in the later table alone.
    pub came: u64,
    /// In the earlier one alone.
    pub gone: u64,
    /// In both, with other routes.
    pub changed: u64,
    /// At most [`ROUTE_CHANGES_TOLD_MAX`] of them.
    pub changes: Vec<Change>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Of what.
    pub viewers: Viewers,
    /// Its routes in the earlier table; none where it came.
    pub before: Vec<Route>,
    /// In the later one; none where it is gone.
    pub after: Vec<Route>,
}

impl Difference {
    /// Between an earlier and a later table.
    pub fn between(before: &Table, after: &Table) -> Difference {
        let mut difference = Difference::default();
        let routes = |table: &Table, set: Option<u32>| set.map(|set| table.told(set));
        // Many prefixes share few sets.
        let mut is_same: HashMap<(u32, u32), bool> = HashMap::new();
        for (viewers, now) in after.sets_by_viewers() {
            let was = before.set_of(viewers);
            let same = was.is_some_and(|was| {
                let told = || before.told(was) == after.told(now);
                *is_same.entry((was, now)).or_insert_with(told)
            });
            if same {
                continue;
            }
            let count = if was.is_some() { &mut difference.changed } else { &mut difference.came };
            *count += 1;
            difference.tell(viewers, || (routes(before, was), routes(after, Some(now))));
        }
        for (viewers, was) in before.sets_by_viewers() {
            if after.set_of(viewers).is_none() {
                difference.gone += 1;
                difference.tell(viewers, || (routes(before, Some(was)), None));
            }
        }
        difference
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.came + self.gone + self.changed == 0
    }

    fn tell(
        &mut self,
        viewers: Viewers,
        routes: impl FnOnce() -> (Option<Vec<Route>>, Option<Vec<Route>>),
    ) {
        if self.changes.len() < ROUTE_CHANGES_TOLD_MAX {
            let (before, after) = routes();
            let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
            self.changes.push(Change { viewers, before, after });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::routes::fuzz::table_of;

    #[test]
    fn what_came_went_and_changed_is_told_with_its_routes() {
        let before =
            table_of("10.0.0.0/8 a b\n11.0.0.0/8 a\n12.0.0.0/8 c\n2001:db8::/32 a\nDE a\n");
        let after =
            table_of("13.0.0.0/8 c\n12.0.0.0/8 c med=1\n11.0.0.0/8 a\n10.0.0.0/8 b a\nAS1 a\n");
        let difference = Difference::between(&before, &after);
        assert_eq!((difference.came, difference.gone, difference.changed), (2, 2, 1));
        let told: Vec<String> = difference
            .changes
            .iter()
            .map(|one| format!("{} {} {}", one.viewers, one.before.len(), one.after.len()))
            .collect();
        assert_eq!(
            told,
            ["12.0.0.0/8 1 1", "13.0.0.0/8 0 1", "AS1 0 1", "2001:db8::/32 1 0", "DE 1 0"]
        );
        assert!(Difference::between(&after, &after).is_none());
        assert!(!difference.is_none());
    }

    #[test]
    fn of_many_changes_the_first_are_told_and_all_counted() {
        let lines: String = (0..=u8::MAX)
            .flat_map(|a| (0..8).map(move |b| format!("10.{a}.{b}.0/24 a\n")))
            .collect();
        let difference = Difference::between(&Table::default(), &table_of(&lines));
        assert_eq!(difference.came, 2_048);
        assert_eq!(difference.changes.len(), ROUTE_CHANGES_TOLD_MAX);
    }
}
