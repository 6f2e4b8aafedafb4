//! What sessions are signed with, so that nobody chooses one: who could, would choose his box.
//!
//! Several servers that have the same secret know each other's sessions.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::limits::{STEERING_SECRET_BYTES_MAX, STEERING_SECRET_BYTES_MIN};
use crate::message::decision::Seal;

/// A secret; never shown.
#[derive(Clone)]
pub struct Secret(Key);

impl Secret {
    /// Of the content of a file, without what ends its line; `None`: too short or too long.
    pub fn of(content: &[u8]) -> Option<Secret> {
        let content = content.trim_ascii_end();
        let fits = (STEERING_SECRET_BYTES_MIN..=STEERING_SECRET_BYTES_MAX).contains(&content.len());
        fits.then(|| Secret(Key::new(HMAC_SHA256, content)))
    }

    /// One that nobody else has; `None`: the system gives no random bytes.
    pub fn random() -> Option<Secret> {
        Some(Secret(Key::new(HMAC_SHA256, &random_bytes::<32>()?)))
    }

    /// What decisions are sealed with by who has this.
    pub fn seal(&self) -> Seal {
        Seal::new(sign(&self.0, b"decisions").as_ref())
    }

    /// The signature of a text: 22 characters that need no escape in a URI.
    pub(super) fn signature(&self, text: &str) -> String {
        let tag = sign(&self.0, text.as_bytes());
        URL_SAFE_NO_PAD.encode(&tag.as_ref()[..SIGNATURE_BYTES])
    }

    /// Whether it is that of a text.
    pub(super) fn is_signature(&self, signature: &str, text: &str) -> bool {
        verify_slices_are_equal(signature.as_bytes(), self.signature(text).as_bytes()).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A name that nobody guesses: 22 characters that need no escape in a URI.
pub(super) fn name() -> String {
    let bytes: [u8; SIGNATURE_BYTES] = random_bytes().expect("the system has random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}

fn random_bytes<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

/// As many as nobody tries out.
const SIGNATURE_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_for_its_text_and_its_secret_alone() {
        let (one, other) = (Secret::of(b"0123456789abcdef\n").unwrap(), Secret::random().unwrap());
        let signature = one.signature("/a?sid=b");
        assert_eq!(signature.len(), 22);
        let again = Secret::of(b"0123456789abcdef").unwrap();
        assert!(again.is_signature(&signature, "/a?sid=b"), "the end of its line does not count");
        assert!(!one.is_signature(&signature, "/a?sid=c") && !one.is_signature("", "/a?sid=b"));
        assert!(!other.is_signature(&signature, "/a?sid=b"));
        assert_eq!(format!("{one:?}"), "Secret");
        assert!(Secret::of(b"0123456789abcde\n").is_none());
        assert!(Secret::of(&[b'a'; STEERING_SECRET_BYTES_MAX + 1]).is_none());
        assert_ne!(name(), name());
    }
}
