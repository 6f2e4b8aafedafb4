#!/usr/bin/env bash
# A low-latency live stream in real browsers, through the edge and directly: tests/live.sh BINARY [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:?usage: tests/live.sh BINARY [SECONDS]}
seconds=${2:-60}
. tests/checks.sh

# start_origin NAME: a packager of its own, which prints where it listens.
start_origin() {
    node tests/browser/live_origin.mjs "$scratch/film.mp4" src/page/vendor >"$scratch/$1.json" &
    started+=("$!")
    check "the origin $1 listens" wait_until 20 grep -q origin "$scratch/$1.json"
}

origin() { python3 -c 'import json, sys; print(json.loads(open(sys.argv[1]).readline())["origin"])' "$scratch/$1.json"; }

# The film's small picture without sound, a fragment for every two pictures.
cat tests/media/init-2.mp4 tests/media/seg-2-*.m4s >"$scratch/whole.mp4"
ffmpeg -v error -i "$scratch/whole.mp4" -map 0:v -c copy -movflags empty_moov+default_base_moof \
    -frag_duration 80000 "$scratch/film.mp4"
start_origin direct
start_origin behind

port=$(free_port) admin=$(free_port)
cat >"$scratch/live.toml" <<EOF
[listeners]
http = "127.0.0.1:$port"
admin = "127.0.0.1:$admin"
[memory]
ram = "64 MiB"
[log]
access = "off"
[ssd]
state = "$scratch/volumes.json"
[[sites]]
name = "live"
hosts = ["127.0.0.1"]
origins = ["$(origin behind)"]
content = "live"
query = "none"
keep = "ram"
EOF
"$binary" serve --config "$scratch/live.toml" &
started+=("$!")
check "the edge is ready" wait_until 30 curl --silent --fail "http://127.0.0.1:$admin/health/ready"
[ "$failures" -eq 0 ]
timeout --kill-after=5 $((seconds + 90)) \
    node tests/browser/live.mjs "$(origin direct)" "http://127.0.0.1:$port" "$(origin behind)" "$seconds"
