//! What every promise is tested with: a scripted origin, a viewer, an edge between them.
//!
//! Nothing here waits for luck: events are waited for, and a wait that is too long fails.

mod answer;
mod client;
mod client_connection;
mod content;
mod control;
mod edge;
mod origin;
mod origin_connection;
mod origin_state;
mod process;
mod script;
mod verdict;

pub(crate) use answer::{etag, last_modified};
pub(crate) use client::{Client, Request, Response, Speaks, Streaming};
pub(crate) use client_connection::Connection;
pub(crate) use content::mixed;
pub(crate) use control::{Call, Control, FAULTS};
pub(crate) use edge::{Configured, Edge, HOST, runs_of, until_ready, until_runs};
pub(crate) use origin::{Origin, PATIENCE};
pub(crate) use origin_state::Recorded;
pub(crate) use process::{
    Process, configured, has_row, keeping, status_of, text, tidegate, tidegate_in,
};
pub(crate) use script::{
    Change, Ending, Framing, HeadFault, NotModified, Ranges, Script, Validators, content_of,
};
pub(crate) use verdict::{Verdict, follow, judge, judge_variant};

/// One piece: 64 KiB.
pub(crate) const PIECE: u64 = tidegate::limits::PIECE_SIZE_BYTES;
/// One block at its default size: 1 MiB.
pub(crate) const BLOCK: u64 = tidegate::limits::SLOT_SIZE_BYTES;
