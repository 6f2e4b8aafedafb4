//! What an authority that asks is answered, as long as an order waits for it: a text over plain
//! HTTP (RFC 8555 section 8.3), a certificate in a handshake (RFC 8737).
//!
//! Read by every worker, written by who orders: a look takes no lock.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::sign::CertifiedKey;

/// All answers there are now.
#[derive(Default)]
pub struct Challenges {
    texts: ArcSwap<HashMap<String, Bytes>>,
    certificates: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
}

impl Challenges {
    /// What is answered to a request for this path, if an order waits for it.
    pub fn text(&self, path: &str) -> Option<Bytes> {
        let token = path.strip_prefix(FOLDER)?;
        self.texts.load().get(token).cloned()
    }

    /// The certificate that proves a name, in lower case, if an order waits for it.
    pub fn certificate(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        self.certificates.load().get(name?).cloned()
    }

    /// Answers requests for a token with `text`.
    pub fn answer(self: &Arc<Self>, token: &str, text: &str) -> Answering {
        put(&self.texts, token, &Bytes::copy_from_slice(text.as_bytes()));
        Answering { challenges: self.clone(), key: token.to_owned() }
    }

    /// Answers handshakes for a name with `certificate`.
    pub fn show(self: &Arc<Self>, name: &str, certificate: CertifiedKey) -> Answering {
        put(&self.certificates, name, &Arc::new(certificate));
        Answering { challenges: self.clone(), key: name.to_owned() }
    }
}

/// One answer, as long as it is held.
pub struct Answering {
    challenges: Arc<Challenges>,
    key: String,
}

impl Drop for Answering {
    fn drop(&mut self) {
        take(&self.challenges.texts, &self.key);
        take(&self.challenges.certificates, &self.key);
    }
}

fn put<T: Clone>(all: &ArcSwap<HashMap<String, T>>, key: &str, value: &T) {
    all.rcu(|before| {
        let mut after = HashMap::clone(before);
        after.insert(key.to_owned(), value.clone());
        after
    });
}

fn take<T: Clone>(all: &ArcSwap<HashMap<String, T>>, key: &str) {
    if all.load().contains_key(key) {
        all.rcu(|before| {
            let mut after = HashMap::clone(before);
            after.remove(key);
            after
        });
    }
}

const FOLDER: &str = "/.well-known/acme-challenge/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_given_for_its_token_alone_and_no_longer_than_it_is_held() {
        let challenges = Arc::new(Challenges::default());
        let path = "/.well-known/acme-challenge/token";
        assert_eq!(challenges.text(path), None);
        let answering = challenges.answer("token", "token.thumb");
        let other = challenges.answer("other", "other.thumb");
        assert_eq!(challenges.text(path).unwrap(), "token.thumb");
        for path in ["/token", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/tok"] {
            assert_eq!(challenges.text(path), None, "{path}");
        }
        drop(answering);
        assert_eq!(challenges.text(path), None);
        assert!(challenges.text("/.well-known/acme-challenge/other").is_some());
        drop(other);
    }
}
