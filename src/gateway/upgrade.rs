//! The way of a wish for another version of a result: paid for once, however often it is asked for.
//!
//! The upstream makes such a version at the first request and tells of it at the following ones. It has no id of its own:
//! whatever is said of it names the task that it is a version of. The first wish goes on without its client, as creates do,
//! and one whose answer is lost stays reserved and claimed.

use std::sync::Arc;

use axum::response::Response;
use http::header::CONTENT_LENGTH;
use serde_json::Value;

use super::answer::Whole;
use super::ask::Ask;
use super::call::Call;
use super::create::{Callback, Draft, Errand, intent, lost};
use super::idempotency::{self, Claimed, Outcome};
use super::member::Member;
use super::steps::pass;
use super::{Gateway, Lane, reserve};
use crate::background;
use crate::catalogue::{Behaviour, Catalogue, Operation, Reply, Upgrade};
use crate::error::ApiError;
use crate::store::{KeptAnswer, REMEMBERED, StoreError};

/// Answers a wish for another version.
pub(super) async fn upgrade(
    gateway: &Arc<Gateway>,
    call: &Arc<Call>,
    member: &Arc<Member>,
    mut ask: Ask,
    lane: Lane,
) -> Result<Response, ApiError> {
    let operation = gateway.parts.catalogue.operation(ask.index);
    let Behaviour::Upgrade(kind) = &operation.behaviour else {
        return pass(gateway, call, lane, ask.into_request()).await;
    };
    let once = Once::new(gateway, member, &ask, operation, kind).await?;
    let is_shared = lane != Lane::Mock;
    let callback = if is_shared { Callback::permitted(&ask, operation, member)? } else { None };
    ask.parts.headers.remove(CONTENT_LENGTH);
    let mut task = intent(gateway, member, &ask, operation, callback.as_ref(), &lane);
    task.base = ask.request(operation).pointer(&kind.lookup.at).and_then(|id| id.as_str()).map(Into::into);
    task.key = gateway.key_name(lane);
    let draft = match &once {
        Some(_) => Some(reserve::version(gateway, member, &task).await?),
        None => None,
    };
    if let Some(callback) = &callback {
        // Only the first wish is heard; the addresses of later ones lead nowhere.
        let relay = draft.as_ref().and_then(|_| gateway.relay_url(task.create, lane));
        ask.body = callback.readdressed(&ask, relay.as_deref());
    }
    let (create, member) = (task.create, Arc::clone(member));
    let (gateway, call) = (Arc::clone(gateway), Arc::clone(call));
    let errand = Errand { gateway, call, parts: ask.parts, body: ask.body, task: Arc::new(task), lane };
    let work = async move {
        match once.zip(draft) {
            Some((once, draft)) => first(errand, &member, once, draft).await,
            None => again(errand, &member).await,
        }
    };
    // What is paid for goes on to its end also when its client has gone.
    background::spawn(work).await.unwrap_or_else(|_| Err(lost(create))).map(Whole::into_response)
}

/// Asks for a version that has been asked for before.
async fn again(errand: Errand, member: &Member) -> Result<Whole, ApiError> {
    let answer = errand.exchange().await?;
    errand.gateway.learn(member, errand.lane, &errand.body, &answer).await?;
    Ok(answer)
}

/// Asks for a version for the first time, and writes down whether it was begun. If nobody knows, it counts as begun: it
/// stays reserved until its callback comes, or for good, and the next wish for it is not paid for again.
async fn first(errand: Errand, member: &Member, mut once: Once, mut draft: Draft) -> Result<Whole, ApiError> {
    let gateway = &errand.gateway;
    once.begun = true;
    draft.goes_out(&errand);
    // Its callback may come before the answer.
    if errand.task.callback.is_some() {
        gateway.parts.tracker.watch(&errand.task);
    }
    let answer = match errand.exchange().await {
        Ok(answer) => answer,
        Err(error) if error.may_have_arrived() => {
            tracing::warn!(create = %errand.task.create, "the answer to a wish was lost: {error}");
            once.keep().await?;
            return Err(lost(draft.lost().await));
        }
        Err(error) => {
            once.begun = false;
            draft.not_sent().await;
            return Err(error.into());
        }
    };
    let body = answer.json();
    if is_accepted(&gateway.parts.catalogue, &errand.task.operation, &answer, &body) {
        settle(&errand, once, draft, answer.clone()).await?;
    } else if errand.is_refusal(&answer, &body) {
        once.begun = false;
        draft.refused(answer.clone()).await;
    } else {
        once.keep().await?;
        return Err(lost(draft.lost().await));
    }
    gateway.learn(member, errand.lane, &errand.body, &answer).await?;
    Ok(answer)
}

