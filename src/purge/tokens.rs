//! The tokens of a file: who bears which, and what each may do.
//!
//! A file has a token alone, or a line for each bearer: a role, a name for the log, a token.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;

use super::token::{TOKEN_BYTES_MIN, Token};
use crate::limits::{TOKEN_BYTES_MAX, TOKENS_MAX};

/// What who bears a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Look: metrics, status, explanations.
    Viewer,
    /// Look, and have something done: purges, reloads.
    Operator,
}

/// Who bears a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// What he may do.
    pub role: Role,
    /// For the log.
    pub name: Arc<str>,
    token: Token,
}

/// At least one bearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens(Arc<[Bearer]>);

/// Why a file has no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokensError {
    /// No line has one.
    None,
    /// More than [`TOKENS_MAX`].
    TooMany,
    /// A line that is none, counted from 1.
    Line(usize),
}

impl Tokens {
    /// Of a file's text. Empty lines and those that begin with `#` are for people.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn of(text: &str) -> Result<Tokens, TokensError> {
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let bearers = lines.map(|(at, line)| bearer(line).ok_or(TokensError::Line(at)));
        let bearers = bearers.collect::<Result<Arc<[Bearer]>, _>>()?;
        match bearers.len() {
            0 => Err(TokensError::None),
            1..=TOKENS_MAX => Ok(Tokens(bearers)),
            _ => Err(TokensError::TooMany),
        }
    }

    /// Who sends a request. All tokens are compared, whichever is right.
    pub fn bearer(&self, fields: &HeaderMap) -> Option<&Bearer> {
        let mut found = None;
        for bearer in self.0.iter() {
            if bearer.token.is_borne_by(fields) {
                found = Some(bearer);
            }
        }
        found
    }

    /// The operator who sends a request, if one does.
    pub fn operator(&self, fields: &HeaderMap) -> Option<&Bearer> {
        self.bearer(fields).filter(|bearer| bearer.role == Role::Operator)
    }

    /// Whether some may look and do nothing else: then others may not look.
    pub fn has_viewers(&self) -> bool {
        self.0.iter().any(|bearer| bearer.role == Role::Viewer)
    }

    /// What who has the file shows: the token that lets do most.
    pub fn to_show(&self) -> &Token {
        let operator = self.0.iter().find(|bearer| bearer.role == Role::Operator);
        &operator.unwrap_or(&self.0[0]).token
    }
}

fn bearer(line: &str) -> Option<Bearer> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (role, name, token) = match words[..] {
        [token] => (Role::Operator, "operator", token),
        ["viewer", name, token] => (Role::Viewer, name, token),
        ["operator", name, token] => (Role::Operator, name, token),
        _ => return None,
    };
    let is_name = name.len() <= NAME_BYTES_MAX && name.bytes().all(|byte| byte.is_ascii_graphic());
    let token = Token::of(token).filter(|_| is_name)?;
    Some(Bearer { role, name: name.into(), token })
}

impl fmt::Display for TokensError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokensError::None => f.write_str("holds no token")?,
            TokensError::TooMany => return write!(f, "holds more than {TOKENS_MAX} tokens"),
            TokensError::Line(line) => write!(f, "holds no token in line {line}")?,
        }
        write!(
            f,
            "; one line of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} printable letters is wanted, \
             such as `openssl rand -hex 32` writes, or lines `operator NAME TOKEN` and `viewer \
             NAME TOKEN`"
        )
    }
}

impl std::error::Error for TokensError {}

const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    use super::*;

    fn shown(token: &str) -> HeaderMap {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        HeaderMap::from_iter([(AUTHORIZATION, value)])
    }

    #[test]
    fn each_token_lets_do_what_its_line_says() {
        let text = "# us\noperator anna 0123456789abcdef\n\nviewer grafana fedcba9876543210\r\n";
        let tokens = Tokens::of(text).unwrap();
        let who = |token| tokens.bearer(&shown(token)).map(|who| (who.role, &*who.name));
        assert_eq!(who("0123456789abcdef"), Some((Role::Operator, "anna")));
        assert_eq!(who("fedcba9876543210"), Some((Role::Viewer, "grafana")));
        assert_eq!(who("0123456789abcdeX"), None);
        assert_eq!(tokens.bearer(&HeaderMap::new()), None);
        assert!(tokens.operator(&shown("0123456789abcdef")).is_some());
        assert!(tokens.operator(&shown("fedcba9876543210")).is_none());
        assert!(tokens.has_viewers());
        assert_eq!(tokens.to_show().as_str(), "0123456789abcdef");
    }

    #[test]
    fn a_token_alone_is_an_operators() {
        let tokens = Tokens::of("0123456789abcdef\n").unwrap();
        let operator = tokens.operator(&shown("0123456789abcdef"));
        assert_eq!(operator.map(|who| &*who.name), Some("operator"));
        assert!(!tokens.has_viewers());
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        let good = "viewer a 0123456789abcdef\n";
        for (text, error) in [
            ("", TokensError::None),
            ("# nobody\n", TokensError::None),
            ("short", TokensError::Line(1)),
            ("0123456789 abcdef", TokensError::Line(1)),
            ("root anna 0123456789abcdef", TokensError::Line(1)),
            ("viewer 0123456789abcdef", TokensError::Line(1)),
            ("\nviewer a b 0123456789abcdef", TokensError::Line(2)),
            (&good.repeat(TOKENS_MAX + 1), TokensError::TooMany),
        ] {
            assert_eq!(Tokens::of(text), Err(error), "{text:?}");
        }
        assert!(Tokens::of(&good.repeat(TOKENS_MAX)).is_ok());
        assert!(TokensError::Line(2).to_string().starts_with("holds no token in line 2; one"));
    }
}
