//! Ships the access log: batch by batch, oldest first, each until it has arrived or is refused.
//!
//! At least once: a batch whose answer was lost is sent again; what is not sent when the process
//! ends waits in the spool for the next one. How a batch is sent, and when it has arrived, says who
//! receives it: by HTTP, or Kafka's brokers (feature `kafka`). Only the batch that is being sent is
//! in memory, where it always has its place ([`held_bytes`]).

mod by_http;
#[cfg(feature = "kafka")]
mod by_kafka;
mod suspicion;

use std::fs::File;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use http::StatusCode;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::by_http::ByHttp;
#[cfg(feature = "kafka")]
use self::by_kafka::ByKafka;
use self::suspicion::{Outcome, Suspicion, Verdict};
use crate::access_log::{Batch, Lost, Spool, TakenBatch};
use crate::config::units::duration_about;
use crate::config::{Receiver, Shipping};
use crate::limits::SHIPPING_DENIALS_MAX;

/// Ships what comes into a spool.
pub struct Shipper {
    spool: Arc<Spool>,
    /// Who receives it, as the log names him.
    to: String,
    way: Way,
    /// Since one arrived or was refused.
    attempts: u32,
    /// Looks for a batch that failed in a row.
    looks_failed: u32,
    /// Between two of them, where the receiver does not ask for more.
    pause_max: Duration,
}

/// How a batch gets to who receives it.
enum Way {
    Http(Box<ByHttp>),
    #[cfg(feature = "kafka")]
    Kafka(ByKafka),
}

impl Way {
    /// Sends it; what of it has not arrived is what `lines` are then.
    async fn attempt(&mut self, batch: &Batch, lines: &mut Bytes) -> Result<(), Failed> {
        match self {
            Way::Http(http) => http.attempt(batch, lines.clone()).await,
            #[cfg(feature = "kafka")]
            Way::Kafka(kafka) => kafka.attempt(lines).await,
        }
    }
}

/// What the batch that is being sent takes in memory, in bytes: reserved by whoever shares it out.
pub fn held_bytes(shipping: &Shipping) -> u64 {
    let copies = match shipping.receiver {
        Receiver::Http(_) => 1,
        // What has not arrived is gathered while the library has its own copy.
        Receiver::Kafka { .. } => 3,
    };
    copies * shipping.spool.batch_bytes_max()
}

/// Why a batch has not arrived.
enum Failed {
    /// It never will.
    Refused(StatusCode),
    /// It may later, but not before.
    Later { why: String, not_before: Duration },
    /// Who sends it is not known, or not where it is sent to: that is mended, perhaps. Or it is the
    /// batch: what stands before a receiver turns away what looks like an attack.
    Denied { why: String, not_before: Duration },
    /// It may at once: what is sent with it is another now.
    Anew,
}

impl Shipper {
    /// For who receives it as `shipping` says.
    ///
    /// # Errors
    /// Why he cannot be asked.
    pub fn new(spool: Arc<Spool>, shipping: &Shipping) -> Result<Shipper, String> {
        let way = match &shipping.receiver {
            Receiver::Http(url) => Way::Http(Box::new(ByHttp::new(url, shipping)?)),
            #[cfg(feature = "kafka")]
            Receiver::Kafka { brokers, topic } => Way::Kafka(ByKafka::new(brokers, topic)),
            #[cfg(not(feature = "kafka"))]
            Receiver::Kafka { .. } => return Err("this build has no Kafka".to_owned()),
        };
        let (to, pause_max) = (shipping.receiver.name(), PAUSE_MAX);
        Ok(Shipper { spool, to, way, attempts: 0, looks_failed: 0, pause_max })
    }

    /// Ships as [`Shipper::ship`] does until `leaving`, when another process follows: that one has
    /// the lock soon, or does not ship what comes into this folder, and this one goes on. To drop
    /// it midway is as safe.
    pub async fn ship_unless_followed(&mut self, leaving: &CancellationToken) {
        if leaving.run_until_cancelled(self.ship()).await.is_none() {
            self.spool.note_followed(true);
            sleep(FOLLOWED_WITHIN).await;
            self.ship().await;
        }
    }

