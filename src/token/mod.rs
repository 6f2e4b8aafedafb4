//! Tokens: who may watch what, as a publisher has signed it.
//!
//! Two kinds, which are read and judged here and nowhere else: URI signing (RFC 9246), and the
//! Common Access Token (CTA-5007). Pure: the time is told, keys and what was seen before are
//! brought.

pub mod cat;
pub mod expression;
pub mod fuzz;
pub mod json;
pub mod jwk;
pub mod key;
pub mod key_file;
pub mod uri_signing;

use aws_lc_rs::digest::{Context, SHA256};

/// What tells one bearer from another: who issued his token, and what it says that stays when it is
/// renewed, as bytes.
fn bearer(issuer: &str, lasting: &[u8]) -> u128 {
    let mut context = Context::new(&SHA256);
    context.update(&(issuer.len() as u64).to_le_bytes());
    context.update(issuer.as_bytes());
    context.update(lasting);
    let half = context.finish().as_ref()[..16].try_into().expect("SHA-256 has more bytes");
    u128::from_le_bytes(half)
}
