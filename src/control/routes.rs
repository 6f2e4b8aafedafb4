//! ROUTES: which boxes are for which viewers.
//!
//! A [`Table`] says it: prefixes, and where none holds a viewer his AS and his country, each with
//! the boxes that announce it and how good their way to him is. It is read from files (`files.rs`)
//! in one of three formats (`prefix_file.rs`, `coverage_zones.rs`, `mrt.rs`), judged on the way
//! (`gathering.rs`) and swapped whole. What else brings routes one day only needs a [`Builder`].
//! Steering asks the table; [`Explained`] tells people what it says of one viewer.

mod builder;
mod clusters;
mod coverage_zones;
mod difference;
mod error;
mod explained;
mod figures;
mod files;
pub mod fuzz;
mod gathering;
mod mrt;
mod plan;
mod prefix_file;
mod table;
mod viewers;

pub use builder::Builder;
pub use clusters::{Cluster, Uneven, uneven};
pub use difference::{Change, Difference};
pub use error::{DumpFault, LineFault, RoutesError, ZoneFault};
pub use explained::{BoxForHim, Explained, Match};
pub use figures::{Figures, FileState};
pub use files::Routes;
pub use gathering::{Boxes, Gathering, Guards};
pub use plan::{Format, Outcome, Plan, RefusedFile, RouteFile};
pub use table::{Announced, Origin, Route, Table, Way, Whose};
pub use viewers::Viewers;

#[cfg(test)]
pub(in crate::control) use fuzz::table_of;
