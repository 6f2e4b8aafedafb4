//! What purges leave of what is stored, asked at each look-up.
//!
//! What is gone is forgotten when somebody meets it, what is stale is made so in the table: the
//! next one finds it as if it had always been so. And PURGE, the method, of who may.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::HeaderMap;
use hyper::body::Incoming;

use crate::access_log::Decision;
use crate::cache::heads::{Head, Known};
use crate::delivery::error::DeliveryError;
use crate::delivery::record::Record;
use crate::delivery::viewer::Viewer;
use crate::delivery::{Delivery, Transaction};
use crate::fill::{Filler, Opened};
use crate::limits::VARIANTS_PER_OBJECT_MAX;
use crate::message::freshness::Freshness;
use crate::message::request::RequestError;
use crate::object::ObjectKey;
use crate::purge::{Hardness, PurgeError, Purged, Scope, Standing};

impl Delivery {
    /// Purges the object of a URL, for whom its rule lets: it says from where, and the token is
    /// to be shown. Who did it is logged, as of who asks the admin listener.
    pub(super) async fn purge(
        &self,
        viewer: &Rc<Viewer>,
        body: &Incoming,
        record: &mut Record,
    ) -> Result<(), DeliveryError> {
        let asked = self.read(viewer, body, record)?;
        let networks = &asked.site.rule_for(&asked.path).purge_from;
        if networks.is_empty() {
            return Err(DeliveryError::Request(RequestError::MethodRefused));
        }
        let (client, tokens) = (viewer.client, self.shared.token.load_full());
        let operator = tokens.as_ref().and_then(|tokens| tokens.operator(&viewer.parts.headers));
        let is_let = networks.iter().any(|network| network.holds(client));
        let Some(operator) = operator.filter(|_| is_let) else {
            return Err(DeliveryError::PurgeRefused);
        };
        let (by, purges) = (operator.name.clone(), self.shared.filler.purges.clone());
        let scopes = vec![Scope::object(&asked.site.name, asked.key.target())];
        let log = move |purged: &Result<Purged, PurgeError>| {
            // A URL's query may be a secret.
            let (site, path) = (&asked.site.name, asked.key.path());
            match purged {
                Ok(Purged { number, .. }) => {
                    tracing::info!(%by, %client, number, "purged by PURGE: site {site}, {path:?}");
                }
                Err(error) => tracing::warn!(%by, %client, %error, "PURGE: site {site}, {path:?}"),
            }
        };
        let purged = purges.purge(scopes, Hardness::Hard, self.shared.patience, log).await;
        purged.map(drop).map_err(DeliveryError::NotPurged)
    }
}

impl Transaction<'_> {
    /// What ram knows of the object and was not purged.
    pub(super) fn find(&self) -> Known {
        let (filler, viewer) = (&self.shared.filler, self.viewer);
        let told = |words| viewer.tell_at_once(|| Decision::of("purge", words));
        find_telling(filler, &self.asked.key, &viewer.parts.headers, viewer.time, told)
    }

    /// Whether what others had asked for was purged since.
    pub(super) fn was_purged(&self, opened: &Opened) -> bool {
        match opened {
            Opened::Stored { head, .. } | Opened::Confirmed { head, .. } => {
                !matches!(self.standing(head), Standing::Untouched)
            }
            // It is known to be stale.
            Opened::Stale { head, .. } => {
                let purges = &self.shared.filler.purges;
                purges.is_invalid(&self.asked.key, &head.birth)
                    || matches!(self.standing(head), Standing::Gone | Standing::Doubted(_))
            }
            Opened::Private { .. } | Opened::Unsatisfiable { .. } | Opened::Failed(_) => false,
        }
    }

    fn standing(&self, head: &Head) -> Standing {
        self.shared.filler.purges.reckon(&self.asked.key, &head.birth, &head.tags)
    }
}

/// What ram knows of an object and was not purged, for a request with these fields.
pub(crate) fn find(filler: &Filler, key: &ObjectKey, fields: &HeaderMap, now: SystemTime) -> Known {
    find_telling(filler, key, fields, now, |_| {})
}

/// The same, and tells what purges left of what was stored.
fn find_telling(
    filler: &Filler,
    key: &ObjectKey,
    fields: &HeaderMap,
    now: SystemTime,
    tell: impl Fn(&'static str),
) -> Known {
    let heads = &filler.heads;
    for _ in 0..=VARIANTS_PER_OBJECT_MAX {
        let head = match heads.find(key, fields, Instant::now()) {
            Known::Variant(head) => head,
            other => return other,
        };
        let standing = filler.purges.reckon(key, &head.birth, &head.tags);
        if let Some(words) = standing.in_words() {
            tell(words);
        }
        match standing {
            Standing::Untouched => return Known::Variant(head),
            Standing::StaleSince(since, birth) => {
                // By a clock that was set back since, too.
                let freshness = head.freshness.stale_since(since.min(now));
                let stale = Arc::new(Head { freshness, birth, ..Head::clone(&head) });
                heads.replace(key, &head, &stale);
                return Known::Variant(stale);
            }
            Standing::Doubted(birth) => {
                let Freshness { received_at, initial_age, .. } = head.freshness;
                let freshness = Freshness { initial_age, ..Freshness::expired(received_at) };
                let doubted = Arc::new(Head { freshness, birth, ..Head::clone(&head) });
                heads.replace(key, &head, &doubted);
                return Known::Variant(doubted);
            }
            Standing::Gone => filler.forget(key, head.version.id),
        }
    }
    Known::Nothing
}
