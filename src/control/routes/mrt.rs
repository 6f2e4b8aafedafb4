//! MRT dumps of a routing table (RFC 6396, TABLE_DUMP_V2; RFC 8050), as BIRD, GoBGP and FRR write
//! them.
//!
//! All of a file is what some boxes announce: the routes of the router beside them. Of several ways
//! to a prefix the best counts. What a router has from nobody (its own and static routes) is no
//! announcement; other families than unicast are left alone. BIRD appends: of several dumps of one
//! table the last counts.

use std::collections::HashSet;
use std::io::{self, BufRead, Read as _};
use std::ops::Range;

use bgpkit_parser::models::{
    Attributes, Origin as BgpOrigin, PeerIndexTable, RibAfiEntries, TableDumpV2Message,
    TableDumpV2Type,
};
use bgpkit_parser::parser::mrt::parse_table_dump_v2_message;
use bytes::Bytes;

use crate::control::routes::error::{DumpFault, RoutesError};
use crate::control::routes::gathering::{Boxes, Gathering};
use crate::control::routes::table::{Origin, Way};
use crate::control::routes::viewers::Viewers;
use crate::limits::ROUTE_RECORD_BYTES_MAX;

/// Reads all of a file: what `boxes` announce.
///
/// # Errors
/// It cannot be read, or is none, or a guard forbids what it tells.
pub(super) fn read(
    input: &mut dyn BufRead,
    boxes: Boxes,
    into: &mut Gathering<'_>,
) -> Result<(), RoutesError> {
    let mut dumps: Vec<Dump> = Vec::new();
    for record in 1.. {
        let at = |fault| RoutesError::Dump { record, fault };
        if input.fill_buf().map_err(RoutesError::Read)?.is_empty() {
            break;
        }
        let (subtype, body) = next(input).map_err(|fault| fault.at(record))?;
        let Ok(subtype) = TableDumpV2Type::try_from(subtype) else { continue };
        let is_peers = subtype == TableDumpV2Type::PeerIndexTable;
        if dumps.is_empty() && !is_peers {
            return Err(at(DumpFault::NoPeers));
        }
        if !is_peers && !is_unicast(subtype) {
            continue;
        }
        let told = entries(&body, subtype);
        let message = parse_table_dump_v2_message(subtype.into(), body);
        match message.map_err(|error| at(DumpFault::Unreadable(error.to_string())))? {
            TableDumpV2Message::PeerIndexTable(peers) => {
                begin(&mut dumps, peers, into);
                if dumps.len() > DUMPS_MAX {
                    return Err(at(DumpFault::TooMany));
                }
            }
            TableDumpV2Message::RibAfi(rib) => {
                // What could not be read of them was left out in silence.
                if told != Some(rib.rib_entries.len()) {
                    return Err(at(DumpFault::CutShort));
                }
                if let Some(dump) = dumps.last_mut() {
                    dump.take(&rib, boxes, into);
                }
            }
            _ => {}
        }
    }
    dumps.into_iter().find_map(|dump| dump.refused).map_or(Ok(()), Err)
}

/// One dump of a file: what a router had at one time in one of its tables.
struct Dump {
    view: String,
    /// The peers there are. Routes of another are the router's own: BIRD has a peer without an
    /// address for them, GoBGP a number without a peer.
    peers: HashSet<u16>,
    /// What it told, among all that was told.
    told: Range<usize>,
    /// What no file may tell. It counts if this dump does.
    refused: Option<RoutesError>,
}

/// Another dump begins. What one before told of the same table is told no more.
fn begin(dumps: &mut Vec<Dump>, peers: PeerIndexTable, into: &mut Gathering<'_>) {
    if let Some(at) = dumps.iter().position(|dump| dump.view == peers.view_name) {
        let before = dumps.remove(at).told;
        for later in &mut dumps[at..] {
            later.told = later.told.start - before.len()..later.told.end - before.len();
        }
        into.forget(before);
    }
    let somebody = peers.id_peer_map.iter().filter(|(_, peer)| !peer.peer_ip.is_unspecified());
    let numbers = somebody.map(|(number, _)| *number).collect();
    let told = into.len()..into.len();
    dumps.push(Dump { view: peers.view_name, peers: numbers, told, refused: None });
}

