//! The tiers a viewer is served from before an origin is asked.
//!
//! Holds no code: [`heads`] says what a URL leads to; [`ram`] keeps blocks (`block`) that
//! [`policy`] chose, in the memory of `slots`, of which `places` says what is taken; [`ssd`] keeps
//! on volumes what [`admission`] let in, with what is known of it (`head_record`); [`carried`] is
//! what goes from one process to the next; [`shadow`] says what other rules and sizes would serve.

pub mod admission;
mod block;
pub mod carried;
mod head_record;
pub mod heads;
mod places;
pub mod policy;
pub mod ram;
pub mod shadow;
mod slots;
pub mod ssd;
