"""Anthropic's own client: messages, models."""

import sys

import anthropic

from support import BASE, KEY, QUESTION, WEATHER, fails, run

TOOL = {"name": "get_weather", "description": "weather at a place", "input_schema": WEATHER}


def client(path="claude", key=KEY):
    return anthropic.Anthropic(base_url=f"{BASE}/{path}", api_key=key, max_retries=0)


def request(**changes):
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": "claude-sonnet-4-6", "max_tokens": 500, "messages": messages, **changes}


def create(path="claude", **changes):
    # The API streams unless it is told not to.
    return client(path).messages.create(stream=False, **request(**changes))


def test_a_message_is_answered():
    for path in ["claude", "anthropic"]:
        answer = create(path)
        assert QUESTION in answer.content[0].text
        assert (answer.stop_reason, answer.role) == ("end_turn", "assistant")
        assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0


def test_an_answer_is_cut_off():
    short = create(max_tokens=3)
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 3)
    stopped = create(
        stop_sequences=["two"], messages=[{"role": "user", "content": "[[mock:text:one two three]]"}]
    )
    assert (stopped.stop_reason, stopped.content[0].text) == ("stop_sequence", "one ")


def test_a_message_is_streamed():
    with client().messages.stream(**request()) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert QUESTION in text
    assert final.content[0].text == text
    assert final.stop_reason == "end_turn" and final.usage.output_tokens > 1


def test_thinking_comes_first():
    thinking = {"type": "enabled", "budget_tokens": 1024}
    answer = create(thinking=thinking, max_tokens=2000)
    assert [block.type for block in answer.content] == ["thinking", "text"]
    with client().messages.stream(**request(thinking=thinking, max_tokens=2000)) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.content[0].thinking and final.content[0].signature


def test_a_tool_is_called_and_its_result_taken():
    answer = create(tools=[TOOL], tool_choice={"type": "any"})
    call = answer.content[0]
    assert (answer.stop_reason, call.type, call.name) == ("tool_use", "tool_use", "get_weather")
    assert call.input["location"] == "Beijing"
    with client().messages.stream(**request(tools=[TOOL], tool_choice={"type": "tool", "name": "get_weather"})) as stream:
        streamed = stream.get_final_message()
    assert streamed.content[0].input == call.input
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]},
    ]
    assert "sunny" in create(messages=messages, tools=[TOOL]).content[0].text


def test_models_are_listed():
    models = [model.id for model in client("anthropic").models.list()]
    assert (models[0], models[-1], len(models)) == ("claude-fable-5", "claude-haiku-4-5", 12)


def test_a_bad_key_is_a_real_401_at_the_proxy():
    bad = client("anthropic", "invalid-key")
    fails(lambda: list(bad.models.list()), anthropic.AuthenticationError)
    fails(lambda: bad.messages.create(stream=False, **request()), anthropic.AuthenticationError)


def test_a_refusal_comes_over_http_200():
    refused = create(model="claude-9")
    assert (refused.code, refused.msg) == (422, "The model is not supported")
    failing = client().with_options(default_headers={"X-Mock-Outcome": "reject:server_exception"})
    refused = failing.messages.create(stream=False, **request())
    assert (refused.code, refused.msg) == (500, "Server exception, please try again later")


run(sys.modules["__main__"])
