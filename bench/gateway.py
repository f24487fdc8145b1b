#!/usr/bin/env python3
"""Measures a kiegate binary as a gateway, beside nginx and HAProxy, and prints a table.

    python3 bench/gateway.py target/release/kiegate            # about four minutes
    python3 bench/gateway.py target/release/kiegate --quick    # about one, and less exact
    python3 bench/gateway.py target/release/kiegate --write    # also writes bench/results/gateway.md

Starts and ends everything itself, on free ports of 127.0.0.1. Needs wrk, nginx and HAProxy. What each figure means:
README.md.
"""

import argparse
import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time

from harness import HERE, HOST, Gateway, free_ports, machine, median, more_descriptors, say, wrk
from simulator import Figure, Options, page, table

KEY = "bench-tenant-key"
POLL = "/api/v1/veo/record-info?taskId=0123456789abcdef0123456789abcdef"
CREATE = "/api/v1/veo/generate"
# A record of a task that runs (0) or has ended well (1).
RECORD = '{"code":200,"msg":"success","data":{"taskId":"0123456789abcdef0123456789abcdef","successFlag":%d,"pad":"%s"}}'
RUNNING, ENDED = RECORD % (0, "x" * 195), RECORD % (1, "x" * 195)
CORES = len(os.sched_getaffinity(0))
CONNECTIONS = 64

NGINX = """
daemon off; worker_processes %(workers)d; worker_rlimit_nofile 65536; pid %(folder)s/pid; error_log %(folder)s/error;
events { worker_connections 16384; }
http {
  client_body_temp_path %(folder)s/a; proxy_temp_path %(folder)s/b; fastcgi_temp_path %(folder)s/c;
  uwsgi_temp_path %(folder)s/d; scgi_temp_path %(folder)s/e;
  keepalive_requests 1000000000; tcp_nodelay on; client_max_body_size 0;
  log_format line '$time_iso8601 $request_id "$request" $status $body_bytes_sent $request_time $upstream_response_time';
  access_log %(log)s;
  %(http)s
}
"""
ANSWERING = """server { listen %(port)d backlog=4096; default_type application/json; location / { return 200 '%(body)s'; } }"""
PASSING = """
  upstream there { server 127.0.0.1:%(upstream)d; keepalive 256; keepalive_requests 1000000000; }
  server { listen %(port)d backlog=4096 reuseport; location / {
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://there;
    proxy_set_header Authorization "Bearer upstream-key"; } }
"""
HAPROXY = """
global
  nbthread %(threads)d
  maxconn 9800
  log stdout format raw local0
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 60s
  http-reuse always
  %(log)s
  %(format)s
frontend here
  bind 127.0.0.1:%(port)d backlog 4096
  http-request set-header Authorization "Bearer upstream-key"
  default_backend there
backend there
  server one 127.0.0.1:%(upstream)d
"""
KIEGATE = """
mode = "live"
[upstream]
base_url = "http://127.0.0.1:%(upstream)d"
upload_url = "http://127.0.0.1:%(upload)d"
[[upstream.key]]
name = "main"
secret = "env:UPSTREAM_KEY"
creates = "1000/s"
[cache]
running = "0s"
[[tenant]]
id = "bench"
keys = ["sha256:%(hash)s"]
allow = ["veo.*", "common.*", "file-upload.*", "other"]
[tenant.limits]
requests = "1000000/s"
creates = "1000/s"
concurrent_tasks = 1000
credits = { hour = 1000000, day = 1000000, month = 1000000 }
"""


class Server:
    """Another program that serves on a port; a context manager that ends it, by its id."""

    def __init__(self, name):
        self.name = name
        (self.port,) = free_ports(1)
        self.folder = tempfile.TemporaryDirectory(prefix="kiegate-bench-")
        self.log_path = os.path.join(self.folder.name, "log")
        self.process = None

    def file(self, name, text):
        path = pathlib.Path(self.folder.name, name)
        path.write_text(text)
        return str(path)

    @property
    def base(self):
        return f"http://{HOST}:{self.port}"

    def command(self):
        raise NotImplementedError

    def __enter__(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as client:
                if client.connect_ex((HOST, self.port)) == 0:
                    return self
            time.sleep(0.01)
        said = pathlib.Path(self.log_path).read_text()
        self.__exit__()
        raise SystemExit(f"{self.name} does not start:\n{said}")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.folder.cleanup()

    def pids(self):
        """The process and its workers."""
        pid = self.process.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def cpu_seconds(self):
        return sum(time.clock_gettime(~pid << 3 | 2) for pid in self.pids())

    def rss_bytes(self):
        statuses = [pathlib.Path(f"/proc/{pid}/status").read_text() for pid in self.pids()]
        return sum(int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) for status in statuses) * 1024

    def forget_log(self):
        os.truncate(self.log_path, 0)


