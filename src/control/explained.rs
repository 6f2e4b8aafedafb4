//! What `explain` tells: what the cache knows of an object, and what it would do with a request.
//!
//! Plain values, as JSON; who fills a list bounds it (`limits`). Times are in seconds, sizes in
//! bytes.

use std::pin::Pin;

use http::request::Parts;
use serde::Serialize;

use super::status::{BlockStatus, RunStatus};

/// Explains the request with this head, whose target is a whole URL. May wait for a volume as long
/// as a viewer would, and for nothing else.
pub type ExplainSource = Box<dyn Fn(Parts) -> Explaining + Send + Sync>;

/// An explanation on its way.
pub type Explaining = Pin<Box<dyn Future<Output = Result<Explanation, Unexplained>> + Send>>;

/// Why there is nothing to explain: the request would be refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unexplained {
    /// One line.
    pub error: String,
}

/// What there is to tell of one request.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The site.
    pub site: String,
    /// The pattern of the rule that applies.
    pub rule: String,
    /// Its place among the rules of its site, from 1 on.
    pub rule_number: usize,
    /// The path and the part of the query that names the object.
    pub key: String,
    /// Whether `Cache-Control` of requests counts: `honour` or `ignore`.
    pub request_cache_control: &'static str,
    /// What would become of the request now.
    pub answer: Answer,
    /// What is stored, the newest first.
    pub variants: Vec<Variant>,
    /// Fill runs of the object in flight.
    pub runs: Vec<RunStatus>,
}

/// What would become of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// `stored`, `stored-and-refreshed`, `stored-in-part`, `confirm`, `fetch`, `pass` or `refuse`.
    pub how: &'static str,
    /// The sentence that decides.
    pub because: String,
    /// The status, as far as it can be told without the origin.
    pub status: Option<u16>,
}

/// One stored response.
#[derive(Clone, Debug, Serialize)]
pub struct Variant {
    /// Whether the request is answered by this one.
    pub is_selected: bool,
    /// The request fields that chose it, `name:value` each.
    pub chosen_by: Vec<String>,
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub fields: Vec<(String, String)>,
    /// The number of its version, as the log has it.
    pub version: String,
    /// Whether parts can be joined to what is held: its validator is strong.
    pub is_joinable: bool,
    /// The length of its body; `None` while it is not known.
    pub length_bytes: Option<u64>,
    /// How fresh it is.
    pub freshness: Arithmetic,
    /// Whether its origin failed lately and is not asked about it for a moment.
    pub origin_rests: bool,
    /// The size of its blocks.
    pub block_size_bytes: u64,
    /// The first block that was looked at: of a long object the first that is asked for.
    pub first_block: u32,
    /// Pieces in ram, of the blocks that were looked at.
    pub ram: Vec<BlockStatus>,
    /// Pieces on volumes, of these blocks.
    pub ssd: Vec<BlockStatus>,
}

/// The arithmetic of freshness (RFC 9111 section 4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Arithmetic {
    /// How old it was when it came (section 4.2.3).
    pub initial_age_seconds: u64,
    /// How long it has been here.
    pub resident_seconds: u64,
    /// The sum.
    pub age_seconds: u64,
    /// How old it may get.
    pub lifetime_seconds: u64,
    /// What was found before the rule's `least` and `most`.
    pub found_lifetime_seconds: u64,
    /// Who says so.
    pub lifetime_by: &'static str,
    /// Less than nothing: it is stale.
    pub ttl_seconds: i64,
    /// How long it may be used stale while its origin is asked.
    pub stale_while_revalidate_seconds: u64,
    /// How long it may be used stale where its origin fails.
    pub stale_if_error_seconds: u64,
    /// It may never be used without asking.
    pub no_cache: bool,
    /// It must not be used stale.
    pub must_revalidate: bool,
    /// It does not change while it is fresh.
    pub immutable: bool,
}
