//! Why nothing of a source is used: one line, behind the source's name, that says what to do.

use std::fmt;
use std::io;

use ipnet::IpNet;

use crate::geo::NoDatabase;
use crate::limits::{PATHWAY_BYTES_MAX, ROUTE_LINE_BYTES_MAX, ROUTE_RECORD_BYTES_MAX, ROUTES_MAX};

/// Why nothing of a source is used.
#[derive(Debug)]
pub enum RoutesError {
    /// It cannot be read.
    Read(io::Error),
    /// It is longer than any that is read.
    TooLong {
        /// What is read.
        bytes_max: u64,
    },
    /// It tells nothing.
    Empty,
    /// Everybody, in one prefix.
    DefaultRoute {
        /// Of which family.
        prefix: IpNet,
    },
    /// A prefix that nobody announces.
    TooShort {
        /// Which.
        prefix: IpNet,
        /// The shortest that may be.
        bits_min: u8,
    },
    /// More routes than one source may tell.
    TooMany {
        /// So many.
        routes_max: usize,
    },
    /// More routes than all sources together may tell.
    TooManyInAll,
    /// No box is called so.
    Name {
        /// As it was written.
        name: String,
    },
    /// A line of a prefix file.
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        fault: LineFault,
    },
    /// A coverage zone file.
    Zones(ZoneFault),
    /// A dump.
    Dump {
        /// Which of its records, counted from 1.
        record: u64,
        /// What is wrong with it.
        fault: DumpFault,
    },
    /// A database of countries or ASes.
    Database(NoDatabase),
}

/// What is wrong with a line of a prefix file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineFault {
    /// More bytes than any line has.
    TooLong,
    /// Not UTF-8.
    NoText,
    /// Its first word says for no viewers.
    NoViewers(String),
    /// No box is named.
    NoBoxes,
    /// A word is no box and no setting.
    NoBox(String),
    /// A setting's value is none.
    NoValue(String),
}

/// What is wrong with a coverage zone file.
#[derive(Debug)]
pub enum ZoneFault {
    /// It is not JSON, or other JSON.
    Json(serde_json::Error),
    /// It has neither zones nor deep ones.
    NoZones,
    /// A zone stands in it twice.
    Twice {
        /// Which.
        zone: String,
    },
    /// What a zone has is no prefix of that family.
    NoPrefix {
        /// Which zone.
        zone: String,
        /// As it was written.
        written: String,
    },
    /// Two zones have the same prefix.
    Same {
        /// Which.
        prefix: IpNet,
        /// Those two.
        zones: [String; 2],
    },
}

/// What is wrong with a record of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpFault {
    /// The dump ends in it.
    CutShort,
    /// It is longer than any.
    TooLong,
    /// It is of another kind.
    NoTable {
        /// Which (RFC 6396 section 4).
        kind: u16,
    },
    /// The first one does not say who announces.
    NoPeers,
    /// It begins the dump of one table more than any router has.
    TooMany,
    /// It cannot be read.
    Unreadable(String),
}

impl RoutesError {
    /// All words for why, in the order of the metrics.
    pub const WORDS: [&str; 9] = [
        "unreadable",
        "too_long",
        "empty",
        "default_route",
        "too_short",
        "too_many",
        "name",
        "format",
        "database",
    ];

    /// Which of these words says why.
    pub fn word(&self) -> &'static str {
        let place = match self {
            RoutesError::Read(_) => 0,
            RoutesError::TooLong { .. } => 1,
            RoutesError::Empty => 2,
            RoutesError::DefaultRoute { .. } => 3,
            RoutesError::TooShort { .. } => 4,
            RoutesError::TooMany { .. } | RoutesError::TooManyInAll => 5,
            RoutesError::Name { .. } => 6,
            RoutesError::Line { .. } | RoutesError::Zones(_) | RoutesError::Dump { .. } => 7,
            RoutesError::Database(_) => 8,
        };
        RoutesError::WORDS[place]
    }
}

