//! What the gateway must not forget: tasks and whose they are, what tenants have spent, answers that may be asked for
//! again, what happened.
//!
//! [`Store`] speaks in verbs of the domain and counts; it does not judge: limits are passed in, and what comes of a
//! full one is the caller's matter. Each verb is one step that nobody else can come between, so that limits hold under
//! any interleaving. [`Embedded`] keeps all of it in this process; one that several gateways share fits behind the
//! same verbs, which is why they are asynchronous.

mod embedded;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;

pub use embedded::Embedded;

use crate::clock::{Moment, Timestamp, hex};
use crate::ids::{Credits, TenantId};
use crate::limits::Window;

/// The answer of a store, which may have to be fetched.
pub type Reply<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The store cannot be reached, or does not understand what it holds.
#[derive(Debug, thiserror::Error)]
#[error("the store failed: {0}")]
pub struct StoreError(pub String);

/// Names a create from before it is sent: 128 random bits, which nobody guesses, since they open the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CreateId([u8; 16]);

impl CreateId {
    /// No other comes after it.
    pub const LAST: Self = Self([u8::MAX; 16]);

    /// A new one.
    pub fn new() -> Self {
        Self(rand::random())
    }

    /// From its 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u32> = text.chars().map(|sign| sign.to_digit(16)).collect::<Option<_>>()?;
        let bytes: Vec<u8> =
            digits.chunks_exact(2).filter_map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect();
        (digits.len() == 32).then(|| bytes.try_into().ok().map(Self))?
    }
}

impl Default for CreateId {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Display for CreateId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&hex(&self.0))
    }
}

/// The largest request of an ended task that is kept, in bytes.
const LARGEST_KEPT: usize = 8 * 1024;

/// A paid create and the task that came of it.
#[derive(Clone, Debug)]
pub struct Task {
    /// Names it before the upstream does.
    pub create: CreateId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The create's operation.
    pub operation: Arc<str>,
    /// The model, where a request names one.
    pub model: Option<Arc<str>>,
    /// The upstream key that it was sent with; absent before that, and where it never went upstream.
    pub key: Option<Arc<str>>,
    /// Where the tenant wants to be called back.
    pub callback: Option<Arc<str>>,
    /// The body of the create as the client sent it; empty once it is forgotten.
    pub request: Bytes,
    /// When it was taken in.
    pub created: Timestamp,
    /// The time in whose windows its credits count: the same, but by the clock of the world that it goes to.
    pub counts_at: Moment,
    /// What it is expected to cost.
    pub reserved: Credits,
    /// The upstream's name for it, once known.
    pub id: Option<Arc<str>>,
    /// The task that it is another version of: it has no name of its own, and goes by that one's.
    pub base: Option<Arc<str>>,
    /// How far it is.
    pub state: TaskState,
}

/// How far a task is, as far as the gateway knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// The create is on its way, or waits for its turn.
    Sent,
    /// The create's answer was lost: there may be a task or not.
    Indeterminate,
    /// The upstream has taken it.
    Running,
    /// It came to its end.
    Ended {
        /// When that was known.
        at: Timestamp,
        /// Whether it went well.
        success: bool,
        /// What it cost.
        charged: Credits,
    },
}

impl Task {
    /// What the upstream calls it, or what it is a version of.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.base.as_ref().or(self.id.as_ref())
    }

    /// Lets go of a large request once the task has ended. What it was still needed for is to tell what the tenant had put in
    /// from what came out.
    pub fn forget_request(&mut self) {
        let is_small = self.request.len() <= LARGEST_KEPT;
        self.request = if is_small { Bytes::copy_from_slice(&self.request) } else { Bytes::new() };
    }

    /// Whether it counts as under way.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, TaskState::Ended { .. })
    }
}

/// The most that a tenant may have under way or spend; what is absent is unlimited.
#[derive(Clone, Debug, Default)]
pub struct Caps {
    /// Tasks under way.
    pub tasks: Option<u32>,
    /// Credits in each window.
    pub credits: Vec<(Window, Credits)>,
}

/// What became of a wish to begin a create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is written down and counted.
    Yes,
    /// So many tasks are under way already.
    TooMany {
        /// Their number.
        running: u32,
    },
    /// The window's credits do not suffice.
    OverBudget {
        /// The first window that is full.
        window: Window,
        /// What has been spent and reserved in it.
        spent: Credits,
    },
}

/// Whose something is that came out of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The tenant.
    pub tenant: TenantId,
    /// The upstream key that the task was created with; absent where it never went upstream.
    pub key: Option<Arc<str>>,
}

