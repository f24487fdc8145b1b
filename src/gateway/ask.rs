//! A request of the API, read as far as the gateway must understand it.

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};

use super::Gateway;
use super::call::Call;
use crate::background::compute;
use crate::catalogue::{Behaviour, Class, Operation, OperationIx};
use crate::config::Mode;
use crate::error::{ApiError, Reason};
use crate::proxy;
use crate::tasks::body::{self, Member, Trouble};
use crate::tasks::ownership;
use crate::wire;

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// A body that is larger, in bytes, is read elsewhere: to read one takes a hundredth of a second for each megabyte.
pub(super) const LARGE: usize = 256 * 1024;

/// A request whose body is here.
pub(super) struct Ask {
    /// In a box, since it goes from hand to hand.
    pub(super) parts: Box<Parts>,
    pub(super) body: Bytes,
    pub(super) index: OperationIx,
    request: OnceLock<Result<Value, String>>,
    members: OnceLock<Option<Vec<Member>>>,
    texts: OnceLock<Vec<String>>,
    /// Whether nobody can read it in another way, or why others might.
    unambiguous: OnceLock<Result<(), String>>,
}

impl Ask {
    /// Takes over a request whose body has been read.
    pub(super) async fn new(request: Request, index: OperationIx) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let body =
            body.collect().await.map_err(|_| ApiError::new(Reason::BodyMalformed, "the body broke off"))?;
        Ok(Self::with(parts, body.to_bytes(), index))
    }

    /// Takes over a request that has none.
    pub(super) fn without_body(request: Request, index: OperationIx) -> Self {
        Self::with(request.into_parts().0, Bytes::new(), index)
    }

    fn with(parts: Parts, body: Bytes, index: OperationIx) -> Self {
        let parts = Box::new(parts);
        Self {
            parts,
            body,
            index,
            request: OnceLock::new(),
            members: OnceLock::new(),
            texts: OnceLock::new(),
            unambiguous: OnceLock::new(),
        }
    }

    /// Reads all that may be asked of a large body, where nobody else waits for that; what the simulator gets it reads itself.
    ///
    /// # Errors
    /// It has more values than anybody needs.
    pub(super) async fn read_ahead(
        self,
        gateway: &Arc<Gateway>,
        call: &Arc<Call>,
        mode: Mode,
    ) -> Result<Self, ApiError> {
        if self.body.len() <= LARGE {
            return Ok(self);
        }
        // The work goes on without its client, and so does the room that it takes.
        let (gateway, call) = (Arc::clone(gateway), Arc::clone(call));
        let read = move || {
            let _call = call;
            let operation = gateway.parts.catalogue.operation(self.index);
            if matches!(mode, Mode::Mock | Mode::Replay) {
                let text = std::str::from_utf8(&self.body).unwrap_or_default();
                let is_bounded = body::trouble(text) != Some(Trouble::TooMany);
                return if is_bounded {
                    Ok(self)
                } else {
                    Err(ApiError::new(Reason::BodyMalformed, too_many()))
                };
            }
            self.unambiguous(operation)?;
            if may_name_things(operation) {
                self.texts();
            }
            Ok(self)
        };
        compute(read).await
    }

    /// The request as it came.
    pub(super) fn into_request(self) -> Request {
        let body = if self.body.is_empty() { Body::empty() } else { Body::from(self.body) };
        Request::from_parts(*self.parts, body)
    }

    /// The query as it stands in the address; empty without one.
    pub(super) fn query(&self) -> &str {
        self.parts.uri.query().unwrap_or_default()
    }

    /// What is asked for: the body's JSON, or the query as an object of texts, of lists where a name stands more than
    /// once. Null where it is neither.
    pub(super) fn request(&self, operation: &Operation) -> &Value {
        self.read(operation).as_ref().unwrap_or(&Value::Null)
    }

    /// The same, or why it cannot be read.
    fn read(&self, operation: &Operation) -> &Result<Value, String> {
        self.request.get_or_init(|| {
            if operation.by_query {
                Ok(query(self.query()))
            } else {
                serde_json::from_slice(&self.body).map_err(|error| error.to_string())
            }
        })
    }

    /// The members of the body, by their places; `None` if it is no object.
    pub(super) fn members(&self) -> Option<&[Member]> {
        let members = || body::members(std::str::from_utf8(&self.body).ok()?);
        self.members.get_or_init(members).as_deref()
    }

    /// The texts of the body that may be ids; none where it is no JSON.
    pub(super) fn texts(&self) -> &[String] {
        self.texts.get_or_init(|| ownership::texts(&self.body).unwrap_or_default())
    }

    /// Asks for a whole and plain answer, whatever the client would take: one that the gateway understands, and that can be
    /// shared by others.
    pub(super) fn plain(&mut self) {
        proxy::strip(&mut self.parts.headers, |name| {
            matches!(
                name.as_str(),
                "accept-encoding"
                    | "if-match"
                    | "if-modified-since"
                    | "if-none-match"
                    | "if-range"
                    | "if-unmodified-since"
                    | "prefer"
                    | "range"
            )
        });
    }

    /// Refuses what the gateway and the upstream might read in different ways: a body that the gateway cannot read, though
    /// others may, and one in which a name stands twice.
    pub(super) fn unambiguous(&self, operation: &Operation) -> Result<(), ApiError> {
        if operation.by_query || self.body.is_empty() {
            return Ok(());
        }
        let unambiguous = self.unambiguous.get_or_init(|| self.find_ambiguity(operation));
        unambiguous.as_ref().map_err(|what| ApiError::new(Reason::BodyMalformed, what)).copied()
    }

    fn find_ambiguity(&self, operation: &Operation) -> Result<(), String> {
        let unreadable = |why: &str| {
            format!("the body is no JSON that this gateway can read: {why}; send one object, in UTF-8")
        };
        let text = std::str::from_utf8(&self.body).map_err(|_| unreadable("it is not UTF-8"))?;
        let doubled = match body::trouble(text) {
            Some(Trouble::TooMany) => return Err(too_many()),
            Some(Trouble::Doubled(name)) => Some(name),
            None => None,
        };
        let request = self.read(operation).as_ref().map_err(|why| unreadable(why))?;
        if request.is_object() && self.members().is_none() {
            return Err(unreadable("its members cannot be told apart"));
        }
        let Some(name) = doubled else { return Ok(()) };
        let name = name.escape_debug();
        Err(format!("\"{name}\" stands twice in the body; which one counts is not defined"))
    }

    /// How long the client wants to wait for news: `Prefer: wait=30`.
    ///
    /// Source: RFC 7240, 4.3 (`wait` in seconds).
    pub(super) fn wait_seconds(&self) -> Option<u64> {
        let preferences = wire::values(&self.parts.headers, PREFER).filter_map(|value| value.to_str().ok());
        let mut preferences = preferences.flat_map(|value| value.split([',', ';'])).map(str::trim);
        preferences.find_map(|preference| {
            let (name, value) = preference.split_once('=')?;
            let is_wait = name.trim().eq_ignore_ascii_case("wait");
            is_wait.then(|| value.trim().trim_matches('"').parse().ok())?
        })
    }

    /// Whether the client wants no kept answer.
    pub(super) fn wants_fresh(&self) -> bool {
        wants_fresh(&self.parts.headers)
    }
}

