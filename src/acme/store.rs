//! What is kept in the state folder: the account, each certificate with its key in one file, when
//! it was ordered. For their owner alone, and whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::error::AcmeError;
use crate::config::paths::folder_of;
use crate::limits::ACME_ORDERS_PER_HOUR_MAX;
use crate::moment::unix_seconds;

/// Held by who orders: another process of the same state folder does not, meanwhile.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing it lets go")] File);

/// Takes the folder for an order; nothing while another process has it. Blocks.
///
/// # Errors
/// The folder cannot be made, or written to.
pub fn lock(folder: &Path) -> Result<Option<Lock>, AcmeError> {
    let path = folder.join("lock");
    let failed = |source| AcmeError::State { path: path.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Writes `bytes` beside `path`, from where [`put`] puts it there. Blocks.
pub(super) fn prepare(path: &Path, bytes: &[u8]) -> Result<PathBuf, AcmeError> {
    let new = path.with_extension("new");
    let written = || {
        // A file that is left from before may be another's to read.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    written().map_err(|source| AcmeError::State { path: new.clone(), source })?;
    Ok(new)
}

/// Puts a prepared file in the place of the one before. Blocks.
pub(super) fn put(new: &Path, path: &Path) -> Result<(), AcmeError> {
    fs::rename(new, path)
        .and_then(|()| File::open(folder_of(path))?.sync_all())
        .map_err(|source| AcmeError::State { path: path.to_owned(), source })
}

/// Notes that a certificate is ordered now. Blocks.
///
/// # Errors
/// That was done too often of late, or cannot be noted.
pub(super) fn note_order(path: &Path, now: SystemTime) -> Result<(), AcmeError> {
    let path = path.with_extension("orders");
    let now = unix_seconds(now);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let of_late = |time: &u64| *time <= now && *time + HOUR_SECONDS > now;
    let times = text.lines().filter_map(|line| line.parse().ok()).filter(of_late);
    let mut times: Vec<u64> = times.collect();
    if let Some(over) = times.len().checked_sub(ACME_ORDERS_PER_HOUR_MAX) {
        let wait = Duration::from_secs(times[over] + HOUR_SECONDS - now);
        return Err(AcmeError::TooOften { wait });
    }
    times.push(now);
    let text: String = times.iter().map(|time| format!("{time}\n")).collect();
    put(&prepare(&path, text.as_bytes())?, &path)
}

const HOUR_SECONDS: u64 = 3_600;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn no_certificate_is_ordered_more_often_than_it_may_be_however_often_we_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.test.pem");
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds);
        let order = |seconds| match note_order(&path, at(seconds)) {
            Ok(()) => Ok(()),
            Err(AcmeError::TooOften { wait }) => Err(wait),
            Err(error) => panic!("{error}"),
        };
        for n in 0..ACME_ORDERS_PER_HOUR_MAX as u64 {
            assert_eq!(order(n * 60), Ok(()));
        }
        assert_eq!(order(1_000), Err(Duration::from_secs(2_600)));
        assert_eq!(order(3_599), Err(Duration::from_secs(1)));
        assert_eq!(order(3_600), Ok(()));
        assert_eq!(order(3_601), Err(Duration::from_secs(59)));
        // A clock that was wrong shuts nobody out for good.
        assert_eq!(order(0), Ok(()));
    }

    #[test]
    fn what_is_kept_is_its_owners_alone_and_one_process_orders() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("acme/authority");
        let held = lock(&below).unwrap();
        assert!(held.is_some() && lock(&below).unwrap().is_none());
        drop(held);
        assert!(lock(&below).unwrap().is_some());
        let path = below.join("a.test.pem");
        fs::write(path.with_extension("new"), "left").unwrap();
        fs::set_permissions(path.with_extension("new"), fs::Permissions::from_mode(0o644)).unwrap();
        put(&prepare(&path, b"key").unwrap(), &path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(&path), mode(&below)], [0o600, 0o700]);
        assert_eq!(fs::read(&path).unwrap(), b"key");
        assert!(lock(Path::new("/proc/acme")).unwrap_err().to_string().starts_with("/proc/acme"));
    }
}
