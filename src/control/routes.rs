//! ROUTES: which boxes are for which viewers.
//!
//! A [`Table`] says it: prefixes, and where none holds a viewer his AS and his country, each with
//! the boxes that announce it and how good their way to him is. It is read from files (`files.rs`)
//! in one of three formats (`prefix_file.rs`, `coverage_zones.rs`, `mrt.rs`), judged on the way
//! (`gathering.rs`) and swapped whole. What else brings routes one day only needs a [`Builder`].
//! [`rank`] puts those that are for one viewer in order, [`Explained`] says why.

mod builder;
mod clusters;
mod coverage_zones;
mod difference;
mod error;
mod explained;
mod files;
pub mod fuzz;
mod gathering;
mod geo;
mod mrt;
mod prefix_file;
mod ranking;
mod table;
mod viewers;

pub use builder::Builder;
pub use clusters::{Cluster, Uneven, uneven};
pub use difference::{Change, Difference};
pub use error::{DumpFault, LineFault, RoutesError, ZoneFault};
pub use explained::{Explained, Match, RankedBox};
pub use files::{Format, Outcome, Plan, RefusedFile, RouteFile, Routes};
pub use gathering::{Boxes, Gathering, Guards};
pub use geo::{Geo, Place};
pub use ranking::{Criterion, Position, Ranked, Standing, rank};
pub use table::{Candidate, Origin, Route, Table, Way};
pub use viewers::{Country, Viewers};
