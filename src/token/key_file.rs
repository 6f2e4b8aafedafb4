//! Key files: the keys of each issuer, as Traffic Server's `uri_signing` plugin has them.

use std::collections::BTreeMap;
use std::{error, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json;
use super::jwk::{Jwk, JwkError, SealingKey};
use super::key::Key;
use super::uri_signing::{Container, Matching, Settings};
use crate::limits::{KEY_FILE_BYTES_MAX, KEY_FILE_DIRECTIVES_MAX, KEYS_MAX};

/// A key file as it is written; members of an issuer that are not known here stay.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyFile {
    /// By their names.
    pub issuers: BTreeMap<String, IssuerFile>,
}

/// What a key file says of one issuer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct IssuerFile {
    /// The key that tokens are renewed and minted with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal_kid: Option<String>,
    /// Who we are to this issuer, as `aud` names us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What is let in, or not, without a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub auth_directives: Vec<DirectiveFile>,
    /// The keys.
    pub keys: Vec<Jwk>,
    /// The rest.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// A directive as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DirectiveFile {
    /// `allow` or `deny`.
    pub auth: Auth,
    /// Of which URIs, as `cdniuc` says it.
    pub uri: String,
}

/// What becomes of a URI that a directive names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Everybody is let in.
    Allow,
    /// Nobody is, whatever his token says.
    Deny,
}

/// Why a key file is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFileError(String);

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for KeyFileError {}

/// The keys of all issuers.
#[derive(Debug, Default)]
pub struct Keys {
    issuers: Vec<Issuer>,
}

#[derive(Debug)]
struct Issuer {
    name: String,
    audience: Option<String>,
    keys: Vec<Key>,
    sealing: Vec<SealingKey>,
    renewal: Option<usize>,
    directives: Vec<(Auth, Container)>,
}

impl KeyFile {
    /// Reads one.
    ///
    /// # Errors
    /// It is none, in one line.
    pub fn parse(text: &[u8]) -> Result<KeyFile, KeyFileError> {
        if text.len() > KEY_FILE_BYTES_MAX {
            return Err(KeyFileError(format!("it has over {KEY_FILE_BYTES_MAX} bytes")));
        }
        let shape = "{\"ISSUER\": {\"renewal_kid\": .., \"keys\": [..]}}";
        let wrong = |what: &str| KeyFileError(format!("it is no key file, {shape}{what}"));
        let value = json::parsed(text).map_err(|error| wrong(&format!(": {error}")))?;
        // What is wrong of another kind would be told with its text, which may be a secret.
        serde_json::from_value(value).map_err(|_| wrong(""))
    }

    /// The keys it describes.
    ///
    /// # Errors
    /// One of them is none, in one line.
    pub fn keys(&self, matching: Matching) -> Result<Keys, KeyFileError> {
        let count: usize = self.issuers.values().map(|issuer| issuer.keys.len()).sum();
        if count > KEYS_MAX {
            return Err(KeyFileError(format!("it has {count} keys, and {KEYS_MAX} are the most")));
        }
        let count: usize = self.issuers.values().map(|issuer| issuer.auth_directives.len()).sum();
        if count > KEY_FILE_DIRECTIVES_MAX {
            let most = KEY_FILE_DIRECTIVES_MAX;
            return Err(KeyFileError(format!(
                "it has {count} directives, and {most} are the most"
            )));
        }
        let issuers = self.issuers.iter().map(|(name, file)| Issuer::of(name, file, matching));
        Ok(Keys { issuers: issuers.collect::<Result<_, _>>()? })
    }
}

impl Issuer {
    fn of(name: &str, file: &IssuerFile, matching: Matching) -> Result<Issuer, KeyFileError> {
        let wrong = |what: String| KeyFileError(format!("issuer {name:?}: {what}"));
        let mut issuer = Issuer {
            name: name.to_owned(),
            audience: file.id.clone(),
            keys: Vec::new(),
            sealing: Vec::new(),
            renewal: None,
            directives: Vec::new(),
        };
        for (number, jwk) in file.keys.iter().enumerate() {
            let called = jwk.kid.as_deref().unwrap_or_default();
            let wrong = |error: JwkError| wrong(format!("key {} {called:?}: {error}", number + 1));
            if file.keys[..number].iter().any(|other| other.kid == jwk.kid) {
                let twice =
                    KeyFileError(format!("issuer {name:?}: two keys have `kid` {called:?}"));
                return Err(twice);
            }
            match jwk.is_sealing() {
                true => issuer.sealing.push(SealingKey::of(jwk).map_err(wrong)?),
                false => issuer.keys.push(Key::of(name, jwk).map_err(wrong)?),
            }
        }
        if let Some(id) = &file.renewal_kid {
            let at = issuer.keys.iter().position(|key| key.id() == id && key.has_private());
            let none = || wrong(format!("`renewal_kid` {id:?} is no key of its that can sign"));
            issuer.renewal = Some(at.ok_or_else(none)?);
        }
        for directive in &file.auth_directives {
            let container = Container::parse(&directive.uri, matching)
                .map_err(|what| wrong(format!("`auth_directives` {:?}: {what}", directive.uri)))?;
            issuer.directives.push((directive.auth, container));
        }
        Ok(issuer)
    }
}

