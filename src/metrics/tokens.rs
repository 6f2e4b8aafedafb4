//! The series of who is let in: by where and when, and by tokens.

use super::series::{Series, counter};

pub(super) const BARRED: Series = counter(
    "tidegate_door_refusals_total",
    "Requests of viewers who did not come in, by where they are and when, by the reason.",
);
pub(super) const SHOWN: Series =
    counter("tidegate_token_checks_total", "Requests that take a token, by the code of RFC 9246.");
pub(super) const CATS: Series =
    counter("tidegate_cat_checks_total", "Common Access Tokens that were shown, by the outcome.");
