//! An independent judge: http-cache-semantics, asked about exchanges made up from a seed.
//!
//! Whether a response may be stored, how old and how fresh it is, whether it answers another
//! request, and what the origin's next answer makes of it: Tidegate's pure functions and the oracle
//! must agree, or an exception says why not. `TIDEGATE_SEED` repeats a run, `TIDEGATE_EXCHANGES`
//! says how many.

mod cases;
mod exceptions;
mod oddities;
mod ours;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use cases::{Case, Exchange, Fields, Reply, stored_at};
use exceptions::{Disagreement, EXCEPTIONS, Question, Use};
use oddities::ODDITIES;
use ours::{Answers, Assessed, Outcome};

/// The oracle at work.
struct Oracle {
    process: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    fn start() -> Oracle {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle");
        let started = Command::new("node")
            .arg(format!("{folder}/judge.mjs"))
            // Two of the three forms of a date name no time zone to it.
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = started.expect("node is installed, and `npm ci` was run in tests/oracle");
        let questions = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        Oracle { process, questions, answers }
    }

    /// Asks about so many exchanges at once: a pipe is not waited at for each.
    fn ask(&mut self, questions: &[Value]) -> Vec<Value> {
        let mut asking = self.questions.take().expect("it is put back after each use");
        let lines: String = questions.iter().map(|question| format!("{question}\n")).collect();
        let writing = std::thread::spawn(move || {
            asking.write_all(lines.as_bytes()).expect("the oracle reads on");
            asking
        });
        let answer = |_| {
            let mut line = String::new();
            self.answers.read_line(&mut line).expect("the oracle answers");
            serde_json::from_str(&line).expect("it answers in JSON; is `npm ci` run in its folder?")
        };
        let answers = (0..questions.len()).map(answer).collect();
        self.questions = Some(writing.join().expect("writing does not panic"));
        answers
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        drop(self.questions.take());
        self.process.wait().expect("it ends with its input");
    }
}

/// What the oracle is asked of a case, in one writing.
fn question(case: &Case, exchange: &Exchange, ours: &Answers) -> Value {
    let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let request = |fields: &Fields| json!({ "method": "GET", "headers": fields.json() });
    let reply = |reply: &Reply| json!({ "status": reply.status, "headers": reply.fields.json() });
    let given = |stored: &Assessed| json!({ "lifetime": stored.lifetime, "age": stored.age });
    json!({
        "stored_at": seconds(stored_at()),
        "asked_at": seconds(case.asked_at()),
        "first": request(&exchange.first),
        "stored": reply(&exchange.stored),
        "second": request(&exchange.second),
        "told": reply(&exchange.told),
        "given": ours.first.as_ref().map(given),
    })
}

/// Everything that was explained, by the name of what explains it.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<&'static str, u64>,
    unexplained: Vec<String>,
    questions: u64,
}

impl Tally {
    /// One question; true where both agree.
    fn compare(&mut self, case: &Case, disagreement: Disagreement<'_>) -> bool {
        self.questions += 1;
        let agree = match disagreement.question {
            Question::Stored { ours, theirs }
            | Question::Kept { ours, theirs }
            | Question::Matches { ours, theirs }
            | Question::Updated { ours, theirs } => ours == theirs,
            Question::Lifetime { ours, theirs } => ours == theirs,
            Question::Age { ours, theirs } => ours == theirs,
            Question::Reuse { ours, theirs } => ours == theirs,
        };
        if agree {
            return true;
        }
        match EXCEPTIONS.iter().find(|exception| (exception.holds)(&disagreement)) {
            Some(exception) => *self.counts.entry(exception.name).or_default() += 1,
            None => {
                let question = disagreement.question;
                self.unexplained.push(format!("case {}: {question:?}\n{case:?}", case.number));
            }
        }
        false
    }

