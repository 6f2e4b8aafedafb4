//! Connections to control planes, each made within a time, the TLS handshake included.
//!
//! Who takes a connection and then says nothing is asked no longer than who takes none: a question
//! that may be kept for a minute would wait for that minute.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use tokio::time::timeout;
use tower_service::Service;

/// Connects by `C`.
#[derive(Clone)]
pub(super) struct ShakenConnector<C>(pub(super) C);

impl<C> Service<Uri> for ShakenConnector<C>
where
    C: Service<Uri, Error = Box<dyn Error + Send + Sync>>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, C::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, control: Uri) -> Self::Future {
        let connecting = timeout(SHAKEN_WITHIN, self.0.call(control));
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time");
        Box::pin(async move { connecting.await.map_err(late)? })
    }
}

/// From the first packet on.
const SHAKEN_WITHIN: Duration = Duration::from_secs(8);
