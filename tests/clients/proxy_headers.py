#!/usr/bin/env python3
"""What a gateway makes of heads and bodies, kiegate beside nginx: the same raw bytes to both, from both sides.

    python3 tests/clients/proxy_headers.py target/debug/kiegate [--show]

A request of the corpus goes over a socket to each; what the upstream got of it is compared. Then a raw answer of the
corpus comes from the upstream; what the client got of it is compared. Where kiegate differs on purpose, `ON_PURPOSE`
says how and why, and that is checked instead. Everything is on 127.0.0.1 and is ended here.
"""

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

HOST = "127.0.0.1"
KEY = "kg_headers_test"
# Headers that each proxy sets in its own way. Content-Length and Transfer-Encoding: how a body is framed on a connection
# is each one's own affair; that the body is the same is what is compared.
OWN_IN_REQUESTS = {"host", "authorization", "connection", "content-length", "transfer-encoding"}
OWN_IN_ANSWERS = {"connection", "keep-alive", "content-length", "transfer-encoding", "x-request-id", "x-kiegate-mode"}
PATIENCE = 3
DATE = "Mon, 02 Nov 2026 10:00:00 GMT"

NGINX = """
daemon off; worker_processes 1; pid %(folder)s/pid; error_log %(folder)s/error;
events { worker_connections 256; }
http {
  client_body_temp_path %(folder)s/a; proxy_temp_path %(folder)s/b; fastcgi_temp_path %(folder)s/c;
  uwsgi_temp_path %(folder)s/d; scgi_temp_path %(folder)s/e; access_log off;
  underscores_in_headers on; large_client_header_buffers 4 64k; proxy_buffer_size 64k; proxy_buffers 8 64k;
  proxy_busy_buffers_size 128k;
  server { listen %(port)d; location / {
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_request_buffering off; proxy_buffering off;
    proxy_pass_header Server; proxy_read_timeout 2s; proxy_next_upstream off;
    proxy_pass http://127.0.0.1:%(upstream)d; } }
}
"""
KIEGATE = """
mode = "live"
[upstream]
base_url = "http://127.0.0.1:%(upstream)d"
upload_url = "http://127.0.0.1:%(upstream)d"
response_timeout = "2s"
[[upstream.key]]
name = "main"
secret = "env:UPSTREAM_KEY"
[[tenant]]
id = "test"
keys = ["sha256:%(hash)s"]
"""


