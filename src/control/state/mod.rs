//! What a control plane keeps: appliances, codes, certificates, keys, the number of the snapshot,
//! and who changed what.
//!
//! A narrow set of operations, each of which happens whole or not at all, written once over keys
//! with versions: a change says what it expects, and is made anew where another control plane was
//! first. Where those keys lie, `redb.rs` says, or `etcd/` where several control planes share them.
//! What is known is in memory and swapped whole; nobody waits for a disk to read it. Heartbeats are
//! no state.

mod commits;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
mod import;
mod known;
mod paths;
mod redb;
mod room;
mod settings;
mod shared;
mod store;

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;

pub use self::commits::Commits;
pub use self::error::StateError;
pub use self::known::{AuditRecord, By, CertificateRecord, CodeRecord, Exported, Known};
use self::paths::{
    APPLIANCES, BOXES, CERTIFICATES, CODES, IMPORTING, KEYS, NUMBER, ORDER, REMOVED, SNAPSHOT,
    appliance_key, box_key, certificate_key, code_key, pathway_key, removed_key,
};
use self::room::{added, registered};
pub use self::settings::EtcdSettings;
pub use self::shared::{Node, Peers};
use self::store::Backend;
pub use self::store::{Purpose, Store};
use super::issuer::Subject;
use super::registry::appliance::Appliance;
use super::snapshot::{EpochOrder, Number, Serial};
use crate::limits::{
    CODES_MAX, EPOCH_MAX, KEY_FILES_BYTES_MAX, KEY_FILES_MAX, REMOVED_MAX, STATE_TRIES_MAX,
};

/// The state, shared by who asks and who changes it.
#[derive(Debug)]
pub struct State {
    backend: Backend,
    known: Arc<ArcSwap<Known>>,
    commits: Commits,
}

/// What of a key a change expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// Nothing is there.
    Nothing,
    /// What was there when it was read.
    Version(u64),
}

/// Something that happens whole, if all is as it expects.
#[derive(Clone, Debug, Default)]
struct Change {
    expects: Vec<(String, Expect)>,
    puts: Vec<(String, Vec<u8>)>,
    deletes: Vec<String>,
    audit: Option<AuditRecord>,
}

/// What is under one key.
struct Entry {
    key: String,
    version: u64,
    value: Vec<u8>,
}

