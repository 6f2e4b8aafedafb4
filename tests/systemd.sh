#!/usr/bin/env bash
# The units, and what systemd and Tidegate say to each other: tests/systemd.sh [BINARY]
# Without a binary the units alone are checked. No running systemd is needed: sockets are passed by
# systemd-socket-activate, and readiness is read from a NOTIFY_SOCKET of the test's own.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:+$(realpath "$1")}
. tests/checks.sh

exposure_max=2.0

main() {
    check "the units are what systemd understands" verify
    check "exposure is under $exposure_max" exposed_less tidegate.service
    check "a control plane's too" exposed_less tidegate-control.service
    check "io_uring is allowed by name" grep -q '^SystemCallFilter=.*io_uring_setup io_uring_enter io_uring_register' \
        systemd/tidegate.service
    check "stopping takes longer than draining" stop_outlasts_drain
    check "listening sockets are kept while it restarts" grep -qx 'FileDescriptorStoreMax=[1-9][0-9]*' systemd/tidegate.service
    if [ -n "$binary" ]; then
        start_origin
        passed_socket
        readiness
        control
        wrong_configuration
    fi
    [ "$failures" -eq 0 ]
}

# In copies, with a program that exists: verify asks for that.
verify() {
    mkdir -p "$scratch/units"
    cp systemd/*.service systemd/*.socket "$scratch/units"
    # Of the drop-ins those that systemd of before 253 understands too.
    mkdir -p "$scratch/units/tidegate.service.d"
    cp systemd/drop-ins/block-devices.conf systemd/drop-ins/certificates.conf "$scratch/units/tidegate.service.d"
    sed -i "s|/usr/bin/tidegate|${binary:-/bin/true}|" "$scratch"/units/*.service
    local words
    words=$(systemd-analyze verify --man=no --recursive-errors=no "$scratch"/units/*.service "$scratch"/units/*.socket 2>&1) || { echo "$words"; return 1; }
    if grep -F "$scratch/units" <<<"$words"; then return 1; fi
}

exposed_less() {
    local level
    level=$(systemd-analyze security --offline=true --no-pager "systemd/$1" |
        sed -n 's/.*Overall exposure level for .*: \([0-9.]*\) .*/\1/p')
    echo "exposure ${level:-unknown}"
    [ -n "$level" ] && awk -v level="$level" -v max="$exposure_max" 'BEGIN { exit !(level < max) }'
}

stop_outlasts_drain() {
    local stop drain
    stop=$(sed -n 's/^TimeoutStopSec=//p' systemd/tidegate.service)
    drain=$(sed -n 's/^#* *drain_timeout *= *"\([0-9]*\)s".*/\1/p' config/tidegate.toml)
    echo "stop ${stop:-unknown}, drain ${drain:-unknown}"
    [ "${stop:-0}" -gt "${drain:-999999}" ]
}

# The film by a plain file server, one object of it served through Tidegate.
start_origin() {
    origin_port=$(free_port)
    python3 -m http.server --bind 127.0.0.1 --directory tests/media "$origin_port" >/dev/null 2>&1 &
    started+=($!)
    wait_until 10 curl --silent --output /dev/null "http://127.0.0.1:$origin_port/master.m3u8"
}

# configuration FILE HTTP-PORT
configuration() {
    cat >"$1" <<TOML
[listeners]
http = ["127.0.0.1:$2"]

[memory]
ram = "64 MiB"

[log]
access = "off"

[[sites]]
name = "film"
hosts = ["*"]
origins = ["http://127.0.0.1:$origin_port"]
TOML
}

# The address is held by systemd-socket-activate: only the passed socket can answer.
passed_socket() {
    local port pid
    port=$(free_port)
    configuration "$scratch/passed.toml" "$port"
    systemd-socket-activate --listen="127.0.0.1:$port" --fdname=http \
        "$binary" serve --config "$scratch/passed.toml" >"$scratch/passed.log" 2>&1 &
    pid=$!
    started+=("$pid")
    check "a socket passed by systemd is accepted on" wait_until 20 fetched "$port" seg-0-00001.m4s
    check "it serves the origin's bytes" cmp "$scratch/body" tests/media/seg-0-00001.m4s
    kill -TERM "$pid"
    check "SIGTERM ends it with status 0" wait "$pid"
    [ "$failures" -eq 0 ] || sed 's/^/    /' "$scratch/passed.log"
}

fetched() { curl --silent --fail --max-time 10 --output "$scratch/body" "http://127.0.0.1:$1/$2"; }

readiness() {
    local port notify=$scratch/notify pid receiver
    port=$(free_port)
    configuration "$scratch/ready.toml" "$port"
    python3 -u tests/notified.py "$notify" >"$scratch/said" &
    receiver=$!
    started+=("$receiver")
    wait_until 10 test -S "$notify"
    NOTIFY_SOCKET=$notify "$binary" serve --config "$scratch/ready.toml" >"$scratch/ready.log" 2>&1 &
    pid=$!
    started+=("$pid")
    check "READY=1 is said" wait_until 20 grep -qx READY=1 "$scratch/said"
    check "whoever is told so can connect" fetched "$port" master.m3u8
    sed -i 's/name = "film"/name = "other"/' "$scratch/ready.toml"
    kill -HUP "$pid"
    check "SIGHUP: RELOADING=1 is said, with the time, and READY=1 again" wait_until 10 reloaded
    check "and it is served on" fetched "$port" master.m3u8
    check "STOPPING=1 is not said yet" lacks STOPPING=1 "$scratch/said"
    kill -TERM "$pid"
    check "SIGTERM ends it with status 0" wait "$pid"
    check "STOPPING=1 was said" wait_until 5 grep -qx STOPPING=1 "$scratch/said"
    [ "$failures" -eq 0 ] || sed 's/^/    /' "$scratch/ready.log"
}

reloaded() {
    grep -A2 -x RELOADING=1 "$scratch/said" | grep -q '^MONOTONIC_USEC=[0-9]' && [ "$(grep -cx READY=1 "$scratch/said")" -eq 2 ]
}

lacks() { ! grep -x "$1" "$2"; }

# The other unit's program says as much.
control() {
    local notify=$scratch/control-notify pid
    printf '[control]\nlisten = ["127.0.0.1:0"]\nstate = "%s"\n' "$scratch/control" >"$scratch/control.toml"
    python3 -u tests/notified.py "$notify" >"$scratch/control-said" &
    started+=($!)
    wait_until 10 test -S "$notify"
    NOTIFY_SOCKET=$notify "$binary" control --config "$scratch/control.toml" >"$scratch/control.log" 2>&1 &
    pid=$!
    started+=("$pid")
    check "a control plane says READY=1" wait_until 20 grep -qx READY=1 "$scratch/control-said"
    kill -TERM "$pid"
    check "SIGTERM ends it with status 0" wait "$pid"
    check "STOPPING=1 was said by it" wait_until 5 grep -qx STOPPING=1 "$scratch/control-said"
    [ "$failures" -eq 0 ] || sed 's/^/    /' "$scratch/control.log"
}

# RestartPreventExitStatus=64 rests on this.
wrong_configuration() {
    configuration "$scratch/wrong.toml" 0
    echo 'colour = "red"' | cat - "$scratch/wrong.toml" >"$scratch/wrong2.toml"
    check "a wrong configuration ends it with status 64" ends_with 64 "$binary" serve --config "$scratch/wrong2.toml"
}

ends_with() {
    local wanted=$1 status=0
    shift
    timeout 10 "$@" || status=$?
    echo "status $status"
    [ "$status" -eq "$wanted" ]
}

main
