//! The control plane of a configuration, in words and as JSON, beside a site or alone.

use serde_json::{Value, json};

use super::as_text::line;
use crate::config::units::duration_text;
use crate::config::{Control, ControlFile};

/// Of a file that is nothing else.
pub(super) fn alone(name: &str, file: &ControlFile) -> String {
    let mut text = format!("{name} is right, for `tidegate control` alone\n\ncontrol\n");
    text.extend(lines(&file.control).iter().map(|(name, value)| line("  ", name, value)));
    if !file.warnings.is_empty() {
        text.push_str("\nwarnings\n");
        text.extend(file.warnings.iter().map(|warning| format!("  {warning}\n")));
    }
    text
}

/// The same as JSON.
pub(super) fn alone_as_json(file: &ControlFile) -> Value {
    let warnings: Vec<_> = file.warnings.iter().map(ToString::to_string).collect();
    json!({ "control": as_json(&file.control), "warnings": warnings })
}

/// One line for each thing to be known.
pub(super) fn lines(control: &Control) -> Vec<(&'static str, String)> {
    let listen: Vec<_> = control.listen.iter().map(ToString::to_string).collect();
    let health = &control.health;
    vec![
        ("listens", listen.join(", ")),
        ("known as", control.names.join(", ")),
        ("state", control.folder.display().to_string()),
        ("certificate", if control.certificate.is_some() { "given" } else { "its own" }.to_owned()),
        ("operators", operators(control).to_owned()),
        ("a client", format!("{} requests a second", control.requests_per_second)),
        (
            "a box is ill",
            format!(
                "{} bad heartbeats, or none for {}; one is due every {}",
                health.bad_heartbeats,
                duration_text(health.silent_after),
                duration_text(control.heartbeat)
            ),
        ),
    ]
}

fn operators(control: &Control) -> &'static str {
    match (&control.tokens, control.operators_ca.is_empty()) {
        (None, _) => "nobody: no `control.token_file`",
        (Some(_), true) => "by token",
        (Some(_), false) => "by token and certificate",
    }
}

/// What a program may want to read.
pub(super) fn as_json(control: &Control) -> Value {
    json!({
        "listen": control.listen,
        "names": control.names,
        "state": control.folder,
        "has_certificate": control.certificate.is_some(),
        "has_tokens": control.tokens.is_some(),
        "operators_show_certificates": !control.operators_ca.is_empty(),
        "requests_per_second": control.requests_per_second,
        "heartbeat_milliseconds": control.heartbeat.as_millis() as u64,
        "silent_after_milliseconds": control.health.silent_after.as_millis() as u64,
    })
}
