//! Responses, the younger of `OpenAI`'s dialects: `input` in, `output` out.

use serde_json::{Value, json};

use super::ask::{Ask, Format, Weight, list, number, said, text, tool};
use super::openai::choice;
use super::reply::{Ending, Said};
use super::script::{Piece, Script, deltas, event};
use super::{Answer, Usage};

/// What `request` asks for.
pub(super) fn read(request: &Value) -> Ask {
    let items = list(request, "input");
    let user = items.iter().rev().find(|item| text(item, "role") == Some("user"));
    let prompt =
        request["input"].as_str().map(str::to_owned).or_else(|| user.map(|item| said(&item["content"])));
    let is_result = |item: &&Value| text(item, "type") == Some("function_call_output");
    let results = items.iter().rev().take_while(is_result).count();
    let functions = list(request, "tools").iter().filter(|tool| text(tool, "type") == Some("function"));
    Ask {
        stream: request["stream"].as_bool(),
        prompt: prompt.unwrap_or_default(),
        results: items[items.len() - results..].iter().map(|item| said(&item["output"])).collect(),
        tools: functions.filter_map(|one| tool(text(one, "name"), one.get("parameters"))).collect(),
        choice: choice(&request["tool_choice"], |named| text(named, "name")),
        one_call: request["parallel_tool_calls"] == false,
        most: number(request, "max_output_tokens"),
        stops: Vec::new(),
        count: 1,
        format: format(&request["text"]["format"]),
        thinks: request["reasoning"].is_object(),
        shows_thoughts: Some(text(&request["reasoning"], "summary").is_some()),
        weight: Weight::of(request, &["instructions", "input", "tools"]),
    }
}

fn format(value: &Value) -> Format {
    match (text(value, "type"), value.get("schema")) {
        (Some("json_object"), _) => Format::Json,
        (Some("json_schema"), Some(schema)) => Format::Schema(schema.clone()),
        _ => Format::Text,
    }
}

/// `completed`, or `incomplete` where the answer was cut off.
pub(super) fn status(said: &Said) -> &'static str {
    if said.ending == Ending::Length { "incomplete" } else { "completed" }
}

/// Why the answer is incomplete, if it is.
pub(super) fn incomplete(said: &Said) -> Value {
    if said.ending == Ending::Length { json!({"reason": "max_output_tokens"}) } else { Value::Null }
}

/// The items of the answer.
pub(super) fn output(answer: &Answer<'_>) -> Value {
    let said = answer.first();
    if !said.calls.is_empty() {
        let calls = said.calls.iter().enumerate().map(|(number, call)| {
            json!({
                "type": "function_call",
                "id": call_item(answer, number),
                "call_id": format!("call_{}", answer.letters(&format!("call/{number}"), 24)),
                "name": call.name,
                "arguments": call.arguments.to_string(),
            })
        });
        return calls.collect();
    }
    let message = json!({
        "type": "message",
        "role": "assistant",
        "id": message_id(answer),
        "content": [{"type": "output_text", "text": said.text}],
        "status": status(said),
    });
    let mut items: Vec<Value> = reasoning(answer).into_iter().collect();
    items.push(message);
    items.into()
}

fn message_id(answer: &Answer<'_>) -> String {
    format!("msg_{}", answer.letters("message", 24))
}

fn call_item(answer: &Answer<'_>, number: usize) -> String {
    format!("fc_{}", answer.letters(&format!("item/{number}"), 24))
}

/// The item that tells of thinking, if there was any.
fn reasoning(answer: &Answer<'_>) -> Option<Value> {
    (answer.usage.thinking > 0).then(|| {
        let summary = answer.told_thoughts(false).map(|thoughts| json!({"type": "summary_text", "text": thoughts}));
        let summary: Vec<Value> = summary.into_iter().collect();
        json!({"type": "reasoning", "id": format!("rs_{}", answer.letters("reasoning", 24)), "summary": summary})
    })
}

