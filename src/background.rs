//! Work that goes on beside a request. The only module that spawns tasks and threads.
//!
//! [`Lanes`] are threads with a runtime each. What is begun on one stays there, so a connection, the requests on it
//! and the connections that they open upstream wake each other without another thread's help: that is a third of
//! what a request costs (`bench/`). Whatever runs on a lane and waits long keeps its neighbours waiting; work that
//! computes for long is done elsewhere ([`compute`]).

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot};
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

/// So much is computed at once: more would only take turns.
static COMPUTING: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(cores()));

/// Does `work`, which computes for long, on a thread where nobody else waits, to its end even if the caller does not. A panic in it
/// is the caller's.
pub async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let turn = COMPUTING.acquire().await.expect("it is never closed");
    let work = move || {
        let _turn = turn;
        work()
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// How many lanes there are: one for each core.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

thread_local! {
    static LANE: Cell<usize> = const { Cell::new(0) };
}

/// The lane that the caller runs on, counted from 1; 0 elsewhere.
pub fn lane() -> usize {
    LANE.get()
}

/// One for each lane, and one for all others. What each core has for itself does not travel between them, which takes longer
/// than most of what is done with it.
pub struct PerLane<T>(Box<[Apart<T>]>);

/// Alone on its lines of a core's cache.
#[repr(align(128))]
struct Apart<T>(T);

impl<T> PerLane<T> {
    /// As many as there are lanes.
    pub fn new(mut make: impl FnMut() -> T) -> Self {
        Self((0..=cores()).map(|_| Apart(make())).collect())
    }

    /// That of the lane that the caller runs on.
    pub fn here(&self) -> &T {
        &self.0[lane() % self.0.len()].0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|apart| &apart.0)
    }
}

/// Threads that each run a runtime of their own, until dropped.
pub struct Lanes {
    lanes: Vec<Arc<Lane>>,
    threads: Vec<(oneshot::Sender<()>, thread::JoinHandle<()>)>,
}

/// One of them, as seen from outside.
struct Lane {
    runtime: Handle,
    /// Pieces of work under way.
    load: AtomicUsize,
}

impl Lanes {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// What the system says if it gives no threads, or nothing to wait for sockets with.
    pub fn start(count: usize) -> io::Result<Self> {
        let mut this = Self { lanes: Vec::new(), threads: Vec::new() };
        for number in 1..=count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let lane = Lane { runtime: runtime.handle().clone(), load: AtomicUsize::new(0) };
            let (stop, stopped) = oneshot::channel();
            let work = move || {
                LANE.set(number);
                let _ = runtime.block_on(stopped);
            };
            let thread = thread::Builder::new().name(format!("kiegate-{number}")).spawn(work)?;
            this.lanes.push(Arc::new(lane));
            this.threads.push((stop, thread));
        }
        Ok(this)
    }

    /// Runs `work` on the lane that has the least to do.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Some(lane) = self.lanes.iter().min_by_key(|lane| lane.load.load(Ordering::Relaxed)) else {
            drop(spawn(work));
            return;
        };
        let counted = Counted::new(Arc::clone(lane));
        lane.runtime.spawn(async move {
            let _counted = counted;
            work.await;
        });
    }
}

/// Ends all lanes: what still runs there is dropped.
impl Drop for Lanes {
    fn drop(&mut self) {
        for (stop, thread) in self.threads.drain(..) {
            let _ = stop.send(());
            // A panic there has been logged.
            let _ = thread.join();
        }
    }
}

/// A piece of work of a lane, as long as it is under way.
struct Counted(Arc<Lane>);

impl Counted {
    fn new(lane: Arc<Lane>) -> Self {
        lane.load.fetch_add(1, Ordering::Relaxed);
        Self(lane)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn lanes_share_the_work_and_end_it_when_dropped() {
        let lanes = Lanes::start(2).unwrap();
        let (tell, told) = channel();
        for _ in 0..4 {
            let tell = tell.clone();
            lanes.spawn(async move {
                tell.send(lane()).unwrap();
                let _ended_with_the_lane = tell;
                std::future::pending::<()>().await;
            });
        }
        drop(tell);
        let mut seen: Vec<usize> = told.iter().take(4).collect();
        seen.sort_unstable();
        assert_eq!(seen, [1, 1, 2, 2]);
        drop(lanes);
        assert!(told.recv().is_err(), "nothing is left that could tell");
        assert_eq!(lane(), 0);
    }
}
