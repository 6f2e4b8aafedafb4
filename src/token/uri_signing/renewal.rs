//! How a token that is used is renewed (RFC 9246 section 3): a playback goes on with short ones.

use serde_json::{Map, Value};

use super::claims::Claims;
use super::denied::Denied;
use super::{Asked, mint};
use crate::token::key::Key;

/// How the next token comes to the viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a cookie.
    Cookie,
    /// In the query of where he is sent.
    Query,
}

/// That a token is to be renewed, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Renewal {
    /// How it comes to the viewer.
    pub transport: Transport,
    /// How long the next one is valid from now, in seconds.
    pub seconds: f64,
    /// For how many segments of the path the cookie is.
    depth: u64,
}

/// A token in the place of one that was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The token.
    pub token: String,
    /// For which paths, of a cookie.
    pub path: String,
}

impl Renewal {
    /// What the claims say of it.
    ///
    /// # Errors
    /// [`Denied::Renewal`]: half of it, or nothing that is known here.
    pub(super) fn of(claims: &Claims) -> Result<Option<Renewal>, Denied> {
        let seconds = claims.seconds("cdniets", Denied::Renewal)?;
        let transport = claims.whole("cdnistt", Denied::Renewal)?;
        let depth = claims.whole("cdnistd", Denied::Renewal)?.unwrap_or(0);
        let transport = match (seconds, transport) {
            (None, None) => return Ok(None),
            (Some(_), Some(0)) => return Ok(None),
            (Some(_), Some(1)) => Transport::Cookie,
            (Some(_), Some(2)) => Transport::Query,
            _ => return Err(Denied::Renewal),
        };
        let seconds = seconds.filter(|seconds| *seconds >= 1.0).ok_or(Denied::Renewal)?;
        Ok(Some(Renewal { transport, seconds, depth }))
    }

    /// The next token: it says what the last one said, but for its time and its issuer.
    pub(super) fn renewed(
        &self,
        claims: &Map<String, Value>,
        key: &Key,
        asked: &Asked<'_>,
    ) -> Option<Renewed> {
        let path = match self.transport {
            Transport::Cookie => first_segments(asked.path, self.depth)?,
            Transport::Query => String::new(),
        };
        let mut claims = claims.clone();
        // Of the time it was verified at: by that of the last one it would last for ever.
        claims.insert("exp".to_owned(), ((asked.now + self.seconds) as u64).into());
        for (name, value) in [("iss", key.issuer().into()), ("iat", (asked.now as u64).into())] {
            if let Some(claim) = claims.get_mut(name) {
                *claim = value;
            }
        }
        Some(Renewed { token: mint(&claims, key)?, path })
    }
}

/// `None`: it has fewer, or such as a cookie cannot have.
fn first_segments(path: &str, count: u64) -> Option<String> {
    if count == 0 {
        return Some("/".to_owned());
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let wanted = segments.get(..usize::try_from(count).ok()?)?;
    // An empty one would make it shorter, and a `;` would end it in the cookie.
    if wanted.iter().any(|segment| segment.is_empty() || segment.contains(';')) {
        return None;
    }
    Some(format!("/{}", wanted.join("/")))
}
