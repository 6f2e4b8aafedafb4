//! One order: the authority is shown that each name is ours, and issues a certificate, which is
//! kept when viewers would accept it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::{
    Account, AuthorizationStatus, ChallengeHandle, ChallengeType, Identifier, KeyAuthorization,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use tokio::task::spawn_blocking;

use super::account;
use super::challenges::{Answering, Challenges};
use super::error::{AcmeError, problem_in_words};
use super::hook::{self, Record};
use super::store;
use crate::config::{Acme, Certificate, Challenge, Managed};

/// Orders `managed` and keeps it in its file, in the place of the one before. Who asks holds the
/// folder's lock.
///
/// Dropping it midway leaves the file as it was, and perhaps a DNS record.
///
/// # Errors
/// Why there is no certificate; the file is as it was then.
pub async fn obtain(
    account: &Account,
    acme: &Acme,
    managed: &Managed,
    challenges: &Arc<Challenges>,
) -> Result<Certificate, AcmeError> {
    let path = managed.path.clone();
    blocking(move || store::note_order(&path, SystemTime::now())).await?;
    let issued = issued(account, acme, managed, challenges).await;
    if matches!(issued, Err(AcmeError::NoAccount)) {
        account::forget(acme).await;
    }
    let (chain, key) = issued?;
    let (path, names) = (managed.path.clone(), managed.names.clone());
    blocking(move || keep(&path, &names, &format!("{key}{chain}"))).await
}

/// The chain and its key, in PEM.
async fn issued(
    account: &Account,
    acme: &Acme,
    managed: &Managed,
    challenges: &Arc<Challenges>,
) -> Result<(String, String), AcmeError> {
    let names: Vec<Identifier> = managed.names.iter().cloned().map(Identifier::Dns).collect();
    let order = account.new_order(&NewOrder::new(&names)).await;
    let mut order = order.map_err(AcmeError::refused(&acme.directory, "an order"))?;
    let mut shown = Vec::new();
    let proved = prove(&mut order, acme, challenges, &mut shown).await;
    take_away(shown, acme.hook.as_deref()).await;
    proved?;
    let key =
        order.finalize().await.map_err(AcmeError::refused(&acme.directory, "a certificate"))?;
    let chain = order.poll_certificate(&PATIENCE).await;
    Ok((chain.map_err(AcmeError::refused(&acme.directory, "a certificate"))?, key))
}

/// What an authority can see as long as an order needs it.
enum Shown {
    Answer(#[expect(dead_code, reason = "dropping it ends the answer")] Answering),
    Record(Record),
}

async fn prove(
    order: &mut Order,
    acme: &Acme,
    challenges: &Arc<Challenges>,
    shown: &mut Vec<Shown>,
) -> Result<(), AcmeError> {
    let refused = AcmeError::refused(&acme.directory, "a proof");
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let mut authorization = next.map_err(&refused)?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let word = acme.challenge.as_str();
        let Some(mut challenge) = authorization.challenge(offered_as(acme.challenge)) else {
            return Err(AcmeError::NotOffered { name, challenge: word });
        };
        show(&challenge, acme, challenges, shown).await?;
        challenge.set_ready().await.map_err(&refused)?;
    }
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready) => Ok(()),
        polled => {
            let names = unproved(order, acme.challenge).await;
            match polled {
                Err(error) if names.is_empty() => Err(refused(error)),
                _ => Err(AcmeError::Unproved { names }),
            }
        }
    }
}

fn offered_as(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Dns01 => ChallengeType::Dns01,
    }
}

async fn show(
    challenge: &ChallengeHandle<'_>,
    acme: &Acme,
    challenges: &Arc<Challenges>,
    shown: &mut Vec<Shown>,
) -> Result<(), AcmeError> {
    let proof = challenge.key_authorization();
    // Without the asterisk of a wildcard.
    let name = match challenge.identifier().identifier {
        Identifier::Dns(name) => name.clone(),
        _ => challenge.identifier().to_string(),
    };
    match (acme.challenge, &acme.hook) {
        (Challenge::Http01, _) => {
            shown.push(Shown::Answer(challenges.answer(&challenge.token, proof.as_str())));
            Ok(())
        }
        (Challenge::TlsAlpn01, _) => {
            let certificate = certificate_for(&name, &proof)?;
            shown.push(Shown::Answer(challenges.show(&name, certificate)));
            Ok(())
        }
        (Challenge::Dns01, hook) => {
            let hook = hook.as_deref().expect("no configuration has dns-01 without a hook");
            let record =
                Record { name: format!("_acme-challenge.{name}"), value: proof.dns_value() };
            write(hook, record, shown).await
        }
    }
}