class Nginx(Server):
    """nginx, as an upstream that answers at once or as a proxy before one."""

    def __init__(self, name, http, workers, logs, **values):
        super().__init__(name)
        values = {"body": RUNNING} | values | {"port": self.port}
        log = f"{self.log_path} line" if logs else "off"
        text = NGINX % {"folder": self.folder.name, "workers": workers, "log": log, "http": http % values}
        self.config = self.file("nginx.conf", text)

    def command(self):
        return [shutil.which("nginx") or "/usr/sbin/nginx", "-p", self.folder.name, "-c", self.config]


class Haproxy(Server):
    """HAProxy before an upstream, in one process with a thread a core."""

    def __init__(self, name, logs, upstream):
        super().__init__(name)
        values = {"threads": CORES, "port": self.port, "upstream": upstream}
        values |= {"log": "log global", "format": "option httplog"} if logs else {"log": "no log", "format": ""}
        self.config = self.file("haproxy.cfg", HAPROXY % values)

    def command(self):
        return [shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", self.config]


class Live(Gateway):
    """kiegate in live mode before an upstream."""

    def __init__(self, binary, upstream, upload=None, **settings):
        super().__init__(binary, upstream_key="fake", **settings)
        self.name = "kiegate"
        # The name of the variable is free; the key is none.
        self.environment["UPSTREAM_KEY"] = self.environment.pop("KIEGATE_UPSTREAM_KEY")
        values = {"upstream": upstream, "upload": upload or upstream, "hash": hashlib.sha256(KEY.encode()).hexdigest()}
        path = pathlib.Path(self.folder.name, "kiegate.toml")
        path.write_text(KIEGATE % values)
        self.command += ["--config", str(path)]

    def start(self):
        """Starts it, and makes the task that is asked for the tenant's own."""
        took = super().start()
        with socket.create_connection((HOST, self.port)) as client:
            ask(client, request(self.port, "POST", CREATE, '{"prompt":"x","model":"veo3"}'))
        return took


@contextlib.contextmanager
def upstream(body=RUNNING):
    """An upstream that answers at once, in one process that is not counted."""
    with Nginx("the upstream", ANSWERING, 1, False, body=body) as server:
        yield server.port


def proxies(options, port, logs):
    quiet = {} if logs else {"log__level": "error"}
    return [
        Live(options.binary, port, **quiet),
        Nginx("nginx", PASSING, CORES, logs, upstream=port),
        Haproxy("HAProxy", logs, port),
    ]


def passing(options):
    """CPU per request that is passed on, kiegate and the others by turns."""
    with upstream() as port:
        for logs in [True, False]:
            loads = {}
            with contextlib.ExitStack() as stack:
                servers = [stack.enter_context(server) for server in proxies(options, port, logs)]
                for turn in range(options.runs + 1):
                    for server in servers:
                        say(f"passing on: {server.name}, log {'on' if logs else 'off'}, turn {turn}")
                        seconds = options.seconds if turn else 1
                        load = wrk(server, KEY, "get.lua", [POLL, "fresh"], seconds=seconds, connections=CONNECTIONS)
                        if turn:  # the first one only warms up
                            loads.setdefault(server.name, []).append(load)
            yield from compared("request passed on", loads, logs, 1.25)


def compared(what, loads, logs, most):
    """The figures of several programs at the same work, and the first one's ratio to the second's."""
    micros = {name: median(load.micros_each for load in runs) for name, runs in loads.items()}
    how = "with" if logs else "without"
    for name, runs in loads.items():
        rate = median(load.requests / load.seconds for load in runs)
        line = "one line a request in a file" if logs else "no line a request"
        note = f"{rate:,.0f} requests/s, {CONNECTIONS} connections, {line}"
        yield Figure(f"CPU per {what}, {name}, {how} log", micros[name], "µs", None, note)
    first, second = list(micros)[:2]
    yield Figure(f"CPU per {what}, {first} to {second}, {how} log", micros[first] / micros[second], "", most, "")


def cached(options):
    """CPU per poll that is answered from what is kept, beside nginx answering by itself."""
    with upstream(ENDED) as port:
        for logs in [True, False]:
            loads = {}
            quiet = {} if logs else {"log__level": "error"}
            servers = [Live(options.binary, port, **quiet), Nginx("nginx", ANSWERING, CORES, logs, body=ENDED)]
            with contextlib.ExitStack() as stack:
                for server in servers:
                    stack.enter_context(server)
                for turn in range(options.runs + 1):
                    for server in servers:
                        say(f"kept polls: {server.name}, log {'on' if logs else 'off'}, turn {turn}")
                        seconds = options.seconds if turn else 1
                        load = wrk(server, KEY, "get.lua", [POLL], seconds=seconds, connections=CONNECTIONS)
                        if turn:
                            loads.setdefault(server.name, []).append(load)
            yield from compared("kept poll", loads, logs, 1.5)


def ask(client, request):
    """Sends a request and reads the answer, whose length stands in it."""
    client.sendall(request)
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0:
        piece = client.recv(65536)
        if not piece:
            raise SystemExit(f"the connection ended: {received!r}")
        received += piece
    if not received.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"an answer was an error: {received!r}")
    length = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", received)[1])
    while len(received) < end + 4 + length:
        received += client.recv(65536)
    return received


