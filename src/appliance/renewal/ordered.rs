//! Certificates that are ordered of an authority: when they are missing, when they are not for all
//! the names that are wanted, in time before they expire. One order at a time, and after one that
//! failed a while without.
//!
//! What is shown meanwhile stays. What comes is shown as a file that has changed would be.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::hash::{BuildHasher as _, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::thread;
use std::time::{Duration, SystemTime};

use httpdate::fmt_http_date;
use rustls_pki_types::CertificateDer;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::acme::{
    Account, AcmeError, Lock, Suggested, Waiting, due, lock, obtain, open, suggested,
};
use crate::appliance::parts::Parts;
use crate::config::units::duration_about;
use crate::config::{Acme, Certificate, Certificates, Managed};
use crate::server::Stop;

/// What is known of the orders before.
#[derive(Default)]
struct Renewer {
    account: Option<(Acme, Account)>,
    /// Certificates that are missing, or were ordered in vain, by their files.
    waited_for: HashMap<PathBuf, WaitedFor>,
    suggested: HashMap<PathBuf, AskedAbout>,
    /// When the configuration was read by which they are.
    read_at: u64,
}

/// A certificate that is waited for.
struct WaitedFor {
    since: SystemTime,
    /// How often it was ordered in vain.
    times: u32,
    /// Why the last time.
    why: Option<String>,
    again_at: Option<Instant>,
}

/// What the authority suggests for one certificate.
struct AskedAbout {
    chain: Vec<CertificateDer<'static>>,
    suggested: Suggested,
    ask_again_at: Instant,
}

/// Orders certificates until the appliance stops, or another process serves; who follows one that
/// served waits until nobody asks that one any more.
pub(super) fn start(parts: &Arc<Parts>, stop: &Stop, follows: bool) {
    let (weak, accepting) = (Arc::downgrade(parts), stop.accepting.clone());
    let (tasks, runtime) = (parts.filler.tasks.clone(), parts.filler.runtime.clone());
    let ended = parts.filler.stop.clone();
    let mut renewer = Renewer::default();
    let order = async move {
        sleep(if follows { FIRST_LOOK } else { Duration::ZERO }).await;
        loop {
            let Some(parts) = weak.upgrade() else { return };
            let looked = caught(renewer.look(&parts)).await;
            drop(parts);
            if looked.is_err() {
                tracing::error!(
                    "a look at what is to be ordered panicked; its message is above, and the next \
                     look is in {}",
                    duration_about(LOOKED_AT_AGAIN)
                );
                sleep(LOOKED_AT_AGAIN).await;
            }
            sleep(LOOKED_AT_EVERY).await;
        }
    };
    let until_stopped = async move {
        tokio::select! {
            () = order => {}
            () = accepting.cancelled() => {}
            () = ended.cancelled() => {}
        }
    };
    tasks.spawn_on(until_stopped, &runtime);
}

