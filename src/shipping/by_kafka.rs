//! Sends a batch to Kafka: each line is a message of its own, without a key, as JSON.
//!
//! It has arrived when all replicas in sync have acknowledged each message. What they have not is
//! sent again with the next attempt. The producer is idempotent: what the library sends again in an
//! attempt, because an acknowledgement was lost, is kept once. Nothing is refused for good: what
//! brokers will not have (no such topic, messages too large, no right to write) an operator mends.
//!
//! Connections are plain: the library's TLS is OpenSSL, which is not linked.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::Failed;
use crate::limits::SHIPPING_BATCH_BYTES_MAX;

type Producer = ThreadedProducer<Reports>;

/// A topic that lines are sent to.
pub(super) struct ByKafka {
    config: ClientConfig,
    topic: Arc<str>,
    /// The one that brought all of the batch before. After any failure the next is made anew: one
    /// that brokers have forgotten (they are others now, or lost what they had) never gets on.
    producer: Option<Producer>,
}

impl ByKafka {
    pub(super) fn new(brokers: &[String], topic: &str) -> ByKafka {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers.join(","))
            .set("client.id", "tidegate")
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.codec", "lz4")
            .set("message.timeout.ms", MESSAGE_WITHIN.as_millis().to_string())
            .set("topic.metadata.propagation.max.ms", TOPIC_WITHIN.as_millis().to_string())
            // Room for twice the largest batch, of however many lines: no message is turned away,
            // and no more wait.
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", (SHIPPING_BATCH_BYTES_MAX >> 9).to_string());
        ByKafka { config, topic: topic.into(), producer: None }
    }

    /// Sends them; what has not arrived is what `lines` are then.
    ///
    /// Dropped midway it is as if nothing had arrived.
    pub(super) async fn attempt(&mut self, lines: &mut Bytes) -> Result<(), Failed> {
        let (config, topic, sent) = (self.config.clone(), self.topic.clone(), lines.clone());
        let producer = self.producer.take();
        let stop = CancellationToken::new();
        let _dropped = stop.clone().drop_guard();
        let sending = spawn_blocking(move || {
            let producer = match producer {
                Some(producer) => producer,
                None => config.create_with_context(Reports::default())?,
            };
            Ok::<_, KafkaError>(match send(&producer, &topic, &sent, &stop) {
                None => Ok(producer),
                Some(left) => Err(left),
            })
        });
        let why = match sending.await {
            Ok(Ok(Ok(producer))) => {
                self.producer = Some(producer);
                return Ok(());
            }
            Ok(Ok(Err(left))) => {
                *lines = left.lines;
                left.why
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        Err(Failed::Later { why, not_before: Duration::ZERO })
    }
}

impl Drop for ByKafka {
    /// Who ends a producer waits for its threads: not a worker.
    fn drop(&mut self) {
        if let Some(producer) = self.producer.take() {
            let _ = thread::Builder::new().spawn(move || drop(producer));
        }
    }
}

/// What of a batch has not arrived.
struct Left {
    lines: Bytes,
    why: String,
}

/// Sends each line, and waits until it is known what became of all; blocks.
fn send(producer: &Producer, topic: &str, text: &Bytes, stop: &CancellationToken) -> Option<Left> {
    let reports = producer.client().context();
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    reports.begin(lines.len());
    for (number, line) in lines.iter().enumerate() {
        let message = line.strip_suffix(b"\n").unwrap_or(line);
        let record = BaseRecord::<(), [u8], usize>::with_opaque_to(topic, number).payload(message);
        if let Err((error, _)) = producer.send(record) {
            reports.tell(number, Some(&error));
        }
    }
    let Some((mut missed, why)) = reports.outcome(stop) else {
        return Some(Left { lines: text.clone(), why: "the process ends".to_owned() });
    };
    missed.sort_unstable();
    let left: Vec<&[u8]> = missed.iter().map(|number| lines[*number]).collect();
    (!left.is_empty()).then(|| Left { lines: left.concat().into(), why })
}

/// What was said of an attempt's messages; the library's thread tells it.
#[derive(Default)]
struct Reports {
    told: Mutex<Told>,
    came: Condvar,
}

#[derive(Default)]
struct Told {
    /// How many messages nothing was said of yet.
    awaited: usize,
    /// The lines that have not arrived.
    missed: Vec<usize>,
    /// Why one of them has not.
    error: Option<KafkaError>,
    /// What was last wrong with a broker.
    trouble: Option<String>,
}

impl Reports {
    fn begin(&self, messages: usize) {
        *self.told() = Told { awaited: messages, ..Told::default() };
    }

    /// It is known what became of a line.
    fn tell(&self, number: usize, error: Option<&KafkaError>) {
        let mut told = self.told();
        told.awaited = told.awaited.saturating_sub(1);
        if let Some(error) = error {
            told.missed.push(number);
            told.error = Some(error.clone());
        }
        if told.awaited == 0 {
            self.came.notify_all();
        }
    }

    /// The lines that have not arrived, and why, when it is known of all; `None` if `stop` comes
    /// first.
    fn outcome(&self, stop: &CancellationToken) -> Option<(Vec<usize>, String)> {
        let mut told = self.told();
        while told.awaited > 0 {
            if stop.is_cancelled() {
                return None;
            }
            let waited = self.came.wait_timeout(told, LOOK_AGAIN);
            told = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let why = why(told.error.as_ref(), told.trouble.as_deref());
        Some((mem::take(&mut told.missed), why))
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Reports {
    fn log(&self, _: RDKafkaLogLevel, _: &str, text: &str) {
        tracing::debug!("of Kafka: {text}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "of Kafka: {reason}");
        // That all are unreachable tells less than why one is.
        if error.rdkafka_error_code() != Some(Code::AllBrokersDown) {
            self.told().trouble = Some(reason.to_owned());
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        self.tell(number, result.as_ref().err().map(|(error, _)| error));
    }
}

/// In words, with what to look at where an operator can mend it.
fn why(error: Option<&KafkaError>, trouble: Option<&str>) -> String {
    let code = error.and_then(KafkaError::rdkafka_error_code);
    let text = match (code, error) {
        (Some(code), _) => code.to_string(),
        (None, error) => error.map_or_else(String::new, KafkaError::to_string),
    };
    match code {
        Some(
            Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::InvalidTopic
            | Code::TopicAuthorizationFailed,
        ) => format!("{text}; look at the topic in `log.ship.url`"),
        Some(Code::MessageSizeTooLarge) => {
            format!("{text}; let the topic take messages of a megabyte (`max.message.bytes`)")
        }
        _ => trouble.map_or_else(|| text.clone(), |trouble| format!("{text}: {trouble}")),
    }
}

/// How long a message is waited for; then it is sent anew.
const MESSAGE_WITHIN: Duration = Duration::from_secs(10);
/// How long a topic that nobody knows may still be new.
const TOPIC_WITHIN: Duration = Duration::from_secs(5);
/// For the end of the process.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    /// The library's own broker of tests, which answers what is produced with `errors` first.
    /// `cargo nextest run --features kafka --lib` runs these; `tests/kafka.sh` has a real one.
    fn answering(
        errors: &[RDKafkaRespErr],
    ) -> (MockCluster<'static, DefaultProducerContext>, ByKafka) {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("access", 1, 1).unwrap();
        cluster.request_errors(RDKafkaApiKey::Produce, errors);
        let kafka = ByKafka::new(&[cluster.bootstrap_servers()], "access");
        (cluster, kafka)
    }

    #[tokio::test]
    async fn what_a_broker_will_not_have_is_what_is_left_and_arrives_when_it_will() {
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        let (_cluster, mut kafka) = answering(&[refused]);
        let mut lines = Bytes::from_static(b"{1}\n{2}\n");
        let attempt = kafka.attempt(&mut lines).await;
        let Err(Failed::Later { why, .. }) = attempt else { panic!("it was refused") };
        assert!(
            why.ends_with("authorization failed); look at the topic in `log.ship.url`"),
            "{why}"
        );
        assert_eq!(lines, "{1}\n{2}\n");
        assert!(kafka.attempt(&mut lines).await.is_ok());
    }

    #[tokio::test]
    async fn what_too_few_replicas_have_is_asked_for_again() {
        let too_few = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
        let (_cluster, mut kafka) = answering(&[too_few, too_few]);
        let mut lines = Bytes::from_static(b"{1}\n{2}\n");
        assert!(kafka.attempt(&mut lines).await.is_ok());
    }

    #[test]
    fn only_lines_that_did_not_arrive_are_left_and_only_when_all_is_known() {
        let reports = Reports::default();
        let error = KafkaError::MessageProduction(Code::MessageTimedOut);
        reports.begin(3);
        reports.tell(2, Some(&error));
        reports.tell(1, None);
        let stopped = CancellationToken::new();
        stopped.cancel();
        assert_eq!(reports.outcome(&stopped), None);
        reports.error(KafkaError::Global(Code::BrokerTransportFailure), "refused");
        reports.error(KafkaError::Global(Code::AllBrokersDown), "1/1 are down");
        reports.tell(0, Some(&error));
        let why = "MessageTimedOut (Local: Message timed out): refused".to_owned();
        assert_eq!(reports.outcome(&stopped), Some((vec![2, 0], why)));
    }
}
