#!/usr/bin/env bash
# Real services for tests, on this host only, without containers.
#
#   deploy/test-services.sh install    fetches and builds what is missing, into target/tools
#   deploy/test-services.sh dynamodb   the same, then a DynamoDB API on a free loopback port: prints its address on one line,
#                                      and runs until its standard input ends or it is told to stop
set -euo pipefail
cd "$(dirname "$0")/.."

readonly DYNOXIDE_VERSION="3.2.0"
readonly TOOLS="$PWD/target/tools"
readonly DYNOXIDE="$TOOLS/bin/dynoxide"

service=""
data=""

fail() {
    echo "test-services: $*" >&2
    exit 1
}

install_dynoxide() {
    mkdir -p "$TOOLS"
    # Two at once would build the same.
    exec 9>"$TOOLS/.lock"
    if command -v flock >/dev/null; then
        flock 9
    fi
    # Cargo's own note of what is installed: the program's idea of its version is another one.
    if [ ! -x "$DYNOXIDE" ] || ! grep -qF "dynoxide-rs $DYNOXIDE_VERSION " "$TOOLS/.crates.toml" 2>/dev/null; then
        command -v cargo >/dev/null ||
            fail "needs cargo to build dynoxide $DYNOXIDE_VERSION; or name a running service in TEST_DYNAMODB_ENDPOINT"
        # It answers tests, so it is built with less care.
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
            cargo install dynoxide-rs --locked --version "$DYNOXIDE_VERSION" --root "$TOOLS" --force \
            --no-default-features --features native-sqlite,http-server,cli >&2 9>&- ||
            fail "dynoxide $DYNOXIDE_VERSION can't be built: it needs crates.io and a C compiler;" \
                "or name a running service in TEST_DYNAMODB_ENDPOINT"
    fi
    exec 9>&-
}

answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

stop() {
    # Only what was started here, by its id.
    if [ -n "$service" ]; then
        kill "$service" 2>/dev/null || true
        wait "$service" 2>/dev/null || true
    fi
    if [ -n "$data" ]; then
        rm -rf "$data"
    fi
}

dynamodb() {
    install_dynoxide
    trap stop EXIT
    trap 'exit 0' TERM INT HUP
    data="$(mktemp -d)"
    local port
    for _ in 1 2 3 4 5 6 7 8; do
        port=$((20000 + RANDOM))
        answers "$port" && continue
        "$DYNOXIDE" serve --host 127.0.0.1 --port "$port" --db-path "$data/$port.db" </dev/null >"$data/log" 2>&1 &
        service=$!
        for _ in $(seq 100); do
            kill -0 "$service" 2>/dev/null || break
            if answers "$port"; then
                echo "http://127.0.0.1:$port"
                # The reader's end of the pipe goes with the test's process, however that ends.
                cat >/dev/null
                exit 0
            fi
            sleep 0.1
        done
        kill "$service" 2>/dev/null || true
        wait "$service" 2>/dev/null || true
        service=""
    done
    fail "dynoxide does not start: $(tail -n 5 "$data/log")"
}

case "${1:-}" in
    install) install_dynoxide ;;
    dynamodb) dynamodb ;;
    *) fail "say install, or dynamodb" ;;
esac
