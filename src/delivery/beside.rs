//! What an answer says beside what it is of, to this viewer alone: whether a page may read it, the
//! token that takes the place of his, and the way to him.

use std::sync::Arc;

use http::Response;

use crate::delivery::Shared;
use crate::delivery::body::ViewerBody;
use crate::delivery::record::Record;
use crate::delivery::viewer::Viewer;
use crate::door::Given;
use crate::message::cmsd::Dynamic;
use crate::message::cors;
use crate::server::Way;
use crate::site::{Cmsd, Cors};

/// What is added to an answer.
pub(super) struct Beside {
    cors: Option<Arc<Cors>>,
    cmsd: Cmsd,
    given: Option<Box<Given>>,
}

impl Beside {
    /// What was found while it was answered.
    pub(super) fn of(record: &mut Record) -> Beside {
        let (cors, given) = (record.cors.take(), record.given.take());
        Beside { cors, cmsd: record.cmsd, given }
    }

    /// Adds it.
    pub(super) fn add_to(
        self,
        response: &mut Response<ViewerBody>,
        viewer: &Viewer,
        shared: &Shared,
    ) {
        if let Some(cors) = self.cors {
            cors::allow(&cors, &viewer.parts.headers, response.headers_mut());
        }
        if let Some(given) = self.given {
            let (status, is_secure) = (response.status(), viewer.connection.tls.is_some());
            given.add_to(status, response.headers_mut(), is_secure);
        }
        let is_told = match self.cmsd {
            Cmsd::All => true,
            Cmsd::Players => viewer.cmcd.is_some(),
            Cmsd::Off => false,
        };
        if is_told && response.status().is_success() {
            tell(viewer, shared, response);
        }
    }
}

/// Tells a player of the way to it, with what it plays (CTA-5006).
fn tell(viewer: &Viewer, shared: &Shared, response: &mut Response<ViewerBody>) {
    let way = viewer.connection.way();
    let dynamic = Dynamic {
        throughput_kbps: way.map(Way::throughput_kbps),
        round_trip_ms: way.map(|way| way.round_trip.as_millis() as u64),
        under_duress: shared.governor.is_under_duress(),
    };
    dynamic.append_to(response.headers_mut());
}
