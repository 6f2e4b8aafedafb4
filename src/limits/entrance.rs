//! Bounds of who comes in: of networks and hours that rules name.

/// Networks of one list, here or in its file.
pub const ENTRANCE_NETWORKS_MAX: usize = 1_000_000;
/// Networks of a database that are looked at for a country: most have one.
pub const PLACES_LOOKED_AT_MAX: usize = 1_000;
/// A file of them.
pub const ENTRANCE_FILE_BYTES_MAX: usize = 64 << 20;
/// What is told of a line that is none.
pub const NETWORK_TOLD_BYTES_MAX: usize = 64;
/// Countries of one list: all there can be.
pub const ENTRANCE_COUNTRIES_MAX: usize = 26 * 26;
/// Parts of a day.
pub const ENTRANCE_HOURS_MAX: usize = 24;
