//! Traffic Control's coverage zone file, deep or not, so that a fleet that has one needs no other.
//!
//! ```json
//! {"coverageZones": {"fra": {"network": ["192.0.2.0/24"], "network6": ["2001:db8::/32"]}}}
//! {"deepCoverageZones": {"fra-1a": {"network": ["192.0.2.0/25"], "caches": ["fra-1"]}}}
//! ```
//!
//! Whose zone it is: its `caches`; else the boxes that the settings give it; else the box that is
//! called as the zone is. A prefix within another zone's is more special, as there, and told;
//! what else the file has (`revision`, `coordinates`) is left alone.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::BufRead;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::{Prefix, PrefixMap};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use crate::control::routes::error::{RoutesError, ZoneFault};
use crate::control::routes::gathering::{Gathering, shortened};
use crate::control::routes::table::Way;
use crate::control::routes::viewers::Viewers;
use crate::site;

/// Reads all of a file; `boxes` are those of zones, where the settings say so.
///
/// # Errors
/// It is no such file, or two zones have the same prefix.
pub(super) fn read(
    input: &mut dyn BufRead,
    boxes: &BTreeMap<String, Vec<Arc<str>>>,
    into: &mut Gathering<'_>,
) -> Result<(), RoutesError> {
    let file: File = serde_json::from_reader(input).map_err(|error| match error.is_io() {
        true => RoutesError::Read(error.into()),
        false => RoutesError::Zones(ZoneFault::Json(error)),
    })?;
    let zones = [file.zones, file.deep_zones];
    if zones.iter().all(Option::is_none) {
        return Err(RoutesError::Zones(ZoneFault::NoZones));
    }
    for zones in zones.iter().flatten() {
        judge(&zones.0, into)?;
        for (name, zone) in &zones.0 {
            let told = boxes.get(name).filter(|_| zone.caches.is_empty());
            let boxes = match (told, &*zone.caches) {
                (Some(told), _) => into.boxes(told.iter().map(|one| &**one))?,
                (None, []) => into.boxes([&**name].into_iter())?,
                (None, caches) => into.boxes(caches.iter().map(String::as_str))?,
            };
            for network in zone.networks(name)? {
                into.announce(Viewers::Prefix(network), boxes, Way::default())?;
            }
        }
    }
    Ok(())
}

/// No prefix may be in two zones; one within another zone's is told.
fn judge(zones: &[(String, Zone)], into: &mut Gathering<'_>) -> Result<(), RoutesError> {
    let mut ipv4: PrefixMap<Ipv4Net, usize> = PrefixMap::new();
    let mut ipv6: PrefixMap<Ipv6Net, usize> = PrefixMap::new();
    let mut names = HashSet::new();
    for (number, (name, zone)) in zones.iter().enumerate() {
        if !names.insert(name) {
            return Err(RoutesError::Zones(ZoneFault::Twice { zone: shortened(name) }));
        }
        for network in zone.networks(name)? {
            let before = match network {
                IpNet::V4(network) => ipv4.insert(network, number),
                IpNet::V6(network) => ipv6.insert(network, number),
            };
            if let Some(before) = before.filter(|before| *before != number) {
                let zones = [shortened(&zones[before].0), shortened(name)];
                return Err(RoutesError::Zones(ZoneFault::Same { prefix: network, zones }));
            }
        }
    }
    let within: Vec<Within> = within(&ipv4).into_iter().chain(within(&ipv6)).collect();
    if let Some((inner, outer, [one, other])) = within.first() {
        let more = within.len() - 1;
        let (one, other) = (shortened(&zones[*one].0), shortened(&zones[*other].0));
        into.notice(format!(
            "{inner} of the zone `{one}` is within {outer} of the zone `{other}`, and counts for \
             who is in both ({more} more such)"
        ));
    }
    Ok(())
}

/// A prefix, the one that it is within, and their zones.
type Within = (IpNet, IpNet, [usize; 2]);

fn within<P: Prefix + Copy + PartialEq + Into<IpNet>>(zones: &PrefixMap<P, usize>) -> Vec<Within> {
    let within = |(inner, zone): (P, &usize)| {
        let outer = zones.cover(&inner).filter(|(outer, _)| *outer != inner).last();
        let (outer, of) = outer.filter(|(_, of)| **of != *zone)?;
        Some((inner.into(), outer.into(), [*zone, *of]))
    };
    zones.iter().filter_map(within).collect()
}

#[derive(serde::Deserialize)]
struct File {
    #[serde(rename = "coverageZones")]
    zones: Option<Zones>,
    #[serde(rename = "deepCoverageZones")]
    deep_zones: Option<Zones>,
}

#[derive(serde::Deserialize)]
struct Zone {
    #[serde(default)]
    network: Vec<String>,
    #[serde(default)]
    network6: Vec<String>,
    #[serde(default)]
    caches: Vec<String>,
}

impl Zone {
    /// Its prefixes of both families.
    fn networks(&self, name: &str) -> Result<Vec<IpNet>, RoutesError> {
        let ipv4 = self.network.iter().map(|written| (written, true));
        let ipv6 = self.network6.iter().map(|written| (written, false));
        let networks = ipv4.chain(ipv6).map(|(written, is_ipv4)| {
            let network = site::network(written).filter(|one| one.addr().is_ipv4() == is_ipv4);
            network.ok_or_else(|| {
                let (zone, written) = (shortened(name), shortened(written));
                RoutesError::Zones(ZoneFault::NoPrefix { zone, written })
            })
        });
        networks.collect()
    }
}

