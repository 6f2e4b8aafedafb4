//! Who comes in to what is under a rule: from which countries and networks, and when.
//!
//! Decided by a viewer's address and a moment alone, before his token is looked at and before
//! anything is looked up. Where several things are said, all of them have to hold. Nothing is
//! allocated for who comes in. Pure: files are read where rules are, and again by who watches them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use super::prefixes::Prefixes;
use super::times::Times;
use crate::geo::{Country, Geo};

/// Who comes in, and when.
#[derive(Clone, Debug, Default)]
pub struct Entrance {
    /// From where, by countries; `None`: from any.
    pub countries: Option<Countries>,
    /// From where, by networks.
    pub networks: Networks,
    /// When; `None`: always.
    pub times: Option<Times>,
}

/// From which countries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Countries {
    /// Some of them.
    pub listed: Vec<Country>,
    /// Who comes from one of those.
    pub these: Stands,
    /// Whose country no database knows.
    pub unknown: Stands,
}

/// What becomes of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// He comes in.
    Inside,
    /// He does not.
    Outside,
}

/// From which networks.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    /// These alone; `None`: all.
    pub only: Option<Listed>,
    /// Not these, whatever is said of them beside.
    pub except: Option<Listed>,
}

/// Networks as they are written, and those of a file.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// Written here.
    pub here: Prefixes,
    /// In a file.
    pub file: Option<Arc<NetworkFile>>,
}

/// Networks of a file, as it was when it was last good.
#[derive(Debug)]
pub struct NetworkFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What it said.
    pub told: ArcSwap<Prefixes>,
}

/// Why somebody does not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// Not from his country.
    Country,
    /// Nobody knows from which country he is.
    CountryUnknown,
    /// Not from his network.
    Network,
    /// Not yet.
    Early,
    /// Not any more.
    Late,
    /// Not at this hour.
    Hours,
    /// An origin may read his path otherwise, and another rule be about it then.
    Unclear,
}

impl Entrance {
    /// Whether who asks from there comes in now.
    ///
    /// # Errors
    /// He does not.
    pub fn check(&self, viewer: IpAddr, now: SystemTime, geo: &Geo) -> Result<(), Barred> {
        let viewer = viewer.to_canonical();
        if let Some(times) = &self.times {
            times.check(now)?;
        }
        self.networks.check(viewer)?;
        match &self.countries {
            Some(countries) => countries.check(geo.place(viewer).country),
            None => Ok(()),
        }
    }

    /// Whether nothing is said: everybody comes in.
    pub fn is_open(&self) -> bool {
        let Networks { only, except } = &self.networks;
        self.countries.is_none() && only.is_none() && except.is_none() && self.times.is_none()
    }

    /// The files it is of.
    pub fn files(&self) -> impl Iterator<Item = &Arc<NetworkFile>> {
        let lists = [&self.networks.only, &self.networks.except].into_iter().flatten();
        lists.filter_map(|listed| listed.file.as_ref())
    }
}

impl Countries {
    fn check(&self, country: Option<Country>) -> Result<(), Barred> {
        let (stands, barred) = match country {
            None => (self.unknown, Barred::CountryUnknown),
            Some(country) => {
                let is_inside = self.listed.contains(&country) == (self.these == Stands::Inside);
                let stands = if is_inside { Stands::Inside } else { Stands::Outside };
                (stands, Barred::Country)
            }
        };
        if stands == Stands::Inside { Ok(()) } else { Err(barred) }
    }
}

impl Networks {
    fn check(&self, viewer: IpAddr) -> Result<(), Barred> {
        let is_only = self.only.as_ref().is_none_or(|only| only.hold(viewer));
        let is_excepted = self.except.as_ref().is_some_and(|except| except.hold(viewer));
        if is_only && !is_excepted { Ok(()) } else { Err(Barred::Network) }
    }
}

impl Listed {
    fn hold(&self, viewer: IpAddr) -> bool {
        let in_file = |file: &Arc<NetworkFile>| file.told.load().hold(viewer);
        self.here.hold(viewer) || self.file.as_ref().is_some_and(in_file)
    }
}

impl Barred {
    /// Every reason.
    pub const ALL: [Barred; 7] = [
        Barred::Country,
        Barred::CountryUnknown,
        Barred::Network,
        Barred::Early,
        Barred::Late,
        Barred::Hours,
        Barred::Unclear,
    ];

