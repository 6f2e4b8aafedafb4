//! `Via` (RFC 9110 section 7.6.3): who has passed a message on, and whether we have already.

use http::header::VIA;
use http::{HeaderMap, HeaderValue};

use crate::message::syntax::members;

/// Our member of `Via`.
#[derive(Clone, Debug)]
pub struct Via {
    value: HeaderValue,
}

impl Via {
    /// Under a pseudonym that no other recipient of the same request has: a token.
    pub fn of(pseudonym: &str) -> Via {
        let value = HeaderValue::from_str(&format!("1.1 {pseudonym}"));
        Via { value: value.expect("a token is a field value") }
    }

    /// For a request that is passed on, after those of others.
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }

    /// Whether a request with these fields has been here before: an origin leads back to us.
    pub fn has_passed(&self, headers: &HeaderMap) -> bool {
        let ours = received_by(self.value.as_bytes());
        let lines = headers.get_all(VIA).iter();
        lines.flat_map(|line| members(line.as_bytes())).any(|member| received_by(member) == ours)
    }
}

/// The second word of a member: after the protocol, before a comment.
fn received_by(member: &[u8]) -> Option<&[u8]> {
    let mut words = member.split(|byte| matches!(byte, b' ' | b'\t')).filter(|w| !w.is_empty());
    words.nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_passed_a_request_on_is_known_again() {
        let via = Via::of("tidegate-1f");
        assert_eq!(via.value(), "1.1 tidegate-1f");
        for (lines, passed) in [
            (&[][..], false),
            (&["1.1 tidegate-1f"], true),
            (&["1.0 fred, 1.1  tidegate-1f (edge)"], true),
            (&["HTTP/2 a", "2\ttidegate-1f"], true),
            (&["1.1 tidegate-1"], false),
            (&["1.1 tidegate-1ff"], false),
            (&["tidegate-1f"], false),
            (&["1.1 a (tidegate-1f)"], false),
            (&[", ,"], false),
        ] {
            let lines = lines.iter().map(|line| (VIA, HeaderValue::from_static(line)));
            let headers: HeaderMap = lines.collect();
            assert_eq!(via.has_passed(&headers), passed, "{headers:?}");
        }
    }
}
