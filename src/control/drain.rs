//! A drain on purpose: `POST /drain` and `POST /undrain`, and what follows from them when.
//!
//! Viewers are told elsewhere first, refused at the end, and cut off at the bound; then nothing is
//! lost by switching the machine off. The clock and the viewers' number are arguments.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::asking::{AskedBody, Said, body_of, refusal};
use crate::limits::{DRAIN_REQUEST_BYTES_MAX, DRAIN_WITHIN_MAX};
use crate::moment::{Moment, unix_seconds};

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// When it begins; `None`: now.
    pub begins: Option<SystemTime>,
    /// How long viewers have from then on, until they are cut off.
    pub within: Duration,
    /// How long it lasts; `None`: until somebody says that it is over.
    pub lasts: Option<Duration>,
}

/// How far a drain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It has not begun.
    Planned,
    /// Load balancers are told, and viewers with each answer; who comes is served.
    Leaving,
    /// Who comes is refused; bodies under way go on.
    Refusing,
    /// The time is over: what is left is cut.
    Cutting,
    /// Nobody is served.
    Drained,
    /// Viewers are wanted again.
    Over,
}

impl Stage {
    /// Those that last.
    pub const TOLD: [Stage; 5] =
        [Stage::Planned, Stage::Leaving, Stage::Refusing, Stage::Cutting, Stage::Drained];

    /// One word for it.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Planned => "planned",
            Stage::Leaving => "leaving",
            Stage::Refusing => "refusing",
            Stage::Cutting => "cutting",
            Stage::Drained => "drained",
            Stage::Over => "over",
        }
    }
}

/// A drain, from its plan to its end.
#[derive(Clone, Debug)]
pub struct Drain {
    begins: SystemTime,
    ends: Option<SystemTime>,
    within: Duration,
    /// The last part of `within`.
    refusing: Duration,
    began: Option<Instant>,
    quiet_since: Option<Instant>,
    stage: Stage,
}

impl Drain {
    /// As planned; bodies under way have `refusing` at the end.
    pub fn new(plan: Plan, refusing: Duration, now: SystemTime) -> Drain {
        let begins = plan.begins.unwrap_or(now);
        Drain {
            begins,
            ends: plan.lasts.map(|lasts| begins + lasts),
            within: plan.within,
            refusing: refusing.min(plan.within),
            began: None,
            quiet_since: None,
            stage: Stage::Planned,
        }
    }

    /// This one in the place of `before`, which goes on from where it is.
    pub fn in_place_of(self, before: &Drain) -> Drain {
        match before.has_begun() {
            true => Drain { began: before.began, stage: before.stage, ..self },
            false => self,
        }
    }

    /// Whether viewers are told already.
    pub fn has_begun(&self) -> bool {
        self.stage > Stage::Planned
    }

    /// How far it has come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Goes one stage further if it is time, with so many viewers connected; the stage now.
    pub fn step(&mut self, now: Moment, connections: u64) -> Stage {
        if self.ends.is_some_and(|ends| now.time >= ends) {
            self.stage = Stage::Over;
            return self.stage;
        }
        match connections {
            0 => _ = self.quiet_since.get_or_insert(now.instant),
            _ => self.quiet_since = None,
        }
        let quiet = self.quiet_since.map_or(Duration::ZERO, |since| now.instant - since);
        let taken = self.began.map_or(Duration::ZERO, |began| now.instant - began);
        let left = self.within.saturating_sub(taken);
        self.stage = match self.stage {
            Stage::Planned if now.time >= self.begins => {
                self.began = Some(now.instant);
                // Of the time before nobody was told yet.
                self.quiet_since = None;
                Stage::Leaving
            }
            Stage::Leaving if left <= self.refusing || quiet >= QUIET => Stage::Refusing,
            Stage::Refusing if connections == 0 => Stage::Drained,
            Stage::Refusing if left.is_zero() => Stage::Cutting,
            Stage::Cutting if connections == 0 || taken >= self.within + CUT_WITHIN => {
                Stage::Drained
            }
            stage => stage,
        };
        self.stage
    }

    /// What is told of it.
    pub fn status(&self, now: Moment) -> DrainStatus {
        let begins = match self.began {
            Some(began) => now.time.checked_sub(now.instant - began).unwrap_or(now.time),
            None => self.begins,
        };
        DrainStatus {
            stage: self.stage.word(),
            begins_at: unix_seconds(begins),
            refuses_at: unix_seconds(begins + (self.within - self.refusing)),
            cuts_at: unix_seconds(begins + self.within),
            ends_at: self.ends.map(unix_seconds),
            safe_to_power_off: self.stage == Stage::Drained,
        }
    }
}

