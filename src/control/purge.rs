//! `POST /purge`: what is to be purged, asked by operators.
//!
//! Waits for the journal, on no viewer's path. Each answer is one line of JSON. How much of it was
//! held is looked up before, and told as far as it is known: what is purged holds all the same.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::asking::{AskedBody, Said, body_of, refusal};
use crate::limits::PURGE_REQUEST_BYTES_MAX;
use crate::purge::request::PurgeRequest;
use crate::purge::{PurgeError, Purged, Purges, Sought};
use crate::site::CurrentSites;

/// What is held of what is to be purged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Objects.
    pub objects: usize,
    /// Whether there are no others: nobody looks through volumes.
    pub is_all: bool,
}

/// Finds what is held. Blocks where more than objects are named.
pub type Finding = Arc<dyn Fn(&Sought) -> Found + Send + Sync>;

/// Purges.
pub struct Purger {
    /// Who does it.
    pub purges: Arc<Purges>,
    /// Whose content.
    pub sites: Arc<CurrentSites>,
    /// Who knows what is held.
    pub find: Finding,
    /// Taken by who looks through all of it.
    pub look: Arc<Semaphore>,
}

impl Purger {
    /// Purges what this operator asks for. Dropping it midway is safe: what was begun is done.
    pub(super) async fn purge<B: AskedBody>(
        &self,
        request: Request<B>,
        by: &str,
    ) -> Result<Said, Said> {
        let body = body_of(request.into_body(), PURGE_REQUEST_BYTES_MAX).await?;
        let wrong = |fault| refusal(StatusCode::BAD_REQUEST, &format!("{fault}"));
        let asked = PurgeRequest::parse(&body).map_err(wrong)?;
        let sites = self.sites.load_full();
        let scopes = asked.scopes(&sites).map_err(wrong)?;
        let purged = scopes.len();
        let found = self.found(asked.sought(&scopes, &sites));
        let (by, what) = (by.to_owned(), asked.to_string());
        let log = move |purged: &Result<Purged, PurgeError>| match purged {
            Ok(Purged { number, .. }) => {
                tracing::info!(%by, number, "purged by POST /purge: {what}");
            }
            Err(error) => tracing::warn!(%by, %error, "POST /purge: {what}"),
        };
        let (purges, hardness) = (self.purges.clone(), asked.hardness());
        // It is done although who asked for it goes while it is counted.
        let purging = tokio::spawn(async move {
            (found.await, purges.purge(scopes, hardness, PURGED_WITHIN, log).await)
        });
        let (found, purged_now) = purging.await.unwrap_or((None, Err(PurgeError::Draining)));
        match purged_now {
            Ok(done) => {
                let mut said = json!({
                    "purged": purged,
                    "soft": asked.soft,
                    "number": done.number,
                    "overflowed": done.overflowed,
                    "found": found.map(|found| found.objects),
                    "found_all": found.is_some_and(|found| found.is_all),
                });
                if let Some(hint) = asked.hint() {
                    said["hint"] = hint.into();
                }
                Ok((StatusCode::OK, said))
            }
            Err(error) => Err(refusal(status_of(&error), &error.to_string())),
        }
    }

    /// What of it is held; nothing is known while somebody else looks, for whom none waits, or
    /// where it takes long.
    fn found(&self, sought: Sought) -> impl Future<Output = Option<Found>> + use<> {
        let (look, find) = (self.look.clone(), self.find.clone());
        async move {
            if sought.objects().is_some() {
                return Some(find(&sought));
            }
            let only_one = look.try_acquire_owned().ok()?;
            let counting = spawn_blocking(move || {
                let _only_one = only_one;
                find(&sought)
            });
            timeout(COUNTED_WITHIN, counting).await.ok()?.ok()
        }
    }
}

fn status_of(error: &PurgeError) -> StatusCode {
    match error {
        PurgeError::Journal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        PurgeError::Busy | PurgeError::Draining | PurgeError::Late | PurgeError::Elsewhere => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

/// A disk that takes longer hangs: whether it is remembered is not known then.
pub const PURGED_WITHIN: Duration = Duration::from_secs(10);
/// What there is in ram is looked through by then, as a rule.
const COUNTED_WITHIN: Duration = Duration::from_secs(2);