/// The answer to a create, kept for the same request again.
#[derive(Clone, Debug)]
pub struct KeptAnswer {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// What an idempotency key stands for.
#[derive(Clone, Debug)]
pub enum Claim {
    /// Nobody has used it: the request is the claimant's to send.
    Yours,
    /// The same request is under way.
    Busy,
    /// The same request has been answered.
    Done(Arc<KeptAnswer>),
    /// It was used for another request.
    Conflict,
}

/// Something that happened to a tenant's task, for those who cannot be called back.
#[derive(Clone, Debug)]
pub struct Happening {
    /// Its place in the tenant's list: what `after=` takes.
    pub cursor: u64,
    /// When it was known.
    pub at: Timestamp,
    /// The upstream's name for the task.
    pub task_id: Arc<str>,
    /// The create's operation.
    pub operation: Arc<str>,
    /// The body of the callback, as it came.
    pub body: Bytes,
}

/// Where state is kept. Amounts are credits. Times are real, but for those that windows and idempotency keys go by. Those of
/// windows may be of several simulated worlds, each with its own clock: a tenant has one simulated budget for each window
/// of the calendar, whichever world counts in it, and apart from that its real one.
pub trait Store: Send + Sync + 'static {
    /// Writes down the intent of `task` and counts it, if it stays within `caps`. Nothing is counted otherwise.
    fn begin<'a>(&'a self, task: Task, caps: &'a Caps) -> Reply<'a, Begun>;

    /// The create is about to be sent with this upstream key.
    fn sent_with(&self, create: CreateId, key: Arc<str>) -> Reply<'_, ()>;

    /// The upstream took the create and calls its task `id`; false if that name belongs to another create, unless that is the
    /// same tenant's and over: then it is a name that was given twice.
    fn started<'a>(&'a self, create: CreateId, id: &'a str) -> Reply<'a, bool>;

    /// The create was refused, or never sent: as if it had not been.
    fn refused(&self, create: CreateId) -> Reply<'_, ()>;

    /// The create's answer was lost.
    fn lost(&self, create: CreateId) -> Reply<'_, ()>;

    /// The task came to its end; what it cost takes the place of what was reserved. Gives the task, as it is now, the
    /// first time only.
    fn ended(
        &self,
        create: CreateId,
        success: bool,
        charged: Option<Credits>,
        now: Timestamp,
    ) -> Reply<'_, Option<Arc<Task>>>;

    /// The task that a create became.
    fn by_create(&self, create: CreateId) -> Reply<'_, Option<Arc<Task>>>;

    /// The task that the upstream calls `id`.
    fn by_id<'a>(&'a self, id: &'a str) -> Reply<'a, Option<Arc<Task>>>;

    /// Everything that came out of a task of `owner`: ids and addresses. What is known already stays whose it is.
    fn learn<'a>(&'a self, owner: &'a Owner, made: &'a [&'a str], now: Timestamp) -> Reply<'a, ()>;

    /// Whose `made`, an id or an address, is.
    fn made_by<'a>(&'a self, made: &'a str) -> Reply<'a, Option<Owner>>;

    /// What `tenant` has spent and reserved in the windows that `now` lies in, shortest first. Of each kind a few dozen
    /// windows are remembered, those that were counted in last.
    fn spent<'a>(&'a self, tenant: &'a TenantId, now: Moment) -> Reply<'a, [Credits; 3]>;

    /// Counts `amount` in the windows that `now` lies in, if none of them would then be above its cap.
    fn reserve<'a>(
        &'a self,
        tenant: &'a TenantId,
        amount: Credits,
        caps: &'a [(Window, Credits)],
        now: Moment,
    ) -> Reply<'a, Begun>;

    /// Adds what was spent beside what was reserved to the windows that `then` lies in; negative, where it was less.
    fn spend<'a>(&'a self, tenant: &'a TenantId, amount: Credits, then: Moment) -> Reply<'a, ()>;

    /// How many tasks of `tenant` are under way.
    fn running<'a>(&'a self, tenant: &'a TenantId) -> Reply<'a, u32>;

    /// Claims an idempotency key of `scope` for the request with that fingerprint.
    fn claim<'a>(
        &'a self,
        scope: &'a str,
        key: &'a str,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> Reply<'a, Claim>;

    /// Keeps the answer to the claimed request for `kept`, or gives the key free if there is none to keep.
    fn answer_claim<'a>(
        &'a self,
        scope: &'a str,
        key: &'a str,
        answer: Option<KeptAnswer>,
        until: Timestamp,
    ) -> Reply<'a, ()>;

    /// Notes that something happened.
    fn happened<'a>(&'a self, tenant: &'a TenantId, happening: Happening) -> Reply<'a, ()>;

    /// What happened to `tenant` after the cursor `after`, oldest first, at most `limit`. Cursors are consecutive; those of a store
    /// that begins anew are above all of before, unless the clock went back.
    fn happenings<'a>(&'a self, tenant: &'a TenantId, after: u64, limit: usize) -> Reply<'a, Vec<Happening>>;
}

/// How long a task is remembered.
///
/// Source: the upstream shows records for two months at most (`log_records` of the contract's retention).
pub const REMEMBERED: Duration = Duration::from_hours(1440);
