//! Which networks of viewers which appliances are for: files that say so, and what they may say.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::raw::Section;
use super::setting::Setting;
use crate::control::registry::appliance::is_name;
use crate::control::routes::{Cluster, Format, Guards, Plan, RouteFile};
use crate::limits::{APPLIANCES_MAX, ROUTE_FILES_MAX, ROUTES_PER_FILE_MAX};

/// The section `routes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// What is read.
    pub plan: Plan,
    /// How often it is looked at.
    pub reread: Duration,
}

/// Reads the section `routes`.
pub(super) fn read(section: &Section<'_>) -> Routes {
    let seconds = Duration::from_secs;
    let reread =
        section.duration("reread", seconds(10), Duration::from_millis(50)..=seconds(3_600));
    let usual = Plan::default();
    let hold = section.duration("hold", usual.hold, Duration::ZERO..=seconds(7 * 86_400));
    let guards = section.section("guards", guards);
    let databases = section.setting("databases").map(|setting| databases(&setting));
    let mut files: Vec<RouteFile> = section.each("files", file).into_iter().flatten().collect();
    let clusters = section.each("clusters", cluster).into_iter().flatten().collect();
    let databases = databases.unwrap_or_default();
    if files.len() + databases.len() > ROUTE_FILES_MAX {
        section.fail(format!("`routes` names more than {ROUTE_FILES_MAX} files"));
    }
    let mut paths = HashSet::new();
    files.retain(|file| {
        let is_new = paths.insert(file.path.clone());
        if !is_new {
            let path = file.path.display();
            section.fail(format!("`routes.files` names {path} twice; what it tells counts once"));
        }
        is_new
    });
    Routes { plan: Plan { files, databases, guards, clusters, hold }, reread }
}

fn guards(section: &Section<'_>) -> Guards {
    let usual = Guards::default();
    let bits = |key, usual: u8, max: u64| section.count(key, usual.into(), 1..=max) as u8;
    let routes_max = usual.routes_max as u64;
    Guards {
        ipv4_bits_min: bits("ipv4_bits", usual.ipv4_bits_min, 32),
        ipv6_bits_min: bits("ipv6_bits", usual.ipv6_bits_min, 128),
        routes_max: section.count("routes", routes_max, 1..=ROUTES_PER_FILE_MAX as u64) as usize,
        ..usual
    }
}

fn databases(setting: &Setting<'_>) -> Vec<PathBuf> {
    let texts = setting.texts().into_iter();
    texts.map(|(setting, text)| setting.source.folder.join(text)).collect()
}

fn file(section: &Section<'_>) -> Option<RouteFile> {
    let path = section.required("path", "`path = \"fra.prefixes\"`").and_then(Setting::with_text);
    let kinds = [("prefixes", Kind::Prefixes), ("coverage-zones", Kind::Zones), ("mrt", Kind::Mrt)];
    let kind = section.choice("format", Kind::Prefixes, &kinds);
    let boxes = section.setting("boxes");
    let zones = section.each("zones", zone);
    let of_no_use = |key, why| {
        section.fail(format!("`routes.files.{key}` is of no use: {why}; leave it out"));
    };
    if boxes.is_some() && kind != Kind::Mrt {
        of_no_use("boxes", "the file says whose its prefixes are");
    }
    if section.has("zones") && kind != Kind::Zones {
        of_no_use("zones", "only a coverage zone file has zones");
    }
    let format = match kind {
        Kind::Prefixes => Format::Prefixes,
        Kind::Zones => Format::CoverageZones { boxes: zones.into_iter().flatten().collect() },
        Kind::Mrt => {
            let boxes = boxes.map(|setting| names(&setting)).unwrap_or_default();
            if boxes.is_empty() {
                section.fail(
                    "`routes.files.boxes` is missing; write who announces what the dump holds, \
                     such as [\"fra-1\", \"fra-2\"]",
                );
            }
            Format::Mrt { boxes }
        }
    };
    let (setting, text) = path?;
    Some(RouteFile { path: setting.source.folder.join(text), format })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Prefixes,
    Zones,
    Mrt,
}

fn zone(section: &Section<'_>) -> Option<(String, Vec<Arc<str>>)> {
    let name = section.required("name", "`name = \"fra\"`").and_then(Setting::with_text);
    let boxes = section.required("boxes", "`boxes = [\"fra-1\", \"fra-2\"]`");
    let boxes = boxes.map(|setting| names(&setting))?;
    Some((name?.1.to_owned(), boxes))
}

fn cluster(section: &Section<'_>) -> Option<Cluster> {
    let (name, boxes) = zone(section)?;
    Some(Cluster { name, boxes })
}

/// Names of appliances, each once.
fn names(setting: &Setting<'_>) -> Vec<Arc<str>> {
    let mut names: BTreeMap<&str, Arc<str>> = BTreeMap::new();
    for (setting, text) in setting.texts() {
        if !is_name(text) {
            setting.fail(format!(
                "is {text:?}; write the name of an appliance, of A-Z, a-z, 0-9, `.`, `_` and `-`"
            ));
        } else if names.insert(text, text.into()).is_some() {
            setting.fail(format!("names {text:?} twice"));
        }
    }
    if names.len() > APPLIANCES_MAX {
        setting.fail(format!("names more than {APPLIANCES_MAX} appliances"));
    }
    names.into_values().collect()
}
