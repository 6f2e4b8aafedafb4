//! Whether bytes are those that a response's digests are of (RFC 9530).
//!
//! `Content-Digest` is of the content of one message, `Repr-Digest` of the whole representation:
//! only a message that brings all of it can be checked by that. SHA-256 and SHA-512 are
//! understood; others, and what is no structured field, are as if they were not there.

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use http::header::HeaderName;
use http::{HeaderMap, StatusCode};
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

/// The digests a message's content must have, and what of it has come.
#[derive(Clone)]
pub struct Check {
    expected: Vec<(Context, Vec<u8>)>,
}

impl Check {
    /// Of a response's fields; `None`: it has no digest that can be checked.
    pub fn of(status: StatusCode, headers: &HeaderMap) -> Option<Check> {
        let names: &[_] = match status {
            StatusCode::PARTIAL_CONTENT => &[CONTENT_DIGEST],
            _ => &[CONTENT_DIGEST, REPR_DIGEST],
        };
        let mut expected = Vec::new();
        for digests in names.iter().filter_map(|name| read(headers, name)) {
            for (name, algorithm) in [("sha-256", &SHA256), ("sha-512", &SHA512)] {
                let Some(ListEntry::Item(Item { bare_item, .. })) = digests.get(name) else {
                    continue;
                };
                if let BareItem::ByteSequence(digest) = bare_item
                    && !expected.iter().any(|(_, known)| known == digest)
                {
                    expected.push((Context::new(algorithm), digest.clone()));
                }
            }
        }
        (!expected.is_empty()).then_some(Check { expected })
    }

    /// Takes the next bytes of the content, as they came.
    pub fn update(&mut self, bytes: &[u8]) {
        self.expected.iter_mut().for_each(|(context, _)| context.update(bytes));
    }

    /// Whether what has come is all of it, by each digest.
    pub fn holds(self) -> bool {
        let matches = |(context, digest): (Context, Vec<u8>)| context.finish().as_ref() == digest;
        self.expected.into_iter().all(matches)
    }
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check").field("digests", &self.expected.len()).finish()
    }
}

fn read(headers: &HeaderMap, name: &HeaderName) -> Option<Dictionary> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|line| line.as_bytes()).collect();
    (!lines.is_empty()).then(|| Parser::new(&lines.join(&b", "[..])).parse().ok())?
}

/// Of the content of one message.
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// Of a whole representation (RFC 9530 section 3).
pub const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Of `hello`.
    const SHA_256: &str = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";
    const SHA_512: &str = "sha-512=:m3HSJL1i83hdltRq0+o9czGb+8KJDKra4t/3JRlnPKcjI8PZm6XBHXx6zG4U\
        uMXaDEZjR1wuXDre9G9zvN7AQw==:";
    /// Of nothing.
    const OF_NOTHING: &str = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";

    /// Whether `hello` passes; `None`: nothing is checked.
    fn passes(status: u16, lines: &[(&'static str, &str)]) -> Option<bool> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let mut check = Check::of(StatusCode::from_u16(status).unwrap(), &headers)?;
        check.update(b"he");
        check.update(b"");
        check.update(b"llo");
        Some(check.holds())
    }

    #[test]
    fn what_has_a_digest_passes_by_all_that_are_understood() {
        let (content, repr) = ("content-digest", "repr-digest");
        let both = format!("{SHA_256}, {SHA_512}");
        let one_wrong = format!("{OF_NOTHING}, {SHA_512}");
        for (status, lines, expected) in [
            (200, &[][..], None),
            (200, &[(content, SHA_256)], Some(true)),
            (200, &[(content, SHA_512)], Some(true)),
            (200, &[(repr, SHA_256)], Some(true)),
            (404, &[(repr, SHA_256)], Some(true)),
            (200, &[(repr, &both)], Some(true)),
            (200, &[(content, OF_NOTHING)], Some(false)),
            (200, &[(repr, OF_NOTHING)], Some(false)),
            (200, &[(repr, &one_wrong)], Some(false)),
            (200, &[(content, SHA_256), (repr, OF_NOTHING)], Some(false)),
            // Section 3: of a part it says nothing.
            (206, &[(repr, OF_NOTHING)], None),
            (206, &[(content, SHA_256), (repr, OF_NOTHING)], Some(true)),
            (206, &[(content, OF_NOTHING)], Some(false)),
            // Section 5: others are not understood, and what is no digest is none.
            (200, &[(repr, "md5=:XUFAKrxLKna5cZ2REBfFkg==:")], None),
            (200, &[(repr, &format!("md5=:AAAA:, {SHA_256}"))], Some(true)),
            (200, &[(repr, "sha-256=LPJN")], None),
            (200, &[(repr, "sha-256=\"LPJN\"")], None),
            (200, &[(repr, "sha-256=:LPJN")], None),
            (200, &[(repr, "SHA-256=:LPJN:")], None),
            (200, &[(repr, "sha-256=(:LPJN:)")], None),
            (200, &[(repr, "sha-256")], None),
            (200, &[(repr, "")], None),
            (200, &[(repr, "sha-256=:LPJN:")], Some(false)),
            // Lines are one field, of which the last counts.
            (200, &[(repr, OF_NOTHING), (repr, SHA_256)], Some(true)),
            (200, &[("digest", OF_NOTHING), ("content-md5", "x")], None),
        ] {
            assert_eq!(passes(status, lines), expected, "{status} {lines:?}");
        }
    }
}
