"""The OpenAPI document, held against a validator, against the catalogue, and against the simulator that it describes.

    check_openapi.py PATH_TO_KIEGATE

The document must be valid; hold every operation and model of `kiegate models`; be the same from the command line and over
HTTP. Its examples must fit its schemas. Then each example request is sent to a running simulator, which must accept it; every
answer, every record while the task runs and after, and every callback must fit the schemas that the document gives them.
"""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import openapi_spec_validator
from jsonschema import Draft202012Validator

KEY = "openapi-check"


class Simulator:
    """A gateway in mock mode on ports that the system chooses; every client has a sandbox of its own."""

    def __init__(self, binary):
        arguments = [binary, "serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.process.stdout:
            if found := re.search(r"mode at (http://127\.0\.0\.1:\d+)", line):
                self.base = found.group(1)
            if found := re.match(r"Dashboard at (http://127\.0\.0\.1:\d+)", line):
                self.admin = found.group(1)
                return
        raise SystemExit("the gateway did not start")

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=15)

    def send(self, method, path, body=None, key=KEY, headers=()):
        url = path if path.startswith("http") else self.base + path
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method)
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        request.add_header("Content-Type", "application/json")
        for name, value in headers:
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def json(self, method, path, body=None, key=KEY, headers=()):
        status, _, text = self.send(method, path, body, key, headers)
        try:
            return status, json.loads(text)
        except ValueError:
            raise AssertionError(f"{method} {path}: HTTP {status}, no JSON: {text[:200]!r}") from None


class Document:
    def __init__(self, told):
        self.told = told
        self.operations = {
            operation["operationId"]: (method.upper(), path, operation)
            for path, item in told["paths"].items()
            for method, operation in item.items()
        }

    def at(self, pointer):
        value = self.told
        for part in pointer.removeprefix("#/").split("/"):
            value = value[part.replace("~1", "/").replace("~0", "~")]
        return value

    @staticmethod
    def value(whole, pointer):
        """What a JSON pointer leads to, or nothing."""
        for part in pointer.removeprefix("/").split("/"):
            whole = whole.get(part) if isinstance(whole, dict) else None
        return whole

    def resolved(self, value):
        return self.at(value["$ref"]) if "$ref" in value else value

    def fits(self, value, schema, what):
        # References lead to the document's components, so those travel along.
        whole = {"components": {"schemas": self.told["components"]["schemas"]}, **schema}
        errors = sorted(Draft202012Validator(whole).iter_errors(value), key=lambda error: error.path)
        if errors:
            best = jsonschema.exceptions.best_match(errors)
            raise AssertionError(f"{what}: {best.message[:300]} at {list(best.absolute_path)}: {json.dumps(value)[:600]}")

    def bodies(self, operation):
        for status, response in operation["responses"].items():
            for content_type, content in response.get("content", {}).items():
                yield f"answer {status}", content_type, content
        for callback in operation.get("callbacks", {}).values():
            for item in callback.values():
                for content_type, content in item["post"]["requestBody"]["content"].items():
                    yield "callback", content_type, content


def examples_fit(document):
    """Every example of an answer or callback fits the schema that stands beside it."""
    count = 0
    for name, (_, _, operation) in document.operations.items():
        for what, content_type, content in document.bodies(operation):
            if "schema" not in content or "json" not in content_type:
                continue
            for example, told in content.get("examples", {}).items():
                document.fits(document.resolved(told)["value"], content["schema"], f"{name}, {what}, example {example}")
                count += 1
        for content_type, content in operation.get("requestBody", {}).get("content", {}).items():
            if "json" in content_type:
                for example, told in content.get("examples", {}).items():
                    document.fits(told["value"], content["schema"], f"{name}, request {example}")
                    count += 1
    return count


def everything_is_there(document, binary):
    listed = json.loads(subprocess.run([binary, "models", "--json"], capture_output=True, check=True).stdout)
    told = {(name, method, path) for name, (method, path, _) in document.operations.items()}
    known = {(one["id"], one["method"], one["path"]) for one in listed["operations"]}
    assert told == known, f"operations differ: {told ^ known}"
    schemas = document.told["components"]["schemas"].values()
    models = {schema["x-model"] for schema in schemas if "x-model" in schema}
    assert models == {one["model"] for one in listed["models"]}, "models differ"
    ids = re.findall(r'"operationId":"([^"]+)"', json.dumps(document.told["paths"], separators=(",", ":")))
    own = [one for one in ids if one in document.operations]
    assert len(set(own)) == len(known)
    return len(known), len(models)


