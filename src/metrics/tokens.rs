//! The series of who is refused before anything is looked up: by what he asks, where he is and
//! when, and by his token.

use super::series::{Series, counter};

pub(super) const REFUSED: Series = counter(
    "tidegate_requests_refused_total",
    "Requests refused before anything was looked up, by why.",
);
pub(super) const BARRED: Series = counter(
    "tidegate_door_refusals_total",
    "Requests of viewers who did not come in, or were sent to another box, by the reason.",
);
pub(super) const SHOWN: Series =
    counter("tidegate_token_checks_total", "Requests that take a token, by the code of RFC 9246.");
pub(super) const CATS: Series =
    counter("tidegate_cat_checks_total", "Common Access Tokens that were shown, by the outcome.");
