//! The tiers a viewer is served from before an origin is asked.
//!
//! Holds no code: [`ram`] keeps blocks in memory, in the mapping of `slots`.

mod block;
mod places;
pub mod ram;
mod slots;
