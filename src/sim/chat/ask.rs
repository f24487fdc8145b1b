//! What a chat request asks for, whichever dialect it is written in.
//!
//! Total: anything may stand in a request, and what cannot be understood is as good as absent. Whether a request is
//! valid is for its schema to say.

use serde_json::Value;

/// What a model needs to know of a request.
#[derive(Clone, Debug, Default)]
pub(in crate::sim) struct Ask {
    /// Whether it says how the answer shall come.
    pub(super) stream: Option<bool>,
    /// The text of the last user message.
    pub(super) prompt: String,
    /// What tools gave back, if the conversation ends with that.
    pub(super) results: Vec<String>,
    /// The client's own tools.
    pub(super) tools: Vec<Tool>,
    /// Which of them may or must be called.
    pub(super) choice: Choice,
    /// At most one call at a time.
    pub(super) one_call: bool,
    /// How long the answer is at most, in tokens.
    pub(super) most: Option<u64>,
    /// Texts that end the answer.
    pub(super) stops: Vec<String>,
    /// How many answers; 0 counts as 1.
    pub(super) count: u64,
    /// What the text must be.
    pub(super) format: Format,
    /// It asks for thinking.
    pub(super) thinks: bool,
    /// It says whether thoughts shall be told.
    pub(super) shows_thoughts: Option<bool>,
    /// How much of it there is to read.
    pub(super) weight: Weight,
}

/// A function that the client would run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tool {
    pub(super) name: String,
    /// JSON Schema of its arguments.
    pub(super) parameters: Value,
}

/// Which tools may or must be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Choice {
    #[default]
    Auto,
    None,
    Any,
    Named(String),
}

/// What the text of an answer must be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Format {
    #[default]
    Text,
    /// Some JSON object.
    Json,
    /// JSON that fits this schema.
    Schema(Value),
}

/// How much there is to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Bytes of text.
    pub(super) bytes: u64,
    /// Pictures and other files.
    pub(super) files: u64,
}

/// An estimate: four bytes of text are a token, and what is left of them is one too.
pub(super) fn tokens(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(4)
}

impl Weight {
    /// Of the fields of `request` that a model reads.
    pub(super) fn of(request: &Value, fields: &[&str]) -> Self {
        let mut weight = Self::default();
        fields.iter().filter_map(|field| request.get(field)).for_each(|value| weight.add("", value));
        weight
    }

    /// Tokens, where a file counts `per_file`.
    pub(super) fn tokens(self, per_file: u64) -> u64 {
        self.bytes.div_ceil(4) + self.files * per_file
    }

    fn add(&mut self, name: &str, value: &Value) {
        /// Members that are for machines.
        const SILENT: [&str; 12] = [
            "role",
            "type",
            "id",
            "call_id",
            "tool_call_id",
            "tool_use_id",
            "status",
            "detail",
            "cache_control",
            "signature",
            "thoughtSignature",
            "encrypted_content",
        ];
        match value {
            _ if SILENT.contains(&name) => {}
            Value::Object(members) if is_file(members) => self.files += 1,
            Value::Object(members) => members.iter().for_each(|(name, value)| self.add(name, value)),
            Value::Array(items) => items.iter().for_each(|item| self.add(name, item)),
            Value::String(text) => self.bytes += text.len() as u64,
            Value::Number(_) | Value::Bool(_) => self.bytes += 4,
            Value::Null => {}
        }
    }
}

/// Whether a part of a message is a picture or another file.
fn is_file(part: &serde_json::Map<String, Value>) -> bool {
    const KINDS: [&str; 8] =
        ["image_url", "input_image", "input_file", "image", "document", "input_audio", "file", "video_url"];
    const KEYS: [&str; 4] = ["inline_data", "inlineData", "file_data", "fileData"];
    part.get("type").and_then(Value::as_str).is_some_and(|kind| KINDS.contains(&kind))
        || KEYS.iter().any(|key| part.contains_key(*key))
}

/// A list in `value`, or nothing.
pub(super) fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A text in `value`, or none.
pub(super) fn text<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    value.get(field).and_then(Value::as_str)
}

/// A whole number in `value`, be it written with a fraction or not.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "out of range it is bounded")]
pub(super) fn number(value: &Value, field: &str) -> Option<u64> {
    value.get(field).and_then(Value::as_f64).map(|number| number as u64)
}

/// All that `content` says: it is text, or a list of parts of which some have text.
pub(super) fn said(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| text(part, "text")).collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}

/// One text or a list of texts.
pub(super) fn texts(value: Option<&Value>) -> Vec<String> {
    let texts = match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    texts.into_iter().filter(|text| !text.is_empty()).collect()
}

/// A tool called `name`; arguments of any kind where it says nothing of them.
pub(super) fn tool(name: Option<&str>, parameters: Option<&Value>) -> Option<Tool> {
    let parameters = parameters.cloned().unwrap_or_else(|| serde_json::json!({"type": "object"}));
    Some(Tool { name: name?.to_owned(), parameters })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_and_files_weigh_and_names_of_things_do_not() {
        let request = json!({"messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "12345678"},
                {"type": "image_url", "image_url": {"url": "https://example.com/a-long-address.png"}},
            ]},
            {"role": "user", "content": [{"inline_data": {"mime_type": "image/png", "data": "AAAA"}}]},
        ], "other": "not read"});
        let weight = Weight::of(&request, &["messages"]);
        assert_eq!(weight, Weight { bytes: 8, files: 2 });
        assert_eq!(weight.tokens(258), 2 + 516);
        assert_eq!(Weight::of(&json!({"messages": "12345"}), &["messages"]).tokens(258), 2);
    }
}
