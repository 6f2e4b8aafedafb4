//! What the status says of the fleet that the appliance is a box of, and of the control plane that
//! runs beside it, in words.

use std::time::Duration;

use serde::Deserialize;

use crate::config::units::duration_about;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Fleet {
    name: String,
    control: Option<String>,
    failing_seconds: Option<u64>,
    why: Option<String>,
    certificate_ends_at: Option<u64>,
    snapshot: Option<Snapshot>,
    last_refusal: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Snapshot {
    epoch: u64,
    counter: u64,
    age_seconds: u64,
}

impl Fleet {
    /// In one line.
    pub(super) fn in_words(&self, now: u64) -> String {
        let about = |seconds| duration_about(Duration::from_secs(seconds));
        let snapshot = match &self.snapshot {
            None => "no snapshot yet".to_owned(),
            Some(Snapshot { epoch, counter, age_seconds }) => {
                format!("snapshot {epoch}.{counter}, {} old", about(*age_seconds))
            }
        };
        let mut text = format!("{}: {snapshot}", self.name);
        match (self.failing_seconds, &self.why, &self.control) {
            (Some(seconds), Some(why), _) => {
                text.push_str(&format!("; not heard for {}: {why}", about(seconds)));
            }
            (_, _, Some(control)) => text.push_str(&format!("; heard by {control}")),
            _ => text.push_str("; not heard yet"),
        }
        if let Some(why) = &self.last_refusal {
            text.push_str(&format!("; the last snapshot was refused: {why}"));
        }
        if let Some(left) = self.certificate_ends_at.map(|at| at.saturating_sub(now))
            && left < CERTIFICATE_TOLD_SECONDS
        {
            text.push_str(&format!("; its certificate ends in {}", about(left)));
        }
        text
    }
}

/// The control plane beside an appliance.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Control {
    is_running: bool,
    why: Option<String>,
    broken_off: u64,
}

impl Control {
    /// In one line.
    pub(super) fn in_words(&self) -> String {
        let mut text = match (self.is_running, &self.why) {
            (true, _) => "runs".to_owned(),
            (false, None) => "begins".to_owned(),
            (false, Some(why)) => format!("does not run: {why}"),
        };
        match self.broken_off {
            0 => {}
            1 => text.push_str("; has broken off once since the start"),
            count => text.push_str(&format!("; has broken off {count} times since the start")),
        }
        text
    }
}

/// A certificate that ends sooner should have been renewed.
const CERTIFICATE_TOLD_SECONDS: u64 = 7 * 86_400;
