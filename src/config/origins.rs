//! Origins as they are written: a URL alone, or a table with what is to be sent to it.

use http::Uri;
use http::uri::Authority;
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::limits::{ORIGIN_CONNECTIONS_MAX, ORIGINS_PER_SITE_MAX};
use crate::site::{Origin, Redirects, Scheme};

use super::certificates::chain;
use super::raw::Section;
use super::rules::fields;
use super::setting::Setting;

/// Connections to one origin at once, unless set.
const CONNECTIONS_DEFAULT: u64 = 128;

/// Reads `origins` of a site.
pub(super) fn read(site: &Section<'_>) -> Vec<Origin> {
    let Some(setting) = site.required("origins", "`origins = [\"https://origin.example.com\"]`")
    else {
        return Vec::new();
    };
    let items = setting.items("URLs or tables");
    if items.is_empty() && setting.is_array() {
        setting.fail("is empty; write the URL fills are made from");
    }
    if items.len() > ORIGINS_PER_SITE_MAX {
        setting.fail(format!("has {} origins; at most {ORIGINS_PER_SITE_MAX}", items.len()));
    }
    items.iter().filter_map(one).collect()
}

fn one(setting: &Setting<'_>) -> Option<Origin> {
    if !setting.is_table() {
        return url(setting);
    }
    Section::of(setting, |section| {
        let origin = section
            .required("url", "\"https://origin.example.com\"")
            .and_then(|setting| url(&setting));
        let host_header = section.setting("host").and_then(host);
        let server_name = section.setting("server_name");
        let ca = section.setting("ca");
        let fields = section.setting("fields").map(|setting| fields(&setting));
        let redirects = section.choice(
            "redirects",
            Redirects::Follow,
            &[("follow", Redirects::Follow), ("pass-on", Redirects::PassOn)],
        );
        let range = 1..=ORIGIN_CONNECTIONS_MAX as u64;
        let connections_max = section.count("connections", CONNECTIONS_DEFAULT, range) as usize;
        let origin = origin?;
        let tls_settings = [&server_name, &ca].into_iter().flatten();
        for setting in tls_settings.filter(|_| origin.scheme == Scheme::Http) {
            setting.fail("is for https origins; leave it out or write https:// in `url`");
        }
        Some(Origin {
            host_header,
            server_name: server_name.and_then(tls_name),
            fields: fields.unwrap_or_default(),
            roots: ca.filter(|_| origin.scheme == Scheme::Https).and_then(roots),
            redirects,
            connections_max,
            ..origin
        })
    })
}

/// An origin that is nothing but its URL.
fn url(setting: &Setting<'_>) -> Option<Origin> {
    let text = setting.text()?;
    let origin = parse_url(text);
    if origin.is_none() {
        setting.fail(format!(
            "is {text:?}; an origin is http:// or https://, a host and perhaps a port, \
             without path or user"
        ));
    }
    origin
}

fn parse_url(text: &str) -> Option<Origin> {
    let uri: Uri = text.parse().ok()?;
    let scheme = match uri.scheme_str()? {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let authority = uri.authority()?;
    let bare = uri.path() == "/" && uri.query().is_none() && !authority.as_str().contains('@');
    if !bare || authority.host().is_empty() || authority.as_str().ends_with(':') {
        return None;
    }
    Some(Origin {
        scheme,
        address: authority.host().to_ascii_lowercase(),
        port: match authority.port() {
            Some(port) => Some(port.as_u16()).filter(|port| *port != 0)?,
            None => scheme.default_port(),
        },
        host_header: None,
        server_name: None,
        fields: Vec::new(),
        roots: None,
        redirects: Redirects::Follow,
        connections_max: CONNECTIONS_DEFAULT as usize,
    })
}

fn host(setting: Setting<'_>) -> Option<String> {
    let text = setting.text()?;
    match text.parse::<Authority>() {
        Ok(host) if !host.as_str().contains('@') => Some(text.to_owned()),
        _ => {
            setting.fail(format!("is {text:?}; write a host such as \"video.example.com\""));
            None
        }
    }
}

fn tls_name(setting: Setting<'_>) -> Option<String> {
    let text = setting.text()?;
    let name = ServerName::try_from(text).is_ok();
    if !name {
        setting.fail(format!("is {text:?}; write a host name such as \"origin.example.com\""));
    }
    name.then(|| text.to_owned())
}

/// The certification authorities in a file, each checked to be one rustls can use.
pub(super) fn roots(setting: Setting<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let (path, certificates) = chain(&setting)?;
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        if let Err(error) = store.add(certificate.clone()) {
            setting.fail(format!("names {}, which rustls refuses: {error}", path.display()));
            return None;
        }
    }
    Some(certificates)
}
