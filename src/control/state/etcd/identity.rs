//! The keys of a fleet, which all of its control planes have: the first one makes them and puts
//! them on etcd, the others take them from there. Who has others already is told so, and
//! overwrites none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp};

use super::{Shared, StateError};
use crate::control::issuer::{CA_FILE, CA_KEY, Issuer, SIGNING_KEY, folder, replace};
use crate::control::snapshot::Number;

/// Has the folder hold the keys of the fleet. Blocks for a moment.
pub(super) async fn settle(shared: &Shared, now: SystemTime) -> Result<(), StateError> {
    let at = &shared.settings.folder;
    folder(at).map_err(|error| broken(at.clone(), error))?;
    let theirs = match read(shared).await? {
        Some(theirs) => theirs,
        // Whoever has a fleet has put its keys there.
        None if shared.known.load().number != Number::default() => return Err(shared.gone()),
        None => match offer(shared, now).await? {
            true => return Ok(()),
            // Another one was first.
            false => read(shared).await?.ok_or_else(|| StateError::Malformed {
                key: KEYS.to_owned(),
                what: "keys are missing".to_owned(),
            })?,
        },
    };
    for (name, theirs) in FILES.iter().zip(theirs) {
        let path = at.join(name);
        match fs::read(&path) {
            Ok(ours) if ours == theirs => {}
            Ok(_) => {
                let what = "it is another than the one that the fleet's control planes share on \
                            etcd: move it away, or write another `control.etcd.prefix`";
                return Err(broken(path, what));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                replace(&path, &theirs).map_err(|error| broken(path.clone(), error))?;
            }
            Err(error) => return Err(broken(path, error)),
        }
    }
    Ok(())
}

/// Those on etcd, all of them or none.
async fn read(shared: &Shared) -> Result<Option<Vec<Vec<u8>>>, StateError> {
    let start = shared.key(KEYS);
    let get = |mut client: etcd_client::Client| {
        let (start, options) = (start.clone(), GetOptions::new().with_prefix());
        async move { client.get(start, Some(options)).await }
    };
    let found = shared.client.call(get).await?;
    let of = |name: &&str| {
        let key = shared.key(&format!("{KEYS}{name}"));
        let kv = found.kvs().iter().find(|kv| kv.key() == key.as_bytes())?;
        Some(kv.value().to_vec())
    };
    Ok(FILES.iter().map(of).collect())
}

/// Puts those of the folder there, which are made where there are none; whether it was the first.
async fn offer(shared: &Shared, now: SystemTime) -> Result<bool, StateError> {
    let at = &shared.settings.folder;
    let is_new = !FILES.iter().any(|name| at.join(name).exists());
    let issuer = Issuer::open(at, now);
    issuer.map_err(|error| broken(at.clone(), error.to_string()))?;
    let mut files = Vec::new();
    for name in FILES {
        let path = at.join(name);
        let file = fs::read(&path).map_err(|error| broken(path, error))?;
        files.push((shared.key(&format!("{KEYS}{name}")), file));
    }
    let txn = |mut client: etcd_client::Client| {
        let compares = files.iter();
        let compares =
            compares.map(|(key, _)| Compare::create_revision(key.clone(), CompareOp::Equal, 0));
        let puts = files.iter();
        let puts = puts.map(|(key, file)| TxnOp::put(key.clone(), file.clone(), None));
        let txn = Txn::new().when(compares.collect::<Vec<_>>());
        let txn = txn.and_then(puts.collect::<Vec<_>>());
        async move { client.txn(txn).await }
    };
    let answer = shared.client.call(txn).await.map(|answer| answer.succeeded());
    match is_new {
        true => unless_first(at, answer.map_err(StateError::from)),
        false => Ok(answer?),
    }
}

/// Forgets keys that were made for this, unless they are the fleet's: they would be others than
/// those that somebody else puts there. By an answer that was lost they may be: then they are the
/// same again when they are read.
fn unless_first(at: &Path, is_first: Result<bool, StateError>) -> Result<bool, StateError> {
    if !matches!(is_first, Ok(true)) {
        for name in FILES {
            let path = at.join(name);
            fs::remove_file(&path).map_err(|error| broken(path, error))?;
        }
    }
    is_first
}

fn broken(
    path: PathBuf,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StateError {
    StateError::Broken { path, source: source.into() }
}

/// A key that is there as long as the fleet's keys are.
pub(super) fn key(shared: &Shared) -> String {
    shared.key(&format!("{KEYS}{}", FILES[0]))
}

const FILES: [&str; 3] = [CA_KEY, CA_FILE, SIGNING_KEY];
/// How their keys on etcd begin.
const KEYS: &str = "identity/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_were_made_and_are_not_the_fleets_are_forgotten_whyever() {
        let away = || Err(StateError::Away { what: "nobody".to_owned() });
        for (is_first, stay) in [(Ok(true), true), (Ok(false), false), (away(), false)] {
            let folder = tempfile::tempdir().unwrap();
            Issuer::open(folder.path(), SystemTime::now()).unwrap();
            let told = unless_first(folder.path(), is_first);
            assert!(FILES.iter().all(|name| folder.path().join(name).exists() == stay), "{told:?}");
        }
    }
}
