//! Language models as data: which dialect an operation speaks, whose answers it gives, what a token costs.
//!
//! The dialects themselves (how a request is read, how events look) are protocols and therefore code, in `sim`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Template;
use crate::ids::Credits;

/// How requests and answers are written.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `messages` in, `choices` out; chunks, then `[DONE]`.
    OpenaiChat,
    /// `input` in, `output` out; named events, then `[DONE]`.
    Responses,
    /// `messages` in, `content` out; named events.
    Anthropic,
    /// `contents` in, `candidates` out; each event is a body.
    Gemini,
}

impl Dialect {
    /// The body of a refusal with this HTTP status, as clients of the dialect expect one.
    ///
    /// Source: the vendors' descriptions of their APIs' errors.
    pub fn refusal(self, status: u16, message: &str) -> Value {
        match self {
            Self::OpenaiChat | Self::Responses => {
                json!({"error": {"message": message, "type": error_type(status), "param": null, "code": null}})
            }
            Self::Anthropic => {
                json!({"type": "error", "error": {"type": error_type(status), "message": message}})
            }
            Self::Gemini => {
                json!({"error": {"code": status, "message": message, "status": gemini_status(status)}})
            }
        }
    }
}

/// The types of errors that the clients of both vendors know.
fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// The name that Google's APIs have for an HTTP status.
fn gemini_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        402 | 429 => "RESOURCE_EXHAUSTED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        408 | 504 => "DEADLINE_EXCEEDED",
        409 => "ABORTED",
        502 | 503 => "UNAVAILABLE",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}

/// Whether a model thinks before it speaks, as its usage shows.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Thinks {
    /// It always does.
    Always,
    /// If the request asks for it.
    Asked,
    /// It never does.
    #[default]
    Never,
}

/// Where the model of a chat operation is named.
#[derive(Debug, Clone)]
pub enum ChatModel {
    /// The operation is the model.
    Name(String),
    /// A field of the request, by JSON pointer; the schema lists the choice.
    At(String),
}

/// How an operation talks.
#[derive(Debug)]
pub struct Chat {
    /// In which dialect.
    pub dialect: Dialect,
    /// Who talks.
    pub model: ChatModel,
    /// Names of models in answers, where they differ from those in requests.
    pub shown: HashMap<String, String>,
    /// The answer's id, from `draw.…` and `chat.stamp`.
    pub id: Template,
    /// Of an answer in one piece; none where the real one has none.
    pub content_type: Option<String>,
    /// Whether a request that does not say so is answered with events.
    pub stream_default: bool,
    /// Paths of the operation at which it is not.
    pub whole_at: Vec<String>,
    /// Whether it thinks.
    pub thinks: Thinks,
    /// Whether events tell its thoughts where the request is silent about them.
    pub shows_thoughts: bool,
    /// How long an answer is at most where the request does not say, in tokens.
    pub max_tokens: Option<u64>,
    /// The function that stands for the built-in search, and is no tool of the client's.
    pub search: Option<String>,
    /// What its family's models have in common.
    pub tokens: Arc<Tokens>,
}

impl Chat {
    /// What its templates may be made of.
    pub(super) const PATHS: [&'static str; 21] = [
        "draw.uuid",
        "draw.hex",
        "draw.hex_long",
        "draw.letters",
        "draw.word",
        "chat.id",
        "chat.model",
        "chat.created",
        "chat.stamp",
        "chat.credits",
        "chat.said",
        "chat.finish",
        "chat.ending",
        "chat.incomplete",
        "chat.stop_sequence",
        "usage.input",
        "usage.spoken",
        "usage.thinking",
        "usage.thinking_details",
        "usage.output",
        "usage.total",
    ];

    /// The model that `request` is for; empty where it names none.
    pub fn requested<'a>(&'a self, request: &'a Value) -> &'a str {
        match &self.model {
            ChatModel::Name(name) => name,
            ChatModel::At(at) => request.pointer(at).and_then(Value::as_str).unwrap_or_default(),
        }
    }

    /// The name of `model` in answers.
    pub fn shown_name<'a>(&'a self, model: &'a str) -> &'a str {
        self.shown.get(model).map_or(model, String::as_str)
    }

    /// What so many tokens cost; `None` where nobody knows.
    pub fn price(&self, model: &str, input: u64, output: u64) -> Option<Credits> {
        self.tokens
            .price(model, input, output)
            .or_else(|| self.tokens.price(self.shown_name(model), input, output))
    }
}

/// What tokens cost, and how fast they come.
#[derive(Debug)]
pub struct Tokens {
    /// US dollars for a credit.
    pub usd_per_credit: f64,
    /// US dollars for a million tokens in and out, by model.
    pub usd_per_million: HashMap<String, TokenPrice>,
    /// Tokens that a picture or another file counts for.
    pub per_file: u64,
    /// The pause between two events of a stream at realistic pace.
    pub event_gap: Duration,
    /// Where the figures come from.
    pub source: String,
}

/// US dollars for a million tokens.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TokenPrice {
    /// Of the request.
    pub input: f64,
    /// Of the answer, thoughts included.
    pub output: f64,
}

impl Tokens {
    /// Of which nothing is known.
    pub(super) fn unknown() -> Self {
        Self {
            usd_per_credit: 1.0,
            usd_per_million: HashMap::new(),
            per_file: 0,
            event_gap: Duration::ZERO,
            source: String::new(),
        }
    }

    /// Rounded to a hundredth of a credit, and never less than that.
    fn price(&self, model: &str, input: u64, output: u64) -> Option<Credits> {
        let price = self.usd_per_million.get(model)?;
        #[expect(clippy::cast_precision_loss, reason = "counts of tokens stay far below 2^53")]
        let usd = (input as f64 * price.input + output as f64 * price.output) / 1e6;
        let hundredths = (usd / self.usd_per_credit * 100.0).round();
        Credits::from_f64(hundredths.max(1.0) / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded: 13 and 17 tokens at 0.85 and 4.275 dollars cost 0.02 credits; 6 and 4 at 0.44 and 3.5 cost 0.01.
    #[test]
    fn tokens_cost_what_they_cost_on_the_wire() {
        let price = |input, output| TokenPrice { input, output };
        let tokens = Tokens {
            usd_per_credit: 0.005,
            usd_per_million: [("a".to_owned(), price(0.85, 4.275)), ("b".to_owned(), price(0.44, 3.5))]
                .into(),
            per_file: 258,
            event_gap: Duration::ZERO,
            source: String::new(),
        };
        assert_eq!(tokens.price("a", 13, 17), Credits::from_f64(0.02));
        assert_eq!(tokens.price("b", 6, 4), Credits::from_f64(0.01));
        assert_eq!(tokens.price("b", 1_000_000, 0), Credits::from_f64(88.0));
        assert_eq!(tokens.price("c", 1, 1), None);
    }
}
