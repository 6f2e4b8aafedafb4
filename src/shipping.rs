//! Ships the access log: batch by batch, oldest first, each until it has arrived or is refused.
//!
//! At least once: a batch whose answer was lost is sent again; what is not sent when the process
//! ends waits in the spool for the next one. How a batch is sent, and when it has arrived, says who
//! receives it: by HTTP, or Kafka's brokers (feature `kafka`).

mod by_http;
#[cfg(feature = "kafka")]
mod by_kafka;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use http::StatusCode;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use self::by_http::ByHttp;
#[cfg(feature = "kafka")]
use self::by_kafka::ByKafka;
use crate::access_log::{Batch, Lost, Spool};
use crate::config::units::duration_about;
use crate::config::{Receiver, Shipping};

/// Ships what comes into a spool.
pub struct Shipper {
    spool: Arc<Spool>,
    /// Who receives it, as the log names him.
    to: String,
    way: Way,
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

/// Why a batch has not arrived.
enum Failed {
    /// It never will.
    Refused(StatusCode),
    /// It may later, but not before.
    Later { why: String, not_before: Duration },
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
        Ok(Shipper { spool, to: shipping.receiver.name(), way })
    }

    /// Ships as long as it is not dropped, which is safe at any time: what was not told to have
    /// arrived waits in the spool.
    pub async fn ship(&mut self) {
        let mut lock = None;
        loop {
            let spool = self.spool.clone();
            let look = spawn_blocking(move || {
                let lock = match lock {
                    Some(lock) => Some(lock),
                    None => spool.lock()?,
                };
                spool.take_over()?;
                let next = if lock.is_some() { spool.take()? } else { None };
                io::Result::Ok((lock, next))
            });
            let next = match look.await {
                Ok(Ok((held, next))) => {
                    lock = held;
                    next
                }
                Ok(Err(error)) => {
                    lock = None;
                    tracing::warn!(%error, "the spool of the access log cannot be read");
                    None
                }
                // The process ends.
                Err(error) if error.is_cancelled() => return,
                Err(error) => {
                    lock = None;
                    tracing::error!(%error, "a look for what is to be shipped failed: again soon");
                    None
                }
            };
            match next {
                Some((batch, lines)) => {
                    if !self.deliver(batch, lines.into()).await {
                        sleep(LOOK_AGAIN).await;
                    }
                }
                None => tokio::select! {
                    () = self.spool.arrived.notified(), if lock.is_some() => {}
                    () = sleep(LOOK_AGAIN) => {}
                },
            }
        }
    }

    /// Until it has arrived or is lost; whether its file went then.
    async fn deliver(&mut self, batch: Batch, mut lines: Bytes) -> bool {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(PAUSE_MIN)
            .with_max_delay(PAUSE_MAX)
            .without_max_times()
            .with_jitter()
            .build();
        let mut attempts = 0_u32;
        let lost = loop {
            attempts += 1;
            match self.way.attempt(&batch, &mut lines).await {
                Ok(()) => {
                    self.spool.note_answer(None);
                    break None;
                }
                Err(Failed::Refused(status)) => {
                    tracing::warn!(
                        batch = batch.id,
                        lines = batch.lines,
                        "{} refused a batch of the access log with {status}: it is lost",
                        self.to,
                    );
                    self.spool.note_answer(Some(format!("a batch was refused with {status}")));
                    break Some(Lost::Refused);
                }
                Err(Failed::Anew) => {}
                Err(Failed::Later { why, not_before }) => {
                    self.spool.note_failing(SystemTime::now(), &why);
                    let pause = pauses.next().unwrap_or(PAUSE_MAX).max(not_before);
                    self.pause(attempts, pause, &why).await;
                }
            }
        };
        if lost.is_none() && attempts > 1 {
            tracing::info!(attempts, "{} takes the access log again", self.to);
        }
        let spool = self.spool.clone();
        let went = spawn_blocking(move || match lost {
            None => spool.shipped(&batch),
            Some(why) => spool.lose(&batch, why),
        });
        // Ended with the process: the batch then waits for the next one.
        went.await.unwrap_or(false)
    }

    async fn pause(&self, attempts: u32, pause: Duration, why: &str) {
        if attempts.is_power_of_two() {
            let again = duration_about(pause.max(Duration::from_secs(1)));
            tracing::warn!(
                attempts,
                "{} has not taken a batch of the access log: {why}; again in {again}",
                self.to
            );
        }
        sleep(pause).await;
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// For a batch that another process left, or the lock that it held.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
