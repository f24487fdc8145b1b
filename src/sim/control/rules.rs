//! `/_mock/rules`: what a test lays down for requests that are still to come.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::super::Sim;
use super::{Answer, Caller, Named};
use crate::error::ProblemDocument;

pub(super) async fn list(State(sim): State<Sim>, caller: Caller) -> Json<Value> {
    Json(json!({"rules": caller.with_world(&sim, |world, _| world.rules.to_json())}))
}

/// Takes in one rule, or a list of them: all or none.
pub(super) async fn add(
    State(sim): State<Sim>,
    caller: Caller,
    body: Bytes,
) -> Result<Response, ProblemDocument> {
    let written: Value = serde_json::from_slice(&body).map_err(|error| {
        let hint = "send {\"match\": {…}, \"then\": {…}}";
        ProblemDocument::bad_request(format!("body: is no JSON ({error}); {hint}"))
    })?;
    let shown = caller.with_world(&sim, |world, _| {
        let Value::Array(listed) = &written else { return world.rules.add(sim.catalogue(), &written) };
        let mut added: Vec<Value> = Vec::new();
        for (index, written) in listed.iter().enumerate() {
            match world.rules.add(sim.catalogue(), written) {
                Ok(shown) => added.push(shown),
                Err(what) => {
                    for rule in added {
                        world.rules.remove(rule["id"].as_str().unwrap_or_default());
                    }
                    return Err(format!("{index}.{what}"));
                }
            }
        }
        Ok(json!({"rules": added}))
    });
    let shown = shown.map_err(ProblemDocument::bad_request)?;
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

pub(super) async fn clear(State(sim): State<Sim>, caller: Caller) -> Json<Value> {
    Json(json!({"deleted": caller.with_world(&sim, |world, _| world.rules.clear())}))
}

fn no_rule(id: &str) -> ProblemDocument {
    ProblemDocument::new(StatusCode::NOT_FOUND, format!("there is no rule \"{id}\" in this sandbox"))
}

pub(super) async fn show(State(sim): State<Sim>, caller: Caller, Named(id): Named<String>) -> Answer {
    caller.with_world(&sim, |world, _| world.rules.find(&id)).map(Json).ok_or_else(|| no_rule(&id))
}

pub(super) async fn delete(State(sim): State<Sim>, caller: Caller, Named(id): Named<String>) -> Answer {
    let found = caller.with_world(&sim, |world, _| world.rules.remove(&id));
    if found { Ok(Json(json!({"deleted": 1}))) } else { Err(no_rule(&id)) }
}
