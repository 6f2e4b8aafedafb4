//! Whether there is room for one more: a certificate among those of its box and of all, an
//! appliance among the others.

use std::collections::BTreeSet;

use super::{
    CertificateRecord, Change, Known, StateError, appliance_key, box_key, certificate_key, json,
    pathway_key,
};
use crate::control::registry::appliance::Appliance;
use crate::control::snapshot::Serial;
use crate::limits::{
    APPLIANCES_BYTES_MAX, APPLIANCES_MAX, CERTIFICATES_ISSUED_MAX, CERTIFICATES_OF_ONE_MAX,
};

/// What adds a certificate, and removes those that have ended. Whoever does so with another one of
/// the same box at once is second, and so is who removes the box.
pub(super) fn added(
    known: &Known,
    serial: &Serial,
    record: &CertificateRecord,
    now: u64,
) -> Result<Change, StateError> {
    let ended = known.certificates.iter().filter(|(_, record)| record.not_after <= now);
    let mut deletes: Vec<String> = ended.map(|(serial, _)| certificate_key(serial)).collect();
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
    let puts = vec![(certificate_key(serial), json(record)), (box_key(&record.name), json(serial))];
    let counting = known.certificates.values().filter(|one| one.not_after > now);
    let counting: BTreeSet<&str> = counting.map(|one| one.name.as_str()).collect();
    let gone = known.boxes().filter(|name| *name != record.name && !counting.contains(name));
    let gone: Vec<String> = gone.map(box_key).collect();
    let expects = puts.iter().map(|(key, _)| key).chain(&gone);
    let expects = expects.map(|key| (key.clone(), known.expect(key))).collect();
    deletes.extend(gone);
    Ok(Change { expects, puts, deletes, audit: None })
}

/// What has an appliance stand as it is now, if it may; its pathway is its own then.
pub(super) fn registered(known: &Known, appliance: &Appliance) -> Result<Change, StateError> {
    let value = json(appliance);
    fits(known, appliance, value.len())?;
    let pathway = pathway_key(appliance);
    let before = known.appliances.get(appliance.name()).map(pathway_key);
    // One that somebody left behind counts for nothing but for who is first.
    let left = before.filter(|before| *before != pathway && known.has(before));
    let puts = vec![(appliance_key(appliance.name()), value), (pathway, json(&appliance.name()))];
    let keys = puts.iter().map(|(key, _)| key).chain(&left);
    let expects = keys.map(|key| (key.clone(), known.expect(key))).collect();
    Ok(Change { expects, puts, deletes: left.into_iter().collect(), audit: None })
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
