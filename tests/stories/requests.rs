//! Requests that operations and models accept: the catalogue's examples, with tasks to go on from where they need one.

use kiegate::catalogue::{
    Behaviour, Class, DrawKind, Follows, Lookup, Model, ModelChoice, Operation, ResultKind, TaskKind,
};
use serde_json::{Value, json};

use crate::support::{CATALOGUE, Client};

/// The operation of that id.
pub fn operation(id: &str) -> &'static Operation {
    let index = CATALOGUE.operation_by_id(id).unwrap_or_else(|| panic!("there is no operation {id}"));
    CATALOGUE.operation(index)
}

/// A request that the operation accepts; tasks that it is about are made, and end as they must.
pub async fn acceptable(client: &Client, id: &str) -> Value {
    let operation = operation(id);
    let mut request = operation.example.clone().unwrap_or_else(|| json!({}));
    if let Some(follows) = operation.task().and_then(|task| task.follows.as_ref()) {
        put_other(client, &mut request, follows, id).await;
    }
    if let Some(lookup) = lookup(operation) {
        let (made, _) = made_for(client, &lookup.records, Needs::default(), Wish::Success, id).await;
        put(&mut request, &lookup.at, &made);
    }
    request
}

/// A whole request that the Market accepts for a model.
pub async fn acceptable_for(client: &Client, model: &Model) -> Value {
    let create = CATALOGUE.operation(model.operation);
    let Some(ModelChoice::Market { at, input, .. }) = create.task().map(|task| &task.model) else {
        panic!("{} is of no Market", model.name);
    };
    let mut parameters = model.example.clone();
    if let Some(follows) = &model.follows {
        put_other(client, &mut parameters, follows, &create.id).await;
    }
    let mut request = json!({});
    put(&mut request, at, &model.name);
    request[input] = parameters;
    request
}

fn lookup(operation: &Operation) -> Option<&Lookup> {
    match &operation.behaviour {
        Behaviour::Details(lookup, _) => Some(lookup),
        Behaviour::Upgrade(upgrade) => Some(&upgrade.lookup),
        Behaviour::Link(link, _) => link.lookup.as_ref(),
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Wish {
    Success,
    Failure,
}

/// What another task must be like.
#[derive(Clone, Copy, Default)]
struct Needs<'a> {
    /// It makes files of this name.
    has: Option<&'a str>,
    /// It is of one of these Market models.
    models: &'a [String],
    /// It draws ids.
    draws: bool,
}

impl Needs<'_> {
    fn suits(&self, results: &[(String, ResultKind)], drawn: &[(String, DrawKind)]) -> bool {
        self.has.is_none_or(|slot| results.iter().any(|(name, _)| name == slot))
            && (!self.draws || drawn.iter().any(|(_, kind)| matches!(kind, DrawKind::Id)))
    }
}

/// Names in `request` a task that it may go on from, where it names one at all.
async fn put_other(client: &Client, request: &mut Value, follows: &Follows, id: &str) {
    let named = |at: &Option<String>| at.as_ref().filter(|at| request.pointer(at).is_some()).cloned();
    let (at, id_at) = (named(&follows.at), named(&follows.id_at));
    if at.is_none() && id_at.is_none() {
        return;
    }
    let wish = if follows.succeeded.is_some() { Wish::Failure } else { Wish::Success };
    let needs = Needs { has: follows.has.as_deref(), models: &follows.models, draws: id_at.is_some() };
    let (made, drawn) = made_for(client, &follows.records, needs, wish, id).await;
    if let Some(at) = at {
        put(request, &at, &made);
    }
    match (id_at, drawn) {
        (Some(id_at), Some(drawn)) => put(request, &id_at, &drawn),
        (Some(id_at), None) => {
            request.as_object_mut().unwrap().shift_remove(id_at.trim_start_matches('/'));
        }
        (None, _) => {}
    }
}

/// A finished task in one of these collections that is as `needs` says, and the first id that it drew. `not` makes none
/// of it.
async fn made_for(
    client: &Client,
    records: &[String],
    needs: Needs<'_>,
    wish: Wish,
    not: &str,
) -> (String, Option<String>) {
    let (base, request) = base_request(client, records, needs, not).await;
    let wishing = match wish {
        Wish::Success => client.clone(),
        Wish::Failure => client.wishing(&format!("fail:{}", first_failure(&base))),
    };
    let answer = wishing.call(&base, &request).await.expect_code(200);
    let id = answer.id();
    client.until_idle().await;
    let drawn = client.task(&id).await["ids"][0].as_str().map(str::to_owned);
    let Some((details, at)) = CATALOGUE.details_of(CATALOGUE.operation_by_id(&base).unwrap()) else {
        return (id, None);
    };
    // A client can name what it was told of.
    let told = client.call(&CATALOGUE.operation(details).id, &json!({at.trim_start_matches('/'): id})).await;
    (id, drawn.filter(|drawn| told.text().contains(drawn)))
}

async fn base_request(client: &Client, records: &[String], needs: Needs<'_>, not: &str) -> (String, Value) {
    let makes = |task: &TaskKind| records.contains(&task.records);
    let markets = CATALOGUE.models().map(|(_, model)| model).filter(|model| {
        let market = CATALOGUE.operation(model.operation);
        market.task().is_some_and(&makes)
            && (needs.models.is_empty() || needs.models.contains(&model.name))
            && needs.suits(&model.results, &model.draws)
    });
    // One that goes on from nothing before one that needs a task itself.
    if let Some(model) = markets.min_by_key(|model| model.follows.is_some()) {
        let create = CATALOGUE.operation(model.operation);
        return (create.id.clone(), Box::pin(acceptable_for(client, model)).await);
    }
    let suitable = |operation: &&Operation| {
        let free = |task: &TaskKind| {
            makes(task)
                && needs.suits(&task.results, &task.draws)
                && !matches!(task.model, ModelChoice::Market { .. })
        };
        operation.class == Class::Create && operation.id != not && operation.task().is_some_and(free)
    };
    let operation = CATALOGUE.operations().map(|(_, operation)| operation).find(suitable);
    let operation = operation.unwrap_or_else(|| panic!("nothing makes a task of {records:?} for {not}"));
    (operation.id.clone(), Box::pin(acceptable(client, &operation.id)).await)
}

fn first_failure(id: &str) -> String {
    let index = CATALOGUE.operation_by_id(id).unwrap();
    let mut errors = CATALOGUE.errors_of(index).filter(|(_, error)| error.fails && error.ending == "fail");
    errors.next().unwrap_or_else(|| panic!("{id} never fails")).1.id.clone()
}

fn put(request: &mut Value, pointer: &str, text: &str) {
    let name = pointer.strip_prefix('/').unwrap();
    assert!(!name.contains('/'), "{pointer} leads too deep for a test");
    request[name] = text.into();
}