/// Writes down that the version was begun.
async fn settle(errand: &Errand, once: Once, draft: Draft, answer: Whole) -> Result<(), ApiError> {
    let Errand { gateway, task, lane, .. } = errand;
    once.keep().await?;
    let is_told = *lane != Lane::Mock;
    if is_told {
        gateway.tell_created(task);
    }
    // The upstream charges when it begins, so that is when it is settled; its callback may come later.
    gateway.parts.tracker.finish(task, None, is_told).await?;
    if let (true, Some(base)) = (is_told, &task.base) {
        gateway.parts.tracker.is_replaced(base, task.create).await?;
    }
    draft.started(answer).await;
    Ok(())
}

/// Whether the upstream makes the version, or has made it.
fn is_accepted(catalogue: &Catalogue, operation: &str, answer: &Whole, body: &Value) -> bool {
    let operation = catalogue.operation_by_id(operation).map(|index| catalogue.operation(index));
    let Some(Behaviour::Upgrade(kind)) = operation.map(|operation| &operation.behaviour) else {
        return false;
    };
    let code = answer.code(body);
    let is_running =
        |code| matches!(kind.running, Reply::Error(error) if catalogue.error(error).code == code);
    body.is_object() && (code == 200 || is_running(code))
}

/// The claim on the first wish for one version.
struct Once {
    /// Until it is written down what came of it. Dropped before, it is free again.
    claimed: Option<Claimed>,
    /// It may have been begun: then it stays claimed.
    begun: bool,
}

impl Once {
    /// Claims it; `None` where that has been done, and paid for. Whoever comes while that is being decided waits for it.
    async fn new(
        gateway: &Gateway,
        member: &Member,
        ask: &Ask,
        operation: &Operation,
        kind: &Upgrade,
    ) -> Result<Option<Self>, ApiError> {
        let request = ask.request(operation);
        // However it is spelt: numbers may be texts, and the first result need not be named.
        let place = |at: &str| match request.pointer(at) {
            None | Some(Value::Null) => "0".to_owned(),
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(other) => other.to_string(),
        };
        let scope = format!("version {}", member.label);
        let key = format!("{} {} {}", operation.id, place(&kind.lookup.at), place(&kind.index_at));
        let now = || gateway.parts.clock.now();
        Ok(match idempotency::claim_key(gateway, &scope, &key, [0; 32], now).await? {
            Outcome::Yours(claimed) => Some(Self { claimed: Some(claimed), begun: false }),
            Outcome::Replay(_) | Outcome::None => None,
        })
    }

    /// It was begun: it is paid for as long as the task is remembered.
    async fn keep(mut self) -> Result<(), StoreError> {
        match self.claimed.take() {
            Some(claimed) => stay(claimed).await,
            None => Ok(()),
        }
    }
}

/// Lets the next wishes pass as repetitions.
async fn stay(claimed: Claimed) -> Result<(), StoreError> {
    let nothing = KeptAnswer { status: 200, headers: http::HeaderMap::new(), body: bytes::Bytes::new() };
    claimed.settle(Some(nothing), REMEMBERED).await
}

impl Drop for Once {
    fn drop(&mut self) {
        if self.begun
            && let Some(claimed) = self.claimed.take()
        {
            background::spawn(stay(claimed));
        }
    }
}