def get(*lines, method="GET", target="/x", body=b""):
    """A request with these header lines. It asks for the connection's end unless a line says something of it."""
    lines = [line if isinstance(line, bytes) else line.encode() for line in lines]
    if not any(line.lower().startswith(b"connection:") for line in lines):
        lines.append(b"Connection: close")
    head = [f"{method} {target} HTTP/1.1".encode(), b"Host: here", b"Authorization: Bearer " + KEY.encode(), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def post(*lines, body=b""):
    return get(*lines, method="POST", body=body)


CHUNKED = "Transfer-Encoding: chunked"
REQUESTS = {
    "plain": get("Accept: */*", "X-One: 1"),
    "names in any case": get("x-LoWer: 1"),
    "an underscore in a name": get("x_y: 1"),
    "Connection names a header": get("Connection: close, X-Hop", "X-Hop: 1", "X-Stay: 1"),
    "Connection names Content-Type": get("Connection: close, content-type", "Content-Type: a/b"),
    "Keep-Alive": get("Keep-Alive: timeout=5"),
    "Proxy-Connection": get("Proxy-Connection: keep-alive"),
    "Proxy-Authorization": get("Proxy-Authorization: Basic eDp5"),
    "TE": get("TE: trailers"),
    "Trailer": get("Trailer: X-Sum"),
    "Via": get("Via: 1.1 before"),
    "Upgrade": get("Connection: upgrade", "Upgrade: websocket"),
    "Upgrade to h2c": get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
    "duplicate headers": get("X-Many: 1", "X-Many: 2", "X-Other: x", "X-Many: 3"),
    "cookies": get("Cookie: a=1", "Cookie: b=2"),
    "an empty value": get("X-Empty:"),
    "spaces around a value": get("X-Space: \t v \t "),
    "a very long value": get("X-Long: " + "y" * 20000),
    "a non-ASCII value": get("X-Text: Grüße".encode()),
    "a value in Latin-1": get("X-Text: Gr\xfc\xdfe".encode("latin-1")),
    "a NUL in a value": get(b"X-Nul: a\0b"),
    "a space before the colon": get("X-Bad : 1"),
    "a name with a bracket": get("X(: 1"),
    "a line without a colon": get("nonsense"),
    "obs-fold": get("X-Fold: a\r\n b"),
    "no Host": b"GET /x HTTP/1.1\r\nAuthorization: Bearer " + KEY.encode() + b"\r\nConnection: close\r\n\r\n",
    "two Hosts": get("Host: there"),
    "HTTP/1.0": b"GET /x HTTP/1.0\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n\r\n",
    "HEAD": get(method="HEAD"),
    "OPTIONS": get(method="OPTIONS"),
    "OPTIONS *": get(method="OPTIONS", target="*"),
    "an unknown method": get(method="BREW"),
    "TRACE": get(method="TRACE"),
    "CONNECT": get(method="CONNECT", target="there:443"),
    "absolute-form": get(target="http://elsewhere.example/x?a=1"),
    "a query alone": get(target="/x?a=%20b&c=%C3%BC&d"),
    "escapes in a path": get(target="/a%2Fb/%7Ec"),
    "dots in a path": get(target="/a/../b/./c"),
    "a length": post("Content-Length: 3", body=b"abc"),
    "a length of nothing": post("Content-Length: 0"),
    "no length": post(),
    "chunks": post(CHUNKED, body=b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n"),
    "chunks with trailers": post(CHUNKED, "Trailer: X-Sum", body=b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"),
    "a body with GET": get("Content-Length: 3", body=b"abc"),
    "Expect: 100-continue": post("Content-Length: 3", "Expect: 100-continue", body=b"abc"),
    "Expect: something": post("Content-Length: 3", "Expect: something", body=b"abc"),
    "length and chunks": post("Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"),
    "chunks and length": post(CHUNKED, "Content-Length: 5", body=b"0\r\n\r\nGET /y HTTP/1.1\r\n\r\n"),
    "two lengths": post("Content-Length: 3", "Content-Length: 4", body=b"abcd"),
    "the same length twice": post("Content-Length: 3", "Content-Length: 3", body=b"abc"),
    "a list of lengths": post("Content-Length: 3, 3", body=b"abc"),
    "a length with a sign": post("Content-Length: +3", body=b"abc"),
    "a length below zero": post("Content-Length: -1"),
    "a length beyond all": post("Content-Length: 99999999999999999999999"),
    "a chunk that is no number": post(CHUNKED, body=b"zz\r\nabc\r\n0\r\n\r\n"),
    "a chunk with a sign": post(CHUNKED, body=b"+3\r\nabc\r\n0\r\n\r\n"),
    "a chunk without its end": post(CHUNKED, body=b"3\r\nabcdef\r\n0\r\n\r\n"),
    "chunks, twice": post("Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "an unknown coding": post("Transfer-Encoding: gzip", body=b"abc"),
    "chunked, but not last": post("Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "a coding with a tab before it": post("Transfer-Encoding:\tchunked", body=b"0\r\n\r\n"),
    "a coding with a strange sign": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "chunks in HTTP/1.0": post(CHUNKED, body=b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "bare line feeds": get("X-A: 1").replace(b"\r\n", b"\n"),
    "X-Forwarded-For": get("X-Forwarded-For: 192.0.2.1"),
    "Range and conditions": get("Range: bytes=0-1", 'If-None-Match: "x"'),
    "wishes for the simulator": get("X-Mock-Outcome: stall"),
    "keys in other places": get("x-api-key: a", "x-goog-api-key: b"),
}


def ok(*lines, body=b"ok", status="200 OK", version="HTTP/1.1"):
    lines = [line if isinstance(line, bytes) else line.encode() for line in lines]
    return b"\r\n".join([f"{version} {status}".encode(), *lines]) + b"\r\n\r\n" + body


LENGTH = "Content-Length: 2"
ANSWERS = {
    "plain": ok(LENGTH),
    "Connection names a header": ok(LENGTH, "Connection: X-Hop", "X-Hop: 1", "X-Stay: 1"),
    "Keep-Alive": ok(LENGTH, "Connection: keep-alive", "Keep-Alive: timeout=5"),
    "Proxy-Connection": ok(LENGTH, "Proxy-Connection: close"),
    "Proxy-Authenticate": ok(LENGTH, "Proxy-Authenticate: Basic"),
    "Upgrade offered": ok(LENGTH, "Connection: upgrade", "Upgrade: h2"),
    "Date and Server": ok(LENGTH, f"Date: {DATE}", "Server: upstream/1"),
    "cookies": ok(LENGTH, "Set-Cookie: a=1", "Set-Cookie: b=2"),
    "a very long value": ok(LENGTH, "X-Long: " + "y" * 20000),
    "a non-ASCII value": ok(LENGTH, "X-Text: Grüße".encode()),
    "a value in Latin-1": ok(LENGTH, "X-Text: Gr\xfc\xdfe".encode("latin-1")),
    "obs-fold": ok(LENGTH, "X-Fold: a\r\n b"),
    "a space before the colon": ok(LENGTH, "X-Bad : 1"),
    "a line without a colon": ok(LENGTH, "nonsense"),
    "a NUL in a value": ok(LENGTH, b"X-Nul: a\0b"),
    "chunks": ok(CHUNKED, body=b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n"),
    "chunks with trailers": ok(CHUNKED, "Trailer: X-Sum", body=b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"),
    "until the end": ok("Connection: close", body=b"abc"),
    "HTTP/1.0": ok(body=b"abc", version="HTTP/1.0"),
    "204": ok(status="204 No Content", body=b""),
    "204 with a length": ok("Content-Length: 0", status="204 No Content", body=b""),
    "204 with a body": ok(LENGTH, status="204 No Content"),
    "304": ok('ETag: "x"', status="304 Not Modified", body=b""),
    "304 with a length": ok("Content-Length: 300", 'ETag: "x"', status="304 Not Modified", body=b""),
    "redirect": ok("Content-Length: 0", "Location: http://elsewhere.example/", status="302 Found", body=b""),
    "an unknown status": ok(LENGTH, status="299 Whatever"),
    "no reason": ok(LENGTH, status="200"),
    "100 first": b"HTTP/1.1 100 Continue\r\n\r\n" + ok(LENGTH),
    "103 first": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ok(LENGTH),
    "101 that nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nxx",
    "two lengths": ok("Content-Length: 2", "Content-Length: 3"),
    "the same length twice": ok(LENGTH, LENGTH),
    "length and chunks": ok("Content-Length: 5", CHUNKED, body=b"2\r\nok\r\n0\r\n\r\n"),
    "a length that is no number": ok("Content-Length: two"),
    "a length with a sign": ok("Content-Length: +2"),
    "an unknown coding": ok("Transfer-Encoding: gzip", body=b"abc"),
    "a body longer than told": ok(LENGTH, body=b"okHTTP/1.1 200 OK\r\n\r\n"),
    "a body that breaks off": ok("Content-Length: 10", body=b"abc"),
    "chunks that break off": ok(CHUNKED, body=b"3\r\nabc\r\n"),
    "a chunk that is no number": ok(CHUNKED, body=b"3\r\nabc\r\nzz\r\nabc\r\n0\r\n\r\n"),
    "garbage": b"\x16\x03\x01garbage\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "another version": ok(LENGTH, version="HTTP/3.7"),
    "a head that is too large": ok(LENGTH, *[f"X-{number}: {'y' * 4000}" for number in range(300)]),
    "X-Accel": ok(LENGTH, "X-Accel-Buffering: no"),
    "an event stream": ok("Content-Type: text/event-stream", CHUNKED, body=b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"),
}

PLAIN = ["answered: 200", "GET /x HTTP/1.1", "body b''"]
OK, OK_TO_HEAD = ["answered: 200, dates: 1", "body b'ok'"], ["answered: 200, dates: 1", "content-length: 2", "body b''"]
ONE_HOP = "RFC 9110, 7.6.1: what Connection names, and what is for one connection, does not travel; nginx lets it"
STRICT = "RFC 9112, 5.1: this is no field line; nginx drops it or takes it for one"
CODING = "RFC 9112, 6.3: a body whose end cannot be known is 400; nginx says 501"
LENGTHS = "RFC 9112, 6.3: the message ends here or there, so it is none; nginx passes it on"
DRAFT = "RFC 9112, 2.3 and 4: that is no answer of HTTP/1; nginx takes it for HTTP/0.9 or passes it on"

# Where kiegate differs from nginx: (part, case): (what kiegate makes of it, why).
ON_PURPOSE = {
    ("request", "Connection names a header"): (["answered: 200", "GET /x HTTP/1.1", "x-stay: 1", "body b''"], ONE_HOP),
    ("request", "Connection names Content-Type"): (PLAIN, ONE_HOP),
    ("request", "Proxy-Connection"): (PLAIN, ONE_HOP),
    ("request", "Proxy-Authorization"): (PLAIN, ONE_HOP),
    ("request", "Upgrade to h2c"): (PLAIN, ONE_HOP),
    ("request", "cookies"): (["answered: 200", "GET /x HTTP/1.1", "cookie: a=1; b=2", "body b''"],
                             "RFC 6265, 5.4: one line; over HTTP/2 they come one by one"),
    ("request", "a name with a bracket"): (["refused: 400"], STRICT),
    ("request", "a line without a colon"): (["refused: 400"], STRICT),
    ("request", "OPTIONS *"): (["answered: 200", "OPTIONS * HTTP/1.1", "body b''"], "asks about the server, harmless"),
    ("request", "CONNECT"): (["refused: 405"], "a known method that is not allowed; nginx says 400"),
    ("request", "length and chunks"): (["answered: 200", "POST /x HTTP/1.1", "body b''"],
                                       "RFC 9112, 6.1: the chunks count, the length is dropped, the connection ends"),
    ("request", "chunks and length"): (["answered: 200", "POST /x HTTP/1.1", "body b''"], "the same"),
    ("request", "the same length twice"): (["answered: 200", "POST /x HTTP/1.1", "body b'abc'"],
                                           "RFC 9110, 8.6: may be taken for one; it goes on as one"),
    ("request", "an unknown coding"): (["refused: 400"], CODING),
    ("request", "chunked, but not last"): (["refused: 400"], CODING),
    ("request", "a coding with a strange sign"): (["refused: 400"], CODING),
    ("request", "a coding with a tab before it"): (["answered: 200", "POST /x HTTP/1.1", "body b''"],
                                                   "RFC 9110, 5.5: a tab is white space"),
    ("request", "wishes for the simulator"): (PLAIN, "between client and gateway alone"),
    ("request", "keys in other places"): (PLAIN, "a client's key never travels upstream"),
    ("answer to GET", "204 with a length"): (["answered: 204, dates: 1", "body b''"], "RFC 9110, 8.6: a 204 has no length"),
    ("answer to GET", "204 with a body"): (["answered: 204, dates: 1", "body b''"], "RFC 9110, 8.6: a 204 has no length"),
    ("answer to GET", "304 with a length"): (["answered: 304, dates: 1", 'etag: "x"', "body b''"],
                                             "RFC 9110, 8.6: a 304 may leave it out"),
    ("answer to GET", "100 first"): (OK, "nginx passes the head that follows on as it is"),
    ("answer to GET", "103 first"): (OK, "nginx passes the head that follows on as it is"),
    ("answer to HEAD", "100 first"): (OK_TO_HEAD, "nginx ends with the interim answer"),
    ("answer to HEAD", "103 first"): (OK_TO_HEAD, "nginx ends with the interim answer"),
    ("answer to GET", "a chunk that is no number"): (["answered: 200, dates: 1", "body b'abc' cut off"],
                                                     "what came before the fault is passed on"),
}
for case, line, why in [
    ("Connection names a header", "x-stay: 1", ONE_HOP), ("Proxy-Connection", None, ONE_HOP),
    ("Proxy-Authenticate", None, ONE_HOP), ("Upgrade offered", None, ONE_HOP),
    ("X-Accel", "x-accel-buffering: no", "nginx obeys it; it means nothing to kiegate"),
]:
    lines = [line] if line else []
    ON_PURPOSE["answer to GET", case] = ([OK[0], *lines, OK[1]], why)
    ON_PURPOSE["answer to HEAD", case] = ([OK[0], *lines, *OK_TO_HEAD[1:]], why)
DATED = [f"date: {DATE}", "server: upstream/1"]
ON_PURPOSE["answer to GET", "Date and Server"] = ([OK[0], *DATED, OK[1]], "RFC 9110, 6.6.1: the date is the upstream's")
ON_PURPOSE["answer to HEAD", "Date and Server"] = ([OK[0], *DATED, *OK_TO_HEAD[1:]], "the same")
ON_PURPOSE["answer to HEAD", "chunks with trailers"] = ([OK[0], "body b''"], "nothing comes that could be announced")
for method in ["GET", "HEAD"]:
    for case, why in [
        ("a line without a colon", STRICT), ("101 that nobody asked for", "RFC 9110, 15.2.2: only after an Upgrade"),
        ("two lengths", LENGTHS), ("a length that is no number", LENGTHS), ("a length with a sign", LENGTHS),
        ("an unknown coding", "RFC 9112, 6.1: the body means nothing without its coding, which does not travel"),
        ("garbage", DRAFT), ("HTTP/0.9", DRAFT), ("another version", DRAFT),
    ]:
        ON_PURPOSE[f"answer to {method}", case] = (["refused: 502"], why)


class Upstream:
    """Notes what it gets, and answers with the bytes it is told to."""

    def __init__(self):
        self.listener = socket.create_server((HOST, 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.expect(b"")
        threading.Thread(target=self.serve, daemon=True).start()

    def expect(self, answer):
        """Answers so from now on, and forgets what it saw."""
        self.answer, self.seen, self.talks = answer, [], []

    def got(self):
        """The whole requests that have come, once their connections have ended."""
        for talk in self.talks:
            talk.join(PATIENCE)
        return [message for message in self.seen if message.whole]

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                talk = threading.Thread(target=self.talk, args=[client, self.answer, self.seen], daemon=True)
                talk.start()
                self.talks.append(talk)

    @staticmethod
    def talk(client, answer, seen):
        with client, contextlib.suppress(OSError):
            client.settimeout(PATIENCE)
            message = read_message(client, request=True)
            if message is not None:
                seen.append(message)
                client.sendall(answer)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass


class Message:
    """A request or an answer, taken apart: its first line, headers in lower case, the body without its framing."""

    def __init__(self, first, headers, body, whole, bare=False):
        self.first, self.headers, self.body, self.whole, self.bare = first, headers, body, whole, bare

    def told(self, own):
        kept = sorted((name, value) for name, value in self.headers if name not in own)
        lengths = [value for name, value in self.headers if name == "content-length"]
        # A length counts where it stands twice, or without its body.
        if len(lengths) > 1 or (lengths and self.bare):
            kept.append(("content-length", " and ".join(lengths)))
        return [*(f"{name}: {value[:60]}" for name, value in kept), f"body {self.body!r}" + ("" if self.whole else " cut off")]


def read_message(client, request, head_only=False):
    """Reads one message; None if no whole head came."""
    received = b""

    def more():
        nonlocal received
        try:
            piece = client.recv(65536)
        except (TimeoutError, ConnectionResetError):
            piece = b""
        received += piece
        return piece

    while b"\r\n\r\n" not in received:
        if not more():
            return None
    head, received = received.split(b"\r\n\r\n", 1)
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    if not request and first[9:12] in ("100", "103"):
        rest = received
        return read_message(Resumed(client, rest), request, head_only)
    values = dict(headers)
    body, whole = b"", True
    bare = head_only or (not request and first[9:12] in ("204", "304", "101"))
    if bare:
        # Nothing may follow; what does is shown.
        while more():
            pass
        body = received
    elif "chunked" in values.get("transfer-encoding", ""):
        while True:
            while b"\r\n" not in received:
                if not more():
                    return Message(first, headers, body, False)
            size, received = received.split(b"\r\n", 1)
            size = int(size.split(b";")[0], 16)
            while len(received) < size + 2:
                if not more():
                    return Message(first, headers, body + received[:size], False)
            body, received = body + received[:size], received[size + 2:]
            if size == 0:
                break
    elif "content-length" in values:
        length = int(values["content-length"])
        while len(received) < length and more():
            pass
        body, whole = received[:length], len(received) >= length
    elif not request:
        while more():
            pass
        body = received
    return Message(first, headers, body, whole, bare)


class Resumed:
    """A socket of which some bytes have been read already."""

    def __init__(self, client, first):
        self.client, self.first = client, first

    def recv(self, size):
        if self.first:
            first, self.first = self.first, b""
            return first
        return self.client.recv(size)


def exchange(port, request):
    """Sends raw bytes to a proxy; gives its answer, or None if the connection ended without one."""
    with socket.create_connection((HOST, port), timeout=PATIENCE) as client:
        with contextlib.suppress(OSError):
            client.sendall(request)
        return read_message(client, request=False, head_only=request.startswith(b"HEAD "))


def of_request(proxy, upstream, request):
    """What the upstream got of a request; what the client got if that was nothing."""
    upstream.expect(ok(LENGTH, "Connection: close"))
    answer = exchange(proxy, request)
    status = answer.first[9:12] if answer else "no answer"
    requests = upstream.got()
    if not requests:
        return [f"refused: {status}"]
    return [f"answered: {status}"] + [part for seen in requests for part in [seen.first, *seen.told(OWN_IN_REQUESTS)]]


def of_answer(proxy, upstream, answer, request):
    """What the client got of an answer."""
    upstream.expect(answer)
    got = exchange(proxy, request)
    if got is None:
        return ["no answer"]
    status = got.first[9:12]
    if status in ("502", "504"):
        return [f"refused: {status}"]
    dated = sum(name == "date" for name, _ in got.headers)
    got.headers = [each for each in got.headers if each[0] not in ("date", "server") or each[1] in (DATE, "upstream/1")]
    return [f"answered: {status}, dates: {dated}", *got.told(OWN_IN_ANSWERS)]


@contextlib.contextmanager
def running(command, port_of, environment=None):
    """A program until the end of the block; ended by its id."""
    with tempfile.TemporaryFile("w+b") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            for _ in range(1000):
                log.seek(0)
                port = port_of(log.read().decode(errors="replace"))
                if port or process.poll() is not None:
                    break
                time.sleep(0.01)
            if not port:
                log.seek(0)
                sys.exit(f"{command[0]} does not start:\n{log.read().decode()}")
            yield port
        finally:
            process.terminate()
            process.wait()


def nginx(folder, upstream):
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    config = pathlib.Path(folder, "nginx.conf")
    config.write_text(NGINX % {"folder": folder, "port": port, "upstream": upstream})

    def listening(_):
        with socket.socket() as client:
            return port if client.connect_ex((HOST, port)) == 0 else None

    program = shutil.which("nginx") or "/usr/sbin/nginx"
    return running([program, "-p", folder, "-c", str(config), "-e", f"{folder}/error"], listening)


def kiegate(binary, folder, upstream):
    config = pathlib.Path(folder, "kiegate.toml")
    config.write_text(KIEGATE % {"upstream": upstream, "hash": hashlib.sha256(KEY.encode()).hexdigest()})
    found = lambda log: (match := re.search(r"mode at http://127\.0\.0\.1:(\d+)", log)) and int(match[1])
    command = [binary, "serve", f"--listen={HOST}:0", f"--admin-listen={HOST}:0", "--config", str(config)]
    return running(command, found, {"PATH": os.environ.get("PATH", ""), "UPSTREAM_KEY": "fake"})


def compare(part, name, theirs, ours, show):
    """Whether all is as it should be; says what is not."""
    if show and theirs != ours:
        print(f"-- {part}, {name}\n   nginx   {theirs}\n   kiegate {ours}")
    expected, _ = ON_PURPOSE.get((part, name), (theirs, ""))
    if (part, name) in ON_PURPOSE and theirs == ours:
        print(f"{part}, {name}: is said to differ from nginx, and does not: {ours}", file=sys.stderr)
        return False
    if ours != expected:
        print(f"{part}, {name}:\n  expected {expected}\n  got      {ours}", file=sys.stderr)
        return False
    return True


def main():
    binary, show = str(pathlib.Path(sys.argv[1]).resolve()), "--show" in sys.argv
    upstream, good, all_cases = Upstream(), 0, 0
    with tempfile.TemporaryDirectory(prefix="kiegate-headers-") as folder, \
            nginx(folder, upstream.port) as theirs, kiegate(binary, folder, upstream.port) as ours:
        for name, request in REQUESTS.items():
            got = [of_request(proxy, upstream, request) for proxy in (theirs, ours)]
            good += compare("request", name, *got, show)
            all_cases += 1
        for name, answer in ANSWERS.items():
            for method in ["GET", "HEAD"]:
                got = [of_answer(proxy, upstream, answer, get(method=method)) for proxy in (theirs, ours)]
                good += compare(f"answer to {method}", name, *got, show)
                all_cases += 1
    print(f"proxy_headers.py: {good} of {all_cases} as nginx does, or other on purpose ({len(ON_PURPOSE)})")
    sys.exit(good != all_cases)


if __name__ == "__main__":
    main()
