#!/usr/bin/env bash
# The status page in a real browser: tests/status_page.sh BINARY
# Screenshots are left in tests/out/shots, to be looked at.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:?usage: tests/status_page.sh BINARY}
. tests/checks.sh

http=$(free_port) admin=$(free_port)
start_origin tests/media
printf 'operator anna an-operators-token\nviewer grafana a-viewers-own-token\n' >"$scratch/tokens"
configure_edge <<TOML
listeners = {http = ["127.0.0.1:$http"], admin = ["127.0.0.1:$admin"]}
admin.token_file = "$scratch/tokens"
ssd.state = "$scratch/state.json"

[[ssd.volumes]]
path = "$scratch/volume"
size = "256 MiB"
TOML
timeout --kill-after=5 200 node tests/browser/status.mjs "http://127.0.0.1:$admin" "http://127.0.0.1:$http" \
    "$PWD/tests/out/shots" "$binary" "$scratch/edge.toml"
