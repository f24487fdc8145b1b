#!/usr/bin/env bash
# The examples, as somebody would use them who copied them, against the built binary. Usage: run.sh PATH_OF_KIEGATE
#
# Python and Node are needed. What needs npm or go is skipped where they are missing, and said so at the end.
# Packages live outside of the checkout, installed once for each list of versions.
set -euo pipefail
KIEGATE_BIN="$(realpath "$1")"
export KIEGATE_BIN
unset KIEGATE_URL # that is for the second time
here="$(cd "$(dirname "$0")" && pwd)"
examples="$(cd "$here/../../examples" && pwd)"
cache="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/kiegate"
mkdir -p "$cache"
for program in python3 node; do
    command -v "$program" >/dev/null || { echo "the examples need $program" >&2; exit 1; }
done
work="$(mktemp -d)"
server=""
end() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap end EXIT
skipped=()

cp -r "$examples/pytest" "$examples/node" "$examples/vitest" "$examples/jest" "$examples/go" "$work"
# As the README of the examples says: these two need the files of node, too.
for runner in vitest jest; do cp "$examples/node/kiegate.mjs" "$examples/node/videos.mjs" "$work/$runner"; done

version="$( (python3 --version; cat "$here/requirements.txt" "$examples/pytest/requirements.txt") | sha256sum | cut -c1-16)"
python="$cache/examples-$version"
if [ ! -e "$python/ready" ]; then
    echo "installing pytest"
    rm -rf "$python"
    python3 -m venv "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" \
        -r "$examples/pytest/requirements.txt" ||
        { echo "pytest cannot be installed: is the Python package index in reach?" >&2; exit 1; }
    touch "$python/ready"
fi

run_own() { # the examples that start kiegate themselves, or take the one at KIEGATE_URL
    echo "-- pytest"
    (cd "$work/pytest" && "$python/bin/python" -m pytest -q -p no:cacheprovider)
    echo "-- node --test"
    (cd "$work/node" && node --test)
    if command -v go >/dev/null; then
        echo "-- go test"
        (cd "$work/go" && CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-mod=mod go test -count=1 ./...)
    fi
}

run_with_npm() { # run_with_npm NAME: those that have packages
    local version packages
    version="$( (node --version; cat "$examples/$1/package.json") | sha256sum | cut -c1-16)"
    packages="$cache/$1-$version"
    if [ ! -e "$packages/ready" ]; then
        echo "installing $1"
        rm -rf "$packages"
        mkdir -p "$packages"
        cp "$examples/$1/package.json" "$packages"
        if ! (cd "$packages" && npm install --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error); then
            skipped+=("$1 (npm cannot install it)")
            return
        fi
        touch "$packages/ready"
    fi
    echo "-- $1"
    ln -s "$packages/node_modules" "$work/$1/node_modules"
    (cd "$work/$1" && npm test --silent)
}

run_own
if command -v npm >/dev/null; then
    run_with_npm vitest
    run_with_npm jest
else
    skipped+=("vitest and jest (npm is missing)")
fi
command -v go >/dev/null || skipped+=("go test (go is missing)")

echo "-- again, against one that is running"
: >"$work/banner"
"$KIEGATE_BIN" serve --listen=127.0.0.1:0 --admin-listen=127.0.0.1:0 >"$work/banner" 2>"$work/log" &
server=$!
for _ in $(seq 100); do
    KIEGATE_URL="$(sed -n 's/.*mode at \(http:[^ ]*\)$/\1/p' "$work/banner")"
    [ -z "$KIEGATE_URL" ] || break
    kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done
[ -n "$KIEGATE_URL" ] || { echo "kiegate did not say where it listens:" >&2; cat "$work/banner" >&2; exit 1; }
export KIEGATE_URL
run_own

"$python/bin/python" "$here/check_yaml.py" "$KIEGATE_BIN"
for what in "${skipped[@]}"; do echo "SKIPPED: $what"; done
