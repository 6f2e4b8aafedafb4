//! Whom viewers are sent to: how they are steered, and the appliances that are known without a
//! control plane.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use http::Uri;
use toml::de::DeValue;

use super::Config;
use super::error::{Place, cause};
use super::listeners::Listener;
use super::raw::Section;
use super::setting::Setting;
use crate::control::content_steering::Pace;
use crate::control::content_steering::signature::Secret;
use crate::control::registry::appliance::{Appliance, Audience, Pathway, Written};
use crate::control::steer::Settings;
use crate::geo::Position;
use crate::limits::{
    APPLIANCE_WEIGHT_MAX, APPLIANCES_MAX, PATHWAY_BYTES_MAX, STEERING_SECRET_BYTES_MAX,
    STEERING_SECRET_BYTES_MIN, STEERING_UNSETTLED_TTL_MAX, STEERING_UNSETTLED_TTL_MIN,
};
use crate::site::{Sites, Steered};

/// The section `steering`.
#[derive(Clone, Debug)]
pub struct Steering {
    /// Which of the appliances this one is, where nobody else says it.
    pub own_name: Option<String>,
    /// How viewers are steered.
    pub settings: Settings,
    /// What players call this appliance, where that is written.
    pub pathway: Option<Pathway>,
    /// Those that are known without a control plane.
    pub appliances: Vec<Appliance>,
}

/// Reads the section `steering`.
pub(super) fn read(section: &Section<'_>, listeners: &[Listener], sites: &Sites) -> Steering {
    let is_asked = listeners.iter().any(|one| one.kind.name().starts_with("steering"));
    if ["appliances", "url"].iter().any(|key| section.has(key)) && !is_asked {
        section.source.warn(
            section.source.place(section.at),
            "nobody listens for those who ask where to go; write `listeners.steering` or \
             `listeners.steering_tls`",
        );
    }
    if section.has("url") && !section.has("secret_file") {
        section.source.warn(
            section.source.place(section.at),
            "players come back with sessions that only the process that gave them knows; write \
             `secret_file`, the same wherever `url` leads",
        );
    }
    let secret = section.setting("secret_file").and_then(|setting| secret(&setting));
    let settings = Settings {
        url: section
            .setting("url")
            .and_then(Setting::with_text)
            .and_then(|(at, text)| url(&at, text)),
        seal: secret.as_ref().map(Secret::seal),
        secret,
        spread: NonZeroU32::new(section.count("spread", 2, 1..=APPLIANCES_MAX as u64) as u32)
            .unwrap_or(NonZeroU32::MIN),
        pace: section.section("ttl", pace),
        answers_per_second: section.count("answers", 2_000, 1..=1_000_000) as u32,
        sites: sites.iter().map(|site| site.name.clone()).collect(),
        ended: section.setting("off").map(|setting| off(&setting, sites)).unwrap_or_default(),
    };
    let pathway = section.setting("pathway").and_then(|setting| pathway(&setting));
    let (own, appliances) = (section.setting("name"), appliances(section));
    let own_name = own.and_then(|setting| own_name(&setting, &appliances));
    Steering { own_name, settings, pathway, appliances }
}

/// Reports that playlists are to be steered and nobody knows where to.
pub(super) fn check(document: &Section<'_>, config: &Config) {
    let rules = || config.sites.iter().flat_map(|site| &site.rules);
    if rules().all(|rule| rule.steered == Steered::Off) {
        return;
    }
    if config.steering.settings.url.is_none() {
        document.fail(
            "a rule puts steering into playlists: write `steering.url`, where their players ask",
        );
    }
    if config.pathway().is_none() {
        document.fail(
            "a rule puts steering into playlists: write `steering.pathway`, what their players \
             call this appliance",
        );
    }
}

fn pathway(setting: &Setting<'_>) -> Option<Pathway> {
    let text = setting.text()?;
    let pathway = Pathway::new(text);
    if pathway.is_none() {
        setting.fail(format!(
            "is {text:?}; write 1 to {PATHWAY_BYTES_MAX} of A-Z, a-z, 0-9, `.`, `_` and `-`"
        ));
    }
    pathway
}

fn own_name(setting: &Setting<'_>, appliances: &[Appliance]) -> Option<String> {
    let text = setting.text()?;
    if appliances.iter().all(|appliance| appliance.name() != text) {
        setting
            .fail(format!("is {text:?}, and no appliance of `steering.appliances` is called so"));
    }
    Some(text.to_owned())
}

fn pace(section: &Section<'_>) -> Pace {
    let seconds = Duration::from_secs;
    let unsettled = seconds(STEERING_UNSETTLED_TTL_MIN)..=seconds(STEERING_UNSETTLED_TTL_MAX);
    let steady = section.duration("steady", seconds(300), seconds(1)..=seconds(86_400));
    let unsettled = section.duration("unsettled", seconds(20), unsettled);
    Pace { steady_seconds: steady.as_secs(), unsettled_seconds: unsettled.as_secs() }
}

/// Without the slash at its end.
fn url(setting: &Setting<'_>, text: &str) -> Option<String> {
    let uri = text.parse::<Uri>().ok();
    let is_whole = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|it| !it.as_str().contains('@'))
            && uri.query().is_none()
    });
    if !is_whole || text.contains('#') {
        setting.fail(format!(
            "is {text:?}; write where players reach it, such as \"https://steer.example.com\""
        ));
        return None;
    }
    Some(text.trim_end_matches('/').to_owned())
}

