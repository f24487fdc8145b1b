"""kiegate for pytest: copy this file to your tests. It needs nothing but pytest."""

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
import uuid

import pytest


@pytest.fixture(scope="session")
def kiegate_url():
    """The address of a simulator: the one at KIEGATE_URL, or else one that lives as long as the test run."""
    if url := os.environ.get("KIEGATE_URL"):
        yield url.rstrip("/")
        return
    binary = os.environ.get("KIEGATE_BIN") or shutil.which("kiegate")
    if not binary:
        pytest.fail("kiegate is not in PATH; set KIEGATE_BIN to the binary, or KIEGATE_URL to a running one")
    # Settings of the shell are none of the tests'.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KIEGATE_")}
    server = subprocess.Popen(
        # Port 0: the system chooses a free one, and the first line tells which.
        [binary, "serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"],
        env={**environment, "KIEGATE_LOG__LEVEL": "warn"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = server.stdout.readline()
        started = re.search(r"http://\S+", line)
        if not started:
            pytest.fail(f"kiegate did not start: {line or f'it ended with {server.wait()}'}")
        yield started.group()
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


@pytest.fixture
def kiegate(new_kiegate):
    """A world of the test's own, whose clock stands still. Tests can run in parallel."""
    return new_kiegate()


@pytest.fixture
def new_kiegate(kiegate_url):
    """Makes such worlds, for a test that needs several."""
    return lambda: Sandbox(kiegate_url)


class Sandbox:
    """The world of one key: your code gets `url` and `token` in place of the API's address and key."""

    def __init__(self, url):
        self.url = url
        self.token = f"test-{uuid.uuid4()}"
        self.control("PUT", "clock", {"rate": 0})

    def advance(self, by=None):
        """Moves the clock by "90s", or until nothing is left to happen; gives what happened. Callbacks are delivered."""
        return self.control("POST", "clock/advance", {"by": by} if by else {"until": "idle"})["events"]

    def inbox(self, name):
        """An address to send as `callBackUrl`."""
        return f"{self.control('GET', 'inbox')['url']}/{name}"

    def arrivals(self, name, count=1, wait="5s"):
        """The callbacks that came to the inbox `name`, of which there must be `count` within `wait`."""
        arrived = self.control("GET", f"inbox/{name}?count={count}&wait={wait}")
        assert arrived["complete"], f"{count} callbacks were awaited in {name}, not {arrived['received']}"
        return arrived["received"]

    def rule(self, match, then, **more):
        """Decides how requests that match go from now on: {"operation": "runway.*"}, {"outcome": "reject:429"}, times=2."""
        return self.control("POST", "rules", {"match": match, "then": then, **more})

    def verify(self, match, count=1):
        """Requires so many requests that match; if there are not, the failure tells which came near."""
        self.control("POST", "verify", {"match": match, "count": count})

    def findings(self, *ignored):
        """What your code did that would cost money or results with the real API; `ignored` are checks left out."""
        query = f"?ignore={','.join(ignored)}" if ignored else ""
        return self.control("GET", f"verdict{query}")["findings"]

    def control(self, method, what, body=None):
        """Any other call of the control API."""
        request = urllib.request.Request(
            f"{self.url}/_mock/{what}",
            method=method,
            headers={"Authorization": f"Bearer {self.token}"},
            data=None if body is None else json.dumps(body).encode(),
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} /_mock/{what}: {error.code}: {error.read().decode()}") from None
