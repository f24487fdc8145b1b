#!/usr/bin/env bash
# Other people's programs against the built binary, on 127.0.0.1: a validator of API descriptions, nginx as a
# second opinion on what a gateway does, and the vendors' own clients of language models. Usage: run.sh PATH_OF_KIEGATE
#
# They live in a virtual environment outside of the checkout, made once for each list of versions.
set -euo pipefail
binary="$(realpath "$1")"
cd "$(dirname "$0")"

command -v python3 >/dev/null || { echo "the client tests need python3 (3.10 or later)" >&2; exit 1; }
version="$( (python3 --version; cat requirements.txt) | sha256sum | cut -c1-16)"
environment="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/kiegate/clients-$version"
if [ ! -e "$environment/ready" ]; then
    echo "installing $(grep -v '^#' requirements.txt | tr '\n' ' ')"
    rm -rf "$environment"
    python3 -m venv "$environment" ||
        { echo "python3 cannot make a virtual environment: install the package python3-venv" >&2; exit 1; }
    "$environment/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt ||
        { echo "the client libraries cannot be installed: is the Python package index in reach?" >&2; exit 1; }
    touch "$environment/ready"
fi

(cd ../.. && "$environment/bin/python" tests/clients/check_openapi.py "$binary")
"$environment/bin/python" proxy_headers.py "$binary"

log="$(mktemp)"
"$binary" serve --listen=127.0.0.1:0 --admin-listen=127.0.0.1:0 >"$log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -f "$log"' EXIT
port=""
for _ in $(seq 100); do
    port="$(sed -n 's/.*mode at http:\/\/127\.0\.0\.1:\([0-9]*\).*/\1/p' "$log" | head -1)"
    [ -n "$port" ] && break
    kill -0 "$server" 2>/dev/null || { cat "$log" >&2; exit 1; }
    sleep 0.1
done
[ -n "$port" ] || { echo "kiegate did not say where it listens:" >&2; cat "$log" >&2; exit 1; }

for test in test_*.py; do
    "$environment/bin/python" "$test" "http://127.0.0.1:$port" || { echo "$test failed" >&2; exit 1; }
done
