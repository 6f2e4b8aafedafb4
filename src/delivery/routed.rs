//! Whether a viewer is this box's, where his site wants to know: routes may have him for others.
//!
//! Who is sent on carries the decision of steering along, and is not sent on again. Where nobody
//! better is known to be well, he is served.

use std::net::IpAddr;

use http::HeaderValue;

use crate::access_log::Decision;
use crate::delivery::Delivery;
use crate::delivery::door::Named;
use crate::delivery::error::DeliveryError;
use crate::delivery::record::Record;
use crate::delivery::viewer::Viewer;
use crate::message::target::is_steered;
use crate::metrics::labels::Barred;
use crate::site::{OffRoute, Scheme};

/// Who asks for what, as he asked for it.
#[derive(Clone, Copy, Debug)]
pub struct Stranger<'a> {
    /// His address.
    pub viewer: IpAddr,
    /// The site's name.
    pub site: &'a str,
    /// The object's normalised path.
    pub path: &'a str,
    /// By what he asks.
    pub scheme: Scheme,
    /// Path and query as he wrote them, with his token.
    pub target: &'a str,
}

/// Where a viewer is better served, as a URL; `None`: here, or nobody better is known to be well.
pub type Better = dyn Fn(&Stranger<'_>) -> Option<String> + Send + Sync;

impl Delivery {
    /// Whether a viewer is served here.
    pub(super) fn keeps(
        &self,
        viewer: &Viewer,
        record: &mut Record,
        off_route: OffRoute,
        named: &Named<'_>,
    ) -> Result<(), DeliveryError> {
        let reads = matches!(viewer.parts.method, http::Method::GET | http::Method::HEAD);
        let is_sent = named.query.is_some_and(is_steered);
        let sends_on = match off_route {
            OffRoute::Serve => return Ok(()),
            // At most once; and who sends something would send it twice.
            OffRoute::Redirect if is_sent || !reads => return Ok(()),
            OffRoute::Redirect => true,
            OffRoute::Deny => false,
        };
        let asked = viewer.showing.as_ref().map_or(&viewer.parts.uri, |showing| showing.asked());
        let stranger = Stranger {
            viewer: viewer.client,
            site: record.site.as_ref().map_or("", |site| site.name.as_str()),
            path: named.path,
            scheme: if viewer.connection.tls.is_some() { Scheme::Https } else { Scheme::Http },
            target: asked.path_and_query().map_or("/", |target| target.as_str()),
        };
        let Some(better) = (self.shared.better)(&stranger) else { return Ok(()) };
        let to = sends_on.then(|| HeaderValue::try_from(better).ok()).flatten();
        if sends_on && to.is_none() {
            return Ok(());
        }
        let label = if sends_on { Barred::SentOn } else { Barred::Elsewhere };
        record.counters().barred.count(label);
        record.barred = Some(label.label());
        viewer.tell(|| Decision::of("routes", "another box is for him").because(label.label()));
        Err(DeliveryError::OffRoute(to))
    }
}