fn too_many() -> String {
    format!("the body has more than {} values", body::MOST_VALUES)
}

/// Whether `Cache-Control` asks for an answer that comes from the source.
fn wants_fresh(headers: &HeaderMap) -> bool {
    let values = wire::values(headers, CACHE_CONTROL).filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(',')).map(str::trim);
    directives.any(|directive| {
        ["no-cache", "no-store", "max-age=0"].iter().any(|fresh| directive.eq_ignore_ascii_case(fresh))
    })
}

fn query(text: &str) -> Value {
    let mut members = Map::new();
    for (name, value) in wire::pairs(text) {
        let value = Value::String(value.into_owned());
        match members.get_mut(&*name) {
            None => drop(members.insert(name.into_owned(), value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(members)
}

/// Whether a request of `operation` may name what somebody has made: what is said to a model leads to nothing, and nor does what is
/// asked of the account as a whole, or what a file is called.
pub(super) fn may_name_things(operation: &Operation) -> bool {
    !matches!(operation.class, Class::Chat | Class::Account | Class::Upload)
}

/// Whether `operation` changes nothing, so that it may be asked again, and its answer kept and shared: questions, and links to
/// results.
pub(super) fn is_read(operation: &Operation) -> bool {
    let is_question =
        matches!(operation.class, Class::Details | Class::Account) && operation.task().is_none();
    is_question || matches!(operation.behaviour, Behaviour::Link(..))
}