impl Dump {
    /// The best of all ways to a prefix.
    fn take(&mut self, rib: &RibAfiEntries, boxes: Boxes, into: &mut Gathering<'_>) {
        if self.refused.is_some() {
            return;
        }
        let entries = rib.rib_entries.iter();
        let heard = entries.filter(|entry| self.peers.contains(&entry.peer_index));
        if let Some(way) = heard.filter_map(|entry| way(&entry.attributes)).min() {
            let viewers = Viewers::Prefix(rib.prefix.prefix.trunc());
            self.refused = into.announce(viewers, boxes, way).err();
            self.told.end = into.len();
        }
    }
}

/// What ended a record before its end.
enum Ended {
    Read(io::Error),
    Fault(DumpFault),
}

impl Ended {
    fn at(self, record: u64) -> RoutesError {
        match self {
            Ended::Read(error) => RoutesError::Read(error),
            Ended::Fault(fault) => RoutesError::Dump { record, fault },
        }
    }
}

/// The next record's subtype and body.
fn next(input: &mut dyn BufRead) -> Result<(u16, Bytes), Ended> {
    let [_, _, _, _, kind_1, kind_2, subtype_1, subtype_2, length @ ..] = {
        let mut head = [0; HEAD_BYTES];
        input.read_exact(&mut head).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Ended::Fault(DumpFault::CutShort),
            _ => Ended::Read(error),
        })?;
        head
    };
    let kind = u16::from_be_bytes([kind_1, kind_2]);
    if kind != TABLE_DUMP_V2 {
        return Err(Ended::Fault(DumpFault::NoTable { kind }));
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > ROUTE_RECORD_BYTES_MAX {
        return Err(Ended::Fault(DumpFault::TooLong));
    }
    // Grows with what is there: a length may say more.
    let mut body = Vec::new();
    input.take(length as u64).read_to_end(&mut body).map_err(Ended::Read)?;
    if body.len() < length {
        return Err(Ended::Fault(DumpFault::CutShort));
    }
    Ok((u16::from_be_bytes([subtype_1, subtype_2]), body.into()))
}

fn is_unicast(subtype: TableDumpV2Type) -> bool {
    matches!(
        subtype,
        TableDumpV2Type::RibIpv4Unicast
            | TableDumpV2Type::RibIpv6Unicast
            | TableDumpV2Type::RibIpv4UnicastAddPath
            | TableDumpV2Type::RibIpv6UnicastAddPath
    )
}

/// How many ways a record says that it has: behind its number (4 bytes), a prefix's length in bits
/// and the bytes of that prefix.
fn entries(body: &[u8], subtype: TableDumpV2Type) -> Option<usize> {
    if subtype == TableDumpV2Type::PeerIndexTable {
        return None;
    }
    let bits = *body.get(4)?;
    let at = 5 + usize::from(bits.div_ceil(8));
    let count = body.get(at..at + 2)?;
    Some(usize::from(u16::from_be_bytes([count[0], count[1]])))
}

/// None without an AS path, or with one that cannot be read: that is no announcement (RFC 7606).
fn way(attributes: &Attributes) -> Option<Way> {
    let as_path = attributes.as_path()?.route_len();
    let origin = match attributes.origin() {
        BgpOrigin::IGP => Origin::Igp,
        BgpOrigin::EGP => Origin::Egp,
        BgpOrigin::INCOMPLETE => Origin::Incomplete,
    };
    let med = attributes.multi_exit_discriminator().unwrap_or(0);
    Some(Way { as_path: as_path.try_into().unwrap_or(u16::MAX), origin, med })
}

