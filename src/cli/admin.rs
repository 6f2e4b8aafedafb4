<<<<<<< HEAD
//! One question to an admin listener, within a time limit and a size, and where it is asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::Failure;
use crate::config::{self, ConfigErrors, ListenerKind};
=======
//! Asking the admin listener of an appliance: where it is, and one question within a time limit.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Failure;
use crate::config::{self, Config, ListenerKind};
use crate::purge::Token;
>>>>>>> 9d9f96b (purge, control, cli: purge by URL, prefix, tag and site, hard or soft)

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 16 << 20;

<<<<<<< HEAD
/// What is asked.
pub(super) struct Question {
    /// Path and query.
    pub(super) target: String,
    /// The request's fields, beside `Host`.
    pub(super) fields: Vec<(HeaderName, HeaderValue)>,
}

=======
>>>>>>> 9d9f96b (purge, control, cli: purge by URL, prefix, tag and site, hard or soft)
/// What an appliance said.
pub(super) struct Answer {
    /// Where it was asked.
    pub(super) address: String,
<<<<<<< HEAD
    /// JSON.
    pub(super) value: Value,
}

/// Asks the first of `addresses` (host and port) that somebody listens at; `is_ours` knows what
/// Tidegate answers.
pub(super) fn ask(
    addresses: &[String],
    question: &Question,
    is_ours: fn(&Value) -> bool,
) -> Result<Answer, Failure> {
=======
    /// How it went.
    pub(super) status: StatusCode,
    /// What it said.
    pub(super) body: Bytes,
}

/// Asks the first of `addresses` (host and port) that somebody listens at.
pub(super) fn ask(addresses: &[String], request: &Request<Full<Bytes>>) -> Result<Answer, Failure> {
>>>>>>> 9d9f96b (purge, control, cli: purge by URL, prefix, tag and site, hard or soft)
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("no runtime: {error}")))?;
    runtime.block_on(async {
        let mut refused = Failure::Failed("there is no address to ask".to_owned());
        for address in addresses {
            match timeout(ANSWER_WITHIN, TcpStream::connect(address)).await {
<<<<<<< HEAD
                Ok(Ok(stream)) => return whole(stream, address, question, is_ours).await,
=======
                Ok(Ok(stream)) => return whole(stream, address, request.clone()).await,
>>>>>>> 9d9f96b (purge, control, cli: purge by URL, prefix, tag and site, hard or soft)
                Ok(Err(error)) => refused = silent(address, &cause(&error)),
                Err(_) => refused = silent(address, "no connection in time"),
            }
        }
        Err(refused)
    })
}

<<<<<<< HEAD
/// What can be shown of it; what is missing is nothing.
pub(super) fn understood<T: DeserializeOwned>(told: &Answer) -> Result<T, Failure> {
    serde_json::from_value(told.value.clone()).map_err(|error| {
        let address = &told.address;
        Failure::Failed(format!(
            "the appliance at {address} says something that this version does not understand \
             ({error}); `--json` shows it as it is"
        ))
    })
}

async fn whole(
    stream: TcpStream,
    address: &str,
    question: &Question,
    is_ours: fn(&Value) -> bool,
) -> Result<Answer, Failure> {
    let text = match timeout(ANSWER_WITHIN, read(stream, address, question)).await {
        Ok(text) => text.map_err(|what| stranger(address, &what))?,
        Err(_) => return Err(silent(address, "no answer in time")),
    };
    let value = serde_json::from_slice(&text).unwrap_or(Value::Null);
    if !is_ours(&value) {
        return Err(stranger(address, "what it answers is something else"));
    }
    Ok(Answer { address: address.to_owned(), value })
}

