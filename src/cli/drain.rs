//! `tidegate drain` and `tidegate undrain`: sends viewers elsewhere, and takes them again.
//!
//! Asks the admin listener; the appliance goes on by itself, whether somebody waits or not.

use std::io::{Write as _, stderr};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::json;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, Time, UtcOffset};

use super::admin::{ANSWER_WITHIN, Reach, understood};
use super::volume::progress::{is_drawn, leaving};
use super::{Failure, duration, print};
use crate::config::units::{counted, duration_about};
use crate::moment::unix_seconds;

const EXAMPLES: &str = "\
Examples:
  tidegate drain --wait
  tidegate drain --within 30m --for 3h
  tidegate drain --at 02:30 --for 3h
  tidegate drain --at 2026-12-24T02:30:00+01:00 --json
  tidegate drain --admin http://edge-7.example.com:9180 --token-file token
  tidegate undrain

From then on /health/ready says 503, so that load balancers and steering send viewers elsewhere, and
each answer asks its viewer to connect anew. Who comes all the same is served until the last part of
the time, `limits.drain_timeout` of the configuration, and then refused with 503. What still runs at
the end of it is cut. When who comes is refused and nobody is connected any more it is drained: safe
to power off. Where nobody needs time, --within 30s refuses from the beginning. A restart ends a
drain; the appliance serves then.

While --wait waits, standard error tells how far it is and how many viewers are left: a bar on a
terminal; anywhere else, and with --json, a line at once, at each change and every 30 seconds.

Exit codes: 0 it drains (with --wait: it is drained), 1 not, 64 misused";

/// Send viewers elsewhere, until nobody is served
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// How long viewers have to leave; 10m where this is not said
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    within: Option<Duration>,
    /// Serve viewers again after this time, counted from the beginning
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    lasts: Option<Duration>,
    /// Begin then: 02:30, by this machine's clock, or 2026-12-24T02:30:00Z
    #[arg(long, value_name = "TIME", value_parser = time_of)]
    at: Option<OffsetDateTime>,
    /// Wait until it is drained; interrupted, it goes on draining
    #[arg(long)]
    wait: bool,
    /// Print what is planned as JSON: times in seconds since 1970
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

const BACK_EXAMPLES: &str = "\
Examples:
  tidegate undrain
  tidegate undrain --json

Takes back a drain that is planned, under way or done.

Exit codes: 0 viewers are served, 1 not, 64 misused";

/// Serve viewers again
#[derive(Debug, clap::Args)]
#[command(after_help = BACK_EXAMPLES)]
pub(super) struct BackArgs {
    /// Print what the appliance says, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// A drain, as it is told.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    stage: String,
    begins_at: u64,
    refuses_at: u64,
    cuts_at: u64,
    ends_at: Option<u64>,
}

/// What a status tells of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
    connections: u64,
    drain: Option<Told>,
}

/// Has it drained, and waits if that is wanted.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let asked = json!({
        "within_seconds": args.within.map(|within| within.as_secs()),
        "for_seconds": args.lasts.map(|lasts| lasts.as_secs()),
        "at_unix_seconds": args.at.map(OffsetDateTime::unix_timestamp),
    });
    let done = args.reach.post("/drain", asked.to_string(), ANSWER_WITHIN)?;
    match done.status {
        StatusCode::OK => {}
        StatusCode::BAD_REQUEST => {
            let (Failure::Failed(why) | Failure::Misused(why)) = done.failure("not drained");
            return Err(Failure::Misused(why));
        }
        _ => return Err(done.failure("not drained")),
    }
    let now = unix_seconds(SystemTime::now());
    match (args.json, serde_json::from_value::<Told>(done.said["drain"].clone())) {
        (false, Ok(told)) => print(&format!("{}\n", told.in_words(now)))?,
        _ => print(&format!("{}\n", done.said))?,
    }
    if args.wait { wait(args) } else { Ok(()) }
}

/// Has it serve again; what is to be printed.
pub(super) fn take_back(args: &BackArgs) -> Result<String, Failure> {
    let done = args.reach.post("/undrain", "", ANSWER_WITHIN)?;
    match done.status {
        StatusCode::OK if args.json => Ok(format!("{}\n", done.said)),
        StatusCode::OK => Ok("viewers are served\n".to_owned()),
        _ => Err(done.failure("not taken back")),
    }
}