/// Of a record: time, kind, subtype, length.
const HEAD_BYTES: usize = 12;
/// The kind of table dumps (RFC 6396 section 4).
const TABLE_DUMP_V2: u16 = 13;
/// Tables of one router that are dumped into one file; two families are usual.
const DUMPS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::control::routes::builder::Builder;
    use crate::control::routes::gathering::Guards;
    use crate::control::routes::table::Table;

    /// Made by the letter of the RFC: two peers, and the router's own default route.
    const RFC: &[u8] = include_bytes!("../../../fuzz/seeds/route_dump/rfc");

    /// Where it says whose its own default route is: in the first way of the second record.
    const OWN_PEER: usize = HEAD_BYTES + 8 + 3 * 13 + HEAD_BYTES + 5 + 2;
    /// BIRD 2.0.12's: both tables, several times; a prefix was withdrawn on the way, and its own
    /// default route is in all of them.
    const BIRD: &[u8] = include_bytes!("../../../fuzz/seeds/route_dump/bird");
    /// GoBGP 3.10's: twice, the same prefix was withdrawn between them; it originates one itself.
    const GOBGP: &[u8] = include_bytes!("../../../fuzz/seeds/route_dump/gobgp");

    fn taken(dump: &[u8]) -> Result<Table, RoutesError> {
        let mut builder = Builder::default();
        Gathering::new(&mut builder, Guards::default(), "dump").take(|into| {
            let boxes = into.boxes(["a", "b"].into_iter())?;
            read(&mut &*dump, boxes, into)
        })?;
        Ok(builder.build(Arc::default()))
    }

    fn told(table: &Table) -> Vec<String> {
        let told = table.routes().map(|(viewers, routes)| {
            let [route] = &*routes else { panic!("{viewers}: {routes:?}") };
            let Way { as_path, origin, med } = route.way;
            format!("{viewers} {} {as_path} {origin:?} {med}", route.boxes.join("+"))
        });
        told.collect()
    }

    fn refused(dump: &[u8]) -> String {
        taken(dump).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn the_best_way_to_each_prefix_is_taken() {
        assert_eq!(
            told(&taken(RFC).unwrap()),
            [
                "198.51.100.0/24 a+b 2 Incomplete 7",
                "203.0.112.0/23 a+b 1 Egp 50",
                "2001:db8::/32 a+b 1 Igp 0",
            ]
        );
    }

    #[test]
    fn of_what_bird_and_gobgp_dumped_the_last_counts() {
        let last = ["198.51.100.0/24 a+b 1 Incomplete 0", "2001:db8::/32 a+b 1 Incomplete 0"];
        assert_eq!(told(&taken(BIRD).unwrap()), last);
        assert_eq!(told(&taken(GOBGP).unwrap()), last);
        let peers = |dump: &[u8], at: usize| dump[at + 4..at + 8] == [0, 13, 0, 1];
        let second = ends(GOBGP).into_iter().skip(1).find(|at| peers(GOBGP, *at)).unwrap();
        let first = told(&taken(&GOBGP[..second]).unwrap());
        assert_eq!(
            (&*first[0], &first[1..]),
            ("192.0.2.0/24 a+b 3 Incomplete 50", &last.map(String::from)[..])
        );
    }

    #[test]
    fn what_no_file_may_tell_counts_if_its_dump_does() {
        let mut wrong = RFC.to_vec();
        wrong[OWN_PEER + 1] = 1;
        assert!(refused(&wrong).starts_with("0.0.0.0/0 is the default route"));
        let repaired = [&*wrong, RFC].concat();
        assert_eq!(told(&taken(&repaired).unwrap()).len(), 3);
        let broken = [RFC, &*wrong].concat();
        assert!(refused(&broken).starts_with("0.0.0.0/0 is the default route"));
    }

    /// Where records begin, and the last one ends.
    fn ends(dump: &[u8]) -> Vec<usize> {
        let mut ends = vec![0];
        while let Some(head) = dump.get(*ends.last().unwrap()..).filter(|rest| !rest.is_empty()) {
            let length = u32::from_be_bytes(head[8..12].try_into().unwrap()) as usize;
            ends.push(ends.last().unwrap() + HEAD_BYTES + length);
        }
        ends
    }

    #[test]
    fn a_dump_that_is_cut_short_is_refused_wherever_it_ends() {
        // Behind a whole record nothing is missing that could be known of.
        let ends = ends(RFC);
        for length in 0..RFC.len() {
            match taken(&RFC[..length]) {
                Ok(_) => assert!(ends.contains(&length), "{length}"),
                Err(RoutesError::Empty) => assert!(ends[..=2].contains(&length), "{length}"),
                Err(error) => {
                    assert!(error.to_string().contains("is cut short"), "{length}: {error}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_dump_of_a_table_is_said_so() {
        let record = |kind: u16, subtype: u16, length: u32| {
            let mut head = vec![0; 4];
            head.extend(kind.to_be_bytes());
            head.extend(subtype.to_be_bytes());
            head.extend(length.to_be_bytes());
            head
        };
        for (dump, line) in [
            (vec![], "tells no route"),
            (b"192.0.2.0/24 fra-1\n".to_vec(), "record 1 is of kind"),
            (record(16, 4, 0), "record 1 is of kind 16: this is no MRT dump of a table"),
            (record(13, 2, 0), "record 1 does not say who announces"),
            (record(13, 1, u32::MAX), "record 1 has more than"),
            (record(13, 1, 0), "record 1 cannot be read: "),
            (record(13, 1, 9), "record 1 is cut short"),
        ] {
            let error = refused(&dump);
            assert!(error.starts_with(line), "{error}");
        }
    }
}
