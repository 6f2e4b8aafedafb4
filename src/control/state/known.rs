//! What is known of a state: everything but the snapshot that was sent last, read and checked.
//!
//! Also how it is exported: JSON that people can read, with the keys of tokens in it, and so as
//! secret as they are.

use std::collections::{BTreeMap, HashMap};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{
    APPLIANCES, BOXES, CERTIFICATES, CODES, Change, Entry, Expect, IMPORTING, KEYS, NUMBER, ORDER,
    REMOVED, StateError, appliance_key, certificate_key, code_key, json, pathway_key, removed_key,
};
use crate::control::issuer::Subject;
use crate::control::registry::appliance::{Appliance, is_name};
use crate::control::snapshot::{EpochOrder, Number, Serial};
use crate::limits::{COUNTER_MAX, EPOCH_MAX};

/// A code that was made and has not been shown yet. What it is nobody knows, only its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeRecord {
    /// What the box will be called.
    pub name: String,
    /// Until when it counts, in seconds since 1970.
    pub expires_at: u64,
    /// Who made it.
    pub by: String,
}

impl CodeRecord {
    /// Whether it lets a box in that is called so.
    pub fn counts(&self, name: &str, now: u64) -> bool {
        self.name == name && now < self.expires_at
    }
}

/// A certificate that was issued. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// Whose it is.
    pub name: String,
    /// When it was issued.
    pub issued_at: u64,
    /// When it ends.
    pub not_after: u64,
    /// Since when it is not believed any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<u64>,
}

/// Who changed what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When, in seconds since 1970.
    pub at: u64,
    /// An operator or a box, by name.
    pub by: String,
    /// Which of them.
    #[serde(default)]
    pub of: By,
    /// From which address; nothing where it was done on the machine itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What was done, in one line.
    pub what: String,
}

/// Who changes anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// An operator; of old records it is not said, and they may be of a box too.
    #[default]
    Operator,
    /// A box, of itself.
    Box,
}

impl By {
    /// Both.
    pub const ALL: [By; 2] = [By::Operator, By::Box];
}

/// All that is kept.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The number of the snapshot that was published last.
    pub number: Number,
    /// What raised the epoch, if anything did.
    pub order: Option<EpochOrder>,
    /// The appliances, by name.
    pub appliances: BTreeMap<String, Appliance>,
    /// Codes, by the SHA-256 of each, in hexadecimal.
    pub codes: BTreeMap<String, CodeRecord>,
    /// Certificates.
    pub certificates: BTreeMap<Serial, CertificateRecord>,
    /// The text of each key file, by name.
    pub keys: BTreeMap<String, String>,
    /// When appliances were removed, by name, in seconds since 1970: those of late. They are
    /// forgotten where there is no room, and not by a clock, which may be wrong.
    pub removed: BTreeMap<String, u64>,
    /// What is being imported, by its digest.
    pub(super) importing: Option<String>,
    versions: HashMap<String, u64>,
}

impl Known {
    pub(super) fn of(entries: Vec<Entry>) -> Result<Known, StateError> {
        let mut known = Known::default();
        for Entry { key, version, value } in entries {
            let bad = |what: String| StateError::Malformed { key: key.clone(), what };
            if let Some(name) = key.strip_prefix(APPLIANCES) {
                known.appliances.insert(name.to_owned(), read(&key, &value)?);
            } else if let Some(digest) = key.strip_prefix(CODES) {
                known.codes.insert(digest.to_owned(), read(&key, &value)?);
            } else if let Some(serial) = key.strip_prefix(CERTIFICATES) {
                let serial = Serial::try_from(serial.to_owned());
                let serial = serial.map_err(|error| bad(error.to_string()))?;
                known.certificates.insert(serial, read(&key, &value)?);
            } else if let Some(name) = key.strip_prefix(KEYS) {
                let text = String::from_utf8(value).map_err(|error| bad(error.to_string()))?;
                known.keys.insert(name.to_owned(), text);
            } else if let Some(name) = key.strip_prefix(REMOVED) {
                known.removed.insert(name.to_owned(), read(&key, &value)?);
            } else if key == NUMBER {
                known.number = read(&key, &value)?;
            } else if key == ORDER {
                known.order = Some(read(&key, &value)?);
            } else if key == IMPORTING {
                known.importing = Some(read(&key, &value)?);
            }
            known.versions.insert(key, version);
        }
        Ok(known)
    }

    /// The same where of some keys only the versions can be told: they have what they had before.
    #[cfg(feature = "etcd")]
    pub(super) fn with_untold(mut self, untold: Vec<(String, u64)>, before: &Known) -> Known {
        for (key, version) in untold {
            let appliance = key.strip_prefix(APPLIANCES);
            let appliance = appliance.and_then(|name| before.appliances.get_key_value(name));
            self.appliances.extend(appliance.map(|(name, one)| (name.clone(), one.clone())));
            let text = key.strip_prefix(KEYS).and_then(|name| before.keys.get_key_value(name));
            self.keys.extend(text.map(|(name, text)| (name.clone(), text.clone())));
            self.versions.insert(key, version);
        }
        self
    }

    /// Refuses a state of which something is there that nobody can tell: boxes would be told that
    /// it is gone.
    pub(super) fn is_told(&self) -> Result<(), StateError> {
        let is_untold = |key: &&String| {
            let keys = key.strip_prefix(KEYS).is_some_and(|name| !self.keys.contains_key(name));
            let name = key.strip_prefix(APPLIANCES);
            keys || name.is_some_and(|name| !self.appliances.contains_key(name))
        };
        let what = "parts of it are gone: put it again, or remove it".to_owned();
        match self.versions.keys().find(is_untold) {
            None => Ok(()),
            Some(key) => Err(StateError::Malformed { key: key.clone(), what }),
        }
    }

