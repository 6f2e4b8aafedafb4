//! What a site or one of its rules says about the responses under it.
//!
//! Site and rule are written with the same settings; a rule starts from its site's.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::Method;
use http::header::{self, HeaderName, HeaderValue};

use crate::limits::{LIVE_ABSENCE_MAX, METHODS_PER_RULE_MAX, NETWORKS_MAX, REQUEST_BODY_BYTES_MAX};
use crate::network::Network;
use crate::site::{
    Access, Cmsd, Content, FieldEdits, Foresight, Keep, Lifetimes, Methods, OffRoute, Pace,
    QueryPolicy, RequestCacheControl, Rule, Steered, ViewerFields,
};

use super::cors::cors;
use super::entrance::entrance;
use super::raw::Section;
use super::setting::Setting;
use super::units::duration_text;

/// Ten years: nothing anyone means is longer.
const LIFETIMES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(10 * 365 * 86_400);

/// Fields that frame a message, choose bytes of it or belong to one connection.
const OURS: [HeaderName; 12] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::EXPECT,
    header::HOST,
    header::IF_RANGE,
    header::PROXY_AUTHENTICATE,
    header::RANGE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// How long errors keep about which the origin is silent, unless set.
const ERRORS_DEFAULT: Duration = Duration::from_secs(1);
/// How long stale responses serve where the origin fails, unless set: its restart goes unnoticed,
/// and who plays live soon learns that another edge may have more.
const STALE_IF_ERROR_DEFAULT: Duration = Duration::from_secs(60);

/// What a site says that says nothing.
pub(super) fn silent() -> Rule {
    let lifetimes = Lifetimes {
        errors: ERRORS_DEFAULT,
        stale_if_error: STALE_IF_ERROR_DEFAULT,
        ..Lifetimes::default()
    };
    Rule { lifetimes, ..Rule::everything() }
}

/// Reads the settings a site and a rule have in common; what is not written is as in `base`, and so
/// is the pattern.
pub(super) fn policy(section: &Section<'_>, base: &Rule) -> Rule {
    let (viewer_fields, request) = section.section("request", |edits| {
        let only = edits.setting("only").map(|setting| ViewerFields::Only(names(&setting)));
        let viewer_fields = only.unwrap_or_else(|| base.viewer_fields.clone());
        (viewer_fields, field_edits(edits, &base.request))
    });
    let content = section.choice(
        "content",
        base.content,
        &Content::ALL.map(|content| (content.as_str(), content)),
    );
    let lifetimes = section.section("lifetime", |lifetime| lifetimes(lifetime, base.lifetimes));
    let absence_most = (content == Content::Live).then_some(LIVE_ABSENCE_MAX);
    Rule {
        pattern: base.pattern.clone(),
        entrance: match section.setting("viewers") {
            Some(setting) => entrance(&setting, base.entrance.as_ref()),
            None => base.entrance.clone(),
        },
        off_route: section.choice(
            "off_route",
            base.off_route,
            &OffRoute::ALL.map(|choice| (choice.as_str(), choice)),
        ),
        access: section.choice(
            "access",
            base.access,
            &Access::ALL.map(|access| (access.as_str(), access)),
        ),
        lifetimes: Lifetimes { absence_most, ..lifetimes },
        query: section.setting("query").and_then(query).unwrap_or_else(|| base.query.clone()),
        request_cache_control: section.choice(
            "request_cache_control",
            base.request_cache_control,
            &RequestCacheControl::ALL.map(|choice| (choice.as_str(), choice)),
        ),
        methods: match section.setting("methods") {
            Some(setting) => methods(&setting),
            None => base.methods.clone(),
        },
        request_body_bytes_max: section
            .setting("request_body")
            .and_then(|setting| setting.bytes(1..=REQUEST_BODY_BYTES_MAX))
            .unwrap_or(base.request_body_bytes_max),
        purge_from: match section.setting("purge_from") {
            Some(setting) => networks(&setting),
            None => base.purge_from.clone(),
        },
        keep: section.choice("keep", base.keep, &Keep::ALL.map(|keep| (keep.as_str(), keep))),
        content,
        viewer_fields,
        request,
        response: section.section("response", |edits| field_edits(edits, &base.response)),
        cors: section.setting("cors").and_then(cors).unwrap_or_else(|| base.cors.clone()),
        foresight: section.choice(
            "prefetch",
            base.foresight,
            &Foresight::ALL.map(|choice| (choice.as_str(), choice)),
        ),
        pace: section.setting("pace").and_then(|it| pace(&it)).unwrap_or(base.pace),
        steered: section.choice(
            "steering",
            base.steered,
            &Steered::ALL.map(|choice| (choice.as_str(), choice)),
        ),
        cmsd: section.choice("cmsd", base.cmsd, &Cmsd::ALL.map(|to| (to.as_str(), to))),
    }
}

fn pace(setting: &Setting<'_>) -> Option<Pace> {
    match setting.value.as_str() {
        Some("off") => Some(Pace::Off),
        Some("cmcd") => Some(Pace::Cmcd),
        _ => {
            let expected = "\"off\", \"cmcd\" or a rate such as \"20 Mbit/s\"";
            setting.bytes_per_second(expected).map(Pace::Bytes)
        }
    }
}

