//! Google's generateContent: `contents` in, `candidates` out.
//!
//! Fields may be spelled with underscores or in camel case, as Google's own JSON allows.

use serde_json::{Value, json};

use super::Answer;
use super::ask::{Ask, Choice, Format, Weight, list, number, said, text, texts, tool};
use super::reply::{Ending, Said};
use super::script::{Script, deltas, event, first_bit};

/// What `request` asks for.
pub(super) fn read(request: &Value) -> Ask {
    let contents = list(request, "contents");
    let parts = |content: &Value| said(&content["parts"]);
    let spoken = |content: &&Value| text(content, "role") != Some("model") && !parts(content).is_empty();
    let config = either(request, "generationConfig", "generation_config");
    let thinking = either(config, "thinkingConfig", "thinking_config");
    let results = contents.last().map_or(&[][..], |content| list(content, "parts"));
    let results = results.iter().map(|part| either(part, "functionResponse", "function_response"));
    let calling = either(
        either(request, "toolConfig", "tool_config"),
        "functionCallingConfig",
        "function_calling_config",
    );
    let allowed = texts(Some(either(calling, "allowedFunctionNames", "allowed_function_names")));
    let mut tools: Vec<_> = list(request, "tools").iter().flat_map(functions).collect();
    tools.retain(|tool| allowed.is_empty() || allowed.contains(&tool.name));
    let schema = [("responseSchema", "response_schema"), ("responseJsonSchema", "response_json_schema")];
    let schema =
        schema.map(|(one, other)| either(config, one, other)).into_iter().find(|schema| schema.is_object());
    let as_json = text(config, "responseMimeType").or_else(|| text(config, "response_mime_type"))
        == Some("application/json");
    let shows = either(thinking, "includeThoughts", "include_thoughts");
    Ask {
        stream: request["stream"].as_bool(),
        prompt: contents.iter().rev().find(spoken).map(parts).unwrap_or_default(),
        results: results
            .filter(|result| result.is_object())
            .map(|result| result["response"].to_string())
            .collect(),
        tools,
        choice: match text(calling, "mode").map(str::to_ascii_uppercase).as_deref() {
            Some("ANY") => Choice::Any,
            Some("NONE") => Choice::None,
            _ => Choice::Auto,
        },
        one_call: false,
        most: number(config, "maxOutputTokens").or_else(|| number(config, "max_output_tokens")),
        stops: texts(config.get("stopSequences").or_else(|| config.get("stop_sequences"))),
        count: number(config, "candidateCount").or_else(|| number(config, "candidate_count")).unwrap_or(1),
        format: match schema {
            Some(schema) => Format::Schema(schema.clone()),
            None if as_json => Format::Json,
            None => Format::Text,
        },
        thinks: thinking.is_object(),
        shows_thoughts: shows.as_bool(),
        weight: Weight::of(request, &["systemInstruction", "system_instruction", "contents", "tools"]),
    }
}

/// The member under one of its two names, or null.
fn either<'v>(value: &'v Value, one: &str, other: &str) -> &'v Value {
    value.get(one).or_else(|| value.get(other)).unwrap_or(&Value::Null)
}

fn functions(tools: &Value) -> impl Iterator<Item = super::ask::Tool> {
    let declared = either(tools, "functionDeclarations", "function_declarations").as_array();
    declared.into_iter().flatten().filter_map(|one| {
        let parameters = ["parameters", "parametersJsonSchema", "parameters_json_schema"];
        tool(text(one, "name"), parameters.iter().find_map(|name| one.get(*name)))
    })
}

/// Why it ended, in the dialect's words.
pub(super) fn finish(ending: &Ending) -> &'static str {
    if *ending == Ending::Length { "MAX_TOKENS" } else { "STOP" }
}

/// All candidates, for answers in one piece. Before a call no thoughts are told, by the documentation's example.
pub(super) fn candidates(answer: &Answer<'_>) -> Value {
    let thoughts = answer.told_thoughts(false).map(|thoughts| json!({"text": thoughts, "thought": true}));
    let candidates = answer.reply.choices.iter().enumerate().map(|(index, said)| {
        let mut parts: Vec<Value> = thoughts.iter().filter(|_| said.calls.is_empty()).cloned().collect();
        if said.calls.is_empty() {
            parts.push(json!({"text": said.text}));
        }
        parts.extend(calls(answer, index, said));
        json!({"index": index, "finishReason": finish(&said.ending), "parts": parts})
    });
    candidates.collect()
}

fn calls(answer: &Answer<'_>, index: usize, said: &Said) -> Vec<Value> {
    let calls = said.calls.iter().enumerate().map(|(number, call)| {
        let id = answer.letters(&format!("call/{index}/{number}"), 8).to_lowercase();
        let mut part = json!({"functionCall": {"args": call.arguments, "name": call.name, "id": id}});
        if number == 0 {
            part["thoughtSignature"] = answer.letters("signature", 64).into();
        }
        part
    });
    calls.collect()
}

/// The events of a stream: each is a body.
pub(super) fn events(answer: &Answer<'_>) -> Script {
    let mut script = Script::default();
    let count = answer.reply.choices.len();
    for (index, said) in answer.reply.choices.iter().enumerate() {
        let place = "/candidates/0/content/parts/0/text";
        if let Some(thoughts) = answer.told_thoughts(true).filter(|_| said.calls.is_empty()) {
            let body = body(answer, index, &json!([{"text": "", "thought": true}]), None);
            script.add(deltas(None, body, place, thoughts));
        }
        let mut end = json!(calls(answer, index, said));
        if said.calls.is_empty() {
            let (rest, bit) = last_bit(&said.text);
            script.add(deltas(None, body(answer, index, &json!([{"text": ""}]), None), place, rest));
            end = json!([{"text": bit}]);
        }
        let mut body = body(answer, index, &end, Some(finish(&said.ending)));
        if index + 1 == count {
            body["usageMetadata"] = usage(answer);
            body["credits_consumed"] = json!(answer.credits);
        }
        if let Some(id) = body.as_object_mut().and_then(|members| members.shift_remove("responseId")) {
            body["responseId"] = id;
        }
        script.add(event(None, &body));
    }
    script
}

/// `text` up to its last bit, and that.
fn last_bit(text: &str) -> (&str, &str) {
    let mut at = 0;
    loop {
        let (bit, rest) = first_bit(&text[at..]);
        if rest.is_empty() {
            return text.split_at(at);
        }
        at += bit.len();
    }
}

fn body(answer: &Answer<'_>, index: usize, parts: &Value, finish: Option<&str>) -> Value {
    let mut candidate = json!({"index": index});
    if let Some(finish) = finish {
        candidate["finishReason"] = finish.into();
    }
    candidate["content"] = json!({"role": "model", "parts": parts});
    json!({"candidates": [candidate], "modelVersion": answer.model, "responseId": answer.id})
}

fn usage(answer: &Answer<'_>) -> Value {
    let usage = answer.usage;
    let mut value = json!({"promptTokenCount": usage.input, "candidatesTokenCount": usage.spoken});
    if usage.thinking > 0 {
        value["thoughtsTokenCount"] = usage.thinking.into();
    }
    value["totalTokenCount"] = usage.total().into();
    value
}
