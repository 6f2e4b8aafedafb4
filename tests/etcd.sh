#!/usr/bin/env bash
# Several control planes share a real etcd: tests/etcd.sh BINARY, built with the feature `etcd`
# Three members of etcd, three control planes, five boxes and a viewer that never stops: whatever is killed, he notices
# nothing, no change is lost, and boxes are told of the next one by whoever is left.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${1:?usage: tests/etcd.sh BINARY}")
. tests/checks.sh
export ETCDCTL_API=3
nodes=(1 2 3)
boxes=(1 2 3 4 5)

main() {
    make_files
    refuse_without_etcd
    for n in "${nodes[@]}"; do start_etcd "$n"; done
    check "etcd has a leader" wait_until 30 etcd_leads
    for n in "${nodes[@]}"; do start_control "$n"; done
    for n in "${nodes[@]}"; do check "control plane $n answers" wait_until 30 answers "$n"; done
    check "one of them leads, and each sees all" wait_until 30 all_see 3
    check "they have the same keys" cmp "$scratch/control1/ca.key" "$scratch/control3/ca.key"
    enrol_boxes
    check "each box goes by a snapshot with all of them" wait_until 60 all_boxes_know 5
    for n in "${nodes[@]}"; do check "control plane $n hears all boxes, whomever they ask" wait_until 30 hears "$n" 5; done
    start_viewer
    kill_leader_of_control
    kill_leader_of_etcd
    suspend_and_compact
    share_large_values
    stop_etcd_for_a_while
    stop_control_for_a_while
    suspend_leader
    lose_parts
    go_back
    kill "$viewer"
    wait "$viewer" 2>/dev/null || true
    check "the viewer asked again and again" test "$(wc -l <"$scratch/viewed")" -gt 100
    check "no request of his failed" test -z "$(grep -v '^200$' "$scratch/viewed" | sort | uniq -c)"
    move_to_another_prefix
    remove_a_box
    lose_all
    [ "$failures" -eq 0 ] || tail -n 25 "$scratch"/control*.log "$scratch"/box1.log
    [ "$failures" -eq 0 ]
}