fn methods(setting: &Setting<'_>) -> Methods {
    let texts = setting.texts();
    if texts.len() > METHODS_PER_RULE_MAX {
        setting.fail(format!("has {} methods; at most {METHODS_PER_RULE_MAX}", texts.len()));
    }
    let mut passed = Vec::new();
    for (setting, text) in &texts {
        let why_not = match *text {
            "GET" | "HEAD" => Some("is answered under every rule; leave it out"),
            "CONNECT" => Some("asks for a tunnel, and none is made here; leave it out"),
            "TRACE" => Some("shows a viewer the secrets that origins are told; leave it out"),
            "PURGE" => Some("is done here and passed on to nobody; write `purge_from` instead"),
            _ => None,
        };
        match (why_not, Method::from_bytes(text.as_bytes())) {
            (Some(why_not), _) => setting.fail(format!("is about {text}, which {why_not}")),
            (None, Ok(method)) => {
                // RFC 9110 section 9.1.
                let capitals = text.to_ascii_uppercase();
                if capitals != *text {
                    let text = format!("{text:?} is another method than {capitals:?}");
                    setting.source.warn(setting.source.place(setting.at), text);
                }
                passed.push(method);
            }
            (None, Err(_)) => {
                setting
                    .fail(format!("is {text:?}, which is no method; write one such as \"POST\""));
            }
        }
    }
    Methods::new(passed)
}

/// Reads a list of networks.
pub(super) fn networks(setting: &Setting<'_>) -> Vec<Network> {
    let texts = setting.texts();
    if texts.len() > NETWORKS_MAX {
        setting.fail(format!("has {} networks; at most {NETWORKS_MAX}", texts.len()));
    }
    let network = |(setting, text): &(Setting<'_>, &str)| {
        let network = text.parse().ok();
        if network.is_none() {
            let example = "write a network such as \"192.0.2.0/24\" or an address";
            setting.fail(format!("is {text:?}; {example}"));
        }
        network
    };
    texts.iter().filter_map(network).collect()
}

fn lifetimes(section: &Section<'_>, base: Lifetimes) -> Lifetimes {
    let read = |key, base: Option<Duration>| {
        section.setting(key).and_then(|setting| setting.duration(LIFETIMES)).or(base)
    };
    let lifetimes = Lifetimes {
        given: read("given", base.given),
        least: read("least", base.least),
        most: read("most", base.most),
        errors: section.duration("errors", base.errors, LIFETIMES),
        absence_most: base.absence_most,
        stale_while_revalidate: section.duration(
            "stale_while_revalidate",
            base.stale_while_revalidate,
            LIFETIMES,
        ),
        stale_if_error: section.duration("stale_if_error", base.stale_if_error, LIFETIMES),
    };
    if !section.is_written() {
        return lifetimes;
    }
    for (name, value) in [("least", lifetimes.least), ("given", lifetimes.given)] {
        if let (Some(value), Some(most)) = (value, lifetimes.most)
            && value > most
        {
            let (value, most) = (duration_text(value), duration_text(most));
            section.fail(format!("`{name}` {value} is longer than `most` {most}"));
        }
    }
    lifetimes
}

fn query(setting: Setting<'_>) -> Option<QueryPolicy> {
    if setting.is_table() {
        return Section::of(&setting, listed_query);
    }
    match setting.text()? {
        "all" => Some(QueryPolicy::All),
        "none" => Some(QueryPolicy::None),
        other => {
            setting.fail(format!(
                "is {other:?}; it can be \"all\", \"none\", {{ only = [..] }} \
                 or {{ except = [..] }}"
            ));
            None
        }
    }
}

fn listed_query(section: &Section<'_>) -> Option<QueryPolicy> {
    let (only, except) = (section.setting("only"), section.setting("except"));
    match (only, except) {
        (Some(only), None) => Some(QueryPolicy::Only(parameters(&only))),
        (None, Some(except)) => Some(QueryPolicy::Except(parameters(&except))),
        _ => {
            section.fail("a query is { only = [..] } or { except = [..] }, one of them");
            None
        }
    }
}

fn parameters(setting: &Setting<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for (setting, text) in setting.texts() {
        let letter = |c: char| c.is_ascii_graphic() && !matches!(c, '&' | '=' | '#');
        match !text.is_empty() && text.chars().all(letter) {
            true => names.push(text.to_owned()),
            false => setting.fail(format!("is {text:?}; a parameter's name as URLs write it")),
        }
    }
    names
}

fn field_edits(section: &Section<'_>, base: &FieldEdits) -> FieldEdits {
    let remove = section.setting("remove").map(|setting| names(&setting));
    let add = section.setting("add").map(|setting| fields(&setting));
    FieldEdits {
        remove: remove.unwrap_or_else(|| base.remove.clone()),
        add: add.unwrap_or_else(|| base.add.clone()),
    }
}

fn names(setting: &Setting<'_>) -> Vec<HeaderName> {
    let texts = setting.texts();
    texts.iter().filter_map(|(setting, text)| field_name(setting, text)).collect()
}

/// Reads a table of field names and values.
pub(super) fn fields(setting: &Setting<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut fields = Vec::new();
    for (setting, name, value) in setting.pairs() {
        let value = HeaderValue::from_str(value).ok();
        if value.is_none() {
            setting.fail("has a value that no field can have; printable characters are wanted");
        }
        fields.extend(field_name(&setting, name).zip(value));
    }
    fields
}

fn field_name(setting: &Setting<'_>, text: &str) -> Option<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        setting.fail(format!(
            "is about {text:?}, which is no field name; write one such as \"Cookie\""
        ));
        return None;
    };
    if name == header::HOST {
        setting.fail("is about Host; write `host` of the origin instead");
        return None;
    }
    if OURS.contains(&name) {
        setting.fail(format!("is about {text}, which Tidegate writes itself; leave it out"));
        return None;
    }
    Some(name)
}
