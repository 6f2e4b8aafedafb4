# Sourced by test scripts, after checks.sh: a control plane that steers, and three boxes that are enrolled
# with it, each a process of its own with a cache of its own in front of one origin.
#
# Its settings are short, so that what takes minutes elsewhere takes seconds: boxes are heard twice a second
# and ill after two seconds of silence, and players ask every four seconds while all is well. Not more often:
# Shaka Player (5.2) never asks again where it is to do so before it has loaded.
fleet_boxes=(box-1 box-2 box-3)
declare -A box_host box_admin box_pid

# start_fleet OF_SITE ADDRESS ADDRESS ADDRESS: settings of the site of all boxes, and where each of them is. Needs
# $origin, the port of who has the film. Boxes are on one port where that is $box_port, and steering where it is to be.
start_fleet() {
    local name control of_site=$1
    shift
    control=$(free_port) steering=${steering:-$(free_port)} control_admin=$(free_port)
    echo "operator anna an-operators-token" >"$scratch/tokens"
    configure_control "$control" "$control_admin" >"$scratch/control.toml"
    "$binary" serve --config "$scratch/control.toml" 2>"$scratch/control.log" &
    started+=("$!")
    check "the control plane is ready" wait_until 30 curl --silent --fail "http://127.0.0.1:$control_admin/health/ready"
    for name in "${fleet_boxes[@]}"; do
        box_host[$name]=$1:${box_port:-$(free_port)} box_admin[$name]=$(free_port)
        mkdir "$scratch/$name"
        configure_box "$name" "$control" "$of_site" >"$scratch/$name/edge.toml"
        shift
        check "$name is enrolled" enrol "$name"
        "$binary" serve --config "$scratch/$name/edge.toml" 2>"$scratch/$name/edge.log" &
        box_pid[$name]=$!
        started+=("$!")
    done
    check "viewers are sent to three boxes" wait_until 30 steered_to "${#fleet_boxes[@]}"
    [ "$failures" -eq 0 ] || tail -n 20 "$scratch"/*.log "$scratch"/box-*/edge.log
}

configure_control() {
    cat <<TOML
[listeners]
http = []
steering = ["127.0.0.1:$steering"]
admin = ["127.0.0.1:$2"]
[memory]
ram = "64 MiB"
[log]
access = "off"
[ssd]
state = "$scratch/control-volumes.json"
[control]
listen = ["127.0.0.1:$1"]
state = "$scratch/control"
token_file = "$scratch/tokens"
heartbeat = "500ms"
[control.health]
good_heartbeats = 1
silent_after = "2s"
[steering]
spread = 1
ttl = { steady = "4s", unsettled = "10s" }
[[sites]]
name = "film"
hosts = ["127.0.0.1"]
origins = ["http://127.0.0.1:$origin"]
TOML
}

# configure_box NAME CONTROL OF_SITE
configure_box() {
    local at=${box_host[$1]}
    cat <<TOML
[listeners]
http = ["$at"]
admin = ["127.0.0.1:${box_admin[$1]}"]
[memory]
ram = "64 MiB"
[log]
access = "$scratch/$1/access.log"
[ssd]
state = "$scratch/$1/volumes.json"
[fleet]
control = ["https://127.0.0.1:$2"]
name = "$1"
host = "$at"
addresses = ["${at%:*}"]
capacity = "10 Gbit/s"
[[sites]]
name = "film"
hosts = ["${at%:*}"]
origins = ["http://127.0.0.1:$origin"]
lifetime.given = "1h"
cors = "*"
$3
TOML
}

enrol() {
    local code
    code=$("$binary" control code "$1" --config "$scratch/control.toml" | head -n 1)
    "$binary" enrol --config "$scratch/$1/edge.toml" --code "$code"
}

# ranked: what a viewer is told of the film, as JSON.
ranked() { curl --silent --fail --max-time 5 "http://127.0.0.1:$steering/steer/v1/rank/film/master.m3u8"; }

# steered_to COUNT: so many boxes are well.
steered_to() {
    ranked | python3 -c 'import json, sys; told = json.load(sys.stdin)
sys.exit(told["last_resort"] or len(told["ranked"]) != int(sys.argv[1]))' "$1"
}
