//! What came of one request upstream.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;

use super::Connection;
use crate::purge::{Birth, Tags};

/// The head of an answer, and its body yet to be read.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, as they came.
    pub fields: HeaderMap,
    /// Its body.
    pub body: Incoming,
    /// When the request was sent.
    pub requested_at: SystemTime,
    /// When the head came.
    pub received_at: SystemTime,
    /// The same as `requested_at`, reckoned in purges; nobody counted, unless who asked did.
    pub birth: Birth,
    /// The tags that were taken out of its fields.
    pub tags: Option<Tags>,
    /// The connection's place, given back when the body has been read.
    pub connection: Connection,
}
