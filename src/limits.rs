//! What a tenant may use up, and what the upstream grants: verdicts without HTTP.
//!
//! `rate` is how often something may happen, `budget` knows the calendar windows that credits are counted in (the
//! counting itself is the store's), `quota` paces creates to what an upstream key is granted.

mod budget;
mod quota;
mod rate;

pub use budget::Window;
pub use quota::{Quota, QuotaStatus, QuotaTimeout, TaskSlot, Turn, Waiting};
pub use rate::{RateLimiter, RateVerdict};
