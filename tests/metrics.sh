#!/usr/bin/env bash
# What an operator's Prometheus makes of a running edge: tests/metrics.sh BINARY
# The rules are judged by promtool; the dashboard's queries are asked of a Prometheus of the test's own, which scrapes
# the binary while it has viewers.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${1:?usage: tests/metrics.sh BINARY}")
. tests/checks.sh

rules=config/prometheus/tidegate.rules.yml
dashboard=config/grafana/tidegate.json

main() {
    check "promtool takes the rules" promtool check rules --lint-fatal "$rules"
    check "each alert is tested, and says what to do" alerts_complete
    check "alerts fire when they should, and only then" promtool test rules "${rules%.yml}.test.yml"
    start_edge
    start_prometheus
    check "Prometheus scrapes it" wait_until 20 answers_one 'up{job="tidegate"} == 1'
    viewers &
    started+=($!)
    check "Prometheus was answered in OpenMetrics" wait_until 20 knows_a_unit
    check "promtool has nothing against the metrics" classic_text_is_good
    check "the certificate expires when openssl says so" expiry_is_right
    python3 tests/dashboard.py "$prometheus" "$dashboard" "$rules" >"$scratch/asked" 2>&1 || true
    cat "$scratch/asked"
    failures=$((failures + $(grep -c '^not ok' "$scratch/asked" || true)))
    check "every query was asked" grep -qx 'all were asked' "$scratch/asked"
    [ "$failures" -eq 0 ] || tail -n 20 "$scratch"/*.log
    [ "$failures" -eq 0 ]
}

# Of each alert: a line of the test that awaits it, a summary, a description and a known severity.
alerts_complete() {
    local alerts name
    alerts=$(sed -n 's/^ *- alert: //p' "$rules")
    [ "$(wc -l <<<"$alerts")" -ge 15 ] || { echo "these are all: $alerts"; return 1; }
    for name in $alerts; do
        grep -q "alertname=\"$name\", severity=" "${rules%.yml}.test.yml" || { echo "$name is not tested"; return 1; }
    done
    local what
    for what in ' summary: ' ' description: >-' ' labels: {severity: \(critical\|warning\)}'; do
        [ "$(grep -c "^ *$what" "$rules")" -eq "$(wc -l <<<"$alerts")" ] || { echo "not each has:$what"; return 1; }
    done
}

# An edge with a volume and a certificate in front of the film; warm, and started anew, so that its volume is read.
start_edge() {
    http=$(free_port) https=$(free_port) admin=$(free_port)
    start_origin tests/media
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout "$scratch/key.pem" -out "$scratch/cert.pem" 2>/dev/null
    configure_edge <<TOML
listeners = {http = ["127.0.0.1:$http"], https = ["127.0.0.1:$https"], admin = ["127.0.0.1:$admin"]}
certificates = [{cert = "$scratch/cert.pem", key = "$scratch/key.pem"}]
limits.egress = "40 Gbit/s"
ssd.state = "$scratch/state.json"
ssd.admission = "all"

[[ssd.volumes]]
path = "$scratch/volume"
size = "256 MiB"
writes_per_day = "1000x"
TOML
    serve
    for segment in tests/media/seg-0-*.m4s; do fetched "$(basename "$segment")"; done
    check "the volume keeps what is served" wait_until 20 kept
    kill -TERM "$edge"
    check "it drains" wait "$edge"
    serve
}

serve() {
    "$binary" serve --config "$scratch/edge.toml" >"$scratch/edge.log" 2>&1 &
    edge=$!
    started+=("$edge")
    check "the edge is ready, its volume online" wait_until 30 online
}

online() {
    curl --silent --fail "http://127.0.0.1:$admin/health/ready" &&
        curl --silent "http://127.0.0.1:$admin/metrics" | grep -q '^tidegate_ssd_state{.*state="online"} 1$'
}

kept() {
    curl --silent "http://127.0.0.1:$admin/metrics" | awk '
        /^tidegate_ssd_written_bytes_total{.*reason="admitted"}/ { written = $2 }
        /^tidegate_ssd_write_queue_bytes/ { waiting = $2 }
        END { exit !(written > 0 && waiting == 0) }'
}

# fetched PATH CURL-ARGUMENTS...
fetched() {
    local path=$1
    shift
    curl --silent --max-time 10 --output /dev/null "$@" "http://127.0.0.1:$http/$path"
}

# Players that say who they are, over both protocols, and some who ask for what is not there; for two minutes at most.
viewers() {
    local round segment
    for round in $(seq 100); do
        for segment in tests/media/seg-"$((round % 3))"-*.m4s; do
            fetched "$(basename "$segment")" --header 'CMCD-Request: bl=4000,mtp=8000' --header 'CMCD-Object: ot=v' || true
        done
        fetched "nothing-$round" || true
        curl --silent --max-time 10 --output /dev/null --cacert "$scratch/cert.pem" \
            "https://localhost:$https/init-0.mp4" || true
        sleep 1
    done
}

start_prometheus() {
    local port
    port=$(free_port)
    prometheus=http://127.0.0.1:$port
    cat >"$scratch/prometheus.yml" <<YAML
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: ["$PWD/$rules"]
scrape_configs: [{job_name: tidegate, static_configs: [{targets: ["127.0.0.1:$admin"]}]}]
YAML
    prometheus --config.file="$scratch/prometheus.yml" --storage.tsdb.path="$scratch/prometheus" \
        --web.listen-address="127.0.0.1:$port" --log.level=warn >"$scratch/prometheus.log" 2>&1 &
    started+=($!)
}

# asked PATH CURL-ARGUMENTS...: Prometheus' answer.
asked() {
    local path=$1
    shift
    curl --silent --fail --max-time 10 --get "$@" "$prometheus/api/v1/$path"
}

answers_one() { asked query --data-urlencode "query=$1" | grep -q '"value":'; }

# Units are told in OpenMetrics alone.
knows_a_unit() { asked metadata --data-urlencode metric=tidegate_response_body_bytes | grep -q '"unit":"bytes"'; }

classic_text_is_good() {
    curl --silent --fail "http://127.0.0.1:$admin/metrics" >"$scratch/metrics.txt"
    promtool check metrics <"$scratch/metrics.txt"
}

expiry_is_right() {
    local ends
    ends=$(date -d "$(openssl x509 -noout -enddate -in "$scratch/cert.pem" | cut -d= -f2)" +%s)
    grep '^tidegate_certificate_expiry' "$scratch/metrics.txt"
    grep -qx "tidegate_certificate_expiry_timestamp_seconds{name=\"localhost\"} $ends" "$scratch/metrics.txt"
}

main