impl Renewer {
    /// Orders the first certificate that is due.
    async fn look(&mut self, parts: &Arc<Parts>) {
        let certificates = parts.live.certificates.load_full();
        let wanted: Vec<Managed> = certificates.managed().cloned().collect();
        let read_at = parts.live.read_at.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.read_at, read_at) != read_at {
            // Somebody has mended it, perhaps.
            self.waited_for.values_mut().for_each(WaitedFor::try_anew);
        }
        self.wait_for(&wanted, &certificates);
        parts.live.orders.wait_for(self.told(&wanted, &certificates));
        let Some(acme) = certificates.acme() else { return };
        let may = |one: &&Managed| {
            self.waited_for.get(&one.path).is_none_or(|waited| waited.may_again(Instant::now()))
        };
        let Some(one) =
            wanted.iter().filter(may).find(|one| self.is_due(&certificates, one)).cloned()
        else {
            return self.ask_when(&certificates, acme).await;
        };
        match self.order(parts, acme, &one).await {
            Ok(Some(certificate)) => {
                let until = certificate.expires().map(fmt_http_date).unwrap_or_default();
                tracing::info!("certificate for {}: issued, until {until}", one.names.join(", "));
                parts.live.orders.obtained.fetch_add(1, Ordering::Relaxed);
                self.waited_for.remove(&one.path);
                show(parts, certificate).await;
            }
            Ok(None) => {}
            Err(error) => {
                parts.live.orders.failed.fetch_add(1, Ordering::Relaxed);
                let wait = self.failed(acme, &one, &error);
                tracing::error!(
                    "certificate for {}: {error}; tried again in {}",
                    one.names.join(", "),
                    duration_about(wait)
                );
            }
        }
    }

    /// Waits for those of `wanted` that are not there, or that failed and are still due.
    fn wait_for(&mut self, wanted: &[Managed], certificates: &Certificates) {
        let is_there = there(certificates);
        let is_waited_for = |one: &&Managed| {
            let is_known = self.waited_for.contains_key(&one.path);
            !is_there.contains(&*one.path) || (is_known && self.is_due(certificates, one))
        };
        let waited_for: Vec<&Managed> = wanted.iter().filter(is_waited_for).collect();
        let mut before = std::mem::take(&mut self.waited_for);
        for one in waited_for {
            let waited = before.remove(&one.path).unwrap_or_else(WaitedFor::now);
            self.waited_for.insert(one.path.clone(), waited);
        }
    }

    /// What is told of those that are waited for.
    fn told(&self, wanted: &[Managed], certificates: &Certificates) -> Vec<Waiting> {
        let is_there = there(certificates);
        let told = wanted.iter().filter_map(|one| {
            let WaitedFor { since, why, again_at, .. } = self.waited_for.get(&one.path)?;
            let left = again_at.map(|again_at| again_at.saturating_duration_since(Instant::now()));
            Some(Waiting {
                names: one.names.clone(),
                is_missing: !is_there.contains(&*one.path),
                since: *since,
                why: why.clone(),
                again_at: left.filter(|left| !left.is_zero()).map(|left| SystemTime::now() + left),
            })
        });
        told.collect()
    }

    /// Nothing while somebody else orders, or when it was done too often of late.
    async fn order(
        &mut self,
        parts: &Arc<Parts>,
        acme: &Acme,
        one: &Managed,
    ) -> Result<Option<Certificate>, AcmeError> {
        let Some(held) = locked(acme).await? else { return Ok(None) };
        // The process before this one may have been faster.
        if let Some(certificate) = kept(one).await
            && shown(&parts.live.certificates.load(), one)
                .is_none_or(|known| known.key.cert != certificate.key.cert)
            && is_for(&certificate, one)
        {
            self.waited_for.remove(&one.path);
            show(parts, certificate).await;
            return Ok(None);
        }
        let account = self.account(acme, &held).await?;
        let obtained = obtain(&account, acme, one, &parts.live.challenges).await;
        match &obtained {
            Err(AcmeError::NoAccount) => self.account = None,
            Err(error @ AcmeError::TooOften { wait }) => {
                tracing::warn!(
                    "certificate for {}: {error}, and again in {}",
                    one.names.join(", "),
                    duration_about(*wait)
                );
                let waited = self.waited_for(one);
                waited.why.get_or_insert_with(|| error.to_string());
                waited.put_off(*wait, Instant::now());
                return Ok(None);
            }
            _ => {}
        }
        obtained.map(Some)
    }

    async fn account(&mut self, acme: &Acme, held: &Lock) -> Result<Account, AcmeError> {
        if let Some((known, account)) = &self.account
            && known == acme
        {
            return Ok(account.clone());
        }
        let account = open(acme, held).await?;
        self.account = Some((acme.clone(), account.clone()));
        Ok(account)
    }

    fn is_due(&self, certificates: &Certificates, one: &Managed) -> bool {
        let Some(certificate) = shown(certificates, one) else { return true };
        let suggested = self.suggested.get(&one.path).filter(|it| it.chain == certificate.key.cert);
        let suggested = suggested.and_then(|it| it.suggested.at);
        let now = SystemTime::now();
        let has_come = |time: Option<SystemTime>| time.is_some_and(|time| time <= now);
        !is_for(&certificate, one) || has_come(due(&certificate)) || has_come(suggested)
    }

    /// Asks the authority when the first certificate is to be renewed of which it was not asked of
    /// late.
    async fn ask_when(&mut self, certificates: &Certificates, acme: &Acme) {
        let now = Instant::now();
        let is_known = |certificate: &Certificate| {
            self.suggested.get(&certificate.path).is_some_and(|asked| {
                asked.chain == certificate.key.cert && asked.ask_again_at > now
            })
        };
        let known = certificates.managed().filter_map(|one| shown(certificates, one));
        let Some(certificate) = known.into_iter().find(|one| !is_known(one)) else { return };
        let Some(suggested) = self.suggestion(acme, &certificate).await else { return };
        let ask_again_at = now + suggested.ask_again_in;
        let chain = certificate.key.cert.clone();
        self.suggested.insert(certificate.path, AskedAbout { chain, suggested, ask_again_at });
    }

    /// Nothing while somebody else orders, who may open the account that is asked with.
    async fn suggestion(&mut self, acme: &Acme, certificate: &Certificate) -> Option<Suggested> {
        let account = match locked(acme).await {
            Ok(Some(held)) => self.account(acme, &held).await,
            Ok(None) => return None,
            Err(error) => Err(error),
        };
        Some(match account {
            Ok(account) => suggested(&account, certificate).await,
            // It is told of when a certificate is due.
            Err(_) => Suggested { at: None, ask_again_in: NOT_ASKED_FOR },
        })
    }

    /// How long it is not tried again.
    fn failed(&mut self, acme: &Acme, one: &Managed, error: &AcmeError) -> Duration {
        let share = RandomState::new().hash_one(&one.path) % 50;
        let waited = self.waited_for(one);
        waited.why = Some(error.to_string().replace(['\n', '\r'], " "));
        waited.once_more(acme.retry_after, 75 + share as u32, Instant::now())
    }

    fn waited_for(&mut self, one: &Managed) -> &mut WaitedFor {
        self.waited_for.entry(one.path.clone()).or_insert_with(WaitedFor::now)
    }
}

