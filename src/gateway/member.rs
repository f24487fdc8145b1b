//! A tenant as the gateway deals with it: who it is, what answers it, what it may use up.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::BufMut as _;
use http::HeaderValue;

use crate::catalogue::OperationIx;
use crate::clock::Clock;
use crate::config::{self, Limit, Mode, Rate, TenantCallbacks};
use crate::ids::{Credits, interned};
use crate::limits::{RateLimiter, RateVerdict, Window};
use crate::proxy::KeyIx;
use crate::store::Caps;
use crate::tenants::Tenant;

/// A tenant with all that belongs to it.
pub struct Member {
    /// Who it is and what it may use.
    pub tenant: Tenant,
    /// By position: whether it may call that operation, decided once and not for each call.
    pub permitted: Box<[bool]>,
    /// Its id, for labels.
    pub label: Arc<str>,
    /// What answers it.
    pub mode: Mode,
    /// What it may use up.
    pub limits: Arc<Limits>,
    /// The upstream keys that its creates may use, in that order.
    pub keys: Vec<KeyIx>,
    /// Its share of the upstream quota.
    pub weight: NonZeroU32,
    /// How it is called back.
    pub callbacks: TenantCallbacks,
}

impl Member {
    /// Whether it may call `operation`, as far as that can be said without the model that a request names; `index` is absent
    /// for what is none of the API.
    pub fn may_call(&self, index: Option<OperationIx>, operation: &str) -> bool {
        index.map_or_else(|| self.tenant.may_call(operation), |index| self.permitted[index.position()])
    }
}

/// A tenant's limits, at work.
pub struct Limits {
    /// All calls.
    pub requests: Option<Arc<RateLimit>>,
    /// Creates.
    pub creates: Option<Arc<RateLimit>>,
    /// What is enforced of tasks under way and credits.
    pub caps: Caps,
    /// What is only counted of them.
    pub shadow: Caps,
}

/// A rate limit, and how it is told.
pub struct RateLimit {
    configured: Limit<Rate>,
    limiter: RateLimiter,
    name: &'static str,
    policy: HeaderValue,
}

/// What a rate limit says of one call.
#[derive(Clone, Debug)]
pub struct Told {
    /// As in `RateLimit-Policy`.
    pub policy: HeaderValue,
    /// As in `RateLimit`.
    pub state: HeaderValue,
    /// What the limiter says.
    pub verdict: RateVerdict,
    /// It would have been refused if the limit were in force.
    pub shadowed: bool,
}

impl RateLimit {
    fn new(name: &'static str, limit: Limit<Rate>, clock: Clock) -> Self {
        let Rate { requests, per, burst } = limit.limit;
        // The quota of a bucket is what it holds, its window the time in which it fills up.
        let fills = per.mul_f64(f64::from(burst.get()) / f64::from(requests.get()));
        let policy = format!("\"{name}\";q={burst};w={}", whole_seconds(fills));
        Self {
            limiter: RateLimiter::new(limit.limit, clock),
            configured: limit,
            name,
            policy: HeaderValue::from_static(interned(&policy)), // a few, and on every answer
        }
    }

    /// Counts one call.
    pub fn check(&self) -> Told {
        self.told(self.limiter.check())
    }

    /// What [`RateLimit::check`] would say now, but counts nothing.
    pub fn peek(&self) -> Told {
        self.told(self.limiter.peek())
    }

    fn told(&self, verdict: RateVerdict) -> Told {
        let RateVerdict { admitted, remaining, full_in, next_in } = verdict;
        // The same point in time as `Retry-After` tells, where there is one.
        let reset = whole_seconds(if admitted { full_in } else { next_in });
        let state = self.state(remaining, reset);
        Told { policy: self.policy.clone(), state, verdict, shadowed: self.configured.shadow && !admitted }
    }
}

impl RateLimit {
    /// As in `RateLimit`. It goes on every answer, so it is put together by hand.
    fn state(&self, remaining: u32, reset: u64) -> HeaderValue {
        let mut number = itoa::Buffer::new();
        let mut text = [0; LONGEST_STATE];
        let mut left = &mut text[..];
        left.put_slice(b"\"");
        left.put_slice(self.name.as_bytes());
        left.put_slice(b"\";r=");
        left.put_slice(number.format(remaining).as_bytes());
        left.put_slice(b";t=");
        left.put_slice(number.format(reset).as_bytes());
        let length = LONGEST_STATE - left.len();
        HeaderValue::from_bytes(&text[..length]).expect(IS_ASCII)
    }
}

/// A name of a limit, two numbers and what stands between them, in bytes.
const LONGEST_STATE: usize = 64;
const IS_ASCII: &str = "names and digits are visible ASCII";

fn whole_seconds(span: std::time::Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

impl Limits {
    /// From the configuration. What was used up of a rate that is the same as `before` stays used up; what is spent, and which
    /// tasks run, is not counted here.
    pub fn new(configured: &config::Limits, before: Option<&Self>, clock: Clock) -> Self {
        let rate = |name, limit: Option<Limit<Rate>>, before: Option<&Arc<RateLimit>>| {
            let limit = limit?;
            let same = before.filter(|before| before.configured == limit).cloned();
            Some(same.unwrap_or_else(|| Arc::new(RateLimit::new(name, limit, clock))))
        };
        let of_requests = before.and_then(|before| before.requests.as_ref());
        let of_creates = before.and_then(|before| before.creates.as_ref());
        Self {
            requests: rate("requests", configured.requests, of_requests),
            creates: rate("creates", configured.creates, of_creates),
            caps: caps(configured, false),
            shadow: caps(configured, true),
        }
    }

    /// The credits that each window allows, whether that is enforced or not.
    pub fn credits(&self) -> impl Iterator<Item = (Window, Credits)> {
        self.caps.credits.iter().chain(&self.shadow.credits).copied()
    }
}

/// The limits of tasks and credits that are enforced, or those that are only counted.
fn caps(limits: &config::Limits, shadow: bool) -> Caps {
    let windows = [
        (Window::Hour, &limits.credits_hour),
        (Window::Day, &limits.credits_day),
        (Window::Month, &limits.credits_month),
    ];
    let credits = windows.into_iter().filter_map(|(window, limit)| Some((window, limit.as_ref()?)));
    let tasks = limits.concurrent_tasks.filter(|limit| limit.shadow == shadow);
    Caps {
        tasks: tasks.map(|limit| limit.limit.get()),
        credits: credits
            .filter(|(_, limit)| limit.shadow == shadow)
            .map(|(window, limit)| (window, limit.limit))
            .collect(),
    }
}