/// In the order of the file. A map would keep one of two that are called the same.
struct Zones(Vec<(String, Zone)>);

impl<'de> Deserialize<'de> for Zones {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Zones, D::Error> {
        deserializer.deserialize_map(ZonesVisitor)
    }
}

struct ZonesVisitor;

impl<'de> Visitor<'de> for ZonesVisitor {
    type Value = Zones;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("zones by their names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Zones, A::Error> {
        let mut zones = Vec::new();
        while let Some(zone) = map.next_entry()? {
            zones.push(zone);
        }
        Ok(Zones(zones))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::routes::builder::Builder;
    use crate::control::routes::gathering::Guards;
    use crate::control::routes::table::Table;

    fn taken(text: &str) -> Result<(Table, Vec<String>), RoutesError> {
        let boxes = BTreeMap::from([("fra".to_owned(), vec!["fra-1".into(), "fra-2".into()])]);
        let mut builder = Builder::default();
        let gathering = Gathering::new(&mut builder, Guards::default(), "zones.json");
        let notices = gathering.take(|into| read(&mut text.as_bytes(), &boxes, into))?;
        Ok((builder.build(Arc::default()), notices))
    }

    fn names<'a>(table: &'a Table, viewer: &str) -> Vec<&'a str> {
        table.announced(viewer.parse().unwrap()).iter().map(|one| one.name).collect()
    }

    #[test]
    fn zones_are_their_caches_or_what_the_settings_say_or_a_box() {
        let text = r#"{
            "revision": "Mon Dec 21 15:04:01 2015", "customerName": "Kabletown",
            "coverageZones": {
                "fra": {"network": ["192.0.2.0/24"], "network6": ["1234:5678::/64"],
                        "coordinates": {"latitude": 50.1, "longitude": 8.7}},
                "muc": {"network6": ["1234:5679::/64"], "network": ["198.51.100.0/24"]}
            },
            "deepCoverageZones": {
                "fra": {"network": ["192.0.2.128/25"], "network6": [], "caches": ["fra-9"]}
            }
        }"#;
        let (table, notices) = taken(text).unwrap();
        assert_eq!(names(&table, "192.0.2.1"), ["fra-1", "fra-2"]);
        assert_eq!(names(&table, "1234:5678::1"), ["fra-1", "fra-2"]);
        assert_eq!(names(&table, "1234:5679::1"), ["muc"]);
        assert_eq!(names(&table, "192.0.2.200"), ["fra-9", "fra-1", "fra-2"]);
        assert_eq!(notices, [""; 0]);
    }

    #[test]
    fn zones_that_overlap_are_told_both() {
        let same = r#"{"coverageZones": {
            "fra": {"network": ["192.0.2.0/24"]}, "muc": {"network": ["192.0.2.77/24"]}}}"#;
        let error = taken(same).map(drop).unwrap_err().to_string();
        assert_eq!(
            error,
            "192.0.2.0/24 is in the zone `fra` and in the zone `muc`: take it out of one of them"
        );
        let within = r#"{"coverageZones": {
            "fra": {"network": ["192.0.2.0/24", "10.0.0.0/8"]},
            "muc": {"network": ["192.0.2.0/25", "10.1.0.0/16"], "network6": ["2001:db8::/48"]},
            "ber": {"network6": ["2001:db8::/32", "2001:db8::/36"]}}}"#;
        let (table, notices) = taken(within).unwrap();
        assert_eq!(
            notices,
            ["10.1.0.0/16 of the zone `muc` is within 10.0.0.0/8 of the zone `fra`, and counts \
              for who is in both (2 more such)"]
        );
        assert_eq!(names(&table, "192.0.2.1"), ["muc", "fra-1", "fra-2"]);
        assert_eq!(names(&table, "192.0.2.200"), ["fra-1", "fra-2"]);
    }

    #[test]
    fn what_is_no_coverage_zone_file_is_said_so() {
        for (text, line) in [
            ("", "is no coverage zone file: EOF"),
            ("192.0.2.0/24 a", "is no coverage zone file: invalid type: floating point"),
            ("[]", "is no coverage zone file: invalid length"),
            ("{}", "is no coverage zone file: it has neither"),
            (r#"{"coverageZones": {}}"#, "tells no route"),
            (r#"{"coverageZones": {"a": {"network": 5}}}"#, "is no coverage zone file: invalid"),
            (r#"{"coverageZones": {"a": {"network": ["::/64"]}}}"#, "zone `a`: `::/64` is no"),
            (r#"{"coverageZones": {"a": {"network6": ["1.2.3.0/24"]}}}"#, "zone `a`: `1.2.3.0/24`"),
            (r#"{"coverageZones": {"a": {"network": ["0.0.0.0/0"]}}}"#, "0.0.0.0/0 is the default"),
            (r#"{"coverageZones": {"a b": {"network": ["10.0.0.0/8"]}}}"#, "`a b` is no name"),
            (
                r#"{"coverageZones": {"a": {"network": ["10.0.0.0/8"]}, "a": {}}}"#,
                "has the zone `a` twice",
            ),
            (&"{\"coverageZones\":".repeat(5_000), "is no coverage zone file: "),
        ] {
            let error = taken(text).map(drop).unwrap_err().to_string();
            assert!(error.starts_with(line), "{error}");
        }
    }
}
