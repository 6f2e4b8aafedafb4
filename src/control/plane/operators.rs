//! What operators ask: codes for boxes, appliances, keys, who changed what, a copy of the state.

use std::sync::Arc;

use aws_lc_rs::rand;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::answers::{Reply, of_state};
use super::boxes::code_digest;
use super::wire::{Code, NewCode, NewEpoch};
use super::{Asker, Now, Plane, changed, lock};
use crate::control::asking::{AskedBody, Said, body_of, refusal};
use crate::control::registry::appliance::is_name;
use crate::control::snapshot::EpochOrder;
use crate::control::state::{By, CodeRecord, Known};
use crate::limits::{AUDIT_RECORDS_MAX, KEY_FILE_BYTES_MAX};
use crate::token::key_file::{IssuerFile, KeyFile};
use crate::token::uri_signing::Matching;

impl Plane {
    /// Makes a code, which is shown this once.
    pub(super) async fn new_code(
        &self,
        asked: NewCode,
        by: &str,
        asker: &Asker,
        now: Now,
    ) -> Result<Reply, Said> {
        let NewCode { name, valid_seconds } = asked;
        let name = named(&name)?.to_owned();
        let valid_seconds = valid_seconds.unwrap_or(CODE_SECONDS);
        if !(1..=CODE_SECONDS_MAX).contains(&valid_seconds) {
            let text = format!("`valid_seconds` is 1 to {CODE_SECONDS_MAX}");
            return Err(refusal(StatusCode::BAD_REQUEST, &text));
        }
        let mut secret = [0; CODE_BYTES];
        let no_randomness = |_| refusal(StatusCode::SERVICE_UNAVAILABLE, "there is no randomness");
        rand::fill(&mut secret).map_err(no_randomness)?;
        let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let expires_at = now.seconds() + valid_seconds;
        let code = CodeRecord { name: name.clone(), expires_at, by: by.to_owned() };
        let audit = changed(by, asker, now, format!("made a code for {name}"));
        let digest = code_digest(&secret);
        let added = self.state.add_code(&digest, &code, now.seconds(), audit);
        added.await.map_err(of_state)?;
        tracing::info!(%by, from = %asker.ip, "made a code for {name}");
        let code = format!("{secret}.{}", self.issuer.fingerprint());
        Ok(Reply::json(StatusCode::CREATED, &Code { code, name, expires_at }))
    }

    /// The appliances and how they are.
    pub(super) fn appliances(&self) -> Result<Reply, Said> {
        let (fleet, number) = (self.fleet.load_full(), self.published.number());
        let members = fleet.members();
        Ok(Reply::json(StatusCode::OK, &json!({ "number": number, "appliances": members })))
    }

    /// Removes an appliance, and what it was let in by.
    pub(super) async fn remove(
        &self,
        name: &str,
        by: &str,
        asker: &Asker,
        now: Now,
    ) -> Result<Reply, Said> {
        let audit = changed(by, asker, now, format!("removed appliance {name}"));
        let removed = self.state.remove_appliance(named(name)?, now.seconds(), audit);
        removed.await.map_err(of_state)?;
        tracing::info!(%by, from = %asker.ip, "removed appliance {name}");
        self.published.look();
        Ok(Reply::nothing())
    }

    /// What key files there are, and nothing secret of them. They are read when they may have
    /// changed, not for each who asks.
    pub(super) fn key_names(&self) -> Result<Reply, Said> {
        let known = self.state.known();
        let mut told = lock(&self.key_names);
        let before = told.take().filter(|told| Arc::ptr_eq(&told.of, &known));
        let told = told.insert(before.unwrap_or_else(|| KeyNames::of(known)));
        Ok(Reply::json(StatusCode::OK, &told.names))
    }

    /// Keeps a key file, if it is one.
    pub(super) async fn put_keys(
        &self,
        name: &str,
        body: impl AskedBody,
        by: &str,
        asker: &Asker,
        now: Now,
    ) -> Result<Reply, Said> {
        let name = named(name)?;
        let body = body_of(body, KEY_FILE_BYTES_MAX).await?;
        let read = KeyFile::parse(&body).and_then(|file| file.keys(Matching::Full));
        let bad = |what: String| refusal(StatusCode::BAD_REQUEST, &format!("keys {name}: {what}"));
        read.map_err(|error| bad(error.to_string()))?;
        let text = std::str::from_utf8(&body).map_err(|error| bad(error.to_string()))?;
        let audit = changed(by, asker, now, format!("put keys {name}"));
        self.state.put_keys(name, text, audit).await.map_err(of_state)?;
        tracing::info!(%by, from = %asker.ip, "put keys {name}");
        self.published.look();
        Ok(Reply::nothing())
    }

