//! The way of a wish for another version of a result: paid for once, however often it is asked for.
//!
//! The upstream makes such a version at the first request and tells of it at the following ones. It has no id of its own:
//! whatever is said of it names the task that it is a version of.

use std::sync::Arc;

use axum::response::Response;
use http::header::CONTENT_LENGTH;

use super::answer::Whole;
use super::ask::Ask;
use super::create::{Callback, Draft, intent, reserve_credits};
use super::member::Member;
use super::steps::{Call, pass};
use super::{Gateway, Lane};
use crate::catalogue::{Behaviour, Catalogue, Operation, Reply, Upgrade};
use crate::clock::Timestamp;
use crate::error::{ApiError, Reason};
use crate::outbound::guard;
use crate::store::{Claim, KeptAnswer};

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
    let callback = Callback::find(&ask, operation).filter(|_| is_shared);
    if let Some(callback) = &callback
        && let Some(forbidden) = guard::refusal(&callback.url, &member.callbacks.allow_hosts)
    {
        return Err(ApiError::new(Reason::ForbiddenCallback, forbidden.to_string()));
    }
    let mut task = intent(gateway, member, &ask, operation, callback.as_ref(), &lane);
    task.base = ask.request(operation).pointer(&kind.lookup.at).and_then(|id| id.as_str()).map(Into::into);
    task.key = gateway.key_name(lane);
    let draft = match &once {
        Some(_) => Some(reserve_credits(gateway, member, &task).await?),
        None => None,
    };
    if let Some(callback) = &callback {
        // Only the first wish is heard; the addresses of later ones lead nowhere.
        let relay = draft.as_ref().and_then(|_| gateway.relay_url(task.create, lane));
        ask.body = callback.readdressed(&ask, relay.as_deref());
        ask.parts.headers.remove(CONTENT_LENGTH);
    }
    let asked = ask.body.clone();
    let answer =
        Whole::read(pass(gateway, call, lane, ask.into_request()).await?, gateway.parts.body_timeout).await?;
    let is_made = is_accepted(&gateway.parts.catalogue, kind, &answer);
    gateway.learn(member, lane, &asked, &answer).await?;
    if let (Some(once), Some(draft)) = (once, draft) {
        settle(gateway, once, draft, &task, is_made, answer.clone(), lane).await?;
    }
    Ok(answer.into_response())
}

/// Writes down whether the version was begun.
async fn settle(
    gateway: &Gateway,
    once: Once,
    draft: Draft,
    task: &crate::store::Task,
    is_made: bool,
    answer: Whole,
    lane: Lane,
) -> Result<(), ApiError> {
    if !is_made {
        draft.refused(answer).await;
        return Ok(());
    }
    once.keep(gateway).await?;
    let is_told = lane != Lane::Mock;
    if is_told {
        gateway.tell_created(task);
    }
    // The upstream charges when it begins, so that is when it is settled; its callback may come later.
    gateway.parts.tracker.finish(&Arc::new(task.clone()), None, is_told).await?;
    draft.started(answer).await;
    Ok(())
}

/// Whether the upstream makes the version, or has made it.
fn is_accepted(catalogue: &Catalogue, kind: &Upgrade, answer: &Whole) -> bool {
    let code = answer.code(&answer.json());
    let is_running =
        |code| matches!(kind.running, Reply::Error(error) if catalogue.error(error).code == code);
    code == 200 || is_running(code)
}

/// The claim on the first wish for one version.
struct Once {
    scope: String,
    key: String,
    kept: bool,
    store: Arc<dyn crate::store::Store>,
}

impl Once {
    /// Claims it; `None` where that has been done, and paid for.
    async fn new(
        gateway: &Gateway,
        member: &Member,
        ask: &Ask,
        operation: &Operation,
        kind: &Upgrade,
    ) -> Result<Option<Self>, ApiError> {
        let request = ask.request(operation);
        let place = |at: &str| request.pointer(at).map_or_else(String::new, ToString::to_string);
        let scope = format!("version {}", member.label);
        let key = format!("{} {} {}", operation.id, place(&kind.lookup.at), place(&kind.index_at));
        let store = &gateway.parts.store;
        let claim = store.claim(&scope, &key, [0; 32], gateway.parts.clock.now()).await?;
        let is_first = matches!(claim, Claim::Yours);
        Ok(is_first.then(|| Self { scope, key, kept: false, store: Arc::clone(store) }))
    }

    /// It was begun: it is paid for as long as the task is remembered.
    async fn keep(mut self, gateway: &Gateway) -> Result<(), ApiError> {
        self.kept = true;
        let nothing = KeptAnswer { status: 200, headers: http::HeaderMap::new(), body: bytes::Bytes::new() };
        let until = gateway.parts.clock.now() + crate::store::REMEMBERED;
        Ok(self.store.answer_claim(&self.scope, &self.key, Some(nothing), until).await?)
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        if !self.kept {
            let (store, scope, key) =
                (Arc::clone(&self.store), std::mem::take(&mut self.scope), std::mem::take(&mut self.key));
            crate::background::spawn(async move {
                let _ = store.answer_claim(&scope, &key, None, Timestamp::default()).await;
            });
        }
    }
}