/// Until it is drained.
fn wait(args: &Args) -> Result<(), Failure> {
    let (mut bar, mut spoken): (Option<ProgressBar>, Spoken) = Default::default();
    loop {
        let status: Status = understood(&args.reach.status()?)?;
        match status.phase.as_str() {
            "drained" => break,
            "draining" => show(bar.get_or_insert_with(|| leaving(args.json)), status.connections),
            _ if status.drain.is_some() => {}
            phase => {
                return Err(Failure::Failed(format!(
                    "not drained: it was taken back, the appliance is {phase}"
                )));
            }
        }
        if !is_drawn(args.json) && spoken.is_due(status.stage(), Instant::now()) {
            // Who listens no longer is no failure: it drains all the same.
            let _ = writeln!(stderr(), "{}", status.in_words(unix_seconds(SystemTime::now())));
        }
        sleep(ASKED_EVERY);
    }
    bar.inspect(ProgressBar::finish_and_clear);
    match args.json {
        true => Ok(()),
        false => print("drained: safe to power off\n"),
    }
}

/// Of as many viewers as there were at most.
fn show(bar: &ProgressBar, left: u64) {
    let most = bar.length().unwrap_or_default().max(left);
    bar.set_length(most);
    bar.set_position(most - left);
    bar.set_message(match most {
        0 => NOBODY.to_owned(),
        _ => format!("{} of {most} viewers have left", most - left),
    });
}

/// What was said last where no bar is drawn.
#[derive(Default)]
struct Spoken {
    stage: String,
    at: Option<Instant>,
}

impl Spoken {
    /// Whether something is to be said again: at once, when the stage is another, now and then.
    fn is_due(&mut self, stage: &str, now: Instant) -> bool {
        let is_late = self.at.is_none_or(|at| now.duration_since(at) >= TOLD_EVERY);
        let is_due = is_late || self.stage != stage;
        if is_due {
            *self = Spoken { stage: stage.to_owned(), at: Some(now) };
        }
        is_due
    }
}

impl Status {
    /// Of a drain without one the appliance itself stops.
    fn stage(&self) -> &str {
        self.drain.as_ref().map_or("", |drain| &drain.stage)
    }

    /// In a line: how far it is, until when, and how many are left.
    fn in_words(&self, now: u64) -> String {
        let far = match &self.drain {
            Some(drain) => drain.in_words(now),
            None => "draining: the appliance stops".to_owned(),
        };
        match self.connections {
            0 => format!("{far}; {NOBODY}"),
            left => format!("{far}; {} left", counted(left, "viewer")),
        }
    }
}

impl Told {
    /// In a line.
    pub(super) fn in_words(&self, now: u64) -> String {
        let left = |until: u64| duration_about(Duration::from_secs(until.saturating_sub(now)));
        let mut words = match self.stage.as_str() {
            "planned" => format!(
                "planned: in {} viewers are told to leave, and have {} for it",
                left(self.begins_at),
                duration_about(Duration::from_secs(self.cuts_at.saturating_sub(self.begins_at))),
            ),
            "leaving" => format!(
                "draining: viewers are told to leave; who comes is refused {}, what is left is cut \
                 in {}",
                match self.refuses_at > now {
                    true => format!("in {}", left(self.refuses_at)),
                    false => "from now on".to_owned(),
                },
                left(self.cuts_at),
            ),
            "refusing" => {
                format!(
                    "draining: who comes is refused; what is left is cut in {}",
                    left(self.cuts_at)
                )
            }
            "cutting" => "draining: the time is over, what is left is cut now".to_owned(),
            "drained" => "drained: safe to power off".to_owned(),
            stage => format!("draining: {stage}"),
        };
        if let Some(ends) = self.ends_at {
            words += &format!("; viewers are served again in {}", left(ends));
        }
        words
    }
}

/// A time of day is the next one, by this machine's clock.
fn time_of(text: &str) -> Result<OffsetDateTime, String> {
    let offset = UtcOffset::current_local_offset();
    next(text, OffsetDateTime::now_utc(), offset.ok())
}

