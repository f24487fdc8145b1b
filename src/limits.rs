//! What a tenant may use up, and what the upstream grants: verdicts without HTTP.
//!
//! `budget` knows the calendar windows that credits are counted in. The counting itself is the store's; what a
//! refusal looks like is the gateway's.

mod budget;

pub use budget::Window;
