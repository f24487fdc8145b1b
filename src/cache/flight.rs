//! A question under way, and those who wait for its answer.
//!
//! Whoever asked first drives it, and nobody else is noted anywhere as long as nobody else comes: most questions have one
//! who waits. When that one leaves, the next takes over; when nobody is left, it is given up. So whoever has begun to wait must
//! go on when woken, or leave: the others depend on it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;

use super::Key;

/// What all who wait have in common.
pub(super) struct Flight<T> {
    key: Key,
    state: Mutex<State<T>>,
}

struct State<T> {
    answer: Option<T>,
    /// Left by whoever drove it, for the next.
    work: Option<BoxFuture<'static, T>>,
    /// Those who do not drive, by their numbers.
    waiting: Vec<(usize, Waker)>,
    /// How many have come.
    count: usize,
}

/// One who waits: gives the answer.
pub(super) struct Passenger<T> {
    flight: Arc<Flight<T>>,
    number: usize,
    /// With the one who drives.
    work: Option<BoxFuture<'static, T>>,
    /// It is among those to be woken.
    waits: bool,
}

impl<T: Clone> Flight<T> {
    /// Takes off with whoever asked first.
    pub(super) fn begin(key: Key, work: BoxFuture<'static, T>) -> Passenger<T> {
        let state = Mutex::new(State { answer: None, work: None, waiting: Vec::new(), count: 1 });
        Passenger { flight: Arc::new(Self { key, state }), number: 0, work: Some(work), waits: false }
    }

    /// The question.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Takes another one along.
    pub(super) fn join(self: Arc<Self>) -> Passenger<T> {
        let mut state = self.state();
        let number = state.count;
        state.count += 1;
        drop(state);
        Passenger { flight: self, number, work: None, waits: false }
    }
}

impl<T> Flight<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Passenger<T> {
    pub(super) fn flight(&self) -> &Arc<Flight<T>> {
        &self.flight
    }

    /// As one who does not drive: the answer, if it is there, or the wheel, if nobody has it.
    fn look(&mut self, context: &Context<'_>) -> Poll<T> {
        let mut state = self.flight.state();
        if let Some(answer) = &state.answer {
            return Poll::Ready(answer.clone());
        }
        self.work = state.work.take();
        let place = state.waiting.iter().position(|(number, _)| *number == self.number);
        match (&self.work, place) {
            (None, Some(place)) => state.waiting[place].1.clone_from(context.waker()),
            (None, None) => state.waiting.push((self.number, context.waker().clone())),
            (Some(_), Some(place)) => drop(state.waiting.swap_remove(place)),
            (Some(_), None) => {}
        }
        self.waits = self.work.is_none();
        Poll::Pending
    }
}

impl<T: Clone> Future for Passenger<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if self.work.is_none()
            && let Poll::Ready(answer) = self.look(context)
        {
            return Poll::Ready(answer);
        }
        let Some(work) = &mut self.work else { return Poll::Pending };
        let Poll::Ready(answer) = work.as_mut().poll(context) else { return Poll::Pending };
        self.work = None;
        let mut state = self.flight.state();
        state.answer = Some(answer.clone());
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for (_, waker) in waiting {
            waker.wake();
        }
        Poll::Ready(answer)
    }
}

