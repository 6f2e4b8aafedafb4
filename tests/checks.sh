# Sourced by the test scripts: one line for each check, "ok - name" or "not ok - name" with what was printed.
scratch=$(mktemp -d)
failures=0
started=()

# check NAME COMMAND...: the command's exit status decides.
check() {
    local name=$1
    shift
    if "$@" >"$scratch/check.log" 2>&1; then
        echo "ok - $name"
    else
        echo "not ok - $name"
        sed 's/^/    /' "$scratch/check.log"
        failures=$((failures + 1))
    fi
}

# wait_until SECONDS COMMAND...: until the command succeeds.
wait_until() {
    local deadline=$(($(date +%s) + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

# A port of 127.0.0.1 that was free just now.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# start_origin FOLDER: serves its files at a port, which is $origin then.
start_origin() {
    origin=$(free_port)
    python3 -m http.server --bind 127.0.0.1 --directory "$1" "$origin" >/dev/null 2>&1 &
    started+=($!)
    wait_until 10 curl --silent --output /dev/null "http://127.0.0.1:$origin/"
}

# The configuration of an edge in front of that origin, which keeps what comes for an hour; the rest is read.
configure_edge() {
    {
        printf 'memory.ram = "64 MiB"\nlog.access = "off"\n'
        cat
        printf '\n[[sites]]\nname = "film"\nhosts = ["*"]\norigins = ["http://127.0.0.1:%d"]\n' "$origin"
        printf 'lifetime.given = "1h"\n'
    } >"$scratch/edge.toml"
}

# start_demo: `demo --json` prints one line when it serves: {"page", "https", "http", "admin", "certificate"}.
start_demo() {
    "$binary" demo --json >"$scratch/demo.json" 2>"$scratch/demo.log" &
    demo=$!
    started+=("$demo")
    check "the demo says where it serves" wait_until 30 grep -q certificate "$scratch/demo.json"
}

# link NAME: one of the demo's links, without a slash at its end.
link() {
    python3 -c 'import json, sys; print(json.loads(open(sys.argv[1]).readline())[sys.argv[2]].rstrip("/"))' \
        "$scratch/demo.json" "$1"
}

# Every process started here ends with the script.
finish() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap finish EXIT