impl WaitedFor {
    fn now() -> WaitedFor {
        WaitedFor { since: SystemTime::now(), times: 0, why: None, again_at: None }
    }

    /// What it was like before is no reason to wait.
    fn try_anew(&mut self) {
        (self.times, self.again_at) = (0, None);
    }

    fn may_again(&self, now: Instant) -> bool {
        self.again_at.is_none_or(|again_at| again_at <= now)
    }

    /// How long it is not tried again: twice as long each time, and never for all boxes at once.
    fn once_more(&mut self, retry_after: Duration, percent: u32, now: Instant) -> Duration {
        let doubled = 1 << self.times.min(16);
        let wait = retry_after.saturating_mul(doubled).min(TRIED_AT_LEAST_EVERY) * percent / 100;
        self.times += 1;
        self.put_off(wait, now);
        wait
    }

    /// Nothing was tried, which makes it fail no less.
    fn put_off(&mut self, wait: Duration, now: Instant) {
        self.again_at = Some(now + wait);
    }
}

/// What `work` comes to, or what it panicked with.
async fn caught<T>(work: impl Future<Output = T>) -> thread::Result<T> {
    let mut work = pin!(work);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        polled.map_or_else(|panicked| Poll::Ready(Err(panicked)), |polled| polled.map(Ok))
    })
    .await
}

