//! The tiers a viewer is served from before an origin is asked.
//!
//! Holds no code: [`heads`] says what a URL leads to, [`ram`] keeps blocks in the mapping of
//! `slots`.

mod block;
pub mod heads;
mod places;
pub mod ram;
mod slots;
