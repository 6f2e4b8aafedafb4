//! What a site or rule says about who comes in: from where, and when.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use toml::de::DeValue;

use super::error::cause;
use super::raw::Section;
use super::setting::Setting;
use super::{Config, Routes};
use crate::geo::{Country, Geo};
use crate::limits::{
    ENTRANCE_COUNTRIES_MAX, ENTRANCE_FILE_BYTES_MAX, ENTRANCE_HOURS_MAX, NETWORKS_MAX,
    PLACES_BYTES_MAX, PLACES_LOOKED_AT_MAX,
};
use crate::site::{
    Countries, Entrance, Hours, Listed, NetworkFile, Networks, OffRoute, Prefixes, Rule, Site,
    Stands, Times, network,
};

/// Reads `"everyone"` or a table, whose parts that are not written are as in `base`.
pub(super) fn entrance(
    setting: &Setting<'_>,
    base: Option<&Arc<Entrance>>,
) -> Option<Arc<Entrance>> {
    if !setting.is_table() {
        if let Some(text) = setting.text().filter(|text| *text != "everyone") {
            setting.fail(format!(
                "is {text:?}; it can be \"everyone\", or a table of countries, networks and times"
            ));
        }
        return None;
    }
    let base = base.map(|base| Entrance::clone(base)).unwrap_or_default();
    let entrance = Section::of(setting, |section| {
        let part = |key| section.setting(key);
        Entrance {
            countries: part("countries").map_or(base.countries, |it| Section::of(&it, countries)),
            networks: part("networks").map_or(base.networks, |it| Section::of(&it, networks)),
            times: part("times").map_or(base.times, |it| Some(Section::of(&it, times))),
        }
    });
    (!entrance.is_open()).then(|| Arc::new(entrance))
}

fn countries(section: &Section<'_>) -> Option<Countries> {
    let (only, except) = (section.setting("only"), section.setting("except"));
    let stands = [("denied", Stands::Outside), ("let-in", Stands::Inside)];
    let unknown = section.choice("unknown", Stands::Outside, &stands);
    let (setting, these) = match (only, except) {
        (Some(only), None) => (only, Stands::Inside),
        (None, Some(except)) => (except, Stands::Outside),
        _ => {
            section.fail("countries are { only = [..] } or { except = [..] }, one of them");
            return None;
        }
    };
    let texts = setting.texts();
    if texts.is_empty() || texts.len() > ENTRANCE_COUNTRIES_MAX {
        setting.fail(format!("has {} countries; 1 to {ENTRANCE_COUNTRIES_MAX}", texts.len()));
    }
    let country = |(setting, text): &(Setting<'_>, &str)| {
        let country: Option<Country> = text.parse().ok();
        if country.is_none() {
            setting.fail(format!("is {text:?}; two letters of ISO 3166-1 such as \"DE\""));
        }
        country
    };
    Some(Countries { listed: texts.iter().filter_map(country).collect(), these, unknown })
}

fn networks(section: &Section<'_>) -> Networks {
    Networks {
        only: listed(section, "only", "only_file"),
        except: listed(section, "except", "except_file"),
    }
}

fn listed(section: &Section<'_>, here: &'static str, file: &'static str) -> Option<Listed> {
    let (here, file) = (section.setting(here), section.setting(file));
    if here.is_none() && file.is_none() {
        return None;
    }
    Some(Listed {
        here: here.map(|setting| networks_here(&setting)).unwrap_or_default(),
        file: file.and_then(|setting| network_file(&setting)),
    })
}

fn networks_here(setting: &Setting<'_>) -> Prefixes {
    let texts = setting.texts();
    if texts.len() > NETWORKS_MAX {
        setting.fail(format!(
            "has {} networks; at most {NETWORKS_MAX}, and more in a file",
            texts.len()
        ));
    }
    let mut prefixes = Prefixes::default();
    for (setting, text) in texts {
        match network(text) {
            Some(network) => prefixes.insert(network),
            None => {
                let example = "write a network such as \"192.0.2.0/24\" or an address";
                setting.fail(format!("is {text:?}; {example}"));
            }
        }
    }
    prefixes
}

fn network_file(setting: &Setting<'_>) -> Option<Arc<NetworkFile>> {
    let path = setting.source.folder.join(setting.text()?);
    match read_networks(&path) {
        Ok(told) => Some(Arc::new(NetworkFile { path, told: ArcSwap::from_pointee(told) })),
        Err(why) => {
            setting.fail(format!("names {}, {why}", path.display()));
            None
        }
    }
}

/// Why a file is not used, in words that follow its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unused {
    /// It cannot be read: a moment later it may.
    Unread(String),
    /// What it says is no good until it is another one.
    Refused(String),
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unused::Unread(why) => write!(f, "which cannot be read: {why}"),
            Unused::Refused(why) => write!(f, "which {why}"),
        }
    }
}

/// What a file of networks says.
///
/// # Errors
/// What is wrong with it.
pub fn read_networks(path: &Path) -> Result<Prefixes, Unused> {
    let text = read(path, ENTRANCE_FILE_BYTES_MAX as u64)?;
    Prefixes::parse(&text).map_err(|fault| Unused::Refused(format!("is refused: {fault}")))
}

