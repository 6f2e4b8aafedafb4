//! Whether there is room for one more: a certificate among those of its box and of all, an
//! appliance among the others.

use super::{CertificateRecord, Change, Known, StateError, certificate_key, json};
use crate::control::registry::appliance::Appliance;
use crate::control::snapshot::Serial;
use crate::limits::{
    APPLIANCES_BYTES_MAX, APPLIANCES_MAX, CERTIFICATES_ISSUED_MAX, CERTIFICATES_OF_ONE_MAX,
};

/// What adds a certificate, and removes those that have ended.
pub(super) fn added(
    known: &Known,
    serial: &Serial,
    record: &CertificateRecord,
    now: u64,
) -> Result<Change, StateError> {
    let ended = known.certificates.iter().filter(|(_, record)| record.not_after <= now);
    let deletes: Vec<String> = ended.map(|(serial, _)| certificate_key(serial)).collect();
    if known.certificates.len() - deletes.len() >= CERTIFICATES_ISSUED_MAX {
        return Err(StateError::Full { what: "certificates", max: CERTIFICATES_ISSUED_MAX });
    }
    let is_of_it = |one: &&CertificateRecord| {
        one.name == record.name && one.revoked_at.is_none() && one.not_after > now
    };
    if known.certificates.values().filter(is_of_it).count() >= CERTIFICATES_OF_ONE_MAX {
        let what = "certificates of this box";
        return Err(StateError::Full { what, max: CERTIFICATES_OF_ONE_MAX });
    }
    let key = certificate_key(serial);
    let expects = vec![(key.clone(), known.expect(&key))];
    Ok(Change { expects, puts: vec![(key, json(record))], deletes, audit: None })
}

/// Whether an appliance of so many bytes may stand among the others.
pub(super) fn fits(known: &Known, appliance: &Appliance, bytes: usize) -> Result<(), StateError> {
    let others = || known.appliances.values().filter(|other| other.name() != appliance.name());
    if let Some(other) = others().find(|other| other.pathway() == appliance.pathway()) {
        let (pathway, by) = (appliance.pathway().to_string(), other.name().to_owned());
        return Err(StateError::PathwayTaken { pathway, by });
    }
    if others().count() >= APPLIANCES_MAX {
        return Err(StateError::Full { what: "appliances", max: APPLIANCES_MAX });
    }
    // A snapshot has room for all of them, and for how they are.
    if others().map(|other| json(other).len()).sum::<usize>() + bytes > APPLIANCES_BYTES_MAX {
        return Err(StateError::Full { what: "bytes of appliances", max: APPLIANCES_BYTES_MAX });
    }
    Ok(())
}
