//! Sites as they are written: hosts, origins, rules, and what rules take over from their site.
//!
//! A rule says only what differs: each lifetime, the query and each list of fields it leaves out is
//! the site's. A last rule for everything else is added unless one is written.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::door::Demands;
use crate::limits::{HOSTS_PER_SITE_MAX, RULES_PER_SITE_MAX, SITES_MAX};
use crate::object::SiteId;
use crate::site::{Access, PathPattern, Rule, Site, Sites};

use super::error::Place;
use super::origins;
use super::raw::Section;
use super::rules::{policy, silent};
use super::setting::Setting;
use super::tokens;

/// Letters of a site's name: it labels metrics and log lines.
const NAME_BYTES_MAX: usize = 64;
/// As many times another site's share.
const SHARE_MAX: u64 = 1_000;

/// Reads the array `sites` of the document; and what is demanded of tokens, by the names of sites.
pub(super) fn read(document: &Section<'_>) -> (Sites, Vec<(String, Demands)>) {
    let mut taken = Taken::default();
    let (mut index, mut demands) = (0, Vec::new());
    let sites = document.each("sites", |section| {
        let (site, demanded) = site(section, SiteId(index), &mut taken);
        demands.extend(demanded.map(|demanded| (site.name.clone(), demanded)));
        index = index.saturating_add(1);
        site
    });
    if sites.is_empty() {
        document.fail("no site; write `[[sites]]` with `name`, `hosts` and `origins`");
    }
    if sites.len() > SITES_MAX {
        document.fail(format!("{} sites; at most {SITES_MAX}", sites.len()));
    }
    (Sites::new(sites), demands)
}

/// Names and hosts that have been given away, and where.
#[derive(Default)]
struct Taken {
    names: HashMap<String, Place>,
    hosts: HashMap<String, Place>,
}

fn site(section: &Section<'_>, id: SiteId, taken: &mut Taken) -> (Site, Option<Demands>) {
    let name = name(section, &mut taken.names);
    let hosts = hosts(section, &mut taken.hosts);
    let origins = origins::read(section);
    let share_of_all = section.count("share", 1, 1..=SHARE_MAX) as u32;
    let ssd_percent = section.setting("ssd_share").and_then(share).unwrap_or(100);
    let demands = tokens::read(section);
    let access = if section.has("tokens") { Access::Token } else { Access::Open };
    let base = policy(section, &Rule { access, ..silent() });
    let (rules, edited_before) = (rules(section, base), Vec::new());
    if !section.has("tokens") && rules.iter().any(|rule| rule.access == Access::Token) {
        section.fail("`access` is \"token\", and nothing says whose; write `tokens.keys`");
    }
    let site =
        Site { id, name, hosts, origins, share: share_of_all, ssd_percent, rules, edited_before };
    (site, demands)
}

/// A whole percentage; without a unit it would be anyone's guess.
fn share(setting: Setting<'_>) -> Option<u8> {
    let percent = setting.percent();
    if percent.is_none() {
        setting.mismatch("a share of the ssd tier, \"1%\" to \"100%\"");
    }
    percent.and_then(|percent| u8::try_from(percent).ok())
}

fn name(section: &Section<'_>, taken: &mut HashMap<String, Place>) -> String {
    let setting = section.required("name", "a short word for metrics and logs such as \"film\"");
    let Some((setting, text)) = setting.and_then(Setting::with_text) else {
        return String::new();
    };
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.chars().all(letter) {
        setting
            .fail(format!("is {text:?}; 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`"));
    }
    if let Some(Place { line, column }) = taken.get(text) {
        setting.fail(format!("is {text:?} as at {line}:{column}; each site has its own name"));
    }
    taken.entry(text.to_owned()).or_insert_with(|| section.source.place(setting.at));
    text.to_owned()
}

