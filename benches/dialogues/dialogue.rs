//! The dialogues as `tests/it/dialogue.rs` has them.

#[path = "../../tests/it/dialogue/origin.rs"]
pub(crate) mod origin;
#[path = "../../tests/it/dialogue/read.rs"]
pub(crate) mod read;
#[path = "../../tests/it/dialogue/speak.rs"]
pub(crate) mod speak;
#[path = "../../tests/it/dialogue/written.rs"]
mod written;
