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
