//! The fleet that this machine is a box of, where it is one: whom it asks, and what it says of
//! itself.
//!
//! There is one where `fleet.control` is written. What a box is known by is no setting: `tidegate
//! enrol` puts it into the state folder.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use http::Uri;

use super::Config;
use super::certificates::path;
use super::raw::Section;
use super::setting::Setting;
use super::steering::position;
use crate::control::registry::appliance::{
    Appliance, Audience, Mistake, Pathway, Written, is_name,
};
use crate::limits::{APPLIANCE_WEIGHT_MAX, FLEET_CONTROLS_MAX, PATHWAY_BYTES_MAX};

/// The section `fleet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Control planes, asked in turn: `https`, a host and perhaps a port.
    pub control: Vec<Uri>,
    /// What this box says of itself; it serves the sites it has.
    pub appliance: Appliance,
    /// Where what it is known by lies, and the last snapshot.
    pub folder: PathBuf,
}

/// Reads the section `fleet` beside the rest of the configuration.
pub(super) fn read(section: &Section<'_>, config: &Config) -> Option<Fleet> {
    let control = section.setting("control").map(|setting| controls(&setting));
    let written = written(section, config.limits.overload.egress_bytes);
    let folder = section.setting("state").and_then(|setting| path(&setting));
    let folder = folder.unwrap_or_else(|| config.ssd.state.with_file_name("fleet"));
    if control.is_none() && section.has("name") {
        section.fail(
            "`fleet.control` is missing; write [\"https://control.example.com:9443\"], where the \
             control plane is asked",
        );
    }
    let (control, written) = (control?, written?);
    match Appliance::try_from(written) {
        Ok(appliance) => Some(Fleet { control, appliance, folder }),
        Err(mistake) => {
            told_of(section, &mistake);
            None
        }
    }
}

fn controls(setting: &Setting<'_>) -> Vec<Uri> {
    let texts = setting.texts();
    if texts.len() > FLEET_CONTROLS_MAX || setting.is_array() && texts.is_empty() {
        let text = format!("has {} control planes; write 1 to {FLEET_CONTROLS_MAX}", texts.len());
        setting.fail(text);
    }
    let control = |(setting, text): (Setting<'_>, &str)| {
        let found = control(text);
        if found.is_none() {
            setting.fail(format!(
                "is {text:?}; a control plane is https://, a host and perhaps a port, without \
                 path or user"
            ));
        }
        found
    };
    texts.into_iter().filter_map(control).collect()
}

fn control(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let has_port = authority.port().is_none_or(|port| port.as_u16() != 0);
    let is_whole = !authority.host().is_empty() && !authority.as_str().ends_with(':') && has_port;
    let is_bare = uri.path() == "/" && uri.query().is_none() && !authority.as_str().contains('@');
    (uri.scheme_str() == Some("https") && is_whole && is_bare).then_some(uri)
}

/// All that is asked for, also where nothing is written.
fn written(section: &Section<'_>, egress_bytes: Option<u64>) -> Option<Written> {
    let text = |key| section.setting(key).and_then(Setting::with_text);
    let named = |(setting, text): (Setting<'_>, &str)| {
        if !is_name(text) {
            setting.fail(format!(
                "is {text:?}; write 1 to {PATHWAY_BYTES_MAX} of A-Z, a-z, 0-9, `.`, `_` and `-`"
            ));
        }
        is_name(text).then(|| text.to_owned())
    };
    let (name, pathway) = (text("name"), text("pathway"));
    let (host, addresses) = (text("host"), section.setting("addresses"));
    let capacity = section.setting("capacity");
    let tags = section.setting("tags").map(|setting| setting.texts()).unwrap_or_default();
    let position = section.setting("position").and_then(|setting| position(&setting));
    let weight = section.count("weight", 100, 1..=APPLIANCE_WEIGHT_MAX.into()) as u32;
    let everyone = Audience::Everyone;
    let audience = [("everyone", everyone), ("announced", Audience::Announced)];
    let audience = section.choice("audience", everyone, &audience);
    if !section.has("control") {
        return None;
    }
    if name.is_none() && !section.has("name") {
        section.fail(
            "`fleet.name` is missing; write \"edge-7\", which the control plane's code \
                      was made for",
        );
    }
    let (ipv4, ipv6) = match &addresses {
        Some(setting) => of_families(setting),
        None => {
            section.fail(
                "`fleet.addresses` is missing; write those that viewers reach this box \
                          at, such as [\"192.0.2.7\", \"2001:db8::7\"]",
            );
            (None, None)
        }
    };
    let capacity = match capacity {
        Some(setting) => setting.bytes_per_second("a rate such as \"10 Gbit/s\""),
        None if egress_bytes.is_some() => egress_bytes,
        None => {
            section.fail(
                "`fleet.capacity` is missing; write what this box can send, such as \
                          \"10 Gbit/s\", here or as `limits.egress`",
            );
            None
        }
    };
    Some(Written {
        name: name.and_then(named)?,
        pathway: pathway.and_then(named).and_then(|name| Pathway::new(&name)),
        host: host.map(|(_, host)| host.to_owned()),
        ipv4: ipv4.and_then(|it| if let IpAddr::V4(it) = it { Some(it) } else { None }),
        ipv6: ipv6.and_then(|it| if let IpAddr::V6(it) = it { Some(it) } else { None }),
        capacity_bits_per_second: capacity?.saturating_mul(8),
        weight: Some(weight),
        tags: tags.into_iter().filter_map(named).collect::<BTreeSet<_>>(),
        sites: None,
        audience,
        position,
    })
    .filter(|written| written.ipv4.is_some() || written.ipv6.is_some())
}

/// At most one of each.
fn of_families(setting: &Setting<'_>) -> (Option<IpAddr>, Option<IpAddr>) {
    let (mut ipv4, mut ipv6) = (None, None);
    let texts = setting.texts();
    if texts.is_empty() && setting.is_array() {
        setting.fail("is empty; write those that viewers reach this box at");
    }
    for (setting, text) in texts {
        let address = text.parse::<IpAddr>().ok().filter(|address| !address.is_unspecified());
        let Some(address) = address else {
            setting.fail(format!("is {text:?}; write an address such as \"192.0.2.7\""));
            continue;
        };
        let of_family = if address.is_ipv4() { &mut ipv4 } else { &mut ipv6 };
        if of_family.replace(address).is_some() {
            setting.fail(format!("is {text:?}; write one address of IPv4 and one of IPv6 at most"));
        }
    }
    (ipv4, ipv6)
}
/// What is said of it is about a setting of the same name.
fn told_of(section: &Section<'_>, mistake: &Mistake) {
    let field = match mistake {
        Mistake::Name { field, .. } | Mistake::TooMany { field, .. } => *field,
        Mistake::Host { .. } => "host",
        Mistake::NoAddress => "addresses",
        Mistake::Capacity { .. } => "capacity",
        Mistake::Weight { .. } => "weight",
    };
    let text = mistake.to_string().replacen('`', "`fleet.", 1);
    match section.setting(field) {
        Some(setting) => setting.source.fail(setting.at, text),
        None => section.fail(text),
    }
}
