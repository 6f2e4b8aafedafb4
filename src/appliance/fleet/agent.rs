//! What a box does for its fleet, for ever: says how it is, follows snapshots, renews its
//! certificate. On a runtime of its own; no viewer waits for anything here.
//!
//! Whatever a control plane says or does, what is held stays in use, and it is asked again: later
//! each time, up to a bound, and never at the same moment as by others.

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{Method, StatusCode};
use tokio::time::{sleep, timeout};

use super::beat::Figures;
use super::client::{Answer, Ask, AskError, Client, named};
use super::folder::Replacement;
use super::held::Refusal;
use super::identity::{Identity, IdentityError, Kept, new_key, path_in};
use super::standing::{Mends, Standing};
use crate::config;
use crate::control::plane::wire::{
    self, APPLIANCES_PATH, Beaten, HEARTBEAT_PATH, RENEW_PATH, SNAPSHOT_PATH,
};
use crate::control::snapshot::Number;
use crate::fill::client::tls_config_of;
use crate::limits::{SNAPSHOT_BYTES_MAX, SNAPSHOT_WAIT_MAX};
use crate::moment::unix_seconds;
use crate::site::Scheme;

/// One box of one fleet.
pub(super) struct Agent {
    pub(super) fleet: config::Fleet,
    pub(super) standing: Arc<Standing>,
    pub(super) figures: RefCell<Figures>,
}

/// It, as long as it has one identity.
struct Known<'a> {
    agent: &'a Agent,
    identity: Identity,
    client: Client,
}

impl Agent {
    /// Goes on for ever. Safe to drop.
    pub(super) async fn run(&self) {
        let mut before = None;
        loop {
            let kept = self.enrolled(&mut before).await;
            let Some((identity, client)) = self.opened(&kept) else { continue };
            self.standing.certificate_ends(identity.not_after);
            self.standing.held.believe(&identity.keys);
            let known = Known { agent: self, identity, client };
            tokio::select! {
                () = known.beat() => {}
                () = known.follow() => {}
                () = known.renew() => {}
                () = self.until_another(&kept) => {}
            }
        }
    }

    /// Says how the box is once more, if it was heard: that it drains.
    pub(super) async fn say_last(&self) {
        if !self.standing.is_heard() {
            return;
        }
        let opened = Kept::read(&self.path()).ok().and_then(|kept| self.opened(&kept));
        let beat = self.figures.borrow_mut().beat(Instant::now());
        if let (Some((_, client)), Some(beat)) = (opened, beat) {
            let asked = ask(Method::POST, HEARTBEAT_PATH, &beat);
            // Nobody waits for it longer: its silence says the same, later.
            let _ = timeout(SAID_LAST_WITHIN, client.ask(&asked)).await;
        }
    }

    fn path(&self) -> PathBuf {
        path_in(&self.fleet.folder)
    }

    /// The identity that lies in the folder, another one than `before`; it is waited for.
    async fn enrolled(&self, before: &mut Option<Vec<u8>>) -> Kept {
        loop {
            match Kept::read(&self.path()) {
                Ok(kept) if before.as_ref() != Some(&kept.to_bytes()) => {
                    *before = Some(kept.to_bytes());
                    return kept;
                }
                Ok(_) => {}
                Err(error) => self.standing.unheard(error.to_string(), Mends::ByHand),
            }
            sleep(LOOKED_AT_EVERY).await;
        }
    }

    /// Another one lies there: somebody has enrolled the box again.
    async fn until_another(&self, kept: &Kept) {
        loop {
            sleep(LOOKED_AT_EVERY).await;
            if Kept::read(&self.path()).is_ok_and(|now| now.given != kept.given) {
                return;
            }
        }
    }

    fn opened(&self, kept: &Kept) -> Option<(Identity, Client)> {
        let opened = kept.opened(self.fleet.appliance.name()).map_err(|error| error.to_string());
        let opened = opened.and_then(|identity| {
            let ours = tls_config_of(Some(std::slice::from_ref(&identity.ca)), Scheme::Https)?;
            let client = Client::new(&self.fleet.control, ours, Some(identity.shown.clone()));
            Ok((identity, client))
        });
        opened.map_err(|why| self.standing.unheard(why, Mends::ByHand)).ok()
    }
}

