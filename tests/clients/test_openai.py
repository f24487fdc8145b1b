"""OpenAI's own client: chat completions, responses, models."""

import json
import sys

import openai

from support import BASE, KEY, PERSON, QUESTION, WEATHER, fails, run

TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
FLAT_TOOL = {"type": "function", "name": "get_weather", "parameters": WEATHER}


def client(path, key=KEY):
    return openai.OpenAI(base_url=f"{BASE}/{path}/v1", api_key=key, max_retries=0)


def chat(path="gpt-5-2", **request):
    request.setdefault("messages", [{"role": "user", "content": QUESTION}])
    return client(path).chat.completions.create(model="by-the-path", **request)


def respond(path="codex", model="gpt-5-4", **request):
    request.setdefault("input", QUESTION)
    return client(path).responses.create(model=model, **request)


def test_a_chat_is_answered():
    answer = chat()
    assert QUESTION in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert len({choice.index for choice in chat(n=3).choices}) == 3
    short = chat(max_completion_tokens=3)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3)


def test_a_chat_is_streamed():
    for path in ["gpt-5-2", "gemini-3-pro", "gemini-3-7-flash-openai", "gemini-3-8-flash-openai"]:
        chunks = list(chat(path, stream=True))
        assert chunks[0].choices[0].delta.role == "assistant"
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert QUESTION in text
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert chunks[-1].usage.total_tokens > 0


def test_a_chat_calls_a_tool_and_takes_its_result():
    answer = chat(tools=[TOOL], tool_choice="required")
    call = answer.choices[0].message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["location"] == "Beijing"
    messages = [
        {"role": "user", "content": QUESTION},
        answer.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"},
    ]
    final = chat(messages=messages, tools=[TOOL])
    assert "sunny, 21 degrees" in final.choices[0].message.content


def test_a_tool_call_is_streamed():
    question = f"{QUESTION} [[mock:tool:get_weather]]"
    chunks = chat("gemini-2.5-flash", stream=True, tools=[TOOL], messages=[{"role": "user", "content": question}])
    name, arguments = "", ""
    for chunk in chunks:
        for call in chunk.choices[0].delta.tool_calls or []:
            name += call.function.name or ""
            arguments += call.function.arguments or ""
        last = chunk
    assert (name, json.loads(arguments)["location"]) == ("get_weather", "Beijing")
    assert last.choices[0].finish_reason == "tool_calls"


def test_a_chat_answers_in_json():
    shape = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    person = json.loads(chat(response_format=shape).choices[0].message.content)
    assert set(person) == {"name", "age"} and person["age"] >= 18
    assert isinstance(json.loads(chat(response_format={"type": "json_object"}).choices[0].message.content), dict)


def test_a_response_is_created_and_streamed():
    assert QUESTION in respond().output_text
    for path, model in [("codex", "gpt-5-6-sol"), ("grok", "grok-4-3"), ("openai", "kimi-k3"), ("xai", "grok-4-7")]:
        events = list(respond(path, model, stream=True))
        kinds = [event.type for event in events]
        assert kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert text == events[-1].response.output_text
        assert events[-1].response.usage.total_tokens > 0


def test_a_response_is_put_together_by_the_client_s_own_helper():
    with client("codex").responses.stream(model="gpt-5-4", input=QUESTION) as stream:
        kinds = [event.type for event in stream]
        assert QUESTION in stream.get_final_response().output_text
    assert kinds.index("response.output_item.added") < kinds.index("response.output_text.delta"), kinds
    forced = {"tools": [FLAT_TOOL], "tool_choice": "required"}
    with client("codex").responses.stream(model="gpt-5-4", input=QUESTION, **forced) as stream:
        done = [event for event in stream if event.type == "response.function_call_arguments.done"]
    assert json.loads(done[0].arguments)["location"] == "Beijing"


def test_a_response_calls_a_tool_and_takes_its_result():
    answer = respond(tools=[FLAT_TOOL], tool_choice={"type": "function", "name": "get_weather"})
    call = answer.output[0]
    assert (call.type, json.loads(call.arguments)["location"]) == ("function_call", "Beijing")
    conversation = [
        {"role": "user", "content": QUESTION},
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
    ]
    assert "sunny" in respond(input=conversation, tools=[FLAT_TOOL]).output_text
    events = respond(tools=[FLAT_TOOL], tool_choice="required", stream=True)
    deltas = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    assert json.loads(deltas)["location"] == "Beijing"


def test_models_are_listed():
    assert "kimi-k3" in [model.id for model in client("openai").models.list()]
    assert "grok-4-7" in [model.id for model in client("xai").models.list()]


def test_a_bad_key_is_a_real_401_at_the_proxies_only():
    fails(lambda: list(client("openai", "invalid-key").models.list()), openai.AuthenticationError)
    fails(lambda: client("xai", "invalid-key").responses.create(model="grok-4-7", input="x"), openai.AuthenticationError)
    refused = client("gpt-5-2", "invalid-key").chat.completions.create(
        model="x", messages=[{"role": "user", "content": "x"}]
    )
    assert (refused.code, refused.choices) == (401, None)


def test_a_refusal_comes_over_http_200():
    refused = chat("no-such-model")
    assert (refused.code, refused.msg) == (422, "The model is not supported")
    gone = client("gpt-5-2").with_options(default_headers={"X-Mock-Outcome": "http:503"})
    fails(lambda: gone.chat.completions.create(model="x", messages=[]), openai.InternalServerError)


run(sys.modules["__main__"])