/// Adds a database of countries and ASes.
///
/// # Errors
/// What is wrong with it.
pub fn read_places(path: &Path, into: &mut Geo) -> Result<(), Unused> {
    let bytes = read(path, PLACES_BYTES_MAX)?;
    into.add(path, bytes).map_err(|error| Unused::Refused(error.to_string()))
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Unused> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes));
    read.map_err(|error| Unused::Unread(cause(&error)))?;
    match bytes.len() as u64 > bytes_max {
        true => Err(Unused::Refused(format!("has more than {bytes_max} bytes"))),
        false => Ok(bytes),
    }
}

fn times(section: &Section<'_>) -> Times {
    let zone = section.setting("zone").and_then(|setting| zone(&setting)).unwrap_or(TimeZone::UTC);
    let at = |key| section.setting(key).and_then(|setting| moment(&setting, &zone));
    let (from, until) = (at("from"), at("until"));
    if let (Some(from), Some(until)) = (from, until)
        && from >= until
    {
        section.fail("`from` is not before `until`: nobody would ever come in");
    }
    let daily = section.setting("daily").map(|setting| hours(&setting)).unwrap_or_default();
    Times { from, until, daily, zone }
}

fn zone(setting: &Setting<'_>) -> Option<TimeZone> {
    let text = setting.text()?;
    let zone = TimeZone::get(text).ok();
    if zone.is_none() {
        setting
            .fail(format!("is {text:?}; write a time zone such as \"Europe/Berlin\" or \"UTC\""));
    }
    zone
}

/// A moment, of the time zone unless it says of which. What is read of it without a word would be
/// another one: a day alone is over before it has begun, and of a zone's name nothing is made.
fn moment(setting: &Setting<'_>, zone: &TimeZone) -> Option<SystemTime> {
    let text = match setting.value {
        DeValue::Datetime(date) => date.to_string(),
        _ => setting.text()?.to_owned(),
    };
    let there = || zone.to_timestamp(text.parse::<DateTime>().ok()?).ok();
    let is_whole = text.contains(['T', 't', ' ']) && !text.contains('[');
    let moment = || text.parse::<Timestamp>().ok().or_else(there);
    let moment = is_whole.then(moment).flatten();
    if moment.is_none() {
        setting.fail(format!(
            "is {text:?}; write a moment such as \"2027-01-31T18:00:00\" or one with \"+01:00\" \
             behind it"
        ));
    }
    moment.and_then(|moment| SystemTime::try_from(moment).ok())
}

fn hours(setting: &Setting<'_>) -> Vec<Hours> {
    let texts = setting.texts();
    if texts.is_empty() || texts.len() > ENTRANCE_HOURS_MAX {
        setting.fail(format!("has {} parts of a day; 1 to {ENTRANCE_HOURS_MAX}", texts.len()));
    }
    let part = |(setting, text): &(Setting<'_>, &str)| {
        let part = text.parse().ok();
        if part.is_none() {
            setting.fail(format!(
                "is {text:?}; write a part of a day such as \"18:00-24:00\" or \"22:00-06:00\""
            ));
        }
        part
    };
    texts.iter().filter_map(part).collect()
}

impl Config {
    /// The databases that say who comes in, if anything asks them.
    pub fn places_asked(&self) -> &[PathBuf] {
        let is_asked = self.sites.iter().any(|site| is_by_country(site))
            || self.demands.iter().any(|(_, demands)| demands.cat.is_some());
        if is_asked { &self.routes.plan.databases } else { &[] }
    }

    /// Which box this is, as routes call it.
    pub fn own_name(&self) -> Option<&str> {
        let of_fleet = self.fleet.as_ref().map(|fleet| fleet.appliance.name());
        of_fleet.or(self.steering.own_name.as_deref())
    }
}

fn is_by_country(site: &Site) -> bool {
    let asks = |entrance: &Arc<Entrance>| entrance.countries.is_some();
    site.rules.iter().any(|rule| rule.entrance.as_ref().is_some_and(asks))
}