impl Known<'_> {
    /// Registers, then says how the box is, as often as it is told to; ends with the appliance.
    async fn beat(&self) {
        let (standing, figures) = (&self.agent.standing, &self.agent.figures);
        let (mut registered, mut pauses) = (None, Pauses::new(BEAT_PAUSE_MAX));
        loop {
            let Some(said) = figures.borrow().registration() else { return };
            let is_registered = registered.as_ref() == Some(&said);
            let asked = match is_registered {
                true => {
                    let Some(beat) = figures.borrow_mut().beat(Instant::now()) else { return };
                    ask(Method::POST, HEARTBEAT_PATH, &beat)
                }
                false => ask(Method::PUT, &format!("{APPLIANCES_PATH}/{}", said.name()), &said),
            };
            let (phase, turn) = (figures.borrow().phase(), self.client.whose());
            match self.told(&asked).await {
                Ok((control, beaten)) => {
                    pauses.begin_anew();
                    standing.heard(control);
                    standing.held.confirm(beaten.number);
                    if is_registered {
                        let pause = beaten.beat_seconds.clamp(1, BEAT_SECONDS_MAX);
                        let pause = jittered(Duration::from_secs(pause));
                        self.sleep_in_phase(pause, phase).await;
                    }
                    registered = Some(said);
                }
                Err(error) => {
                    registered = registered.filter(|_| !is_unknown(&error));
                    standing.beats_failed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let (why, mends) = self.why(&error);
                    standing.unheard(why, mends);
                    self.client.turn_from(turn);
                    sleep(pauses.next(self.client.count())).await;
                }
            }
        }
    }

    async fn told(&self, asked: &Ask) -> Result<(String, Beaten), AskError> {
        let answer = self.client.ask(asked).await?;
        Ok((named(&answer.control), answer.understood()?))
    }

    /// Until then, or until it wants viewers more or less than it did.
    async fn sleep_in_phase(&self, pause: Duration, phase: Option<crate::control::Phase>) {
        let until = tokio::time::Instant::now() + pause;
        let figures = &self.agent.figures;
        while figures.borrow().phase() == phase && tokio::time::Instant::now() < until {
            sleep(PHASE_LOOKED_AT_EVERY.min(until - tokio::time::Instant::now())).await;
        }
    }

    /// Why nobody hears it, and whether that passes.
    fn why(&self, error: &AskError) -> (String, Mends) {
        let now = unix_seconds(SystemTime::now());
        if self.identity.not_after <= now {
            let text = "this box's certificate has ended: `tidegate enrol --again`, by a new code";
            return (text.to_owned(), Mends::ByHand);
        }
        let mends = match error {
            AskError::Refused { status, .. } if is_for_good(*status) => Mends::ByHand,
            _ => Mends::ByItself,
        };
        (error.to_string(), mends)
    }

    /// Takes each snapshot as it is published.
    async fn follow(&self) {
        let (standing, mut pauses) = (&self.agent.standing, Pauses::new(FOLLOW_PAUSE_MAX));
        let mut told = String::new();
        loop {
            let (number, asked_at) = (standing.held.number(), Instant::now());
            let (turn, asked) = (self.client.whose(), snapshot_after(number));
            let answer = tokio::select! {
                answer = self.client.ask(&asked) => answer,
                () = self.client.turned_from(turn) => continue,
            };
            let followed = match answer {
                Ok(answer) => self.followed(answer, number).await,
                Err(AskError::TooLong { control }) => {
                    standing.held.refuse(&Refusal::TooLong, &control);
                    Err(None)
                }
                Err(error) => Err(Some(error)),
            };
            // Who says at once that there is nothing new does not wait as he was asked to.
            let is_hasty = matches!(followed, Ok(None)) && asked_at.elapsed() < HASTY;
            match followed {
                Ok(_) if !is_hasty => {
                    pauses.begin_anew();
                    told.clear();
                    continue;
                }
                Ok(_) => {}
                Err(failed) => {
                    if let Some(error) = failed {
                        self.tell_of(&error, &mut told);
                    }
                    self.client.turn_from(turn);
                }
            }
            sleep(pauses.next(self.client.count())).await;
        }
    }

    /// Tells why there is no snapshot; whether that was told it knows by `told`.
    fn tell_of(&self, error: &AskError, told: &mut String) {
        let standing = &self.agent.standing;
        let (why, mends) = self.why(error);
        if is_forbidden(error) {
            standing.unheard(why, mends);
        } else if standing.is_heard() && why != *told {
            // Who is not heard was told of that.
            tracing::warn!("no snapshot can be had: {why}");
            *told = why;
        }
    }

    /// What came of one question: a later snapshot, or that there is none. Of one that was refused
    /// all is told.
    async fn followed(
        &self,
        answer: Answer,
        number: Number,
    ) -> Result<Option<Number>, Option<AskError>> {
        let (held, control) = (&self.agent.standing.held, named(&answer.control));
        let refusal = match answer.status {
            StatusCode::OK => match held.take(answer.body, &self.identity.keys).await {
                Ok(number) => {
                    tracing::info!("goes by snapshot {number} of {control}");
                    return Ok(Some(number));
                }
                Err(refusal) => refusal,
            },
            StatusCode::NO_CONTENT => {
                held.confirm(number);
                return Ok(None);
            }
            StatusCode::CONFLICT => match answer.refused() {
                AskError::Refused { why, .. } => Refusal::Behind(why),
                other => return Err(Some(other)),
            },
            _ => return Err(Some(answer.refused())),
        };
        held.refuse(&refusal, &control);
        Err(None)
    }

    /// Ends when there is another identity.
    async fn renew(&self) {
        let mut pauses = Pauses::new(RENEWAL_PAUSE_MAX);
        loop {
            let now = unix_seconds(SystemTime::now());
            if now < self.identity.renew_at {
                // The clock may be set meanwhile.
                let left = Duration::from_secs(self.identity.renew_at - now);
                sleep(left.min(CLOCK_LOOKED_AT_EVERY)).await;
                continue;
            }
            match renewed(&self.identity, &self.client, self.agent.path()).await {
                Ok(()) => return,
                Err(why) => {
                    let ends = self.identity.not_after.saturating_sub(now) / 86_400;
                    tracing::warn!("the certificate, which ends in {ends} days, stays: {why}");
                }
            }
            sleep(pauses.next(1).max(RENEWAL_PAUSE_MIN)).await;
        }
    }
}

