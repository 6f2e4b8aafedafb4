//! Where viewers are: their country, their AS and their position, of databases in the format MMDB.
//!
//! A database is read into memory whole: what becomes of its file changes nothing of what is told.
//! Each may know some of it (GeoLite2's and DB-IP's Country, City and ASN do); the first that knows
//! counts. An IPv4 address is one however it is written. Pure: who adds one has read its file.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maxminddb::{Reader, WithinOptions};
use serde::Deserialize;

pub use country::Country;
pub use position::Position;

mod country;
mod position;

/// Some databases, or none.
#[derive(Default)]
pub struct Geo {
    databases: Vec<Database>,
}

/// A database, and the file it is from.
#[derive(Clone)]
struct Database {
    path: PathBuf,
    length_bytes: u64,
    reader: Arc<Reader<Vec<u8>>>,
}

/// Where a viewer is, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Place {
    /// In which country his address is used.
    pub country: Option<Country>,
    /// In which country it is registered: where it is used may be far from there.
    pub registered: Option<Country>,
    /// Which AS announces it.
    pub as_number: Option<u32>,
    /// About where that is.
    pub position: Option<Position>,
}

impl Place {
    /// The country that he is likely in.
    pub fn likely_country(&self) -> Option<Country> {
        self.country.or(self.registered)
    }
}

/// That bytes are no database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoDatabase {
    /// What is wrong with them.
    pub why: String,
}

impl Geo {
    /// One database more, of the bytes of a file.
    ///
    /// # Errors
    /// They are none.
    pub fn add(&mut self, path: &Path, bytes: Vec<u8>) -> Result<(), NoDatabase> {
        let length_bytes = bytes.len() as u64;
        let reader = Reader::from_source(bytes);
        let reader = reader.map_err(|error| NoDatabase { why: error.to_string() })?;
        let (path, reader) = (path.to_owned(), Arc::new(reader));
        self.databases.push(Database { path, length_bytes, reader });
        Ok(())
    }

    /// The one that `before` has of a file; whether there is one.
    pub fn keep(&mut self, path: &Path, before: &Geo) -> bool {
        let kept = before.databases.iter().find(|one| one.path == path);
        self.databases.extend(kept.cloned());
        kept.is_some()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.databases.is_empty()
    }

    /// The memory they take.
    pub fn bytes(&self) -> u64 {
        self.databases.iter().map(|one| one.length_bytes).sum()
    }

    /// Whether one of them says of any of its first `networks` in which country it is.
    pub fn tells_countries(&self, networks: usize) -> bool {
        let has_country = |one: &Database| {
            // Those without anything count too: a damaged tree may have nothing else, without end.
            let all = WithinOptions::default();
            let all = all.include_networks_without_data().include_aliased_networks();
            let first = one.reader.networks(all).into_iter().flatten();
            first.take(networks).any(|found| {
                let record = found.and_then(|found| found.decode::<Record<'_>>());
                record.is_ok_and(|record| record.is_some_and(|record| record.country().is_some()))
            })
        };
        self.databases.iter().any(has_country)
    }

    /// Where a viewer is.
    pub fn place(&self, viewer: IpAddr) -> Place {
        let viewer = viewer.to_canonical();
        let mut place = Place::default();
        for Database { reader, .. } in &self.databases {
            // A database of IPv4 alone, or a damaged one, does not know.
            let found = reader.lookup(viewer).and_then(|found| found.decode::<Record<'_>>());
            let Ok(Some(found)) = found else { continue };
            place.country = place.country.or_else(|| found.country());
            place.registered = place.registered.or_else(|| code(found.registered_country.as_ref()));
            let position = found.location.and_then(Location::position);
            place.as_number = place.as_number.or(found.autonomous_system_number);
            place.position = place.position.or(position);
        }
        place
    }
}

/// What is read of a database's records; all names are those of GeoIP2.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    country: Option<CountryRecord<'a>>,
    #[serde(borrow)]
    registered_country: Option<CountryRecord<'a>>,
    autonomous_system_number: Option<u32>,
    location: Option<Location>,
}

impl Record<'_> {
    fn country(&self) -> Option<Country> {
        code(self.country.as_ref())
    }
}

