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

use super::reload::From;
use crate::limits::PURGE_REQUEST_BYTES_MAX;
use crate::purge::request::PurgeRequest;
use crate::purge::{Bearer, PurgeError, Purges, Role, Tokens};
use crate::site::CurrentSites;

/// Purges for who may.
pub struct Purger {
    /// Who does it.
    pub purges: Arc<Purges>,
    /// Whose content.
    pub sites: Arc<CurrentSites>,
    /// Operators may; `None`: nobody.
    pub token: Arc<ArcSwapOption<Tokens>>,
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
        let by = admit(&self.token.load(), request.headers())?;
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

/// Lets operators; who it is.
pub(super) fn admit(tokens: &Option<Arc<Tokens>>, fields: &HeaderMap) -> Result<Arc<str>, Said> {
    let Some(tokens) = tokens else {
        return Err(refusal(
            StatusCode::FORBIDDEN,
            "nobody may purge here; write `admin.token_file` in the configuration, the path of a \
             file with a token",
        ));
    };
    match tokens.bearer(fields) {
        Some(Bearer { role: Role::Operator, name, .. }) => Ok(name.clone()),
        Some(Bearer { role: Role::Viewer, name, .. }) => Err(refusal(
            StatusCode::FORBIDDEN,
            &format!("{name} may look, and nothing else; show the token of an operator"),
        )),
        None => Err(unknown(
            fields,
            "who purges or reloads shows the token of `admin.token_file`: \
             `Authorization: Bearer TOKEN`",
        )),
    }
}

/// Lets who may look: who asks from this machine, and everybody where no viewer has a token.
pub(super) fn admit_to_look(
    tokens: &Option<Arc<Tokens>>,
    fields: &HeaderMap,
    from: From,
) -> Result<(), Said> {
    match tokens {
        Some(tokens) if from == From::Elsewhere && tokens.has_viewers() => {
            let text = "who looks from another machine shows a token of `admin.token_file`: \
                        `Authorization: Bearer TOKEN`";
            tokens.bearer(fields).map(drop).ok_or_else(|| unknown(fields, text))
        }
        _ => Ok(()),
    }
}

pub(super) fn unknown(fields: &HeaderMap, without: &str) -> Said {
    let text = match fields.contains_key(AUTHORIZATION) {
        true => {
            "this is not the token that was in `admin.token_file` when the appliance started or \
             was last reloaded"
        }
        false => without,
    };
    refusal(StatusCode::UNAUTHORIZED, text)
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
