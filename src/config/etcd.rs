//! The etcd that several control planes share their state on, where they do: a build without the
//! feature `etcd` says that it has none.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use http::Uri;

use super::certificates::path;
use super::raw::Section;
use super::setting::Setting;
use crate::control::plane::STATE_FILE;
use crate::control::state::{EtcdSettings, Store};
use crate::limits::ETCD_ENDPOINTS_MAX;

/// Reads the section `control.etcd`: the state lies there, or in a file of `folder`.
pub(super) fn read(section: &Section<'_>, folder: &Path) -> Store {
    let setting = section.setting("endpoints");
    let endpoints = setting.as_ref().map(endpoints);
    let file = |key: &'static str| section.setting(key).and_then(|setting| text_of(&setting));
    let user = section.setting("user").and_then(|setting| setting.text().map(str::to_owned));
    let (password, ca) = (file("password_file"), file("ca"));
    let (cert, key) = (file("cert"), file("key"));
    let prefix = section.setting("prefix").and_then(|setting| prefix(&setting));
    let seconds = Duration::from_secs;
    let settings = EtcdSettings {
        prefix: prefix.unwrap_or_else(|| USUAL_PREFIX.to_owned()),
        lease: section.duration("lease", seconds(10), seconds(2)..=seconds(300)),
        timeout: section.duration("timeout", seconds(5), Duration::from_millis(500)..=seconds(60)),
        endpoints: endpoints.unwrap_or_default(),
        user: user.zip(password.map(|text| text.trim_end().to_owned())),
        shown: cert.zip(key),
        ca,
        folder: folder.to_owned(),
    };
    let Some(setting) = setting else {
        if NEED_ENDPOINTS.iter().any(|key| section.has(key)) {
            section.fail(
                "`control.etcd.endpoints` is missing; write those of etcd's members, such as \
                 [\"https://etcd-1:2379\"]",
            );
        }
        return Store::File(folder.join(STATE_FILE));
    };
    if section.has("user") != section.has("password_file") {
        section.fail("`control.etcd.user` and `.password_file` go together: write both or none");
    }
    if section.has("cert") != section.has("key") {
        section.fail("`control.etcd.cert` and `.key` go together: write both or none");
    }
    if !section.has("ca") && settings.endpoints.iter().any(|one| one.starts_with("https://")) {
        section.fail(
            "`control.etcd.ca` is missing; write the path of a PEM file, whose certificates the \
             members of etcd show",
        );
    }
    if settings.endpoints.iter().any(|one| is_in_the_open(one)) {
        section.source.warn(
            section.source.place(setting.at),
            "`control.etcd.endpoints` has http:// and another machine: the fleet's secret keys \
             cross the network for all to read; write https:// and `control.etcd.ca`",
        );
    }
    store(settings, &setting)
}

#[cfg(feature = "etcd")]
fn store(settings: EtcdSettings, _: &Setting<'_>) -> Store {
    Store::Etcd(Box::new(settings))
}

#[cfg(not(feature = "etcd"))]
fn store(settings: EtcdSettings, setting: &Setting<'_>) -> Store {
    setting.fail(
        "is for a build with etcd, and this one has none; build one by `cargo build --release \
         --features etcd`, or leave the section out",
    );
    Store::File(settings.folder.join(STATE_FILE))
}

fn endpoints(setting: &Setting<'_>) -> Vec<String> {
    let texts = setting.texts();
    if texts.len() > ETCD_ENDPOINTS_MAX || setting.is_array() && texts.is_empty() {
        let text = format!("has {} members; write 1 to {ETCD_ENDPOINTS_MAX}", texts.len());
        setting.fail(text);
    }
    let endpoint = |(setting, text): (Setting<'_>, &str)| {
        let is_one = is_endpoint(text);
        if !is_one {
            setting.fail(format!(
                "is {text:?}; a member of etcd is http:// or https://, a host and a port, without \
                 path or user"
            ));
        }
        is_one.then(|| text.trim_end_matches('/').to_owned())
    };
    let endpoints: Vec<String> = texts.into_iter().filter_map(endpoint).collect();
    let of = |scheme: &str| endpoints.iter().filter(|one| one.starts_with(scheme)).count();
    if of("https://") > 0 && of("http://") > 0 {
        setting.fail("has members with https:// and with http://; write one of them for all");
    }
    endpoints
}

fn is_endpoint(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let Some(authority) = uri.authority() else { return false };
    let has_port = authority.port().is_some_and(|port| port.as_u16() != 0);
    let is_bare = uri.path() == "/" && uri.query().is_none() && !authority.as_str().contains('@');
    matches!(uri.scheme_str(), Some("http" | "https")) && has_port && is_bare
}

/// Whether what is sent there can be read on the way.
fn is_in_the_open(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<Uri>() else { return false };
    let host = uri.host().filter(|_| uri.scheme_str() == Some("http"));
    let Some(host) = host else { return false };
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host != "localhost" && !ip.is_ok_and(|ip| ip.is_loopback())
}

fn prefix(setting: &Setting<'_>) -> Option<String> {
    let text = setting.text()?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let is_one = text.starts_with('/') && text.len() > 1 && text.chars().all(fits);
    if !is_one || text.ends_with('/') {
        setting.fail(format!(
            "is {text:?}; write a slash and A-Z, a-z, 0-9, `.`, `_`, `-` and `/`, such as \
             \"{USUAL_PREFIX}\""
        ));
    }
    Some(text.to_owned())
}

/// What the file holds that is named.
fn text_of(setting: &Setting<'_>) -> Option<String> {
    let path = path(setting)?;
    if setting.is_brought_later(&path) {
        return None;
    }
    let text = fs::read_to_string(&path);
    text.map_err(|error| {
        setting.fail(format!("names {}, which cannot be read: {error}", path.display()));
    })
    .ok()
}

/// What says nothing without them.
const NEED_ENDPOINTS: [&str; 5] = ["user", "password_file", "ca", "cert", "key"];
const USUAL_PREFIX: &str = "/tidegate";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_secrets_to_another_machine_for_all_to_read_is_warned() {
        for (text, warned) in [
            ("http://127.0.0.1:2379", false),
            ("http://[::1]:2379", false),
            ("http://localhost:2379", false),
            ("https://etcd-1:2379", false),
            ("http://etcd-1:2379", true),
            ("http://192.0.2.1:2379", true),
            ("http://[2001:db8::1]:2379", true),
        ] {
            assert_eq!(is_in_the_open(text), warned, "{text}");
        }
        #[cfg(feature = "etcd")]
        for (host, count) in [("127.0.0.1", 0), ("etcd-1", 1)] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("control.toml");
            let etcd = format!("etcd.endpoints = [\"http://{host}:2379\"]");
            fs::write(&file, format!("[control]\nlisten = [\"127.0.0.1:0\"]\n{etcd}\n")).unwrap();
            let read = crate::config::load_control(&file).unwrap();
            let told = read.warnings.iter().filter(|it| it.to_string().contains("secret keys"));
            assert_eq!(told.count(), count, "{host}");
        }
    }

    #[test]
    fn a_member_is_a_host_and_a_port() {
        for (text, is_one) in [
            ("http://127.0.0.1:2379", true),
            ("https://etcd-1:2379/", true),
            ("http://[::1]:2379", true),
            ("https://etcd-1", false),
            ("etcd-1:2379", false),
            ("unix:///run/etcd", false),
            ("http://u:p@etcd-1:2379", false),
            ("http://etcd-1:2379/v3", false),
            ("http://etcd-1:0", false),
        ] {
            assert_eq!(is_endpoint(text), is_one, "{text}");
        }
    }
}