fn next(
    text: &str,
    now: OffsetDateTime,
    local: Option<UtcOffset>,
) -> Result<OffsetDateTime, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    let time = Time::parse(text, format_description!("[hour]:[minute]"));
    let time = time.map_err(|_| "write 02:30, or 2026-12-24T02:30:00Z".to_owned())?;
    let local = local.ok_or("nobody knows this machine's time zone: write 2026-12-24T02:30:00Z")?;
    let today = now.to_offset(local).replace_time(time);
    Ok(if today > now { today } else { today + time::Duration::DAY })
}

const ASKED_EVERY: Duration = Duration::from_millis(500);
/// Where no bar is drawn.
const TOLD_EVERY: Duration = Duration::from_secs(30);
const NOBODY: &str = "nobody is there";

#[cfg(test)]
mod tests {
    use time::macros::{datetime, offset};

    use super::*;

    #[test]
    fn a_time_of_day_is_the_next_one_and_a_date_is_itself() {
        let now = datetime!(2026-11-22 16:30 UTC);
        for (text, expected) in [
            ("02:30", datetime!(2026-11-23 02:30 +1)),
            ("17:29", datetime!(2026-11-23 17:29 +1)),
            ("17:31", datetime!(2026-11-22 17:31 +1)),
            ("2026-12-24T02:30:00Z", datetime!(2026-12-24 02:30 UTC)),
        ] {
            assert_eq!(next(text, now, Some(offset!(+1))).unwrap(), expected, "{text}");
        }
        assert!(next("02:30", now, None).is_err(), "no zone is known");
        for wrong in ["2:3", "tomorrow", "25:00", "2026-12-24", ""] {
            assert!(next(wrong, now, Some(offset!(+1))).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_drain_is_told_in_a_line() {
        let told = |stage: &str, ends_at| {
            let stage = stage.to_owned();
            Told { stage, begins_at: 7_200, refuses_at: 7_770, cuts_at: 7_800, ends_at }
        };
        for (told, now, expected) in [
            (
                told("planned", None),
                0,
                "planned: in 2h 0m viewers are told to leave, and have 10m 0s for it",
            ),
            (
                told("leaving", Some(18_000)),
                7_200,
                "draining: viewers are told to leave; who comes is refused in 9m 30s, what is left \
                 is cut in 10m 0s; viewers are served again in 3h 0m",
            ),
            (
                told("leaving", None),
                7_770,
                "draining: viewers are told to leave; who comes is refused from now on, what is \
                 left is cut in 30s",
            ),
            (told("drained", None), 9_000, "drained: safe to power off"),
        ] {
            assert_eq!(told.in_words(now), expected);
        }
    }

    #[test]
    fn where_no_bar_is_drawn_each_change_is_told_at_once_and_how_it_is_every_half_minute() {
        let (mut spoken, began) = (Spoken::default(), Instant::now());
        let told = [
            (0, "leaving"),
            (1, "leaving"),
            (29, "leaving"),
            (30, "leaving"),
            (59, "leaving"),
            (59, "refusing"),
            (88, "refusing"),
            (89, "refusing"),
        ];
        let later = |seconds| began + Duration::from_secs(seconds);
        let told = told.map(|(seconds, stage)| spoken.is_due(stage, later(seconds)));
        assert_eq!(told, [true, false, false, true, false, true, false, true]);
    }

    #[test]
    fn how_many_are_left_is_told_and_that_nobody_is_there() {
        let status = |connections, drain| Status { phase: String::new(), connections, drain };
        let told = |stage: &str| {
            let (stage, cuts_at) = (stage.to_owned(), 90);
            Some(Told { stage, cuts_at, ..Told::default() })
        };
        for (status, expected) in [
            (
                status(12, told("refusing")),
                "draining: who comes is refused; what is left is cut in 30s; 12 viewers left",
            ),
            (
                status(1, told("cutting")),
                "draining: the time is over, what is left is cut now; 1 viewer left",
            ),
            (status(0, None), "draining: the appliance stops; nobody is there"),
        ] {
            assert_eq!(status.in_words(60), expected);
        }
        let bar = ProgressBar::hidden();
        let shown = [0, 3, 1, 0].map(|left| {
            show(&bar, left);
            bar.message()
        });
        let of_three = |gone| format!("{gone} of 3 viewers have left");
        assert_eq!(shown, [NOBODY.to_owned(), of_three(0), of_three(2), of_three(3)]);
    }
}