/// A record that the hook did not say is there may be there all the same, and is taken away too.
async fn write(hook: &Path, record: Record, shown: &mut Vec<Shown>) -> Result<(), AcmeError> {
    shown.push(Shown::Record(record.clone()));
    hook::present(hook, &record).await
}

async fn take_away(shown: Vec<Shown>, hook: Option<&Path>) {
    for one in shown {
        // The certificate is none the worse for a record that is left.
        if let (Shown::Record(record), Some(hook)) = (one, hook)
            && let Err(error) = hook::clean_up(hook, &record).await
        {
            tracing::warn!("{error}");
        }
    }
}

/// A certificate that nobody but the authority looks at (RFC 8737 section 3).
fn certificate_for(name: &str, proof: &KeyAuthorization) -> Result<CertifiedKey, AcmeError> {
    let made = || {
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.custom_extensions =
            vec![CustomExtension::new_acme_identifier(proof.digest().as_ref())];
        let key = KeyPair::generate()?;
        Ok((params.self_signed(&key)?, key))
    };
    let useless = |error: String| AcmeError::Useless { why: error };
    let (certificate, key) = made().map_err(|error: rcgen::Error| useless(error.to_string()))?;
    let key =
        PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| useless(error.to_owned()))?;
    // Not by `from_der`: rustls cannot read the extension, and need not.
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key);
    let key = key.map_err(|error| useless(error.to_string()))?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

/// What the authority says of each name that it was not shown.
async fn unproved(order: &mut Order, challenge: Challenge) -> Vec<String> {
    let mut told = HashMap::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        let errors = authorization.challenges.iter().filter_map(|one| one.error.as_ref());
        for error in errors {
            let why = problem_in_words(error);
            told.insert(name.clone(), format!("{name} by {}: {why}", challenge.as_str()));
        }
    }
    let mut lines: Vec<String> = told.into_values().collect();
    lines.sort();
    lines
}

/// Blocks.
fn keep(path: &Path, names: &[String], pem: &str) -> Result<Certificate, AcmeError> {
    let new = store::prepare(path, pem.as_bytes())?;
    let useless = |why| AcmeError::Useless { why };
    let found = Certificate::judged_in(&new, &new, SystemTime::now()).map_err(useless)?;
    if let Some(name) = names.iter().find(|name| !found.names.contains(name)) {
        return Err(useless(format!("{} is not for {name}", new.display())));
    }
    store::put(&new, path)?;
    Ok(Certificate { path: path.to_owned(), key_path: path.to_owned(), ..found })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AcmeError> + Send + 'static,
) -> Result<T, AcmeError> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(AcmeError::Useless { why: error.to_string() }))
}

/// Authorities look from several places, and DNS is slow.
const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(120));

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_viewers_would_not_accept_never_takes_the_place_of_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.test.pem");
        let made = |names: &[&str], until: i32| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
            let key = KeyPair::generate().unwrap();
            (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        let names = ["a.test".to_owned(), "*.b.test".to_owned()];
        let (chain, key) = made(&["a.test", "*.b.test", "c.test"], 2100);
        let good = format!("{key}{chain}");
        assert_eq!(keep(&path, &names, &good).unwrap().names.len(), 3);
        let (expired, its_key) = made(&["a.test", "*.b.test"], 2021);
        let (other, other_key) = made(&["a.test"], 2100);
        for (pem, why) in [
            (format!("{key}{}", &chain[..chain.len() / 2]), "no good PEM"),
            (key.clone(), "no certificate"),
            (chain.clone(), "no private key"),
            (format!("{other_key}{chain}"), "is not the key of the certificate"),
            (format!("{its_key}{expired}"), "expired on"),
            (format!("{other_key}{other}"), "is not for *.b.test"),
            (String::new(), "no certificate"),
        ] {
            let error = keep(&path, &names, &pem).unwrap_err().to_string();
            assert!(error.contains(why), "{why}: {error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), good, "{why}");
        }
    }

    #[tokio::test]
    async fn a_record_that_could_not_be_written_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let hook = folder.path().join("hook");
        let script = "#!/bin/sh\necho \"$@\" >>\"$0.told\"\n[ \"$1\" = cleanup ]\n";
        fs::write(&hook, script).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o700)).unwrap();
        let record = Record { name: "_acme-challenge.a.test".into(), value: "v".into() };
        let mut shown = Vec::new();
        assert!(write(&hook, record, &mut shown).await.is_err());
        take_away(shown, Some(&hook)).await;
        let told = fs::read_to_string(folder.path().join("hook.told")).unwrap();
        let expected = "present _acme-challenge.a.test v\ncleanup _acme-challenge.a.test v\n";
        assert_eq!(told, expected);
    }
}
