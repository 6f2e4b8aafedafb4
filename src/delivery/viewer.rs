//! A viewer's request while it is answered: its head, where it came from, and what it takes.
//!
//! What becomes of it, his record remembers.

use std::cell::{Cell, OnceCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderValue;
use http::request::Parts;

use crate::access_log::{Decision, RequestId, Trace, Tracing};
use crate::delivery::door::Showing;
use crate::delivery::error::DeliveryError;
use crate::door::Bearer;
use crate::fill::error::FillError;
use crate::limits::REQUEST_BYTES;
use crate::memory::{Class, OfSite, Reservation, Use};
use crate::message::cmcd::Cmcd;
use crate::message::priority::Priority;
use crate::server::ConnectionFacts;
use crate::store::device::Urgency;

/// A viewer's request: its head and where it came from.
#[derive(Debug)]
pub struct Viewer {
    /// The request's head.
    pub parts: Parts,
    /// Its connection.
    pub connection: Rc<ConnectionFacts>,
    /// Who asks, through proxies that are believed.
    pub client: IpAddr,
    /// Its number, sent to origins too.
    pub request_id: RequestId,
    /// When its head had been read.
    pub time: SystemTime,
    /// How badly he waits for what an ssd holds.
    pub urgency: Urgency,
    /// What the player told of itself.
    pub cmcd: Option<Box<Cmcd>>,
    /// What he shows at whose door.
    pub showing: Option<Box<Showing>>,
    /// Who he is by his token, where what he may have is bounded.
    pub bearer: OnceCell<Arc<Bearer>>,
    /// From when its site is known, for as long as it is answered.
    pub reserved: OnceCell<Reservation>,
    /// Requests upstream this one caused so far.
    pub origin_requests: Cell<u32>,
    /// What was decided about it, while somebody wants to know.
    pub tracing: Tracing,
}

impl Viewer {
    /// Whoever sends a head, over a connection and for a client, with what he shows.
    pub fn new(
        parts: Parts,
        (connection, client): (&Rc<ConnectionFacts>, IpAddr),
        showing: Option<Box<Showing>>,
        tracing: Tracing,
    ) -> Viewer {
        let cmcd = Cmcd::of(&parts.headers, parts.uri.query()).map(Box::new);
        Viewer {
            urgency: match Priority::of(&parts.headers).stands_back(cmcd.as_deref()) {
                true => Urgency::Patient,
                false => Urgency::Viewer,
            },
            cmcd,
            client,
            reserved: OnceCell::new(),
            bearer: OnceCell::new(),
            showing,
            parts,
            connection: connection.clone(),
            request_id: RequestId::assign(),
            time: SystemTime::now(),
            origin_requests: Cell::new(0),
            tracing,
        }
    }

    /// Counts requests upstream.
    pub fn count_origin_requests(&self, more: u32) {
        self.origin_requests.set(self.origin_requests.get() + more);
    }

    /// Tells who follows the log of a decision.
    pub fn tell(&self, decision: impl FnOnce() -> Decision) {
        if let Tracing::Kept(trace) = &self.tracing {
            told(trace, decision);
        }
    }

    /// The same of what followed from the decision before without a wait.
    pub fn tell_at_once(&self, decision: impl FnOnce() -> Decision) {
        if let Tracing::Kept(trace) = &self.tracing {
            told_at_once(trace, decision);
        }
    }

    /// Reserves what it takes while it is answered.
    ///
    /// # Errors
    /// `Overload`.
    pub fn reserve(&self, governor: OfSite<'_>) -> Result<(), DeliveryError> {
        let reserved = governor.try_reserve(Use::Requests, Class::Miss, self.request_bytes());
        let overload = || DeliveryError::Fill(Arc::new(FillError::Overload { what: "memory" }));
        // It is of one site.
        let _ = self.reserved.set(reserved.ok_or_else(overload)?);
        Ok(())
    }

    /// What a request with this head takes, in bytes.
    fn request_bytes(&self) -> u64 {
        let parts = &self.parts;
        let field = |(name, value): (&http::HeaderName, &HeaderValue)| {
            name.as_str().len() + value.len() + FIELD_BYTES
        };
        let fields: usize = parts.headers.iter().map(field).sum();
        let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
        REQUEST_BYTES + (fields + target) as u64
    }
}

/// A field without its name and value, in the table of a head.
const FIELD_BYTES: usize = 80;

/// Apart from the way of the others, which is seldom followed.
#[cold]
fn told(trace: &Trace, decision: impl FnOnce() -> Decision) {
    trace.tell(decision());
}

/// Likewise.
#[cold]
fn told_at_once(trace: &Trace, decision: impl FnOnce() -> Decision) {
    trace.tell_at_once(decision());
}
