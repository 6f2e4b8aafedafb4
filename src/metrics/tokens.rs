//! The series of tokens.

use super::series::{Series, counter};

pub(super) const SHOWN: Series =
    counter("tidegate_token_checks_total", "Requests that take a token, by the code of RFC 9246.");
pub(super) const CATS: Series =
    counter("tidegate_cat_checks_total", "Common Access Tokens that were shown, by the outcome.");
