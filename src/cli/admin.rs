//! Asking the admin listener of an appliance: where it is, and one question within a time limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::request::Builder;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(super) use self::addresses::Admins;
use super::{Failure, USUAL_CONFIG};
use crate::config::cause;
use crate::purge::{Token, Tokens};

mod addresses;

pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
pub(super) const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What an appliance said.
pub(super) struct Answer {
    /// Where it was asked.
    pub(super) address: String,
    /// How it went.
    pub(super) status: StatusCode,
    /// Whether it says that it is JSON.
    pub(super) is_json: bool,
    /// What it said.
    pub(super) body: Bytes,
}

/// What an appliance told, in JSON.
pub(super) struct Told {
    /// Where it was asked.
    pub(super) address: String,
    /// What it is.
    pub(super) value: Value,
}

/// Asks as [`ask`] does for what is told in JSON; `is_ours` knows what Tidegate tells.
pub(super) fn told(
    addresses: &[String],
    request: &Request<Full<Bytes>>,
    is_ours: fn(&Value) -> bool,
) -> Result<Told, Failure> {
    let answer = ask(addresses, request)?;
    if answer.status != StatusCode::OK && !answer.is_json {
        return Err(stranger(&answer.address, &format!("it answers {}", answer.status)));
    }
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    let refuses = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    if let (true, Some(why)) = (refuses, value["error"].as_str()) {
        return Err(Failure::Failed(format!("{}: {why}", answer.address)));
    }
    match is_ours(&value) {
        true => Ok(Told { address: answer.address, value }),
        false => Err(stranger(&answer.address, "what it answers is something else")),
    }
}

/// What can be shown of it; what is missing is nothing.
pub(super) fn understood<T: DeserializeOwned>(told: &Told) -> Result<T, Failure> {
    serde_json::from_value(told.value.clone()).map_err(|error| {
        let address = &told.address;
        Failure::Failed(format!(
            "the appliance at {address} says something that this version does not understand \
             ({error}); `--json` shows it as it is"
        ))
    })
}

/// A request that shows the token in `file`, if one is named.
pub(super) fn bearing(request: Builder, file: Option<&Path>) -> Result<Builder, Failure> {
    let Some(file) = file else { return Ok(request) };
    Ok(request.header(AUTHORIZATION, format!("Bearer {}", token_in(file)?.as_str())))
}

/// Where `--admin` or else the configuration says to ask.
pub(super) fn addresses(admin: Option<&str>, config: &Path) -> Result<Vec<String>, Failure> {
    match admin {
        Some(url) => Ok(vec![authority(url)?]),
        None => Ok(Admins::of_config(config).map_err(or_say_where)?.addresses),
    }
}

/// Of a configuration that does not say it.
fn or_say_where(failure: Failure) -> Failure {
    let hint = "\n(or say where to ask: --admin http://127.0.0.1:9180)";
    match failure {
        Failure::Misused(text) => Failure::Misused(text + hint),
        failed @ Failure::Failed(_) => failed,
    }
}

/// Asks the first of `addresses` (host and port) that somebody listens at.
pub(super) fn ask(addresses: &[String], request: &Request<Full<Bytes>>) -> Result<Answer, Failure> {
    ask_for(addresses, request, ANSWER_WITHIN)
}

/// The same for what takes longer: an answer may take `patience`.
pub(super) fn ask_for(
    addresses: &[String],
    request: &Request<Full<Bytes>>,
    patience: Duration,
) -> Result<Answer, Failure> {
    runtime()?.block_on(async {
        let (stream, address) = connected(addresses).await?;
        whole(stream, address, request.clone(), patience).await
    })
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Failed(format!("no runtime: {error}")))
}

pub(super) async fn connected(addresses: &[String]) -> Result<(TcpStream, &str), Failure> {
    let mut refused = Failure::Failed("there is no address to ask".to_owned());
    for address in addresses {
        match timeout(ANSWER_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(error)) => refused = silent(address, &cause(&error)),
            Err(_) => refused = silent(address, "no connection in time"),
        }
    }
    Err(refused)
}

async fn whole(
    stream: TcpStream,
    address: &str,
    request: Request<Full<Bytes>>,
    patience: Duration,
) -> Result<Answer, Failure> {
    match timeout(patience, read(stream, address, request)).await {
        Ok(answer) => answer.map_err(|what| stranger(address, &what)),
        Err(_) => Err(silent(address, "no answer in time")),
    }
}

async fn read(
    stream: TcpStream,
    address: &str,
    request: Request<Full<Bytes>>,
) -> Result<Answer, String> {
    let (response, connection) = sent(stream, address, request).await?;
    let answer = answered(response, address).await;
    connection.abort();
    answer
}

/// Sends the request; the head of what is answered, and the connection's task.
pub(super) async fn sent(
    stream: TcpStream,
    address: &str,
    mut request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, JoinHandle<hyper::Result<()>>), String> {
    let no_http = |_| "it does not speak plain HTTP".to_owned();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(no_http)?;
    let connection = tokio::spawn(connection);
    let host = HeaderValue::from_str(address).map_err(|error| error.to_string())?;
    request.headers_mut().insert(HOST, host);
    let response = sender.send_request(request).await.map_err(no_http)?;
    Ok((response, connection))
}

/// What is answered, whole.
pub(super) async fn answered(
    response: Response<Incoming>,
    address: &str,
) -> Result<Answer, String> {
    let status = response.status();
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|of| of == "application/json");
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|_| "its answer has no end".to_owned())?.to_bytes();
    Ok(Answer { address: address.to_owned(), status, is_json, body })
}

