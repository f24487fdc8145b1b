//! The store in this process's memory, gone with it.

mod claims;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;

use claims::Claims;

use super::{
    Begun, Caps, Claim, CreateId, Happening, KeptAnswer, Owner, REMEMBERED, Reply, Store, Task, TaskState,
};
use crate::clock::{Moment, Timestamp, digest};
use crate::ids::{Credits, TenantId};
use crate::limits::Window;

/// Everything in memory, behind one lock that is held for a few lines. Each collection is bounded: the oldest gives way.
#[derive(Default)]
pub struct Embedded(Mutex<State>);

#[derive(Default)]
struct State {
    tasks: HashMap<CreateId, Arc<Task>, ahash::RandomState>,
    by_id: HashMap<Arc<str>, CreateId, ahash::RandomState>,
    /// Creates from the oldest to the newest; those of refused ones are passed over.
    order: VecDeque<(Timestamp, CreateId)>,
    /// By the first half of a digest: ids and addresses that came out of tasks.
    made: HashMap<[u8; 16], Owner>,
    made_order: VecDeque<(Timestamp, [u8; 16])>,
    accounts: HashMap<TenantId, Account>,
    claims: Claims,
}

/// What a tenant has under way and has spent, and what happened to it.
#[derive(Default)]
struct Account {
    running: u32,
    real: Spending,
    simulated: Spending,
    happenings: VecDeque<Happening>,
    last_cursor: u64,
}

/// The most that is kept of each kind.
const MOST_TASKS: usize = 1_000_000;
const MOST_MADE: usize = 4_000_000;
const MOST_HAPPENINGS: usize = 1_000;
const MOST_WINDOWS: usize = 64;

/// What is spent and reserved: by kind of window, in each that was counted in last, by its number.
#[derive(Default)]
struct Spending([VecDeque<(i64, Credits)>; 3]);

impl Account {
    /// The account that is spent from at `moment`, and the time.
    fn spending(&mut self, moment: Moment) -> (&mut Spending, Timestamp) {
        match moment {
            Moment::Real(at) => (&mut self.real, at),
            Moment::Simulated(at) => (&mut self.simulated, at),
        }
    }

    /// Counts `amount`, if it fits.
    fn reserve(&mut self, amount: Credits, caps: &[(Window, Credits)], moment: Moment) -> Begun {
        let (spending, at) = self.spending(moment);
        // Of several windows that are full the longest ends last.
        for (window, most) in caps.iter().rev() {
            let spent = spending.spent(*window, at);
            if spent + amount > *most {
                return Begun::OverBudget { window: *window, spent };
            }
        }
        spending.spend(amount, at);
        Begun::Yes
    }
}

impl Spending {
    /// What is spent in the `window` that `now` lies in.
    fn spent(&self, window: Window, now: Timestamp) -> Credits {
        let number = window.number(now);
        // The last one is the one, unless there are several clocks.
        let known = self.0[window.position()].iter().rev().find(|(known, _)| *known == number);
        known.map(|(_, spent)| *spent).unwrap_or_default()
    }

    /// Adds `amount` to the windows that `now` lies in. The one that was not counted in for longest gives way.
    fn spend(&mut self, amount: Credits, now: Timestamp) {
        for window in Window::ALL {
            let spent = self.spent(window, now) + amount;
            let (number, windows) = (window.number(now), &mut self.0[window.position()]);
            windows.retain(|(known, _)| *known != number);
            windows.push_back((number, spent));
            if windows.len() > MOST_WINDOWS {
                windows.pop_front();
            }
        }
    }

    /// Adds `amount`, which may be negative, to the windows that `then` lies in, as far as they are remembered.
    fn correct(&mut self, amount: Credits, then: Timestamp) {
        for window in Window::ALL {
            let number = window.number(then);
            let known = self.0[window.position()].iter_mut().rev().find(|(known, _)| *known == number);
            if let Some((_, spent)) = known {
                // It may have been forgotten meanwhile, and have begun anew.
                *spent = (*spent + amount).max(Credits::ZERO);
            }
        }
    }
}

impl State {
    fn account(&mut self, tenant: &TenantId) -> &mut Account {
        // Looked up first, so that nothing is cloned for those who are known.
        if !self.accounts.contains_key(tenant) {
            self.accounts.insert(tenant.clone(), Account::default());
        }
        self.accounts.get_mut(tenant).expect("it was put in a line above")
    }

    fn begin(&mut self, task: Task, caps: &Caps) -> Begun {
        let account = self.account(&task.tenant);
        if let Some(most) = caps.tasks
            && account.running >= most
        {
            return Begun::TooMany { running: account.running };
        }
        if let over @ Begun::OverBudget { .. } = account.reserve(task.reserved, &caps.credits, task.counts_at)
        {
            return over;
        }
        account.running += 1;
        let now = task.created;
        self.order.push_back((now, task.create));
        self.tasks.insert(task.create, Arc::new(task));
        self.forget_old(now);
        Begun::Yes
    }