    /// Forgets a key file.
    pub(super) async fn remove_keys(
        &self,
        name: &str,
        by: &str,
        asker: &Asker,
        now: Now,
    ) -> Result<Reply, Said> {
        let audit = changed(by, asker, now, format!("removed keys {name}"));
        self.state.remove_keys(named(name)?, audit).await.map_err(of_state)?;
        tracing::info!(%by, from = %asker.ip, "removed keys {name}");
        self.published.look();
        Ok(Reply::nothing())
    }

    /// Who changed what lately: `last=COUNT&of=operator`.
    pub(super) async fn audit(&self, query: &str) -> Result<Reply, Said> {
        let (mut count, mut of) = (Some(AUDIT_TOLD), Some(&By::ALL[..]));
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("last", text)) => count = text.parse().ok(),
                Some(("of", "operator")) => of = Some(&[By::Operator]),
                Some(("of", "box")) => of = Some(&[By::Box]),
                _ => of = None,
            }
        }
        let count = count.filter(|count| (1..=AUDIT_RECORDS_MAX).contains(count));
        let (Some(count), Some(of)) = (count, of) else {
            let text = format!(
                "ask for /v1/audit?last=COUNT, 1 to {AUDIT_RECORDS_MAX}, and &of=operator or \
                 &of=box"
            );
            return Err(refusal(StatusCode::BAD_REQUEST, &text));
        };
        let records = self.state.audit(of, count).await.map_err(of_state)?;
        Ok(Reply::json(StatusCode::OK, &json!({ "audit": records })))
    }

    /// The control planes that share the state.
    pub(super) fn nodes(&self) -> Result<Reply, Said> {
        Ok(Reply::json(StatusCode::OK, &self.state.peers()))
    }

    /// What is counted, for Prometheus.
    pub(super) fn metrics(&self, now: Now) -> Reply {
        let last = self.published.last(now.seconds());
        let text = self.figures.text(&self.fleet.load(), &last);
        let content_type = HeaderValue::from_static(prometheus::TEXT_FORMAT);
        Reply { status: StatusCode::OK, content_type, body: text.into() }
    }

    /// A copy of the state, with the keys in it.
    pub(super) async fn export(&self, by: &str, asker: &Asker, now: Now) -> Result<Reply, Said> {
        let exported = self.state.export().map_err(of_state)?;
        let audit = changed(by, asker, now, "exported the state".to_owned());
        self.state.note(audit).await.map_err(of_state)?;
        tracing::info!(%by, from = %asker.ip, "exported the state");
        Ok(Reply::json(StatusCode::OK, &exported))
    }

    /// Begins a later epoch.
    pub(super) async fn raise_epoch(
        &self,
        asked: NewEpoch,
        by: &str,
        asker: &Asker,
        now: Now,
    ) -> Result<Reply, Said> {
        let epoch = asked.to.unwrap_or(self.state.known().number.epoch.saturating_add(1));
        let order = EpochOrder::sign(epoch, now.seconds(), self.issuer.signing());
        let audit = changed(by, asker, now, format!("raised the epoch to {epoch}"));
        let number = self.state.raise_epoch(&order, audit).await.map_err(of_state)?;
        tracing::info!(%by, from = %asker.ip, "raised the epoch to {epoch}");
        self.published.look();
        Ok(Reply::json(StatusCode::OK, &number))
    }
}

/// What is told of the keys of a state.
pub(super) struct KeyNames {
    of: Arc<Known>,
    names: Value,
}

impl KeyNames {
    #[cfg(test)]
    pub(super) fn known(&self) -> Arc<Known> {
        self.of.clone()
    }

    fn of(known: Arc<Known>) -> KeyNames {
        let issuers = |text: &str| -> Vec<Value> {
            let file = KeyFile::parse(text.as_bytes()).unwrap_or_default();
            let of = |(name, issuer): (&String, &IssuerFile)| {
                let keys = issuer.keys.iter().map(|key| key.kid.clone());
                json!({ "issuer": name, "keys": keys.collect::<Vec<_>>() })
            };
            file.issuers.iter().map(of).collect()
        };
        let files = known.keys.iter();
        let files = files.map(|(name, text)| json!({ "name": name, "issuers": issuers(text) }));
        let names = json!({ "keys": files.collect::<Vec<_>>() });
        KeyNames { of: known, names }
    }
}

fn named(name: &str) -> Result<&str, Said> {
    let text = "a name is 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`";
    is_name(name).then_some(name).ok_or_else(|| refusal(StatusCode::BAD_REQUEST, text))
}

/// A code counts for a day where nothing else is said,
const CODE_SECONDS: u64 = 86_400;
/// and never longer than a month.
const CODE_SECONDS_MAX: u64 = 30 * 86_400;
/// What nobody guesses.
const CODE_BYTES: usize = 16;
const AUDIT_TOLD: usize = 100;
