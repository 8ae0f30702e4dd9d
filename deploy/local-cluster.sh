#!/usr/bin/env bash
# Several instances on one table, on this host only: to see what becomes of machines when one is killed, stopped or frozen.
#
#   deploy/local-cluster.sh [INSTANCES [PORT]]
#
# Starts a DynamoDB API (deploy/test-services.sh), so many instances (3) and a balancer on PORT (8022; 0 takes any). Prints
# who listens where under which process id, and runs until it is told to stop (Ctrl-C), or its standard input ends if that
# is no terminal. Everything that it started ends with it, and everything that was stored is gone.
#
#   PROCESSOR    the processor's URL (http://localhost:8023/processor)
#   LEASE_TIME   storage.lease_time (10s)
set -euo pipefail
cd "$(dirname "$0")/.."

readonly INSTANCES="${1:-3}"
readonly PORT="${2:-8022}"
readonly PROGRAM="target/debug/machinegun"
readonly BALANCER="target/debug/examples/balancer"

started=()
data=""

fail() {
    echo "local-cluster: $*" >&2
    exit 1
}

stop() {
    # Only what was started here, by its id; the table last, so that the instances can hand over to the end.
    local at
    for ((at = ${#started[@]} - 1; at > 0; at--)); do
        kill "${started[at]}" 2>/dev/null || true
        # A frozen one takes no signal but this.
        kill -CONT "${started[at]}" 2>/dev/null || true
    done
    for ((at = ${#started[@]} - 1; at > 0; at--)); do
        wait "${started[at]}" 2>/dev/null || true
    done
    if [ "${#started[@]}" -gt 0 ]; then
        # Its end of the pipe: that is what it waits for.
        exec 8>&-
        kill "${started[0]}" 2>/dev/null || true
        wait "${started[0]}" 2>/dev/null || true
    fi
    if [ -n "$data" ]; then
        rm -rf "$data"
    fi
}

# The first line of a file that matches, once it is there: FILE PID PATTERN
line_of() {
    for _ in $(seq 600); do
        grep -m 1 -E "$3" "$1" 2>/dev/null && return 0
        kill -0 "$2" 2>/dev/null || break
        sleep 0.1
    done
    fail "$1 does not say $3: $(tail -n 5 "$1")"
}

case "$INSTANCES" in
    *[!0-9]* | "" | 0) fail "say how many instances, like 3" ;;
esac

# With the whole workspace, so that nothing is built twice with other features.
cargo build --workspace --bins --example balancer >&2 || fail "the program can't be built"

trap stop EXIT
trap 'exit 0' TERM INT HUP
data="$(mktemp -d)"

mkfifo "$data/hold"
# Bound to this shell: the service ends when it does, however that ends.
deploy/test-services.sh dynamodb <"$data/hold" >"$data/dynamodb" &
started+=($!)
exec 8>"$data/hold"
endpoint="$(line_of "$data/dynamodb" "${started[0]}" '^http://')"
echo "DynamoDB API   $endpoint"

export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local
addresses=()
for ((number = 1; number <= INSTANCES; number++)); do
    port=0
    if [ "$PORT" != 0 ]; then
        port=$((PORT + 100 + number))
    fi
    cat >"$data/$number.yaml" <<YAML
service_name: machinegun-$number
# One host's instances would have the same by default.
snowflake_machine_id: $number
logging: {out_type: stdout}
woody_server: {ip: 127.0.0.1, port: $port}
storage:
  type: dynamodb
  table: machinegun
  region: local
  endpoint_url: $endpoint
  create_table: $([ "$number" = 1 ] && echo true || echo false)
  lease_time: ${LEASE_TIME:-10s}
namespaces:
  example: {processor: {url: "${PROCESSOR:-http://localhost:8023/processor}"}}
YAML
    "$PROGRAM" serve --config "$data/$number.yaml" </dev/null >"$data/$number.log" 2>&1 8>&- &
    pid=$!
    started+=("$pid")
    address="$(line_of "$data/$number.log" "$pid" 'machinegun is up' | grep -oE '127\.0\.0\.1:[0-9]+' | tail -n 1)"
    addresses+=("$address")
    echo "instance $number     http://$address   pid $pid   log $data/$number.log"
done

"$BALANCER" "127.0.0.1:$PORT" "${addresses[@]}" </dev/null >"$data/balancer" 2>&1 8>&- &
started+=($!)
echo "balancer       http://$(line_of "$data/balancer" $! '^127')/v1/automaton"
echo "Who owns what: curl -s http://${addresses[0]}/health; freeze one with kill -STOP, kill one with kill -KILL."

if [ -t 0 ]; then
    echo "Ctrl-C ends all of it."
    while :; do
        sleep 86400 8>&- &
        wait $! || true
    done
else
    cat >/dev/null
fi