    /// Lets the oldest tasks go where there are too many, or they are too old to be asked for.
    fn forget_old(&mut self, now: Timestamp) {
        let is_old = |(created, _): &(Timestamp, CreateId)| now.saturating_since(*created) > REMEMBERED;
        while self.tasks.len() > MOST_TASKS || self.order.front().is_some_and(is_old) {
            let Some((_, create)) = self.order.pop_front() else { break };
            if self.tasks.get(&create).is_some_and(|task| task.is_open()) {
                self.close(create, None);
            }
            self.drop_task(create);
        }
    }

    fn drop_task(&mut self, create: CreateId) {
        let task = self.tasks.remove(&create);
        if let Some(id) = task.and_then(|task| task.id.clone())
            && self.by_id.get(&id) == Some(&create)
        {
            self.by_id.remove(&id);
        }
    }

    /// Ends the counting of a task under way: `charged` takes the place of what was reserved, nothing if there is none.
    fn close(&mut self, create: CreateId, charged: Option<Credits>) {
        let Some(task) = self.tasks.get(&create).cloned() else { return };
        let account = self.account(&task.tenant);
        account.running = account.running.saturating_sub(1);
        let (spending, then) = account.spending(task.counts_at);
        spending.correct(charged.unwrap_or_default() - task.reserved, then);
    }

    fn started(&mut self, create: CreateId, id: &str) -> bool {
        let there = self.by_id.get(id).copied();
        if there == Some(create) {
            return true;
        }
        // A simulator that was emptied gives the same name again, to the same tenant.
        let tenant_of = |create: &CreateId| self.tasks.get(create).map(|task| (&task.tenant, task.is_open()));
        let is_over = |there| match (tenant_of(there), tenant_of(&create)) {
            (Some((old, is_open)), Some((new, _))) => old == new && !is_open,
            _ => false,
        };
        if there.as_ref().is_some_and(|there| !is_over(there)) {
            return false;
        }
        let Some(task) = self.tasks.get_mut(&create) else { return false };
        if task.id.is_some() {
            return false;
        }
        let task = Arc::make_mut(task);
        let id: Arc<str> = id.into();
        task.id = Some(Arc::clone(&id));
        if task.is_open() {
            task.state = TaskState::Running;
        }
        self.by_id.insert(id, create);
        true
    }

    fn ended(
        &mut self,
        create: CreateId,
        success: bool,
        charged: Option<Credits>,
        now: Timestamp,
    ) -> Option<Arc<Task>> {
        let task = self.tasks.get(&create).filter(|task| task.is_open())?;
        let charged = charged.unwrap_or(if success { task.reserved } else { Credits::ZERO });
        self.close(create, Some(charged));
        let task = self.tasks.get_mut(&create)?;
        let ended = Arc::make_mut(task);
        ended.state = TaskState::Ended { at: now, success, charged };
        ended.forget_request();
        Some(Arc::clone(task))
    }

    fn change(&mut self, create: CreateId, change: impl FnOnce(&mut Task)) {
        if let Some(task) = self.tasks.get_mut(&create) {
            change(Arc::make_mut(task));
        }
    }

    fn learn(&mut self, owner: &Owner, made: &[&str], now: Timestamp) {
        for made in made {
            let print = print(made);
            // Whoever had it first keeps it: a record may show what its tenant had written into the request.
            if let Entry::Vacant(free) = self.made.entry(print) {
                free.insert(owner.clone());
                self.made_order.push_back((now, print));
            }
        }
        let is_old = |(at, _): &(Timestamp, [u8; 16])| now.saturating_since(*at) > REMEMBERED;
        while self.made.len() > MOST_MADE || self.made_order.front().is_some_and(is_old) {
            let Some((_, print)) = self.made_order.pop_front() else { break };
            self.made.remove(&print);
        }
    }

    fn happened(&mut self, tenant: &TenantId, mut happening: Happening) {
        let account = self.account(tenant);
        // Consecutive, and above those of any store before this one, whose events are gone.
        account.last_cursor = match account.last_cursor {
            0 => u64::try_from(happening.at.millis()).unwrap_or_default().saturating_mul(1000).max(1),
            last => last + 1,
        };
        happening.cursor = account.last_cursor;
        account.happenings.push_back(happening);
        if account.happenings.len() > MOST_HAPPENINGS {
            account.happenings.pop_front();
        }
    }
}

fn print(made: &str) -> [u8; 16] {
    let whole = digest(&[made.as_bytes()]);
    std::array::from_fn(|place| whole[place])
}

impl Embedded {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is there already, as the answer of a store.
fn at_once<'a, T: Send + 'a>(value: T) -> Reply<'a, T> {
    ready(Ok(value)).boxed()
}

impl Store for Embedded {
    fn begin<'a>(&'a self, task: Task, caps: &'a Caps) -> Reply<'a, Begun> {
        at_once(self.state().begin(task, caps))
    }

