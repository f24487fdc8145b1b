//! Whose turn it is: the receivers of each tenant, how they do, and which tasks wait for them.
//!
//! A task waits with its receiver, by when its callback is due. The receiver stands once in the line of its tenant, at the
//! time from which the next attempt may be made, and not at all while it gets no more at once. So what waits for one that is
//! left alone, or busy, costs nothing until it is its turn, however much it is.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::Authority;

use crate::clock::Timestamp;
use crate::ids::TenantId;
use crate::store::CreateId;
use crate::tasks::schedule::ALONE;

/// Of one tenant so many attempts are made at once, so that its receivers cannot keep the others waiting.
pub(super) const AT_ONCE_EACH: usize = 64;
/// So many attempts go to one receiver at once.
const AT_ONCE: u32 = 4;
/// So many failures in a row close a receiver's circuit.
const FAILURES: u32 = 5;
/// So many receivers that have failed are remembered when nothing waits for them any more, and for so long.
const REMEMBERED: usize = 10_000;
const REMEMBERED_FOR: Duration = Duration::from_hours(1);

/// Tenant, scheme, host and port: what one tenant does to a host that many use delays nobody else. Clones are the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Receiver(Arc<Address>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Address {
    tenant: TenantId,
    host: String,
}

impl Receiver {
    /// Who gets what `tenant` has sent to `url`.
    pub(super) fn of(tenant: &TenantId, url: &str) -> Self {
        let uri: Uri = url.parse().unwrap_or_default();
        let authority = uri.authority().map_or("", Authority::as_str);
        let host = format!("{}://{authority}", uri.scheme_str().unwrap_or_default());
        Self(Arc::new(Address { tenant: tenant.clone(), host }))
    }
}

/// What an attempt shows of its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// It is there and able.
    Well,
    /// It is not.
    Badly,
    /// It cannot take a callback that it could not take before, which may be that one's fault.
    Unclear,
}

/// The tasks whose callbacks wait, and the attempts under way.
#[derive(Debug, Default)]
pub(super) struct Queue {
    receivers: HashMap<Receiver, Standing>,
    /// By tenant, as far as there is something to do or under way.
    lines: HashMap<TenantId, Line>,
    /// Receivers that have failed, and that nothing waits for, by since when.
    quiet: BTreeSet<(Timestamp, Receiver)>,
}

/// What one tenant waits for.
#[derive(Debug, Default)]
struct Line {
    /// Receivers that something waits for, by when it may be sent.
    turns: BTreeSet<(Timestamp, Receiver)>,
    /// Attempts that are being made.
    under_way: usize,
}

/// How a receiver does, and what waits for it.
#[derive(Debug, Default)]
struct Standing {
    circuit: Circuit,
    /// Tasks by when their first callback is due.
    waiting: BTreeSet<(Timestamp, CreateId)>,
    /// Where it stands in the line of its tenant.
    turn: Option<Timestamp>,
    /// Since when it is among those that are quiet.
    quiet: Option<Timestamp>,
}

impl Queue {
    /// A callback of that task is to be sent to `receiver` when it is `due`.
    pub(super) fn wait(&mut self, receiver: &Receiver, due: Timestamp, create: CreateId, now: Timestamp) {
        self.change(receiver, now, |standing| standing.waiting.insert((due, create)));
    }

    /// It is not.
    pub(super) fn withdraw(&mut self, receiver: &Receiver, due: Timestamp, create: CreateId, now: Timestamp) {
        self.change(receiver, now, |standing| standing.waiting.remove(&(due, create)));
    }

    /// Takes the next task out, for an attempt.
    ///
    /// # Errors
    /// If nothing may be sent now: from when on something may, as far as that is known.
    pub(super) fn take(&mut self, now: Timestamp) -> Result<CreateId, Option<Timestamp>> {
        loop {
            let (at, receiver) = self.next_in_line(now).ok_or(None)?;
            if at > now {
                return Err(Some(at));
            }
            let next = self.change(&receiver, now, |standing| {
                let next = standing.take(now)?;
                standing.circuit.under_way += 1;
                Some(next)
            });
            if let Some((_, create)) = next {
                self.line(&receiver).under_way += 1;
                return Ok(create);
            }
        }
    }

    /// An attempt came to its end, which shows how the receiver does.
    pub(super) fn leave(&mut self, receiver: &Receiver, does: Does, now: Timestamp) {
        let line = self.line(receiver);
        line.under_way = line.under_way.saturating_sub(1);
        self.change(receiver, now, |standing| standing.circuit.leave(does, now));
    }

    /// Whether nothing waits and nothing is under way.
    pub(super) fn is_idle(&mut self) -> bool {
        self.lines.retain(|_, line| !line.turns.is_empty() || line.under_way > 0);
        self.lines.is_empty()
    }

