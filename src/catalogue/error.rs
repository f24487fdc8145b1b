//! The errors that calls are refused with and tasks end with: what their bodies look like, which operation can have
//! which.

use serde_json::Value;

use super::{Catalogue, ErrorIx, Found, Operation, OperationIx, Scope, Template};

/// An error that a call is refused with or a task ends with.
#[derive(Debug)]
pub struct ErrorEntry {
    /// The name by which an outcome brings it about.
    pub id: String,
    /// The family it belongs to; `None` for those of all families.
    pub family: Option<usize>,
    /// The operations it can come from; empty for all of the family.
    pub operations: Vec<String>,
    /// The number in the body.
    pub code: u16,
    /// The text in an answer or callback; `None` is sent as null.
    pub message: Option<Template>,
    /// The text in a record, where it differs.
    pub record_message: Option<Template>,
    /// A call can be refused with it.
    pub refuses: bool,
    /// A task can end with it.
    pub fails: bool,
    /// The ending of the lifecycle that a task takes with it.
    pub ending: String,
    /// HTTP status on the wire.
    pub http: u16,
    /// What the body looks like, where its family has a wording.
    pub form: Option<Template>,
    /// The body has no `data` at all, rather than null.
    pub without_data: bool,
    /// What follows the body: a line feed, or nothing.
    pub tail: &'static str,
    /// What `data` is, where it is not null.
    pub data: Option<Template>,
    /// Headers that came with it.
    pub headers: Vec<(String, String)>,
    /// How sure it is.
    pub evidence: String,
    /// For people.
    pub note: Option<String>,
}

impl ErrorEntry {
    /// What `{error.<name>}` stands for in the bodies of a task that ended with it: `code`, `message`, or
    /// `record_message`, which is the message where a record has no text of its own.
    pub fn field(&self, name: &str, scope: &dyn Scope) -> Found<'static> {
        let text = |template: Option<&Template>| {
            template.map_or(Found::Null, |template| Found::Text(template.to_text(scope)))
        };
        match name {
            "code" => Found::Integer(self.code.into()),
            "message" => text(self.message.as_ref()),
            "record_message" => text(self.record_message.as_ref().or(self.message.as_ref())),
            _ => Found::Missing,
        }
    }

    /// Its text, where `scope` says what the request was.
    fn text(&self, scope: &dyn Scope) -> Option<String> {
        self.message.as_ref().map(|message| message.to_text(scope))
    }

    /// The body of the answer that refuses a call with it. In its text `scope` says what the request was.
    pub fn body(&self, scope: &dyn Scope) -> Vec<u8> {
        let message = self.text(scope);
        if let Some(form) = &self.form {
            return form.to_json(&ErrorScope { code: self.code, message: message.as_deref() });
        }
        let message = message.map_or(Value::Null, Value::from);
        let mut body = format!("{{\"code\":{},\"msg\":{message}", self.code).into_bytes();
        match &self.data {
            _ if self.without_data => {}
            None => body.extend_from_slice(b",\"data\":null"),
            Some(data) => {
                body.extend_from_slice(b",\"data\":");
                data.render(scope, &mut body);
            }
        }
        body.push(b'}');
        body.extend_from_slice(self.tail.as_bytes());
        body
    }

    /// How near it is to `operation`: 0 if it is its own, 1 of its family, 2 of all; `None` if it cannot come from it.
    fn nearness(&self, operation: &Operation) -> Option<u8> {
        match self.family {
            None => Some(2),
            Some(family) if family != operation.family => None,
            Some(_) if self.operations.is_empty() => Some(1),
            Some(_) => self.operations.contains(&operation.id).then_some(0),
        }
    }
}

/// The way of answering of a family that has a host of its own.
#[derive(Debug)]
pub struct Wording {
    /// The body of every refusal.
    pub error: Template,
    /// Of every answer; `content-type` is among them where it differs.
    pub headers: Vec<(String, String)>,
    /// A method that a path does not take.
    pub wrong_method: Option<ErrorIx>,
}

impl Wording {
    /// The body of a refusal with this code and text.
    pub fn error_body(&self, code: u16, message: Option<&str>) -> Vec<u8> {
        self.error.to_json(&ErrorScope { code, message })
    }
}

impl Catalogue {
    /// How the host of `operation` words its answers, where it has a way of its own.
    pub fn wording(&self, operation: OperationIx) -> Option<&Wording> {
        self.families[self.operation(operation).family].wording.as_ref()
    }

    /// The body of a refusal that does not come from the API itself but from what stands before it, where the clients of
    /// `operation` expect another form than the envelope.
    pub fn foreign_refusal(&self, operation: OperationIx, status: u16, message: &str) -> Option<Vec<u8>> {
        if let Some(chat) = self.operation(operation).chat() {
            return Some(chat.dialect.refusal(status, message).to_string().into_bytes());
        }
        self.wording(operation).map(|wording| wording.error_body(status, Some(message)))
    }

    /// The body of the answer that refuses a call of `operation` with `error`. In its text `scope` says what the request
    /// was.
    pub fn refusal_body(&self, operation: OperationIx, error: ErrorIx, scope: &dyn Scope) -> Vec<u8> {
        let error = self.error(error);
        let in_wording = |wording: &Wording| wording.error_body(error.code, error.text(scope).as_deref());
        self.wording(operation).map_or_else(|| error.body(scope), in_wording)
    }

    /// `error` as `operation` has it: under the same id it, or its family, may have one of its own.
    pub fn own_error(&self, operation: OperationIx, error: ErrorIx) -> ErrorIx {
        let (id, operation) = (&self.error(error).id, self.operation(operation));
        let same = self.errors().filter(|(_, other)| other.id == *id);
        let ranked = same.filter_map(|(own, other)| Some((other.nearness(operation)?, own)));
        ranked.min().map_or(error, |(_, own)| own)
    }

    /// The errors that can come from `operation`, those of its own before those of its family, those before the
    /// ones of all families. Of those with the same id only the nearest count.
    pub fn errors_of(&self, operation: OperationIx) -> impl Iterator<Item = (ErrorIx, &ErrorEntry)> {
        let operation = self.operation(operation);
        let hidden = move |error: &ErrorEntry, nearness: u8| {
            let nearer = |other: &ErrorEntry| other.nearness(operation).is_some_and(|other| other < nearness);
            self.errors.iter().any(|other| other.id == error.id && nearer(other))
        };
        (0..3).flat_map(move |wanted| {
            let near = self.errors().filter(move |(_, error)| error.nearness(operation) == Some(wanted));
            near.filter(move |(_, error)| !hidden(error, wanted))
        })
    }
}

/// What a refusal's body is made of.
struct ErrorScope<'a> {
    code: u16,
    message: Option<&'a str>,
}

impl Scope for ErrorScope<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path.get(1).map(|field| &**field) {
            Some("code") => Found::Integer(self.code.into()),
            Some("message") => self.message.map_or(Found::Null, Found::Str),
            _ => Found::Missing,
        }
    }
}