impl Keys {
    /// The keys of this id, or all of them.
    pub fn all(&self, id: Option<&str>) -> impl Iterator<Item = &Key> {
        let keys = self.issuers.iter().flat_map(|issuer| &issuer.keys);
        keys.filter(move |key| id.is_none_or(|id| key.id() == id))
    }

    /// The same, and those of `issuer` first: of others there may be more than are tried.
    pub fn first_of(&self, issuer: Option<&str>, id: Option<&str>) -> impl Iterator<Item = &Key> {
        let is_its = move |key: &&Key| issuer == Some(key.issuer());
        self.all(id).filter(is_its).chain(self.all(id).filter(move |key| !is_its(key)))
    }

    /// The key that tokens of this issuer are renewed and minted with.
    pub fn renewal(&self, issuer: &str) -> Option<&Key> {
        let issuer = self.issuer(issuer)?;
        issuer.keys.get(issuer.renewal?)
    }

    /// Who we are to this issuer.
    pub fn audience(&self, issuer: &str) -> Option<&str> {
        self.issuer(issuer)?.audience.as_deref()
    }

    /// What is sealed in a claim; `None`: no key opens it.
    pub fn open(&self, sealed: &str) -> Option<Vec<u8>> {
        self.issuers.iter().flat_map(|issuer| &issuer.sealing).find_map(|key| key.open(sealed))
    }

    /// Whether there are directives at all.
    pub fn direct(&self) -> bool {
        self.issuers.iter().any(|issuer| !issuer.directives.is_empty())
    }

    /// What directives of trusted issuers say of a URI, normalised: of each issuer the first that
    /// names it counts, and one that denies wins.
    pub fn directed(&self, uri: &str, settings: &Settings) -> Option<Auth> {
        let trusted = self.issuers.iter().filter(|issuer| settings.trusts(&issuer.name));
        let says = |issuer: &Issuer| {
            let mut all = issuer.directives.iter();
            all.find(|(_, container)| container.holds(uri)).map(|(auth, _)| *auth)
        };
        let all: Vec<Auth> = trusted.filter_map(says).collect();
        all.iter().find(|auth| **auth == Auth::Deny).or(all.first()).copied()
    }

    fn issuer(&self, name: &str) -> Option<&Issuer> {
        self.issuers.iter().find(|issuer| issuer.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_of_trusted_issuers_count_and_one_that_denies_wins() {
        let text = br#"{ "a": { "keys": [], "auth_directives": [
                { "auth": "allow", "uri": "regex:.*m3u8" },
                { "auth": "deny", "uri": "regex:.*8" } ] },
            "b": { "keys": [], "auth_directives": [ { "auth": "deny", "uri": "regex:.*/b/.*" } ] },
            "c": { "keys": [], "auth_directives": [ { "auth": "allow", "uri": "regex:.*" } ] } }"#;
        let keys = KeyFile::parse(text).unwrap().keys(Matching::Full).unwrap();
        let settings = |issuers: &[&str]| Settings {
            issuers: issuers.iter().map(|one| (*one).to_owned()).collect(),
            ..Settings::default()
        };
        for (uri, issuers, says) in [
            ("http://x/a.m3u8", &["a", "b"][..], Some(Auth::Allow)),
            ("http://x/b/a.m3u8", &["a", "b"], Some(Auth::Deny)),
            ("http://x/8", &["a"], Some(Auth::Deny)),
            ("http://x/a.ts", &["a", "b"], None),
            ("http://x/a.ts", &[], Some(Auth::Allow)),
        ] {
            assert_eq!(keys.directed(uri, &settings(issuers)), says, "{uri} {issuers:?}");
        }
    }

    #[test]
    fn a_key_file_with_a_fault_is_told_in_a_line_without_what_is_secret_in_it() {
        let of = |text: &str| {
            let keys = KeyFile::parse(text.as_bytes()).and_then(|file| file.keys(Matching::Full));
            keys.unwrap_err().to_string()
        };
        let allowed = r#"{"auth":"allow","uri":"regex:a"}"#;
        let hmac = r#"{"kty":"oct","kid":"k","alg":"HS256","k":"SECRET00"}"#;
        for (text, says) in [
            (r#"{"a":{"keys":["SECRET"]}}"#.to_owned(), "it is no key file, "),
            (r#"{"a":{"keys":[]},"a":{"keys":[]}}"#.to_owned(), "\"a\" stands twice"),
            (
                format!(r#"{{"a":{{"keys":[{hmac}]}}}}"#),
                "its `k` has 48 bits, and 256 are the least",
            ),
            (r#"{"a":{"renewal_kid":"x","keys":[]}}"#.to_owned(), "`renewal_kid` \"x\" is no key"),
            (
                r#"{"a":{"keys":[{"kty":"EC","kid":"k","crv":"P-256","use":"enc","x":"A"}]}}"#
                    .to_owned(),
                "it is not to sign with, as `use` says; take it out",
            ),
            (
                r#"{"a":{"keys":[],"auth_directives":[{"auth":"allow","uri":"regex:("}]}}"#
                    .to_owned(),
                "`regex:` is no POSIX expression",
            ),
            (
                format!(
                    r#"{{"a":{{"keys":[],"auth_directives":[{}]}}}}"#,
                    vec![allowed; 257].join(",")
                ),
                "it has 257 directives, and 256 are the most",
            ),
        ] {
            let told = of(&text);
            assert!(told.contains(says) && !told.contains("SECRET"), "{told}");
            assert_eq!(told.lines().count(), 1);
        }
    }
}