/// A drain as it is told; times in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DrainStatus {
    /// The word of its stage.
    pub stage: &'static str,
    /// When viewers are, or were first, told to leave.
    pub begins_at: u64,
    /// When who comes is refused, at the latest.
    pub refuses_at: u64,
    /// When what is left is cut off.
    pub cuts_at: u64,
    /// When viewers are wanted again, if that is planned.
    pub ends_at: Option<u64>,
    /// Nobody is served: nothing is lost by switching the machine off.
    pub safe_to_power_off: bool,
}

/// Why a drain cannot be planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// It drains already, and was to begin at another time.
    HasBegun,
    /// Another process is taking over, and would not know of it.
    Upgrading,
}

/// Takes a plan, or with `None` what was planned back; what there is then.
pub type Planning =
    Box<dyn Fn(Option<Plan>) -> Result<Option<DrainStatus>, PlanError> + Send + Sync>;

/// Plans drains.
pub struct Drainer {
    /// Who does it.
    pub planning: Planning,
}

/// `POST /drain`, as it is written; without a body all of it is missing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DrainRequest {
    within_seconds: Option<u64>,
    for_seconds: Option<u64>,
    at_unix_seconds: Option<u64>,
}

impl Drainer {
    /// Plans one, or takes back what was planned. Dropping it midway is safe.
    pub(super) async fn drain<B: AskedBody>(&self, request: Request<B>) -> Result<Said, Said> {
        let is_drain = request.uri().path() == "/drain";
        let plan = match is_drain {
            true if request.uri().query().is_some() => {
                let text = "what it is to do stands in the body, as JSON, and not behind a `?`";
                return Err(refusal(StatusCode::BAD_REQUEST, text));
            }
            true => {
                let body = body_of(request.into_body(), DRAIN_REQUEST_BYTES_MAX).await?;
                Some(
                    planned(&body, SystemTime::now())
                        .map_err(|fault| refusal(StatusCode::BAD_REQUEST, &fault))?,
                )
            }
            false => None,
        };
        let drain = (self.planning)(plan).map_err(|error| {
            let text = match error {
                PlanError::HasBegun => {
                    "it drains already: `tidegate undrain` first, or give no time to begin at"
                }
                PlanError::Upgrading => {
                    "another process is taking over, which would not know of it: try again in a \
                     moment"
                }
            };
            refusal(StatusCode::CONFLICT, text)
        })?;
        Ok((StatusCode::OK, json!({ "drain": drain })))
    }
}

/// What a request asks for, or what is wrong with it.
fn planned(body: &[u8], now: SystemTime) -> Result<Plan, String> {
    let asked: DrainRequest = match body {
        [] => DrainRequest::default(),
        body => serde_json::from_slice(body).map_err(|fault| {
            format!(
                "{fault}; write {{\"within_seconds\": 600, \"for_seconds\": 10800, \
                 \"at_unix_seconds\": 1767225600}}, or nothing of it"
            )
        })?,
    };
    let within = asked.within_seconds.map_or(WITHIN, Duration::from_secs);
    if within > DRAIN_WITHIN_MAX {
        return Err(format!("viewers have {} at most", in_words(DRAIN_WITHIN_MAX)));
    }
    let lasts = asked.for_seconds.map(Duration::from_secs);
    if lasts.is_some_and(|lasts| lasts <= within) {
        return Err(format!(
            "it would be over before the {} are that viewers have: give more, or them fewer",
            in_words(within)
        ));
    }
    let begins = match asked.at_unix_seconds {
        None => None,
        Some(at) => {
            let at = UNIX_EPOCH.checked_add(Duration::from_secs(at));
            let at = at.filter(|at| *at <= now + PLANNED_AHEAD_MAX);
            Some(at.ok_or("that is more than a year from now")?)
        }
    };
    if begins.is_some_and(|begins| begins < now) {
        return Err("that time is over".to_owned());
    }
    if lasts.is_some_and(|lasts| lasts > PLANNED_AHEAD_MAX) {
        return Err("that is more than a year".to_owned());
    }
    Ok(Plan { begins, within, lasts })
}

/// In the largest unit that leaves a whole number.
fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds > 0 && seconds.is_multiple_of(3_600) => {
            format!("{} hours", seconds / 3_600)
        }
        seconds if seconds > 0 && seconds.is_multiple_of(60) => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} seconds"),
    }
}