/// Another certificate, by a key that is new too, in the place of the one before.
async fn renewed(identity: &Identity, client: &Client, path: PathBuf) -> Result<(), String> {
    let text = |error: IdentityError| error.to_string();
    // One is not issued before it is known that it can be kept.
    let place = blocking(move || Replacement::begin(&path)).await?;
    let (key_pem, csr_pem) = new_key().map_err(text)?;
    let asked = ask(Method::POST, RENEW_PATH, &wire::Renew { csr_pem });
    let turn = client.whose();
    let answered = client.ask(&asked).await;
    let given = answered.and_then(|answer| answer.understood::<wire::Identity>());
    let given = given.map_err(|error| {
        client.turn_from(turn);
        error.to_string()
    })?;
    let kept = Kept { key_pem, given };
    let next = kept.accepted(&identity.name, &identity.ca, SystemTime::now()).map_err(text)?;
    let days = next.not_after.saturating_sub(unix_seconds(SystemTime::now())) / 86_400;
    // Said where it is written: who waits for that may be gone as soon as others see the file.
    blocking(move || {
        place.finish(&kept.to_bytes())?;
        tracing::info!("the box has another certificate, which ends in {days} days");
        Ok(())
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other);
    done.and_then(|done| done).map_err(|error| error.to_string())
}

fn ask(method: Method, path: &str, said: &impl serde::Serialize) -> Ask {
    let body = serde_json::to_vec(said).expect("text and numbers can be written as JSON");
    Ask::new(method, path, body)
}

fn snapshot_after(number: Number) -> Ask {
    let hold = SNAPSHOT_WAIT_MAX;
    let path = format!("{SNAPSHOT_PATH}?after={number}&wait={}", hold.as_secs());
    let answer_bytes_max = SNAPSHOT_BYTES_MAX;
    Ask { hold, answer_bytes_max, ..Ask::new(Method::GET, &path, "") }
}

/// The control plane does not know the box: it has to register first.
fn is_unknown(error: &AskError) -> bool {
    matches!(error, AskError::Refused { status: StatusCode::NOT_FOUND, .. })
}

/// Asking again will not help. Who has too much to do, or was asked too slowly, says otherwise
/// later.
fn is_for_good(status: StatusCode) -> bool {
    let passes = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    status.is_client_error() && !passes.contains(&status)
}

/// It will not have the box at all.
fn is_forbidden(error: &AskError) -> bool {
    let AskError::Refused { status, .. } = error else { return false };
    [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(status)
}

/// Pauses that grow, and are never the same.
struct Pauses {
    failures: u32,
    most: Duration,
}

impl Pauses {
    fn new(most: Duration) -> Pauses {
        Pauses { failures: 0, most }
    }

    fn begin_anew(&mut self) {
        self.failures = 0;
    }

    /// After a failure; between one of several and the next there is a short one.
    fn next(&mut self, of: usize) -> Duration {
        let rounds = self.failures / of.max(1) as u32;
        self.failures = self.failures.saturating_add(1);
        jittered(PAUSE_MIN.saturating_mul(1 << rounds.min(16)).min(self.most))
    }
}

/// From three quarters of it to all.
fn jittered(pause: Duration) -> Duration {
    let chance = RandomState::new().hash_one(0) % 1_024;
    pause.mul_f64(0.75 + chance as f64 / 4_096.0)
}

const PAUSE_MIN: Duration = Duration::from_millis(500);
const BEAT_PAUSE_MAX: Duration = Duration::from_secs(10);
const FOLLOW_PAUSE_MAX: Duration = Duration::from_secs(10);
const RENEWAL_PAUSE_MIN: Duration = Duration::from_secs(30);
const RENEWAL_PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// What a control plane may set.
const BEAT_SECONDS_MAX: u64 = 3_600;
/// Sooner is no answer to who waits for as long as a control plane may keep him.
const HASTY: Duration = Duration::from_secs(1);
const PHASE_LOOKED_AT_EVERY: Duration = Duration::from_millis(200);
const LOOKED_AT_EVERY: Duration = Duration::from_secs(2);
const SAID_LAST_WITHIN: Duration = Duration::from_millis(500);
const CLOCK_LOOKED_AT_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;

    use super::*;
    use crate::control::issuer::Issuer;

    #[tokio::test]
    async fn no_certificate_is_asked_for_that_could_not_be_kept() {
        let (folder, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
        let issuer = Issuer::open(folder.path(), now).unwrap();
        let (key_pem, request) = new_key().unwrap();
        let issued = issuer.issue(&request, "edge-1", now).unwrap();
        let given = wire::Identity {
            certificate_pem: issued.pem,
            renew_at: issued.renew_at,
            ca_pem: issuer.pem().to_owned(),
            snapshot_keys: vec![issuer.signing().public()],
        };
        let identity = Kept { key_pem, given }.opened("edge-1").unwrap();
        let control = TcpListener::bind("127.0.0.1:0").unwrap();
        control.set_nonblocking(true).unwrap();
        let controls = [format!("https://{}", control.local_addr().unwrap()).parse().unwrap()];
        let ours = tls_config_of(Some(std::slice::from_ref(&identity.ca)), Scheme::Https).unwrap();
        let client = Client::new(&controls, ours, Some(identity.shown.clone()));
        // No file can lie below one.
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(renewed(&identity, &client, path_in(&file)).await.is_err());
        let asked = control.accept().map(|_| ()).map_err(|error| error.kind());
        assert_eq!(asked, Err(io::ErrorKind::WouldBlock), "nobody was asked");
    }

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew() {
        let mut pauses = Pauses::new(Duration::from_secs(10));
        let within = |pause: Duration, most: f64| {
            let seconds = pause.as_secs_f64();
            assert!((0.75 * most..=most).contains(&seconds), "{pause:?}");
        };
        for most in [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0] {
            within(pauses.next(1), most);
        }
        pauses.begin_anew();
        for most in [0.5, 0.5, 0.5, 1.0] {
            within(pauses.next(3), most);
        }
        let different: std::collections::BTreeSet<_> =
            (0..100).map(|_| jittered(Duration::from_secs(1))).collect();
        assert!(different.len() > 10, "{different:?}");
    }

    #[test]
    fn who_is_asked_too_often_will_say_otherwise_later() {
        let for_good = [401, 403, 404, 409, 408, 429, 500, 503].map(StatusCode::from_u16);
        let for_good = for_good.map(|status| is_for_good(status.unwrap()));
        assert_eq!(for_good, [true, true, true, true, false, false, false, false]);
    }
}
