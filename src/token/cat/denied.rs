//! Why a Common Access Token lets nobody in.

use std::fmt;

use super::names::label;

/// A refusal: mostly, the claim that was not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denied {
    /// There is none, there are several, or it cannot be read.
    Malformed,
    /// It demands what is not understood here.
    Critical,
    /// The signature does not verify, or its key is not known, or signs otherwise.
    Signature,
    /// It is of another version.
    Version,
    /// Its issuer is not trusted here, or did not sign it.
    Issuer,
    /// It has a claim that cannot be checked here.
    Unchecked,
    /// It is for somebody else.
    Audience,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    Early,
    /// It is for other networks.
    Network,
    /// It is for other countries, or it is not known which one it is used in.
    Country,
    /// It is for who has another key.
    TlsKey,
    /// It is for another protocol.
    Protocol,
    /// It is for other methods.
    Method,
    /// It is for other URIs.
    Uri,
    /// It is for who sends other headers.
    Header,
    /// It does not say in a way that is known here what is to be answered.
    Answer,
    /// It does not say in a way that is known here how it is renewed.
    Renewal,
    /// It was used before, or cannot be remembered.
    Used,
}

impl Denied {
    /// Every one.
    pub const ALL: [Denied; 19] = [
        Denied::Malformed,
        Denied::Critical,
        Denied::Signature,
        Denied::Version,
        Denied::Issuer,
        Denied::Unchecked,
        Denied::Audience,
        Denied::Expired,
        Denied::Early,
        Denied::Network,
        Denied::Country,
        Denied::TlsKey,
        Denied::Protocol,
        Denied::Method,
        Denied::Uri,
        Denied::Header,
        Denied::Answer,
        Denied::Renewal,
        Denied::Used,
    ];

    /// A word for logs and metrics: the claim's name, where there is one.
    pub fn code(self) -> &'static str {
        self.row().0
    }

    /// The same in a few words.
    pub fn reason(self) -> &'static str {
        self.row().1
    }

    /// The claim that was not met, by its number.
    pub(super) fn claim(self) -> Option<i64> {
        label(self.code())
    }

    fn row(self) -> (&'static str, &'static str) {
        match self {
            Denied::Malformed => {
                ("malformed", "there is none, there are several, or it cannot be read")
            }
            Denied::Critical => ("crit", "it demands what is not understood here"),
            Denied::Signature => {
                ("signature", "the signature does not verify, or its key is not known")
            }
            Denied::Version => ("catv", "it is of another version"),
            Denied::Issuer => ("iss", "its issuer is not trusted here, or did not sign it"),
            Denied::Unchecked => ("unchecked", "it has a claim that cannot be checked here"),
            Denied::Audience => ("aud", "it is for somebody else"),
            Denied::Expired => ("exp", "it has expired"),
            Denied::Early => ("nbf", "it is not valid yet"),
            Denied::Network => ("catnip", "it is for other networks"),
            Denied::Country => ("catgeoiso3166", "it is for other countries"),
            Denied::TlsKey => ("cattpk", "it is for who has another key"),
            Denied::Protocol => ("catalpn", "it is for another protocol"),
            Denied::Method => ("catm", "it is for other methods"),
            Denied::Uri => ("catu", "it is for other URIs"),
            Denied::Header => ("cath", "it is for who sends other headers"),
            Denied::Answer => ("catif", "what it says is to be answered is not known here"),
            Denied::Renewal => ("catr", "how it says it is renewed is not known here"),
            Denied::Used => ("catreplay", "it was used before, or cannot be remembered"),
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
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_has_a_word_of_its_own_and_most_are_claims() {
        let words: HashSet<_> = Denied::ALL.map(Denied::code).into();
        assert_eq!(words.len(), Denied::ALL.len());
        let others = Denied::ALL.into_iter().filter(|denied| denied.claim().is_none());
        let others: Vec<_> = others.map(Denied::code).collect();
        assert_eq!(others, ["malformed", "crit", "signature", "unchecked"]);
    }
}