    /// The receiver whose turn is next, and when: of those that may be called now, one of the tenant that has the fewest
    /// attempts under way. Tenants that have their share under way wait for one of it to end.
    fn next_in_line(&self, now: Timestamp) -> Option<(Timestamp, Receiver)> {
        let waiting = self.lines.values().filter(|line| line.under_way < AT_ONCE_EACH);
        let first = waiting.filter_map(|line| Some((line.under_way, line.turns.first()?)));
        let turn = |(under_way, (at, receiver)): &(usize, &(Timestamp, Receiver))| {
            // What is not due yet comes after all that is, in its order.
            let (class, under_way) = if *at <= now { (Timestamp::default(), *under_way) } else { (*at, 0) };
            (class, under_way, *at, receiver.clone())
        };
        first.min_by_key(turn).map(|(_, (at, receiver))| (*at, receiver.clone()))
    }

    fn line(&mut self, receiver: &Receiver) -> &mut Line {
        self.lines.entry(receiver.0.tenant.clone()).or_default()
    }

    /// Changes how a receiver stands, and with it its turn.
    fn change<T>(
        &mut self,
        receiver: &Receiver,
        now: Timestamp,
        change: impl FnOnce(&mut Standing) -> T,
    ) -> T {
        let standing = self.receivers.entry(receiver.clone()).or_default();
        let came = change(standing);
        let turn = standing.turn();
        let before = std::mem::replace(&mut standing.turn, turn);
        if turn != before {
            let line = self.line(receiver);
            before.map(|before| line.turns.remove(&(before, receiver.clone())));
            turn.map(|turn| line.turns.insert((turn, receiver.clone())));
        }
        self.remember(receiver, now);
        came
    }

    /// Forgets a receiver that nothing waits for: at once if nothing is to be said of it, and later if it has failed.
    fn remember(&mut self, receiver: &Receiver, now: Timestamp) {
        let Some(standing) = self.receivers.get_mut(receiver) else { return };
        if let Some(since) = standing.quiet.take() {
            self.quiet.remove(&(since, receiver.clone()));
        }
        if standing.is_idle() && standing.circuit.failures > 0 {
            standing.quiet = Some(now);
            self.quiet.insert((now, receiver.clone()));
        } else if standing.is_idle() {
            self.receivers.remove(receiver);
        }
        while let Some((since, longest)) = self.quiet.first()
            && (self.quiet.len() > REMEMBERED || now.saturating_since(*since) > REMEMBERED_FOR)
        {
            self.receivers.remove(longest);
            self.quiet.pop_first();
        }
    }
}

impl Standing {
    /// When the next of what waits may be sent; `None` if nothing does, or nothing may before an attempt has ended.
    fn turn(&self) -> Option<Timestamp> {
        let (due, _) = self.waiting.first()?;
        Some(self.circuit.opens()?.max(*due))
    }

    /// Takes out what waits for longest. Where an attempt is to try whether the receiver does well again, each second time what
    /// was due last: it may be but one kind of callback that it cannot take.
    fn take(&mut self, now: Timestamp) -> Option<(Timestamp, CreateId)> {
        if self.circuit.open_until.is_none() {
            return self.waiting.pop_first();
        }
        self.circuit.probes += 1;
        if self.circuit.probes.is_multiple_of(2) {
            return self.waiting.pop_first();
        }
        let last = self.waiting.range(..=(now, CreateId::LAST)).next_back().copied()?;
        self.waiting.take(&last)
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.circuit.under_way == 0
    }
}

/// Whether a receiver answers.
#[derive(Debug, Default)]
struct Circuit {
    failures: u32,
    /// How often it was tried whether it does well again.
    probes: u32,
    under_way: u32,
    pause: Duration,
    open_until: Option<Timestamp>,
}

impl Circuit {
    /// From when on one more attempt may be made; `None` while there is no room for one.
    fn opens(&self) -> Option<Timestamp> {
        let at_once = if self.open_until.is_some() { 1 } else { AT_ONCE };
        (self.under_way < at_once).then(|| self.open_until.unwrap_or_default())
    }

