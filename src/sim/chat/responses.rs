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

/// The events of a stream.
pub(super) fn events(answer: &Answer<'_>) -> Script {
    let said = answer.first();
    let mut script = Script::default();
    let begun = json!({
        "id": answer.id,
        "object": "response",
        "status": "in_progress",
        "model": answer.model,
        "output": [],
    });
    script.add(event(Some("response.created"), &json!({"type": "response.created", "response": begun})));
    let items = output(answer);
    if said.calls.is_empty() {
        let data = json!({
            "type": "response.output_text.delta",
            "item_id": message_id(answer),
            "output_index": items.as_array().map_or(0, |items| items.len() - 1),
            "content_index": 0,
            "delta": "",
        });
        script.add(deltas(Some("response.output_text.delta"), data, "/delta", &said.text));
    }
    for (number, call) in said.calls.iter().enumerate() {
        let data = json!({
            "type": "response.function_call_arguments.delta",
            "item_id": call_item(answer, number),
            "output_index": number,
            "delta": "",
        });
        let name = Some("response.function_call_arguments.delta");
        script.add(deltas(name, data, "/delta", &call.arguments.to_string()));
    }
    let mut ended = json!({
        "id": answer.id,
        "object": "response",
        "status": status(said),
        "model": answer.model,
        "output": items,
        "usage": usage(answer.usage),
        "credits_consumed": answer.credits,
    });
    if said.ending == Ending::Length {
        ended["incomplete_details"] = incomplete(said);
    }
    let name = format!("response.{}", status(said));
    script.add(event(Some(&name), &json!({"type": name, "response": ended})));
    script.add(Piece::Event("data: [DONE]\n\n".into()));
    script
}

fn usage(usage: Usage) -> Value {
    json!({"total_tokens": usage.total(), "output_tokens": usage.output(), "input_tokens": usage.input})
}