#[derive(Deserialize)]
struct CountryRecord<'a> {
    iso_code: Option<&'a str>,
}

fn code(record: Option<&CountryRecord<'_>>) -> Option<Country> {
    record?.iso_code?.parse().ok()
}

#[derive(Deserialize)]
struct Location {
    latitude: Option<f64>,
    longitude: Option<f64>,
}

impl Location {
    fn position(self) -> Option<Position> {
        Position::new(self.latitude?, self.longitude?)
    }
}

impl fmt::Debug for Geo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.databases.iter().map(|one| &one.path)).finish()
    }
}

impl fmt::Display for NoDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "is no database in the format MMDB that can be read: {}; fetch it again",
            self.why
        )
    }
}

impl std::error::Error for NoDatabase {}

#[cfg(test)]
mod tests {
    use super::*;

    const CITY: &[u8] = include_bytes!("../fuzz/seeds/places/city");
    const ASN: &[u8] = include_bytes!("../fuzz/seeds/places/asn");

    fn told(geo: &Geo, viewer: &str) -> String {
        let place = geo.place(viewer.parse().unwrap());
        let country = place.country.map(|country| country.to_string());
        format!("{country:?} {:?} {}", place.as_number, place.position.is_some())
    }

    #[test]
    fn each_database_tells_what_it_knows() {
        let mut geo = Geo::default();
        assert_eq!(told(&geo, "192.0.2.1"), "None None false");
        geo.add(Path::new("city"), CITY.to_vec()).unwrap();
        geo.add(Path::new("asn"), ASN.to_vec()).unwrap();
        for (viewer, expected) in [
            ("192.0.2.1", "Some(\"DE\") Some(64500) true"),
            ("::ffff:192.0.2.1", "Some(\"DE\") Some(64500) true"),
            // Where it is registered alone is known.
            ("198.51.100.1", "None None true"),
            ("198.51.100.200", "None None false"),
            ("2001:db8::1", "Some(\"FR\") None false"),
            ("203.0.113.1", "None None false"),
        ] {
            assert_eq!(told(&geo, viewer), expected, "{viewer}");
        }
        let registered = geo.place("198.51.100.1".parse().unwrap());
        assert_eq!(registered.likely_country().unwrap().to_string(), "AU");
        assert_eq!(geo.bytes(), (CITY.len() + ASN.len()) as u64);
        let berlin = Position::new(52.52, 13.405);
        assert_eq!(geo.place("192.0.2.1".parse().unwrap()).position, berlin);
    }

    #[test]
    fn a_database_of_ases_tells_no_country_and_nobody_looks_at_all_of_one() {
        let mut geo = Geo::default();
        geo.add(Path::new("asn"), ASN.to_vec()).unwrap();
        assert!(!geo.tells_countries(1_000) && !Geo::default().tells_countries(1_000));
        geo.add(Path::new("city"), CITY.to_vec()).unwrap();
        assert!(geo.tells_countries(1_000) && !geo.tells_countries(0));
    }

    #[test]
    fn nobody_looks_for_ever_at_one_whose_tree_leads_back_to_its_root() {
        let damaged = Reader::from_source(CITY.to_vec()).unwrap();
        let bits = damaged.metadata().node_count as usize
            * 2
            * usize::from(damaged.metadata().record_size);
        let mut bytes = CITY.to_vec();
        bytes[..bits / 8].fill(0);
        let mut geo = Geo::default();
        geo.add(Path::new("city"), bytes).unwrap();
        assert!(!geo.tells_countries(1_000));
    }

    #[test]
    fn what_is_no_database_is_said_so() {
        for bytes in [&b""[..], b"192.0.2.0/24 a\n", &CITY[..CITY.len() - 60], &ASN[..100]] {
            let error = Geo::default().add(Path::new("x"), bytes.to_vec()).unwrap_err();
            let line = error.to_string();
            assert!(line.starts_with("is no database in the format MMDB"), "{line}");
            assert!(!line.contains('\n'));
        }
    }
}
