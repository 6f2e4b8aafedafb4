//! A token, by which its bearer is known.
//!
//! Compared in a time that tells nothing of it, and shown nowhere.

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::limits::TOKEN_BYTES_MAX;

/// A secret of printable letters.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

impl Token {
    /// Of a file's text, whose final line end is no part of it; `None` if that is no token: too
    /// short to be a secret, too long, or of letters that no field can have.
    pub fn of(text: &str) -> Option<Token> {
        let token = text.strip_suffix('\n').unwrap_or(text);
        let token = token.strip_suffix('\r').unwrap_or(token);
        let fits = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len());
        (fits && token.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Token(token.into()))
    }

    /// Whether a request bears it: `Authorization: Bearer` (RFC 6750 section 2.1), once.
    pub fn is_borne_by(&self, fields: &HeaderMap) -> bool {
        let mut lines = fields.get_all(AUTHORIZATION).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return false };
        let Some((scheme, shown)) = line.as_bytes().split_at_checked(SCHEME.len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(SCHEME) && self.is(shown.trim_ascii_start())
    }

    /// For who has it to show.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is(&self, shown: &[u8]) -> bool {
        let token = self.0.as_bytes();
        let mut differs = u8::from(shown.len() != token.len());
        // Always all of what is shown: how long the token is, is no secret.
        for (place, byte) in shown.iter().enumerate() {
            differs = black_box(differs | (byte ^ token[place % token.len()]));
        }
        differs == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

const SCHEME: &[u8] = b"bearer ";
/// What can be guessed is no secret.
pub(super) const TOKEN_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_whole_token_is_borne() {
        let token = Token::of("0123456789abcdef\n").unwrap();
        let borne = |lines: &[&str]| {
            let mut fields = HeaderMap::new();
            for line in lines {
                fields.append(AUTHORIZATION, HeaderValue::from_str(line).unwrap());
            }
            token.is_borne_by(&fields)
        };
        assert!(borne(&["Bearer 0123456789abcdef"]) && borne(&["bearer  0123456789abcdef"]));
        let right = "Bearer 0123456789abcdef";
        for wrong in [
            &[][..],
            &["0123456789abcdef"],
            &["Basic 0123456789abcdef"],
            &["Bearer"],
            &["Bearer "],
            &["Bearer 0123456789abcde"],
            &["Bearer 0123456789abcdef0123456789abcdef"],
            &["Bearer 0123456789abcdeg"],
            &["Bearer 0123456789ABCDEF"],
            &[right, right],
        ] {
            assert!(!borne(wrong), "{wrong:?}");
        }
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn what_could_be_guessed_or_not_be_sent_is_no_token() {
        assert!(Token::of(&"a".repeat(TOKEN_BYTES_MIN)).is_some());
        assert!(Token::of(&("a".repeat(TOKEN_BYTES_MAX) + "\r\n")).is_some());
        for text in ["", "short\n", "0123456789 abcdef", "0123456789abcdef\n\n", "0123456789abcdé"]
        {
            assert!(Token::of(text).is_none(), "{text:?}");
        }
        assert!(Token::of(&"a".repeat(TOKEN_BYTES_MAX + 1)).is_none());
    }
}
