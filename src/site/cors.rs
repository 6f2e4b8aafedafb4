//! Who may read a site's responses in a browser, from another site's page (CORS, in the Fetch
//! Standard): data alone; `message/cors.rs` knows the fields.

use std::time::Duration;

use http::HeaderValue;

/// What a rule says about pages of other origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Whose pages.
    pub origins: CorsOrigins,
    /// The fields of a response they may see beside the few that all may see: a list.
    pub exposed: HeaderValue,
    /// The fields of a request they may send beside those that all may send: a list.
    pub allowed: HeaderValue,
    /// Whether they may send cookies and the like.
    pub credentials: Credentials,
    /// How long a browser remembers what it was allowed.
    pub max_age: Duration,
}

/// Whose pages may read responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Everybody's.
    Any,
    /// Those of these origins, as browsers write them: `https://a.example`; after `://` a `*.`
    /// stands for one label or more.
    Only(Vec<String>),
}

/// Whether a page may send what it shows itself by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// It may not.
    #[default]
    Omitted,
    /// It may.
    Included,
}

impl Credentials {
    /// Every choice.
    pub const ALL: [Credentials; 2] = [Credentials::Omitted, Credentials::Included];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Credentials::Omitted => "omit",
            Credentials::Included => "include",
        }
    }
}

impl CorsOrigins {
    /// Whether pages of `origin` may.
    pub fn allow(&self, origin: &HeaderValue) -> bool {
        match self {
            CorsOrigins::Any => true,
            CorsOrigins::Only(origins) => {
                origin.to_str().is_ok_and(|origin| origins.iter().any(|one| is_under(one, origin)))
            }
        }
    }
}

fn is_under(pattern: &str, origin: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == origin };
    let labels = origin.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    labels.is_some_and(|labels| !labels.is_empty() && labels.bytes().all(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_compared_whole() {
        let only = ["https://a.example", "https://*.b.example", "http://c.example:8080"];
        let only = CorsOrigins::Only(only.map(str::to_owned).to_vec());
        for (origin, expected) in [
            ("https://a.example", true),
            ("http://a.example", false),
            ("https://a.example:443", false),
            ("https://a.example.evil", false),
            ("https://x.a.example", false),
            ("https://x.b.example", true),
            ("https://y.x.b.example", true),
            ("https://b.example", false),
            ("https://.b.example", false),
            ("https://evil/.b.example", false),
            ("https://evil:1.b.example", false),
            ("https://xb.example", false),
            ("http://c.example:8080", true),
            ("http://c.example", false),
            ("null", false),
            ("", false),
        ] {
            let value = HeaderValue::from_static(origin);
            assert_eq!(only.allow(&value), expected, "{origin:?}");
            assert!(CorsOrigins::Any.allow(&value));
        }
        assert!(!only.allow(&HeaderValue::from_bytes(b"https://\xe9.b.example").unwrap()));
    }
}
