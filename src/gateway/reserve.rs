//! What a tenant's limits make of calls and of what is paid for: counted before it is sent, all of them or none.

use std::time::Duration;

use super::Gateway;
use super::call::Call;
use super::create::Draft;
use super::idempotency::Claimed;
use super::member::{Limits, Member, RateLimit, Told};
use crate::clock::{Moment, Timestamp};
use crate::error::{ApiError, Reason};
use crate::ids::Credits;
use crate::limits::Window;
use crate::store::{Begun, Caps, StoreError, Task};
use crate::tasks::Whose;

/// When it is worth trying again where tasks have to end first, which nobody can foretell.
const A_TASK_ENDS: Duration = Duration::from_secs(5);

/// Counts a create against the tenant's limits of tasks, credits and creates.
///
/// # Errors
/// A limit that is reached, which leaves nothing counted; a store that cannot be reached.
pub(super) async fn create(
    gateway: &Gateway,
    call: &Call,
    member: &Member,
    task: &Task,
    claimed: Option<Claimed>,
) -> Result<Draft, ApiError> {
    let what = "too many creates for this key in too short a time";
    let rate = member.limits.creates.as_deref();
    // Before anything is counted, or another create that may go on would find it counted for a moment.
    let is_refusal = |told: &Told| !told.verdict.admitted && !told.shadowed;
    if let Some(spent) = rate.map(RateLimit::peek).filter(is_refusal) {
        admit(gateway, call, member, spent, what)?;
    }
    let store = &gateway.parts.store;
    match store.begin(task.clone(), &member.limits.caps).await? {
        Begun::Yes => {}
        Begun::TooMany { running } => {
            gateway.parts.tracker.hurry(&Whose::Tenant(member.tenant.id.clone()));
            let what = format!("{running} tasks are under way, the most that this key may have");
            return Err(ApiError::new(Reason::TooManyTasks, what).retry_after(A_TASK_ENDS));
        }
        Begun::OverBudget { window, spent } => {
            return Err(over_budget(task.reserved, window, spent, task.counts_at.at()));
        }
    }
    let draft = Draft::new(task.create, store, claimed);
    if let Some(limit) = rate
        && let Err(refusal) = admit(gateway, call, member, limit.check(), what)
    {
        // Given back at once, or another create might find nothing left.
        draft.not_sent().await;
        return Err(refusal);
    }
    if let Some(most) = member.limits.shadow.tasks
        && store.running(&task.tenant).await? > most
    {
        gateway.parts.metrics.shadow_refused(&member.label, Reason::TooManyTasks);
    }
    shadow_credits(gateway, member, task.reserved, task.counts_at).await?;
    Ok(draft)
}

/// Lets a call, or a create, in as the tenant's rate of them has `told`.
///
/// # Errors
/// It is too much, as `what` says.
pub(super) fn admit(
    gateway: &Gateway,
    call: &Call,
    member: &Member,
    told: Told,
    what: &str,
) -> Result<(), ApiError> {
    let (verdict, shadowed) = (told.verdict, told.shadowed);
    call.tell_rate(told);
    if shadowed {
        gateway.parts.metrics.shadow_refused(&member.label, Reason::RateLimited);
    } else if !verdict.admitted {
        return Err(ApiError::new(Reason::RateLimited, what).retry_after(verdict.next_in));
    }
    Ok(())
}

/// Counts another version of a result against the tenant's credits alone: it is no task of its own.
///
/// # Errors
/// Credits that are spent; a store that cannot be reached.
pub(super) async fn version(gateway: &Gateway, member: &Member, task: &Task) -> Result<Draft, ApiError> {
    let store = &gateway.parts.store;
    let caps = Caps { tasks: None, credits: member.limits.caps.credits.clone() };
    if let Begun::OverBudget { window, spent } = store.begin(task.clone(), &caps).await? {
        return Err(over_budget(task.reserved, window, spent, task.counts_at.at()));
    }
    let draft = Draft::new(task.create, store, None);
    shadow_credits(gateway, member, task.reserved, task.counts_at).await?;
    Ok(draft)
}

/// Counts what a chat costs at `least`, if anybody knows: what it says costs as well, and is counted at its end. Gives what was
/// counted.
///
/// # Errors
/// Credits that are spent; a store that cannot be reached.
pub(super) async fn chat(
    gateway: &Gateway,
    member: &Member,
    least: Option<Credits>,
    now: Moment,
) -> Result<Credits, ApiError> {
    let Some(least) = least.filter(|least| *least > Credits::ZERO) else {
        admit_unpriced(gateway, member, now).await?;
        return Ok(Credits::ZERO);
    };
    let Limits { caps, shadow, .. } = &*member.limits;
    if caps.credits.is_empty() && shadow.credits.is_empty() {
        return Ok(Credits::ZERO);
    }
    let reserved = gateway.parts.store.reserve(&member.tenant.id, least, &caps.credits, now).await?;
    if let Begun::OverBudget { window, spent } = reserved {
        return Err(over_budget(least, window, spent, now.at()));
    }
    Ok(least)
}

/// Lets in what nobody knows the price of, such as a model that no file tells of, while there is something left at `now`.
///
/// # Errors
/// A window whose credits are spent; a store that cannot be reached.
pub(super) async fn admit_unpriced(gateway: &Gateway, member: &Member, now: Moment) -> Result<(), ApiError> {
    let (caps, shadow) = (&member.limits.caps.credits, &member.limits.shadow.credits);
    if caps.is_empty() && shadow.is_empty() {
        return Ok(());
    }
    let spent = gateway.parts.store.spent(&member.tenant.id, now).await?;
    let is_full = |(window, most): &&(Window, Credits)| spent[window.position()] >= *most;
    // Of several windows that are full the longest ends last.
    if let Some((window, _)) = caps.iter().rev().find(is_full) {
        return Err(over_budget(Credits::ZERO, *window, spent[window.position()], now.at()));
    }
    if shadow.iter().any(|limit| is_full(&limit)) {
        gateway.parts.metrics.shadow_refused(&member.label, Reason::BudgetExceeded);
    }
    Ok(())
}

/// Tells where a budget that is only tried out would have refused what has been counted.
///
/// # Errors
/// A store that cannot be reached.
pub(super) async fn shadow_credits(
    gateway: &Gateway,
    member: &Member,
    counted: Credits,
    at: Moment,
) -> Result<(), StoreError> {
    let credits = &member.limits.shadow.credits;
    // What nobody knows the price of was looked at before.
    if credits.is_empty() || counted == Credits::ZERO {
        return Ok(());
    }
    let spent = gateway.parts.store.spent(&member.tenant.id, at).await?;
    if credits.iter().any(|(window, most)| spent[window.position()] > *most) {
        gateway.parts.metrics.shadow_refused(&member.label, Reason::BudgetExceeded);
    }
    Ok(())
}

/// The refusal of what costs `price` at `now` where so much of a window's credits is spent.
fn over_budget(price: Credits, window: Window, spent: Credits, now: Timestamp) -> ApiError {
    let ends = window.ends(now);
    // What nobody knows the price of shows none.
    let costs = if price == Credits::ZERO {
        String::new()
    } else {
        format!("this costs {price} credits or more, and ")
    };
    let what = format!(
        "{costs}this key has spent or reserved {spent} of the credits that it may in this {}, which ends at {ends}",
        window.name()
    );
    ApiError::new(Reason::BudgetExceeded, what).retry_after(ends.saturating_since(now))
}