/// What viewers have if nothing is said: some segments' time, and a load balancer's to notice.
const WITHIN: Duration = Duration::from_secs(600);
/// Who comes through a load balancer comes within that.
const QUIET: Duration = Duration::from_secs(10);
/// What is cut is gone by then.
const CUT_WITHIN: Duration = Duration::from_secs(2);
const PLANNED_AHEAD_MAX: Duration = Duration::from_secs(366 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn plan(begins: Option<SystemTime>, lasts: Option<Duration>) -> Plan {
        Plan { begins, within: Duration::from_secs(600), lasts }
    }

    /// Steps a drain through moments, each with the viewers there are then; the stages after each.
    fn steps(plan: Plan, moments: &[(u64, u64)]) -> Vec<&'static str> {
        let start = Moment { time: UNIX_EPOCH + HOUR * 10_000, instant: Instant::now() };
        let mut drain = Drain::new(plan, Duration::from_secs(30), start.time);
        let mut step = |&(seconds, connections): &(u64, u64)| {
            let later = Duration::from_secs(seconds);
            let now = Moment { time: start.time + later, instant: start.instant + later };
            drain.step(now, connections).word()
        };
        moments.iter().map(&mut step).collect()
    }

    #[test]
    fn viewers_are_told_then_refused_then_cut_and_the_time_is_theirs() {
        let moments = [(0, 9), (1, 9), (569, 9), (570, 9), (599, 9), (600, 9), (601, 9), (602, 9)];
        assert_eq!(
            steps(plan(None, None), &moments),
            [
                "leaving", "leaving", "leaving", "refusing", "refusing", "cutting", "cutting",
                "drained"
            ]
        );
        let left_early = [(0, 9), (100, 0), (105, 1), (106, 0), (115, 0), (116, 0), (117, 0)];
        assert_eq!(
            steps(plan(None, None), &left_early),
            ["leaving", "leaving", "leaving", "leaving", "leaving", "refusing", "drained"],
            "only when nobody has come for a while"
        );
        let ended = [(0, 9), (590, 1), (591, 0), (9_000, 3)];
        let expected = ["leaving", "refusing", "drained", "drained"];
        assert_eq!(steps(plan(None, None), &ended), expected, "who is refused is connected too");
    }

    #[test]
    fn a_drain_begins_and_ends_when_it_is_planned() {
        let begins = UNIX_EPOCH + HOUR * 10_001;
        let moments = [(0, 9), (3_599, 0), (3_600, 0), (3_605, 0), (3_615, 0), (3_616, 0)];
        assert_eq!(
            steps(plan(Some(begins), None), &moments),
            ["planned", "planned", "leaving", "leaving", "refusing", "drained"]
        );
        let moments = [(0, 9), (595, 0), (596, 0), (7_199, 0), (7_200, 0)];
        assert_eq!(
            steps(plan(None, Some(2 * HOUR)), &moments),
            ["leaving", "refusing", "drained", "drained", "over"]
        );
    }

    #[test]
    fn another_plan_goes_on_from_where_the_one_before_is() {
        let now = Moment::now();
        let refusing = Duration::from_secs(30);
        let mut before = Drain::new(plan(None, None), refusing, now.time);
        before.step(now, 1);
        let longer = Plan { within: HOUR, ..plan(None, Some(3 * HOUR)) };
        let later = Moment { time: now.time + HOUR / 2, instant: now.instant + HOUR / 2 };
        let mut drain = Drain::new(longer, refusing, later.time).in_place_of(&before);
        assert_eq!(drain.step(later, 1), Stage::Leaving);
        let status = drain.status(later);
        assert_eq!(status.cuts_at - status.begins_at, 3_600);
        assert_eq!(status.ends_at.map(|ends| ends - status.begins_at), Some(12_600));
    }

    #[test]
    fn what_is_asked_for_is_read_or_told_why_not() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let asked = br#"{"within_seconds": 5, "for_seconds": 9, "at_unix_seconds": 1001}"#;
        let (begins, within) = (Some(now + Duration::from_secs(1)), Duration::from_secs(5));
        let lasts = Some(Duration::from_secs(9));
        assert_eq!(planned(asked, now), Ok(Plan { begins, within, lasts }));
        assert_eq!(planned(b"", now), Ok(Plan { begins: None, within: WITHIN, lasts: None }));
        for (wrong, why) in [
            (&br#"{"within": 5}"#[..], "unknown field `within`"),
            (b"[", "EOF"),
            (br#"{"within_seconds": 86401}"#, "viewers have 24 hours at most"),
            (br#"{"for_seconds": 600}"#, "it would be over before the 10 minutes are"),
            (br#"{"at_unix_seconds": 999}"#, "that time is over"),
            (br#"{"at_unix_seconds": 18446744073709551615}"#, "more than a year from now"),
            (br#"{"for_seconds": 18446744073709551615}"#, "more than a year"),
        ] {
            let told = planned(wrong, now).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
