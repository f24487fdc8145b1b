//! Who is to be woken when something happens on a connection.
//!
//! A connection is driven by whoever uses it, in one go with what is put into it and taken out at its other end. hyper wakes
//! the one end for what is done at the other, which in one go wakes nobody who does not know it, or whoever used the
//! connection before: each time for nothing, and a tenth of what a request costs. So the bell is muffled while
//! that is done.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

/// Of one connection.
pub(super) struct Bell {
    clapper: Arc<Clapper>,
    waker: Waker,
}

struct Clapper {
    is_muffled: AtomicBool,
    task: Mutex<Waker>,
}

impl Bell {
    /// One that wakes nobody yet.
    pub(super) fn new() -> Self {
        let clapper = Clapper { is_muffled: AtomicBool::new(false), task: Mutex::new(Waker::noop().clone()) };
        let clapper = Arc::new(clapper);
        Self { waker: Waker::from(Arc::clone(&clapper)), clapper }
    }

    /// What drives the connection on behalf of `context`'s task, which is woken from now on.
    pub(super) fn context(&self, context: &Context<'_>) -> Context<'_> {
        self.clapper.task().clone_from(context.waker());
        Context::from_waker(&self.waker)
    }

    /// What wakes the task of the latest context.
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Does something that wakes nobody. Whatever else happens meanwhile must be found out when the connection is driven
    /// the next time, which is to come before anybody waits.
    pub(super) fn muffled<T>(&self, what: impl FnOnce() -> T) -> T {
        // A wake by another thread either comes before the next look at the socket, which sees why, or is heard: the lock in
        // which the socket keeps its waker is taken by both.
        self.clapper.is_muffled.store(true, Ordering::Release);
        let done = what();
        self.clapper.is_muffled.store(false, Ordering::Release);
        done
    }

    /// From now on nobody is woken.
    pub(super) fn forget(&self) {
        self.clapper.task().clone_from(Waker::noop());
    }
}

impl Clapper {
    fn task(&self) -> MutexGuard<'_, Waker> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Clapper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_muffled.load(Ordering::Acquire) {
            // What is woken may have a mind of its own, and is not to meet the lock.
            let task = self.task().clone();
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_task_that_drives_is_woken_and_no_other() {
        let bell = Bell::new();
        let [one, other]: [Arc<Woken>; 2] = Default::default();
        let ring = |woken: &Arc<Woken>| {
            bell.waker.wake_by_ref();
            woken.0.swap(false, Ordering::Relaxed)
        };
        assert!(!ring(&one));
        let wakers = [&one, &other].map(|woken| Waker::from(Arc::clone(woken)));
        assert!(bell.context(&Context::from_waker(&wakers[0])).waker().will_wake(&bell.waker));
        assert!(ring(&one));
        bell.muffled(|| assert!(!ring(&one)));
        assert!(ring(&one));
        let _ = bell.context(&Context::from_waker(&wakers[1]));
        assert!(!ring(&one) && ring(&other));
        bell.forget();
        assert!(!ring(&one) && !ring(&other));
        assert_eq!(Arc::strong_count(&other), 2, "it is not held any more");
    }
}
