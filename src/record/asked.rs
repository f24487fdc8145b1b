//! What a request asks for, so that two of them can be compared: operation, query and body, keys and addresses aside.

use http::Method;
use serde_json::{Map, Value};

use crate::catalogue::{Behaviour, Catalogue, ModelIx, OperationIx, Resolved};
use crate::wire;

/// A request as recordings see it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which operation it is, if it is one.
    pub operation: Option<OperationIx>,
    /// The body's JSON, or the query as an object of texts; null where it is neither.
    pub request: Value,
    /// What it is found by.
    print: String,
    /// What it is found by if its body is not known.
    rough: String,
}

/// What a request is to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It starts one, or makes another version of its result.
    Starts {
        /// Each is another task; else the same call again asks how far it is.
        anew: bool,
    },
    /// It asks how far the task of that id is.
    Asks(String),
    /// Something else.
    Other,
}

impl Asked {
    /// Reads a request; a `body` that is not there (`None`) was not kept.
    pub fn read(catalogue: &Catalogue, method: &Method, target: &str, body: Option<&[u8]>) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let operation = match catalogue.resolve(method, path) {
            Resolved::Operation(operation) => Some(operation),
            _ => None,
        };
        let parameters = parameters(query);
        let known = operation.map(|index| catalogue.operation(index));
        let parsed = || body.and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
        let is_in_query = known.is_some_and(|known| known.by_query);
        let request = if is_in_query {
            let mut members = parameters.clone();
            let in_path = catalogue.path_parameter(method, path);
            members.extend(in_path.map(|(name, value)| (name.to_owned(), Value::from(value))));
            Value::Object(members)
        } else {
            parsed()
        };
        let callback_at = known.and_then(|known| known.task()).map_or("", |task| &task.callback_at);
        let what = match known {
            // The paths that lead to an operation differ by version only, unless they name what is asked for.
            Some(known) if catalogue.path_parameter(method, path).is_none() => known.id.clone(),
            _ => format!("{method} {path}"),
        };
        let rough = if is_in_query {
            what
        } else {
            format!("{what} {}", wire::fingerprint(&Value::Object(parameters), ""))
        };
        let exact = match (&request, body) {
            (Value::Null, Some(body)) => String::from_utf8_lossy(body).into_owned(),
            (request, _) => wire::fingerprint(request, callback_at),
        };
        Self { operation, print: format!("{rough} {exact}"), rough, request }
    }

    /// The same for the same request, wherever it wants to be called back.
    pub fn print(&self) -> &str {
        &self.print
    }

    /// The same for all requests that differ in their bodies only.
    pub fn rough_print(&self) -> &str {
        &self.rough
    }

    /// The address that it wants to be called back at, if it starts a task; an empty one counts as none.
    pub fn callback<'a>(&'a self, catalogue: &Catalogue) -> Option<&'a str> {
        let task = catalogue.operation(self.operation?).task()?;
        self.request.pointer(&task.callback_at)?.as_str().filter(|url| !url.is_empty())
    }

    /// The entry of the catalogue that is the model which it names.
    pub fn model(&self, catalogue: &Catalogue) -> Option<ModelIx> {
        let operation = self.operation?;
        let name = catalogue.operation(operation).model_of(&self.request)?;
        catalogue.model_by_name(operation, name)
    }

    pub(super) fn role(&self, catalogue: &Catalogue) -> Role {
        let Some(operation) = self.operation else { return Role::Other };
        match &catalogue.operation(operation).behaviour {
            Behaviour::Create(..) => Role::Starts { anew: true },
            Behaviour::Upgrade(_) => Role::Starts { anew: false },
            Behaviour::Details(lookup, _) => {
                let id = self.request.pointer(&lookup.at).and_then(Value::as_str);
                id.map_or(Role::Other, |id| Role::Asks(id.to_owned()))
            }
            _ => Role::Other,
        }
    }
}

/// The parameters of a query but for a key.
fn parameters(query: &str) -> Map<String, Value> {
    let pairs = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name != "key");
    pairs.map(|(name, value)| (name.into_owned(), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(method: &Method, target: &str, body: &str) -> String {
        let catalogue = Catalogue::embedded().unwrap();
        Asked::read(&catalogue, method, target, Some(body.as_bytes())).print
    }

    #[test]
    fn requests_are_alike_but_for_keys_and_addresses() {
        let create = |body: &str| print(&Method::POST, "/api/v1/jobs/createTask", body);
        let one = create(r#"{"model":"a","input":{"prompt":"x","seed":1},"callBackUrl":"https://a.test/1"}"#);
        assert_eq!(one, create(r#"{"input":{"seed":1,"prompt":"x"},"model":"a"}"#));
        assert_ne!(one, create(r#"{"input":{"seed":2,"prompt":"x"},"model":"a"}"#));
        let get = |target: &str| print(&Method::GET, target, "");
        assert_eq!(get("/x?b=1&a=2&key=kg_fake"), get("/x?a=2&b=1"));
        assert_ne!(get("/x?a=2&b=1"), get("/x?a=2&b=2"));
        assert_ne!(get("/x"), get("/y"));
    }
}
