"""Google's own client: content in one piece and streamed, functions, errors."""

import json
import sys

from google import genai
from google.genai import errors, types

from support import BASE, KEY, PERSON, QUESTION, fails, run

MODEL = "gemini-3-5-flash"
WEATHER = types.FunctionDeclaration(
    name="get_weather",
    description="weather at a place",
    parameters=types.Schema(
        type="OBJECT", properties={"location": types.Schema(type="STRING")}, required=["location"]
    ),
)


# A client that nobody holds closes its connections.
HELD = []


def client(key=KEY, **headers):
    options = types.HttpOptions(base_url=f"{BASE}/gemini", api_version="v1", headers=headers)
    HELD.append(genai.Client(api_key=key, http_options=options))
    return HELD[-1]


def forced():
    calling = types.FunctionCallingConfig(mode="ANY")
    return types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[WEATHER])],
        tool_config=types.ToolConfig(function_calling_config=calling),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )


def test_content_is_generated():
    for model in ["gemini-3-flash-v1betamodels", MODEL, "gemini-3-6-flash", "gemini-3-7-flash", "gemini-3-8-flash"]:
        answer = client().models.generate_content(model=model, contents=QUESTION)
        assert QUESTION in answer.text
        assert answer.candidates[0].finish_reason == types.FinishReason.STOP
        assert answer.usage_metadata.total_token_count > 0


def test_content_is_streamed():
    chunks = list(client().models.generate_content_stream(model=MODEL, contents=QUESTION))
    assert QUESTION in "".join(chunk.text or "" for chunk in chunks)
    last = chunks[-1]
    assert last.candidates[0].finish_reason == types.FinishReason.STOP
    assert last.usage_metadata.thoughts_token_count > 0


def test_bounds_and_choices_are_kept():
    config = types.GenerateContentConfig(max_output_tokens=8, candidate_count=2)
    answer = client().models.generate_content(model=MODEL, contents=QUESTION, config=config)
    assert [one.finish_reason for one in answer.candidates] == [types.FinishReason.MAX_TOKENS] * 2


def test_thoughts_are_told_to_who_asks():
    config = types.GenerateContentConfig(
        thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_level="HIGH")
    )
    answer = client().models.generate_content(model=MODEL, contents=QUESTION, config=config)
    assert [bool(part.thought) for part in answer.candidates[0].content.parts] == [True, False]


def test_a_function_is_called_and_its_result_taken():
    answer = client().models.generate_content(model=MODEL, contents=QUESTION, config=forced())
    call = answer.function_calls[0]
    assert (call.name, call.args) == ("get_weather", {"location": "Beijing"})
    streamed = list(client().models.generate_content_stream(model=MODEL, contents=QUESTION, config=forced()))
    assert streamed[-1].function_calls[0].args == call.args
    conversation = [
        types.Content(role="user", parts=[types.Part(text=QUESTION)]),
        answer.candidates[0].content,
        types.Content(
            role="user",
            parts=[types.Part.from_function_response(name="get_weather", response={"weather": "sunny"})],
        ),
    ]
    assert "sunny" in client().models.generate_content(model=MODEL, contents=conversation).text


def test_content_is_json_where_that_is_wanted():
    config = types.GenerateContentConfig(response_mime_type="application/json", response_json_schema=PERSON)
    person = json.loads(client().models.generate_content(model=MODEL, contents=QUESTION, config=config).text)
    assert set(person) == {"name", "age"} and person["age"] >= 18


def test_errors_are_told():
    fails(
        lambda: client().models.generate_content(model="gemini-9", contents=QUESTION),
        errors.ClientError,
    )
    failing = client(**{"X-Mock-Outcome": "http:503"})
    fails(lambda: failing.models.generate_content(model=MODEL, contents=QUESTION), errors.ServerError)
    # A refusal is an envelope over HTTP 200, which has no candidates.
    refused = client("invalid-key").models.generate_content(model=MODEL, contents=QUESTION)
    assert refused.candidates is None


run(sys.modules["__main__"])