make_files() {
    local n
    mkdir "$scratch/origin"
    head -c 300000 /dev/urandom >"$scratch/origin/film.mp4"
    start_origin "$scratch/origin"
    printf 'operator anna an-operators-token\n' >"$scratch/tokens"
    chmod 600 "$scratch/tokens"
    # All at once, so that none is given twice.
    mapfile -t ports < <(python3 -c '
import socket
all = [socket.socket() for _ in range(20)]
for one in all: one.bind(("127.0.0.1", 0))
for one in all: print(one.getsockname()[1])')
    cluster=
    for n in "${nodes[@]}"; do
        clients[n]=${ports[n]} peers[n]=${ports[n + 3]} controls[n]=${ports[n + 6]}
        cluster+=${cluster:+,}e$n=http://127.0.0.1:${peers[n]}
    done
    for n in "${boxes[@]}"; do http[n]=${ports[n + 9]}; done
    for n in "${nodes[@]}"; do control_config "$n"; done
}

# control_config N: each asks its own member of etcd first.
control_config() {
    local n=$1 all
    all=$(printf '"http://127.0.0.1:%d", ' "${clients[n]}" "${clients[n % 3 + 1]}" "${clients[(n + 1) % 3 + 1]}")
    cat >"$scratch/control$n.toml" <<TOML
[log]
level = "info"

[control]
listen = ["127.0.0.1:${controls[n]}"]
state = "$scratch/control$n"
token_file = "$scratch/tokens"
heartbeat = "1s"
requests_per_second = 1000
health = {silent_after = "5s", good_heartbeats = 1}
etcd = {endpoints = [$all], prefix = "/fleet/one", lease = "3s", timeout = "2s"}
TOML
}

start_etcd() {
    etcd --name "e$1" --data-dir "$scratch/etcd$1" --logger zap --log-level error \
        --listen-client-urls "http://127.0.0.1:${clients[$1]}" --advertise-client-urls "http://127.0.0.1:${clients[$1]}" \
        --listen-peer-urls "http://127.0.0.1:${peers[$1]}" --initial-advertise-peer-urls "http://127.0.0.1:${peers[$1]}" \
        --initial-cluster "$cluster" --initial-cluster-token tidegate >>"$scratch/etcd$1.log" 2>&1 &
    etcd[$1]=$!
    started+=($!)
}

start_control() {
    "$binary" control --config "$scratch/control$1.toml" >>"$scratch/control$1.log" 2>&1 &
    control[$1]=$!
    started+=($!)
}

# stop SIGNAL PID
stop() {
    kill "-$1" "$2"
    wait "$2" 2>/dev/null || true
}

# ask METHOD N PATH [curl's own...]: of the Nth control plane; its status is in $scratch/status.
ask() {
    local method=$1 n=$2 path=$3
    shift 3
    curl --silent --max-time 8 --insecure --request "$method" --header 'Authorization: Bearer an-operators-token' \
        --dump-header "$scratch/head" --write-out '%{stderr}%{http_code}' "$@" \
        "https://127.0.0.1:${controls[$n]}$path" 2>"$scratch/status"
}

# says STATUS ...: whether what `ask` is told has that status.
says() {
    local status=$1
    shift
    ask "$@" >"$scratch/said" || true
    cat "$scratch/status" "$scratch/said"
    [ "$(cat "$scratch/status")" = "$status" ]
}

answers() { says 200 GET "$1" /v1/nodes; }

etcd_leads() { [ -n "$(leader_of_etcd)" ]; }

# The number of the member that leads.
leader_of_etcd() {
    local n
    for n in "${nodes[@]}"; do
        if etcdctl --endpoints "127.0.0.1:${clients[n]}" --command-timeout 1s endpoint status --write-out json 2>/dev/null |
            python3 -c 'import json, sys; s = json.load(sys.stdin)[0]["Status"]; sys.exit(s["header"]["member_id"] != s["leader"])'; then
            echo "$n"
            return
        fi
    done
}

# of_nodes N EXPRESSION: of what the Nth control plane says of all, `n` are they.
of_nodes() {
    ask GET "$1" /v1/nodes | python3 -c '
import json, sys
told = json.load(sys.stdin)
n = told["nodes"]
print('"$2"')'
}

# sees N COUNT: whether the Nth is in touch with so many, one of which leads.
sees() {
    [ "$(of_nodes "$1" 'told["is_in_touch"], len(n), sum(one["leads"] for one in n)')" = "True $2 1" ]
}

# all_see COUNT: so do all that run.
all_see() {
    local n
    for n in "${nodes[@]}"; do
        [ -z "${control[n]}" ] || sees "$n" "$1" || return 1
    done
}

# The number of the control plane that leads.
leader_of_control() {
    local n
    for n in "${nodes[@]}"; do
        [ -z "${control[n]}" ] || [ "$(of_nodes "$n" 'any(one["leads"] and one["is_this"] for one in n)')" != True ] || echo "$n"
    done
}

# hears N COUNT: whether so many boxes are well, as the Nth control plane has it.
hears() {
    [ "$(ask GET "$1" /v1/appliances | python3 -c '
import json, sys; print(sum(one["ipv4"] == "well" for one in json.load(sys.stdin)["appliances"]))')" = "$2" ]
}

enrol_boxes() {
    local n code
    for n in "${boxes[@]}"; do
        mkdir "$scratch/box$n"
        admin[n]=${ports[n + 14]}
        # Not all of them ask the same one first.
        urls=$(printf '"https://127.0.0.1:%d", ' "${controls[n % 3 + 1]}" "${controls[(n + 1) % 3 + 1]}" "${controls[(n + 2) % 3 + 1]}")
        cat >"$scratch/box$n.toml" <<TOML
listeners = {http = ["127.0.0.1:${http[n]}"], admin = ["127.0.0.1:${admin[n]}"]}
memory.ram = "64 MiB"
log.access = "off"
ssd.state = "$scratch/box$n/volumes.json"

[fleet]
control = [$urls]
name = "edge-$n"
addresses = ["127.0.0.1"]
capacity = "1 Gbit/s"
state = "$scratch/box$n/fleet"

[[sites]]
name = "film"
hosts = ["*"]
origins = ["http://127.0.0.1:$origin"]
lifetime.given = "1h"
TOML
        # Each code is made by another control plane than boxes ask first; for the second time a third one is asked.
        code=$("$binary" control code "edge-$n" --json --config "$scratch/control$(((n + 1) % 3 + 1)).toml" |
            python3 -c 'import json, sys; print(json.load(sys.stdin)["code"])')
        check "edge-$n is enrolled" "$binary" enrol --config "$scratch/box$n.toml" --code "$code"
        sed "s|^control = .*|control = [\"https://127.0.0.1:${controls[(n + 2) % 3 + 1]}\"]|" "$scratch/box$n.toml" >"$scratch/again.toml"
        check "a code counts once, whoever is asked" fails "$binary" enrol --again --config "$scratch/again.toml" --code "$code"
        "$binary" serve --config "$scratch/box$n.toml" >"$scratch/box$n.log" 2>&1 &
        started+=($!)
    done
}

fails() { ! "$@"; }

# metric BOX NAME
metric() {
    curl --silent "http://127.0.0.1:${admin[$1]}/metrics" | awk -v name="$2" '$1 == name { print $2 }'
}

# knows BOX COUNT: whether its snapshot has so many boxes.
knows() {
    [ "$(curl --silent "http://127.0.0.1:${admin[$1]}/status.json" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["fleet"]["snapshot"]["appliances"])')" = "$2" ]
}

all_boxes_know() {
    local n
    for n in "${boxes[@]}"; do knows "$n" "$1" || return 1; done
}

# counted: the number of the snapshot that all boxes have, if it is later than $1.
all_later_than() {
    local n
    for n in "${boxes[@]}"; do
        [ "$(metric "$n" tidegate_fleet_snapshot_counter)" -gt "$1" ] || return 1
    done
}

all_heard() {
    local n
    for n in "${boxes[@]}"; do [ "$(metric "$n" tidegate_fleet_control_reachable)" = 1 ] || return 1; done
}

# One viewer, of each box in turn.
start_viewer() {
    local n
    : >"$scratch/viewed"
    while :; do
        for n in "${boxes[@]}"; do
            curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}\n' "http://127.0.0.1:${http[n]}/film.mp4" >>"$scratch/viewed" || true
            sleep 0.02
        done
    done &
    viewer=$!
    started+=("$viewer")
}

# changed N NAME: keys of that name are put by the Nth control plane, and reach all boxes.
changed() {
    local before
    before=$(metric 1 tidegate_fleet_snapshot_counter)
    key=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d =)
    printf '{"%s": {"keys": [{"kty": "oct", "kid": "k", "alg": "HS256", "k": "%s"}]}}' "$2" "$key" >"$scratch/keys.json"
    check "keys $2 are put by control plane $1" wait_until 20 says 204 PUT "$1" "/v1/keys/$2" --data-binary "@$scratch/keys.json"
    check "all boxes are told of keys $2" wait_until 40 all_later_than "$before"
}

# has N NAME: whether the Nth control plane knows these keys.
has() { says 200 GET "$1" /v1/keys && grep -q "\"$2\"" "$scratch/said"; }

kill_leader_of_control() {
    local dead other
    changed 1 before
    dead=$(leader_of_control)
    stop KILL "${control[dead]}"
    control[dead]=
    other=$((dead % 3 + 1))
    check "another control plane leads when the one that did is killed" wait_until 20 all_see 2
    changed "$other" after-a-kill
    check "all boxes are heard by others" wait_until 40 all_heard
    start_control "$dead"
    check "who was killed comes back" wait_until 30 all_see 3
    check "and knows what was changed meanwhile" wait_until 10 has "$dead" after-a-kill
}

kill_leader_of_etcd() {
    local dead
    dead=$(leader_of_etcd)
    stop KILL "${etcd[dead]}"
    changed 1 after-etcds-leader
    check "control planes go on without etcd's leader" wait_until 30 all_see 3
    start_etcd "$dead"
    check "etcd is whole again" wait_until 30 healthy 3
}

# healthy COUNT: of etcd's members.
healthy() {
    local n count=0
    for n in "${nodes[@]}"; do
        ! etcdctl --endpoints "127.0.0.1:${clients[n]}" --command-timeout 2s endpoint health >/dev/null 2>&1 || count=$((count + 1))
    done
    [ "$count" -ge "$1" ]
}

suspend_and_compact() {
    local lead slept other revision
    lead=$(leader_of_control)
    slept=$((lead % 3 + 1)) other=$((slept % 3 + 1))
    kill -STOP "${control[slept]}"
    changed "$other" while-suspended
    revision=$(revision "$other")
    check "etcd forgets what was before" etcdctl --endpoints "127.0.0.1:${clients[other]}" compaction "$revision"
    # Its connections end, so that it has to ask for what it has missed.
    for n in "${nodes[@]}"; do
        stop KILL "${etcd[n]}"
        start_etcd "$n"
        check "etcd's member $n comes back" wait_until 30 healthy 3
    done
    kill -CONT "${control[slept]}"
    check "who was suspended while etcd forgot reads all again" wait_until 20 \
        grep -q 'all of the state is read again' "$scratch/control$slept.log"
    check "and is there again" wait_until 30 all_see 3
    check "and knows what was changed" wait_until 10 has "$slept" while-suspended
    changed "$slept" after-the-sleep
}

# Two key files that together are more than etcd takes in one request, and so is the snapshot they are in.
share_large_values() {
    local before name
    { cat "$scratch/keys.json" && head -c 900000 /dev/zero | tr '\0' ' '; } >"$scratch/large.json"
    for name in large larger; do
        before=$(metric 1 tidegate_fleet_snapshot_counter)
        check "a large key file is put" wait_until 20 says 204 PUT 2 "/v1/keys/$name" --data-binary "@$scratch/large.json"
        check "all boxes are told of it" wait_until 40 all_later_than "$before"
    done
    check "another control plane has it as it is" exported 3 larger "$scratch/large.json"
}

# exported N NAME FILE: whether the Nth control plane has the file as these keys.
exported() {
    ask GET "$1" /v1/export |
        python3 -c 'import json, sys; sys.stdout.write(json.load(sys.stdin)["keys"][sys.argv[1]])' "$2" | cmp - "$3"
}

# What was known is given, and nothing is changed.
stop_etcd_for_a_while() {
    local n
    for n in "${nodes[@]}"; do stop KILL "${etcd[n]}"; done
    check "without etcd a change is refused for now" wait_until 20 says 503 PUT 1 /v1/keys/never --data-binary "@$scratch/keys.json"
    check "and who asks is told when to ask again" grep -qi '^retry-after: ' "$scratch/head"
    check "what was known is told" has 1 after-the-sleep
    stop TERM "${control[2]}"
    start_control 2
    check "a control plane starts with the last state" wait_until 20 has 2 after-the-sleep
    check "and says so in one line" test "$(grep -c 'the last state that was known is gone by' "$scratch/control2.log")" = 1
    for n in "${nodes[@]}"; do start_etcd "$n"; done
    check "all of them are back with etcd" wait_until 60 all_see 3
    changed 2 after-etcd
    check "what was refused was not done" fails has 1 never
}

stop_control_for_a_while() {
    local n before
    before=$(metric 1 tidegate_fleet_snapshot_counter)
    for n in "${nodes[@]}"; do
        stop TERM "${control[n]}"
        control[n]=
    done
    check "the age of the snapshot shows" wait_until 30 older_than 6
    for n in "${nodes[@]}"; do start_control "$n"; done
    check "control planes come back" wait_until 30 all_see 3
    check "boxes are heard again by themselves" wait_until 60 all_heard
    check "the snapshot is confirmed" wait_until 60 younger_than 5
    for n in "${nodes[@]}"; do
        check "control plane $n has all changes" has_all "$n"
    done
    changed 3 at-last
}

older_than() {
    local n
    for n in "${boxes[@]}"; do [ "$(metric "$n" tidegate_fleet_snapshot_age_seconds)" -gt "$1" ] || return 1; done
}

younger_than() {
    local n
    for n in "${boxes[@]}"; do [ "$(metric "$n" tidegate_fleet_snapshot_age_seconds)" -lt "$1" ] || return 1; done
}

has_all() {
    local name
    for name in before after-a-kill after-etcds-leader while-suspended after-the-sleep large after-etcd; do
        has "$1" "$name" || { echo "keys $name are gone"; return 1; }
    done
}

# It is silent for longer than its lease: what it wakes up to is that another one leads.
suspend_leader() {
    local lead other n
    lead=$(leader_of_control)
    other=$((lead % 3 + 1))
    kill -STOP "${control[lead]}"
    check "another control plane leads when the one that did is silent" wait_until 30 sees "$other" 2
    changed "$other" while-the-leader-slept
    kill -CONT "${control[lead]}"
    check "who led sees that it does no more" wait_until 30 all_see 3
    check "and is followed by nobody" test "$(leader_of_control | wc -l)" = 1
    for n in "${nodes[@]}"; do changed "$n" "awake-$n"; done
}

# What large values lie in is swept under them: all else goes on, and who puts them again mends them.
lose_parts() {
    local name before
    { cat "$scratch/large.json" && echo; } >"$scratch/mended.json"
    check "parts are removed" etcdctl --endpoints "127.0.0.1:${clients[1]}" del --prefix /fleet/one/values/
    stop TERM "${control[1]}"
    start_control 1
    check "a control plane starts though parts are gone" wait_until 30 all_see 3
    check "it knows all else" wait_until 10 has 1 at-last
    check "and what is gone it has from the copy on its disk" has 1 large
    for name in large larger; do
        before=$(metric 1 tidegate_fleet_snapshot_counter)
        check "it is put again" wait_until 20 says 204 PUT 1 "/v1/keys/$name" --data-binary "@$scratch/mended.json"
        check "all boxes are told of that" wait_until 40 all_later_than "$before"
    done
    check "and others have it" wait_until 10 exported 3 larger "$scratch/mended.json"
    check "nobody has lost anything else" has_all 2
}

# A backup of etcd is restored under control planes that run: they go by it, and boxes do once the epoch is raised.
# One of them sleeps until etcd has grown past what it saw: no revision says that it went back.
go_back() {
    local n before last
    check "a backup of etcd is made" etcdctl --endpoints "127.0.0.1:${clients[1]}" snapshot save "$scratch/backup"
    changed 1 after-the-backup
    # Others may use the same etcd.
    for n in {1..60}; do etcdctl --endpoints "127.0.0.1:${clients[1]}" put /others "$n" >/dev/null; done
    for n in "${nodes[@]}"; do changed "$n" "after-the-backup-$n"; done
    before=$(metric 1 tidegate_fleet_snapshot_counter)
    check "all boxes have the last snapshot" wait_until 20 all_later_than $((before - 1))
    kill -STOP "${control[3]}"
    last=$(revision 1)
    for n in "${nodes[@]}"; do
        stop KILL "${etcd[n]}"
        rm -r "$scratch/etcd$n"
    done
    for n in "${nodes[@]}"; do
        check "it is restored" etcdctl snapshot restore "$scratch/backup" --name "e$n" --data-dir "$scratch/etcd$n" \
            --initial-cluster "$cluster" --initial-cluster-token tidegate --initial-advertise-peer-urls "http://127.0.0.1:${peers[n]}"
    done
    for n in "${nodes[@]}"; do start_etcd "$n"; done
    for n in 1 2; do check "control plane $n sees that etcd went back" wait_until 40 went_back "$n"; done
    while [ "$(revision 1)" -le "$last" ]; do
        for n in {1..50}; do etcdctl --endpoints "127.0.0.1:${clients[1]}" put /others "$n" >/dev/null; done
    done
    kill -CONT "${control[3]}"
    check "who slept meanwhile sees it by the snapshots" wait_until 40 went_back 3
    check "and they see each other" wait_until 40 all_see 3
    check "what came after the backup is gone" fails has 3 after-the-backup
    check "what is changed now is kept" wait_until 20 says 204 PUT 1 /v1/keys/after-going-back --data-binary "@$scratch/keys.json"
    check "and seen by others" wait_until 10 has 3 after-going-back
    check "boxes take nothing older than they have" all_later_than $((before - 1))
    check "the epoch is raised" "$binary" control raise-epoch --config "$scratch/control1.toml"
    check "boxes go by the snapshots of that" wait_until 60 in_epoch 2
    changed 3 in-the-next-epoch
}

# revision N: that of etcd, as its Nth member has it.
revision() {
    etcdctl --endpoints "127.0.0.1:${clients[$1]}" endpoint status --write-out json |
        python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["Status"]["header"]["revision"])'
}

