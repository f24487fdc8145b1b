//! Tasks on their way through the gateway: whose they are, how far they are, whom they tell.
//!
//! `body` changes a request without touching the rest of it. `ownership` judges what a request names. `tracker` follows
//! the tasks under way, at the pace that `pace` sets. `delivery`
//! carries callbacks to tenants, when `schedule` says; `simulated` hears of the simulator's ends.

pub mod body;
pub mod delivery;
pub mod ownership;
mod pace;
pub mod schedule;
pub mod simulated;
pub mod tracker;

pub use tracker::{HURRY, Poller, Received, Seen, Tracker, Whose};
