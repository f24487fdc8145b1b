//! Work that goes on beside a request. The only module that spawns tasks.

use std::future::Future;

use tokio::task::JoinHandle;

/// Runs `work` on its own. A panic in it is logged by the panic hook like any other and ends nothing else.
///
/// Whoever calls this sees to it that the work ends: when its owner is dropped, or by itself.
#[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(work)
}
