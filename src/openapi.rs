//! The description of the emulated API as OpenAPI 3.1, made from the catalogue.
//!
//! It knows the catalogue and nothing of who answers: schemas are the ones that requests are checked against, bodies
//! are made from the templates that answers are made from, examples are checked against both. [`Document`] makes it
//! when it is first asked for and keeps it as bytes.

mod answers;
mod components;
mod kinds;
mod operations;
mod price;
mod request;
mod sample;

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::catalogue::{Behaviour, Catalogue, Operation};
use crate::clock::{digest, hex};
use crate::wire;
use components::{Names, object};
use kinds::Kind;

/// The document of a catalogue; made once, when it is first needed.
#[derive(Debug)]
pub struct Document {
    catalogue: Arc<Catalogue>,
    written: OnceLock<Written>,
}

#[derive(Debug)]
struct Written {
    text: Bytes,
    etag: HeaderValue,
}

impl Document {
    /// That of `catalogue`. Nothing is made yet.
    pub fn new(catalogue: Arc<Catalogue>) -> Self {
        Self { catalogue, written: OnceLock::new() }
    }

    /// The document as compact JSON, with a line's end.
    pub fn text(&self) -> Bytes {
        self.written().text.clone()
    }

    /// Answers a request for it.
    pub fn answer(&self, method: &Method, headers: &HeaderMap) -> Response {
        let mut response = Response::new(Body::empty());
        if method != Method::GET && method != Method::HEAD {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let Written { text, etag } = self.written();
        let known = etag.to_str().is_ok_and(|etag| wire::is_known(headers, etag));
        let told = response.headers_mut();
        told.insert(ETAG, etag.clone());
        told.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        told.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        told.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        if method == Method::GET {
            *response.body_mut() = Body::from(text.clone());
        }
        response
    }

    fn written(&self) -> &Written {
        self.written.get_or_init(|| {
            let text = format!("{}\n", describe(&self.catalogue));
            let etag = format!("\"{}\"", hex(&digest(&[text.as_bytes()])[..16]));
            let etag = HeaderValue::from_str(&etag).expect("hex digits in quotes are visible ASCII");
            Written { text: text.into(), etag }
        })
    }
}

/// The whole document.
pub fn describe(catalogue: &Catalogue) -> Value {
    let names = Names::new(catalogue);
    let mut paths = json!({});
    for (index, operation) in catalogue.operations() {
        let item = object(&mut paths).entry(operation.path.as_str()).or_insert_with(|| json!({}));
        let method = operation.method.as_str().to_ascii_lowercase();
        item[method] = operations::describe(catalogue, index, &names);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "kie.ai API",
            "summary": "The API as kiegate emulates it",
            "description": ABOUT,
            "version": env!("CARGO_PKG_VERSION"),
        },
        "servers": [
            {"url": "/", "description": "the gateway that this document comes from"},
            {"url": "http://127.0.0.1:8787", "description": "where a gateway listens unless told otherwise"},
        ],
        "security": [{"bearer": []}],
        "tags": tags(catalogue),
        "paths": paths,
        "components": components::all(catalogue, &names),
    })
}

/// The create that takes one model, with that model's parameters, as a document of its own; `None` for a name that no
/// model has.
pub fn describe_model(catalogue: &Catalogue, name: &str) -> Option<Value> {
    let (_, model) = catalogue.models().find(|(_, model)| model.name == name)?;
    let create = catalogue.operation(model.operation);
    let kind = Kind::of(catalogue, model.operation)?;
    let body = json!({
        "schema": request::model_schema(kind, model),
        "examples": {"usual": {"summary": model.title, "value": request::for_model(kind, model)}},
    });
    Some(json!({
        "openapi": "3.1.0",
        "info": {"title": model.title, "version": env!("CARGO_PKG_VERSION")},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": {&create.path: {create.method.as_str().to_ascii_lowercase(): {
            "operationId": create.id,
            "summary": create.summary,
            "requestBody": {"required": true, "content": {"application/json": body}},
            "responses": {"200": {"description": "accepted or refused: `code` in the body tells"}},
        }}},
        "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }))
}

const ABOUT: &str = "Made from kiegate's catalogue of facts: what it is checked with is what stands here. Most refusals \
    come with HTTP 200 and their own number as `code` in the body. Keys beginning with `x-` say how sure a fact is \
    (`x-evidence`, `x-uncertain`), what a call costs (`x-price`, in credits), how long a task takes (`x-phases`), what \
    it can fail with (`x-task-errors`), and which media a field takes (`x-media`).";

fn tags(catalogue: &Catalogue) -> Vec<Value> {
    let tag = |family: &crate::catalogue::Family| {
        let mut told = Map::new();
        told.insert("name".into(), family.id.clone().into());
        told.insert("description".into(), family.title.clone().into());
        told.insert("x-source".into(), family.source.clone().into());
        if !family.uncertain.is_empty() {
            told.insert("x-uncertain".into(), family.uncertain.clone().into());
        }
        if let Some(kept) = family.media_kept {
            told.insert("x-media-days".into(), (kept.as_secs() / 86_400).into());
        }
        Value::Object(told)
    };
    catalogue.families().iter().map(tag).collect()
}

/// The collections in which the task must be that `operation` goes on from, if it goes on from one.
fn parents(operation: &Operation) -> Option<&[String]> {
    match &operation.behaviour {
        Behaviour::Upgrade(upgrade) => Some(&upgrade.lookup.records),
        Behaviour::Create(task, _) => task.follows.as_ref().map(|follows| &*follows.records),
        Behaviour::Details(..)
        | Behaviour::Link(..)
        | Behaviour::Discovery(..)
        | Behaviour::Upload(..)
        | Behaviour::Chat(..)
        | Behaviour::Plain(_) => None,
    }
}
