//! Chats: text, tool calls and refusals in every dialect, in one piece and as events.

use std::time::Duration;

use http::{Method, Request};
use kiegate::catalogue::{Chat, ChatModel, Dialect, Operation};
use serde_json::{Value, json};

use crate::support::{Answer, CATALOGUE, Client, World};

const QUESTION: &str = "What is the weather in Beijing?";

/// All operations that talk.
fn chats() -> impl Iterator<Item = (&'static Operation, &'static Chat)> {
    CATALOGUE.operations().filter_map(|(_, operation)| Some((operation, operation.chat()?)))
}

/// A request in the operation's dialect that says `text`; `stream` says how the answer shall come.
fn saying(operation: &Operation, text: &str, stream: Option<bool>) -> Value {
    let chat = operation.chat().unwrap();
    let mut request = match chat.dialect {
        Dialect::OpenaiChat | Dialect::Anthropic => json!({"messages": [{"role": "user", "content": text}]}),
        Dialect::Responses => json!({"input": text}),
        Dialect::Gemini => json!({"contents": [{"role": "user", "parts": [{"text": text}]}]}),
    };
    if let ChatModel::At(at) = &chat.model {
        let choices = operation.request.as_ref().unwrap().choices(at);
        request[at.trim_start_matches('/')] = choices[0].into();
    }
    if let Some(stream) = stream {
        request["stream"] = stream.into();
    }
    request
}

/// Offers a weather tool in the request's dialect.
fn offer_tool(dialect: Dialect, request: &mut Value) {
    let schema =
        json!({"type": "object", "required": ["location"], "properties": {"location": {"type": "string"}}});
    offer_tool_of(dialect, request, &schema);
}

/// Offers a weather tool that takes arguments of `schema`.
fn offer_tool_of(dialect: Dialect, request: &mut Value, schema: &Value) {
    request["tools"] = match dialect {
        Dialect::OpenaiChat => {
            json!([{"type": "function", "function": {"name": "weather", "parameters": schema}}])
        }
        Dialect::Responses => json!([{"type": "function", "name": "weather", "parameters": schema}]),
        Dialect::Anthropic => json!([{"name": "weather", "description": "x", "input_schema": schema}]),
        Dialect::Gemini => {
            json!([{"functionDeclarations": [{"name": "weather", "description": "x", "parameters": schema}]}])
        }
    };
}

/// Demands that a tool is called.
fn force_tool(dialect: Dialect, request: &mut Value) {
    match dialect {
        Dialect::OpenaiChat | Dialect::Responses => request["tool_choice"] = "required".into(),
        Dialect::Anthropic => request["tool_choice"] = json!({"type": "any"}),
        Dialect::Gemini => request["toolConfig"] = json!({"functionCallingConfig": {"mode": "ANY"}}),
    }
}

/// What is said in an answer in one piece.
fn text_of(dialect: Dialect, body: &Value) -> String {
    let text = match dialect {
        Dialect::OpenaiChat => &body["choices"][0]["message"]["content"],
        Dialect::Responses => &body["output"].as_array().unwrap().last().unwrap()["content"][0]["text"],
        Dialect::Anthropic => &body["content"].as_array().unwrap().last().unwrap()["text"],
        Dialect::Gemini => &body["candidates"][0]["content"]["parts"][0]["text"],
    };
    text.as_str().unwrap_or_else(|| panic!("no text: {body}")).to_owned()
}

/// Name and arguments of the tool that an answer in one piece calls.
fn call_of(dialect: Dialect, body: &Value) -> (Value, Value) {
    let parsed = |text: &Value| serde_json::from_str(text.as_str().unwrap()).unwrap();
    match dialect {
        Dialect::OpenaiChat => {
            let call = &body["choices"][0]["message"]["tool_calls"][0]["function"];
            (call["name"].clone(), parsed(&call["arguments"]))
        }
        Dialect::Responses => (body["output"][0]["name"].clone(), parsed(&body["output"][0]["arguments"])),
        Dialect::Anthropic => {
            let call = body["content"].as_array().unwrap().last().unwrap();
            (call["name"].clone(), call["input"].clone())
        }
        Dialect::Gemini => {
            let call = &body["candidates"][0]["content"]["parts"][0]["functionCall"];
            (call["name"].clone(), call["args"].clone())
        }
    }
}

