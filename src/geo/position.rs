//! Places on Earth, and how far apart they are. Pure.

use serde::{Deserialize, Serialize};

/// A place on Earth, to a tenth of a metre.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "[f64; 2]", into = "[f64; 2]")]
pub struct Position {
    /// In millionths of a degree.
    latitude: i32,
    longitude: i32,
}

impl Position {
    /// In degrees; none that there is not.
    pub fn new(latitude: f64, longitude: f64) -> Option<Position> {
        let is_there = latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
        let millionths = |degrees: f64| (degrees * MILLIONTHS).round() as i32;
        let position =
            Position { latitude: millionths(latitude), longitude: millionths(longitude) };
        is_there.then_some(position)
    }

    /// How far apart two are along the ground.
    pub fn km_to(self, other: Position) -> u32 {
        let radians = |millionths: i32| (f64::from(millionths) / MILLIONTHS).to_radians();
        let (one, other_one) = (radians(self.latitude), radians(other.latitude));
        let across = radians(other.longitude) - radians(self.longitude);
        let half = |angle: f64| (angle / 2.0).sin().powi(2);
        let chord = half(other_one - one) + one.cos() * other_one.cos() * half(across);
        (2.0 * EARTH_RADIUS_KM * chord.clamp(0.0, 1.0).sqrt().asin()).round() as u32
    }
}

impl From<Position> for [f64; 2] {
    fn from(position: Position) -> [f64; 2] {
        [position.latitude, position.longitude].map(|one| f64::from(one) / MILLIONTHS)
    }
}

impl TryFrom<[f64; 2]> for Position {
    type Error = &'static str;

    fn try_from([latitude, longitude]: [f64; 2]) -> Result<Position, &'static str> {
        Position::new(latitude, longitude).ok_or("no such place; write [LATITUDE, LONGITUDE]")
    }
}

const MILLIONTHS: f64 = 1e6;
const EARTH_RADIUS_KM: f64 = 6_371.0;

#[cfg(test)]
mod tests {
    use super::*;

    const BERLIN: (f64, f64) = (52.52, 13.405);

    #[test]
    fn distances_are_those_of_the_globe() {
        let at = |(latitude, longitude)| Position::new(latitude, longitude).unwrap();
        let km = |one, other| at(one).km_to(at(other));
        let (munich, sydney) = ((48.137, 11.575), (-33.869, 151.209));
        assert!((503..506).contains(&km(BERLIN, munich)), "{}", km(BERLIN, munich));
        assert!((16_080..16_110).contains(&km(BERLIN, sydney)), "{}", km(BERLIN, sydney));
        assert_eq!(km(BERLIN, BERLIN), 0);
        assert_eq!(km((0.0, -180.0), (0.0, 180.0)), 0);
        assert_eq!(km((90.0, 0.0), (-90.0, 77.0)), 20_015);
    }

    #[test]
    fn a_place_is_written_as_it_was_read_and_none_that_there_is_not() {
        let written = "[52.52,13.405]";
        let read: Position = serde_json::from_str(written).unwrap();
        assert_eq!(Some(read), Position::new(BERLIN.0, BERLIN.1));
        assert_eq!(serde_json::to_string(&read).unwrap(), written);
        for (latitude, longitude) in [(90.1, 0.0), (0.0, -180.1), (f64::NAN, 0.0)] {
            assert_eq!(Position::new(latitude, longitude), None);
        }
        assert!(serde_json::from_str::<Position>("[91.0,0.0]").is_err());
    }
}
