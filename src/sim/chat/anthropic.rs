//! Anthropic's messages: `messages` in, blocks of `content` out.

use serde_json::{Value, json};

use super::Answer;
use super::ask::{Ask, Choice, Format, Weight, list, number, said, text, texts, tool};
use super::reply::Ending;
use super::script::{Script, deltas, event};

/// What `request` asks for.
pub(super) fn read(request: &Value) -> Ask {
    let messages = list(request, "messages");
    let spoken =
        |message: &&Value| text(message, "role") == Some("user") && !said(&message["content"]).is_empty();
    let is_result = |block: &&Value| text(block, "type") == Some("tool_result");
    let results = messages.last().map_or(&[][..], |message| list(message, "content"));
    let tools = list(request, "tools").iter().filter(|tool| tool.get("input_schema").is_some());
    let flag = request["thinkingFlag"] == true;
    let thinking = matches!(text(&request["thinking"], "type"), Some("enabled" | "adaptive"));
    let choice = &request["tool_choice"];
    Ask {
        stream: request["stream"].as_bool(),
        prompt: messages
            .iter()
            .rev()
            .find(spoken)
            .map(|message| said(&message["content"]))
            .unwrap_or_default(),
        results: results.iter().filter(is_result).map(|block| said(&block["content"])).collect(),
        tools: tools.filter_map(|one| tool(text(one, "name"), one.get("input_schema"))).collect(),
        choice: match text(choice, "type") {
            Some("none") => Choice::None,
            Some("any") => Choice::Any,
            Some("tool") => text(choice, "name").map_or(Choice::Any, |name| Choice::Named(name.to_owned())),
            _ => Choice::Auto,
        },
        one_call: choice["disable_parallel_tool_use"] == true,
        most: number(request, "max_tokens"),
        stops: texts(request.get("stop_sequences")),
        count: 1,
        format: format(request),
        thinks: flag || thinking,
        // A call made under the vendor's own switch has no thoughts before it, by its documentation.
        shows_thoughts: thinking.then_some(true),
        weight: Weight::of(request, &["system", "messages", "tools"]),
    }
}

fn format(request: &Value) -> Format {
    let format = [&request["output_config"]["format"], &request["output_format"]];
    let wanted = format.into_iter().find(|format| text(format, "type") == Some("json_schema"));
    match wanted.and_then(|format| format.get("schema")) {
        Some(schema) => Format::Schema(schema.clone()),
        None => Format::Text,
    }
}

/// Why it ended, in the dialect's words.
pub(super) fn stop_reason(ending: &Ending) -> &'static str {
    match ending {
        Ending::Stop => "end_turn",
        Ending::Length => "max_tokens",
        Ending::Sequence(_) => "stop_sequence",
        Ending::Tools => "tool_use",
    }
}

/// The blocks of the answer.
pub(super) fn content(answer: &Answer<'_>) -> Value {
    let said = answer.first();
    let mut blocks: Vec<Value> = thoughts(answer).into_iter().collect();
    if said.calls.is_empty() {
        blocks.push(json!({"text": said.text, "type": "text"}));
    }
    blocks.extend(said.calls.iter().enumerate().map(|(number, call)| {
        json!({
            "input": call.arguments,
            "caller": {"type": "direct"},
            "name": call.name,
            "id": tool_id(answer, number),
            "type": "tool_use",
        })
    }));
    blocks.into()
}

fn tool_id(answer: &Answer<'_>, number: usize) -> String {
    format!("toolu_01{}", answer.letters(&format!("call/{number}"), 22))
}

fn thoughts(answer: &Answer<'_>) -> Option<Value> {
    let by_flag_alone = answer.ask.shows_thoughts.is_none();
    if by_flag_alone && !answer.first().calls.is_empty() {
        return None;
    }
    (answer.usage.thinking > 0).then(|| {
        json!({"type": "thinking", "thinking": answer.reply.thoughts, "signature": answer.letters("signature", 64)})
    })
}

/// The events of a stream.
pub(super) fn events(answer: &Answer<'_>) -> Script {
    let said = answer.first();
    let mut script = Script::default();
    let mut add = |data: Value| script.add(event(text(&data, "type"), &data));
    let message = json!({
        "id": answer.id,
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [],
        "stop_reason": null,
        "usage": {"input_tokens": answer.usage.input, "output_tokens": 1},
    });
    add(json!({"type": "message_start", "message": message}));
    for (index, block) in content(answer).as_array().into_iter().flatten().enumerate() {
        add_block(&mut script, index, block);
    }
    let stop_sequence = if let Ending::Sequence(text) = &said.ending { Some(text) } else { None };
    let end = json!({
        "type": "message_delta",
        "delta": {"stop_reason": stop_reason(&said.ending), "stop_sequence": stop_sequence},
        "usage": {"output_tokens": answer.usage.output()},
        "credits_consumed": answer.credits,
    });
    script.add(event(Some("message_delta"), &end));
    script.add(event(Some("message_stop"), &json!({"type": "message_stop"})));
    script
}

/// A block begins empty and comes bit by bit.
fn add_block(script: &mut Script, index: usize, block: &Value) {
    let (empty, kind, field, whole) = match text(block, "type") {
        Some("thinking") => {
            let whole = text(block, "thinking").unwrap_or_default().to_owned();
            (
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                "thinking_delta",
                "thinking",
                whole,
            )
        }
        Some("tool_use") => {
            let empty = json!({"type": "tool_use", "id": block["id"], "name": block["name"], "input": {}});
            (empty, "input_json_delta", "partial_json", block["input"].to_string())
        }
        _ => {
            let whole = text(block, "text").unwrap_or_default().to_owned();
            (json!({"type": "text", "text": ""}), "text_delta", "text", whole)
        }
    };
    let start = json!({"type": "content_block_start", "index": index, "content_block": empty});
    script.add(event(Some("content_block_start"), &start));
    let delta = json!({"type": "content_block_delta", "index": index, "delta": {"type": kind, field: ""}});
    script.add(deltas(Some("content_block_delta"), delta, &format!("/delta/{field}"), &whole));
    if let Some(signature) = text(block, "signature") {
        let delta = json!({"type": "signature_delta", "signature": signature});
        let sign = json!({"type": "content_block_delta", "index": index, "delta": delta});
        script.add(event(Some("content_block_delta"), &sign));
    }
    let stop = json!({"type": "content_block_stop", "index": index});
    script.add(event(Some("content_block_stop"), &stop));
}