/// The events of a stream. The vendor's page names the first, the deltas and the last; what stands between them is the
/// protocol's own, without which its clients cannot put an answer together.
pub(super) fn events(answer: &Answer<'_>) -> Script {
    let said = answer.first();
    let mut script = Script::default();
    let begun = response(answer, "in_progress", &json!([]));
    for name in ["response.created", "response.in_progress"] {
        script.add(event(Some(name), &json!({"type": name, "response": begun})));
    }
    let items = output(answer);
    for (index, item) in items.as_array().into_iter().flatten().enumerate() {
        let place = Place { index, item };
        match text(item, "type") {
            Some("message") => place.message(&said.text, &mut script),
            Some("function_call") => place.call(&mut script),
            _ => place.bare(&mut script),
        }
    }
    let mut ended = response(answer, status(said), &items);
    ended["usage"] = usage(answer.usage);
    ended["credits_consumed"] = json!(answer.credits);
    if said.ending == Ending::Length {
        ended["incomplete_details"] = incomplete(said);
    }
    let name = format!("response.{}", status(said));
    script.add(event(Some(&name), &json!({"type": name, "response": ended})));
    script.add(Piece::Event("data: [DONE]\n\n".into()));
    script
}

/// The answer as its first and last events show it.
fn response(answer: &Answer<'_>, status: &str, output: &Value) -> Value {
    json!({
        "id": answer.id,
        "object": "response",
        "created_at": answer.created.seconds(),
        "status": status,
        "model": answer.model,
        "output": output,
    })
}

/// An item of the output, and where it stands.
struct Place<'a> {
    index: usize,
    item: &'a Value,
}

impl Place<'_> {
    /// Adds the event called `name`, with `more` beside its place.
    fn tell(&self, name: &str, more: &Value, script: &mut Script) {
        script.add(event(Some(name), &self.data(name, more)));
    }

    fn data(&self, name: &str, more: &Value) -> Value {
        let mut data = json!({"type": name});
        if more.get("item").is_none() {
            data["item_id"] = self.item["id"].clone();
        }
        data["output_index"] = self.index.into();
        for (key, value) in more.as_object().into_iter().flatten() {
            data[key] = value.clone();
        }
        data
    }

    /// The item appears, with what is not known yet in `empty`.
    fn added(&self, empty: &Value, script: &mut Script) {
        let mut item = self.item.clone();
        for (key, value) in empty.as_object().into_iter().flatten() {
            item[key] = value.clone();
        }
        self.tell("response.output_item.added", &json!({"item": item}), script);
    }

    fn done(&self, script: &mut Script) {
        self.tell("response.output_item.done", &json!({"item": self.item}), script);
    }

    fn bare(&self, script: &mut Script) {
        self.added(&json!({}), script);
        self.done(script);
    }

    fn message(&self, said: &str, script: &mut Script) {
        self.added(&json!({"content": [], "status": "in_progress"}), script);
        let part = |text: &str| {
            let part = json!({"type": "output_text", "text": text, "annotations": []});
            json!({"content_index": 0, "part": part})
        };
        self.tell("response.content_part.added", &part(""), script);
        let name = "response.output_text.delta";
        let data = self.data(name, &json!({"content_index": 0, "delta": ""}));
        script.add(deltas(Some(name), data, "/delta", said));
        self.tell("response.output_text.done", &json!({"content_index": 0, "text": said}), script);
        self.tell("response.content_part.done", &part(said), script);
        self.done(script);
    }

    fn call(&self, script: &mut Script) {
        self.added(&json!({"arguments": "", "status": "in_progress"}), script);
        let arguments = text(self.item, "arguments").unwrap_or_default();
        let name = "response.function_call_arguments.delta";
        script.add(deltas(Some(name), self.data(name, &json!({"delta": ""})), "/delta", arguments));
        self.tell("response.function_call_arguments.done", &json!({"arguments": arguments}), script);
        self.done(script);
    }
}

fn usage(usage: Usage) -> Value {
    json!({"total_tokens": usage.total(), "output_tokens": usage.output(), "input_tokens": usage.input})
}
