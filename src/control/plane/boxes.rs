//! What boxes ask: to be enrolled, a new certificate, to be registered and heard, the snapshot.

use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};
use tokio::time::timeout;

use super::answers::{Reply, of_issuer, of_registry, of_snapshot, of_state};
use super::wire::{Beat, Beaten, Enrol, Identity, Registration, Renew, SNAPSHOT_TYPE};
use super::{Asker, Now, Plane, changed_by_box, lock};
use crate::control::asking::{Said, refusal};
use crate::control::issuer::{Issued, Subject, sha256_hex};
use crate::control::registry::appliance::is_name;
use crate::control::snapshot::{Number, SnapshotError};
use crate::control::state::{CertificateRecord, StateError};
use crate::limits::SNAPSHOT_WAIT_MAX;

impl Plane {
    /// Gives a box its identity.
    pub(super) async fn enrol(&self, asked: Enrol, asker: &Asker, now: Now) -> Result<Reply, Said> {
        let Enrol { code, name, csr_pem } = asked;
        if !is_name(&name) {
            return Err(refusal(StatusCode::BAD_REQUEST, &format!("{name:?} is no name of a box")));
        }
        let digest = code_digest(&code);
        let known = self.state.known();
        if !known.codes.get(&digest).is_some_and(|code| code.counts(&name, now.seconds())) {
            return Err(of_state(StateError::NoCode));
        }
        let issued = self.issued(&csr_pem, &name, now)?;
        let record = record(&name, &issued, now);
        let audit =
            changed_by_box(&name, asker, now, format!("enrolled, certificate {}", issued.serial));
        self.state
            .enrol(&digest, (&issued.serial, &record), now.seconds(), audit)
            .await
            .map_err(of_state)?;
        tracing::info!(by = %name, from = %asker.ip, "enrolled, certificate {}", issued.serial);
        Ok(Reply::json(StatusCode::CREATED, &self.identity(issued)))
    }

    /// Gives a box its next certificate.
    pub(super) async fn renew(
        &self,
        asked: Renew,
        who: Subject,
        asker: &Asker,
        now: Now,
    ) -> Result<Reply, Said> {
        let issued = self.issued(&asked.csr_pem, &who.name, now)?;
        let record = record(&who.name, &issued, now);
        let what = format!("renewed certificate {} by {}", who.serial, issued.serial);
        let audit = changed_by_box(&who.name, asker, now, what.clone());
        let added =
            self.state.add_certificate((&issued.serial, &record), &who, now.seconds(), audit);
        added.await.map_err(of_state)?;
        tracing::info!(by = %who.name, from = %asker.ip, "{what}");
        Ok(Reply::json(StatusCode::OK, &self.identity(issued)))
    }

    fn issued(&self, csr_pem: &str, name: &str, now: Now) -> Result<Issued, Said> {
        self.issuer.issue(csr_pem, name, now.system).map_err(|error| of_issuer(&error))
    }

    fn identity(&self, issued: Issued) -> Identity {
        Identity {
            certificate_pem: issued.pem,
            renew_at: issued.renew_at,
            ca_pem: self.issuer.pem().to_owned(),
            snapshot_keys: vec![self.issuer.signing().public()],
        }
    }

    /// Takes a box in, or what has changed of it.
    pub(super) async fn register(
        &self,
        asked: Registration,
        name: &str,
        who: &Subject,
        asker: &Asker,
        now: Now,
    ) -> Result<Reply, Said> {
        if asked.name() != who.name || name != who.name {
            let text = format!("this is the certificate of `{}`, which registers itself", who.name);
            return Err(refusal(StatusCode::FORBIDDEN, &text));
        }
        self.adopt(who, asker, now).await?;
        let audit = changed_by_box(&who.name, asker, now, "registered".to_owned());
        self.state.put_appliance(&asked, who, audit).await.map_err(of_state)?;
        // Only now: whom the state does not know a look removes.
        let registered = lock(&self.registry).register(asked, now.instant);
        registered.map_err(|error| of_registry(&error))?;
        self.published.look();
        Ok(self.beaten())
    }

    /// Learns what a box says of itself.
    pub(super) fn hear(&self, beat: Beat, who: &Subject, now: Now) -> Result<Reply, Said> {
        self.in_touch()?;
        let heard = lock(&self.registry).hear(&who.name, beat.clone(), now.instant);
        heard.map_err(|error| of_registry(&error))?;
        self.state.tell(&who.name, &beat);
        self.published.look();
        Ok(self.beaten())
    }