/// In another thread: who reloads holds it up.
async fn show(parts: &Arc<Parts>, certificate: Certificate) {
    let parts = parts.clone();
    if let Err(error) = spawn_blocking(move || parts.show_certificate(certificate)).await {
        tracing::error!("a certificate is not shown before the next reload: {error}");
    }
}

fn shown(certificates: &Certificates, one: &Managed) -> Option<Certificate> {
    certificates.iter().find(|known| known.path == one.path).cloned()
}

/// The files of those that are shown.
fn there(certificates: &Certificates) -> HashSet<&Path> {
    certificates.iter().map(|one| &*one.path).collect()
}

fn is_for(certificate: &Certificate, one: &Managed) -> bool {
    one.names.iter().all(|name| certificate.names.contains(name))
}

async fn locked(acme: &Acme) -> Result<Option<Lock>, AcmeError> {
    let folder = acme.folder.clone();
    let locked = spawn_blocking(move || lock(&folder)).await;
    locked.unwrap_or(Ok(None))
}

/// What lies in its file, if it is good.
async fn kept(one: &Managed) -> Option<Certificate> {
    let path = one.path.clone();
    let read = spawn_blocking(move || Certificate::judged_in(&path, &path, SystemTime::now()));
    read.await.ok()?.ok()
}

