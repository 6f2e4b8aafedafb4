//! `POST /purge`: what is to be purged, asked by operators.
//!
//! Waits for the journal, on no viewer's path. Each answer is one line of JSON.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use serde_json::json;
use tokio::time::timeout;

use super::asking::{AskedBody, Said, body_of, refusal};
use crate::limits::PURGE_REQUEST_BYTES_MAX;
use crate::purge::request::PurgeRequest;
use crate::purge::{PurgeError, Purges};
use crate::site::CurrentSites;

/// Purges.
pub struct Purger {
    /// Who does it.
    pub purges: Arc<Purges>,
    /// Whose content.
    pub sites: Arc<CurrentSites>,
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
        let scopes = asked.scopes(&self.sites.load()).map_err(wrong)?;
        let purged = scopes.len();
        let purging = self.purges.purge(scopes, asked.hardness());
        match timeout(PURGED_WITHIN, purging).await.unwrap_or(Err(PurgeError::Late)) {
            Ok(done) => {
                tracing::info!(%by, number = done.number, "purged by POST /purge: {asked}");
                let said = json!({
                    "purged": purged,
                    "soft": asked.soft,
                    "number": done.number,
                    "overflowed": done.overflowed,
                });
                Ok((StatusCode::OK, said))
            }
            Err(error) => Err(refusal(status_of(&error), &error.to_string())),
        }
    }
}

fn status_of(error: &PurgeError) -> StatusCode {
    match error {
        PurgeError::Busy | PurgeError::Draining | PurgeError::Late => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        PurgeError::Journal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A disk that takes longer hangs: whether it is remembered is not known then.
pub const PURGED_WITHIN: Duration = Duration::from_secs(10);