fn hosts(section: &Section<'_>, taken: &mut HashMap<String, Place>) -> Vec<String> {
    let Some(setting) = section.required("hosts", "`hosts = [\"video.example.com\"]`") else {
        return Vec::new();
    };
    let mut hosts = Vec::new();
    let texts = setting.texts();
    if texts.is_empty() {
        setting.fail("is empty; write the host names viewers ask for, or \"*\" for all");
    }
    if texts.len() > HOSTS_PER_SITE_MAX {
        setting.fail(format!("has {} names; at most {HOSTS_PER_SITE_MAX}", texts.len()));
    }
    for (setting, text) in texts {
        let Some(host) = host(&setting, text) else { continue };
        if let Some(Place { line, column }) = taken.get(&host) {
            setting.fail(format!("{host:?} is taken at {line}:{column}; each host has one site"));
            continue;
        }
        taken.insert(host.clone(), section.source.place(setting.at));
        hosts.push(host);
    }
    hosts
}

/// A host as `Sites::find` is asked for it.
pub(super) fn host(setting: &Setting<'_>, text: &str) -> Option<String> {
    let host = host_in(text);
    if host.is_none() {
        setting.fail(format!(
            "is {text:?}; a host is \"video.example.com\", \"*.example.com\", \"*\" or an IP \
             address, without scheme, port or path"
        ));
    }
    host
}

/// Nothing of what is no host.
pub(super) fn host_in(text: &str) -> Option<String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse() {
        Ok(IpAddr::V6(address)) => return Some(format!("[{address}]")),
        Ok(IpAddr::V4(address)) => return Some(address.to_string()),
        Err(_) => {}
    }
    let host = text.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let labels = host.strip_prefix("*.").unwrap_or(host);
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(letter);
    let is_good = host == "*" || (labels.len() <= 253 && labels.split('.').all(label));
    is_good.then(|| host.to_owned())
}

fn rules(section: &Section<'_>, base: Rule) -> Vec<Rule> {
    let mut everything_at: Option<Place> = None;
    let mut rules = section.each("rules", |rule| {
        let path = rule.required("path", "a pattern such as \"*.m3u8\" or \"/live/**\"");
        let pattern = path.as_ref().and_then(pattern);
        path.as_ref().inspect(|path| warn_of_word(path));
        if let (Some(Place { line, column }), Some(path)) = (everything_at, &path) {
            let text =
                format!("`{}` is never reached: \"**\" stands at {line}:{column}", path.name);
            rule.source.warn(rule.source.place(path.at), text);
        }
        let pattern = pattern.unwrap_or_else(PathPattern::everything);
        if let (true, Some(path)) = (pattern.is_everything(), &path) {
            everything_at.get_or_insert(rule.source.place(path.at));
        }
        Rule { pattern, ..policy(rule, &base) }
    });
    if rules.len() > RULES_PER_SITE_MAX {
        section.fail(format!("{} rules; at most {RULES_PER_SITE_MAX}", rules.len()));
    }
    if everything_at.is_none() {
        rules.push(base);
    }
    rules
}

fn pattern(setting: &Setting<'_>) -> Option<PathPattern> {
    let text = setting.text()?;
    match PathPattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            setting.fail(format!("is {text:?}: {error}"));
            None
        }
    }
}

/// A name alone is a pattern, of files that are called so and nothing else: hardly what is meant.
fn warn_of_word(setting: &Setting<'_>) {
    let Some(text) = setting.value.as_str() else { return };
    let word = text.strip_prefix('.').unwrap_or(text);
    if word.is_empty() || word.contains(['/', '*', '.']) {
        return;
    }
    let warning = format!(
        "`{}` is {text:?}, which matches paths that end in \"/{text}\" and no others; write \
         \"*.{word}\" for names that end in .{word}, \"{text}/**\" for what lies in a folder of \
         that name, or \"/**/{text}\" if it is meant",
        setting.name
    );
    setting.source.warn(setting.source.place(setting.at), warning);
}

/// A line for each host that no certificate is for.
pub(super) fn uncovered(sites: &Sites, covered: impl Fn(&str) -> bool) -> Vec<String> {
    let hosts = sites.iter().flat_map(|site| site.hosts.iter().map(move |host| (host, site)));
    let uncovered = hosts.filter(|(host, _)| !covered(host));
    uncovered
        .map(|(host, site)| format!("no certificate is for {host:?} of site {:?}", site.name))
        .collect()
}
