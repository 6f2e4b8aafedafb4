//! What routes say of one viewer: what holds him, and the way of each box that is for him.
//!
//! Which of them he is sent to, and why, is steering's to say.

use std::net::IpAddr;

use serde::Serialize;

use crate::control::routes::table::{Announced, Route, Table, Way};
use crate::control::routes::viewers::Viewers;
use crate::geo::Country;

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
    /// Who is for him: what is more special first.
    pub boxes: Vec<BoxForHim>,
}

/// What holds a viewer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Match {
    /// A prefix, his AS, his country.
    pub viewers: Viewers,
    /// Its routes, the best way first.
    pub routes: Vec<Route>,
}

/// A box that is for a viewer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BoxForHim {
    /// Which.
    pub name: String,
    /// The most special that it announces.
    pub viewers: Viewers,
    /// Its way to him.
    #[serde(flatten)]
    pub way: Way,
    /// Which file says so.
    pub source: String,
}

impl Explained {
    /// What a table says of a viewer.
    pub fn of(table: &Table, viewer: IpAddr) -> Explained {
        let place = table.place(viewer);
        let matches = table.routes_for(viewer).into_iter();
        let for_him = |Announced { name, viewers, way, source }| {
            let (name, source) = (str::to_owned(name), str::to_owned(source));
            BoxForHim { name, viewers, way, source }
        };
        Explained {
            viewer,
            country: place.likely_country(),
            as_number: place.as_number,
            matches: matches.map(|(viewers, routes)| Match { viewers, routes }).collect(),
            boxes: table.announced(viewer).into_iter().map(for_him).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::routes::fuzz::table_of;

    #[test]
    fn a_look_up_is_explained_by_its_matches_and_the_ways_of_boxes() {
        let table = table_of("10.0.0.0/8 far\n10.1.0.0/16 near as-path=2 med=5\n");
        let explained = Explained::of(&table, "10.1.2.3".parse().unwrap());
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
                        "med": 5, "source": "test"},
                    {"name": "far", "viewers": "10.0.0.0/8", "as_path": 0, "origin": "igp",
                        "med": 0, "source": "test"},
                ],
            })
        );
    }
}