fn secret(setting: &Setting<'_>) -> Option<Secret> {
    let path = setting.source.folder.join(setting.text()?);
    if setting.is_brought_later(&path) {
        return None;
    }
    let (mut bytes, file) = (Vec::new(), path.display());
    let most = STEERING_SECRET_BYTES_MAX as u64 + 2;
    let read = File::open(&path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    if let Err(error) = read {
        setting.fail(format!("names {file}, which cannot be read: {}", cause(&error)));
        return None;
    }
    let secret = Secret::of(&bytes);
    if secret.is_none() {
        setting.fail(format!(
            "names {file}, which holds no secret; {STEERING_SECRET_BYTES_MIN} to \
             {STEERING_SECRET_BYTES_MAX} bytes are wanted, such as `openssl rand -hex 32` writes"
        ));
    }
    secret
}

fn off(setting: &Setting<'_>, sites: &Sites) -> BTreeSet<String> {
    let mut off = BTreeSet::new();
    for (setting, name) in setting.texts() {
        if sites.iter().all(|site| site.name != name) {
            setting.fail(format!("names {name:?}, and no site is called so"));
        }
        off.insert(name.to_owned());
    }
    off
}

fn appliances(section: &Section<'_>) -> Vec<Appliance> {
    let (mut names, mut pathways) = (Taken::default(), Taken::default());
    let read = section.each("appliances", |section| {
        let appliance = appliance(section)?;
        names.take(section, "name", appliance.name());
        pathways.take(section, "pathway", appliance.pathway().as_str());
        Some(appliance)
    });
    let appliances: Vec<Appliance> = read.into_iter().flatten().collect();
    if appliances.len() > APPLIANCES_MAX {
        section.fail(format!("{} appliances; at most {APPLIANCES_MAX}", appliances.len()));
    }
    appliances
}

/// What must be each appliance's own, and where it is written.
#[derive(Default)]
struct Taken(HashMap<String, Place>);

impl Taken {
    fn take(&mut self, section: &Section<'_>, key: &str, value: &str) {
        let place = section.source.place(section.at);
        if let Some(Place { line, column }) = self.0.insert(value.to_owned(), place) {
            section.fail(format!(
                "`steering.appliances.{key}` {value:?} is that of another one at {line}:{column}"
            ));
        }
    }
}

fn appliance(section: &Section<'_>) -> Option<Appliance> {
    let name = section.required("name", "`name = \"fra-1\"`").and_then(Setting::with_text);
    let host = section.setting("host").and_then(Setting::with_text);
    let addresses = section.required("addresses", "`addresses = [\"192.0.2.1\"]`");
    let capacity = section.required("capacity", "`capacity = \"10 Gbit/s\"`");
    let capacity = capacity.and_then(|it| it.bytes_per_second("a rate such as \"10 Gbit/s\""));
    let pathway = section.setting("pathway").and_then(Setting::with_text);
    let list = |key| {
        let texts = section.setting(key).map(|setting| setting.texts());
        texts.map(|texts| texts.into_iter().map(|(_, text)| text.to_owned()).collect())
    };
    let audiences = [("everyone", Audience::Everyone), ("announced", Audience::Announced)];
    let weight = section.count("weight", 100, 1..=APPLIANCE_WEIGHT_MAX.into()) as u32;
    let mut written = Written {
        weight: Some(weight),
        tags: list("tags").unwrap_or_default(),
        sites: list("sites"),
        audience: section.choice("audience", Audience::Everyone, &audiences),
        position: section.setting("position").and_then(|setting| position(&setting)),
        host: host.map(|(_, text)| text.to_owned()),
        pathway: pathway.and_then(|(setting, text)| {
            let pathway = Pathway::new(text);
            if pathway.is_none() {
                setting
                    .fail(format!("is {text:?}; write 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`"));
            }
            pathway
        }),
        ..Written::default()
    };
    written.name = name?.1.to_owned();
    written.capacity_bits_per_second = capacity?.saturating_mul(8);
    let addresses = addresses?;
    for (setting, text) in addresses.texts() {
        let is_second = match text.parse() {
            Ok(IpAddr::V4(address)) => written.ipv4.replace(address).is_some(),
            Ok(IpAddr::V6(address)) => written.ipv6.replace(address).is_some(),
            Err(_) => {
                setting.fail(format!("is {text:?}; write an IP address"));
                return None;
            }
        };
        if is_second {
            setting.fail("has two of one family; write one of each that viewers reach");
        }
    }
    if written.ipv4.is_none() && written.ipv6.is_none() {
        addresses.fail("is empty; write where viewers reach it");
        return None;
    }
    let appliance = Appliance::try_from(written);
    appliance.map_err(|mistake| section.fail(format!("`steering.appliances`: {mistake}"))).ok()
}

/// A place on Earth.
pub(super) fn position(setting: &Setting<'_>) -> Option<Position> {
    let expected = "two numbers, [LATITUDE, LONGITUDE] in degrees";
    let items = setting.array("two numbers, [LATITUDE, LONGITUDE] in degrees");
    let degrees = items.iter().filter_map(|item| match item.value {
        DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
        DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
        _ => None,
    });
    let position = match *degrees.collect::<Vec<_>>() {
        [latitude, longitude] if items.len() == 2 => Position::new(latitude, longitude),
        _ => None,
    };
    if position.is_none() && setting.is_array() {
        setting.fail(format!("is no place on Earth; write {expected}"));
    }
    position
}
