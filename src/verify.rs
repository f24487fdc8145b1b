//! Does the simulator behave as what was recorded? Every recorded request is sent to a fresh one, and the answers are
//! compared: task by task, from the create to the last callback.
//!
//! Nobody's durations are compared, and no values: what counts is what a client's code relies on, status, code, message, the
//! names and types of all members, the order of states, the callbacks. What came from circumstances that a recording does
//! not show (how a task ended, an empty account, a server in trouble) the simulator is told. In reading order: `play` sends,
//! `wish` says what the simulator is told, `twins` knows which of its ids stands for which recorded one, `compare` finds
//! differences, `report` tells them.

mod compare;
mod play;
mod report;
mod twins;
mod wish;

pub use compare::Difference;
pub use play::verify;
pub use report::{Checked, Report};
