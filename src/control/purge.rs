//! `POST /purge`: what is to be purged, asked by who bears the token. Only here are its codes
//! chosen.
//!
//! Waits for the journal, on no viewer's path. Each answer is one line of JSON.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::limits::PURGE_REQUEST_BYTES_MAX;
use crate::purge::request::PurgeRequest;
use crate::purge::{PurgeError, Purges, Token};
use crate::site::CurrentSites;

/// Purges for who may.
pub struct Purger {
    /// Who does it.
    pub purges: Arc<Purges>,
    /// Whose content.
    pub sites: Arc<CurrentSites>,
    /// Who bears it may; `None`: nobody.
    pub token: Arc<ArcSwapOption<Token>>,
}

/// A request's body, whatever it is sent by.
pub trait AskedBody: Body<Data = Bytes, Error: Into<BodyError>> {}

impl<B: Body<Data = Bytes, Error: Into<BodyError>>> AskedBody for B {}

type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// What an answer says.
pub(super) type Said = (StatusCode, Value);

impl Purger {
    /// Answers one request. Dropping it midway is safe: what was begun is done.
    pub(super) async fn answer<B: AskedBody>(&self, request: Request<B>) -> Said {
        self.purge(request).await.unwrap_or_else(|refusal| refusal)
    }

    async fn purge<B: AskedBody>(&self, request: Request<B>) -> Result<Said, Said> {
        if request.method() != Method::POST {
            return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "send POST /purge"));
        }
        admit(&self.token.load(), request.headers())?;
        let body = body_of(request.into_body(), PURGE_REQUEST_BYTES_MAX).await?;
        let wrong = |fault| refusal(StatusCode::BAD_REQUEST, &format!("{fault}"));
        let asked = PurgeRequest::parse(&body).map_err(wrong)?;
        let scopes = asked.scopes(&self.sites.load()).map_err(wrong)?;
        let purged = scopes.len();
        let purging = self.purges.purge(scopes, asked.hardness());
        match timeout(PURGED_WITHIN, purging).await.unwrap_or(Err(PurgeError::Late)) {
            Ok(done) => {
                tracing::info!(number = done.number, "purged by POST /purge: {asked}");
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

/// A request's whole body, of so many bytes at most.
pub(super) async fn body_of(body: impl AskedBody, bytes_max: usize) -> Result<Bytes, Said> {
    match timeout(BODY_WITHIN, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let text = format!("a request has {bytes_max} bytes at most");
            Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, &text))
        }
        Ok(Err(_)) => Err(refusal(StatusCode::BAD_REQUEST, "the request broke off")),
        Err(_) => Err(refusal(StatusCode::REQUEST_TIMEOUT, "the request did not end in time")),
    }
}

/// Lets who bears the token.
pub(super) fn admit(token: &Option<Arc<Token>>, fields: &HeaderMap) -> Result<(), Said> {
    match token {
        None => Err(refusal(
            StatusCode::FORBIDDEN,
            "nobody may purge here; write `admin.token_file` in the configuration, the path of a \
             file with a token",
        )),
        Some(token) if token.is_borne_by(fields) => Ok(()),
        Some(_) if fields.contains_key(AUTHORIZATION) => Err(refusal(
            StatusCode::UNAUTHORIZED,
            "this is not the token that was in `admin.token_file` when the appliance started or \
             was last reloaded",
        )),
        Some(_) => Err(refusal(
            StatusCode::UNAUTHORIZED,
            "who purges, reloads or reads the log shows the token of `admin.token_file`: \
              `Authorization: Bearer TOKEN`",
        )),
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

pub(super) fn refusal(status: StatusCode, error: &str) -> Said {
    (status, json!({ "error": error }))
}

const BODY_WITHIN: Duration = Duration::from_secs(10);
/// A disk that takes longer hangs: whether it is remembered is not known then.
pub const PURGED_WITHIN: Duration = Duration::from_secs(10);
