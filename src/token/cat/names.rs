//! What the numbers in a Common Access Token are called: claims, parts of URIs, ways to match, and
//! what is said of renewals. The names are those that CTA-5007 gives them.

/// Who issued it.
pub(super) const ISSUER: i64 = 1;
/// Whom it is about.
pub(super) const SUBJECT: i64 = 2;
/// Who is to take it.
pub(super) const AUDIENCE: i64 = 3;
/// Until when it lets in.
pub(super) const EXPIRES: i64 = 4;
/// From when on it lets in.
pub(super) const BEGINS: i64 = 5;
/// When it was issued.
pub(super) const ISSUED: i64 = 6;
/// Its id.
pub(super) const ID: i64 = 7;
/// Whether it may be used again.
pub(super) const REPLAY: i64 = 308;
/// The version.
pub(super) const VERSION: i64 = 310;
/// The networks it is for.
pub(super) const NETWORKS: i64 = 311;
/// The URIs it is for.
pub(super) const URIS: i64 = 312;
/// The methods it is for.
pub(super) const METHODS: i64 = 313;
/// The protocols it is for.
pub(super) const PROTOCOLS: i64 = 314;
/// The headers it is for.
pub(super) const HEADERS: i64 = 315;
/// The countries it is for.
pub(super) const COUNTRIES: i64 = 316;
/// The key of the client's certificate.
pub(super) const TLS_KEY: i64 = 319;
/// What is told of the claim that was not met.
pub(super) const DATA: i64 = 320;
/// What is answered to who does not meet a claim.
pub(super) const ANSWERS: i64 = 322;
/// How it is renewed.
pub(super) const RENEWS: i64 = 323;

/// Claims (the registry of CWT claims).
pub(super) const CLAIMS: [(&str, i64); 26] = [
    ("iss", ISSUER),
    ("sub", SUBJECT),
    ("aud", AUDIENCE),
    ("exp", EXPIRES),
    ("nbf", BEGINS),
    ("iat", ISSUED),
    ("cti", ID),
    ("cnf", 8),
    ("geohash", 282),
    ("catreplay", REPLAY),
    ("catpor", 309),
    ("catv", VERSION),
    ("catnip", NETWORKS),
    ("catu", URIS),
    ("catm", METHODS),
    ("catalpn", PROTOCOLS),
    ("cath", HEADERS),
    ("catgeoiso3166", COUNTRIES),
    ("catgeocoord", 317),
    ("catgeoalt", 318),
    ("cattpk", TLS_KEY),
    ("catifdata", DATA),
    ("catdpop", 321),
    ("catif", ANSWERS),
    ("catr", RENEWS),
    ("cattprint", 324),
];

/// Parts of a URI.
pub(super) const COMPONENTS: [(&str, i64); 9] = [
    ("scheme", 0),
    ("host", 1),
    ("port", 2),
    ("path", 3),
    ("query", 4),
    ("parent-path", 5),
    ("filename", 6),
    ("stem", 7),
    ("extension", 8),
];

/// Ways to match.
pub(super) const MATCHES: [(&str, i64); 7] = [
    ("exact-match", 0),
    ("prefix-match", 1),
    ("suffix-match", 2),
    ("contains-match", 3),
    ("regex-match", 4),
    ("sha256-match", -1),
    ("sha512-256-match", -2),
];

/// What a renewal says.
pub(super) const RENEWAL: [(&str, i64); 8] = [
    ("type", 0),
    ("expadd", 1),
    ("deadline", 2),
    ("cookie-name", 3),
    ("header-name", 4),
    ("cookie-params", 5),
    ("header-params", 6),
    ("code", 7),
];

/// How a renewed token comes to the viewer.
pub(super) const RENEWAL_TYPES: [(&str, i64); 4] =
    [("automatic", 0), ("cookie", 1), ("header", 2), ("redirect", 3)];

/// The number of this claim.
pub(super) fn label(name: &str) -> Option<i64> {
    number_of(&CLAIMS, name)
}

/// The number that is called so.
pub(super) fn number_of(names: &[(&str, i64)], name: &str) -> Option<i64> {
    names.iter().find(|(one, _)| *one == name).map(|(_, number)| *number)
}

/// What this number is called.
pub(super) fn name_of<'a>(names: &[(&'a str, i64)], number: i64) -> Option<&'a str> {
    names.iter().find(|(_, one)| *one == number).map(|(name, _)| *name)
}
