//! Which of the boxes that are for a viewer he is sent to first.
//!
//! The longest match; then the shortest AS path, the better origin, the lower MED; then the
//! distance, in steps, so that two boxes in one town are alike. Among boxes that are alike in all
//! that, weighted rendezvous: the same for the same viewer or title, and spread over all of them.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::control::routes::table::{Candidate, Way};
use crate::rendezvous;

/// A place on Earth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Position {
    latitude: f64,
    longitude: f64,
}

/// Both are numbers.
impl Eq for Position {}

/// The same, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    latitude: f64,
    longitude: f64,
}

impl TryFrom<Written> for Position {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Position, &'static str> {
        let nowhere = "`latitude` is -90 to 90 and `longitude` -180 to 180, in degrees";
        Position::new(written.latitude, written.longitude).ok_or(nowhere)
    }
}

impl Position {
    /// In degrees; none that there is not.
    pub fn new(latitude: f64, longitude: f64) -> Option<Position> {
        let is_there = latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
        is_there.then_some(Position { latitude, longitude })
    }

    /// How far apart two are along the ground.
    pub fn km_to(self, other: Position) -> u32 {
        let (one, other_one) = (self.latitude.to_radians(), other.latitude.to_radians());
        let across = (other.longitude - self.longitude).to_radians();
        let half = |angle: f64| (angle / 2.0).sin().powi(2);
        let chord = half(other_one - one) + one.cos() * other_one.cos() * half(across);
        (2.0 * EARTH_RADIUS_KM * chord.clamp(0.0, 1.0).sqrt().asin()).round() as u32
    }
}

/// What of a box counts beside its routes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Its share among boxes that are alike, in proportion to theirs; more than nothing.
    pub weight: f64,
    /// Where it is, if that is known.
    pub position: Option<Position>,
}

/// By what one box comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// A longer prefix; any before an AS, an AS before a country.
    LongestMatch,
    /// Fewer ASes on the way.
    AsPath,
    /// How the prefix came into BGP.
    Origin,
    /// What a neighbour prefers.
    Med,
    /// Nearer, by a step at least.
    Distance,
    /// Alike in all that.
    Rendezvous,
}

/// A box in its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked<'a> {
    /// Which, and by which route.
    pub candidate: Candidate<'a>,
    /// How far it is from the viewer, if both places are known.
    pub distance_km: Option<u32>,
    /// By what the one before comes before it; the first has none before it.
    pub behind_by: Option<Criterion>,
}

/// Puts boxes in order for a viewer at `position`; `key` is of what shall stay with one box, such
/// as a title or a playback. A box without a standing is left out.
pub fn rank<'a>(
    candidates: Vec<Candidate<'a>>,
    position: Option<Position>,
    key: u64,
    standing: impl Fn(&str) -> Option<Standing>,
) -> Vec<Ranked<'a>> {
    let ranked = candidates.into_iter().filter_map(|candidate| {
        let standing = standing(candidate.name)?;
        let distance_km = position.zip(standing.position).map(|(one, other)| one.km_to(other));
        let hash = xxh3_64_with_seed(candidate.name.as_bytes(), key);
        let score = rendezvous::score(hash, standing.weight);
        let ranked = Ranked { candidate, distance_km, behind_by: None };
        Some((Merit::of(&ranked), score, ranked))
    });
    let mut ranked: Vec<(Merit, f64, Ranked<'a>)> = ranked.collect();
    ranked.sort_by(|(one, one_score, _), (other, other_score, _)| {
        one.cmp(other).then(other_score.total_cmp(one_score))
    });
    for at in 1..ranked.len() {
        let behind_by = ranked[at - 1].0.ahead_by(&ranked[at].0);
        ranked[at].2.behind_by = Some(behind_by);
    }
    ranked.into_iter().map(|(.., ranked)| ranked).collect()
}

/// What boxes are compared by, in this order; what is less is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Merit {
    special: Reverse<u8>,
    way: Way,
    distance_steps: u32,
}

impl Merit {
    fn of(ranked: &Ranked<'_>) -> Merit {
        let special = Reverse(ranked.candidate.viewers.special());
        // Who is nobody knows where is behind who is somewhere.
        let distance_steps = ranked.distance_km.map_or(u32::MAX, |km| km / DISTANCE_STEP_KM);
        Merit { special, way: ranked.candidate.way, distance_steps }
    }

    fn ahead_by(&self, other: &Merit) -> Criterion {
        let differences = [
            (self.special != other.special, Criterion::LongestMatch),
            (self.way.as_path != other.way.as_path, Criterion::AsPath),
            (self.way.origin != other.way.origin, Criterion::Origin),
            (self.way.med != other.way.med, Criterion::Med),
            (self.distance_steps != other.distance_steps, Criterion::Distance),
        ];
        let first = differences.into_iter().find(|(differs, _)| *differs);
        first.map_or(Criterion::Rendezvous, |(_, criterion)| criterion)
    }
}

