//! What came of a viewer at a door: let in or not, and as what it is logged, counted and told.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use super::bearers::{Bearer, Exhausted};
use super::given::Given;
use crate::token::cat;
use crate::token::uri_signing::Denied;

/// That somebody is let in.
#[derive(Debug)]
pub struct Admitted {
    /// By what.
    pub found: Found,
    /// What he is to have in the place of his token.
    pub given: Option<Given>,
    /// What he may have, where that is bounded.
    pub bearer: Option<Arc<Bearer>>,
}

/// What a token was found to be, as it is logged and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// `s-uri-signing` (RFC 9246 section 4.5).
    UriSigning(u16),
    /// It lets in, and nothing can take its place.
    Unrenewed,
    /// Of a Common Access Token: the claim that was not met, `ok`, or another word.
    Cat(&'static str),
    /// A directive of the key file lets everybody in.
    Allowed,
    /// A directive lets nobody in.
    Forbidden,
    /// The token is good, and has been used too much for now.
    Exhausted,
}

/// That he is not.
#[derive(Clone, Debug)]
pub enum Refused {
    /// By what his token says, or as he has none.
    Denied(Denied),
    /// By what his Common Access Token says.
    Cat(cat::Denied),
    /// The same, and it says what is answered; or he is sent on with another one.
    Answered(Box<Instead>),
    /// By a directive of the key file, whatever his token says.
    Directed,
    /// What one token is good for is used up for now.
    Exhausted(Exhausted),
}

/// What is answered in the place of what was asked for.
#[derive(Clone)]
pub struct Instead {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// The claim that was not met; `None`: he is sent on with another token.
    pub(super) why: Option<cat::Denied>,
}

impl fmt::Debug for Instead {
    /// No token: what is refused is logged so.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.fields.iter().map(|(name, _)| name.as_str());
        write!(f, "{} {:?} {:?}", self.status, self.why, names.collect::<Vec<_>>())
    }
}

impl Found {
    /// What is to be known of one that lets in, in words.
    pub fn remark(self) -> Option<&'static str> {
        let is_unrenewed = matches!(self, Found::Unrenewed | Found::Cat(UNRENEWED));
        is_unrenewed.then_some("it is to be renewed, and cannot be: is there a `renewal_kid`?")
    }
}

impl Refused {
    /// How much it says to the viewer: nothing, what is answered by his token, or that it is good
    /// and where to go with the next one.
    pub(super) fn says(&self) -> u8 {
        match self {
            Refused::Answered(instead) if instead.why.is_none() => 2,
            Refused::Answered(_) => 1,
            _ => 0,
        }
    }

    /// As it is logged and counted.
    pub fn found(&self) -> Found {
        match self {
            Refused::Denied(denied) => Found::UriSigning(denied.code()),
            Refused::Cat(denied) => Found::Cat(denied.code()),
            Refused::Answered(instead) => {
                Found::Cat(instead.why.map_or(RENEWED, cat::Denied::code))
            }
            Refused::Directed => Found::Forbidden,
            Refused::Exhausted(_) => Found::Exhausted,
        }
    }

    /// Why, in words.
    pub fn reason(&self) -> &'static str {
        match self {
            Refused::Denied(denied) => denied.reason(),
            Refused::Cat(denied) => denied.reason(),
            Refused::Answered(instead) => {
                instead.why.map_or("he is sent on with the next token", cat::Denied::reason)
            }
            Refused::Directed => "a directive of the key file denies it to all",
            Refused::Exhausted(exhausted) => exhausted.reason(),
        }
    }
}

/// `s-uri-signing` of a token that lets its bearer in.
pub(super) const VERIFIED: u16 = 200;
/// Of a Common Access Token that does, that did before, in whose place another one is, or none
/// although it is to be.
pub(super) const OK: &str = "ok";
pub(super) const REUSED: &str = "reused";
pub(super) const RENEWED: &str = "renewed";
pub(super) const UNRENEWED: &str = "unrenewed";

#[cfg(test)]
mod tests {
    use http::header::LOCATION;

    use super::*;

    #[test]
    fn what_is_logged_of_a_refusal_has_no_token() {
        let fields = vec![(LOCATION, HeaderValue::from_static("/a?cat=2D3Ssecret"))];
        let instead = Instead { status: StatusCode::TEMPORARY_REDIRECT, fields, why: None };
        let told = format!("{:?}", Refused::Answered(Box::new(instead)));
        assert!(told.contains("307") && told.contains("location"), "{told}");
        assert!(!told.contains("secret"), "{told}");
    }
}
