//! `POST /reload` and `POST /upgrade`: has the configuration read again, or another process take
//! over, by who bears the token; where there is none, by who asks from this machine. Only here are
//! their codes chosen.
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
use crate::purge::Tokens;

/// What the process itself is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// To read its configuration again.
    Reload,
    /// To have the binary of now take over.
    Upgrade,
}

/// Something that was asked for, and who waits for what came of it, or why nothing did.
pub struct Asked {
    /// What.
    pub order: Order,
    /// Who waits.
    pub tell: oneshot::Sender<Result<Value, String>>,
}

/// Asks for reloads and upgrades on behalf of who may.
pub struct Reloader {
    /// Who does it, one at a time.
    pub ask: mpsc::Sender<Asked>,
    /// Operators may; `None`: who asks from this machine.
    pub token: Arc<ArcSwapOption<Tokens>>,
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
    pub(super) async fn answer(
        &self,
        order: Order,
        method: &Method,
        fields: &HeaderMap,
        from: From,
    ) -> Said {
        self.have_done(order, method, fields, from).await.unwrap_or_else(|refusal| refusal)
    }

    async fn have_done(
        &self,
        order: Order,
        method: &Method,
        fields: &HeaderMap,
        from: From,
    ) -> Result<Said, Said> {
        may(&self.token.load(), method, fields, from)?;
        let busy = |_| {
            let text = "it reloads or is being replaced already, or ends";
            refusal(StatusCode::SERVICE_UNAVAILABLE, text)
        };
        let (tell, told) = oneshot::channel();
        self.ask.try_send(Asked { order, tell }).map_err(|error| busy(error.to_string()))?;
        let within = match order {
            Order::Reload => RELOADED_WITHIN,
            Order::Upgrade => UPGRADED_WITHIN,
        };
        match timeout(within, told).await {
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

/// Lets who may have something done that harms no object: an operator, or, where there is
/// no token, who asks from this machine.
pub(super) fn may(
    token: &Option<Arc<Tokens>>,
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
        token => admit(token, fields).map(|by| tracing::info!(%by, "asked by an operator")),
    }
}

/// A disk or a resolver that takes longer hangs.
pub const RELOADED_WITHIN: Duration = Duration::from_secs(30);
/// What the two processes give each other, and once more where the first attempt fails late.
pub const UPGRADED_WITHIN: Duration = Duration::from_secs(300);
