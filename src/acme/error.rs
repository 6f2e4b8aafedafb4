//! Why there is no certificate, in one line that says what to do where that is known.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use instant_acme::Problem;

/// Why there is no certificate.
#[derive(Debug)]
pub enum AcmeError {
    /// The authority cannot be spoken with at all.
    Unreachable {
        /// What went wrong, and with which URL.
        why: String,
    },
    /// What answers there is no authority, or none that is well.
    NotAcme {
        /// The URL of the directory.
        directory: String,
        /// What it answered.
        why: instant_acme::Error,
    },
    /// The authority says no.
    Refused {
        /// To what.
        what: &'static str,
        /// In its words.
        why: instant_acme::Error,
    },
    /// The authority does not know our account any more.
    NoAccount,
    /// The authority proves a name in other ways.
    NotOffered {
        /// Which name.
        name: String,
        /// The way that was chosen.
        challenge: &'static str,
    },
    /// The authority was not shown that a name is ours.
    Unproved {
        /// Which name, in which way, and why not.
        names: Vec<String>,
    },
    /// The hook did not do what it was asked to.
    Hook {
        /// `present` or `cleanup`.
        action: &'static str,
        /// The name of the record.
        record: String,
        /// What it said, or how it ended.
        why: String,
    },
    /// It was ordered as often as it may be.
    TooOften {
        /// How long it is to wait.
        wait: Duration,
    },
    /// What the authority issued cannot be shown to viewers.
    Useless {
        /// Why not.
        why: String,
    },
    /// What belongs to the account or the certificate cannot be kept.
    State {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl AcmeError {
    /// What an answer of `directory` to `what` comes to.
    pub(super) fn refused(
        directory: &str,
        what: &'static str,
    ) -> impl Fn(instant_acme::Error) -> AcmeError {
        move |why| match &why {
            _ if is_of_kind(&why, "accountDoesNotExist") => AcmeError::NoAccount,
            // Our own client's words.
            instant_acme::Error::Other(why) => AcmeError::Unreachable { why: why.to_string() },
            instant_acme::Error::Json(_)
            | instant_acme::Error::Http(_)
            | instant_acme::Error::InvalidUri(_)
            | instant_acme::Error::Str(_) => {
                AcmeError::NotAcme { directory: directory.to_owned(), why }
            }
            _ => AcmeError::Refused { what, why },
        }
    }
}

impl fmt::Display for AcmeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcmeError::Unreachable { why } => write!(f, "the authority cannot be asked: {why}"),
            AcmeError::NotAcme { directory, why } => write!(
                f,
                "{directory} does not answer as ACME does; look at `acme.directory` ({})",
                in_words(why)
            ),
            AcmeError::Refused { what, why } => {
                write!(f, "the authority refuses {what}: {}", in_words(why))?;
                match is_of_kind(why, "externalAccountRequired") {
                    true => f.write_str("; set `acme.external_account` to what it gave you"),
                    false => Ok(()),
                }
            }
            AcmeError::NoAccount => {
                f.write_str("the authority does not know our account; a new one is opened")
            }
            AcmeError::NotOffered { name, challenge } => write!(
                f,
                "the authority offers no {challenge:?} for {name}; choose another \
                 `acme.challenge`"
            ),
            AcmeError::Unproved { names } => f.write_str(&names.join("; ")),
            AcmeError::Hook { action, record, why } => {
                write!(f, "`acme.hook` {action} {record}: {why}")
            }
            AcmeError::TooOften { .. } => f.write_str("ordered too often in the last hour"),
            AcmeError::Useless { why } => {
                write!(f, "what the authority issued is of no use: {why}")
            }
            AcmeError::State { path, source } => write!(
                f,
                "{} cannot be written or read: {source}; nothing is ordered that cannot be kept",
                path.display()
            ),
        }
    }
}

impl Error for AcmeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            AcmeError::NotAcme { why, .. } | AcmeError::Refused { why, .. } => Some(why),
            AcmeError::State { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Whether it is a problem that RFC 8555 section 6.7 calls so.
fn is_of_kind(error: &instant_acme::Error, kind: &str) -> bool {
    let instant_acme::Error::Api(Problem { r#type: Some(one), .. }) = error else { return false };
    one.strip_prefix("urn:ietf:params:acme:error:") == Some(kind)
}

/// What an authority said, without the library's own words before it.
fn in_words(error: &instant_acme::Error) -> String {
    match error {
        instant_acme::Error::Api(problem) => problem_in_words(problem),
        instant_acme::Error::Json(error) => format!("not the JSON that is wanted: {error}"),
        error => error.to_string(),
    }
}

/// A problem's own words and its kind, with those of its parts.
pub(super) fn problem_in_words(problem: &Problem) -> String {
    let detail = problem.detail.as_deref().unwrap_or("no reason given");
    let kind = problem.r#type.as_deref().and_then(|kind| kind.rsplit(':').next());
    let kind = kind.map(|kind| format!(" ({kind})")).unwrap_or_default();
    let parts = problem.subproblems.iter().filter_map(|part| part.detail.as_deref());
    let parts: String = parts.map(|part| format!("; {part}")).collect();
    // One line, whatever comes.
    format!("{detail}{kind}{parts}").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_speak_acme_is_named_with_the_setting() {
        let refused = AcmeError::refused("https://a.test/dir", "an account");
        let page = serde_json::from_str::<u8>("<html>").unwrap_err();
        assert_eq!(
            refused(page.into()).to_string(),
            "https://a.test/dir does not answer as ACME does; look at `acme.directory` (not the \
             JSON that is wanted: expected value at line 1 column 1)"
        );
        let says_no = serde_json::from_str::<Problem>("{\"detail\": \"no more\"}").unwrap();
        let expected = "the authority refuses an account: no more";
        assert_eq!(refused(says_no.into()).to_string(), expected);
    }
}