    fn sent_with(&self, create: CreateId, key: Arc<str>) -> Reply<'_, ()> {
        self.state().change(create, |task| task.key = Some(key));
        at_once(())
    }

    fn started<'a>(&'a self, create: CreateId, id: &'a str) -> Reply<'a, bool> {
        at_once(self.state().started(create, id))
    }

    fn refused(&self, create: CreateId) -> Reply<'_, ()> {
        let mut state = self.state();
        if state.tasks.get(&create).is_some_and(|task| task.is_open()) {
            state.close(create, None);
            state.drop_task(create);
        }
        at_once(())
    }

    fn lost(&self, create: CreateId) -> Reply<'_, ()> {
        self.state().change(create, |task| {
            if task.state == TaskState::Sent {
                task.state = TaskState::Indeterminate;
            }
        });
        at_once(())
    }

    fn ended(
        &self,
        create: CreateId,
        success: bool,
        charged: Option<Credits>,
        now: Timestamp,
    ) -> Reply<'_, Option<Arc<Task>>> {
        at_once(self.state().ended(create, success, charged, now))
    }

    fn by_create(&self, create: CreateId) -> Reply<'_, Option<Arc<Task>>> {
        at_once(self.state().tasks.get(&create).cloned())
    }

    fn by_id<'a>(&'a self, id: &'a str) -> Reply<'a, Option<Arc<Task>>> {
        let state = self.state();
        at_once(state.by_id.get(id).and_then(|create| state.tasks.get(create)).cloned())
    }

    fn learn<'a>(&'a self, owner: &'a Owner, made: &'a [&'a str], now: Timestamp) -> Reply<'a, ()> {
        self.state().learn(owner, made, now);
        at_once(())
    }

    fn made_by<'a>(&'a self, made: &'a str) -> Reply<'a, Option<Owner>> {
        let print = print(made); // which takes a while, and nobody has to wait for it
        at_once(self.state().made.get(&print).cloned())
    }

    fn spent<'a>(&'a self, tenant: &'a TenantId, now: Moment) -> Reply<'a, [Credits; 3]> {
        let mut state = self.state();
        let (spending, now) = state.account(tenant).spending(now);
        at_once(Window::ALL.map(|window| spending.spent(window, now)))
    }

    fn reserve<'a>(
        &'a self,
        tenant: &'a TenantId,
        amount: Credits,
        caps: &'a [(Window, Credits)],
        now: Moment,
    ) -> Reply<'a, Begun> {
        at_once(self.state().account(tenant).reserve(amount, caps, now))
    }

    fn spend<'a>(&'a self, tenant: &'a TenantId, amount: Credits, then: Moment) -> Reply<'a, ()> {
        let mut state = self.state();
        let (spending, then) = state.account(tenant).spending(then);
        if amount < Credits::ZERO {
            spending.correct(amount, then);
        } else {
            spending.spend(amount, then);
        }
        at_once(())
    }

    fn running<'a>(&'a self, tenant: &'a TenantId) -> Reply<'a, u32> {
        at_once(self.state().account(tenant).running)
    }

    fn claim<'a>(
        &'a self,
        scope: &'a str,
        key: &'a str,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> Reply<'a, Claim> {
        at_once(self.state().claims.claim(scope, key, fingerprint, now))
    }

    fn answer_claim<'a>(
        &'a self,
        scope: &'a str,
        key: &'a str,
        answer: Option<KeptAnswer>,
        until: Timestamp,
    ) -> Reply<'a, ()> {
        self.state().claims.answer(scope, key, answer, until);
        at_once(())
    }

    fn happened<'a>(&'a self, tenant: &'a TenantId, happening: Happening) -> Reply<'a, ()> {
        self.state().happened(tenant, happening);
        at_once(())
    }

    fn happenings<'a>(&'a self, tenant: &'a TenantId, after: u64, limit: usize) -> Reply<'a, Vec<Happening>> {
        let mut state = self.state();
        let all = state.account(tenant).happenings.iter();
        at_once(all.filter(|happening| happening.cursor > after).take(limit).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They once were one account: a tenant that had only been simulated began its day in earnest with what that had cost.
    #[tokio::test]
    async fn what_is_spent_in_a_simulation_is_not_spent_in_earnest() {
        let (store, tenant) = (Embedded::default(), TenantId::new("acme"));
        let now = Timestamp::from_millis(1_785_999_477_123);
        let spent = async |moment| store.spent(&tenant, moment).await.unwrap()[0];
        store.spend(&tenant, Credits::whole(7), Moment::Simulated(now)).await.unwrap();
        assert_eq!(spent(Moment::Real(now)).await, Credits::ZERO);
        assert_eq!(spent(Moment::Simulated(now)).await, Credits::whole(7));
    }

    #[test]
    fn a_forgotten_window_does_not_come_to_less_than_nothing() {
        let mut spending = Spending::default();
        let day = |day: i64| Timestamp::from_millis(day * 86_400_000);
        for number in 0..100 {
            spending.spend(Credits::whole(5), day(number));
        }
        assert_eq!(spending.spent(Window::Day, day(0)), Credits::ZERO);
        spending.spend(Credits::whole(2), day(0));
        spending.correct(Credits::ZERO - Credits::whole(5), day(0));
        assert_eq!(spending.spent(Window::Day, day(0)), Credits::ZERO);
        spending.correct(Credits::ZERO - Credits::whole(5), day(99));
        assert_eq!(spending.spent(Window::Day, day(99)), Credits::ZERO);
    }
}
