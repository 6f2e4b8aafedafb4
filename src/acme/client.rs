//! How the authority is spoken with: HTTPS by our own client, each request within a time, and no
//! answer larger than it may be.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use crate::fill::client::{deepest, tls_config_of};
use crate::limits::ACME_ANSWER_BYTES_MAX;
use crate::site::Scheme;

pub(super) struct Client(HyperClient<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>);

impl Client {
    /// Trusts `roots`, or whom this machine trusts: then it reads their files, and blocks.
    pub(super) fn new(roots: Option<&[CertificateDer<'static>]>) -> Result<Client, String> {
        let tls = tls_config_of(roots, Scheme::Https).map_err(|error| match roots {
            Some(_) => format!("`acme.ca`: {error}"),
            None => error,
        })?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        let http = HyperClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .build(connector);
        Ok(Client(http))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let asked = request.uri().to_string();
        let answered = self.0.request(request);
        let whole = async move {
            let (parts, body) = answered.await.map_err(|error| deepest(&error))?.into_parts();
            let body = Limited::new(body, ACME_ANSWER_BYTES_MAX).collect().await;
            let bytes = body.map_err(|error| deepest(&*error))?.to_bytes();
            Ok::<_, String>(BytesResponse { parts, body: Box::new(bytes) })
        };
        Box::pin(async move {
            let why = match timeout(ANSWERED_WITHIN, whole).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(why)) => why,
                Err(_) => format!("no answer within {} s", ANSWERED_WITHIN.as_secs()),
            };
            Err(Error::Other(format!("{asked}: {why}").into()))
        })
    }
}

/// Authorities that are busy take their time.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
const IDLE_CONNECTION: Duration = Duration::from_secs(15);