went_back() { grep -q 'etcd has gone back to snapshot' "$scratch/control$1.log"; }

# in_epoch EPOCH: whether that of all boxes' snapshots is it.
in_epoch() {
    local n
    for n in "${boxes[@]}"; do [ "$(metric "$n" tidegate_fleet_snapshot_epoch)" = "$1" ] || return 1; done
}

# By commands on a machine of an operator's, who takes part in nothing.
move_to_another_prefix() {
    local file=$scratch/exported.json
    sed "s|^state = .*|state = \"$scratch/one\"|" "$scratch/control1.toml" >"$scratch/one.toml"
    sed -e "s|^state = .*|state = \"$scratch/two\"|" -e 's|"/fleet/one"|"/fleet/two"|' "$scratch/control1.toml" >"$scratch/two.toml"
    check "the state is exported" "$binary" control export --config "$scratch/one.toml"
    # More of it than etcd takes in one transaction.
    python3 -c '
import json, sys
state = json.load(open(sys.argv[1]))
state["codes"] = {"%064x" % n: {"name": "edge-9", "expires_at": 4000000000, "by": "anna"} for n in range(300)}
json.dump(state, open(sys.argv[2], "w"))' "$scratch/check.log" "$file"
    check "who exports leaves no copy behind" test -e "$scratch/one/ca.key" -a ! -e "$scratch/one/etcd.last"
    check "it is imported under another prefix" "$binary" control import "$file" --config "$scratch/two.toml"
    check "once" fails "$binary" control import "$file" --config "$scratch/two.toml"
    "$binary" control export --config "$scratch/two.toml" >"$scratch/imported.json"
    check "as it was" python3 -c 'import json, sys; sys.exit(json.load(open(sys.argv[1])) != json.load(open(sys.argv[2])))' "$file" "$scratch/imported.json"
}