    fn leave(&mut self, does: Does, now: Timestamp) {
        self.under_way = self.under_way.saturating_sub(1);
        match does {
            Does::Well => *self = Self { under_way: self.under_way, ..Self::default() },
            Does::Badly => {
                self.failures += 1;
                if self.failures >= FAILURES {
                    self.pause = (self.pause * 2).clamp(ALONE.0, ALONE.1);
                    self.open_until = Some(now + self.pause);
                }
            }
            Does::Unclear => self.open_until = self.open_until.map(|_| now + self.pause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    fn receiver(host: &str) -> Receiver {
        Receiver::of(&TenantId::new("acme"), &format!("https://{host}/hook"))
    }

    /// Something is due there, and fails, until the receiver is left alone.
    fn fail(queue: &mut Queue, receiver: &Receiver, now: Timestamp) {
        for _ in 0..FAILURES {
            queue.wait(receiver, now, CreateId::new(), now);
            queue.take(now).unwrap();
            queue.leave(receiver, Does::Badly, now);
        }
    }

    #[test]
    fn receivers_are_told_apart_by_tenant_scheme_host_and_port() {
        let of = |tenant: &str, url: &str| Receiver::of(&TenantId::new(tenant), url);
        let one = of("acme", "https://a.example/one");
        assert_eq!(one, of("acme", "https://a.example/two?three"));
        for other in ["http://a.example/", "https://a.example:8443/", "https://b.example/"] {
            assert_ne!(one, of("acme", other), "{other}");
        }
        assert_ne!(one, of("bolt", "https://a.example/one"));
    }

    #[test]
    fn a_dead_receiver_is_left_alone_and_probed() {
        let (mut queue, dead) = (Queue::default(), receiver("dead"));
        fail(&mut queue, &dead, START);
        (0..9).for_each(|_| queue.wait(&dead, START, CreateId::new(), START));
        let until = START + ALONE.0;
        assert_eq!(queue.take(START), Err(Some(until)));
        queue.take(until).unwrap();
        assert_eq!(queue.take(until), Err(None), "one probe at a time");
        queue.leave(&dead, Does::Well, until);
        for _ in 0..AT_ONCE {
            queue.take(until).unwrap();
        }
        assert_eq!(queue.take(until), Err(None), "a few at once");
        queue.wait(&receiver("other"), until, CreateId::new(), until);
        queue.take(until).unwrap();
        queue.leave(&dead, Does::Well, until);
        queue.take(until).unwrap();
    }

    /// Each attempt went to one that could not be taken, and thousands waited behind them for hours.
    #[test]
    fn a_receiver_that_cannot_take_some_callbacks_gets_the_others() {
        let (mut queue, picky) = (Queue::default(), receiver("picky"));
        fail(&mut queue, &picky, START);
        let bad: Vec<_> = (0..100).map(|_| CreateId::new()).collect();
        for create in &bad {
            queue.wait(&picky, START, *create, START);
        }
        let good = CreateId::new();
        let due = START + Duration::from_secs(1);
        queue.wait(&picky, due, good, due);
        queue.wait(&picky, START + Duration::from_hours(9), CreateId::new(), due);
        let (mut now, mut attempts) = (due, 0);
        loop {
            match queue.take(now) {
                Ok(create) if create == good => break,
                Ok(create) => {
                    assert!(bad.contains(&create));
                    queue.leave(&picky, Does::Badly, now);
                    attempts += 1;
                }
                Err(later) => now = later.unwrap(),
            }
        }
        assert!(attempts < 3, "{attempts} attempts before");
    }

    #[test]
    fn what_cannot_be_taken_again_leaves_no_receiver_alone() {
        let (mut queue, picky) = (Queue::default(), receiver("picky"));
        for _ in 0..FAILURES * 2 {
            queue.wait(&picky, START, CreateId::new(), START);
            queue.take(START).unwrap();
            queue.leave(&picky, Does::Unclear, START);
        }
        assert!(queue.receivers.is_empty(), "nothing is to be said of it");
    }

    #[test]
    fn what_waits_for_one_receiver_goes_in_the_order_in_which_it_was_due() {
        let (mut queue, slow) = (Queue::default(), receiver("slow"));
        let tasks: Vec<_> = (0..9).map(|_| CreateId::new()).collect();
        for (seconds, create) in tasks.iter().enumerate().rev() {
            queue.wait(&slow, START + Duration::from_secs(seconds as u64), *create, START);
        }
        let withdrawn = tasks[3];
        queue.withdraw(&slow, START + Duration::from_secs(3), withdrawn, START);
        let now = START + Duration::from_mins(1);
        let mut sent = Vec::new();
        while let Ok(create) = queue.take(now) {
            sent.push(create);
            queue.leave(&slow, Does::Well, now);
        }
        assert_eq!(sent, [&tasks[..3], &tasks[4..]].concat());
        assert!(queue.is_idle() && queue.receivers.is_empty());
    }

    /// Those that were left alone were remembered for good, and each attempt looked through all of them.
    #[test]
    fn receivers_that_failed_are_forgotten_in_time() {
        let mut queue = Queue::default();
        for number in 0..REMEMBERED + 5 {
            let receiver = receiver(&number.to_string());
            queue.wait(&receiver, START, CreateId::new(), START);
            queue.take(START).unwrap();
            queue.leave(&receiver, Does::Badly, START + Duration::from_millis(number as u64));
        }
        assert_eq!((queue.receivers.len(), queue.quiet.len()), (REMEMBERED, REMEMBERED));
        let dead = receiver("dead");
        let later = START + REMEMBERED_FOR / 2;
        fail(&mut queue, &dead, later);
        queue.wait(&dead, later, CreateId::new(), later);
        assert_eq!(queue.take(later), Err(Some(later + ALONE.0)));
        let much_later = later + REMEMBERED_FOR;
        queue.wait(&receiver("other"), much_later, CreateId::new(), much_later);
        assert_eq!((queue.receivers.len(), queue.quiet.len()), (2, 0), "what something waits for is kept");
    }
}