def put(request, pointer, value):
    """Sets the value at a JSON pointer, making objects on the way."""
    *parents, last = pointer.removeprefix("/").split("/")
    for name in parents:
        request = request.setdefault(name, {})
    if isinstance(request, list):
        request[int(last)] = value
    else:
        request[last] = value


class Caller:
    """Sends the example requests of a document, each in a sandbox of its own."""

    def __init__(self, document, simulator):
        self.document, self.simulator = document, simulator

    def requests(self, name):
        """Each example request of an operation with its name: path or body parameters as one object."""
        _, _, operation = self.document.operations[name]
        contents = operation.get("requestBody", {}).get("content", {})
        for content_type, content in contents.items():
            if "json" in content_type:
                for example, told in content["examples"].items():
                    yield example, told["value"]
        if not contents:
            parameters = operation.get("parameters", [])
            yield "parameters", {one["name"]: one["example"] for one in parameters if "example" in one}

    def call(self, name, request, key, headers=()):
        method, path, operation = self.document.operations[name]
        if "requestBody" in operation:
            status, body = self.simulator.json(method, path, request, key, headers)
        else:
            rest = dict(request)
            for part in re.findall(r"\{([^}]+)\}", path):
                path = path.replace(f"{{{part}}}", urllib.parse.quote(str(rest.pop(part))))
            query = urllib.parse.urlencode(rest)
            status, body = self.simulator.json(method, f"{path}?{query}" if query else path, None, key)
        for content_type, content in operation["responses"][str(status)]["content"].items():
            if "json" in content_type:
                self.document.fits(body, content["schema"], f"{name}, the simulator's answer")
        return body

    def finished_task(self, name, key, depth=0, ending="success", models=()):
        """A task of a create that has ended so: its id, the addresses of its files, the ids that its record shows."""
        assert depth < 4, f"{name} goes on from a task without end"
        requests = [(example, request) for example, request in self.requests(name) if not models or example in models]
        requests.sort(key=lambda one: self.follows(name, one[1])[0] is not None)
        example, request = requests[0]
        body = self.prepared(name, example, request, key, depth)
        _, _, operation = self.document.operations[name]
        failed = operation["x-task-errors"][0]["id"] if operation["x-task-errors"] else ""
        headers = [("X-Mock-Outcome", f"fail:{failed}")] if ending == "fail" else []
        answer = self.call(name, body, key, headers)
        assert answer.get("code") == 200, f"{name}: {json.dumps(answer)[:300]}"
        self.simulator.send("POST", "/_mock/clock/advance", {"until": "idle"}, key)
        _, tasks = self.simulator.json("GET", "/_mock/tasks", None, key)
        newest = [task for task in tasks["tasks"] if task["operation"] == name][-1]
        ids = []
        for link in operation["responses"]["200"].get("links", {}).values():
            (parameter, _), = link["parameters"].items()
            shown = self.call(link["operationId"], {parameter: newest["id"]}, key)["data"]
            if isinstance(shown, dict):
                shown = shown.get("response", shown.get("resultJson", shown))
            ids += re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", json.dumps(shown))
        return newest["id"], newest["results"], ids

    def follows(self, name, request):
        """Where the request names another task, and in which part of it."""
        _, _, operation = self.document.operations[name]
        if "x-task-id" in operation:
            return operation["x-task-id"], ""
        for content in operation.get("requestBody", {}).get("content", {}).values():
            mapping = content["schema"].get("discriminator", {}).get("mapping", {})
            field = content["schema"].get("discriminator", {}).get("propertyName")
            if reference := mapping.get(request.get(field)):
                schema = self.document.at(reference)
                part = next((one for one, told in schema["properties"].items() if told.get("properties")), "")
                if "x-task-id" in schema:
                    return schema["x-task-id"], f"/{part}"
        return None, ""

    def prepared(self, name, example, request, key, depth=0):
        """The request with ids and addresses of tasks that exist, and a callback address in this simulator."""
        _, _, operation = self.document.operations[name]
        request = json.loads(json.dumps(request))
        told, part = self.follows(name, request)
        files = []
        named = [self.document.value(request, part + told[name]) for name in ("at", "id_at") if told and name in told]
        if any(named):
            makers = [maker for maker in told["made_by"] if maker != name] or told["made_by"]
            task, files, ids = self.finished_task(makers[0], key, depth + 1, told["ended"][0], told.get("models", ()))
            if "at" in told:
                put(request, part + told["at"], task)
            if "id_at" in told:
                assert ids, f"{name}: no task of {makers[0]} shows an id"
                put(request, part + told["id_at"], ids[0])
        if "x-result-url" in operation:
            if not files:
                maker = next(one for one, (_, _, other) in self.document.operations.items() if "x-phases" in other)
                files = self.finished_task(maker, key, depth + 1)[1]
            put(request, operation["x-result-url"]["at"], files[0])
        for callback in operation.get("callbacks", {}).values():
            for address in callback:
                _, inbox = self.simulator.json("GET", "/_mock/inbox", None, key)
                put(request, address.removeprefix("{$request.body#").removesuffix("}"), f"{inbox['url']}/{name}")
        return request

    def story(self, name, example, request):
        """Sends one example and follows its task to the end."""
        key = f"{KEY}-{name}-{example}"
        self.simulator.send("PUT", "/_mock/clock", {"rate": 0}, key)
        self.simulator.send("PUT", "/_mock/credits", {"credits": 1000000}, key)
        _, _, operation = self.document.operations[name]
        request = self.prepared(name, example, request, key)
        answer = self.call(name, request, key)
        good = [
            self.document.resolved(one)["value"]
            for content in operation["responses"]["200"]["content"].values()
            for one in content.get("examples", {}).values()
            if "$ref" not in one
        ]
        refused = "x-task-id" in operation and operation.get("x-phases") and answer["code"] != 200
        # An operation may be there to refuse.
        refused = refused or any(rule.get("not") == {} for rule in operation.get("x-rules", []))
        if not refused:
            codes = {body.get("code") for body in good if isinstance(body, dict)}
            assert answer.get("code") in codes, f"{name}, {example}: refused: {json.dumps(answer)[:300]} for {json.dumps(request)[:400]}"
        self.follow_up(name, operation, answer, key)

    def follow_up(self, name, operation, answer, key):
        """Records while the task runs and when it has ended; then what it called back."""
        for link in operation["responses"]["200"].get("links", {}).values():
            (parameter, expression), = link["parameters"].items()
            task = self.document.value(answer, expression.removeprefix("$response.body#"))
            if task is None:  # the answer told the result, and there is no record
                continue
            self.call(link["operationId"], {parameter: task}, key)
            self.simulator.send("POST", "/_mock/clock/advance", {"until": "idle"}, key)
            self.call(link["operationId"], {parameter: task}, key)
        if operation.get("callbacks"):
            self.simulator.send("POST", "/_mock/clock/advance", {"until": "idle"}, key)
            _, inbox = self.simulator.json("GET", f"/_mock/inbox/{urllib.parse.quote(name)}", None, key)
            item, = next(iter(operation["callbacks"].values())).values()
            for received in inbox["received"]:
                self.document.fits(received["body"], item["post"]["requestBody"]["content"]["application/json"]["schema"], f"{name}, callback")
                sent = {header.lower() for header in received["headers"]}
                for header in item["post"]["parameters"]:
                    assert header["name"] in sent, f"{name}, callback without {header['name']}"


