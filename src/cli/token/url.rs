//! URLs with tokens in them, or beside them, for `tidegate token`.

use std::net::IpAddr;

use super::Failure;
use crate::message::target::host_and_port;
use crate::token::uri_signing::{Asked, find, find_padded, hash_of, normalised};

/// Where a token stands in a URL.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// The name of the URL's parameter that is the token; left out: URISigningPackage or cat
    #[arg(long, value_name = "NAME")]
    pub(super) parameter: Option<String>,
}

/// What is asked of a token that stands somewhere.
#[derive(Debug, clap::Args)]
pub(super) struct Shown {
    #[command(flatten)]
    pub(super) place: Place,
    /// The token, where a header or a cookie has it and not the URL
    #[arg(long, value_name = "TOKEN")]
    pub(super) token: Option<String>,
    /// Print it as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A URL as tokens are compared with it.
pub(super) struct Url {
    pub(super) token: Option<String>,
    /// Without the token, normalised.
    pub(super) uri: String,
    /// Its path.
    path: String,
}

impl Url {
    /// With a token that stands in it, or beside it.
    pub(super) fn with_token(url: &str, shown: &Shown) -> Result<Url, Failure> {
        let parsed = Url::parse(url, &shown.place)?;
        match (&parsed.token, &shown.token) {
            (Some(_), Some(_)) => {
                Err(Failure::Misused(format!("{url} has a token, and --token is another one")))
            }
            (None, Some(token)) => Ok(Url { token: Some(token.clone()), ..parsed }),
            _ => Ok(parsed),
        }
    }

    pub(super) fn parse(url: &str, place: &Place) -> Result<Url, Failure> {
        let wrong = |what: &str| Failure::Misused(format!("{url}: {what}"));
        if url.contains('#') {
            return Err(wrong("leave out what is behind the `#`: no server sees it"));
        }
        let parsed: http::Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        let (Some(scheme @ ("http" | "https")), Some(host)) = (parsed.scheme_str(), parsed.host())
        else {
            return Err(wrong("write it whole, such as https://v.example.com/film/a.m3u8"));
        };
        let target = parsed.path_and_query().map_or("/", |target| target.as_str());
        let unclear = |_| wrong("it has several tokens, or one that goes over into something else");
        let found = match &place.parameter {
            Some(name) => find_padded(target, name).map_err(unclear)?,
            None => match find(target, PARAMETER).map_err(unclear)? {
                found if found.token.is_some() => found,
                _ => find_padded(target, CAT_PARAMETER).map_err(unclear)?,
            },
        };
        let (host, _) = host_and_port(host.as_bytes()).ok_or_else(|| wrong("it has no host"))?;
        let uri = normalised(scheme, &host, parsed.port_u16(), &found.bare);
        let path = found.bare.split('?').next().unwrap_or("/").to_owned();
        Ok(Url {
            token: found.token.map(str::to_owned),
            uri: uri.ok_or_else(|| wrong("an escape in it is broken"))?,
            path,
        })
    }

    pub(super) fn asked(&self, now: u64) -> Asked<'_> {
        let client = IpAddr::from([127, 0, 0, 1]);
        Asked { uri: &self.uri, path: &self.path, client, now: now as f64 }
    }

    /// `cdniuc` of this URI alone.
    pub(super) fn container(&self) -> String {
        hash_of(&self.uri)
    }
}

/// RFC 9246 section 4.4.
pub(super) const PARAMETER: &str = "URISigningPackage";
/// As published verifiers of Common Access Tokens have it.
pub(super) const CAT_PARAMETER: &str = "cat";
