#!/usr/bin/env bash
# Players in a real browser that are steered over three boxes, of which one is drained and one is killed:
# tests/steer.sh BINARY
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:?usage: tests/steer.sh BINARY}
. tests/checks.sh
. tests/fleet.sh

mkdir "$scratch/film"
cp tests/media/* "$scratch/film"
start_origin "$scratch/film"
# Shaka Player knows boxes apart by their hosts alone, and hls.js their clones: not by ports.
box_port=$(free_port) steering=$(free_port)
of_site="[[sites.rules]]
path = \"/clones.m3u8\"
steering = \"tags\"
[steering]
url = \"http://127.0.0.1:$steering\""
start_fleet "$of_site" 127.0.0.1 127.0.0.2 127.0.0.3
[ "$failures" -eq 0 ]
boxes=()
for name in "${fleet_boxes[@]}"; do
    boxes+=("$name=${box_host[$name]},${box_admin[$name]},${box_pid[$name]}")
done
timeout --kill-after=5 200 node tests/browser/steer.mjs "$binary" "$scratch/film" "http://127.0.0.1:$steering" \
    "http://127.0.0.1:$origin" "${boxes[@]}"