    /// Has a box ask another control plane where this one does not see what the others do.
    fn in_touch(&self) -> Result<(), Said> {
        match self.state.is_away() {
            true => Err(refusal(StatusCode::SERVICE_UNAVAILABLE, AWAY)),
            false => Ok(()),
        }
    }

    fn beaten(&self) -> Reply {
        let beat_seconds = self.settings.heartbeat.as_secs().max(1);
        Reply::json(StatusCode::OK, &Beaten { beat_seconds, number: self.published.number() })
    }

    /// The snapshot after the one that a box holds, as soon as there is one.
    pub(super) async fn snapshot(&self, query: &str, who: &Subject) -> Result<Reply, Said> {
        let (after, wait) = asked_after(query)?;
        let mut latest = self.published.subscribe();
        let is_later = |number: Number| number > after;
        let is_there = latest.wait_for(|latest| {
            latest.as_ref().is_some_and(|latest| is_later(latest.snapshot.number))
        });
        let waiting = self.figures.waits();
        let found = timeout(wait, is_there).await;
        drop(waiting);
        // It may have been so while it waited.
        if self.state.known().is_revoked(who) {
            return Err(of_state(StateError::Revoked));
        }
        if let Ok(Ok(latest)) = found
            && let Some(latest) = latest.clone()
        {
            let content_type = HeaderValue::from_static(SNAPSHOT_TYPE);
            return Ok(Reply { status: StatusCode::OK, content_type, body: latest.bytes.clone() });
        }
        // Nobody knows whether there is a later one.
        self.in_touch()?;
        let offered = self.published.number();
        if offered < after {
            let error = SnapshotError::GoesBack { held: after, offered };
            if let Some(others) = lock(&self.ahead).tells(Instant::now()) {
                let who = &who.name;
                tracing::error!(others, "{who} holds a later snapshot than there is: {error}");
            }
            return Err(of_snapshot(&error));
        }
        Ok(Reply::nothing())
    }

    /// Remembers a certificate of ours that is not known, as it is after a backup was restored: so
    /// that it can be revoked.
    async fn adopt(&self, who: &Subject, asker: &Asker, now: Now) -> Result<(), Said> {
        if self.state.known().certificates.contains_key(&who.serial) {
            return Ok(());
        }
        let record = CertificateRecord {
            name: who.name.clone(),
            issued_at: who.issued_at(),
            not_after: who.not_after,
            revoked_at: None,
        };
        let what = format!("showed certificate {}, which was not known", who.serial);
        tracing::warn!(by = %who.name, from = %asker.ip, "{what}");
        let audit = changed_by_box(&who.name, asker, now, what);
        let added = self.state.add_certificate((&who.serial, &record), who, now.seconds(), audit);
        added.await.map_err(of_state)
    }
}

const AWAY: &str = "this control plane does not reach the state of the fleet: ask another one";

/// By what a code is known here: of what is shown, the secret alone.
pub(super) fn code_digest(code: &str) -> String {
    let secret = code.split('.').next().unwrap_or_default();
    sha256_hex(secret.as_bytes())
}

fn record(name: &str, issued: &Issued, now: Now) -> CertificateRecord {
    CertificateRecord {
        name: name.to_owned(),
        issued_at: now.seconds(),
        not_after: issued.not_after,
        revoked_at: None,
    }
}

/// `after=EPOCH.COUNTER&wait=SECONDS`; what is left out is nothing.
fn asked_after(query: &str) -> Result<(Number, Duration), Said> {
    let bad = |text: &str| refusal(StatusCode::BAD_REQUEST, text);
    let (mut after, mut wait) = (Number::default(), Duration::ZERO);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("after", number)) => {
                after = number.parse().map_err(|error: SnapshotError| bad(&error.to_string()))?;
            }
            Some(("wait", seconds)) => {
                let seconds = seconds.parse().map(Duration::from_secs);
                wait = seconds.map_err(|_| bad("`wait` is a number of seconds"))?;
            }
            _ => return Err(bad("ask for /v1/snapshot?after=EPOCH.COUNTER&wait=SECONDS")),
        }
    }
    Ok((after, wait.min(SNAPSHOT_WAIT_MAX)))
}
