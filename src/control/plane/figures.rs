//! What a control plane counts, as Prometheus text: who asked what and how it went, how boxes are,
//! what was published and kept. Labels are closed sets; no box or operator is one.

use http::{Method, StatusCode};
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::asks::{Ask, ROUTES, place};
use crate::control::registry::Family;
use crate::control::registry::fleet::{Fleet, Standing};
use crate::control::snapshot::Number;
use crate::control::state::Commits;

/// All of it.
pub(super) struct Figures {
    all: Registry,
    requests: IntCounterVec,
    denied: IntCounterVec,
    appliances: IntGaugeVec,
    published: IntCounter,
    epoch: IntGauge,
    counter: IntGauge,
    age: IntGauge,
    stuck: IntGauge,
    waiting: IntGauge,
}

/// One who waits for a snapshot, as long as he does.
pub(super) struct Waiting(IntGauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What was published last, at one moment.
pub(super) struct Last {
    pub(super) number: Number,
    /// How long ago.
    pub(super) age_seconds: u64,
    /// Whether nothing later can be published.
    pub(super) is_stuck: bool,
}

impl Figures {
    /// All at zero, beside what the state counts.
    pub(super) fn new(commits: &Commits) -> Figures {
        let all = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let one = IntCounterVec::new(Opts::new(name, help), labels).expect(NAMED);
            register(&all, one)
        };
        let gauge =
            |name: &str, help: &str| register(&all, IntGauge::new(name, help).expect(NAMED));
        let requests = counters(
            "tidegate_control_requests_total",
            "Requests answered, by what was asked and the first digit of the status.",
            &["route", "status"],
        );
        for (route, status) in routes().flat_map(|one| CLASSES.map(|class| (one.clone(), class))) {
            requests.with_label_values(&[route.as_str(), status]);
        }
        let denied = counters(
            "tidegate_control_denied_total",
            "Who was refused: unknown by any token or certificate, forbidden what was asked, with \
             a code that does not count, or asking too often.",
            &["reason"],
        );
        REASONS.iter().for_each(|reason| drop(denied.with_label_values(&[reason])));
        let appliances = Opts::new(
            "tidegate_control_appliances",
            "Boxes by how they stand, in each family of addresses that they have.",
        );
        let appliances = IntGaugeVec::new(appliances, &["family", "standing"]).expect(NAMED);
        let published = IntCounter::new(
            "tidegate_control_snapshots_published_total",
            "Snapshots that this control plane has published.",
        );
        commits.collectors().into_iter().for_each(|one| all.register(one).expect(NAMED));
        Figures {
            requests,
            denied,
            appliances: register(&all, appliances),
            published: register(&all, published.expect(NAMED)),
            epoch: gauge("tidegate_control_snapshot_epoch", "Epoch of the last snapshot."),
            counter: gauge("tidegate_control_snapshot_counter", "Its number in that epoch."),
            age: gauge(
                "tidegate_control_snapshot_age_seconds",
                "How long ago the last snapshot was published, whoever did.",
            ),
            stuck: gauge(
                "tidegate_control_snapshot_stuck",
                "1 while a later snapshot cannot be published, 0 otherwise.",
            ),
            waiting: gauge(
                "tidegate_control_snapshot_waiting_requests",
                "Requests that wait for the next snapshot.",
            ),
            all,
        }
    }

    /// One request was answered.
    pub(super) fn answered(&self, method: &Method, path: &str, status: StatusCode) {
        let place = place(method, path);
        let route = place.map_or(OTHER.to_owned(), |place| named(&ROUTES[place]));
        let class = match status.as_u16() {
            ..400 => CLASSES[0],
            400..500 => CLASSES[1],
            _ => CLASSES[2],
        };
        self.requests.with_label_values(&[route.as_str(), class]).inc();
        let is_enrolling = place.is_some_and(|place| ROUTES[place].2 == Ask::Enrol);
        let reason = match status {
            StatusCode::UNAUTHORIZED => REASONS[0],
            StatusCode::FORBIDDEN if is_enrolling => REASONS[2],
            StatusCode::FORBIDDEN => REASONS[1],
            StatusCode::TOO_MANY_REQUESTS => REASONS[3],
            _ => return,
        };
        self.denied.with_label_values(&[reason]).inc();
    }

    /// A snapshot was published here.
    pub(super) fn published(&self) {
        self.published.inc();
    }

    /// Somebody waits for the next one, until what is returned is dropped.
    pub(super) fn waits(&self) -> Waiting {
        self.waiting.inc();
        Waiting(self.waiting.clone())
    }

    /// The text, of one moment.
    pub(super) fn text(&self, fleet: &Fleet, last: &Last) -> String {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for (family, family_word) in Family::ALL.into_iter().zip(["ipv4", "ipv6"]) {
            for (standing, word) in STANDINGS {
                let members = fleet.members().iter();
                let count = members.filter(|one| one.standing(family) == Some(standing)).count();
                let one = self.appliances.with_label_values(&[family_word, word]);
                one.set(signed(count as u64));
            }
        }
        self.epoch.set(signed(last.number.epoch));
        self.counter.set(signed(last.number.counter));
        self.age.set(signed(last.age_seconds));
        self.stuck.set(i64::from(last.is_stuck));
        TextEncoder::new().encode_to_string(&self.all.gather()).expect("each has a name")
    }
}

fn register<C: Collector + Clone + 'static>(all: &Registry, one: C) -> C {
    all.register(Box::new(one.clone())).expect(NAMED);
    one
}

fn routes() -> impl Iterator<Item = String> {
    ROUTES.iter().map(named).chain([OTHER.to_owned()])
}

fn named((method, template, _): &(Method, &str, Ask)) -> String {
    format!("{method} {template}")
}

const NAMED: &str = "each is registered once, with valid names";
/// What there is nothing at.
const OTHER: &str = "other";
const CLASSES: [&str; 3] = ["2xx", "4xx", "5xx"];
const REASONS: [&str; 4] = ["unknown", "forbidden", "code", "rate"];
const STANDINGS: [(Standing, &str); 4] = [
    (Standing::New, "new"),
    (Standing::Well, "well"),
    (Standing::Kept, "kept"),
    (Standing::Ill, "ill"),
];
