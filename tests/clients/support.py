"""What the client tests have in common: where the server is, a weather tool, and a runner that tells what it ran."""

import sys
import traceback

BASE = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8787"
KEY = "client-test"
QUESTION = "What is the weather in Beijing?"
WEATHER = {
    "type": "object",
    "properties": {
        "location": {"type": "string"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    },
    "required": ["location"],
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 18}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def fails(call, kind):
    """The error of that kind which `call` must raise."""
    try:
        result = call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected, not {result!r}")


def run(module):
    """Runs every function whose name begins with test_; exits with 1 if one fails."""
    failed = 0
    tests = [(name, test) for name, test in vars(module).items() if name.startswith("test_")]
    for name, test in tests:
        try:
            test()
        except Exception:
            failed += 1
            print(f"{module.__file__}: {name}", file=sys.stderr)
            traceback.print_exc()
    print(f"{module.__file__.rsplit('/', 1)[-1]}: {len(tests) - failed} of {len(tests)} passed")
    sys.exit(1 if failed else 0)