async fn read(stream: TcpStream, address: &str, question: &Question) -> Result<Bytes, String> {
    let no_http = |_| "it does not speak plain HTTP".to_owned();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(no_http)?;
    let connection = tokio::spawn(connection);
    let mut request = Request::get(&question.target).header(HOST, address);
    for (name, value) in &question.fields {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(no_http)?;
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|of| of == "application/json");
    if response.status() != StatusCode::OK && !is_json {
        return Err(format!("it answers {}", response.status()));
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    Ok(body.map_err(|_| "its answer has no end".to_owned())?.to_bytes())
=======
async fn whole(
    stream: TcpStream,
    address: &str,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Failure> {
    match timeout(ANSWER_WITHIN, read(stream, address, request)).await {
        Ok(answer) => answer.map_err(|what| stranger(address, &what)),
        Err(_) => Err(silent(address, "no answer in time")),
    }
}

async fn read(
    stream: TcpStream,
    address: &str,
    mut request: Request<Full<Bytes>>,
) -> Result<Answer, String> {
    let no_http = |_| "it does not speak plain HTTP".to_owned();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(no_http)?;
    let connection = tokio::spawn(connection);
    let host = HeaderValue::from_str(address).map_err(|error| error.to_string())?;
    request.headers_mut().insert(HOST, host);
    let response = sender.send_request(request).await.map_err(no_http)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    let body = body.map_err(|_| "its answer has no end".to_owned())?.to_bytes();
    Ok(Answer { address: address.to_owned(), status, body })
>>>>>>> 9d9f96b (purge, control, cli: purge by URL, prefix, tag and site, hard or soft)
}

fn silent(address: &str, what: &str) -> Failure {
    Failure::Failed(format!("no appliance answers at {address}: {what}; is it running?"))
}

/// Somebody answers who is not asked for.
<<<<<<< HEAD
fn stranger(address: &str, what: &str) -> Failure {
=======
pub(super) fn stranger(address: &str, what: &str) -> Failure {
>>>>>>> 9d9f96b (purge, control, cli: purge by URL, prefix, tag and site, hard or soft)
    Failure::Failed(format!(
        "{address} is no admin listener of Tidegate: {what}; ask where `listeners.admin` says"
    ))
}

/// The system's words in our manner: lower case, without a number.
fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

<<<<<<< HEAD
/// Where `--admin` or the configuration says to ask.
pub(super) fn addresses(admin: Option<&str>, config: &Path) -> Result<Vec<String>, Failure> {
    match admin {
        Some(url) => Ok(vec![authority(url)?]),
        None => of_config(config),
    }
}

/// Host and port of a URL, or host and port as they are.
fn authority(url: &str) -> Result<String, Failure> {
=======
/// Host and port of a URL, or host and port as they are.
pub(super) fn authority(url: &str) -> Result<String, Failure> {
>>>>>>> 9d9f96b (purge, control, cli: purge by URL, prefix, tag and site, hard or soft)
    let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none() || authority.contains('/') {
        return Err(Failure::Misused(format!(
            "--admin is {url:?}; write one such as \"http://127.0.0.1:9180\""
        )));
    }
    Ok(authority.to_owned())
}

<<<<<<< HEAD
/// The admin listeners of a configuration.
fn of_config(file: &Path) -> Result<Vec<String>, Failure> {
    let config = match config::load(file) {
        Ok(config) => config,
        Err(errors) => {
            let addresses = admins_as_written(file);
            return if addresses.is_empty() { Err(unusable(&errors)) } else { Ok(addresses) };
        }
    };
    let admins = config.listeners.iter().filter(|listener| listener.kind == ListenerKind::Admin);
    let addresses: Vec<String> =
        admins.filter(|admin| admin.address.port() != 0).map(|admin| here(admin.address)).collect();
    if addresses.is_empty() {
        return Err(Failure::Misused(format!(
            "{}: no admin listener with a port of its own; write `admin = [\"127.0.0.1:9180\"]` \
             under `[listeners]`, or say --admin",
            file.display()
        )));
    }
    Ok(addresses)
}

fn unusable(errors: &ConfigErrors) -> Failure {
    Failure::Misused(format!("{errors}\n(or say where to ask: --admin http://127.0.0.1:9180)"))
}

/// The admin listeners of a configuration that is not right any more, or not to this user: a volume
/// that is ill is a reason to ask.
fn admins_as_written(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let table = text.parse::<toml::Table>().unwrap_or_default();
    let admin = table.get("listeners").and_then(|listeners| listeners.get("admin"));
    let admins = match admin {
        Some(toml::Value::Array(admins)) => admins.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let addresses = admins.iter().filter_map(|admin| admin.as_str()?.parse::<SocketAddr>().ok());
    addresses.filter(|address| address.port() != 0).map(here).collect()
=======
/// Where the admin listeners of a configuration are, and what may be shown to them.
pub(super) struct Admins {
    /// At least one.
    pub(super) addresses: Vec<String>,
    /// Whose bearer may purge.
    pub(super) token: Option<Token>,
}

impl Admins {
    /// Of the configuration in `file`.
    pub(super) fn of_config(file: &Path) -> Result<Admins, Failure> {
        let admins = match config::load(file) {
            Ok(config) => Admins::of(&config),
            Err(errors) => match Admins::as_written(file) {
                admins if admins.addresses.is_empty() => {
                    return Err(Failure::Misused(errors.to_string()));
                }
                admins => admins,
            },
        };
        if admins.addresses.is_empty() {
            return Err(Failure::Misused(format!(
                "{}: no admin listener with a port of its own; write \
                 `admin = [\"127.0.0.1:9180\"]` under `[listeners]`",
                file.display()
            )));
        }
        Ok(admins)
    }

    fn of(config: &Config) -> Admins {
        let admins = config.listeners.iter().filter(|l| l.kind == ListenerKind::Admin);
        let addresses = admins.filter(|admin| admin.address.port() != 0);
        let addresses = addresses.map(|admin| here(admin.address)).collect();
        Admins { addresses, token: config.admin.token.clone() }
    }

    /// Those of a configuration that is not right any more, or not to this user: a volume that is
    /// ill is a reason to ask.
    fn as_written(file: &Path) -> Admins {
        let text = fs::read_to_string(file).unwrap_or_default();
        let table = text.parse::<toml::Table>().unwrap_or_default();
        let setting = |section: &str, key: &str| table.get(section)?.get(key);
        let admins = match setting("listeners", "admin") {
            Some(toml::Value::Array(admins)) => admins.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        let addresses = admins.iter().filter_map(|admin| admin.as_str()?.parse().ok());
        let addresses = addresses.filter(|address: &SocketAddr| address.port() != 0).map(here);
        let token = || {
            let folder = file.parent().unwrap_or(Path::new(""));
            let path = folder.join(setting("admin", "token_file")?.as_str()?);
            Token::of(&fs::read_to_string(path).ok()?)
        };
        Admins { addresses: addresses.collect(), token: token() }
    }
>>>>>>> 9d9f96b (purge, control, cli: purge by URL, prefix, tag and site, hard or soft)
}

/// Where a listener of this machine is reached from it.
fn here(listener: SocketAddr) -> String {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port()).to_string()
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
        assert_eq!(here("0.0.0.0:9180".parse().unwrap()), "127.0.0.1:9180");
        assert_eq!(here("[::]:9180".parse().unwrap()), "[::1]:9180");
    }

    #[test]
    fn the_admin_listener_is_found_in_a_configuration_that_is_not_right_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        let volume = "[[ssd.volumes]]\npath = \"/nowhere/volume\"\n";
        for (admin, expected) in [
            ("\"0.0.0.0:9180\"", vec!["127.0.0.1:9180"]),
            ("[\"127.0.0.1:0\", \"[::]:29180\"]", vec!["[::1]:29180"]),
        ] {
            fs::write(&file, format!("[listeners]\nadmin = {admin}\n{volume}")).unwrap();
<<<<<<< HEAD
            assert_eq!(of_config(&file).ok().unwrap(), expected);
        }
        fs::write(&file, volume).unwrap();
        assert!(matches!(of_config(&file), Err(Failure::Misused(_))));
=======
            assert_eq!(Admins::of_config(&file).ok().unwrap().addresses, expected);
        }
        fs::write(&file, volume).unwrap();
        assert!(matches!(Admins::of_config(&file), Err(Failure::Misused(_))));
>>>>>>> 9d9f96b (purge, control, cli: purge by URL, prefix, tag and site, hard or soft)
    }
}
