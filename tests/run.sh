#!/usr/bin/env bash
# The test command: format, lints, documentation, every test. Exits non-zero if anything fails.
# What tests need beside Rust is installed from Debian's packages when run as root, or named.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH="$PATH:/usr/sbin" # where Debian keeps servers
need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing $2"
        apt-get update -qq
        # RUNLEVEL: what is a server is not started.
        RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
    fi
    command -v "$1" >/dev/null || { echo "the tests need $1: install the package $2" >&2; exit 1; }
}
need curl curl
need ffmpeg ffmpeg
need nginx nginx-light
need python3 python3-venv
need node nodejs

# Outside of the checkout, so that a fresh clone starts from what an earlier one has built.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${HOME:-/tmp}/.cache/kiegate/target}"
export RUSTDOCFLAGS="${RUSTDOCFLAGS:--Dwarnings}"

echo "== format";        cargo fmt --all --check
echo "== clippy";        cargo clippy --locked --all-targets --quiet -- -D warnings
echo "== documentation"; cargo doc --locked --no-deps --document-private-items --quiet
echo "== tests"
# What the simulator does in the stories is written down, and has to come about again.
recordings="$(mktemp -d)"
trap 'rm -rf "$recordings"' EXIT
# Ignored tests need ffmpeg, which is here by now.
KIEGATE_RECORD_STORIES="$recordings" cargo test --locked -- --include-ignored

echo "== the recorded stories once more"
if ! "$CARGO_TARGET_DIR/debug/kiegate" verify "$recordings" >"$recordings/report"; then
    grep -B1 -A4 -e '^  DRIFT' "$recordings/report" | head -n 100 >&2 || true
    tail -n 5 "$recordings/report" >&2
    exit 1
fi
tail -n 5 "$recordings/report" | grep -e compared

echo "== other people's programs"
bash tests/clients/run.sh "$CARGO_TARGET_DIR/debug/kiegate"

echo "== examples"
bash tests/examples/run.sh "$CARGO_TARGET_DIR/debug/kiegate"
