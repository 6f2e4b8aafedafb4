#!/usr/bin/env bash
# The demo page in a real browser: tests/browser.sh BINARY
# Screenshots are left in tests/out/shots, to be looked at.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:?usage: tests/browser.sh BINARY}
. tests/checks.sh

start_demo
mkdir -p tests/out/shots
# At twice the speed until the seek: half a minute of film, four times, takes a minute. A browser that hangs is ended.
RATE=${RATE:-2} timeout --kill-after=5 200 node tests/browser/play.mjs "$(link https)" "$PWD/tests/out/shots"