    /// Whose certificates are not believed, of those that have not ended.
    pub fn revoked(&self, now: u64) -> impl Iterator<Item = &Serial> {
        let all = self.certificates.iter();
        all.filter(move |(_, one)| one.revoked_at.is_some() && one.not_after > now)
            .map(|(serial, _)| serial)
    }

    /// Whether a certificate was revoked; one that is not known, by when its box was removed.
    pub fn is_revoked(&self, who: &Subject) -> bool {
        match self.certificates.get(&who.serial) {
            Some(one) => one.revoked_at.is_some(),
            None => self.removed.get(&who.name).is_some_and(|at| who.issued_at() <= *at),
        }
    }

    /// What a change expects that is made for who shows this certificate: that it is not revoked
    /// meanwhile.
    pub(super) fn expect_believed(
        &self,
        who: &Subject,
    ) -> Result<[(String, Expect); 2], StateError> {
        if self.is_revoked(who) {
            return Err(StateError::Revoked);
        }
        let keys = [certificate_key(&who.serial), removed_key(&who.name)];
        Ok(keys.map(|key| {
            let expect = self.expect(&key);
            (key, expect)
        }))
    }

    /// Boxes that were given a certificate, which may have ended.
    pub(super) fn boxes(&self) -> impl Iterator<Item = &str> {
        self.versions.keys().filter_map(|key| key.strip_prefix(BOXES))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// Whether there is something under a key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.versions.contains_key(key)
    }

    /// What a key has now.
    pub(super) fn expect(&self, key: &str) -> Expect {
        self.versions.get(key).map_or(Expect::Nothing, |version| Expect::Version(*version))
    }

    /// What puts a value there, if nobody else does before.
    pub(super) fn put(&self, key: String, value: Vec<u8>) -> Change {
        let expects = vec![(key.clone(), self.expect(&key))];
        Change { expects, puts: vec![(key, value)], ..Change::default() }
    }
}

fn read<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, StateError> {
    serde_json::from_slice(value)
        .map_err(|error| StateError::Malformed { key: key.to_owned(), what: error.to_string() })
}

/// A state as it is exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exported {
    /// The shape of what follows: 1.
    pub version: u64,
    /// As in [`Known`], and so the others.
    pub number: Number,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order: Option<EpochOrder>,
    appliances: BTreeMap<String, Appliance>,
    codes: BTreeMap<String, CodeRecord>,
    certificates: BTreeMap<Serial, CertificateRecord>,
    keys: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    removed: BTreeMap<String, u64>,
}

impl Exported {
    pub(super) fn of(known: &Known) -> Exported {
        let Known { number, order, appliances, codes, certificates, keys, removed, .. } =
            known.clone();
        let version = VERSION;
        Exported { version, number, order, appliances, codes, certificates, keys, removed }
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is none, in one line.
    pub fn parse(text: &[u8]) -> Result<Exported, String> {
        let exported: Exported = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        match exported.version {
            VERSION => exported.look().map(|()| exported),
            other => Err(format!("its version is {other}, and this Tidegate knows {VERSION}")),
        }
    }

    /// Whether it is what could have been kept one by one.
    fn look(&self) -> Result<(), String> {
        let Number { epoch, counter } = self.number;
        if epoch > EPOCH_MAX || counter > COUNTER_MAX {
            return Err(format!("no snapshot has the number {}", self.number));
        }
        let mut pathways = BTreeMap::new();
        for (name, appliance) in &self.appliances {
            if name != appliance.name() {
                return Err(format!("appliance {name:?} calls itself `{}`", appliance.name()));
            }
            if let Some(other) = pathways.insert(appliance.pathway(), name) {
                let pathway = appliance.pathway();
                return Err(format!("`{other}` and `{name}` have one pathway, `{pathway}`"));
            }
        }
        match self.keys.keys().chain(self.removed.keys()).find(|name| !is_name(name)) {
            Some(name) => Err(format!("nothing can be called {name:?}")),
            None => Ok(()),
        }
    }

    /// What is kept for it; the number is the last one.
    pub(super) fn entries(&self) -> Vec<(String, Vec<u8>)> {
        let pathways = self.appliances.values();
        let pathways = pathways.map(|one| (pathway_key(one), json(&one.name())));
        let appliances = self.appliances.values();
        let appliances = appliances.map(|one| (appliance_key(one.name()), json(one)));
        let codes = self.codes.iter().map(|(digest, one)| (code_key(digest), json(one)));
        let certificates = self.certificates.iter();
        let certificates = certificates.map(|(serial, one)| (certificate_key(serial), json(one)));
        let keys = self.keys.iter();
        let keys = keys.map(|(name, text)| (format!("{KEYS}{name}"), text.as_bytes().to_vec()));
        let removed = self.removed.iter().map(|(name, at)| (removed_key(name), json(at)));
        let order = self.order.iter().map(|order| (ORDER.to_owned(), json(order)));
        let number = [(NUMBER.to_owned(), json(&self.number))];
        removed
            .chain(order)
            .chain(appliances)
            .chain(pathways)
            .chain(codes)
            .chain(certificates)
            .chain(keys)
            .chain(number)
            .collect()
    }
}

const VERSION: u64 = 1;
