#!/usr/bin/env bash
# The status page in a real browser: tests/status_page.sh BINARY
# Screenshots are left in tests/out/shots, to be looked at.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:?usage: tests/status_page.sh BINARY}
. tests/checks.sh

http=$(free_port) admin=$(free_port) origin=$(free_port)
python3 -m http.server --bind 127.0.0.1 --directory tests/media "$origin" >/dev/null 2>&1 &
started+=($!)
printf 'operator anna an-operators-token\nviewer grafana a-viewers-own-token\n' >"$scratch/tokens"
cat >"$scratch/edge.toml" <<TOML
listeners = {http = ["127.0.0.1:$http"], admin = ["127.0.0.1:$admin"]}
admin.token_file = "$scratch/tokens"
memory.ram = "64 MiB"
log.access = "off"
ssd.state = "$scratch/state.json"

[[ssd.volumes]]
path = "$scratch/volume"
size = "256 MiB"

[[sites]]
name = "film"
hosts = ["*"]
origins = ["http://127.0.0.1:$origin"]
lifetime.given = "1h"
TOML
wait_until 10 curl --silent --output /dev/null "http://127.0.0.1:$origin/master.m3u8"
timeout --kill-after=5 200 node tests/browser/status.mjs "http://127.0.0.1:$admin" "http://127.0.0.1:$http" \
    "$PWD/tests/out/shots" "$binary" "$scratch/edge.toml"