/// An event's name, empty where it has none, and its data.
fn events(answer: &Answer) -> Vec<(String, Value)> {
    assert_eq!(answer.header("content-type"), "text/event-stream", "{}", answer.text());
    let text = answer.text();
    let blocks = text.split_terminator("\n\n").map(|block| {
        let (name, data) = match block.strip_prefix("event: ") {
            Some(rest) => rest.split_once('\n').unwrap(),
            None => ("", block),
        };
        let data = data.strip_prefix("data: ").unwrap_or_else(|| panic!("no data: {block}"));
        assert!(!data.contains('\n'));
        (
            name.to_owned(),
            if data == "[DONE]" { json!("[DONE]") } else { serde_json::from_str(data).unwrap() },
        )
    });
    blocks.collect()
}

/// All that the events say, put together.
fn streamed_text(dialect: Dialect, events: &[(String, Value)]) -> String {
    let bit = |(_, data): &(String, Value)| {
        let text = match dialect {
            Dialect::OpenaiChat => &data["choices"][0]["delta"]["content"],
            Dialect::Responses => &data["delta"],
            Dialect::Anthropic => &data["delta"]["text"],
            Dialect::Gemini => {
                let part = &data["candidates"][0]["content"]["parts"][0];
                if part["thought"] == true { &Value::Null } else { &part["text"] }
            }
        };
        text.as_str().unwrap_or_default().to_owned()
    };
    events.iter().map(bit).collect()
}

/// The credits that an answer says it has cost.
fn credits_in(body: &Value) -> f64 {
    let place =
        ["/credits_consumed", "/response/credits_consumed"].into_iter().find_map(|at| body.pointer(at));
    place.and_then(Value::as_f64).unwrap_or_else(|| panic!("no credits: {body}"))
}

async fn whole(client: &Client, operation: &Operation, text: &str) -> Value {
    client.post(&operation.path, &saying(operation, text, Some(false))).await.expect_status(200).json()
}

#[tokio::test(start_paused = true)]
async fn every_chat_answers_in_one_piece_and_in_events() {
    let world = World::standard();
    let client = world.client("acme");
    let mut count = 0;
    for (operation, chat) in chats() {
        count += 1;
        let body = whole(&client, operation, QUESTION).await;
        let text = text_of(chat.dialect, &body);
        assert!(text.contains(QUESTION), "{}: {text}", operation.id);
        let answer = client.post(&operation.path, &saying(operation, QUESTION, Some(true))).await;
        let events = events(&answer);
        assert!(streamed_text(chat.dialect, &events).contains(QUESTION), "{}: {events:?}", operation.id);
        assert!(events.len() > 5, "{}", operation.id);
    }
    assert_eq!(count, 23);
}