/// What is told of an answer that is not what was asked for.
pub(super) fn refused(answer: &Answer) -> Failure {
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    match said["error"].as_str() {
        Some(why) if answer.status == StatusCode::BAD_REQUEST => Failure::Misused(why.to_owned()),
        Some(why) => Failure::Failed(why.to_owned()),
        None => stranger(&answer.address, &format!("it answers {}", answer.status)),
    }
}

pub(super) fn silent(address: &str, what: &str) -> Failure {
    Failure::Failed(format!("no appliance answers at {address}: {what}; is it running?"))
}

/// Somebody answers who is not asked for.
pub(super) fn stranger(address: &str, what: &str) -> Failure {
    Failure::Failed(format!(
        "{address} is no admin listener of Tidegate: {what}; ask where `listeners.admin` says"
    ))
}

/// Host and port of a URL, or host and port as they are.
pub(super) fn authority(url: &str) -> Result<String, Failure> {
    let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none() || authority.contains('/') {
        return Err(Failure::Misused(format!(
            "--admin is {url:?}; write one such as \"http://127.0.0.1:9180\""
        )));
    }
    Ok(authority.to_owned())
}

/// The token in a file.
pub(super) fn token_in(file: &Path) -> Result<Token, Failure> {
    let name = file.display();
    let text = fs::read_to_string(file)
        .map_err(|error| Failure::Misused(format!("{name} cannot be read: {}", cause(&error))))?;
    let tokens = Tokens::of(&text).map_err(|fault| Failure::Misused(format!("{name} {fault}")))?;
    Ok(tokens.to_show().clone())
}

/// Which appliance is to do something or to tell it, and by whose leave.
#[derive(Debug, clap::Args)]
pub(super) struct Reach {
    /// The configuration it runs with: its admin listener is asked
    #[arg(long, value_name = "FILE", default_value = USUAL_CONFIG)]
    config: PathBuf,
    /// Ask the admin listener at this URL instead, such as that of another machine
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// Show the token in this file, instead of the one that the configuration names
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Reach {
    /// Has it do what `POST path` says, with this body; how it went, and what it said in time.
    pub(super) fn post(
        &self,
        path: &str,
        body: impl Into<Bytes>,
        within: Duration,
    ) -> Result<Done, Failure> {
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        let (addresses, request) = self.shown(request, body.into())?;
        let answer = ask_for(&addresses, &request, within)?;
        let said = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        Ok(Done { address: answer.address, status: answer.status, said })
    }

    /// The configuration of an appliance of this machine, if that is the one.
    pub(super) fn config_here(&self) -> Option<&Path> {
        self.admin.is_none().then_some(&self.config)
    }

    /// Where to ask for what is told to few, and the request for it.
    pub(super) fn get(&self, target: &str) -> Result<(Vec<String>, Request<Full<Bytes>>), Failure> {
        self.shown(Request::get(target), Bytes::new()).map_err(or_say_where)
    }

    /// Where to ask, and the request with the token.
    fn shown(
        &self,
        request: Builder,
        body: Bytes,
    ) -> Result<(Vec<String>, Request<Full<Bytes>>), Failure> {
        let Admins { addresses, token } = match &self.admin {
            Some(url) => Admins { addresses: vec![authority(url)?], token: None },
            None => Admins::of_config(&self.config)?,
        };
        let shown = self.token_file.as_deref().map(token_in).transpose()?;
        let request = match shown.or(token) {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {}", token.as_str())),
            None => request,
        };
        let request = request.body(body.into());
        Ok((addresses, request.expect("a token is printable, and a target is encoded")))
    }

    /// What it tells of itself.
    pub(super) fn status(&self) -> Result<Told, Failure> {
        status(self.admin.as_deref(), &self.config, self.token_file.as_deref())
    }
}

/// What an appliance tells of itself to who shows the token in a file, or none.
pub(super) fn status(
    admin: Option<&str>,
    config: &Path,
    token_file: Option<&Path>,
) -> Result<Told, Failure> {
    let addresses = addresses(admin, config)?;
    let request = bearing(Request::get("/status.json"), token_file)?;
    let request = request.body(Default::default()).expect("a token is printable");
    told(&addresses, &request, is_status)
}

/// Whether it is an appliance's status: any origin behind a viewers' port may answer with JSON.
pub(super) fn is_status(value: &Value) -> bool {
    value.get("phase").is_some_and(Value::is_string)
}

/// What came of something that was to be done.
pub(super) struct Done {
    address: String,
    /// How it went.
    pub(super) status: StatusCode,
    /// What it says: `error`, if it was not done.
    pub(super) said: Value,
}

impl Done {
    /// What is told of `what` that was not done.
    pub(super) fn failure(&self, what: &str) -> Failure {
        match self.said["error"].as_str() {
            Some(why) => Failure::Failed(format!("{what}: {why}")),
            None => stranger(&self.address, &format!("it answers {}", self.status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_or_an_address_says_where_to_ask() {
        for (url, expected) in [
            ("http://127.0.0.1:9180/", "127.0.0.1:9180"),
            ("[::1]:9180", "[::1]:9180"),
            ("http://edge-7.example.com:9180", "edge-7.example.com:9180"),
        ] {
            assert_eq!(authority(url).unwrap(), expected);
        }
        for wrong in ["https://127.0.0.1:9180", "127.0.0.1", "http://a:1/status.json", "a:b", ""] {
            assert!(matches!(authority(wrong), Err(Failure::Misused(_))), "{wrong}");
        }
    }
}
