"""What the benchmarks stand on: a kiegate process of their own, load from wrk, a receiver of callbacks.

Everything listens on 127.0.0.1 only, and every process that is started here is also ended here.
"""

import asyncio
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import re
import resource
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
HOST = "127.0.0.1"


def free_ports(count):
    """Ports that nobody listens on; they are free again, so take them soon."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def more_descriptors():
    """A burst of callbacks opens many connections at once."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Gateway:
    """A running kiegate in mock mode; a context manager that ends it.

    Its log goes to a file in a directory of its own, or to /dev/null with log="null".
    """

    def __init__(self, binary, log="file", **settings):
        self.port, self.admin_port = free_ports(2)
        self.folder = tempfile.TemporaryDirectory(prefix="kiegate-bench-")
        self.log_path = os.devnull if log == "null" else os.path.join(self.folder.name, "log")
        self.command = [
            str(binary), "serve", "--listen", f"{HOST}:{self.port}", "--admin-listen", f"{HOST}:{self.admin_port}",
        ]
        # Only what the benchmark says, whatever the caller's environment holds.
        self.environment = {"PATH": os.environ.get("PATH", "")}
        self.environment |= {f"KIEGATE_{key.upper()}": str(value) for key, value in settings.items()}
        self.pid = None

    def start(self):
        """Starts it; gives the seconds from just before exec to the first HTTP answer."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, self.log_path, flags, 0o600),
        ]
        began = time.perf_counter()
        self.pid = os.posix_spawn(self.command[0], self.command, self.environment, file_actions=actions)
        question = f"GET /api/v1/veo/record-info HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
        while time.perf_counter() - began < 10:
            with socket.socket() as client:
                if client.connect_ex((HOST, self.port)) != 0:
                    time.sleep(0.0001)
                    continue
                client.sendall(question)
                if client.recv(64).startswith(b"HTTP/1.1 "):
                    return time.perf_counter() - began
        self.stop()
        raise SystemExit(f"{self.command[0]} does not answer; run it by hand to see why")

    def stop(self):
        if self.pid is None:
            return
        os.kill(self.pid, 15)
        deadline = time.monotonic() + 5
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(self.pid, 9)
                os.waitpid(self.pid, 0)
                break
            time.sleep(0.005)
        self.pid = None
        self.folder.cleanup()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def base(self):
        return f"http://{HOST}:{self.port}"

    def cpu_seconds(self):
        """User and system time of all its threads, ended ones too, to the nanosecond."""
        # The clock id of another process's CPU time, as clock_getcpuclockid(3) makes it.
        return time.clock_gettime(~self.pid << 3 | 2)

    def rss_bytes(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def forget_log(self):
        """Empties the log file, so that a long benchmark does not fill the disk."""
        if self.log_path != os.devnull:
            os.truncate(self.log_path, 0)

    def client(self, token):
        return Client(self, token)


class Client:
    """One keep-alive connection in the name of one bearer token, thus one sandbox."""

    def __init__(self, gateway, token):
        self.token = token
        self.connection = http.client.HTTPConnection(HOST, gateway.port, timeout=120)

    def call(self, method, path, body=None, **headers):
        """The JSON of the answer. Anything but HTTP 200 with code 200 (or no code) ends the benchmark."""
        status, answer = self.ask(method, path, body, **headers)
        if status != 200 or answer.get("code", 200) != 200:
            raise SystemExit(f"{method} {path}: {status} {answer}")
        return answer

    def ask(self, method, path, body=None, **headers):
        """HTTP status and JSON of the answer, whatever they are."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers["Authorization"] = f"Bearer {self.token}"
        text = None if body is None else json.dumps(body)
        if text is not None:
            headers["Content-Type"] = "application/json"
        self.connection.request(method, path, text, headers)
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())

    def freeze(self):
        self.call("PUT", "/_mock/clock", {"rate": 0})

    def advance(self, by):
        return self.call("POST", "/_mock/clock/advance", {"by": by})

    def rich(self):
        self.call("PUT", "/_mock/credits", {"credits": 1_000_000_000})


