//! What a check found, and how all of it is shown: as text and as JSON. Pure.

use serde_json::{Value, json};

use super::Check;

/// How good what was found is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing has to be done.
    Note,
    /// It could not be told.
    Unknown,
    /// It serves, worse than it could.
    Warn,
    /// It does not serve, or not all of it.
    Fail,
}

impl State {
    /// In the order of the summary.
    const ALL: [State; 5] = [State::Ok, State::Note, State::Warn, State::Fail, State::Unknown];

    /// As it is shown.
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Note => "note",
            State::Unknown => "unknown",
            State::Warn => "warn",
            State::Fail => "fail",
        }
    }
}

/// One row: of what, how it is, what was found, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Of what; empty where the check has but one thing to look at.
    pub(super) of: String,
    pub(super) state: State,
    pub(super) found: String,
    /// What to do; `None` where there is nothing to do.
    pub(super) to_do: Option<String>,
}

impl Finding {
    fn new(state: State, found: String, to_do: Option<String>) -> Finding {
        Finding { of: String::new(), state, found, to_do }
    }

    pub(super) fn ok(found: impl Into<String>) -> Finding {
        Finding::new(State::Ok, found.into(), None)
    }

    pub(super) fn note(found: impl Into<String>, to_do: impl Into<String>) -> Finding {
        Finding::new(State::Note, found.into(), Some(to_do.into()))
    }

    pub(super) fn warn(found: impl Into<String>, to_do: impl Into<String>) -> Finding {
        Finding::new(State::Warn, found.into(), Some(to_do.into()))
    }

    pub(super) fn fail(found: impl Into<String>, to_do: impl Into<String>) -> Finding {
        Finding::new(State::Fail, found.into(), Some(to_do.into()))
    }

    pub(super) fn unknown(found: impl Into<String>, to_do: impl Into<String>) -> Finding {
        Finding::new(State::Unknown, found.into(), Some(to_do.into()))
    }

    /// The same, of something.
    pub(super) fn of(self, of: impl Into<String>) -> Finding {
        Finding { of: of.into(), ..self }
    }
}

/// What every check found, in the order of the checks.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) config: String,
    pub(super) findings: Vec<(Check, Finding)>,
}

impl Report {
    /// How many are wrong that it does not serve without.
    pub(super) fn failed(&self) -> usize {
        let failed = |(check, finding): &&(Check, Finding)| {
            check.is_mandatory() && finding.state == State::Fail
        };
        self.findings.iter().filter(failed).count()
    }

    fn count(&self, state: State) -> usize {
        self.findings.iter().filter(|(_, finding)| finding.state == state).count()
    }

    /// A row for each finding, what to do under it, and a summary.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (check, Finding { of, state, found, to_do }) in &self.findings {
            let of = if of.is_empty() { String::new() } else { format!("{of}: ") };
            text += &format!("{:<9}{:<14}{of}{found}\n", state.word(), check.name());
            let wanted = to_do.iter().filter(|_| *state != State::Ok);
            text.extend(wanted.map(|to_do| format!("{:23}-> {to_do}\n", "")));
        }
        let counts = State::ALL.map(|state| format!("{} {}", self.count(state), state.word()));
        text + &format!("\n{}: {}\n", self.config, counts.join(", "))
    }

    /// The same facts.
    pub(super) fn json(&self) -> Value {
        let row = |(check, finding): &(Check, Finding)| {
            json!({
                "check": check.name(),
                "of": Some(&finding.of).filter(|of| !of.is_empty()),
                "state": finding.state.word(),
                "mandatory": check.is_mandatory(),
                "found": finding.found,
                "to_do": finding.to_do,
            })
        };
        let counts = State::ALL.map(|state| (state.word().to_owned(), self.count(state).into()));
        json!({
            "config": self.config,
            "serves": self.failed() == 0,
            "counts": Value::Object(counts.into_iter().collect()),
            "findings": self.findings.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let findings = vec![
            (Check::Kernel, Finding::ok("6.18.44")),
            (Check::Nic, Finding::warn("100 Mbit/s", "use another cable").of("eth0")),
            (Check::Ports, Finding::fail("taken", "choose another").of("0.0.0.0:80")),
        ];
        Report { config: "t.toml".to_owned(), findings }
    }

    #[test]
    fn a_report_is_a_row_for_each_finding_with_what_to_do_and_a_summary() {
        let expected = "\
ok       kernel        6.18.44
warn     nic           eth0: 100 Mbit/s
                       -> use another cable
fail     ports         0.0.0.0:80: taken
                       -> choose another

t.toml: 1 ok, 0 note, 1 warn, 1 fail, 0 unknown
";
        assert_eq!(report().text(), expected);
    }

    #[test]
    fn json_has_the_same_facts() {
        let json = report().json();
        assert_eq!((&json["serves"], &json["counts"]["warn"]), (&false.into(), &1.into()));
        let nic = json!({
            "check": "nic", "of": "eth0", "state": "warn", "mandatory": false,
            "found": "100 Mbit/s", "to_do": "use another cable",
        });
        assert_eq!(json["findings"][1], nic);
        assert!(json["findings"][0]["of"].is_null() && json["findings"][0]["to_do"].is_null());
    }

    #[test]
    fn only_what_it_does_not_serve_without_decides() {
        let mut report = report();
        assert_eq!(report.failed(), 1);
        report.findings.retain(|(check, _)| *check != Check::Ports);
        report.findings[1].1.state = State::Fail;
        assert_eq!(report.failed(), 0, "a network card is none");
    }
}
