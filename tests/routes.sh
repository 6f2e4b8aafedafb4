#!/usr/bin/env bash
# Viewers follow a real router: tests/routes.sh BINARY
# Two BIRDs speak BGP to each other: what one announces, the other dumps as MRT, and the binary steers by the dump.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${1:?usage: tests/routes.sh BINARY}")
. tests/checks.sh

main() {
    networks 198.51.100.0/24 203.0.113.0/24
    start_bird isp
    start_bird box
    check "the routers speak to each other" wait_until 30 announced 198.51.100.0/24
    check "the router beside the box dumps what it hears" wait_until 30 test -s "$scratch/box.mrt"
    start_edge
    check "who was announced is sent to the box, first of all" sent_to 198.51.100.7 announced
    check "who was not is sent by his share" sent_to 192.0.2.7 share
    networks 203.0.113.0/24 192.0.2.0/24
    check "who is announced later is sent there later" wait_until 30 sent_to 192.0.2.7 announced
    check "who is withdrawn is sent there no more" wait_until 30 sent_to 198.51.100.7 share
    check "who stays announced stays" sent_to 203.0.113.7 announced
    # Beside what there was: a dump between two changes would be a good one of less.
    networks 203.0.113.0/24 192.0.2.0/24 0.0.0.0/0
    check "a default route is refused, and told" wait_until 30 grep -q 'is the default route' "$scratch/edge.log"
    check "what was told before stays" sent_to 192.0.2.7 announced
    check "it is counted" counted 'tidegate_route_files{state="kept"} 1'
    networks 203.0.113.0/24
    check "it is followed again when it is right" wait_until 30 sent_to 192.0.2.7 share
    [ "$failures" -eq 0 ] || tail -n 20 "$scratch"/*.log
    [ "$failures" -eq 0 ]
}

# networks PREFIX...: what the ISP announces from now on.
networks() {
    printf 'route %s blackhole;\n' "$@" >"$scratch/networks.conf"
    [ ! -S "$scratch/isp.ctl" ] || birdc -s "$scratch/isp.ctl" configure >/dev/null
}

# start_bird NAME: the router of the ISP, or the one beside the box, which dumps.
start_bird() {
    local name=$1 own=127.0.0.1 as=64501 other=127.0.0.2 other_as=64500 import=none export=all more=
    if [ "$name" = box ]; then
        own=127.0.0.2 as=64500 other=127.0.0.1 other_as=64501 import=all export=none
        more="protocol mrt { table \"master4\"; filename \"$scratch/box.mrt\"; period 5; }"
    else
        more=$(printf 'protocol static {\n ipv4;\n include "%s";\n}' "$scratch/networks.conf")
    fi
    : "${port:=$(free_port)}"
    cat >"$scratch/$name.conf" <<CONF
log "$scratch/$name.log" all;
router id 10.0.0.${own##*.};
protocol device {}
protocol bgp peer {
    local $own port $port as $as;
    neighbor $other port $port as $other_as;
    multihop 2;
    strict bind yes;
    connect delay time 1;
    connect retry time 1;
    error wait time 1, 2;
    ipv4 { import $import; export $export; };
}
$more
CONF
    bird -f -c "$scratch/$name.conf" -s "$scratch/$name.ctl" -P "$scratch/$name.pid" >"$scratch/$name.out" 2>&1 &
    started+=($!)
}

announced() {
    birdc -s "$scratch/box.ctl" show route "$1" | grep -q 'AS64501'
}

# Of two boxes one has the dump; the other is for everybody.
start_edge() {
    http=$(free_port) steering=$(free_port) admin=$(free_port)
    cat >"$scratch/edge.toml" <<TOML
listeners = {http = ["127.0.0.1:$http"], steering = ["127.0.0.1:$steering"], admin = ["127.0.0.1:$admin"]}
memory.ram = "64 MiB"
log.access = "off"
ssd.state = "$scratch/state.json"
proxies.forwarded = ["127.0.0.1"]
routes = {reread = "200ms", files = [{path = "$scratch/box.mrt", format = "mrt", boxes = ["box"]}]}

[[steering.appliances]]
name = "box"
addresses = ["192.0.2.1"]
capacity = "10 Gbit/s"

[[steering.appliances]]
name = "other"
addresses = ["192.0.2.2"]
capacity = "10 Gbit/s"

[[sites]]
name = "film"
hosts = ["*"]
origins = ["http://127.0.0.1:9"]
TOML
    "$binary" serve --config "$scratch/edge.toml" >"$scratch/edge.log" 2>&1 &
    started+=($!)
    check "it answers who asks" wait_until 30 curl --silent --output /dev/null "http://127.0.0.1:$steering/"
}

# sent_to VIEWER RULE: what puts the first appliance first; by a route it is `box`.
sent_to() {
    local first
    first=$(curl --silent --fail -H "X-Forwarded-For: $1" "http://127.0.0.1:$steering/steer/v1/rank/film/a" |
        python3 -c 'import json, sys; r = json.load(sys.stdin)["ranked"][0]; print(r["appliance"], r["reasons"][0]["rule"])')
    echo "$first"
    if [ "$2" = announced ]; then [ "$first" = "box announced" ]; else [[ "$first" == *" $2" ]]; fi
}

counted() {
    curl --silent "http://127.0.0.1:$admin/metrics" | grep -qx "$1"
}

main
