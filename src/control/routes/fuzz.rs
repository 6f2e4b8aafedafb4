//! What the fuzz targets of `fuzz/` run: any bytes go in, no panic and no broken promise comes out.
//!
//! Here so that the seeds can be replayed by ordinary tests too. Not part of the appliance.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use crate::control::routes::builder::Builder;
use crate::control::routes::error::RoutesError;
use crate::control::routes::gathering::{Gathering, Guards};
use crate::control::routes::table::{Origin, Table};
use crate::control::routes::viewers::Viewers;
use crate::control::routes::{coverage_zones, mrt, prefix_file};
use crate::control::steering::Routes as _;
use crate::geo::Geo;

/// What is read of a prefix file says the same when it is written as one again.
pub fn prefix_file(bytes: &[u8]) {
    let read = |bytes: &[u8]| table(|into| prefix_file::read(&mut &*bytes, into));
    let Some(found) = read(bytes) else { return };
    let mut written = String::new();
    for (viewers, routes) in found.routes() {
        for route in routes {
            let (boxes, way) = (route.boxes.join(" "), route.way);
            let line =
                writeln!(written, "{viewers} {boxes} as-path={} med={}", way.as_path, way.med);
            line.expect("a string takes any line");
        }
    }
    let again = read(written.as_bytes()).expect("what was read is written so that it can be read");
    assert!(found.routes().eq(again.routes()));
}

/// A coverage zone file that is taken keeps to what no file may tell.
pub fn coverage_zones(bytes: &[u8]) {
    let boxes = BTreeMap::from([("a".to_owned(), vec![Arc::from("b"), Arc::from("c")])]);
    table(|into| coverage_zones::read(&mut &*bytes, &boxes, into));
}

/// A dump that is taken keeps to what no file may tell.
pub fn dump(bytes: &[u8]) {
    table(|into| {
        let boxes = into.boxes(["a"].into_iter())?;
        mrt::read(&mut &*bytes, boxes, into)
    });
}

/// Where anybody is can be asked of whatever is taken for a database.
pub fn places(bytes: &[u8]) {
    let mut geo = Geo::default();
    if geo.add(Path::new("fuzz"), bytes.to_vec()).is_err() {
        return;
    }
    for viewer in ["0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "2001:db8::1", "ffff::1"] {
        let viewer = viewer.parse().expect("an address");
        geo.place(viewer);
    }
}

/// The table of what is read, if it is taken: each prefix finds its boxes, and no guard was passed.
fn table(read: impl FnOnce(&mut Gathering<'_>) -> Result<(), RoutesError>) -> Option<Table> {
    let (mut builder, guards) = (Builder::default(), Guards::default());
    Gathering::new(&mut builder, guards, "fuzz").take(read).ok()?;
    let table = builder.build(Arc::default());
    for (viewers, routes) in table.routes() {
        assert!(!routes.is_empty() && routes.iter().all(|route| !route.boxes.is_empty()));
        let Viewers::Prefix(prefix) = viewers else { continue };
        assert_eq!(prefix, prefix.trunc());
        let bits_min = match prefix.addr() {
            IpAddr::V4(_) => guards.ipv4_bits_min,
            IpAddr::V6(_) => guards.ipv6_bits_min,
        };
        assert!(prefix.prefix_len() >= bits_min);
        assert!(routes.iter().all(|route| route.way.origin <= Origin::Incomplete));
        // An IPv6 prefix may hold addresses that are written so and are IPv4's.
        let is_mapped = prefix.network() != prefix.network().to_canonical();
        let found = table.announced(prefix.network());
        let of_first = &routes[0].boxes[0];
        assert!(is_mapped || found.iter().any(|one| one.name == of_first));
        assert!(table.candidates(prefix.network()).is_sorted_by_key(|one| one.route));
    }
    Some(table)
}

#[cfg(test)]
pub(in crate::control) use tests::table_of;

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// The table of a prefix file.
    pub(in crate::control) fn table_of(text: &str) -> Table {
        let mut builder = Builder::default();
        let gathering = Gathering::new(&mut builder, Guards::default(), "test");
        gathering.take(|into| prefix_file::read(&mut text.as_bytes(), into)).unwrap();
        builder.build(Arc::default())
    }

    type Target = fn(&[u8]);

    const TARGETS: [(&str, Target); 4] = [
        ("route_prefixes", prefix_file),
        ("coverage_zones", coverage_zones),
        ("route_dump", dump),
        ("places", places),
    ];

    /// The seeds of each target, with the target.
    fn seeds() -> Vec<(Target, Vec<u8>)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        let of_target = |(name, target): (&str, Target)| {
            let seeds = fs::read_dir(root.join(name)).unwrap();
            let seeds: Vec<_> =
                seeds.map(|seed| (target, fs::read(seed.unwrap().path()).unwrap())).collect();
            assert!(!seeds.is_empty(), "{name}");
            seeds
        };
        TARGETS.into_iter().flat_map(of_target).collect()
    }

    #[test]
    fn seeds_of_the_fuzz_targets() {
        seeds().into_iter().for_each(|(target, seed)| target(&seed));
    }

    #[test]
    fn seeds_that_are_cut_short_anywhere() {
        for (target, seed) in seeds() {
            (0..seed.len()).for_each(|length| target(&seed[..length]));
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in vec(any::<u8>(), 0..600)) {
            TARGETS.iter().for_each(|(_, target)| target(&bytes));
        }

        #[test]
        fn seeds_with_bytes_that_changed(
            which in any::<Index>(),
            changes in vec((any::<Index>(), any::<u8>()), 1..9),
        ) {
            let seeds = seeds();
            let (target, mut seed) = seeds[which.index(seeds.len())].clone();
            for (at, byte) in changes {
                let at = at.index(seed.len());
                seed[at] = byte;
            }
            target(&seed);
        }
    }
}