    /// Ships as long as it is not dropped, which is safe at any time: what was not told to have
    /// arrived waits in the spool.
    pub async fn ship(&mut self) {
        let (mut lock, mut suspicion) = (None, Suspicion::default());
        loop {
            let after = suspicion.after().cloned();
            let Some((held, next)) = self.look(lock, after).await else { return };
            lock = held;
            let Some(TakenBatch { batch, lines }) = next else {
                if !suspicion.lift() {
                    tokio::select! {
                        () = self.spool.arrived.notified(), if lock.is_some() => {}
                        () = sleep(LOOK_AGAIN) => {}
                    }
                }
                continue;
            };
            let is_trial = suspicion.is_tried_by(&batch);
            let outcome = self.deliver(&batch, lines.into(), is_trial).await;
            let went = match suspicion.judge(&batch, outcome) {
                Verdict::Arrived => self.finish(batch, None).await,
                Verdict::Refused => self.finish(batch, Some(Lost::Refused)).await,
                Verdict::Guilty => {
                    self.note_refused(&batch, "time and again, and takes others");
                    self.finish(batch, Some(Lost::Refused)).await
                }
                Verdict::PutAside => true,
                Verdict::DeniedToo => {
                    sleep(self.pause_max).await;
                    true
                }
            };
            if !went {
                sleep(LOOK_AGAIN).await;
            }
        }
    }

    /// The lock of who ships, if it is ours, and the oldest batch, or the first one `after`; `None`
    /// when the process ends.
    async fn look(
        &mut self,
        lock: Option<File>,
        after: Option<Batch>,
    ) -> Option<(Option<File>, Option<TakenBatch>)> {
        let spool = self.spool.clone();
        let look = spawn_blocking(move || {
            let lock = match lock {
                Some(lock) => Ok(Some(lock)),
                None => spool.lock(),
            };
            // Where that cannot be known, nobody is known to ship: it is bounded all the same.
            let is_followed = matches!(lock, Ok(None));
            let (lock, next) = match lock {
                Err(error) => (None, Err(error)),
                Ok(None) => (None, spool.take_over().map(|_| None)),
                Ok(lock) => (lock, spool.take(after.as_ref())),
            };
            (lock, is_followed, next)
        });
        match look.await {
            Ok((lock, is_followed, next)) => {
                self.spool.note_followed(is_followed);
                Some((lock, self.looked(next)))
            }
            Err(error) if error.is_cancelled() => None,
            Err(error) => {
                tracing::error!(%error, "a look for what is to be shipped failed: again soon");
                Some((None, None))
            }
        }
    }

    /// What is sent next, if anything is; a look that failed is told of.
    fn looked(&mut self, next: io::Result<Option<TakenBatch>>) -> Option<TakenBatch> {
        match next {
            Ok(next) => {
                // What could not be read is not what is sent next.
                if mem::take(&mut self.looks_failed) > 0 && next.is_none() {
                    self.spool.note_answer(None);
                }
                next
            }
            Err(error) => {
                self.looks_failed += 1;
                let why = format!("the spool cannot be read: {error}");
                self.spool.note_failing(SystemTime::now(), &why);
                if self.looks_failed.is_power_of_two() {
                    let folder = self.spool.folder().display();
                    tracing::warn!(%folder, %error, "the spool of the log cannot be read");
                }
                None
            }
        }
    }