    /// All questions of one case.
    fn judge(&mut self, case: &Case, ours: &Answers, theirs: &Value) {
        let exchange = &case.plain;
        let about = Disagreement {
            question: Question::Stored { ours: false, theirs: false },
            stored: &exchange.stored,
            request: &exchange.first,
            told: None,
            age_seconds: 0,
            lifetime_seconds: 0,
            since: case.later,
            received_at: stored_at(),
        };
        let Some(first) = self.assessed(case, about, &ours.first, theirs) else { return };
        let about = Disagreement {
            request: &exchange.second,
            told: Some(&exchange.told),
            age_seconds: first.age as u64,
            lifetime_seconds: first.lifetime,
            ..about
        };
        let used = match theirs["reuse"].as_str() {
            Some("now") => Use::Now,
            Some("while") => Use::While,
            _ => Use::Confirmed,
        };
        let question = Question::Reuse { ours: ours.reuse, theirs: used };
        self.compare(case, Disagreement { question, ..about });

        let matches = theirs["matches"] == true;
        let (after, merged);
        match (&ours.outcome, exchange.told.status) {
            (Outcome::Kept, _) | (_, 500 | 503) => {
                let ours = ours.outcome == Outcome::Kept;
                let question = Question::Kept { ours, theirs: matches };
                if !self.compare(case, Disagreement { question, ..about }) || ours {
                    return;
                }
                (after, merged) = (&theirs["after"], exchange.told.clone());
            }
            (outcome, 304) => {
                let ours = *outcome == Outcome::Confirmed;
                let question = Question::Matches { ours, theirs: matches };
                if !self.compare(case, Disagreement { question, ..about }) || !ours {
                    return;
                }
                let theirs_after = theirs["after"] == theirs["updated"];
                let question = Question::Updated { ours: true, theirs: theirs_after };
                self.compare(case, Disagreement { question, ..about });
                (after, merged) = (&theirs["updated"], updated(&exchange.stored, &exchange.told));
            }
            _ => (after, merged) = (&theirs["after"], exchange.told.clone()),
        }
        let about = Disagreement {
            stored: &merged,
            since: Duration::ZERO,
            received_at: case.asked_at(),
            ..about
        };
        self.assessed(case, about, &ours.after, after);
    }

    /// Whether it is stored, its lifetime, its age; what both store goes on.
    fn assessed<'a>(
        &mut self,
        case: &Case,
        about: Disagreement<'_>,
        ours: &'a Option<Assessed>,
        theirs: &Value,
    ) -> Option<&'a Assessed> {
        let stored = theirs["stored"] == true;
        let question = Question::Stored { ours: ours.is_some(), theirs: stored };
        if !self.compare(case, Disagreement { question, ..about }) {
            return None;
        }
        let ours = ours.as_ref()?;
        let number = |name: &str| theirs[name].as_i64().expect("it answers with a number");
        let lifetime =
            Question::Lifetime { ours: ours.lifetime, theirs: number("lifetime") as u64 };
        self.compare(case, Disagreement { question: lifetime, ..about });
        let age = Question::Age { ours: ours.age as i64, theirs: number("age") };
        self.compare(case, Disagreement { question: age, ..about });
        Some(ours)
    }
}

/// A stored response after a 304 (RFC 9111 section 3.2): all of its fields in place of the stored.
fn updated(stored: &Reply, told: &Reply) -> Reply {
    let mut updated = stored.clone();
    updated.fields.remove("date");
    updated.fields.remove("age");
    for (name, value) in told.fields.0.iter().filter(|(name, _)| *name != "etag") {
        updated.fields.set(name, value.clone());
    }
    updated
}

#[test]
fn the_oracle_agrees_or_an_rfc_says_why_not() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let seed = number("TIDEGATE_SEED").unwrap_or(now);
    let exchanges = number("TIDEGATE_EXCHANGES").unwrap_or(20_000);
    println!("TIDEGATE_SEED={seed} TIDEGATE_EXCHANGES={exchanges}");
    let (mut oracle, mut tally) = (Oracle::start(), Tally::default());
    for start in (0..exchanges).step_by(BATCH) {
        let numbers = start..exchanges.min(start + BATCH as u64);
        let cases: Vec<Case> = numbers.map(|number| Case::of(seed, number)).collect();
        let ours: Vec<Answers> = cases.iter().map(Answers::of).collect();
        let both = cases.iter().zip(&ours);
        let asked: Vec<Value> = both
            .flat_map(|(case, ours)| {
                [&case.plain, &case.written].map(|exchange| question(case, exchange, ours))
            })
            .collect();
        let answers = oracle.ask(&asked);
        for ((case, ours), theirs) in cases.iter().zip(&ours).zip(answers.chunks(2)) {
            if let Some(oddity) = case.oddity.filter(|_| theirs[0] != theirs[1]) {
                *tally.counts.entry(oddity.name).or_default() += 1;
            }
            tally.judge(case, ours, &theirs[0]);
        }
    }
    report(&tally, exchanges);
}

fn report(tally: &Tally, exchanges: u64) {
    println!("{exchanges} exchanges, {} questions; where the oracle differs:", tally.questions);
    let oddities = ODDITIES.iter().map(|oddity| (oddity.name, oddity.because));
    let exceptions = EXCEPTIONS.iter().map(|exception| (exception.name, exception.because));
    let mut dead = vec![];
    for (name, because) in exceptions.chain(oddities) {
        let count = tally.counts.get(name).copied().unwrap_or_default();
        println!("{count:>7}  {name}\n         {because}");
        if count == 0 {
            dead.push(name);
        }
    }
    let (count, first) = (tally.unexplained.len(), tally.unexplained.iter().take(SHOWN));
    let first: Vec<_> = first.map(String::as_str).collect();
    assert!(count == 0, "{count} are not explained, such as\n{}", first.join("\n"));
    assert!(dead.is_empty(), "these explain nothing: {dead:?}");
}

const BATCH: usize = 2_000;
const SHOWN: usize = 20;
