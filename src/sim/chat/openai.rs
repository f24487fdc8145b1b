//! Chat completions, the elder of `OpenAI`'s dialects: `messages` in, `choices` out.

use serde_json::{Value, json};

use super::ask::{Ask, Choice, Format, Weight, list, number, said, text, texts, tool};
use super::reply::{Ending, Said};
use super::script::{Piece, Script, deltas, event, first_bit};
use super::{Answer, Usage};

/// What `request` asks for. `search` names the function that is a built-in search.
pub(super) fn read(request: &Value, search: Option<&str>) -> Ask {
    let messages = list(request, "messages");
    let role = |message: &Value, wanted: &str| text(message, "role") == Some(wanted);
    let trailing = messages.iter().rev().take_while(|message| role(message, "tool")).count();
    let content = |message: &Value| said(&message["content"]);
    let functions = list(request, "tools").iter().map(|tool| &tool["function"]);
    let functions = functions.filter(|function| text(function, "name") != search || search.is_none());
    Ask {
        stream: request["stream"].as_bool(),
        prompt: messages.iter().rev().find(|message| role(message, "user")).map(content).unwrap_or_default(),
        results: messages[messages.len() - trailing..].iter().map(content).collect(),
        tools: functions.filter_map(|one| tool(text(one, "name"), one.get("parameters"))).collect(),
        choice: choice(&request["tool_choice"], |named| text(&named["function"], "name")),
        one_call: request["parallel_tool_calls"] == false,
        most: number(request, "max_completion_tokens").or_else(|| number(request, "max_tokens")),
        stops: texts(request.get("stop")),
        count: number(request, "n").unwrap_or(1),
        format: format(&request["response_format"]),
        thinks: !request["reasoning_effort"].is_null() || request["include_thoughts"] == true,
        shows_thoughts: request["include_thoughts"].as_bool(),
        weight: Weight::of(request, &["messages", "tools"]),
    }
}

/// Reads `tool_choice`, of which both dialects have the words.
pub(super) fn choice<'v>(value: &'v Value, name: impl Fn(&'v Value) -> Option<&'v str>) -> Choice {
    match value.as_str() {
        Some("none") => Choice::None,
        Some("required" | "any") => Choice::Any,
        _ => name(value).map_or(Choice::Auto, |name| Choice::Named(name.to_owned())),
    }
}

fn format(value: &Value) -> Format {
    match text(value, "type") {
        Some("json_object") => Format::Json,
        Some("json_schema") => match value["json_schema"].get("schema") {
            Some(schema) => Format::Schema(schema.clone()),
            // The vendor's own example has the properties beside the type.
            None if value.get("properties").is_some() => {
                let mut schema = value.clone();
                schema["type"] = "object".into();
                Format::Schema(schema)
            }
            None => Format::Json,
        },
        _ => Format::Text,
    }
}

/// Why it ended, in the dialect's words.
pub(super) fn finish(ending: &Ending) -> &'static str {
    match ending {
        Ending::Stop | Ending::Sequence(_) => "stop",
        Ending::Length => "length",
        Ending::Tools => "tool_calls",
    }
}

fn tool_calls(said: &Said, answer: &Answer<'_>, index: usize) -> Vec<Value> {
    let calls = said.calls.iter().enumerate().map(|(number, call)| {
        let id = format!("call_{}", answer.letters(&format!("call/{index}/{number}"), 24));
        json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments.to_string()}})
    });
    calls.collect()
}

/// All choices, for answers in one piece.
pub(super) fn choices(answer: &Answer<'_>) -> Value {
    let thoughts = answer.told_thoughts(false);
    let choices = answer.reply.choices.iter().enumerate().map(|(index, said)| {
        let calls = tool_calls(said, answer, index);
        json!({
            "index": index,
            "finish_reason": finish(&said.ending),
            "content": if calls.is_empty() { Value::from(said.text.as_str()) } else { Value::Null },
            "reasoning_content": thoughts,
            "tool_calls": if calls.is_empty() { Value::Null } else { calls.into() },
        })
    });
    choices.collect()
}

/// The chunks of a stream.
pub(super) fn events(answer: &Answer<'_>) -> Script {
    let mut script = Script::default();
    for (index, said) in answer.reply.choices.iter().enumerate() {
        let mut begun = false;
        if let Some(thoughts) = answer.told_thoughts(true) {
            add_text(&mut script, answer, index, ("reasoning_content", thoughts), &mut begun);
        }
        if said.calls.is_empty() {
            add_text(&mut script, answer, index, ("content", &said.text), &mut begun);
        }
        for (number, mut call) in tool_calls(said, answer, index).into_iter().enumerate() {
            let arguments = call["function"]["arguments"].as_str().unwrap_or_default().to_owned();
            call["function"]["arguments"] = "".into();
            let mut numbered = json!({"index": number});
            numbered.as_object_mut().into_iter().for_each(|members| {
                members.extend(call.as_object().cloned().unwrap_or_default());
            });
            let delta = first(json!({"tool_calls": [numbered]}), &mut begun);
            script.add(event(None, &body(answer, index, &delta, None)));
            let more = json!({"tool_calls": [{"index": number, "function": {"arguments": ""}}]});
            let place = "/choices/0/delta/tool_calls/0/function/arguments";
            script.add(deltas(None, body(answer, index, &more, None), place, &arguments));
        }
        script.add(last(answer, index, said));
    }
    script.add(Piece::Event("data: [DONE]\n\n".into()));
    script
}

/// Adds a text of the message; the first chunk of all says whose it is.
fn add_text(
    script: &mut Script,
    answer: &Answer<'_>,
    index: usize,
    (name, text): (&str, &str),
    begun: &mut bool,
) {
    let mut rest = text;
    if !*begun {
        let (bit, after) = first_bit(text);
        let delta = first(json!({name: bit}), begun);
        script.add(event(None, &body(answer, index, &delta, None)));
        rest = after;
    }
    let place = format!("/choices/0/delta/{name}");
    script.add(deltas(None, body(answer, index, &json!({name: ""}), None), &place, rest));
}

/// `delta`, which says whose message it is where it is the first.
fn first(delta: Value, begun: &mut bool) -> Value {
    if std::mem::replace(begun, true) {
        return delta;
    }
    let mut with_role = json!({"role": "assistant"});
    if let (Some(members), Value::Object(more)) = (with_role.as_object_mut(), delta) {
        members.extend(more);
    }
    with_role
}

fn body(answer: &Answer<'_>, index: usize, delta: &Value, finish: Option<&str>) -> Value {
    json!({
        "id": answer.id,
        "object": "chat.completion.chunk",
        "created": answer.created.seconds(),
        "model": answer.model,
        "choices": [{"index": index, "delta": delta, "finish_reason": finish}],
    })
}

/// The end of a choice; after the last one stands what all of them cost.
fn last(answer: &Answer<'_>, index: usize, said: &Said) -> Piece {
    let mut body = body(answer, index, &json!({}), Some(finish(&said.ending)));
    if index + 1 == answer.reply.choices.len() {
        body["credits_consumed"] = json!(answer.credits);
        body["usage"] = usage(answer.usage);
    }
    event(None, &body)
}

fn usage(usage: Usage) -> Value {
    let mut value = json!({"prompt_tokens": usage.input, "completion_tokens": usage.output()});
    if usage.thinking > 0 {
        value["completion_tokens_details"] = json!({"reasoning_tokens": usage.thinking});
    }
    value["total_tokens"] = usage.total().into();
    value
}