/// Says what is missing, and what is wrong with the databases that say who comes in.
pub(super) fn check(document: &Section<'_>, config: &Config) {
    let asking = config.sites.iter().find(|site| is_by_country(site));
    let Routes { plan, .. } = &config.routes;
    if let (Some(site), true) = (asking, plan.databases.is_empty()) {
        document.fail(format!(
            "who comes in to site {:?} depends on his country, and nothing says which that is; \
             write `routes.databases`",
            site.name
        ));
    }
    let turns_away = |rule: &Rule| rule.off_route != OffRoute::Serve;
    let turning = config.sites.iter().find(|site| site.rules.iter().any(turns_away));
    if let (Some(site), None) = (turning, config.own_name()) {
        document.fail(format!(
            "`off_route` of site {:?} turns viewers of other boxes away, and nothing says which \
             box this is; write `steering.name`, or `fleet.name`",
            site.name
        ));
    }
    let asked = config.places_asked();
    document.section_of_others("routes", |section| {
        let Some(setting) = section.setting("databases").filter(|_| !asked.is_empty()) else {
            return;
        };
        let (mut tells_countries, mut are_read) = (false, true);
        for ((setting, _), path) in setting.texts().iter().zip(asked) {
            let mut geo = Geo::default();
            if let Err(why) = read_places(path, &mut geo) {
                are_read = false;
                setting.fail(format!("names {}, {why}", path.display()));
            }
            tells_countries |= geo.tells_countries(PLACES_LOOKED_AT_MAX);
        }
        if let (Some(site), true) = (asking, are_read && !tells_countries) {
            let warning = format!(
                "`{}` has no database that tells countries, it seems: of every viewer of site {:?} \
                 his is unknown",
                setting.name, site.name
            );
            setting.source.warn(setting.source.place(setting.at), warning);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Machine;
    use super::*;

    const CITY: &[u8] = include_bytes!("../../fuzz/seeds/places/city");
    const ASN: &[u8] = include_bytes!("../../fuzz/seeds/places/asn");

    fn read_in(folder: &Path, more: &str, rules: &str) -> Result<Config, String> {
        let text = format!(
            "listeners.http = \"[::1]:0\"\n{more}[[sites]]\nname = \"s\"\nhosts = \"a\"\n\
             origins = \"http://o\"\n{rules}"
        );
        let machine = Machine { cores: 1, memory_bytes: Some(16 << 30) };
        let name = folder.join("t.toml");
        let read = Config::on_machine(&text, name.to_str().unwrap(), &machine);
        read.map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_rule_says_only_what_differs_from_its_site() {
        let folder = tempfile::tempdir().unwrap();
        let rules = "viewers.networks.only = [\"192.0.2.0/24\"]\nrules = [\
                     { path = \"/free/**\", viewers = \"everyone\" }, \
                     { path = \"/late/**\", viewers.times.daily = \"22:00-06:00\" }]\n";
        let config = read_in(folder.path(), "", rules).unwrap();
        let site = config.sites.find("a").unwrap();
        assert!(site.rule_for("/free/a").entrance.is_none());
        let late = site.rule_for("/late/a").entrance.as_ref().unwrap();
        assert!(late.networks.only.is_some() && late.times.is_some());
        let other = site.rule_for("/a").entrance.as_ref().unwrap();
        assert!(other.networks.only.is_some() && other.times.is_none());
        assert!(config.places_asked().is_empty());
    }

    #[test]
    fn a_moment_is_that_of_the_time_zone_unless_it_says_of_which() {
        let folder = tempfile::tempdir().unwrap();
        let until = |moment: &str| {
            let rules =
                format!("viewers.times = {{ until = {moment}, zone = \"Europe/Berlin\" }}\n");
            let config = read_in(folder.path(), "", &rules).unwrap();
            let rule = config.sites.find("a").unwrap().rule_for("/").clone();
            Timestamp::try_from(rule.entrance.unwrap().times.clone().unwrap().until.unwrap())
                .unwrap()
                .to_string()
        };
        assert_eq!(until("\"2026-07-01T12:00:00\""), "2026-07-01T10:00:00Z");
        assert_eq!(until("2026-07-01T12:00:00"), "2026-07-01T10:00:00Z");
        assert_eq!(until("\"2026-07-01T12:00:00Z\""), "2026-07-01T12:00:00Z");
        assert_eq!(until("2026-07-01T12:00:00+05:00"), "2026-07-01T07:00:00Z");
    }

    #[test]
    fn a_database_that_is_none_is_a_line_where_somebody_asks_it() {
        let folder = tempfile::tempdir().unwrap();
        let places = "routes.databases = [\"places.mmdb\"]\n";
        let rules = "viewers.countries.except = \"DE\"\n";
        let file = folder.path().join("places.mmdb");
        for (bytes, expected) in [
            (None, "which cannot be read: no such file or directory"),
            (Some(&b"192.0.2.0/24"[..]), "which is no database in the format MMDB"),
            (Some(&CITY[..CITY.len() - 60]), "which is no database in the format MMDB"),
        ] {
            bytes.into_iter().for_each(|bytes| fs::write(&file, bytes).unwrap());
            assert!(read_in(folder.path(), places, "").is_ok(), "nobody asks it");
            let line = read_in(folder.path(), places, rules).unwrap_err();
            assert!(line.contains("t.toml:2:21: `routes.databases` names "), "{line}");
            assert!(line.contains(expected) && !line.contains('\n'), "{line}");
        }
        for (bytes, warnings) in [(CITY, 0), (ASN, 1)] {
            fs::write(&file, bytes).unwrap();
            let config = read_in(folder.path(), places, rules).unwrap();
            assert_eq!(config.places_asked(), std::slice::from_ref(&file));
            assert_eq!(config.warnings.len(), warnings);
            let told = config.warnings.iter().map(ToString::to_string).collect::<String>();
            assert!(
                warnings == 0 || told.contains("has no database that tells countries"),
                "{told}"
            );
        }
    }
}