remove_a_box() {
    local n
    python3 -c '
import json, pathlib, sys
kept = [json.loads(one.read_text()) for one in pathlib.Path(sys.argv[1]).glob("*.json")]
kept = next(one for one in kept if "key_pem" in one)
print(kept["key_pem"] + kept["given"]["certificate_pem"])' "$scratch/box5/fleet" >"$scratch/box5.pem"
    for n in "${nodes[@]}"; do check "control plane $n believes a box" as_box 200 "$n"; done
    check "it is removed by one of them" says 204 DELETE 1 /v1/appliances/edge-5
    for n in "${nodes[@]}"; do check "control plane $n believes it no more" wait_until 5 as_box 403 "$n"; done
    boxes=(1 2 3 4)
    check "all others are told of four" wait_until 40 all_boxes_know 4
    changed 2 after-a-removal
}

# All that etcd had is gone under control planes that run: they keep what they have, and what they have on their disks is
# taken over again.
lose_all() {
    local n
    check "the last state is copied" wait_until 10 grep -q after-a-removal "$scratch/control1/etcd.last"
    check "all of the fleet is removed from etcd" etcdctl --endpoints "127.0.0.1:${clients[1]}" del --prefix /fleet/one/
    for n in "${nodes[@]}"; do
        check "control plane $n says so" wait_until 20 grep -q 'etcd has nothing of this fleet any more' "$scratch/control$n.log"
        check "and what to do, for a change" wait_until 20 says 503 PUT "$n" /v1/keys/never --data-binary "@$scratch/keys.json"
        check "what was known is told" has "$n" after-a-removal
    done
    for n in "${nodes[@]}"; do
        stop TERM "${control[n]}"
        control[n]=
    done
    check "none begins anew" fails "$binary" control --config "$scratch/control1.toml"
    check "nor is it exported" fails "$binary" control export --config "$scratch/control2.toml"
    check "the last state is imported" "$binary" control import "$scratch/control1/etcd.last" --config "$scratch/control1.toml"
    for n in "${nodes[@]}"; do start_control "$n"; done
    check "control planes come back with it" wait_until 30 all_see 3
    check "all others are told of four again" wait_until 40 all_boxes_know 4
    changed 3 after-all-was-lost
    check "who was removed stays so" as_box 403 2
}

# as_box STATUS N: what the Nth control plane says to box 5, which asks for a snapshot.
as_box() {
    [ "$(curl --silent --max-time 8 --insecure --cert "$scratch/box5.pem" --output /dev/null --write-out '%{http_code}' \
        "https://127.0.0.1:${controls[$2]}/v1/snapshot?after=0.0")" = "$1" ]
}

# An etcd that nobody has ever reached: one line, and no control plane.
refuse_without_etcd() {
    local status=0
    "$binary" control --config "$scratch/control1.toml" >"$scratch/refused" 2>&1 || status=$?
    check "an etcd that cannot be reached is told in one line" test "$status" = 1 -a "$(wc -l <"$scratch/refused")" = 1
    check "which says where it should be" grep -q "cannot be reached: http://127.0.0.1:" "$scratch/refused"
}

declare -a clients peers controls http admin etcd control
main
