//! `POST /reload`: has the configuration read again, by who bears the token; where there is none,
//! by who asks from this machine. Only here are its codes chosen.
//!
//! A page that a browser of this machine shows cannot ask: it may not send JSON unasked.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::api::JSON;
use super::purge::{Said, admit, refusal};
use crate::purge::Token;

/// A reload that was asked for, and who waits for what it changes, or why it was refused.
pub type AskedReload = oneshot::Sender<Result<Value, String>>;

/// Asks for reloads on behalf of who may.
pub struct Reloader {
    /// Who reloads, one at a time.
    pub ask: mpsc::Sender<AskedReload>,
    /// Who bears it may; `None`: who asks from this machine.
    pub token: Arc<ArcSwapOption<Token>>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Somebody on this machine.
    Here,
    /// Anybody else.
    Elsewhere,
}

impl Reloader {
    /// Answers one request. Dropping it midway is safe: what was begun is done.
    pub(super) async fn answer(&self, method: &Method, fields: &HeaderMap, from: From) -> Said {
        self.reload(method, fields, from).await.unwrap_or_else(|refusal| refusal)
    }

    async fn reload(&self, method: &Method, fields: &HeaderMap, from: From) -> Result<Said, Said> {
        may(&self.token.load(), method, fields, from)?;
        let busy = |_| refusal(StatusCode::SERVICE_UNAVAILABLE, "it reloads already, or ends");
        let (tell, told) = oneshot::channel();
        self.ask.try_send(tell).map_err(|error| busy(error.to_string()))?;
        match timeout(RELOADED_WITHIN, told).await {
            Ok(Ok(Ok(changes))) => Ok((StatusCode::OK, changes)),
            Ok(Ok(Err(why))) => Err(refusal(StatusCode::UNPROCESSABLE_ENTITY, &why)),
            Ok(Err(closed)) => Err(busy(closed.to_string())),
            Err(_) => {
                let text = "it takes long; the log will say how it went";
                Err(refusal(StatusCode::SERVICE_UNAVAILABLE, text))
            }
        }
    }
}

/// Lets who may have something done that harms no object: who bears the token, or, where there is
/// none, who asks from this machine.
pub(super) fn may(
    token: &Option<Arc<Token>>,
    method: &Method,
    fields: &HeaderMap,
    from: From,
) -> Result<(), Said> {
    if method != Method::POST {
        return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "send it by POST"));
    }
    match token {
        None if from == From::Elsewhere => {
            let text = "without a token only who asks from this machine may; write \
                        `admin.token_file` in the configuration";
            Err(refusal(StatusCode::FORBIDDEN, text))
        }
        None if fields.get(CONTENT_TYPE) != Some(&JSON) => {
            let text = "send it as `Content-Type: application/json`";
            Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
        }
        None => Ok(()),
        // It may have been written anew: then the one of before counts, or a SIGHUP.
        token => admit(token, fields),
    }
}

/// A disk or a resolver that takes longer hangs.
pub const RELOADED_WITHIN: Duration = Duration::from_secs(30);
