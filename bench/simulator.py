#!/usr/bin/env python3
"""Measures the simulator of a kiegate binary against its targets and prints a table.

    python3 bench/simulator.py target/release/kiegate            # about five minutes
    python3 bench/simulator.py target/release/kiegate --quick    # about one, and less exact
    python3 bench/simulator.py target/release/kiegate --write    # also writes bench/results/simulator.md

Starts and ends the gateways itself, on free ports of 127.0.0.1. Needs wrk. What each figure means: README.md.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time

from harness import HERE, HOST, Gateway, Receiver, create_many, machine, median, more_descriptors, need_wrk, say, wrk

VIDEO = {"duration": 5, "quality": "720p", "aspectRatio": "16:9"}
MARKET = {"model": "google/nano-banana", "input": {"prompt": "A paper boat on a rainy street", "output_format": "png"}}
# Operation, body of a create, path of a create, path of a poll up to the id.
POLLED = [
    ("veo.details", {"prompt": "A paper boat on a rainy street", "model": "veo3_fast"}, "/api/v1/veo/generate",
     "/api/v1/veo/record-info?taskId="),
    ("jobs.details", MARKET, "/api/v1/jobs/createTask", "/api/v1/jobs/recordInfo?taskId="),
    ("runway.details", {"prompt": "A paper boat on a rainy street", **VIDEO}, "/api/v1/runway/generate",
     "/api/v1/runway/record-detail?taskId="),
]
RUNWAY_POLL = POLLED[2][3]
# What is wrong with a create, its path, its body: the whole request is checked, and nothing is made. The first has the
# largest schema with conditions, the second the largest of the Market, the third a rule that is no schema.
REFUSED = [
    ("a song without lyrics", "/api/v1/generate", {
        "customMode": True, "instrumental": False, "model": "V5", "callBackUrl": "https://app.example.com/hook",
        "style": "Waltz", "title": "First Tram", "styleWeight": 0.65, "audioWeight": 0.65}),
    ("kling-3.0-omni/reference-to-video, a wrong ratio", "/api/v1/jobs/createTask", {
        "model": "kling-3.0-omni/reference-to-video", "input": {
            "prompt": "A tram crosses an old bridge", "image_urls": ["https://example.com/a.png"], "duration": "5",
            "resolution": "720p", "aspect_ratio": "7:5"}}),
    ("nano-banana-2, a wrong ratio", "/api/v1/jobs/createTask", {
        "model": "nano-banana-2", "input": {"prompt": "A tram", "aspect_ratio": "7:5", "resolution": "1K"}}),
]


@dataclasses.dataclass
class Figure:
    """A line of the table. Without a target it is there for information."""

    name: str
    value: float
    unit: str
    target: float | None = None
    note: str = ""

    @property
    def met(self):
        return "" if self.target is None else "yes" if self.value <= self.target else "NO"

    def cells(self):
        number = lambda value: f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 10 else f"{value:.1f}"
        target = "" if self.target is None else f"≤ {number(self.target)} {self.unit}"
        return [self.name, f"{number(self.value)} {self.unit}".strip(), target.strip(), self.met, self.note]


def prompt(number):
    """About 90 characters that no other task has."""
    return f"A paper boat on a rainy street at night, neon light in the puddles, slow camera, take {number}"


def typical_body(number, **more):
    """About 150 bytes of JSON."""
    return json.dumps({"prompt": prompt(number), **VIDEO, **more}, separators=(",", ":"))


def starting(options):
    say("start-up")
    times = []
    for _ in range(5 if options.quick else 20):
        gateway = Gateway(options.binary)
        times.append(gateway.start() * 1000)
        gateway.stop()
    note = f"median of {len(times)}; slowest {max(times):.1f} ms"
    yield Figure("exec to the first HTTP answer", median(times), "ms", 50, note)
    size = os.path.getsize(options.binary) / 1e6
    yield Figure("size of the binary", size, "MB", 30, "release build, without debug information")


def idle_memory(options):
    say("idle memory")
    with Gateway(options.binary) as gateway:
        time.sleep(1)
        yield Figure("resident memory, idle, after one request", gateway.rss_bytes() / 1e6, "MB", 45)


def polled_tasks(gateway):
    """A running and a finished task of each polled operation: (operation, state, token, id, poll path)."""
    running, finished = gateway.client("running"), gateway.client("finished")
    running.freeze()
    for operation, body, create, poll in POLLED:
        task = running.call("POST", create, body)["data"]["taskId"]
        yield operation, "running", "running", task, poll
        task = finished.call("POST", create, body)["data"]["taskId"]
        finished.call("POST", f"/_mock/tasks/{task}/finish", {})
        yield operation, "finished", "finished", task, poll


def poll_cost(gateway, token, path, ids, options, connections=16):
    """Microseconds of CPU per poll: the median of the runs."""
    with tempfile.NamedTemporaryFile("w", prefix="kiegate-bench-") as file:
        file.write("\n".join(ids) + "\n")
        file.flush()
        arguments = [path, file.name]
        runs = [
            wrk(gateway, token, "poll.lua", arguments, options.seconds, connections) for _ in range(options.runs)
        ]
    return median([run.micros_each for run in runs]), median([run.requests / run.seconds for run in runs])


def polls(options):
    with Gateway(options.binary) as gateway:
        for operation, state, token, task, path in list(polled_tasks(gateway)):
            say(f"polls: {operation}, {state}")
            micros, rate = poll_cost(gateway, token, path, [task], options)
            note = f"{rate:,.0f} polls/s, 16 connections, log to a file"
            yield Figure(f"CPU per poll, {operation}, {state} task", micros, "µs", 25, note)
    say("polls with a quieter log")
    for log, settings, what in [("null", {}, "log to /dev/null"), ("file", {"log__level": "error"}, "log level error")]:
        with Gateway(options.binary, log, **settings) as gateway:
            for operation, state, token, task, path in list(polled_tasks(gateway)):
                if state == "finished":
                    micros, rate = poll_cost(gateway, token, path, [task], options)
                    name = f"CPU per poll, {operation}, finished task, {what}"
                    yield Figure(name, micros, "µs", None, f"{rate:,.0f} polls/s, 16 connections")
    yield from bounds_of_polls(options)


def bounds_of_polls(options):
    """What a poll costs when it shares nothing with others, and what HTTP alone costs."""
    say("polls over one connection, and HTTP alone")
    with Gateway(options.binary) as gateway:
        operation, state, token, task, path = list(polled_tasks(gateway))[-1]
        micros, rate = poll_cost(gateway, token, path, [task], options, connections=1)
        name = f"CPU per poll, {operation}, {state} task, one connection"
        yield Figure(name, micros, "µs", None, f"{rate:,.0f} polls/s; each wakes the server anew")
        url = f"http://127.0.0.1:{gateway.admin_port}"
        with tempfile.NamedTemporaryFile("w", prefix="kiegate-bench-") as file:
            file.write("\n")
            file.flush()
            run = wrk(gateway, "none", "poll.lua", ["/livez", file.name], options.seconds, 16, url)
        note = "what HTTP alone costs, without log and metrics"
        yield Figure("CPU per GET /livez of the admin plane", run.micros_each, "µs", None, note)


def refusals(options):
    """What it costs to check a create, HTTP and answer included."""
    with Gateway(options.binary) as gateway:
        client = gateway.client("refused")
        for what, path, body in REFUSED:
            say(f"refusals: {what}")
            if client.ask("POST", path, body)[1]["code"] == 200:
                raise SystemExit(f"{what}: was accepted")
            with tempfile.NamedTemporaryFile("w", prefix="kiegate-bench-") as file:
                file.write(json.dumps(body) + "\n")
                file.flush()
                runs = [wrk(gateway, "refused", "post.lua", [path, file.name], options.seconds, 16)
                        for _ in range(options.runs)]
            rate = median([run.requests / run.seconds for run in runs])
            note = f"{rate:,.0f} a second; HTTP, checks and answer"
            yield Figure(f"CPU per refused create, {what}", median([run.micros_each for run in runs]), "µs", 50, note)


def frozen_sandbox(gateway, token, **settings):
    client = gateway.client(token)
    client.call("PUT", "/_mock/settings", {"pace": "realistic", **settings})
    client.freeze()
    client.rich()
    return client


def many_tasks(options):
    """Memory per task, and polls among few and many of them."""
    many, few = options.tasks, 1000
    say(f"{many} tasks")
    with Gateway(options.binary) as gateway:
        client = frozen_sandbox(gateway, "many", journal=0)
        before, cpu, began = gateway.rss_bytes(), gateway.cpu_seconds(), time.perf_counter()
        ids = create_many(gateway, "many", many, typical_body)
        took, cpu = time.perf_counter() - began, gateway.cpu_seconds() - cpu
        each = (gateway.rss_bytes() - before) / many
        total = client.call("GET", "/_mock/tasks?limit=1")["total"]
        if not total == len(set(ids)) == many:
            raise SystemExit(f"{total} tasks with {len(set(ids))} ids, not {many}")
        note = f"{many:,} running tasks, bodies of {len(typical_body(many))} bytes, no journal"
        yield Figure("memory per simulated task", each, "bytes", 700, note)
        note = f"{many / took:,.0f} creates/s over four pipelined connections"
        yield Figure("CPU per create", cpu / many * 1e6, "µs", None, note)
        frozen_sandbox(gateway, "few", journal=0)
        few_ids = create_many(gateway, "few", few, typical_body)
        yield from compare_polls(gateway, {"few": few_ids, "many": ids}, options)
    with Gateway(options.binary) as gateway:
        frozen_sandbox(gateway, "many", journal=0)
        before = gateway.rss_bytes()
        body = lambda number: typical_body(number, callBackUrl="http://127.0.0.1:9/hooks/kie")
        create_many(gateway, "many", many, body)
        each = (gateway.rss_bytes() - before) / many
        note = f"bodies of {len(body(many))} bytes, each with a callback to come"
        yield Figure("memory per simulated task with a callback", each, "bytes", None, note)


def compare_polls(gateway, sandboxes, options):
    """Polls of random tasks in both sandboxes by turns, so that what else the machine does hits both."""
    say("polls among few and many tasks")
    costs = {token: [] for token in sandboxes}
    once = dataclasses.replace(options, runs=1)
    for _ in range(max(3, options.runs)):
        for token, ids in sandboxes.items():
            costs[token].append(poll_cost(gateway, token, RUNWAY_POLL, ids, once)[0])
    few, many = median(costs["few"]), median(costs["many"])
    note = f"{few:.1f} µs among {len(sandboxes['few']):,}, {many:.1f} µs among {len(sandboxes['many']):,}"
    yield Figure("CPU per poll among many tasks to that among few", many / few, "", 1.1, note)


def due_at_once(options, urls, expected, receiver):
    """Lets a callback to each of `urls` come due at the same instant; gives when the last expected one arrived."""
    with Gateway(options.binary) as gateway:
        client = frozen_sandbox(gateway, "burst")
        for number, url in enumerate(urls):
            body = {"prompt": prompt(number), **VIDEO, "callBackUrl": url}
            client.call("POST", "/api/v1/runway/generate", body, X_Mock_Delay="30m")
        began = time.perf_counter()
        client.connection.timeout = 300
        events = client.advance("30m")["events"]
        returned = time.perf_counter() - began
        attempts = [event for event in events if event["type"] == "callback"]
        last = receiver.wait_for(expected) - began
        first_tries = sum(event["attempt"] == 1 for event in attempts)
        retries = len(attempts) - first_tries
        if len(receiver.arrivals) != expected:
            raise SystemExit(f"{len(receiver.arrivals)} callbacks arrived, not {expected}")
        return last, returned, retries, receiver.connections


def bursts(options):
    count = 2000
    say(f"{count} callbacks at once")
    with Receiver() as receiver:
        last, returned, retries, connections = due_at_once(options, [receiver.url] * count, count, receiver)
        note = f"{connections} connections, {retries} retries; `advance` answered after {returned:.2f} s"
        yield Figure(f"{count:,} callbacks due at once, until the last has arrived", last, "s", 5, note)
    say("the same to a receiver that can hardly keep up")
    with Receiver(backlog=100) as receiver:
        last, returned, retries, connections = due_at_once(options, [receiver.url] * count, count, receiver)
        note = f"{connections} connections, {retries} retries; `advance` answered after {returned:.2f} s"
        yield Figure("the same, the receiver's listen backlog being 100", last, "s", None, note)
    say("the same beside a receiver that hangs")
    with Receiver() as receiver, Receiver(hangs=True) as hanging:
        urls = [hanging.url if number % 20 == 0 else receiver.url for number in range(count)]
        expected = sum(url == receiver.url for url in urls)
        last, returned, _, _ = due_at_once(options, urls, expected, receiver)
        note = f"the last of {expected:,} others; {count - expected} hang, and `advance` waited {returned:.1f} s for them"
        yield Figure("the same, one callback in twenty going to a receiver that hangs", last, "s", 5, note)


def lifecycles(options):
    say("lifecycles")
    with Gateway(options.binary) as gateway:
        frozen_sandbox(gateway, "life")
        run = wrk(gateway, "life", "lifecycle.lua", (), options.seconds, connections=1)
        count = run.extra["lifecycles"]
        note = "create, advance by 30 min, details; one sandbox, one connection; "
        note += f"{run.cpu_seconds / count * 1e6:.0f} µs of CPU each"
        yield Figure("seconds for 15,000 lifecycles", 15_000 * run.seconds / count, "s", 60, note)
    say("a 30-minute task to its callback")
    with Gateway(options.binary) as gateway, Receiver() as receiver:
        client = frozen_sandbox(gateway, "clock")
        times = []
        for number in range(20 if options.quick else 100):
            body = {"prompt": prompt(number), **VIDEO, "callBackUrl": receiver.url}
            client.call("POST", "/api/v1/runway/generate", body, X_Mock_Delay="30m")
            began = time.perf_counter()
            client.advance("30m")
            times.append((receiver.wait_for(number + 1) - began) * 1000)
        note = f"median of {len(times)}; slowest {max(times):.1f} ms"
        yield Figure("a 30-minute task, from `advance` to its callback's arrival", median(times), "ms", 10, note)


def journal(options):
    """What a full journal takes, and what writing it costs."""
    say("a full journal")
    with Gateway(options.binary) as gateway:
        client = frozen_sandbox(gateway, "journal", journal=0)
        ids = create_many(gateway, "journal", 1000, typical_body)
        without, _ = poll_cost(gateway, "journal", RUNWAY_POLL, ids, options)
        before = gateway.rss_bytes()
        client.call("PUT", "/_mock/settings", {"journal": 100_000})
        poll_cost(gateway, "journal", RUNWAY_POLL, ids, dataclasses.replace(options, runs=1, seconds=4))
        more = (gateway.rss_bytes() - before) / 1e6
        kept = client.call("GET", "/_mock/requests?last=1")["total"]
        yield Figure("memory of a full journal", more, "MB", 100, f"{kept:,} polls of running tasks")
        costs, _ = poll_cost(gateway, "journal", RUNWAY_POLL, ids, options)
        note = f"{without:.1f} µs without a journal, {costs:.1f} µs with a full one"
        yield Figure("CPU of journalling a poll", costs - without, "µs", None, note)


def side_by_side(options):
    """Sandboxes whose callbacks take a second each, moved at once."""
    say("sandboxes in parallel")
    count, pause = 20, 1
    with Gateway(options.binary) as gateway:

        def run(number):
            client = frozen_sandbox(gateway, f"side-{number}")
            client.call("PUT", "/_mock/inbox/a", {"delay": f"{pause}s"})
            inbox = client.call("GET", "/_mock/inbox")["url"]
            for task in range(10):
                client.call("POST", "/api/v1/runway/generate", {"prompt": prompt(task), **VIDEO, "callBackUrl": f"{inbox}/a"})
            began = time.perf_counter()
            client.advance("30m")
            arrived = len(client.call("GET", "/_mock/inbox/a")["received"])
            return time.perf_counter() - began, arrived

        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(count) as threads:
            told = list(threads.map(run, range(count)))
        if any(arrived != 10 for _, arrived in told):
            raise SystemExit(f"callbacks are missing: {told}")
        took = time.perf_counter() - began
        note = f"10 tasks each, every callback answered after {pause} s; the slowest `advance` {max(took for took, _ in told):.2f} s"
        yield Figure(f"{count} sandboxes at once, all done", took, "s", 2, note)


CHAT_PATH = "/claude/v1/messages"


def chat_request(gateway, token, text):
    body = json.dumps({"model": "claude-sonnet-4-6", "max_tokens": 4096, "stream": True,
                       "messages": [{"role": "user", "content": text}]}).encode()
    head = (f"POST {CHAT_PATH} HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode()
    return head + body


def first_event(connection, request):
    """Milliseconds from sending to the first byte of the first event."""
    began = time.perf_counter()
    connection.sendall(request)
    received = b""
    while b"event: message_start" not in received:
        part = connection.recv(65536)
        if not part:
            raise SystemExit(f"no event came: {received!r}")
        received += part
    took = (time.perf_counter() - began) * 1000
    while b"event: message_stop" not in received:
        received += connection.recv(65536)
    return took


def streams(options):
    """Answers of chats as events: how soon the first one comes, and what many at once take."""
    say("streams: the first event")
    with Gateway(options.binary) as gateway:
        gateway.client("chat").call("PUT", "/_mock/settings", {"pace": "instant"})
        request = chat_request(gateway, "chat", "Say hello in one sentence.")
        times = []
        for _ in range(50 if options.quick else 500):
            # Each on a connection of its own: what follows the last event would be read as the next one's.
            with socket.create_connection((HOST, gateway.port)) as connection:
                times.append(first_event(connection, request))
        note = f"median of {len(times)}; slowest {max(times):.2f} ms; from request to the bytes at the client"
        yield Figure("first event of a stream", median(times), "ms", 2, note)
    for what, text, target in [("short answers, read slowly", "Say hello in one sentence.", 60),
                               ("answers of 10 KB, not read", f"[[mock:text:{'word ' * 2000}]]", 60)]:
        say(f"streams: 1,000 at once, {what}")
        with Gateway(options.binary) as gateway:
            time.sleep(0.5)
            before = gateway.rss_bytes()
            request = chat_request(gateway, "chat", text)
            with contextlib.ExitStack() as stack:
                connections = []
                for _ in range(1000):
                    connection = stack.enter_context(socket.socket())
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    connection.connect((HOST, gateway.port))
                    connection.sendall(request)
                    connections.append(connection)
                most = max(gateway.rss_bytes() for _ in range(20) if not time.sleep(0.1))
                for connection in connections:
                    if not connection.recv(12).startswith(b"HTTP/1.1 200"):
                        raise SystemExit("a stream was refused")
            note = f"{before / 1e6:.1f} MB before"
            yield Figure(f"memory of 1,000 streams at once, {what}", (most - before) / 1e6, "MB", target, note)


def version(binary):
    ran = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=10)
    return ran.stdout.strip()


def table(figures):
    rows = [["figure", "measured", "target", "met", "note"]] + [figure.cells() for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def page(figures, options, name, title):
    """The results as Markdown; whatever a person wrote below the marker stays."""
    path = HERE / "results" / f"{name}.md"
    marker = "## Remarks"
    old = path.read_text() if path.exists() else ""
    remarks = old[old.index(marker):] if marker in old else f"{marker}\n"
    day = datetime.datetime.now(datetime.timezone.utc).date()
    runs = f"{options.runs} runs of {options.seconds} s each where CPU is measured (the median counts)"
    load = f"load average {options.load:.2f} before the start"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"# {title}\n\n{version(options.binary)}, {day}, {machine()}, {load}; {runs}. "
        f"The load generator ran on the same machine.\n\n{table(figures)}\n\n{remarks}"
    )
    say(f"written: {path}")


PARTS = {
    "start": starting, "idle": idle_memory, "polls": polls, "refusals": refusals, "tasks": many_tasks, "bursts": bursts, "streams": streams, "life": lifecycles,
    "journal": journal, "side": side_by_side,
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path, help="kiegate, built with --release")
    parser.add_argument("--quick", action="store_true", help="shorter and fewer runs")
    parser.add_argument("--write", action="store_true", help="write bench/results/simulator.md")
    parser.add_argument("--only", choices=PARTS, nargs="+", help="these parts alone")
    return parser.parse_args()


@dataclasses.dataclass
class Options:
    """What was asked for on the command line."""

    binary: str
    quick: bool
    seconds: int
    runs: int
    tasks: int
    load: float


def main():
    asked = arguments()
    need_wrk()
    more_descriptors()
    binary = str(asked.binary.resolve())
    if not os.access(binary, os.X_OK):
        raise SystemExit(f"{asked.binary} is no program; build it with `cargo build --release`")
    seconds, runs, tasks = (2, 1, 20_000) if asked.quick else (5, 3, 200_000)
    options = Options(binary, asked.quick, seconds, runs, tasks, os.getloadavg()[0])
    figures = []
    for name in asked.only or PARTS:
        for figure in PARTS[name](options):
            say("  " + "  ".join(filter(None, figure.cells())))
            figures.append(figure)
    print(table(figures))
    if asked.write:
        page(figures, options, "simulator", "The simulator, measured")


if __name__ == "__main__":
    main()
