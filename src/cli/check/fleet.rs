//! The fleet that a configuration makes this machine a box of, in words and as JSON.

use serde_json::{Value, json};

use crate::config::Fleet;
use crate::config::units::rate_text;
use crate::control::registry::Family;
use crate::control::registry::appliance::Audience;

/// One line for each thing to be known.
pub(super) fn lines(fleet: &Fleet) -> Vec<(&'static str, String)> {
    let one = &fleet.appliance;
    let families = Family::ALL.into_iter().filter(|family| one.has(*family));
    let families = families.map(|family| if family == Family::Ipv4 { "IPv4" } else { "IPv6" });
    let audience = match one.audience() {
        Audience::Everyone => "everyone",
        Audience::Announced => "who is in networks announced to it",
    };
    vec![
        ("name", one.name().to_owned()),
        ("asks", controls(fleet).join(", ")),
        (
            "viewers ask",
            format!("{}, by {}", one.host(), families.collect::<Vec<_>>().join(" and ")),
        ),
        ("can send", rate_text(one.capacity_bits_per_second() / 8)),
        ("is for", audience.to_owned()),
        ("pathway", one.pathway().to_string()),
        ("state", fleet.folder.display().to_string()),
    ]
}

/// What a program may want to read.
pub(super) fn as_json(fleet: &Fleet) -> Value {
    json!({
        "control": controls(fleet),
        "registers_with": fleet.appliance,
        "state": fleet.folder,
    })
}

fn controls(fleet: &Fleet) -> Vec<String> {
    fleet.control.iter().map(ToString::to_string).collect()
}
