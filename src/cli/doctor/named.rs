//! An object that is named on the command line, by a URL of it or by its path alone. Pure.

use std::str::FromStr;

use http::Uri;
use http::uri::PathAndQuery;

use crate::cli::Failure;
use crate::config::Config;
use crate::message::target::{canonical_target, host_and_port, normalised_path};
use crate::object::SiteId;

/// As it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// An object of the site that has the host.
    Url { typed: String, host: String, path: String, query: Option<String> },
    /// An object of every site.
    Path(String),
}

impl FromStr for Named {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Named, &'static str> {
        let wrong = "write one such as /film/1.m4s or https://video.example.com/film/1.m4s";
        if text.starts_with('/') {
            let path = text.parse::<PathAndQuery>().map_err(|_| wrong)?;
            return Ok(Named::Path(path.to_string()));
        }
        let uri = text.parse::<Uri>().map_err(|_| wrong)?;
        let authority = uri.authority().filter(|_| uri.scheme().is_some()).ok_or(wrong)?;
        let (host, _) = host_and_port(authority.as_str().as_bytes()).ok_or(wrong)?;
        let path = if uri.path().is_empty() { "/" } else { uri.path() };
        Ok(Named::Url {
            typed: text.to_owned(),
            host: host.into_owned(),
            path: normalised_path(path).ok_or(wrong)?.into_owned(),
            query: uri.query().map(str::to_owned),
        })
    }
}

impl Named {
    /// Whose it is, if not everybody's, and what an origin is asked for.
    ///
    /// # Errors
    /// No site has its host.
    pub(super) fn at(&self, config: &Config) -> Result<(Option<SiteId>, String), Failure> {
        let (typed, host, path, query) = match self {
            Named::Path(path) => return Ok((None, path.clone())),
            Named::Url { typed, host, path, query } => (typed, host, path, query),
        };
        let site = config.sites.find(host).ok_or_else(|| {
            Failure::Misused(format!(
                "--path {typed}: no site of {} has the host {host:?}; write one of `sites.hosts`, \
                 or a path alone to ask every origin",
                config.file
            ))
        })?;
        let rule = site.rule_for(path);
        let target = canonical_target(path, query.as_deref(), &rule.query, rule.content);
        Ok((Some(site.id), target.into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::configured;
    use super::*;

    #[test]
    fn a_url_is_of_the_site_that_has_its_host_and_a_path_is_of_all() {
        let config = configured(
            "[[sites]]\nname = 'live'\nhosts = ['live.test']\norigins = ['http://127.0.0.1:9']\n\
             query = 'none'\n",
        );
        let at = |text: &str| text.parse::<Named>().unwrap().at(&config);
        for (text, site, path) in [
            ("/a?b=c", None, "/a?b=c"),
            ("https://live.test/a/../b?t=1", Some(SiteId(0)), "/b"),
            ("http://OTHER.test:8080/b?t=1", Some(SiteId(1)), "/b?t=1"),
            ("https://media.test", Some(SiteId(1)), "/"),
        ] {
            assert_eq!(at(text), Ok((site, path.to_owned())), "{text}");
        }
        let Err(Failure::Misused(why)) = at("https://nobody.test/a") else { panic!("who is it?") };
        let expected = "--path https://nobody.test/a: no site of t.toml has the host \
                        \"nobody.test\"; write one of `sites.hosts`, or a path alone to ask every \
                        origin";
        assert_eq!(why, expected);
        for wrong in ["film", "live.test/a", "https:///a", "ftp:a", "", "/a b"] {
            assert!(wrong.parse::<Named>().is_err(), "{wrong}");
        }
    }
}