def request(port, method, path, body=""):
    head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nAuthorization: Bearer {KEY}\r\n"
    length = f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n" if body else ""
    return f"{head}{length}\r\n{body}".encode()


def poll_request(port):
    return request(port, "GET", POLL)


def idle_connections(options):
    """Memory of connections that have made one request each and stay."""
    count = 1000 if options.quick else 10_000
    with upstream() as port:
        for server, target in [(Live(options.binary, port), 12), (Nginx("nginx", PASSING, CORES, True, upstream=port), None),
                               (Haproxy("HAProxy", True, port), None)]:
            say(f"idle connections: {server.name}")
            # HAProxy wants two descriptors for each, and the usual limit is 20,000.
            count = min(count, 9500) if server.name == "HAProxy" else count
            with server, contextlib.ExitStack() as stack:
                ask(stack.enter_context(socket.create_connection((HOST, server.port))), poll_request(server.port))
                time.sleep(0.5)
                before = server.rss_bytes()
                for _ in range(count):
                    client = stack.enter_context(socket.create_connection((HOST, server.port), timeout=10))
                    ask(client, poll_request(server.port))
                time.sleep(0.5)
                each = (server.rss_bytes() - before) / count / 1000
                yield Figure(f"memory of an idle connection, {server.name}", each, "KB", target,
                             f"{count:,} that made one request each; {before / 1e6:.1f} MB before")


class Sink:
    """An upstream for uploads: reads bodies to their end and forgets them."""

    def __init__(self):
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                with client:
                    received = b""
                    while b"\r\n\r\n" not in received:
                        received += client.recv(65536)
                    head, body = received.split(b"\r\n\r\n", 1)
                    left = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)[1]) - len(body)
                    while left > 0:
                        left -= len(client.recv(min(left, 1 << 18)) or b"x" * left)
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def upload(options):
    """Memory while a large body streams through."""
    size = 100 * 1024 * 1024
    with upstream() as port, Sink() as sink, Live(options.binary, port, upload=sink.port) as gateway:
        say("an upload of 100 MiB")
        time.sleep(0.5)
        before = gateway.rss_bytes()
        most, done = before, threading.Event()

        def watch():
            nonlocal most
            while not done.wait(0.002):
                most = max(most, gateway.rss_bytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.perf_counter()
        with socket.create_connection((HOST, gateway.port), timeout=60) as client:
            head = f"POST /api/file-stream-upload HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {KEY}\r\n"
            client.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode())
            piece = b"x" * (1 << 20)
            for _ in range(size // len(piece) - 1):
                client.sendall(piece)
            ask(client, piece)
        took = time.perf_counter() - began
        done.set()
        watcher.join()
        note = f"{before / 1e6:.1f} MB before; {size / took / 1e6:,.0f} MB/s"
        yield Figure("memory that an upload of 100 MiB adds", (most - before) / 1e6, "MB", 20, note)


def latencies(port, seconds, rate=500):
    """Seconds that each request took, at a steady rate over one connection."""
    request, taken = poll_request(port), []
    with socket.create_connection((HOST, port), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = time.perf_counter()
        for number in range(seconds * rate):
            time.sleep(max(0, start + number / rate - time.perf_counter()))
            began = time.perf_counter()
            ask(client, request)
            taken.append(time.perf_counter() - began)
    return sorted(taken)


def latency(options):
    """What a request takes longer through a proxy than without."""
    with upstream() as port:
        say("latency, without a proxy")
        direct = latencies(port, options.seconds)
        for server in proxies(options, port, True):
            say(f"latency: {server.name}")
            with server:
                latencies(server.port, 1)
                through = latencies(server.port, options.seconds)
            for share, target in [(0.5, 0.3), (0.99, None)]:
                at = lambda times: times[int(len(times) * share)] * 1e3
                yield Figure(f"latency added, p{share * 100:.0f}, {server.name}", at(through) - at(direct), "ms",
                             target if server.name == "kiegate" else None,
                             f"{at(direct):.3f} ms without; 500 requests/s over one connection")


PARTS = {"passing": passing, "cached": cached, "idle": idle_connections, "upload": upload, "latency": latency}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path, help="kiegate, built with --release")
    parser.add_argument("--quick", action="store_true", help="shorter and fewer runs")
    parser.add_argument("--write", action="store_true", help="write bench/results/gateway.md")
    parser.add_argument("--only", choices=PARTS, nargs="+", help="these parts alone")
    asked = parser.parse_args()
    for program in ["wrk", "nginx", "haproxy"]:
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
            raise SystemExit(f"{program} is missing; on Debian and Ubuntu: apt-get install wrk nginx-light haproxy")
    more_descriptors()
    seconds, runs = (2, 1) if asked.quick else (5, 3)
    options = Options(str(asked.binary.resolve()), asked.quick, seconds, runs, 0, os.getloadavg()[0])
    figures = []
    for name in asked.only or PARTS:
        for figure in PARTS[name](options):
            say("  " + "  ".join(filter(None, figure.cells())))
            figures.append(figure)
    print(table(figures))
    if asked.write:
        page(figures, options, "gateway", "The gateway, measured")


if __name__ == "__main__":
    main()