def create_many(gateway, token, count, body_of, path="/api/v1/runway/generate", connections=4, batch=25):
    """Creates `count` tasks over some pipelined connections; gives their ids.

    `body_of(number)` is the JSON text of one create.
    """
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}:{gateway.port}\r\nAuthorization: Bearer {token}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    found = re.compile(rb'"taskId":"([0-9a-f]{32})"')
    ids = []
    with contextlib.ExitStack() as stack:
        open_socket = lambda: stack.enter_context(socket.create_connection((HOST, gateway.port), timeout=60))
        sockets = [open_socket() for _ in range(connections)]
        numbers = iter(range(count))
        while True:
            waiting = []
            for each in sockets:
                bodies = [body_of(number) for _, number in zip(range(batch), numbers)]
                if bodies:
                    each.sendall("".join(head % (len(body.encode()), body) for body in bodies).encode())
                    waiting.append((each, len(bodies)))
            if not waiting:
                return ids
            for each, expected in waiting:
                received = b""
                while len(these := found.findall(received)) < expected:
                    if not select.select([each], [], [], 30)[0]:
                        raise SystemExit(f"a create was not accepted: {received[-600:]!r}")
                    received += each.recv(1 << 18)
                ids += [task.decode() for task in these]


@dataclasses.dataclass
class Load:
    """What a run of wrk came to."""

    requests: int
    seconds: float
    cpu_seconds: float
    extra: dict

    @property
    def micros_each(self):
        return self.cpu_seconds / self.requests * 1e6


def need_wrk():
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing; on Debian and Ubuntu: apt-get install wrk")


def wrk(gateway, token, script, arguments=(), seconds=5, connections=16, url=None):
    """Runs wrk with one thread and a script of this directory against `gateway`; ends if any answer was an error."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(HERE / script)]
    command += ["-H", f"Authorization: Bearer {token}", url or gateway.base, "--", *map(str, arguments)]
    before = gateway.cpu_seconds()
    ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    cpu = gateway.cpu_seconds() - before
    summary = re.search(r"^summary (\{.*\})$", ran.stdout, re.MULTILINE)
    if ran.returncode != 0 or summary is None:
        raise SystemExit(f"wrk failed:\n{ran.stdout}{ran.stderr}")
    summary = json.loads(summary[1])
    if summary["errors"]:
        raise SystemExit(f"{summary['errors']} answers were errors:\n{ran.stdout}")
    gateway.forget_log()
    return Load(summary["requests"], summary["micros"] / 1e6, cpu, summary)


class Receiver:
    """Takes callbacks on one port: answers 200 at once, or never if it hangs. Notes when each arrived."""

    def __init__(self, hangs=False, backlog=4096):
        self.hangs = hangs
        self.arrivals = []
        self.connections = 0
        self.loop = asyncio.new_event_loop()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, 0))
        self.port = listener.getsockname()[1]
        serve = self.loop.create_server(lambda: Reception(self), sock=listener, backlog=backlog)
        self.server = self.loop.run_until_complete(serve)
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://{HOST}:{self.port}/callback"

    def wait_for(self, count, patience=60):
        """Waits until so many have arrived; gives when the last of them did."""
        deadline = time.perf_counter() + patience
        while len(self.arrivals) < count:
            if time.perf_counter() > deadline:
                raise SystemExit(f"{len(self.arrivals)} of {count} callbacks arrived within {patience} s")
            time.sleep(0.001)
        return self.arrivals[count - 1]

    def close(self):
        self.loop.call_soon_threadsafe(self.server.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Reception(asyncio.Protocol):
    """One connection of a receiver."""

    LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

    def __init__(self, receiver):
        self.receiver = receiver
        self.buffer = b""

    def connection_made(self, transport):
        self.transport = transport
        self.receiver.connections += 1

    def data_received(self, data):
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            length = int(self.LENGTH.search(self.buffer, 0, end + 2)[1])
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            self.receiver.arrivals.append(time.perf_counter())
            if not self.receiver.hangs:
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def machine():
    """The kind of machine, without its name."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.+)", cpuinfo)
    kilobytes = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1])
    kernel = ".".join(os.uname().release.split(".")[:2])
    cores = len(os.sched_getaffinity(0))
    name = model[1].strip() if model else os.uname().machine
    return f"{cores} cores of {name}, {kilobytes / 2**20:.0f} GiB of memory, Linux {kernel}"


def median(values):
    return statistics.median(values)


def say(text):
    print(text, file=sys.stderr, flush=True)
