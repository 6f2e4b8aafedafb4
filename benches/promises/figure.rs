//! Figures: what the rounds measured, what was promised, and whether it holds.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// One figure of one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) value: f64,
    pub(crate) promise: Promise,
}

impl Measure {
    /// A figure without a promise.
    pub(crate) fn shown(name: &'static str, unit: Unit, value: f64) -> Measure {
        Measure { name, unit, value, promise: Promise::None }
    }

    /// The same, with a promise.
    pub(crate) fn promised(self, promise: Promise) -> Measure {
        Measure { promise, ..self }
    }
}

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Microseconds,
    Milliseconds,
    MiB,
    MiBPerSecond,
    CpuSecondsPerGiB,
    Ratio,
    Count,
}

impl Unit {
    fn label(self) -> &'static str {
        match self {
            Unit::Microseconds => "us",
            Unit::Milliseconds => "ms",
            Unit::MiB => "MiB",
            Unit::MiBPerSecond => "MiB/s",
            Unit::CpuSecondsPerGiB => "s/GiB",
            Unit::Ratio | Unit::Count => "",
        }
    }

    fn text(self, value: f64) -> String {
        match self {
            Unit::Microseconds | Unit::Milliseconds | Unit::MiB => format!("{value:.1}"),
            Unit::CpuSecondsPerGiB => format!("{value:.3}"),
            Unit::Ratio => format!("{value:.2}"),
            Unit::MiBPerSecond | Unit::Count => format!("{value:.0}"),
        }
    }
}

/// What must hold of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Promise {
    /// Nothing: it explains the others.
    None,
    /// Of the rounds' median: a time on a machine that has other work too.
    MedianAtMost(f64),
    /// Likewise.
    MedianAtLeast(f64),
    /// In every round.
    AtMost(f64),
    /// In every round.
    Exactly(f64),
}

/// One figure over all rounds.
struct Row {
    case: &'static str,
    measure: Measure,
    /// In ascending order.
    values: Vec<f64>,
}

impl Row {
    fn median(&self) -> f64 {
        let (low, high) = ((self.values.len() - 1) / 2, self.values.len() / 2);
        (self.values[low] + self.values[high]) / 2.0
    }

    fn least(&self) -> f64 {
        self.values[0]
    }

    fn most(&self) -> f64 {
        self.values[self.values.len() - 1]
    }

    fn holds(&self) -> Option<bool> {
        match self.measure.promise {
            Promise::None => None,
            Promise::MedianAtMost(bound) => Some(self.median() <= bound),
            Promise::MedianAtLeast(bound) => Some(self.median() >= bound),
            Promise::AtMost(bound) => Some(self.most() <= bound),
            Promise::Exactly(bound) => Some(self.least() == bound && self.most() == bound),
        }
    }

    fn promise_text(&self) -> String {
        let unit = self.measure.unit;
        let bound = |bound| format!("{} {}", unit.text(bound), unit.label()).trim_end().to_owned();
        match self.measure.promise {
            Promise::None => String::new(),
            Promise::MedianAtMost(most) => format!("median at most {}", bound(most)),
            Promise::MedianAtLeast(least) => format!("median at least {}", bound(least)),
            Promise::AtMost(most) => format!("at most {}", bound(most)),
            Promise::Exactly(value) => bound(value),
        }
    }

    fn as_json(&self) -> Value {
        json!({
            "case": self.case,
            "figure": self.measure.name,
            "unit": self.measure.unit.label(),
            "rounds": self.values.len(),
            "median": self.median(),
            "least": self.least(),
            "most": self.most(),
            "promised": self.promise_text(),
            "holds": self.holds(),
        })
    }
}

/// All figures of all cases.
#[derive(Default)]
pub(crate) struct Figures {
    rows: Vec<Row>,
}

impl Figures {
    /// Adds what one round of `case` measured.
    pub(crate) fn add(&mut self, case: &'static str, measures: Vec<Measure>) {
        for measure in measures {
            let known = |row: &&mut Row| row.case == case && row.measure.name == measure.name;
            let row = match self.rows.iter_mut().find(known) {
                Some(row) => row,
                None => {
                    self.rows.push(Row { case, measure, values: Vec::new() });
                    self.rows.last_mut().expect("a row was just added")
                }
            };
            row.values.push(measure.value);
            row.values.sort_by(f64::total_cmp);
        }
    }

    /// Whether every promise holds.
    pub(crate) fn hold(&self) -> bool {
        self.rows.iter().all(|row| row.holds() != Some(false))
    }

    /// A table for a person.
    pub(crate) fn as_text(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let unit = row.measure.unit;
            let [median, least, most] =
                [row.median(), row.least(), row.most()].map(|value| unit.text(value));
            let measured = format!("{median} [{least}..{most}] {}", unit.label());
            let verdict = match row.holds() {
                None => "",
                Some(true) => "holds",
                Some(false) => "BROKEN",
            };
            let (case, name, promised) = (row.case, row.measure.name, row.promise_text());
            let line = format!("{case:9} {name:46} {measured:30} {promised:24} {verdict}");
            writeln!(text, "{}", line.trim_end()).expect("a text can be written to");
        }
        text
    }

    /// The same for a program.
    pub(crate) fn as_json(&self) -> Value {
        json!({
            "figures": self.rows.iter().map(Row::as_json).collect::<Vec<_>>(),
            "hold": self.hold(),
        })
    }
}
