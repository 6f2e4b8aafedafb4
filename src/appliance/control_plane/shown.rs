//! The certificate that a control plane shows where one is configured: read again by a reload, and
//! when its files change. What cannot be shown changes nothing, and is told once.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use rustls::sign::CertifiedKey;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::super::renewal::Stamp;
use crate::config::Certificate;

/// What is shown, and in which files it is.
#[derive(Default)]
pub(super) struct Shown {
    certificate: Mutex<Adopted>,
    key: Arc<ArcSwapOption<CertifiedKey>>,
}

/// The certificate, and how often a reload has said which.
#[derive(Default)]
struct Adopted {
    certificate: Option<Certificate>,
    times: u64,
}

/// What is known of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    files: Vec<(PathBuf, Option<Stamp>)>,
    /// By which reload they are those.
    times: u64,
    /// Why what is in them is not shown.
    told: Option<String>,
}

impl Shown {
    /// Shows this one from now on, or one of its own.
    pub(super) fn adopt(&self, next: Option<Certificate>) {
        let mut adopted = self.adopted();
        self.key.store(next.as_ref().map(|one| one.key.clone()));
        *adopted = Adopted { certificate: next, times: adopted.times + 1 };
    }

    /// What handshakes read.
    pub(super) fn key(&self) -> Arc<ArcSwapOption<CertifiedKey>> {
        self.key.clone()
    }

    fn adopted(&self) -> MutexGuard<'_, Adopted> {
        self.certificate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what is written into the files, for ever. Safe to drop.
    pub(super) async fn follow(self: &Arc<Shown>) {
        let mut seen = Seen::default();
        loop {
            let (this, before) = (self.clone(), seen);
            let looked = spawn_blocking(move || this.look(before, SystemTime::now()));
            seen = looked.await.unwrap_or_else(|error| {
                tracing::error!("a look at `control.certificate` broke off: {error}");
                Seen::default()
            });
            sleep(LOOKED_AT_EVERY).await;
        }
    }

    /// One look. Blocks.
    fn look(&self, before: Seen, now: SystemTime) -> Seen {
        let (shown, times) = {
            let adopted = self.adopted();
            (adopted.certificate.clone(), adopted.times)
        };
        let Some(shown) = shown else { return Seen::default() };
        let paths = [shown.path.clone(), shown.key_path.clone()];
        let files: Vec<_> = paths.map(|path| (Stamp::of(&path), path)).into();
        let files: Vec<_> = files.into_iter().map(|(stamp, path)| (path, stamp)).collect();
        // A reload may have read them before they were written.
        if files == before.files && before.told.is_none() && before.times == times {
            return before;
        }
        let why = match shown.read_again(now) {
            Ok(again) => {
                let mut adopted = self.adopted();
                // A reload may have been faster.
                if adopted.times == times && again.key.cert != shown.key.cert {
                    tracing::info!("certificate {} is another one now", again.path.display());
                    self.key.store(Some(again.key.clone()));
                    adopted.certificate = Some(again);
                }
                return Seen { files, times, told: None };
            }
            Err(why) => why,
        };
        if before.told.as_ref() != Some(&why) {
            tracing::error!("`control.certificate`: {why}; the one of before is shown on");
        }
        Seen { files, times, told: Some(why) }
    }
}

/// Who renews a certificate does so days before.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_written_into_its_files_is_shown_and_what_is_of_no_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
        let issue = || {
            let made = rcgen::generate_simple_self_signed(vec!["control.test".to_owned()]).unwrap();
            fs::write(&cert, made.cert.pem()).unwrap();
            fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            made.cert.der().clone()
        };
        let now = SystemTime::now();
        let first = issue();
        let shown = Shown::default();
        let judged = || Certificate::judged_in(&cert, &key, now).unwrap();
        let read_first = judged();
        shown.adopt(Some(judged()));
        let is = |shown: &Shown| shown.key().load().as_ref().unwrap().cert[0].clone();
        let seen = shown.look(Seen::default(), now);
        assert_eq!((is(&shown), shown.look(seen.clone(), now)), (first, seen.clone()));

        let second = issue();
        let seen = shown.look(seen, now);
        assert_eq!((is(&shown), &seen.told), (second.clone(), &None));
        fs::write(&key, "no key").unwrap();
        let seen = shown.look(seen, now);
        assert!(is(&shown) == second && seen.told.is_some());
        let third = issue();
        let seen = shown.look(seen, now);
        assert_eq!((is(&shown), &seen.told), (third.clone(), &None));
        // A reload that read the files before all that ends after it.
        shown.adopt(Some(read_first));
        shown.look(seen, now);
        assert_eq!(is(&shown), third);
        shown.adopt(None);
        assert!(shown.key().load().is_none(), "then it shows one of its own");
    }
}
