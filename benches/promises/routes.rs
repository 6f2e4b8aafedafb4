//! A table of a million prefixes and a thousand boxes: to read it, to hold it, to look up in it.
//!
//! The boxes stand in clusters of ten. Once all is in one prefix file, once each cluster's routers
//! have dumped theirs. Nothing of it is an edge's: the reading is done here.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tidegate::control::routes::{Format, Plan, RouteFile, Routes};
use tidegate::control::steering::Routes as _;
use tokio::time::Instant;

use crate::figure::{Measure, Promise, Unit};

pub(crate) const PREFIXES: u32 = 1_000_000;
pub(crate) const CLUSTERS: u32 = 100;
pub(crate) const BOXES_PER_CLUSTER: u32 = 10;
const LOOKUPS: u32 = 100_000;
const READ_MAX_MS: f64 = 5_000.0;
/// Of a whole steering answer, of which this is a part.
const LOOKUP_MAX_US: f64 = 100.0;

/// The files, in both formats.
pub(crate) struct Read {
    lines: Plan,
    dumps: Plan,
    _folder: TempDir,
}

impl Read {
    pub(crate) fn start(folder: &Path) -> Read {
        let folder = tempfile::tempdir_in(folder).expect("the folder can be written to");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("prefixes"), lines()).unwrap();
        let dump = |cluster| {
            let path = path(&format!("dump-{cluster}"));
            fs::write(&path, dump(cluster)).unwrap();
            let boxes = boxes(cluster).map(Arc::from).collect();
            RouteFile { path, format: Format::Mrt { boxes } }
        };
        let lines = vec![RouteFile { path: path("prefixes"), format: Format::Prefixes }];
        let dumps = (0..CLUSTERS).map(dump).collect();
        let plan = |files| Plan { files, ..Plan::default() };
        Read { lines: plan(lines), dumps: plan(dumps), _folder: folder }
    }

    pub(crate) fn round(&mut self) -> Vec<Measure> {
        let mut measures = Vec::new();
        for (read, held, plan) in [
            ("a million prefixes of a prefix file: read", "the table of it", &self.lines),
            ("the same of 100 dumps: read", "the table of them", &self.dumps),
        ] {
            let (routes, begun) = (Routes::default(), Instant::now());
            let outcome = routes.reread(plan, SystemTime::now());
            let took_ms = begun.elapsed().as_secs_f64() * 1e3;
            assert_eq!((outcome.read, outcome.refused.len()), (plan.files.len(), 0));
            let table = routes.table();
            assert_eq!(table.prefixes(), PREFIXES as usize);
            let measure = Measure::shown(read, Unit::Milliseconds, took_ms);
            measures.push(measure.promised(Promise::MedianAtMost(READ_MAX_MS)));
            let mib = table.bytes() as f64 / f64::from(1 << 20);
            measures.push(Measure::shown(held, Unit::MiB, mib));
            if plan.files.len() > 1 {
                let touched = touch(&plan.files[0].path);
                let begun = Instant::now();
                let outcome = routes.reread(plan, touched);
                let took_ms = begun.elapsed().as_secs_f64() * 1e3;
                assert_eq!(outcome.read, 1);
                let name = "one of them changed: read, the others carried over";
                measures.push(Measure::shown(name, Unit::Milliseconds, took_ms));
            } else {
                let took_us = looked_up(&routes);
                let measure = Measure::shown("a look-up", Unit::Microseconds, took_us);
                measures.push(measure.promised(Promise::MedianAtMost(LOOKUP_MAX_US)));
            }
        }
        measures
    }
}

/// Looks viewers up all over the table: what one takes, in microseconds.
fn looked_up(routes: &Routes) -> f64 {
    let table = routes.table();
    let begun = Instant::now();
    for number in 0..LOOKUPS {
        let candidates = table.candidates(viewer(number));
        assert_eq!(candidates.len() as u32, BOXES_PER_CLUSTER);
    }
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(LOOKUPS)
}

/// Viewers all over the table, by number.
pub(crate) fn viewer(number: u32) -> IpAddr {
    let address = network(number.wrapping_mul(7_919) % PREFIXES) | 7;
    IpAddr::V4(Ipv4Addr::from_bits(address))
}

/// Makes a file look changed an hour from now; a time at which that is done.
fn touch(path: &PathBuf) -> SystemTime {
    let later = SystemTime::now() + Duration::from_secs(3_600);
    fs::File::options().write(true).open(path).unwrap().set_modified(later).unwrap();
    later + Duration::from_secs(60)
}

/// The networks are /24s, spread over all that there are.
fn network(number: u32) -> u32 {
    number.wrapping_mul(0x009e_3779) << 8
}

pub(crate) fn boxes(cluster: u32) -> impl Iterator<Item = String> {
    (0..BOXES_PER_CLUSTER).map(move |number| format!("box-{cluster}-{number}"))
}

pub(crate) fn lines() -> String {
    let names: Vec<String> =
        (0..CLUSTERS).map(|cluster| boxes(cluster).collect::<Vec<_>>().join(" ")).collect();
    let mut text = String::new();
    for number in 0..PREFIXES {
        let (network, names) =
            (Ipv4Addr::from_bits(network(number)), &names[(number % CLUSTERS) as usize]);
        writeln!(text, "{network}/24 {names} as-path={}", number % 5).unwrap();
    }
    text
}

/// A dump of a cluster's router, with two peers (RFC 6396 section 4.3).
fn dump(cluster: u32) -> Vec<u8> {
    let mut dump = Vec::new();
    let mut peers = vec![10, 0, 0, 1, 0, 0, 0, 2];
    for peer in 1..=2 {
        peers.extend([2, 10, 0, 1, peer, 10, 0, 1, peer, 0, 0, 0xfd, peer]);
    }
    record(&mut dump, 1, &peers);
    for number in (cluster..PREFIXES).step_by(CLUSTERS as usize) {
        let mut body = number.to_be_bytes().to_vec();
        body.push(24);
        body.extend(&network(number).to_be_bytes()[..3]);
        body.extend(2_u16.to_be_bytes());
        for peer in 0..2 {
            let ases = 1 + (number + peer) % 5;
            let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 2 + 4 * ases as u8, 2, ases as u8];
            attributes.extend((0..ases).flat_map(|hop| (64_512 + hop).to_be_bytes()));
            attributes.extend([0x40, 3, 4, 10, 0, 1, 1, 0x80, 4, 4, 0, 0, 0, 50]);
            body.extend((peer as u16).to_be_bytes());
            body.extend(0_u32.to_be_bytes());
            body.extend((attributes.len() as u16).to_be_bytes());
            body.extend(attributes);
        }
        record(&mut dump, 2, &body);
    }
    dump
}

fn record(dump: &mut Vec<u8>, subtype: u16, body: &[u8]) {
    dump.extend(0_u32.to_be_bytes());
    dump.extend(13_u16.to_be_bytes());
    dump.extend(subtype.to_be_bytes());
    dump.extend((body.len() as u32).to_be_bytes());
    dump.extend(body);
}
