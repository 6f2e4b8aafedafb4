#!/usr/bin/env bash
# Certificates from a real authority: tests/acme.sh BINARY
# Pebble, Let's Encrypt's own server for tests, looks at what the binary shows by each of the three challenges; a DNS
# server of its own says where names are. Between the two stands tests/acme_lies.py, which spoils answers when it is told to.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${1:?usage: tests/acme.sh BINARY}")
. tests/checks.sh

main() {
    make_files
    configure http-01 '"video.test", "more.test"'
    serve
    check "with no authority to ask, other names are served" served static.test "$scratch/static.pem"
    check "the log says what cannot be asked, and when it is tried again" wait_until 10 told \
        "certificate for video.test, more.test: the authority cannot be asked: https://localhost:$acme/dir: .*; tried again in "
    check "the status says so too" wait_until 10 status_says "video.test, more.test, not issued for .*: the authority cannot be asked: "
    check "a name without a certificate is shown another name's" refused video.test
    start_authority
    check "http-01 brings a certificate when there is an authority" wait_until 20 issued video.test
    check "it is for all the names" issued more.test
    check "what is kept is its owner's alone" owned
    check "it is counted" counts ok 1
    check "tokens that nobody waits for are the site's" no_token

    configure http-01 '"video.test", "more.test", "third.test"'
    reload "a name is added by a reload"
    check "the certificate is another one then" wait_until 20 issued third.test

    configure tls-alpn-01 '"alpn.test"'
    reload "tls-alpn-01 is chosen by a reload"
    check "tls-alpn-01 brings a certificate" wait_until 20 issued alpn.test
    check "a handshake that proves nothing is refused" no_proof
    check "what was issued before stays for who goes back to it" test -s "$(kept video.test)"

    : >"$scratch/zone-is-down"
    configure dns-01 '"*.wild.test", "wild.test"' "hook = \"$scratch/hook\""
    reload "dns-01 is chosen by a reload"
    check "a hook that fails is quoted" wait_until 10 told \
        'certificate for \*.wild.test, wild.test: `acme.hook` present _acme-challenge.wild.test: exit status: 7: the zone is down;'
    rm "$scratch/zone-is-down"
    check "dns-01 brings a certificate for a wildcard" wait_until 20 issued any.wild.test
    check "and for the name itself" issued wild.test
    check "each record was removed" records_removed

    renewals
    external_accounts
    authoritys_wish
    [ "$failures" -eq 0 ] || tail -n 40 "$scratch"/*.log
    [ "$failures" -eq 0 ]
}

# Certificates that live seconds, from an authority that has forgotten everybody.
renewals() {
    local before until
    kill "$pebble"
    wait "$pebble" 2>/dev/null || true
    stop_edge
    configure http-01 '"video.test", "more.test", "third.test"'
    serve
    check "after a restart it is shown at once, with no authority to ask" issued third.test
    stop_edge
    configure http-01 '"short.test"'
    start_authority 15
    serve
    check "an authority that lost its accounts is given a new one" wait_until 20 issued short.test
    before=$(shown short.test)
    curl --silent --cacert "$scratch/root.pem" --resolve "short.test:$https:127.0.0.1" --limit-rate 40k \
        --output "$scratch/film" "https://short.test:$https/film.bin" &
    until=$!
    : >"$scratch/lie"
    check "what is broken is said" wait_until 40 told 'certificate for short.test: what the authority issued is of no use: '
    check "and never shown" [ "$before" = "$(shown short.test)" ]
    rm "$scratch/lie"
    check "it is renewed in time" wait_until 30 is_other short.test "$before"
    check "and good" issued short.test
    check "a transfer goes on over all that" wait "$until"
    check "and brings every byte" cmp "$scratch/film" "$scratch/origin/film.bin"
}

# An authority that opens accounts for its customers alone.
external_accounts() {
    local key wrong account
    key=$(openssl rand 48 | basenc --base64url) wrong=$(openssl rand 48 | basenc --base64url)
    account="external_account = { id = \"kid-1\", key_file = \"$scratch/acme-key\" }"
    kill "$pebble"
    wait "$pebble" 2>/dev/null || true
    stop_edge
    rm -r "$scratch/state/acme"
    start_authority 86400 "\"externalAccountBindingRequired\": true, \"externalAccountMACKeys\": {\"kid-1\": \"$key\"}"
    configure http-01 '"customer.test"'
    serve
    check "who is no customer is told what is missing" wait_until 20 told \
        'certificate for customer.test: the authority refuses an account: .*; set `acme.external_account` to what it gave you'
    printf '%s\n' "$wrong" >"$scratch/acme-key"
    configure http-01 '"customer.test"' "$account"
    reload "a customer's key is set by a reload"
    check "a wrong key is one clear line" wait_until 20 told \
        'certificate for customer.test: the authority refuses an account for `acme.external_account`: external account binding JWS '
    check "and no account is kept" test ! -e "$(dirname "$(kept customer.test)")/account.json"
    printf '%s\n' "$key" >"$scratch/acme-key"
    reload "the right key is set by a reload"
    check "the right key brings a certificate" wait_until 20 issued customer.test
}

# An authority that wants a certificate renewed long before it ends, as those that must revoke it do.
authoritys_wish() {
    local before
    before=$(shown customer.test)
    stop_edge
    certificate_name "$(kept customer.test)" >"$scratch/renew"
    serve
    check "what its authority wants renewed is renewed, a day before it ends" wait_until 20 is_other customer.test "$before"
    before=$(shown customer.test)
    check "by a good one" issued customer.test
    check "it is asked when to renew that one" wait_until 10 grep "$(certificate_name "$(kept customer.test)")" "$scratch/asked-when-to-renew"
    check "which stays" [ "$before" = "$(shown customer.test)" ]
}

# What an authority calls a certificate (RFC 9773 section 4.1).
certificate_name() {
    local authority serial
    authority=$(openssl x509 -in "$1" -noout -ext authorityKeyIdentifier | tail -n 1 | sed 's/keyid://' | tr -d ' :')
    serial=$(openssl x509 -in "$1" -noout -serial | cut -d= -f2)
    case $serial in [89A-F]*) serial=00$serial ;; esac
    for part in "$authority" "$serial"; do
        printf '%s' "$part" | basenc --base16 --decode | basenc --base64url | tr -d '=\n'
        printf '.'
    done | sed 's/\.$//'
}

make_files() {
    http=$(free_port) https=$(free_port) admin=$(free_port) acme=$(free_port) behind=$(free_port)
    management=$(free_port) dns=$(free_port) records=$(free_port)
    mkdir "$scratch/origin" "$scratch/state"
    head -c 800000 /dev/urandom >"$scratch/origin/film.bin"
    start_origin "$scratch/origin"
    local name
    for name in authority:localhost static:static.test; do
        openssl req -x509 -config <(printf '[req]\ndistinguished_name=none\n[none]\n') -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=${name#*:}" \
            -addext "subjectAltName=DNS:${name#*:}" -keyout "$scratch/${name%:*}.key" -out "$scratch/${name%:*}.pem" 2>/dev/null
    done
    cat >"$scratch/hook" <<SH
#!/bin/sh
[ ! -e "$scratch/zone-is-down" ] || { echo the zone is down >&2; exit 7; }
echo "\$1 \$2 \$3" >>"$scratch/hooked"
case "\$1" in
present) curl --silent --fail --data "{\"host\": \"\$2.\", \"value\": \"\$3\"}" http://127.0.0.1:$records/set-txt ;;
esac
SH
    chmod 700 "$scratch/hook"
    pebble-challtestsrv -dns01 "127.0.0.1:$dns" -management "127.0.0.1:$records" -defaultIPv6 "" \
        -http01 "" -https01 "" -tlsalpn01 "" >"$scratch/dns.log" 2>&1 &
    started+=($!)
    python3 tests/acme_lies.py "$acme" "$behind" "$scratch" >"$scratch/lies.log" 2>&1 &
    started+=($!)
}

# start_authority [SECONDS [SETTINGS]]: as long as its certificates live; what else is set.
start_authority() {
    cat >"$scratch/pebble.json" <<JSON
{"pebble": {"listenAddress": "127.0.0.1:$behind", "managementListenAddress": "127.0.0.1:$management",
 "certificate": "$scratch/authority.pem", "privateKey": "$scratch/authority.key", "httpPort": $http, "tlsPort": $https,
 "certificateValidityPeriod": ${1:-86400}${2:+, $2}}}
JSON
    PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=5 PEBBLE_AUTHZREUSE=0 pebble -config "$scratch/pebble.json" \
        -dnsserver "127.0.0.1:$dns" -strict >"$scratch/pebble.log" 2>&1 &
    pebble=$!
    started+=("$pebble")
    check "the authority answers" wait_until 10 root
}

root() {
    curl --silent --fail --cacert "$scratch/authority.pem" --output "$scratch/root.pem" "https://localhost:$management/roots/0"
}

# configure CHALLENGE NAMES [LINE]
configure() {
    configure_edge <<TOML
listeners = {http = ["127.0.0.1:$http"], https = ["127.0.0.1:$https"], admin = ["127.0.0.1:$admin"]}
ssd.state = "$scratch/state"

[acme]
terms = "agreed"
contact = "ops@video.test"
directory = "https://localhost:$acme/dir"
challenge = "$1"
ca = "$scratch/authority.pem"
state = "$scratch/state/acme"
retry_after = "1s"
${3:-}

[[certificates]]
acme = [$2]

[[certificates]]
cert = "$scratch/static.pem"
key = "$scratch/static.key"
TOML
}

serve() {
    "$binary" serve --config "$scratch/edge.toml" >>"$scratch/edge.log" 2>&1 &
    edge=$!
    started+=("$edge")
    check "the edge serves" wait_until 30 curl --silent --fail "http://127.0.0.1:$admin/health/ready"
}

stop_edge() {
    kill -TERM "$edge"
    check "it ends" wait "$edge"
}

reload() { check "$1" "$binary" reload --admin "http://127.0.0.1:$admin"; }

# served NAME ROOT: whether curl takes the certificate that is shown for it.
served() {
    curl --silent --show-error --fail --max-time 10 --cacert "$2" --resolve "$1:$https:127.0.0.1" --range 0-9 \
        --output /dev/null "https://$1:$https/film.bin"
}

issued() { served "$1" "$scratch/root.pem"; }
refused() { ! served "$1" "$scratch/authority.pem"; }
status_says() { "$binary" status --admin "http://127.0.0.1:$admin" | grep -q "^  certificate  $1"; }
told() { grep -q "$1" "$scratch/edge.log"; }
kept() { echo "$scratch/state/acme/localhost-$acme-dir/$1.pem"; }

# The certificate that is shown for a name.
shown() {
    openssl s_client -connect "127.0.0.1:$https" -servername "$1" </dev/null 2>/dev/null | openssl x509 -noout -fingerprint
}

is_other() { [ "$(shown "$1")" != "$2" ]; }

owned() {
    [ "$(stat -c %a "$(kept video.test)")" = 600 ] && [ "$(stat -c %a "$(dirname "$(kept video.test)")/account.json")" = 600 ]
}

counts() {
    curl --silent "http://127.0.0.1:$admin/metrics" | grep "tidegate_certificate_orders_total{result=\"$1\"} $2"
}

no_token() {
    [ "$(curl --silent --output /dev/null --write-out '%{http_code}' \
        "http://127.0.0.1:$http/.well-known/acme-challenge/nobody")" = 404 ]
}

no_proof() {
    ! openssl s_client -connect "127.0.0.1:$https" -servername alpn.test -alpn acme-tls/1 </dev/null
}

records_removed() {
    cat "$scratch/hooked"
    [ "$(grep -c '^present _acme-challenge.wild.test ' "$scratch/hooked")" -ge 2 ] &&
        [ "$(sed -n 's/^present //p' "$scratch/hooked" | sort)" = "$(sed -n 's/^cleanup //p' "$scratch/hooked" | sort)" ]
}

main