    /// As it is logged and counted.
    pub fn word(self) -> &'static str {
        match self {
            Barred::Country => "country",
            Barred::CountryUnknown => "country_unknown",
            Barred::Network => "network",
            Barred::Early => "early",
            Barred::Late => "late",
            Barred::Hours => "hours",
            Barred::Unclear => "unclear",
        }
    }

    /// As a viewer is told.
    pub fn reason(self) -> &'static str {
        match self {
            Barred::Country | Barred::CountryUnknown => "it is not for your country",
            Barred::Network => "it is not for your network",
            Barred::Early => "it is not there yet",
            Barred::Late => "it is not there any more",
            Barred::Hours => "it is not there at this hour",
            Barred::Unclear => "its path can be read in two ways",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::prefixes::network;
    use super::*;

    const CITY: &[u8] = include_bytes!("../../fuzz/seeds/places/city");

    fn geo() -> Geo {
        let mut geo = Geo::default();
        geo.add(Path::new("city"), CITY.to_vec()).unwrap();
        geo
    }

    fn listed(networks: &[&str]) -> Option<Listed> {
        let mut listed = Listed::default();
        networks.iter().for_each(|text| listed.here.insert(network(text).unwrap()));
        Some(listed)
    }

    fn barred(entrance: &Entrance, viewer: &str) -> Option<Barred> {
        entrance.check(viewer.parse().unwrap(), SystemTime::UNIX_EPOCH, &geo()).err()
    }

    #[test]
    fn countries_are_those_of_the_database_and_who_is_unknown_stays_outside_unless_it_is_said() {
        let unknown = Some(Barred::CountryUnknown);
        for (these, of_unknown, german, french, nobody_knows) in [
            (Stands::Inside, Stands::Outside, None, Some(Barred::Country), unknown),
            (Stands::Inside, Stands::Inside, None, Some(Barred::Country), None),
            (Stands::Outside, Stands::Outside, Some(Barred::Country), None, unknown),
            (Stands::Outside, Stands::Inside, Some(Barred::Country), None, None),
        ] {
            let listed = vec!["AU".parse().unwrap(), "DE".parse().unwrap()];
            let countries = Some(Countries { listed, these, unknown: of_unknown });
            let entrance = Entrance { countries, ..Entrance::default() };
            assert_eq!(barred(&entrance, "192.0.2.1"), german);
            assert_eq!(barred(&entrance, "::ffff:192.0.2.1"), german, "IPv4 all the same");
            assert_eq!(barred(&entrance, "2001:db8::1"), french);
            assert_eq!(barred(&entrance, "198.51.100.1"), nobody_knows, "registered in Australia");
            assert_eq!(barred(&entrance, "203.0.113.1"), nobody_knows);
            let now = SystemTime::UNIX_EPOCH;
            let without = entrance.check("192.0.2.1".parse().unwrap(), now, &Geo::default());
            assert_eq!(without.err(), nobody_knows, "without a database");
        }
    }

    #[test]
    fn networks_are_those_listed_but_for_those_excepted_here_or_in_a_file() {
        let file = |text: &str| {
            let told = ArcSwap::from_pointee(Prefixes::parse(text.as_bytes()).unwrap());
            Some(Arc::new(NetworkFile { path: "x".into(), told }))
        };
        let mut entrance = Entrance::default();
        assert!(entrance.is_open());
        entrance.networks.only = listed(&["192.0.2.0/24"]);
        entrance.networks.except = listed(&["192.0.2.128/25"]);
        assert!(!entrance.is_open());
        let network = Some(Barred::Network);
        for (viewer, expected) in [
            ("192.0.2.1", None),
            ("::ffff:192.0.2.1", None),
            ("192.0.2.129", network),
            ("::ffff:192.0.2.129", network),
            ("198.51.100.1", network),
            ("2001:db8::1", network),
        ] {
            assert_eq!(barred(&entrance, viewer), expected, "{viewer}");
        }
        entrance.networks.only.as_mut().unwrap().file = file("198.51.100.0/24\n");
        assert_eq!(barred(&entrance, "198.51.100.1"), None);
        entrance.networks.except.as_mut().unwrap().file = file("198.51.100.1\n");
        assert_eq!(barred(&entrance, "198.51.100.1"), network);
        assert_eq!(entrance.files().count(), 2);
    }
}
