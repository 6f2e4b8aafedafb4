//! What tokens were found to be, and why viewers did not come in.

use super::Labels;

closed_labels! {
    /// Why a viewer did not come in, or was sent to another box.
    Barred("reason") {
        /// Not from his country.
        Country = "country",
        /// Nobody knows from which country he is.
        CountryUnknown = "country_unknown",
        /// Not from his network.
        Network = "network",
        /// Not yet.
        Early = "early",
        /// Not any more.
        Late = "late",
        /// Not at this hour.
        Hours = "hours",
        /// An origin may read his path otherwise, and another rule be about it then.
        Unclear = "unclear",
        /// Routes have him for another box.
        Elsewhere = "elsewhere",
        /// Likewise, and he was sent there.
        SentOn = "sent_on",
    }

    /// What became of a request for what is behind a token: `s-uri-signing` (RFC 9246 section
    /// 4.5), or what else decided it.
    Shown("outcome") {
        /// Its token lets him in.
        Verified = "200",
        /// It does, and wants to be renewed, which cannot be done here.
        Unrenewed = "unrenewed",
        /// The signature does not verify, or its key is not known.
        Signature = "400",
        /// Its issuer is not trusted, or did not sign it.
        Issuer = "401",
        /// Its subject cannot be opened.
        Subject = "402",
        /// It is for somebody else.
        Audience = "403",
        /// It has expired.
        Expired = "404",
        /// It is not valid yet.
        Early = "405",
        /// How it is to be renewed is not clear.
        Renewal = "406",
        /// It was used before.
        Used = "407",
        /// It is of another version.
        Version = "408",
        /// It demands what is not understood.
        Critical = "409",
        /// It is for another address.
        Address = "410",
        /// It is for another URI.
        Container = "411",
        /// There is none, or it cannot be read.
        Malformed = "500",
        /// A directive of the key file lets everybody in.
        Allowed = "allowed",
        /// A directive lets nobody in.
        Forbidden = "forbidden",
        /// The token is good, and has been used too much for now.
        Exhausted = "exhausted",
    }

    /// What a Common Access Token was found to be: the claim that was not met, or another word.
    CatShown("outcome") {
        /// It lets its bearer in.
        Ok = "ok",
        /// It does, and did before.
        Reused = "reused",
        /// He is sent on with the next one.
        Renewed = "renewed",
        /// It lets its bearer in, and wants to be renewed, which cannot be done here.
        Unrenewed = "unrenewed",
        /// It cannot be read.
        Malformed = "malformed",
        /// It demands what is not understood.
        Critical = "crit",
        /// The signature does not verify, or its key is not known.
        Signature = "signature",
        /// It is of another version.
        Version = "catv",
        /// Its issuer is not trusted, or did not sign it.
        Issuer = "iss",
        /// It has a claim that cannot be checked.
        Unchecked = "unchecked",
        /// It is for somebody else.
        Audience = "aud",
        /// It has expired.
        Expired = "exp",
        /// It is not valid yet.
        Early = "nbf",
        /// It is for other networks.
        Network = "catnip",
        /// It is for other countries.
        Country = "catgeoiso3166",
        /// It is for who has another key.
        TlsKey = "cattpk",
        /// It is for another protocol.
        Protocol = "catalpn",
        /// It is for other methods.
        Method = "catm",
        /// It is for other URIs.
        Uri = "catu",
        /// It is for who sends other headers.
        Header = "cath",
        /// What it says is to be answered is not known.
        Answer = "catif",
        /// How it says it is renewed is not known.
        Renewal = "catr",
        /// It was used before.
        Used = "catreplay",
    }
}
