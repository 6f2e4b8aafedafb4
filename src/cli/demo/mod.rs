//! `tidegate demo`: an embedded origin with a film, an edge in front of it, and a page to watch both.

pub mod origin;
mod paced;
