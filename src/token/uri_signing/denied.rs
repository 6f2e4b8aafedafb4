//! Why a token lets nobody in, with the code that RFC 9246 section 4.5 has logs tell.

use std::fmt;

/// A refusal. Its code is logged and counted; viewers are told 403, and not why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denied {
    /// The signature does not verify, or its key is not known.
    Signature,
    /// Its issuer is not trusted here, or did not sign it.
    Issuer,
    /// Its subject cannot be opened.
    Subject,
    /// It is for somebody else.
    Audience,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    Early,
    /// Of `cdniets` and `cdnistt` it has one alone, or what neither can be.
    Renewal,
    /// It was used before, or cannot be remembered.
    Used,
    /// It is of another version.
    Version,
    /// It demands what is not understood here.
    Critical,
    /// It is for another address.
    Address,
    /// It is for another URI.
    Container,
    /// There is none, there are several, or it cannot be read.
    Malformed,
}

impl Denied {
    /// Every one, in the order of their codes.
    pub const ALL: [Denied; 13] = [
        Denied::Signature,
        Denied::Issuer,
        Denied::Subject,
        Denied::Audience,
        Denied::Expired,
        Denied::Early,
        Denied::Renewal,
        Denied::Used,
        Denied::Version,
        Denied::Critical,
        Denied::Address,
        Denied::Container,
        Denied::Malformed,
    ];

    /// `s-uri-signing`: three digits.
    pub fn code(self) -> u16 {
        match self {
            Denied::Malformed => 500,
            other => 400 + other as u16,
        }
    }

    /// `s-uri-signing-deny-reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Denied::Signature => "the signature does not verify, or its key is not known",
            Denied::Issuer => "its issuer is not trusted here, or did not sign it",
            Denied::Subject => "its subject cannot be opened",
            Denied::Audience => "it is for somebody else",
            Denied::Expired => "it has expired",
            Denied::Early => "it is not valid yet",
            Denied::Renewal => "it does not say how it is to be renewed as the RFC has it",
            Denied::Used => "it was used before, or cannot be remembered",
            Denied::Version => "it is of another version",
            Denied::Critical => "it demands what is not understood here",
            Denied::Address => "it is for another address",
            Denied::Container => "it is for another URI",
            Denied::Malformed => "there is none, there are several, or it cannot be read",
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.reason())
    }
}

impl std::error::Error for Denied {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_rfc() {
        let codes = Denied::ALL.map(Denied::code);
        assert_eq!(codes[..12], [400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411]);
        assert_eq!(codes[12], 500);
    }
}
