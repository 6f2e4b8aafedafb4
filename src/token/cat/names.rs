//! What the numbers in a Common Access Token are called: claims, parts of URIs, ways to match, and
//! what is said of renewals. The names are those that CTA-5007 gives them.

/// Claims (the registry of CWT claims).
pub(super) const CLAIMS: [(&str, i64); 26] = [
    ("iss", 1),
    ("sub", 2),
    ("aud", 3),
    ("exp", 4),
    ("nbf", 5),
    ("iat", 6),
    ("cti", 7),
    ("cnf", 8),
    ("geohash", 282),
    ("catreplay", 308),
    ("catpor", 309),
    ("catv", 310),
    ("catnip", 311),
    ("catu", 312),
    ("catm", 313),
    ("catalpn", 314),
    ("cath", 315),
    ("catgeoiso3166", 316),
    ("catgeocoord", 317),
    ("catgeoalt", 318),
    ("cattpk", 319),
    ("catifdata", 320),
    ("catdpop", 321),
    ("catif", 322),
    ("catr", 323),
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
