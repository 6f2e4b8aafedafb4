//! A site, its origins and its rules.

use std::time::{Duration, SystemTime};

use http::header::{HeaderName, HeaderValue};
use jiff::Timestamp;

use super::join;
use crate::config::units::{bytes_text, duration_text, rate_text};
use crate::site::{
    Cmsd, Content, CorsOrigins, Entrance, FieldEdits, Foresight, Lifetimes, Listed, Methods,
    Networks, OffRoute, Origin, Pace, QueryPolicy, Redirects, RequestCacheControl, Rule, Site,
    Stands, Times, ViewerFields,
};

pub(super) fn site(site: &Site) -> Vec<(&'static str, String)> {
    let mut lines = vec![("hosts", site.hosts.join(", "))];
    lines.extend(site.origins.iter().map(|one| ("origin", origin(one))));
    if site.share > 1 {
        lines.push(("share", site.share.to_string()));
    }
    if site.ssd_percent < 100 {
        lines.push(("ssd share", format!("{}%", site.ssd_percent)));
    }
    lines
}

/// One origin: its URL, and what was said about it.
pub(in crate::cli) fn origin(origin: &Origin) -> String {
    let mut text = format!("{}://{}", origin.scheme.as_str(), origin.address);
    if origin.port != origin.scheme.default_port() {
        text.push_str(&format!(":{}", origin.port));
    }
    let mut told = Vec::new();
    told.extend(origin.host_header.as_ref().map(|host| format!("Host {host}")));
    told.extend(origin.server_name.as_ref().map(|name| format!("certificate for {name}")));
    if !origin.fields.is_empty() {
        told.push(format!("fields {}", names(&origin.fields)));
    }
    told.extend(origin.roots.as_ref().map(|roots| format!("{} own CA", roots.len())));
    if origin.redirects == Redirects::PassOn {
        told.push("redirects passed on".to_owned());
    }
    if !told.is_empty() {
        text.push_str(&format!("  {}", told.join(", ")));
    }
    text
}

/// What a rule says beside its pattern.
pub(in crate::cli) fn rule(rule: &Rule) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("lifetime", lifetimes(&rule.lifetimes)),
        ("query", query(&rule.query)),
        ("keep", rule.keep.as_str().to_owned()),
    ];
    if rule.content == Content::Live {
        lines.push(("content", rule.content.as_str().to_owned()));
    }
    if rule.request_cache_control == RequestCacheControl::Ignore {
        let ignored = rule.request_cache_control.as_str().to_owned();
        lines.push(("request_cache_control", ignored));
    }
    if rule.methods != Methods::default() {
        let names = join(rule.methods.names().map(str::to_owned));
        let most = bytes_text(rule.request_body_bytes_max);
        lines.push(("methods", format!("{names}, with up to {most}")));
    }
    if !rule.purge_from.is_empty() {
        let networks: Vec<_> = rule.purge_from.iter().map(ToString::to_string).collect();
        lines.push(("purge_from", networks.join(", ")));
    }
    if let Some(entrance) = &rule.entrance {
        lines.extend(viewers(entrance));
    }
    if rule.off_route != OffRoute::default() {
        lines.push(("off_route", rule.off_route.as_str().to_owned()));
    }
    if let ViewerFields::Only(names) = &rule.viewer_fields {
        lines.push(("request.only", join(names.iter().map(HeaderName::to_string))));
    }
    if let Some(cors) = &rule.cors {
        lines.push((
            "cors",
            match &cors.origins {
                CorsOrigins::Any => "*".to_owned(),
                CorsOrigins::Only(origins) => origins.join(", "),
            },
        ));
    }
    match rule.pace {
        Pace::Off => {}
        Pace::Cmcd => lines.push(("pace", "as players ask (rtp)".to_owned())),
        Pace::Bytes(bytes) => lines.push(("pace", rate_text(bytes))),
    }
    if rule.cmsd != Cmsd::default() {
        lines.push(("cmsd", rule.cmsd.as_str().to_owned()));
    }
    if rule.foresight != Foresight::default() {
        lines.push(("prefetch", rule.foresight.as_str().to_owned()));
    }
    for (name, edits) in [("request", &rule.request), ("response", &rule.response)] {
        if !edits.is_empty() {
            lines.push((name, field_edits(edits)));
        }
    }
    lines
}

fn viewers(entrance: &Entrance) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(countries) = &entrance.countries {
        let names = join(countries.listed.iter().map(ToString::to_string));
        let these = if countries.these == Stands::Inside { "only" } else { "all but" };
        let unknown = if countries.unknown == Stands::Inside { "let in" } else { "denied" };
        lines.push(("countries", format!("{these} {names}; unknown: {unknown}")));
    }
    let Networks { only, except } = &entrance.networks;
    let lists = [("networks, only", only), ("networks, not", except)];
    lines.extend(lists.into_iter().filter_map(|(name, listed)| {
        let Listed { here, file } = listed.as_ref()?;
        let file = file
            .iter()
            .map(|file| format!("{} of {}", file.told.load().count(), file.path.display()));
        Some((name, join(here.iter().map(|one| one.to_string()).chain(file))))
    }));
    if let Some(Times { from, until, daily, zone }) = &entrance.times {
        let zoned = |at: &SystemTime| Timestamp::try_from(*at).ok().map(|at| at.to_string());
        let at = |word, at: &Option<SystemTime>| Some(format!("{word} {}", zoned(at.as_ref()?)?));
        let daily = (!daily.is_empty()).then(|| {
            let zone = zone.iana_name().unwrap_or("UTC");
            format!("{} in {zone}", join(daily.iter().map(ToString::to_string)))
        });
        let all = [at("from", from), at("until", until), daily];
        lines.push(("times", join(all.into_iter().flatten())));
    }
    lines
}

fn lifetimes(lifetimes: &Lifetimes) -> String {
    let Lifetimes { given, least, most, errors, absence_most, .. } = *lifetimes;
    let Lifetimes { stale_while_revalidate, stale_if_error, .. } = *lifetimes;
    let longer_than_zero = |time: Duration| Some(time).filter(|time| !time.is_zero());
    let all = [
        ("given", given),
        ("least", least),
        ("most", most),
        ("errors", Some(errors)),
        ("404 and 410 at most", absence_most),
        ("stale while revalidate", longer_than_zero(stale_while_revalidate)),
        ("stale if error", longer_than_zero(stale_if_error)),
    ];
    let told = |(name, time): (&str, Option<_>)| Some(format!("{name} {}", duration_text(time?)));
    join(all.into_iter().filter_map(told))
}

fn query(query: &QueryPolicy) -> String {
    match query {
        QueryPolicy::All => "all".to_owned(),
        QueryPolicy::None => "none".to_owned(),
        QueryPolicy::Only(names) => format!("only {}", names.join(", ")),
        QueryPolicy::Except(names) => format!("all but {}", names.join(", ")),
    }
}

fn field_edits(edits: &FieldEdits) -> String {
    let remove = join(edits.remove.iter().map(HeaderName::to_string));
    let add = names(&edits.add);
    let told = [("remove", remove), ("add", add)];
    let told = told.iter().filter(|(_, names)| !names.is_empty());
    told.map(|(verb, names)| format!("{verb} {names}")).collect::<Vec<_>>().join("; ")
}

fn names(fields: &[(HeaderName, HeaderValue)]) -> String {
    join(fields.iter().map(|(name, _)| name.to_string()))
}
