//! `POST /reload` and `POST /upgrade`: has the configuration read again, or another process take
//! over.
//!
//! A page that a browser of this machine shows cannot ask: it may not send JSON unasked.

use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::asking::{Said, refusal};

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

/// A process that another one has followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PredecessorStatus {
    /// Viewers' connections that it has left; `None`: it has not said so, or is of a version that
    /// does not.
    pub connections: Option<u64>,
}

/// Asks for reloads and upgrades.
pub struct Reloader {
    /// Who does it, one at a time.
    pub ask: mpsc::Sender<Asked>,
}

impl Reloader {
    /// Has it done. Dropping it midway is safe: what was begun is done.
    pub(super) async fn have_done(&self, order: Order) -> Result<Said, Said> {
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

/// A disk or a resolver that takes longer hangs.
pub const RELOADED_WITHIN: Duration = Duration::from_secs(30);
/// What the two processes give each other, and what it takes to have the volumes back.
pub const UPGRADED_WITHIN: Duration = Duration::from_secs(300);