#[tokio::test(start_paused = true)]
async fn an_answer_streams_by_default_where_the_real_one_does() {
    let world = World::standard();
    for (operation, chat) in chats() {
        for path in std::iter::once(&operation.path).chain(&operation.also) {
            let answer =
                world.client("acme").post(path, &saying(operation, "x", None)).await.expect_status(200);
            let streams = answer.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
            assert_eq!(streams, chat.stream_default && !chat.whole_at.contains(path), "{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_example_is_answered() {
    let client = World::standard().client("acme");
    for (operation, _) in chats() {
        let answer =
            client.post(&operation.path, operation.example.as_ref().unwrap()).await.expect_status(200);
        assert!(!answer.text().starts_with("{\"code\""), "{}: {}", operation.id, answer.text());
    }
}

#[tokio::test(start_paused = true)]
async fn content_types_are_as_recorded() {
    let world = World::standard();
    let client = world.client("acme");
    for (id, expected) in [
        ("chat.gpt-5-2", None),
        ("chat.claude.messages", None),
        ("chat.gemini-3-pro", Some("application/json")),
        ("chat.codex.responses", Some("application/json")),
    ] {
        let operation = CATALOGUE.operation(CATALOGUE.operation_by_id(id).unwrap());
        let answer = client.post(&operation.path, &saying(operation, "x", Some(false))).await;
        let found = answer.headers.get("content-type").map(|value| value.to_str().unwrap());
        assert_eq!(found, expected, "{id}");
        let refused = client.post(&operation.path, &json!({})).await.expect_code(422);
        assert_eq!(refused.header("content-type"), "application/json;charset=utf-8");
    }
}

#[tokio::test(start_paused = true)]
async fn openai_chunks_have_their_order() {
    let world = World::standard();
    let request = json!({"messages": [{"role": "user", "content": "[[mock:text:Hello there, friend]]"}]});
    let answer = world.client("acme").post("/gemini-3-pro/v1/chat/completions", &request).await;
    let events = events(&answer);
    assert_eq!(events.last().unwrap().1, "[DONE]");
    let chunks: Vec<&Value> = events[..events.len() - 1].iter().map(|(_, data)| data).collect();
    let keys: Vec<&String> = chunks[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id", "object", "created", "model", "choices"]);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == chunks[0]["id"])
    );
    let delta = |chunk: &Value| chunk["choices"][0]["delta"].clone();
    assert_eq!(delta(chunks[0])["role"], "assistant");
    assert!(delta(chunks[0])["reasoning_content"].is_string(), "thoughts come first: {}", chunks[0]);
    assert_eq!(chunks.iter().filter(|chunk| !delta(chunk)["role"].is_null()).count(), 1);
    let last = chunks.last().unwrap();
    let keys: Vec<&String> = last.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id", "object", "created", "model", "choices", "credits_consumed", "usage"]);
    assert_eq!((delta(last), &last["choices"][0]["finish_reason"]), (json!({}), &json!("stop")));
    assert_eq!(streamed_text(Dialect::OpenaiChat, &events), "Hello there, friend");
    let silent = json!({"messages": request["messages"], "include_thoughts": false});
    let answer = world.client("acme").post("/gemini-3-pro/v1/chat/completions", &silent).await;
    assert!(!answer.text().contains("reasoning_content"));
}

#[tokio::test(start_paused = true)]
async fn anthropic_events_have_their_names_and_order() {
    let world = World::standard();
    let mut request = json!({"model": "claude-haiku-4-5", "thinkingFlag": true,
        "messages": [{"role": "user", "content": "[[mock:text:Hi]]"}]});
    let names = |answer: &Answer| {
        let mut names: Vec<String> = events(answer)
            .into_iter()
            .map(|(name, data)| {
                assert_eq!(name, data["type"].as_str().unwrap());
                name
            })
            .collect();
        names.dedup();
        names
    };
    let block = ["content_block_start", "content_block_delta", "content_block_stop"];
    let answer = world.client("acme").post("/claude/v1/messages", &request).await;
    let expected = [&["message_start"][..], &block, &block, &["message_delta", "message_stop"]].concat();
    assert_eq!(names(&answer), expected);
    offer_tool(Dialect::Anthropic, &mut request);
    force_tool(Dialect::Anthropic, &mut request);
    request["messages"][0]["content"] = QUESTION.into();
    let answer = world.client("acme").post("/claude/v1/messages", &request).await;
    assert_eq!(names(&answer), [&["message_start"][..], &block, &["message_delta", "message_stop"]].concat());
    let events = events(&answer);
    let json: String = events.iter().filter_map(|(_, data)| data["delta"]["partial_json"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), json!({"location": "Beijing"}));
    let end = &events[events.len() - 2].1;
    assert_eq!(end["delta"], json!({"stop_reason": "tool_use", "stop_sequence": null}));
    assert!(credits_in(end) > 0.0);
}

#[tokio::test(start_paused = true)]
async fn responses_events_have_their_names_and_order() {
    let world = World::standard();
    let mut request = json!({"model": "gpt-5-4", "input": QUESTION, "stream": true});
    let client = world.client("acme");
    let names = |request: &Value| {
        let (client, request) = (client.clone(), request.clone());
        async move {
            let events = events(&client.post("/codex/v1/responses", &request).await);
            let mut names: Vec<String> = events.iter().map(|(name, _)| name.clone()).collect();
            names.dedup();
            assert_eq!(events.last().unwrap().1, "[DONE]");
            (names, events)
        }
    };
    let (found, events) = names(&request).await;
    let of_item = ["output_item.added", "output_item.done"];
    let of_text = ["content_part.added", "output_text.delta", "output_text.done", "content_part.done"];
    let whole = |middle: &[&str]| -> Vec<String> {
        let told = ["created", "in_progress"].iter().chain(middle).chain(&["completed"]);
        told.map(|name| format!("response.{name}")).chain([String::new()]).collect()
    };
    let spoken: Vec<&str> = [of_item.as_slice(), &of_item[..1], &of_text, &of_item[1..]].concat();
    assert_eq!(found, whole(&spoken));
    let delta = events.iter().find(|(name, _)| name == "response.output_text.delta").unwrap();
    assert_eq!(delta.1["output_index"], 1, "the reasoning item comes first");
    let done = events.iter().find(|(name, _)| name == "response.output_text.done").unwrap();
    let said: String = events
        .iter()
        .filter(|(name, _)| *name == delta.0)
        .map(|(_, data)| data["delta"].as_str().unwrap())
        .collect();
    assert_eq!(done.1["text"], said);
    let response = &events[events.len() - 2].1["response"];
    assert_eq!(
        (&response["status"], response["id"].as_str()),
        (&json!("completed"), events[0].1["response"]["id"].as_str())
    );
    request["max_output_tokens"] = 4.into();
    let (found, events) = names(&request).await;
    assert_eq!(found[found.len() - 2], "response.incomplete");
    assert_eq!(events[events.len() - 2].1["response"]["usage"]["output_tokens"], 4);
    let mut request = json!({"model": "gpt-5-4", "input": QUESTION, "stream": true});
    offer_tool(Dialect::Responses, &mut request);
    force_tool(Dialect::Responses, &mut request);
    let (found, _) = names(&request).await;
    let arguments = ["function_call_arguments.delta", "function_call_arguments.done"];
    assert_eq!(found, whole(&[&of_item[..1], &arguments, &of_item[1..]].concat()));
}

#[tokio::test(start_paused = true)]
async fn gemini_events_are_bodies_of_which_the_last_counts() {
    let world = World::standard();
    let request = json!({"contents": [{"role": "user", "parts": [{"text": QUESTION}]}]});
    let path = "/gemini/v1/models/gemini-3-flash-v1betamodels:streamGenerateContent";
    let events = events(&world.client("acme").post(path, &request).await);
    assert!(events.iter().all(|(name, data)| name.is_empty() && data["modelVersion"] == "gemini-3-flash"));
    let (last, others) = events.split_last().unwrap();
    assert!(
        others
            .iter()
            .all(|(_, data)| data["usageMetadata"].is_null()
                && data["candidates"][0]["finishReason"].is_null())
    );
    assert_eq!(last.1["candidates"][0]["finishReason"], "STOP");
    let usage = &last.1["usageMetadata"];
    let sum = ["promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount"]
        .map(|key| usage[key].as_u64().unwrap());
    assert_eq!(usage["totalTokenCount"], sum.iter().sum::<u64>());
}

#[tokio::test(start_paused = true)]
async fn tools_are_called_when_forced_or_wished_for_and_their_results_are_taken() {
    let world = World::standard();
    let client = world.client("acme");
    for (operation, chat) in chats() {
        let dialect = chat.dialect;
        let mut forced = saying(operation, QUESTION, Some(false));
        offer_tool(dialect, &mut forced);
        let free = forced.clone();
        force_tool(dialect, &mut forced);
        let mut wished = saying(operation, &format!("{QUESTION} [[mock:tool:weather]]"), Some(false));
        offer_tool(dialect, &mut wished);
        for request in [forced, wished.clone()] {
            let body = client.post(&operation.path, &request).await.expect_status(200).json();
            assert_eq!(call_of(dialect, &body), (json!("weather"), json!({"location": "Beijing"})), "{body}");
        }
        let body = client.wishing("tool:weather").post(&operation.path, &free).await.json();
        assert_eq!(call_of(dialect, &body).0, "weather");
        let body = client.post(&operation.path, &free).await.json();
        assert!(text_of(dialect, &body).contains(QUESTION), "an offer alone is no call");
        // The directive stands in the conversation still; its result is answered with text.
        add_result(dialect, &mut wished, "21 degrees");
        let body = client.post(&operation.path, &wished).await.expect_status(200).json();
        assert!(text_of(dialect, &body).contains("21 degrees"), "{body}");
    }
}

/// The turns that follow a tool call: the call, and what the tool gave back.
fn add_result(dialect: Dialect, request: &mut Value, result: &str) {
    match dialect {
        Dialect::OpenaiChat => request["messages"].as_array_mut().unwrap().extend([
            json!({"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]}),
            json!({"role": "tool", "tool_call_id": "c1", "content": result}),
        ]),
        Dialect::Responses => {
            let first = json!({"role": "user", "content": request["input"]});
            request["input"] = json!([
                first,
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": result},
            ]);
        }
        Dialect::Anthropic => request["messages"].as_array_mut().unwrap().extend([
            json!({"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {}}]}),
            json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": result}]}),
        ]),
        Dialect::Gemini => request["contents"].as_array_mut().unwrap().extend([
            json!({"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {}}}]}),
            json!({"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": {"result": result}}}]}),
        ]),
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_requests_in_the_same_order_get_the_same_answers() {
    let mut told = Vec::new();
    for _ in 0..2 {
        let client = World::standard().client("acme");
        client.freeze().await;
        let mut answers = Vec::new();
        for (operation, _) in chats() {
            for stream in [false, false, true] {
                let answer = client.post(&operation.path, &saying(operation, "x", Some(stream))).await;
                answers.push(answer.raw);
            }
        }
        told.push(answers);
    }
    assert_eq!(told[0], told[1]);
    assert_ne!(told[0][0], told[0][1], "each answer has an id of its own");
}

#[tokio::test(start_paused = true)]
async fn answers_keep_to_length_stops_and_count() {
    let world = World::standard();
    let client = world.client("acme");
    let spoken = [{ json!({"role": "user", "content": "[[mock:text:one two three four]]"}) }];
    let chat = |more: Value| {
        let mut request = json!({"messages": spoken, "stream": false});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let client = client.clone();
        async move { client.post("/gpt-5-2/v1/chat/completions", &request).await.json() }
    };
    let body = chat(json!({"max_tokens": 2})).await;
    assert_eq!(
        (&body["choices"][0]["finish_reason"], text_of(Dialect::OpenaiChat, &body)),
        (&json!("length"), "one two ".into())
    );
    assert_eq!(body["usage"]["completion_tokens"], 2);
    let body = chat(json!({"stop": ["three"]})).await;
    assert_eq!(
        (&body["choices"][0]["finish_reason"], text_of(Dialect::OpenaiChat, &body)),
        (&json!("stop"), "one two ".into())
    );
    let body = chat(json!({"n": 3})).await;
    assert_eq!(body["choices"].as_array().unwrap().len(), 3);
    let long = chat(json!({"messages": [{"role": "user", "content": "x".repeat(4000)}]})).await;
    assert_eq!(long["usage"]["prompt_tokens"], 1000);
    let picture = json!([{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]);
    let seen = chat(json!({"messages": [{"role": "user", "content": picture}]})).await;
    assert_eq!(seen["usage"]["prompt_tokens"], 2 + 258);
}

#[tokio::test(start_paused = true)]
async fn structured_answers_fit_their_schema() {
    let world = World::standard();
    let client = world.client("acme");
    let schema = json!({"type": "object", "required": ["city", "days"], "additionalProperties": false, "properties": {
        "city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}, "sky": {"enum": ["clear", "cloudy"]}}});
    let validator = kiegate::catalogue::Schema::new(schema.clone());
    let messages = json!([{"role": "user", "content": QUESTION}]);
    let format = json!({"type": "json_schema", "name": "weather", "schema": schema});
    for (dialect, path, request) in [
        (
            Dialect::OpenaiChat,
            "/gemini-3-pro/v1/chat/completions",
            json!({"messages": messages, "stream": false,
            "response_format": {"type": "json_schema", "json_schema": {"name": "weather", "schema": schema}}}),
        ),
        (
            Dialect::Responses,
            "/grok/v1/responses",
            json!({"model": "grok-4-3", "stream": false, "input": QUESTION, "text": {"format": format}}),
        ),
        (
            Dialect::Anthropic,
            "/claude/v1/messages",
            json!({"model": "claude-sonnet-4-5", "stream": false, "messages": messages,
            "output_config": {"format": {"type": "json_schema", "schema": schema}}}),
        ),
        (
            Dialect::Gemini,
            "/gemini/v1/models/gemini-3-5-flash:generateContent",
            json!({
            "contents": [{"role": "user", "parts": [{"text": QUESTION}]}],
            "generationConfig": {"responseMimeType": "application/json", "responseSchema": schema}}),
        ),
    ] {
        let body = client.post(path, &request).await.expect_status(200).json();
        let value: Value = serde_json::from_str(&text_of(dialect, &body)).unwrap();
        assert!(validator.accepts(&value), "{path}: {value}");
        assert_eq!(value["city"], "Beijing");
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_cost_credits_and_who_has_none_is_refused() {
    let world = World::standard();
    let client = world.client("acme");
    for id in [
        "chat.gpt-5-2",
        "chat.claude.messages",
        "chat.codex.responses",
        "chat.gemini-native.gemini-3-5-flash",
    ] {
        let operation = CATALOGUE.operation(CATALOGUE.operation_by_id(id).unwrap());
        let before = client.credits().await;
        let said = credits_in(&whole(&client, operation, &"word ".repeat(3000)).await);
        let paid = before - client.credits().await;
        assert!(said > 0.01 && (paid - said).abs() < 1e-6, "{id}: {said} said, {paid} paid");
    }
    client.put("/_mock/credits", &json!({"credits": 0})).await.expect_status(200);
    let request = json!({"messages": [{"role": "user", "content": "x"}], "stream": true});
    let answer = client.post("/gpt-5-2/v1/chat/completions", &request).await;
    answer.expect_refusal(402, "Credits insufficient : Your current balance isn't enough to run this request. Please top up to continue.");
    let page = world.metrics_page();
    assert!(
        page.contains(r#"kiegate_credits_total{kind="settled",model="gpt-5.2",tenant="other"}"#),
        "{page}"
    );
}

#[tokio::test(start_paused = true)]
async fn refusals_are_envelopes_even_where_a_stream_was_asked_for() {
    let world = World::standard();
    let client = world.client("acme");
    for (operation, chat) in chats() {
        let request = saying(operation, "x", Some(true));
        for (wish, code) in [("reject:429", 429), ("reject:maintenance", 455), ("reject:unknown_model", 422)]
        {
            client.wishing(wish).post(&operation.path, &request).await.expect_status(200).expect_code(code);
        }
        client.wishing("http:503").post(&operation.path, &request).await.expect_status(503);
        let said = saying(operation, "[[mock:reject:429]]", None);
        client.post(&operation.path, &said).await.expect_status(200).expect_code(429);
        client.post(&operation.path, &json!({})).await.expect_status(200).expect_code(422);
        client.send(Method::POST, &operation.path, "{").await.expect_status(200).expect_code(400);
        if let ChatModel::At(at) = &chat.model {
            let mut unknown = request.clone();
            unknown[at.trim_start_matches('/')] = "no-such-model".into();
            client.post(&operation.path, &unknown).await.expect_refusal(422, "The model is not supported");
        }
        let answer =
            client.wishing("fail:server_error").post(&operation.path, &request).await.expect_status(400);
        assert!(answer.text().contains("a chat has no task"), "{}", answer.text());
        let answer = client.wishing("tool:taxi").post(&operation.path, &request).await.expect_status(400);
        assert!(answer.text().contains("the request offers no such tool"), "{}", answer.text());
    }
    let answer = client.wishing("reject:500").post("/claude/v1/messages", &json!({})).await;
    assert_eq!(answer.text(), "{\"code\":500,\"msg\":\"Server exception, please try again later\"}\n");
    let answer = client.wishing("text:hello").call("veo.generate", &json!({"prompt": "x"})).await;
    assert_eq!(answer.expect_status(400).json()["msg"], "text and tool are for chats, where a model speaks");
}

#[tokio::test(start_paused = true)]
async fn a_bad_key_is_told_as_the_endpoint_tells_it() {
    let world = World::standard();
    for (_, operation) in CATALOGUE.operations().filter(|(_, operation)| operation.id.starts_with("chat.")) {
        let status = if operation.id.starts_with("chat.proxy.") { 401 } else { 200 };
        let path = operation.path.replace("{model}", "any");
        for client in
            [world.stranger(), world.client("invalid-key"), world.stranger().with("x-api-key", "invalid")]
        {
            let answer = client.send(operation.method.clone(), &path, "{}").await;
            let body = answer.expect_status(status).json();
            assert_eq!(body["code"], 401, "{}: {body}", operation.id);
            assert!(body.get("data").is_none());
        }
    }
    let request = json!({"contents": [{"role": "user", "parts": [{"text": "x"}]}]});
    let path = "/gemini/v1/models/gemini-3-5-flash:generateContent";
    for (client, path) in [
        (world.stranger().with("x-goog-api-key", "acme"), path.to_owned()),
        (world.stranger(), format!("{path}?key=acme")),
        (world.stranger().with("x-api-key", "acme"), path.to_owned()),
    ] {
        assert!(client.post(&path, &request).await.expect_status(200).json()["candidates"].is_array());
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_models_and_mixed_tools_are_refused() {
    let world = World::standard();
    let client = world.client("acme");
    for path in ["/gpt-9/v1/chat/completions", "/openai/v1/chat/completions"] {
        let request = json!({"messages": [{"role": "user", "content": "x"}], "stream": true});
        client.post(path, &request).await.expect_refusal(422, "The model is not supported");
    }
    for path in [
        "/v1/chat/completions",
        "/claude-haiku-4-5/v1/messages",
        "/gemini/v1/models/gemini-9:generateContent",
    ] {
        let body = client.post(path, &json!({})).await.expect_status(404).json();
        assert_eq!((&body["error"], &body["path"]), (&json!("Not Found"), &json!(path)));
    }
    let function = |name: &str| json!({"type": "function", "function": {"name": name}});
    let request = json!({"messages": [{"role": "user", "content": "x"}], "tools": [function("web_search"), function("mine")]});
    client
        .post("/gpt-5-2/v1/chat/completions", &request)
        .await
        .expect_refusal(400, "Invalid request parameters");
    let request = json!({"model": "gpt-5-4", "input": "x", "tools": [{"type": "web_search"}, {"type": "function", "name": "mine"}]});
    client.post("/codex/v1/responses", &request).await.expect_refusal(400, "Invalid request parameters");
}

#[tokio::test(start_paused = true)]
async fn a_stream_takes_the_time_that_it_is_given() {
    let world = World::standard();
    let client = world.client("acme");
    let request = json!({"messages": [{"role": "user", "content": "x"}], "stream": true});
    let took = |client: Client| {
        let request = request.clone();
        async move {
            let began = tokio::time::Instant::now();
            client.post("/gpt-5-2/v1/chat/completions", &request).await.expect_status(200);
            began.elapsed()
        }
    };
    assert_eq!(took(client.clone()).await, Duration::ZERO);
    let delayed = took(client.with("x-mock-delay", "2s")).await;
    assert!((Duration::from_millis(1500)..=Duration::from_millis(2100)).contains(&delayed), "{delayed:?}");
    client.put("/_mock/settings", &json!({"latency": "300ms"})).await.expect_status(200);
    let late = took(client.clone()).await;
    assert!((Duration::from_millis(300)..Duration::from_millis(310)).contains(&late), "{late:?}");
    client.put("/_mock/settings", &json!({"latency": "0ms", "pace": "realistic"})).await.expect_status(200);
    assert!(took(client).await > Duration::from_millis(200));
}

/// Real time, so a wish for days would hold a connection for days.
#[tokio::test(start_paused = true)]
async fn no_wish_delays_an_answer_for_more_than_a_quarter_of_an_hour() {
    let client = World::standard().client("acme").with("x-mock-delay", "1000h");
    for stream in [true, false] {
        let began = tokio::time::Instant::now();
        let request = json!({"messages": [{"role": "user", "content": "x"}], "stream": stream});
        client.post("/gpt-5-2/v1/chat/completions", &request).await.expect_status(200);
        let took = began.elapsed();
        assert!((Duration::from_mins(10)..=Duration::from_secs(901)).contains(&took), "{took:?}");
    }
}

/// Small requests once took gigabytes and minutes of the event loop.
#[tokio::test(start_paused = true)]
async fn no_small_request_makes_an_endless_answer() {
    let client = World::standard().client("acme");
    let item = json!({"type": "string", "const": "x".repeat(10_000)});
    let schema = json!({"type": "object", "required": ["a", "b", "c"], "properties": {
        "a": {"type": "string", "minLength": 1_000_000},
        "b": {"type": "array", "minItems": 1000, "items": item},
        "c": {"type": "string", "pattern": "((a{500}){500}){500}"}}});
    for id in [
        "chat.gpt-5-2",
        "chat.codex.responses",
        "chat.claude.messages",
        "chat.gemini-native.gemini-3-5-flash",
    ] {
        let (operation, chat) = chats().find(|(operation, _)| operation.id == id).unwrap();
        let mut request = saying(operation, &"[[mock:tool:weather]]".repeat(1000), Some(false));
        offer_tool_of(chat.dialect, &mut request, &schema);
        let answer = client.post(&operation.path, &request).await.expect_status(200);
        let (name, arguments) = call_of(chat.dialect, &answer.json());
        let long = arguments["a"].as_str().is_some_and(|text| text.len() >= 1_000_000);
        assert!(name == "weather" && long, "{id}: {name}");
        let length = answer.text().len();
        assert!((1 << 20..5 << 20).contains(&length), "{id}: {length} bytes");
        request["stream"] = true.into();
        let events = client.post(&operation.path, &request).await.expect_status(200).text().len();
        assert!((length / 2..100 << 20).contains(&events), "{id}: {events} bytes");
    }
}

/// Each event is a frame of its own, and none is made before somebody takes it.
#[tokio::test(start_paused = true)]
async fn events_leave_one_by_one() {
    use http_body_util::BodyExt as _;
    let world = World::standard();
    let mut request = Request::new(axum::body::Body::from(
        json!({"messages": [{"role": "user", "content": QUESTION}], "stream": true}).to_string(),
    ));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = "/gpt-5-2/v1/chat/completions".parse().unwrap();
    request.headers_mut().insert("authorization", "Bearer acme".parse().unwrap());
    let mut body = world.answer(request).await.into_body();
    let mut frames = 0;
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        assert_eq!(data.windows(2).filter(|pair| pair == b"\n\n").count(), 1);
        frames += 1;
    }
    assert!(frames > 5);
}

#[tokio::test(start_paused = true)]
async fn the_proxies_list_their_models() {
    let client = World::standard().client("acme");
    let ids = |body: &Value| -> Vec<String> {
        body["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let body = client.get("/anthropic/v1/models").await.expect_status(200).json();
    assert_eq!(
        (body["first_id"].as_str(), body["last_id"].as_str()),
        (Some("claude-fable-5"), Some("claude-haiku-4-5"))
    );
    assert_eq!(ids(&body).len(), 12);
    for (path, first) in [("/openai/v1/models", "kimi-k3"), ("/xai/v1/models", "grok-4-7")] {
        let body = client.get(path).await.expect_status(200).json();
        assert_eq!((body["object"].as_str(), ids(&body)[0].as_str()), (Some("list"), first));
    }
}