impl fmt::Display for RoutesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoutesError::Read(error) => write!(f, "cannot be read: {error}"),
            RoutesError::TooLong { bytes_max } => {
                write!(f, "has more than {bytes_max} bytes: no file of routes has so many")
            }
            RoutesError::Empty => write!(
                f,
                "tells no route; where it shall have none any more, take it out of the settings"
            ),
            RoutesError::DefaultRoute { prefix } => write!(
                f,
                "{prefix} is the default route: everybody would be sent to one place; announce \
                 the networks of viewers alone"
            ),
            RoutesError::TooShort { prefix, bits_min } => write!(
                f,
                "{prefix} is shorter than /{bits_min}: no network of viewers is so large; \
                 announce those that are yours alone"
            ),
            RoutesError::TooMany { routes_max } => write!(
                f,
                "tells more than {routes_max} routes: announce the networks of viewers alone, or \
                 let it have more in the settings"
            ),
            RoutesError::TooManyInAll => {
                write!(
                    f,
                    "brings all sources to more than {ROUTES_MAX} routes: announce the networks \
                     of viewers alone, or take a file out of the settings"
                )
            }
            RoutesError::Name { name } => write!(
                f,
                "`{name}` is no name of a box: up to {PATHWAY_BYTES_MAX} letters, digits, `.`, \
                 `_` and `-` are"
            ),
            RoutesError::Line { line, fault } => write!(f, "line {line}: {fault}"),
            RoutesError::Zones(fault) => write!(f, "{fault}"),
            RoutesError::Dump { record, fault } => write!(f, "record {record} {fault}"),
            RoutesError::Database(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineFault::TooLong => write!(
                f,
                "has more than {ROUTE_LINE_BYTES_MAX} bytes; a prefix may have several lines"
            ),
            LineFault::NoText => write!(f, "is not UTF-8; save it as plain text"),
            LineFault::NoViewers(word) => write!(
                f,
                "`{word}` is no prefix, AS or country; a line is like `192.0.2.0/24 box1 box2`, \
                 `AS64500 box1` or `DE box1`"
            ),
            LineFault::NoBoxes => {
                write!(f, "names no box; a line is like `192.0.2.0/24 box1 box2`")
            }
            LineFault::NoBox(word) => {
                write!(f, "`{word}` is no name of a box, and neither `as-path=` nor `med=`")
            }
            LineFault::NoValue(word) => {
                write!(f, "`{word}` has no number; write it like `as-path=2` or `med=50`")
            }
        }
    }
}

impl fmt::Display for ZoneFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ZoneFault::Json(error) => write!(f, "is no coverage zone file: {error}"),
            ZoneFault::NoZones => write!(
                f,
                "is no coverage zone file: it has neither `coverageZones` nor `deepCoverageZones`"
            ),
            ZoneFault::Twice { zone } => {
                write!(f, "has the zone `{zone}` twice; put their networks together")
            }
            ZoneFault::NoPrefix { zone, written } => {
                write!(
                    f,
                    "zone `{zone}`: `{written}` is no network of that list's family; `network` is \
                     for IPv4 and `network6` for IPv6"
                )
            }
            ZoneFault::Same { prefix, zones: [one, other] } => write!(
                f,
                "{prefix} is in the zone `{one}` and in the zone `{other}`: take it out of one of \
                 them"
            ),
        }
    }
}

impl fmt::Display for DumpFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DumpFault::CutShort => {
                write!(f, "is cut short: the dump is damaged, or still being written")
            }
            DumpFault::TooLong => {
                write!(f, "has more than {ROUTE_RECORD_BYTES_MAX} bytes: this is no MRT dump")
            }
            DumpFault::NoTable { kind } => write!(
                f,
                "is of kind {kind}: this is no MRT dump of a table (TABLE_DUMP_V2); have the \
                 router write one, not updates"
            ),
            DumpFault::NoPeers => write!(
                f,
                "does not say who announces: the dump's start is missing, or it is of another kind"
            ),
            DumpFault::TooMany => write!(
                f,
                "begins too many dumps of different tables; have the router write a file for each"
            ),
            DumpFault::Unreadable(why) => write!(f, "cannot be read: {why}"),
        }
    }
}

impl std::error::Error for RoutesError {}

impl std::error::Error for LineFault {}

impl std::error::Error for ZoneFault {}

impl std::error::Error for DumpFault {}