/// Of who follows another process.
const FIRST_LOOK: Duration = Duration::from_secs(10);
const LOOKED_AT_EVERY: Duration = Duration::from_millis(500);
/// After a mistake of our own, which the next look may make again.
const LOOKED_AT_AGAIN: Duration = Duration::from_secs(600);
const TRIED_AT_LEAST_EVERY: Duration = Duration::from_secs(6 * 3_600);
/// An authority that cannot be asked when something is due is asked then.
const NOT_ASKED_FOR: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Config, Machine};
    use crate::limits::ACME_ORDERS_PER_HOUR_MAX;

    const HOUR: Duration = Duration::from_secs(3_600);
    const DAYS: Duration = Duration::from_secs(10 * 86_400);

    /// How often a certificate is ordered in ten days, each time in vain.
    fn orders_in_vain(seed: u64) -> usize {
        let begun = Instant::now();
        let (mut failed, mut orders, mut now) = (WaitedFor::now(), Vec::new(), begun);
        let mut seed = seed;
        while now < begun + DAYS {
            let of_late = orders.iter().filter(|time| **time + HOUR > now);
            match of_late.clone().count() {
                ACME_ORDERS_PER_HOUR_MAX => {
                    let first = of_late.min().unwrap();
                    failed.put_off(*first + HOUR - now, now);
                }
                _ => {
                    orders.push(now);
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let percent = 75 + (seed >> 33) as u32 % 50;
                    failed.once_more(Duration::from_secs(60), percent, now);
                }
            }
            now = failed.again_at.unwrap();
            assert!(failed.may_again(now));
        }
        orders.len()
    }

    #[test]
    fn what_fails_for_days_is_ordered_ever_more_seldom() {
        for seed in 0..1_000 {
            let orders = orders_in_vain(seed);
            assert!((30..=60).contains(&orders), "seed {seed}: {orders} orders");
        }
    }

    /// The authority of a configuration, where nobody answers, and the certificates it is to issue.
    fn wanted(folder: &Path) -> (Arc<Acme>, Vec<Managed>) {
        let text = format!(
            "acme = {{ terms = 'agreed', directory = 'https://[::1]:1/', state = {folder:?} }}\n\
             listeners.http = \"[::1]:0\"\n[[certificates]]\nacme = \"a.test\"\n\
             [[certificates]]\nacme = [\"b.test\", \"c.test\"]\n\
             [[sites]]\nname = \"s\"\nhosts = \"a\"\norigins = \"http://o\"\n"
        );
        let machine = Machine { cores: 4, memory_bytes: Some(16 << 30) };
        let config = Config::on_machine(&text, "t.toml", &machine).unwrap();
        let certificates = &config.certificates;
        (certificates.acme().unwrap().clone(), certificates.managed().cloned().collect())
    }

    #[test]
    fn what_is_missing_is_waited_for_and_told_with_why_and_until_when() {
        let folder = tempfile::tempdir().unwrap();
        let (acme, wanted) = wanted(folder.path());
        let (mut renewer, none) = (Renewer::default(), Certificates::default());
        renewer.wait_for(&wanted, &none);
        let told = renewer.told(&wanted, &none);
        let names =
            |told: &[Waiting]| told.iter().map(|one| one.names.join(" ")).collect::<Vec<_>>();
        assert_eq!(names(&told), ["a.test", "b.test c.test"]);
        assert!(told.iter().all(|one| one.is_missing && one.why.is_none()), "{told:?}");
        let since = told[1].since;

        let error = AcmeError::Unreachable { why: "nobody\nis there".to_owned() };
        let wait = renewer.failed(&acme, &wanted[1], &error);
        renewer.wait_for(&wanted, &none);
        let told = renewer.told(&wanted, &none);
        let why = "the authority cannot be asked: nobody is there".to_owned();
        assert_eq!((&told[1].why, told[1].since), (&Some(why), since));
        assert!(told[1].again_at.is_some_and(|at| at <= SystemTime::now() + wait), "{told:?}");
        assert_eq!(told[0].again_at, None);

        // The first one comes; the second one is tried at once after a reload.
        let issued = Certificate { path: wanted[0].path.clone(), ..issued(folder.path()) };
        let one = Certificates::new(vec![issued]);
        renewer.waited_for.values_mut().for_each(WaitedFor::try_anew);
        renewer.wait_for(&wanted, &one);
        let told = renewer.told(&wanted, &one);
        assert_eq!((names(&told), told[0].again_at), (vec!["b.test c.test".to_owned()], None));
        assert!(told[0].why.is_some() && told[0].since == since, "{told:?}");
        renewer.wait_for(&wanted[..1], &one);
        assert_eq!(renewer.told(&wanted, &one), [], "nobody wants it any more");
        // What is good for long is not waited for because an order failed once.
        renewer.failed(&acme, &wanted[0], &error);
        renewer.wait_for(&wanted[..1], &one);
        assert_eq!(renewer.told(&wanted, &one), []);
    }

    /// A certificate for `a.test`, good for long.
    fn issued(folder: &Path) -> Certificate {
        let path = folder.join("a.pem");
        let key = rcgen::KeyPair::generate().unwrap();
        let mut asked = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
        asked.not_after = rcgen::date_time_ymd(9_000, 1, 1);
        let pem = asked.self_signed(&key).unwrap().pem() + &key.serialize_pem();
        fs::write(&path, pem).unwrap();
        Certificate::judged_in(&path, &path, SystemTime::now()).unwrap()
    }

    #[tokio::test]
    async fn no_account_is_opened_while_another_process_orders() {
        let folder = tempfile::tempdir().unwrap();
        let (acme, _) = wanted(folder.path());
        let certificate = issued(folder.path());
        let mut renewer = Renewer::default();
        let held = lock(&acme.folder).unwrap();
        assert!(held.is_some() && renewer.suggestion(&acme, &certificate).await.is_none());
        drop(held);
        let suggested = renewer.suggestion(&acme, &certificate).await.unwrap();
        assert_eq!(suggested.ask_again_in, NOT_ASKED_FOR, "the authority was asked in vain");
        assert!(lock(&acme.folder).unwrap().is_some(), "nobody holds it then");
    }

    #[tokio::test]
    async fn a_look_that_panics_is_not_the_last() {
        let panics = async {
            tokio::task::yield_now().await;
            panic!("as a mistake would")
        };
        assert!(caught(panics).await.is_err());
        assert!(matches!(caught(async { 7 }).await, Ok(7)));
    }
}
