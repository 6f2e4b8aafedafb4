//! Whether a request is let in, and how fast it is answered.
//!
//! `src/overload.rs` has the order in which requests are not let in.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::header::ALLOW;
use http::request::Parts;
use http::{Response, StatusCode};

use crate::delivery::body::ViewerBody;
use crate::delivery::error::DeliveryError;
use crate::delivery::record::Record;
use crate::delivery::viewer::Viewer;
use crate::delivery::{Delivery, reply};
use crate::message::request::host_of;
use crate::overload::{Arrived, Refusal, Sharer};
use crate::server::{ConnectionFacts, Wish};
use crate::site::Pace;

impl Viewer {
    /// Has what is sent to him go as fast as a rule says, at most.
    pub(super) fn pace(&self, pace: Pace) {
        let asked_kbps = || self.cmcd.as_ref().and_then(|cmcd| cmcd.number("rtp"));
        self.connection.send_at_most(match pace {
            Pace::Off => None,
            Pace::Bytes(bytes) => Some(bytes),
            Pace::Cmcd => asked_kbps().map(|kbps| kbps.saturating_mul(125).max(PACE_BYTES_MIN)),
        });
    }
}

impl Delivery {
    /// Who asks, through proxies that are believed.
    pub(super) fn client(&self, connection: &ConnectionFacts, parts: &Parts) -> IpAddr {
        let (peer, mut forwarders) = (connection.viewer.ip(), self.forwarders.borrow_mut());
        forwarders.load().client(peer, &parts.headers)
    }

    /// What an authority is answered that asks whether a name is ours, however much there is to do.
    pub(super) fn proof(&self, viewer: &Viewer) -> Option<Bytes> {
        let (parts, is_plain) = (&viewer.parts, viewer.connection.tls.is_none());
        let reads = matches!(parts.method, http::Method::GET | http::Method::HEAD);
        if !is_plain || !reads {
            return None;
        }
        self.shared.challenges.text(parts.uri.path())
    }

    /// Answers who gets nothing else.
    pub(super) fn refuse(
        &self,
        error: &DeliveryError,
        viewer: &Rc<Viewer>,
        record: Record,
    ) -> Response<ViewerBody> {
        let mut response = reply::refusal(error, viewer, record);
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, self.allowed(&viewer.parts));
        }
        response
    }

    /// Lets a request in, or says that nobody is served any more, or that there is too much to do.
    pub(super) fn admit(&self, viewer: &Viewer, now: Instant) -> Result<(), DeliveryError> {
        let (gate, connection) = (&self.shared.gate, &viewer.connection);
        if connection.wish.get() == Wish::Refusing {
            return Err(DeliveryError::TurnedAway);
        }
        gate.admit_request(viewer.client, now).map_err(DeliveryError::Overload)?;
        match connection.let_in.get() {
            Some(let_in) if gate.asks_whose() => {
                // Over one connection a proxy asks for what is of many sites.
                gate.admit_again(self.sharer(viewer).unwrap_or(let_in.sharer()))
            }
            Some(_) => Ok(()),
            None => self.admit_new(viewer),
        }
        .map_err(DeliveryError::Overload)
    }

    /// Lets in who asks for the first time: his connection is that site's, whatever he asks for
    /// later.
    fn admit_new(&self, viewer: &Viewer) -> Result<(), Refusal> {
        let (gate, connection) = (&self.shared.gate, &viewer.connection);
        let arrived = if connection.tls.is_some() { Arrived::ShakenHands } else { Arrived::Plain };
        let Some(sharer) = self.sharer(viewer) else {
            return gate.admit_unknown(arrived);
        };
        let let_in = gate.admit_viewer(arrived, sharer)?;
        // Of two streams that come at once one counts.
        let _ = connection.let_in.set(let_in);
        Ok(())
    }

    /// Of whose share a request is, if its host is a site's.
    fn sharer(&self, viewer: &Viewer) -> Option<Sharer> {
        let host = host_of(&viewer.parts).ok()?;
        Some(Sharer::of(self.shared.sites.load().find(&host)?.id))
    }
}

/// A player that asks for less would be cut off for reading slowly: a megabit in a second.
const PACE_BYTES_MIN: u64 = 125_000;
