//! Does the simulator behave as what was recorded? Every recorded request is sent to a fresh one, and the answers are
//! compared: task by task, from the create to the last callback.
//!
//! What was recorded of the real API is played lifecycle by lifecycle, as everything else in it is guesswork. What was
//! recorded of a simulator has beside it what steered that, and happens again as it was.
//!
//! Nobody's durations are compared, and no values: what counts is what a client's code relies on, status, code, message, the
//! names and types of all members, the order of states, the callbacks. What came from circumstances that a recording does
//! not show (how a task ended, an empty account, a server in trouble) the simulator is told. In reading order: `play` sends,
//! `wish` says what the simulator is told, `twins` knows which of its ids stands for which recorded one, `again` does what a
//! simulator did, `compare` finds differences, `report` tells them.

mod again;
mod compare;
mod play;
mod report;
mod twins;
mod wish;

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;

pub use compare::Difference;
pub use report::{Checked, Report, Totals};

use crate::catalogue::Catalogue;
use crate::record::Recording;

/// Why a recording cannot be compared at all.
#[derive(Debug, thiserror::Error)]
#[error("{recording}: log._kiegate.simulator: {what}")]
pub struct Unplayable {
    /// Its file.
    pub recording: String,
    /// What is wrong.
    pub what: String,
}

/// Sends what `recording`, of that `name`, has to a fresh simulator, and says where that behaves in another way.
///
/// # Errors
/// It is of a simulator that there is not.
pub async fn verify(
    catalogue: &Arc<Catalogue>,
    name: String,
    recording: &Recording,
) -> Result<Report, Unplayable> {
    match &recording.simulator {
        Some(beginning) => again::verify(catalogue, name, recording, beginning).await,
        None => Ok(play::verify(catalogue, name, recording).await),
    }
}

/// Why something was not compared.
const NOT_KEPT: &str = "its request was not kept";

async fn whole(body: Body) -> Bytes {
    axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default()
}