def main(binary):
    printed = subprocess.run([binary, "openapi"], capture_output=True, check=True).stdout
    told = json.loads(printed)
    openapi_spec_validator.validate(told)
    document = Document(told)
    operations, models = everything_is_there(document, binary)
    examples = examples_fit(document)
    simulator = Simulator(binary)
    try:
        for url in ["/openapi.json", f"{simulator.admin}/docs/openapi.json"]:
            status, _, served = simulator.send("GET", url, key=None)
            assert status == 200 and served == printed, f"{url} is not what `kiegate openapi` prints"
        for path in ["/docs", "/docs/app.js", "/docs/style.css"]:
            status, headers, text = simulator.send("GET", simulator.admin + path, key=None)
            assert status == 200 and text, path
            assert "default-src 'none'" in headers["content-security-policy"], path
            assert b"{{" not in text or path != "/docs", "a hole of the page was left open"
        caller = Caller(document, simulator)
        stories = [(name, example, request) for name in document.operations for example, request in caller.requests(name)]

        def wrong(story):
            try:
                caller.story(*story)
            except AssertionError as problem:
                return str(problem)
            except Exception as problem:  # noqa: BLE001 - whatever it is, the story that met it must be named
                return f"{story[0]}, {story[1]}: {problem!r}"

        with ThreadPoolExecutor(4) as pool:
            problems = [problem for problem in pool.map(wrong, stories) if problem]
    finally:
        simulator.stop()
    if problems:
        raise SystemExit(f"{len(problems)} of {len(stories)} example requests:\n" + "\n".join(problems))
    print(f"openapi: {operations} operations, {models} models, {examples} examples fit, {len(stories)} requests accepted")


if __name__ == "__main__":
    main(sys.argv[1])
