//! `tidegate demo`: an embedded origin with a film, an edge in front, a page to watch both.
//!
//! The origin knows nothing of the edge; the smoke test asks the edge and counts at the origin.

pub mod origin;
mod paced;
pub mod smoke;
pub mod viewer;