    /// Sends it until it is known what became of it. `is_trial`: it shows whose fault a denial was,
    /// and is denied but once.
    async fn deliver(&mut self, batch: &Batch, mut lines: Bytes, is_trial: bool) -> Outcome {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSE_MIN)
            .with_max_delay(self.pause_max)
            .without_max_times()
            .with_jitter()
            .build();
        let mut denied = 0_u32;
        loop {
            self.attempts += 1;
            match self.way.attempt(batch, &mut lines).await {
                Ok(()) => {
                    if self.attempts > 1 {
                        let attempts = self.attempts;
                        tracing::info!(attempts, "{} takes the access log again", self.to);
                    }
                    self.attempts = 0;
                    self.spool.note_answer(None);
                    return Outcome::Arrived;
                }
                Err(Failed::Refused(status)) => {
                    self.attempts = 0;
                    self.note_refused(batch, &format!("with {status}"));
                    return Outcome::Refused;
                }
                Err(Failed::Anew) => denied = 0,
                Err(Failed::Later { why, not_before }) => {
                    denied = 0;
                    self.spool.note_failing(SystemTime::now(), &why);
                    let pause = pauses.next().unwrap_or(self.pause_max).max(not_before);
                    self.pause(pause, &why).await;
                }
                Err(Failed::Denied { why, not_before }) => {
                    denied += 1;
                    self.spool.note_failing(SystemTime::now(), &why);
                    let others_wait = self.spool.waiting_lines() > batch.lines;
                    if is_trial || denied >= SHIPPING_DENIALS_MAX && others_wait {
                        self.pause(not_before, &why).await;
                        return Outcome::Denied;
                    }
                    self.pause(self.pause_max.max(not_before), &why).await;
                }
            }
        }
    }

    fn note_refused(&self, batch: &Batch, how: &str) {
        tracing::warn!(
            batch = batch.id,
            lines = batch.lines,
            "{} refused a batch of the access log {how}: it is lost",
            self.to,
        );
        self.spool.note_answer(Some(format!("a batch was refused {how}")));
    }

    /// It has arrived, or is lost; whether its file went.
    async fn finish(&self, batch: Batch, lost: Option<Lost>) -> bool {
        let spool = self.spool.clone();
        let went = spawn_blocking(move || match lost {
            None => spool.shipped(&batch),
            Some(why) => spool.lose(&batch, why),
        });
        // Ended with the process: the batch then waits for the next one.
        went.await.unwrap_or(false)
    }

    async fn pause(&self, pause: Duration, why: &str) {
        if self.attempts.is_power_of_two() {
            let again = duration_about(pause.max(Duration::from_secs(1)));
            tracing::warn!(
                attempts = self.attempts,
                "{} has not taken a batch of the access log: {why}; again in {again}",
                self.to
            );
        }
        sleep(pause).await;
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// So long after a process has left shipping to who follows, that one has the lock.
pub const FOLLOWED_WITHIN: Duration = Duration::from_secs(5);
/// For a batch that another process left, or the lock that it held.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::fs;
    use std::path::Path;
    use std::sync::Mutex;

    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;
    use crate::access_log::SpoolSettings;
    use crate::limits::SHIPPING_TRIALS_MAX;

    /// What arrived at a receiver that answers `status` to what `is_denied`, told how often it has
    /// been asked.
    async fn receiver(
        status: u16,
        mut is_denied: impl FnMut(usize, &str) -> bool + Send + 'static,
    ) -> (http::Uri, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap()).parse().unwrap();
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let (came, mut asked) = (arrived.clone(), 0);
        let judge = Arc::new(Mutex::new(move |text: String| {
            asked += 1;
            if is_denied(asked, &text) {
                return status;
            }
            came.lock().unwrap().push(text);
            204
        }));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let judge = judge.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let judge = judge.clone();
                    async move {
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let status = judge.lock().unwrap()(String::from_utf8_lossy(&body).into());
                        let answer = Response::builder().status(status);
                        Ok::<_, Infallible>(answer.body(Full::<Bytes>::default()).unwrap())
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service);
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        (url, arrived)
    }

    fn line(number: u32) -> String {
        format!("/{number}\n")
    }

    /// A spool where each of the texts waits as a batch of one line.
    fn spool_of(folder: &Path, texts: &[&str]) -> Shipping {
        for (number, text) in texts.iter().enumerate() {
            let (id, bytes) = ("a".repeat(32), text.len());
            let name = format!("{number:013}-{id}-1-{bytes}.ndjson");
            fs::write(folder.join(name), text).unwrap();
        }
        let spool = SpoolSettings {
            folder: folder.to_owned(),
            bytes_max: 1_000,
            batch_bytes: 100,
            batch_period: Duration::from_secs(1),
        };
        let receiver = Receiver::Http(http::Uri::from_static("http://127.0.0.1"));
        Shipping { receiver, fields: Vec::new(), fields_file: None, roots: None, spool }
    }

    /// Ships until nothing waits, with hardly a pause.
    async fn until_nothing_waits(mut shipping: Shipping, url: http::Uri) -> Arc<Spool> {
        shipping.receiver = Receiver::Http(url);
        let spool = Arc::new(Spool::open(&shipping.spool).unwrap());
        let mut shipper = Shipper::new(spool.clone(), &shipping).unwrap();
        shipper.pause_max = Duration::from_millis(1);
        // Not until the folder is empty: a line is counted when its file is gone.
        let (lines, is_known) = (spool.waiting_lines(), || {
            spool.shipped_lines() + spool.lost_lines().iter().map(|(_, lines)| lines).sum::<u64>()
        });
        let nothing_waits = async {
            while is_known() < lines {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let within = Duration::from_secs(60);
        tokio::select! {
            () = shipper.ship() => {}
            () = nothing_waits => {}
            () = sleep(within) => panic!("{:?} wait", spool.take_over()),
        }
        spool
    }

    #[tokio::test]
    async fn a_batch_that_is_denied_for_what_is_in_it_is_lost_and_the_others_arrive() {
        for status in [401, 403, 404] {
            let folder = tempfile::tempdir().unwrap();
            let (url, arrived) = receiver(status, |_, text| text.contains("/etc/passwd")).await;
            let others: Vec<_> = (1..=1 + 2 * SHIPPING_TRIALS_MAX).map(line).collect();
            let mut texts: Vec<_> = others.iter().map(String::as_str).collect();
            texts.splice(1..1, ["/etc/passwd\n", "/?f=/etc/passwd\n"]);
            let spool = until_nothing_waits(spool_of(folder.path(), &texts), url).await;
            assert_eq!(*arrived.lock().unwrap(), others, "{status}");
            assert_eq!(spool.lost_lines(), [("full", 0), ("refused", 2), ("failed", 0)]);
        }
    }

    #[tokio::test]
    async fn a_receiver_that_denies_all_for_long_loses_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let denials = 5 * SHIPPING_DENIALS_MAX as usize;
        let (url, arrived) = receiver(403, move |asked, _| asked <= denials).await;
        let shipping = spool_of(folder.path(), &["/1\n", "/2\n", "/3\n"]);
        let spool = until_nothing_waits(shipping, url).await;
        assert_eq!(arrived.lock().unwrap().len(), 3);
        assert_eq!((spool.shipped_lines(), spool.lost_lines()[1]), (3, ("refused", 0)));
    }

    #[tokio::test]
    async fn the_only_batch_that_waits_is_sent_until_it_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let denials = 3 * SHIPPING_DENIALS_MAX as usize;
        let (url, arrived) = receiver(404, move |asked, _| asked <= denials).await;
        until_nothing_waits(spool_of(folder.path(), &["/1\n"]), url).await;
        assert_eq!(*arrived.lock().unwrap(), ["/1\n"]);
    }

    #[tokio::test]
    async fn a_batch_is_lost_when_it_is_denied_again_and_again_after_others_were_taken() {
        let folder = tempfile::tempdir().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        let (url, _) = receiver(403, move |_, text| {
            heard.lock().unwrap().push(text.to_owned());
            text == "/1\n"
        })
        .await;
        let texts: Vec<_> = (1..=SHIPPING_TRIALS_MAX + 2).map(line).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let spool = until_nothing_waits(spool_of(folder.path(), &texts), url).await;
        assert_eq!(spool.lost_lines()[1], ("refused", 1));
        let mut expected = vec!["/1\n"];
        for other in &texts[1..] {
            expected.extend(["/1\n", *other]);
        }
        assert_eq!(*asked.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn a_batch_that_is_taken_at_last_though_others_were_before_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let (denials, mut denied) = (SHIPPING_DENIALS_MAX + SHIPPING_TRIALS_MAX - 1, 0);
        let (url, arrived) = receiver(404, move |_, text| {
            let is_denied = text == "/1\n" && denied < denials;
            denied += u32::from(is_denied);
            is_denied
        })
        .await;
        let texts: Vec<_> = (1..=SHIPPING_TRIALS_MAX + 1).map(line).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let spool = until_nothing_waits(spool_of(folder.path(), &texts), url).await;
        assert_eq!(arrived.lock().unwrap().len(), texts.len());
        assert_eq!(spool.lost_lines()[1], ("refused", 0));
    }

    #[tokio::test]
    async fn a_batch_that_is_taken_after_another_has_arrived_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let denials = SHIPPING_DENIALS_MAX as usize;
        let (url, arrived) = receiver(401, move |asked, _| asked <= denials).await;
        let shipping = spool_of(folder.path(), &["/1\n", "/2\n", "/3\n"]);
        let spool = until_nothing_waits(shipping, url).await;
        assert_eq!(*arrived.lock().unwrap(), ["/2\n", "/1\n", "/3\n"]);
        assert_eq!((spool.shipped_lines(), spool.lost_lines()[1]), (3, ("refused", 0)));
    }
}
