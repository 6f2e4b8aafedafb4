//! The account at the authority: opened once, and kept with its key.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use tokio::fs;
use tokio::task::spawn_blocking;

use super::client::Client;
use super::error::AcmeError;
use super::store::{self, Lock};
use crate::config::Acme;

/// The account that is kept, or a new one: two who open one at once would lose one of them, so that
/// who asks holds the folder's lock.
///
/// # Errors
/// The authority cannot be asked, refuses, or what it gave cannot be kept.
pub async fn open(acme: &Acme, _held: &Lock) -> Result<Account, AcmeError> {
    let unreachable = |why| AcmeError::Unreachable { why };
    let roots = acme.roots.clone();
    let client = spawn_blocking(move || Client::new(roots.as_deref())).await;
    let client = client.map_err(|error| unreachable(error.to_string()))?.map_err(unreachable)?;
    let builder = Account::builder_with_http(Box::new(client));
    let path = file(acme);
    if let Some(credentials) = kept(&path).await? {
        let account = builder.from_credentials(credentials).await;
        return account.map_err(AcmeError::refused(&acme.directory, "its directory"));
    }
    let contact: Vec<&str> = acme.contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        // The configuration says so, or there would be no section.
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let external = acme.external_account.as_ref().map(|account| {
        let key = BASE64_URL_SAFE_NO_PAD.decode(&account.key);
        let key = key.map_err(|error| unreachable(format!("`acme.external_account`: {error}")))?;
        Ok(ExternalAccountKey::new(account.id.clone(), &key))
    });
    let external = external.transpose()?;
    let what = match external {
        Some(_) => "an account for `acme.external_account`",
        None => "an account",
    };
    // One that cannot be kept is not opened: for an external account there is no other.
    let (place, room) = (path.clone(), [b' '; ROOM_BYTES]);
    let prepared = spawn_blocking(move || store::prepare(&place, &room));
    prepared.await.map_err(|error| unreachable(error.to_string()))??;
    let opened = builder.create(&new, acme.directory.clone(), external.as_ref()).await;
    let (account, credentials) = opened.map_err(AcmeError::refused(&acme.directory, what))?;
    let failed = |error: serde_json::Error| AcmeError::State {
        path: path.clone(),
        source: io::Error::other(error),
    };
    let bytes = serde_json::to_vec(&credentials).map_err(failed)?;
    let written = spawn_blocking(move || store::put(&store::prepare(&path, &bytes)?, &path));
    written.await.map_err(|error| unreachable(error.to_string()))??;
    Ok(account)
}

/// Nothing of a file that is of no use: an account costs nothing.
async fn kept(path: &Path) -> Result<Option<AccountCredentials>, AcmeError> {
    match fs::read(path).await {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AcmeError::State { path: path.to_owned(), source }),
    }
}

/// Forgets the account that is kept, as the authority has.
pub(super) async fn forget(acme: &Acme) {
    let path = file(acme);
    if let Err(error) = fs::remove_file(&path).await {
        tracing::warn!("{} cannot be removed: {error}", path.display());
    }
}

/// Where it is kept.
fn file(acme: &Acme) -> PathBuf {
    acme.folder.join("account.json")
}

/// More than what is kept of an account takes.
const ROOM_BYTES: usize = 4 << 10;