impl State {
    /// What is known now.
    pub fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }

    /// Keeps a code, and forgets those that have ended.
    ///
    /// # Errors
    /// There are too many, or it cannot be kept.
    pub async fn add_code(
        &self,
        digest: &str,
        code: &CodeRecord,
        now: u64,
        audit: AuditRecord,
    ) -> Result<(), StateError> {
        self.change(|known| {
            let ended = known.codes.iter().filter(|(_, code)| code.expires_at <= now);
            let ended: Vec<String> = ended.map(|(digest, _)| code_key(digest)).collect();
            if known.codes.len() - ended.len() >= CODES_MAX {
                return Err(StateError::Full { what: "codes", max: CODES_MAX });
            }
            let key = code_key(digest);
            let expects = vec![(key.clone(), Expect::Nothing)];
            let audit = Some(audit.clone());
            Ok(Change { expects, puts: vec![(key, json(code))], deletes: ended, audit })
        })
        .await
    }

    /// Uses up a code for a certificate.
    ///
    /// # Errors
    /// The code does not count for this name now, or it cannot be kept.
    pub async fn enrol(
        &self,
        digest: &str,
        certificate: (&Serial, &CertificateRecord),
        now: u64,
        audit: AuditRecord,
    ) -> Result<(), StateError> {
        let (serial, record) = certificate;
        self.change(|known| {
            let code = known.codes.get(digest);
            code.filter(|code| code.counts(&record.name, now)).ok_or(StateError::NoCode)?;
            let mut change = added(known, serial, record, now)?;
            let key = code_key(digest);
            change.expects.push((key.clone(), known.expect(&key)));
            change.deletes.push(key);
            change.audit = Some(audit.clone());
            Ok(change)
        })
        .await
    }

    /// Remembers a certificate that was issued to who shows the one of `by`, and forgets those that
    /// have ended.
    ///
    /// # Errors
    /// That one was revoked, there are too many, or it cannot be kept.
    pub async fn add_certificate(
        &self,
        certificate: (&Serial, &CertificateRecord),
        by: &Subject,
        now: u64,
        audit: AuditRecord,
    ) -> Result<(), StateError> {
        let (serial, record) = certificate;
        self.change(|known| {
            let believed = known.expect_believed(by)?;
            let mut change = added(known, serial, record, now)?;
            change.expects.extend(believed);
            Ok(Change { audit: Some(audit.clone()), ..change })
        })
        .await
    }

    /// Keeps an appliance as it is now, said by who shows the certificate of `by`; nothing happens
    /// where it is known so.
    ///
    /// # Errors
    /// That one was revoked, another appliance has its pathway, there is no room for it, or it
    /// cannot be kept.
    pub async fn put_appliance(
        &self,
        appliance: &Appliance,
        by: &Subject,
        audit: AuditRecord,
    ) -> Result<(), StateError> {
        self.change(|known| {
            let believed = known.expect_believed(by)?;
            if known.appliances.get(appliance.name()) == Some(appliance) {
                return Ok(Change::default());
            }
            let mut change = registered(known, appliance)?;
            change.expects.extend(believed);
            Ok(Change { audit: Some(audit.clone()), ..change })
        })
        .await
    }

    /// Forgets an appliance and its codes, and revokes its certificates: those that are known, and
    /// whatever was issued until now, which a state from a backup may not know.
    ///
    /// # Errors
    /// Nothing is known of that name, or it cannot be kept.
    pub async fn remove_appliance(
        &self,
        name: &str,
        now: u64,
        audit: AuditRecord,
    ) -> Result<(), StateError> {
        self.change(|known| {
            let change = removal(known, name, now)?;
            Ok(Change { audit: Some(audit.clone()), ..change })
        })
        .await
    }

    /// Keeps the text of a key file.
    ///
    /// # Errors
    /// There are too many, or it cannot be kept.
    pub async fn put_keys(
        &self,
        name: &str,
        text: &str,
        audit: AuditRecord,
    ) -> Result<(), StateError> {
        self.change(|known| {
            let others = known.keys.iter().filter(|(other, _)| *other != name);
            let (count, bytes) =
                others.fold((0, 0), |(count, bytes), (_, text)| (count + 1, bytes + text.len()));
            if count >= KEY_FILES_MAX {
                return Err(StateError::Full { what: "key files", max: KEY_FILES_MAX });
            }
            if bytes + text.len() > KEY_FILES_BYTES_MAX {
                let max = KEY_FILES_BYTES_MAX;
                return Err(StateError::Full { what: "bytes of key files", max });
            }
            let change = known.put(format!("{KEYS}{name}"), text.as_bytes().to_vec());
            Ok(Change { audit: Some(audit.clone()), ..change })
        })
        .await
    }

    /// Forgets a key file.
    ///
    /// # Errors
    /// There is none of that name, or it cannot be kept.
    pub async fn remove_keys(&self, name: &str, audit: AuditRecord) -> Result<(), StateError> {
        self.change(|known| {
            let key = format!("{KEYS}{name}");
            if !known.has(&key) {
                return Err(StateError::Unknown { what: "key file", name: name.to_owned() });
            }
            let (expects, audit) = (vec![(key.clone(), known.expect(&key))], Some(audit.clone()));
            Ok(Change { expects, puts: Vec::new(), deletes: vec![key], audit })
        })
        .await
    }

    /// Keeps the next snapshot: its number is one more than the one before.
    ///
    /// # Errors
    /// Another control plane was first ([`StateError::Contended`]), or it cannot be kept.
    pub async fn publish(
        &self,
        before: Number,
        number: Number,
        bytes: Vec<u8>,
    ) -> Result<(), StateError> {
        let known = self.known();
        known.is_imported()?;
        known.is_told()?;
        if known.number != before {
            return Err(StateError::Contended);
        }
        let mut change = known.put(NUMBER.to_owned(), json(&number));
        change.expects.push((IMPORTING.to_owned(), Expect::Nothing));
        change.expects.extend(self.leads().ok_or(StateError::Contended)?);
        let puts = [change.puts, vec![(SNAPSHOT.to_owned(), bytes)]].concat();
        match self.commit(Change { puts, ..change }).await? {
            true => Ok(()),
            false => Err(StateError::Contended),
        }
    }

    /// Numbers snapshots in a later epoch from now on.
    ///
    /// # Errors
    /// It is none, or it cannot be kept.
    pub async fn raise_epoch(
        &self,
        order: &EpochOrder,
        audit: AuditRecord,
    ) -> Result<Number, StateError> {
        self.change(|known| {
            let Number { epoch, counter } = known.number;
            if order.epoch > EPOCH_MAX {
                return Err(StateError::EpochTooLate { max: EPOCH_MAX });
            }
            if order.epoch <= epoch {
                return Err(StateError::EpochGoesBack { epoch });
            }
            let number = Number { epoch: order.epoch, counter };
            let mut change = known.put(NUMBER.to_owned(), json(&number));
            change.puts.push((ORDER.to_owned(), json(order)));
            Ok(Change { audit: Some(audit.clone()), ..change })
        })
        .await?;
        Ok(self.known().number)
    }

    /// Writes down what somebody did that changes nothing.
    ///
    /// # Errors
    /// It cannot be kept.
    pub async fn note(&self, audit: AuditRecord) -> Result<(), StateError> {
        self.commit(Change { audit: Some(audit), ..Change::default() }).await.map(drop)
    }

    /// Makes what `make` says of what is known, anew as often as another was first; never of what
    /// is only a part of it.
    async fn change(
        &self,
        make: impl Fn(&Known) -> Result<Change, StateError>,
    ) -> Result<(), StateError> {
        self.change_a_part(|known| known.is_imported().and_then(|()| make(known))).await
    }

    /// The same, also while something is being imported.
    async fn change_a_part(
        &self,
        make: impl Fn(&Known) -> Result<Change, StateError>,
    ) -> Result<(), StateError> {
        for _ in 0..STATE_TRIES_MAX {
            let change = make(&self.known())?;
            if change.is_empty() || self.commit(change).await? {
                return Ok(());
            }
        }
        Err(StateError::Contended)
    }
}

