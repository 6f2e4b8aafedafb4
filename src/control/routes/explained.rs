//! Why a viewer is sent where he is: the routes that are for him, and the order of their boxes.

use std::net::IpAddr;

use serde::Serialize;

use crate::control::routes::ranking::{Criterion, Standing, rank};
use crate::control::routes::table::{Route, Table, Way};
use crate::control::routes::viewers::{Country, Viewers};

/// One look-up, explained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// Whose.
    pub viewer: IpAddr,
    /// In which country he is, as far as databases know.
    pub country: Option<Country>,
    /// In which AS.
    pub as_number: Option<u32>,
    /// What holds him, the most special first.
    pub matches: Vec<Match>,
    /// Who is for him, in order.
    pub boxes: Vec<RankedBox>,
}

/// What holds a viewer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Match {
    /// A prefix, his AS, his country.
    pub viewers: Viewers,
    /// Its routes, the best way first.
    pub routes: Vec<Route>,
}

/// A box in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RankedBox {
    /// Which.
    pub name: String,
    /// The most special that it announces.
    pub viewers: Viewers,
    /// Its way to him.
    #[serde(flatten)]
    pub way: Way,
    /// Which file says so.
    pub source: String,
    /// How far it is.
    pub distance_km: Option<u32>,
    /// By what the one before comes before it.
    pub behind_by: Option<Criterion>,
}

impl Explained {
    /// Why a viewer is sent where he is, as [`rank`] puts it.
    pub fn of(
        table: &Table,
        viewer: IpAddr,
        key: u64,
        standing: impl Fn(&str) -> Option<Standing>,
    ) -> Explained {
        let place = table.place(viewer);
        let matches = table.routes_for(viewer).into_iter();
        let ranked = rank(table.candidates(viewer), place.position, key, standing);
        let boxes = ranked.iter().map(|ranked| RankedBox {
            name: ranked.candidate.name.into(),
            viewers: ranked.candidate.viewers,
            way: ranked.candidate.way,
            source: ranked.candidate.source.into(),
            distance_km: ranked.distance_km,
            behind_by: ranked.behind_by,
        });
        Explained {
            viewer,
            country: place.country,
            as_number: place.as_number,
            matches: matches.map(|(viewers, routes)| Match { viewers, routes }).collect(),
            boxes: boxes.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::routes::fuzz::table_of;

    #[test]
    fn a_look_up_is_explained_by_its_matches_and_the_order_of_boxes() {
        let table = table_of("10.0.0.0/8 far\n10.1.0.0/16 near as-path=2 med=5\n");
        let standing = |_: &str| Some(Standing { weight: 1.0, position: None });
        let explained = Explained::of(&table, "10.1.2.3".parse().unwrap(), 1, standing);
        let told = serde_json::to_value(&explained).unwrap();
        assert_eq!(
            told,
            serde_json::json!({
                "viewer": "10.1.2.3", "country": null, "as_number": null,
                "matches": [
                    {"viewers": "10.1.0.0/16", "routes": [{"boxes": ["near"], "as_path": 2,
                        "origin": "igp", "med": 5, "source": "test"}]},
                    {"viewers": "10.0.0.0/8", "routes": [{"boxes": ["far"], "as_path": 0,
                        "origin": "igp", "med": 0, "source": "test"}]},
                ],
                "boxes": [
                    {"name": "near", "viewers": "10.1.0.0/16", "as_path": 2, "origin": "igp",
                        "med": 5, "source": "test", "distance_km": null, "behind_by": null},
                    {"name": "far", "viewers": "10.0.0.0/8", "as_path": 0, "origin": "igp",
                        "med": 0, "source": "test", "distance_km": null,
                        "behind_by": "longest-match"},
                ],
            })
        );
    }
}