const EARTH_RADIUS_KM: f64 = 6_371.0;
/// Databases know towns, not streets: what is nearer by less is not told apart.
const DISTANCE_STEP_KM: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::routes::fuzz::table_of;
    use crate::control::routes::table::Table;

    const BERLIN: (f64, f64) = (52.52, 13.405);
    const MUNICH: (f64, f64) = (48.137, 11.575);
    const SYDNEY: (f64, f64) = (-33.869, 151.209);

    fn at((latitude, longitude): (f64, f64)) -> Option<Position> {
        Position::new(latitude, longitude)
    }

    fn order(table: &Table, key: u64, standing: impl Fn(&str) -> Option<Standing>) -> Vec<String> {
        let candidates = table.candidates("10.1.2.3".parse().unwrap());
        let ranked = rank(candidates, at(BERLIN), key, standing);
        ranked.iter().map(|one| format!("{} {:?}", one.candidate.name, one.behind_by)).collect()
    }

    fn everywhere(_: &str) -> Option<Standing> {
        Some(Standing { weight: 1.0, position: None })
    }

    #[test]
    fn boxes_are_compared_by_match_then_path_then_med_then_distance() {
        let table = table_of(
            "10.1.2.0/24 long as-path=9\n10.0.0.0/8 direct\n10.0.0.0/8 metric med=5\n\
             10.0.0.0/8 behind as-path=1\n10.0.0.0/8 munich med=5 as-path=1\n\
             10.0.0.0/8 sydney med=5 as-path=1\n10.0.0.0/8 nowhere med=5 as-path=1\n\
             10.0.0.0/8 unknown\n",
        );
        let standing = |name: &str| {
            let position = match name {
                "munich" => at(MUNICH),
                "sydney" => at(SYDNEY),
                "unknown" => return None,
                _ => None,
            };
            Some(Standing { weight: 1.0, position })
        };
        assert_eq!(
            order(&table, 1, standing),
            [
                "long None",
                "direct Some(LongestMatch)",
                "metric Some(Med)",
                "behind Some(AsPath)",
                "munich Some(Med)",
                "sydney Some(Distance)",
                "nowhere Some(Distance)",
            ]
        );
    }

    #[test]
    fn distances_are_those_of_the_globe_and_small_ones_are_alike() {
        let km = |one, other| at(one).unwrap().km_to(at(other).unwrap());
        assert!((503..506).contains(&km(BERLIN, MUNICH)), "{}", km(BERLIN, MUNICH));
        assert!((16_080..16_110).contains(&km(BERLIN, SYDNEY)), "{}", km(BERLIN, SYDNEY));
        assert_eq!(km(BERLIN, BERLIN), 0);
        assert_eq!(km((0.0, -180.0), (0.0, 180.0)), 0);
        assert_eq!(km((90.0, 0.0), (-90.0, 77.0)), 20_015);
        for (latitude, longitude) in [(90.1, 0.0), (0.0, -180.1), (f64::NAN, 0.0)] {
            assert_eq!(Position::new(latitude, longitude), None);
        }
        let table = table_of("10.0.0.0/8 one\n10.0.0.0/8 two\n");
        let near = |name: &str| {
            let east = if name == "one" { 13.405 } else { 13.5 };
            Some(Standing { weight: 1.0, position: at((52.52, east)) })
        };
        let firsts: Vec<_> = (0..20).map(|key| order(&table, key, near)[0].clone()).collect();
        assert!(firsts.contains(&"one None".into()) && firsts.contains(&"two None".into()));
    }

    #[test]
    fn boxes_that_are_alike_share_the_viewers_and_each_stays_with_his() {
        let names: Vec<String> = (0..10).map(|number| format!("box-{number}")).collect();
        let table = |names: &[String]| table_of(&format!("10.0.0.0/8 {}\n", names.join(" ")));
        let first = |table: &Table, key| {
            let ranked = rank(table.candidates("10.1.2.3".parse().unwrap()), None, key, everywhere);
            ranked[0].candidate.name.to_owned()
        };
        let (all, fewer) = (table(&names), table(&names[..9]));
        let viewers = 5_000;
        let mut moved = 0;
        for key in 0..viewers {
            let (one, other) = (first(&all, key), first(&fewer, key));
            assert_eq!(one, first(&all, key));
            moved += u64::from(one != other);
        }
        assert!(moved > 0 && moved as f64 <= 1.2 / 10.0 * viewers as f64, "{moved} of {viewers}");
    }
}