/// What removes a box. Who was given a certificate or registers meanwhile was first: then it is
/// made anew, and knows of that.
fn removal(known: &Known, name: &str, now: u64) -> Result<Change, StateError> {
    let mut change = Change::default();
    let appliance = known.appliances.get(name);
    let codes = known.codes.iter().filter(|(_, code)| code.name == name);
    change.deletes.extend(codes.map(|(digest, _)| code_key(digest)));
    let is_of_it = |record: &CertificateRecord| {
        record.name == name && record.revoked_at.is_none() && record.not_after > now
    };
    let certificates = known.certificates.iter().filter(|(_, record)| is_of_it(record));
    for (serial, record) in certificates {
        let revoked = CertificateRecord { revoked_at: Some(now), ..record.clone() };
        change.puts.push((certificate_key(serial), json(&revoked)));
    }
    // It may be there and nobody able to tell it.
    let is_there = known.has(&appliance_key(name));
    if !is_there && change.deletes.is_empty() && change.puts.is_empty() {
        return Err(StateError::Unknown { what: "appliance", name: name.to_owned() });
    }
    // Whether there is something now or not: nobody else may change it before.
    let own = [appliance_key(name), box_key(name)].into_iter().chain(appliance.map(pathway_key));
    let own: Vec<String> = own.collect();
    change.puts.push((removed_key(name), json(&now)));
    if !known.removed.contains_key(name) && known.removed.len() >= REMOVED_MAX {
        let oldest = known.removed.iter().min_by_key(|(_, at)| **at);
        change.deletes.extend(oldest.map(|(name, _)| removed_key(name)));
    }
    let keys = change.deletes.iter().chain(change.puts.iter().map(|(key, _)| key)).chain(&own);
    change.expects = keys.map(|key| (key.clone(), known.expect(key))).collect();
    change.deletes.extend(own.into_iter().filter(|key| known.has(key)));
    Ok(change)
}

impl Change {
    fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("text and numbers can be written as JSON")
}

#[cfg(test)]
mod tests;
