//! What a chat is supposed to have cost whose end was not heard: an estimate, by what is known of tokens.
//!
//! Four bytes of text are a token. The request is counted as it was sent, the answer as far as it was heard; while nothing
//! was heard the model is supposed to think at the usual pace, a token for each of a stream's events. Pure but for the
//! time that passes.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::catalogue::{Behaviour, Catalogue, Chat, OperationIx};
use crate::ids::Credits;

/// A chat under way.
pub(super) struct Supposed {
    operation: OperationIx,
    model: String,
    /// Tokens of the request.
    input: u64,
    since: Instant,
    /// How long nothing was said, once something is.
    silent: Option<Duration>,
    said: Said,
}

impl Supposed {
    /// A chat that is about to be sent.
    pub(super) fn new(catalogue: &Catalogue, operation: OperationIx, request: &Value) -> Self {
        let chat = chat(catalogue, operation);
        let model = chat.map(|chat| chat.requested(request).to_owned());
        let input = chat.map(|chat| tokens(request, chat.tokens.per_file));
        Self {
            operation,
            model: model.unwrap_or_default(),
            input: input.unwrap_or_default(),
            since: Instant::now(),
            silent: None,
            said: Said::default(),
        }
    }

    /// Hears a piece of the answer.
    pub(super) fn hear(&mut self, piece: &[u8]) {
        self.said.read(piece);
        if self.said.bytes > 0 && self.silent.is_none() {
            self.silent = Some(self.since.elapsed());
        }
    }

    /// What it costs if nothing is said; `None` where nobody knows the model's price.
    pub(super) fn least(&self, catalogue: &Catalogue) -> Option<Credits> {
        chat(catalogue, self.operation)?.price(&self.model, self.input.max(1), 0)
    }

    /// What it has cost up to now; `None` where nobody knows the model's price.
    pub(super) fn cost(&self, catalogue: &Catalogue) -> Option<Credits> {
        let chat = chat(catalogue, self.operation)?;
        let silent = self.silent.unwrap_or_else(|| self.since.elapsed()).as_millis();
        let thought = silent / chat.tokens.event_gap.as_millis().max(1);
        let output = self.said.bytes.div_ceil(4) + u64::try_from(thought).unwrap_or(u64::MAX / 2);
        chat.price(&self.model, self.input.max(1), output)
    }
}

fn chat(catalogue: &Catalogue, operation: OperationIx) -> Option<&Chat> {
    match &catalogue.operation(operation).behaviour {
        Behaviour::Chat(chat, _) => Some(chat),
        _ => None,
    }
}

/// Tokens of a request, where a file counts `per_file`.
fn tokens(request: &Value, per_file: u64) -> u64 {
    fn add(value: &Value, bytes: &mut u64, files: &mut u64) {
        match value {
            Value::String(text) if is_file(text) => *files += 1,
            Value::String(text) => *bytes += text.len() as u64,
            Value::Array(items) => items.iter().for_each(|item| add(item, bytes, files)),
            Value::Object(members) => members.values().for_each(|value| add(value, bytes, files)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let (mut bytes, mut files) = (0, 0);
    add(request, &mut bytes, &mut files);
    bytes.div_ceil(4) + files * per_file
}

/// Whether a text is a file in base64: nobody writes that much without a space.
fn is_file(text: &str) -> bool {
    const LONGEST_WORD: usize = 4096;
    text.starts_with("data:") || (text.len() > LONGEST_WORD && !text.contains(char::is_whitespace))
}

/// The names under which the dialects' answers have what a model says and thinks.
const SAID: [&[u8]; 7] =
    [b"content", b"text", b"delta", b"thinking", b"reasoning_content", b"partial_json", b"arguments"];
/// No name that matters is longer.
const LONGEST_NAME: usize = 24;

/// Counts what is said in a text that comes in pieces: JSON, or events of it.
#[derive(Debug, Default)]
struct Said {
    /// Bytes of what was said, as it was written.
    bytes: u64,
    at: At,
    /// The latest text, as much of it as matters for a name.
    name: Vec<u8>,
    /// The text under way is something said.
    counts: bool,
    /// The value to come is.
    is_next: bool,
}

/// Where in JSON a text has been cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
    /// Right behind a text: it is a name if a colon follows.
    Behind,
}

impl Said {
    fn read(&mut self, piece: &[u8]) {
        for byte in piece {
            self.take(*byte);
        }
    }

    fn take(&mut self, byte: u8) {
        self.at = match (self.at, byte) {
            // No text of JSON goes on in another line: whatever that was, it is over.
            (_, b'\n') => At::Outside,
            (At::Inside, b'"') => At::Behind,
            (At::Inside, b'\\') => At::Escaped,
            (At::Inside | At::Escaped, byte) => {
                self.bytes += u64::from(self.counts);
                if self.name.len() <= LONGEST_NAME {
                    self.name.push(byte);
                }
                At::Inside
            }
            (At::Outside | At::Behind, b'"') => {
                self.counts = std::mem::take(&mut self.is_next);
                self.name.clear();
                At::Inside
            }
            (at, b' ' | b'\t' | b'\r') => at,
            (At::Behind, b':') => {
                self.is_next = SAID.contains(&&*self.name);
                At::Outside
            }
            (At::Outside | At::Behind, _) => {
                self.is_next = false;
                At::Outside
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_said_is_counted_in_every_dialect_wherever_it_is_cut() {
        for (text, said) in [
            (r#"data: {"id": "x", "choices": [{"delta": {"role": "assistant", "content": "Hello"}}]}"#, 5),
            (r#"data: {"choices": [{"delta": {"reasoning_content": "hm", "content": null}}]}"#, 2),
            ("event: response.output_text.delta\ndata: {\"type\": \"x\", \"delta\": \"Hel\"}\n\n", 3),
            (r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"a\"b"}}"#, 3),
            (r#"data: {"delta": {"type": "input_json_delta", "partial_json": "{\"a\": 1}"}}"#, 8),
            (r#"data: {"candidates": [{"content": {"parts": [{"text": "Hello"}], "role": "model"}}]}"#, 5),
            (r#"{"content": [{"type": "text", "text" : "Hello"}], "model": "content"}"#, 5),
            ("data: {\"content\": \"broken\ndata: {\"content\": \"ok\"}", 8),
        ] {
            for cut in 0..text.len() {
                let mut count = Said::default();
                count.read(&text.as_bytes()[..cut]);
                count.read(&text.as_bytes()[cut..]);
                assert_eq!(count.bytes, said, "{text} cut at {cut}");
                assert!(count.name.len() <= LONGEST_NAME + 1);
            }
        }
    }

    #[test]
    fn a_file_weighs_what_a_file_weighs() {
        let picture = json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{}", "A".repeat(9000))}});
        let inline = json!({"inlineData": {"data": "A".repeat(9000)}});
        assert_eq!(tokens(&json!({"parts": [picture, inline]}), 258), 3 + 516);
        assert_eq!(tokens(&json!({"messages": [{"content": "12345678"}], "stream": true}), 258), 2);
    }
}
