//! Asking etcd: one member at a time, the next one when it fails, and each question within a time.
//!
//! A question may be asked twice, where the first answer was lost: whoever asks says what he
//! expects, so that nothing happens twice.

use std::error::Error as _;
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Error, Identity, TlsOptions};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout};

use super::EtcdSettings;
use crate::control::state::StateError;

/// Why etcd did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallError {
    /// No member answers; that passes.
    Away(String),
    /// What was asked for is of a time that etcd has forgotten.
    Compacted,
    /// There is more of it than is taken at once.
    TooLarge(String),
    /// The lease has ended.
    NoLease,
    /// It will not, and would not another time.
    Refused(String),
}

impl From<CallError> for StateError {
    fn from(error: CallError) -> StateError {
        let what = match error {
            CallError::Away(what) | CallError::Refused(what) | CallError::TooLarge(what) => what,
            CallError::Compacted => "etcd has forgotten what was asked for".to_owned(),
            CallError::NoLease => "etcd has ended this control plane's lease".to_owned(),
        };
        StateError::Away { what }
    }
}

/// Asks the members of one etcd.
pub(super) struct Client {
    endpoints: Vec<String>,
    options: ConnectOptions,
    within: Duration,
    connected: Mutex<Option<etcd_client::Client>>,
    /// Whose turn it is.
    turn: watch::Sender<usize>,
}

impl Client {
    pub(super) fn new(settings: &EtcdSettings) -> Client {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(settings.timeout / 2)
            .with_keep_alive(PINGED_EVERY, PINGED_WITHIN)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((name, password)) = &settings.user {
            options = options.with_user(name, password);
        }
        if settings.endpoints.iter().any(|one| one.starts_with("https://")) {
            let mut tls = TlsOptions::new();
            if let Some(ca) = &settings.ca {
                tls = tls.ca_certificate(Certificate::from_pem(ca));
            }
            if let Some((certificate, key)) = &settings.shown {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(tls);
        }
        Client {
            endpoints: settings.endpoints.clone(),
            options,
            within: settings.timeout,
            connected: Mutex::new(None),
            turn: watch::Sender::new(0),
        }
    }

    /// Who wants to know when another member is asked.
    pub(super) fn turns(&self) -> watch::Receiver<usize> {
        self.turn.subscribe()
    }

    /// What comes of one question. Safe to drop.
    pub(super) async fn call<T, F>(
        &self,
        ask: impl Fn(etcd_client::Client) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let end = Instant::now() + self.within;
        loop {
            let turn = *self.turn.borrow();
            let endpoint = &self.endpoints[turn % self.endpoints.len()];
            let attempt = async {
                let client = self.connected(endpoint).await?;
                ask(client).await
            };
            // Half of it, so that there is time for another member.
            let why = match timeout(self.within / 2, attempt).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => match told(&error) {
                    CallError::Away(why) => format!("{endpoint}: {why}"),
                    CallError::Refused(why) => {
                        return Err(CallError::Refused(format!("{endpoint}: {why}")));
                    }
                    other => return Err(other),
                },
                Err(_) => format!("{endpoint}: no answer in time"),
            };
            self.turn_from(turn).await;
            if Instant::now() + PAUSE >= end {
                return Err(CallError::Away(why));
            }
            sleep(PAUSE).await;
        }
    }

    async fn connected(&self, endpoint: &str) -> Result<etcd_client::Client, Error> {
        let mut connected = self.connected.lock().await;
        if let Some(client) = &*connected {
            return Ok(client.clone());
        }
        let client = etcd_client::Client::connect([endpoint], Some(self.options.clone())).await?;
        *connected = Some(client.clone());
        Ok(client)
    }

    /// Another member is asked from now on, unless that is so already.
    pub(super) async fn turn_from(&self, turn: usize) {
        let mut connected = self.connected.lock().await;
        if *self.turn.borrow() == turn {
            *connected = None;
            self.turn.send_replace(turn.wrapping_add(1));
        }
    }
}

/// What an error means for who asked.
pub(super) fn told(error: &Error) -> CallError {
    let Error::GRpcStatus(status) = error else {
        return match error {
            Error::LeaseKeepAliveError(_) => CallError::NoLease,
            Error::InvalidArgs(why) => CallError::Refused(why.clone()),
            other => CallError::Away(line(&other.to_string())),
        };
    };
    let mut why = status.message().to_owned();
    let mut cause = status.source();
    while let Some(one) = cause {
        why = one.to_string();
        cause = one.source();
    }
    let why = line(&why);
    // Codes by their names: the library that has them is not ours.
    match format!("{:?}", status.code()).as_str() {
        // The library that reads it says so as well, of what is long.
        "OutOfRange" if why.contains(LARGE) => CallError::TooLarge(why),
        "OutOfRange" => CallError::Compacted,
        "NotFound" => CallError::NoLease,
        "InvalidArgument" | "PermissionDenied" | "FailedPrecondition" | "ResourceExhausted"
        | "Unimplemented" => CallError::Refused(why),
        _ => CallError::Away(why),
    }
}

fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LINE_CHARS).collect()
}

/// Sooner than every five seconds etcd does not like it.
const PINGED_EVERY: Duration = Duration::from_secs(6);
const PINGED_WITHIN: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);
const LARGE: &str = "message length too large";
const LINE_CHARS: usize = 300;
