//! What the program tells of itself: metrics, and log lines.
//!
//! It is told, never asked: nothing here decides anything. Each thing worth telling is told once, and whoever tells
//! it does not know whether a line, a sample or both come of it. Label values come from closed sets (the catalogue,
//! the tenants, the constants below); what a client sends can never grow the number of series.

mod busy;
mod log;
mod maker;
mod metrics;
mod observed;

pub use log::start as start_logging;
pub use metrics::{Finished, Metrics, TaskEnded};
pub use observed::{Report, observed};
