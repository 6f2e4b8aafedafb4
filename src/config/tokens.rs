//! What a site demands of who asks for what is behind a token.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use super::error::cause;
use super::raw::Section;
use super::setting::Setting;
use crate::control::registry::appliance::is_name;
use crate::door::{Allowance, Demands, KeySource, Secret};
use crate::limits::{KEY_FILE_BYTES_MAX, TOKEN_NAME_BYTES_MAX};
use crate::site::Scheme;
use crate::token::key_file::KeyFile;
use crate::token::uri_signing::{Matching, Settings};

/// Reads the section `tokens` of a site, if there is one.
pub(super) fn read(section: &Section<'_>) -> Option<Demands> {
    section.setting("tokens").and_then(|setting| Section::of(&setting, demands))
}

fn demands(section: &Section<'_>) -> Option<Demands> {
    let matching = section.choice("regex", Matching::Full, &MATCHING);
    let texts = |key| {
        let texts = section.setting(key).map(|setting| setting.texts()).unwrap_or_default();
        texts.into_iter().map(|(_, text)| text.to_owned()).collect::<Vec<String>>()
    };
    let text = |key| section.setting(key).and_then(|setting| setting.text().map(str::to_owned));
    let settings = Settings {
        issuers: texts("issuers"),
        audience: text("audience"),
        header: section.setting("header").and_then(|setting| header(&setting)),
        matching,
    };
    let name = section.setting("name").and_then(|setting| name(&setting));
    let cat = section.setting("cat").and_then(|setting| self::name(&setting));
    let scheme = section.choice("scheme", None, &SCHEMES);
    let allowance = section.section("limits", |limits| Allowance {
        requests: limits.count("requests", 0, 0..=MANY) as u32,
        connections: limits.count("connections", 0, 0..=MANY) as u32,
        bytes_per_second: limits
            .setting("rate")
            .and_then(|setting| setting.bytes_per_second("a rate such as \"50 Mbit/s\""))
            .unwrap_or(0),
    });
    let keys = section.required("keys", "the path of a file of keys, as `tidegate keys` makes")?;
    let (source, keys) = keys_of(&keys, matching)?;
    let name = name.unwrap_or_else(|| NAME.to_owned());
    if cat.as_ref() == Some(&name) {
        section.fail(format!("`name` and `cat` are both {name:?}; write two names"));
    }
    Some(Demands { name, source, keys, settings, cat, scheme, allowance })
}

/// Where keys are from, and what is said there.
fn keys_of(setting: &Setting<'_>, matching: Matching) -> Option<(KeySource, Secret)> {
    let text = setting.text()?;
    if let Some(name) = text.strip_prefix(OF_FLEET) {
        if !is_name(name) {
            setting.fail(format!("is {text:?}; write what the control plane has it under"));
        }
        // Nobody is let in before they are known.
        return Some((KeySource::Fleet(name.to_owned()), Secret(b"{}"[..].into())));
    }
    let path = setting.source.folder.join(text);
    if setting.is_brought_later(&path) {
        return None;
    }
    let read = read_keys(&path, matching);
    let keys = read.map_err(|why| setting.fail(format!("names {}, {why}", path.display()))).ok()?;
    Some((KeySource::File(path), keys))
}

/// Says what can never be known.
pub(super) fn check(document: &Section<'_>, demands: &[(String, Demands)], is_box: bool) {
    let of_fleet = |demands: &Demands| matches!(demands.source, KeySource::Fleet(_));
    if let Some((site, _)) = demands.iter().find(|(_, demands)| !is_box && of_fleet(demands)) {
        document.fail(format!(
            "the tokens of site {site:?} are verified by keys of a fleet, and this is no box of \
             one; write `[fleet]`"
        ));
    }
}

/// What a key file says, if it says what it should.
///
/// # Errors
/// What is wrong with it, in words that follow its name.
pub fn read_keys(path: &Path, matching: Matching) -> Result<Secret, String> {
    let mut text = Vec::new();
    let most = KEY_FILE_BYTES_MAX as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut text));
    read.map_err(|error| format!("which cannot be read: {}", cause(&error)))?;
    let keys = KeyFile::parse(&text).and_then(|file| file.keys(matching));
    keys.map_err(|error| format!("which is refused: {error}"))?;
    Ok(Secret(text.into()))
}

/// The header of a token, as it is written there.
fn header(setting: &Setting<'_>) -> Option<String> {
    let text = setting.text()?;
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
    let is_header = decoded.is_some_and(|bytes| {
        serde_json::from_slice::<Value>(&bytes).is_ok_and(|header| header["alg"].is_string())
    });
    if !is_header {
        setting.fail("is no header of a token: base64url of JSON with `alg`");
    }
    is_header.then(|| text.to_owned())
}

/// A parameter's name, which is a cookie's too (RFC 6265 section 4.1.1).
fn name(setting: &Setting<'_>) -> Option<String> {
    let text = setting.text()?;
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_name = (1..=TOKEN_NAME_BYTES_MAX).contains(&text.len()) && text.chars().all(letter);
    if !is_name {
        setting.fail(format!(
            "is {text:?}; 1 to {TOKEN_NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`"
        ));
    }
    is_name.then(|| text.to_owned())
}

/// Before the name of keys that the control plane has.
const OF_FLEET: &str = "fleet:";
/// RFC 9246 section 2.
const NAME: &str = "URISigningPackage";
const MATCHING: [(&str, Matching); 2] = [("full", Matching::Full), ("search", Matching::Search)];
const SCHEMES: [(&str, Option<Scheme>); 3] =
    [("asked", None), ("https", Some(Scheme::Https)), ("http", Some(Scheme::Http))];
const MANY: u64 = 1_000_000;