impl<T> Passenger<T> {
    /// Hands over to another one, if there is one; what panicked meanwhile panics there again.
    fn leave(&mut self) {
        let mut state = self.flight.state();
        if let Some(place) = state.waiting.iter().position(|(number, _)| *number == self.number) {
            state.waiting.swap_remove(place);
        }
        let driven = self.work.take();
        // One who was told to take over may leave as well.
        let is_left_alone = driven.is_some() || state.work.is_some();
        state.work = state.work.take().or(driven);
        let next = state.waiting.first().filter(|_| is_left_alone).map(|(_, waker)| waker.clone());
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

impl<T> Drop for Passenger<T> {
    fn drop(&mut self) {
        // What is under way is left there even by the last one, since somebody may just be joining: it ends with the flight.
        if self.work.is_some() || self.waits {
            self.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::task::Wake;

    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Woken(Mutex<usize>);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap() += 1;
        }
    }

    fn look(passenger: &mut Passenger<u32>, woken: &Arc<Woken>) -> Poll<u32> {
        let waker = Waker::from(Arc::clone(woken));
        passenger.poll_unpin(&mut Context::from_waker(&waker))
    }

    fn flight() -> (Passenger<u32>, oneshot::Sender<u32>) {
        let (tell, told) = oneshot::channel();
        (Flight::begin("question".into(), told.map(Result::unwrap).boxed()), tell)
    }

    #[test]
    fn the_one_who_asked_first_drives_and_tells_the_others() {
        let (mut first, tell) = flight();
        let mut second = Arc::clone(first.flight()).join();
        let woken: [Arc<Woken>; 2] = Default::default();
        assert!(look(&mut first, &woken[0]).is_pending());
        assert!(look(&mut second, &woken[1]).is_pending());
        tell.send(7).unwrap();
        assert_eq!(woken.each_ref().map(|woken| *woken.0.lock().unwrap()), [1, 0]);
        assert_eq!(look(&mut first, &woken[0]), Poll::Ready(7));
        assert_eq!(*woken[1].0.lock().unwrap(), 1);
        assert_eq!(look(&mut second, &woken[1]), Poll::Ready(7));
    }

    /// The second is told to take over, and leaves before it does.
    #[test]
    fn whoever_leaves_hands_over_even_what_it_was_only_told_to_take() {
        let (mut first, tell) = flight();
        let mut others = [(); 2].map(|()| Arc::clone(first.flight()).join());
        let woken: [Arc<Woken>; 3] = Default::default();
        assert!(look(&mut first, &woken[0]).is_pending());
        for (other, woken) in others.iter_mut().zip(&woken[1..]) {
            assert!(look(other, woken).is_pending());
        }
        drop(first);
        let [second, mut third] = others;
        assert_eq!(woken.each_ref().map(|woken| *woken.0.lock().unwrap()), [0, 1, 0]);
        drop(second);
        assert_eq!(*woken[2].0.lock().unwrap(), 1);
        assert!(look(&mut third, &woken[2]).is_pending());
        tell.send(7).unwrap();
        assert_eq!(*woken[2].0.lock().unwrap(), 2, "it drives now");
        assert_eq!(look(&mut third, &woken[2]), Poll::Ready(7));
    }

    /// It found the flight just when the last of the others left.
    #[test]
    fn one_who_has_not_looked_yet_takes_over_as_well() {
        let (mut first, tell) = flight();
        let mut second = Arc::clone(first.flight()).join();
        let woken = Arc::<Woken>::default();
        assert!(look(&mut first, &woken).is_pending());
        drop(first);
        assert!(look(&mut second, &woken).is_pending());
        tell.send(7).unwrap();
        assert_eq!(look(&mut second, &woken), Poll::Ready(7));
    }

    /// It would be woken in the place of another, who would wait for ever.
    #[test]
    fn nobody_who_has_left_is_told_to_take_over() {
        let (mut first, tell) = flight();
        let mut second = Arc::clone(first.flight()).join();
        let flight = Arc::downgrade(first.flight());
        let woken: [Arc<Woken>; 2] = Default::default();
        assert!(look(&mut first, &woken[0]).is_pending());
        assert!(look(&mut second, &woken[0]).is_pending());
        drop(first);
        let mut third = flight.upgrade().unwrap().join();
        drop(second);
        assert!(look(&mut third, &woken[0]).is_pending());
        let mut fourth = flight.upgrade().unwrap().join();
        assert!(look(&mut fourth, &woken[1]).is_pending());
        assert_eq!(third.flight.state().waiting.len(), 1);
        drop(third);
        assert_eq!(*woken[1].0.lock().unwrap(), 1);
        assert!(look(&mut fourth, &woken[1]).is_pending());
        tell.send(7).unwrap();
        assert_eq!(look(&mut fourth, &woken[1]), Poll::Ready(7));
    }

    #[test]
    fn when_the_last_one_leaves_the_work_ends() {
        let (mut first, tell) = flight();
        let second = Arc::clone(first.flight()).join();
        assert!(look(&mut first, &Arc::default()).is_pending());
        drop(first);
        assert!(!tell.is_closed());
        drop(second);
        assert!(tell.is_closed());
    }

    #[test]
    fn what_panics_panics_for_all_and_keeps_nobody_waiting() {
        let work = async { panic!("as asked for") };
        let first: Passenger<u32> = Flight::begin("question".into(), work.boxed());
        let mut second = Arc::clone(first.flight()).join();
        let woken: [Arc<Woken>; 2] = Default::default();
        assert!(look(&mut second, &woken[1]).is_pending());
        let panics = |mut passenger, woken| {
            let look = AssertUnwindSafe(move || look(&mut passenger, woken));
            catch_unwind(look).is_err()
        };
        assert!(panics(first, &woken[0]));
        assert_eq!(*woken[1].0.lock().unwrap(), 1);
        assert!(panics(second, &woken[1]));
    }
}
