//! One question to an admin listener: `GET /status.json`, within a time limit and a size.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::Failure;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What an appliance said.
pub(super) struct Answer {
    /// Where it was asked.
    pub(super) address: String,
    /// Its status.
    pub(super) value: Value,
}

/// Asks the first of `addresses` (host and port) that somebody listens at.
pub(super) fn status(addresses: &[String]) -> Result<Answer, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("no runtime: {error}")))?;
    runtime.block_on(async {
        let mut refused = Failure::Failed("there is no address to ask".to_owned());
        for address in addresses {
            match timeout(ANSWER_WITHIN, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return whole(stream, address).await,
                Ok(Err(error)) => refused = silent(address, &cause(&error)),
                Err(_) => refused = silent(address, "no connection in time"),
            }
        }
        Err(refused)
    })
}

async fn whole(stream: TcpStream, address: &str) -> Result<Answer, Failure> {
    let text = match timeout(ANSWER_WITHIN, read(stream, address)).await {
        Ok(text) => text.map_err(|what| stranger(address, &what))?,
        Err(_) => return Err(silent(address, "no answer in time")),
    };
    let value = serde_json::from_slice(&text).unwrap_or(Value::Null);
    // Any origin behind a viewers' port may answer with JSON.
    if !value.get("phase").is_some_and(Value::is_string) {
        return Err(stranger(address, "what it answers is no status"));
    }
    Ok(Answer { address: address.to_owned(), value })
}

async fn read(stream: TcpStream, address: &str) -> Result<Bytes, String> {
    let no_http = |_| "it does not speak plain HTTP".to_owned();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(no_http)?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/status.json").header(HOST, address).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(no_http)?;
    if response.status() != StatusCode::OK {
        return Err(format!("it answers {}", response.status()));
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    Ok(body.map_err(|_| "its answer has no end".to_owned())?.to_bytes())
}

fn silent(address: &str, what: &str) -> Failure {
    Failure::Failed(format!("no appliance answers at {address}: {what}; is it running?"))
}

/// Somebody answers who is not asked for.
fn stranger(address: &str, what: &str) -> Failure {
    Failure::Failed(format!(
        "{address} is no admin listener of Tidegate: {what}; ask where `listeners.admin` says"
    ))
}

/// The system's words in our manner: lower case, without a number.
fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
