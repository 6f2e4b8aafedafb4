//! What a site or rule says about pages of other origins.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use crate::site::{Cors, CorsOrigins, Credentials};

use super::raw::Section;
use super::setting::Setting;

/// Reads `"off"`, `"*"` or a table; outside: nothing was said that can be meant.
pub(super) fn cors(setting: Setting<'_>) -> Option<Option<Arc<Cors>>> {
    if setting.is_table() {
        return Some(Some(Arc::new(Section::of(&setting, told))));
    }
    match setting.text()? {
        "off" => Some(None),
        "*" => Some(Some(Arc::new(everybody()))),
        other => {
            setting.fail(format!("is {other:?}; it can be \"off\", \"*\" or {{ origins = [..] }}"));
            None
        }
    }
}

fn told(section: &Section<'_>) -> Cors {
    let silent = everybody();
    let origins = section.required("origins", "`origins = [\"https://player.example.com\"]`");
    let cors = Cors {
        origins: origins.as_ref().map_or(CorsOrigins::Any, self::origins),
        exposed: section.setting("expose").map_or(silent.exposed, |setting| list(&setting)),
        allowed: section.setting("headers").map_or(silent.allowed, |setting| list(&setting)),
        credentials: section.choice(
            "credentials",
            Credentials::Omitted,
            &Credentials::ALL.map(|choice| (choice.as_str(), choice)),
        ),
        max_age: section.duration("max_age", silent.max_age, MAX_AGE),
    };
    if cors.origins == CorsOrigins::Any && cors.credentials == Credentials::Included {
        section.fail("no browser takes credentials for pages of all origins; name the `origins`");
    }
    cors
}

fn everybody() -> Cors {
    Cors {
        origins: CorsOrigins::Any,
        exposed: HeaderValue::from_static(EXPOSED),
        allowed: HeaderValue::from_static(ALLOWED),
        credentials: Credentials::Omitted,
        max_age: MAX_AGE_DEFAULT,
    }
}

fn origins(setting: &Setting<'_>) -> CorsOrigins {
    let texts = setting.texts();
    if texts.iter().any(|(_, text)| *text == "*") {
        return CorsOrigins::Any;
    }
    let mut origins = Vec::new();
    for (setting, text) in texts {
        match is_origin(text) {
            true => origins.push(text.to_owned()),
            false => setting.fail(format!(
                "is {text:?}; an origin is \"https://player.example.com\", \
                 \"https://*.example.com\" or \"*\", in lower case, without a path or a usual port"
            )),
        }
    }
    CorsOrigins::Only(origins)
}

/// Whether a browser may write it so, with `*.` for labels.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let named = rest.strip_prefix("*.").unwrap_or(rest);
    let Ok(uri) = format!("{scheme}://{named}").parse::<Uri>() else { return false };
    let usual = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let is_host = |host: &str| !host.is_empty() && !host.contains(['*', '@', '%', '_']);
    uri.authority().is_some_and(|authority| authority.as_str() == named && is_host(named))
        && !named.ends_with(':')
        && uri.port_u16() != Some(usual)
        && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn list(setting: &Setting<'_>) -> HeaderValue {
    let mut names = Vec::new();
    for (setting, text) in setting.texts() {
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(_) if text != "*" => names.push(text),
            _ => setting.fail(format!("is {text:?}; a field's name such as \"Content-Length\"")),
        }
    }
    HeaderValue::from_str(&names.join(", ")).expect("names and commas are a field value")
}

/// A day: browsers take no more.
const MAX_AGE_DEFAULT: Duration = Duration::from_secs(86_400);
const MAX_AGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);

/// What players reckon with and who looks for faults wants to see.
const EXPOSED: &str = "Accept-Ranges, Age, Cache-Status, CMSD-Dynamic, CMSD-Static, \
    Content-Digest, Content-Length, Content-Range, Date, ETag, Repr-Digest, Via";
/// What players send: their data (CTA-5004), ranges and conditions.
const ALLOWED: &str = "Cache-Control, CMCD-Object, CMCD-Request, CMCD-Session, CMCD-Status, \
    If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since, Priority, Range";
